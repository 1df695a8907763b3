"""The bytes of values that are the same but for a few fields: written once, and then only filled in.

Whoever makes many values alike, such as the first events of plans that were asked for alike, writes one of them by the codec.
Of each other one only the fields that differ are written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from autoglm._bytes import Heads
from autoglm._codec import codecs
from autoglm._shape import Field, Kind, shape_of


class Form:
    """A value as bytes, with blanks. What is filled in is a text in UTF-8, or the bytes of a message, such as a time's."""

    __slots__ = ("_before", "_end")

    def __init__(self, value: object, blanks: Collection[str]) -> None:
        """Write ``value`` but for the fields ``blanks``; of a oneof the blank is the member that will be filled in."""
        self._before: list[tuple[bytes, Heads]] = []
        """What stands before each blank, and what stands before its bytes."""
        self._end = b""
        kind: Any = type(value)
        for field in shape_of(kind).fields:
            number = _blank(field, blanks)
            if number:
                self._before.append((self._end, heads(number)))
                self._end = b""
            else:
                self._end += _alone(value, field)

    def fill(self, *given: bytes) -> bytes:
        """Give the bytes of the value that has ``given`` in its blanks, in the order of its fields; empty is left out."""
        parts: list[bytes] = []
        add = parts.append
        for (before, head), raw in zip(self._before, given, strict=True):
            add(before)
            if raw:
                add(head[len(raw)])
                add(raw)

        add(self._end)
        return b"".join(parts)


@cache
def heads(number: int) -> Heads:
    """Give what stands before a field that has a length, by that length."""
    return Heads(number)


def _blank(field: Field, blanks: Collection[str]) -> int:
    """Give the number that a blank is written with, 0 if the field is none."""
    return next((each.number for each in _members(field) if each.name in blanks), 0)


def _members(field: Field) -> Iterator[Field]:
    yield from field.members if field.kind is Kind.ONEOF else (field,)


def _alone(value: object, field: Field) -> bytes:
    """Give what a value's field comes to among the bytes of all: a field that is left out has none."""
    kind: Any = type(value)
    return codecs()[kind].write(kind(**{field.name: getattr(value, field.name)}))
