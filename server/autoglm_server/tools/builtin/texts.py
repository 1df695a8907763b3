"""``text.*``: counting, changing and searching text. No pattern of a caller is ever run; ours are linear in the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypedDict

from autoglm.model import Effect, ToolExample
from autoglm.tool import Constraint, ToolError, tool
from autoglm.wire import canonical_json
from autoglm_server.tools.builtin._text_phrases import CASE, COUNT, EXTRACT, JOIN, REPLACE, REVERSE, SORT

LENGTH_MAX: Final = 262_144
"""Characters of a text."""

OUTPUT_MAX: Final = 1_000_000
"""Bytes, in UTF-8, of a text that a tool gives; the server takes no output above 1 MiB."""

ITEMS_MAX: Final = 10_000
"""Parts that an extraction gives."""

_TIMEOUT: Final = timedelta(seconds=10)
_TAGS: Final = ("text",)
_Text = Annotated[str | float | bool, Constraint(max_length=LENGTH_MAX)]
"""What is worked on as text. Results of other steps are often numbers: these and booleans stand for what JSON writes."""

_Short = Annotated[str | float | bool, Constraint(max_length=10_000)]

What = Literal["words", "characters", "letters", "lines", "sentences", "occurrences"]
Case = Literal["upper", "lower", "title", "capitalize", "snake", "kebab", "camel", "pascal", "swap"]
Kind = Literal["emails", "urls", "numbers", "dates", "hashtags", "mentions", "words"]

_HAN: Final = "\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff\U00020000-\U0003134f"
# Texts, which `re` compiles when one is first used: together they take longer than the rest of this module.
_WORD: Final = rf"[{_HAN}]|[^\W_{_HAN}]+(?:['’.,_-][^\W_{_HAN}]+)*"  # noqa: RUF001  # both apostrophes
_SENTENCE_END: Final = r"[!?。！？…]+|\.+(?![0-9.])"  # noqa: RUF001  # Chinese marks
_PARTS: Final = r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^\W\dA-Za-z_]+"
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
# Compiled when they are first looked for, and kept by `re`.
_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "emails": (
            r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
        ),
        "urls": r"(?i)(?<![A-Za-z])(?:https?://|www\.)[A-Za-z0-9\-._~:/?#@!$&'()*+,;=%\[\]]{1,2000}",
        "numbers": (
            r"(?<![\w.])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}(?![0-9])|[0-9]{1,400})(?:\.[0-9]{1,400})?(?:[eE][-+]?[0-9]{1,3})?%?"
        ),
        "dates": (
            r"(?i)(?<!\d)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|\d{4}年\d{1,2}月\d{1,2}[日号]|\d{1,2}[/.]\d{1,2}[/.]\d{4}(?!\d)"
            rf"|\d{{1,2}}(?:st|nd|rd|th)?\s{{1,3}}{_MONTH},?\s{{1,3}}\d{{4}}(?!\d))"
            rf"|(?<![A-Za-z]){_MONTH}\s{{1,3}}\d{{1,2}}(?:st|nd|rd|th)?,?\s{{1,3}}\d{{4}}(?!\d)"
        ),
        "hashtags": r"(?<![\w#])#\w{1,200}",
        "mentions": r"(?<![\w@.])@[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?",
        "words": _WORD,
    },
)
_ENDS: Final = ".,;:!?'\""


class Counted(TypedDict):
    """How many there are: ``result`` of ``what``."""

    result: int
    what: str


class Changed(TypedDict):
    """A text that was changed: ``result``, and in how many places."""

    result: str
    count: int


class Made(TypedDict):
    """A text that was made: ``result``."""

    result: str


class Found(TypedDict):
    """Parts of a text, in its order, each once: ``result``, and how many."""

    result: list[str]
    count: int


@tool(
    name="text.count",
    title="Count in a text",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=COUNT,
    examples=(
        ToolExample(
            'how many words in "to be or not to be"',
            {"text": "to be or not to be", "what": "words"},
            {"result": 6, "what": "words"},
        ),
        ToolExample(
            'how many times does "r" occur in "strawberry"',
            {"text": "strawberry", "what": "occurrences", "of": "r"},
            {"result": 3, "what": "occurrences"},
        ),
    ),
)
def count(text: _Text, what: What = "words", of: _Short = "", *, ignore_case: bool = False) -> Counted:
    """Count the words, characters, letters, lines or sentences of a text, or how often something occurs in it.

    Each Chinese or Japanese character counts as a word. Characters are counted as people see them, spaces included.
    Occurrences do not overlap.

    Args:
        text: The text to count in.
        what: What to count.
        of: For occurrences: what to look for, literally.
        ignore_case: For occurrences: take capital and small letters as one.
    """
    text, of = _written(text), _written(of)
    if what == "occurrences":
        if not of:
            raise ToolError("of is empty; write what to look for", reason="INVALID_VALUE")

        number = text.casefold().count(of.casefold()) if ignore_case else text.count(of)
    elif what == "words":
        number = sum(1 for _ in re.finditer(_WORD, text))
    elif what == "characters":
        number = len(_clusters(text))
    elif what == "letters":
        number = sum(character.isalpha() for character in text)
    elif what == "lines":
        number = len(text.splitlines())
    else:
        number = sum(1 for sentence in re.split(_SENTENCE_END, text) if sentence.strip())

    return Counted(result=number, what=what)


@tool(
    name="text.case",
    title="Change the case of a text",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=CASE,
    examples=(
        ToolExample('uppercase "hello"', {"text": "hello", "case": "upper"}, {"result": "HELLO"}),
        ToolExample(
            'convert "User account ID" to snake case',
            {"text": "User account ID", "case": "snake"},
            {"result": "user_account_id"},
        ),
    ),
)
def case(text: _Text, case: Case) -> Made:
    """Write a text in capitals, small letters, title case, or as a name for a program.

    Args:
        text: The text to change.
        case: upper, lower, title (Each Word), capitalize (First word), swap, snake (a_b), kebab (a-b), camel (aB), pascal (AB).
    """
    return Made(result=_bounded(_cased(_written(text), case)))


@tool(
    name="text.extract",
    title="Extract from a text",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=EXTRACT,
    examples=(
        ToolExample(
            'extract emails from "Write to ann@example.com or bob@example.org."',
            {"text": "Write to ann@example.com or bob@example.org.", "what": "emails"},
            {"result": ["ann@example.com", "bob@example.org"], "count": 2},
        ),
    ),
)
def extract(text: _Text, what: Kind) -> Found:
    """Find the e-mail addresses, URLs, numbers, dates, hashtags, mentions or words of a text, in its order and each once.

    Args:
        text: The text to search.
        what: What to look for.
    """
    found: dict[str, None] = {}
    for match in re.finditer(_KINDS[what], _written(text)):
        part = match[0].rstrip(_ENDS) if what in ("urls", "mentions") else match[0]
        if what == "urls" and part.endswith(")") and "(" not in part:
            part = part.rstrip(")" + _ENDS)

        found[part] = None
        if len(found) > ITEMS_MAX:
            raise ToolError(f"the text has more than {ITEMS_MAX:,} {what}; search it in parts", reason="TOO_LARGE")

    return Found(result=list(found), count=len(found))


@tool(
    name="text.replace",
    title="Replace in a text",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=REPLACE,
    examples=(
        ToolExample(
            'replace "cat" with "dog" in "a cat"',
            {"text": "a cat", "old": "cat", "new": "dog"},
            {"result": "a dog", "count": 1},
        ),
    ),
)
def replace(text: _Text, old: _Short, new: _Short) -> Changed:
    """Replace each occurrence of one text in another, literally.

    Args:
        text: The text to change.
        old: What to replace.
        new: What to put there; empty removes it.
    """
    text, old, new = _written(text), _written(old), _written(new)
    if not old:
        raise ToolError("old is empty; write what to replace", reason="INVALID_VALUE")

    number = text.count(old)
    if len(text) + number * (len(new) - len(old)) > OUTPUT_MAX:
        raise _too_large()

    return Changed(result=_bounded(text.replace(old, new)), count=number)


@tool(
    name="text.reverse",
    title="Reverse a text",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=REVERSE,
    examples=(ToolExample('reverse "hello"', {"text": "hello"}, {"result": "olleh"}),),
)
def reverse(text: _Text, by: Literal["characters", "words", "lines"] = "characters") -> Made:
    """Write a text backwards, by its characters, words or lines. Accents and emojis stay whole.

    Args:
        text: The text to reverse.
        by: What changes its place.
    """
    text = _written(text)
    if by == "lines":
        return Made(result="\n".join(reversed(text.splitlines())))

    parts = text.split() if by == "words" else _clusters(text)
    return Made(result=(" " if by == "words" else "").join(reversed(parts)))


@tool(
    name="text.sort",
    title="Sort a list in a text",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=SORT,
    examples=(
        ToolExample('sort "pear, apple, fig"', {"text": "pear, apple, fig"}, {"result": "apple, fig, pear"}),
        ToolExample(
            'sort "10, 9, 100" descending', {"text": "10, 9, 100", "descending": True}, {"result": "100, 10, 9"}
        ),
    ),
)
def sort(text: _Text, *, descending: bool = False, unique: bool = False) -> Made:
    """Sort the lines of a text, or, in a text of one line, what its commas (else its spaces) divide; numbers by size.

    Args:
        text: The lines, or the list on one line.
        descending: The largest first.
        unique: Keep one of those that are equal.
    """
    separator, items = _items(_written(text))
    if unique:
        items = list(dict.fromkeys(items))

    ordered = sorted(items, key=str.casefold)
    if all(re.fullmatch(_NUMERIC, item) for item in items):
        ordered = sorted(items, key=lambda item: float(item.replace(",", "")))

    return Made(result=separator.join(reversed(ordered) if descending else ordered))


@tool(
    name="text.join",
    title="Join texts",
    effect=Effect.READ_ONLY,
    timeout=_TIMEOUT,
    tags=_TAGS,
    phrases=JOIN,
    examples=(
        ToolExample('join "a", "b" with "-"', {"parts": ["a", "b"], "separator": "-"}, {"result": "a-b"}),
        ToolExample('join ["It is ", 2.5, "."]', {"parts": ["It is ", 2.5, "."]}, {"result": "It is 2.5."}),
    ),
)
def join(
    parts: Annotated[list[str | float | bool], Constraint(max_items=ITEMS_MAX)],
    separator: Annotated[str, Constraint(max_length=100)] = "",
) -> Made:
    """Join texts into one. Numbers and booleans are written as JSON writes them.

    Args:
        parts: The texts, in order.
        separator: What to put between them.
    """
    texts = [_written(part) for part in parts]
    if sum(map(len, texts)) + len(separator) * len(texts) > OUTPUT_MAX:
        raise _too_large()

    return Made(result=_bounded(separator.join(texts)))


_NUMERIC: Final = r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3}){1,5}|[0-9]{1,300})(?:\.[0-9]{1,300})?"


def _written(value: str | float | bool) -> str:  # noqa: FBT001 # a value, not a switch
    return value if isinstance(value, str) else canonical_json(value)


def _too_large() -> ToolError:
    return ToolError(f"the result would have more than {OUTPUT_MAX:,} bytes; work on less text", reason="TOO_LARGE")


def _bounded(text: str) -> str:
    if len(text) > OUTPUT_MAX // 4 and len(text.encode("utf-8", "surrogatepass")) > OUTPUT_MAX:
        raise _too_large()

    return text


def _clusters(text: str) -> list[str]:
    """Divide a text into characters as people see them: accents, joiners, flags and skin tones stay with what they belong to."""
    clusters: list[str] = []
    for character in text:
        joins = unicodedata.combining(character) or character in _JOINING or "\U0001f3fb" <= character <= "\U0001f3ff"
        if clusters and (joins or clusters[-1].endswith("\u200d") or _is_half_flag(clusters[-1], character)):
            clusters[-1] += character
        elif clusters and clusters[-1] == "\r" and character == "\n":
            clusters[-1] = "\r\n"
        else:
            clusters.append(character)

    return clusters


_JOINING: Final = frozenset("\u200d\ufe0e\ufe0f\u20e3")


def _is_half_flag(before: str, character: str) -> bool:
    """Whether ``before`` is the first of two letters that make a flag."""
    first, last = "\U0001f1e6", "\U0001f1ff"
    return len(before) == 1 and first <= before <= last and first <= character <= last


def _cased(text: str, case: Case) -> str:
    match case:
        case "upper":
            return text.upper()
        case "lower":
            return text.lower()
        case "swap":
            return text.swapcase()
        case "capitalize":
            return text[:1].upper() + text[1:].lower()
        case "title":
            return re.sub(
                r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*", lambda word: word[0][:1].upper() + word[0][1:].lower(), text
            )
        case "snake":
            return "_".join(re.findall(_PARTS, text)).lower()
        case "kebab":
            return "-".join(re.findall(_PARTS, text)).lower()
        case "pascal":
            return "".join(part[:1].upper() + part[1:].lower() for part in re.findall(_PARTS, text))
        case "camel":
            pascal = _cased(text, "pascal")
            first = re.search(_PARTS, text)
            return pascal[: len(first[0])].lower() + pascal[len(first[0]) :] if first else ""


def _items(text: str) -> tuple[str, list[str]]:
    """Divide a list; gives what to join it with again."""
    lines = text.strip().splitlines()
    if len(lines) > 1:
        return "\n", [line.strip() for line in lines]

    for sign, pattern in ((", ", r",(?:\s+|(?![0-9]{3}(?![0-9])))|;\s*"), ("、", "[、，；]"), (" ", r"\s+")):  # noqa: RUF001  # Chinese
        parts = [part.strip() for part in re.split(pattern, text.strip()) if part.strip()]
        if len(parts) > 1:
            return sign, parts

    return ", ", lines
