"""What a plan does, from its events: every behaviour the design promises of steps, rounds, stops and people."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from autoglm.errors import (
    AbortedError,
    ConflictError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    PreconditionError,
)
from autoglm.fold import PlanFold
from autoglm.model import (
    DOMAIN,
    Approve,
    ContextItem,
    ContextMessage,
    CreatePlanRequest,
    Decision,
    Effect,
    Failure,
    Plan,
    PlanFailed,
    PlanOptions,
    PlanState,
    Reject,
    Retry,
    RetryPolicy,
    StepDraft,
    StepRejected,
    StepState,
    StepWaiting,
    Tool,
    ToolCallState,
    ToolResult,
    UnknownOutcomeAction,
    Usage,
    WaitingReason,
)
from autoglm.wire import decode
from autoglm_server.planner.planner import AnswerOutput, AnswerText, Note, PlannerError
from autoglm_server.scheduler.limits import Limits
from tests.server.scheduler.harness import ANY, World, failure, step


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


def states(plan: object) -> dict[str, str]:
    return {one.id: one.state.name for one in plan.steps}  # type: ignore[attr-defined]


# --- given steps


async def test_given_steps_run_and_answer(world: World) -> None:
    plan = await world.create(step("a", "add", a=1, b=2), step("b", "add", a="${a}", b=10))
    assert plan.state is PlanState.QUEUED
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED
    assert done.output == {"b": 13}
    assert done.answer == "b: 13"
    assert await world.facts(plan) == [
        "PlanCreated",
        "StepAdded(a)",
        "StepAdded(b)",
        "StepStarted(a)",
        "StepSucceeded(a)",
        "StepStarted(b)",
        "StepSucceeded(b)",
        "PlanSucceeded",
    ]
    assert [event.sequence for event in await world.events(plan)] == list(range(1, 9))


async def test_given_steps_may_stand_in_any_order(world: World) -> None:
    done = await world.ended(await world.create(step("late", "echo", of="${early.x}"), step("early", "echo", x=5)))
    assert done.output == {"late": {"of": 5}}


async def test_a_step_starts_when_its_own_inputs_are_there(world: World) -> None:
    plan = await world.create(step("slow"), step("fast"), step("next", after=["fast"]))
    await world.tools.called("slow")
    (await world.tools.called("fast")).succeed(1)
    (await world.tools.called("next")).succeed(2)
    assert (await world.get(plan)).steps[0].state is StepState.RUNNING
    (await world.tools.called("slow")).succeed(3)
    assert (await world.ended(plan)).output == {"slow": 3, "next": 2}


async def test_max_parallel_steps_bounds_what_runs(world: World) -> None:
    plan = await world.create(*[step(f"s{i}") for i in range(5)], max_parallel_steps=2)
    await world.settle()
    assert sorted(world.tools.under_way) == ["s0", "s1"]
    world.tools.under_way["s0"].succeed()
    await world.tools.called("s2")
    assert len(world.tools.under_way) == 2
    for name in ("s1", "s2", "s3", "s4"):
        (await world.tools.called(name)).succeed()

    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_running_calls_bound_all_plans_together() -> None:
    async with World(limits=Limits(running_calls=2)) as world:
        first = await world.create(*[step(f"a{i}") for i in range(3)])
        second = await world.create(*[step(f"b{i}") for i in range(3)])
        await world.settle()
        assert sorted(world.tools.under_way) == ["a0", "a1"]
        world.tools.under_way["a0"].succeed()
        await world.tools.called("a2")
        world.tools.under_way["a1"].succeed()
        await world.tools.called("b0")
        for name in ("a2", "b0", "b1", "b2"):
            (await world.tools.called(name)).succeed()

        await world.ended(first)
        await world.ended(second)


async def test_plans_above_the_bound_are_queued_and_take_their_turn() -> None:
    async with World(limits=Limits(running_plans=1)) as world:
        first, second = await world.create(step("a")), await world.create(step("b"))
        await world.settle()
        assert list(world.tools.under_way) == ["a"]
        assert (await world.get(second)).state is PlanState.QUEUED
        world.tools.under_way["a"].succeed()
        (await world.tools.called("b")).succeed()
        await world.ended(first)
        await world.ended(second)


async def test_a_plan_that_waits_for_a_person_lets_others_run() -> None:
    async with World(limits=Limits(running_plans=1)) as world:
        waits = await world.create(step("g", "guarded"))
        await world.until(waits, lambda plan: plan.state is PlanState.WAITING)
        assert not world.scheduler.busy
        other = await world.create(step("b"))
        (await world.tools.called("b")).succeed()
        await world.ended(other)
        await world.scheduler.cancel(waits.id, reason="", principal="")
        assert (await world.ended(waits)).state is PlanState.CANCELLED


async def test_a_queued_plan_can_be_cancelled() -> None:
    async with World(limits=Limits(running_plans=1)) as world:
        await world.create(step("a"))
        queued = await world.create(step("b"))
        await world.scheduler.cancel(queued.id, reason="no need", principal="me")
        done = await world.ended(queued)
        assert done.state is PlanState.CANCELLED
        assert states(done) == {"b": "CANCELLED"}
        assert world.tools.times("b") == 0


async def test_open_plans_are_bounded() -> None:
    async with World(limits=Limits(open_plans=1)) as world:
        await world.create(step("a"))
        with pytest.raises(LimitError, match=r"limits\.open_plans") as caught:
            await world.create(step("b"))

        assert caught.value.retry_after is not None
        assert caught.value.metadata["limit"] == "1"


# --- failures and retries


async def test_failed_step_skips_its_dependents_and_the_rest_goes_on(world: World) -> None:
    world.tools.scripts["bad"] = deque([failure()])
    plan = await world.create(
        step("bad"), step("child", after=["bad"]), step("grandchild", after=["child"]), step("other", "add", a=1, b=1)
    )
    done = await world.ended(plan)
    assert done.state is PlanState.FAILED
    assert states(done) == {"bad": "FAILED", "child": "SKIPPED", "grandchild": "SKIPPED", "other": "SUCCEEDED"}
    assert [one.skipped_by for one in done.steps] == ["", "bad", "child", ""]
    assert done.failure is not None
    assert done.failure.reason == "STEPS_FAILED"
    assert "other: 2" in done.answer
    assert done.output == {"other": 2}


async def test_retries_back_off_with_a_journaled_due_time(world: World) -> None:
    world.tools.scripts["s"] = deque([failure(retryable=True), failure(retryable=True), "fine"])
    plan = await world.create(step("s"))
    backing = await world.until(plan, lambda now: any(one.next_attempt_time for one in now.steps))
    assert backing.steps[0].state is StepState.PENDING
    assert backing.state is PlanState.RUNNING
    assert backing.steps[0].next_attempt_time == world.clock.now() + timedelta(seconds=0.5)
    await world.advance(0.4)
    assert world.tools.times("s") == 1
    await world.advance(0.1)
    assert world.tools.times("s") == 2
    await world.advance(0.9)
    assert world.tools.times("s") == 2
    await world.advance(0.1)
    done = await world.ended(plan)
    assert done.output == {"s": "fine"}
    assert [call.state for call in done.steps[0].tool_calls] == [
        ToolCallState.FAILED,
        ToolCallState.FAILED,
        ToolCallState.SUCCEEDED,
    ]
    assert {call.idempotency_key for call in done.steps[0].tool_calls} == {f"{plan.id}/s"}
    assert {call.idempotency_key for call in world.tools.calls} == {f"{plan.id}/s"}


async def test_a_step_that_backs_off_holds_no_place(world: World) -> None:
    world.tools.scripts["s"] = deque([failure(retryable=True), "fine"])
    plan = await world.create(step("s"), step("t"), max_parallel_steps=1)
    (await world.tools.called("t")).succeed()
    await world.advance(1)
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_attempts_are_bounded(world: World) -> None:
    world.tools.scripts["s"] = deque([failure(retryable=True)] * 5)
    plan = await world.create(StepDraft("s", tool="read", retry_policy=RetryPolicy(max_attempts=2)))
    await world.settle()
    await world.advance(60)
    assert (await world.ended(plan)).state is PlanState.FAILED
    assert world.tools.times("s") == 2


async def test_a_clock_that_jumps_does_not_fire_a_retry_early(world: World) -> None:
    world.tools.scripts["s"] = deque([failure(retryable=True), "fine"])
    plan = await world.create(step("s"))
    await world.settle()
    world.clock.jump(timedelta(hours=1))
    await world.advance(0.1)
    assert world.tools.times("s") == 1
    world.clock.jump(timedelta(hours=-2))
    await world.advance(0.5)
    await world.ended(plan)
    times = [event.event_time for event in await world.events(plan)]
    assert times == sorted(times)  # type: ignore[type-var]


@pytest.mark.parametrize(("tool", "again"), [("read", True), ("put", True), ("send", False)])
async def test_an_unknown_outcome_is_retried_only_if_that_is_safe(world: World, tool: str, again: bool) -> None:
    plan = await world.create(step("s", tool))
    (await world.tools.called("s")).fail(failure("LOST", unknown=True))
    await world.settle()
    now = await world.get(plan)
    if again:
        assert now.steps[0].state is StepState.PENDING
        assert now.steps[0].next_attempt_time is not None
    else:
        assert now.state is PlanState.WAITING
        assert now.steps[0].waiting is not None
        assert now.steps[0].waiting.reason is WaitingReason.OUTCOME_UNKNOWN


async def test_unknown_outcome_fails_when_asked_to(world: World) -> None:
    plan = await world.create(step("s", "send"), on_unknown_outcome=UnknownOutcomeAction.FAIL)
    (await world.tools.called("s")).fail(failure("LOST", unknown=True))
    done = await world.ended(plan)
    assert done.steps[0].failure is not None
    assert done.steps[0].failure.reason == "OUTCOME_UNKNOWN"
    assert done.steps[0].failure.outcome_unknown


async def test_a_call_with_an_effect_starts_only_when_its_intent_is_durable(world: World) -> None:
    plan = await world.create(step("s", "put"))
    call = await world.tools.called("s")
    assert "StepStarted(s)" in await world.facts(plan)
    call.succeed()
    await world.ended(plan)


async def test_arguments_that_turn_out_wrong_fail_the_step_without_a_call(world: World) -> None:
    plan = await world.create(step("a", "echo", x="text"), step("b", "add", a="${a.x}", b=1))
    done = await world.ended(plan)
    assert done.steps[1].failure is not None
    assert done.steps[1].failure.reason == "INVALID_ARGUMENTS"
    assert done.steps[1].failure.violations
    assert world.tools.times("b") == 0


# --- rounds


async def test_a_step_runs_while_the_planner_still_writes(world: World) -> None:
    gate = asyncio.Event()
    world.planner.script += [[step("a"), gate, step("b", of="${a}")], [AnswerText("all "), AnswerText("done")]]
    plan = await world.create(request="do it")
    (await world.tools.called("a")).succeed(7)
    await world.settle()
    now = await world.get(plan)
    assert states(now) == {"a": "SUCCEEDED"}
    assert now.state is PlanState.PLANNING
    gate.set()
    assert (await world.tools.called("b")).invocation.arguments == {"of": 7}
    world.tools.under_way["b"].succeed()
    done = await world.ended(plan)
    assert (done.state, done.answer) == (PlanState.SUCCEEDED, "all done")
    assert [(one.number, one.attempts, one.steps_added) for one in done.rounds] == [(1, 1, 2), (2, 1, 0)]
    assert [one.state for one in world.planner.views[1].plan.steps] == [StepState.SUCCEEDED, StepState.SUCCEEDED]


async def test_the_planner_finds_another_way_round_a_failure(world: World) -> None:
    world.planner.script += [[step("a")], [step("b", "add", a=1, b=1)], [AnswerText("2")]]
    plan = await world.create(request="do it")
    (await world.tools.called("a")).fail(failure())
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED
    assert states(done) == {"a": "FAILED", "b": "SUCCEEDED"}


async def test_a_planner_that_cannot_revise_ends_a_failed_plan_failed_with_its_answer(world: World) -> None:
    world.planner.revises = False
    world.planner.script += [[step("a"), step("b", "add", a=1, b=1)], [AnswerText("a failed, b is 2")]]
    plan = await world.create(request="do it")
    (await world.tools.called("a")).fail(failure())
    done = await world.ended(plan)
    assert done.state is PlanState.FAILED
    assert done.answer == "a failed, b is 2"
    assert done.failure is not None
    assert done.failure.reason == "STEPS_FAILED"


async def test_rejected_drafts_go_back_to_the_planner_once(world: World) -> None:
    world.planner.script += [
        [step("a", "add", a=1, b=1), step("a", "nope"), step("c", "add", a="x", b=1)],
        [step("c", "add", a=2, b=2)],
        [AnswerText("4")],
    ]
    done = await world.ended(await world.create(request="do it"))
    assert done.answer == "4"
    assert states(done) == {"a": "SUCCEEDED", "c": "SUCCEEDED"}
    again = world.planner.views[1]
    assert (again.round, again.attempt) == (1, 2)
    reasons = [[violation.reason for violation in one.violations] for one in again.rejected]
    assert reasons[0] == ["DUPLICATE", "UNKNOWN_TOOL"]
    assert len(reasons) == 2
    assert world.planner.views[2].round == 2


async def test_what_is_rejected_again_goes_to_the_next_round(world: World) -> None:
    world.planner.script += [[step("a", "nope")], [step("a", "nope")], [AnswerText("cannot")]]
    done = await world.ended(await world.create(request="do it"))
    assert done.answer == "cannot"
    assert [(view.round, view.attempt, len(view.rejected)) for view in world.planner.views] == [
        (1, 1, 0),
        (1, 2, 1),
        (2, 1, 1),
    ]


async def test_max_steps_bounds_planned_steps_and_the_next_round_must_answer(world: World) -> None:
    world.planner.script += [[step("a", "add", a=1, b=1), step("b", "add", a=1, b=1)], [AnswerText("enough")]]
    plan = await world.create(request="do it", max_steps=1)
    done = await world.ended(plan)
    assert states(done) == {"a": "SUCCEEDED"}
    assert world.planner.views[1].last
    assert world.planner.views[1].steps_left == 0
    rejected = [event.fact for event in await world.events(plan) if isinstance(event.fact, StepRejected)]
    assert [one.violations[0].reason for one in rejected] == ["MAX_STEPS"]


async def test_a_last_round_that_does_not_answer_fails_the_plan(world: World) -> None:
    world.planner.script += [[step("a", "add", a=1, b=1)], [step("b", "add", a=1, b=1)]]
    done = await world.ended(await world.create(request="do it", max_rounds=2))
    assert done.failure is not None
    assert done.failure.reason == "MAX_ROUNDS"
    assert states(done) == {"a": "SUCCEEDED"}


async def test_tools_switched_off_leave_only_the_answer(world: World) -> None:
    world.planner.script += [[AnswerText("42"), AnswerOutput({"n": 42})]]
    done = await world.ended(await world.create(request="do it", enable_tool_call=False))
    assert (done.answer, done.output) == ("42", {"n": 42})
    assert list(world.planner.views[0].tools) == []


async def test_text_beside_steps_is_a_note_and_usage_adds_up(world: World) -> None:
    world.planner.script += [
        [AnswerText("I will add. "), step("a", "add", a=1, b=1), Usage(input_tokens=5), Note("thought")],
        [AnswerText("2"), Usage(output_tokens=3, model_calls=1)],
    ]
    done = await world.ended(await world.create(request="do it"))
    assert done.answer == "2"
    assert done.usage == Usage(5, 3, 0, 1, 1)


async def test_neither_steps_nor_answer_is_planner_empty(world: World) -> None:
    world.planner.script += [[]]
    done = await world.ended(await world.create(request="do it"))
    assert done.failure is not None
    assert done.failure.reason == "PLANNER_EMPTY"


async def test_a_planner_that_fails_for_good_fails_the_plan(world: World) -> None:
    world.planner.script += [[PlannerError(failure("REQUEST_NOT_UNDERSTOOD"))]]
    plan = await world.create(request="do it")
    done = await world.ended(plan)
    assert done.failure is not None
    assert done.failure.reason == "REQUEST_NOT_UNDERSTOOD"
    assert await world.facts(plan) == ["PlanCreated", "PlanningStarted", "PlanningFailed", "PlanFailed"]


async def test_a_round_that_fails_retryably_is_made_again_after_a_while(world: World) -> None:
    world.planner.script += [[PlannerError(failure(retryable=True))], [AnswerText("ok")]]
    plan = await world.create(request="do it")
    await world.settle()
    assert len(world.planner.views) == 1
    await world.advance(0.5)
    done = await world.ended(plan)
    assert done.answer == "ok"
    assert done.rounds[0].attempts == 2


async def test_a_cut_round_keeps_its_steps_and_does_not_count(world: World) -> None:
    world.planner.script += [
        [step("a", "add", a=1, b=1), PlannerError(failure(retryable=True))],
        [step("b", "add", a="${a}", b=1)],
        [AnswerText("3")],
    ]
    done = await world.ended(await world.create(request="do it", max_rounds=2))
    assert done.answer == "3"
    assert [one.number for one in done.rounds] == [1, 2, 3]
    assert [view.last for view in world.planner.views] == [False, False, True]


async def test_given_steps_with_a_request_run_before_the_planner_is_asked(world: World) -> None:
    world.planner.script += [[AnswerText("three")]]
    done = await world.ended(await world.create(step("a", "add", a=1, b=2), request="and say it"))
    assert done.answer == "three"
    assert world.planner.views[0].plan.steps[0].result == ToolResult(3)


async def test_a_draft_may_not_need_what_an_earlier_round_failed_to_give(world: World) -> None:
    world.planner.script += [[step("a")], [step("b", after=["a"])], [AnswerText("no")], [AnswerText("no")]]
    plan = await world.create(request="do it")
    (await world.tools.called("a")).fail(failure())
    await world.ended(plan)
    assert [one.violations[0].reason for one in world.planner.views[2].rejected] == ["NO_OUTPUT"]


# --- stopping


async def test_cancel_while_running_stops_the_call(world: World) -> None:
    plan = await world.create(step("s", "put"), step("later", after=["s"]))
    call = await world.tools.called("s")
    asked = await world.scheduler.cancel(plan.id, reason="enough", principal="me")
    assert asked.state is PlanState.CANCELLING
    done = await world.ended(plan)
    assert done.state is PlanState.CANCELLED
    assert call.stopped
    assert states(done) == {"s": "CANCELLED", "later": "CANCELLED"}
    assert done.steps[0].failure is not None
    assert done.steps[0].failure.outcome_unknown
    assert [one.principal for one in await world.events(plan) if one.principal] == ["me"]


async def test_a_call_that_ends_in_its_grace_is_recorded_as_it_ended(world: World) -> None:
    world.tools.stubborn.add("s")
    plan = await world.create(step("s", "put"))
    call = await world.tools.called("s")
    await world.scheduler.cancel(plan.id, reason="", principal="")
    await world.settle()
    call.done.set_result("made it")
    done = await world.ended(plan)
    assert done.state is PlanState.CANCELLED
    assert done.steps[0].state is StepState.SUCCEEDED


async def test_a_call_that_does_not_stop_is_named_abandoned(world: World) -> None:
    world.tools.stubborn.add("s")
    plan = await world.create(step("s", "put"))
    call = await world.tools.called("s")
    await world.scheduler.cancel(plan.id, reason="", principal="")
    await world.advance(9.9)
    assert (await world.get(plan)).state is PlanState.CANCELLING
    await world.advance(0.2)
    done = await world.ended(plan)
    assert done.steps[0].state is StepState.CANCELLED
    assert "may still be running" in done.steps[0].failure.message  # type: ignore[union-attr]
    if not call.done.done():
        call.done.set_result("late")

    await world.settle()
    assert (await world.get(plan)).steps[0].state is StepState.CANCELLED


async def test_cancel_while_backing_off(world: World) -> None:
    world.tools.scripts["s"] = deque([failure(retryable=True), "never"])
    plan = await world.create(step("s"))
    await world.until(plan, lambda now: any(one.next_attempt_time for one in now.steps))
    await world.scheduler.cancel(plan.id, reason="", principal="")
    assert (await world.ended(plan)).state is PlanState.CANCELLED
    await world.advance(60)
    assert world.tools.times("s") == 1


async def test_cancel_while_waiting_for_approval(world: World) -> None:
    plan = await world.create(step("s", "guarded"))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await world.scheduler.cancel(plan.id, reason="", principal="")
    assert (await world.ended(plan)).state is PlanState.CANCELLED
    assert world.tools.times("s") == 0


async def test_cancel_before_the_first_step(world: World) -> None:
    plan = await world.create(step("s", "put"))
    await world.scheduler.cancel(plan.id, reason="", principal="")
    assert (await world.ended(plan)).state is PlanState.CANCELLED


async def test_cancel_while_planning(world: World) -> None:
    world.planner.script += [[asyncio.Event()]]
    plan = await world.create(request="think")
    await world.until(plan, lambda now: now.state is PlanState.PLANNING)
    await world.scheduler.cancel(plan.id, reason="", principal="")
    done = await world.ended(plan)
    assert done.state is PlanState.CANCELLED
    assert done.rounds[0].failure is not None


async def test_cancel_of_a_finished_plan_changes_nothing(world: World) -> None:
    plan = await world.create(step("a", "add", a=1, b=1))
    done = await world.ended(plan)
    assert await world.scheduler.cancel(plan.id, reason="", principal="") == done
    with pytest.raises(NotFoundError):
        await world.scheduler.cancel("nope", reason="", principal="")


async def test_the_plan_times_out(world: World) -> None:
    plan = await world.create(step("s"), timeout=timedelta(seconds=30))
    call = await world.tools.called("s")
    await world.advance(29.9)
    assert not call.stopped
    await world.advance(0.2)
    done = await world.ended(plan)
    assert done.state is PlanState.FAILED
    assert done.failure is not None
    assert done.failure.reason == "PLAN_TIMEOUT"
    assert call.stopped


async def test_the_timeout_stands_still_while_a_person_is_waited_for(world: World) -> None:
    plan = await world.create(step("g", "guarded"), timeout=timedelta(seconds=30))
    waits = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert waits.deadline is None
    await world.advance(3600)
    await world.scheduler.resolve(
        plan.id, "g", wait_sequence=0, decision=Decision(Approve()), comment="", principal="me"
    )
    call = await world.tools.called("g")
    await world.advance(29)
    assert not call.stopped
    await world.advance(1.1)
    assert (await world.ended(plan)).failure.reason == "PLAN_TIMEOUT"  # type: ignore[union-attr]


async def test_waiting_times_out(world: World) -> None:
    plan = await world.create(step("g", "guarded"), waiting_timeout=timedelta(seconds=30))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await world.advance(31)
    done = await world.ended(plan)
    assert done.failure is not None
    assert done.failure.reason == "WAITING_TIMEOUT"


async def test_whichever_of_cancel_and_limit_came_first_decides(world: World) -> None:
    world.tools.stubborn.add("s")
    plan = await world.create(step("s"), timeout=timedelta(seconds=5))
    await world.tools.called("s")
    await world.scheduler.cancel(plan.id, reason="", principal="")
    await world.advance(30)
    assert (await world.ended(plan)).state is PlanState.CANCELLED


# --- a person's decision


async def wait_for_g(world: World, tool: str = "guarded") -> object:
    plan = await world.create(step("g", tool, x=1))
    return await world.until(plan, lambda now: now.state is PlanState.WAITING)


async def resolve(world: World, plan: object, decision: Decision, wait_sequence: int = 0) -> None:
    await world.scheduler.resolve(
        plan.id,  # type: ignore[attr-defined]
        "g",
        wait_sequence=wait_sequence,
        decision=decision,
        comment="",
        principal="me",
    )


async def test_approve_reject_and_result(world: World) -> None:
    plan = await wait_for_g(world)
    waiting = plan.steps[0].waiting  # type: ignore[attr-defined]
    assert waiting.arguments == {"x": 1}
    facts = await world.events(plan)  # type: ignore[arg-type]
    assert isinstance(facts[waiting.sequence - 1].fact, StepWaiting)
    await resolve(world, plan, Decision(Approve()), waiting.sequence)
    (await world.tools.called("g")).succeed("sent")
    assert (await world.ended(plan)).output == {"g": "sent"}  # type: ignore[arg-type]

    plan = await wait_for_g(world)
    await resolve(world, plan, Decision(Reject("too dear")))
    done = await world.ended(plan)  # type: ignore[arg-type]
    assert done.steps[0].failure is not None
    assert (done.steps[0].failure.reason, done.steps[0].failure.message) == ("REJECTED", "too dear")

    plan = await wait_for_g(world)
    await resolve(world, plan, Decision(ToolResult({"by": "hand"})))
    assert (await world.ended(plan)).output == {"g": {"by": "hand"}}  # type: ignore[arg-type]
    assert world.tools.times("g") == 1


async def test_the_first_decision_wins_and_the_same_again_is_fine(world: World) -> None:
    plan = await wait_for_g(world)
    await resolve(world, plan, Decision(Reject("no")))
    await world.ended(plan)  # type: ignore[arg-type]
    await resolve(world, plan, Decision(Reject("no")))
    with pytest.raises(PreconditionError) as caught:
        await resolve(world, plan, Decision(Approve()))

    assert caught.value.reason == "STEP_ALREADY_RESOLVED"
    with pytest.raises(AbortedError):
        await resolve(world, plan, Decision(Reject("no")), 999)


async def test_decisions_that_do_not_fit(world: World) -> None:
    plan = await wait_for_g(world)
    with pytest.raises(InvalidRequestError, match="takes approve, reject, result, not retry"):
        await resolve(world, plan, Decision(Retry()))

    with pytest.raises(AbortedError):
        await resolve(world, plan, Decision(Approve()), 1)

    with pytest.raises(NotFoundError):
        await world.scheduler.resolve(
            plan.id,  # type: ignore[attr-defined]
            "nope",
            wait_sequence=0,
            decision=Decision(Approve()),
            comment="",
            principal="",
        )
    with pytest.raises(NotFoundError):
        await world.scheduler.resolve(
            "nope", "g", wait_sequence=0, decision=Decision(Approve()), comment="", principal=""
        )
    other = await world.create(step("g"))
    with pytest.raises(PreconditionError) as caught:
        await resolve(world, other, Decision(Approve()))

    assert caught.value.reason == "STEP_NOT_WAITING"


async def test_retry_after_an_unknown_outcome_keeps_the_key(world: World) -> None:
    plan = await world.create(step("g", "send"))
    (await world.tools.called("g")).fail(failure("LOST", unknown=True))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    await resolve(world, plan, Decision(Retry()))
    (await world.tools.called("g")).succeed("sent")
    done = await world.ended(plan)
    assert [call.state for call in done.steps[0].tool_calls] == [ToolCallState.FAILED, ToolCallState.SUCCEEDED]
    assert len({call.idempotency_key for call in world.tools.calls}) == 1


async def test_an_option_can_ask_for_approval_too(world: World) -> None:
    plan = await world.create(step("s", "add", a=1, b=1), approval_tools=("ad*",))
    waits = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert waits.steps[0].requires_approval


async def test_a_changed_tool_asks_unless_it_only_reads(world: World) -> None:
    plan = await world.create(step("first"), step("g", "put", after=["first"]), step("r", "echo", after=["first"]))
    call = await world.tools.called("first")
    world.tools.change("put")
    world.tools.change("echo")
    call.succeed()
    waits = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert waits.steps[1].waiting is not None
    assert waits.steps[1].waiting.reason is WaitingReason.TOOL_CHANGED
    assert waits.steps[2].state is StepState.SUCCEEDED
    await resolve(world, plan, Decision(Approve()))
    (await world.tools.called("g")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


@pytest.mark.parametrize("tool", ["send", "put"])
async def test_a_provider_that_finds_its_tool_changed_was_not_called(world: World, tool: str) -> None:
    """A list of tools is seconds old: what a provider says of its own tool goes before it, and uses up no attempt."""
    plan = await world.create(step("g", tool))
    (await world.tools.called("g")).fail(Failure("TOOL_CHANGED", DOMAIN, "another digest", retryable=True))
    waits = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert waits.steps[0].waiting is not None
    assert waits.steps[0].waiting.reason is WaitingReason.TOOL_CHANGED
    call = waits.steps[0].tool_calls[0]
    assert call.failure is not None
    assert (call.failure.reason, call.failure.outcome_unknown) == ("TOOL_CHANGED", False)
    await resolve(world, plan, Decision(Approve()))
    (await world.tools.called("g")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_a_failure_of_the_same_name_of_a_tools_own_is_no_such_thing(world: World) -> None:
    plan = await world.create(step("g", "send"))
    (await world.tools.called("g")).fail(Failure("TOOL_CHANGED", "send", "my own word"))
    assert (await world.ended(plan)).state is PlanState.FAILED


# --- create


async def test_create_is_idempotent_by_request_id(world: World) -> None:
    first = await world.create(step("a"), request_id="r")
    again = await world.create(step("a"), request_id="r")
    assert again.id == first.id
    with pytest.raises(ConflictError, match="use a new one"):
        await world.create(step("b"), request_id="r")


async def test_two_creates_at_once_with_one_request_id_make_one_plan(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(world.create(step("a"), request_id="r")) for _ in range(10)]

    assert len({task.result().id for task in made}) == 1
    await world.settle()
    assert world.tools.times("a") == 1


async def test_every_fault_of_a_request_at_once(world: World) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.create(
            step("a", "nope"),
            step("a", "add", a=1, b=1),
            step("b", "add", a="${ghost}", b=True),
            step("c", "read", after=["c"]),
            step("-", "read"),
            planner="psychic",
            request="x",
        )

    found = {(violation.field, violation.reason) for violation in caught.value.violations}
    assert found >= {
        ("steps[0].tool", "UNKNOWN_TOOL"),
        ("steps[1].id", "DUPLICATE"),
        ("steps[2].arguments.a", "UNKNOWN_STEP"),
        ("steps[3].depends_on", "CYCLE"),
        ("steps[4].id", "MALFORMED"),
        ("options.planner", "UNKNOWN_PLANNER"),
    }
    assert any(violation.field == "steps[2].arguments.b" for violation in caught.value.violations)


async def test_who_asks_for_models_where_they_are_not_is_told_what_they_need(world: World) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.create(planner="llm", request="x")

    (violation,) = caught.value.violations
    assert violation.description.endswith("; models need pip install 'open-autoglm[server,llm]' where it runs")


async def test_cycles_are_named(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="a → b → c → a"):
        await world.create(step("a", after=["b"]), step("b", x="${c}"), step("c", after=["a"]))


async def test_a_circle_is_told_before_every_other_fault(world: World) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.create(
            *map(step, ("x", "y", "x")),
            step("a", "nope", after=["b", "a", "ghost"]),
            step("b", x="${c}"),
            step("c", after=["a"]),
        )

    told = [(violation.field, violation.reason) for violation in caught.value.violations]
    assert told == [
        ("steps[3].depends_on", "CYCLE"),
        ("steps[2].id", "DUPLICATE"),
        ("steps[3].depends_on", "CYCLE"),
        ("steps[3].depends_on", "UNKNOWN_STEP"),
        ("steps[3].tool", "UNKNOWN_TOOL"),
    ]
    assert "a → b → c → a" in caught.value.violations[0].description


async def test_a_circle_that_ids_at_fault_make_is_none(world: World) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.create(
            step("a"), step("b", after=["a"]), step("a", after=["b"]), step("-", after=["+"]), step("+", after=["-"])
        )

    assert "CYCLE" not in {violation.reason for violation in caught.value.violations}


async def test_steps_that_are_at_fault_and_in_no_circle_are_not_told_of_one(world: World) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await world.create(step("a", "nope"), step("b", "nope", after=["a", "a"]), step("c", "nope", after=["b", "x"]))

    reasons = [violation.reason for violation in caught.value.violations]
    assert reasons == ["UNKNOWN_TOOL", "UNKNOWN_TOOL", "UNKNOWN_STEP", "UNKNOWN_TOOL"]


async def test_allowed_tools_bound_given_and_planned_steps(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="allowed_tools"):
        await world.create(step("a", "read"), allowed_tools=("add",))

    world.planner.script += [[step("a", "read")], [AnswerText("ok")]]
    plan = await world.create(request="x", allowed_tools=("ad?",))
    await world.ended(plan)
    assert [tool.name for tool in world.planner.views[0].tools] == ["add"]
    assert world.planner.views[1].rejected[0].violations[0].reason == "NOT_ALLOWED"


async def test_who_creates_is_told_what_was_journaled(world: World) -> None:
    said = (ContextItem(ContextMessage("user", "hello")),)
    first = StepDraft("a", "First", "add", {"a": 1, "b": 2}, retry_policy=RetryPolicy(2), timeout=timedelta(seconds=9))
    for asked in (
        CreatePlanRequest(steps=(first, step("b", "put", ["a"], x="${a}")), labels={"k": "v"}, request_id="r"),
        CreatePlanRequest(request="x", context=said, context_id="c", options=PlanOptions(max_steps=3)),
    ):
        made = await world.scheduler.submit(asked, principal="ann", digest="d")
        told = decode(Plan, made.basic + made.rest)
        fold = PlanFold(told.id)
        for event in (await world.events(told))[: told.sequence]:
            fold.apply(event)

        assert not made.existing
        assert told == fold.snapshot()
        assert decode(Plan, made.basic) == fold.basic()
        assert len(told.steps) == len(asked.steps)
        assert told.context == asked.context


async def test_who_goes_away_takes_no_plan_along(world: World) -> None:
    asked = CreatePlanRequest(steps=(step("a"),), request_id="r")
    caller = asyncio.create_task(world.scheduler.submit(asked, principal="", digest="d"))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    (await world.tools.called("a")).succeed()
    again = await world.scheduler.submit(asked, principal="", digest="d")
    assert again.existing


async def test_a_dry_run_shows_the_plan_and_leaves_nothing(world: World) -> None:
    world.planner.script += [[step("a", "add", a=1, b=1), step("b", "put", x="${a}")]]
    shown, existing = await world.scheduler.create(
        CreatePlanRequest(request="x", validate_only=True), principal="", digest=""
    )
    assert not existing
    assert [(one.id, one.effect, one.depends_on) for one in shown.steps] == [
        ("a", Effect.READ_ONLY, ()),
        ("b", Effect.IDEMPOTENT, ("a",)),
    ]
    assert world.tools.calls == []
    assert await world.journal.open_plans() == []


# --- events


async def test_terminal_events_carry_what_was_achieved(world: World) -> None:
    plan = await world.create(step("a"))
    (await world.tools.called("a")).fail(failure())
    await world.ended(plan)
    last = (await world.events(plan))[-1].fact
    assert isinstance(last, PlanFailed)
    assert last.usage == Usage(tool_calls=1)
    assert last.answer == "a: failed, it is broken"


async def test_a_plan_that_would_have_too_many_events_ends_cleanly() -> None:
    async with World(limits=Limits(events=40)) as world:
        world.planner.script += [[step(f"s{i}", "add", a=1, b=1) for i in range(30)]]
        plan = await world.create(request="x", max_steps=100)
        done = await world.ended(plan)
        assert done.failure is not None
        assert done.failure.reason == "TOO_MANY_EVENTS"
        assert done.sequence <= 40


async def test_a_round_that_takes_too_long_is_made_again() -> None:
    async with World(limits=Limits(round_timeout=0.01)) as world:
        world.planner.script += [[asyncio.Event()], [AnswerText("quick")]]
        plan = await world.create(request="do it")
        await world.until(plan, lambda now: bool(now.rounds and now.rounds[0].failure))
        failed = (await world.get(plan)).rounds[0].failure
        assert failed is not None
        assert failed.reason == "PLANNER_TIMEOUT"
        await world.advance(1)
        assert (await world.ended(plan)).answer == "quick"


async def test_a_create_that_was_made_is_answered_though_the_server_is_full() -> None:
    async with World(limits=Limits(open_plans=1)) as world:
        first = await world.create(step("a"), request_id="r")
        assert (await world.create(step("a"), request_id="r")).id == first.id
        with pytest.raises(LimitError):
            await world.create(step("a"), request_id="another")

        await world.scheduler.drain(0)
        assert (await world.create(step("a"), request_id="r")).id == first.id


async def test_a_reference_to_what_an_output_cannot_have_is_a_fault_at_its_place(world: World) -> None:
    shape = '{"type":"object","properties":{"result":{"type":"integer"}},"required":["result"],"additionalProperties":false}'
    world.tools.offered = [*world.tools.offered, Tool("sum", input_schema=ANY, output_schema=shape, available=True)]
    with pytest.raises(InvalidRequestError) as caught:
        await world.create(
            step("total", "sum"),
            step("typo", "read", of=["${total.resul}"]),
            step("right", "read", of="${total.result}", all="${total}", told="${total.to_string(result)}"),
            step("lost", "read", of="it is ${totl.result}"),
        )

    assert [(one.field, one.reason) for one in caught.value.violations] == [
        ("steps[1].arguments.of[0]", "UNKNOWN_FIELD"),
        ("steps[3].arguments.of", "UNKNOWN_STEP"),
    ]
    assert "did you mean result?" in caught.value.violations[0].description
    assert "did you mean 'total'?" in caught.value.violations[1].description
