"""The real SQLite journal in the simulated world: its files on platters that lose what was not synced, its writer on the loop.

A process that ends leaves what it had written (``kill -9``) or, when the power is cut, what was synced and some of the rest,
whole or torn. The next process finds that in a folder of its own, so nothing of the dead one can reach it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import apsw

from autoglm_server.journal import _writer
from autoglm_server.journal._commit import Counters
from autoglm_server.journal._writer import Pause, Runner, Work
from autoglm_server.journal.journal import (
    Append,
    Compaction,
    Journal,
    JournalError,
    JournalFailedError,
    JournalLockedError,
    Record,
)
from autoglm_server.journal.sqlite import SqliteJournal
from tests.reliability.disks import WAL_BYTES, PowerFiles, Reserved, carry_out
from tests.reliability.loop import Killed, Process

if TYPE_CHECKING:
    from tests.reliability.world import Stall, Stored, World

CHECKPOINT_PAGES: Final = (6, 60, 1000)
"""How far the WAL grows in a world: few pages, so that it is moved and begun anew under the plans of one run as well."""
WITH_EVENTS: Final = 2
"""What the column ``kept`` of a plan says until retention takes its events."""
WRITES_OF_A_COMMIT: Final = 24
"""About; a process that ends while it writes does so at one of them."""


class Platters(PowerFiles):
    """The files of all processes of one world, kept in memory as far as they are synced; no real disk is waited for."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.unread = False
        """Whether every read fails."""
        self.refused: Callable[[], None] = lambda: None
        """Is told of each."""
        self.writes_left = 0
        """After so many writes or syncs, ``dies`` is called; 0 for never."""
        self.dies: Callable[[], None] = lambda: None

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _Platter(self, name, flags)

    def remains(self, folder: Path, *, power_cut: bool) -> dict[str, bytes]:
        """Give the files that are there after the process that wrote into ``folder`` has ended."""
        paths = [path for path in {**self.synced, **self.pending} if Path(path).parent == folder]
        there = [path for path in sorted(folder.glob("*.db*")) if not path.name.endswith("-shm")]
        found = {path.name: path.read_bytes() for path in there if str(path) not in paths}  # it was not opened
        for path in sorted(paths):
            image = bytearray(self.synced.get(path, b""))
            for operation in self.pending.get(path, ()):
                fate = self.random.choice(["kept", "lost", "lost", "torn"]) if power_cut else "kept"
                if fate != "lost":
                    carry_out(image, operation, torn=fate == "torn")

            found[Path(path).name] = bytes(image)

        for path in paths:  # nobody comes back to them
            self.synced.pop(path, None)
            self.pending.pop(path, None)

        return found

    def count(self) -> None:
        """Count a write or a sync, which may be the process's last."""
        if self.writes_left:
            self.writes_left -= 1
            if not self.writes_left:
                self.dies()


class _Platter(apsw.VFSFile):
    """As the files of :mod:`tests.reliability.disks`, without a thread beside, and without syncing anything real."""

    def __init__(self, files: Platters, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._files = files
        self._path = path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        there = Path(path)
        if path not in files.synced and path not in files.pending and there.exists():
            files.synced[path] = bytearray(there.read_bytes())

        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._files.unread:
            self._files.refused()
            raise apsw.IOError("the disk does not read")

        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        files = self._files
        if files.fails == "full":
            files.failures += 1
            raise apsw.FullError("the disk is full")

        if files.fails == "write":
            files.failures += 1
            raise apsw.IOError("the disk does not write")

        super().xWrite(data, offset)
        files.pending.setdefault(self._path, []).append((offset, data))
        files.count()

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        self._files.pending.setdefault(self._path, []).append((newsize, None))

    def xSync(self, flags: int) -> None:
        files = self._files
        if files.fails == "sync":
            files.failures += 1
            raise apsw.IOError("the disk does not sync")

        image = files.synced.setdefault(self._path, bytearray())
        for operation in files.pending.pop(self._path, ()):
            carry_out(image, operation)

        files.count()


class LoopRunner:
    """Runs a writer's work on the loop's own thread: it takes what there is, and is done with it at a seeded moment."""

    def __init__(self, journal: SimSqliteJournal, work: Work) -> None:
        self._journal = journal
        self._world = journal.world
        self._work = work
        self._handed: list[Sequence[Any]] = []
        self._pause: Pause | None = None
        """None while the writer is at work."""
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False

    def start(self) -> None:
        self._rest(next(self._work))

    def put(self, jobs: Sequence[Any]) -> None:
        self._handed.append(jobs)
        if self._pause is not None and not self._pause.deaf:
            self._wake()

    def stop(self) -> None:
        self._ending = True
        if self._pause is not None:
            self._wake()

    def join(self) -> None:
        """There is no thread to wait for."""

    def _rest(self, pause: Pause) -> None:
        self._pause = pause
        if self._ending or pause.seconds == 0 or (self._handed and not pause.deaf):
            self._wake()
        elif pause.seconds is not None:
            self._timer = self._world.loop.call_later(pause.seconds, self._wake)

    def _wake(self) -> None:
        """Take what has been handed over, and be done with it in a moment."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        self._pause = None
        handed, self._handed = self._handed, []
        self._world.loop.call_later(self._world.commit_seconds(), self._go_on, handed)

    def _go_on(self, handed: Sequence[Sequence[Any]]) -> None:
        self._world.point("commit")
        try:
            with self._journal.writing():
                pause = self._work.send(handed)
        except StopIteration:
            return

        self._rest(pause)


class SimSqliteJournal(Reserved):
    """The product's journal, with the named points at which its process may end."""

    def __init__(self, platters: SqliteDisk, process: Process, folder: Path, *, wal_bytes: int = 0) -> None:
        self.files = platters.files
        self.world = platters.world
        self.told: Callable[[Sequence[Record]], None] = lambda _: None
        self._platters = platters
        self._process = process
        self._connections: list[apsw.Connection] = []
        self._stall: Stall | None = None
        self._locked = False
        super().__init__(folder, vfs=platters.files.name, wal_bytes=wal_bytes, runner=self._runs)

    def _runs(self, work: Work) -> Runner:
        return LoopRunner(self, work)

    @property
    def on_commit(self) -> Callable[[Sequence[Record]], None]:
        return self._commit_told

    @on_commit.setter
    def on_commit(self, told: Callable[[Sequence[Record]], None]) -> None:
        self.told = told

    async def open(self) -> None:
        await super().open()
        self._platters.note_found(self._position)

    @property
    def _position(self) -> int:
        return self._writer._counters.position if self._writer is not None else 0

    def _open(self) -> tuple[apsw.Connection, Counters]:
        opened = super()._open()
        self._locked = True
        return opened

    def _connect(self, path: Path, flags: int) -> apsw.Connection:
        db = super()._connect(path, flags)
        self._connections.append(db)
        return db

    def append(self, append: Append) -> None:
        world = self.world
        world.point("append")
        self._platters.note_handed(append)
        settled = append.settled

        def pointed(refusal: JournalError | None) -> None:
            world.point("acknowledge")
            settled(refusal)
            world.point("acknowledged")

        append.settled = pointed
        super().append(append)

    async def compact(self, compactions: Sequence[Compaction]) -> None:
        self.world.note_meant(one.plan_id for one in compactions)
        await super().compact(compactions)

    async def _task(self, run: Callable[[apsw.Connection], Any]) -> Any:
        """Note what retention takes, as the database itself shows it within the transaction."""
        self.world.point("sweep")
        done = await super()._task(lambda db: self._noted(db, run))
        self.world.point("swept")
        return done

    def _noted(self, db: apsw.Connection, run: Callable[[apsw.Connection], Any]) -> Any:
        before, done, after = _plans(db), run(db), _plans(db)
        for plan_id, (key, kept) in before.items():
            if kept == WITH_EVENTS and plan_id in after and after[plan_id][1] != WITH_EVENTS:
                self.world.note_taken(self._process, plan_id, self._platters.stored(db, plan_id, key))

            if plan_id not in after:
                self.world.note_removed(self._process, plan_id)

        return done

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let the writer go on for a while, in which its process may end."""
        world, files = self.world, self._platters.files
        before = self._position
        if world.chance(world.faults.crash):
            files.writes_left = world.random.randint(1, WRITES_OF_A_COMMIT)

        files.dies = self._die
        try:
            yield
        finally:
            files.writes_left = 0

        if self._process.dead:
            raise Killed

        self._platters.note_durable(before, self._position)

    def _die(self) -> None:
        self.world.end(next(one for one in self.world.servers if one.process is self._process), "writing")

    def _commit_told(self, records: Sequence[Record]) -> None:
        self.world.point("committed")
        self.told(records)
        self.world.point("told")

    def _health_changed(self, stalled: str, failure: JournalFailedError | None) -> None:
        if self._stall is not None:
            self._stall.over()
            self._stall = None

        if stalled:
            self._stall = self.world.stall(self._process)

        super()._health_changed(stalled, failure)
        if failure is not None:
            self.world.loop.call_later(0.01, self.world.point, "broken")

    def let_go(self) -> None:
        """Close what its process left open, and leave its files alone."""
        for db in self._connections:
            with suppress(apsw.ConnectionClosedError):
                db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                db.close()

        if self._locked:
            self._lock.release()


def _plans(db: apsw.Connection) -> dict[str, tuple[int, int]]:
    """Give every plan's key, and what is kept of it."""
    return {str(plan_id): (int(key), int(kept)) for plan_id, key, kept in db.execute("SELECT id, key, kept FROM plan")}


class _Idle:
    """Runs the work of a writer to whom nothing is handed over."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def start(self) -> None:
        next(self._work)

    def put(self, jobs: Sequence[Any]) -> None:
        raise AssertionError("who only reads appends nothing")

    def stop(self) -> None:
        with suppress(StopIteration):
            while True:
                self._work.send(())

    def join(self) -> None: ...


class SqliteDisk:
    """What outlives the processes: the platters, and what the checker is told of how they came to hold it."""

    shared = False
    """Nobody takes over while a process is there, even if it stands still: the data directory is locked."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self._random = random
        self._folder = tempfile.TemporaryDirectory(prefix="autoglm-world-", dir=_memory())
        self._number = 0
        self._full = self._broken = False
        self.files = Platters(random)
        self.files.refused = lambda: world.history.fault("read refused")
        self._journals: list[SimSqliteJournal] = []
        self._durable_at: dict[int, int] = {}
        self._epochs: dict[tuple[str, int, bytes], int] = {}
        self.taken: dict[str, list[Stored]] = {}

    @property
    def full(self) -> bool:
        return self._full

    @full.setter
    def full(self, full: bool) -> None:
        self._full = full
        self._fail()

    @property
    def broken(self) -> bool:
        return self._broken

    @broken.setter
    def broken(self, broken: bool) -> None:
        self._broken = broken
        self._fail()

    @property
    def unread(self) -> bool:
        return self.files.unread

    @unread.setter
    def unread(self, unread: bool) -> None:
        self.files.unread = unread

    def _fail(self) -> None:
        files = self.files
        files.fails = self._random.choice(["write", "sync"]) if self._broken else "full" if self._full else ""

    def journal(self, process: Process) -> SimSqliteJournal:
        """Give a process the journal in the folder that is now the disk's."""
        # every other process reserves; the one after it finds a WAL with such an end
        journal = SimSqliteJournal(self, process, self._current, wal_bytes=WAL_BYTES * (self._number % 2))
        self._journals.append(journal)
        return journal

    @property
    def _current(self) -> Path:
        return Path(self._folder.name) / str(self._number)

    def ended(self) -> None:
        """A process has ended: the next one finds what remains."""
        power_cut = self._random.random() < 0.5
        if power_cut:
            self.world.history.fault("power cut")

        remains = self.files.remains(self._current, power_cut=power_cut)
        self._number += 1
        self._current.mkdir(mode=0o700)
        for name, image in remains.items():
            (self._current / name).write_bytes(image)

    # --- what the checker is told

    def note_handed(self, append: Append) -> None:
        for number, body in enumerate(append.bodies, append.first_sequence):
            self._epochs[append.plan_id, number, body] = append.epoch

    def note_durable(self, before: int, position: int) -> None:
        """What stands after ``before``, up to ``position``, has been committed just now."""
        if position > before:
            tick = self.world.tick()
            self.world.trace("durable", position)
            for one in range(before + 1, position + 1):
                self._durable_at[one] = tick

    def note_found(self, position: int) -> None:
        """A process found so much when it began: what the one before had not been told of is durable as well."""
        tick = self.world.tick()
        for one in range(1, position + 1):
            self._durable_at.setdefault(one, tick)

        for one in [later for later in self._durable_at if later > position]:
            del self._durable_at[one]

    @asynccontextmanager
    async def log(self) -> AsyncIterator[tuple[Journal, Iterable[tuple[str, Stored]]]]:
        """Cut the power for the last time, and read what is there.

        Raises:
            JournalError: nothing can be read of it.
        """
        self.full = self.broken = self.unread = False
        self.ended()
        journal = SqliteJournal(self._current, vfs=self.files.name, runner=_Idle)
        await journal.open()
        found: list[tuple[str, Stored]] = []
        try:
            position = 0
            while records := await journal.read_all(position):
                found += [
                    (one.plan_id, self._stored(one.plan_id, one.position, one.sequence, one.body)) for one in records
                ]
                position = records[-1].position

            yield journal, found
        finally:
            await journal.close()

    def stored(self, db: apsw.Connection, plan_id: str, key: int) -> list[Stored]:
        """Give the events that a database holds of a plan."""
        events = db.execute("SELECT id, sequence, body FROM event WHERE plan = ? ORDER BY sequence", (key,))
        return [self._stored(plan_id, int(position), int(number), bytes(body)) for position, number, body in events]

    def _stored(self, plan_id: str, position: int, number: int, body: bytes) -> Stored:
        return body, self._durable_at.get(position), self._epochs.get((plan_id, number, body), 0)

    def refuses_another(self) -> bool:
        """Whether a second process on the folder of one that is there is turned away."""
        journal = SimSqliteJournal(self, Process("another"), self._current)
        try:
            journal._open()
        except JournalLockedError:
            return True

        self._journals.append(journal)
        return False

    def scope(self) -> AbstractContextManager[object]:
        """Within it, the WAL is as long as this world wants it."""
        return mock.patch.object(_writer, "_CHECKPOINT_PAGES", self._random.choice(CHECKPOINT_PAGES))

    def close(self) -> None:
        for journal in self._journals:
            journal.let_go()

        self.files.unregister()
        self._folder.cleanup()


def _memory() -> str | None:
    """Give a folder in memory if the system has one: nothing here has to outlive the machine."""
    folder = Path("/dev/shm")
    return str(folder) if folder.is_dir() else None
