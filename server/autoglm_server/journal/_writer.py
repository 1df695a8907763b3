"""The writer: the one thread that writes and checkpoints.

It takes all that has been handed over when it is free and makes one commit of it: no timer, the disk sets the pace. Disk full is
a stall, in which the batch is kept and tried again. Any other fault means that it is not known what is on the disk (a failed
fsync may have dropped pages and will not say so twice), so it is final: everything waiting and to come is refused.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

import apsw

from autoglm_server.journal._commit import Commit, Counters, Job, commit
from autoglm_server.journal.journal import Append, JournalFailedError

_EVENTS_MAX = 4096
_BYTES_MAX = 8 << 20
"""A commit ends at either, so that one burst does not make all wait for all."""

_CHECKPOINT_PAGES = 1000
"""How far the WAL grows (4 MiB) before the writer moves it into the database; SQLite's own default."""


class Writer:
    """Owns the writing connection from :meth:`start` on. ``tell`` runs a call on the loop's thread."""

    def __init__(
        self,
        db: apsw.Connection,
        *,
        retry_seconds: float,
        tell: Callable[[Callable[[], None]], None],
        on_commit: Callable[[Commit], None],
        on_health: Callable[[str, JournalFailedError | None], None],
        on_stopped: Callable[[], None],
    ) -> None:
        """Prepare; all callbacks are told on the loop."""
        self._db = db
        self._counters = Counters.of(db)
        self._retry_seconds = retry_seconds
        self._tell = tell
        self._on_commit = on_commit
        self._on_health = on_health
        self._on_stopped = on_stopped
        self._queue: SimpleQueue[Sequence[Job] | None] = SimpleQueue()
        self._backlog: deque[Job] = deque()
        self._closing = threading.Event()
        self._wal_pages = 0
        self._failure: JournalFailedError | None = None
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)

    def start(self) -> None:
        # A hook of our own switches SQLite's automatic checkpoint off, which would hide a failed fsync and delay the commit.
        self._db.set_wal_hook(self._note_wal)
        self._thread.start()

    def put(self, jobs: Sequence[Job]) -> None:
        """Hand over what one turn of the loop has brought."""
        self._queue.put(jobs)

    def stop(self) -> None:
        """Write what has been handed over, checkpoint and end; told by ``on_stopped``. A stall is given up after one more try."""
        self._closing.set()
        self._queue.put(None)

    def join(self) -> None:
        self._thread.join()

    def _note_wal(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _run(self) -> None:
        """The thread. A boundary: whatever breaks in it must reach those who wait, or they would wait for ever."""
        while batch := self._take():
            try:
                self._write(batch)
                batch = []
                self._checkpoint()
            except Exception as error:  # noqa: BLE001 - see above
                self._fail(error)
                self._refuse(batch)

        try:
            self._close()
        except apsw.Error as error:
            self._fail(error)

        self._tell(self._on_stopped)

    def _take(self) -> list[Job]:
        """Wait for jobs and give as many as make one commit; none means the end."""
        while not self._backlog:
            jobs = self._queue.get()
            if jobs is None:
                return []

            self._backlog.extend(jobs)

        self._drain()
        batch: list[Job] = []
        events = size = 0
        while self._backlog and events < _EVENTS_MAX and size < _BYTES_MAX:
            job = self._backlog.popleft()
            batch.append(job)
            if isinstance(job, Append):
                events += len(job.bodies)
                size += sum(map(len, job.bodies))

        return batch

    def _drain(self) -> None:
        try:
            while True:
                jobs = self._queue.get_nowait()
                if jobs is None:
                    self._queue.put(None)  # for the next _take: nothing is handed over after it
                    return

                self._backlog.extend(jobs)
        except Empty:
            return

    def _write(self, batch: Sequence[Job]) -> None:
        if self._failure is not None:
            self._refuse(batch)
            return

        stalled = False
        while True:
            try:
                done = commit(self._db, batch, self._counters)
                break
            except apsw.FullError:
                if self._closing.is_set():
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

                self._closing.wait(self._retry_seconds)

        if stalled:
            self._tell(lambda: self._on_health("", None))

        self._tell(lambda: self._on_commit(done))

    def _checkpoint(self) -> None:
        if self._failure is not None or self._wal_pages < _CHECKPOINT_PAGES:
            return

        try:
            self._wal_pages = 0
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except (apsw.FullError, apsw.BusyError):
            return  # the WAL keeps what it holds; after the next commit it is tried again

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = JournalFailedError(
                f"writing the journal failed, and what is on the disk is not known: {type(error).__name__}: {error}"
            )
            self._failure.__cause__ = error
            failure = self._failure
            self._tell(lambda: self._on_health("", failure))

    def _refuse(self, batch: Sequence[Job], why: JournalFailedError | None = None) -> None:
        refusal = why or self._failure
        done = Commit(batch, [refusal] * len(batch))
        self._tell(lambda: self._on_commit(done))

    def _close(self) -> None:
        if self._failure is not None:
            self._db.config(
                apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1
            )  # the files stay as they are, for the next start to recover
        else:
            with suppress(
                apsw.FullError, apsw.BusyError
            ):  # the WAL is as durable as the database; the next start reads it
                self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

        self._db.close()
