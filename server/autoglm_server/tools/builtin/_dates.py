"""Reading dates and times as people write them, in English and Chinese."""

# ruff: noqa: E501 - tables and patterns
from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, time, timedelta
from typing import Final

from autoglm.tool import ToolError
from autoglm_server.tools.builtin._numerals import CHINESE, chinese_number

LENGTH_MAX: Final = 64
"""Characters of a date or time."""

AMOUNT_MAX: Final = 10_000_000_000
"""The largest amount of any unit that a date is moved by."""

_DAYS: Final = {
    "today": 0, "now": 0, "tomorrow": 1, "yesterday": -1, "the day after tomorrow": 2, "day after tomorrow": 2,
    "the day before yesterday": -2, "day before yesterday": -2, "今天": 0, "今日": 0, "现在": 0, "明天": 1, "明日": 1, "后天": 2,
    "大后天": 3, "昨天": -1, "昨日": -1, "前天": -2, "大前天": -3,
}  # fmt: skip
_FEASTS: Final = {
    "christmas": (12, 25), "christmas day": (12, 25), "christmas eve": (12, 24), "new year": (1, 1), "new year's day": (1, 1),
    "new years day": (1, 1), "new year's": (1, 1), "new year's eve": (12, 31), "halloween": (10, 31), "valentine's day": (2, 14),
    "圣诞节": (12, 25), "圣诞": (12, 25), "平安夜": (12, 24), "元旦": (1, 1), "国庆节": (10, 1), "国庆": (10, 1), "劳动节": (5, 1),
    "情人节": (2, 14),
}  # fmt: skip
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
"""The days of the week in English, from Monday."""

WEEKDAYS_CHINESE: Final = ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日")
"""The days of the week in Chinese, from Monday."""

UNITS: Final = {
    "second": "seconds", "sec": "seconds", "s": "seconds", "秒": "seconds", "秒钟": "seconds",
    "minute": "minutes", "min": "minutes", "分钟": "minutes", "分": "minutes",
    "hour": "hours", "hr": "hours", "h": "hours", "小时": "hours", "个小时": "hours", "钟头": "hours",
    "day": "days", "d": "days", "天": "days", "日": "days", "calendar day": "days",
    "week": "weeks", "wk": "weeks", "周": "weeks", "星期": "weeks", "个星期": "weeks", "礼拜": "weeks", "个礼拜": "weeks",
    "fortnight": "fortnights",
    "month": "months", "月": "months", "个月": "months", "quarter": "quarters", "季度": "quarters", "个季度": "quarters",
    "year": "years", "yr": "years", "年": "years", "decade": "decades",
    "business day": "business days", "working day": "business days", "workday": "business days", "weekday": "business days",
    "工作日": "business days", "个工作日": "business days",
}  # fmt: skip
"""What names of units mean; English ones also with an s."""

_MONTH: Final = r"(?P<month>" + "|".join(_MONTHS) + r")[a-z]*\.?"
# Patterns are compiled when they are first used, and kept by `re`: they would be a good part of a server's start.
_FORMS: Final = (
    r"(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})",
    r"(?P<y>\d{4})年(?P<m>\d{1,2})月(?P<d>\d{1,2})[日号]?",
    r"(?P<m>\d{1,2})月(?P<d>\d{1,2})[日号]?",
    rf"(?:the\s+)?(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?(?:\s+(?P<y>\d{{4}}))?",
    rf"{_MONTH}\s+(?:the\s+)?(?P<d>\d{{1,2}})(?:st|nd|rd|th)?,?(?:\s+(?P<y>\d{{4}}))?",
)
_CLOCK: Final = (
    r"(?P<early>凌晨|早上|上午|中午|下午|傍晚|晚上)?\s*(?P<h>\d{1,2})(?:[::点时](?P<m>\d{1,2}|半|一刻|三刻)?分?(?:[::](?P<s>\d{1,2})(?:\.\d+)?)?秒?|(?=\s*[ap]\.?m))"
    r"整?\s*(?P<half>[ap]\.?m\.?)?"
)
_RELATIVE: Final = (
    r"(?P<before>in\s+)?(?P<n>\d+|a|an|one|two|three|four|five|six|seven|eight|nine|ten)\s*(?P<unit>[a-z ]+?|[\u4e00-\u9fff]+?)\s*"
    r"(?P<after>from\s+now|from\s+today|later|ago|之?后|以后|之?前|以前)?"
)
_NEXT: Final = r"(?P<which>next|last|this|coming|on)?\s*(?P<day>mon|tue|wed|thu|fri|sat|sun)[a-z]*"
_NEXT_CHINESE: Final = r"(?P<which>下|上|这|本)?(?:个)?(?:星期|周|礼拜)(?P<day>[一二三四五六日天])"
_WORDS: Final = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def bad_date(field: str, text: str, why: str = "is no date") -> ToolError:
    remedy = "write one such as 2026-11-22, 2026-11-22T10:30+01:00, 22 November 2026, tomorrow, next Monday or 3 days from now"
    return ToolError(f"{field} is {text[:LENGTH_MAX]!r}, which {why}; {remedy}", reason="INVALID_DATE")


def unit_of(text: str, field: str) -> str:
    """Give the unit's one name, such as days.

    Raises:
        ToolError: INVALID_UNIT.
    """
    name = " ".join(text.lower().replace("_", " ").split())
    found = UNITS.get(name) or UNITS.get(name.removesuffix("s"))
    if found is None:
        known = ", ".join(dict.fromkeys(UNITS.values()))
        raise ToolError(f"{field} is {text[:LENGTH_MAX]!r}; write one of {known}", reason="INVALID_UNIT")

    return found


def read_date(text: str, field: str, now: datetime) -> date | datetime:
    """Read a date, or a date with a time (aware if it says an offset). ``now`` is what "today" and "3 days from now" go by.

    Raises:
        ToolError: INVALID_DATE; names ``field``, the value and what may be written.
    """
    plain = " ".join(text.strip().split())
    if not plain or len(plain) > LENGTH_MAX:
        raise bad_date(field, text)

    for reader in (_iso, _named, _relative, _weekday, _written):
        try:
            found = reader(plain, now)
        except (ValueError, OverflowError) as error:
            raise bad_date(field, text, f"is no date ({error})") from None

        if found is not None:
            return found

    found_time = re.fullmatch(rf"(?P<date>.+?)(?:\s+(?:at\s+)?|T)(?P<time>{_CLOCK})", plain, re.IGNORECASE)
    clock = read_clock(found_time["time"]) if found_time else None
    if found_time and clock is not None:
        day = read_date(found_time["date"], field, now)
        return datetime.combine(day, clock)

    raise bad_date(field, text)


def _iso(text: str, _now: datetime) -> date | datetime | None:
    if not re.match(r"\d{4}-\d{2}-\d{2}", text):
        return None

    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        if len(text) == 10:
            raise

        return None


def _named(text: str, now: datetime) -> date | datetime | None:
    name = text.lower()
    if name in ("now", "现在"):
        return now.replace(microsecond=0)

    if name in _DAYS:
        return now.date() + timedelta(days=_DAYS[name])

    if name in _FEASTS:
        month, day = _FEASTS[name]
        this = date(now.year, month, day)
        return this if this >= now.date() else date(now.year + 1, month, day)

    return None


def _relative(text: str, now: datetime) -> date | datetime | None:
    plain = CHINESE.sub(lambda found: _digits(found[0]), text) if text[0] > "z" else text
    match = re.fullmatch(_RELATIVE, plain, re.IGNORECASE)
    if match is None or not (match["before"] or match["after"]):
        return None

    word = match["n"].lower()
    number = int(word) if word.isdecimal() else _WORDS.index(word) if word in _WORDS else 1
    unit = UNITS.get(match["unit"].lower()) or UNITS.get(match["unit"].lower().removesuffix("s"))
    if unit is None:
        return None

    sign = -1 if (match["after"] or "").lower() in ("ago", "前", "之前", "以前") else 1
    start: date | datetime = now.replace(microsecond=0) if unit in ("seconds", "minutes", "hours") else now.date()
    return shift(start, sign * number, unit)[0]


def _weekday(text: str, now: datetime) -> date | None:
    if match := re.fullmatch(_NEXT, text, re.IGNORECASE):
        wanted = next(at for at, day in enumerate(WEEKDAYS) if day[:3].lower() == match["day"].lower())
        ahead = (wanted - now.weekday()) % 7
        which = (match["which"] or "").lower()
        days = {"next": ahead or 7, "last": ahead - 7 if ahead else -7}.get(which, ahead)
        return now.date() + timedelta(days=days)

    if match := re.fullmatch(_NEXT_CHINESE, text):
        wanted = "一二三四五六日".index(match["day"].replace("天", "日"))
        week = {"下": 7, "上": -7}.get(match["which"] or "", 0)
        return now.date() + timedelta(days=wanted - now.weekday() + week)

    return None


def _written(text: str, now: datetime) -> date | None:
    for form in _FORMS:
        if match := re.fullmatch(form, text, re.IGNORECASE):
            parts = match.groupdict()
            month = int(parts["m"]) if parts.get("m") else _MONTHS.index(parts["month"].lower()) + 1
            return date(int(parts.get("y") or now.year), month, int(parts["d"]))

    return None


def read_clock(text: str) -> time | None:
    """Read a time of day, as 15:30, 3pm, noon or 下午3点半; None if it is none."""
    named = {"noon": time(12), "midday": time(12), "midnight": time(0), "中午": time(12), "午夜": time(0)}
    plain = " ".join(text.strip().lower().split())
    if plain in named:
        return named[plain]

    if plain[:1] > "z":
        plain = re.sub(
            rf"{CHINESE.pattern}(?=[点时分秒])|(?<=[点时]){CHINESE.pattern}(?!刻)",
            lambda found: _digits(found[0]),
            plain,
        )

    match = re.fullmatch(_CLOCK, plain, re.IGNORECASE)
    if match is None:
        return None

    hour, minute = int(match["h"]), {"半": 30, "一刻": 15, "三刻": 45}.get(match["m"] or "0") or 0
    if (match["m"] or "").isdecimal():
        minute = int(match["m"])

    half = (match["half"] or "")[:1]
    if half and not 1 <= hour <= 12:
        return None

    if half or match["early"]:
        late = half == "p" or match["early"] in ("下午", "傍晚", "晚上") or (match["early"] == "中午" and hour < 4)
        hour = hour % 12 + 12 if late and hour <= 12 else hour % 12 if half == "a" else hour

    try:
        return time(hour, minute, int(match["s"] or 0))
    except ValueError:
        return None


def _digits(text: str) -> str:
    """Write a Chinese number in digits; leave what is none."""
    try:
        return chinese_number(text)
    except ValueError:
        return text


def shift(start: date | datetime, amount: int, unit: str) -> tuple[date | datetime, str]:
    """Move a date by whole units; gives the new date, and a note when the day had to change to fit the month.

    Raises:
        OverflowError: outside the years 1 to 9999.
    """
    if abs(amount) > AMOUNT_MAX:
        raise OverflowError(f"more than {AMOUNT_MAX:,} {unit} away")

    months = {"months": 1, "quarters": 3, "years": 12, "decades": 120}.get(unit)
    if months:
        return _shift_months(start, amount * months)

    if unit == "business days":
        return _shift_business_days(start, amount), ""

    seconds = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800, "fortnights": 1209600}[unit]
    step = timedelta(seconds=seconds) * amount
    if not isinstance(start, datetime) and unit in ("seconds", "minutes", "hours"):
        start = datetime.combine(start, time())

    return start + step, ""


def _shift_months(start: date | datetime, months: int) -> tuple[date | datetime, str]:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError("the year would be outside 1 to 9999")

    last = monthrange(year, month + 1)[1]
    moved = start.replace(year=year, month=month + 1, day=min(start.day, last))
    note = (
        f"{year}-{month + 1:02} has only {last} days, so the day is {last}, not {start.day}" if start.day > last else ""
    )
    return moved, note


def _shift_business_days(start: date | datetime, amount: int) -> date | datetime:
    """Count Mondays to Fridays, without holidays; a weekend counts as the Friday before, or going back the Monday after."""
    sign = 1 if amount >= 0 else -1
    while amount and start.weekday() > 4:
        start -= timedelta(days=sign)

    weeks, rest = divmod(abs(amount), 5)
    moved = start + timedelta(weeks=weeks * sign)
    while rest:
        moved += timedelta(days=sign)
        rest -= moved.weekday() < 5

    return moved
