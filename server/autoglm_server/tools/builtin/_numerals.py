"""Numbers in words, English and Chinese: "three hundred and twenty", 三百二十, 二〇二六."""

# ruff: noqa: RUF001, SIM905 - a Chinese zero is a circle; words are read best as a line of them
from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

_SMALL: Final = MappingProxyType(
    {
        word: number
        for number, word in enumerate(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen".split()
        )
    }
)
_TENS: Final = MappingProxyType(
    {
        word: 10 * number
        for number, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
    }
)
_SCALES: Final = MappingProxyType({"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12})
_DIGITS: Final = MappingProxyType(
    {digit: number for number, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
)
_UNITS: Final = MappingProxyType({"十": 10, "百": 100, "千": 1_000})
_MYRIADS: Final = MappingProxyType({"万": 10**4, "亿": 10**8})

SCALES: Final = MappingProxyType({**_SCALES, **_UNITS, **_MYRIADS, "百万": 10**6, "千万": 10**7})
"""Words that multiply the number in digits before them, as in "2.5 million" and 3万."""

_WORD: Final = "|".join(sorted((*_SMALL, *_TENS, *_SCALES, "hundred"), key=len, reverse=True))
ENGLISH: Final = re.compile(
    rf"(?:{_WORD})(?:(?:[\s-]+|(?<=d)\s+and\s+|(?<=n)\s+and\s+)(?:{_WORD}))*(?![a-z])", re.IGNORECASE
)
"""A number in English words; "and" only after hundred, thousand, million and billion."""

CHINESE: Final = re.compile(
    rf"[{''.join((*_DIGITS, *_UNITS, *_MYRIADS))}]+(?:点[{''.join(_DIGITS)}]+)?",
)
"""A number in Chinese characters, with decimals after 点."""


def english_number(text: str) -> int:
    """Read a number in English words.

    Raises:
        ValueError: the words do not make one number, as "two three".
    """
    total, current, last_scale = 0, 0, 10**15
    for word in re.split(r"[\s-]+", text.lower()):
        if word == "and":
            continue

        if word in _SCALES and 0 < current < 1_000 and _SCALES[word] < last_scale:
            last_scale = _SCALES[word]
            total, current = total + current * last_scale, 0
        elif word == "hundred" and 0 < current < 10:
            current *= 100
        elif word in _TENS and current % 100 == 0:
            current += _TENS[word]
        elif word in _SMALL and _fits(current, _SMALL[word]):
            current += _SMALL[word]
        else:
            raise ValueError(text)

    return total + current


def _fits(current: int, small: int) -> bool:
    if small >= 10 or current % 100 == 0:
        return current % 100 == 0

    return small > 0 and current % 10 == 0 and current % 100 >= 20


def chinese_number(text: str) -> str:
    """Read a number in Chinese characters; gives it in digits.

    Raises:
        ValueError: the characters do not make a number, as 百百.
    """
    whole, _, decimals = text.partition("点")
    number = _positional(whole) if all(digit in _DIGITS for digit in whole) else str(_multiplied(whole))
    return f"{number}.{_positional(decimals)}" if decimals else number


def _positional(text: str) -> str:
    return "".join(str(_DIGITS[digit]) for digit in text)


def _multiplied(text: str) -> int:
    total = section = digit = 0
    smallest, last_unit = 10**12, 10**4
    pending = False
    for character in text:
        if character in _DIGITS:
            if pending:
                raise ValueError(text)

            digit, pending = _DIGITS[character], character not in "零〇"
        elif character in _UNITS:
            unit = _UNITS[character]
            if unit >= last_unit or not (pending or (unit == 10 and section == 0)):
                raise ValueError(text)

            section, last_unit, digit, pending = section + (digit if pending else 1) * unit, unit, 0, False
        else:
            unit = _MYRIADS[character]
            section += digit
            if unit > smallest or not (section or (total and unit == 10**8)):
                raise ValueError(text)

            total = (total + section) * unit if unit == 10**8 else total + section * unit
            smallest, section, digit, pending, last_unit = unit, 0, 0, False, 10**4

    return total + section + digit * _tail_unit(text)


def _tail_unit(text: str) -> int:
    """Give what a last digit counts: 三百二 is 320 and 两万五 25,000, but 三百零二 is 302."""
    if len(text) < 3 or text[-2] not in "百千万亿":
        return 1

    return (_UNITS | _MYRIADS)[text[-2]] // 10
