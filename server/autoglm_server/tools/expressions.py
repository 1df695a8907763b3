"""JMESPath that cannot run away: what ``${step.path}`` and ``json.query`` evaluate.

Expressions come from callers and models, and outputs from anywhere, so both are bounded. Before it runs: the length,
the nesting, and how much larger than its input a result can be (``[@, @] | [@, @] | …`` doubles each time). While it
runs: the nodes visited, and what ``join`` would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final, TypeAlias

import jmespath.exceptions
import jmespath.functions
import jmespath.parser
import jmespath.visitor

from autoglm.model import Json

LENGTH_MAX: Final = 1024
"""How long an expression may be, in characters."""
NESTING_MAX: Final = 64
"""How deep its syntax tree may be."""
GROWTH_MAX: Final = 64
"""How many times larger than its input a result can at most be."""
VISITS_MAX: Final = 100_000
"""How many nodes one evaluation may visit; about a tenth of a second."""
JOINED_MAX: Final = 1 << 20
"""How many characters ``join`` may write."""

Expression: TypeAlias = Callable[[Json], Json]
"""Evaluates an expression on a value.

Raises:
    ExpressionError: the expression does not fit the value (a function was given the wrong type), or ran into a limit.
"""

_Node: TypeAlias = Any
"""A node of jmespath's tree: a dict of type, children and perhaps value."""

_PLAIN = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*|\[-?[0-9]{1,9}\])(?:\.[A-Za-z_][A-Za-z0-9_]*|\[-?[0-9]{1,9}\])*")
_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|-?[0-9]+")
_ESCAPED = 6
"""The most that ``to_string`` makes of one character: ``\\u0000``."""


class ExpressionError(ValueError):
    """An expression cannot be read, or could not be evaluated; the message is a sentence about it."""


class _Functions(jmespath.functions.Functions):
    """The standard functions; ``join`` with a bound, because it alone multiplies the sizes of its arguments."""

    @jmespath.functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, array: list[str]) -> str:
        if len(separator) * len(array) + sum(map(len, array)) > JOINED_MAX:
            raise ExpressionError(f"join() would write more than {JOINED_MAX} characters")

        return separator.join(array)


_FUNCTIONS = _Functions()


class _Interpreter(jmespath.visitor.TreeInterpreter):
    """Evaluates one expression once, visiting at most :data:`VISITS_MAX` nodes."""

    def __init__(self) -> None:
        super().__init__(jmespath.visitor.Options(custom_functions=_FUNCTIONS))
        self._visits = 0

    def visit(self, node: _Node, *args: Any, **kwargs: Any) -> Any:
        self._visits += 1
        if self._visits > VISITS_MAX:
            raise ExpressionError(f"it takes more than {VISITS_MAX} steps on this value; narrow it down first")

        return super().visit(node, *args, **kwargs)


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Expression:
    """Compile a JMESPath expression; plain dotted paths such as ``items[0].name`` become a direct walk.

    Raises:
        ExpressionError: it is not JMESPath, calls a function that does not exist, or is beyond a limit.
    """
    if len(text) > LENGTH_MAX:
        raise ExpressionError(f"it is {len(text)} characters long, at most {LENGTH_MAX} are allowed")

    if _PLAIN.fullmatch(text):
        return _walk(tuple(int(part) if part.lstrip("-").isdigit() else part for part in _PART.findall(text)))

    try:
        tree: _Node = jmespath.parser.Parser().parse(text).parsed
    except (jmespath.exceptions.JMESPathError, ValueError) as error:
        raise ExpressionError(f"it is not JMESPath: {_first_line(error)}") from None
    except RecursionError:
        raise ExpressionError(f"it is nested more than {NESTING_MAX} deep") from None

    _check(tree)
    return lambda value: _evaluate(tree, value)


def _walk(path: tuple[str | int, ...]) -> Expression:
    def evaluate(value: Json) -> Json:
        for part in path:
            if isinstance(part, str):
                value = value.get(part) if isinstance(value, dict) else None
            else:
                value = value[part] if isinstance(value, list) and -len(value) <= part < len(value) else None

        return value

    return evaluate


def _evaluate(tree: _Node, value: Json) -> Json:
    try:
        return _Interpreter().visit(tree, value)
    except ExpressionError:
        raise
    except (jmespath.exceptions.JMESPathError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
        # The library lets some faults of a value through as Python's own errors.
        raise ExpressionError(_first_line(error)) from None
    except RecursionError:
        raise ExpressionError("the value is nested too deep for it") from None


def _check(tree: _Node) -> None:
    for node, depth in _nodes(tree):
        if depth > NESTING_MAX:
            raise ExpressionError(f"it is nested more than {NESTING_MAX} deep")

        if node["type"] == "function_expression":
            _check_function(node)

        if node["type"] == "slice" and node["children"][2] == 0:
            raise ExpressionError("the step of a slice is 0")

    if _growth(tree) > GROWTH_MAX:
        raise ExpressionError(f"its result can be more than {GROWTH_MAX} times as large as what it is applied to")


def _check_function(node: _Node) -> None:
    name, given = node["value"], len(node["children"])
    known = _FUNCTIONS.FUNCTION_TABLE.get(name)
    if known is None:
        raise ExpressionError(f"there is no function {name}()")

    signature = known["signature"]
    variadic = bool(signature) and signature[-1].get("variadic", False)
    if given < len(signature) or (given > len(signature) and not variadic):
        least = "at least " if variadic else ""
        raise ExpressionError(f"{name}() takes {least}{len(signature)} arguments, not {given}")


def _nodes(tree: _Node) -> Iterator[tuple[_Node, int]]:
    waiting = [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting.extend((child, depth + 1) for child in node["children"] if isinstance(child, dict))


def _growth(node: _Node) -> int:
    children = [_growth(child) for child in node["children"] if isinstance(child, dict)]
    match node["type"]:
        case "multi_select_list" | "multi_select_dict":
            return sum(children)

        case "function_expression":
            factor = _ESCAPED if node["value"] == "to_string" else 1
            return factor * _function_growth(node["value"], children)

        case "or_expression" | "and_expression" | "comparator":
            return max(children)

        case _:
            # A chain: each child is applied to what the one before gave.
            product = 1
            for child in children:
                product *= child

            return product


def _function_growth(name: str, children: list[int]) -> int:
    if name == "map":
        return children[0] * children[1]

    return sum(children)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
