"""Plans that are taken up beside callers: whoever asks for one finds it as if it had been taken up before the server served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from autoglm.errors import AutoglmError, LimitError
from autoglm.model import Approve, Decision, Plan, PlanResumed, PlanState, StepState
from autoglm_server.journal import journal as journals
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.scheduler import recovery
from autoglm_server.scheduler.limits import Limits
from tests.server.scheduler.harness import World, step

PLANS = 40


class SlowJournal(MemoryJournal):
    """Reads the beginnings of logs only when it may, and fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.free = 0
        """How many reads need not wait."""
        self.failures = 0
        self.reads = 0
        self.long = ""
        """A plan whose log takes long to be read."""
        self.unread = ""
        """A plan whose log cannot be read for now."""

    async def read(
        self, plan_id: str, after_sequence: int, *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[bytes]:
        self.reads += 1
        await asyncio.sleep(0)
        if plan_id == self.long:
            await self.go.wait()

        self._fail([plan_id])
        return await super().read(plan_id, after_sequence, limit=limit, bytes_max=bytes_max)

    async def read_starts(
        self, plan_ids: Sequence[str], *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[Sequence[bytes]]:
        self.free -= 1
        if self.free < 0:
            await self.go.wait()

        self._fail(plan_ids)
        return await super().read_starts(plan_ids, limit=limit, bytes_max=bytes_max)

    def _fail(self, plan_ids: Sequence[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise journals.JournalError("reading the journal failed: a disk that is gone for a moment")

        if self.unread in plan_ids:
            raise journals.JournalError("reading the journal failed: a part of the disk")


class Restart(World):
    """A world whose plans are left to be taken up until the test lets them be."""

    def __init__(self) -> None:
        self.slow = SlowJournal()
        super().__init__(self.slow, Limits(taken_up_first=0))

    async def crash(self, *, free: int = 0) -> None:
        self.slow.free = free
        self.slow.go.clear()
        await super().crash()

    async def epochs(self, plan: Plan) -> list[int]:
        return [event.fact.epoch for event in await self.events(plan) if isinstance(event.fact, PlanResumed)]

    async def go_on(self) -> None:
        self.slow.go.set()
        rest = self.scheduler._recovery._rest
        assert rest is not None
        await rest


@pytest.fixture
async def world() -> AsyncIterator[Restart]:
    async with Restart() as made:
        yield made
        made.slow.go.set()


async def crashed(world: Restart, tool: str = "put") -> Plan:
    plan = await world.create(step("a", tool), step("b", after=["a"]))
    await world.settle()
    await world.crash()
    assert await world.epochs(plan) == []
    return plan


async def test_nothing_is_done_about_a_plan_before_it_is_taken_up(world: Restart) -> None:
    plan = await crashed(world)
    await world.settle()
    assert await world.epochs(plan) == []
    assert world.tools.times("a") == 1
    await world.go_on()
    (await world.tools.called("a")).succeed()
    (await world.tools.called("b")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED
    assert await world.epochs(plan) == [2]


async def test_who_asks_for_a_plan_has_it_taken_up(world: Restart) -> None:
    plan = await crashed(world)
    now = await world.get(plan)
    assert await world.epochs(plan) == [2]
    assert now.steps[0].tool_calls[0].failure is not None
    assert now.steps[0].tool_calls[0].failure.reason == "INTERRUPTED"
    await world.go_on()
    await world.tools.called("a")
    assert await world.epochs(plan) == [2]
    assert world.tools.times("a") == 2
    assert world.scheduler._recovery._taking == {}


async def test_all_who_ask_at_once_have_it_taken_up_once(world: Restart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PAGE", 1)  # so that taking it up takes turns of the loop
    plan = await crashed(world)
    world.slow.go.set()
    before = world.slow.reads
    await asyncio.gather(*[world.get(plan) for _ in range(5)])
    assert world.slow.reads - before < 10  # its four events once, and not once for each who asks
    await world.go_on()
    await world.tools.called("a")
    assert await world.epochs(plan) == [2]
    assert world.tools.times("a") == 2


async def test_a_plan_that_takes_long_keeps_nobody_from_another(
    world: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_EVENTS", 1)
    long, other = await world.create(step("a", "put")), await world.create(step("b", "put"))
    await world.settle()
    await world.crash()
    world.slow.long = long.id
    asking = asyncio.get_running_loop().create_task(world.get(long))
    await world.get(other)
    assert await world.epochs(other) == [2]
    assert not asking.done()
    await world.go_on()
    await asking
    assert await world.epochs(long) == [2]


async def test_a_plan_is_cancelled_before_it_was_taken_up(world: Restart) -> None:
    plan = await crashed(world)
    cancelled = await world.scheduler.cancel(plan.id, reason="enough", principal="ann")
    assert cancelled.state in (PlanState.CANCELLING, PlanState.CANCELLED)
    await world.go_on()
    await world.advance(20)
    assert (await world.ended(plan)).state is PlanState.CANCELLED
    assert world.tools.times("b") == 0


async def test_a_step_is_decided_on_before_its_plan_was_taken_up(world: Restart) -> None:
    plan = await crashed(world, "guarded")
    resolved = await world.scheduler.resolve(
        plan.id, "a", wait_sequence=0, decision=Decision(Approve()), comment="", principal="ann"
    )
    assert resolved.steps[0].state is not StepState.WAITING
    (await world.tools.called("a")).succeed()
    await world.go_on()
    assert world.tools.times("a") == 1


async def test_who_goes_away_leaves_the_plan_to_be_taken_up(world: Restart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "PAGE", 1)
    plan = await crashed(world)
    asking = asyncio.get_running_loop().create_task(world.get(plan))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert await world.epochs(plan) == []
    await world.go_on()
    await world.tools.called("a")
    assert await world.epochs(plan) == [2]


async def test_plans_that_are_left_count_as_open_and_hold_an_embedded_server(world: Restart) -> None:
    await crashed(world)
    assert (world.scheduler.open_plans, world.scheduler.progressing, world.scheduler.busy) == (1, 1, True)
    world.scheduler.limits = replace(world.limits, open_plans=1)
    with pytest.raises(LimitError, match="1 plans are open"):
        await world.create(step("c"))


async def test_a_plan_and_its_sub_plan_are_taken_up_before_the_server_serves(world: Restart) -> None:
    steps = [{"id": "inner", "tool": "put"}]
    plan = await world.create(step("run", "plan.run", steps=steps))
    other = await world.create(step("other", "put"))
    await world.tools.called("inner")
    await world.crash(free=1)
    (child,) = (await world.slow.open_children()).keys()
    runs = world.scheduler.runs
    assert list(runs) == [plan.id, child]
    assert runs[child].parent is runs[plan.id]
    assert await world.epochs(other) == []


async def test_the_oldest_are_taken_up_first(world: Restart) -> None:
    made = [await world.create(step(f"s{number}", "put")) for number in range(PLANS)]
    world.limits = replace(world.limits, taken_up_first=2)
    await world.crash(free=1)
    assert list(world.scheduler.runs) == [plan.id for plan in made[:2]]
    await world.go_on()
    assert list(world.scheduler.runs) == [plan.id for plan in made]


async def test_what_was_not_taken_up_is_the_next_starts(world: Restart) -> None:
    plan = await crashed(world)
    await world.crash()
    await world.go_on()
    await world.tools.called("a")
    assert await world.epochs(plan) == [3]


async def test_a_drain_takes_up_nothing_but_what_is_asked_for(world: Restart) -> None:
    plan, other = await world.create(step("a", "put")), await world.create(step("b", "put"))
    await world.settle()
    await world.crash()
    await world.scheduler.drain(0)
    world.slow.go.set()
    await world.settle()
    assert await world.epochs(plan) == []
    assert (await world.get(plan)).steps[0].state is StepState.PENDING
    assert await world.epochs(plan) == [2]
    assert await world.epochs(other) == []


async def test_reading_that_fails_for_a_while_is_tried_again(
    world: Restart, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_RETRY_SECONDS", 0.0)
    plan = await crashed(world)
    world.slow.failures = 4  # of each look at it, the beginnings of logs together, and then this one
    with caplog.at_level(logging.ERROR):
        await world.go_on()

    assert caplog.text.count("1 plans are not taken up yet: reading the journal failed") == 2
    await world.tools.called("a")
    assert await world.epochs(plan) == [2]


async def test_a_plan_that_cannot_be_read_keeps_no_other_from_being_taken_up(world: Restart) -> None:
    made = [await world.create(step(f"s{number}", "put")) for number in range(PLANS)]
    await world.settle()
    await world.crash()
    world.slow.unread = made[0].id
    world.slow.go.set()
    await world.settle()
    assert list(world.scheduler.runs) == [plan.id for plan in made[1:]]
    with pytest.raises(journals.JournalError, match="a part of the disk"):
        await world.get(made[0])

    world.slow.unread = ""
    assert (await world.get(made[0])).state is PlanState.RUNNING


async def test_nothing_is_taken_up_any_more_when_the_journal_is_damaged(
    world: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = await crashed(world)
    monkeypatch.setattr(SlowJournal, "damaged", "the journal is damaged: a page; stop the server")
    world.scheduler.journal_health_changed()
    assert world.scheduler.open_plans == 0
    with pytest.raises(AutoglmError, match="a page"):
        await world.scheduler.cancel(plan.id, reason="", principal="")

    await world.go_on()
    assert await world.epochs(plan) == []
