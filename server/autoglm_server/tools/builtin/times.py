"""``time.*``: what time it is, and arithmetic on dates and times. The clock is a port, so tests can set it."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fractions import Fraction
from typing import Annotated, Final, Literal, TypedDict

from autoglm.model import Effect, ToolExample
from autoglm.tool import Constraint, FunctionTool, ToolError, tool
from autoglm_server.clock import Clock
from autoglm_server.tools.builtin import _dates, _zones
from autoglm_server.tools.builtin._dates import WEEKDAYS, WEEKDAYS_CHINESE, read_clock, read_date, shift, unit_of
from autoglm_server.tools.builtin._time_phrases import ADD, CONVERT, DIFFERENCE, NOW, WEEKDAY

_TIMEOUT: Final = timedelta(seconds=10)
_SECONDS: Final = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3_600,
    "days": 86_400,
    "weeks": 604_800,
    "fortnights": 1_209_600,
}
_MONTHS: Final = {"months": 1, "quarters": 3, "years": 12, "decades": 120}

_NOW: Final = frozenset({"now", "现在"})

_Date = Annotated[str, Constraint(min_length=1, max_length=_dates.LENGTH_MAX)]
_Zone = Annotated[str, Constraint(min_length=1, max_length=_zones.LENGTH_MAX)]


class Moment(TypedDict):
    """A moment in a zone. ``result`` is it in ISO 8601 with its offset; ``weekday_zh`` the weekday in Chinese."""

    result: str
    date: str
    time: str
    weekday: str
    weekday_zh: str
    zone: str
    offset: str


class _Lead(TypedDict):
    hours_ahead: float
    lead: str
    lead_zh: str


class ConvertedTime(Moment):
    """A moment in another zone. ``source`` is it in the first zone; ``note`` says when clocks changed just then, else null.

    ``hours_ahead`` is how far the clocks of the second zone are ahead of the first one's then, negative when they are
    behind; ``lead`` and ``lead_zh`` say so in words: 8 hours behind, 晚 8 小时.
    """

    source: str
    from_zone: str
    note: str | None
    hours_ahead: float
    lead: str
    lead_zh: str


class ShiftedDate(TypedDict):
    """A date moved. ``result`` is it in ISO 8601; ``note`` says when the day changed to fit a shorter month, else null."""

    result: str
    weekday: str
    weekday_zh: str
    start: str
    note: str | None


class TimeBetween(TypedDict):
    """How long it is from ``start`` to ``end``: ``result`` of ``unit``, negative when the end is before the start."""

    result: float
    unit: str
    start: str
    end: str
    days: int


class Weekday(TypedDict):
    """A date's weekday. ``number`` counts from Monday as 1, ``week`` is the ISO week of the year."""

    result: str
    weekday_zh: str
    number: int
    week: int
    date: str


def time_tools(clock: Clock) -> list[FunctionTool]:
    """Make the tools of time; ``clock`` tells them what time it is."""
    return [_now(clock), _convert(clock), _add(clock), _difference(clock), _weekday(clock)]


def _now(clock: Clock) -> FunctionTool:
    @tool(
        name="time.now",
        title="Current time",
        effect=Effect.READ_ONLY,
        timeout=_TIMEOUT,
        tags=("time", "date", "clock"),
        examples=(ToolExample("what time is it in Tokyo", {"zone": "Tokyo"}),),
        phrases=NOW,
    )
    async def now(zone: _Zone = "UTC") -> Moment:
        """Tell the current time and date in a zone.

        Args:
            zone: An IANA name such as Asia/Tokyo, a large city in English or Chinese, or an offset such as UTC+09:00.
        """
        where, name = _zones.zone_of(zone, "zone")
        return _moment(clock.now().astimezone(where), name)

    return now


def _convert(clock: Clock) -> FunctionTool:
    @tool(
        name="time.convert",
        title="Convert a time between zones",
        effect=Effect.READ_ONLY,
        timeout=_TIMEOUT,
        tags=("time", "zone", "convert"),
        examples=(
            ToolExample(
                "10:30 Tokyo to Shanghai",
                {"time": "10:30", "from_zone": "Tokyo", "to_zone": "Shanghai"},
                {"time": "09:30", "zone": "Asia/Shanghai", "offset": "+08:00", "from_zone": "Asia/Tokyo", "note": None},
            ),
        ),
        phrases=CONVERT,
    )
    def convert(time: _Date, to_zone: _Zone, from_zone: _Zone = "UTC") -> ConvertedTime:
        """Convert a time from one zone to another.

        A time that clocks skip is read with the offset before the change; of a time that occurs twice the first is
        taken. The note says so.

        Args:
            time: A time of day, which is today's in from_zone, as 15:30 or 3pm; a date and time, as 2026-11-22 15:30; or now.
                An offset in it, as 2026-11-22T15:30+01:00, goes before from_zone.
            to_zone: The zone to give it in: an IANA name, a large city in English or Chinese, or an offset such as UTC+09:00.
            from_zone: The zone it is in.
        """
        source, source_name = _zones.zone_of(from_zone, "from_zone")
        target, target_name = _zones.zone_of(to_zone, "to_zone")
        now = clock.now().astimezone(source)
        is_now = time.strip().casefold() in _NOW
        moment = now if is_now else _read_moment(time, now)
        note: str | None = None
        if moment.tzinfo is None:
            moment, note = _settled(moment, source, source_name)
        elif not is_now:
            source_name = "UTC" if moment.utcoffset() == timedelta(0) else f"UTC{_offset(moment)}"

        try:
            there = moment.astimezone(target)
        except OverflowError:
            raise _dates.bad_date("time", time, "is outside the years 1 to 9999 in that zone") from None

        return {
            **_moment(there, target_name),
            "source": moment.isoformat(),
            "from_zone": source_name,
            "note": note,
            **_lead(moment, there),
        }

    return convert


def _add(clock: Clock) -> FunctionTool:
    @tool(
        name="time.add",
        title="Add to a date",
        effect=Effect.READ_ONLY,
        timeout=_TIMEOUT,
        tags=("time", "date", "calendar"),
        examples=(
            ToolExample(
                "add 45 days to 2026-11-22",
                {"date": "2026-11-22", "amount": 45, "unit": "days"},
                {"result": "2027-01-06", "weekday": "Wednesday"},
            ),
            ToolExample(
                "2026-11-22之后3天是哪天", {"date": "2026-11-22", "amount": 3, "unit": "天"}, {"result": "2026-11-25"}
            ),
            ToolExample(
                "add 1 month to 2026-01-31",
                {"date": "2026-01-31", "amount": 1, "unit": "month"},
                {
                    "result": "2026-02-28",
                    "weekday": "Saturday",
                    "weekday_zh": "星期六",
                    "start": "2026-01-31",
                    "note": "2026-02 has only 28 days, so the day is 28, not 31",
                },
            ),
        ),
        phrases=ADD,
    )
    def add(
        amount: int,
        date: _Date = "today",
        unit: _Date = "days",
        direction: Literal["after", "before"] = "after",
    ) -> ShiftedDate:
        """Move a date or time forward, or back.

        Months and years keep the day where the month has it, and take its last day where not. Business days are Mondays
        to Fridays; holidays are not known.

        Args:
            amount: How many units; a negative amount goes the other way.
            date: Where to start: 2026-11-22, 2026-11-22T10:30, 22 November 2026, today (in UTC), next Monday, 明天.
            unit: seconds, minutes, hours, days, weeks, fortnights, months, quarters, years, decades or business days.
            direction: after the date, or before it.
        """
        start = read_date(date, "date", clock.now())
        name = unit_of(unit, "unit")
        try:
            moved, note = shift(start, amount if direction == "after" else -amount, name)
        except OverflowError:
            raise ToolError(
                f"{amount:,} {name} {direction} {start.isoformat()} is outside the years 1 to 9999; use a smaller amount",
                reason="OUT_OF_RANGE",
            ) from None

        day = moved.weekday()
        return ShiftedDate(
            result=moved.isoformat(),
            weekday=WEEKDAYS[day],
            weekday_zh=WEEKDAYS_CHINESE[day],
            start=start.isoformat(),
            note=note or None,
        )

    return add


def _difference(clock: Clock) -> FunctionTool:
    @tool(
        name="time.difference",
        title="Time between two dates",
        effect=Effect.READ_ONLY,
        timeout=_TIMEOUT,
        tags=("time", "date", "calendar"),
        examples=(
            ToolExample(
                "how long is it from 2026-11-22 to 2026-12-25",
                {"start": "2026-11-22", "end": "2026-12-25"},
                {"result": 33, "unit": "days", "start": "2026-11-22", "end": "2026-12-25", "days": 33},
            ),
        ),
        phrases=DIFFERENCE,
    )
    def difference(start: _Date, end: _Date, unit: _Date = "days") -> TimeBetween:
        """Tell how long it is from one date or time to another.

        Months and years are whole ones; business days are the Mondays to Fridays from start up to, not including, end.

        Args:
            start: From when: 2026-11-22, 2026-11-22T10:30+01:00, 22 November 2026, today (in UTC), Christmas, 明天.
            end: Until when.
            unit: seconds, minutes, hours, days, weeks, fortnights, months, quarters, years, decades or business days.
        """
        now = clock.now()
        first, last = read_date(start, "start", now), read_date(end, "end", now)
        name = unit_of(unit, "unit")
        left, right = _comparable(first), _comparable(last)
        if (
            isinstance(first, datetime)
            and isinstance(last, datetime)
            and (first.tzinfo is None) == (last.tzinfo is None)
        ):
            left, right = first, last

        return TimeBetween(
            result=_between(left, right, name),
            unit=name,
            start=first.isoformat(),
            end=last.isoformat(),
            days=math.trunc((right - left) / timedelta(days=1)),
        )

    return difference


def _weekday(clock: Clock) -> FunctionTool:
    @tool(
        name="time.weekday",
        title="Day of the week",
        effect=Effect.READ_ONLY,
        timeout=_TIMEOUT,
        tags=("time", "date", "calendar"),
        examples=(
            ToolExample(
                "what day is 2026-11-22",
                {"date": "2026-11-22"},
                {"result": "Sunday", "weekday_zh": "星期日", "number": 7, "week": 47, "date": "2026-11-22"},
            ),
        ),
        phrases=WEEKDAY,
    )
    def weekday(date: _Date = "today") -> Weekday:
        """Tell which day of the week a date is.

        Args:
            date: 2026-11-22, 22 November 2026, today (in UTC), Christmas, 3 days from now, 明天.
        """
        day = read_date(date, "date", clock.now())
        return Weekday(
            result=WEEKDAYS[day.weekday()],
            weekday_zh=WEEKDAYS_CHINESE[day.weekday()],
            number=day.isoweekday(),
            week=day.isocalendar().week,
            date=day.strftime("%Y-%m-%d"),
        )

    return weekday


def _moment(moment: datetime, zone: str) -> Moment:
    return Moment(
        result=moment.isoformat(timespec="seconds"),
        date=moment.date().isoformat(),
        time=moment.strftime("%H:%M"),
        weekday=WEEKDAYS[moment.weekday()],
        weekday_zh=WEEKDAYS_CHINESE[moment.weekday()],
        zone=zone,
        offset=_offset(moment),
    )


def _offset(moment: datetime) -> str:
    return moment.isoformat()[-6:]


def _lead(here: datetime, there: datetime) -> _Lead:
    """Tell how far clocks there are ahead of those here, at one moment."""
    ahead = (there.utcoffset() or timedelta()) - (here.utcoffset() or timedelta())
    hours, rest = divmod(abs(ahead), timedelta(hours=1))
    minutes = round(rest / timedelta(minutes=1))
    told = [f"{count} {unit}{'s' * (count != 1)}" for count, unit in ((hours, "hour"), (minutes, "minute")) if count]
    told_zh = "".join(f" {count} {unit}" for count, unit in ((hours, "小时"), (minutes, "分钟")) if count)
    way, way_zh = ("ahead of", "早") if ahead > timedelta() else ("behind", "晚")
    return _Lead(
        hours_ahead=ahead / timedelta(hours=1),
        lead=f"{' '.join(told)} {way}" if told else "at the same time as",
        lead_zh=f"{way_zh}{told_zh}" if told_zh else "没有时差",
    )


def _read_moment(text: str, now: datetime) -> datetime:
    """Read a time of day or a date with a time; naive unless it says its offset."""
    if len(text) <= _dates.LENGTH_MAX:
        clock = read_clock(text)
        if clock is not None:
            return datetime.combine(now.date(), clock)

    found = read_date(text, "time", now)
    return found if isinstance(found, datetime) else datetime.combine(found, time())


def _settled(local: datetime, zone: tzinfo, name: str) -> tuple[datetime, str | None]:
    """Give a local time its offset, and a note when clocks changed just then."""
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    before, after = first.utcoffset(), second.utcoffset()
    if before is None or after is None or before == after:
        return first, None

    shown = local.strftime("%Y-%m-%d %H:%M")
    if before > after:
        return first, f"{shown} occurs twice in {name}, as clocks go back; the first, with {_offset(first)}, was taken"

    moved = first.astimezone(UTC).astimezone(zone)
    return moved, f"{shown} does not exist in {name}, as clocks go forward; {moved.strftime('%H:%M')} was taken"


def _comparable(day: date | datetime) -> datetime:
    """Give a naive moment: a date its midnight, an aware one as it is in UTC."""
    if not isinstance(day, datetime):
        return datetime.combine(day, time())

    return day.astimezone(UTC).replace(tzinfo=None) if day.tzinfo else day


def _between(start: datetime, end: datetime, unit: str) -> int | float:
    if unit in _SECONDS:
        microseconds = Fraction((end - start) // timedelta(microseconds=1))
        amount = microseconds / 1_000_000 / _SECONDS[unit]
        return amount.numerator if amount.denominator == 1 else float(amount)

    if unit == "business days":
        return _business_days(start.date(), end.date())

    months = (end.year - start.year) * 12 + end.month - start.month
    if months > 0 and shift(start, months, "months")[0] > end:
        months -= 1
    elif months < 0 and shift(start, months, "months")[0] < end:
        months += 1

    return int(months / _MONTHS[unit])


def _business_days(start: date, end: date) -> int:
    if end < start:
        return -_business_days(end, start)

    weeks, rest = divmod((end - start).days, 7)
    return weeks * 5 + sum((start.weekday() + day) % 7 < 5 for day in range(rest))
