"""The one place that knows both forms of the vocabulary: dataclasses of ``autoglm.model``, messages of ``autoglm.v1``.

Bytes: :func:`encode`, :func:`decode`, and :func:`to_message`, :func:`from_message` where a message is what is at hand.
Text: :func:`to_json`, :func:`from_json`, protobuf's JSON mapping with sorted keys. JSON values (arguments and outputs)
have one normal form, one text and one digest: :func:`normal_json`, :func:`canonical_json`, :func:`digest`. What cannot
be carried raises :class:`WireError` with every place at fault; what a person wrote wrongly,
:class:`~autoglm.errors.InvalidRequestError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from autoglm import _values
from autoglm._bytes import INT64, VARINT, Heads, tag
from autoglm._carry import carry
from autoglm._codec import FAILURES, codecs
from autoglm._faults import message_faults, value_faults
from autoglm._form import FieldHeads, form_of
from autoglm._json import (
    DEPTH_MAX,
    INTEGER_MAX,
    WireError,
    canonical_json,
    digest,
    digest_text,
    encodable,
    json_faults,
    normal_json,
    parse_json,
    text_bytes,
    wire_error,
    write_json,
)
from autoglm._shape import CLASSES, MESSAGES
from autoglm._text import Reader, to_text
from autoglm.errors import InvalidRequestError
from autoglm.model import Json, JsonObject, Violation

__all__ = [
    "DEPTH_MAX",
    "INTEGER_MAX",
    "MESSAGES",
    "Carried",
    "FieldHeads",
    "WireError",
    "canonical_json",
    "carried",
    "carried_output",
    "check_json",
    "decode",
    "digest",
    "digest_text",
    "encode",
    "encode_created",
    "encode_watch",
    "encode_watch_all",
    "form_of",
    "from_json",
    "from_message",
    "join_events",
    "normal_json",
    "parse_json",
    "struct_bytes",
    "time_bytes",
    "to_json",
    "to_message",
    "to_struct",
    "to_value",
]

T = TypeVar("T")

time_bytes: Final = _values.write_time
"""Gives the bytes of a time's message, for a form (:func:`form_of`); raises TypeError if it has no time zone."""
struct_bytes: Final = _values.write_struct
"""Gives the bytes of an object's Struct, likewise; raises ValueError, TypeError or AttributeError if it cannot be carried."""
_TEXT_DEPTH_MAX: Final = 2 * DEPTH_MAX
"""A JSON value may be DEPTH_MAX deep and stands inside the objects of the message that has it."""
_WELL_KNOWN: Final[Mapping[type, Any]] = {
    Timestamp: _values.read_time,
    Duration: _values.read_duration,
    Struct: _values.read_struct,
    Value: _values.read_value,
}
_EVENTS, _SEQUENCE, _JOURNAL_ID, _CURSOR = Heads(1), tag(2, VARINT), Heads(3), Heads(2)
"""What stands before the fields of WatchPlanResponse, 1, 2, 3, and of WatchPlansResponse, 1 and 2."""
_PLAN = Heads(1)
"""Likewise of CreatePlanResponse, 1."""


def encode(value: object) -> bytes:
    """Give the bytes of a dataclass of the vocabulary.

    Raises:
        WireError: a part of it cannot be carried.
        TypeError: it is not of the vocabulary.
    """
    codec = codecs().get(type(value))
    if codec is None:
        raise TypeError(f"{type(value).__name__} is not a dataclass of autoglm.model that travels by itself")

    try:
        return codec.write(value)
    except FAILURES as error:
        raise wire_error(value_faults(value), error) from error


def decode(cls: type[T], data: bytes) -> T:
    """Give the instance of ``cls`` that ``data`` are the bytes of.

    A CreatePlanRequest may be decoded from the bytes of a RunPlanRequest, which has its fields at the same numbers.

    Raises:
        WireError: they are not the bytes of a message, or a part of it means nothing (a number that is not finite, a
            time outside the calendar).
    """
    codec = codecs()[cls]
    try:
        message = codec.message.FromString(data)
    except DecodeError as error:
        raise wire_error(
            (Violation("", f"not the bytes of a {cls.__name__}: {error}", "INVALID_BYTES"),), error
        ) from error

    try:
        return codec.read(message)  # type: ignore[no-any-return]
    except FAILURES as error:
        raise wire_error(message_faults(message), error) from error


def to_message(value: object) -> Message:
    """Give a dataclass as a new message; raises as :func:`encode`."""
    data = encode(value)
    return MESSAGES[type(value)].FromString(data)


def from_message(message: Message) -> Any:
    """Give a message of ``autoglm.v1`` as its dataclass; a Timestamp, Duration, Struct or Value as what it stands for.

    Raises:
        WireError: a part of it means nothing.
        TypeError: there is no dataclass for it.
    """
    kind = type(message)
    read = codecs()[CLASSES[kind]].read if kind in CLASSES else _WELL_KNOWN.get(kind)
    if read is None:
        raise TypeError(f"{message.DESCRIPTOR.full_name} has no dataclass in autoglm.model")

    try:
        return read(message)
    except FAILURES as error:
        raise wire_error(message_faults(message), error) from error


def to_struct(value: JsonObject) -> Struct:
    """Give an object as a Struct.

    Raises:
        WireError: it is not JSON, too deep, or has a number that is not finite.
    """
    try:
        return Struct.FromString(_values.write_struct(value))
    except FAILURES as error:
        raise wire_error(json_faults(value, ""), error) from error


def to_value(value: Json) -> Value:
    """Give a JSON value as a Value; raises as :func:`to_struct`."""
    try:
        return Value.FromString(_values.write_value(value))
    except FAILURES as error:
        raise wire_error(json_faults(value, ""), error) from error


def check_json(value: Json, field: str, *, depth_max: int = DEPTH_MAX, bytes_max: int) -> list[Violation]:
    """Give what keeps ``value`` from being the JSON value of ``field``."""
    return carried(value, field, depth_max=depth_max, bytes_max=bytes_max).faults


class Carried(NamedTuple):
    """A JSON value as it will be read back, its canonical text, and what keeps it from being carried at all."""

    value: Json
    text: str
    faults: list[Violation]


def carried(value: Json, field: str, *, depth_max: int = DEPTH_MAX, bytes_max: int) -> Carried:
    """Give ``value`` as it will be read back, or the faults of it as the JSON value of ``field``.

    Its size is that of its canonical text, or of its Value where that is larger: ``[0,0,…]`` grows to six times its
    text, and it is the Value that must fit into an event.
    """
    try:
        normal = normal_json(value, depth_max=depth_max)
        text = write_json(normal)
        size = text_bytes(text)
    except (ValueError, TypeError) as error:
        faults = json_faults(value, field, depth_max=depth_max) or (Violation(field, str(error), "INVALID"),)
        return Carried(None, "", list(faults))

    if size * _VALUE_GROWTH > bytes_max:
        size = max(size, len(_values.write_value(value, depth_max)))

    if size <= bytes_max:
        return Carried(normal, text, [])

    return Carried(None, "", [_too_large(field, size, bytes_max)])


def carried_output(
    value: Json, field: str, *, depth_max: int = DEPTH_MAX, bytes_max: int
) -> tuple[Json, list[Violation]]:
    """Give ``value`` as it will be read back, and its faults, as :func:`carried` does, but without its text.

    Its bytes are there already when it is encoded next.
    """
    try:
        normal, written = carry(value, depth_max)
        size = len(written)
        if size * _TEXT_GROWTH > bytes_max:
            size = max(size, text_bytes(write_json(normal)))
    except (ValueError, TypeError, AttributeError) as error:
        return None, list(json_faults(value, field, depth_max=depth_max)) or [Violation(field, str(error), "INVALID")]

    return (normal, []) if size <= bytes_max else (None, [_too_large(field, size, bytes_max)])


def _too_large(field: str, size: int, bytes_max: int) -> Violation:
    return Violation(field, f"the value has {size} bytes; at most {bytes_max} are allowed", "TOO_LARGE")


_VALUE_GROWTH: Final = 10
"""A Value has at most this many times the bytes of its canonical text."""
_TEXT_GROWTH: Final = 10
"""A canonical text has at most this many times the bytes of its Value: a character of one byte may become an escape of six."""


def to_json(value: object) -> str:
    """Give a dataclass as one line of JSON: protobuf's JSON mapping, keys sorted at every level, no spaces.

    Raises:
        WireError: a part of it cannot be carried.
        TypeError: it is not of the vocabulary.
    """
    if type(value) not in MESSAGES:
        raise TypeError(f"{type(value).__name__} is not a dataclass of autoglm.model that travels by itself")

    try:
        return encodable(to_text(value))
    except FAILURES as error:
        raise wire_error(value_faults(value), error) from error


def from_json(cls: type[T], source: str | bytes | Mapping[str, Json]) -> T:
    """Give the instance of ``cls`` that a JSON text, or the object of one, describes.

    Fields may be spelled ``dependsOn`` or ``depends_on``; the paths of violations are spelled as in the contract.

    Raises:
        InvalidRequestError: with every fault at once; ``$`` is the path of the whole.
    """
    if isinstance(source, str | bytes):
        try:
            source = parse_json(source, depth_max=_TEXT_DEPTH_MAX)
        except WireError as error:
            raise InvalidRequestError.of(error.violations) from error
        except ValueError as error:
            raise InvalidRequestError.of([Violation("$", str(error), "INVALID_JSON")]) from error

    reader = Reader()
    found: T = reader.read(cls, source)
    if reader.faults:
        raise InvalidRequestError.of(reader.faults)

    return found


def join_events(bodies: Iterable[bytes]) -> bytes:
    """Give the events of a message of a watch, of events that are serialised already."""
    return b"".join([part for body in bodies for part in (_EVENTS[len(body)], body)])


def encode_watch(events: bytes, sequence: int, journal_id: str) -> bytes:
    """Give the bytes of a WatchPlanResponse, or RunPlanResponse, of events that are joined already."""
    parts = [events]
    if sequence < 0:
        raise ValueError(f"sequence {sequence} is negative")

    if sequence:
        parts += (_SEQUENCE, INT64[sequence])

    if journal_id:
        text = journal_id.encode()
        parts += (_JOURNAL_ID[len(text)], text)

    return b"".join(parts)


def encode_watch_all(events: bytes, cursor: str) -> bytes:
    """Give the bytes of a WatchPlansResponse of events that are joined already."""
    parts = [events]
    if cursor:
        text = cursor.encode()
        parts += (_CURSOR[len(text)], text)

    return b"".join(parts)


def encode_created(*plan: bytes) -> bytes:
    """Give the bytes of a CreatePlanResponse of a new plan that is serialised already, if need be in parts."""
    return b"".join((_PLAN[sum(map(len, plan))], *plan))
