"""YAML as data and nothing else: what JSON could say, written more kindly.

Values are built from the parser's events, so that what is not data never comes to be: anchors and aliases (which make a
kilobyte into a gigabyte), tags, keys that are there twice or are no text, NaN and the infinities, more than one document. A
plain scalar reads as in YAML 1.2's core schema: ``no`` and ``on`` are texts, and so are dates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from autoglm import wire
from autoglm.model import Json

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_DEPTH_MAX = 2 * wire.DEPTH_MAX


def parse_yaml(text: str) -> Json:
    """Read one YAML document.

    Raises:
        ValueError: it is not YAML, or more than data; the message says the line and what to write instead.
    """
    try:
        return _Reader(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"not YAML: {error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from None


class _Reader:
    """Builds a value from the parser's events, one event at a time."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))

    def document(self) -> Json:
        next(self._events)  # the stream begins
        first = next(self._events)

        if isinstance(first, yaml.StreamEndEvent):
            raise ValueError("the file is empty")  # noqa: TRY004 - its content is wrong, not a type of ours

        value = self._value(next(self._events), 1)
        next(self._events)  # the document ends
        more = next(self._events)

        if not isinstance(more, yaml.StreamEndEvent):
            _fault(more, "a second document begins; a plan is one document")

        return value

    def _value(self, event: Any, depth: int) -> Json:
        if isinstance(event, yaml.AliasEvent):
            _fault(event, f"the alias *{event.anchor} is not allowed; write the value out")

        if event.anchor:
            _fault(event, f"the anchor &{event.anchor} is not allowed; write each value out where it is used")

        if event.tag is not None:
            _fault(event, f"the tag {event.tag} is not allowed; quote a text, and write other values plainly")

        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)

        if depth > _DEPTH_MAX:
            _fault(event, f"the value is more than {_DEPTH_MAX} deep")

        return self._mapping(depth) if isinstance(event, yaml.MappingStartEvent) else self._sequence(depth)

    def _mapping(self, depth: int) -> dict[str, Json]:
        value: dict[str, Json] = {}

        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._value(event, depth + 1)

            if not isinstance(key, str):
                _fault(event, f"the key {key!r:.40} is no text; put it in quotes")

            if key in value:
                _fault(event, f"the key {key!r:.40} stands twice in one mapping")

            value[key] = self._value(next(self._events), depth + 1)

        return value

    def _sequence(self, depth: int) -> list[Json]:
        value: list[Json] = []

        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            value.append(self._value(event, depth + 1))

        return value


def _scalar(event: Any) -> Json:
    text: str = event.value

    if not event.implicit[0]:  # quoted, or a block
        return text

    if text in _CONSTANTS:
        return _CONSTANTS[text]

    if _INTEGER.fullmatch(text):
        return int(text, 0 if text[:2] in {"0o", "0x"} else 10)

    if _NOT_FINITE.fullmatch(text):
        _fault(event, f"{text} is no number that can be carried; give a finite one, or null")

    if _FLOAT.fullmatch(text):
        number = float(text)

        if math.isinf(number):
            _fault(event, f"the number {text:.40} is larger than a double can be")

        return number

    return text


def _fault(event: Any, text: str) -> NoReturn:
    mark = event.start_mark
    raise ValueError(f"{text} (line {mark.line + 1}, column {mark.column + 1})")
