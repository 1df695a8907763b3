"""Telling plugins of steps: what became durable, read by a cursor beside the loop's work, handed to bounded queues."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from autoglm.errors import AutoglmError
from autoglm.model import (
    Event,
    Failure,
    Plan,
    PlanCancelled,
    PlanFailed,
    PlanningFailed,
    PlanSucceeded,
    StepAdded,
    StepCancelled,
    StepFailed,
    StepRetryScheduled,
    StepSkipped,
    StepStarted,
    StepState,
    StepSucceeded,
)
from autoglm.plugin import ErrorEvent, StepEndedEvent, StepStartedEvent
from autoglm.wire import decode
from autoglm_server.journal.follow import AllCursor, Feed
from autoglm_server.plugins.one import OnePlugin, StepHookEvent

_log = logging.getLogger(__name__)

PLANS_MAX: Final = 1000
"""Plans whose steps' tools are remembered; of others they are read from the journal."""
_HEARTBEAT: Final = 1.0
_PAUSE: Final = 0.05
"""Seconds between two looks while the server drains, when a cursor does not wait any more."""


class StepFeed:
    """Follows all plans from now on, and offers what plugins listen for."""

    def __init__(
        self,
        feed: Feed,
        plan_of: Callable[[str], Awaitable[Plan]],
        listeners: Callable[[], Sequence[OnePlugin]],
    ) -> None:
        """``plan_of`` gives a plan that went on before this began; ``listeners`` who listens now."""
        self._feed = feed
        self._plan_of = plan_of
        self._listeners = listeners
        self._tools: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._ending = False
        self._wanted = asyncio.Event()

    def changed(self) -> None:
        """Look anew at who listens."""
        if self._listeners() or self._ending:
            self._wanted.set()

    def end(self) -> None:
        """Come to an end when all that is durable has been offered."""
        self._ending = True
        self._wanted.set()

    async def run(self) -> None:
        """Offer, until told to end; a fault is reported, and what happened meanwhile is not told."""
        while not self._ending:
            await self._wanted.wait()
            self._wanted.clear()
            cursor = self._feed.follow_all(from_now=True, durable_only=True)
            try:
                await self._follow(cursor)
            except Exception:  # noqa: BLE001  # the boundary: plugins may miss something, the server goes on
                _log.exception("plugins are not told of steps for a moment")
                await asyncio.sleep(_HEARTBEAT)
                self.changed()
            finally:
                cursor.close()

    async def _follow(self, cursor: AllCursor) -> None:
        while listeners := self._listeners():
            batch = await cursor.next(_HEARTBEAT)
            if batch.bodies:
                await self._offer(batch.bodies, listeners)
            elif self._ending:
                return
            elif batch.drained:
                await asyncio.sleep(_PAUSE)

    async def _offer(self, bodies: Sequence[bytes], listeners: Sequence[OnePlugin]) -> None:
        for event, size in await asyncio.to_thread(_decoded, bodies):
            tools = await self._tools_of(event)
            for told in hook_events(event, tools.get(event.step_id, "")):
                for plugin in listeners:
                    plugin.offer(told, size)

    async def _tools_of(self, event: Event) -> dict[str, str]:
        """Give the tools of the plan's steps, as far as they matter for ``event``."""
        plan_id = event.plan_id
        match event.fact:
            case StepAdded() as added:
                tools = self._tools.setdefault(plan_id, {})
                tools[event.step_id] = added.step.tool if added.step is not None else ""
                self._tools.move_to_end(plan_id)
                if len(self._tools) > PLANS_MAX:
                    self._tools.popitem(last=False)

                return tools
            case PlanSucceeded() | PlanFailed() | PlanCancelled():
                return self._tools.pop(plan_id, {})
            case _ if event.step_id and event.step_id not in self._tools.get(plan_id, {}):
                return await self._read(plan_id)
            case _:
                return self._tools.get(plan_id, {})

    async def _read(self, plan_id: str) -> dict[str, str]:
        try:
            plan = await self._plan_of(plan_id)
        except AutoglmError:
            return {}  # it cannot be read, and its steps are told of without their tools

        found = {step.id: step.tool for step in plan.steps}
        if not plan.state.terminal:
            self._tools[plan_id] = found

        return found


def _decoded(bodies: Sequence[bytes]) -> list[tuple[Event, int]]:
    return [(decode(Event, body), len(body)) for body in bodies]


def hook_events(event: Event, tool: str) -> Iterator[StepHookEvent]:
    """Give what hooks are told of ``event``; ``tool`` is the tool of its step."""
    match event.fact:
        case StepStarted() as fact:
            yield StepStartedEvent(
                event.plan_id, event.sequence, event.event_time, event.step_id, event.attempt, tool, fact.arguments
            )
        case StepSucceeded() as fact:
            yield _ended(event, tool, StepState.SUCCEEDED, output=fact.result.output if fact.result else None)
        case StepFailed() as fact:
            yield _ended(event, tool, StepState.FAILED, failure=fact.failure)
            yield _error(event, tool, fact.failure, final=True)
        case StepSkipped():
            yield _ended(event, tool, StepState.SKIPPED)
        case StepCancelled():
            yield _ended(event, tool, StepState.CANCELLED)
        case StepRetryScheduled() as fact:
            yield _error(event, tool, fact.failure, final=False)
        case PlanningFailed() as fact:
            yield _error(event, "", fact.failure, final=fact.next_attempt_time is None)
        case PlanFailed() as fact:
            yield _error(event, "", fact.failure, final=True)
        case _:
            pass


def _ended(
    event: Event, tool: str, state: StepState, *, output: object = None, failure: Failure | None = None
) -> StepEndedEvent:
    return StepEndedEvent(
        event.plan_id,
        event.sequence,
        event.event_time,
        event.step_id,
        event.attempt,
        tool,
        state,
        output,
        failure,
    )


def _error(event: Event, tool: str, failure: Failure | None, *, final: bool) -> ErrorEvent:
    return ErrorEvent(
        event.plan_id,
        event.sequence,
        event.event_time,
        event.step_id,
        event.attempt,
        tool,
        event.round,
        failure or Failure(),
        final,
    )
