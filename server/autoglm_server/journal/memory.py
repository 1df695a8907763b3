"""The journal in memory: the reference model the drivers are compared with, and what tests run on.

It keeps its content through :meth:`MemoryJournal.close` and :meth:`MemoryJournal.open`, as a disk does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autoglm._ids import new_id
from autoglm_server.journal._check import fault_of
from autoglm_server.journal._paging import PAGE_BYTES_MAX, make_token, page_size, read_token
from autoglm_server.journal._settle import settle
from autoglm_server.journal.journal import (
    Append,
    Claim,
    DuplicateRequestError,
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
        self._turn: list[Append | _Claiming] = []
        self._open = False

    @property
    def journal_id(self) -> str:
        return self._journal_id

    @property
    def stalled(self) -> str:
        return ""

    @property
    def failure(self) -> JournalFailedError | None:
        return None

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
        return Claim(plan_id, plan.epoch, len(plan.bodies))

    def _refusal(self, append: Append) -> JournalError | None:
        plan = self._plans.get(append.plan_id)
        epoch, following = (plan.epoch, len(plan.bodies) + 1) if plan else (1, 1)
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
            plan = self._plans[append.plan_id] = _Plan(len(self._plans) + 1, append.row)
        elif append.row is not None:
            plan.row = replace(plan.row, state=append.row.state, body=append.row.body)

        if append.request_key is not None:
            key = append.request_key
            self._requests[key.tenant, key.principal, key.request_id] = (append.plan_id, key.digest)

        for body in append.bodies:
            plan.bodies.append(body)
            self._records.append(Record(len(self._records) + 1, append.plan_id, len(plan.bodies), body))

    async def open_plans(self) -> Sequence[str]:
        return [plan_id for plan_id, plan in self._plans.items() if not plan.row.state.terminal]

    async def read(
        self, plan_id: str, after_sequence: int, *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[bytes]:
        plan = self._plans.get(plan_id)
        bodies = plan.bodies[after_sequence : after_sequence + limit] if plan else []
        return bodies[: _fitting(bodies, bytes_max)]

    async def last_sequence(self, plan_id: str) -> int | None:
        plan = self._plans.get(plan_id)
        return len(plan.bodies) if plan else None

    async def read_all(self, after_position: int, *, limit: int = 500, bytes_max: int = 1 << 20) -> Sequence[Record]:
        records = self._records[after_position : after_position + limit]
        return records[: _fitting([record.body for record in records], bytes_max)]

    async def last_position(self) -> int:
        return len(self._records)

    async def get_row(self, plan_id: str) -> PlanRow | None:
        plan = self._plans.get(plan_id)
        return plan.row if plan else None

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
