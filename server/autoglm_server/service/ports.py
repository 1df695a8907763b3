"""What the edge needs of the scheduler and of the journal's followers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from autoglm.model import CreatePlanRequest, Decision, Plan, Violation


class Submitted(Protocol):
    """What became of a request for a plan, serialised: ``basic`` followed by ``rest`` is the plan in view FULL."""

    @property
    def plan_id(self) -> str:
        """The plan; empty after a dry run."""
        ...

    @property
    def basic(self) -> bytes:
        """The plan in view BASIC."""
        ...

    @property
    def rest(self) -> bytes:
        """What view FULL has besides."""
        ...

    @property
    def existing(self) -> bool:
        """Whether the request had made the plan before."""
        ...


class PlanPort(Protocol):
    """What callers ask of plans. One day a replica that does not own a plan forwards it."""

    def check(self, request: CreatePlanRequest) -> list[Violation]:
        """Give every fault that only the catalog and the other steps show, also of a request whose shape is not sound."""
        ...

    async def submit(
        self, request: CreatePlanRequest, *, principal: str, digest: str, again: bool = False
    ) -> Submitted:
        """Make a plan, durable when this returns, unless its request_id is known.

        ``again``: a request whose parts are these very objects was asked for before, and is small.

        Raises:
            InvalidRequestError: with every fault that only the catalog and the other steps show.
            ConflictError, LimitError, UnavailableError: as their reasons say.
        """
        ...

    async def get(self, plan_id: str) -> Plan:
        """Give a plan, durable up to its sequence.

        Raises:
            NotFoundError: PLAN_NOT_FOUND.
        """
        ...

    async def cancel(self, plan_id: str, *, reason: str, principal: str) -> Plan:
        """Ask a plan to stop, durable when this returns.

        Raises:
            NotFoundError: PLAN_NOT_FOUND.
        """
        ...

    async def resolve(
        self, plan_id: str, step_id: str, *, wait_sequence: int, decision: Decision, comment: str, principal: str
    ) -> Plan:
        """Decide what a step waits for, durable when this returns.

        Raises:
            NotFoundError, PreconditionError, AbortedError, InvalidRequestError: as their reasons say.
        """
        ...


class Batch(Protocol):
    """What is new to a watcher."""

    @property
    def events(self) -> bytes:
        """Serialised events, in order, as a message has them; none is a heartbeat."""
        ...

    @property
    def sequence(self) -> int:
        """All durable events up to here have been given."""
        ...

    @property
    def ended(self) -> bool:
        """The plan's terminal event has been given."""
        ...

    @property
    def drained(self) -> bool:
        """The server goes away; nothing more will be given."""
        ...


class Cursor(Protocol):
    """A place in one plan's log."""

    async def next(self, timeout: float) -> Batch:  # noqa: ASYNC109 - the end of it is a heartbeat
        """Give what is new, or an empty batch after ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class AllBatch(Protocol):
    """What is new to a watcher of all plans."""

    @property
    def bodies(self) -> Sequence[bytes]:
        """Serialised events, in commit order; none is a heartbeat."""
        ...

    @property
    def cursor(self) -> str:
        """Where to resume."""
        ...

    @property
    def drained(self) -> bool:
        """The server goes away; nothing more will be given."""
        ...


class AllCursor(Protocol):
    """A place in the log of all plans."""

    async def next(self, timeout: float) -> AllBatch:  # noqa: ASYNC109 - the end of it is a heartbeat
        """Give what is new, or an empty batch after ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class FollowPort(Protocol):
    """Reads logs from a place, then waits for more."""

    def follow(self, plan_id: str, after_sequence: int, *, durable_only: bool) -> Cursor:
        """Follow one plan."""
        ...

    def follow_all(self, cursor: str, *, from_now: bool, labels: Mapping[str, str], durable_only: bool) -> AllCursor:
        """Follow every plan."""
        ...
