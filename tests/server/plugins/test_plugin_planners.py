"""Planners of plugins: what they write into their view is seen by nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields, is_dataclass
from typing import Any

from autoglm.model import (
    ContextMessage,
    CreatePlanRequest,
    Failure,
    Plan,
    PlanOptions,
    PlanState,
    Step,
    StepDraft,
    StepRejected,
    Tool,
    ToolCall,
    ToolExample,
    ToolResult,
    Violation,
    Waiting,
)
from autoglm.planner import AnswerText, RoundItem, RoundView
from autoglm.wire import encode
from autoglm_server.plugins.planners import PluginPlanner, apart
from tests.server.scheduler.harness import World, step


def written_into(value: Any) -> int:
    """Write into all that can be; gives into how many."""
    if isinstance(value, dict | list):
        inner = list(value.values()) if isinstance(value, dict) else list(value)
        count = 1 + sum(map(written_into, inner))
        value.clear()
        value.update(written=1) if isinstance(value, dict) else value.append("written")
        return count

    if isinstance(value, tuple):
        return sum(map(written_into, value))

    return sum(written_into(getattr(value, each.name)) for each in fields(value)) if is_dataclass(value) else 0


class Vandal:
    """Writes into all that it is given."""

    name, revises = "scripted", False

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        self.seen.append(repr((view.plan.labels, [(one.arguments, one.result) for one in view.plan.steps])))
        assert written_into(view) > 4
        yield AnswerText("done")


FAILURE = Failure("GONE", metadata={"k": "v"})
PLAN = Plan(
    "p",
    labels={"k": "v"},
    steps=(
        Step(
            "a",
            arguments={"x": [{"y": 1}]},
            tool_calls=(ToolCall("a/1", arguments={"x": []}, failure=FAILURE),),
            result=ToolResult({"rows": [[1]]}),
            failure=FAILURE,
            waiting=Waiting(arguments={"x": 1}),
        ),
    ),
    output=[{}],
    failure=FAILURE,
)
TOOL = Tool("t", examples=(ToolExample("one", {"x": 1}, {"y": 2}),))
REJECTED = StepRejected(StepDraft("b", arguments={"x": 1}), (Violation("x", "y", "Z"),))


def test_all_that_can_be_written_into_is_given_apart() -> None:
    given = (PLAN, TOOL, REJECTED, ContextMessage("user", "hello"))
    before = [encode(one) for one in given]
    own = apart(given)
    assert own == given
    assert written_into(own) == 18
    assert [encode(one) for one in given] == before


async def test_what_a_planner_writes_into_its_view_changes_no_plan() -> None:
    vandal = Vandal()
    async with World() as world:
        world.planners["scripted"] = PluginPlanner(vandal)
        steps = step("a", "echo", x=[1]), step("b", "echo")
        request = CreatePlanRequest("sum", steps, PlanOptions(planner="scripted"), labels={"k": "v"})
        plans = []
        for _ in range(2):
            made = await world.scheduler.submit(request, principal="", digest="", again=True)
            await world.settle()
            plans.append(await world.scheduler.get(made.plan_id))

        assert vandal.seen[0] == vandal.seen[1]
        for plan in plans:
            assert (plan.state, plan.labels) == (PlanState.SUCCEEDED, {"k": "v"})
            assert [one.arguments for one in plan.steps] == [{"x": [1]}, {}]
            assert [one.result for one in plan.steps] == [ToolResult({"x": [1]}), ToolResult({})]
