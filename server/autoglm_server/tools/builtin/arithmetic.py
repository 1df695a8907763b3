"""``math.calculate``: exact arithmetic in a grammar of its own. Nothing is ever evaluated as Python."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Annotated, TypedDict

from autoglm.model import Effect, ToolExample
from autoglm.tool import Constraint, tool
from autoglm_server.tools.builtin._arithmetic_phrases import CALCULATE
from autoglm_server.tools.builtin._grammar import evaluate
from autoglm_server.tools.builtin._numbers import Number, too_large
from autoglm_server.tools.builtin._tokens import LENGTH_MAX


class Calculated(TypedDict):
    """What an expression is: ``result``, its value; ``exact``, if that is not rounded; ``expression``, as it was read."""

    result: float
    exact: bool
    expression: str


@tool(
    name="math.calculate",
    title="Calculate",
    effect=Effect.READ_ONLY,
    timeout=timedelta(seconds=10),
    tags=("math", "arithmetic", "percent"),
    examples=(
        ToolExample(
            "15% of 2480",
            {"expression": "15% of 2480"},
            {"result": 372, "exact": True, "expression": "15% of 2480"},
        ),
        ToolExample(
            "2480 + 15%",
            {"expression": "2480 + 15%"},
            {"result": 2852, "exact": True, "expression": "2480 + 15%"},
        ),
        ToolExample(
            "what is two to the power of ten plus 5",
            {"expression": "2 ^ 10 + 5"},
            {"result": 1029, "exact": True, "expression": "2 ^ 10 + 5"},
        ),
    ),
    phrases=CALCULATE,
)
def calculate(expression: Annotated[str, Constraint(min_length=1, max_length=LENGTH_MAX)]) -> Calculated:
    """Calculate the value of an arithmetic expression, exactly where that is possible: 0.1 + 0.2 is 0.3.

    Knows + - * / // % ^ ! and parentheses, percentages (15% of 2480; 2480 + 15% is 2852), sqrt cbrt abs round floor ceil
    trunc min max sum product average median gcd lcm log (base 10) ln log2 exp sin cos tan asin acos atan (radians; 30°
    are degrees) factorial, pi and e, thousands separators, and the words of English and Chinese for these. Halves are
    rounded away from zero; // and % round towards minus infinity.

    Args:
        expression: What to calculate, such as "15% of 2480", "(3 + 4) * 12.5", "max(3, 8) squared", "2480的百分之十五".
    """
    value = evaluate(expression)
    result, exact = _plain(value.number)
    return Calculated(result=result, exact=exact, expression=value.text)


def _plain(number: Number) -> tuple[int | float, bool]:
    """Give a number as JSON has it, and whether that is still the exact value."""
    if isinstance(number, int):
        return number, True

    if isinstance(number, float):
        return int(number) if number.is_integer() and abs(number) < 2**53 else number, False

    try:
        nearest = float(number)
    except OverflowError:
        raise too_large("the result") from None

    return nearest, Fraction(repr(nearest)) == number
