"""The seal of a stream of events: a running checksum, so that a reader takes nothing but what was sent, as it was sent.

HTTP/2 over plain TCP has no checksum of its own, and TCP's has 16 bits. The CRC-32 of a stream begins with what was asked
for and runs on over each message, so it also differs after a message that was left out, doubled or put in another's place,
and where the server read another request than was written. It protects from accidents; from people, TLS does.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final, Self
from zlib import crc32

_FIELD: Final = Struct("<cI")
_SUM: Final = Struct("<I")
_TAG: Final = b"\x25"
"""The field ``checksum``, number 4 and a fixed32; it stands at the end of each message. Summed as well, so that even one
without content makes a difference."""


class SealBrokenError(Exception):
    """A message is not what was sent, or not the next one of its stream."""


class Seal:
    """The running checksum of one stream, on either side of it."""

    __slots__ = ("_sum",)

    def __init__(self, asked: bytes) -> None:
        """``asked`` are the bytes that name what was asked for; see the two below."""
        self._sum = crc32(asked)

    @classmethod
    def of_plan(cls, plan_id: str, after_sequence: int, *, durable_only: bool, journal_id: str) -> Self:
        """Begin a stream of one plan: WatchPlan, or RunPlan with 0 and no ``journal_id``."""
        return cls(f"plan\n{plan_id}\n{after_sequence}\n{durable_only:d}\n{journal_id}".encode())

    @classmethod
    def of_all(cls, cursor: str, *, from_now: bool, durable_only: bool, labels: Mapping[str, str]) -> Self:
        """Begin a stream of all plans: WatchPlans."""
        pairs = "".join(f"\n{name}={labels[name]}" for name in sorted(labels))
        return cls(f"plans\n{cursor}\n{from_now:d}\n{durable_only:d}{pairs}".encode())

    def put(self, message: bytes) -> bytes:
        """Give the next message with its checksum behind it."""
        self._sum = crc32(_TAG, crc32(message, self._sum))
        return message + _FIELD.pack(_TAG, self._sum)

    def check(self, sealed: bytes) -> None:
        """Check the next message.

        Raises:
            SealBrokenError: it is not that, or has no checksum. Nothing more of its stream may be believed.
        """
        end = len(sealed) - _SUM.size
        self._sum = crc32(memoryview(sealed)[: max(end, 0)], self._sum)
        if sealed[end - 1 : end] != _TAG or sealed[end:] != _SUM.pack(self._sum):
            raise SealBrokenError
