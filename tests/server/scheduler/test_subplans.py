"""Plans within plans: one sub-plan a step, whatever happens; stopped with it, paid from its budget, never waiting in a circle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from autoglm.errors import InvalidRequestError
from autoglm.model import (
    Approve,
    Budget,
    Decision,
    Event,
    Json,
    Plan,
    PlanCreated,
    PlanState,
    StepDraft,
    StepProgressed,
    StepRef,
    StepState,
    ToolResult,
    Usage,
)
from autoglm.wire import decode
from autoglm_server.journal.journal import PlanQuery
from autoglm_server.planner.planner import AnswerText
from autoglm_server.scheduler.limits import Limits
from tests.server.scheduler.harness import World, failure, step


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


def inner(step_id: str, tool: str = "read", after: tuple[str, ...] = (), **arguments: Json) -> dict[str, Json]:
    return {"id": step_id, "tool": tool, "arguments": arguments, "depends_on": list(after)}


def sub(step_id: str, *steps: dict[str, Json], after: tuple[str, ...] = (), **more: Json) -> StepDraft:
    arguments = {**({"steps": list(steps)} if steps else {}), **more}
    return StepDraft(step_id, tool="plan.run", arguments=arguments, depends_on=after)


async def child_of(world: World, plan: Plan, step_id: str = "p") -> Plan:
    """Give the step's sub-plan, when it is there."""
    now = await world.until(plan, lambda now: any(one.id == step_id and one.tool_calls for one in now.steps))
    [child_id] = [one.tool_calls[-1].child_plan_id for one in now.steps if one.id == step_id]
    assert child_id
    async with asyncio.timeout(30):
        while await world.journal.last_sequence(child_id) is None:
            await world.settle()

    return await world.scheduler.get(child_id)


async def children_of(world: World, plan: Plan) -> list[str]:
    page = await world.journal.list_rows(PlanQuery(parent_plan_id=plan.id))
    return [row.plan_id for row in page.rows]


async def test_a_step_runs_a_plan_and_gives_its_output(world: World) -> None:
    plan = await world.create(sub("p", inner("a", "add", a=1, b=2), inner("b", "echo", n="$${a}")))
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED
    child = await child_of(world, plan)
    assert child.parent == StepRef(plan.id, "p")
    assert child.request_id == f"{plan.id}/p"
    assert done.output == {
        "p": {"plan_id": child.id, "state": "SUCCEEDED", "answer": child.answer, "output": {"b": {"n": 3}}}
    }
    assert done.usage == Usage(tool_calls=3)
    assert await children_of(world, plan) == [child.id]
    started = next(event for event in await world.events(plan) if type(event.fact).__name__ == "StepStarted")
    created = next(event for event in await world.events(child) if isinstance(event.fact, PlanCreated))
    assert started.event_time is not None
    assert created.event_time is not None
    assert started.event_time <= created.event_time


async def test_a_request_is_planned_by_the_planner_of_the_plan_above(world: World) -> None:
    world.planner.script += [[sub("p", request="the part")], [AnswerText("part done")], [AnswerText("all done")]]
    plan = await world.create(request="the whole")
    done = await world.ended(plan)
    assert done.answer == "all done"
    assert done.steps[0].result is not None
    assert done.steps[0].result.output["answer"] == "part done"


async def test_labels_context_and_principal_are_the_parents(world: World) -> None:
    plan = await world.create(sub("p", inner("a", "add", a=1, b=2)))
    await world.ended(plan)
    child = await child_of(world, plan)
    assert (child.labels, child.context_id, child.principal) == (plan.labels, plan.context_id, plan.principal)


async def test_what_an_output_contains_is_text_in_the_sub_plan(world: World) -> None:
    text = "run ${HOME} and $${x} and ${a}"
    plan = await world.create(
        step("t", "echo", text=text.replace("${", "$${")),
        sub("p", inner("a", "echo", got="${t.text}", both="$${b} ${t.text}"), inner("b", "echo")),
    )
    # The reference `$${b}` is the sub-plan's own; what the output says is not.
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED, done.failure
    assert done.steps[1].result is not None
    assert done.steps[1].result.output["output"] == {"a": {"got": text, "both": f"{{}} {text}"}}


async def test_a_failed_sub_plan_fails_its_step_with_what_it_used(world: World) -> None:
    plan = await world.create(sub("p", inner("a", "add", a=1, b=1), inner("f", after=("a",))))
    child = await child_of(world, plan)
    (await world.tools.called("f")).fail(failure("BROKEN"))
    done = await world.ended(plan)
    failed = done.steps[0].failure
    assert failed is not None
    assert (failed.reason, failed.retryable) == ("SUB_PLAN_FAILED", False)
    assert failed.metadata == {"plan_id": child.id, "reason": "STEPS_FAILED"}
    assert "it is broken" in failed.message
    assert done.usage == Usage(tool_calls=3)


async def test_cancelling_the_plan_cancels_the_sub_plan_and_waits_for_it(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put")))
    child = await child_of(world, plan)
    await world.tools.called("s")
    await world.scheduler.cancel(plan.id, reason="", principal="me")
    assert (await world.ended(plan)).state is PlanState.CANCELLED
    assert (await world.get(child)).state is PlanState.CANCELLED
    assert (await world.get(plan)).usage == Usage(tool_calls=2)


async def test_a_sub_plan_that_does_not_stop_is_waited_for_as_long_as_its_calls(world: World) -> None:
    world.tools.stubborn.add("s")
    plan = await world.create(sub("p", inner("s", "put")))
    child = await child_of(world, plan)
    await world.tools.called("s")
    await world.scheduler.cancel(plan.id, reason="", principal="me")
    await world.advance(world.limits.cancel_grace - 1)
    assert (await world.get(plan)).state is PlanState.CANCELLING
    await world.advance(1.5)
    done = await world.ended(plan)
    assert (await world.get(child)).state is PlanState.CANCELLED
    assert (await world.get(child)).steps[0].failure is not None
    assert [call.failure.message for call in done.steps[0].tool_calls if call.failure] == ["the call was stopped"]


async def test_cancelling_the_sub_plan_fails_the_step(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put")))
    child = await child_of(world, plan)
    await world.tools.called("s")
    await world.scheduler.cancel(child.id, reason="", principal="me")
    done = await world.ended(plan)
    assert done.state is PlanState.FAILED
    assert done.steps[0].failure is not None
    assert done.steps[0].failure.metadata["reason"] == "CANCELLED"


async def test_the_time_limit_of_the_step_stops_the_sub_plan_and_is_final(world: World) -> None:
    draft = sub("p", inner("s", "put"))
    plan = await world.create(
        StepDraft("p", tool="plan.run", arguments=draft.arguments, timeout=timedelta(seconds=0.05))
    )
    child = await child_of(world, plan)
    done = await world.ended(plan)
    assert done.steps[0].failure is not None
    assert done.steps[0].failure.reason == "STEP_TIMEOUT"
    assert (await world.ended(child)).state is PlanState.CANCELLED
    assert len(done.steps[0].tool_calls) == 1


async def test_the_sub_plan_may_not_take_longer_than_the_plan_has_left(world: World) -> None:
    plan = await world.create(
        step("first"),
        sub("p", inner("s", "put"), after=("first",), timeout="900s"),
        timeout=timedelta(seconds=100),
        budget=Budget(max_duration=timedelta(seconds=200)),
    )
    call = await world.tools.called("first")
    await world.advance(30)
    call.succeed(1)
    child = await child_of(world, plan)
    assert child.options is not None
    assert child.options.timeout == timedelta(seconds=70)
    assert child.options.budget == Budget(max_duration=timedelta(seconds=170))


async def test_a_sub_plan_that_waits_leaves_its_place_and_goes_on_when_decided() -> None:
    async with World(limits=Limits(running_plans=1)) as world:
        plan = await world.create(sub("p", inner("g", "guarded"), after=()))
        child = await child_of(world, plan)
        await world.until(child, lambda now: now.state is PlanState.WAITING)
        await world.settle()
        assert (await world.get(plan)).state is PlanState.RUNNING
        assert not world.scheduler.busy
        other = await world.create(step("o", "add", a=1, b=1))
        assert (await world.ended(other)).state is PlanState.SUCCEEDED
        await world.scheduler.resolve(
            child.id, "g", wait_sequence=0, decision=Decision(Approve()), comment="", principal="me"
        )
        (await world.tools.called("g")).succeed("ok")
        assert (await world.ended(plan)).state is PlanState.SUCCEEDED
        await world.settle()
        assert not world.scheduler.busy


@pytest.mark.parametrize("parallel", [1, 3])
async def test_limits_of_one_do_not_lock_up(parallel: int) -> None:
    limits = Limits(running_plans=1, running_calls=1)
    deepest = inner("a", "add", a=1, b=1)
    middle = {"id": "m", "tool": "plan.run", "arguments": {"steps": [deepest]}}
    async with World(limits=limits) as world:
        plans = [
            await world.create(*(sub(f"p{n}", middle) for n in range(4)), max_parallel_steps=parallel) for _ in range(3)
        ]
        for plan in plans:
            assert (await world.ended(plan)).state is PlanState.SUCCEEDED

        await world.settle()
        assert world.scheduler.places() == 1
        assert not world.scheduler.busy


async def test_a_step_that_follows_a_sub_plan_takes_no_place_from_the_others() -> None:
    async with World(limits=Limits(running_calls=1)) as world:
        plan = await world.create(sub("p", inner("g", "guarded")), sub("q", inner("h", "guarded")), step("s", "put"))
        await world.settle()
        (await asyncio.wait_for(world.tools.called("s"), 5)).succeed()
        now = await world.until(plan, lambda now: any(one.id == "s" and one.state.terminal for one in now.steps))
        assert [one.state for one in now.steps[:2]] == [StepState.RUNNING] * 2


async def test_nesting_is_bounded(world: World) -> None:
    def nested(depth: int) -> dict[str, Json]:
        if not depth:
            return inner("a", "add", a=1, b=1)

        return {"id": f"n{depth}", "tool": "plan.run", "arguments": {"steps": [nested(depth - 1)]}}

    fits = await world.create(sub("p", nested(2)))
    assert (await world.ended(fits)).state is PlanState.SUCCEEDED
    plan = await world.create(sub("p", nested(3)))
    done = await world.ended(plan)
    assert done.state is PlanState.FAILED
    assert "limits.plan_depth is 3" in done.steps[0].failure.message  # type: ignore[union-attr]


async def test_the_planner_of_the_deepest_plan_is_not_shown_the_tool() -> None:
    async with World(limits=Limits(plan_depth=1)) as world:
        world.planner.script += [[sub("p", request="part")], [AnswerText("deep")], [AnswerText("done")]]
        await world.ended(await world.create(request="whole"))
        shown = [any(tool.name == "plan.run" for tool in view.tools) for view in world.planner.views]
        assert shown == [True, False, True]


async def test_without_depth_there_is_no_such_tool() -> None:
    async with World(limits=Limits(plan_depth=0)) as world:
        with pytest.raises(InvalidRequestError, match="no tool"):
            await world.create(sub("p", inner("a", "echo")))


async def test_it_may_use_only_the_tools_the_plan_may(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "send")), allowed_tools=("plan.run", "add", "e*"))
    done = await world.ended(plan)
    failed = done.steps[0].failure
    assert failed is not None
    assert failed.reason == "INVALID_ARGUMENTS"
    assert [(fault.field, fault.reason) for fault in failed.violations] == [("arguments.steps[0].tool", "NOT_ALLOWED")]
    narrow = await world.create(
        sub("p", inner("a", "add", a=1, b=1), allowed_tools=["a*", "s*"]), allowed_tools=("plan.run", "add", "e*")
    )
    await world.ended(narrow)
    child = await child_of(world, narrow)
    assert child.options is not None
    assert child.options.allowed_tools == ("add",)
    none = await world.create(sub("p", inner("s", "send"), allowed_tools=["send"]), allowed_tools=("plan.run",))
    assert "may use none" in (await world.ended(none)).steps[0].failure.message  # type: ignore[union-attr]


async def test_approvals_of_the_plan_hold_below_it(world: World) -> None:
    plan = await world.create(sub("p", inner("a", "add", a=1, b=1), approval_tools=["read"]), approval_tools=("add",))
    child = await child_of(world, plan)
    waits = await world.until(child, lambda now: now.state is PlanState.WAITING)
    assert waits.options is not None
    assert waits.options.approval_tools == ("add", "read")


async def test_sub_plans_at_once_use_no_more_calls_than_there_are(world: World) -> None:
    steps = [inner(f"s{n}", "put") for n in range(5)]
    plan = await world.create(sub("p", *steps), sub("q", *steps), budget=Budget(max_tool_calls=6))
    await child_of(world, plan, "p")
    await child_of(world, plan, "q")
    await world.settle()
    for _ in range(20):
        for call in list(world.tools.pending):
            call.succeed()

        await world.settle()

    done = await world.ended(plan)
    assert done.usage is not None
    assert done.usage.tool_calls == 6
    assert len(world.tools.calls) == 4
    assert "BUDGET_EXCEEDED" in {
        one.failure.metadata["reason"] for one in done.steps if one.failure and "reason" in one.failure.metadata
    }


async def test_tokens_of_a_sub_plan_count_to_the_plan(world: World) -> None:
    world.planner.script += [
        [sub("p", request="part")],
        [Usage(input_tokens=60, output_tokens=50, model_calls=1), AnswerText("dear")],
    ]
    plan = await world.create(request="whole", budget=Budget(max_tokens=100))
    done = await world.ended(plan)
    assert done.state is PlanState.FAILED
    assert done.failure is not None
    assert done.failure.reason == "BUDGET_EXCEEDED"
    assert done.usage == Usage(input_tokens=60, output_tokens=50, model_calls=1, tool_calls=1)


async def test_nothing_left_is_said_before_anything_is_made(world: World) -> None:
    plan = await world.create(
        step("a", "add", a=1, b=1), sub("p", inner("b", "echo"), after=("a",)), budget=Budget(max_tool_calls=2)
    )
    done = await world.ended(plan)
    assert done.steps[1].failure is not None
    assert done.steps[1].failure.reason == "BUDGET_EXCEEDED"
    assert await children_of(world, plan) == []


async def test_arguments_that_are_wrong_are_told_by_their_places(world: World) -> None:
    plan = await world.create(sub("p", inner("a", "ad", a=1), inner("b", "add", a="x"), planner="nobody", request="x"))
    failed = (await world.ended(plan)).steps[0].failure
    assert failed is not None
    assert failed.reason == "INVALID_ARGUMENTS"
    fields = {fault.field for fault in failed.violations}
    assert {"arguments.steps[0].tool", "arguments.planner"} <= fields
    with pytest.raises(InvalidRequestError):
        await world.create(StepDraft("p", tool="plan.run", arguments={"steps": [], "why": 1}))


async def test_progress_says_what_each_step_of_the_sub_plan_does(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put"), inner("t", "put", after=("s",))))
    child = await child_of(world, plan)
    await world.tools.called("s")
    cursor = world.feed.follow(plan.id, 0)
    told: list[StepProgressed] = []
    async with asyncio.timeout(30):
        while not any(one.data and one.data["steps"][0]["state"] == "RUNNING" for one in told):
            batch = await cursor.next(1.0)
            events = [decode(Event, body) for body in batch.bodies]
            told += [event.fact for event in events if isinstance(event.fact, StepProgressed)]

    cursor.close()
    data = told[-1].data
    assert data["plan_id"] == child.id
    assert [(row["id"], row["tool"], row["state"]) for row in data["steps"]] == [
        ("s", "put", "RUNNING"),
        ("t", "put", "PENDING"),
    ]
    assert data["event"] == {"sequence": 4, "kind": "step_started", "step_id": "s"}
    assert told[-1].message == "s: running"


# --- losing the process


async def finish(world: World, plan: Plan) -> Plan:
    """Let every call under way succeed until the plan has ended."""
    for _ in range(100):
        for call in list(world.tools.pending):
            if not call.done.done():
                call.succeed(call.invocation.context.step_id)

        await world.settle()
        if (await world.get(plan)).state.terminal:
            break

    return await world.ended(plan)


async def test_after_a_crash_the_same_sub_plan_is_taken_up(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put"), inner("g", "guarded", after=("s",))))
    child = await child_of(world, plan)
    (await world.tools.called("s")).succeed(1)
    await world.until(child, lambda now: now.state is PlanState.WAITING)
    for _ in range(5):  # more often than a call may be interrupted: this one only follows
        await world.crash()
        await world.settle()

    await world.scheduler.resolve(
        child.id, "g", wait_sequence=0, decision=Decision(Approve()), comment="", principal=""
    )
    done = await finish(world, plan)
    assert done.state is PlanState.SUCCEEDED
    assert [call.child_plan_id for call in done.steps[0].tool_calls] == [child.id] * 6
    assert await children_of(world, plan) == [child.id]
    assert world.tools.times("s") == 1
    assert done.usage == Usage(tool_calls=3)


@pytest.mark.parametrize("turns", range(40))
async def test_a_crash_at_any_point_makes_no_second_sub_plan_and_repeats_no_step(turns: int) -> None:
    async with World() as world:
        plan = await world.create(
            sub("p", inner("s", "send"), inner("t", "add", a=1, b=1)), step("after", "put", ["p"])
        )
        for turn in range(turns):
            await asyncio.sleep(0)
            if turn > 15 and "s" in world.tools.under_way and not world.tools.under_way["s"].done.done():
                world.tools.under_way["s"].succeed("sent")

        await world.crash()
        for _ in range(100):
            for call in list(world.tools.pending):
                if not call.done.done():
                    call.succeed("ok")

            await world.settle()
            children = await children_of(world, plan)
            assert len(children) <= 1
            for child in children:
                now = await world.scheduler.get(child)
                if now.state is PlanState.WAITING:  # it was cut in the middle: a person says that it was sent
                    decision = Decision(ToolResult("sent"))
                    await world.scheduler.resolve(
                        child, "s", wait_sequence=0, decision=decision, comment="", principal=""
                    )

            if (await world.get(plan)).state.terminal:
                break

        done = await world.ended(plan)
        assert done.state is PlanState.SUCCEEDED, done.failure
        assert len(await children_of(world, plan)) == 1
        assert world.tools.times("s") <= 1
        made = await world.scheduler.get((await children_of(world, plan))[0])
        assert made.usage is not None
        cut = len(done.steps[1].tool_calls) - 1  # the step after it may have been interrupted instead
        assert done.usage == Usage(tool_calls=2 + cut + made.usage.tool_calls)


async def test_a_plan_that_was_stopping_stops_its_sub_plan_after_a_crash(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put")))
    child = await child_of(world, plan)
    await world.tools.called("s")
    # The process ends between the plan's cancel and its sub-plan's.
    world.scheduler._runs[plan.id].children.clear()
    world.scheduler.stop_child = lambda *_: False  # type: ignore[method-assign]
    await world.scheduler.cancel(plan.id, reason="", principal="")
    await world.crash()
    assert (await world.ended(plan)).state is PlanState.CANCELLED
    assert (await world.ended(child)).state is PlanState.CANCELLED
    assert world.tools.times("s") == 1


async def test_a_drain_does_not_wait_for_calls_that_only_follow(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put"), inner("t", "put", after=("s",))))
    call = await world.tools.called("s")
    draining = asyncio.get_running_loop().create_task(world.scheduler.drain(30))
    await world.settle()
    assert not draining.done()
    call.succeed(1)
    await asyncio.wait_for(draining, 5)
    await world.scheduler.stop()
    await world.boot()
    done = await finish(world, plan)
    assert done.state is PlanState.SUCCEEDED
    assert [world.tools.times(name) for name in "st"] == [1, 1]
    assert {one.state for one in done.steps} == {StepState.SUCCEEDED}
