"""One heap of wake-up times for all plans, and one timer of the loop."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from autoglm_server.clock import Clock


class Sleeper(Protocol):
    """Something that wants to be woken; ``wake`` is when (seconds of the monotonic clock), None for never."""

    wake: float | None

    def turn(self) -> None:
        """Wake up."""
        ...


class Timers:
    """Wakes sleepers when they are due. Setting a time costs O(log n); a later one leaves the old entry to be ignored."""

    def __init__(self, clock: Clock) -> None:
        """Take the clock to compare with."""
        self._clock = clock
        self._heap: list[tuple[float, int, Sleeper]] = []
        self._number = count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed: float | None = None

    def set(self, sleeper: Sleeper, wake: float | None) -> None:
        """Wake ``sleeper`` at ``wake``, and no longer when it was to be woken before."""
        if wake == sleeper.wake:
            return

        sleeper.wake = wake
        if wake is not None:
            heapq.heappush(self._heap, (wake, next(self._number), sleeper))
            if self._armed is None or wake < self._armed:
                self._arm()

    def tick(self) -> None:
        """Wake all that are due; a fake clock's test calls it after moving the clock."""
        self._armed = None
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            wake, _, sleeper = heapq.heappop(self._heap)
            if sleeper.wake == wake:
                sleeper.wake = None
                sleeper.turn()

        self._arm()

    def stop(self) -> None:
        """Wake nobody any more."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        while self._heap and self._heap[0][2].wake != self._heap[0][0]:
            heapq.heappop(self._heap)

        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._armed = None

        if self._heap:
            self._armed = self._heap[0][0]
            delay = max(0.0, self._armed - self._clock.monotonic())
            self._handle = asyncio.get_running_loop().call_later(delay, self.tick)
