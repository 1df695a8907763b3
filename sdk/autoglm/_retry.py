"""When a call that failed is made again: pure, without a clock and without I/O; both clients follow it.

UNAVAILABLE is tried again: it says that the server could not be reached or is going away. A call that is not repeatable
(its effect cannot be recognised when it comes twice) is made once. A server that has too much to do says so before it has
begun with a call, and when to come back: that is done with any call, within its time.
"""

from __future__ import annotations

from random import Random

from autoglm._dataclasses import dataclass
from autoglm.errors import AutoglmError, UnavailableError
from autoglm.model import ErrorReason


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential pauses with full jitter: uniformly between nothing and the bound, so that clients spread out."""

    initial: float = 0.2
    """The bound of the first pause, in seconds; doubled for each failure in a row."""
    ceiling: float = 5.0
    """What the bound never exceeds, in seconds."""

    def pause(self, failures: int, rng: Random) -> float:
        """Give the seconds to wait after so many failures in a row (at least 1)."""
        return rng.uniform(0, min(self.ceiling, self.initial * 2.0 ** min(failures - 1, 32)))


BACKOFF = Backoff()
ATTEMPTS_MAX = 6
"""Attempts at one call: about three seconds of pauses on average, which a restart of a server fits into."""

REFUSED_MAX = 20
"""How often a server may say that it has too much to do: about 40 seconds, if the call has no limit of its own."""


class Attempts:
    """Counts the attempts at one call."""

    def __init__(
        self, rng: Random, *, repeatable: bool = True, attempts_max: int = ATTEMPTS_MAX, backoff: Backoff = BACKOFF
    ) -> None:
        """Begin with none made; ``rng`` spreads the pauses."""
        self._rng = rng
        self._left = attempts_max if repeatable else 1
        self._failures = 0
        self._refused = 0
        self._backoff = backoff

    def pause(self, error: AutoglmError, *, remaining: float) -> float:
        """Give the seconds to wait before the next attempt, or raise ``error`` if there is to be none.

        There is none if the error is neither an UnavailableError nor TOO_MANY_CALLS with a time to come back, if the
        attempts are used up (what was refused has its own), or if the ``remaining`` seconds of the call do not last
        until then. A server that says when to come back is believed.
        """
        if error.reason == ErrorReason.TOO_MANY_CALLS.name and error.retry_after is not None:
            self._refused += 1

            if self._refused > REFUSED_MAX:
                raise error

            pause = self._backoff.pause(self._refused, self._rng)
        else:
            self._failures += 1

            if not isinstance(error, UnavailableError) or self._failures >= self._left:
                raise error

            pause = self._backoff.pause(self._failures, self._rng)

        if error.retry_after is not None:
            pause += error.retry_after.total_seconds()

        if pause >= remaining:
            raise error

        return pause
