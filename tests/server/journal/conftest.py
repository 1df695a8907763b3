"""Journals to test, a writer of appends for them, and a file system that fails when told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest

from autoglm.model import PlanState
from autoglm_server.journal.journal import Append, Journal, JournalError, PlanRow, RequestKey
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.journal.sqlite import SqliteJournal


class Hand:
    """Appends to a journal as a scheduler would, and waits for the outcome."""

    start = datetime(2026, 1, 1, tzinfo=UTC)

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def row(self, plan_id: str, state: PlanState = PlanState.RUNNING, *, minute: int = 0, **fields: object) -> PlanRow:
        values: dict[str, object] = {
            "tenant": "",
            "principal": "ann",
            "labels": {},
            "context_id": "",
            "parent_plan_id": "",
            "create_time": self.start + timedelta(minutes=minute),
            "body": f"{plan_id} is {state.name}".encode(),
        }
        return PlanRow(plan_id=plan_id, state=state, **{**values, **fields})  # type: ignore[arg-type]

    def send(
        self,
        plan_id: str,
        first_sequence: int,
        count: int = 1,
        *,
        epoch: int = 1,
        row: PlanRow | None = None,
        key: RequestKey | None = None,
        size: int = 20,
    ) -> asyncio.Future[JournalError | None]:
        """Hand over, and give what it will be settled with."""
        outcome: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
        bodies = [
            f"{plan_id} {number} ".encode().ljust(size, b"\0")
            for number in range(first_sequence, first_sequence + count)
        ]
        if first_sequence == 1 and row is None:
            row = self.row(plan_id)

        self.journal.append(Append(plan_id, epoch, first_sequence, bodies, outcome.set_result, row, key))
        return outcome

    async def write(self, plan_id: str, first_sequence: int, count: int = 1, **how: object) -> None:
        """Append and expect it to become durable."""
        assert await self.send(plan_id, first_sequence, count, **how) is None  # type: ignore[arg-type]


class FailingFiles(apsw.VFS):
    """The machine's file system, until ``fails`` is set: ``full`` refuses writes as a full disk does, ``sync`` fails fsync,
    ``checkpoint`` fails it for the database alone.
    """

    def __init__(self, name: str) -> None:
        self.fails = ""
        self.synced = 0
        self.refused = 0
        super().__init__(name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _FailingFile:
        return _FailingFile(self, name, flags)


class _FailingFile(apsw.VFSFile):
    def __init__(self, files: FailingFiles, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._files = files
        self._is_database = bool(apsw.SQLITE_OPEN_MAIN_DB & flags[0])
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._files.fails == "full":
            self._files.refused += 1
            raise apsw.FullError("the test says the disk is full")

        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._files.fails == "sync" or (self._files.fails == "checkpoint" and self._is_database):
            raise apsw.IOError("the test says fsync failed")

        self._files.synced += 1
        super().xSync(flags)


@pytest.fixture
def files() -> Iterator[FailingFiles]:
    failing = FailingFiles("failing-files")
    yield failing
    failing.unregister()


@pytest.fixture(params=["memory", "sqlite"])
def make_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Journal]:
    """Makes the journal of the test, closed."""
    return MemoryJournal if request.param == "memory" else lambda: SqliteJournal(tmp_path / "data")


@pytest.fixture
async def journal(make_journal: Callable[[], Journal]) -> AsyncIterator[Journal]:
    journal = make_journal()
    await journal.open()
    yield journal
    await journal.close()


@pytest.fixture
def hand(journal: Journal) -> Hand:
    return Hand(journal)


@pytest.fixture
def hand_of() -> type[Hand]:
    return Hand
