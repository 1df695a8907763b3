"""Losing the process: nothing acknowledged is lost, no finished step runs twice, and unknown outcomes go by effect."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from autoglm.errors import UnavailableError
from autoglm.model import (
    Approve,
    Decision,
    Event,
    PlanCancelRequested,
    PlanResumed,
    PlanState,
    Retry,
    StepState,
    ToolCallState,
    WaitingReason,
)
from autoglm.wire import encode
from autoglm_server.journal.journal import Append
from autoglm_server.planner.planner import AnswerText
from autoglm_server.scheduler.limits import Limits
from tests.server.scheduler.harness import World, failure, step


@pytest.fixture(params=[128, 0], ids=["before serving", "beside callers"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with World(limits=Limits(taken_up_first=request.param)) as made:
        yield made


async def test_a_plan_goes_on_to_its_end_and_repeats_no_finished_step(world: World) -> None:
    plan = await world.create(step("a", "put"), step("b", "put", after=["a"]), step("c", "put", after=["b"]))
    (await world.tools.called("a")).succeed(1)
    await world.tools.called("b")
    await world.crash()
    (await world.tools.called("b")).succeed(2)
    (await world.tools.called("c")).succeed(3)
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED
    assert [world.tools.times(name) for name in "abc"] == [1, 2, 1]
    assert [call.state for call in done.steps[1].tool_calls] == [ToolCallState.INTERRUPTED, ToolCallState.SUCCEEDED]
    resumed = [event.fact for event in await world.events(plan) if isinstance(event.fact, PlanResumed)]
    assert [one.epoch for one in resumed] == [2]
    assert [event.sequence for event in await world.events(plan)] == list(range(1, done.sequence + 1))


async def test_a_non_idempotent_call_that_was_cut_waits_for_a_person(world: World) -> None:
    plan = await world.create(step("g", "send"), step("after", after=["g"]))
    await world.tools.called("g")
    await world.crash()
    waits = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert waits.steps[0].waiting is not None
    assert waits.steps[0].waiting.reason is WaitingReason.OUTCOME_UNKNOWN
    assert world.tools.times("g") == 1
    await world.scheduler.resolve(
        plan.id,
        "g",
        wait_sequence=waits.steps[0].waiting.sequence,
        decision=Decision(Retry()),
        comment="it did not arrive",
        principal="me",
    )
    (await world.tools.called("g")).succeed()
    (await world.tools.called("after")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED
    assert world.tools.times("g") == 2


async def test_interruptions_do_not_use_up_attempts_but_three_in_a_row_do(world: World) -> None:
    plan = await world.create(step("s"))
    for _ in range(2):
        await world.tools.called("s")
        await world.crash()

    await world.tools.called("s")
    await world.crash()
    done = await world.ended(plan)
    assert done.steps[0].failure is not None
    assert done.steps[0].failure.reason == "INTERRUPTED"
    assert world.tools.times("s") == 3


async def test_a_crash_while_backing_off_waits_no_longer_than_was_recorded(world: World) -> None:
    world.tools.scripts["s"] = deque([failure(retryable=True), "fine"])
    plan = await world.create(step("s"))
    await world.until(plan, lambda now: any(one.next_attempt_time for one in now.steps))
    world.clock.jump(timedelta(hours=-5))
    await world.crash()
    await world.settle()
    assert world.tools.times("s") == 1
    await world.advance(0.5)
    assert (await world.ended(plan)).output == {"s": "fine"}


async def test_a_wait_survives_and_is_decided_after(world: World) -> None:
    plan = await world.create(step("g", "guarded"))
    waits = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert waits.steps[0].waiting is not None
    await world.crash()
    await world.scheduler.resolve(
        plan.id,
        "g",
        wait_sequence=waits.steps[0].waiting.sequence,
        decision=Decision(Approve()),
        comment="",
        principal="",
    )
    (await world.tools.called("g")).succeed("ok")
    assert (await world.ended(plan)).output == {"g": "ok"}


async def test_an_approval_holds_for_the_attempts_after_a_crash(world: World) -> None:
    plan = await world.create(step("s", "put"), approval_tools=("put",))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await world.scheduler.resolve(plan.id, "s", wait_sequence=0, decision=Decision(Approve()), comment="", principal="")
    await world.tools.called("s")
    await world.crash()
    (await world.tools.called("s")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_a_stopping_plan_calls_nothing_again(world: World) -> None:
    world.tools.stubborn.add("s")
    plan = await world.create(step("s", "put"), step("t", "put"))
    await world.tools.called("s")
    await world.scheduler.cancel(plan.id, reason="", principal="")
    world.tools.under_way["s"].done.cancel()
    await world.crash()
    done = await world.ended(plan)
    assert done.state is PlanState.CANCELLED
    assert world.tools.times("s") == 1
    assert {one.state for one in done.steps} == {StepState.CANCELLED}


async def test_a_cut_round_without_steps_is_made_again(world: World) -> None:
    world.planner.script += [[asyncio.Event()], [AnswerText("here")]]
    plan = await world.create(request="think")
    await world.until(plan, lambda now: now.state is PlanState.PLANNING)
    await world.crash()
    done = await world.ended(plan)
    assert done.answer == "here"
    assert [(one.number, one.attempts) for one in done.rounds] == [(1, 2)]


async def test_a_cut_round_with_steps_is_over_and_the_next_goes_on(world: World) -> None:
    world.planner.script += [[step("a", "put"), asyncio.Event()], [AnswerText("went on")]]
    plan = await world.create(request="think")
    (await world.tools.called("a")).succeed(1)
    await world.settle()
    await world.crash()
    done = await world.ended(plan)
    assert done.answer == "went on"
    assert [one.number for one in done.rounds] == [1, 2]
    assert world.tools.times("a") == 1


async def test_a_planner_that_takes_the_process_down_is_not_asked_for_ever(world: World) -> None:
    world.planner.script += [[asyncio.Event()]] * 5
    plan = await world.create(request="poison")
    for made in range(1, 4):
        while len(world.planner.views) < made:
            await world.settle()

        await world.crash()

    done = await world.ended(plan)
    assert done.failure is not None
    assert done.failure.reason == "INTERRUPTED"
    assert len(world.planner.views) == 3


async def test_the_plan_timeout_runs_through_a_restart(world: World) -> None:
    plan = await world.create(step("s"), timeout=timedelta(seconds=30))
    await world.tools.called("s")
    world.clock.advance(20)
    await world.crash()
    await world.tools.called("s")
    await world.advance(8)
    assert not (await world.get(plan)).state.terminal
    await world.advance(1.5)
    assert (await world.ended(plan)).failure.reason == "PLAN_TIMEOUT"  # type: ignore[union-attr]


async def test_two_processes_do_not_both_hold_a_plan(world: World) -> None:
    plan = await world.create(step("s", "put"), step("t", "put", after=["s"]))
    call = await world.tools.called("s")
    old = world.scheduler
    await world.boot()
    await world.tools.called("s")
    call.succeed("late")
    await world.settle()
    assert old.open_plans == 0
    world.tools.under_way["s"].succeed("new")
    (await world.tools.called("t")).succeed()
    done = await world.ended(plan)
    assert done.steps[0].result is not None
    assert done.steps[0].result.output == "new"
    await old.stop()


async def test_drain_lets_calls_end_and_starts_no_other(world: World) -> None:
    plan = await world.create(step("s", "put"), step("t", "put", after=["s"]))
    call = await world.tools.called("s")
    draining = asyncio.get_running_loop().create_task(world.scheduler.drain(30))
    await world.settle()
    call.succeed(1)
    await draining
    await world.scheduler.stop()
    assert world.tools.times("t") == 0
    assert (await world.facts(plan))[-1] == "StepSucceeded(s)"
    await world.boot()
    (await world.tools.called("t")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED
    assert world.tools.times("s") == 1


async def test_many_open_plans_are_taken_up() -> None:
    async with World(limits=Limits(running_plans=5)) as world:
        plans = [await world.create(step(f"a{i}", "put"), step("b", "add", [f"a{i}"], a=1, b=1)) for i in range(20)]
        await world.settle()
        await world.crash()
        for _ in range(200):
            await world.settle()
            for call in list(world.tools.under_way.values()):
                if not call.done.done():
                    call.succeed()

        for plan in plans:
            assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_a_plan_with_facts_of_a_newer_version_is_read_but_not_run(world: World) -> None:
    plan = await world.create(step("g", "guarded"))
    other = await world.create(step("h", "guarded"))
    for one in (plan, other):
        await world.until(one, lambda now: now.state is PlanState.WAITING)

    await world.scheduler.stop()
    unknown_fact = b"\xe2\x03\x00"  # field 60, empty
    when = world.clock.now()
    body = encode(Event(plan.id, 4, when, fact=PlanCancelRequested()))[: -len(encode_fact())] + unknown_fact
    world.journal.append(Append(plan.id, 1, 4, [body], lambda error: None))
    await world.boot()
    with pytest.raises(UnavailableError, match="does not hold"):
        await world.scheduler.cancel(plan.id, reason="", principal="")

    assert (await world.get(plan)).sequence == 4
    await world.scheduler.cancel(other.id, reason="", principal="")
    assert (await world.ended(other)).state is PlanState.CANCELLED


def encode_fact() -> bytes:
    """Give what an empty PlanCancelRequested adds to an event's bytes."""
    return b"\x8a\x02\x00"  # field 33, empty
