"""What only the SQLite journal can be asked: durability settings, faults of the disk, locks, versions, permissions."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

import autoglm
import autoglm_server
from autoglm.model import PlanState
from autoglm_server.journal import sqlite
from autoglm_server.journal._commit import ClaimJob, Counters, Head, TaskJob, add_entry_view, ask, commit
from autoglm_server.journal._schema import MIGRATIONS, migrate
from autoglm_server.journal.journal import (
    Append,
    FencedError,
    JournalError,
    JournalFailedError,
    JournalLockedError,
    JournalVersionError,
    Record,
)
from autoglm_server.journal.sqlite import SqliteJournal

ROOTS = [str(Path(package.__path__[0]).parent) for package in (autoglm, autoglm_server)]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(ROOTS)}
"""So that a child process finds what is tested here."""


@pytest.fixture
async def journal(tmp_path: Path, files: Any) -> AsyncIterator[SqliteJournal]:
    """On files that fail when told."""
    journal = SqliteJournal(tmp_path / "data", vfs="failing-files", retry_seconds=0.01)
    await journal.open()
    yield journal
    await journal.close()


def change_of_health(journal: SqliteJournal) -> asyncio.Future[None]:
    changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    journal.on_health = lambda: None if changed.done() else changed.set_result(None)
    return changed


# --- durability


async def test_settings_of_the_connection_that_writes(journal: SqliteJournal) -> None:
    assert journal._writer is not None
    db = journal._writer._db
    assert {name: db.execute(f"PRAGMA {name}").get for name in sqlite.PRAGMAS} == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "temp_store": 2,
        "journal_size_limit": 64 << 20,
        "cache_size": -16384,
    }
    assert db.execute("PRAGMA busy_timeout").get == journal._reader.execute("PRAGMA busy_timeout").get == 5000
    assert journal._reader.readonly("main")


async def test_nothing_is_settled_before_its_commit_is_synced(journal: SqliteJournal, hand: Any, files: Any) -> None:
    await hand.write("a", 1)
    synced = files.synced
    await hand.write("a", 2)
    assert files.synced == synced + 1


async def test_the_order_of_positions_is_that_of_the_array(tmp_path: Path, hand: Any) -> None:
    """What ``commit`` says of positions is what the tables hold, also for many events of many plans."""
    told: list[Record] = []
    hand.journal.on_commit = told.extend
    await asyncio.gather(*[hand.send(f"p{number % 7}", number // 7 + 1) for number in range(500)])
    assert list(await hand.journal.read_all(0)) == told
    assert [record.position for record in told] == list(range(1, 501))


async def test_a_clean_close_leaves_an_empty_wal(tmp_path: Path, journal: SqliteJournal, hand: Any) -> None:
    await hand.write("a", 1, 100)
    assert (tmp_path / "data" / "journal.db-wal").stat().st_size > 0
    await journal.close()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["journal.db", "lock"]
    await journal.close()


async def test_the_wal_is_moved_into_the_database_as_it_grows(
    tmp_path: Path, journal: SqliteJournal, hand: Any
) -> None:
    for first in range(1, 41):
        await hand.write("a", first, size=400_000)

    wal = (tmp_path / "data" / "journal.db-wal").stat().st_size
    assert 1000 * 4096 < wal < 12 << 20


# --- the disk is full


async def test_a_full_disk_is_a_stall_and_nobody_is_told_of_failure(
    journal: SqliteJournal, hand: Any, files: Any
) -> None:
    await hand.write("a", 1)
    changed = change_of_health(journal)
    files.fails = "full"
    outcomes = [hand.send("a", 2), hand.send("b", 1)]
    await changed
    assert "full" in journal.stalled
    assert journal.failure is None
    assert len(await journal.read("a", 0)) == 1
    outcomes.append(hand.send("a", 3))
    tries = files.refused
    while files.refused < tries + 2:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.001)

    assert not any(outcome.done() for outcome in outcomes)
    changed = change_of_health(journal)
    files.fails = ""
    await changed
    assert journal.stalled == ""
    assert await asyncio.gather(*outcomes) == [None, None, None]
    assert [record.plan_id for record in await journal.read_all(0)] == ["a", "a", "b", "a"]


async def test_a_close_does_not_wait_for_a_full_disk(journal: SqliteJournal, hand: Any, files: Any) -> None:
    changed = change_of_health(journal)
    files.fails = "full"
    outcome = hand.send("a", 1)
    await changed
    await journal.close()
    assert isinstance(await outcome, JournalFailedError)
    files.fails = ""
    await journal.open()
    assert await journal.last_sequence("a") is None


# --- the disk fails


async def test_a_failed_sync_fails_everyone_now_and_later(journal: SqliteJournal, hand: Any, files: Any) -> None:
    await hand.write("a", 1)
    changed = change_of_health(journal)
    files.fails = "sync"
    outcomes = [hand.send("a", 2), hand.send("b", 1)]
    for outcome in outcomes:
        assert isinstance(await outcome, JournalFailedError)

    await changed
    assert isinstance(journal.failure, JournalFailedError)
    assert isinstance(journal.failure.__cause__, apsw.IOError)
    files.fails = ""
    assert await hand.send("a", 2) is journal.failure
    with pytest.raises(JournalFailedError):
        await journal.claim(["a"], "me")

    assert len(await journal.read("a", 0)) == 1


async def test_a_failed_sync_of_a_checkpoint_is_not_overlooked(journal: SqliteJournal, hand: Any, files: Any) -> None:
    """SQLite's own checkpoint would hide it, and the next one might find the lost pages gone from the cache as well."""
    changed = change_of_health(journal)
    files.fails = "checkpoint"
    await hand.write("a", 1, 10, size=1 << 20)
    await changed
    assert isinstance(journal.failure, JournalFailedError)


async def test_waiters_are_failed_by_a_bug_too(
    journal: SqliteJournal, hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = hand.row("a", labels={"k": object()})
    outcome: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
    journal.append(Append("a", 1, 1, [b"x"], outcome.set_result, row))
    refusal = await outcome
    assert isinstance(refusal, JournalFailedError)
    assert isinstance(refusal.__cause__, TypeError)


async def test_a_commit_that_fails_halfway_stores_nothing_of_it(tmp_path: Path, hand: Any) -> None:
    db = apsw.Connection(str(tmp_path / "x.db"))
    migrate(db, "x.db")
    add_entry_view(db)
    db.execute("CREATE TRIGGER no BEFORE INSERT ON event WHEN NEW.sequence = 2 BEGIN SELECT raise(ABORT, 'no'); END")
    counters = Counters.of(db)
    jobs = [Append(name, 1, 1, [b"x"] * count, lambda _: None, hand.row(name)) for name, count in (("a", 1), ("b", 3))]
    with pytest.raises(apsw.ConstraintError):
        commit(db, jobs, counters)

    assert not db.in_transaction
    assert counters == Counters.of(db) == Counters(0, 0)
    assert not counters.heads
    assert commit(db, jobs[:1], counters).outcomes == [None]
    assert counters == Counters.of(db) == Counters(1, 1)
    db.close()


async def test_what_is_known_of_plans_is_what_the_tables_say(tmp_path: Path, hand: Any) -> None:
    db = apsw.Connection(str(tmp_path / "x.db"))
    migrate(db, "x.db")
    add_entry_view(db)
    counters = Counters.of(db)

    def append(plan: str, first: int, count: int = 1, *, state: PlanState | None = None, epoch: int = 1) -> Append:
        row = hand.row(plan) if first == 1 else hand.row(plan, state=state) if state else None
        return Append(plan, epoch, first, [b"x"] * count, lambda _: None, row)

    def asked(plans: str) -> dict[str, Head]:
        heads: dict[str, Head] = {}
        ask(db, [append(plan, 1) for plan in plans], heads)
        return heads

    claim: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    steps: list[tuple[list[Any], str, str]] = [
        ([append("a", 1), append("b", 1, 3)], "ab", ""),
        ([append("a", 2, 2), append("a", 4), append("b", 4)], "ab", ""),
        ([append("a", 4)], "b", "fenced"),
        ([append("a", 5), ClaimJob(["a", "c"], "me", claim)], "ab", ""),
        ([append("a", 6)], "b", "fenced"),
        ([append("a", 6, epoch=2)], "ab", ""),
        ([append("b", 5, state=PlanState.SUCCEEDED)], "a", ""),
        ([append("b", 6)], "ab", ""),
        ([TaskJob(lambda db: db.execute("UPDATE plan SET epoch = 7 WHERE id = 'a'"), claim)], "", ""),
        ([append("a", 7, epoch=2)], "", "fenced"),
        ([append("a", 7, epoch=7)], "a", ""),
    ]
    for jobs, known, refused in steps:
        outcomes = commit(db, jobs, counters).outcomes
        assert any(isinstance(outcome, FencedError) for outcome in outcomes) == bool(refused)
        assert set(counters.heads) == set(known)
        assert counters.heads == asked(known)

    db.close()


# --- who has it, what it is


async def test_a_directory_in_use_says_who_has_it(tmp_path: Path) -> None:
    code = f"""
import asyncio
from autoglm_server.journal.sqlite import SqliteJournal
async def main():
    await SqliteJournal({str(tmp_path / "data")!r}, what="autoglm serve").open()
    print("open", flush=True)
    input()
asyncio.run(main())
"""
    with subprocess.Popen(  # noqa: ASYNC220 - it is waited for on purpose
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "open\n"
        journal = SqliteJournal(tmp_path / "data")
        with pytest.raises(JournalLockedError, match=rf"in use by autoglm serve \(process {holder.pid}\).*--data-dir"):
            await journal.open()

        holder.kill()
        holder.wait()
        await journal.open()
        assert json.loads((tmp_path / "data" / "lock").read_text())["pid"] == os.getpid()
        await journal.close()


async def test_a_second_journal_in_this_process_is_refused_too(tmp_path: Path, journal: SqliteJournal) -> None:
    with pytest.raises(JournalLockedError, match=str(os.getpid())):
        await SqliteJournal(tmp_path / "data").open()


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "data")
    await journal.open()
    await journal.close()
    db = apsw.Connection(str(tmp_path / "data" / "journal.db"))
    db.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    db.close()
    with pytest.raises(JournalVersionError, match=rf"version 99 .* up to {len(MIGRATIONS)}: start the newer version"):
        await journal.open()

    db = apsw.Connection(str(tmp_path / "data" / "journal.db"))
    db.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(len(MIGRATIONS)),))
    db.close()
    await journal.open()  # a refused open lets go of the lock
    await journal.close()


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "journal.db"))
    db.execute("CREATE TABLE theirs(a)")
    db.close()
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(JournalError, match="another program's database"):
        await SqliteJournal(tmp_path).open()

    assert (tmp_path / "journal.db").read_bytes() == before


async def test_what_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(JournalError, match=r"journal\.db does not begin as a database"):
        await SqliteJournal(tmp_path).open()


async def test_an_sqlite_that_loses_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(JournalError, match=r"SQLite 3\.51\.2 can lose committed data"):
        await SqliteJournal(tmp_path).open()


async def test_files_are_for_their_owner_alone(tmp_path: Path, journal: SqliteJournal, hand: Any) -> None:
    await hand.write("a", 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "data").iterdir()}
    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600, "lock": 0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


async def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"the data directory .*file/data is a file, or is in one; .*--data-dir"):
        await SqliteJournal(tmp_path / "file" / "data").open()


@pytest.mark.parametrize("content", ["", "journal.db"])
def test_a_read_only_directory_is_named(tmp_path: Path, content: str) -> None:
    """As a user who may not write; root may always."""
    code = f"""
import asyncio, os
from autoglm_server.journal.journal import JournalError
from autoglm_server.journal.sqlite import SqliteJournal
if os.getuid() == 0:
    os.setgroups([]); os.setgid({pwd.getpwnam("nobody").pw_gid}); os.setuid({pwd.getpwnam("nobody").pw_uid})
try:
    asyncio.run(SqliteJournal(".").open())
except JournalError as error:
    print(error)
"""
    if content:
        (tmp_path / content).touch()

    tmp_path.chmod(0o555)
    try:
        told = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=False
        )
    finally:
        tmp_path.chmod(0o755)

    assert "cannot write to the data directory" in told.stdout, told.stderr
    assert "Permission denied; make it writable" in told.stdout


async def test_a_forked_child_cannot_write(journal: SqliteJournal, hand: Any) -> None:
    journal._forks -= 1
    assert isinstance(await hand.send("a", 1), JournalFailedError)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_knows_that_it_was_forked() -> None:
    known = len(sqlite._forked)
    if not (child := os.fork()):
        os._exit(len(sqlite._forked) - known)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert len(sqlite._forked) == known


async def test_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    journal = SqliteJournal(tmp_path)
    await journal.open()
    assert threading.active_count() == before + 2
    await journal.close()
    assert threading.active_count() == before
    with pytest.raises(JournalError, match="closed"):
        await journal.last_position()

    with pytest.raises(JournalFailedError, match="closed"):
        await journal.claim([], "")


async def test_a_busy_loop_does_not_starve_the_writer(journal: SqliteJournal, hand: Any) -> None:
    """A commit is one question and one statement, however much it stores: each one may have to wait for a busy loop."""
    await asyncio.gather(*[hand.send(f"p{number}", 1) for number in range(3)])
    assert journal._writer is not None
    db = journal._writer._db
    counts = []
    for plans in (2, 60):
        statements: list[str] = []
        db.trace_v2(apsw.SQLITE_TRACE_STMT, partial(_note, statements))
        outcomes = [hand.send(f"n{plans}-{number}", 1, 3) for number in range(plans)] + [
            hand.send("p0", plans, epoch=9)
        ]
        refused = (await asyncio.gather(*outcomes))[-1]
        assert isinstance(refused, FencedError)
        counts.append(len(statements))
        db.trace_v2(0, None)

    assert counts == [2, 2]


def _note(statements: list[str], trace: dict[str, Any]) -> None:
    if not trace["trigger"]:
        statements.append(trace["sql"])
