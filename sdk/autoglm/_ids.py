"""The one home of random ids."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_BITS_40 = (1 << 40) - 1


def new_id() -> str:
    """Give a new id of 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (a ULID).

    Ids sort by the time they were made, so a journal's indexes grow at one end.
    """
    random = secrets.token_bytes(10)
    milliseconds = time.time_ns() // 1_000_000
    return (
        _PAIRS[milliseconds >> 40 & 1023]
        + _eight(milliseconds & _BITS_40)
        + _eight(int.from_bytes(random[:5], "big"))
        + _eight(int.from_bytes(random[5:], "big"))
    )


def _eight(bits: int) -> str:
    """Write 40 bits. Integers of so few are quick to cut up."""
    pairs = _PAIRS
    return pairs[bits >> 30] + pairs[bits >> 20 & 1023] + pairs[bits >> 10 & 1023] + pairs[bits & 1023]
