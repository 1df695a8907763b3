"""Pages that many watchers ask for: read once, kept within bounds, and never longer than the journal has them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from autoglm_server.journal._pages import Pages
from autoglm_server.journal.journal import EventsRemovedError, JournalError


class Slow:
    """A journal whose reads end when they are let."""

    def __init__(self) -> None:
        self.logs: dict[str, list[bytes]] = {"a": [b"1", b"2", b"3"], "b": [b"4"]}
        self.reads: Counter[tuple[str, int]] = Counter()
        self.open = asyncio.Event()
        self.fails: list[Exception] = []

    async def read(self, plan_id: str, after_sequence: int) -> Sequence[bytes]:
        found = self.logs.get(plan_id)  # the journal's answer is of when it was asked
        self.reads[plan_id, after_sequence] += 1
        await self.open.wait()
        if self.fails:
            raise self.fails.pop()

        if found is None:
            raise EventsRemovedError(plan_id, 3)

        return found[after_sequence:]


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def pages(slow: Slow) -> Pages:
    return Pages(slow)  # type: ignore[arg-type]


async def readers(pages: Pages, count: int, after: int = 0) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(pages.read("a", after)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_many_are_given_what_is_read_once(slow: Slow, pages: Pages) -> None:
    tasks = await readers(pages, 10)
    slow.open.set()
    assert await asyncio.gather(*tasks) == [[b"1", b"2", b"3"]] * 10
    assert await pages.read("a", 0) is await pages.read("a", 0)
    assert await pages.read("a", 1) == [b"2", b"3"]
    assert slow.reads == {("a", 0): 1, ("a", 1): 1}


async def test_the_end_of_a_log_is_asked_for_anew(slow: Slow, pages: Pages) -> None:
    slow.open.set()
    assert await pages.read("a", 3) == []
    slow.logs["a"] = [*slow.logs["a"], b"5"]
    assert await pages.read("a", 3) == [b"5"]


async def test_the_next_reads_where_one_fails_or_goes_away(slow: Slow, pages: Pages) -> None:
    tasks = await readers(pages, 4)
    tasks[0].cancel()
    await asyncio.sleep(0)
    slow.fails = [JournalError("no")]
    slow.open.set()
    first, second, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, JournalError)
    assert others == [[b"1", b"2", b"3"]] * 2
    assert slow.reads == {("a", 0): 3}


async def test_what_was_removed_is_not_given_from_memory(slow: Slow, pages: Pages) -> None:
    slow.open.set()
    assert await pages.read("a", 0)
    kept = await pages.read("b", 0)
    slow.open.clear()
    [before] = await readers(pages, 1, 1)
    del slow.logs["a"]
    pages.forget(["a"])
    [after] = await readers(pages, 1, 1)
    slow.open.set()
    assert await before == [b"2", b"3"]
    for reading in (after, pages.read("a", 1), pages.read("a", 0)):
        with pytest.raises(EventsRemovedError):
            await reading

    assert await pages.read("b", 0) is kept


async def test_control_without_being_told_it_would_be(slow: Slow, pages: Pages) -> None:
    slow.open.set()
    assert await pages.read("a", 0)
    del slow.logs["a"]
    assert await pages.read("a", 0) == [b"1", b"2", b"3"]


async def test_pages_are_kept_within_bounds(slow: Slow) -> None:
    slow.open.set()
    slow.logs["a"] = [b"x" * 1000] * 5
    pages = Pages(slow, bytes_max=10_000)  # type: ignore[arg-type]
    for after in (2, 3, 4, 2, 0):  # 6.7, 4.6, 2.6 and 10.8 kB
        await pages.read("a", after)

    assert slow.reads == {("a", 2): 2, ("a", 3): 1, ("a", 4): 1, ("a", 0): 1}
    await pages.read("a", 0)
    assert slow.reads["a", 0] == 2


async def test_many_small_pages_count_what_they_take(slow: Slow) -> None:
    slow.open.set()
    slow.logs = {str(number): [b"x"] for number in range(100)}
    pages = Pages(slow, bytes_max=10_000)  # type: ignore[arg-type]
    for plan_id in slow.logs:
        await pages.read(plan_id, 0)

    assert 0 < len(pages._kept) < 20
    pages.clear()
    assert await pages.read("99", 0) == [b"x"]
    assert slow.reads["99", 0] == 2
