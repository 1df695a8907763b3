"""The pieces of protobuf's wire format: varints, and what stands before a value of a known length.

Most of what an event is made of has been written before: small numbers, lengths, keys. So each piece is kept once it was
made, within bounds, and writing is mostly looking up.
"""

from __future__ import annotations

from typing import Final

VARINT, FIXED64, LENGTH = 0, 1, 2
"""How a value travels, the low three bits of its tag."""

_KEPT_MAX: Final = 1 << 12
"""Numbers below it are kept, and of what has no such bound so many."""
_MASK: Final = (1 << 64) - 1


class Varints(dict[int, bytes]):
    """A number as a varint; one that is negative as protobuf has it, as the 64 bits of its two's complement."""

    def __init__(self, bits: int) -> None:
        """Hold numbers of so many bits."""
        super().__init__()
        self._least, self._end = -(1 << bits - 1), 1 << bits - 1

    def __missing__(self, number: int) -> bytes:
        """Raises ValueError, TypeError: it is no integer of as many bits."""
        if not self._least <= number < self._end:
            raise ValueError("out of range")

        if 0 <= number < _KEPT_MAX:  # two bytes at most
            kept = self[number] = bytes((number & 0x7F | 0x80, number >> 7) if number > 0x7F else (number,))
            return kept

        return _varint(number & _MASK)


class Heads(dict[int, bytes]):
    """What stands before a length-delimited field of a length: its tag and that length."""

    def __init__(self, number: int) -> None:
        """Of the field ``number``."""
        super().__init__()
        self._tag = tag(number, LENGTH)

    def __missing__(self, length: int) -> bytes:
        head = self._tag + INT64[length]
        if length < _KEPT_MAX:
            self[length] = head

        return head


class Entries(dict[tuple[str, int], bytes]):
    """What stands in a Struct before a value that has a length: by its key and that length."""

    def __init__(self, value_tag: int) -> None:
        """Of values whose field in Value has the tag ``value_tag``."""
        super().__init__()
        self._tag = value_tag

    def __missing__(self, place: tuple[str, int]) -> bytes:
        """Raises UnicodeEncodeError, AttributeError: the key is no text that UTF-8 can carry."""
        key, length = place
        head = entry(key, length, b"%c%b" % (self._tag, INT64[length]))
        if len(head) < _KEY_MAX:
            if len(self) >= _KEPT_MAX:
                self.clear()

            self[place] = head

        return head


class FixedEntries(dict[str, bytes]):
    """The same before a value of a kind that always takes as many bytes: by its key."""

    def __init__(self, value_tag: int, length: int) -> None:
        """Of values whose field in Value has the tag ``value_tag``, and which take ``length`` bytes."""
        super().__init__()
        self._tag, self._length = bytes((value_tag,)), length

    def __missing__(self, key: str) -> bytes:
        """Raises as :meth:`Entries.__missing__`."""
        head = entry(key, self._length, self._tag)
        if len(head) < _KEY_MAX:
            if len(self) >= _KEPT_MAX:
                self.clear()

            self[key] = head

        return head


_KEY_MAX: Final = 128
"""Keys are short; those that are not are not kept."""


def entry(key: str, length: int, value_head: bytes = b"") -> bytes:
    """Give what stands in a Struct before what is left of a Value, ``length`` bytes behind its ``value_head``.

    Raises:
        UnicodeEncodeError, AttributeError: the key is no text that UTF-8 can carry.
    """
    name = key.encode()
    behind = len(value_head) + length
    size = len(name) + behind + 4
    if size < _ONE_BYTE:
        return b"\x0a%c\x0a%c%b\x12%c%b" % (size, len(name), name, behind, value_head)

    before = b"\x0a%b%b\x12%b%b" % (INT64[len(name)], name, INT64[behind], value_head)
    return b"\x0a%b%b" % (INT64[len(before) + length], before)


_ONE_BYTE: Final = 0x80
"""Numbers below it are varints of one byte."""


def tag(number: int, way: int) -> bytes:
    """Give the tag of a field."""
    return _varint(number << 3 | way)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7

    digits.append(number)
    return bytes(digits)


INT32: Final = Varints(32)
INT64: Final = Varints(64)
