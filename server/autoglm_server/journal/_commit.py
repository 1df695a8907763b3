"""One commit of the SQLite journal: which of the jobs are admitted, and the statements that store them.

Each statement gives the interpreter's lock up and must win it back from the loop's thread, so a row at a time starves when
the loop is busy. A commit is therefore a handful of statements however many jobs it has: events go in as one array of blobs
(``carray``), what is rarer as one JSON document.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
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

_HEADS = """
    SELECT json_group_array(json_array(
        p.id, p.key, p.epoch, coalesce((SELECT max(sequence) FROM event WHERE plan = p.key), 0), p.compacted))
    FROM carray(?) AS wanted CROSS JOIN plan AS p ON p.id = wanted.value
"""
_REQUESTS = """
    SELECT json_group_array(json_array(r.tenant, r.principal, r.request_id, p.id, r.digest))
    FROM json_each(?) AS wanted
    CROSS JOIN request AS r
        ON r.tenant = wanted.value ->> 0 AND r.principal = wanted.value ->> 1 AND r.request_id = wanted.value ->> 2
    CROSS JOIN plan AS p ON p.key = r.plan
"""
# A body in JSON would be hexadecimal, and read and written four times over: so each row is its other columns as a JSON array,
# its length before it, and the body behind.
_ADD_PLANS = """
    WITH given AS MATERIALIZED (
        SELECT CAST(substr(value, 9, CAST(substr(value, 1, 8) AS INTEGER)) AS TEXT) AS row,
            substr(value, 9 + CAST(substr(value, 1, 8) AS INTEGER)) AS body
        FROM carray(?)
    )
    INSERT INTO plan(
        key, id, epoch, owner, tenant, principal, state, labels, context_id, parent, create_time, end_time, body)
    SELECT row ->> 0, row ->> 1, 1, '', row ->> 2, row ->> 3, row ->> 4, row ->> 5, row ->> 6, row ->> 7, row ->> 8,
        row ->> 9, body
    FROM given
"""
_ADD_LABELS = "INSERT INTO label(plan, name, value) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)"
_ADD_REQUESTS = """
    INSERT INTO request(plan, tenant, principal, request_id, digest)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)
"""
_SET_ROWS = """
    UPDATE plan SET state = changed.value ->> 1, body = unhex(changed.value ->> 2), end_time = changed.value ->> 3
    FROM json_each(?) AS changed WHERE plan.key = changed.value ->> 0
"""
_SET_EPOCHS = """
    UPDATE plan SET epoch = claimed.value ->> 1, owner = claimed.value ->> 2
    FROM json_each(?) AS claimed WHERE plan.key = claimed.value ->> 0
"""
# carray binds one array, and joining two is quadratic: so the plan's key, the sequence and the checksum stand before each body.
_ADD_EVENTS = """
    INSERT INTO event(id, plan, sequence, crc, body)
    SELECT ?1 + rowid, CAST(substr(value, 1, 12) AS INTEGER), CAST(substr(value, 13, 12) AS INTEGER),
        CAST(substr(value, 25, 10) AS INTEGER), substr(value, 35)
    FROM carray(?2)
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


def commit(db: apsw.Connection, jobs: Sequence[Job], counters: Counters) -> Commit:
    """Admit the jobs one after the other and make durable what was admitted; ``counters`` advance on success.

    Raises:
        apsw.Error: nothing was stored (full), or it is not known whether (any other).
    """
    heads, counters.heads = counters.heads, {}  # whatever fails, what was known is not known any more
    db.execute("BEGIN IMMEDIATE")
    try:
        admission = _Admission(db, jobs, counters, heads)
        admission.store(db)
        for number, job in enumerate(jobs):
            if isinstance(job, TaskJob):
                admission.commit.outcomes[number] = job.run(db)

        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")

    counters.plan = admission.plan
    counters.position += len(admission.commit.records)
    counters.heads = admission.known()
    return admission.commit


class _Admission:
    """The decision on each job of a commit, each seeing what the ones before it did, and the rows that follow from it."""

    def __init__(self, db: apsw.Connection, jobs: Sequence[Job], counters: Counters, heads: dict[str, Head]) -> None:
        self.commit = Commit(jobs)
        self.plan = counters.plan
        self._position = counters.position
        self._heads = heads
        add_heads(db, jobs, heads)
        self._forgotten: set[str] = set()
        self._requests = _requests(db, jobs)
        self._plans: list[bytes] = []
        self._labels: list[list[Any]] = []
        self._new_requests: list[list[Any]] = []
        self._rows: dict[int, PlanRow] = {}
        self._epochs: list[list[Any]] = []
        self._events: list[bytes] = []
        for job in jobs:
            self.commit.outcomes.append(self._outcome(job))

    def store(self, db: apsw.Connection) -> None:
        """Write what was admitted."""
        rows = [[key, int(row.state), row.body.hex(), _ended(row)] for key, row in self._rows.items()]
        if self._plans:
            db.execute(_ADD_PLANS, (apsw.carray(tuple(self._plans)),))

        for statement, values in (
            (_ADD_LABELS, self._labels),
            (_ADD_REQUESTS, self._new_requests),
            (_SET_ROWS, rows),
            (_SET_EPOCHS, self._epochs),
        ):
            if values:
                db.execute(statement, (json.dumps(values),))

        if self._events:
            db.execute(_ADD_EVENTS, (self._position, apsw.carray(tuple(self._events))))

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
            events.append(b"%12d%12d%10d%b" % (key, sequence, crc, body))
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
            self.plan,
            row.plan_id,
            row.tenant,
            row.principal,
            int(row.state),
            json.dumps(dict(row.labels)) if row.labels else "{}",
            row.context_id,
            row.parent_plan_id,
            microseconds(row.create_time),
            _ended(row),
        ]
        written = json.dumps(columns).encode()
        self._plans.append(b"%8d%b%b" % (len(written), written, row.body))
        self._labels += [[self.plan, name, value] for name, value in row.labels.items()]
        if request is not None:
            self._new_requests.append(
                [self.plan, request.tenant, request.principal, request.request_id, request.digest]
            )
            self._requests[request.tenant, request.principal, request.request_id] = (row.plan_id, request.digest)

        head = self._heads[append.plan_id] = Head(self.plan, 1, 0, compacted=False)
        return head

    def _claim(self, job: ClaimJob) -> Sequence[Claim]:
        claims = []
        for plan_id in dict.fromkeys(job.plan_ids):
            head = self._heads.get(plan_id)
            if head is not None:
                head.epoch += 1
                self._epochs.append([head.key, head.epoch, job.owner])
                claims.append(Claim(plan_id, head.epoch, head.sequence))

        return claims


def microseconds(time: datetime) -> int:
    """Give a time as the tables hold it."""
    return (time - EPOCH) // timedelta(microseconds=1)


def _ended(row: PlanRow) -> int | None:
    return None if row.end_time is None else microseconds(row.end_time)


def mark(db: apsw.Connection, name: str) -> int:
    """Give a number that is noted in ``meta``, 0 if it is not."""
    return int(db.execute("SELECT coalesce((SELECT value FROM meta WHERE name = ?), 0)", (name,)).get)


def add_heads(db: apsw.Connection, jobs: Sequence[Job], heads: dict[str, Head]) -> None:
    """Ask for the heads that are not known."""
    wanted: dict[str, None] = {}
    for job in jobs:
        if isinstance(job, Append):
            if job.plan_id not in heads:
                wanted[job.plan_id] = None
        elif isinstance(job, ClaimJob):
            wanted.update((plan_id, None) for plan_id in job.plan_ids if plan_id not in heads)

    if wanted:
        found = json.loads(str(db.execute(_HEADS, (apsw.carray(tuple(wanted)),)).get))
        for plan_id, key, epoch, sequence, compacted in found:
            heads[plan_id] = Head(key, epoch, compacted or sequence, compacted > 0)


def _requests(db: apsw.Connection, jobs: Sequence[Job]) -> dict[tuple[str, str, str], tuple[str, str]]:
    keys = [job.request_key for job in jobs if isinstance(job, Append) and job.request_key is not None]
    if not keys:
        return {}

    wanted = json.dumps([[key.tenant, key.principal, key.request_id] for key in keys])
    found = json.loads(str(db.execute(_REQUESTS, (wanted,)).get))
    return {
        (tenant, principal, request_id): (plan_id, digest) for tenant, principal, request_id, plan_id, digest in found
    }
