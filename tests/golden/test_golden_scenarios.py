"""What happens when a process is lost, a person decides, or a plan is stopped, event by event, as reviewed text."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from autoglm.model import Approve, Decision, Plan, Reject, Retry, ToolResult
from tests.golden.transcript import compare, transcript
from tests.server.scheduler.harness import World, failure, step

HERE = Path(__file__).parent / "scenarios"


async def crash(world: World) -> Plan:
    """The process goes away during a call of each effect; what may not be repeated waits, and a person decides."""
    plan = await world.create(
        step("look", "read"),
        step("put", "put"),
        step("send", "send"),
        step("ask", "send"),
        step("end", "echo", ["send"]),
    )
    for name in ("look", "put", "send", "ask"):
        await world.tools.called(name)

    await world.crash()
    for name in ("look", "put"):
        (await world.tools.called(name)).succeed(name)

    await world.settle()
    await decide(world, plan, "send", ToolResult("seen"))
    await decide(world, plan, "ask", Retry())
    (await world.tools.called("ask")).succeed("asked")
    return plan


async def approval(world: World) -> Plan:
    """Two calls need approval: one is approved and made, the other is rejected, and what needs it is skipped."""
    plan = await world.create(step("one", "guarded"), step("two", "guarded", to="Ada"), step("after", "echo", ["two"]))
    await world.settle()
    await decide(world, plan, "one", Approve())
    (await world.tools.called("one")).succeed("done")
    await decide(world, plan, "two", Reject("not to Ada"))
    return plan


async def cancel(world: World) -> Plan:
    """Stopped while one call is under way that stops, one that cannot be stopped, one backs off, and one has not begun."""
    world.tools.stubborn.add("stubborn")
    world.tools.scripts["flaky"] = deque([failure(retryable=True)])
    plan = await world.create(
        step("stops", "read"), step("stubborn", "send"), step("flaky", "read"), step("later", "echo", ["stops"])
    )
    await world.tools.called("stops")
    await world.tools.called("stubborn")
    await world.advance(0.1)
    await world.scheduler.cancel(plan.id, reason="no longer needed", principal="ada")
    await world.advance(world.limits.cancel_grace)
    return plan


async def timeout(world: World) -> Plan:
    """A plan reaches its own time limit: its call is stopped, and it fails."""
    plan = await world.create(step("slow", "read"), step("after", "echo", ["slow"]))
    await world.tools.called("slow")
    await world.advance(600)
    return plan


async def decide(world: World, plan: Plan, step_id: str, kind: Approve | Reject | Retry | ToolResult) -> None:
    await world.scheduler.resolve(
        plan.id, step_id, wait_sequence=0, decision=Decision(kind), comment="", principal="ada"
    )
    await world.settle()


SCENARIOS: list[Callable[[World], Awaitable[Plan]]] = [crash, approval, cancel, timeout]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_scenario_happens_as_reviewed(
    scenario: Callable[[World], Awaitable[Plan]], update_golden: bool
) -> None:
    async with World() as world:
        plan = await scenario(world)
        await world.settle()
        await world.ended(plan)
        compare(transcript(await world.events(plan)), HERE / f"{scenario.__name__}.txt", update=update_golden)


def test_every_transcript_is_of_a_scenario() -> None:
    assert {file.stem for file in HERE.iterdir()} == {scenario.__name__ for scenario in SCENARIOS}
