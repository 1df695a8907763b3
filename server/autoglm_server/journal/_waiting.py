"""How readers wait for the next commit, or for a time: with one timer for all whose time is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

_LONG_SECONDS = 2.0
_GRAIN_SECONDS = 0.5
"""A wait that is long ends at a multiple of this, so that thousands which began at any time end at a few."""


def due_after(timeout: float) -> float:
    """Give the loop's time when a wait of so many seconds is over; of a long one, up to half a second sooner."""
    due = asyncio.get_running_loop().time() + timeout
    return due if timeout < _LONG_SECONDS else due // _GRAIN_SECONDS * _GRAIN_SECONDS


class Alarms:
    """The timers of a feed: one for each time that somebody waits for."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due: dict[float, tuple[asyncio.TimerHandle, dict[Waiter, None]]] = {}

    def add(self, waiter: Waiter, due: float) -> None:
        if due not in self._due:
            self._due[due] = (asyncio.get_running_loop().call_at(due, self._ring, due), {})

        self._due[due][1][waiter] = None

    def discard(self, waiter: Waiter, due: float) -> None:
        timer, waiting = self._due[due]
        del waiting[waiter]
        if not waiting:
            timer.cancel()
            del self._due[due]

    def _ring(self, due: float) -> None:
        for waiter in self._due.pop(due)[1]:
            waiter.rung(due)


class Waiters:
    """Those who wait for the next commit. One that does not wait costs nothing; waking twice is waking once."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Waiter, None] = {}  # who waits longest is woken first

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiting)

    def add(self, waiter: Waiter) -> None:
        self._waiting[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        self._waiting.pop(waiter, None)

    def wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for waiter in waiting:
                waiter.wake()


class Waiter:
    """How one reader waits, again and again; its alarm is set anew only when it rings before its time, or after it."""

    __slots__ = ("_alarm", "_alarms", "_due", "_future")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._alarm: float | None = None
        """When it rings."""
        self._future: asyncio.Future[None] | None = None
        self._due = 0.0

    async def wait(self, waiters: Waiters, due: float) -> None:
        """Return at the next wake, or when the loop's time is ``due``."""
        self._due = due
        if self._alarm is None or self._alarm > due:
            self.close()
            self._set(due)

        self._future = asyncio.get_running_loop().create_future()
        waiters.add(self)
        try:
            await self._future
        finally:
            waiters.discard(self)
            self._future = None

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def close(self) -> None:
        """Let go of the alarm."""
        if self._alarm is not None:
            self._alarms.discard(self, self._alarm)
            self._alarm = None

    def rung(self, due: float) -> None:
        """Take note of the alarm, which was set for ``due``."""
        self._alarm = None
        if self._future is None or self._future.done():
            return  # the next wait sets it again

        if self._due > due:
            self._set(self._due)
        else:
            self.wake()

    def _set(self, due: float) -> None:
        self._alarm = due
        self._alarms.add(self, due)
