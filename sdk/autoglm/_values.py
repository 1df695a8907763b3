"""Struct and Value, written and read by hand; Timestamps and Durations, exact to the microsecond.

This is the hot path of every event: :mod:`google.protobuf.json_format` takes eight times as long and gives 3.0 for 3. To
fill a Struct and have it written takes twice as long as to write its bytes.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from autoglm._bytes import INT32, INT64, Entries, FixedEntries, Heads, entry
from autoglm._json import DEPTH_MAX, INTEGER_MAX, decimal, plain
from autoglm.model import Json, JsonObject

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DURATION_SECONDS_MAX: Final = 315_576_000_000
"""Protobuf's bound on a Duration: about 10,000 years."""

_BILLION: Final = 1_000_000_000
_INFINITY: Final = float("inf")
_TEXTS: Final = Entries(0x1A)
_NUMBERS: Final = FixedEntries(0x11, 8)
_BOOLS: Final = FixedEntries(0x20, 1)
_ITEMS: Final = Heads(1)
"""Of ``ListValue.values``."""
_double: Final = struct.Struct("<d").pack


def write_value(value: Json, room: int = DEPTH_MAX) -> bytes:
    """Give the bytes of the Value of ``value``, which may be ``room`` deep.

    Raises:
        ValueError, TypeError, AttributeError: it cannot be carried; :func:`autoglm._json.json_faults` says why and where.
    """
    kind = type(value)
    raw: bytes
    if kind is str:
        raw = value.encode()
        return b"\x1a" + INT64[len(raw)] + raw

    if kind is int:
        return b"\x11" + _double(value) if -INTEGER_MAX <= value <= INTEGER_MAX else write_value(decimal(value))

    if kind is bool:
        return b"\x20\x01" if value else b"\x20\x00"

    if kind is float:
        return b"\x11" + write_double(value)

    if kind is dict:
        raw = write_struct(value, room)
        return b"\x2a" + INT64[len(raw)] + raw

    if kind is list:
        raw = _write_list(value, room)
        return b"\x32" + INT64[len(raw)] + raw

    return b"\x08\x00" if value is None else write_value(plain(value), room)


def write_struct(value: JsonObject, room: int = DEPTH_MAX) -> bytes:
    """Give the bytes of the Struct of ``value``; raises as :func:`write_value`."""
    if room <= 1 and value:
        raise ValueError("too deep")

    parts: list[bytes] = []
    add = parts.append
    room -= 1
    for key, item in value.items():  # what most values are, without another call
        kind = type(item)
        if kind is str:
            raw = item.encode()
            add(_TEXTS[key, len(raw)])
        elif kind is bool:
            raw = b"\x01" if item else b"\x00"
            add(_BOOLS[key])
        elif (kind is int and -INTEGER_MAX <= item <= INTEGER_MAX) or (kind is float and -_INFINITY < item < _INFINITY):
            raw = _double(item)
            add(_NUMBERS[key])
        else:
            raw = write_value(item, room)
            add(entry(key, len(raw)))

        add(raw)

    return b"".join(parts)


def _write_list(value: list[Json], room: int) -> bytes:
    if room <= 1 and value:
        raise ValueError("too deep")

    room -= 1
    parts: list[bytes] = []
    for item in value:
        raw = write_value(item, room)
        parts += (_ITEMS[len(raw)], raw)

    return b"".join(parts)


def read_value(message: Value) -> Json:
    """Give the JSON value of ``message``; one with nothing set is None.

    Raises:
        ValueError: it has a number that is not finite.
    """
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return message.string_value

    if kind == "number_value":
        number = message.number_value
        if number.is_integer():
            return int(number) if -INTEGER_MAX <= number <= INTEGER_MAX else number

        return read_double(number)

    if kind == "struct_value":
        return read_struct(message.struct_value)

    if kind == "bool_value":
        return message.bool_value

    if kind == "list_value":
        return [read_value(item) for item in message.list_value.values]

    return None


def read_struct(message: Struct) -> JsonObject:
    """Give the JSON object of ``message``; raises as :func:`read_value`."""
    fields = message.fields  # its own items() are Python's, and take twice as long
    return {key: read_value(fields[key]) for key in fields}


def write_double(number: float) -> bytes:
    """Give the bytes of a double that must be finite."""
    return _double(read_double(number))


def read_double(number: float) -> float:
    """Give a double that must be finite."""
    if -_INFINITY < number < _INFINITY:
        return number

    raise ValueError("not finite")


def write_time(value: datetime) -> bytes:
    """Give the bytes of a Timestamp; the time must be aware.

    Raises:
        TypeError: it has no time zone.
    """
    global _newest  # noqa: PLW0603 - replaced whole, so that another thread sees the one or the other
    known, written = _newest
    if known is value:
        return written

    since = value - EPOCH
    written = _write_seconds(since.days * 86_400 + since.seconds) + _write_nanos(since.microseconds * 1_000)
    _newest = value, written
    return written


_newest = EPOCH, b""
"""The time that was written last, and its bytes: most events have theirs more than once."""


@lru_cache(maxsize=64)  # many events are of one second
def _write_seconds(seconds: int) -> bytes:
    return b"\x08" + INT64[seconds] if seconds else b""


def _write_nanos(nanos: int) -> bytes:
    if nanos >= 1 << 28:  # as most are: five bytes of a varint, four
        return bytes(
            (
                0x10,
                nanos & 127 | 128,
                nanos >> 7 & 127 | 128,
                nanos >> 14 & 127 | 128,
                nanos >> 21 & 127 | 128,
                nanos >> 28,
            )
        )

    if nanos >= 1 << 21:
        return bytes((0x10, nanos & 127 | 128, nanos >> 7 & 127 | 128, nanos >> 14 & 127 | 128, nanos >> 21))

    return b"\x10" + INT32[nanos] if nanos else b""


def read_time(message: Timestamp) -> datetime:
    """Give a Timestamp as a time in UTC; what is finer than a microsecond is cut off.

    Raises:
        ValueError, OverflowError: it is not one of the years 1 to 9999, or its nanos are not within a second.
    """
    nanos = message.nanos
    if 0 <= nanos < _BILLION:
        return EPOCH + timedelta(0, message.seconds, nanos // 1_000)

    raise ValueError("not a Timestamp")


def write_duration(value: timedelta) -> bytes:
    """Give the bytes of a Duration.

    Raises:
        ValueError: it is longer than about 10,000 years.
    """
    seconds, micros = value.days * 86_400 + value.seconds, value.microseconds
    if seconds < 0 and micros:  # a timedelta counts microseconds up from below, a Duration down from zero
        seconds, micros = seconds + 1, micros - 1_000_000

    if not -DURATION_SECONDS_MAX <= seconds <= DURATION_SECONDS_MAX:
        raise ValueError("not a Duration")

    return _write_seconds(seconds) + _write_nanos(micros * 1_000)


def read_duration(message: Duration) -> timedelta:
    """Give a Duration; what is finer than a microsecond is cut off.

    Raises:
        ValueError: it is longer than about 10,000 years, or its nanos are not within a second or of the other sign.
    """
    seconds, nanos = message.seconds, message.nanos
    if abs(seconds) > DURATION_SECONDS_MAX or abs(nanos) >= _BILLION or seconds * nanos < 0:
        raise ValueError("not a Duration")

    return timedelta(0, seconds, nanos // 1_000 if nanos >= 0 else -(-nanos // 1_000))
