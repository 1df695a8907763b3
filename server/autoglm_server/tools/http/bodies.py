"""Decoding a body while it comes in, never holding more than is allowed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable
from typing import Final

from autoglm_server.tools.http.errors import GarbledError, TooLargeError

ENCODINGS: Final = "gzip, deflate"
"""What is asked for and understood."""
_STEP = 64 << 10


async def read_body(chunks: AsyncIterable[bytes], encoding: str, bytes_max: int) -> bytes:
    """Read a body of at most ``bytes_max`` bytes, on the wire and decoded.

    Raises:
        TooLargeError: it is larger. What is too much was neither read nor held.
        GarbledError: it is encoded in another way than asked for, or wrongly.
    """
    inflater = _inflater(encoding)
    body = bytearray()
    seen = 0

    async for chunk in chunks:
        seen += len(chunk)
        if seen > bytes_max:
            raise _too_large(bytes_max)

        if inflater is None:
            body += chunk
        else:
            inflater.feed(chunk, body, bytes_max)

    if inflater is not None:
        inflater.finish()

    return bytes(body)


class _Inflater:
    """Decodes gzip (of any number of members) or deflate, a step at a time: a few bytes can stand for gigabytes."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._inner = zlib.decompressobj(31)
        self._begun = False

    def feed(self, data: bytes, body: bytearray, bytes_max: int) -> None:
        """Decode ``data`` to the end of ``body``."""
        while data:
            if not self._begun:
                self._inner = zlib.decompressobj(self._window(data))
                self._begun = True

            data = self._drained(data, body, bytes_max)
            if self._inner.eof:
                data, self._begun = self._inner.unused_data, False

    def finish(self) -> None:
        """Make sure that nothing is missing."""
        if self._begun:
            raise self._garbled("ends too early")

    def _drained(self, data: bytes, body: bytearray, bytes_max: int) -> bytes:
        """Decode until ``data`` is used up, or ends a member."""
        while True:
            room = min(_STEP, bytes_max + 1 - len(body))
            try:
                out = self._inner.decompress(data, room)
            except zlib.error:
                raise self._garbled("cannot be decoded") from None

            body += out
            if len(body) > bytes_max:
                raise _too_large(bytes_max)

            data = self._inner.unconsumed_tail
            if self._inner.eof or (not data and len(out) < room):
                return b""

    def _window(self, data: bytes) -> int:
        if self._encoding == "gzip":
            return 31

        # «deflate» means zlib's format; some servers send it bare.
        return 15 if data[0] & 0x0F == 8 else -15

    def _garbled(self, what: str) -> GarbledError:
        return GarbledError(f"the answer's body says it is {self._encoding}, and {what}")


def _inflater(encoding: str) -> _Inflater | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Inflater("gzip")
        case "deflate":
            return _Inflater("deflate")
        case other:
            raise GarbledError(f"the answer's body is encoded as {other[:64]!r}; understood are {ENCODINGS}")


def _too_large(bytes_max: int) -> TooLargeError:
    return TooLargeError(f"the answer's body is larger than {bytes_max} bytes")
