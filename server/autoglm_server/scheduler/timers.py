"""One heap of wake-up times for all plans, and one timer of the loop."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import field
from itertools import count
from typing import TYPE_CHECKING, Protocol

from autoglm._dataclasses import dataclass

if TYPE_CHECKING:
    from autoglm_server.clock import Clock

_SPARE = 64
"""How many entries that nobody waits for any more the heap may have before they are looked at."""


class Sleeper(Protocol):
    """Something that wants to be woken."""

    def turn(self) -> None:
        """Wake up."""
        ...


@dataclass(slots=True, order=True)
class _Entry:
    wake: float
    number: int
    sleeper: Sleeper | None = field(compare=False)
    """None once it is to be woken at another time, or never: the heap keeps no plan alive that has ended."""


class Timers:
    """Wakes sleepers when they are due. Setting a time costs O(log n), and the heap holds no more than twice the sleepers."""

    def __init__(self, clock: Clock) -> None:
        """Take the clock to compare with."""
        self._clock = clock
        self._heap: list[_Entry] = []
        self._entries: dict[Sleeper, _Entry] = {}
        self._number = count()
        self._handle: asyncio.TimerHandle | None = None
        self._armed: float | None = None

    def __len__(self) -> int:
        """How many entries are held, for tests of their bound."""
        return len(self._heap)

    def set(self, sleeper: Sleeper, wake: float | None) -> None:
        """Wake ``sleeper`` at ``wake`` (seconds of the monotonic clock; None: never), and no longer when it was to be before."""
        entry = self._entries.get(sleeper)
        if (entry.wake if entry is not None else None) == wake:
            return

        if entry is not None:
            entry.sleeper = None
            del self._entries[sleeper]

        if wake is not None:
            entry = self._entries[sleeper] = _Entry(wake, next(self._number), sleeper)
            heapq.heappush(self._heap, entry)
            if self._armed is None or wake < self._armed:
                self._arm()

        if len(self._heap) > 2 * len(self._entries) + _SPARE:
            self._heap = [entry for entry in self._heap if entry.sleeper is not None]
            heapq.heapify(self._heap)

    def tick(self) -> None:
        """Wake all that are due; a fake clock's test calls it after moving the clock."""
        self._armed = None
        now = self._clock.monotonic()
        while self._heap and self._heap[0].wake <= now:
            sleeper = heapq.heappop(self._heap).sleeper
            if sleeper is not None:
                del self._entries[sleeper]
                sleeper.turn()

        self._arm()

    def stop(self) -> None:
        """Wake nobody any more."""
        self._heap.clear()
        self._entries.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        while self._heap and self._heap[0].sleeper is None:
            heapq.heappop(self._heap)

        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._armed = None

        if self._heap:
            self._armed = self._heap[0].wake
            delay = max(0.0, self._armed - self._clock.monotonic())
            self._handle = asyncio.get_running_loop().call_later(delay, self.tick)
