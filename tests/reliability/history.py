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


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long finished plans are kept in a world, in seconds after their end (None: for good)."""

    events: float | None = None
    plans: float | None = None
    max_plans: int | None = None
    keys: float = 6.0
    """How long a request_id is remembered at least."""
    every: float = 1.0
    """A sweep follows the other after so long."""
    batch: int = 1
    """How many plans, or events, go at once."""


@dataclass(frozen=True, slots=True)
class Swept:
    """Retention took the events of a plan, or all of it (``whole``), whether or not that had become durable when it was noted."""

    at: int
    plan_id: str
    whole: bool
    now: float
    """What the clock on the wall said when the sweep began."""


@dataclass(frozen=True, slots=True)
class Told:
    """Who asked or watched was told that something is not there; ``plan_id`` is empty for one who watches all plans."""

    at: int
    who: str
    plan_id: str
    reason: str


@dataclass(slots=True)
class Kept:
    """What retention did in a run, and what was left at the end."""

    rules: Keeping
    swept: list[Swept] = field(default_factory=list)
    meant: dict[str, int] = field(default_factory=dict)
    """When the journal was first asked to let the events of a plan go."""
    last: tuple[int, float] | None = None
    """When the last sweep began that came to its end, and what the clock on the wall said then."""
    rows: set[str] = field(default_factory=set)
    """Plans that are there at the end, with or without their events."""
    events: set[str] = field(default_factory=set)
    """Those that have their events."""
    snapshots: dict[str, Plan] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)
    """The plan of every request_id that is remembered at the end."""


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
    kept: Kept | None = None
    """What retention did, if there was any. ``logs`` hold what it took as well, as it was right before."""
    told: list[Told] = field(default_factory=list)
    watching: dict[str, str] = field(default_factory=dict)
    """Who watched, and which plan (empty: all)."""
    resumed: dict[str, int] = field(default_factory=dict)
    """When each who watches all plans first went on from a place."""
    held: set[str] = field(default_factory=set)
    """Plans that had to wait for others (their process was crashed, frozen or full): their delays prove nothing."""

    def events(self, plan_id: str) -> list[Event]:
        """Give a plan's durable events."""
        return [logged.event for logged in self.logs.get(plan_id, ())]

    def fault(self, kind: str, count: int = 1) -> None:
        """Note that a fault was injected."""
        self.faults[kind] = self.faults.get(kind, 0) + count
