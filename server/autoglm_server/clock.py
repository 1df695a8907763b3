"""Time as a port: the one home of the wall clock and the monotonic clock, so that tests can set both."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the server asks the time of."""

    def now(self) -> datetime:
        """Give the wall-clock time, in UTC; may jump."""
        ...

    def monotonic(self) -> float:
        """Give seconds that never go back, from an unknown start."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Give the wall-clock time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give seconds that never go back."""
        return time.monotonic()


class FakeClock:
    """A clock that moves only when told; for tests and simulation."""

    def __init__(self, now: datetime | None = None) -> None:
        """Start at ``now``, or at a fixed day."""
        self._now = now or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """Give the set time."""
        return self._now

    def monotonic(self) -> float:
        """Give the seconds advanced so far."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let both clocks go on by ``seconds``."""
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def jump(self, by: timedelta) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does; the monotonic clock does not notice."""
        self._now += by
