"""Disks that lose power, fill up or break under the real SQLite journal, through an apsw VFS: no compiler, no privileges.

A power cut keeps what was synced. Of what was written since, each write is kept, lost or torn, as a drive's cache decides.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final
from unittest import mock

import apsw

from autoglm.model import Event, PlanCreated, PlanningStarted, PlanState
from autoglm.wire import decode, encode, to_json
from autoglm_server.journal import _writer, sqlite
from autoglm_server.journal.journal import Append, JournalError, PlanRow, RequestKey
from autoglm_server.journal.sqlite import SqliteJournal
from tests.reliability.checker import PROMISES
from tests.reliability.history import Asked, History, Logged, Seen
from tests.reliability.rows import Result

PUT_TO_THE_TEST: Final = ("seen-is-durable", "dense", "acknowledged-is-kept", "every-plan-ends")
CONTROL_CUTS: Final = 150
"""With ``synchronous=NORMAL``, so many power cuts must lose something."""
TORN_EVERY: Final = 5
"""To so many power cuts, one process that ends while it moves the WAL into the database."""
WAL_HEAD: Final = 32
FRAME_HEAD: Final = 24
WAL_BYTES: Final = 64 << 10
"""What the WAL of every other journal has from the beginning, as a server's has 4 MiB."""
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
Operation = tuple[int, bytes | None]
"""A write at an offset, or, without data, a cut to that size."""

_names = itertools.count()


class PowerFiles(apsw.VFS):
    """The machine's files, and beside them what of each is on the platters, and what has been written since."""

    def __init__(self, random: Random) -> None:
        self.name = f"power-{next(_names)}"
        self.random = random
        self.synced: dict[str, bytearray] = {}
        self.pending: dict[str, list[Operation]] = {}
        self.fails = ""
        self.failures = 0
        self.moment = threading.Lock()
        """A power cut is one moment for all files."""
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _PowerFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.moment:
            self.synced.pop(filename, None)
            self.pending.pop(filename, None)

        super().xDelete(filename, syncdir)

    def note_reserved(self, path: Path) -> None:
        """A file was given its size by who does not go through here, and synced."""
        with self.moment:
            image = self.synced.setdefault(str(path), bytearray())
            image.extend(bytes(max(0, path.stat().st_size - len(image))))

    def after_power_cut(self, folder: Path) -> None:
        """Write into ``folder`` what a machine would find that lost its power now."""
        folder.mkdir(mode=0o700)
        with self.moment:
            synced = {path: bytearray(image) for path, image in self.synced.items()}
            pending = {path: list(operations) for path, operations in self.pending.items()}

        for path in sorted({*synced, *pending}):
            image = synced.get(path, bytearray())
            for operation in pending.get(path, ()):
                fate = self.random.choice(["kept", "lost", "lost", "torn"])
                if fate != "lost":
                    carry_out(image, operation, torn=fate == "torn")

            (folder / Path(path).name).write_bytes(image)


class _PowerFile(apsw.VFSFile):
    def __init__(self, files: PowerFiles, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._files = files
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        with files.moment:
            there = Path(self._path)
            if self._path not in files.synced and there.exists():
                files.synced[self._path] = bytearray(
                    there.read_bytes()
                )  # renamed into place, which SQLite does not see

        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._files.fails == "full":
            self._files.failures += 1
            raise apsw.FullError("the disk is full")

        if self._files.fails == "write":
            self._files.failures += 1
            raise apsw.IOError("the disk does not write")

        with self._files.moment:
            self._files.pending.setdefault(self._path, []).append((offset, bytes(data)))

        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        with self._files.moment:
            self._files.pending.setdefault(self._path, []).append((newsize, None))

        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._files.fails == "sync":
            self._files.failures += 1
            raise apsw.IOError("the disk does not sync")

        with self._files.moment:
            image = self._files.synced.setdefault(self._path, bytearray())
            for operation in self._files.pending.pop(self._path, []):
                carry_out(image, operation)

        super().xSync(flags)


def carry_out(image: bytearray, operation: Operation, *, torn: bool = False) -> None:
    offset, data = operation
    if data is None:
        del image[offset:]
        return

    if torn:
        data = data[: len(data) // 2]

    image.extend(bytes(max(0, offset - len(image))))
    image[offset : offset + len(data)] = data


class Reserved(SqliteJournal):
    """A journal whose WAL has its size from the beginning, and whose files are told of it."""

    files: PowerFiles

    def _reserve_wal(self) -> None:
        super()._reserve_wal()
        self.files.note_reserved(self._directory / f"{sqlite.FILE}-wal")


class _Writer:
    """Appends plans as a scheduler does, and notes what was acknowledged."""

    def __init__(self, journal: SqliteJournal, history: History, random: Random) -> None:
        self._journal = journal
        self._history = history
        self._random = random
        self._most = random.choice(
            [3000, 3000, 3000, 400_000]
        )  # the larger ones make the log be moved into the database
        self._sequences: dict[str, int] = {}
        self._ticks = itertools.count(1)
        self.outcomes: list[asyncio.Future[JournalError | None]] = []

    def append(self) -> None:
        """Hand an append over: a new plan, or more of one."""
        known = list(self._sequences)
        plan_id = self._random.choice(known) if known and self._random.random() < 0.8 else f"plan-{len(known)}"
        first = self._sequences.get(plan_id, 0) + 1
        count = self._random.randint(1, 4)
        self._sequences[plan_id] = first + count - 1
        events = [self._event(plan_id, first + at) for at in range(count)]
        outcome: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
        self.outcomes.append(outcome)
        asked = Asked(
            next(self._ticks), "create" if first == 1 else "append", plan_id, request_id=f"request of {plan_id}"
        )
        self._history.asked.append(asked)

        def settled(refusal: JournalError | None) -> None:
            if not outcome.done():
                outcome.set_result(refusal)

            if refusal is None:
                asked.answered_at = next(self._ticks)
                for event in events:
                    body = to_json(event).encode()
                    self._history.seen.append(
                        Seen(next(self._ticks), "who appended", 1, 0, plan_id, event.sequence, body)
                    )

        row = None
        if first == 1:
            row = PlanRow(
                plan_id=plan_id,
                tenant="",
                principal="",
                state=PlanState.RUNNING,
                labels={},
                context_id="",
                parent_plan_id="",
                create_time=START,
                body=b"a plan",
            )

        key = RequestKey("", "", asked.request_id, "digest") if first == 1 else None
        self._journal.append(Append(plan_id, 1, first, [encode(event) for event in events], settled, row, key))

    def _event(self, plan_id: str, sequence: int) -> Event:
        fact = PlanCreated(request="x" * self._random.randint(1, self._most), request_id=f"request of {plan_id}")
        return Event(
            plan_id, sequence, START, fact=fact if sequence == 1 else PlanningStarted("p", "m" * 200, sequence)
        )


def power_cuts(seed: int, size: int) -> Result:
    """Cut the power ``size`` times under a journal that is being written."""
    result = Result()
    for number in range(seed, seed + size):
        history = asyncio.run(_cut(number))
        result.take({name: PROMISES[name](history) for name in PUT_TO_THE_TEST}, history, f"power cut, seed {number}")
        result.count("power cuts")

    for number in range(seed, seed + max(1, size // TORN_EVERY)):
        history = asyncio.run(_tear(number))
        result.take({name: PROMISES[name](history) for name in PUT_TO_THE_TEST}, history, f"torn pages, seed {number}")
        result.count("databases with torn pages")

    torn = PROMISES["acknowledged-is-kept"](asyncio.run(_tear(seed, believed=True)))
    result.control("acknowledged-is-kept", "a database with torn pages, without its WAL", caught=bool(torn.violations))
    with mock.patch.dict(sqlite.PRAGMAS, {"synchronous": 1}):
        lost = _first_loss(seed)

    for promise in ("seen-is-durable", "acknowledged-is-kept"):
        result.control(promise, "power cuts with synchronous=NORMAL", caught=lost)

    return result


def _first_loss(seed: int) -> bool:
    for number in range(seed, seed + CONTROL_CUTS):
        history = asyncio.run(_cut(number))
        if PROMISES["seen-is-durable"](history).violations:
            return True

    return False


async def _cut(seed: int) -> History:
    random = Random(seed)
    history = History(seed, steady=False)
    with tempfile.TemporaryDirectory(prefix="autoglm-power-") as folder, _files(random) as files:
        journal = Reserved(Path(folder) / "data", vfs=files.name, wal_bytes=WAL_BYTES * (seed % 2))
        journal.files = files
        await journal.open()
        writer = _Writer(journal, history, random)
        cut_at = random.randint(1, 40)
        for number in range(60):
            writer.append()
            if number == cut_at:
                break

            if random.random() < 0.5:
                await writer.outcomes[-1]

        after = Path(folder) / "after"
        files.after_power_cut(after)
        seen, asked = len(history.seen), [one for one in history.asked if one.answered_at is not None]
        await journal.close()
        # What was acknowledged only while it was closed had come after the cut.
        del history.seen[seen:]
        history.asked = asked
        history.fault("power cut")
        await _found(SqliteJournal(after, wal_bytes=WAL_BYTES * (seed % 2)), history)

    return history


async def _tear(seed: int, *, believed: bool = False) -> History:
    """End a process while it moves the WAL into the database: of its pages, any are there, whole or half.

    The control, ``believed``, has a database without its WAL.
    """
    random = Random(seed)
    history = History(seed, steady=False)
    with tempfile.TemporaryDirectory(prefix="autoglm-torn-") as folder:
        data, after = Path(folder) / "data", Path(folder) / "after"
        with mock.patch.object(_writer, "_CHECKPOINT_PAGES", 1 << 30):
            journal = SqliteJournal(data, wal_bytes=WAL_BYTES * (seed % 2))
            await journal.open()
            writer = _Writer(journal, history, random)
            for _ in range(random.randint(5, 30)):
                writer.append()

            await asyncio.wait(writer.outcomes)
            after.mkdir(mode=0o700)
            for name in (f"{sqlite.FILE}-wal", sqlite.FILE):
                shutil.copy(data / name, after / name)

            await journal.close()

        _move_some(after / sqlite.FILE, random, history)
        if believed:
            (after / f"{sqlite.FILE}-wal").unlink()

        await _found(SqliteJournal(after, wal_bytes=WAL_BYTES * (seed % 2)), history)

    return history


def _move_some(database: Path, random: Random, history: History) -> None:
    """Write some pages of the WAL into the database, and of some of these only a half."""
    log = database.with_name(f"{database.name}-wal").read_bytes()
    (size,) = struct.unpack_from(">I", log, 8)
    newest = {}
    for at in range(WAL_HEAD, len(log) - FRAME_HEAD - size + 1, FRAME_HEAD + size):
        if log[at + 8 : at + 16] == log[16:24]:  # of this turn of the WAL
            newest[struct.unpack_from(">I", log, at)[0]] = log[at + FRAME_HEAD : at + FRAME_HEAD + size]

    image = bytearray(database.read_bytes())
    for page, content in newest.items():
        fate = random.choice(["lost", "kept", "torn", "torn"])
        if fate != "lost":
            carry_out(image, ((page - 1) * size, content), torn=fate == "torn")
            history.fault(f"page {fate}")

    database.write_bytes(image)


async def _found(journal: SqliteJournal, history: History) -> None:
    """Read what is there; a journal that cannot be opened holds nothing."""
    try:
        await _read(journal, history)
    except JournalError as error:
        history.broken.append(str(error))


def broken_disks(seed: int, size: int) -> Result:
    """Let the disk fill up, or fail to write or to sync, ``size`` times each; nothing acknowledged may be missing after it."""
    result = Result()
    for number in range(seed, seed + size):
        for kind in ("full", "write", "sync"):
            history = asyncio.run(_break(number, kind))
            result.take({name: PROMISES[name](history) for name in PUT_TO_THE_TEST}, history, f"{kind}, seed {number}")
            result.count("broken disks")

    return result


async def _break(seed: int, kind: str) -> History:
    random = Random(seed)
    history = History(seed, steady=False)
    with tempfile.TemporaryDirectory(prefix="autoglm-broken-") as folder, _files(random) as files:
        journal = SqliteJournal(Path(folder) / "data", vfs=files.name, retry_seconds=0.005)
        await journal.open()
        writer = _Writer(journal, history, random)
        break_at = random.randint(0, 20)
        for number in range(40):
            if number == break_at:
                files.fails = kind
                history.fault(kind)

            writer.append()
            if random.random() < 0.5 and files.fails != "full":
                await writer.outcomes[-1]

            if files.fails == "full" and files.failures > 2:
                files.fails = ""

        files.fails = "" if kind == "full" else kind
        await asyncio.wait(writer.outcomes, timeout=10.0)
        stuck = [outcome for outcome in writer.outcomes if not outcome.done()]
        if stuck:
            history.seen.append(Seen(0, f"{len(stuck)} who wait for ever", 1, 0, "none", 1, b""))

        files.fails = ""
        with suppress(JournalError):
            await journal.close()

        await _found(SqliteJournal(Path(folder) / "data"), history)

    return history


async def _read(journal: SqliteJournal, history: History) -> None:
    await journal.open()
    try:
        position = 0
        while records := await journal.read_all(position):
            for record in records:
                event = decode(Event, record.body)
                history.logs.setdefault(record.plan_id, []).append(Logged(event, to_json(event).encode()))

            position = records[-1].position
    finally:
        await journal.close()


@contextmanager
def _files(random: Random) -> Iterator[PowerFiles]:
    files = PowerFiles(random)
    try:
        yield files
    finally:
        files.unregister()
