"""Retention: events, then plans; what stays answers, what is gone says so, and a crash between is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autoglm.errors import AutoglmError, CompactedError, NotFoundError, PreconditionError
from autoglm.model import ContextItem, Decision, Plan, PlanState, Reject
from autoglm_server.journal._cursors import make_cursor
from autoglm_server.journal.journal import Journal, JournalError, PlanQuery
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.scheduler import retention
from autoglm_server.scheduler.retention import Retention, Rules, Swept
from tests.server.scheduler.harness import World, step

DAY = 86400.0
RULES = Rules(timedelta(days=7), timedelta(days=30), None)


class Store:
    """An artifact store that only says whose files were removed."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    async def remove(self, plan_id: str) -> None:
        self.removed.append(plan_id)


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with World(MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path)) as world:
        yield world


def sweeping(world: World, rules: Rules = RULES, store: Any = None) -> Retention:
    return Retention(world.journal, world.feed, world.clock, rules, artifacts=store, pause_seconds=0.0)


async def done(world: World, *, request_id: str = "") -> Plan:
    plan = await world.create(step("a", "echo", text="hi"), request_id=request_id)
    return await world.ended(plan)


async def listed(world: World) -> list[str]:
    return [row.plan_id for row in (await world.journal.list_rows(PlanQuery())).rows]


async def reason_of(call: Any) -> str:
    try:
        await call
    except AutoglmError as error:
        return error.reason

    return ""


async def test_events_go_then_the_plan(world: World) -> None:
    store = Store()
    plan = await done(world, request_id="once")
    before = await world.get(plan)
    events = before.sequence
    world.clock.advance(7 * DAY - 60)
    assert await sweeping(world, store=store).sweep() == Swept()
    world.clock.advance(120)
    assert await sweeping(world, store=store).sweep() == Swept(1, events, 0)
    assert await world.get(plan) == before
    assert await listed(world) == [plan.id]
    again = await world.create(step("a", "echo", text="hi"), request_id="once")
    assert again.id == plan.id
    assert store.removed == []

    world.clock.advance(23 * DAY)
    assert await sweeping(world, store=store).sweep() == Swept(0, 0, 1)
    assert store.removed == [plan.id]
    assert await listed(world) == []
    with pytest.raises(NotFoundError):
        await world.get(plan)

    assert await reason_of(world.feed.follow(plan.id).next(1.0)) == "PLAN_NOT_FOUND"
    made_anew = await world.create(step("a", "echo", text="hi"), request_id="once")
    assert made_anew.id != plan.id


@pytest.mark.parametrize(("most", "folded"), [(100, ["_whole"]), (2, ["_whole", *["_apply", "_encoded"] * 5])])
async def test_a_batch_waits_for_a_thread_once_and_for_the_journal_a_few_times(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int, folded: list[str]
) -> None:
    asked: list[str] = []
    to_thread = asyncio.to_thread

    async def counted(function: Callable[..., Any], *arguments: Any) -> Any:
        asked.append(function.__name__)
        return await to_thread(function, *arguments)

    class Counted:
        def __getattr__(self, name: str) -> Any:
            if name in ("ended_plans", "read_starts", "compact", "purge"):
                called.append(name)

            return getattr(world.journal, name)

    plans = [await done(world) for _ in range(5)]
    before = [await world.get(plan) for plan in plans]
    world.clock.advance(8 * DAY)
    monkeypatch.setattr(retention, "_START_EVENTS", most)
    monkeypatch.setattr(retention.asyncio, "to_thread", counted)  # type: ignore[attr-defined]
    called: list[str] = []
    journal: Any = Counted()
    swept = await Retention(journal, world.feed, world.clock, RULES, pause_seconds=0.0).sweep()
    assert swept.compacted == 5
    assert asked == folded
    assert called == ["purge", "ended_plans", "read_starts", "compact", "purge", "ended_plans"]  # the last: to remove
    assert [await world.get(plan) for plan in plans] == before


async def test_a_watch_of_what_is_gone_says_what_to_do(world: World) -> None:
    plan = await done(world)
    last = (await world.get(plan)).sequence
    world.clock.advance(8 * DAY)
    await sweeping(world).sweep()
    for after in (0, 1, last - 1):
        with pytest.raises(CompactedError, match="get the plan") as refused:
            await world.feed.follow(plan.id, after).next(1.0)

        assert refused.value.metadata == {"plan_id": plan.id, "sequence": str(last)}

    batch = await world.feed.follow(plan.id, last).next(1.0)
    assert (batch.bodies, batch.sequence, batch.ended) == ([], last, True)
    with pytest.raises(PreconditionError):
        await world.feed.follow(plan.id, last + 1).next(1.0)


async def test_a_decision_on_what_is_gone_is_refused_as_one_on_what_has_ended(world: World) -> None:
    plan = await done(world)
    world.clock.advance(8 * DAY)
    await sweeping(world).sweep()

    def resolve(step_id: str) -> Any:
        return world.scheduler.resolve(
            plan.id, step_id, wait_sequence=0, decision=Decision(Reject()), comment="", principal=""
        )

    assert await reason_of(resolve("a")) == "STEP_NOT_WAITING"
    assert await reason_of(resolve("b")) == "STEP_NOT_FOUND"
    assert (await world.scheduler.cancel(plan.id, reason="", principal="")).state is PlanState.SUCCEEDED


async def test_what_has_not_ended_is_kept_for_ever(world: World) -> None:
    plan = await world.create(step("a", "guarded"))
    await world.until(plan, lambda current: current.state is PlanState.WAITING)
    world.clock.advance(400 * DAY)
    assert await sweeping(world, replace(RULES, max_plans=1)).sweep() == Swept()
    assert len(await world.events(plan)) > 1


async def test_of_more_than_the_most_the_oldest_go_but_a_request_id_holds_for_a_day(world: World) -> None:
    plans = []
    for number in range(6):
        plans.append(await done(world, request_id=f"r{number}"))
        world.clock.advance(60.0)

    sweeper = sweeping(world, Rules(max_plans=2))
    assert (await sweeper.sweep()).compacted == 4
    assert await sweeper.sweep() == Swept()
    assert len(await listed(world)) == 6
    assert [await reason_of(world.feed.follow(plan.id).next(1.0)) for plan in plans] == ["SEQUENCE_COMPACTED"] * 4 + [
        ""
    ] * 2
    assert (await world.create(step("a", "echo", text="hi"), request_id="r0")).id == plans[0].id
    world.clock.advance(DAY)
    assert (await sweeper.sweep()).removed == 4
    assert sorted(await listed(world)) == sorted(plan.id for plan in plans[4:])


async def test_plans_may_go_before_their_events_would(world: World) -> None:
    await done(world)
    world.clock.advance(2 * DAY)
    swept = await sweeping(world, Rules(timedelta(days=7), timedelta(days=1))).sweep()
    assert (swept.compacted, swept.removed) == (1, 1)


@pytest.mark.parametrize("rules", [Rules(), Rules(events=timedelta(days=7)), Rules(plans=timedelta(days=30))])
async def test_what_is_switched_off_does_nothing(world: World, rules: Rules) -> None:
    await done(world)
    world.clock.advance((8 if rules.plans else 400) * DAY)
    swept = await sweeping(world, rules).sweep()
    assert swept.removed == 0
    assert bool(swept.compacted) is bool(rules.events)


async def test_the_context_of_a_plan_that_is_gone_is_left_out(world: World) -> None:
    plan = await done(world)
    world.clock.advance(8 * DAY)
    await sweeping(world).sweep()
    assert [one.id for one in await world.scheduler.context_of([ContextItem(plan.id)])] == [plan.id]  # type: ignore[union-attr]
    world.clock.advance(30 * DAY)
    await sweeping(world).sweep()
    assert await world.scheduler.context_of([ContextItem(plan.id)]) == ()


class CutError(Exception):
    """The process is gone."""


STEPS = ("compact", "purge", "purge", "remove")


@pytest.mark.parametrize("cut", range(12))
async def test_cut_anywhere_the_next_sweep_goes_on(world: World, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut before and after each call that writes; then the next process's sweep ends where an uncut one would."""
    monkeypatch.setattr(retention, "_COMPACTED_AT_ONCE", 1)
    monkeypatch.setattr(retention, "_PURGED_AT_ONCE", 2)
    monkeypatch.setattr(retention, "_REMOVED_AT_ONCE", 1)
    plans = [await done(world) for _ in range(2)]
    kept = await done(world) if cut % 2 else None
    world.clock.advance(31 * DAY)
    if kept is not None:
        kept = await done(world)

    journal = Cutting(world.journal, cut)
    with pytest.raises(CutError):
        await Retention(journal, world.feed, world.clock, RULES, pause_seconds=0.0).sweep()

    await world.crash()
    for plan in plans:
        with suppress(NotFoundError):
            assert (await world.get(plan)).state is PlanState.SUCCEEDED

    await sweeping(world).sweep()
    assert await listed(world) == ([kept.id] if kept is not None else [])
    assert {record.plan_id for record in await world.journal.read_all(0)} == ({kept.id} if kept is not None else set())


class Cutting:
    """A journal that the process is lost over, before or after the n-th call that writes."""

    def __init__(self, journal: Journal, cut: int) -> None:
        self._journal = journal
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._journal, name)
        return self._counted(call) if name in STEPS else call

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*arguments: Any) -> Any:
            self._count()
            given = await call(*arguments)
            self._count()
            return given

        return counted

    def _count(self) -> None:
        self._cut -= 1
        if self._cut < 0:
            raise CutError


@pytest.mark.parametrize("told", [True, False])
async def test_a_watcher_in_the_middle_of_a_log_that_goes_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """It reads a page, the rest goes, it asks for the next page."""
    plan = await world.create(*[step(f"s{number}", "echo") for number in range(300)])
    last = (await world.ended(plan)).sequence
    assert last > 500
    await world.crash()
    cursor = world.feed.follow(plan.id)
    first = await cursor.next(5.0)
    assert first.sequence == 500
    everything = world.feed.follow_all()
    assert (await everything.next(5.0)).bodies
    if not told:
        monkeypatch.setattr(world.feed, "removing", lambda _: None)

    world.clock.advance(8 * DAY)
    await sweeping(world).sweep()
    with pytest.raises(CompactedError):
        await cursor.next(5.0)

    if not told:  # the control: without the notice the rest is passed over
        assert not (await everything.next(0.0)).bodies
        return

    with pytest.raises(CompactedError, match="without a cursor or from now"):
        await everything.next(5.0)


async def test_watching_all_plans_while_retention_runs_misses_nothing_unsaid(world: World) -> None:
    """Whoever follows gets each plan whole, or from the start on nothing of it, or is told."""
    old = [await done(world) for _ in range(3)]
    world.clock.advance(8 * DAY)
    new = await done(world)
    start = world.feed.follow_all()
    later = world.feed.follow_all((await world.feed.follow_all(from_now=True).next(0.0)).cursor)
    behind = world.feed.follow_all(make_cursor(world.journal.journal_id, 1))
    await sweeping(world).sweep()
    got = (await start.next(5.0)).bodies
    assert b"".join(got).count(new.id.encode()) >= new.sequence
    assert not any(plan.id.encode() in body for plan in old for body in got)
    assert not (await later.next(0.0)).bodies
    with pytest.raises(CompactedError):
        await behind.next(5.0)

    with pytest.raises(CompactedError):
        await world.feed.follow_all(make_cursor(world.journal.journal_id, 1)).next(5.0)

    for cursor in (start, later, behind):
        cursor.close()


async def test_when_everything_went_a_watch_from_the_start_waits_for_more(world: World) -> None:
    await done(world)
    world.clock.advance(8 * DAY)
    await sweeping(world).sweep()
    await world.crash()
    cursor = world.feed.follow_all()
    batch = await cursor.next(0.0)
    assert not batch.bodies
    plan = await done(world)
    got: Sequence[bytes] = (await cursor.next(5.0)).bodies
    assert plan.id.encode() in got[0]
    assert (await world.feed.follow_all(batch.cursor).next(5.0)).bodies


async def test_a_snapshot_too_large_to_keep_loses_its_outputs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SNAPSHOT_BYTES_MAX", 100)
    plan = await done(world)
    world.clock.advance(8 * DAY)
    await sweeping(world).sweep()
    kept = await world.get(plan)
    assert (kept.state, kept.sequence) == (PlanState.SUCCEEDED, plan.sequence)
    assert [(one.state.name, one.result) for one in kept.steps] == [("SUCCEEDED", None)]


async def test_while_nothing_can_be_written_nothing_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await done(world)
    world.clock.advance(8 * DAY)
    monkeypatch.setattr(type(world.journal), "stalled", "the disk is full")
    assert await sweeping(world).sweep() == Swept()


async def test_a_sweep_that_fails_is_not_the_last(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await done(world)
    world.clock.advance(8 * DAY)
    sweeper = Retention(world.journal, world.feed, world.clock, RULES, interval_seconds=0.001, pause_seconds=0.0)
    sweep, tries = sweeper.sweep, 0
    swept = asyncio.Event()

    async def fails_once() -> Swept:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise JournalError("the test says so")

        found = await sweep()
        swept.set()
        return found

    sweeper.sweep = fails_once  # type: ignore[method-assign]
    task = asyncio.create_task(sweeper.run())
    await asyncio.wait_for(swept.wait(), 5.0)
    task.cancel()
    assert "retention stopped, and goes on later: the test says so" in caplog.text


async def test_a_sub_plan_stays_until_the_plan_above_it_has_ended(world: World) -> None:
    """After a crash the step that made it may be attempted again; it would make it, and what it does, a second time."""
    steps = [{"id": "c", "tool": "echo", "arguments": {}}]
    plan = await world.create(step("sub", "plan.run", steps=steps), step("s", "guarded"))
    below = ""
    for _ in range(100):
        await world.settle()
        rows = (await world.journal.list_rows(PlanQuery(parent_plan_id=plan.id))).rows
        if rows and rows[0].state.terminal:
            below = rows[0].plan_id
            break

    rules = Rules(plans=timedelta(days=1), max_plans=1)
    for _ in range(3):
        await done(world)

    world.clock.advance(5 * DAY)
    assert (await sweeping(world, rules).sweep()).removed == 3
    assert (await world.scheduler.get(below)).state is PlanState.SUCCEEDED
    assert await world.journal.count_ended(compacted=True) == 0
    await world.scheduler.cancel(plan.id, reason="", principal="")
    await world.ended(plan)
    assert (await sweeping(world, rules).sweep()).removed == 1
    assert below not in await listed(world)


async def test_who_began_with_an_empty_journal_and_comes_back_is_told_what_went_since(world: World) -> None:
    empty = world.feed.follow_all()
    place = (await empty.next(0.0)).cursor
    empty.close()
    await done(world)
    world.clock.advance(8 * DAY)
    new = await done(world)
    await sweeping(world).sweep()
    with pytest.raises(CompactedError):
        await world.feed.follow_all(place).next(5.0)

    (first, *_) = (await world.feed.follow_all().next(5.0)).bodies  # who begins now begins with what is kept
    assert new.id.encode() in first
