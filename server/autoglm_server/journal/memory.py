"""The journal in memory: the reference model the drivers are compared with, and what tests run on.

It keeps its content through :meth:`MemoryJournal.close` and :meth:`MemoryJournal.open`, as a disk does.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime

from autoglm._dataclasses import dataclass
from autoglm._ids import new_id
from autoglm_server.journal._check import fault_of
from autoglm_server.journal._paging import PAGE_BYTES_MAX, make_token, page_size, read_token
from autoglm_server.journal._settle import settle
from autoglm_server.journal.journal import (
    Append,
    Claim,
    Compaction,
    DuplicateRequestError,
    Ended,
    EventsRemovedError,
    FencedError,
    JournalError,
    JournalFailedError,
    PlanPage,
    PlanQuery,
    PlanRow,
    Record,
)


@dataclass(slots=True)
class _Plan:
    key: int
    row: PlanRow
    epoch: int = 1
    owner: str = ""
    bodies: list[bytes] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    compacted: int = 0
    """The last sequence, once the events have gone."""
    unpurged: int = 0
    snapshot: bytes | None = None

    @property
    def sequence(self) -> int:
        return self.compacted or len(self.bodies)


@dataclass(slots=True)
class _Claiming:
    plan_ids: Sequence[str]
    owner: str
    claims: asyncio.Future[Sequence[Claim]]


class MemoryJournal:
    """A :class:`~autoglm_server.journal.journal.Journal` that is gone with the process."""

    def __init__(self) -> None:
        """Make an empty one."""
        self.on_commit: Callable[[Sequence[Record]], None] = lambda _: None
        self.on_health: Callable[[], None] = lambda: None
        self._journal_id = new_id()
        self._plans: dict[str, _Plan] = {}
        self._requests: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._records: list[Record] = []
        self._position = 0
        self._removed_position = 0
        self._keys = itertools.count(1)
        self._turn: list[Append | _Claiming] = []
        self._open = False

    @property
    def delay(self) -> float:
        return 0.0

    @property
    def journal_id(self) -> str:
        return self._journal_id

    @property
    def stalled(self) -> str:
        return ""

    @property
    def failure(self) -> JournalFailedError | None:
        return None

    @property
    def damaged(self) -> str:
        return ""

    async def open(self) -> None:
        self._open = True

    async def close(self) -> None:
        self._open = False
        self._commit()

    def append(self, append: Append) -> None:
        if not self._open:
            asyncio.get_running_loop().call_soon(settle, append, JournalFailedError("the journal is closed"))
            return

        self._hand_over(append)

    async def claim(self, plan_ids: Sequence[str], owner: str) -> Sequence[Claim]:
        if not self._open:
            raise JournalFailedError("the journal is closed")

        claiming = _Claiming(plan_ids, owner, asyncio.get_running_loop().create_future())
        self._hand_over(claiming)
        return await claiming.claims

    def _hand_over(self, job: Append | _Claiming) -> None:
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._commit)

        self._turn.append(job)

    def _commit(self) -> None:
        turn, self._turn = self._turn, []
        before = len(self._records)
        refused = [self._apply(job) for job in turn]
        if self._records[before:]:
            self.on_commit(self._records[before:])

        for job, refusal in zip(turn, refused, strict=True):
            if isinstance(job, Append):
                settle(job, refusal)

    def _apply(self, job: Append | _Claiming) -> JournalError | None:
        if isinstance(job, _Claiming):
            if not job.claims.done():
                job.claims.set_result(
                    [
                        self._take_up(plan_id, job.owner)
                        for plan_id in dict.fromkeys(job.plan_ids)
                        if plan_id in self._plans
                    ]
                )

            return None

        refusal = fault_of(job) or self._refusal(job)
        if refusal is None:
            self._store(job)

        return refusal

    def _take_up(self, plan_id: str, owner: str) -> Claim:
        plan = self._plans[plan_id]
        plan.epoch += 1
        plan.owner = owner
        return Claim(plan_id, plan.epoch, plan.sequence)

    def _refusal(self, append: Append) -> JournalError | None:
        plan = self._plans.get(append.plan_id)
        if plan is not None and plan.compacted:
            return FencedError(f"plan {append.plan_id} has ended, and its events have been removed")

        epoch, following = (plan.epoch, plan.sequence + 1) if plan else (1, 1)
        if append.epoch != epoch or append.first_sequence != following:
            return FencedError(
                f"plan {append.plan_id} is at epoch {epoch} and takes sequence {following}, "
                f"not {append.epoch} and {append.first_sequence}"
            )

        key = append.request_key
        known = self._requests.get((key.tenant, key.principal, key.request_id)) if key else None
        return DuplicateRequestError(*known) if known else None

    def _store(self, append: Append) -> None:
        plan = self._plans.get(append.plan_id)
        if plan is None:
            assert append.row is not None, "fault_of refuses a first append without a row"
            plan = self._plans[append.plan_id] = _Plan(next(self._keys), append.row)
        elif append.row is not None:
            plan.row = replace(plan.row, state=append.row.state, body=append.row.body, end_time=append.row.end_time)

        if append.request_key is not None:
            key = append.request_key
            self._requests[key.tenant, key.principal, key.request_id] = (append.plan_id, key.digest)

        for body in append.bodies:
            self._position += 1
            plan.bodies.append(body)
            plan.positions.append(self._position)
            self._records.append(Record(self._position, append.plan_id, len(plan.bodies), body))

    async def open_plans(self) -> Sequence[str]:
        return [plan_id for plan_id, plan in self._plans.items() if not plan.row.state.terminal]

    async def open_children(self) -> Mapping[str, str]:
        rows = [plan.row for plan in self._plans.values() if not plan.row.state.terminal]
        return {row.plan_id: row.parent_plan_id for row in rows if row.parent_plan_id}

    async def read(
        self, plan_id: str, after_sequence: int, *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[bytes]:
        plan = self._plans.get(plan_id)
        if plan is not None and after_sequence < plan.compacted:
            raise EventsRemovedError(plan_id, plan.compacted)

        bodies = plan.bodies[after_sequence : after_sequence + limit] if plan else []
        return bodies[: _fitting(bodies, bytes_max)]

    async def read_starts(
        self, plan_ids: Sequence[str], *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[Sequence[bytes]]:
        return [await self.read(plan_id, 0, limit=limit, bytes_max=bytes_max) for plan_id in plan_ids]

    async def last_sequence(self, plan_id: str) -> int | None:
        plan = self._plans.get(plan_id)
        return plan.sequence if plan else None

    async def read_all(self, after_position: int, *, limit: int = 500, bytes_max: int = 1 << 20) -> Sequence[Record]:
        start = bisect_right(self._records, after_position, key=lambda record: record.position)
        records = self._records[start : start + limit]
        return records[: _fitting([record.body for record in records], bytes_max)]

    async def last_position(self) -> int:
        return self._position

    async def removed_position(self) -> int:
        return self._removed_position

    async def get_row(self, plan_id: str) -> PlanRow | None:
        plan = self._plans.get(plan_id)
        return plan.row if plan else None

    async def get_snapshot(self, plan_id: str) -> bytes | None:
        plan = self._plans.get(plan_id)
        return plan.snapshot if plan else None

    async def list_rows(self, query: PlanQuery) -> PlanPage:
        last_key = read_token(query)
        found = [
            plan
            for plan in reversed(self._plans.values())
            if (last_key is None or plan.key < last_key) and _matches(plan.row, query)
        ]
        page = found[: page_size(query)]
        page = page[: _fitting([plan.row.body for plan in page], PAGE_BYTES_MAX)]
        token = make_token(query, page[-1].key) if len(page) < len(found) else ""
        return PlanPage([plan.row for plan in page], token)

    async def find_request(self, tenant: str, principal: str, request_id: str) -> tuple[str, str] | None:
        return self._requests.get((tenant, principal, request_id))

    async def ended_plans(
        self, *, before: datetime | None = None, compacted: bool = False, limit: int = 100
    ) -> Sequence[Ended]:
        found = [
            plan
            for plan in self._left(compacted=compacted)
            if before is None or plan.row.end_time is None or plan.row.end_time < before
        ]
        return [
            Ended(plan.row.plan_id, plan.sequence, *(plan.positions[:1] + plan.positions[-1:] or (0, 0)))
            for plan in found[:limit]
        ]

    def _by_end(self) -> list[_Plan]:
        ended = [(plan.row.end_time, plan.key, plan) for plan in self._plans.values() if plan.row.end_time is not None]
        return [plan for _, _, plan in sorted(ended, key=lambda one: one[:2])]

    async def count_ended(self, *, compacted: bool) -> int:
        return len(self._left(compacted=compacted))

    def _left(self, *, compacted: bool) -> list[_Plan]:
        found = [plan for plan in self._by_end() if bool(plan.compacted) is compacted and not plan.unpurged]
        return [plan for plan in found if not compacted or not self._is_needed(plan)]

    def _is_needed(self, plan: _Plan) -> bool:
        """Whether a plan that has not ended may still ask for this one, its sub-plan."""
        above = self._plans.get(plan.row.parent_plan_id)
        return above is not None and above.row.end_time is None

    async def compact(self, compactions: Sequence[Compaction]) -> None:
        gone: set[str] = set()
        for compaction in compactions:
            plan = self._plans.get(compaction.plan_id)
            if plan is None or plan.row.end_time is None or len(plan.bodies) != compaction.sequence:
                continue

            gone.add(compaction.plan_id)
            plan.compacted, plan.unpurged, plan.snapshot = compaction.sequence, compaction.sequence, compaction.snapshot
            self._removed_position = max(self._removed_position, plan.positions[-1])
            plan.bodies, plan.positions = [], []

        self._records = [record for record in self._records if record.plan_id not in gone]

    async def purge(self, limit: int) -> int:
        left = limit
        for plan in self._by_end():
            freed = min(left, plan.unpurged)
            plan.unpurged -= freed
            left -= freed

        return limit - left

    async def remove(self, plan_ids: Sequence[str]) -> Sequence[str]:
        gone = [
            plan_id
            for plan_id in dict.fromkeys(plan_ids)
            if (plan := self._plans.get(plan_id)) and plan.compacted and not plan.unpurged
        ]
        for plan_id in gone:
            del self._plans[plan_id]

        self._requests = {key: known for key, known in self._requests.items() if known[0] not in gone}
        return gone


def _fitting(bodies: Sequence[bytes], bytes_max: int) -> int:
    total = 0
    for count, body in enumerate(bodies):
        total += len(body)
        if total > bytes_max and count:
            return count

    return len(bodies)


def _matches(row: PlanRow, query: PlanQuery) -> bool:
    return (
        (not query.tenant or row.tenant == query.tenant)
        and (not query.states or row.state in query.states)
        and query.labels.items() <= row.labels.items()
        and (not query.context_id or row.context_id == query.context_id)
        and (not query.parent_plan_id or row.parent_plan_id == query.parent_plan_id)
        and (query.created_after is None or row.create_time >= query.created_after)
        and (query.created_before is None or row.create_time < query.created_before)
    )
