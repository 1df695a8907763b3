"""Callers that cost next to nothing: gRPC as bytes on HTTP/2 connections, without a library.

A call through grpc.aio costs its caller more than being refused costs the server. In a test the two share the machine, and what
the callers took of it would be missing to the server, which it is not where callers are on machines of their own. Here the frames
of a request are laid out once, an answer is looked through for what is in it, and its message is read when the load is over.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import grpc

CANCELLED: Final = 8
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS, _PADDED_OR_PRIORITY = 1, 1, 4, 8 | 32
_WINDOW: Final = 65_535
"""Of a connection to begin with, in each direction; a request is far smaller."""
_MOST: Final = (1 << 31) - 1
_SETTINGS_OURS: Final = struct.pack(
    ">HIHIHIHI",
    *(1, 0),  # no table: a block of header fields says the same wherever it comes
    *(2, 0),  # no pushes
    *(4, _MOST),  # answers are never held up
    *(0xFE03, 1),  # gRPC's own: binary fields are sent as they are
)


@dataclass(slots=True)
class Answer:
    """How a call ended."""

    code: grpc.StatusCode
    text: str = ""
    details: bytes = b""
    """google.rpc.Status, if there is one."""
    message: bytes = b""


@dataclass(slots=True)
class _Call:
    answer: asyncio.Future[Answer]
    timer: asyncio.TimerHandle
    data: list[bytes] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """An HTTP/2 connection; give it to ``loop.create_connection``. It does what gRPC's servers need, and nothing else."""

    def __init__(self, timeout: float) -> None:
        """``timeout``: of each call, in seconds."""
        self._timeout = timeout
        self._calls: dict[int, _Call] = {}
        self._next = 1
        self._window = _WINDOW
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Requests for which the server has no room yet, and how much of it each takes."""
        self._unread = bytearray()
        self._lost = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        update = struct.pack(">I", _MOST - _WINDOW)
        hello = _frame(_SETTINGS, 0, 0, _SETTINGS_OURS) + _frame(_WINDOW_UPDATE, 0, 0, update)
        transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hello)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._lost or f"the connection was lost: {exc}"
        for stream in [*self._calls]:
            self._end(stream, Answer(grpc.StatusCode.UNAVAILABLE, self._lost))

    def close(self) -> None:
        self._transport.close()

    def call(self, method: str, message: bytes) -> asyncio.Future[Answer]:
        """Call a unary method; ``message`` is its request."""
        loop, stream = asyncio.get_running_loop(), self._next
        self._next += 2
        answer: asyncio.Future[Answer] = loop.create_future()
        self._calls[stream] = _Call(answer, loop.call_later(self._timeout, self._late, stream))
        if self._lost:
            self._end(stream, Answer(grpc.StatusCode.UNAVAILABLE, self._lost))
            return answer

        head = _frame(_HEADERS, _END_HEADERS, stream, _request(method, self._timeout))
        data = struct.pack(">BI", 0, len(message)) + message
        self._waiting.append((head + _frame(_DATA, _END_STREAM, stream, data), len(data)))
        self._send()
        return answer

    def data_received(self, data: bytes) -> None:
        unread, at = self._unread, 0
        unread += data
        while len(unread) >= at + 9:
            end = at + 9 + int.from_bytes(unread[at : at + 3])
            if len(unread) < end:
                break

            stream = int.from_bytes(unread[at + 5 : at + 9]) & _MOST
            self._heard(unread[at + 3], unread[at + 4], stream, bytes(unread[at + 9 : end]))
            at = end

        del unread[:at]

    def _send(self) -> None:
        ready = []
        while self._waiting and self._waiting[0][1] <= self._window:
            frames, room = self._waiting.popleft()
            self._window -= room
            ready.append(frames)

        if ready:
            self._transport.write(b"".join(ready))

    def _heard(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            if call := self._calls.get(stream):
                call.data.append(payload)

        elif kind == _HEADERS:
            assert flags & (_END_HEADERS | _PADDED_OR_PRIORITY) == _END_HEADERS, (
                f"no server of gRPC's sends flags {flags}"
            )
            if flags & _END_STREAM:
                self._end(stream, _answer(payload))

        elif kind == _RST_STREAM:
            self._end(stream, Answer(grpc.StatusCode.UNAVAILABLE, f"reset: {int.from_bytes(payload)}"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            self._lost = f"the server sends us away: {payload[8:].decode(errors='replace')}"
        elif kind == _WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(payload)
            self._send()

    def _late(self, stream: int) -> None:
        self._transport.write(_frame(_RST_STREAM, 0, stream, struct.pack(">I", CANCELLED)))
        self._end(stream, Answer(grpc.StatusCode.DEADLINE_EXCEEDED, "by its caller's clock"))

    def _end(self, stream: int, answer: Answer) -> None:
        if call := self._calls.pop(stream, None):
            call.timer.cancel()
            # The answer is a message, with five bytes before it.
            if not call.answer.done():
                call.answer.set_result(
                    Answer(answer.code, answer.text, answer.details, b"".join(call.data)[5:]) if call.data else answer
                )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


@cache
def _request(method: str, timeout: float) -> bytes:
    """Give the header fields of a call."""
    fields = b"\x83\x86" + b"\x04" + _string(method) + b"\x01" + _string("localhost")  # POST, http, the path, the host
    named = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": f"{timeout * 1000:.0f}m"}
    return fields + b"".join(b"\x00" + _string(name) + _string(value) for name, value in named.items())


def _string(text: str) -> bytes:
    assert len(text) < 127, "a longer one has a longer length"
    return bytes([len(text)]) + text.encode()


@cache
def _answer(block: bytes) -> Answer:
    """Read the header fields that a call ends with; there are a few that come again and again."""
    fields = dict(_fields(block))
    codes = {code.value[0]: code for code in grpc.StatusCode}
    text, details = fields.get(b"grpc-message", b""), fields.get(b"grpc-status-details-bin", b"\0")
    return Answer(codes[int(fields[b"grpc-status"])], text.decode(), details[1:])


def _fields(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read header fields (RFC 7541) of a server that was told to keep no table of them; well-known names are left out."""
    at = 0

    def number(bits: int) -> int:
        nonlocal at
        most = (1 << bits) - 1
        value, shift = block[at] & most, 0
        at += 1
        if value < most:
            return value

        while True:
            value += (block[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if block[at - 1] < 128:
                return value

    def string() -> bytes:
        nonlocal at
        assert block[at] < 128, "gRPC's servers compress no fields but binary ones, and those not when told so"
        length = number(7)
        at += length
        return block[at - length : at]

    while at < len(block):
        if block[at] >= 128:
            number(7)
        elif block[at] & 0xE0 == 0x20:
            number(5)
        else:
            name = b"" if number(6 if block[at] & 64 else 4) else string()
            value = string()
            if name:
                yield name, value
