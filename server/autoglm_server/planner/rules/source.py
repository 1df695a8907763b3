"""The request as atoms: words, digits, single Chinese characters, quoted texts, JSON, signs. Nothing divides an atom."""

from __future__ import annotations

import enum
import json
import math
import re
import unicodedata
from bisect import bisect_left
from functools import cached_property
from typing import NamedTuple

CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
"""The inside of a character class: scripts written without spaces between words."""

_LETTER = rf"[^\W\d{CJK}]"
_ATOM = re.compile(
    rf"\s+|(?P<cjk>[{CJK}])|(?P<word>{_LETTER}+(?:['’]{_LETTER}+)*)|(?P<digits>\d+)|(?P<sign>.)", re.DOTALL
)
_CHINESE = re.compile(rf"[{CJK}]")

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "「": "」", "『": "』", "`": "`", "＂": "＂"}
_APOSTROPHES = "'’"
_JSON_TRIES = 64
"""How many brackets that begin no JSON are tried; each try may read to the end, so the sum must have a bound."""


class Kind(enum.Enum):
    """What an atom is."""

    WORD = enum.auto()
    DIGITS = enum.auto()
    CJK = enum.auto()
    SIGN = enum.auto()
    QUOTED = enum.auto()
    JSON = enum.auto()


_KINDS = {"word": Kind.WORD, "digits": Kind.DIGITS, "cjk": Kind.CJK, "sign": Kind.SIGN}


def fold(text: str) -> str:
    """Give the form in which words are compared: one case, one width, one apostrophe."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold().replace("’", "'")


def chinese(text: str) -> bool:
    """Whether there is a Chinese character in ``text``."""
    return _CHINESE.search(text) is not None


class Atom(NamedTuple):
    """A piece of the request. ``key`` is its folded form, empty for quoted text and JSON, so no fixed word is found in them.

    ``content`` is what is between the quotes, exactly. ``new_line`` and ``spaced`` tell of what stood before it.
    """

    kind: Kind
    start: int
    end: int
    key: str
    content: str = ""
    new_line: bool = False
    spaced: bool = False


class Source:
    """A text and its atoms. Positions are numbers of atoms; a span is half open."""

    def __init__(self, text: str) -> None:
        """Divide ``text``, in time that grows with its length."""
        self.text = text
        self.atoms = _divide(text)
        self._starts = [atom.start for atom in self.atoms]

    def __len__(self) -> int:
        return len(self.atoms)

    def key(self, position: int) -> str:
        """Give the folded word at ``position``, empty beyond the end."""
        return self.atoms[position].key if 0 <= position < len(self.atoms) else ""

    def raw(self, start: int, end: int) -> str:
        """Give the text of a span as it was written."""
        return self.text[self.atoms[start].start : self.atoms[end - 1].end] if start < end else ""

    def after(self, offset: int) -> int | None:
        """Give the position that begins after the text's ``offset``, or None when it lies inside an atom."""
        position = bisect_left(self._starts, offset)
        ended = position == 0 or self.atoms[position - 1].end <= offset
        return position if ended else None

    def starts_with(self, position: int, words: tuple[str, ...]) -> bool:
        """Whether these folded words stand at ``position``."""
        return all(self.key(position + index) == word for index, word in enumerate(words))

    @cached_property
    def chinese(self) -> bool:
        """Whether the request speaks Chinese outside its quoted texts."""
        return any(atom.kind is Kind.CJK for atom in self.atoms)


def words_of(text: str) -> tuple[str, ...]:
    """Give the folded words of a fixed text, as they are compared with those of a request."""
    return tuple(fold(found.group()) for found in _ATOM.finditer(text) if not found.group().isspace())


def _divide(text: str) -> list[Atom]:
    atoms: list[Atom] = []
    hopeless: set[str] = set()  # closing signs that do not come any more
    tries = _JSON_TRIES
    position = 0
    line = spaced = False

    while position < len(text):
        found = _ATOM.match(text, position)
        assert found is not None, "an atom takes any character"
        sign = found.group()

        if found.lastgroup is None:
            line, spaced, position = line or "\n" in sign, True, found.end()
            continue

        kind, end, content = _KINDS[found.lastgroup], found.end(), ""
        closed = _close(text, position, hopeless) if sign in _QUOTES else None

        if closed is not None:
            kind, end, content = Kind.QUOTED, closed + 1, text[position + 1 : closed]
        elif sign in "{[" and tries:
            stop = _json_end(text, position)
            kind, end = (Kind.JSON, stop) if stop else (kind, end)
            tries -= not stop

        whole = kind in (Kind.QUOTED, Kind.JSON)
        atoms.append(Atom(kind, position, end, "" if whole else fold(sign), content, line, spaced or not atoms))
        position, line, spaced = end, False, False

    return atoms


def _close(text: str, start: int, hopeless: set[str]) -> int | None:
    """Give where the quote that opens at ``start`` closes. An apostrophe inside a word neither opens nor closes."""
    closing = _QUOTES[text[start]]

    if closing in hopeless:
        return None

    if closing not in _APOSTROPHES:
        end = text.find(closing, start + 1)
    elif start and text[start - 1].isalnum() and not _CHINESE.match(text[start - 1]):
        return None
    else:
        end = text.find(closing, start + 1)

        while end >= 0 and end + 1 < len(text) and text[end + 1].isalnum() and not _CHINESE.match(text[end + 1]):
            end = text.find(closing, end + 1)

    if end < 0:
        hopeless.add(closing)
        return None

    return end


def _json_end(text: str, start: int) -> int | None:
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)

    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is beyond what a number holds")

    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
