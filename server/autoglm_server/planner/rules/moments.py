"""Dates and times of day as people write them, in English and Chinese."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

from autoglm_server.planner.rules.numerals import chinese_digits
from autoglm_server.planner.rules.source import Source

_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_MONTH = (
    "(?P<month>" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in _MONTHS).replace("sep(?:", "sept?(?:") + r")\b\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_CLOCK = r"(?:(?:[T\s]|\s+at\s+|\s*,\s*)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?)?"

_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?P<year>\d{{4}})[-/](?P<month>\d{{1,2}})[-/](?P<day>\d{{1,2}}){_CLOCK}",
        rf"{_DAY}\s+(?:of\s+)?{_MONTH},?\s+(?P<year>\d{{4}}){_CLOCK}",
        rf"{_MONTH}\s+{_DAY}(?:,\s*|\s+)(?P<year>\d{{4}}){_CLOCK}",
        rf"(?P<year>\d{{4}})\s*年\s*(?P<month>\d{{1,2}})\s*月\s*(?P<day>\d{{1,2}})\s*[日号]?{_CLOCK}",
    )
)
_DAYS = re.compile(
    r"(?P<yesterday>yesterday\b|昨天|昨日)|(?P<today>today\b|今天|今日)|(?P<overmorrow>the day after tomorrow\b|后天)"
    r"|(?P<tomorrow>tomorrow\b|明天|明日)|(?P<ereyesterday>the day before yesterday\b|前天)",
    re.IGNORECASE,
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY = re.compile(
    rf"(?:(?:this|on)\s+)?(?P<english>{'|'.join(_WEEKDAYS)})\b|(?:这个?)?(?:星期|周|礼拜)(?P<chinese>[一二三四五六日天])",
    re.IGNORECASE,
)
_CHINESE_WEEKDAYS = "一二三四五六日"
_SHIFTS = {"ereyesterday": -2, "yesterday": -1, "today": 0, "tomorrow": 1, "overmorrow": 2}

_TIME = re.compile(
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?(?:\s?(?P<half>[ap]\.?m\b\.?))?"
    r"|(?P<round>\d{1,2})\s?(?P<that>[ap]\.?m\b\.?)|(?P<noon>noon\b|midday\b)|(?P<midnight>midnight\b)",
    re.IGNORECASE,
)
_CHINESE_TIME = re.compile(
    r"(?P<part>凌晨|早上|早晨|上午|中午|下午|傍晚|晚上)?\s*(?P<hour>\d{1,2}|[零一二两三四五六七八九十]{1,3})\s*[点时:：]"
    r"(?:钟|整|(?P<half>半)|(?P<quarter>一刻|三刻)|(?P<minute>\d{1,2}|[零一二三四五六七八九十]{1,3})\s*分?)?",
)
_AFTERNOON = ("中午", "下午", "傍晚", "晚上")


def read_date(source: Source, start: int, today: date) -> list[tuple[int, str]]:
    """Give where a date (with a time of day, or without) that begins at ``start`` ends, and its ISO form."""
    offset = source.atoms[start].start
    named = _DAYS.match(source.text, offset)

    if named is not None and named.lastgroup is not None:
        end = source.after(named.end())
        return [] if end is None else [(end, (today + timedelta(days=_SHIFTS[named.lastgroup])).isoformat())]

    if weekday := _WEEKDAY.match(source.text, offset):
        end = source.after(weekday.end())
        return [] if end is None else [(end, _next(weekday, today).isoformat())]

    found = next((match for pattern in _DATES if (match := pattern.match(source.text, offset))), None)
    end = None if found is None else source.after(found.end())
    written = None if found is None else _iso(found)
    return [] if end is None or written is None else [(end, written)]


def _next(found: re.Match[str], today: date) -> date:
    """Give the next such weekday after today."""
    if found["english"]:
        number = _WEEKDAYS.index(found["english"].casefold())
    else:
        number = _CHINESE_WEEKDAYS.index(found["chinese"].replace("天", "日"))

    return today + timedelta(days=(number - today.weekday() - 1) % 7 + 1)


def read_time(source: Source, start: int) -> list[tuple[int, str]]:
    """Give where a time of day that begins at ``start`` ends, and its form ``HH:MM`` or ``HH:MM:SS``."""
    offset = source.atoms[start].start
    found = _TIME.match(source.text, offset)
    moment = None if found is None else _english(found)

    if found is None or moment is None:
        found = _CHINESE_TIME.match(source.text, offset)
        moment = None if found is None else _spoken(found)

    end = None if found is None else source.after(found.end())
    return [] if end is None or moment is None else [(end, moment.isoformat("auto" if moment.second else "minutes"))]


def _iso(found: re.Match[str]) -> str | None:
    month = found["month"].casefold()
    number = int(month) if month.isdigit() else [name[:3] for name in _MONTHS].index(month[:3]) + 1

    try:
        day = date(int(found["year"]), number, int(found["day"]))

        if found["hour"] is None:
            return day.isoformat()

        return datetime.combine(
            day, time(int(found["hour"]), int(found["minute"]), int(found["second"] or 0))
        ).isoformat()
    except ValueError:
        return None


def _english(found: re.Match[str]) -> time | None:
    if found["noon"] or found["midnight"]:
        return time(12 if found["noon"] else 0)

    hour = int(found["hour"] or found["round"])
    half = (found["half"] or found["that"] or "").casefold()

    if half:
        if not 1 <= hour <= 12:
            return None

        hour = hour % 12 + (12 if half.startswith("p") else 0)

    return _time(hour, int(found["minute"] or 0), int(found["second"] or 0))


def _spoken(found: re.Match[str]) -> time | None:
    hour, minute = _count(found["hour"]), 0

    if found["half"]:
        minute = 30
    elif found["quarter"]:
        minute = 15 if found["quarter"] == "一刻" else 45
    elif found["minute"]:
        minute = _count(found["minute"])

    if found["part"] in _AFTERNOON and hour < 12 and not (found["part"] == "中午" and hour >= 10):
        hour += 12

    return _time(hour, minute)


def _count(digits: str) -> int:
    return int(digits) if digits.isdigit() else int(chinese_digits(digits))


def _time(hour: int, minute: int, second: int = 0) -> time | None:
    try:
        return time(hour, minute, second)
    except ValueError:
        return None
