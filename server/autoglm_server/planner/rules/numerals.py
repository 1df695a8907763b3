"""Numbers as people write them: ``1,234.5``, ``15%``, ``2.5e3``, 三百二十, 百分之十五, and in English words."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from autoglm._dataclasses import dataclass
from autoglm_server.planner.rules.source import Source, fold
from autoglm_server.planner.rules.spelled import read_spelled

_DIGITS_MAX = 60
"""How many characters a number may have. Longer ones are read as text."""
_EXACT = 2**53 - 1

_ARABIC = re.compile(r"[-+−]?\s?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+(?![^\W\d]))?")
_CHINESE = re.compile(
    r"(?P<percent>百分之)?(?P<minus>负)?(?P<digits>[零〇一二两三四五六七八九十百千万亿]+(?:点[零〇一二三四五六七八九]+)?)"
)
_PERCENT = re.compile(r"\s?(?:%|percent\b|per cent\b)", re.IGNORECASE)
_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}


@dataclass(frozen=True, slots=True)
class Number:
    """A number that was read: ``written`` without separators of thousands, and its ``value``."""

    written: str
    value: int | float

    @property
    def integral(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.value, int)


def read_number(source: Source, start: int) -> list[tuple[int, Number]]:
    """Give the ends of numbers that begin at ``start``, and the numbers: the longest first."""
    offset = source.atoms[start].start
    found = _ARABIC.match(source.text, offset) or _CHINESE.match(source.text, offset)

    if found is None:
        return _spelled(source, start)

    if found.end() - offset > _DIGITS_MAX:
        return []

    plain = _plain(found)
    ends: list[tuple[int, Number]] = []

    if found.re is _CHINESE:
        candidates = [(found.end(), plain)]
    else:
        percent = _PERCENT.match(source.text, found.end())
        candidates = [(percent.end(), plain + "%")] if percent else []
        candidates.append((found.end(), plain))

    for stop, written in candidates:
        end = source.after(stop)
        number = _number(written)

        if end is not None and number is not None:
            ends.append((end, number))

    return ends


def _spelled(source: Source, start: int) -> list[tuple[int, Number]]:
    ends: list[tuple[int, Number]] = []

    for end, digits in read_spelled(source, start):
        percent = _PERCENT.match(source.text, source.atoms[end - 1].end)
        candidates = [(source.after(percent.end()), digits + "%")] if percent else []

        for stop, written in (*candidates, (end, digits)):
            number = _number(written)

            if stop is not None and number is not None:
                ends.append((stop, number))

    return ends


def parse_number(text: str) -> Number | None:
    """Give the number ``text`` is, if it is one as a whole."""
    text = text.strip()
    source = Source(text)

    if not text or len(text) > _DIGITS_MAX:
        return None

    return next((number for end, number in read_number(source, 0) if end == len(source)), None)


def _plain(found: re.Match[str]) -> str:
    if found.re is _ARABIC:
        return re.sub(r"[,\s]", "", fold(found.group()).replace("−", "-")).lstrip("+")

    return ("-" if found["minus"] else "") + chinese_digits(found["digits"]) + ("%" if found["percent"] else "")


def _number(written: str) -> Number | None:
    percent = written.endswith("%")
    value = Decimal(written.rstrip("%"))

    if not math.isfinite(float(value)):
        return None

    if not value:
        return Number(written, 0)

    if percent:
        value = value.scaleb(-2)

    whole = value == value.to_integral_value() and abs(value) < Decimal(10) ** _DIGITS_MAX
    return Number(written, int(value) if whole and (abs(value) <= _EXACT or "e" not in written) else float(value))


def chinese_digits(signs: str) -> str:
    """Give a Chinese number without sign as digits: 三百二十 is ``320``, 二〇二六 ``2026``, 三点五 ``3.5``."""
    whole, _, fraction = signs.partition("点")

    if len(whole) > 1 and all(sign in _DIGITS for sign in whole):
        digits = "".join(str(_DIGITS[sign]) for sign in whole)  # 二〇二六: digit by digit
    else:
        digits = str(_counted(whole))

    return digits + ("." + "".join(str(_DIGITS[sign]) for sign in fraction) if fraction else "")


def _counted(signs: str) -> int:
    total = group = digit = 0

    for sign in signs:
        if sign in _DIGITS:
            digit = _DIGITS[sign]
        elif sign in _UNITS:
            group += (digit or 1) * _UNITS[sign]
            digit = 0
        elif sign == "万":
            total, group, digit = total + (group + digit or 1) * 10**4, 0, 0
        else:
            total, group, digit = (total + group + digit or 1) * 10**8, 0, 0

    return total + group + digit
