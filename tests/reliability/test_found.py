"""What the programme found, each as a small test of its own beside the seed that found it (docs/reliability.md)."""

from __future__ import annotations

import asyncio

import pytest

from autoglm.errors import AutoglmError
from autoglm.model import Approve, Decision, Reject
from tests.server.scheduler.harness import World, step
from tests.server.scheduler.held import HeldJournal


async def test_seed_2_a_decision_is_refused_only_for_one_that_is_durable() -> None:
    """The first decision was lost with the process; the second had been told already that it came too late."""
    journal = HeldJournal()
    async with World(journal) as world:
        plan = await world.create(step("s", "guarded"))
        await world.until(plan, lambda current: any(one.waiting for one in current.steps))
        journal.held = True

        def decide(decision: Decision) -> asyncio.Task[object]:
            resolve = world.scheduler.resolve
            asked = resolve(plan.id, "s", wait_sequence=0, decision=decision, comment="", principal="me")
            return asyncio.get_running_loop().create_task(asked)

        first, second = decide(Decision(Reject("no"))), decide(Decision(Approve()))
        await world.settle()
        assert not first.done()
        assert not second.done()
        journal.go_on()
        await first
        with pytest.raises(AutoglmError) as refused:
            await second

        assert refused.value.reason == "STEP_ALREADY_RESOLVED"
