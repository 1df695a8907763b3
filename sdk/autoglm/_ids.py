"""The one home of random ids."""

from __future__ import annotations

import os
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_LETTERS = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
"""Makes of each random byte a letter; each letter is made of eight bytes."""
_RANDOM_LETTERS = 16
_DRAWN_AT_ONCE = 64
_drawn: list[str] = []
"""Randomness for the next ids: who asks the system for it gives the interpreter's lock away, and may wait long for it."""
_newest = 0, "0000000000"
"""The millisecond of the newest id, and how it is written."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)  # or two processes would give out the same ids


def new_id() -> str:
    """Give a new id of 26 characters: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (a ULID).

    Ids sort by the time they were made, so a journal's indexes grow at one end.
    """
    global _newest  # noqa: PLW0603 - replaced whole, so that another thread sees the one or the other
    milliseconds = time.time_ns() // 1_000_000
    known, written = _newest
    if known != milliseconds:
        written = "".join([_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)])
        _newest = milliseconds, written

    try:
        return written + _drawn.pop()
    except IndexError:
        return written + _draw()


def _draw() -> str:
    """Draw randomness for many ids; gives that of the first."""
    drawn = secrets.token_bytes(_RANDOM_LETTERS * _DRAWN_AT_ONCE).translate(_LETTERS).decode()
    ends = range(2 * _RANDOM_LETTERS, len(drawn) + 1, _RANDOM_LETTERS)
    _drawn.extend([drawn[end - _RANDOM_LETTERS : end] for end in ends])
    return drawn[:_RANDOM_LETTERS]
