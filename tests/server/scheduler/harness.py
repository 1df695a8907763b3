"""A world for the scheduler: real journal, feed and catalog; tools and a planner that a test scripts; a clock it moves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Self

from autoglm.fold import PlanFold
from autoglm.model import (
    CreatePlanRequest,
    Effect,
    Event,
    Failure,
    Json,
    Plan,
    PlanOptions,
    StepDraft,
    Tool,
    ToolProgress,
    ToolResult,
)
from autoglm.wire import decode, digest_text, to_json
from autoglm_server.clock import FakeClock
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Journal
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.planner import planner
from autoglm_server.planner.planner import PlannerError, RoundItem, RoundView
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.scheduler.subplans import SubPlans
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import AbandonedError, Invocation, Provider, ToolCallError

DEFAULTS = PlanOptions(
    max_steps=10,
    enable_tool_call=True,
    max_rounds=5,
    timeout=timedelta(minutes=10),
    max_parallel_steps=32,
    planner="scripted",
)
ANY = '{"type":"object"}'


@dataclass(slots=True)
class Call:
    """A call under way, which the test ends."""

    invocation: Invocation
    done: asyncio.Future[Json]
    stopped: bool = False

    def succeed(self, output: Json = None) -> None:
        self.done.set_result(output)

    def fail(self, failure: Failure) -> None:
        self.done.set_exception(ToolCallError(failure))

    def report(self, message: str) -> None:
        self.invocation.report(ToolProgress(0.5, message))


@dataclass
class Tools:
    """A provider whose tools a test drives: `echo` gives its arguments, `manual.*` wait for the test."""

    calls: list[Invocation] = field(default_factory=list)
    under_way: dict[str, Call] = field(default_factory=dict)
    pending: list[Call] = field(default_factory=list)
    """Every call under way, of all plans."""
    scripts: dict[str, deque[Json | Failure]] = field(default_factory=dict)
    stubborn: set[str] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = ""
    offered: list[Tool] = field(
        default_factory=lambda: [
            Tool("echo", input_schema=ANY, effect=Effect.READ_ONLY, available=True),
            Tool(
                "add",
                input_schema='{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},'
                '"required":["a","b"],"additionalProperties":false}',
                effect=Effect.READ_ONLY,
                available=True,
            ),
            Tool("read", input_schema=ANY, effect=Effect.READ_ONLY, available=True),
            Tool("put", input_schema=ANY, effect=Effect.IDEMPOTENT, available=True),
            Tool("send", input_schema=ANY, effect=Effect.NON_IDEMPOTENT, available=True),
            Tool("guarded", input_schema=ANY, effect=Effect.NON_IDEMPOTENT, requires_approval=True, available=True),
        ]
    )

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def tools(self) -> Sequence[Tool]:
        return self.offered

    def change(self, name: str) -> None:
        self.offered = [
            replace(tool, input_schema='{"type":"object","title":"changed"}') if tool.name == name else tool
            for tool in self.offered
        ]

    async def call(self, invocation: Invocation) -> ToolResult:
        self.calls.append(invocation)
        step = invocation.context.step_id
        if invocation.tool == "echo":
            return ToolResult(invocation.arguments)

        if invocation.tool == "add":
            return ToolResult(invocation.arguments["a"] + invocation.arguments["b"])

        script = self.scripts.get(step)
        if script:
            outcome = script.popleft()
            if isinstance(outcome, Failure):
                raise ToolCallError(outcome)

            return ToolResult(outcome)

        call = self.under_way[step] = Call(invocation, asyncio.get_running_loop().create_future())
        self.pending.append(call)
        self.changed.set()
        try:
            return ToolResult(await asyncio.shield(call.done))
        except asyncio.CancelledError:
            call.stopped = True
            if step in self.stubborn:
                try:
                    return ToolResult(await asyncio.shield(call.done))
                except asyncio.CancelledError:
                    raise AbandonedError from None

            raise
        finally:
            self.pending.remove(call)
            if self.under_way.get(step) is call:
                del self.under_way[step]

    async def called(self, step: str) -> Call:
        while step not in self.under_way:
            self.changed.clear()
            await self.changed.wait()

        return self.under_way[step]

    def times(self, step: str) -> int:
        return sum(1 for call in self.calls if call.context.step_id == step)


@dataclass
class Planner:
    """A planner that follows a script: for each round (and making of it) a list of items, of which an exception ends it."""

    script: deque[Sequence[RoundItem | PlannerError | asyncio.Event]] = field(default_factory=deque)
    views: list[RoundView] = field(default_factory=list)
    name: str = "scripted"
    revises: bool = True

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        self.views.append(view)
        for item in self.script.popleft() if self.script else ():
            if isinstance(item, PlannerError):
                raise item

            if isinstance(item, asyncio.Event):
                await item.wait()
                continue

            yield item


class World:
    """Everything, and a way to lose the process and start it anew on the same journal."""

    def __init__(
        self,
        journal: Journal | None = None,
        limits: Limits | None = None,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        self.journal: Journal = journal or MemoryJournal()
        self.limits = limits or Limits()
        self.clock = FakeClock()
        self.tools = Tools()
        self.providers: Sequence[Provider] = [self.tools] if providers is None else providers
        self.planner = Planner()
        self.planners: dict[str, planner.Planner] = {"scripted": self.planner}
        self.scheduler: Scheduler

    async def __aenter__(self) -> Self:
        await self.journal.open()
        await self.boot()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.scheduler.stop()
        await self.journal.close()

    async def boot(self) -> None:
        self.feed = Feed(self.journal)
        subplans = SubPlans()
        catalog = Catalog([*self.providers, subplans])
        await catalog.start()
        self.scheduler = Scheduler(
            journal=self.journal,
            feed=self.feed,
            catalog=catalog,
            planners=self.planners,
            clock=self.clock,
            jitter=lambda: 1.0,
            defaults=DEFAULTS,
            limits=self.limits,
            subplans=subplans,
        )
        await self.scheduler.start()

    async def crash(self) -> None:
        """Lose the process: nothing it did not journal is left. The clock goes on a little meanwhile."""
        self.scheduler._recovery.let_go()
        for run in list(self.scheduler._runs.values()):
            for task in run.let_go():
                await asyncio.wait([task])

        await self.scheduler.stop()
        self.clock.advance(1.0)
        await self.boot()

    async def create(self, *steps: StepDraft, request: str = "", request_id: str = "", **options: object) -> Plan:
        asked = CreatePlanRequest(
            request=request,
            steps=steps,
            options=PlanOptions(**options),  # type: ignore[arg-type]
            request_id=request_id,
        )
        plan, _ = await self.scheduler.create(asked, principal="", digest=digest_text(to_json(asked)))
        return plan

    async def get(self, plan: Plan) -> Plan:
        return await self.scheduler.get(plan.id)

    async def events(self, plan: Plan) -> list[Event]:
        bodies: list[bytes] = []
        while page := await self.journal.read(plan.id, len(bodies), limit=500):
            bodies += page

        return [decode(Event, body) for body in bodies]

    async def facts(self, plan: Plan) -> list[str]:
        return [
            type(event.fact).__name__ + (f"({event.step_id})" if event.step_id else "")
            for event in await self.events(plan)
        ]

    async def until(self, plan: Plan, condition: Callable[[Plan], bool]) -> Plan:
        """Wait until the durable plan fits; a plan that ended without is a failed test."""
        cursor = self.feed.follow(plan.id, 0, durable_only=True)
        fold = PlanFold(plan.id)
        try:
            while True:
                if fold.sequence and condition(snapshot := fold.snapshot()):
                    return snapshot

                batch = await cursor.next(5.0)
                for body in batch.bodies:
                    fold.apply(decode(Event, body))
                    if condition(snapshot := fold.snapshot()):
                        return snapshot

                assert not batch.ended, f"ended {fold.state.name} without: {await self.facts(plan)}"
        finally:
            cursor.close()

    async def ended(self, plan: Plan) -> Plan:
        return await self.until(plan, lambda current: current.state.terminal)

    async def settle(self) -> None:
        """Let everything happen that can without time or the test."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.scheduler.tick()
        await self.settle()


def step(step_id: str, tool: str = "read", after: Sequence[str] = (), **arguments: Json) -> StepDraft:
    return StepDraft(id=step_id, tool=tool, arguments=dict(arguments), depends_on=tuple(after))


def failure(reason: str = "BROKEN", *, retryable: bool = False, unknown: bool = False) -> Failure:
    return Failure(reason, "read", f"it is {reason.lower()}", retryable=retryable, outcome_unknown=unknown)
