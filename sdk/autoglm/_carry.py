"""A JSON value made normal and written as the bytes of its Value in one walk, as the output of every call is.

The same as :func:`autoglm._json.normal_json` and :func:`autoglm._values.write_value` one after the other. The bytes of
the last value are kept, for the event that is made of it next.
"""

from __future__ import annotations

import struct
from typing import Final

from autoglm._bytes import INT64, Entries, FixedEntries, Heads, entry
from autoglm._json import INTEGER_MAX, decimal, normal_number, plain
from autoglm._values import write_value
from autoglm.model import Json, JsonObject

_TEXTS: Final = Entries(0x1A)
_NUMBERS: Final = FixedEntries(0x11, 8)
_BOOLS: Final = FixedEntries(0x20, 1)
_NULLS: Final = FixedEntries(0x08, 1)
_ITEMS: Final = Heads(1)
"""Of ``ListValue.values``."""
_KEPT_BYTES_MAX: Final = 64 << 10
"""Of what is larger, no bytes are kept."""
_double: Final = struct.Struct("<d").pack

_last: tuple[Json, bytes] = None, b"\x08\x00"
"""The value that was carried last, and its bytes; nobody else has the value yet, and who gets it must not change it."""


def carry(value: Json, room: int) -> tuple[Json, bytes]:
    """Give ``value``, which may be ``room`` deep, in its normal form, and the bytes of its Value.

    What is given is made anew, so that no change to ``value`` is seen in it.

    Raises:
        ValueError, TypeError, AttributeError: it cannot be carried; :func:`autoglm._json.json_faults` says why and where.
    """
    global _last  # noqa: PLW0603 - replaced whole, so that another thread sees the one or the other
    carried = _carry(value, room)
    if len(carried[1]) <= _KEPT_BYTES_MAX:
        _last = carried

    return carried


def write_output(value: Json) -> bytes:
    """Give the bytes of the Value of ``value``, which are there already if it is what was carried last."""
    known, written = _last
    return written if known is value else write_value(value)


def _carry(value: Json, room: int) -> tuple[Json, bytes]:
    kind = type(value)
    if kind is dict:
        value, raw = _carry_struct(value, room)
        return value, b"\x2a" + INT64[len(raw)] + raw

    if kind is list:
        value, raw = _carry_list(value, room)
        return value, b"\x32" + INT64[len(raw)] + raw

    if kind is float:
        value = normal_number(value)
        return value, b"\x11" + _double(value)

    if kind is int and not -INTEGER_MAX <= value <= INTEGER_MAX:
        value = decimal(value)
        return value, write_value(value)

    if kind is str or kind is int or kind is bool or value is None:
        return value, write_value(value)

    return _carry(plain(value), room)


def _carry_struct(value: JsonObject, room: int) -> tuple[JsonObject, bytes]:
    if room <= 1 and value:
        raise ValueError("too deep")

    room -= 1
    normal: JsonObject = {}
    parts: list[bytes] = []
    for key, item in value.items():
        if type(key) is not str:
            raise TypeError("a key is not a string")

        kind = type(item)
        if kind is str:
            raw = item.encode()
            parts += (_TEXTS[key, len(raw)], raw)
        elif kind is bool:
            parts += (_BOOLS[key], b"\x01" if item else b"\x00")
        elif kind is int and -INTEGER_MAX <= item <= INTEGER_MAX:
            parts += (_NUMBERS[key], _double(item))
        elif kind is float:
            item = normal_number(item)  # noqa: PLW2901 - it is in its normal form from here on
            parts += (_NUMBERS[key], _double(item))
        elif item is None:
            parts += (_NULLS[key], b"\x00")
        else:
            item, raw = _carry(item, room)  # noqa: PLW2901
            parts += (entry(key, len(raw)), raw)

        normal[key] = item

    return normal, b"".join(parts)


def _carry_list(value: list[Json], room: int) -> tuple[list[Json], bytes]:
    if room <= 1 and value:
        raise ValueError("too deep")

    room -= 1
    normal: list[Json] = []
    parts: list[bytes] = []
    for item in value:
        if type(item) is dict:  # as the rows of most tables are, without another call
            item, raw = _carry_struct(item, room)  # noqa: PLW2901
            raw = b"\x2a" + INT64[len(raw)] + raw
        else:
            item, raw = _carry(item, room)  # noqa: PLW2901

        normal.append(item)
        parts += (_ITEMS[len(raw)], raw)

    return normal, b"".join(parts)
