"""Finds what a model has written so far: each step at its closing brace, the answer as it grows.

One scanner reads all profiles: what arrives is always text, cut anywhere, that holds one object
``{"note": "…", "steps": [{…}, …], "answer": "…", "output": …}``, bare or in a fence, with or without words around it. Also
read are a bare array of steps and step objects one after the other, which small models write. The scanner only counts
brackets and strings; whether a step is right is for who reads its text. It never raises, keeps no more than its limits,
and looks at each character once.
"""

from __future__ import annotations

import enum
import re
from typing import TypeAlias

from autoglm._dataclasses import dataclass
from autoglm_server.planner.llm.strings import StringReader, whole_characters

STEP_CHARS_MAX = 300_000
"""The longest step; arguments are bounded far below."""
TEXT_CHARS_MAX = 4_000_000
"""The most a scanner reads in all."""
DEPTH_MAX = 64
"""How deep a value may be nested, before it is refused unread."""

_SPACE = " \t\r\n"
_NESTED = re.compile(r'[{}\[\]"]')
_IN_STRING = re.compile(r'["\\]')
_CLOSES = {"}": "{", "]": "["}


@dataclass(frozen=True, slots=True)
class StepText:
    """The text of a complete step."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """The next piece of the answer, unescaped."""

    text: str


@dataclass(frozen=True, slots=True)
class NotePiece:
    """The next piece of the note, unescaped."""

    text: str


@dataclass(frozen=True, slots=True)
class OutputText:
    """The text of the structured answer, complete."""

    text: str


Found: TypeAlias = StepText | AnswerPiece | NotePiece | OutputText
"""What a scanner finds, in the order in which it was written."""


class Ending(enum.Enum):
    """How a text ended."""

    EMPTY = enum.auto()
    """Nothing but white space."""
    PROSE = enum.auto()
    """Words, and no object of ours."""
    COMPLETE = enum.auto()
    """At least one object of ours, and none that is open."""
    CUT = enum.auto()
    """In the middle of an object."""
    MALFORMED = enum.auto()
    """Brackets or keys that do not fit."""
    TOO_LARGE = enum.auto()
    """Longer than a limit."""


class _At(enum.Enum):
    """Where the scanner is."""

    OUTSIDE = enum.auto()
    BRACE = enum.auto()
    BRACKET = enum.auto()
    KEY = enum.auto()
    IN_KEY = enum.auto()
    COLON = enum.auto()
    VALUE = enum.auto()
    STRING = enum.auto()
    SCALAR = enum.auto()
    STEPS = enum.auto()
    NESTED = enum.auto()
    DONE = enum.auto()
    BROKEN = enum.auto()


class Scanner:
    """Scans one text that comes in pieces."""

    def __init__(self) -> None:
        """Begin outside of any object."""
        self.prose = ""
        """What was written outside of our objects."""
        self._at = _At.OUTSIDE
        self._ending = Ending.EMPTY
        self._found: list[Found] = []
        self._read = 0
        self._half = ""
        self._ours = False
        """Whether the object that is open has a key of ours."""
        self._bare = False
        """Whether the array that is open has no object around it."""
        self._keys: set[str] = set()
        self._key = ""
        self._string = StringReader()
        self._value: list[str] = []
        self._value_size = 0
        self._nest: list[str] = []
        self._element = False
        """Whether the value being read is an element of the array of steps."""
        self._in_string = False
        self._escaped = False
        self._top: list[str] = []
        self._top_size = 0

    @property
    def done(self) -> bool:
        """Whether nothing that still comes can matter."""
        return self._at in (_At.DONE, _At.BROKEN)

    def feed(self, text: str) -> list[Found]:
        """Read the next piece; give what became complete, or grew, by it."""
        text, self._half = whole_characters(self._half + text)
        self._read += len(text)

        if self._read > TEXT_CHARS_MAX and not self.done:
            self._break(Ending.TOO_LARGE)

        self._found = []
        position = 0

        while position < len(text) and not self.done:
            position = self._step(text, position)

        return self._found

    def end(self) -> Ending:
        """Say how the text ended, if this was all of it."""
        match self._at:
            case _At.BROKEN | _At.DONE:
                return self._ending
            case _At.OUTSIDE | _At.BRACE | _At.BRACKET:
                if self._ending is Ending.COMPLETE:
                    return self._ending

                return Ending.PROSE if self.prose.strip() or self._at is not _At.OUTSIDE else Ending.EMPTY
            case _:
                return Ending.CUT

    # --- one step: each gives where the next begins, and goes on at least by one character or to another state

    def _step(self, text: str, position: int) -> int:
        before = self._at
        start = position

        match before:
            case _At.OUTSIDE:
                return self._outside(text, position)
            case _At.BRACE | _At.BRACKET:
                return self._opening(text, position)
            case _At.STEPS:
                return self._in_steps(text, position)
            case _At.KEY:
                position = self._expect_key(text, position)
            case _At.IN_KEY:
                position = self._in_key(text, position)
            case _At.COLON:
                position = self._colon(text, position)
            case _At.VALUE:
                position = self._begin_value(text, position)
            case _At.STRING:
                position = self._in_text(text, position)
            case _At.SCALAR:
                position = self._in_scalar(text, position)
            case _:
                position = self._in_nested(text, position)

        self._keep(text[start:position])

        if before is _At.KEY and self._at is _At.OUTSIDE:
            self._close_object()

        return position

    def _outside(self, text: str, position: int) -> int:
        brace, bracket = text.find("{", position), text.find("[", position)
        found = min((place for place in (brace, bracket) if place >= 0), default=len(text))
        self.prose += text[position:found]

        if found < len(text):
            self._at = _At.BRACE if text[found] == "{" else _At.BRACKET
            self._value = [text[found]]

        return found + 1

    def _opening(self, text: str, position: int) -> int:
        """Tell an object or array of ours from a bracket in the prose, by what follows it."""
        character = text[position]

        if character in _SPACE and len(self._value) < 1000:
            self._value.append(character)
            return position + 1

        if character == ('"' if self._at is _At.BRACE else "{"):
            self._open()
            return position

        self.prose += "".join(self._value)
        self._at = _At.OUTSIDE
        return position

    def _open(self) -> None:
        self._ours, self._bare = False, self._at is _At.BRACKET
        self._keys.clear()
        self._top, self._top_size = list(self._value), len(self._value)
        self._at = _At.STEPS if self._bare else _At.KEY

    def _close_object(self) -> None:
        """Decide what the object was that has just been closed."""
        text = "".join(self._top)
        self._top, self._top_size = [], 0

        if self._ours:
            self._at, self._ending = _At.DONE, Ending.COMPLETE
        elif "tool" in self._keys:
            self._found.append(StepText(text))
            self._ending = Ending.COMPLETE
        else:
            self.prose += text

    def _in_steps(self, text: str, position: int) -> int:
        character = text[position]

        if character == "{":
            self._begin_nested("{")
            self._element = True
        elif character == "]":
            if self._bare:
                self._at, self._ending = _At.OUTSIDE, Ending.COMPLETE if self._ours else self._ending
            else:
                self._at = _At.KEY
        elif character not in _SPACE and character != ",":
            self._break(Ending.MALFORMED)

        return position + 1

    def _expect_key(self, text: str, position: int) -> int:
        character = text[position]

        if character == '"':
            self._at = _At.IN_KEY
            self._string = StringReader()
            self._key = ""
        elif character == "}":
            self._at = _At.OUTSIDE
        elif character not in _SPACE and character != ",":
            self._break(Ending.MALFORMED)

        return position + 1

    def _in_key(self, text: str, position: int) -> int:
        piece, position, closed = self._string.read(text, position)
        self._key += piece

        if len(self._key) > 1000:
            self._break(Ending.TOO_LARGE)
        elif closed:
            self._key = self._key.strip().lower()
            self._keys.add(self._key)
            self._ours = self._ours or self._key in {"steps", "answer", "note", "output"}
            self._at = _At.COLON

        return position

    def _colon(self, text: str, position: int) -> int:
        if text[position] == ":":
            self._at = _At.VALUE
        elif text[position] not in _SPACE:
            self._break(Ending.MALFORMED)

        return position + 1

    def _begin_value(self, text: str, position: int) -> int:
        character = text[position]

        if character in _SPACE:
            return position + 1

        if self._key == "steps" and character not in '[n"':
            self._break(Ending.MALFORMED)
        elif self._key == "steps" and character == "[":
            self._at, self._bare = _At.STEPS, False
        elif character == '"' and self._key in {"answer", "note"}:
            self._at, self._string = _At.STRING, StringReader()
        elif character in '{["':
            self._begin_nested(character)
        else:
            self._at, self._value, self._value_size = _At.SCALAR, [], 0
            return position

        return position + 1

    def _in_text(self, text: str, position: int) -> int:
        piece, position, closed = self._string.read(text, position)

        if piece:
            self._found.append(AnswerPiece(piece) if self._key == "answer" else NotePiece(piece))

        if closed:
            self._at = _At.KEY

        return position

    def _in_scalar(self, text: str, position: int) -> int:
        character = text[position]

        if character in ",}":
            self._at = _At.KEY
            self._give("".join(self._value).strip())
            return position

        if character in '{["]:' or self._value_size > 400:
            self._break(Ending.MALFORMED)

        self._value.append(character)
        self._value_size += 1
        return position + 1

    # --- a value that is kept or passed over whole

    def _begin_nested(self, character: str) -> None:
        self._at = _At.NESTED
        self._value, self._value_size = [character], 1
        self._in_string, self._escaped, self._element = character == '"', False, False
        self._nest = [character]

    def _in_nested(self, text: str, position: int) -> int:
        start = position

        while position < len(text):
            if self._escaped:
                self._escaped = False
                position += 1
                continue

            match = (_IN_STRING if self._in_string else _NESTED).search(text, position)
            if match is None:
                position = len(text)
                break

            position = match.end()
            if not self._bracket(match.group()):
                break

        self._value.append(text[start:position])
        self._value_size += position - start

        if self._value_size > STEP_CHARS_MAX:
            self._break(Ending.TOO_LARGE)
        elif self._at is _At.NESTED and not self._nest:
            self._end_nested()

        return position

    def _bracket(self, character: str) -> bool:
        """Count one bracket or quote; False if the value has ended by it, or can have no end."""
        nest = self._nest

        if character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = not self._in_string

            if nest == ['"']:
                nest.clear()
        elif character in "{[":
            nest.append(character)

            if len(nest) > DEPTH_MAX:
                self._break(Ending.TOO_LARGE)
        elif nest.pop() != _CLOSES[character]:
            self._break(Ending.MALFORMED)

        return bool(nest) and self._at is _At.NESTED

    def _end_nested(self) -> None:
        text = "".join(self._value)
        self._value = []

        if self._element:
            self._at = _At.STEPS

            if self._bare and '"tool"' not in text:
                self.prose += text
            else:
                self._ours = True
                self._found.append(StepText(text))
        else:
            self._at = _At.KEY
            self._give(text)

    def _give(self, text: str) -> None:
        """Take a value that is no plain string, of the key it stands at."""
        if self._key == "output" and text != "null":
            self._found.append(OutputText(text))
        elif self._key == "answer" and text != "null":
            self._found.append(AnswerPiece(text))

    def _keep(self, text: str) -> None:
        """Keep the text of an object that may turn out to be a step by itself."""
        if self._ours:
            self._top = []
            return

        self._top.append(text)
        self._top_size += len(text)

        if self._top_size > STEP_CHARS_MAX:
            self._break(Ending.TOO_LARGE)

    def _break(self, ending: Ending) -> None:
        self._at, self._ending = _At.BROKEN, ending
        self._value, self._top = [], []
