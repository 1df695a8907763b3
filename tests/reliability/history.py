"""What was recorded of a run: what clients asked and were told, what tools really did, and the journal at the end.

The checker sees nothing else. ``at`` orders what was recorded: a count in the simulation, monotonic nanoseconds between
processes. Bodies are only compared with each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from autoglm.model import Decision, Effect, Event, JsonObject, Plan, StepDraft


@dataclass(frozen=True, slots=True)
class Logged:
    """A durable event of the journal as it was at the end. ``durable_at`` is when it was committed, if that is known."""

    event: Event
    body: bytes
    durable_at: int | None = None
    epoch: int = 0
    """Under which it was stored, 0 if that is not known."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A durable event that a watcher was given, on its stream number ``stream``, which began after ``after``."""

    at: int
    watcher: str
    stream: int
    after: int
    plan_id: str
    sequence: int
    body: bytes
    batch: int = 0


@dataclass(slots=True)
class Asked:
    """A call of a client. Without an answer (``answered_at`` is None) nobody knows what became of it."""

    at: int
    kind: str
    plan_id: str = ""
    request_id: str = ""
    content: str = ""
    step_id: str = ""
    wait_sequence: int = 0
    decision: Decision | None = None
    answered_at: int | None = None
    refused: str = ""
    """The reason, if it was refused."""
    plan: Plan | None = None
    """The snapshot it was answered with."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool noted in its ledger that a call of it began or ended."""

    at: int
    what: str
    tool: str
    key: str
    plan_id: str
    step_id: str
    attempt: int
    arguments: JsonObject | None = None
    owner: str = ""
    """The process that made it."""
    outlived: bool = False
    """Its process had been frozen, and another had taken the plan up meanwhile."""


@dataclass(slots=True)
class History:
    """Everything of one run. ``written`` holds the drafts that callers and planners wrote, by plan and step."""

    seed: int = 0
    logs: dict[str, list[Logged]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    written: dict[str, dict[str, list[StepDraft]]] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    """What calls of each tool do."""
    stalls: list[tuple[int, int]] = field(default_factory=list)
    """When the disk was full: from the moment the server knew to the moment there was room."""
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind of fault was injected."""
    healed: bool = False
    """Faults stopped, and every plan had time to come to its end."""
    broken: list[str] = field(default_factory=list)
    """What stopped the run itself: that nothing can ever happen again, or that something raised that must not."""
    steady: bool = True
    """The wall clock never jumped, so event times say how long things took."""
    held: set[str] = field(default_factory=set)
    """Plans that had to wait for others (their process was crashed, frozen or full): their delays prove nothing."""

    def events(self, plan_id: str) -> list[Event]:
        """Give a plan's durable events."""
        return [logged.event for logged in self.logs.get(plan_id, ())]

    def fault(self, kind: str, count: int = 1) -> None:
        """Note that a fault was injected."""
        self.faults[kind] = self.faults.get(kind, 0) + count
