"""The event loop of the server: the fastest there is, on which the transport hears of all that has happened.

The transport (grpc.aio) has a thread that puts what happened in a queue and writes one byte to a pair of sockets for each; the
loop's side takes all of the queue, and one byte. So when more than one thing happens in a pass, bytes are left over, and once
their buffer is full (some 280) the thread stands still until one is taken: the transport then goes on by one event in each pass,
and calls wait for seconds in front of a server that has time for them. Here the bytes are taken together (docs/adr/0098).
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from functools import partial
from typing import Any, Final

_COUNT: Final = struct.Struct("i")
_TRANSPORTS_READER: Final = "_handle_events"


class _Hearing:
    """What a loop needs besides; stands before its class."""

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> Any:
        """Watch a file; of the transport's, take all bytes that have come."""
        if isinstance(fd, socket.socket) and _is_transports(callback):
            callback = _after_draining(fd, callback)

        return super().add_reader(fd, callback, *args)  # type: ignore[misc]


def _is_transports(callback: Any) -> bool:
    called = callback.func if isinstance(callback, partial) else callback
    return getattr(called, "__name__", "") == _TRANSPORTS_READER


def _after_draining(ends: socket.socket, callback: Callable[..., Any]) -> Callable[..., Any]:
    number = ends.fileno()

    def drain_and_call(*args: Any) -> None:
        (waiting,) = _COUNT.unpack(fcntl.ioctl(number, termios.FIONREAD, bytes(_COUNT.size)))
        if waiting > 1:
            ends.recv(waiting - 1)  # the last one is the callback's

        callback(*args)

    return drain_and_call


def new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop: uvloop's where there is one."""
    return _loop_class()()


def _loop_class() -> type[asyncio.AbstractEventLoop]:
    base: Any
    try:
        import uvloop  # noqa: PLC0415 - it is not everywhere
    except ImportError:
        base = asyncio.SelectorEventLoop
    else:
        base = uvloop.Loop

    return type("Loop", (_Hearing, base), {"__module__": __name__})
