"""``units.convert``: exact conversion between units of measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any, TypedDict

from autoglm.model import Effect, ToolExample
from autoglm.tool import Constraint, ToolError, tool
from autoglm_server.tools.builtin._unit_phrases import CONVERT
from autoglm_server.tools.builtin._unit_reader import LENGTH_MAX, Unit, read, registry


class Converted(TypedDict):
    """A quantity in another unit: ``result`` of ``unit`` is ``value`` of ``from_unit``."""

    result: float
    unit: str
    value: float
    from_unit: str


@tool(
    name="units.convert",
    title="Convert units",
    effect=Effect.READ_ONLY,
    timeout=timedelta(seconds=20),
    tags=("units", "measure", "convert"),
    examples=(
        ToolExample(
            "convert 372 kilometers to miles",
            {"value": 372, "from_unit": "kilometers", "to_unit": "miles"},
            {"result": 231.15008351228823, "unit": "mile", "value": 372, "from_unit": "kilometer"},
        ),
        ToolExample(
            "convert 98.6 °F to 摄氏度",
            {"value": 98.6, "from_unit": "°F", "to_unit": "摄氏度"},
            {"result": 37, "unit": "degree_Celsius", "value": 98.6, "from_unit": "degree_Fahrenheit"},
        ),
        ToolExample(
            "convert 100 km/h to m/s",
            {"value": 100, "from_unit": "km/h", "to_unit": "m/s"},
            {"result": 27.77777777777778, "unit": "meter/second", "value": 100, "from_unit": "kilometer/hour"},
        ),
    ),
    phrases=CONVERT,
)
def convert(
    value: float,
    from_unit: Annotated[str, Constraint(min_length=1, max_length=LENGTH_MAX)],
    to_unit: Annotated[str, Constraint(min_length=1, max_length=LENGTH_MAX)],
) -> Converted:
    """Convert a quantity between units: lengths, areas, volumes, masses, times, speeds, temperatures, energies, data and more.

    Knows the names and signs of English and Chinese, their products and quotients (km/h, kg*m^2). No currencies.

    Args:
        value: How much, in from_unit.
        from_unit: The unit it is in, such as "km", "square feet", "°F", "miles per hour", "公里".
        to_unit: The unit to give it in.
    """
    if not math.isfinite(value):
        raise ToolError(f"value is {value}; write a finite number", reason="INVALID_VALUE")

    source, target, inverse = _matching(read(from_unit, "from_unit"), read(to_unit, "to_unit"), from_unit, to_unit)
    amount = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    return Converted(
        result=_plain(_converted(amount, source, target, inverse=inverse)),
        unit=_name(target),
        value=value,
        from_unit=_name(source),
    )


def _matching(sources: list[Unit], targets: list[Unit], from_unit: str, to_unit: str) -> tuple[Unit, Unit, bool]:
    """Find the first two readings that measure the same, or one the inverse of the other (miles/gallon, liter/100km)."""
    for inverse in (False, True):
        for source in sources:
            for target in targets:
                wanted = {name: -power for name, power in _roots(target).items()} if inverse else _roots(target)
                if _roots(source) == wanted or _turns(source, target, inverse=inverse):
                    return source, target, inverse

    raise ToolError(
        f"cannot convert {from_unit!r} to {to_unit!r}: {_name(sources[0])} measures {_dimension(sources[0])}, "
        f"{_name(targets[0])} measures {_dimension(targets[0])}; choose units that measure the same",
        reason="DIMENSION_MISMATCH",
        metadata={"from_dimension": _dimension(sources[0]), "to_dimension": _dimension(targets[0])},
    )


def _root(unit: Unit) -> tuple[Fraction, Any]:
    factor, root = registry().get_root_units(unit.pint, check_nonmult=False)
    return Fraction(factor) * unit.factor, root


def _roots(unit: Unit) -> Mapping[str, int]:
    """Give the base units and their exponents; bits and radians count, which plain dimensions leave out."""
    return {str(name): power for name, power in _root(unit)[1]._units.items()}  # noqa: SLF001  # no public way


def _turns(source: Unit, target: Unit, *, inverse: bool) -> bool:
    """Whether one counts turns a second as an angle, and the other as a plain number: rpm and hertz."""
    left, right = dict(_roots(source)), dict(_roots(target))
    angles = left.pop("radian", 0), right.pop("radian", 0)
    return not inverse and bool(left) and left == right and sorted(angles) == [0, 1]


def _converted(amount: Fraction, source: Unit, target: Unit, *, inverse: bool) -> Fraction:
    if _is_temperature(source) and _is_temperature(target):
        return _temperature(amount, source, target)

    from_factor, from_root = _root(source)
    to_factor, to_root = _root(target)
    if inverse:
        if amount == 0:
            raise ToolError(
                f"0 {_name(source)} has no inverse in {_name(target)}; use another value", reason="DIVISION_BY_ZERO"
            )

        return 1 / (amount * from_factor * to_factor)

    turn = Fraction(registry().Quantity(1, "turn").to("radian").magnitude)
    angle = from_root._units.get("radian", 0) - to_root._units.get("radian", 0)  # noqa: SLF001  # no public way
    return amount * from_factor / to_factor / turn ** int(angle)


def _is_temperature(unit: Unit) -> bool:
    return unit.factor == 1 and len(unit.parts) == 1 and dict(_roots(unit)) == {"kelvin": 1}


def _temperature(amount: Fraction, source: Unit, target: Unit) -> Fraction:
    kelvin = Fraction(registry().Quantity(amount, source.pint).to("kelvin").magnitude)
    if kelvin < 0 and not source.parts[0][0].startswith("delta_"):
        raise ToolError(
            f"{float(amount):g} {_name(source)} is below absolute zero ({float(kelvin):g} kelvin); use a higher value",
            reason="DOMAIN",
        )

    return Fraction(registry().Quantity(amount, source.pint).to(target.pint).magnitude)


def _dimension(unit: Unit) -> str:
    """Name what a unit measures, as length/time, or the base it counts, as bit."""
    dimensions = {name.strip("[]"): power for name, power in unit.pint.dimensionality.items()} or _roots(unit)
    return _written(dimensions.items()) if dimensions else "a plain number"


def _name(unit: Unit) -> str:
    """Write a unit so that it can be read again."""
    over, under = unit.factor.numerator, unit.factor.denominator
    return _written([(str(over), 1)] * (over != 1) + [(str(under), -1)] * (under != 1) + list(unit.parts))


def _written(parts: Iterable[tuple[str, int]]) -> str:
    """Write names with their exponents as a product and quotient."""
    parts = list(parts)
    above = [name if power == 1 else f"{name}^{power}" for name, power in parts if power > 0]
    below = [name if power == -1 else f"{name}^{-power}" for name, power in parts if power < 0]
    return "/".join(["*".join(above) or "1", *below])


def _plain(number: Fraction) -> float:
    """Give the nearest JSON number."""
    try:
        nearest = float(number)
    except OverflowError:
        raise ToolError("the result is larger than 1.8e308; use a larger unit", reason="TOO_LARGE") from None

    return int(nearest) if nearest.is_integer() and abs(nearest) < 2**53 else nearest
