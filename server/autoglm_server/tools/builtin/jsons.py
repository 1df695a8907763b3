"""``json.query``: JMESPath over JSON. How far a query can multiply its data is known before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, TypedDict

from autoglm import wire
from autoglm.model import Effect, Json, Phrase, ToolExample
from autoglm.tool import Constraint, ToolError, tool

QUERY_MAX: Final = 1_000
"""Characters of a query."""

SIZE_MAX: Final = 2_000_000
"""How many values a query may give at the most: the data's, times how often the query can repeat them."""

_DEPTH_MAX: Final = 40
_TOLD_MAX: Final = 300

_ENGLISH: Final = (
    "(get|extract|select|find|show) {query:quoted} (from|in|of) [the] [json] {data:json}",
    "(get|extract|select|find|show) [the] {query:word} (from|in|of) [the] [json] {data:json}",
    "query {data:json} (with|for|by) {query:quoted}",
    "(run|apply) [the] [jmespath] [query] {query:quoted} (on|to|against) {data:json}",
)
_CHINESE: Final = (
    "[从|在] {data:json} [里|中] (提取|查询|取出|获取|查找) {query:quoted}",
    "[从|在] {data:json} [里|中] (提取|查询|取出|获取|查找) {query:word}",
    "用 {query:quoted} 查询 {data:json}",
    "(提取|查询|取出|获取) {data:json} [里|中|的] {query:quoted}",
)


class Queried(TypedDict):
    """What a query found: ``result``, null when there is nothing."""

    result: Any


@tool(
    name="json.query",
    title="Query JSON",
    effect=Effect.READ_ONLY,
    timeout=timedelta(seconds=10),
    tags=("json", "jmespath"),
    examples=(
        ToolExample(
            'get name from {"name": "Ann", "age": 40}',
            {"data": {"name": "Ann", "age": 40}, "query": "name"},
            {"result": "Ann"},
        ),
        ToolExample(
            'get "people[?age > `18`].name" from {"people": [{"name": "Ann", "age": 40}, {"name": "Bo", "age": 9}]}',
            {
                "data": {"people": [{"name": "Ann", "age": 40}, {"name": "Bo", "age": 9}]},
                "query": "people[?age > `18`].name",
            },
            {"result": ["Ann"]},
        ),
        ToolExample('get a.b from {"a": {"b": 3}}', {"data": {"a": {"b": 3}}, "query": "a.b"}, {"result": 3}),
    ),
    phrases=(
        *(Phrase(pattern, "The result is {output}.", "en") for pattern in _ENGLISH),
        *(Phrase(pattern, "结果是 {output}。", "zh") for pattern in _CHINESE),
    ),
)
def query(data: Json, query: Annotated[str, Constraint(min_length=1, max_length=QUERY_MAX)]) -> Queried:
    """Find something in JSON by a JMESPath query.

    Args:
        data: Any JSON value. A string is read as JSON text.
        query: A JMESPath expression, such as "people[?age > `18`].name", "length(items)", "items[0].price".
    """
    import jmespath  # noqa: PLC0415  # only who queries pays for it
    from jmespath import exceptions  # noqa: PLC0415

    value = _parsed(data)
    try:
        compiled = jmespath.compile(query)
    except exceptions.EmptyExpressionError:
        raise ToolError("query is empty; write one, such as items[0].name", reason="INVALID_QUERY") from None
    except exceptions.LexerError as error:
        raise _invalid(query, f"{error.token_value!r} is no token", error.lexer_position) from None
    except exceptions.ParseError as error:
        raise _invalid(query, f"{_token(error.token_value)} is not expected", error.lex_position) from None
    except exceptions.JMESPathError as error:
        raise ToolError(f"query {query!r}: {error}", reason="INVALID_QUERY") from None
    except RecursionError:
        raise _too_deep() from None

    _check_growth(compiled.parsed, value)
    try:
        return Queried(result=_finished(compiled.search(value)))
    except (exceptions.JMESPathError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        # The library lets a few faults of the data through as Python's own errors. Its texts may hold all of the data.
        told = str(error)[:_TOLD_MAX]
        raise ToolError(f"query {query!r} does not fit the data: {told}", reason="QUERY_FAILED") from None


def _parsed(data: Json) -> Json:
    if not isinstance(data, str):
        return data

    try:
        return wire.parse_json(data)
    except ValueError as error:
        raise ToolError(f"data is a string that is no JSON: {error}; write JSON", reason="INVALID_JSON") from None


def _token(value: object) -> str:
    return "its end" if value is None else repr(value)


def _too_deep() -> ToolError:
    return ToolError(f"the query is nested deeper than {_DEPTH_MAX}; write a simpler one", reason="TOO_LARGE")


def _invalid(query: str, what: str, position: int | None) -> ToolError:
    at = len(query) if position is None else min(position, len(query))
    return ToolError(
        f"query {query!r}: {what} at character {at + 1}; write JMESPath, such as items[?price > `10`].name",
        reason="INVALID_QUERY",
        metadata={"position": str(at + 1)},
    )


def _check_growth(parsed: Mapping[str, Any], value: Json) -> None:
    growth = _growth(parsed, 0)
    size = _size(value)
    if growth * size > SIZE_MAX and growth > 1:
        raise ToolError(
            f"the query may repeat its data {growth:,} times, which has {size:,} values, and {SIZE_MAX:,} in all are allowed; "
            "use a query with fewer lists and objects inside each other",
            reason="TOO_LARGE",
        )


def _growth(node: Mapping[str, Any], depth: int) -> int:
    """Bound from above how many times a query can repeat its data: sums where it lists, products where it goes on."""
    if depth > _DEPTH_MAX:
        raise _too_deep()

    kind = node["type"]
    if kind == "literal":
        return max(_size(node["value"]), 1)

    children = [_growth(child, depth + 1) for child in node["children"] if isinstance(child, Mapping)]
    if kind in ("multi_select_list", "multi_select_hash", "function_expression"):
        return min(sum(children, start=len(children) if kind != "function_expression" else 1), SIZE_MAX * 10)

    if kind in ("comparator", "and_expression", "or_expression", "not_expression", "key_val_pair"):
        return max(children, default=1)

    product = 1
    for child in children:
        product = min(product * child, SIZE_MAX * 10)

    return product


def _size(value: Json) -> int:
    """Count the values in a JSON value, and a text by its length."""
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        size += 1 + (len(one) // 16 if isinstance(one, str) else 0)
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)

    return size


def _finished(value: Json) -> Json:
    """Check that a result is plain JSON; JMESPath gives an infinity for the sum of two huge numbers."""
    if violations := wire.check_json(value, "result", bytes_max=1_000_000):
        raise ToolError(f"{violations[0].field}: {violations[0].description}", reason="TOO_LARGE")

    return value
