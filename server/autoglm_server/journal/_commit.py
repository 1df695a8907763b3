"""One commit of the SQLite journal: which of the jobs are admitted, and the statement that stores them.

Each step of a statement gives the interpreter's lock up and must win it back from the loop's thread, which may take a
millisecond when the loop is busy. A commit is therefore one statement however many jobs it has, and no BEGIN and COMMIT around
it: what is stored goes in as one array of blobs (``carray``), through triggers that belong to the connection (docs/adr/0100).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw

from autoglm._dataclasses import dataclass
from autoglm_server.journal._check import fault_of
from autoglm_server.journal._checksum import checksum_in
from autoglm_server.journal.journal import (
    Append,
    Claim,
    DuplicateRequestError,
    FencedError,
    JournalError,
    PlanRow,
    Record,
)

LAST_PLAN = "last_plan"
LAST_POSITION = "last_position"
REMOVED_POSITION = "removed_position"
"""What ``meta`` notes of numbers whose rows retention has removed."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_KNOWN = """
    SELECT json_array(
        json((SELECT json_group_array(json_array(
            p.id, p.key, p.epoch, coalesce((SELECT max(sequence) FROM event WHERE plan = p.key), 0), p.compacted))
        FROM carray(?1) AS wanted CROSS JOIN plan AS p ON p.id = wanted.value)),
        json((SELECT json_group_array(json_array(r.tenant, r.principal, r.request_id, p.id, r.digest))
        FROM json_each(?2) AS wanted
        CROSS JOIN request AS r
            ON r.tenant = wanted.value ->> 0 AND r.principal = wanted.value ->> 1 AND r.request_id = wanted.value ->> 2
        CROSS JOIN plan AS p ON p.key = r.plan)))
"""
_NONE = -(1 << 63)
"""Stands for a time that is not there, also in the triggers below."""

# Joining two arrays is quadratic, and a body in JSON would be hexadecimal: so an entry is its kind, four numbers of 20 digits,
# and its bytes. Of a new plan these are its other columns as JSON, as many bytes as the fourth number says, and the body.
_ENTRY = b"%c%20d%20d%20d%20d%b"
_STORE = """
    INSERT INTO entry
    SELECT CAST(substr(value, 1, 1) AS TEXT), CAST(substr(value, 2, 20) AS INTEGER), CAST(substr(value, 22, 20) AS INTEGER),
        CAST(substr(value, 42, 20) AS INTEGER), CAST(substr(value, 62, 20) AS INTEGER), substr(value, 82)
    FROM carray(?)
"""
_STORE_EVENTS = """
    INSERT INTO event(id, plan, sequence, crc, body)
    SELECT CAST(substr(value, 42, 20) AS INTEGER), CAST(substr(value, 2, 20) AS INTEGER), CAST(substr(value, 22, 20) AS INTEGER),
        CAST(substr(value, 62, 20) AS INTEGER), substr(value, 82)
    FROM carray(?)
"""
"""Of entries that are events alone, as most commits are: without asking for each which of the triggers is its own."""
_ADD_ENTRY_VIEW = """
    CREATE TEMP VIEW entry AS SELECT '' AS kind, 0 AS plan, 0 AS number, 0 AS at, 0 AS other, x'' AS body;

    CREATE TEMP TRIGGER entry_event INSTEAD OF INSERT ON entry WHEN NEW.kind = 'E' BEGIN
        INSERT INTO event(id, plan, sequence, crc, body) VALUES(NEW.at, NEW.plan, NEW.number, NEW.other, NEW.body);
    END;

    CREATE TEMP TRIGGER entry_plan INSTEAD OF INSERT ON entry WHEN NEW.kind = 'P' BEGIN
        INSERT INTO plan(
            key, id, epoch, owner, tenant, principal, state, labels, context_id, parent, create_time, end_time, body)
        SELECT NEW.plan, row ->> 0, 1, '', row ->> 1, row ->> 2, NEW.number, row ->> 3, row ->> 4, row ->> 5, row ->> 6,
            nullif(NEW.at, -9223372036854775808), substr(NEW.body, 1 + NEW.other)
        FROM (SELECT CAST(substr(NEW.body, 1, NEW.other) AS TEXT) AS row);

        INSERT INTO label(plan, name, value)
        SELECT NEW.plan, value ->> 0, value ->> 1
        FROM json_each(CAST(substr(NEW.body, 1, NEW.other) AS TEXT), '$[7]');

        INSERT INTO request(plan, tenant, principal, request_id, digest)
        SELECT NEW.plan, value ->> 0, value ->> 1, value ->> 2, value ->> 3
        FROM json_each(CAST(substr(NEW.body, 1, NEW.other) AS TEXT), '$[8]');
    END;

    CREATE TEMP TRIGGER entry_row INSTEAD OF INSERT ON entry WHEN NEW.kind = 'R' BEGIN
        UPDATE plan SET state = NEW.number, body = NEW.body, end_time = nullif(NEW.at, -9223372036854775808) WHERE key = NEW.plan;
    END;

    CREATE TEMP TRIGGER entry_claim INSTEAD OF INSERT ON entry WHEN NEW.kind = 'C' BEGIN
        UPDATE plan SET epoch = NEW.number, owner = CAST(NEW.body AS TEXT) WHERE key = NEW.plan;
    END;
"""


@dataclass(slots=True)
class ClaimJob:
    """Plans to take up for ``owner``; ``claims`` is the loop's and settled there."""

    plan_ids: Sequence[str]
    owner: str
    claims: asyncio.Future[Sequence[Claim]]


@dataclass(slots=True)
class TaskJob:
    """Statements of their own, run behind what the commit appends; ``done`` is the loop's and settled there."""

    run: Callable[[apsw.Connection], Any]
    done: asyncio.Future[Any]


Job = Append | ClaimJob | TaskJob
Outcome = Any
"""Of an append None or the :class:`JournalError` that refused it, of a claim the claims, of a task what it gave."""


@dataclass(slots=True)
class Head:
    """Where a plan's log stands."""

    key: int
    epoch: int
    sequence: int
    compacted: bool


HEADS_MAX = 20_000
"""Plans whose heads are known without being asked for."""


@dataclass(slots=True)
class Counters:
    """The last numbers given out; known to the one writer, so not asked for again."""

    plan: int
    position: int
    heads: dict[str, Head] = field(default_factory=dict, compare=False)
    """Of plans that were written to and have not ended."""

    @classmethod
    def of(cls, db: apsw.Connection) -> Counters:
        """Read them off the tables."""
        plan, position = db.execute(
            "SELECT coalesce((SELECT max(key) FROM plan), 0), coalesce((SELECT max(id) FROM event), 0)"
        ).get
        # What retention has removed had numbers as well, and none is given twice.
        return cls(max(plan, mark(db, LAST_PLAN)), max(position, mark(db, LAST_POSITION)))


@dataclass(slots=True)
class Commit:
    """What became durable together, and what to tell each job, in their order."""

    jobs: Sequence[Job]
    outcomes: list[Outcome] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def add_entry_view(db: apsw.Connection) -> None:
    """Give a connection what :func:`commit` stores through; nothing of it is in the file."""
    db.execute(_ADD_ENTRY_VIEW)


def commit(db: apsw.Connection, jobs: Sequence[Job], counters: Counters) -> Commit:
    """Admit the jobs one after the other and make durable what was admitted; ``counters`` advance on success.

    Raises:
        apsw.Error: nothing was stored (full), or it is not known whether (any other).
    """
    heads, counters.heads = counters.heads, {}  # whatever fails, what was known is not known any more
    tasks = {number: job for number, job in enumerate(jobs) if isinstance(job, TaskJob)}
    admission = _Admission(db, jobs, counters, heads)  # nobody else writes, so what it asks for stays true
    if tasks:
        _store_with(db, admission, tasks)
    else:
        admission.store(db)

    counters.plan = admission.plan
    counters.position += len(admission.commit.records)
    counters.heads = admission.known()
    return admission.commit


def _store_with(db: apsw.Connection, admission: _Admission, tasks: Mapping[int, TaskJob]) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        admission.store(db)
        for number, job in tasks.items():
            admission.commit.outcomes[number] = job.run(db)

        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


class _Admission:
    """The decision on each job of a commit, each seeing what the ones before it did, and the rows that follow from it."""

    def __init__(self, db: apsw.Connection, jobs: Sequence[Job], counters: Counters, heads: dict[str, Head]) -> None:
        self.commit = Commit(jobs)
        self.plan = counters.plan
        self._position = counters.position
        self._heads = heads
        self._requests = ask(db, jobs, heads)
        self._forgotten: set[str] = set()
        self._plans: list[bytes] = []
        self._rows: dict[int, PlanRow] = {}
        self._claims: list[bytes] = []
        self._events: list[bytes] = []
        for job in jobs:
            self.commit.outcomes.append(self._outcome(job))

    def store(self, db: apsw.Connection) -> None:
        """Write what was admitted."""
        rows = [_ENTRY % (b"R", key, int(row.state), _ended(row), 0, row.body) for key, row in self._rows.items()]
        others = (*self._plans, *rows, *self._claims)
        if entries := (*others, *self._events):
            db.execute(_STORE if others else _STORE_EVENTS, (apsw.carray(entries),))

    def known(self) -> dict[str, Head]:
        """Give the heads that are sure to be still true at the next commit, and may be asked for."""
        if len(self._heads) > HEADS_MAX or any(isinstance(job, TaskJob) for job in self.commit.jobs):
            return {}

        for plan_id in self._forgotten:
            self._heads.pop(plan_id, None)

        return self._heads

    def _outcome(self, job: Job) -> Outcome:
        match job:
            case Append():
                return self._append(job)
            case ClaimJob():
                return self._claim(job)
            case TaskJob():
                return None

    def _append(self, append: Append) -> JournalError | None:
        refusal = fault_of(append) or self._refusal(append)
        if refusal is not None:
            self._forgotten.add(append.plan_id)
            return refusal

        if append.row is not None and append.row.state.terminal:
            self._forgotten.add(append.plan_id)

        head = self._heads.get(append.plan_id)
        if head is None:
            head = self._add_plan(append)
        elif append.row is not None:
            self._rows[head.key] = append.row

        records, events, plan_id, plan = self.commit.records, self._events, append.plan_id, append.plan_id.encode()
        key, sequence, position = head.key, head.sequence, self._position + len(events)
        for body in append.bodies:
            sequence += 1
            position += 1
            crc = checksum_in(plan, sequence, position, body)
            events.append(_ENTRY % (b"E", key, sequence, position, crc, body))
            records.append(Record(position, plan_id, sequence, body))

        head.sequence = sequence
        return None

    def _refusal(self, append: Append) -> JournalError | None:
        head = self._heads.get(append.plan_id)
        if head is not None and head.compacted:
            return FencedError(f"plan {append.plan_id} has ended, and its events have been removed")

        epoch, following = (head.epoch, head.sequence + 1) if head else (1, 1)
        if append.epoch != epoch or append.first_sequence != following:
            return FencedError(
                f"plan {append.plan_id} is at epoch {epoch} and takes sequence {following}, "
                f"not {append.epoch} and {append.first_sequence}"
            )

        key = append.request_key
        known = self._requests.get((key.tenant, key.principal, key.request_id)) if key else None
        return DuplicateRequestError(*known) if known else None

    def _add_plan(self, append: Append) -> Head:
        row, request = append.row, append.request_key
        assert row is not None, "fault_of refuses a first append without a row"
        self.plan += 1
        columns = [
            row.plan_id,
            row.tenant,
            row.principal,
            json.dumps(dict(row.labels)) if row.labels else "{}",
            row.context_id,
            row.parent_plan_id,
            microseconds(row.create_time),
            list(row.labels.items()),
            [[request.tenant, request.principal, request.request_id, request.digest]] if request else [],
        ]
        written = json.dumps(columns).encode()
        self._plans.append(
            _ENTRY % (b"P", self.plan, int(row.state), _ended(row), len(written), b"%b%b" % (written, row.body))
        )
        if request is not None:
            self._requests[request.tenant, request.principal, request.request_id] = (row.plan_id, request.digest)

        head = self._heads[append.plan_id] = Head(self.plan, 1, 0, compacted=False)
        return head

    def _claim(self, job: ClaimJob) -> Sequence[Claim]:
        claims = []
        for plan_id in dict.fromkeys(job.plan_ids):
            head = self._heads.get(plan_id)
            if head is not None:
                head.epoch += 1
                self._claims.append(_ENTRY % (b"C", head.key, head.epoch, 0, 0, job.owner.encode()))
                claims.append(Claim(plan_id, head.epoch, head.sequence))

        return claims


def microseconds(time: datetime) -> int:
    """Give a time as the tables hold it."""
    return (time - EPOCH) // timedelta(microseconds=1)


def _ended(row: PlanRow) -> int:
    return _NONE if row.end_time is None else microseconds(row.end_time)


def mark(db: apsw.Connection, name: str) -> int:
    """Give a number that is noted in ``meta``, 0 if it is not."""
    return int(db.execute("SELECT coalesce((SELECT value FROM meta WHERE name = ?), 0)", (name,)).get)


def ask(
    db: apsw.Connection, jobs: Sequence[Job], heads: dict[str, Head]
) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Add the heads that are not known to ``heads``; gives the plan and digest of each request that the jobs repeat."""
    wanted: dict[str, None] = {}
    keys: list[list[str]] = []
    for job in jobs:
        if isinstance(job, Append):
            if job.plan_id not in heads:
                wanted[job.plan_id] = None

            if (key := job.request_key) is not None:
                keys.append([key.tenant, key.principal, key.request_id])
        elif isinstance(job, ClaimJob):
            wanted.update((plan_id, None) for plan_id in job.plan_ids if plan_id not in heads)

    if not wanted and not keys:
        return {}

    known, repeated = json.loads(str(db.execute(_KNOWN, (apsw.carray(tuple(wanted) or ("",)), json.dumps(keys))).get))
    for plan_id, key, epoch, sequence, compacted in known:
        heads[plan_id] = Head(key, epoch, compacted or sequence, compacted > 0)

    return {
        (tenant, principal, request_id): (plan_id, digest)
        for tenant, principal, request_id, plan_id, digest in repeated
    }
