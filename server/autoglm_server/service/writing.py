"""A write to a stream that ends by itself when who waits for it does not.

What the transport took for a message it frees when the write's coroutine goes on after it, and never if that was cancelled there.
A client that leaves a stream has its handler cancelled, nearly every second time in a write: that left 240 bytes, for good.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any

import grpc.aio


@types.coroutine
def whole(write: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Await a write; where that is cancelled, it goes on without anybody who waits.

    Raises:
        grpc.aio.InternalError: it could not be sent.
    """
    while True:
        try:
            sending = write.send(None)
        except StopIteration:
            return

        if sending is None:  # a turn of the loop
            yield
        else:
            yield from _sent(write, sending)


def _sent(write: Coroutine[Any, Any, None], sending: asyncio.Future[None]) -> Generator[Any, Any, None]:
    sending._asyncio_future_blocking = False  # noqa: SLF001 - how a future is told that no task waits for it itself
    waiting = sending.get_loop().create_future()

    def sent(_: asyncio.Future[None]) -> None:
        if waiting.done():
            _end(write)
        else:
            waiting.set_result(None)

    sending.add_done_callback(sent)
    try:
        yield from waiting
    except asyncio.CancelledError:
        if not waiting.cancelled():  # it had been sent, and who waited was cancelled before it knew
            _end(write)

        raise


def _end(write: Coroutine[Any, Any, None]) -> None:
    """Let a write that has been sent, or could not be, go on to its end; nobody is told."""
    try:
        write.send(None)
    except (StopIteration, asyncio.CancelledError, grpc.aio.BaseError):
        return

    write.close()
