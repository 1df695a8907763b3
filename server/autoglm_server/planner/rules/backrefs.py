"""Back references: *it*, *the result*, *the first result*, *them*, *both results*, 它, 结果, 第一步的结果, 它们, 两个结果."""

from __future__ import annotations

import re

from autoglm._dataclasses import dataclass
from autoglm_server.planner.rules.numerals import chinese_digits
from autoglm_server.planner.rules.source import CJK, Source

_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
}  # fmt: skip
_ORDINAL = "(?:" + "|".join(_ORDINALS) + r"|\d{1,3}(?:st|nd|rd|th))"
_RESULT = r"(?:results?|answers?|outputs?|outcome)"
_THING = rf"(?:{_RESULT}|value|number|text|string|sum|total|product|amount|one)"

_COUNTS = {"two": 2, "both": 2, "three": 3, "four": 4, "five": 5, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5}
_COUNT = r"(?:two|three|four|five)"
_THINGS = r"(?:results|answers|outputs|outcomes|values|numbers|texts|strings|sums|totals|products|amounts)"
_MANY = re.compile(
    rf"(?:(?:all|both)\s+(?:of\s+)?)?(?:the|these|those|their|its|both|all)\s+"
    rf"(?:(?:previous|last|above|resulting)\s+)?(?:{_COUNT}\s+)?(?:(?:previous|last|above|resulting)\s+)?{_THINGS}\b"
    rf"|(?:all|both|the\s+{_COUNT}|(?:all|the)\s+{_COUNT})\s+(?:of\s+)?(?:them|these|those)\b"
    rf"|(?:the|these|those|all)\s+{_COUNT}(?!\s+[^\W\d_])"
    r"|(?:them|these|those|both|results|answers|outputs)\b"
    r"|(?:它们|这些|那些|所有|全部|以上)的?(?:结果|答案|输出|数字|数值|数|值|文本|内容)"
    r"|(?:这|那|以上|前面|上面)?(?:[两三四五]|几)(?:个|项)(?:结果|答案|输出|数字|数值|数|值|文本)"
    r"|[两二三四五]者|它们|这些|那些|(?:这|那)[两三四五几]个",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    rf"(?:the\s+)?(?P<before>{_ORDINAL})\s+(?:{_RESULT}|step)(?:['’]s\s+{_RESULT})?"
    rf"|(?:the\s+)?{_RESULT}\s+of\s+(?:the\s+)?(?:(?P<middle>{_ORDINAL})\s+step|step\s+(?P<after>\d{{1,3}}))"
    rf"|step\s+(?P<bare>\d{{1,3}})(?:['’]s\s+{_RESULT})?"
    rf"|第\s*(?P<chinese>\d{{1,3}}|[一二三四五六七八九十]{{1,3}})\s*(?:步骤|步|个|次)\s*(?:的\s*)?(?:结果|答案|输出)",
    re.IGNORECASE,
)
_LAST = re.compile(
    rf"(?:the\s+|that\s+|this\s+|its\s+)(?:(?:previous|last|above|resulting)\s+)?{_THING}\b"
    rf"|(?:previous|last)\s+{_RESULT}\b"
    r"|(?:它|其|这个?|那个?|此|该|上一步|上一个|上面|上述|前面|刚才)\s*的?\s*(?:结果|答案|输出|数字|数值|数|值|文本|内容|时间|日期)"
    r"|上一步",
    re.IGNORECASE,
)
_PRONOUN = re.compile(
    rf"(?:it|that|this|result|answer|output|outcome)(?![^\W{CJK}])|它|其|此|这个|那个|这|那|结果|答案",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class BackReference:
    """What a request says of an earlier clause: the one before (``number`` 0), or the one with this number, from 1.

    ``many`` speaks of several: all that no clause refers to yet; ``count`` is how many the words say there are (0: any).
    """

    number: int
    words: str
    many: bool = False
    count: int = 0


def read_back_reference(source: Source, start: int) -> list[tuple[int, BackReference]]:
    """Give where a back reference that begins at ``start`` may end, the longest first."""
    offset = source.atoms[start].start
    ends: list[tuple[int, BackReference]] = []

    for pattern in (_NUMBERED, _MANY, _LAST, _PRONOUN):
        found = pattern.match(source.text, offset)
        end = None if found is None else source.after(found.end())

        if found is not None and end is not None and end not in (known for known, _ in ends):
            number = _number(found) if pattern is _NUMBERED else 0
            many = pattern is _MANY
            ends.append((end, BackReference(number, found.group(), many, _count(found.group()) if many else 0)))

    return ends


def _count(words: str) -> int:
    """Give how many things the words name; 0 when they do not say."""
    return next((_COUNTS[sign] for sign in re.findall(r"[a-z]+|[一-龥]", words.casefold()) if sign in _COUNTS), 0)


def _number(found: re.Match[str]) -> int:
    if found["chinese"]:
        return int(found["chinese"] if found["chinese"].isdigit() else chinese_digits(found["chinese"]))

    digits = found["after"] or found["bare"]

    if digits:
        return int(digits)

    ordinal = (found["before"] or found["middle"]).casefold()
    return _ORDINALS.get(ordinal) or int(re.sub(r"\D", "", ordinal))
