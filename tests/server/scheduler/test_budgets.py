"""Budgets: what a plan may use up, in tokens, calls, rounds and time; and how it ends when that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from autoglm.model import Budget, Plan, PlanLimitReached, PlanState, StepState, Usage
from autoglm_server.planner.planner import AnswerText
from tests.server.scheduler.harness import DEFAULTS, World, step


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


def told(plan: Plan) -> tuple[str, dict[str, str]]:
    """Give why a plan failed: the reason, and its metadata."""
    assert plan.state is PlanState.FAILED
    assert plan.failure is not None
    return plan.failure.reason, dict(plan.failure.metadata)


def over(budget: str, limit: str) -> tuple[str, dict[str, str]]:
    return "BUDGET_EXCEEDED", {"budget": budget, "limit": limit}


# --- rounds


async def test_a_plan_that_needs_another_round_ends_with_what_its_steps_gave(world: World) -> None:
    world.planner.script.extend([[step("a", "add", a=1, b=2)], [step("b", "add", a=3, b=4)], [AnswerText("never")]])
    done = await world.ended(await world.create(request="do it", budget=Budget(max_rounds=2)))

    assert told(done) == over("max_rounds", "2")
    assert len(world.planner.views) == 2
    assert not world.planner.views[1].last, "the planner is not told"
    assert done.output == {"a": 3, "b": 7}
    assert done.answer == "a: 3\nb: 7"
    facts = [event.fact for event in await world.events(done)]
    assert sum(isinstance(fact, PlanLimitReached) for fact in facts) == 1


async def test_an_answer_in_the_last_round_of_the_budget_counts(world: World) -> None:
    world.planner.script.extend([[step("a", "echo")], [AnswerText("done")]])
    done = await world.ended(await world.create(request="do it", budget=Budget(max_rounds=2)))
    assert (done.state, done.answer) == (PlanState.SUCCEEDED, "done")


async def test_the_planner_s_own_bound_comes_first_if_it_is_lower(world: World) -> None:
    world.planner.script.extend([[step("a", "echo")], []])
    done = await world.ended(await world.create(request="do it", max_rounds=2, budget=Budget(max_rounds=5)))
    assert told(done)[0] == "MAX_ROUNDS"


# --- time


async def test_max_duration_stops_what_runs_and_keeps_what_is_known(world: World) -> None:
    plan = await world.create(
        step("a", "echo", x=1),
        step("b", "read", ["a"]),
        step("c", "read"),
        budget=Budget(max_duration=timedelta(seconds=90)),
    )
    call = await world.tools.called("b")
    await world.advance(89.5)
    assert not (await world.get(plan)).state.terminal
    await world.advance(0.5)
    done = await world.ended(plan)

    assert told(done) == over("max_duration", "90s")
    assert call.stopped
    assert [one.state for one in done.steps] == [StepState.SUCCEEDED, StepState.CANCELLED, StepState.CANCELLED]
    assert done.output == {"a": {"x": 1}}
    assert 'a: {"x":1}' in done.answer


async def test_max_duration_runs_while_a_person_is_waited_for(world: World) -> None:
    asked = Budget(max_duration=timedelta(minutes=30))
    plan = await world.create(step("g", "guarded"), timeout=timedelta(seconds=30), budget=asked)
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await world.advance(1790.0)
    assert (await world.get(plan)).state is PlanState.WAITING
    await world.advance(10.0)
    assert told(await world.ended(plan)) == over("max_duration", "1800s")


async def test_max_duration_goes_on_over_restarts(world: World) -> None:
    plan = await world.create(step("g", "guarded"), budget=Budget(max_duration=timedelta(seconds=60)))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await world.advance(40.0)
    await world.crash()  # takes a second
    await world.advance(18.5)
    assert not (await world.get(plan)).state.terminal
    await world.advance(0.5)
    assert told(await world.ended(plan)) == over("max_duration", "60s")


async def test_a_time_that_passed_while_no_process_held_the_plan_ends_it_at_the_start(world: World) -> None:
    plan = await world.create(step("g", "guarded"), budget=Budget(max_duration=timedelta(seconds=60)))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await world.scheduler.stop()
    world.clock.advance(3600.0)
    await world.boot()
    assert told(await world.ended(plan)) == over("max_duration", "60s")


async def test_a_round_under_way_is_cut_when_the_time_is_over(world: World) -> None:
    never = asyncio.Event()
    world.planner.script.append([Usage(100, 5, model_calls=1), never])
    plan = await world.create(request="do it", budget=Budget(max_duration=timedelta(seconds=5)))
    await world.until(plan, lambda now: bool(now.rounds))
    await world.advance(5.0)
    done = await world.ended(plan)

    assert told(done) == over("max_duration", "5s")
    assert done.usage == Usage(100, 5, model_calls=1)


# --- tokens and calls


async def test_tokens_and_calls_say_what_was_used_up(world: World) -> None:
    world.planner.script.append([Usage(900, 200, model_calls=1), step("a", "echo")])
    done = await world.ended(await world.create(request="do it", budget=Budget(max_tokens=1000)))
    assert told(done) == over("max_tokens", "1000")

    done = await world.ended(await world.create(step("a", "echo"), step("b", "echo", ["a"]), budget=Budget(None, 1)))
    assert told(done) == over("max_tool_calls", "1")
    assert done.output == {"a": {}}


# --- defaults


@pytest.mark.parametrize(
    ("asked", "default", "expected"),
    [
        (None, None, None),
        (Budget(5), None, Budget(5)),
        (None, Budget(5), Budget(5)),
        (Budget(max_rounds=1), Budget(5, 6, 7, timedelta(8)), Budget(5, 6, 1, timedelta(8))),
        (Budget(1, 2, 3, timedelta(4)), Budget(5, 6, 7, timedelta(8)), Budget(1, 2, 3, timedelta(4))),
    ],
)
async def test_each_bound_that_is_left_out_is_filled_in(world: World, asked: Any, default: Any, expected: Any) -> None:
    world.scheduler.defaults = replace(DEFAULTS, budget=default)
    plan = await world.create(step("a", "echo"), budget=asked)
    assert plan.options is not None
    assert plan.options.budget == expected


async def test_control_without_a_budget_none_of_it_ends(world: World) -> None:
    world.planner.script.extend([[Usage(10**9, 0, model_calls=1), step(f"s{number}", "echo")] for number in range(3)])
    world.planner.script.append([AnswerText("done")])
    plan = await world.create(request="do it")
    await world.settle()
    await world.advance(599.0)
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED
