"""The journal's files do not grow without end: the WAL is emptied, and what retention frees is used again."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from autoglm.model import PlanState
from autoglm_server.journal import _writer
from autoglm_server.journal.journal import Compaction, Journal
from autoglm_server.journal.sqlite import SqliteJournal


def wal(tmp_path: Path) -> int:
    return (tmp_path / "journal.db-wal").stat().st_size


async def until_empty(tmp_path: Path) -> None:
    while wal(tmp_path):  # noqa: ASYNC110 - another thread empties it
        await asyncio.sleep(0.005)


async def test_a_lull_empties_the_wal(tmp_path: Path, hand_of: Any) -> None:
    journal = SqliteJournal(tmp_path, idle_seconds=0.02)
    await journal.open()
    hand = hand_of(journal)
    await hand.write("a", 1, 100)
    await until_empty(tmp_path)
    for first in range(101, 111):
        await hand.write("b" + str(first), 1, size=500_000)  # so much that the last commit is moved at once

    await until_empty(tmp_path)
    await hand.write("a", 101)
    assert len(await journal.read("a", 0)) == 101
    await journal.close()


async def test_without_a_lull_it_is_not_emptied(tmp_path: Path, hand_of: Any) -> None:
    """The control."""
    journal = SqliteJournal(tmp_path, idle_seconds=3600.0)
    await journal.open()
    await hand_of(journal).write("a", 1, 100)
    await asyncio.sleep(0.1)
    assert wal(tmp_path) > 0
    await journal.close()


async def test_a_wal_that_a_reader_holds_is_told_of_and_cut_back_when_it_lets_go(
    tmp_path: Path, hand_of: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_writer, "_CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(_writer, "_WAL_PAGES_MAX", 100)
    monkeypatch.setattr(_writer, "_ASK_BYTES", 100_000)
    caplog.set_level(logging.WARNING)
    journal = SqliteJournal(tmp_path, idle_seconds=0.05)
    await journal.open()
    hand = hand_of(journal)
    await hand.write("a", 1)
    reader = apsw.Connection(str(tmp_path / "journal.db"), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN; SELECT count(*) FROM event").fetchall()
    for sequence in range(2, 12):
        await hand.write("a", sequence, size=100_000)

    assert wal(tmp_path) > 200 * 4096
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a reader holds it" in caplog.text
    reader.close()
    await hand.write("a", 12)
    await until_empty(tmp_path)
    await journal.close()


async def test_a_wal_that_has_its_size_from_the_beginning_keeps_it_and_loses_nothing(
    tmp_path: Path, hand_of: Any
) -> None:
    live = tmp_path / "live"
    journal = SqliteJournal(live, idle_seconds=0.02, wal_bytes=1 << 20)
    await journal.open()
    hand = hand_of(journal)
    before = (live / "journal.db").stat().st_size
    await hand.write("a", 1, 100, size=1000)
    shutil.copytree(live, tmp_path / "before a lull")
    while (live / "journal.db").stat().st_size == before:  # noqa: ASYNC110 - another thread moves it
        await asyncio.sleep(0.005)

    shutil.copytree(live, tmp_path / "after it")
    await hand.write("a", 101, 1)
    shutil.copytree(live, tmp_path / "begun anew")
    assert wal(live) == 1 << 20
    await journal.close()
    assert not (live / "journal.db-wal").exists()
    for left, events in (("before a lull", 100), ("after it", 100), ("begun anew", 101)):
        found = SqliteJournal(tmp_path / left, wal_bytes=1 << 20)
        await found.open()
        assert not found.damaged, left
        assert len(await found.read("a", 0)) == events
        await hand_of(found).write("a", events + 1)
        await found.close()


@pytest.mark.parametrize("swept", [True, False])
async def test_what_retention_frees_is_used_again(tmp_path: Path, hand_of: Any, *, swept: bool) -> None:
    """Counted in pages of the database: flat when plans go as others come; the control keeps them all."""
    journal = SqliteJournal(tmp_path, idle_seconds=3600.0)
    await journal.open()
    hand = hand_of(journal)
    pages: list[int] = []
    for generation in range(12):
        for number in range(5):
            await end(hand, f"{generation}-{number}")

        if swept and generation:
            await remove_oldest(journal, 5)

        pages.append(await journal._read(lambda db: int(db.execute("PRAGMA page_count").get)))

    grown = pages[-1] / pages[2]
    assert grown < 1.1 if swept else grown > 3
    await journal.close()


async def end(hand: Any, name: str) -> None:
    row = hand.row(name, PlanState.SUCCEEDED, end_time=hand.start, labels={"name": name})
    await hand.write(name, 1, 40, row=row, size=700)


async def remove_oldest(journal: Journal, count: int) -> None:
    plans = await journal.ended_plans(limit=count)
    await journal.compact([Compaction(plan.plan_id, plan.sequence, b"s" * 2000) for plan in plans])
    while await journal.purge(25):
        pass

    await journal.remove([plan.plan_id for plan in await journal.ended_plans(compacted=True)])
