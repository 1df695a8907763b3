"""The writer: the one who writes and checkpoints, beside the loop.

It takes all that has been handed over when it is free and makes one commit of it: no timer, the disk sets the pace. Disk full is
a stall, in which the batch is kept and tried again. Any other fault means that it is not known what is on the disk (a failed
fsync may have dropped pages and will not say so twice), so it is final: everything waiting and to come is refused.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

import apsw

from autoglm._dataclasses import dataclass
from autoglm_server.journal._commit import Commit, Counters, Job, commit
from autoglm_server.journal._file import damage_of, is_damage
from autoglm_server.journal.journal import Append, JournalDamagedError, JournalError, JournalFailedError

_EVENTS_MAX = 4096
_BYTES_MAX = 8 << 20
"""A commit ends at either, so that one burst does not make all wait for all."""

_CHECKPOINT_PAGES = 1000
"""How far the WAL grows (4 MiB) before the writer moves it into the database; SQLite's own default."""

_WAL_PAGES_MAX = 16_000
"""Above it (64 MiB) somebody reads for so long that the WAL cannot begin anew: that is told, and tried whenever
it is asked for."""

_ASK_COMMITS = 16
_ASK_BYTES = 1 << 20
"""After as many commits, or as much in them, the writer asks how far the WAL has grown. SQLite's hook would tell after each
commit, and ask for the interpreter's lock in the middle of it."""

IDLE_SECONDS = 5.0
"""How long nothing is handed over before all of the WAL is moved into the database."""

BUSY_MS = 5000
"""How long a statement waits for another connection's lock; SQLite's own default is not at all."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pause:
    """The writer waits: until jobs are handed over, or for ``seconds`` (None: however long it takes)."""

    seconds: float | None
    deaf: bool = False
    """Jobs do not end it, only the writer's end does: the disk is full, and they would find it so."""


Work = Generator[Pause, Sequence[Sequence[Job]], None]
"""All that a writer ever does, with a pause wherever it would wait; each is answered with what was handed over."""


class Runner(Protocol):
    """Lets a writer's work go on beside the loop, whoever's thread that is."""

    def start(self) -> None:
        """Begin."""
        ...

    def put(self, jobs: Sequence[Job]) -> None:
        """Hand jobs over; a pause that is not deaf is over."""
        ...

    def stop(self) -> None:
        """Say that no more is handed over; every pause is over, now and from now on."""
        ...

    def join(self) -> None:
        """Wait for the end of a work that has nothing left to do."""
        ...


class WriterThread:
    """A :class:`Runner` that is a thread of its own."""

    def __init__(self, work: Work) -> None:
        """Prepare; the work begins with :meth:`start`."""
        self._work = work
        self._queue: SimpleQueue[Sequence[Job]] = SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, jobs: Sequence[Job]) -> None:
        self._queue.put(jobs)

    def stop(self) -> None:
        self._ending.set()
        self._queue.put(())

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        with suppress(StopIteration):
            pause = next(self._work)
            while True:
                pause = self._work.send(self._rest(pause))

    def _rest(self, pause: Pause) -> list[Sequence[Job]]:
        """Wait, and give all that has been handed over."""
        handed: list[Sequence[Job]] = []
        if pause.deaf:
            self._ending.wait(pause.seconds)
        elif not self._ending.is_set():
            with suppress(Empty):
                handed.append(self._queue.get(timeout=pause.seconds))

        with suppress(Empty):
            while True:
                handed.append(self._queue.get_nowait())

        return handed


class Writer:
    """Owns the writing connection from :meth:`start` on. ``tell`` runs a call on the loop, ``runner`` its work beside it."""

    def __init__(
        self,
        db: apsw.Connection,
        counters: Counters,
        *,
        retry_seconds: float,
        idle_seconds: float = IDLE_SECONDS,
        reserve: Callable[[], None] | None = None,
        tell: Callable[[Callable[[], None]], None],
        on_commit: Callable[[Commit], None],
        on_health: Callable[[str, JournalFailedError | None], None],
        on_damage: Callable[[Exception], None],
        on_stopped: Callable[[], None],
        runner: Callable[[Work], Runner] = WriterThread,
    ) -> None:
        """Prepare; all callbacks are told on the loop.

        ``reserve`` gives the WAL its size; without it, the WAL grows as it is written, and a lull cuts it to nothing.
        """
        self._db = db
        self._counters = counters
        self._retry_seconds = retry_seconds
        self._idle_seconds = idle_seconds
        self._reserve = reserve
        self._tell = tell
        self._on_commit = on_commit
        self._on_health = on_health
        self._on_damage = on_damage
        self._on_stopped = on_stopped
        self._backlog: deque[Job] = deque()
        self._closing = False
        self._commits = self._bytes = 0  # since it was asked how far the WAL has grown
        self._wal_used = False
        self._wal_is_long = False
        self._failure: JournalFailedError | None = None
        self._damage: JournalDamagedError | None = None
        self._runner = runner(self._run())

    def start(self) -> None:
        self._db.wal_autocheckpoint(0)  # it would hide a failed fsync, and delay the commit
        self._runner.start()

    def put(self, jobs: Sequence[Job]) -> None:
        """Hand over what one turn of the loop has brought."""
        self._runner.put(jobs)

    def stop(self) -> None:
        """Write what has been handed over, checkpoint and end; told by ``on_stopped``. A stall is given up after one more try."""
        self._closing = True
        self._runner.stop()

    def harm(self, damage: JournalDamagedError | None) -> None:
        """Write nothing any more, also not at the end: what is stored is damaged (None: it is not)."""
        self._damage = damage

    def join(self) -> None:
        self._runner.join()

    def _run(self) -> Work:
        """All of it. A boundary: whatever breaks in it must reach those who wait, or they would wait for ever."""
        if self._reserve is not None and not self._over:
            self._reserve()

        while (batch := (yield from self._take())) is not None:
            try:
                if batch:
                    yield from self._write(batch)
                    batch = []
                    self._checkpoint()
                else:
                    self._empty_wal(cut=self._reserve is None)
            except Exception as error:  # noqa: BLE001 - see above
                self._broke(error)
                self._refuse(batch)

        try:
            self._close()
        except apsw.Error as error:
            self._broke(error)

        self._tell(self._on_stopped)

    def _take(self) -> Generator[Pause, Sequence[Sequence[Job]], list[Job] | None]:
        """Wait for jobs and give as many as make one commit; an empty list is a lull, None the end."""
        closing = self._closing  # looked at before, as what was handed over before the end was said is taken here
        lull = self._idle_seconds if self._wal_used else None
        self._accept((yield Pause(0 if self._backlog or closing else lull)))
        if closing and not self._backlog:
            return None

        batch: list[Job] = []
        events = size = 0
        while self._backlog and events < _EVENTS_MAX and size < _BYTES_MAX:
            job = self._backlog.popleft()
            batch.append(job)
            if isinstance(job, Append):
                events += len(job.bodies)
                size += sum(map(len, job.bodies))

        self._commits += 1
        self._bytes += size
        return batch

    def _accept(self, handed: Sequence[Sequence[Job]]) -> None:
        for jobs in handed:
            self._backlog.extend(jobs)

    def _write(self, batch: Sequence[Job]) -> Work:
        if self._over:
            self._refuse(batch)
            return

        stalled = False
        while True:
            try:
                done = commit(self._db, batch, self._counters)
                break
            except apsw.FullError:
                if self._closing:
                    self._refuse(
                        batch, JournalFailedError("the server ended while the disk was full; this was not stored")
                    )
                    return

                if not stalled:
                    stalled = True
                    self._tell(
                        lambda: self._on_health(
                            "the disk of the journal is full; free space and it goes on by itself", None
                        )
                    )

                self._accept((yield Pause(self._retry_seconds, deaf=True)))

        if stalled:
            self._tell(lambda: self._on_health("", None))

        self._tell(lambda: self._on_commit(done))

    def _checkpoint(self) -> None:
        if self._over:
            return

        self._wal_used = True
        if self._commits < _ASK_COMMITS and self._bytes < _ASK_BYTES:
            return

        self._commits = self._bytes = 0
        pages, _ = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if pages < _CHECKPOINT_PAGES:
            return

        long = pages >= _WAL_PAGES_MAX
        if long and not self._wal_is_long:
            _log.warning(
                "the journal's WAL has %d MiB: a reader holds it, or the disk is slow; it is cut back when that ends",
                pages >> 8,
            )

        self._wal_is_long = long
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.FullError, apsw.BusyError):
            pass  # the WAL keeps what it holds; when it is asked for again it is tried again
        else:
            if long:
                self._empty_wal(cut=True)

    def _empty_wal(self, *, cut: bool) -> None:
        """Move all of the WAL into the database, unless somebody reads just now: it begins anew, ``cut`` to nothing or not."""
        self._wal_used = False
        if self._over:
            return

        try:
            self._db.set_busy_timeout(0)  # who wants to write does not wait for who reads
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE if cut else apsw.SQLITE_CHECKPOINT_RESTART)
        except (apsw.FullError, apsw.BusyError):
            return
        finally:
            self._db.set_busy_timeout(BUSY_MS)

    @property
    def _over(self) -> bool:
        """Whether nothing is written any more."""
        return self._failure is not None or self._damage is not None

    def _broke(self, error: Exception) -> None:
        if is_damage(error):
            self._damage = damage = damage_of(error)
            self._tell(lambda: self._on_damage(damage))
        else:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = JournalFailedError(
                f"writing the journal failed, and what is on the disk is not known: {type(error).__name__}: {error}"
            )
            self._failure.__cause__ = error
            failure = self._failure
            self._tell(lambda: self._on_health("", failure))

    def _refuse(self, batch: Sequence[Job], why: JournalError | None = None) -> None:
        refusal = why or self._failure or self._damage
        done = Commit(batch, [refusal] * len(batch))
        self._tell(lambda: self._on_commit(done))

    def _close(self) -> None:
        if self._over:
            self._db.config(
                apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1
            )  # the files stay as they are, for the next start to recover
        else:
            with suppress(
                apsw.FullError, apsw.BusyError
            ):  # the WAL is as durable as the database; the next start reads it
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

        self._db.close()
