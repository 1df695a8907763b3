"""Ephemeral events: the present state, after what it follows, never stored, void when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from autoglm import wire
from autoglm.model import AnswerProgressed, Event, PlanState, StepProgressed, StepStarted
from autoglm_server.journal import _progress
from autoglm_server.journal.follow import AllCursor, Cursor, Feed
from autoglm_server.journal.memory import MemoryJournal

SOON = 5.0


@pytest.fixture
async def fed(hand_of: Any) -> AsyncIterator[tuple[Feed, Any]]:
    journal = MemoryJournal()
    feed = Feed(journal)
    await journal.open()
    hand = hand_of(journal)
    await hand.write("a", 1, 3)
    yield feed, hand
    await journal.close()


def answer(text: str, offset: int = 0, *, sequence: int = 3, round: int = 1, attempt: int = 1) -> Event:
    return Event("a", sequence, round=round, ephemeral=True, fact=AnswerProgressed(attempt, offset, text))


def step(
    fraction: float, *, sequence: int = 3, step_id: str = "s", attempt: int = 1, text: str = "", offset: int = 0
) -> Event:
    fact = StepProgressed(fraction, text=text, offset=offset)
    return Event("a", sequence, step_id=step_id, attempt=attempt, ephemeral=True, fact=fact)


async def wait(cursor: Cursor | AllCursor) -> Sequence[bytes]:
    """What the cursor gets next."""
    return (await cursor.next(SOON)).bodies


async def given(cursor: Cursor | AllCursor) -> list[Event]:
    """What the cursor has now."""
    return [wire.decode(Event, body) for body in (await cursor.next(0.0)).bodies]


async def texts(cursor: Cursor | AllCursor) -> list[tuple[int, str]]:
    return [(event.fact.offset, event.fact.text) for event in await given(cursor)]  # type: ignore[union-attr]


def cursors(feed: Feed) -> list[Cursor | AllCursor]:
    return [feed.follow("a", 3), feed.follow_all(from_now=True)]


async def test_continues_the_text_from_where_each_cursor_stands(fed: tuple[Feed, Any]) -> None:
    feed, _ = fed
    for cursor in cursors(feed):
        feed.clear("a")
        await cursor.next(0.0)
        feed.progress(answer("Hel"))
        assert await texts(cursor) == [(0, "Hel")]
        feed.progress(answer("lo ", 3))
        feed.progress(answer("雪", 6))
        assert await texts(cursor) == [(3, "lo 雪")]
        assert await texts(cursor) == []
        late = feed.follow("a", 3)
        assert await texts(late) == [(0, "Hello 雪")]
        feed.progress(answer("!", 7))
        assert await texts(late) == await texts(cursor) == [(7, "!")]


async def test_text_written_anew_is_given_whole(fed: tuple[Feed, Any]) -> None:
    feed, _ = fed
    cursor = feed.follow("a", 3)
    feed.progress(answer("Hello"))
    await cursor.next(0.0)
    feed.progress(answer("p!", 3))
    assert await texts(cursor) == [(0, "Help!")]
    feed.progress(answer("lost", 99))
    feed.progress(answer(" me", 5))
    assert await texts(cursor) == [(5, " me")]


async def test_a_step_shows_its_last_progress_alone(fed: tuple[Feed, Any]) -> None:
    feed, _ = fed
    cursor = feed.follow("a", 3)
    feed.progress(step(0.1))
    feed.progress(step(0.5, text="ab"))
    feed.progress(step(0.7, step_id="t"))
    feed.progress(step(0.9, text="c", offset=2))
    events = {event.step_id: event for event in await given(cursor)}
    assert all(event.ephemeral and event.sequence == 3 for event in events.values())
    assert events["s"].fact == StepProgressed(0.9, offset=0, text="abc")
    assert events["t"].fact == StepProgressed(0.7)
    assert await given(cursor) == []


async def test_waits_until_what_it_follows_has_been_given_out(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    for sequence, cursor in enumerate(cursors(feed), 4):
        await cursor.next(0.0)
        waiting = asyncio.ensure_future(wait(cursor))
        await asyncio.sleep(0)
        pending = hand.send("a", sequence)
        feed.progress(step(0.5, sequence=sequence))
        assert not feed.released
        assert await pending is None
        assert await waiting == await feed.journal.read("a", sequence - 1)
        (event,) = await given(cursor)
        assert (event.sequence, event.ephemeral) == (sequence, True)
        feed.clear("a")


async def test_a_lagging_cursor_gets_the_events_first(fed: tuple[Feed, Any]) -> None:
    feed, _ = fed
    feed.progress(step(0.5))
    cursor = feed.follow("a")
    assert (await cursor.next(0.0)).sequence == 3
    assert len(await given(cursor)) == 1


async def test_wakes_those_who_wait_unless_they_want_durable_events_alone(fed: tuple[Feed, Any]) -> None:
    feed, _ = fed
    waiting = [asyncio.ensure_future(wait(cursor)) for cursor in cursors(feed)]
    for _ in range(5):
        await asyncio.sleep(0)

    feed.progress(step(0.5))
    assert [len(bodies) for bodies in await asyncio.gather(*waiting)] == [1, 1]

    assert await given(feed.follow("a", 3, durable_only=True)) == []
    assert await given(feed.follow_all(from_now=True, durable_only=True)) == []


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ({"step_id": "s"}, {"t", "answer 1", "answer 2"}),
        ({"round": 1}, {"s", "t", "answer 2"}),
        ({}, set()),
    ],
)
async def test_what_is_cleared_is_void(fed: tuple[Feed, Any], what: dict[str, Any], left: set[str]) -> None:
    feed, hand = fed
    for event in (step(0.1), step(0.2, attempt=2), step(0.3, step_id="t"), answer("x"), answer("y", round=2)):
        feed.progress(event)

    feed.progress(step(0.4, sequence=4))
    feed.clear("a", **what)
    feed.clear("unknown")
    await hand.write("a", 4)
    for cursor in (feed.follow("a", 4), feed.follow_all(from_now=True)):
        events = await given(cursor)
        assert {event.step_id or f"answer {event.round}" for event in events} == left


async def test_the_end_of_the_plan_voids_all(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    cursor = feed.follow("a", 3)
    feed.progress(step(0.1))
    await hand.write("a", 4, row=hand.row("a", PlanState.SUCCEEDED))
    feed.finish("a", 4)
    feed.progress(step(0.2))
    batch = await cursor.next(0.0)
    assert (len(batch.bodies), batch.ended) == (1, True)
    cursor.close()
    assert not feed.alive
    assert not feed.released


async def test_a_filter_holds_for_progress_too(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("b", 1, row=hand.row("b", labels={"team": "x"}))
    cursor = feed.follow_all(from_now=True, labels={"team": "x"})
    feed.progress(step(0.1))
    assert await given(cursor) == []
    feed.progress(Event("b", 1, step_id="s", attempt=1, ephemeral=True, fact=StepProgressed(0.3)))
    assert [event.plan_id for event in await given(cursor)] == ["b"]


async def test_what_is_kept_is_bounded(fed: tuple[Feed, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    feed, _ = fed
    for number in range(300):
        feed.progress(step(0.1, step_id=f"s{number}"))

    assert len(feed.alive) == len(feed._tails["a"].progress) == 256
    feed.clear("a")
    piece = "雪" * 100_000
    for number in range(4):
        feed.progress(answer(piece, number * 100_000))

    (event,) = await given(feed.follow("a", 3))
    assert isinstance(event.fact, AnswerProgressed)
    assert len(event.fact.text.encode()) == 900_000 < _progress.TEXT_BYTES_MAX
    for number in range(10):
        feed.progress(answer(piece, attempt=number + 2))

    assert feed._tails["a"].text_bytes <= 4 << 20


async def test_only_ephemeral_facts_and_plans_under_way(fed: tuple[Feed, Any]) -> None:
    feed, _ = fed
    with pytest.raises(ValueError, match="StepStarted"):
        feed.progress(Event("a", fact=StepStarted()))

    feed.progress(Event("unknown", 1, fact=StepProgressed(0.1)))
    assert not feed.alive
