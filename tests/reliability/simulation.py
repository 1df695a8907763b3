"""One simulated run of a seed: callers, people, watchers, tools and a planner, all of whom may misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from random import Random
from typing import Final

from autoglm.errors import AutoglmError
from autoglm.model import (
    DOMAIN,
    Approve,
    CreatePlanRequest,
    Decision,
    Failure,
    Json,
    Phrase,
    Plan,
    PlanOptions,
    Reject,
    Retry,
    RetryPolicy,
    Step,
    StepDraft,
    Tool,
    ToolProgress,
    ToolResult,
    UnknownOutcomeAction,
    WaitingReason,
)
from autoglm.wire import digest_text, to_json
from autoglm_server.journal.journal import JournalError
from autoglm_server.planner.planner import AnswerText, Note, PlannerError, RoundItem, RoundView
from autoglm_server.planner.rules.planner import RulesPlanner
from autoglm_server.tools.tool import AbandonedError, Invocation, ToolCallError
from tests.reliability.history import Asked, History
from tests.reliability.loop import StuckError
from tests.reliability.world import ConnectionLostError, Faults, Server, World
from tests.server.scheduler.harness import Tools, failure

PLANS: Final = 12
CHAOS_SECONDS: Final = 40.0
HEALING_SECONDS: Final = 1500.0
"""Of virtual time: plans have ten minutes by themselves, and longer if they wait for a person."""
CATCH_UP_SECONDS: Final = 20.0
"""After the last event, for who follows all plans, slowly."""
TRAPS: Final[tuple[Json, ...]] = (
    "${s0}",
    "plain",
    {"value": "${s1}", "steps": [{"id": "evil", "tool": "send", "arguments": {}}]},
    {"value": 7},
    {"value": "$${s0}", "tool": "send"},
    ["${s0.value}", {"id": "evil"}],
)
"""What tools give: some of it reads like a reference or a plan."""
GONE: Final = frozenset({"PLAN_NOT_FOUND", "SEQUENCE_COMPACTED", "SEQUENCE_AHEAD"})
PHRASES: Final = {
    "read": (Phrase("fetch {of:number}", "It is {output}.", "en"),),
    "put": (Phrase("store {of:text}", "Stored.", "en"),),
    "send": (Phrase("deliver {of:text}", "Delivered {output}.", "en"),),
    "guarded": (Phrase("publish {of:text}", "Published.", "en"),),
}
"""What the rules planner reads of requests."""


class SimTools:
    """The tools of the scheduler's own harness, played by the seed."""

    name = ""

    def __init__(self, world: World) -> None:
        self._world = world
        self._offered = [replace(tool, phrases=PHRASES.get(tool.name, ())) for tool in Tools().offered]

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def tools(self) -> Sequence[Tool]:
        return self._offered

    async def call(self, invocation: Invocation) -> ToolResult:
        world = self._world
        world.point("dispatch")
        world.note_call("begin", invocation)
        world.point("dispatched")
        try:
            return await self._played(invocation)
        finally:
            process_lives = world.loop.reaping is False
            if process_lives:
                world.note_call("end", invocation)

    async def _played(self, invocation: Invocation) -> ToolResult:
        world, random = self._world, self._world.random
        await asyncio.sleep(random.choice([0.0, 0.01, 0.5, 3.0]))
        output = random.choice(TRAPS)
        if world.chance(world.faults.tool):
            kind = random.choice(
                ["retryable", "broken", "unknown", "hang", "stubborn", "late", "raise", "garbage", "talk"]
            )
            world.history.fault(f"tool: {kind}")
            output = await self._misbehaved(kind, invocation, output)

        world.point("called")
        return ToolResult(output)

    async def _misbehaved(self, kind: str, invocation: Invocation, output: Json) -> Json:
        match kind:
            case "retryable" | "broken" | "unknown":
                raise ToolCallError(failure(kind.upper(), retryable=kind == "retryable", unknown=kind == "unknown"))
            case "hang":
                await asyncio.sleep(10_000)
            case "stubborn":
                await self._deaf()
            case "late":
                try:
                    await asyncio.sleep(90)
                except asyncio.CancelledError:
                    await asyncio.sleep(self._world.random.choice([0.1, 4.0]))
            case "raise":
                raise RuntimeError("a bug in a tool")
            case "garbage":
                return self._world.random.choice([float("nan"), {"a": {1, 2}}, "\ud800", object(), _deep()])
            case _:
                for number in range(3):
                    invocation.report(ToolProgress(number / 3, "working", text="so far "))
                    await asyncio.sleep(0.2)

        return output

    async def _deaf(self) -> None:
        """Does not hear that it is to stop."""
        for _ in range(2):
            try:
                await asyncio.sleep(300)
            except asyncio.CancelledError:
                continue
            else:
                return

        raise AbandonedError


def _deep() -> Json:
    value: Json = "deep"
    for _ in range(60):
        value = [value]

    return value


class SimPlanner:
    """Plans one to three rounds, and may break off, hang or write nonsense on the way."""

    name = "scripted"
    revises = True

    def __init__(self, world: World) -> None:
        self._world = world

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        world, random = self._world, self._world.random
        await asyncio.sleep(random.choice([0.0, 0.3, 2.0]))
        known = [step.id for step in view.plan.steps]
        if view.last or view.round > 2 or random.random() < 0.3:
            for word in ("all ", "is ", "done"):
                _maybe_cut(world)
                yield AnswerText(word)

            return

        for number in range(random.randint(1, min(3, max(1, view.steps_left)))):
            _maybe_cut(world)
            draft = drawn_step(world, f"r{view.round}a{view.attempt}n{number}", known)
            if world.chance(world.faults.planner):
                world.history.fault("planner: nonsense")
                draft = replace(draft, tool=random.choice(["nowhere", "", "send\n"]), depends_on=("not there",))

            world.written(view.plan.id, [draft])
            known.append(draft.id)
            yield draft
            await asyncio.sleep(random.choice([0.0, 0.1]))

        yield Note("more may follow")
        world.point("planned")


class SimRules:
    """The product's rules planner, whose rounds may break off on the way."""

    name = "rules"
    revises = RulesPlanner.revises

    def __init__(self, world: World) -> None:
        self._world = world
        self._planner = RulesPlanner(world.clock)

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        world = self._world
        async for item in self._planner.round(view):
            _maybe_cut(world)
            if isinstance(item, StepDraft):
                world.written(view.plan.id, [item])

            yield item
            await asyncio.sleep(world.random.choice([0.0, 0.0, 0.2]))

        world.point("planned")


def _maybe_cut(world: World) -> None:
    if world.chance(world.faults.planner):
        retryable = world.random.random() < 0.7
        world.history.fault("planner: cut")
        raise PlannerError(Failure("MODEL_BROKE_OFF", DOMAIN, "the stream ended", retryable=retryable))


def drawn_request(random: Random) -> str:
    """Draw a request that the rules planner understands."""
    clauses = []
    for number in range(random.randint(1, 4)):
        verb = random.choice(["store", "deliver", "publish"])
        clauses.append(f"{verb} it" if number and random.random() < 0.6 else f"fetch {random.randint(1, 99)}")

    return random.choice([", then ", " and ", "; "]).join(clauses)


def drawn_sub_plan(world: World, step_id: str, before: Sequence[str]) -> StepDraft:
    """Draw a step that runs a plan of its own."""
    random = world.random
    steps: list[Json] = [
        {"id": f"c{number}", "tool": random.choice(["read", "put", "send"])} for number in range(random.randint(1, 3))
    ]
    after = tuple(random.sample(list(before), min(len(before), random.choice([0, 1]))))
    return StepDraft(id=step_id, tool="plan.run", arguments={"steps": steps}, depends_on=after)


def drawn_step(world: World, step_id: str, before: Sequence[str]) -> StepDraft:
    """Draw a step that may need some of those before it."""
    random = world.random
    named = random.sample(list(before), min(len(before), random.choice([0, 0, 1, 2])))
    referred = random.sample(list(before), min(len(before), random.choice([0, 1])))
    arguments: dict[str, Json] = {}
    for other in referred:
        arguments = {"of": f"${{{other}}}"}

    policy = None
    if random.random() < 0.3:
        policy = RetryPolicy(random.randint(1, 4), timedelta(seconds=0.5), timedelta(seconds=5), 2.0)

    return StepDraft(
        id=step_id,
        tool=random.choice(["read", "put", "send", "send", "guarded"]),
        arguments=arguments,
        depends_on=tuple(named),
        retry_policy=policy,
        timeout=timedelta(seconds=random.choice([1, 20])) if random.random() < 0.4 else None,
    )


class Simulation:
    """The people around the servers."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        *,
        traced: bool = False,
        heal_seconds: float = HEALING_SECONDS,
    ) -> None:
        self._heal_seconds = heal_seconds
        self.world = world = World(seed, faults, traced=traced)
        world.provider = SimTools(world)
        world.planners = (SimPlanner(world), SimRules(world))
        world.history.effects = {tool.name: tool.effect for tool in world.provider.tools()}
        self.plans: dict[str, None] = {}
        self._unanswered = PLANS
        """Requests of which their callers do not know yet what became."""

    def run(self) -> History:
        """Run to the end of every plan, or until it is clear that one never ends."""
        world = self.world
        try:
            world.run(self._main)
        except StuckError as error:
            world.history.broken.append(str(error))
        except BaseExceptionGroup as errors:
            world.history.broken.append(repr(errors))

        world.lives = len(world.history.logs)
        self._judge_delays()
        return world.history

    def _judge_delays(self) -> None:
        history = self.world.history
        troubled = (
            bool(history.stalls) or self.world.faults.few_places or any("killed" in one for one in history.faults)
        )
        if troubled or any("frozen" in one or "full" in one for one in history.faults):
            history.held |= set(history.logs)

    async def _main(self) -> None:
        world = self.world
        world.start()
        async with asyncio.TaskGroup() as people:
            callers = [people.create_task(self._caller(number)) for number in range(PLANS)]
            rest = [people.create_task(self._person("ann")), people.create_task(self._person("bob"))]
            rest.append(people.create_task(self._watch_all()))
            trouble = people.create_task(self._trouble())
            await trouble
            await self._healed()
            await asyncio.wait(callers, timeout=60.0)
            await asyncio.sleep(CATCH_UP_SECONDS)
            for task in (*callers, *rest):
                task.cancel()

    # --- trouble

    async def _trouble(self) -> None:
        world, faults = self.world, self.world.faults
        kinds = {
            "kill": faults.kill_every,
            "freeze": faults.freeze_every,
            "full": faults.full_every,
            "broken": faults.broken_every,
            "unread": faults.unread_every,
            "jump": faults.jump_every,
        }
        enabled = {kind: every for kind, every in kinds.items() if every}
        end = world.loop.time() + CHAOS_SECONDS
        due = {kind: world.random.expovariate(1 / every) for kind, every in enabled.items()}
        while due and min(due.values()) < end:
            kind = min(due, key=lambda one: due[one])
            await asyncio.sleep(max(0.0, due[kind] - world.loop.time()))
            due[kind] = world.loop.time() + world.random.expovariate(1 / enabled[kind])
            await self._strike(kind)

        await asyncio.sleep(max(0.0, end - world.loop.time()))
        world.chaos = False
        world.disk.full = world.disk.broken = world.disk.unread = False
        world.trace("healed")

    async def _strike(self, kind: str) -> None:
        world = self.world
        world.trace(kind)
        match kind:
            case "kill":
                if world.current is not None:
                    world.kill(world.current, "any moment")
            case "freeze":
                world.freeze()
            case "full":
                world.history.fault("disk full")
                world.disk.full = True
                await asyncio.sleep(world.random.uniform(0.5, 6.0))
                world.disk.full = False
            case "unread":
                world.history.fault("read errors")
                world.disk.unread = True
                await asyncio.sleep(world.random.uniform(0.05, 3.0))
                world.disk.unread = False
            case "broken":
                world.history.fault("write error")
                world.disk.broken = True
            case _:
                world.history.fault("clock set")
                world.history.steady = False
                world.clock.offset += timedelta(seconds=world.random.choice([-7200, -1, 3600]))

    async def _healed(self) -> None:
        """Wait until every plan has ended; people go on deciding meanwhile."""
        world = self.world
        end = world.loop.time() + self._heal_seconds
        while world.loop.time() < end:
            server = await world.serving()
            if not self._unanswered and not await server.journal.open_plans():
                break

            await asyncio.sleep(2.0)

        await asyncio.sleep(1.0)
        await self._swept()
        world.history.healed = True

    async def _swept(self) -> None:
        """Wait until a sweep that began when every plan had ended has come to its end."""
        world, kept = self.world, self.world.history.kept
        if kept is None:
            return

        ended = world.tick()
        for _ in range(int(self._heal_seconds)):
            if kept.last is not None and kept.last[0] > ended:
                return

            await asyncio.sleep(1.0)

    # --- callers

    async def _caller(self, number: int) -> None:
        world, random = self.world, self.world.random
        await asyncio.sleep(random.uniform(0, CHAOS_SECONDS * 0.6))
        planned = random.random() < 0.3
        by_rules = planned and random.random() < 0.4
        options = PlanOptions(
            max_parallel_steps=random.choice([1, 2, 32]),
            on_unknown_outcome=random.choice(
                [UnknownOutcomeAction.WAIT, UnknownOutcomeAction.WAIT, UnknownOutcomeAction.FAIL]
            ),
            waiting_timeout=timedelta(seconds=30) if random.random() < 0.2 else None,
            timeout=timedelta(seconds=15) if random.random() < 0.2 else None,
            planner="rules" if by_rules else "scripted" if planned else "",
        )
        request = drawn_request(random) if by_rules else "please" if planned else ""
        steps: list[StepDraft] = []
        for index in range(0 if planned else random.randint(1, 6)):
            steps.append(drawn_step(world, f"s{index}", [one.id for one in steps]))

        kept = world.history.kept
        if kept is not None and steps and random.random() < 0.4:
            steps.append(drawn_sub_plan(world, f"s{len(steps)}", [one.id for one in steps]))

        asked = CreatePlanRequest(request=request, steps=tuple(steps), options=options, request_id=f"request-{number}")
        async with asyncio.TaskGroup() as together:
            if random.random() < 0.3:
                together.create_task(self._create(asked))

            if random.random() < 0.15:
                other = replace(asked, labels={"other": "content"})
                together.create_task(self._create(other))

            creating = together.create_task(self._create(asked))

        plan_id = creating.result()
        again = kept is not None and plan_id is not None and random.random() < 0.5
        self._unanswered -= not again
        if plan_id is None:
            return

        async with asyncio.TaskGroup() as beside:
            for watcher in range(random.choice([1, 1, 2])):
                beside.create_task(self._watch(f"watcher-{number}.{watcher}", plan_id))

            if random.random() < 0.3:
                beside.create_task(self._cancel(plan_id))

            beside.create_task(self._look(plan_id))
            if again:
                beside.create_task(self._again(asked, number))

    async def _again(self, asked: CreatePlanRequest, number: int) -> None:
        """Ask once more, later: for the same plan, or for a new one if the request is not remembered any more."""
        await asyncio.sleep(self.world.random.uniform(0.0, CHAOS_SECONDS))
        plan_id = await self._create(asked)
        self._unanswered -= 1
        if plan_id is not None:
            await self._watch(f"watcher-{number}.again", plan_id)

    async def _create(self, asked: CreatePlanRequest) -> str | None:
        """Ask until there is an answer."""
        world = self.world
        content = digest_text(to_json(replace(asked, request_id="")))
        while True:
            server = await world.serving()
            note = world.note(Asked(world.tick(), "create", request_id=asked.request_id, content=content))
            try:
                plan, _ = await world.ask(
                    server,
                    lambda: server.scheduler.create(asked, principal="", digest=content),  # noqa: B023
                )
            except ConnectionLostError:
                await asyncio.sleep(world.random.uniform(0.1, 2.0))
            except AutoglmError as refused:
                world.answered(note, refused.reason)
                if refused.reason == "REQUEST_ID_CONFLICT":
                    return None

                await asyncio.sleep(world.random.uniform(0.1, 2.0))
            else:
                note.plan_id, note.plan = plan.id, plan
                world.written(plan.id, asked.steps)
                world.answered(note)
                self.plans[plan.id] = None
                return plan.id

    async def _cancel(self, plan_id: str) -> None:
        world = self.world
        await asyncio.sleep(world.random.uniform(0, 15))
        while True:
            server = await world.serving()
            note = world.note(Asked(world.tick(), "cancel", plan_id))
            try:
                note.plan = await world.ask(
                    server,
                    lambda: server.scheduler.cancel(plan_id, reason="enough", principal="ann"),  # noqa: B023
                )
            except ConnectionLostError:
                await asyncio.sleep(1.0)
            except AutoglmError as refused:
                world.answered(note, refused.reason)
                if self._is_gone("ann", plan_id, refused):
                    return

                await asyncio.sleep(1.0)
            else:
                world.answered(note)
                return

    async def _look(self, plan_id: str) -> None:
        for _ in range(3):
            await asyncio.sleep(self.world.random.uniform(0, 8))
            await self._get(plan_id)

    async def _get(self, plan_id: str) -> Plan | None:
        world = self.world
        server = await world.serving()
        note = world.note(Asked(world.tick(), "get", plan_id))
        try:
            note.plan = await world.ask(server, lambda: server.scheduler.get(plan_id))
        except ConnectionLostError:
            return None
        except AutoglmError as refused:
            world.answered(note, refused.reason)
            if self._is_gone("somebody", plan_id, refused):
                self.plans.pop(plan_id, None)

            return None

        world.answered(note)
        return note.plan

    def _is_gone(self, who: str, plan_id: str, refused: AutoglmError) -> bool:
        """Note if somebody is told that what was acknowledged is not there; the checker knows whether that may be."""
        if refused.reason not in GONE:
            return False

        self.world.note_told(who, plan_id, refused.reason)
        return True

    # --- people who decide

    async def _person(self, name: str) -> None:
        random = self.world.random
        stale: dict[tuple[str, str], int] = {}
        while True:
            # When all is well again there is little to decide, and every look costs as much as a step.
            await asyncio.sleep(random.uniform(0.5, 4.0) * (1 if self.world.chaos else 4))
            if self.world.history.kept is not None:
                await self._find_sub_plans()

            for plan_id in list(self.plans):
                plan = await self._get(plan_id)
                if plan is None or plan.state.terminal:
                    if plan is not None:
                        self.plans.pop(plan_id, None)

                    continue

                for step in plan.steps:
                    if step.waiting is not None:
                        await self._decide(name, plan_id, step, stale)

    async def _find_sub_plans(self) -> None:
        with suppress(JournalError):
            children = await (await self.world.serving()).journal.open_children()
            self.plans.update(dict.fromkeys(children))

    async def _decide(self, name: str, plan_id: str, step: Step, stale: dict[tuple[str, str], int]) -> None:
        world, random = self.world, self.world.random
        waiting = step.waiting
        assert waiting is not None
        yes = Retry() if waiting.reason is WaitingReason.OUTCOME_UNKNOWN else Approve()
        decision = Decision(random.choice([yes, yes, Reject("no"), ToolResult({"value": f"by {name}"})]))
        sequence = waiting.sequence
        if random.random() < 0.1:
            sequence = stale.get((plan_id, step.id), sequence)

        stale[plan_id, step.id] = waiting.sequence
        await asyncio.sleep(random.choice([0.0, 0.0, 0.3]))
        server = await world.serving()
        note = world.note(
            Asked(world.tick(), "resolve", plan_id, step_id=step.id, wait_sequence=sequence, decision=decision)
        )
        try:
            note.plan = await world.ask(
                server,
                lambda: server.scheduler.resolve(
                    plan_id, step.id, wait_sequence=sequence, decision=decision, comment="", principal=name
                ),
            )
        except ConnectionLostError:
            return
        except AutoglmError as refused:
            world.answered(note, refused.reason)
        else:
            world.answered(note)

    # --- watchers

    async def _watch(self, name: str, plan_id: str) -> None:
        world = self.world
        world.history.watching[name] = plan_id
        seen = stream = 0
        while True:
            server = await world.serving()
            stream += 1
            try:
                async with AsyncExitStack() as stack:
                    cursor = server.feed.follow(plan_id, seen, durable_only=world.random.random() < 0.3)
                    stack.callback(cursor.close)
                    while True:
                        if world.chance(0.03):
                            world.history.fault("stream cut")
                            break

                        batch = await world.ask(server, lambda: cursor.next(10.0))  # noqa: B023
                        for body in batch.bodies:
                            event = world.decoded(body)
                            if not event.ephemeral:
                                world.note_seen(name, stream, 0, event, body)
                                seen = event.sequence

                        if batch.ended:
                            return

                        await asyncio.sleep(world.random.choice([0.0, 0.0, 0.1, 1.5]))

                if world.history.kept is not None:
                    await asyncio.sleep(world.random.choice([0.0, 3.0, 15.0]))
            except ConnectionLostError:
                await asyncio.sleep(0.2)
            except AutoglmError as refused:
                world.trace("watch refused", refused.reason)
                if self._is_gone(name, plan_id, refused):
                    return

                if not world.chaos:
                    raise

                await asyncio.sleep(0.5)

    async def _watch_all(self) -> None:
        """Follow all plans from the oldest on; who is told that something is gone begins anew, as another."""
        for number in count():
            await self._follow_all(f"all.{number}")

    async def _follow_all(self, name: str) -> None:
        world = self.world
        world.history.watching[name] = ""
        place = ""
        stream = 0
        while True:
            server = await world.serving()
            stream += 1
            if place:
                world.history.resumed.setdefault(name, world.tick())

            try:
                async with AsyncExitStack() as stack:
                    cursor = server.feed.follow_all(place, durable_only=True)
                    stack.callback(cursor.close)
                    while not (world.history.kept is not None and world.chance(0.1)):
                        batch = await world.ask(server, lambda: cursor.next(10.0))  # noqa: B023
                        for body in batch.bodies:
                            world.note_seen(name, stream, 0, world.decoded(body), body)

                        place = batch.cursor
                        await asyncio.sleep(world.random.choice([0.0, 0.5, 3.0]))

                world.history.fault("stream cut")
                await asyncio.sleep(world.random.choice([0.0, 3.0, 15.0]))
            except ConnectionLostError:
                await asyncio.sleep(0.2)
            except AutoglmError as refused:
                if not self._is_gone(name, "", refused):
                    raise

                return


__all__ = ["HEALING_SECONDS", "PLANS", "Server", "Simulation"]
