"""units.convert: names in two languages, exact results, and clear refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.tool import ToolError
from autoglm_server.tools.builtin import _unit_reader
from autoglm_server.tools.builtin.units import convert

TABLE = [
    (1, "km", "m", 1000),
    (372, "kilometers", "miles", 231.15008351228823),
    (10, "公里", "英里", 6.2137119223733395),
    (5, "feet", "英寸", 60),
    (6, "'", '"', 72),
    (1, "KM", "meters", 1000),
    (3, "light years", "km", 28382191417742.4),
    (1, "nautical mile", "km", 1.852),
    (1, "里", "米", 500),
    (100, "F", "C", 37.77777777777778),
    (98.6, "°F", "摄氏度", 37),
    (0, "degrees Celsius", "Fahrenheit", 32),
    (-40, "degC", "degF", -40),
    (25, "℃", "K", 298.15),
    (10, "delta_degC", "delta_degF", 18),
    (100, "km/h", "m/s", 27.77777777777778),
    (60, "mph", "kph", 96.56064),
    (60, "miles per hour", "公里/小时", 96.56064),
    (36, "公里每小时", "m/s", 10),
    (2, "pounds", "kg", 0.90718474),
    (3, "斤", "克", 1500),
    (1, "公斤", "磅", 2.2046226218487757),
    (8, "oz", "g", 226.796185),
    (8, "oz", "ml", 236.5882365),
    (1, "US gallons", "升", 3.785411784),
    (2, "fl oz", "ml", 59.147059125),
    (100, "平方米", "square feet", 1076.3910416709723),
    (1, "m2", "cm²", 10_000),
    (1, "亩", "平方米", 666.6666666666666),
    (2, "cubic feet", "liters", 56.633693184),
    (1, "ft squared", "inch^2", 144),
    (3, "weeks", "days", 21),
    (90, "分钟", "小时", 1.5),
    (1, "decade", "years", 10),
    (1, "GB", "MB", 1000),
    (1, "GiB", "MiB", 1024),
    (1, "KB", "bytes", 1000),
    (100, "Mbps", "MB/s", 12.5),
    (1, "kWh", "kJ", 3600),
    (5, "kg m^2/s^2", "J", 5),
    (4.184, "J/(g K)", "cal/g/degC", 1),
    (1, "atm", "kPa", 101.325),
    (90, "度", "弧度", 1.5707963267948966),
    (20, "度", "°F", 68),
    (60, "rpm", "Hz", 1),
    (50, "Hz", "ms", 20),
    (30, "mpg", "L/100km", 7.840486111111111),
    (1, "F", "uF", 1_000_000),
    (0, "m", "ft", 0),
    (-5, "m", "cm", -500),
]

FAULTS = [
    (1, "m", "kg", "DIMENSION_MISMATCH", "measures length", "measures mass"),
    (1, "MB", "degrees", "DIMENSION_MISMATCH", "measures bit", "measures radian"),
    (1, "km/h", "km", "DIMENSION_MISMATCH", "length/time", "the same"),
    (1, "kilometr", "m", "UNKNOWN_UNIT", "'kilometr'", "did you mean kilometer"),
    (1, "m", "xyzzyq", "UNKNOWN_UNIT", "to_unit", "English name"),
    (1, "USD", "EUR", "CURRENCY", "from_unit is 'USD'", "exchange rates"),
    (1, "米", "人民币", "CURRENCY", "to_unit", "math.calculate"),
    (1, "m^99", "m", "INVALID_UNIT", "99", "1 to 12"),
    (1, "m^0", "m", "INVALID_UNIT", "exponent is 0", "1 to 12"),
    (1, " ", "m", "INVALID_UNIT", "0 characters", "km/h"),
    (1, "m" * 101, "m", "INVALID_UNIT", "101 characters", "100"),
    (1, "__import__('os')", "m", "INVALID_UNIT", "__import__", "km/h"),
    (1, "m;kg", "m", "INVALID_UNIT", "'m;kg'", "km/h"),
    (1, "m*" * 9 + "m", "m", "INVALID_UNIT", "10 factors", "8"),
    (1, "0km", "m", "INVALID_UNIT", "0 stands", "km/h"),
    (-300, "C", "K", "DOMAIN", "absolute zero", "higher"),
    (0, "mpg", "L/100km", "DIVISION_BY_ZERO", "0 mile/gallon", "another value"),
    (1e308, "km", "nm", "TOO_LARGE", "1.8e308", "larger unit"),
    (float("inf"), "m", "km", "INVALID_VALUE", "inf", "finite"),
]


def reason_of(function: Callable[[], object]) -> str:
    """Give the reason of the ToolError that a call ends with, or nothing."""
    try:
        function()
    except ToolError as error:
        return error.reason

    return ""


@pytest.mark.parametrize(("value", "from_unit", "to_unit", "result"), TABLE)
def test_converts(value: float, from_unit: str, to_unit: str, result: float) -> None:
    assert convert(value, from_unit, to_unit)["result"] == result


@pytest.mark.parametrize(("value", "from_unit", "to_unit", "reason", "named", "remedy"), FAULTS)
def test_refuses_clearly(value: float, from_unit: str, to_unit: str, reason: str, named: str, remedy: str) -> None:
    with pytest.raises(ToolError) as caught:
        convert(value, from_unit, to_unit)

    assert caught.value.reason == reason
    assert named in caught.value.message
    assert remedy in caught.value.message


@pytest.mark.parametrize(("value", "from_unit", "to_unit"), [row[:3] for row in TABLE])
def test_goes_back_exactly_by_the_names_it_gives(value: float, from_unit: str, to_unit: str) -> None:
    there = convert(value, from_unit, to_unit)
    back = convert(there["result"], there["unit"], there["from_unit"])
    assert back["result"] == pytest.approx(value, rel=1e-12)


@given(st.floats(-1e12, 1e12), st.sampled_from([("km", "mile"), ("degF", "kelvin"), ("kg", "斤"), ("mph", "m/s")]))
def test_there_and_back_is_where_it_began(value: float, units: tuple[str, str]) -> None:
    if units[0] == "degF":
        value = abs(value)

    there = convert(value, *units)["result"]
    assert convert(there, units[1], units[0])["result"] == pytest.approx(value, rel=1e-12, abs=1e-9)


@given(st.text(max_size=30))
def test_never_fails_in_any_other_way(unit: str) -> None:
    reason = reason_of(lambda: convert(1, unit, "m"))
    assert reason in {"", "UNKNOWN_UNIT", "INVALID_UNIT", "DIMENSION_MISMATCH", "CURRENCY"}


def test_pint_never_gets_more_than_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    registry = _unit_reader.registry()
    real = registry.parse_unit_name

    def spy(name: str) -> object:
        seen.append(name)
        return real(name)

    monkeypatch.setattr(registry, "parse_unit_name", spy)
    convert(1, "kg m^2 / s^2", "J")
    assert seen
    assert all(name.isidentifier() for name in seen)


def test_many_threads_share_one_registry() -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: convert(n, "km", "mile")["result"], range(64)))

    assert results == [convert(n, "km", "mile")["result"] for n in range(64)]


def test_loading_the_tool_does_not_load_pint() -> None:
    code = "import sys, autoglm_server.tools.builtin.units; sys.exit('pint' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(sys.path)}).returncode
        == 0
    )
