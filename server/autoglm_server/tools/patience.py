"""Waiting for a provider that is away: a call that was not made is made when the provider is back, within its own limit.

A provider that restarts is away for seconds, and nothing has been sent meanwhile: whatever the effect of the tool, waiting
is safe, and uses up no attempt.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from autoglm.model import DOMAIN, ErrorReason, Failure, ToolProgress
from autoglm_server.tools.tool import Invocation, ToolCallError

LOOK_SECONDS: Final = 0.05
"""How often a call that waits looks whether its tool is there: a provider says it by its list."""
PAUSE_SECONDS: Final = (0.1, 1.0)
"""The first and the longest wait before a provider that did not take a call is tried again; doubled each time."""

_T = TypeVar("_T")


class Patience:
    """What one call has left of its time to wait for its provider; at most ``seconds``, and never its whole limit."""

    def __init__(self, invocation: Invocation, seconds: float) -> None:
        """Begin to count."""
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._until = self._began + min(seconds, invocation.timeout)
        self._invocation = invocation
        self._told = False

    @property
    def is_over(self) -> bool:
        """Whether there is no more time to wait."""
        return self._loop.time() >= self._until

    async def find(self, look: Callable[[], _T | None]) -> _T | None:
        """Wait until ``look`` gives something; ``None`` when it does not in time."""
        while (found := look()) is None and not self.is_over:
            await self._pause(LOOK_SECONDS)

        return found

    async def make(self, call: Callable[[Invocation], Awaitable[_T]]) -> _T:
        """Make a call that its provider did not take, again and again while there is time.

        Raises:
            ToolCallError: the call's own failure, or that it was not made in time.
        """
        pause, longest = PAUSE_SECONDS
        while True:
            await self._pause(pause)
            pause = min(2 * pause, longest)
            try:
                return await call(self.left())
            except ToolCallError as error:
                if self.is_over or not is_not_made(error.failure):
                    raise

    def left(self) -> Invocation:
        """Give the call with what is left of its limit of time."""
        spent = self._loop.time() - self._began
        return dataclasses.replace(self._invocation, timeout=max(self._invocation.timeout - spent, 0.001))

    async def _pause(self, seconds: float) -> None:
        if not self._told:
            self._told = True
            self._invocation.report(ToolProgress(0.0, "waits for its provider, which is away"))

        await asyncio.sleep(max(0.0, min(seconds, self._until - self._loop.time())))


def is_not_made(failure: Failure) -> bool:
    """Whether a failure says that nothing was sent, and that it may be another time."""
    return (
        failure.reason == ErrorReason.TOOL_UNAVAILABLE.name
        and failure.domain == DOMAIN
        and failure.retryable
        and not failure.outcome_unknown
    )
