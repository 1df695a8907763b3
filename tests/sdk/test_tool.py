"""The decorator: schemas from signatures and docstrings, reading arguments, writing results."""

from __future__ import annotations

import asyncio
import copy
import enum
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.model import CallContext, Effect, ToolProgress, ToolResult
from autoglm.tool import Constraint, FunctionTool, ToolContext, ToolError, tool, tool_digest


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A point of the plane."""

    x: float
    y: float = 0.0


class Options(TypedDict):
    depth: int
    label: NotRequired[str]


@dataclass
class Tree:
    children: list[Tree]


Celsius = NewType("Celsius", float)


@tool(name="shapes.draw", effect=Effect.IDEMPOTENT, tags=["shapes"], timeout=timedelta(seconds=3))
def draw(
    points: list[Point],
    color: Color = Color.RED,
    width: Annotated[int, Constraint(minimum=1, maximum=9), "In pixels."] = 1,
    label: str | None = None,
    context: ToolContext | None = None,
    style: Literal["solid", "dotted"] = "solid",
    extra: dict[str, tuple[int, ...]] | None = None,
) -> dict[str, float]:
    """Draw a line
    through points.

    What comes after the first paragraph is not told.

    Args:
        points: Where it goes through,
            in order.
        color (Color): Its color.

    Returns:
        Its length.
    """
    assert all(isinstance(point, Point) for point in points)
    assert isinstance(color, Color)
    return {"length": float(len(points))}


def schema(made: FunctionTool) -> Any:
    return json.loads(made.spec.input_schema)


def test_signature_and_docstring_become_the_schema() -> None:
    assert draw.spec.name == "shapes.draw"
    assert draw.spec.description == "Draw a line through points."
    assert draw.spec.effect is Effect.IDEMPOTENT
    assert draw.spec.timeout == timedelta(seconds=3)
    assert draw.run == "thread"
    assert schema(draw) == {
        "type": "object",
        "properties": {
            "points": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                    "required": ["x"],
                    "additionalProperties": False,
                    "description": "A point of the plane.",
                },
                "description": "Where it goes through, in order.",
            },
            "color": {"type": "string", "enum": ["red", "blue"], "description": "Its color.", "default": "red"},
            "width": {"type": "integer", "minimum": 1, "maximum": 9, "description": "In pixels.", "default": 1},
            "label": {"type": ["string", "null"], "default": None},
            "style": {"type": "string", "enum": ["solid", "dotted"], "default": "solid"},
            "extra": {
                "anyOf": [
                    {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
                    {"type": "null"},
                ],
                "default": None,
            },
        },
        "required": ["points"],
        "additionalProperties": False,
    }
    assert json.loads(draw.spec.output_schema) == {
        "description": "Its length.",
        "type": "object",
        "additionalProperties": {"type": "number"},
    }


def test_the_function_stays_what_it_was() -> None:
    assert draw([Point(1)]) == {"length": 1.0}
    assert getattr(draw, "__name__", "") == "draw"
    assert (draw.__doc__ or "").startswith("Draw a line")


def test_arguments_are_read_as_the_types_of_the_parameters() -> None:
    context = ToolContext()
    keywords = draw.keywords({"points": [{"x": 1}], "color": "blue", "extra": {"a": [1, 2]}}, context)

    assert keywords == {"points": [Point(1.0)], "color": Color.BLUE, "extra": {"a": (1, 2)}, "context": context}
    assert type(keywords["points"][0].x) is float
    assert draw.function(**keywords) == {"length": 1.0}


def test_a_large_integer_is_read_from_its_decimal_string() -> None:
    @tool
    def double(number: int) -> int:
        return 2 * number

    assert double.keywords({"number": str(1 << 60)}, ToolContext()) == {"number": 1 << 60}


def test_bare_decorator_and_defaults() -> None:
    @tool
    async def ping(options: Options, celsius: Celsius, anything: Any, many: Sequence[str]) -> None:
        """Ping."""

    assert ping.spec.name == "ping"
    assert ping.spec.effect is Effect.NON_IDEMPOTENT
    assert ping.run == "async"
    assert schema(ping)["properties"] == {
        "options": {
            "type": "object",
            "properties": {"depth": {"type": "integer"}, "label": {"type": "string"}},
            "required": ["depth"],
            "additionalProperties": False,
        },
        "celsius": {"type": "number"},
        "anything": {},
        "many": {"type": "array", "items": {"type": "string"}},
    }
    assert ping.spec.output_schema == '{"type":"null"}'


def test_without_annotation_or_with_a_tool_result_any_output_is_allowed() -> None:
    @tool
    def free(x: int):  # type: ignore[no-untyped-def]  # noqa: ANN202  # what is tested
        return x

    @tool
    def whole() -> ToolResult:
        return ToolResult(output=1)

    assert free.spec.output_schema == ""
    assert whole.spec.output_schema == ""
    assert whole.result(whole()) == ToolResult(output=1)


def _bad_set(x: set[int]) -> None: ...
def _bad_keys(x: dict[int, str]) -> None: ...
def _bad_fixed(x: tuple[int, str]) -> None: ...
def _bad_class(x: threading.Event) -> None: ...
def _bad_recursive(x: Tree) -> None: ...
def _bad_callable(x: Callable[[], int]) -> None: ...
def _bad_missing(x) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is tested
def _bad_variadic(*x: int) -> None: ...
def _bad_keywords(**x: int) -> None: ...
def _bad_positional(x: int, /) -> None: ...
def _bad_default(x: str = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013  # what is tested
def _bad_two_contexts(x: ToolContext, y: ToolContext) -> None: ...
def _bad_result(x: int) -> set[int]: ...  # type: ignore[empty-body]  # only its signature is read
def _bad_choice(x: Literal[b"x"]) -> None: ...


def _bad_doc(x: int) -> None:
    """Do it.

    Args:
        y: It is called otherwise.
    """


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (_bad_set, "parameter 'x': set"),
        (_bad_keys, "keys that are not str"),
        (_bad_fixed, "fixed length"),
        (_bad_class, "Event has no JSON form"),
        (_bad_recursive, "Tree contains itself"),
        (_bad_callable, "has no JSON form"),
        (_bad_missing, "'x' has no annotation"),
        (_bad_variadic, "name each parameter"),
        (_bad_keywords, "name each parameter"),
        (_bad_positional, "positional-only"),
        (_bad_default, "write T | None"),
        (_bad_two_contexts, "keep one"),
        (_bad_result, "the result: set"),
        (_bad_choice, "neither a string"),
        (_bad_doc, "'y', which is no parameter"),
    ],
)
def test_what_has_no_schema_is_refused_at_decoration(function: Callable[..., Any], told: str) -> None:
    with pytest.raises(TypeError) as caught:
        tool(function)

    assert told in str(caught.value)
    assert function.__qualname__ in str(caught.value)


def test_an_unsupported_type_tells_what_is_supported() -> None:
    with pytest.raises(TypeError, match=r"supported are bool, int, .*dataclasses"):
        tool(_bad_set)


def test_bad_options_are_refused() -> None:
    def plain() -> None: ...

    async def coroutine() -> None: ...

    with pytest.raises(ValueError, match="tool name 'no spaces'"):
        tool(name="no spaces")(plain)

    with pytest.raises(ValueError, match="timeout"):
        tool(timeout=timedelta(0))(plain)

    with pytest.raises(ValueError, match="module level"):
        tool(run="process")(plain)

    with pytest.raises(ValueError, match="run='async'"):
        tool(run="thread")(coroutine)

    with pytest.raises(ValueError, match="write `async def`"):
        tool(run="async")(plain)


def test_results_become_json() -> None:
    @tool
    def plain() -> None: ...

    assert plain.result({"a": (Point(1, 2), Color.BLUE), "b": None}).output == {
        "a": [{"x": 1, "y": 2}, "blue"],
        "b": None,
    }
    with pytest.raises(TypeError, match=r"output\.a\[1\] is a set"):
        plain.result({"a": [1, {2}]})

    with pytest.raises(TypeError, match="nan"):
        plain.result([float("nan")])

    with pytest.raises(TypeError, match="key 1"):
        plain.result({1: 2})

    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(TypeError, match="deeper"):
        plain.result(deep)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda kids: st.lists(kids, max_size=3)))
def test_json_passes_through_unchanged(value: Any) -> None:
    @tool
    def same(value: Any) -> Any:
        return value

    assert same.result(same(**same.keywords({"value": value}, ToolContext()))).output == value


def test_context_tells_of_the_call() -> None:
    seen: list[ToolProgress] = []
    cancelled = threading.Event()
    context = ToolContext(
        idempotency_key="p/s",
        call=CallContext(plan_id="p", step_id="s", attempt=2, principal="ann"),
        report=seen.append,
        cancelled=cancelled,
    )

    assert (context.plan_id, context.step_id, context.attempt, context.principal) == ("p", "s", 2, "ann")
    context.raise_if_cancelled()
    context.progress(1.0000001, "done", {"rows": (1, 2)})
    context.progress(float("nan"))
    assert seen == [ToolProgress(1.0, "done", {"rows": [1, 2]}), ToolProgress(0.0)]

    cancelled.set()
    assert context.wait_cancelled(60)
    with pytest.raises(asyncio.CancelledError):
        context.raise_if_cancelled()


def test_a_context_alone_is_enough_for_a_test() -> None:
    ToolContext().progress(0.5, "nobody listens")
    assert not ToolContext().cancelled


def test_tool_error_is_data() -> None:
    error = ToolError("No such file.", reason="NOT_THERE", retryable=True, metadata={"path": "a"})
    failure = error.to_failure("files.read")

    assert (failure.reason, failure.domain, failure.message) == ("NOT_THERE", "files.read", "No such file.")
    assert failure.retryable
    assert failure.metadata == {"path": "a"}
    with pytest.raises(ValueError, match="UPPER_SNAKE"):
        ToolError("x", reason="not there")


def test_digest_is_of_name_effect_and_schemas_alone() -> None:
    first = tool_digest(draw.spec)
    reordered = json.dumps(dict(reversed(schema(draw).items())))

    assert first.startswith("sha256:")
    assert tool_digest(replace(draw.spec, description="Other", tags=(), provider="p")) == first
    assert tool_digest(replace(draw.spec, input_schema=reordered)) == first
    for changed in ({"name": "x"}, {"effect": Effect.READ_ONLY}, {"input_schema": "{}"}, {"output_schema": ""}):
        assert tool_digest(replace(draw.spec, **changed)) != first

    unspecified = replace(draw.spec, effect=Effect.UNSPECIFIED)
    assert tool_digest(unspecified) == tool_digest(replace(draw.spec, effect=Effect.NON_IDEMPOTENT))


def test_a_function_that_changes_its_arguments_changes_nothing_of_the_callers() -> None:
    @tool
    def spoil(
        anything: Any,
        mapping: dict[str, Any],
        items: list[Any],
        plain: dict,  # type: ignore[type-arg]
        several: list,  # type: ignore[type-arg]
        some: Any = None,
    ) -> None:
        for one in (anything, mapping["a"], items[0], plain["a"], several[0], some):
            one["spoiled"] = True

        for other in (mapping, plain):
            other.clear()

        several.append(1)

    arguments: dict[str, Any] = {
        "anything": {"x": 1},
        "mapping": {"a": {"x": 1}},
        "items": [{"x": 1}],
        "plain": {"a": {"x": 1}},
        "several": [{"x": 1}],
        "some": {"x": 1},
    }
    before = copy.deepcopy(arguments)
    spoil.function(**spoil.keywords(arguments, None))
    assert arguments == before


def test_mapping_parameters_are_read_value_by_value() -> None:
    @tool
    def colors(by_name: Mapping[str, Color]) -> list[Color]:
        return list(by_name.values())

    keywords = colors.keywords({"by_name": {"a": "red"}}, ToolContext())
    assert colors.result(colors.function(**keywords)).output == ["red"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"effect": "idempotent"}, r"tool nap: effect is 'idempotent'; write one of .*Effect\.IDEMPOTENT"),
        ({"timeout": 5}, r"tool nap: timeout is 5; write a timedelta"),
    ],
)
def test_an_effect_or_time_limit_of_another_type_is_told_in_words(more: dict[str, Any], told: str) -> None:
    def nap() -> None:
        """Rest."""

    with pytest.raises(TypeError, match=told):
        tool(nap, **more)
