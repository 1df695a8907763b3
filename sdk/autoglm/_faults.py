"""Why a value or a message cannot be carried, and where: looked for only after the codec has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from autoglm import _values
from autoglm._json import FAULTS_MAX, join, json_faults
from autoglm._shape import Field, Kind, Label, shape_of
from autoglm.model import UnknownFact, Violation

BITS: Final = {Kind.INT32: 32, Kind.INT64: 64, Kind.ENUM: 32}
_PYTHON: Final[Mapping[Kind, type | tuple[type, ...]]] = {
    Kind.STRING: str,
    Kind.BOOL: bool,
    Kind.INT32: int,
    Kind.INT64: int,
    Kind.ENUM: int,
    Kind.DOUBLE: (float, int),
    Kind.TIME: datetime,
    Kind.DURATION: timedelta,
    Kind.STRUCT: Mapping,
}
_READERS: Final[Mapping[str, tuple[Callable[[Any], object], str]]] = {
    "google.protobuf.Timestamp": (_values.read_time, "is not a time of the years 1 to 9999"),
    "google.protobuf.Duration": (_values.read_duration, "is not a duration of at most 10,000 years"),
}


def value_faults(value: object, path: str = "") -> tuple[Violation, ...]:
    """Give what keeps a dataclass of the vocabulary from being encoded; the first :data:`FAULTS_MAX` faults."""
    return tuple(islice(_of_value(value, path), FAULTS_MAX))


def message_faults(message: Message, path: str = "") -> tuple[Violation, ...]:
    """Give what keeps a message from being read; the first :data:`FAULTS_MAX` faults."""
    return tuple(islice(_of_message(message, path), FAULTS_MAX))


def _of_value(value: Any, path: str) -> Iterator[Violation]:
    cls: type = type(value)
    for field in shape_of(cls).fields:
        part, name = getattr(value, field.name), join(path, field.name)
        if field.kind is Kind.ONEOF:
            yield from _of_oneof(field, part, name, path)
        elif field.label is Label.REPEATED and isinstance(part, tuple | list):
            for index, each in enumerate(part):
                yield from _of_one(field, each, f"{name}[{index}]")

        elif field.label is Label.REPEATED:
            yield _wrong_type(name, part, "a tuple")
        elif field.label is Label.MAP:
            yield from _of_map(part, name)
        elif part is not None or field.label is not Label.OPTIONAL:
            yield from _of_one(field, part, name)


def _of_oneof(field: Field, part: object, name: str, path: str) -> Iterator[Violation]:
    if part is None if field.label is Label.OPTIONAL else isinstance(part, UnknownFact):
        return

    for member in field.members:
        if isinstance(part, member.type or str):
            yield from _of_one(member, part, join(path, member.name))
            return

    yield _wrong_type(
        name, part, " or ".join(member.type.__name__ if member.type else "str" for member in field.members)
    )


def _of_map(part: object, name: str) -> Iterator[Violation]:
    if not isinstance(part, Mapping):
        yield _wrong_type(name, part, "a Mapping")
        return

    for key, value in part.items():
        if isinstance(key, str) and isinstance(value, str):
            yield from json_faults(value, join(name, key))
        else:
            yield Violation(name, f"{key!r:.100} and its value must both be str", "INVALID_TYPE")


def _of_one(field: Field, value: Any, path: str) -> Iterator[Violation]:
    kind = field.kind
    if kind is Kind.MESSAGE:
        if isinstance(value, field.type) and is_dataclass(value):
            yield from _of_value(value, path)
        else:
            yield _wrong_type(path, value, field.type.__name__)

    elif kind in _PYTHON and not isinstance(value, _PYTHON[kind]):
        expected = _PYTHON[kind]
        yield _wrong_type(path, value, "float" if isinstance(expected, tuple) else expected.__name__)
    elif kind in (Kind.STRUCT, Kind.VALUE, Kind.STRING, Kind.DOUBLE):
        yield from json_faults(value, path)
    elif kind in BITS and not -(1 << BITS[kind] - 1) <= value < 1 << BITS[kind] - 1:
        yield Violation(path, f"{value} does not fit in {BITS[kind]} bits", "OUT_OF_RANGE")
    elif kind is Kind.TIME and value.utcoffset() is None:
        yield Violation(path, f"{value} has no time zone; give it tzinfo=UTC", "INVALID_TIME")
    elif kind is Kind.DURATION and abs(value) // timedelta(seconds=1) > _values.DURATION_SECONDS_MAX:
        yield Violation(path, f"{value} is more than 10,000 years", "OUT_OF_RANGE")


def _of_message(message: Message, path: str) -> Iterator[Violation]:
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Value":
        yield from json_faults(_raw_value(message), path, depth_max=_DEEP)
    elif name == "google.protobuf.Struct":
        yield from json_faults(_raw_struct(message), path, depth_max=_DEEP)
    elif name in _READERS:
        read, told = _READERS[name]
        try:
            read(message)
        except (ValueError, OverflowError):
            yield Violation(path, told, "INVALID_TIME")

    else:
        for field, part in message.ListFields():
            yield from _of_field(field, part, join(path, field.name))


def _of_field(field: FieldDescriptor, part: Any, path: str) -> Iterator[Violation]:
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        yield from json_faults(part, path)
    elif field.message_type is None or field.message_type.GetOptions().map_entry:
        return
    elif field.is_repeated:
        for index, each in enumerate(part):
            yield from _of_message(each, f"{path}[{index}]")

    else:
        yield from _of_message(part, path)


_DEEP: Final = 100
"""Messages are no deeper than protobuf lets them be."""


def _raw_value(message: Any) -> Any:
    match message.WhichOneof("kind"):
        case "struct_value":
            return _raw_struct(message.struct_value)

        case "list_value":
            return [_raw_value(item) for item in message.list_value.values]

        case None | "null_value":
            return None

        case kind:
            return getattr(message, kind)


def _raw_struct(message: Any) -> Any:
    return {key: _raw_value(item) for key, item in message.fields.items()}


def _wrong_type(path: str, value: object, expected: str) -> Violation:
    return Violation(path, f"{value!r:.100} is {type(value).__name__}, not {expected}", "INVALID_TYPE")
