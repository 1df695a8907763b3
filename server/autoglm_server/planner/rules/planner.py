"""The rules planner, as the scheduler knows it. What reads requests is compiled when the first round is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any, Final

from autoglm_server.clock import Clock, SystemClock
from autoglm_server.planner.planner import RoundItem, RoundView

WARM_SECONDS: Final = 0.3
"""How long after its start a server makes ready for the first round."""


class RulesPlanner:
    """Understands what the tools' phrases say, in English and Chinese, and nothing else."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Ask ``clock`` for the day when a plan does not say when it was made."""
        self._clock = clock or SystemClock()

    @property
    def name(self) -> str:
        """What ``PlanOptions.planner`` calls it."""
        return "rules"

    @property
    def revises(self) -> bool:
        """It never finds another way when a step failed."""
        return False

    def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        """Read the request anew, and give the steps of it that are not there yet; when all are, the answer.

        Nothing is kept between rounds, so a round that was cut by a crash is gone on with by the next.

        Raises:
            PlannerError: REQUEST_NOT_UNDERSTOOD with a violation for each clause; MAX_STEPS or MAX_ROUNDS, before any step;
                INVALID_PLAN when drafts were refused.
        """
        made: AsyncIterator[RoundItem] = _make_round()(view, self._clock)
        return made

    async def warm(self) -> None:
        """Compile what reads requests, beside the loop, so that the first round need not wait for it.

        Not at once: who waits for the server to serve is answered first. A round that comes sooner compiles for itself.
        """
        await asyncio.sleep(WARM_SECONDS)
        await asyncio.to_thread(_make_round)


def _make_round() -> Callable[[RoundView, Clock], Any]:
    # A tenth of a second of patterns, which a server should not need before it serves.
    found: Callable[[RoundView, Clock], Any] = import_module("autoglm_server.planner.rules.rounds").make_round
    return found
