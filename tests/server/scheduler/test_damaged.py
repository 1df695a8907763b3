"""A journal that turns out to be damaged: nothing is written to it, and what can be read is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from autoglm.errors import PreconditionError
from autoglm.model import PlanState
from autoglm_server.journal.journal import Append, Claim, JournalDamagedError
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.scheduler.retention import Rules, Swept
from tests.server.scheduler.harness import World, step
from tests.server.scheduler.test_retention import sweeping


class Damaged(MemoryJournal):
    """A journal in memory that is damaged when told."""

    def __init__(self) -> None:
        super().__init__()
        self.told = ""

    @property
    def damaged(self) -> str:
        return self.told

    def harm(self) -> None:
        self.told = "the journal is damaged: the test says so"
        self.on_health()

    def append(self, append: Append) -> None:
        if self.told:
            append.settled(JournalDamagedError(self.told))
        else:
            super().append(append)

    async def claim(self, plan_ids: object, owner: str) -> list[Claim]:
        raise JournalDamagedError(self.told)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    journal = Damaged()
    async with World(journal) as world:
        journal.on_health = world.scheduler.journal_health_changed
        yield world


def harm(world: World) -> None:
    assert isinstance(world.journal, Damaged)
    world.journal.harm()


async def test_reads_go_on_and_nothing_else_does(world: World) -> None:
    ended = await world.ended(await world.create(step("a", "echo")))
    going_on = await world.create(step("b", "put"))
    call = await world.tools.called("b")
    harm(world)
    await world.settle()
    assert call.stopped
    assert await world.get(ended) == ended
    assert (await world.get(going_on)).state is PlanState.RUNNING
    assert (await world.feed.follow(going_on.id).next(1.0)).bodies
    with pytest.raises(PreconditionError, match="the test says so") as refused:
        await world.create(step("c", "echo"))

    assert refused.value.reason == "JOURNAL_DAMAGED"
    with pytest.raises(PreconditionError) as refused:
        await world.scheduler.cancel(going_on.id, reason="", principal="")

    assert refused.value.reason == "JOURNAL_DAMAGED"
    assert (await world.scheduler.cancel(ended.id, reason="", principal="")).state is PlanState.SUCCEEDED
    world.clock.advance(1e7)
    assert await sweeping(world, Rules(max_plans=1)).sweep() == Swept()


async def test_a_start_on_it_takes_no_plan_up(world: World) -> None:
    plan = await world.create(step("b", "put"))
    await world.tools.called("b")
    harm(world)
    await world.crash()
    assert world.scheduler.open_plans == 0
    assert (await world.get(plan)).state is PlanState.RUNNING
