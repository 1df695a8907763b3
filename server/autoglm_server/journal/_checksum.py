"""The checksum beside each event, so that what was not written is never given out: not another event's body either."""

from __future__ import annotations

from zlib import crc32

from autoglm_server.journal.journal import JournalDamagedError


def checksum(plan_id: str, sequence: int, position: int, body: bytes) -> int:
    """Give the CRC-32 of an event's body, its plan and both its places."""
    return checksum_in(plan_id.encode(), sequence, position, body)


def checksum_in(plan: bytes, sequence: int, position: int, body: bytes) -> int:
    """Give the same, where the plan's id is bytes already."""
    return crc32(body, crc32(b"%b/%d/%d/" % (plan, sequence, position)))


def check(plan_id: str, sequence: int, position: int, body: bytes, expected: int) -> bytes:
    """Give the body, if it is what was written.

    Raises:
        JournalDamagedError: it is not.
    """
    if checksum(plan_id, sequence, position, body) != expected:
        raise JournalDamagedError(f"event {sequence} of plan {plan_id} is not what was written: its checksum differs")

    return body
