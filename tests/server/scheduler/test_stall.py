"""A journal that cannot be written to for a while: what is read, what is refused, and how it goes on."""

from __future__ import annotations

import asyncio

import pytest

from autoglm.errors import LimitError, NotFoundError
from autoglm.model import PlanState, StepState
from autoglm_server.journal.memory import MemoryJournal
from tests.server.scheduler.harness import World, step


class FullJournal(MemoryJournal):
    """Keeps what is handed over while it is full, as a journal on a full disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.reported = False

    @property
    def stalled(self) -> str:
        return "the disk is full" if self.full and self.reported else ""

    def _commit(self) -> None:
        if not self.full:
            super()._commit()

    def report(self) -> None:
        """Notice that it is full, which takes a try."""
        self.reported = True
        self.on_health()

    def recover(self) -> None:
        self.full = self.reported = False
        self._commit()
        self.on_health()


@pytest.fixture
def journal() -> FullJournal:
    return FullJournal()


async def test_a_plan_can_be_read_while_nothing_can_be_written(journal: FullJournal) -> None:
    async with World(journal) as world:
        journal.on_health = world.scheduler.journal_health_changed
        plan = await world.create(step("a", "read"), step("b", "send", ["a"]))
        (await world.tools.called("a")).succeed("output")
        journal.full = True
        await world.settle()
        early = asyncio.ensure_future(world.get(plan))  # asks before anybody knows that the disk is full
        await world.settle()
        assert not early.done()

        journal.report()
        found = [await early, await world.get(plan)]
        assert [one.state for one in found] == [PlanState.RUNNING] * 2
        assert [one.steps[0].state for one in found] == [StepState.RUNNING] * 2  # what is durable, and no more
        assert world.tools.times("b") == 0

        with pytest.raises(LimitError) as refused:
            await world.create(step("c", "echo"))

        assert refused.value.reason == "JOURNAL_FULL"

        journal.recover()
        (await world.tools.called("b")).succeed()
        ended = await world.ended(plan)
        assert ended.state is PlanState.SUCCEEDED
        assert world.tools.times("b") == 1


async def test_who_must_have_it_durable_waits_as_long_as_it_takes(journal: FullJournal) -> None:
    async with World(journal) as world:
        journal.on_health = world.scheduler.journal_health_changed
        plan = await world.create(step("a", "read"))
        await world.tools.called("a")
        journal.full = True
        cancelling = asyncio.ensure_future(world.scheduler.cancel(plan.id, reason="", principal=""))
        await world.settle()
        journal.report()
        await world.settle()
        assert not cancelling.done()
        assert (await world.get(plan)).state is PlanState.RUNNING

        journal.recover()
        assert (await cancelling).state in {PlanState.CANCELLING, PlanState.CANCELLED}


async def test_a_plan_that_is_not_durable_yet_is_not_there(journal: FullJournal) -> None:
    async with World(journal) as world:
        journal.on_health = world.scheduler.journal_health_changed
        journal.full = True
        creating = asyncio.ensure_future(world.create(step("a", "echo")))
        await world.settle()
        (plan_id,) = world.scheduler._runs
        journal.report()

        with pytest.raises(NotFoundError):
            await world.scheduler.get(plan_id)

        journal.recover()
        assert (await creating).id == plan_id


async def test_a_plan_being_created_while_the_disk_is_full_begins_when_it_is_durable_and_once(
    journal: FullJournal,
) -> None:
    async with World(journal) as world:
        journal.on_health = world.scheduler.journal_health_changed
        journal.full = True
        creating = asyncio.ensure_future(world.create(step("a", "echo", x=1)))
        await world.settle()
        journal.report()
        journal.full = journal.reported = False
        journal.on_health()  # a journal tells of its health before it tells of the commit
        await world.settle()
        assert not world.scheduler.busy
        assert not world.tools.calls

        journal._commit()
        plan = await creating
        assert (await world.ended(plan)).state is PlanState.SUCCEEDED
        await world.settle()
        assert not world.scheduler.busy
