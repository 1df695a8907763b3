"""A journal that an older server wrote is brought up to date; what it holds stays what it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw

from autoglm import wire
from autoglm.model import Plan, PlanState
from autoglm_server.journal._schema import APPLICATION_ID, MIGRATIONS
from autoglm_server.journal.journal import Compaction
from autoglm_server.journal.sqlite import SqliteJournal

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDED = START + timedelta(hours=1)


def write_version_1(path: Path) -> None:
    """Write what the server of version 0.1.0 did, by its own tables."""
    db = apsw.Connection(str(path))
    db.execute("PRAGMA journal_mode = wal").fetchall()
    db.execute(MIGRATIONS[0])
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("INSERT INTO meta VALUES('schema_version', '1'), ('journal_id', 'THE-SAME')")
    add = "INSERT INTO plan VALUES(?, ?, 1, '', '', 'ann', ?, '{\"k\":\"v\"}', '', '', 1767225600000000, ?)"
    done = wire.encode(Plan("done", state=PlanState.SUCCEEDED, end_time=ENDED))
    db.execute(add, (1, "done", int(PlanState.SUCCEEDED), done))
    db.execute(add, (2, "open", int(PlanState.RUNNING), wire.encode(Plan("open", state=PlanState.RUNNING))))
    db.execute("INSERT INTO label VALUES('k', 'v', 1), ('k', 'v', 2)")
    db.execute("INSERT INTO request VALUES('', 'ann', 'r1', 'sha256:1', 1)")
    db.execute("INSERT INTO event VALUES(1, 1, 1, x'01'), (2, 2, 1, x'02'), (3, 1, 2, x'03'), (4, 2, 2, x'04')")
    db.close()


async def test_a_journal_of_version_1_goes_on(tmp_path: Path, hand_of: Any) -> None:
    write_version_1(tmp_path / "journal.db")
    journal = SqliteJournal(tmp_path)
    await journal.open()
    try:
        assert journal.journal_id == "THE-SAME"
        assert await journal.read("done", 0) == [b"\1", b"\3"]
        assert [record.position for record in await journal.read_all(0)] == [1, 2, 3, 4]
        assert await journal.find_request("", "ann", "r1") == ("done", "sha256:1")
        row = await journal.get_row("done")
        assert row is not None
        assert row.end_time == ENDED
        assert [one.plan_id for one in await journal.ended_plans(before=ENDED + timedelta(seconds=1))] == ["done"]
        await hand_of(journal).write("open", 3)
        await journal.compact([Compaction("done", 2, b"snapshot")])
        assert await journal.purge(10) == 2
        assert await journal.remove(["done", "open"]) == ["done"]
        assert await journal.open_plans() == ["open"]
        assert len(await journal.read("open", 0)) == 3
    finally:
        await journal.close()

    db = apsw.Connection(str(tmp_path / "journal.db"))
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    assert db.execute("PRAGMA integrity_check").get == "ok"
    db.close()


async def test_numbers_of_what_was_removed_are_not_given_again(tmp_path: Path, hand_of: Any) -> None:
    """A cursor that names a position must not come to stand for another, and an event must not change its plan."""
    journal = SqliteJournal(tmp_path)
    await journal.open()
    hand = hand_of(journal)
    await hand.write("a", 1, 3, row=hand.row("a", PlanState.FAILED, end_time=ENDED))
    await journal.compact([Compaction("a", 3, b"snapshot")])
    await journal.purge(10)
    await journal.remove(["a"])
    await journal.close()
    await journal.open()
    assert await journal.last_position() == await journal.removed_position() == 3
    await hand.write("a", 1)
    assert [(record.position, record.sequence) for record in await journal.read_all(0)] == [(4, 1)]
    db = journal._reader
    assert db.execute("SELECT key FROM plan").get == 2
    await journal.close()
