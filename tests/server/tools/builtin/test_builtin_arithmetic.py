"""math.calculate against tables of expressions, and against Python's fractions on expressions made at random."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.tool import ToolError
from autoglm_server.tools.builtin._grammar import evaluate
from autoglm_server.tools.builtin.arithmetic import calculate

EXACT = {
    "1 + 2 * 3": 7,
    "(1 + 2) * 3": 9,
    "2 ^ 3 ^ 2": 512,
    "-2 ^ 2": -4,
    "2 ^ -2": 0.25,
    "2 ** 10": 1024,
    "--3": 3,
    "+-+3": -3,
    "10 / 4": 2.5,
    "7 // 2": 3,
    "-7 // 2": -4,
    "-7 % 3": 2,
    "10 mod 3": 1,
    "10 % 3": 1,
    "10 % (0 - 3)": -2,
    "0.1 + 0.2": 0.3,
    "1.1 * 1.1": 1.21,
    "1,234.5 * 2": 2469,
    "1,000,000": 1_000_000,
    "2.5e3": 2500,
    "5!": 120,
    "3!!": 720,
    "0!": 1,
    "0 ^ 0": 1,
    "(-1) ^ 1e9": 1,
    "1 ^ 99999999": 1,
    "2(3 + 4)": 14,
    "2²": 4,
    "27 ^ (1/3)": 3,
    "(-8) ^ (1/3)": -2,
    "(4/9) ^ 0.5": pytest.approx(2 / 3),
    "10 % -3": -2.9,
    # Percentages: of the left side after + and -, a plain hundredth elsewhere.
    "15%": 0.15,
    "15% of 2480": 372,
    "2480 + 15%": 2852,
    "2480 - 15%": 2108,
    "100 - 10% - 10%": 81,
    "100 + (15%)": 100.15,
    "10% + 5%": 0.15,
    "200 * 50%": 100,
    "100 + 10% * 50": 105,
    "20% off 80": 64,
    "1/2 of 10": 5,
    "50% ^ 2": 0.25,
    # Functions
    "sqrt(16) + 9": 25 - 12,
    "sqrt 16 + 9": 13,
    "cbrt(-27)": -3,
    "abs(-3.5)": 3.5,
    "round(2.5)": 3,
    "round(-2.5)": -3,
    "round(2.675, 2)": 2.68,
    "round(1234, -2)": 1200,
    "floor(-2.1)": -3,
    "ceil(2.1)": 3,
    "trunc(-2.9)": -2,
    "min(3, 1, 2)": 1,
    "max(1,234)": 234,
    "sum(1, 2, 3)": 6,
    "product(2, 3, 4)": 24,
    "average(1, 2)": 1.5,
    "median(9, 1, 5, 3)": 4,
    "gcd(12, 18)": 6,
    "lcm(4, 6)": 12,
    # Words
    "3 plus 4 times 2": 11,
    "10 divided by 4": 2.5,
    "three hundred and twenty minus twenty-five": 295,
    "two to the power of ten": 1024,
    "five squared": 25,
    "square root of 144": 12,
    "15 percent of 80": 12,
    "100 plus 15 percent": 115,
    "half of 9": 4.5,
    "2.5 million / 5": 500_000,
    "what is 2 + 2?": 4,
    "2 + 2 =": 4,
    "$80 + $20": 100,
    # Chinese and full-width forms
    "１２＋３×２": 18,  # noqa: RUF001
    "6÷4−1": 0.5,  # noqa: RUF001
    "三加五乘二": 13,
    "十除以四": 2.5,
    "2480的15%": 372,
    "2480的百分之十五": 372,
    "百分之十五": 0.15,
    "3万加2千": 32_000,
    "一亿两千万": 120_000_000,
    "三点五减一": 2.5,
    "16的平方根": 4,
    "3的平方加4的平方": 25,
    "2的10次方": 1024,
    "5的阶乘": 120,
    "80的四分之三": 60,
    "100的一半": 50,
    "3的2倍": 6,
    "计算 1+1 等于多少": 2,
}

ROUNDED = {
    "1 / 3": 1 / 3,
    "sqrt(2)": math.sqrt(2),
    "2 ^ 0.5": math.sqrt(2),
    "2pi": 2 * math.pi,
    "e": math.e,
    "ln(e)": 1,
    "log(1000)": 3,
    "log(8, 2)": 3,
    "log2(1024)": 10,
    "log10(1e-400)": -400,
    "exp(1)": math.e,
    "sin(pi)": 0,
    "sin(30°)": 0.5,
    "cos(pi / 2)": 0,
    "tan(45°)": 1,
    "asin(1)": math.pi / 2,
    "1.0001 ^ 5000": 1.0001**5000,
}

FAULTS = [
    ("1 / 0", "DIVISION_BY_ZERO", "character 3", "divisor"),
    ("5 mod 0", "DIVISION_BY_ZERO", "5", "zero"),
    ("5 // (2 - 2)", "DIVISION_BY_ZERO", "5", "zero"),
    ("0 ^ -1", "DIVISION_BY_ZERO", "0 ^ -1", "positive exponent"),
    ("", "SYNTAX", "empty", "15% of 2480"),
    ("1 +", "SYNTAX", "ends", "character 4"),
    ("(1", "SYNTAX", "')'", "character 3"),
    ("1)", "SYNTAX", "')'", "character 2"),
    ("3 4", "SYNTAX", "'4'", "character 3"),
    ("1, 2", "SYNTAX", "comma", "average(1, 2)"),
    ("squrt(4)", "SYNTAX", "'squrt'", "did you mean 'sqrt'"),
    ("__import__('os')", "SYNTAX", "'_'", "character 1"),
    ("3 of 5", "SYNTAX", "'3'", "percentage"),
    ("$1 + €2", "SYNTAX", "two currencies", "convert"),
    ("sqrt(1, 2)", "SYNTAX", "1 number", "not 2"),
    ("ten five", "SYNTAX", "'ten five'", "no number"),
    ("2000!", "TOO_LARGE", "2000", "4,000 digits"),
    ("10 ^ 4001", "TOO_LARGE", "10 ^ 4001", "smaller"),
    ("9 ^ 9 ^ 9 ^ 9", "TOO_LARGE", "digits", "smaller"),
    ("1e99999999999", "TOO_LARGE", "character 1", "smaller"),
    ("exp(1000)", "TOO_LARGE", "exp(1000)", "1.8e308"),
    ("1e400 + 0.5", "TOO_LARGE", "result", "1.8e308"),
    ("sqrt(2) * 1e400", "TOO_LARGE", "result", "1.8e308"),
    ("(" * 100 + "1" + ")" * 100, "TOO_LARGE", "64 deep", "in parts"),
    ("-" * 100 + "1", "TOO_LARGE", "64 deep", "in parts"),
    ("2^" * 100 + "1", "TOO_LARGE", "64 deep", "in parts"),
    ("1+" * 2500 + "1", "TOO_LARGE", "5,001 characters", "4,000"),
    ("sqrt(-4)", "DOMAIN", "-4", "not negative"),
    ("(-8) ^ 0.5", "DOMAIN", "-8", "whole exponent"),
    ("ln(0)", "DOMAIN", "0", "above 0"),
    ("log(8, 1)", "DOMAIN", "1", "other than 1"),
    ("2.5!", "DOMAIN", "2.5", "whole number"),
    ("(-1)!", "DOMAIN", "-1", "not negative"),
    ("tan(pi / 2)", "DOMAIN", "tan", "another angle"),
    ("sin(1e20)", "DOMAIN", "sin", "9e15"),
    ("asin(2)", "DOMAIN", "2", "from -1 to 1"),
    ("gcd(1.5, 2)", "DOMAIN", "1.5", "whole numbers"),
    ("round(1, 0.5)", "DOMAIN", "0.5", "whole number"),
]


def reason_of(function: Callable[[], object]) -> str:
    """Give the reason of the ToolError that a call ends with, or nothing."""
    try:
        function()
    except ToolError as error:
        return error.reason

    return ""


@pytest.mark.parametrize(("expression", "value"), EXACT.items())
def test_gives_the_exact_value(expression: str, value: float) -> None:
    assert calculate(expression)["result"] == value


@pytest.mark.parametrize(("expression", "value"), ROUNDED.items())
def test_gives_the_nearest_value_and_says_that_it_is_rounded(expression: str, value: float) -> None:
    output = calculate(expression)
    assert output["result"] == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert not output["exact"]


@pytest.mark.parametrize(("expression", "reason", "named", "remedy"), FAULTS)
def test_says_what_is_wrong_where_and_what_to_do(expression: str, reason: str, named: str, remedy: str) -> None:
    with pytest.raises(ToolError) as caught:
        calculate(expression)

    assert caught.value.reason == reason
    assert named in caught.value.message
    assert remedy in caught.value.message
    assert len(caught.value.message) < 500


def test_keeps_integers_exact_far_beyond_floats() -> None:
    output = calculate("2 ^ 10000 + 1")
    assert output == {"result": 2**10000 + 1, "exact": True, "expression": "2 ^ 10000 + 1"}
    assert json.loads(json.dumps(output))["result"] == 2**10000 + 1


def test_says_whether_a_decimal_is_exact() -> None:
    assert calculate("0.1 + 0.2")["exact"]
    assert not calculate("1 / 3")["exact"]
    assert not calculate("12345678901234567.5 + 0.25")["exact"]


_LEAVES = st.one_of(
    st.integers(0, 999).map(lambda n: (str(n), Fraction(n))),
    st.decimals(0, 99, places=2, allow_nan=False).map(lambda d: (str(d), Fraction(str(d)))),
)
_Expression = tuple[str, Fraction | None]


def _joined(parts: tuple[_Expression, str, _Expression]) -> _Expression:
    (left, a), sign, (right, b) = parts
    text = f"({left}) {sign} ({right})"
    if a is None or b is None or (b == 0 and sign in ("/", "//", "mod")):
        return text, None

    match sign:
        case "+":
            return text, a + b
        case "-":
            return text, a - b
        case "*":
            return text, a * b
        case "/":
            return text, a / b
        case "//":
            return text, Fraction(a // b)
        case _:
            return text, a % b


_EXPRESSIONS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "mod"]), inner).map(_joined),
        inner.map(lambda one: (f"-({one[0]})", None if one[1] is None else -one[1])),
    ),
    max_leaves=12,
)


@given(_EXPRESSIONS)
def test_agrees_with_fractions(made: _Expression) -> None:
    expression, value = made
    if value is None:
        with pytest.raises(ToolError, match="by zero"):
            evaluate(expression)
    else:
        assert evaluate(expression).number == value


@given(st.lists(st.integers(0, 99), min_size=1, max_size=8), st.data())
def test_precedence_is_pythons(numbers: list[int], data: st.DataObject) -> None:
    signs = [data.draw(st.sampled_from(["+", "-", "*"])) for _ in numbers[1:]]
    expression = str(numbers[0]) + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))
    assert calculate(expression)["result"] == eval(expression)  # of digits and three signs


@given(_EXPRESSIONS)
def test_what_it_read_reads_the_same_again(made: _Expression) -> None:
    expression, value = made
    if value is not None:
        once = evaluate(expression)
        again = evaluate(once.text)
        assert (again.number, again.text) == (once.number, once.text)


@pytest.mark.parametrize("expression", [*EXACT, *ROUNDED])
def test_what_it_read_in_words_reads_the_same_again(expression: str) -> None:
    once = calculate(expression)
    assert calculate(once["expression"]) == once


_PIECES = [
    *"0123456789.,+-*/%^!()eEπ°√ ",
    "of ",
    "off ",
    "sqrt",
    "max(",
    "的",
    "百分之",
    "分之",
    "十",
    "万",
    "次方",
    "squared",
    "half",
]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES), max_size=25).map("".join)))
def test_never_fails_in_any_other_way_and_never_gives_infinity(expression: str) -> None:
    reason = reason_of(lambda: json.dumps(calculate(expression), allow_nan=False))
    assert reason in {"", "SYNTAX", "DIVISION_BY_ZERO", "TOO_LARGE", "DOMAIN"}
