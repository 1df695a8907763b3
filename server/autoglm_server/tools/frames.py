"""How a server and its worker processes talk: JSON in frames of a length (four bytes, big-endian) and so many bytes."""

from __future__ import annotations

import json
import struct
from typing import BinaryIO, Final

from autoglm.model import JsonObject

FRAME_MAX: Final = 8 << 20
"""How long one message may be, in bytes."""

_LENGTH = struct.Struct(">I")


class FrameTooLargeError(ValueError):
    """A message is longer than :data:`FRAME_MAX`."""


def write_frame(stream: BinaryIO, message: JsonObject) -> None:
    """Write a message.

    Raises:
        FrameTooLargeError: it is too long; nothing was written.
        OSError: the other side is gone.
    """
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(text) > FRAME_MAX:
        raise FrameTooLargeError(f"a message of {len(text)} bytes is longer than {FRAME_MAX}")

    stream.write(_LENGTH.pack(len(text)) + text)
    stream.flush()


def read_frame(stream: BinaryIO) -> JsonObject | None:
    """Read a message; ``None`` when the other side is gone.

    Raises:
        FrameTooLargeError: the other side announces a message that is too long.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None

    (length,) = _LENGTH.unpack(head)
    if length > FRAME_MAX:
        raise FrameTooLargeError(f"a message of {length} bytes is longer than {FRAME_MAX}")

    text = stream.read(length)
    if len(text) < length:
        return None

    message: JsonObject = json.loads(text.decode("utf-8", "surrogatepass"))
    return message
