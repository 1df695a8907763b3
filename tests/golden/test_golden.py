"""What happens in each plan of ``examples/plans``, event by event, is reviewed text: ``tests/golden/*.txt``.

Everything is the server's own but for three things: the clock stands still while anything can happen, every backing off
is as long as it can be, and functions are called on the loop, so that the order is the scheduler's and no thread's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest

from autoglm.cli.yaml_file import parse_yaml
from autoglm.model import CreatePlanRequest, Event, PlanState
from autoglm.tool import FunctionTool
from autoglm.wire import from_json
from autoglm_server.tools.builtin import builtin_tools
from autoglm_server.tools.loading import load_file, tools_of
from autoglm_server.tools.providers.functions import FunctionProvider
from tests.golden.transcript import compare, transcript
from tests.server.scheduler.harness import World

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
PLANS = sorted((EXAMPLES / "plans").iterdir())
QUIET_TURNS = 30
"""Turns of the loop without a new event, after which nothing happens any more by itself."""


def read(plan: Path) -> CreatePlanRequest:
    return from_json(CreatePlanRequest, parse_yaml(plan.read_text(encoding="utf-8")))


def on_loop(tool: FunctionTool) -> FunctionTool:
    @functools.wraps(tool.function)
    async def function(*args: Any, **kwargs: Any) -> Any:
        return tool.function(*args, **kwargs)

    made = FunctionTool(function, tool.spec, "async")
    assert made.spec == tool.spec
    return made


async def run(request: CreatePlanRequest, workspace: Path) -> list[Event]:
    """Run a plan to its end: let happen what can, then let the clock go on to when the scheduler wants to be woken."""
    demo = tools_of(load_file(EXAMPLES / "tools" / "unreliable.py"))
    providers = [
        FunctionProvider("", [on_loop(tool) for tool in builtin_tools(workspace)]),
        FunctionProvider("demo", [on_loop(tool) for tool in demo]),
    ]

    async with World(providers=providers) as world:
        plan, _ = await world.scheduler.create(request, principal="", digest="sha256:" + 64 * "0")

        while not (await quiet(world, plan.id)).terminal:
            wake = world.scheduler.timers._armed
            assert wake is not None, f"nothing will happen any more: {await world.facts(plan)}"
            await world.advance(max(wake - world.clock.monotonic(), 0.001))

        return await world.events(plan)


async def quiet(world: World, plan_id: str) -> PlanState:
    seen, turns = 0, 0

    while True:
        plan = await world.scheduler.get(plan_id)
        seen, turns = plan.sequence, turns + 1 if plan.sequence == seen else 0
        if turns == QUIET_TURNS or plan.state.terminal:
            return plan.state

        await asyncio.sleep(0)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.stem)
async def test_a_plan_of_the_examples_happens_as_reviewed(plan: Path, tmp_path: Path, update_golden: bool) -> None:
    events = await run(read(plan), tmp_path)
    compare(transcript(events), HERE / f"{plan.stem}.txt", update=update_golden)


def test_every_transcript_is_of_a_plan() -> None:
    assert {file.stem for file in HERE.glob("*.txt")} == {plan.stem for plan in PLANS}


async def test_control_another_course_of_events_is_noticed(tmp_path: Path) -> None:
    request = read(EXAMPLES / "plans" / "flaky.yaml")
    sensor, *others = request.steps
    other = dataclasses.replace(sensor, arguments={"failures": 1})
    events = await run(dataclasses.replace(request, steps=(other, *others)), tmp_path)

    with pytest.raises(AssertionError, match="not the reviewed transcript"):
        compare(transcript(events), HERE / "flaky.txt", update=False)


@pytest.mark.parametrize("fault", ["swapped", "left out", "twice", "changed"])
def test_control_a_tampered_transcript_is_noticed(fault: str, tmp_path: Path) -> None:
    lines = (HERE / "two_chains.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    middle = len(lines) // 2
    match fault:
        case "swapped":
            lines[middle], lines[middle + 1] = lines[middle + 1], lines[middle]
        case "left out":
            del lines[middle]
        case "twice":
            lines.insert(middle, lines[middle])
        case _:
            lines[middle] = lines[middle].replace("/1", "/2")

    with pytest.raises(AssertionError, match="not the reviewed transcript"):
        compare("".join(lines), HERE / "two_chains.txt", update=False)


def test_control_a_transcript_that_nobody_reviewed_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is not there"):
        compare("", tmp_path / "new.txt", update=False)
