"""The journal: an append-only store of events, one log per plan.

Bodies are serialised ``autoglm.v1.Event`` messages. The journal never looks into them: it stores the bytes it is given and
gives the same bytes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import NamedTuple, Protocol

from autoglm._dataclasses import dataclass
from autoglm.model import PlanState


class JournalError(Exception):
    """The root of what a journal raises or settles an append with."""


class FencedError(JournalError):
    """The epoch or the first sequence is not the plan's: another owner has taken it up. This process lets go of it."""


class DuplicateRequestError(JournalError):
    """The request key is another plan's already."""

    def __init__(self, plan_id: str, request_digest: str) -> None:
        """Name the plan that has the key, and the digest of the request that made it."""
        super().__init__(f"request_id belongs to plan {plan_id}")
        self.plan_id = plan_id
        self.request_digest = request_digest


class JournalFailedError(JournalError):
    """The writer failed for good: the outcome of the append is not known and the process must end."""


class JournalLockedError(JournalError):
    """Another process has the data directory."""


class JournalVersionError(JournalError):
    """The journal was written by a newer version."""


class JournalDamagedError(JournalError):
    """What is stored is not what was written: the file is only read from, and what is damaged of it is not given out."""


class EventsRemovedError(JournalError):
    """Retention has removed the events of a plan that were asked for."""

    def __init__(self, plan_id: str, sequence: int) -> None:
        """Name the plan, and the last sequence of its log; its snapshot is true up to there."""
        super().__init__(f"the events of plan {plan_id} up to sequence {sequence} are no longer kept")
        self.plan_id = plan_id
        self.sequence = sequence


class RequestKey(NamedTuple):
    """What makes a create idempotent. ``tenant`` is empty until there are tenants."""

    tenant: str
    principal: str
    request_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    """What ListPlans needs of a plan; written in the transaction of the events that changed it.

    The row of the first append says what the plan is; a later one changes ``state``, ``end_time`` and ``body`` alone.
    ``body`` is the serialised ``autoglm.v1.Plan`` in view BASIC, given back as it is. ``end_time`` is None until the plan
    has ended; retention goes by it.
    """

    plan_id: str
    tenant: str
    principal: str
    state: PlanState
    labels: Mapping[str, str]
    context_id: str
    parent_plan_id: str
    create_time: datetime
    body: bytes
    end_time: datetime | None = None


@dataclass(slots=True)
class Append:
    """Events of one plan, to become durable together: all or none.

    Succeeds only if ``epoch`` is the plan's and ``first_sequence`` is the next one (a new plan has epoch 1 and starts at
    1). ``row`` is set when the plan's row changes; always in the first append, and ``request_key`` only there.
    ``settled`` is called exactly once, on the loop, in the order of the appends of the plan: with None when durable, or
    with the :class:`JournalError` that refused it.
    """

    plan_id: str
    epoch: int
    first_sequence: int
    bodies: Sequence[bytes]
    settled: Callable[[JournalError | None], None]
    row: PlanRow | None = None
    request_key: RequestKey | None = None


class Record(NamedTuple):
    """A durable event as every plan's log holds it. ``position`` grows in commit order over all plans."""

    position: int
    plan_id: str
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A plan taken up: its new epoch and the last sequence of its log."""

    plan_id: str
    epoch: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A plan that has ended: the last sequence of its log, and the positions of its first and its last event.

    Both positions are 0 when its events are gone.
    """

    plan_id: str
    sequence: int
    first_position: int
    last_position: int


@dataclass(frozen=True, slots=True)
class Compaction:
    """The events of a plan are to go: ``snapshot``, the serialised plan as of ``sequence``, the last, stays."""

    plan_id: str
    sequence: int
    snapshot: bytes


@dataclass(frozen=True, slots=True)
class PlanQuery:
    """Which plans to list, newest first. Empty and None mean no condition; labels must all match."""

    tenant: str = ""
    states: frozenset[PlanState] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    context_id: str = ""
    parent_plan_id: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None
    page_size: int = 50
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class PlanPage:
    """A page of rows, and the token of the next one (empty at the end)."""

    rows: Sequence[PlanRow]
    next_page_token: str


class Journal(Protocol):
    """The port. All methods are called on the loop; none blocks it.

    ``append`` hands over and returns at once; what has been handed over when the writer is free becomes one commit. Then
    every ``settled`` is called, and ``on_commit`` once with all records of the commit, before anything later is settled.
    """

    on_commit: Callable[[Sequence[Record]], None]
    """Told of every commit, right before the appends in it are settled. Set before :meth:`open`."""
    on_health: Callable[[], None]
    """Told when :attr:`stalled`, :attr:`failure` or :attr:`damaged` changes."""

    @property
    def journal_id(self) -> str:
        """New at creation and at every restore."""
        ...

    @property
    def stalled(self) -> str:
        """Why nothing can be written for now (disk full); empty when all is well. What was handed over is kept."""
        ...

    @property
    def failure(self) -> JournalFailedError | None:
        """Why the writer is dead; the process must end."""
        ...

    @property
    def damaged(self) -> str:
        """What is damaged of what is stored, and what to do; empty when all is well as far as is known.

        From then on nothing is written: appends, claims and removals are refused with :class:`JournalDamagedError`. What can
        be read is.
        """
        ...

    @property
    def delay(self) -> float:
        """For how many seconds the oldest of what was handed over has been waiting to be settled; 0 if nothing is."""
        ...

    async def open(self) -> None:
        """Open or create, and migrate.

        Raises:
            JournalLockedError, JournalVersionError: with who, where and what to do.
            JournalDamagedError: nothing can be read any more.
        """
        ...

    async def close(self) -> None:
        """Make durable what was handed over, and let go."""
        ...

    def append(self, append: Append) -> None:
        """Hand over. Never raises."""
        ...

    async def claim(self, plan_ids: Sequence[str], owner: str) -> Sequence[Claim]:
        """Take plans up: each gets the next epoch, durably, and appends with an older one are refused from now on."""
        ...

    async def open_plans(self) -> Sequence[str]:
        """Give the ids of all plans that have not ended, oldest first."""
        ...

    async def open_children(self) -> Mapping[str, str]:
        """Give the plans that have not ended and that a step of another plan made: that other plan's id by theirs."""
        ...

    async def read(
        self, plan_id: str, after_sequence: int, *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[bytes]:
        """Give the bodies after a sequence, in order; at least one if there is one. Unknown plan: nothing.

        Raises:
            EventsRemovedError: there are some, and retention has removed them.
            JournalDamagedError: they cannot be read, or are not what was written.
        """
        ...

    async def read_starts(
        self, plan_ids: Sequence[str], *, limit: int = 500, bytes_max: int = 1 << 20
    ) -> Sequence[Sequence[bytes]]:
        """Give the first bodies of several plans, of each as :meth:`read` does, and at the cost of one; raises as it does."""
        ...

    async def last_sequence(self, plan_id: str) -> int | None:
        """Give the last durable sequence, or None for an unknown plan."""
        ...

    async def read_all(self, after_position: int, *, limit: int = 500, bytes_max: int = 1 << 20) -> Sequence[Record]:
        """Give the records of all plans after a position, in commit order."""
        ...

    async def last_position(self) -> int:
        """Give the position of the newest durable record, 0 if there is none."""
        ...

    async def removed_position(self) -> int:
        """Give the position of the newest record that retention has removed, 0 if there is none.

        Who has read up to there has missed nothing; who has not may have.
        """
        ...

    async def get_row(self, plan_id: str) -> PlanRow | None:
        """Give a plan's row."""
        ...

    async def get_snapshot(self, plan_id: str) -> bytes | None:
        """Give what stayed of a plan when its events went, None if they are there (or there is no such plan)."""
        ...

    async def list_rows(self, query: PlanQuery) -> PlanPage:
        """Give a page of rows, newest first. Fewer than fit on it, or none, may come although its token says that there are more.

        Raises:
            ValueError: the page token is not one of ours, or belongs to another query.
        """
        ...

    async def find_request(self, tenant: str, principal: str, request_id: str) -> tuple[str, str] | None:
        """Give (plan id, request digest) of the plan that has the key."""
        ...

    async def ended_plans(
        self, *, before: datetime | None = None, compacted: bool = False, limit: int = 100
    ) -> Sequence[Ended]:
        """Give the plans that ended (before a time), oldest end first: those that have their events.

        Or, ``compacted``, those whose events have been removed and purged. A sub-plan is none of these before the plan whose
        step made it has ended: that step may be attempted again, and must find it.
        """
        ...

    async def count_ended(self, *, compacted: bool) -> int:
        """Give how many plans :meth:`ended_plans` would give."""
        ...

    async def compact(self, compactions: Sequence[Compaction]) -> None:
        """Let the events of plans go, durably: they are no longer read from now on, their snapshots are.

        A plan that is not known, has not ended, has another last sequence, or whose events have gone already, is left as
        it is. A plan whose events have gone takes no append any more. What the events take is freed by :meth:`purge`.
        """
        ...

    async def purge(self, limit: int) -> int:
        """Free what at most ``limit`` removed events take, in one short transaction; give how many, fewer when none is left."""
        ...

    async def remove(self, plan_ids: Sequence[str]) -> Sequence[str]:
        """Remove plans whose events have been removed and purged, with their labels and request keys; give which.

        Others are left as they are.
        """
        ...
