"""time.*: zones, dates in two languages, calendar arithmetic, and clocks that change. All at one fixed moment."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.tool import ToolError
from autoglm_server.clock import FakeClock
from autoglm_server.tools.builtin._dates import WEEKDAYS
from autoglm_server.tools.builtin.times import time_tools

NOW = datetime(2026, 11, 22, 16, 5, tzinfo=UTC)
TOOLS = {tool.spec.name.removeprefix("time."): tool for tool in time_tools(FakeClock(NOW))}
DATES = st.dates(date(1900, 1, 1), date(2200, 1, 1))

ZONES = [
    ("UTC", "2026-11-22T16:05:00+00:00"),
    ("Asia/Tokyo", "2026-11-23T01:05:00+09:00"),
    ("tokyo", "2026-11-23T01:05:00+09:00"),
    ("东京", "2026-11-23T01:05:00+09:00"),
    ("New York", "2026-11-22T11:05:00-05:00"),
    ("Washington, DC", "2026-11-22T11:05:00-05:00"),
    ("北京时间", "2026-11-23T00:05:00+08:00"),
    ("上海", "2026-11-23T00:05:00+08:00"),
    ("伦敦", "2026-11-22T16:05:00+00:00"),
    ("Los Angeles time", "2026-11-22T08:05:00-08:00"),
    ("PST", "2026-11-22T08:05:00-08:00"),
    ("Buenos Aires", "2026-11-22T13:05:00-03:00"),
    ("UTC+5:30", "2026-11-22T21:35:00+05:30"),
    ("GMT-3", "2026-11-22T13:05:00-03:00"),
    ("-0800", "2026-11-22T08:05:00-08:00"),
]
DAYS = [
    ("2026-11-22", "2026-11-22"),
    ("2026/11/22", "2026-11-22"),
    ("2026-2-3", "2026-02-03"),
    ("22 November 2026", "2026-11-22"),
    ("the 22nd of Nov 2026", "2026-11-22"),
    ("Nov 22, 2026", "2026-11-22"),
    ("2026年11月22日", "2026-11-22"),
    ("11月25号", "2026-11-25"),
    ("today", "2026-11-22"),
    ("Tomorrow", "2026-11-23"),
    ("the day after tomorrow", "2026-11-24"),
    ("昨天", "2026-11-21"),
    ("后天", "2026-11-24"),
    ("3 days from now", "2026-11-25"),
    ("in two weeks", "2026-12-06"),
    ("a month ago", "2026-10-22"),
    ("三天后", "2026-11-25"),
    ("两周前", "2026-11-08"),
    ("next Monday", "2026-11-23"),
    ("last Friday", "2026-11-20"),
    ("下周三", "2026-11-25"),
    ("Christmas", "2026-12-25"),
    ("元旦", "2027-01-01"),
    ("2026-11-22T10:30", "2026-11-22T10:30:00"),
    ("2026-11-22T10:30+01:00", "2026-11-22T10:30:00+01:00"),
    ("tomorrow at 9:15 am", "2026-11-23T09:15:00"),
    ("明天 下午3点半", "2026-11-23T15:30:00"),
    ("2 hours ago", "2026-11-22T14:05:00+00:00"),
]
FAULTS: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("now", {"zone": "Lndon"}, "UNKNOWN_ZONE", "'Lndon'", "London"),
    ("now", {"zone": "Nowhere at all"}, "UNKNOWN_ZONE", "'Nowhere at all'", "IANA name"),
    ("now", {"zone": "CST"}, "UNKNOWN_ZONE", "Chicago or Shanghai", "write the city"),
    ("now", {"zone": "UTC+15"}, "UNKNOWN_ZONE", "'UTC+15'", "14:00"),
    ("now", {"zone": "../../etc/passwd"}, "UNKNOWN_ZONE", "passwd", "IANA name"),
    ("convert", {"time": "25:00", "to_zone": "Tokyo"}, "INVALID_DATE", "time is '25:00'", "write one such as"),
    ("convert", {"time": "9999-12-31 23:00", "to_zone": "Tokyo"}, "INVALID_DATE", "9999", "outside the years"),
    ("add", {"date": "2026-02-30", "amount": 1}, "INVALID_DATE", "date is '2026-02-30'", "write one such as"),
    ("add", {"date": "11/12/2026", "amount": 1}, "INVALID_DATE", "11/12/2026", "2026-11-22"),
    ("add", {"amount": 1, "unit": "moons"}, "INVALID_UNIT", "unit is 'moons'", "business days"),
    ("add", {"amount": 10**15}, "OUT_OF_RANGE", "1,000,000,000,000,000 days", "smaller amount"),
    ("add", {"amount": 99_999, "unit": "years"}, "OUT_OF_RANGE", "99,999 years", "smaller amount"),
    ("difference", {"start": "someday", "end": "today"}, "INVALID_DATE", "start is 'someday'", "write one such as"),
    ("weekday", {"date": "x" * 65}, "INVALID_DATE", "xxx", "write one such as"),
]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    returned = TOOLS[name](**arguments)
    if inspect.iscoroutine(returned):
        returned = asyncio.run(returned)

    output: dict[str, Any] = returned
    return output


def reason_of(function: Callable[[], object]) -> str:
    """Give the reason of the ToolError that a call ends with, or nothing."""
    try:
        function()
    except ToolError as error:
        return error.reason

    return ""


@pytest.mark.parametrize(("zone", "result"), ZONES)
def test_tells_the_time_in_a_zone(zone: str, result: str) -> None:
    assert call("now", zone=zone)["result"] == result


def test_now_is_told_in_parts_too() -> None:
    assert call("now", zone="东京") == {
        "result": "2026-11-23T01:05:00+09:00",
        "date": "2026-11-23",
        "time": "01:05",
        "weekday": "Monday",
        "weekday_zh": "星期一",
        "zone": "Asia/Tokyo",
        "offset": "+09:00",
    }


@pytest.mark.parametrize(("text", "result"), DAYS)
def test_reads_dates_as_people_write_them(text: str, result: str) -> None:
    assert call("add", date=text, amount=0)["result"] == result


@pytest.mark.parametrize(
    ("time", "from_zone", "to_zone", "result"),
    [
        ("15:30", "UTC", "Tokyo", "2026-11-23T00:30:00+09:00"),
        ("3pm", "New York", "London", "2026-11-22T20:00:00+00:00"),
        ("下午3点半", "北京", "纽约", "2026-11-23T02:30:00-05:00"),
        ("12am", "UTC", "UTC", "2026-11-22T00:00:00+00:00"),
        ("noon", "Paris", "东京", "2026-11-22T20:00:00+09:00"),
        ("now", "Tokyo", "UTC", "2026-11-22T16:05:00+00:00"),
        ("2026-07-01 09:00", "Berlin", "UTC", "2026-07-01T07:00:00+00:00"),
        ("2026-11-22T10:00+01:00", "Tokyo", "UTC", "2026-11-22T09:00:00+00:00"),
    ],
)
def test_converts_between_zones(time: str, from_zone: str, to_zone: str, result: str) -> None:
    output = call("convert", time=time, from_zone=from_zone, to_zone=to_zone)
    assert output["result"] == result
    assert output["note"] is None


def test_says_that_a_time_is_skipped_when_clocks_go_forward() -> None:
    output = call("convert", time="2026-03-29 02:30", from_zone="Berlin", to_zone="UTC")
    assert output["result"] == "2026-03-29T01:30:00+00:00"
    assert output["source"] == "2026-03-29T03:30:00+02:00"
    assert "does not exist in Europe/Berlin" in output["note"]


def test_says_that_a_time_occurs_twice_when_clocks_go_back() -> None:
    output = call("convert", time="2026-10-25 02:30", from_zone="Berlin", to_zone="UTC")
    assert output["result"] == "2026-10-25T00:30:00+00:00"
    assert "occurs twice in Europe/Berlin" in output["note"]
    assert "+02:00" in output["note"]


@pytest.mark.parametrize(
    ("start", "amount", "unit", "result"),
    [
        ("2026-11-22", 45, "days", "2027-01-06"),
        ("2026-11-22", 2, "周", "2026-12-06"),
        ("2024-02-29", 4, "years", "2028-02-29"),
        ("2026-11-20", 1, "business days", "2026-11-23"),
        ("2026-11-21", 1, "business day", "2026-11-23"),
        ("2026-11-22", 10, "工作日", "2026-12-04"),
        ("2026-11-22", -1, "工作日", "2026-11-20"),
        ("2026-11-22T23:30", 45, "minutes", "2026-11-23T00:15:00"),
        ("2026-11-22", 5, "hours", "2026-11-22T05:00:00"),
        ("2026-11-22", 1, "quarter", "2027-02-22"),
    ],
)
def test_adds_to_a_date(start: str, amount: int, unit: str, result: str) -> None:
    output = call("add", date=start, amount=amount, unit=unit)
    assert output["result"] == result
    assert output["note"] is None


def test_goes_back_and_says_when_a_month_is_too_short() -> None:
    assert call("add", date="2026-11-22", amount=2, unit="days", direction="before")["result"] == "2026-11-20"
    output = call("add", date="2026-01-31", amount=1, unit="months")
    assert output["result"] == "2026-02-28"
    assert output["note"] == "2026-02 has only 28 days, so the day is 28, not 31"


@pytest.mark.parametrize(
    ("start", "end", "unit", "result"),
    [
        ("2026-11-22", "2026-12-25", "days", 33),
        ("2026-12-25", "2026-11-22", "days", -33),
        ("2026-11-22", "2026-12-25", "weeks", 33 / 7),
        ("today", "Christmas", "天", 33),
        ("2000-02-29", "2026-11-22", "years", 26),
        ("2000-11-23", "2026-11-22", "years", 25),
        ("2026-01-31", "2026-02-28", "months", 1),
        ("2026-11-16", "2026-11-23", "business days", 5),
        ("2026-11-22T10:00", "2026-11-22T11:30", "hours", 1.5),
        ("2026-11-22T10:00+01:00", "2026-11-22T10:00Z", "minutes", 60),
        ("2026-11-22", "2026-11-22T12:00", "hours", 12),
    ],
)
def test_tells_how_long_it_is(start: str, end: str, unit: str, result: float) -> None:
    assert call("difference", start=start, end=end, unit=unit)["result"] == result


def test_tells_the_weekday() -> None:
    expected = {"result": "Sunday", "weekday_zh": "星期日", "number": 7, "week": 47, "date": "2026-11-22"}
    assert call("weekday", date="2026-11-22") == expected


@pytest.mark.parametrize(("name", "arguments", "reason", "named", "remedy"), FAULTS)
def test_refuses_clearly(name: str, arguments: dict[str, Any], reason: str, named: str, remedy: str) -> None:
    with pytest.raises(ToolError) as caught:
        call(name, **arguments)

    assert caught.value.reason == reason
    assert named in caught.value.message
    assert remedy in caught.value.message


@given(DATES, st.integers(-10_000, 10_000))
def test_adding_days_and_their_difference_agree(start: date, days: int) -> None:
    moved = call("add", date=start.isoformat(), amount=days)
    assert moved["result"] == (start + timedelta(days=days)).isoformat()
    assert call("difference", start=start.isoformat(), end=moved["result"])["result"] == days


@given(DATES, st.integers(1, 300))
def test_business_days_are_never_weekends_and_agree(start: date, days: int) -> None:
    moved = date.fromisoformat(call("add", date=start.isoformat(), amount=days, unit="business days")["result"])
    expected, left = start, days
    while left:
        expected += timedelta(days=1)
        left -= expected.weekday() < 5

    assert moved == expected
    between = sum((start + timedelta(days=n)).weekday() < 5 for n in range((moved - start).days))
    assert call("difference", start=start.isoformat(), end=moved.isoformat(), unit="business days")["result"] == between


@given(DATES)
def test_the_weekday_is_the_calendars(day: date) -> None:
    assert call("weekday", date=day.isoformat())["result"] == WEEKDAYS[day.weekday()] == day.strftime("%A")


@given(
    st.datetimes(NOW.replace(tzinfo=None, year=1980), NOW.replace(tzinfo=None, year=2030)),
    st.sampled_from(["Tokyo", "New York", "Kathmandu", "UTC-03:30"]),
)
def test_converting_a_time_keeps_the_moment(moment: datetime, zone: str) -> None:
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    output = call("convert", time=whole.isoformat(), to_zone=zone)
    assert datetime.fromisoformat(output["result"]) == whole


@given(st.text(max_size=40), st.sampled_from(["now", "convert", "add", "weekday"]))
def test_never_fails_in_any_other_way(text: str, name: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "now": {"zone": text},
        "convert": {"time": text, "to_zone": "UTC"},
        "add": {"date": text, "amount": 1, "unit": "days"},
        "weekday": {"date": text},
    }
    assert reason_of(lambda: call(name, **cases[name])) in {"", "UNKNOWN_ZONE", "INVALID_DATE", "OUT_OF_RANGE"}


_PIECES = [
    "2026",
    "-",
    "11",
    "年",
    "月",
    "日",
    "三",
    "十",
    "百",
    "点",
    "半",
    "下午",
    ":",
    "pm",
    " ",
    "in ",
    "days",
    " ago",
    "后",
    "next ",
    "mon",
    "T",
    "at ",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=10).map("".join))
def test_never_fails_in_any_other_way_for_what_looks_like_a_date(text: str) -> None:
    assert reason_of(lambda: call("convert", time=text, to_zone="UTC")) in {"", "INVALID_DATE"}
    assert reason_of(lambda: call("add", date=text, amount=1)) in {"", "INVALID_DATE", "OUT_OF_RANGE"}


@pytest.mark.parametrize(
    ("from_zone", "to_zone", "time", "hours", "lead", "lead_zh"),
    [
        ("Beijing", "London", "now", -8, "8 hours behind", "晚 8 小时"),
        ("London", "Beijing", "2026-07-01 12:00", 7, "7 hours ahead of", "早 7 小时"),
        ("Delhi", "Tokyo", "现在", 3.5, "3 hours 30 minutes ahead of", "早 3 小时 30 分钟"),
        ("Paris", "London", "now", -1, "1 hour behind", "晚 1 小时"),
        ("Shanghai", "Beijing", " NOW ", 0, "at the same time as", "没有时差"),
        ("Tokyo", "UTC", "2026-11-22T12:00+02:00", -2, "2 hours behind", "晚 2 小时"),
    ],
)
def test_tells_how_far_clocks_are_apart(
    from_zone: str, to_zone: str, time: str, hours: float, lead: str, lead_zh: str
) -> None:
    output = call("convert", time=time, from_zone=from_zone, to_zone=to_zone)

    assert (output["hours_ahead"], output["lead"], output["lead_zh"]) == (hours, lead, lead_zh)


def test_now_is_this_moment_in_both_zones() -> None:
    output = call("convert", time="now", from_zone="Beijing", to_zone="London")

    assert output["result"] == call("now", zone="London")["result"]
    assert output["from_zone"] == "Asia/Shanghai"
