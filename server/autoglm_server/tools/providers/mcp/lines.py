"""Bytes into lines of a bounded length: a longer one is dropped while it arrives, and only its two ends are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from autoglm._dataclasses import dataclass

END_BYTES: Final = 512
"""How much is kept of each end of a line that is too long."""


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line that was dropped, but for its two ends."""

    head: bytes
    tail: bytes
    length: int


class Lines:
    """Takes bytes as they come, and gives the lines that are complete."""

    def __init__(self, bytes_max: int) -> None:
        """Keep lines of up to ``bytes_max`` bytes."""
        self._bytes_max = bytes_max
        self._parts: list[bytes] = []
        self._length = 0
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> Iterator[bytes | LongLine]:
        """Give the lines that ``data`` completes, without their ends."""
        first, *others = data.split(b"\n")
        self._add(first)
        for part in others:
            yield self._taken()
            self._add(part)

    def _add(self, part: bytes) -> None:
        if not part:
            return

        self._length += len(part)
        if self._length <= self._bytes_max:
            self._parts.append(part)
            return

        if self._parts:
            kept = b"".join(self._parts)
            self._parts = []
            self._head, self._tail = kept[:END_BYTES], kept[-END_BYTES:]

        self._head = (self._head + part[:END_BYTES])[:END_BYTES]
        self._tail = (self._tail + part[-END_BYTES:])[-END_BYTES:]

    def _taken(self) -> bytes | LongLine:
        kept, ends = b"".join(self._parts), LongLine(self._head, self._tail, self._length)
        self._parts, self._length, self._head, self._tail = [], 0, b"", b""
        return kept if ends.length <= self._bytes_max else ends
