"""Deadlines that are the same for many: of unary calls whose client set none, and of what is written to streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


class PassedError(Exception):
    """What was done took longer than ``seconds``, and was cancelled."""

    def __init__(self, seconds: float) -> None:
        """Say how long it was given."""
        super().__init__(f"not done within {seconds:g} s")
        self.seconds = seconds


class Deadlines:
    """One deadline for many things that are done at once, each by a task of its own: as it is the same, one timer serves all."""

    def __init__(self, seconds: float) -> None:
        """Give each thing so many seconds."""
        self._seconds = seconds
        self._due: dict[asyncio.Task[Any], float] = {}  # in the order in which they are due
        self._passed: set[asyncio.Task[Any]] = set()
        self._armed = False

    async def within(self, doing: Awaitable[Any]) -> Any:
        """Do something, as a part of the task that asks.

        Raises:
            PassedError: it took too long, and was cancelled.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._due[task] = loop.time() + self._seconds

        if not self._armed:
            self._armed = True
            loop.call_later(self._seconds, self._look)

        try:
            return await doing
        except asyncio.CancelledError:
            if task not in self._passed or task.cancelling() > 1:  # the task itself was cancelled, or something inside
                raise

            raise PassedError(self._seconds) from None
        finally:
            self._due.pop(task, None)

            if task in self._passed:
                self._passed.discard(task)
                task.uncancel()

    def _look(self) -> None:
        """Cancel what is too late, and look again when the next one would be."""
        loop = asyncio.get_running_loop()
        now = loop.time()

        while self._due:
            task, due = next(iter(self._due.items()))

            if due > now:
                loop.call_later(due - now, self._look)
                return

            del self._due[task]
            self._passed.add(task)
            task.cancel()

        self._armed = False
