"""Following one plan: ordered, dense, nothing missed, nothing before it is durable, and an end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from autoglm.errors import CompactedError, NotFoundError, PreconditionError
from autoglm.model import PlanState
from autoglm_server.journal._pages import Page
from autoglm_server.journal.follow import FEW_PLANS, Batch, Cursor, Feed
from autoglm_server.journal.journal import Journal, Record

SOON = 5.0
"""Seconds nothing here should need."""


@pytest.fixture
async def fed(make_journal: Callable[[], Journal], hand_of: Any) -> AsyncIterator[tuple[Feed, Any]]:
    """A feed of an open journal, and the hand that writes it."""
    journal = make_journal()
    feed = Feed(journal)
    await journal.open()
    yield feed, hand_of(journal)
    await journal.close()


async def drain_plan(cursor: Cursor) -> list[bytes]:
    bodies: list[bytes] = []
    while True:
        batch = await cursor.next(SOON)
        bodies += batch.bodies
        assert batch.sequence == len(bodies)
        if batch.ended:
            return bodies

        assert batch.bodies


async def test_watchers_at_one_place_share_what_they_are_given(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 3)
    cursors = [feed.follow("a") for _ in range(3)]
    batches: list[Batch] = []
    for first, count in ((1, 0), (4, 2)):
        if count:
            await hand.write("a", first, count)

        batches = [await cursor.next(SOON) for cursor in cursors]
        assert len({id(batch.events) for batch in batches}) == 1
        assert [len(batch.bodies) for batch in batches] == [count or 3] * 3

    for first in range(6, 1200, 199):
        await hand.write("a", first, 199)

    wakened = [feed.follow("a") for _ in range(3)]
    for sequence in (500, 1000, 1199):  # each cursor goes its own way through the pages
        batches = [await cursor.next(SOON) for cursor in wakened]
        assert len({id(batch.events) for batch in batches}) == 1
        assert {batch.sequence for batch in batches} == {sequence}

    assert (await wakened[0].next(0.0)).bodies == []
    late = await feed.follow("a").next(SOON)
    assert late.bodies == await feed.journal.read("a", 0)
    assert late.events != batches[0].events


async def test_gives_what_there_is_then_waits_for_more(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 2)
    cursor = feed.follow("a")
    assert len((await cursor.next(SOON)).bodies) == 2
    waiting = asyncio.ensure_future(cursor.next(SOON))
    await asyncio.sleep(0)
    await hand.write("a", 3)
    batch = await waiting
    assert (len(batch.bodies), batch.sequence, batch.ended) == (1, 3, False)
    assert batch.bodies == await feed.journal.read("a", 2)


async def test_an_empty_batch_is_the_heartbeat(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    batch = await feed.follow("a", 1).next(0.0)
    assert (batch.bodies, batch.sequence, batch.ended, batch.drained) == ([], 1, False, False)


async def test_begins_after_the_sequence_asked_for(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 5)
    assert (await feed.follow("a", 3).next(SOON)).bodies == await feed.journal.read("a", 3)


async def test_refuses_what_is_not_a_place_in_the_log(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    with pytest.raises(PreconditionError, match="come to sequence 1") as ahead:
        await feed.follow("a", 2).next(SOON)

    assert ahead.value.reason == "SEQUENCE_AHEAD"
    with pytest.raises(NotFoundError, match="no plan 'b'") as missing:
        await feed.follow("b").next(SOON)

    assert missing.value.reason == "PLAN_NOT_FOUND"


async def test_nothing_is_given_out_before_it_is_durable(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    cursor = feed.follow("a", 1)
    pending = hand.send("a", 2)
    assert not (await cursor.next(0.0)).bodies
    assert await pending is None
    assert (await cursor.next(0.0)).sequence == 2


@pytest.mark.parametrize("early", [True, False])
async def test_ends_with_the_last_event(fed: tuple[Feed, Any], early: bool) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    cursors = [feed.follow("a") for _ in range(3)]
    readers = [asyncio.ensure_future(drain_plan(cursor)) for cursor in cursors]
    last = hand.send("a", 2, row=hand.row("a", PlanState.SUCCEEDED))
    if early:
        feed.finish("a", 2)
        await last
    else:
        await last
        feed.finish("a", 2)

    for bodies in await asyncio.gather(*readers):
        assert bodies == await feed.journal.read("a", 0)

    assert (await cursors[0].next(SOON)).ended
    for cursor in cursors:
        cursor.close()

    assert not feed._tails
    assert feed._bytes == 0


async def test_a_plan_that_ended_before_its_first_event_was_durable(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    pending = hand.send("a", 1, 2, row=hand.row("a", PlanState.FAILED))
    feed.finish("a", 2)
    cursor = feed.follow("a")
    assert await pending is None
    assert len(await drain_plan(cursor)) == 2
    cursor.close()
    assert not feed._tails


async def test_a_plan_that_ended_replays_from_the_journal(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 1200)
    await hand.write("a", 1201, row=hand.row("a", PlanState.FAILED))
    feed.finish("a", 1201)
    assert not feed._tails
    cursor, other = feed.follow("a"), feed.follow("a", 1201)
    assert len(await drain_plan(cursor)) == 1201
    assert (await other.next(SOON)).ended
    cursor.close()
    cursor.close()
    other.close()
    assert not feed._tails


async def test_a_plan_of_an_earlier_process_waits_until_it_goes_on(
    make_journal: Callable[[], Journal], hand_of: Any
) -> None:
    journal = make_journal()
    await journal.open()
    hand = hand_of(journal)
    await hand.write("a", 1, 3)
    feed = Feed(journal)
    cursor = feed.follow("a")
    assert len((await cursor.next(SOON)).bodies) == 3
    assert not (await cursor.next(0.0)).bodies
    waiting = asyncio.ensure_future(cursor.next(SOON))
    await asyncio.sleep(0)
    await hand.write("a", 4)
    assert (await waiting).sequence == 4
    await journal.close()


async def test_a_slow_cursor_catches_up_from_the_journal(make_journal: Callable[[], Journal], hand_of: Any) -> None:
    journal = make_journal()
    feed = Feed(journal, plan_bytes_max=2000)
    await journal.open()
    hand = hand_of(journal)
    await hand.write("a", 1)
    cursor = feed.follow("a")
    await cursor.next(SOON)
    for first in range(2, 302, 10):
        await hand.write("a", first, 10, size=100)

    assert feed._bytes <= 2000
    assert feed._tails["a"].first > 200
    bodies: list[bytes] = []
    while len(bodies) < 300:
        bodies += (await cursor.next(SOON)).bodies

    assert bodies == await journal.read("a", 1)
    await journal.close()


async def test_memory_is_bounded_over_all_plans(make_journal: Callable[[], Journal], hand_of: Any) -> None:
    journal = make_journal()
    feed = Feed(journal, total_bytes_max=5000)
    await journal.open()
    hand = hand_of(journal)
    for number in range(20):
        await hand.write(f"p{number}", 1, 10, size=100)

    assert 0 < feed._bytes <= 5000
    assert feed._bytes == sum(tail.size for tail in feed._tails.values())
    assert not feed._tails["p0"].bodies
    cursor = feed.follow("p0")
    assert (await cursor.next(SOON)).sequence == 10
    await hand.write("p0", 11)
    assert (await cursor.next(SOON)).sequence == 11
    await journal.close()


async def test_a_batch_is_bounded(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 5, size=400_000)
    await hand.write("b", 1, 501)
    for plan_id, sequences in (("a", [2, 4, 5]), ("b", [500, 501])):
        cursor = feed.follow(plan_id)
        assert [(await cursor.next(SOON)).sequence for _ in sequences] == sequences


async def test_a_drain_ends_every_wait_at_once(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    cursors = [feed.follow("a", 1), feed.follow("a", 1)]
    waiting = [asyncio.ensure_future(cursor.next(SOON)) for cursor in cursors]
    everything = feed.follow_all(from_now=True)
    all_waiting = asyncio.ensure_future(everything.next(SOON))
    while len(feed._tails["a"].waiters._waiting) < 2 or not feed.waiters._waiting:  # noqa: ASYNC110 - they settle in their own time
        await asyncio.sleep(0)

    feed.drain()
    assert all(batch.drained for batch in await asyncio.gather(*waiting))
    assert (await all_waiting).drained
    assert (await cursors[0].next(SOON)).drained


async def test_events_that_are_gone_are_said_to_be_gone(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 3)

    async def nothing(*_: object, **__: object) -> list[bytes]:
        return []

    feed.journal.read = nothing  # type: ignore[method-assign]
    feed._tails["a"].forget()
    with pytest.raises(CompactedError):
        await feed.follow("a").next(SOON)


async def test_a_plan_that_is_removed_after_it_was_looked_at_is_said_to_be_gone(fed: tuple[Feed, Any]) -> None:
    """Its reader waited for ever: for it the log ended where it stood."""
    feed, hand = fed
    await hand.write("a", 1, 3)
    feed.finish("a", 3)

    async def row(_: str) -> SimpleNamespace:
        return SimpleNamespace(state=PlanState.SUCCEEDED)

    async def nothing(*_: object, **__: object) -> list[bytes]:
        return []

    feed.journal.get_row = row  # type: ignore[method-assign,assignment]
    feed.journal.read = nothing  # type: ignore[method-assign]
    for after in (0, 2):
        with pytest.raises(CompactedError) as told:
            await feed.follow("a", after).next(SOON)

        assert told.value.metadata["sequence"] == "3"

    assert (await feed.follow("a", 3).next(SOON)).ended


async def test_a_cursor_that_is_cancelled_leaves_nothing_behind(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    cursor = feed.follow("a", 1)
    waiting = asyncio.ensure_future(cursor.next(SOON))
    await asyncio.sleep(0)
    assert feed._tails["a"].waiters._waiting
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not feed._tails["a"].waiters._waiting
    await hand.write("a", 2)
    assert (await cursor.next(SOON)).sequence == 2


async def test_one_commit_wakes_a_waiting_cursor_once(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await asyncio.gather(hand.write("a", 1), hand.write("b", 1))
    cursor = feed.follow("a", 1)
    waiting = asyncio.ensure_future(cursor.next(SOON))
    await asyncio.sleep(0)
    (waiter,) = feed._tails["a"].waiters._waiting
    await hand.write("b", 2)
    assert waiter in feed._tails["a"].waiters._waiting, "a commit of another plan is none of its business"
    await asyncio.gather(*[hand.send("a", number) for number in range(2, 7)])
    assert (await waiting).sequence == 6


class Deaf(Feed):
    """A feed with one fault: who waits for plan p3 is not woken."""

    def committed(self, records: Any) -> None:
        self._deafen()
        super().committed(records)

    def finish(self, plan_id: str, last_sequence: int) -> None:
        self._deafen()
        super().finish(plan_id, last_sequence)

    def _deafen(self) -> None:
        if "p3" in self._tails:
            self._tails["p3"].waiters._waiting.clear()


async def test_a_rest_holds_only_what_is_followed(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    for plan_id in ("followed", "left"):
        await hand.write(plan_id, 1, 5)

    cursor = feed.follow("followed")
    assert len((await cursor.next(0.0)).bodies) == 5
    late = feed.follow("left", 2)
    feed.pages.keep("left", 2, Page([b"a page"]))
    late.close()
    feed.rest()

    assert list(feed._recent) == [feed._tails["followed"]]
    assert feed._bytes == feed._tails["followed"].size > 0
    assert not feed.pages._kept
    assert not feed.pages._bytes
    late = feed.follow("left", 2)
    assert len((await late.next(0.0)).bodies) == 3
    await hand.write("left", 6)
    assert len((await late.next(0.0)).bodies) == 1
    late.close()
    cursor.close()


@pytest.mark.parametrize("broken", [False, True])
async def test_no_event_is_missed_doubled_or_late(
    make_journal: Callable[[], Journal], hand_of: Any, broken: bool
) -> None:
    """Many plans written at once, each followed by cursors that come at any time and read at any pace."""
    journal = make_journal()
    feed = (Deaf if broken else Feed)(journal, plan_bytes_max=800, total_bytes_max=4000, ring_bytes_max=1000)
    await journal.open()
    hand = hand_of(journal)
    chance = random.Random(7)
    plans = [f"p{number}" for number in range(6)]
    count = 60

    async def write(plan_id: str) -> None:
        sequence = 1
        while sequence <= count:
            some = min(chance.randint(1, 4), count + 1 - sequence)
            row = hand.row(plan_id, PlanState.SUCCEEDED) if sequence + some > count else None
            await hand.write(plan_id, sequence, some, row=row)
            sequence += some

        feed.finish(plan_id, count)

    async def watch(plan_id: str, after: int) -> None:
        while (await journal.last_sequence(plan_id) or -1) < after:  # noqa: ASYNC110 - at any time
            await asyncio.sleep(0)

        cursor = feed.follow(plan_id, after)
        bodies: list[bytes] = []
        while True:
            batch = await cursor.next(3600)
            bodies += batch.bodies
            assert batch.sequence == after + len(bodies)
            if batch.ended:
                break

            for _ in range(chance.choice([0, 0, 0, 20])):
                await asyncio.sleep(0)

        cursor.close()
        assert bodies == await journal.read(plan_id, after)

    async def watch_all() -> None:
        cursor, got = feed.follow_all(), 0
        while got < count * len(plans):
            batch = await cursor.next(3600)
            expected = await journal.read_all(got, limit=len(batch.bodies))
            assert batch.bodies == [record.body for record in expected]
            got += len(batch.bodies)

        cursor.close()

    async def run() -> None:
        async with asyncio.timeout(2 if broken else 15), asyncio.TaskGroup() as group:
            for plan_id in plans:
                group.create_task(write(plan_id))
                for _ in range(5):
                    group.create_task(watch(plan_id, chance.choice([0, 0, 5, 40])))

            group.create_task(watch_all())

    if broken:
        with pytest.raises(TimeoutError):
            await run()
    else:
        await run()
        assert not feed._tails
        assert feed._bytes == 0

    await journal.close()


@pytest.mark.parametrize(
    ("plans", "order"),
    [(FEW_PLANS, ["call", "handed over", "told"]), (FEW_PLANS + 1, ["told", "call", "handed over"])],
)
async def test_a_commit_of_few_plans_lets_its_calls_begin_before_readers_are_told(
    fed: tuple[Feed, Any], plans: int, order: list[str]
) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    cursor = feed.follow("a")
    await cursor.next(SOON)
    seen: list[str] = []
    loop = asyncio.get_running_loop()

    async def read() -> None:
        await cursor.next(SOON)
        seen.append("told")

    def call() -> None:
        seen.append("call")
        loop.call_soon(seen.append, "handed over")

    reader = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    many = [Record(number, "a", number, b"{}") for number in range(2, 202)]
    feed.committed([*many, *(Record(202 + other, f"b{other}", 1, b"{}") for other in range(plans - 1))])
    loop.call_soon(call)
    await reader
    await asyncio.sleep(0)
    assert seen == order
