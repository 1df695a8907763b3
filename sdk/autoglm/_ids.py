"""The one home of random ids."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]


def new_id() -> str:
    """Give a new id of 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (a ULID).

    Ids sort by the time they were made, so a journal's indexes grow at one end.
    """
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
