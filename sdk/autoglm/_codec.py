"""Dataclasses to bytes, and messages to dataclasses, by functions written once from the shapes.

For each class two functions are generated, as :mod:`dataclasses` generates ``__init__``: ``write_X(value)`` and
``read_X(message)``, a line for each field. Straight-line code is what makes this two to three times as fast as a walk over
descriptors; an event is encoded for every fact and decoded by every watcher. Bytes are written, not messages filled:
protobuf's objects cost more to fill than their bytes to write. :func:`source` shows the code. For ``PlanLimitReached``::

    def write_PlanLimitReached(value):
        parts = []
        if (it := value.failure) is not None:
            raw = write_Failure(it); parts.append(heads_1[len(raw)]); parts.append(raw)
        return b"".join(parts)

    def read_PlanLimitReached(message):
        has = message.HasField
        value = new(open_PlanLimitReached)
        value.failure = read_Failure(message.failure) if has("failure") else None
        value.__class__ = PlanLimitReached
        return value

(A frozen value is filled before it is of its class: :func:`autoglm._dataclasses.open_class`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from autoglm import _values
from autoglm._bytes import FIXED64, INT32, INT64, VARINT, Heads, tag
from autoglm._carry import write_output
from autoglm._dataclasses import dataclass, open_class
from autoglm._shape import MESSAGES, Field, Kind, Label, Shape, shape_of
from autoglm.model import PlanOptions, RetryPolicy, UnknownFact

_WRITERS: Final = {
    Kind.TIME: "write_time",
    Kind.DURATION: "write_duration",
    Kind.STRUCT: "write_struct",
    Kind.VALUE: "write_value",
    Kind.DOUBLE: "write_double",
}
_VARINTS: Final = {Kind.BOOL: "bools", Kind.INT32: "int32", Kind.INT64: "int64", Kind.ENUM: "int32"}
_READERS: Final = {
    Kind.TIME: "read_time",
    Kind.DURATION: "read_duration",
    Kind.STRUCT: "read_struct",
    Kind.VALUE: "read_value",
    Kind.DOUBLE: "read_double",
}
FAILURES: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError)
"""What a value that is not as its type hints say, or out of bounds, makes of straight-line code."""
_SHARED: Final = (PlanOptions, RetryPolicy)
"""What many events have the same one of: written once."""
_SHARED_MAX: Final = 256
_KNOWN_BYTES_MAX: Final = 4096
"""Of what is larger, no value is kept to be shared."""
_FIRST_FACT: Final = 16
"""Event's numbers below are its envelope's."""
_LENGTH_DELIMITED: Final = 2


@dataclass(frozen=True, slots=True)
class Codec:
    """How one class travels."""

    message: type[Message]
    write: Callable[[Any], bytes]
    """Gives the bytes of a value; raises one of :data:`FAILURES` if it cannot be carried."""
    read: Callable[[Any], Any]
    """Gives the value of a message; raises one of :data:`FAILURES` if a part of it means nothing."""


@cache
def codecs() -> Mapping[type, Codec]:
    """Give the codec of every dataclass; compiled at the first call."""
    names: dict[str, Any] = {name: getattr(_values, name) for name in (*_WRITERS.values(), *_READERS.values())}
    names["write_value"] = write_output
    names |= {"new": object.__new__, "UnknownFact": UnknownFact, "unknown_fact": _unknown_fact}
    names |= {"int32": INT32, "int64": INT64, "bools": {False: b"\x00", True: b"\x01"}}
    names |= {f"shared_{cls.__name__}": _Shared(names, f"write_{cls.__name__}").get for cls in _SHARED}
    names |= {f"known_{cls.__name__}": _Known(names, f"read_{cls.__name__}").get for cls in _SHARED}
    names |= {f"heads_{number}": Heads(number) for number in _numbers()}
    for cls in MESSAGES:
        names |= {cls.__name__: cls, f"open_{cls.__name__}": open_class(cls)}
        names.update({field.type.__name__: field.type for field in shape_of(cls).fields if field.kind is Kind.ENUM})
        names.update({_lookup(field): _known(field).get for field in shape_of(cls).fields if field.kind is Kind.ENUM})

    exec(compile(source(), "<autoglm codec>", "exec"), names)  # noqa: S102 - of our own descriptors, as dataclasses do it
    return {
        cls: Codec(message, names[f"{_way(cls)}_{cls.__name__}"], names[f"read_{cls.__name__}"])
        for cls, message in MESSAGES.items()
    }


class _Shared:
    """The bytes of values that are met again and again, by which object they are."""

    def __init__(self, names: Mapping[str, Any], write: str) -> None:
        self._names = names
        self._write = write
        self._known: dict[int, tuple[object, bytes]] = {}

    def get(self, value: Any) -> bytes:
        """Give the value's bytes."""
        known = self._known.get(id(value))
        if known is not None and known[0] is value:
            return known[1]

        written: bytes = self._names[self._write](value)
        if len(self._known) >= _SHARED_MAX:
            self._known.clear()

        self._known[id(value)] = (value, written)
        return written


class _Known:
    """The values of messages that are met again and again, by their bytes: read once, and one for all who have them."""

    def __init__(self, names: Mapping[str, Any], read: str) -> None:
        self._names = names
        self._read = read
        self._known: dict[bytes, Any] = {}

    def get(self, message: Message) -> Any:
        """Give the message's value."""
        written = message.SerializeToString()
        value = self._known.get(written)
        if value is None:
            value = self._names[self._read](message)
            if len(self._known) >= _SHARED_MAX:
                self._known.clear()

            if len(written) < _KNOWN_BYTES_MAX:
                self._known[written] = value

        return value


def _numbers() -> set[int]:
    """Give the numbers of all fields that have a length."""
    fields = [field for cls in MESSAGES for field in shape_of(cls).fields]
    return {each.number for field in fields for each in (field.members or (field,))}


def source() -> str:
    """Give the source of all functions."""
    return "\n".join(line for cls in MESSAGES for line in _module(shape_of(cls)))


def _module(shape: Shape) -> Iterator[str]:
    name = shape.cls.__name__
    yield f"def write_{name}(value):"
    yield "    parts = []"
    for field in shape.fields:
        yield from _write(field, name)

    yield '    return b"".join(parts)'
    yield ""
    yield f"def read_{name}(message):"
    yield "    has = message.HasField"
    yield f"    value = new(open_{name})"
    yield from (f"    value.{field.name} = {_read(field, name)}" for field in shape.fields)
    yield f"    value.__class__ = {name}"
    yield "    return value"
    yield ""
    for field in shape.fields:
        if field.kind is Kind.ONEOF:
            yield from _oneof(field, name)


def _write(field: Field, owner: str) -> Iterator[str]:
    """Write the lines that write one field, and nothing when it is absent or its default."""
    if field.kind is Kind.ONEOF:
        yield f"    {owner}_{field.name}_write[type(value.{field.name})](parts, value.{field.name})"
        return

    absent = "" if field.label is not Label.OPTIONAL else " is not None"
    yield f"    if (it := value.{field.name}){absent}:"
    match field.label:
        case Label.MAP:
            yield "        for key, it in it.items():"
            yield "            key, it = key.encode(), it.encode()"
            yield "            raw = heads_1[len(key)] + key + heads_2[len(it)] + it"
            yield f"            parts.append(heads_{field.number}[len(raw)]); parts.append(raw)"

        case Label.REPEATED if field.kind is Kind.ENUM:
            yield '        raw = b"".join([int32[each] for each in it])'
            yield f"        parts.append(heads_{field.number}[len(raw)]); parts.append(raw)"

        case Label.REPEATED:
            yield "        for it in it:"
            yield f"            {_put(field)}"

        case _:
            yield f"        {_put(field)}"


def _put(field: Field) -> str:
    """Write the statement that writes one value, which is there: ``it``."""
    head = f"parts.append(heads_{field.number}[len(raw)]); parts.append(raw)"
    match field.kind:
        case Kind.STRING:
            return f"raw = it.encode(); {head}"

        case Kind.MESSAGE:
            return f"raw = {_way(field.type)}_{field.type.__name__}(it); {head}"

        case Kind.TIME | Kind.DURATION | Kind.STRUCT | Kind.VALUE:
            return f"raw = {_WRITERS[field.kind]}(it); {head}"

        case Kind.DOUBLE:
            return f"parts.append({tag(field.number, FIXED64)!r}); parts.append({_WRITERS[field.kind]}(it))"

        case _:
            return f"parts.append({tag(field.number, VARINT)!r}); parts.append({_VARINTS[field.kind]}[it])"


def _way(cls: type) -> str:
    return "shared" if cls in _SHARED else "write"


def _read(field: Field, owner: str) -> str:
    """Write the expression that gives one field."""
    name = f"message.{field.name}"
    if field.kind is Kind.ONEOF:
        return f'{owner}_{field.name}_read[message.WhichOneof("{field.name}")](message)'

    match field.label:
        case Label.MAP:
            return f"{{key: it[key] for key in it}} if (it := {name}) else {{}}"

        case Label.REPEATED if field.kind is Kind.STRING:
            return f"tuple(it) if (it := {name}) else ()"

        case Label.REPEATED:
            return f"tuple([{_get(field, 'each')} for each in it]) if (it := {name}) else ()"

        case Label.OPTIONAL:
            return f'{_get(field, name)} if has("{field.name}") else None'

        case _:
            return _get(field, name)


def _get(field: Field, name: str) -> str:
    """Write the expression that gives one value that is there."""
    if field.kind is Kind.MESSAGE:
        way = "known" if field.type in _SHARED else "read"
        return f"{way}_{field.type.__name__}({name})"

    if field.kind is Kind.ENUM:
        return f"{_lookup(field)}({name}, {field.type.__name__}.UNSPECIFIED)"

    return f"{_READERS[field.kind]}({name})" if field.kind in _READERS else name


def _oneof(field: Field, owner: str) -> Iterator[str]:
    """Write the tables of a oneof: from the type of the value, and from the name of the field that is set."""
    fact = field.label is Label.PLAIN
    for member in field.members:
        yield f"def {owner}_write_{member.name}(parts, it):"
        yield f"    {_put(member)}"

    yield f"{owner}_{field.name}_write = {{"
    for member in field.members:
        yield f"    {member.type.__name__ if member.type else 'str'}: {owner}_write_{member.name},"

    yield f"    {'UnknownFact' if fact else 'type(None)'}: lambda parts, it: None,"
    yield "}"
    yield f"{owner}_{field.name}_read = {{"
    for member in field.members:
        yield f'    "{member.name}": lambda message: {_get(member, f"message.{member.name}")},'

    yield f"    None: {'unknown_fact' if fact else 'lambda message: None'},"
    yield "}"
    yield ""


def _lookup(field: Field) -> str:
    return f"known_{field.type.__name__}"


def _known(field: Field) -> dict[int, Any]:
    """Give the members of an enum by number; much faster than calling the class."""
    return {int(member): member for member in field.type}


def _unknown_fact(message: Message) -> UnknownFact:
    """Give the fact of an event that has none this version knows, by the first unknown field that may be one."""
    for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]  # a sequence; the stubs do not say so
        if unknown.field_number >= _FIRST_FACT and unknown.wire_type == _LENGTH_DELIMITED:
            return UnknownFact(unknown.field_number)

    return UnknownFact()
