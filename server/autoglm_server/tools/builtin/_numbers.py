"""Numbers for arithmetic: exact integers and fractions as long as they stay small enough, floats from there on.

A number is an ``int``, a :class:`~fractions.Fraction` that is no integer, or a finite ``float``. Nothing here gives infinity
or NaN, and no operation starts whose exact result would be larger than the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import TypeAlias

from autoglm.tool import ToolError

Number: TypeAlias = int | Fraction | float

DIGITS_MAX = 4_000
"""Decimal digits of the largest integer; above 4,300 Python refuses to write an integer as text, and so as JSON."""

_BITS_MAX = int(DIGITS_MAX * math.log2(10))
_FACTORIAL_MAX = next(n for n in range(1, DIGITS_MAX) if math.lgamma(n + 2) > DIGITS_MAX * math.log(10))


def too_large(what: str) -> ToolError:
    return ToolError(
        f"{what} is too large: an integer may have {DIGITS_MAX:,} digits and any other number be up to 1.8e308; "
        "use smaller numbers",
        reason="TOO_LARGE",
    )


def domain(message: str) -> ToolError:
    return ToolError(message, reason="DOMAIN")


def shown(number: Number) -> str:
    """Write a number for a message: short, however long the number is."""
    if isinstance(number, float):
        return repr(number)

    if number.denominator.bit_length() > 64 or number.numerator.bit_length() > 128:
        return "a number this long"

    exact = number if isinstance(number, int) else _terminating(number)
    return str(exact)


def _terminating(number: Fraction) -> str:
    """Write a fraction as a decimal when that is exact, else as numerator/denominator."""
    text = repr(float(number))
    return text if Fraction(text) == number else str(number)


def settle(number: Number, what: str = "the result") -> Number:
    """Bring a number to its one form: an exact whole one is an int, a huge fraction a float; refuse what is too large."""
    if isinstance(number, float):
        if not math.isfinite(number):
            raise too_large(what)

        return number

    if number.denominator == 1:
        whole = number.numerator
        if whole.bit_length() > _BITS_MAX:
            raise too_large(what)

        return whole

    if max(number.numerator.bit_length(), number.denominator.bit_length()) > _BITS_MAX:
        return _to_float(number, what)

    return number


def _to_float(number: Number, what: str = "the result") -> float:
    try:
        return float(number)
    except OverflowError:
        raise too_large(what) from None


def add(left: Number, right: Number) -> Number:
    return _combine(left, right, lambda a, b: a + b, lambda a, b: a + b)


def subtract(left: Number, right: Number) -> Number:
    return _combine(left, right, lambda a, b: a - b, lambda a, b: a - b)


def multiply(left: Number, right: Number) -> Number:
    return _combine(left, right, lambda a, b: a * b, lambda a, b: a * b)


def divide(left: Number, right: Number) -> Number:
    _check_divisor(left, right)
    return _combine(left, right, lambda a, b: Fraction(a) / b, lambda a, b: a / b)


def floor_divide(left: Number, right: Number) -> Number:
    """Divide and round towards minus infinity."""
    _check_divisor(left, right)
    return _combine(left, right, lambda a, b: a // b, lambda a, b: a // b)


def modulo(left: Number, right: Number) -> Number:
    """Give what floor division leaves; it has the sign of ``right``."""
    _check_divisor(left, right)
    return _combine(left, right, lambda a, b: a % b, lambda a, b: a % b)


def _check_divisor(left: Number, right: Number) -> None:
    if right == 0:
        raise ToolError(f"cannot divide {shown(left)} by zero; change the divisor", reason="DIVISION_BY_ZERO")


def _combine(
    left: Number,
    right: Number,
    exact: Callable[[int | Fraction, int | Fraction], int | Fraction],
    rounded: Callable[[float, float], float],
) -> Number:
    if not isinstance(left, float) and not isinstance(right, float):
        return settle(exact(left, right))

    try:
        return settle(rounded(_to_float(left), _to_float(right)))
    except OverflowError:
        raise too_large("the result") from None


def power(base: Number, exponent: Number) -> Number:
    """Raise ``base`` to ``exponent``; its size is known before it is computed."""
    if isinstance(exponent, int) and not isinstance(base, float):
        return _integer_power(base, exponent)

    if isinstance(exponent, Fraction) and not isinstance(base, float):
        root = _exact_root(base, exponent.denominator)
        if root is not None:
            return _integer_power(root, exponent.numerator)

    return _float_power(base, exponent)


def _integer_power(base: int | Fraction, exponent: int) -> Number:
    if base == 0 and exponent < 0:
        raise ToolError(f"0 ^ {shown(exponent)} divides by zero; use a positive exponent", reason="DIVISION_BY_ZERO")

    if base in (0, 1):
        return 1 if exponent == 0 else settle(base)

    if base == -1:
        return -1 if exponent % 2 else 1

    bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length()) - 1
    if bits * abs(exponent) <= _BITS_MAX:
        return settle(Fraction(base) ** exponent, f"{shown(base)} ^ {shown(exponent)}")

    if isinstance(base, int) and exponent > 0:
        raise too_large(f"{shown(base)} ^ {shown(exponent)}")

    return _float_power(base, exponent)


def _float_power(base: Number, exponent: Number) -> Number:
    what = f"{shown(base)} ^ {shown(exponent)}"
    real, raised = _to_float(base), _to_float(exponent)
    if real == 0 and raised < 0:
        raise ToolError(f"{what} divides by zero; use a positive exponent", reason="DIVISION_BY_ZERO")

    if real < 0 and not raised.is_integer():
        raise domain(f"{what} is no real number: a negative base takes a whole exponent")

    try:
        return settle(real**raised, what)
    except OverflowError:
        raise too_large(what) from None


def _exact_root(base: int | Fraction, degree: int) -> int | Fraction | None:
    """Give the real root of ``degree`` when it is rational, else None."""
    if base < 0 and degree % 2 == 0:
        return None

    numerator = _integer_root(abs(base.numerator), degree)
    denominator = _integer_root(base.denominator, degree)
    if numerator is None or denominator is None:
        return None

    root = Fraction(numerator, denominator)
    return -root if base < 0 else root


def _integer_root(number: int, degree: int) -> int | None:
    """Give the whole root, by Newton's method from above, or None when there is none."""
    if number < 2:
        return number

    if degree >= number.bit_length():
        return None

    root = 1 << -(-number.bit_length() // degree)
    while True:
        better = ((degree - 1) * root + number // root ** (degree - 1)) // degree
        if better >= root:
            return root if root**degree == number else None

        root = better


def square_root(number: Number) -> Number:
    if number < 0:
        raise domain(f"the square root of {shown(number)} is no real number; use a number that is not negative")

    return power(number, Fraction(1, 2))


def factorial(number: Number) -> Number:
    if not isinstance(number, int) or number < 0:
        raise domain(f"the factorial of {shown(number)} is not defined; use a whole number that is not negative")

    if number > _FACTORIAL_MAX:
        raise too_large(f"the factorial of {shown(number)}")

    return math.factorial(number)


def _round(number: Number, places: Number = 0) -> Number:
    """Round to decimal places, halves away from zero."""
    if not isinstance(places, int) or abs(places) > DIGITS_MAX:
        raise domain(f"cannot round to {shown(places)} decimal places; use a whole number up to {DIGITS_MAX:,}")

    scale = Fraction(10) ** places
    scaled = abs(Fraction(repr(number)) if isinstance(number, float) else Fraction(number)) * scale
    rounded = math.floor(scaled + Fraction(1, 2)) / scale
    return settle(rounded if number >= 0 else -rounded)


def _logarithm(number: Number, base: Number = 10) -> Number:
    if number <= 0:
        raise domain(f"the logarithm of {shown(number)} is no real number; use a number above 0")

    if base <= 0 or base == 1:
        raise domain(f"{shown(base)} is no base of a logarithm; use a number above 0 other than 1")

    if base == 10:
        return settle(_log(number, math.log10))

    if base == 2:
        return settle(_log(number, math.log2))

    return settle(_log(number, math.log) / _log(base, math.log))


def _natural_logarithm(number: Number) -> Number:
    return _logarithm(number, math.e) if number <= 0 else settle(_log(number, math.log))


def _log(number: Number, log: Callable[[float], float]) -> float:
    if not isinstance(number, Fraction):
        return log(number)

    near = 2**-900 < number < 2**900
    return log(float(number)) if near else log(number.numerator) - log(number.denominator)


def _exponential(number: Number) -> Number:
    try:
        return settle(math.exp(_to_float(number)), "exp")
    except OverflowError:
        raise too_large(f"exp({shown(number)})") from None


def _circular(name: str, function: Callable[[float], float]) -> Callable[[Number], Number]:
    """Make a trigonometric function of radians, without the noise that the argument's own rounding makes."""

    def apply(angle: Number) -> Number:
        radians = _to_float(angle)
        if abs(radians) > 2**53:
            raise domain(f"{name}({shown(angle)}) has no correct digit; use an angle below 9e15")

        value = function(radians)
        noise = abs(radians) * 2**-52
        if abs(value) * noise >= 1:
            raise domain(f"{name}({shown(angle)}) is not defined; use another angle")

        return 0.0 if abs(radians) > 1 and abs(value) <= noise else float(f"{value:.15g}")

    return apply


def _inverse(name: str, function: Callable[[float], float]) -> Callable[[Number], Number]:
    def apply(number: Number) -> Number:
        if name != "atan" and not -1 <= number <= 1:
            raise domain(f"{name}({shown(number)}) is not defined; use a number from -1 to 1")

        return settle(function(_to_float(number)))

    return apply


def total(numbers: Sequence[Number]) -> Number:
    result: Number = 0
    for number in numbers:
        result = add(result, number)

    return result


def product(numbers: Sequence[Number]) -> Number:
    result: Number = 1
    for number in numbers:
        result = multiply(result, number)

    return result


def average(numbers: Sequence[Number]) -> Number:
    return divide(total(numbers), len(numbers))


def median(numbers: Sequence[Number]) -> Number:
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else average(ordered[middle - 1 : middle + 1])


def divisor(numbers: Sequence[Number]) -> Number:
    return math.gcd(*_whole("gcd", numbers))


def multiple(numbers: Sequence[Number]) -> Number:
    result = 1
    for number in _whole("lcm", numbers):
        result = math.lcm(result, number)
        settle(result)

    return result


def _whole(name: str, numbers: Sequence[Number]) -> list[int]:
    for number in numbers:
        if not isinstance(number, int):
            raise domain(f"{name} takes whole numbers, not {shown(number)}")

    return [number for number in numbers if isinstance(number, int)]


ONE: MappingProxyType[str, Callable[[Number], Number]] = MappingProxyType(
    {
        "sqrt": square_root,
        "cbrt": lambda number: -power(-number, Fraction(1, 3)) if number < 0 else power(number, Fraction(1, 3)),
        "abs": lambda number: -number if number < 0 else number,
        "floor": lambda number: settle(math.floor(number)),
        "ceil": lambda number: settle(math.ceil(number)),
        "trunc": lambda number: settle(math.trunc(number)),
        "ln": _natural_logarithm,
        "log10": _logarithm,
        "log2": lambda number: _logarithm(number, 2),
        "exp": _exponential,
        "sin": _circular("sin", math.sin),
        "cos": _circular("cos", math.cos),
        "tan": _circular("tan", math.tan),
        "asin": _inverse("asin", math.asin),
        "acos": _inverse("acos", math.acos),
        "atan": _inverse("atan", math.atan),
        "square": lambda number: power(number, 2),
        "cube": lambda number: power(number, 3),
        "factorial": factorial,
        "half": lambda number: divide(number, 2),
    }
)
"""Functions of one number, by name."""

TWO: MappingProxyType[str, Callable[..., Number]] = MappingProxyType({"round": _round, "log": _logarithm})
"""Functions of one number and, if given, a second: decimal places, a base (10 without one)."""

MANY: MappingProxyType[str, Callable[[Sequence[Number]], Number]] = MappingProxyType(
    {
        "min": min,
        "max": max,
        "sum": total,
        "product": product,
        "average": average,
        "median": median,
        "gcd": divisor,
        "lcm": multiple,
    }
)
"""Functions of one or more numbers, by name."""
