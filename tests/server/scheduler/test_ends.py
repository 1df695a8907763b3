"""Ends of calls that come together: recorded one by one, handed over together, and none lost or late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from autoglm.model import PlanState, StepState
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.scheduler import run as run_module
from tests.server.scheduler.harness import World, failure, step

if TYPE_CHECKING:
    from autoglm.model import Plan
    from autoglm_server.journal.journal import Append

WIDE = 20


class Journal(MemoryJournal):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.appends: list[Append] = []

    def append(self, append: Append) -> None:
        self.appends.append(append)
        super().append(append)

    @property
    def sizes(self) -> list[int]:
        return [len(append.bodies) for append in self.appends]


async def under_way(world: World, *, behind: bool = False) -> Plan:
    """Make a plan of many calls at once, all of which wait for the test; each may have a step of its own behind it."""
    steps = [step(f"s{number}", "put") for number in range(WIDE)]
    if behind:
        steps += [step(f"t{number}", "echo", [f"s{number}"]) for number in range(WIDE)]

    plan = await world.create(*steps, step("join", "echo", [one.id for one in steps]), max_parallel_steps=WIDE)
    for number in range(WIDE):
        await world.tools.called(f"s{number}")

    await world.settle()
    return plan


async def ends(world: World, calls: int = WIDE) -> None:
    """Let the first calls end in one pass of the loop, and stop in it."""
    run = next(iter(world.scheduler.runs.values()))
    for call in world.tools.pending[:calls]:
        call.succeed()

    for _ in range(20):
        if run.plan.succeeded < min(calls, WIDE - 1):
            await asyncio.sleep(0)


def state_of(plan: Plan, number: int) -> StepState:
    return plan.steps[number].state if number < len(plan.steps) else StepState.PENDING


async def test_ends_of_one_pass_are_handed_over_together() -> None:
    journal = Journal()
    async with World(journal) as world:
        plan = await under_way(world)
        before = len(journal.appends)
        await ends(world)
        assert (await world.ended(plan)).state is PlanState.SUCCEEDED
        assert journal.sizes[before:] == [WIDE + 1, 2]  # all ends and the start of the join, its end and the plan's
        events = await world.events(plan)
        assert [event.sequence for event in events] == [*range(1, len(events) + 1)]


@pytest.mark.parametrize(("longest", "together"), [(60.0, True), (0.0, False)])
async def test_ends_are_handed_over_together_while_each_pass_brings_more(
    monkeypatch: pytest.MonkeyPatch, longest: float, together: bool
) -> None:
    monkeypatch.setattr(run_module, "ENDS_SECONDS", longest)
    journal = Journal()
    async with World(journal) as world:
        plan = await under_way(world)
        before = len(journal.appends)
        calls = list(world.tools.pending)
        for one, other in zip(calls[::2], calls[1::2], strict=True):
            one.succeed()
            other.succeed()
            await asyncio.sleep(0)

        assert (await world.ended(plan)).state is PlanState.SUCCEEDED
        assert (journal.sizes[before:] == [WIDE + 1, 2]) is together


async def test_what_starts_a_step_is_handed_over_at_once() -> None:
    journal = Journal()
    async with World(journal) as world:
        plan = await under_way(world, behind=True)
        before = len(journal.appends)
        await ends(world)
        assert (await world.ended(plan)).state is PlanState.SUCCEEDED
        assert journal.sizes[before : before + WIDE] == [2] * WIDE  # each with the start of what follows


async def test_an_end_among_calls_that_go_on_is_durable_without_them() -> None:
    async with World() as world:
        plan = await under_way(world)
        (await world.tools.called("s3")).succeed("three")
        shown = await world.until(plan, lambda now: state_of(now, 3) is StepState.SUCCEEDED)
        assert shown.steps[3].result is not None
        assert shown.step_counts is not None
        assert shown.step_counts.running == WIDE - 1


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_server_that_stops_right_then_hands_over_what_has_ended(at_once: bool) -> None:
    async with World() as world:
        plan = await under_way(world)
        await ends(world, WIDE - 1)
        run = world.scheduler.runs[plan.id]
        assert len(run.unhanded) == WIDE - 1
        if not at_once:
            run._due = False  # the control: if nothing were known to be due, they would be lost with the process

        await world.scheduler.stop()
        events = await world.events(plan)
        found = sum(type(event.fact).__name__ == "StepSucceeded" for event in events)
        assert found == (WIDE - 1 if at_once else 0)


async def test_a_cancel_right_then_keeps_what_has_ended() -> None:
    async with World() as world:
        plan = await under_way(world)
        await ends(world, WIDE - 1)
        run = world.scheduler.runs[plan.id]
        assert run.unhanded
        run.cancel("enough", "")
        ended = await world.ended(plan)
        assert ended.state is PlanState.CANCELLED
        assert ended.step_counts is not None
        assert ended.step_counts.succeeded == WIDE - 1


async def test_a_failure_among_ends_is_decided_upon_at_once() -> None:
    journal = Journal()
    async with World(journal) as world:
        plan = await under_way(world)
        before = len(journal.appends)
        (await world.tools.called("s5")).fail(failure())
        await world.until(plan, lambda now: state_of(now, 5) is StepState.FAILED)
        assert journal.sizes[before:] == [2]  # with the skip of the join
        for call in list(world.tools.pending):
            call.succeed()

        assert (await world.ended(plan)).state is PlanState.FAILED


async def test_a_bug_in_recording_lets_go_of_that_plan_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with World() as world:
        plan = await under_way(world)
        run = world.scheduler.runs[plan.id]
        monkeypatch.setattr(type(run), "_record", lambda *_: 1 / 0)
        (await world.tools.called("s3")).succeed()
        await world.settle()
        assert run.gone
        assert "the plan is let go of" in caplog.text
        monkeypatch.undo()
        other = await world.create(step("a", "echo"))
        assert (await world.ended(other)).state is PlanState.SUCCEEDED
