"""Our ends of a process's pipes, read and written when they are ready.

Not as transports of the event loop: these close their pipe at a later moment than they are told to, and while threads start
processes, a number that is closed late may be another pipe's by then (seen on uvloop: EBADF in one start of a hundred).
Here, who waits on a number has stopped before it is closed, once, at the moment we say.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Final

CHUNK: Final = 64 << 10
"""The most that is read at once, in bytes."""


class Pipe:
    """One end of a pipe; used by one task at a time, closed when it waits no more."""

    def __init__(self, end: IO[bytes]) -> None:
        """Take ``end`` over."""
        self._end = end
        self._number = end.fileno()
        os.set_blocking(self._number, False)

    async def read(self) -> bytes:
        """Give what there is, at most :data:`CHUNK` bytes; nothing at the end."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = os.read(self._number, CHUNK)
            except BlockingIOError:
                await self._ready(loop.add_reader, loop.remove_reader)
            except OSError:
                return b""
            else:
                await asyncio.sleep(0)  # others have their turn, however fast it comes
                return data

    async def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            OSError: nobody reads it any more.
        """
        loop = asyncio.get_running_loop()
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:
                await self._ready(loop.add_writer, loop.remove_writer)

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self._end.close()

    async def _ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        ready = asyncio.Event()
        add(self._number, ready.set)
        try:
            await ready.wait()
        finally:
            remove(self._number)
