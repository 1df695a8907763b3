"""How a watch survives its connections: pure, without a clock and without I/O; both clients drive it.

:func:`watch_flow` is a generator. It yields what to do and is sent what came of it::

    OpenStream   open a stream there, read its first message     ─┐
    Deliver      hand these events out, then read the next one   ─┴─►  Batch | CallFailed | CallEnded | Interrupted
    Sleep        wait so many seconds                            ───►  None

It returns when the plan has ended, and raises what must not be survived: a refusal, a gap in the sequence, or a server
that stays away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from random import Random
from typing import Protocol, TypeAlias

from autoglm._dataclasses import dataclass
from autoglm._retry import BACKOFF, Backoff
from autoglm.errors import AutoglmError, SequenceGapError, UnavailableError
from autoglm.model import DOMAIN, Event, PlanCancelled, PlanFailed, PlanSucceeded

FROZEN_AFTER = 45.0
"""Seconds without a message after which a stream is taken for dead: heartbeats come every 15."""

OPEN_ATTEMPTS_MAX = 6
"""Streams tried before the first message of a watch; then the server is taken for unreachable."""

RESUME_ATTEMPTS_MAX = 80
"""Streams tried in a row without progress, once there was a message: three minutes on average."""

PLANS_MAX = 100_000
"""Plans whose last sequence a watch of all plans remembers; the one seen longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Open a stream after ``after_sequence`` of ``journal_id``, or, of all plans, after ``cursor``; read a message."""

    after_sequence: int = 0
    journal_id: str = ""
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand ``events`` out, then read the next message. ``cursor`` is where all of them have been seen."""

    events: tuple[Event, ...]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait before the next stream is opened."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A message came."""

    events: tuple[Event, ...] = ()
    sequence: int = 0
    journal_id: str = ""
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class CallFailed:
    """The stream ended with an error. ``status`` is the gRPC status by name."""

    error: AutoglmError
    status: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The stream ended OK."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The one who waits broke the stream off, by a time-out or a cancelled task; nothing is wrong with the server."""


Command: TypeAlias = OpenStream | Deliver | Sleep
Outcome: TypeAlias = Batch | CallFailed | CallEnded | Interrupted


class Position(Protocol):
    """How far a watch has come, and what it has still to see."""

    def finished(self) -> bool:
        """Tell whether there is nothing more to see."""
        ...

    def where(self) -> OpenStream:
        """Say where the next stream begins."""
        ...

    def take(self, batch: Batch) -> Deliver:
        """Take a batch in; what was seen before is left out. Raises SequenceGapError."""
        ...

    def ended(self, *, quiet: bool) -> None:
        """Hear that a stream ended OK; ``quiet`` if it brought nothing new."""
        ...


class PlanPosition:
    """How far a watch of one plan has come: its last sequence, and the journal that is of."""

    def __init__(self, plan_id: str, after_sequence: int = 0, journal_id: str = "") -> None:
        """Begin after ``after_sequence``."""
        self.plan_id = plan_id
        self.sequence = after_sequence
        self.journal_id = journal_id
        self._finished = False
        self._quiet_ends = 0

    def finished(self) -> bool:
        return self._finished

    def where(self) -> OpenStream:
        return OpenStream(self.sequence, self.journal_id)

    def take(self, batch: Batch) -> Deliver:
        """Take a batch in. A durable event that was seen is dropped, one that is too far is a SequenceGapError."""
        self.journal_id = batch.journal_id or self.journal_id
        fresh: list[Event] = []

        for event in batch.events:
            if not event.ephemeral:
                if event.sequence <= self.sequence:
                    continue

                _check_dense(self.plan_id, self.sequence, event.sequence)
                self.sequence = event.sequence
                self._finished = is_terminal(event)

            fresh.append(event)

        if batch.sequence > self.sequence:
            raise _gap(self.plan_id, self.sequence, f"the server says all is sent up to {batch.sequence}")

        return Deliver(tuple(fresh))

    def ended(self, *, quiet: bool) -> None:
        """Take two streams in a row that ended OK and brought nothing for the end of the plan.

        One could be a proxy that closes streams; after the terminal event of a plan, each is.
        """
        self._quiet_ends = self._quiet_ends + 1 if quiet else 0
        self._finished = self._quiet_ends >= 2


class AllPosition:
    """How far a watch of all plans has come: the cursor, and the last sequence of each plan that has not ended."""

    def __init__(self, cursor: str = "") -> None:
        """Begin after ``cursor``."""
        self.cursor = cursor
        self._sequences: OrderedDict[str, int] = OrderedDict()

    def finished(self) -> bool:
        """Never: a watch of all plans has no end."""
        return False

    def where(self) -> OpenStream:
        return OpenStream(cursor=self.cursor)

    def take(self, batch: Batch) -> Deliver:
        """Take a batch in. Each plan's durable events are dense from the first one seen."""
        fresh = tuple(event for event in batch.events if event.ephemeral or self._is_new(event))
        self.cursor = batch.cursor or self.cursor
        return Deliver(fresh, self.cursor)

    def ended(self, *, quiet: bool) -> None:
        """Go on: a watch of all plans never ends by itself."""

    def _is_new(self, event: Event) -> bool:
        last = self._sequences.pop(event.plan_id, None)

        if last is not None and event.sequence <= last:
            self._sequences[event.plan_id] = last
            return False

        if last is not None:
            _check_dense(event.plan_id, last, event.sequence)

        if not is_terminal(event):
            self._sequences[event.plan_id] = event.sequence

            if len(self._sequences) > PLANS_MAX:
                self._sequences.popitem(last=False)

        return True


def watch_flow(
    position: Position, rng: Random, *, backoff: Backoff = BACKOFF
) -> Generator[Command, Outcome | None, None]:
    """Watch from ``position`` on; see the module."""
    answered = False  # whether this watch ever had a message
    failures = 0  # streams in a row that brought nothing

    while not position.finished():
        outcome = yield position.where()
        messages = 0
        news = False

        while isinstance(outcome, Batch):
            before = position.where()
            deliver = position.take(outcome)
            messages += 1
            answered = True
            news = news or position.where() != before

            if news or messages > 1:
                failures = 0  # the first message alone proves nothing: a server may fail after each

            if position.finished():
                yield deliver
                return

            outcome = yield deliver

        if isinstance(outcome, Interrupted) or outcome is None:
            continue

        if isinstance(outcome, CallEnded):
            position.ended(quiet=not news)

            if position.finished():
                return

            error: AutoglmError = UnavailableError("The server ends the watch again and again without an event.")
        elif resumes(outcome):
            error = outcome.error
        else:
            raise outcome.error

        failures += 1

        if failures >= (RESUME_ATTEMPTS_MAX if answered else OPEN_ATTEMPTS_MAX):
            raise error

        yield Sleep(backoff.pause(failures, rng))


def resumes(failed: CallFailed) -> bool:
    """Tell whether another stream may go on where this one failed.

    UNAVAILABLE always: the server went away, drains, ended the watch (WATCH_ENDED), or the connection froze. Otherwise
    what the server itself refused (it names a reason) is final, and what a proxy or the transport broke off is not.
    """
    if failed.status == "UNAVAILABLE":
        return True

    if failed.error.domain == DOMAIN and failed.error.reason != failed.status:
        return False

    if failed.status in {"CANCELLED", "DEADLINE_EXCEEDED"}:
        return True  # not by us: a watch has no deadline, and what we break off is Interrupted

    broken = ("RST_STREAM", "GOAWAY", "Stream removed", "max_age", "Socket closed", "Failed parsing HTTP/2")
    return failed.status in {"INTERNAL", "UNKNOWN"} and any(word in str(failed.error) for word in broken)


def is_terminal(event: Event) -> bool:
    """Tell whether a plan ends with ``event``."""
    return not event.ephemeral and isinstance(event.fact, PlanSucceeded | PlanFailed | PlanCancelled)


def _check_dense(plan_id: str, last: int, sequence: int) -> None:
    if sequence != last + 1:
        raise _gap(plan_id, last, f"the next event has {sequence}")


def _gap(plan_id: str, last: int, found: str) -> SequenceGapError:
    return SequenceGapError(
        f"The watch of plan {plan_id} has a gap: the last sequence seen is {last}, but {found}. This is a fault of the "
        f"server; watch again with after_sequence={last}, and report it.",
        metadata={"plan_id": plan_id, "sequence": str(last)},
    )
