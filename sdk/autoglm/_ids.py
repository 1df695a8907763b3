"""The one home of random ids."""

from __future__ import annotations

import os
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_BITS_40 = (1 << 40) - 1
_RANDOM_BYTES = 10
_DRAWN_AT_ONCE = 64
_drawn: list[bytes] = []
"""Randomness for the next ids: who asks the system for it gives the interpreter's lock away, and may wait long for it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)  # or two processes would give out the same ids


def new_id() -> str:
    """Give a new id of 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (a ULID).

    Ids sort by the time they were made, so a journal's indexes grow at one end.
    """
    try:
        random = _drawn.pop()
    except IndexError:
        random = _draw()

    milliseconds = time.time_ns() // 1_000_000
    return (
        _PAIRS[milliseconds >> 40 & 1023]
        + _eight(milliseconds & _BITS_40)
        + _eight(int.from_bytes(random[:5], "big"))
        + _eight(int.from_bytes(random[5:], "big"))
    )


def _draw() -> bytes:
    """Draw randomness for many ids; gives that of the first."""
    drawn = secrets.token_bytes(_RANDOM_BYTES * _DRAWN_AT_ONCE)
    _drawn.extend([drawn[start : start + _RANDOM_BYTES] for start in range(_RANDOM_BYTES, len(drawn), _RANDOM_BYTES)])
    return drawn[:_RANDOM_BYTES]


def _eight(bits: int) -> str:
    """Write 40 bits. Integers of so few are quick to cut up."""
    pairs = _PAIRS
    return pairs[bits >> 30] + pairs[bits >> 20 & 1023] + pairs[bits >> 10 & 1023] + pairs[bits & 1023]
