"""Saving what can be read of a damaged journal into a new one.

It works on a copy. Every event has a checksum that knows its plan and its places, so a row is right or is not taken,
whatever else is broken around it. A plan keeps its events up to the first one that is lost. One that did not end by then, or may
have gone on, is ended with ``JOURNAL_DAMAGED``: to go on from an earlier moment would repeat what was done since.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import apsw

from autoglm._dataclasses import dataclass
from autoglm.errors import AutoglmError
from autoglm.fold import PlanFold
from autoglm.model import DOMAIN, ErrorReason, Event, Failure, Plan, PlanCreated, PlanFailed, PlanResumed
from autoglm.wire import decode, encode
from autoglm_server.journal import _retain
from autoglm_server.journal._checksum import checksum
from autoglm_server.journal._commit import Counters, add_entry_view, commit, microseconds
from autoglm_server.journal._file import PAGE_BYTES, add_checksums, wal_checksum
from autoglm_server.journal._schema import APPLICATION_ID, migrate
from autoglm_server.journal.journal import Append, Compaction, JournalError, PlanRow, RequestKey
from autoglm_server.journal.verify import Tell

_BATCH: Final = 256
_WAL_BYTES: Final = 32
_FRAME_BYTES: Final = 24
"""The headers of the WAL and of each page in it."""

_HOLE_MAX: Final = 1 << 20
"""How far beyond the last position that can be read one is looked for."""

FAILURE: Final = Failure(
    reason=ErrorReason.JOURNAL_DAMAGED.name,
    domain=DOMAIN,
    message="the journal was damaged and repaired; what this plan did after its last event is not known",
    outcome_unknown=True,
)


@dataclass(slots=True)
class Salvaged:
    """What was saved and what was not. ``whole`` plans are as they were; ``cut`` ones end earlier than they did."""

    events: int = 0
    events_lost: int = 0
    """Those that are known to have been there: unreadable, or behind one that is."""
    whole: int = 0
    cut: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    hidden: bool = False
    """Pages of plans could not be read: one may be lost without a name."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not (self.events_lost or self.cut or self.lost or self.hidden)


def prepare(source: Path, copy: Path) -> bool:
    """Make a copy that SQLite opens: its header as it must be, its length as it was, its WAL taken in.

    Gives whether commits in the WAL could be lost.
    """
    if source.exists():
        shutil.copyfile(source, copy)
    else:
        copy.touch()

    doubt = False
    with copy.open("r+b") as file:
        file.truncate(max(-(-file.seek(0, os.SEEK_END) // PAGE_BYTES), 1) * PAGE_BYTES)
        wal = source.with_name(source.name + "-wal")
        if wal.exists():
            doubt = _take_in(wal, file)

        file.seek(0)
        head = bytearray(file.read(100))
        pages = max(
            file.seek(0, os.SEEK_END) // PAGE_BYTES, struct.unpack_from(">I", head, 28)[0] if _sane(head) else 0
        )
        pages = min(pages, 2 * file.tell() // PAGE_BYTES + _BATCH)
        struct.pack_into(">16sH6B", head, 0, b"SQLite format 3\0", PAGE_BYTES, 1, 1, head[20], 64, 32, 32)
        if head[63] & 1 or head[20] not in (0, 8):
            head[20] = 8

        struct.pack_into(">IIII", head, 24, 1, pages, 0, 0)  # changes, pages, no free ones: none is taken here
        struct.pack_into(">I", head, 44, 4)
        struct.pack_into(">I", head, 56, 1)
        struct.pack_into(">I", head, 68, APPLICATION_ID)
        struct.pack_into(">I", head, 92, 1)  # as of which change the number of pages is
        file.seek(0)
        file.write(head)
        file.truncate(pages * PAGE_BYTES)

    return doubt


def _sane(head: bytearray) -> bool:
    return bytes(head[:16]) == b"SQLite format 3\0" and struct.unpack_from(">I", head, 28)[0] < 1 << 31


def _take_in(wal: Path, file: Any) -> bool:
    """Write the WAL's pages where they belong, up to its last commit; those whose own checksum is wrong are left out."""
    raw = wal.read_bytes()
    step = PAGE_BYTES + _FRAME_BYTES
    starts = range(_WAL_BYTES, len(raw) - step + 1, step)
    frames = [struct.unpack_from(">6I", raw, at) for at in starts]  # page, end of a commit, two salts, two checksums
    if not frames:
        return False

    salts = frames[0][2:4]
    if sum(frame[2:4] == salts for frame in frames) < 2 <= sum(map(any, frames)):
        salts = frames[1][2:4]

    big = bool(raw[3] & 1)
    before = struct.unpack_from(">II", raw, _WAL_BYTES - 8)
    ends = [number for number, frame in enumerate(frames) if frame[1] and frame[2:4] == salts]
    doubt = False
    for at, frame in zip(starts, frames[: ends[-1] + 1] if ends else (), strict=False):
        page = frame[0]
        told, before = before, frame[4:6]  # each goes on from the one before, so that each can be looked at by itself
        content = raw[at + _FRAME_BYTES : at + step]
        right = wal_checksum(raw[at : at + 8] + content, told, big=big) == before
        if not right or frame[2:4] != salts or not 0 < page < 1 << 31:
            doubt = True
            continue

        file.seek((page - 1) * PAGE_BYTES)
        file.write(content)

    return doubt


def salvage(copy: Path, target: Path, *, now: datetime, doubt: bool, tell: Tell) -> Salvaged:
    """Read the copy, and write what is right of it into a new journal.

    Raises:
        JournalError: not even its tables can be found.
    """
    source = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READWRITE)
    out = apsw.Connection(str(target))
    try:
        source.execute("PRAGMA checksum_verification = OFF").fetchall()  # a row that is right is wanted from any page
        source.execute("PRAGMA writable_schema = ON")  # a schema that is wrong in part does not hide the rest
        with suppress(apsw.Error, JournalError, ValueError):  # of an older version, if that much is right
            migrate(source, str(copy))

        add_checksums(out)
        migrate(out, str(target))
        add_entry_view(out)
        return _Salvage(source, out, now, tell).run(doubt=doubt)
    except apsw.Error as error:
        raise JournalError(
            f"nothing of the journal can be read: {type(error).__name__}: {error}; restore a backup"
        ) from error
    finally:
        source.close()
        out.close()


class _Salvage:
    def __init__(self, source: apsw.Connection, out: apsw.Connection, now: datetime, tell: Tell) -> None:
        self._source = source
        self._out = out
        self._now = now
        self._tell = tell
        self._found = Salvaged()
        self._sequences: dict[str, int] = {}
        """Up to where each plan's events are dense."""
        self._beyond: dict[str, int] = {}
        """The last sequence that each plan is known to have had."""
        self._holes = False
        self._hidden = False

    def run(self, *, doubt: bool) -> Salvaged:
        last = self._last_position()
        for position, plan_id, sequence, _ in self._events(last):
            self._beyond[plan_id] = max(self._beyond.get(plan_id, 0), sequence)
            if self._sequences.get(plan_id, 0) + 1 == sequence:
                self._sequences[plan_id] = sequence

            self._tell("events read", position, last)

        indexed = self._read_index()
        self._snapshots()
        self._copy(last)
        doubt = doubt or (self._holes and not indexed)
        self._finish(doubt=doubt)
        self._found.events = sum(self._sequences.values())
        self._found.events_lost = sum(
            max(0, beyond - self._sequences.get(plan_id, 0)) for plan_id, beyond in self._beyond.items()
        )
        self._found.hidden = self._hidden or doubt
        return self._found

    # --- reading

    def _last_position(self) -> int:
        positions = [0]
        for statement in (
            "SELECT max(id) FROM event",
            "SELECT max(rowid) FROM event INDEXED BY event_sequence",
            "SELECT max(CAST(value AS INTEGER)) FROM meta WHERE name = 'last_position'",
        ):
            value = self._one(statement)
            if isinstance(value, int):
                positions.append(value)

        found = max(positions)
        size = int(self._source.execute("PRAGMA page_count").get) * PAGE_BYTES
        if found == 0 or found > size:  # not to be believed: no event takes less than some bytes
            found = min(size // 16, _HOLE_MAX)

        return found

    def _events(self, last: int) -> Iterator[tuple[int, str, int, bytes]]:
        """Give position, plan, sequence and body of every event that is right, in their order."""
        for first in range(1, last + 1, _BATCH):
            for position, sequence, body, crc in self._rows(first, min(first + _BATCH - 1, last)):
                plan_id = _plan_of(position, sequence, body, crc)
                if plan_id:
                    yield position, plan_id, sequence, body
                else:
                    self._holes = True

    def _rows(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """Read events by position."""
        rows = self._scan("SELECT id, sequence, body, crc FROM event WHERE id BETWEEN ? AND ? ORDER BY id", first, last)
        for row in rows:
            if row is None:
                self._holes = True
            else:
                yield row

    def _scan(self, statement: str, first: int, last: int) -> Iterator[tuple[Any, ...] | None]:
        """Read rows by key, halving the range where one breaks; None stands for what cannot be read."""
        try:
            rows = self._source.execute(statement, (first, last)).fetchall()
        except (apsw.Error, UnicodeDecodeError):
            if first < last:
                middle = (first + last) // 2
                yield from self._scan(statement, first, middle)
                yield from self._scan(statement, middle + 1, last)
            else:
                yield None

            return

        yield from rows

    def _read_index(self) -> bool:
        """Learn from the index, which is on other pages, which events there were; gives whether it can be read."""
        try:
            rows = self._source.execute(
                "SELECT plan.id, max(event.sequence), max(plan.state) FROM event INDEXED BY event_sequence "
                "JOIN plan ON plan.key = event.plan WHERE plan.kept = 2 GROUP BY event.plan"
            ).fetchall()
        except (apsw.Error, UnicodeDecodeError):
            return False

        for plan_id, sequence, _ in rows:
            if isinstance(plan_id, str) and isinstance(sequence, int) and 0 < sequence < _HOLE_MAX:
                self._beyond[plan_id] = max(self._beyond.get(plan_id, 0), sequence)

        return True

    def _one(self, statement: str, *values: Any) -> Any:
        try:
            return self._source.execute(statement, values).get
        except (apsw.Error, UnicodeDecodeError):
            return None

    # --- writing

    def _copy(self, last: int) -> None:
        """Write what is dense, in the old order, as the events of plans that begin anew."""
        counters, jobs = Counters.of(self._out), []
        for position, plan_id, sequence, body in self._events(last):
            if sequence > self._sequences.get(plan_id, 0):
                continue

            row, key = _begin(plan_id, body) if sequence == 1 else (None, None)
            jobs.append(Append(plan_id, 1, sequence, [body], lambda _: None, row, key))
            if len(jobs) >= _BATCH:
                self._commit(jobs, counters)

            self._tell("events saved", position, last)

        self._commit(jobs, counters)

    def _commit(self, jobs: list[Append], counters: Counters) -> None:
        for job, outcome in zip(jobs, commit(self._out, jobs, counters).outcomes, strict=True):
            if (
                isinstance(outcome, Exception) and job.request_key is not None
            ):  # the key is another plan's: the plan counts
                commit(self._out, [replace(job, request_key=None)], counters)

        jobs.clear()

    def _snapshots(self) -> None:
        """Save what stayed of plans whose events had gone."""
        counters = Counters.of(self._out)
        last = self._last_key()
        compacted: dict[int, str] = {}
        hidden = False
        for row in self._scan("SELECT key, id, kept FROM plan WHERE key BETWEEN ? AND ?", 1, last):
            if row is None:
                hidden = True
            elif row[2] in (0, 1) and isinstance(row[1], str):
                compacted[row[0]] = row[1]

        for row in self._scan("SELECT plan, body, crc FROM snapshot WHERE plan BETWEEN ? AND ?", 1, last):
            plan = None if row is None else _plan_in(row[1], row[2])
            if row is None or plan is None:
                continue

            compacted.pop(row[0], None)
            self._save_snapshot(row[0], plan, row[1], counters)

        self._found.lost += sorted(compacted.values())
        self._hidden = hidden

    def _save_snapshot(self, key: int, plan: Plan, body: bytes, counters: Counters) -> None:
        digest = self._one("SELECT digest FROM request WHERE plan = ?", key)
        known = plan.request_id and isinstance(digest, str)
        request_key = RequestKey("", plan.principal, plan.request_id, str(digest)) if known else None
        # A stand-in for the last event, so that the plan goes the way that retention takes.
        self._commit([Append(plan.id, 1, 1, [b"\0"], lambda _: None, _row_of(plan), request_key)], counters)
        self._out.execute("UPDATE event SET sequence = ? WHERE id = ?", (plan.sequence, counters.position))
        _retain.compact(self._out, [Compaction(plan.id, plan.sequence, body)])
        _retain.purge(self._out, 1)
        self._found.whole += 1
        self._sequences.pop(plan.id, None)
        self._beyond.pop(plan.id, None)

    def _last_key(self) -> int:
        keys = [0]
        for statement in (
            "SELECT max(key) FROM plan",
            "SELECT max(plan) FROM snapshot",
            "SELECT max(plan) FROM event INDEXED BY event_sequence",
            "SELECT max(plan) FROM request INDEXED BY request_plan",
        ):
            value = self._one(statement)
            if isinstance(value, int) and value < _HOLE_MAX:
                keys.append(value)

        return max(keys) or _BATCH

    def _finish(self, *, doubt: bool) -> None:
        """Bring the rows up to their events, and end what was cut."""
        counters = Counters.of(self._out)
        for number, (plan_id, beyond) in enumerate(sorted(self._beyond.items()), 1):
            sequence = self._sequences.get(plan_id, 0)
            if not sequence:
                self._found.lost.append(plan_id)
                continue

            fold = self._fold(plan_id)
            was = self._one("SELECT state FROM plan WHERE id = ?", plan_id)
            cut = sequence < beyond or (not fold.state.terminal and (doubt or not isinstance(was, int) or was >= 6))
            if cut:
                self._found.cut.append(plan_id)
            else:
                self._found.whole += 1

            body = None if fold.state.terminal else encode(self._end(fold)) if cut else None
            if body is not None:
                fold.apply(decode(Event, body))
                commit(
                    self._out,
                    [Append(plan_id, 1, fold.sequence, [body], lambda _: None, _row_of(fold.snapshot()))],
                    counters,
                )
            else:
                self._set_row(fold)

            self._tell("plans saved", number, len(self._beyond))

    def _fold(self, plan_id: str) -> PlanFold:
        fold = PlanFold(plan_id)
        epoch = 1
        for (body,) in self._out.execute(
            "SELECT body FROM event WHERE plan = (SELECT key FROM plan WHERE id = ?) ORDER BY sequence", (plan_id,)
        ):
            event = decode(Event, bytes(body))
            fold.apply(event)
            if isinstance(event.fact, PlanResumed):
                epoch = max(epoch, event.fact.epoch)

        self._epoch = epoch
        return fold

    def _end(self, fold: PlanFold) -> Event:
        last = fold.last_event_time
        time = self._now if last is None or self._now > last else last
        return Event(fold.id, fold.sequence + 1, time, "", 0, fact=PlanFailed(failure=FAILURE, usage=fold.usage))

    def _set_row(self, fold: PlanFold) -> None:
        row = _row_of(fold.snapshot())
        end_time = None if row.end_time is None else microseconds(row.end_time)
        self._out.execute(
            "UPDATE plan SET state = ?, body = ?, end_time = ?, epoch = ? WHERE id = ?",
            (int(row.state), row.body, end_time, self._epoch, fold.id),
        )


def _plan_of(position: Any, sequence: Any, body: Any, crc: Any) -> str:
    """Give the plan of an event that is right, "" of one that is not."""
    if not (isinstance(position, int) and isinstance(sequence, int) and isinstance(body, bytes)):
        return ""

    try:
        event = decode(Event, body)
    except (ValueError, AutoglmError):
        return ""

    return event.plan_id if checksum(event.plan_id, sequence, position, body) == crc else ""


def _plan_in(body: Any, crc: Any) -> Plan | None:
    """Give the plan of a snapshot that is right."""
    try:
        plan = decode(Plan, body) if isinstance(body, bytes) else None
    except (ValueError, AutoglmError):
        return None

    return plan if plan is not None and _retain.snapshot_checksum(plan.id, body) == crc else None


def _begin(plan_id: str, body: bytes) -> tuple[PlanRow, RequestKey | None]:
    fold = PlanFold(plan_id)
    event = decode(Event, body)
    fold.apply(event)
    created = event.fact
    key = None
    if isinstance(created, PlanCreated) and created.request_id:
        key = RequestKey("", event.principal, created.request_id, created.request_digest)

    return _row_of(fold.snapshot()), key


def _row_of(plan: Plan) -> PlanRow:
    basic = replace(plan, steps=(), rounds=(), context=())
    assert plan.create_time is not None, "its first event has one"
    return PlanRow(
        plan_id=plan.id,
        tenant="",
        principal=plan.principal,
        state=plan.state,
        labels=plan.labels,
        context_id=plan.context_id,
        parent_plan_id=plan.parent.plan_id if plan.parent is not None else "",
        create_time=plan.create_time,
        body=encode(basic),
        end_time=plan.end_time,
    )
