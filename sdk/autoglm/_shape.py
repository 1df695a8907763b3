"""How each dataclass of :mod:`autoglm.model` corresponds to its message: read once, from type hints and descriptors.

Everything that turns one form into the other is made from these shapes: the codec of bytes, the codec of JSON, and the
search for faults. A dataclass and a message that do not agree are an error here, at first use, not a wrong value later.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from autoglm import model
from autoglm._dataclasses import dataclass
from autoglm.v1 import event_pb2, failure_pb2, plan_pb2, plan_service_pb2, tool_pb2, tool_service_pb2

_SOURCES: Final = (failure_pb2, plan_pb2, event_pb2, tool_pb2, tool_service_pb2, plan_service_pb2)
_NAMED_OTHERWISE: Final[Mapping[type, type[Message]]] = {
    model.Approve: event_pb2.Decision.Approve,
    model.Reject: event_pb2.Decision.Reject,
    model.Retry: event_pb2.Decision.Retry,
    model.ServerInfo: plan_service_pb2.GetServerInfoResponse,
}


def _message_of(cls: type) -> type[Message]:
    if cls in _NAMED_OTHERWISE:
        return _NAMED_OTHERWISE[cls]

    for source in _SOURCES:
        if cls.__name__ in source.DESCRIPTOR.message_types_by_name:
            found: type[Message] = getattr(source, cls.__name__)
            return found

    raise TypeError(f"autoglm.v1 has no message {cls.__name__}")


MESSAGES: Final[Mapping[type, type[Message]]] = types.MappingProxyType(
    {
        cls: _message_of(cls)
        for cls in vars(model).values()
        # What is not on the wire has no message: a fact that this version does not know.
        if is_dataclass(cls) and isinstance(cls, type) and cls is not model.UnknownFact
    }
)
"""The message of each dataclass of the vocabulary."""

CLASSES: Final[Mapping[type[Message], type]] = types.MappingProxyType(
    {message: cls for cls, message in MESSAGES.items()}
)
"""The dataclass of each message."""

_BY_NAME: Final = {message.DESCRIPTOR.full_name: cls for cls, message in MESSAGES.items()}
_ENUMS: Final = {
    member.__name__: member
    for member in vars(model).values()
    if isinstance(member, type) and issubclass(member, enum.IntEnum)
}


class Kind(enum.Enum):
    """What one value of a field is, in both forms."""

    STRING = "str"
    BOOL = "bool"
    INT32 = "int, 32 bits"
    INT64 = "int, 64 bits"
    DOUBLE = "float"
    ENUM = "an IntEnum of the vocabulary"
    TIME = "datetime, Timestamp"
    DURATION = "timedelta, Duration"
    STRUCT = "dict, Struct"
    VALUE = "any JSON, Value"
    MESSAGE = "a dataclass of the vocabulary"
    ONEOF = "one of several fields, told apart by type"


class Label(enum.Enum):
    """How many values a field has, and how absence reads."""

    PLAIN = "one; absent is the default"
    OPTIONAL = "one or None"
    REPEATED = "a tuple"
    MAP = "a Mapping from str to str"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a dataclass and what it is on the wire. ``type`` is the enum or dataclass, where there is one."""

    name: str
    json_name: str
    number: int
    kind: Kind
    label: Label
    type: Any = None
    enum: EnumDescriptor | None = None
    members: tuple[Field, ...] = ()
    """Of a ONEOF: the fields of the message, of which one is set."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A dataclass, its message, and their fields in the order of both."""

    cls: type
    message: type[Message]
    fields: tuple[Field, ...]


_SCALARS: Final = {
    FieldDescriptor.TYPE_STRING: (Kind.STRING, str),
    FieldDescriptor.TYPE_BOOL: (Kind.BOOL, bool),
    FieldDescriptor.TYPE_INT32: (Kind.INT32, int),
    FieldDescriptor.TYPE_INT64: (Kind.INT64, int),
    FieldDescriptor.TYPE_DOUBLE: (Kind.DOUBLE, float),
}
_WELL_KNOWN: Final = {
    "google.protobuf.Timestamp": (Kind.TIME, datetime),
    "google.protobuf.Duration": (Kind.DURATION, timedelta),
    "google.protobuf.Struct": (Kind.STRUCT, dict[str, Any]),
    "google.protobuf.Value": (Kind.VALUE, Any),
}


@cache
def shape_of(cls: type) -> Shape:
    """Give the shape of a dataclass of the vocabulary.

    Raises:
        TypeError: it has no message, or does not agree with it.
    """
    if cls not in MESSAGES:
        raise TypeError(f"{cls.__name__} is not a dataclass of autoglm.model that travels by itself")

    found = _fields_of(cast("Descriptor", MESSAGES[cls].DESCRIPTOR))
    hints = typing.get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    if names != [field.name for field in found]:
        raise TypeError(f"{cls.__name__} has the fields {names}, its message {[field.name for field in found]}")

    for field in found:
        if hints[field.name] != _hint(field):
            raise TypeError(f"{cls.__name__}.{field.name} is {hints[field.name]}, by its message {_hint(field)}")

    return Shape(cls, MESSAGES[cls], tuple(found))


def _fields_of(descriptor: Descriptor) -> list[Field]:
    found: list[Field] = []
    for each in sorted(descriptor.fields, key=lambda field: field.number):
        field, oneof = _field(each), each.containing_oneof
        # Presence of an `optional` field is kept in a oneof of its own, which is no oneof to us.
        if oneof is None or oneof.name == f"_{field.name}":
            found.append(field)
        elif found and found[-1].name == oneof.name:
            found[-1] = _oneof(oneof.name, (*found[-1].members, field))
        else:
            found.append(_oneof(oneof.name, (field,)))

    return found


def _oneof(name: str, members: tuple[Field, ...]) -> Field:
    # An event always says something, if only a fact that is not known; the other oneofs may be left out.
    label = Label.PLAIN if members[0].type is model.PlanCreated else Label.OPTIONAL
    return Field(name, name, members[0].number, Kind.ONEOF, label, members=members)


def _field(field: FieldDescriptor) -> Field:
    message = field.message_type
    if message is not None and _is_map_entry(message, field):
        return Field(field.name, field.json_name, field.number, Kind.STRING, Label.MAP)

    python: Any = None
    if field.enum_type is not None:
        kind, python = Kind.ENUM, _ENUMS[field.enum_type.name]
    elif message is None:
        kind, _ = _SCALARS[field.type]
    elif message.full_name in _WELL_KNOWN:
        kind, _ = _WELL_KNOWN[message.full_name]
    else:
        kind, python = Kind.MESSAGE, _BY_NAME[message.full_name]

    label = Label.REPEATED if field.is_repeated else Label.OPTIONAL if field.has_presence else Label.PLAIN
    return Field(field.name, field.json_name, field.number, kind, label, python, field.enum_type)


def _is_map_entry(message: Descriptor, field: FieldDescriptor) -> bool:
    """Whether this is what protobuf makes of a map; its options say so too, but asking them loads 50 ms of modules."""
    return message.name.endswith("Entry") and message.containing_type is field.containing_type


def _hint(field: Field) -> Any:
    """Give the type hint the dataclass must have."""
    if field.kind is Kind.ONEOF:
        members = [member.type or str for member in field.members]
        return typing.Union[*members, None if field.label is Label.OPTIONAL else model.UnknownFact]

    if field.label is Label.MAP:
        return Mapping[str, str]

    one: Any = field.type or next(
        python for kind, python in (*_SCALARS.values(), *_WELL_KNOWN.values()) if kind is field.kind
    )
    if field.label is Label.REPEATED:
        return tuple[one, ...]

    return one if field.label is Label.PLAIN or one is Any else one | None
