"""The bytes of values that are the same but for a few fields: written once, and then only filled in.

Whoever makes many values alike, such as the first events of plans that were asked for alike, writes one of them by the codec.
Of each other one only the fields that differ are written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from autoglm._bytes import Heads
from autoglm._codec import codecs
from autoglm._shape import Field, Kind, shape_of


def form_of(value: object, blanks: Collection[str]) -> tuple[bytes, ...]:
    """Write ``value`` but for the fields ``blanks``: what stands before the first of them, between them, and behind the last.

    Joined in turn with other fields of those names, each whole with its head (:class:`FieldHeads`) or empty where it is left out,
    it is the bytes of the value that has these. Of a oneof the blank is the member that will be filled in.
    """
    kind: Any = type(value)
    between = [b""]
    for field in shape_of(kind).fields:
        if any(each.name in blanks for each in _members(field)):
            between.append(b"")
        else:
            between[-1] += _alone(value, field)

    return tuple(between)


class FieldHeads(Heads):
    """What stands before a field, by the length of its value: a text in UTF-8, or a message."""

    def __init__(self, cls: type, name: str) -> None:
        """Of the field ``name`` of a dataclass, or of a member of a oneof in it.

        Raises:
            KeyError: there is no such field.
        """
        numbers = {each.name: each.number for field in shape_of(cls).fields for each in _members(field)}
        super().__init__(numbers[name])

    def text(self, value: str) -> bytes:
        """Give the field of a text, which is left out when it is empty."""
        raw = value.encode()
        return self[len(raw)] + raw if raw else raw


def _members(field: Field) -> Iterator[Field]:
    yield from field.members if field.kind is Kind.ONEOF else (field,)


def _alone(value: object, field: Field) -> bytes:
    """Give what a value's field comes to among the bytes of all: a field that is left out has none."""
    kind: Any = type(value)
    return codecs()[kind].write(kind(**{field.name: getattr(value, field.name)}))
