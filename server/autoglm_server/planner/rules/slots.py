"""The types of slots: what may stand in one, and the value it gives."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import TypeAlias

from autoglm._dataclasses import dataclass
from autoglm.model import Json
from autoglm_server.planner.rules.backrefs import BackReference, read_back_reference
from autoglm_server.planner.rules.expressions import Parts, read_expression
from autoglm_server.planner.rules.moments import read_date, read_time
from autoglm_server.planner.rules.numerals import Number, read_number
from autoglm_server.planner.rules.source import Kind, Source, words_of

TYPES = (
    *("number", "integer", "numbers", "quoted", "texts", "text", "word", "letter", "name", "unit", "path", "file"),
    *("date", "time", "expression", "json"),
)
"""The types a pattern may name, besides words to choose from."""

_WORDS_MAX = 5
_CHINESE_MAX = 12
_LIST_MAX = 64
_NAME_SIGNS = frozenset("'.-·+/_")
_UNIT_SIGNS = frozenset("°%/·^$€£¥µμ℃℉Å²³-\"'")
_PATH = re.compile(r"[^\s,;:!?，；：。！？、<>|*\"“”「」『』‘’`']+(?::[\\/][^\s,;，；。！？、\"“”「」『』]+)?")
_FILE = re.compile(r"(?:[^/\\]*[/\\])+[^/\\]*|.*[^./\\]\.[^\W\d_][\w-]{0,11}")
_LETTER = re.compile(r"(?P<letter>[^\W\d_])(?:['’]?s)?")
_PATH_ASCII = re.compile(r"[A-Za-z]:[\\/][\w.~\\/@+=%-]+|[\w.~\\/@+=%-]+", re.ASCII)
_PATH_ENDED = re.compile(
    r"[^\s,;:!?，；：。！？、<>|*\"“”「」『』‘’`']{1,250}?\.[A-Za-z][A-Za-z0-9]{0,11}(?![A-Za-z0-9_./\\-])"
)
"""A path whose ending is in Latin letters, and Chinese goes on right after it: 清单.txt的内容."""
_LIST_WORDS = frozenset({",", "、", "and", "和", "与", "及"})
_JSON_WORDS = {"true": True, "false": False, "null": None, "真": True, "假": False}


@dataclass(frozen=True, slots=True)
class Written:
    """Text: ``text`` is what it says, ``quoted`` whether it was between quotes."""

    text: str
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """JSON that was read as JSON, with the text it was read from."""

    value: Json
    text: str


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of numbers."""

    numbers: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class Expression:
    """Arithmetic, in parts."""

    parts: Parts


Value: TypeAlias = Written | Data | Number | Numbers | Expression | BackReference
"""What was read into a slot."""

Ends: TypeAlias = list[tuple[int, Value]]
"""Where a slot may end, in the order to be tried, and what was read up to there."""


class SlotReader:
    """Reads the slots of one request; each type at each position once."""

    def __init__(self, source: Source, today: date, dividers: frozenset[int]) -> None:
        """Read from ``source``; ``dividers`` are the atoms that may divide clauses, which no word of a name may be."""
        self._source = source
        self._today = today
        self._dividers = dividers
        self._known: dict[tuple[str, tuple[str, ...], int], Ends] = {}

    def read(self, kind: str, choices: tuple[str, ...], start: int) -> Ends:
        """Give where a slot of this type that begins at ``start`` may end; back references go first."""
        known = self._known.get((kind, choices, start))

        if known is None:
            references: Ends = list(read_back_reference(self._source, start))
            known = references + self._typed(kind, choices, start)
            self._known[kind, choices, start] = known

        return known

    def _typed(self, kind: str, choices: tuple[str, ...], start: int) -> Ends:
        source = self._source

        match kind:
            case "number":
                return list(read_number(source, start))
            case "integer":
                return [(end, number) for end, number in read_number(source, start) if number.integral]
            case "numbers":
                return self._numbers(start)
            case "texts":
                return self._texts(start)
            case "date":
                return [(end, Written(text)) for end, text in read_date(source, start, self._today)]
            case "time":
                return [(end, Written(text)) for end, text in read_time(source, start)]
            case "expression":
                return [(end, Expression(parts)) for end, parts in read_expression(source, start)]
            case "choice":
                return [
                    (start + len(words), Written(choice))
                    for choice in choices
                    if source.starts_with(start, words := words_of(choice))
                ]
            case "json":
                return self._json(start)
            case _:
                return self._quoted(start) or self._words(kind, start)

    def _quoted(self, start: int) -> Ends:
        atom = self._source.atoms[start]
        return [(start + 1, Written(atom.content, quoted=True))] if atom.kind is Kind.QUOTED else []

    def _words(self, kind: str, start: int) -> Ends:
        match kind:
            case "path":
                return list(self._path(start))
            case "file":
                return [(end, value) for end, value in self._path(start) if _FILE.fullmatch(value.text)]
            case "word":
                return self._word(start)
            case "letter":
                return self._letter(start)
            case "name":
                return self._several(start, _NAME_SIGNS)
            case "unit":
                return self._several(start, _UNIT_SIGNS)
            case _:
                return []

    def _numbers(self, start: int) -> Ends:
        """Take numbers with commas, 'and' or spaces between them: as many as there are, then fewer."""
        source, ends, found = self._source, Ends(), list[Number]()
        position = start

        while position < len(source) and len(found) < _LIST_MAX and (read := read_number(source, position)):
            position, number = read[0]
            found.append(number)

            if len(found) > 1:
                ends.append((position, Numbers(tuple(found))))

            between = position

            position = self._next_of_list(position)

            if position == between and not source.key(position).isdigit():
                break  # a sign: arithmetic, not a list

        return ends[::-1]

    def _next_of_list(self, position: int) -> int:
        while self._source.key(position) in _LIST_WORDS:
            position += 1

        return position

    def _texts(self, start: int) -> Ends:
        """Take quoted texts with commas or 'and' between them: as many as there are, then fewer."""
        ends, found = Ends(), list[str]()
        position = start

        while (
            position < len(self._source)
            and len(found) < _LIST_MAX
            and (atom := self._source.atoms[position]).kind is Kind.QUOTED
        ):
            found.append(atom.content)
            position += 1

            if len(found) > 1:
                ends.append((position, Data(list(found), ", ".join(found))))

            position = self._next_of_list(position)

        return ends[::-1]

    def _json(self, start: int) -> Ends:
        atom = self._source.atoms[start]

        if atom.kind is Kind.JSON:
            text = self._source.raw(start, start + 1)
            return [(start + 1, Data(json.loads(text), text))]

        if atom.key in _JSON_WORDS:
            return [(start + 1, Data(_JSON_WORDS[atom.key], atom.key))]

        return self._quoted(start) or list(read_number(self._source, start))

    def _letter(self, start: int) -> Ends:
        """Take one letter, as it is or in the plural: r, r's, rs."""
        atom = self._source.atoms[start]
        found = _LETTER.fullmatch(self._source.raw(start, start + 1)) if atom.kind in (Kind.WORD, Kind.CJK) else None
        return [(start + 1, Written(found["letter"]))] if found else []

    def _path(self, start: int) -> list[tuple[int, Written]]:
        ends: list[tuple[int, Written]] = []

        for pattern in (_PATH_ASCII, _PATH_ENDED, _PATH) if self._source.chinese else (_PATH_ASCII, _PATH):
            found = pattern.match(self._source.text, self._source.atoms[start].start)
            text = found.group() if found else ""
            text = text.rstrip(")") if "(" not in text else text
            text = text if set(text) <= {".", "/", "\\"} else text.rstrip(".")
            end = self._source.after(self._source.atoms[start].start + len(text)) if text else None

            if end is not None and end not in (known for known, _ in ends):
                ends.append((end, Written(text)))

        return ends[::-1] if len(ends) == 2 and ends[1][0] > ends[0][0] and not self._source.chinese else ends

    def _word(self, start: int) -> Ends:
        """Take letters, digits and joining signs up to a space; Chinese as few characters as fit."""
        source, ends = self._source, Ends()

        for end in range(start + 1, min(len(source), start + _CHINESE_MAX) + 1):
            atom = source.atoms[end - 1]

            if end - 1 > start and (atom.spaced or source.atoms[end - 2].end != atom.start):
                break

            if atom.kind in (Kind.QUOTED, Kind.JSON) or (atom.kind is Kind.SIGN and atom.key not in "._-+#@/\\&"):
                break

            ends.append((end, Written(source.raw(start, end))))

        return ends if ends and source.atoms[start].kind is Kind.CJK else ends[::-1]

    def _clocked(self, position: int) -> bool:
        """Whether the colon of an offset such as ``UTC+5:30`` stands here."""
        source = self._source
        joined = position + 1 < len(source) and not (source.atoms[position].spaced or source.atoms[position + 1].spaced)
        digits = source.key(position - 1).isdigit() and source.key(position + 1).isdigit()
        return source.key(position) == ":" and position > 1 and joined and digits

    def _several(self, start: int, signs: frozenset[str]) -> Ends:
        """Take one word, then two, and so on: up to five, or twelve Chinese characters, and these signs among them."""
        source, ends, words, characters = self._source, Ends(), 0, 0

        for position in range(start, len(source)):
            atom = source.atoms[position]
            joined = position > start and atom.start == source.atoms[position - 1].end

            match atom.kind:
                case Kind.WORD:
                    words += not joined or words == 0
                case Kind.CJK:
                    characters += 1
                case Kind.DIGITS if joined:
                    pass
                case Kind.SIGN if atom.key in signs or self._clocked(position):
                    pass
                case _:
                    break

            if words > _WORDS_MAX or characters > _CHINESE_MAX or (position in self._dividers and position > start):
                break

            ends.append((position + 1, Written(source.raw(start, position + 1))))

        return ends
