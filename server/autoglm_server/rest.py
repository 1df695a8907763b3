"""What a server does when there is nothing to do: it gives memory back that busy times needed.

What is freed stays with the process: glibc's malloc gives back only what is at the end of its heap. And some is kept for
those who may ask again, and nobody has. A server that is never quiet gives back now and then what malloc holds free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

LOOK_SECONDS: Final = 5.0
"""How often it is looked at whether there is anything to do; quiet is what was so for that long."""
BUSY_LOOKS: Final = 12
"""How many looks apart malloc gives back while there is always something to do: a minute."""


ARENAS: Final = 2
"""Heaps of malloc that threads share; each keeps the most that was ever asked of it at once."""
_M_ARENA_MAX: Final = -8
"""What glibc's malloc.h calls it."""


def release() -> None:
    """Give back what malloc holds and nobody has; nothing where it is not glibc's. It takes a millisecond or a few."""
    _call("malloc_trim", 0)


def share_heaps() -> None:
    """Let threads share few heaps, before there are threads; nothing where malloc is not glibc's."""
    _call("mallopt", _M_ARENA_MAX, ARENAS)


def _call(function: str, *numbers: int) -> None:
    with suppress(AttributeError, ImportError, OSError, TypeError):  # some interpreters are built without ctypes
        import ctypes  # noqa: PLC0415 - whoever only reads the settings does without it

        getattr(ctypes.CDLL(None), function)(*numbers)


class Rest:
    """Gives back once in each quiet time, and a part of it now and then while there is none."""

    def __init__(
        self,
        work: Callable[[], object],
        busy: Callable[[], bool],
        give_back: Sequence[Callable[[], None]],
        *,
        meanwhile: Callable[[], None] = release,
    ) -> None:
        """Take what tells of work: ``work`` gives something else after some was done, ``busy`` whether any goes on.

        ``meanwhile`` is what is done while there is always work.
        """
        self._work = work
        self._busy = busy
        self._give_back = give_back
        self._meanwhile = meanwhile
        self._busy_looks = 0
        self._seen = self._rested = work()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Give back what can be, if there was work since that was done last, and none since the last look."""
        seen, self._seen = self._seen, self._work()
        if self._seen == self._rested:
            return

        if self._busy() or self._seen != seen:
            self._go_on()
            return

        self._rested, self._busy_looks = self._seen, 0
        for give in self._give_back:
            give()

    def _go_on(self) -> None:
        self._busy_looks += 1
        if self._busy_looks == BUSY_LOOKS:
            self._busy_looks = 0
            self._meanwhile()
