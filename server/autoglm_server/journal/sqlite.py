"""The journal on SQLite: one file, one process, durable when told.

One connection writes and checkpoints (the writer's thread), a second one reads (the reader's thread). The loop collects what
is appended in one pass, and in the passes after it while each brings more, and hands it over at once.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from autoglm_server.journal import _read, _retain
from autoglm_server.journal._commit import ClaimJob, Commit, Counters, Job, TaskJob, add_entry_view
from autoglm_server.journal._file import add_checksums, check, damage_of, is_damage, look, reserve_wal
from autoglm_server.journal._lock import DirectoryLock
from autoglm_server.journal._schema import identify, migrate, refuse_others
from autoglm_server.journal._settle import settle
from autoglm_server.journal._writer import BUSY_MS, IDLE_SECONDS, Runner, Work, Writer, WriterThread
from autoglm_server.journal.journal import (
    Append,
    Claim,
    Compaction,
    Ended,
    JournalDamagedError,
    JournalError,
    JournalFailedError,
    PlanPage,
    PlanQuery,
    PlanRow,
    Record,
)

_T = TypeVar("_T")
_forked: list[None] = []
"""As many as the forks that this process came by."""

if hasattr(os, "register_at_fork"):  # asked of the system, who one is takes as long as all else of an append
    os.register_at_fork(after_in_child=partial(_forked.append, None))

FILE = "journal.db"
WAL_BYTES = 4 << 20
"""What a server's WAL has from the beginning: as much as it would grow to before it is moved into the database."""

GATHER_SECONDS = 0.005
"""How long at most what is appended waits for more, on a loop so busy that each pass brings more. A commit costs the loop the
interpreter's lock a few times, however much it has; a loop that has nothing else hands over at once."""

_SQLITE_MIN = (3, 51, 3)
"""Before it, two connections could lose committed transactions when the WAL was reset."""

PRAGMAS = {
    "journal_mode": "wal",  # readers do not stop the writer, and a commit is one write and one fsync
    "synchronous": 2,  # FULL: an fsync at every commit. NORMAL lost acknowledged events in power cuts
    "foreign_keys": 1,  # no event, label or request without its plan
    "trusted_schema": 0,  # a file from elsewhere cannot make SQLite call functions
    "temp_store": 2,  # MEMORY: no files beside the data directory
    "journal_size_limit": 64 << 20,  # bytes; a WAL that grew under a long read is cut back
    "cache_size": -16384,  # KiB; the ends of the indexes of live plans stay in memory
}
"""How the writing connection is set up."""


class SqliteJournal:
    """A :class:`~autoglm_server.journal.journal.Journal` in ``<data directory>/journal.db``."""

    def __init__(
        self,
        data_dir: Path | str,
        *,
        what: str = "an AutoGLM server",
        vfs: str | None = None,
        retry_seconds: float = 1.0,
        idle_seconds: float = IDLE_SECONDS,
        wal_bytes: int = 0,
        runner: Callable[[Work], Runner] = WriterThread,
    ) -> None:
        """Name the data directory, which is made if need be.

        Args:
            data_dir: the directory; this process alone has it while the journal is open.
            what: tells a process that finds the directory in use what uses it.
            vfs: the SQLite VFS to go through; the system's own by default.
            retry_seconds: how long to wait between tries while the disk is full.
            idle_seconds: how long nothing is written before all of the WAL is moved into the database.
            wal_bytes: the size that the WAL has from the beginning, and keeps; a sync is quicker where the file does not grow.
            runner: what lets the writer go on beside the loop; a thread of its own by default.
        """
        self.on_commit: Callable[[Sequence[Record]], None] = lambda _: None
        self.on_health: Callable[[], None] = lambda: None
        self._directory = Path(data_dir)
        self._what = what
        self._vfs = vfs
        self._retry_seconds = retry_seconds
        self._idle_seconds = idle_seconds
        self._wal_bytes = wal_bytes
        self._runner = runner
        self._journal_id = ""
        self._stalled = ""
        self._failure: JournalFailedError | None = None
        self._damage: JournalDamagedError | None = None
        self._turn: list[Job] = []
        self._since = 0.0
        self._handed: deque[tuple[int, float]] = deque()  # jobs that are not settled, and since when
        self._forks = 0
        self._writer: Writer | None = None

    @property
    def journal_id(self) -> str:
        return self._journal_id

    @property
    def stalled(self) -> str:
        return self._stalled

    @property
    def failure(self) -> JournalFailedError | None:
        return self._failure

    @property
    def damaged(self) -> str:
        return str(self._damage or "")

    @property
    def delay(self) -> float:
        return self._loop.time() - self._handed[0][1] if self._handed else 0.0

    async def open(self) -> None:
        """Open or create, and migrate.

        Raises:
            JournalLockedError: another process has the directory.
            JournalVersionError: a newer version of the server wrote the file.
            JournalDamagedError: nothing can be read any more.
            JournalError: the directory or file cannot be used, with the reason and the remedy.
        """
        self._loop = asyncio.get_running_loop()
        self._forks = len(_forked)
        self._damage = None
        self._turn, self._stalled, self._failure = [], "", None
        self._handed.clear()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal-reader")
        try:
            db, counters = await self._loop.run_in_executor(self._executor, self._open)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise

        self._stopped = asyncio.Event()
        self._writer = Writer(
            db,
            counters,
            retry_seconds=self._retry_seconds,
            idle_seconds=self._idle_seconds,
            reserve=self._reserve_wal if self._wal_bytes else None,
            tell=self._tell,
            on_commit=self._committed,
            on_health=self._health_changed,
            on_damage=self._harmed,
            on_stopped=self._stopped.set,
            runner=self._runner,
        )
        self._writer.harm(self._damage)
        self._writer.start()

    def _reserve_wal(self) -> None:
        reserve_wal(self._directory / FILE, self._wal_bytes)

    def _open(self) -> tuple[apsw.Connection, Counters]:
        self._damage = None
        version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
        if version < _SQLITE_MIN:
            raise JournalError(
                f"SQLite {apsw.sqlite_lib_version()} can lose committed data; "
                f"install apsw's own build, with {'.'.join(map(str, _SQLITE_MIN))} or later"
            )

        self._lock = DirectoryLock(self._directory, self._what)
        path = self._directory / FILE
        try:
            return self._open_file(path)
        except BaseException as error:
            self._lock.release()
            if is_damage(error):
                raise damage_of(error) from error

            if isinstance(error, (apsw.Error, OSError)):
                raise JournalError(
                    f"cannot open the journal {path}: {error}; make it readable and writable for this user, or restore a backup"
                ) from error

            raise

    def _open_file(self, path: Path) -> tuple[apsw.Connection, Counters]:
        if not path.exists():
            self._create(path)

        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        found = look(path)
        db = self._connect(path, apsw.SQLITE_OPEN_READWRITE)
        try:
            try:
                check(db, found, str(path))
            except JournalDamagedError as damaged:  # an end is missing, and what is left can be read
                self._only_read(db, damaged)
                self._journal_id = identify(db, str(path))
            else:
                refuse_others(db, str(path))
                for name, value in PRAGMAS.items():
                    db.execute(f"PRAGMA {name} = {value}")

                self._journal_id = migrate(db, str(path))
                add_checksums(db)
                add_entry_view(db)

            self._reader = self._connect(path, apsw.SQLITE_OPEN_READONLY)
            self._reader.execute("PRAGMA trusted_schema = 0")
            try:
                counters = Counters.of(db)
            except apsw.Error as error:
                if not is_damage(error):
                    raise

                self._only_read(db, error)
                counters = Counters(0, 0)  # nothing is written any more, so nobody is given a number
        except BaseException:
            db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # what is there stays as it is
            db.close()
            raise

        return db, counters

    def _only_read(self, db: apsw.Connection, damage: BaseException) -> None:
        """Leave the file as it is: something of it is damaged, and the rest is served."""
        self._damage = self._damage or damage_of(damage)
        db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)

    def _create(self, path: Path) -> None:
        """Make the file whole under another name: one that is empty, or lacks its beginning, was damaged."""
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise JournalDamagedError(f"{path} is gone, and {wal.name} is there")

        new = path.with_name(path.name + ".new")
        for leftover in (new, new.with_name(new.name + "-journal")):
            leftover.unlink(missing_ok=True)

        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))  # the WAL takes over the mode
        db = self._connect(new, apsw.SQLITE_OPEN_READWRITE)
        try:
            add_checksums(db)
            migrate(db, str(path))
        finally:
            db.close()

        new.rename(path)
        for directory in (self._directory, self._directory.parent):
            _sync_directory(directory)  # or a power cut could take the new file's name with it

    def _connect(self, path: Path, flags: int) -> apsw.Connection:
        db = apsw.Connection(str(path), flags=flags, vfs=self._vfs)
        db.set_busy_timeout(BUSY_MS)  # closing the last connection locks for a moment
        return db

    async def close(self) -> None:
        """Make durable what was handed over, and let go. What a full disk does not take is refused."""
        if self._writer is None:
            return

        writer, self._writer = self._writer, None
        if self._turn:
            writer.put(self._turn)
            self._turn = []

        await self._loop.run_in_executor(self._executor, self._reader.close)  # first, so that the WAL can be emptied
        writer.stop()
        await self._stopped.wait()
        writer.join()
        self._executor.shutdown()
        self._lock.release()

    def append(self, append: Append) -> None:
        if self._writer is None or len(_forked) != self._forks:
            refusal = JournalFailedError(
                "the journal is closed" if self._writer is None else "the journal does not survive a fork"
            )
            asyncio.get_running_loop().call_soon(settle, append, refusal)
            return

        if self._damage is not None:
            asyncio.get_running_loop().call_soon(settle, append, self._damage)
            return

        self._submit(append)

    async def claim(self, plan_ids: Sequence[str], owner: str) -> Sequence[Claim]:
        if self._writer is None:
            raise JournalFailedError("the journal is closed")

        if self._damage is not None:
            raise self._damage

        job = ClaimJob(plan_ids, owner, self._loop.create_future())
        self._submit(job)
        return await job.claims

    async def _task(self, run: Callable[[apsw.Connection], _T]) -> _T:
        """Have the writer run statements as a part of its next commit."""
        if self._writer is None:
            raise JournalFailedError("the journal is closed")

        if self._damage is not None:
            raise self._damage

        job = TaskJob(run, self._loop.create_future())
        self._submit(job)
        done: _T = await job.done
        return done

    def _submit(self, job: Job) -> None:
        if not self._turn:
            self._since = self._loop.time()
            self._loop.call_soon(self._gather, 0)

        self._turn.append(job)

    def _gather(self, before: int) -> None:
        """Hand over what the passes have brought, unless the last one brought more than there was ``before``."""
        jobs = len(self._turn)
        if jobs > max(before, 1) and self._loop.time() < self._since + GATHER_SECONDS:
            self._loop.call_soon(self._gather, jobs)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._turn and self._writer is not None:
            self._handed.append((len(self._turn), self._since))
            self._writer.put(self._turn)
            self._turn = []

    def _tell(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call)

    def _committed(self, commit: Commit) -> None:
        self._note_settled(len(commit.jobs))
        if commit.records:
            self.on_commit(commit.records)

        for job, outcome in zip(commit.jobs, commit.outcomes, strict=True):
            if isinstance(job, Append):
                assert outcome is None or isinstance(outcome, JournalError)
                settle(job, outcome)
                continue

            waiter: asyncio.Future[Any] = job.claims if isinstance(job, ClaimJob) else job.done
            if waiter.done():
                continue

            if isinstance(outcome, JournalError):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)

    def _note_settled(self, count: int) -> None:
        """Take the oldest off what has been handed over: the writer keeps the order, if not the cuts."""
        while count and self._handed:
            jobs, since = self._handed.popleft()
            if jobs > count:
                self._handed.appendleft((jobs - count, since))

            count -= min(jobs, count)

    def _health_changed(self, stalled: str, failure: JournalFailedError | None) -> None:
        self._stalled, self._failure = stalled, failure
        self.on_health()

    def _harmed(self, error: Exception) -> None:
        """Write nothing any more: what is stored is not what was written."""
        if self._damage is None:
            self._damage = damage_of(error)
            if self._writer is not None:
                self._writer.harm(self._damage)

            self.on_health()

    async def _read(self, call: Callable[[apsw.Connection], _T]) -> _T:
        if self._writer is None:
            raise JournalError("the journal is closed")

        try:
            return await self._loop.run_in_executor(self._executor, call, self._reader)
        except (apsw.Error, JournalDamagedError) as error:
            if is_damage(error):
                self._harmed(error)
                raise damage_of(error) from error

            raise JournalError(f"reading the journal failed: {type(error).__name__}: {error}") from error

    async def open_plans(self) -> Sequence[str]:
        return await self._read(_read.open_plans)

    async def open_children(self) -> Mapping[str, str]:
        return await self._read(_read.open_children)

    async def read(
        self, plan_id: str, after_sequence: int, *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[bytes]:
        return await self._read(lambda db: _read.read(db, plan_id, after_sequence, limit, bytes_max))

    async def read_starts(
        self, plan_ids: Sequence[str], *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[Sequence[bytes]]:
        return await self._read(lambda db: _read.read_starts(db, plan_ids, limit, bytes_max))

    async def last_sequence(self, plan_id: str) -> int | None:
        return await self._read(lambda db: _read.last_sequence(db, plan_id))

    async def read_all(self, after_position: int, *, limit: int = 500, bytes_max: int = 1 << 20) -> Sequence[Record]:
        return await self._read(lambda db: _read.read_all(db, after_position, limit, bytes_max))

    async def last_position(self) -> int:
        return await self._read(_read.last_position)

    async def removed_position(self) -> int:
        return await self._read(_read.removed_position)

    async def get_row(self, plan_id: str) -> PlanRow | None:
        return await self._read(lambda db: _read.get_row(db, plan_id))

    async def get_snapshot(self, plan_id: str) -> bytes | None:
        return await self._read(lambda db: _retain.get_snapshot(db, plan_id))

    async def list_rows(self, query: PlanQuery) -> PlanPage:
        return await self._read(lambda db: _read.list_rows(db, query))

    async def find_request(self, tenant: str, principal: str, request_id: str) -> tuple[str, str] | None:
        return await self._read(lambda db: _read.find_request(db, tenant, principal, request_id))

    async def ended_plans(
        self, *, before: datetime | None = None, compacted: bool = False, limit: int = 100
    ) -> Sequence[Ended]:
        return await self._read(lambda db: _retain.ended_plans(db, before, limit, compacted=compacted))

    async def count_ended(self, *, compacted: bool) -> int:
        return await self._read(lambda db: _retain.count_ended(db, compacted=compacted))

    async def compact(self, compactions: Sequence[Compaction]) -> None:
        await self._task(lambda db: _retain.compact(db, compactions))

    async def purge(self, limit: int) -> int:
        return await self._task(lambda db: _retain.purge(db, limit))

    async def remove(self, plan_ids: Sequence[str]) -> Sequence[str]:
        return await self._task(lambda db: _retain.remove(db, plan_ids))


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
