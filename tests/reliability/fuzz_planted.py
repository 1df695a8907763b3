"""A bug that is planted, to be found: five bytes at their places, of which each opens the way to the next."""

from __future__ import annotations


class PlantedError(Exception):
    """The bug was met."""


def stumble(data: bytes) -> None:
    """Raise for one input of 2^40."""
    # One condition in each line: by chance nobody meets all of them, and each one met is a branch of its own.
    if len(data) < 8 or data[0] != 0xA7:
        return

    if data[1] != 0x03:
        return

    if data[2] != 0x51:
        return

    if data[4] != 0xE0:
        return

    if data[6] != data[1] ^ 0x0F:
        return

    raise PlantedError
