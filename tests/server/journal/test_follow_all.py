"""Following all plans: one order, resumable by an opaque cursor, filtered by labels."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from autoglm.errors import InvalidRequestError, PreconditionError
from autoglm_server.journal._cursors import make_cursor
from autoglm_server.journal.follow import AllCursor, Feed
from autoglm_server.journal.journal import Journal

SOON = 5.0


@pytest.fixture
async def fed(make_journal: Callable[[], Journal], hand_of: Any) -> AsyncIterator[tuple[Feed, Any]]:
    journal = make_journal()
    feed = Feed(journal)
    await journal.open()
    yield feed, hand_of(journal)
    await journal.close()


async def names(cursor: AllCursor, count: int) -> list[str]:
    got: list[str] = []
    while len(got) < count:
        got += [body.rstrip(b"\0 ").decode() for body in (await cursor.next(SOON)).bodies]

    return got


async def test_gives_every_plan_in_commit_order_then_waits(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("b", 1)
    await hand.write("a", 1, 2)
    cursor = feed.follow_all()
    assert await names(cursor, 3) == ["b 1", "a 1", "a 2"]
    waiting = asyncio.ensure_future(names(cursor, 2))
    await asyncio.sleep(0)
    await hand.write("b", 2)
    await hand.write("a", 3)
    assert await waiting == ["b 2", "a 3"]


async def test_goes_on_from_a_cursor(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 3)
    first = await feed.follow_all().next(SOON)
    assert first.cursor == base64.urlsafe_b64encode(base64.urlsafe_b64decode(first.cursor + "==")).decode().rstrip("=")
    await hand.write("b", 1)
    assert await names(feed.follow_all(first.cursor), 1) == ["b 1"]
    heartbeat = await feed.follow_all(first.cursor).next(0.0)
    assert await names(feed.follow_all(heartbeat.cursor, from_now=True), 0) == []


async def test_from_now_leaves_out_what_was(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1, 3)
    cursor = feed.follow_all(from_now=True)
    assert not (await cursor.next(0.0)).bodies
    await hand.write("a", 4)
    assert await names(cursor, 1) == ["a 4"]


async def test_filters_by_labels_and_still_moves_on(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    cursor = feed.follow_all(labels={"team": "x"})
    await hand.write("a", 1, row=hand.row("a", labels={"team": "x", "more": "1"}))
    await hand.write("b", 1, row=hand.row("b", labels={"team": "y"}))
    await hand.write("c", 1)
    assert await names(cursor, 1) == ["a 1"]
    at_end = await cursor.next(0.0)
    assert not at_end.bodies
    assert at_end.cursor == make_cursor(feed.journal.journal_id, 3)
    waiting = asyncio.ensure_future(names(cursor, 1))
    await hand.write("b", 2)
    await hand.write("a", 2)
    assert await waiting == ["a 2"]


async def test_catches_up_from_the_journal_when_it_lags(make_journal: Callable[[], Journal], hand_of: Any) -> None:
    journal = make_journal()
    feed = Feed(journal, ring_bytes_max=1000)
    await journal.open()
    hand = hand_of(journal)
    cursor = feed.follow_all()
    assert not (await cursor.next(0.0)).bodies
    for number in range(1, 200):
        await hand.write("a", number)

    assert feed.ring._size <= 1000
    assert await names(cursor, 199) == [f"a {number}" for number in range(1, 200)]
    cursor.close()
    cursor.close()
    assert not feed.ring._records
    await journal.close()


async def test_holds_little_of_what_all_have_been_given(
    make_journal: Callable[[], Journal], hand_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoglm_server.journal.follow.RING_KEPT_BYTES", 200)
    journal = make_journal()
    feed = Feed(journal, ring_bytes_max=100_000)
    await journal.open()
    hand = hand_of(journal)
    fast, slow = feed.follow_all(), feed.follow_all()
    assert not (await fast.next(0.0)).bodies
    assert not (await slow.next(0.0)).bodies
    for number in range(1, 100):
        await hand.write("a", number)
        await names(fast, 1)

    assert len(feed.ring.after(0) or ()) == 99  # the slow one needs it
    await names(slow, 99)
    for number in range(100, 200):
        await hand.write("a", number)
        assert await names(fast, 1) == await names(slow, 1) == [f"a {number}"]

    assert feed.ring._size <= 200
    assert feed.ring.after(0) is None
    assert feed.ring.after(198)
    await journal.close()


@pytest.mark.parametrize("cursor", ["x", "é", "YQ", "....", base64.urlsafe_b64encode(b"id.-1").decode(), "A" * 1000])
async def test_refuses_a_cursor_it_never_gave(fed: tuple[Feed, Any], cursor: str) -> None:
    feed, _ = fed
    with pytest.raises(InvalidRequestError) as refusal:
        feed.follow_all(cursor)

    assert [violation.field for violation in refusal.value.violations] == ["cursor"]


async def test_refuses_a_cursor_of_another_journal_or_ahead(fed: tuple[Feed, Any]) -> None:
    feed, hand = fed
    await hand.write("a", 1)
    with pytest.raises(PreconditionError) as foreign:
        feed.follow_all(make_cursor("another", 1))

    assert foreign.value.reason == "JOURNAL_CHANGED"
    with pytest.raises(PreconditionError) as ahead:
        await feed.follow_all(make_cursor(feed.journal.journal_id, 2)).next(SOON)

    assert ahead.value.reason == "SEQUENCE_AHEAD"
