"""The vocabulary as plain values: frozen dataclasses and enums, one for each message of ``autoglm.v1``.

Fields have the names and the order of the message's fields; a contract test keeps them equal. The types are Python's own:
a Timestamp is an aware :class:`~datetime.datetime` in UTC, a Duration a :class:`~datetime.timedelta`, a Struct or Value plain
JSON, a repeated field a tuple, an absent message ``None``. ``autoglm.wire`` is the one place that knows both forms.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from autoglm._dataclasses import dataclass

Json: TypeAlias = Any
"""Any JSON value: None, bool, int, float (finite), str, list or dict with str keys."""

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object."""

DOMAIN = "autoglm"
"""The domain of a reason that stands in :class:`ErrorReason`."""


class _Enum(enum.IntEnum):
    """An enum of the wire. A number this version does not know reads as UNSPECIFIED."""

    @classmethod
    def _missing_(cls, value: object) -> _Enum:  # noqa: ARG003  # the signature is enum's
        return cls(0)


class PlanState(_Enum):
    """Where a plan is in its life; derived from its events."""

    UNSPECIFIED = 0
    """Not set."""
    QUEUED = 1
    """Admitted, waits for its turn: no round and no step has begun."""
    PLANNING = 2
    """A round of the planner is under way or due."""
    RUNNING = 3
    """A call is under way, ready or backing off."""
    WAITING = 4
    """All that is left waits for a person."""
    CANCELLING = 5
    """A stop was asked for or a limit was reached; calls under way are being stopped."""
    SUCCEEDED = 6
    """Ended with an answer. Final."""
    FAILED = 7
    """Ended with a failure. Final."""
    CANCELLED = 8
    """Ended because it was cancelled. Final."""

    terminal: bool
    """Whether the plan has ended."""

    def __init__(self, number: int) -> None:
        """Note what is asked all the time."""
        self.terminal = number >= 6


class StepState(_Enum):
    """Where a step is."""

    UNSPECIFIED = 0
    """Not set."""
    PENDING = 1
    """Waits for its inputs, for a place, or backs off (then ``next_attempt_time`` is set)."""
    WAITING = 2
    """Waits for a person's decision."""
    RUNNING = 3
    """A call is under way."""
    SUCCEEDED = 4
    """Has a result. Final."""
    FAILED = 5
    """Failed for good. Final."""
    SKIPPED = 6
    """Never ran, because a step it depends on has no output. Final."""
    CANCELLED = 7
    """Stopped with its plan. Final."""

    terminal: bool
    """Whether the step has ended."""

    def __init__(self, number: int) -> None:
        """Note what is asked all the time."""
        self.terminal = number >= 4


class ToolCallState(_Enum):
    """Where one attempt at a step is."""

    UNSPECIFIED = 0
    """Not set."""
    RUNNING = 1
    """Under way."""
    SUCCEEDED = 2
    """Gave a result."""
    FAILED = 3
    """Failed."""
    CANCELLED = 4
    """Was stopped."""
    INTERRUPTED = 5
    """The process that made it went away; there is no outcome."""


class Effect(_Enum):
    """What calling a tool does to the world; decides what happens when an outcome is unknown."""

    UNSPECIFIED = 0
    """Taken as NON_IDEMPOTENT."""
    READ_ONLY = 1
    """Changes nothing; may be repeated, and may start before its intent is durable."""
    IDEMPOTENT = 2
    """Changes something; doing it twice is as doing it once."""
    NON_IDEMPOTENT = 3
    """Changes something each time; never repeated without a person or the tool saying so."""


class WaitingReason(_Enum):
    """Why a step waits for a person."""

    UNSPECIFIED = 0
    """Not set."""
    APPROVAL = 1
    """The call needs approval before it is made."""
    OUTCOME_UNKNOWN = 2
    """The call may have taken effect; a person must say what is so."""
    TOOL_CHANGED = 3
    """The tool is no longer the one the step was planned with."""
    INPUT = 4
    """The tool asks the caller for something."""


class UnknownOutcomeAction(_Enum):
    """What to do when a NON_IDEMPOTENT call may or may not have taken effect."""

    UNSPECIFIED = 0
    """Taken as WAIT."""
    WAIT = 1
    """Wait for a person."""
    FAIL = 2
    """Fail the step."""


class PlanView(_Enum):
    """How much of a plan an answer carries."""

    UNSPECIFIED = 0
    """The method's own default."""
    BASIC = 1
    """Without steps and rounds."""
    FULL = 2
    """Everything."""


class PluginState(_Enum):
    """What has become of a plugin."""

    UNSPECIFIED = 0
    """Not set."""
    DISABLED = 1
    """It is not used: the configuration does not name it, or says so."""
    ACTIVE = 2
    """It is used."""
    DEGRADED = 3
    """Its tools and planners are used, but it is told of steps no more: its start failed, or a hook took too long or failed
    too often."""
    FAILED = 4
    """It could not be loaded or started, and nothing of it is used."""


class ErrorReason(_Enum):
    """Every reason of the domain ``autoglm``: of a refused call, or of a failure that is data."""

    UNSPECIFIED = 0
    PLAN_NOT_FOUND = 1
    STEP_NOT_FOUND = 2
    TOOL_NOT_FOUND = 3
    INVALID_REQUEST = 4
    REQUEST_ID_CONFLICT = 5
    SEQUENCE_AHEAD = 6
    SEQUENCE_COMPACTED = 7
    JOURNAL_CHANGED = 8
    JOURNAL_FULL = 9
    STEP_NOT_WAITING = 10
    STEP_ALREADY_RESOLVED = 11
    WAIT_CHANGED = 12
    DECISION_NOT_ALLOWED = 13
    APPROVAL_REQUIRED = 14
    TOOL_CHANGED = 15
    ROUTE_LOOP = 16
    RESPONSE_TOO_LARGE = 17
    TOO_MANY_PLANS = 18
    TOO_MANY_WATCHES = 19
    WATCH_ENDED = 20
    SERVER_DRAINING = 21
    DEADLINE_EXCEEDED = 22
    UNIMPLEMENTED = 23
    INTERNAL = 24
    ARTIFACT_NOT_FOUND = 25
    TOO_MANY_CALLS = 26
    JOURNAL_DAMAGED = 27
    INVALID_ARGUMENTS = 40
    INVALID_OUTPUT = 41
    OUTPUT_TOO_LARGE = 42
    TOOL_UNAVAILABLE = 43
    TOOL_ERROR = 44
    STEP_TIMEOUT = 45
    INTERRUPTED = 46
    OUTCOME_UNKNOWN = 47
    REJECTED = 48
    CONNECTION_LOST = 49
    CANCELLED = 50
    SUB_PLAN_FAILED = 51
    INVALID_ARTIFACT = 52
    REQUEST_NOT_UNDERSTOOD = 60
    PLANNER_EMPTY = 61
    PLANNER_FAILED = 62
    PLANNER_TIMEOUT = 63
    PLANNER_UNAVAILABLE = 64
    INVALID_PLAN = 65
    MAX_STEPS = 66
    MAX_ROUNDS = 67
    STEPS_FAILED = 68
    PLAN_TIMEOUT = 69
    WAITING_TIMEOUT = 70
    BUDGET_EXCEEDED = 71
    TOO_MANY_EVENTS = 72
    ANSWER_TOO_LARGE = 73


# --- failure.proto


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a value: which field, what is wrong and what to do, and a reason a program can read."""

    field: str = ""
    description: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as data.

    ``reason`` is UPPER_SNAKE: a name of :class:`ErrorReason` when ``domain`` is ``"autoglm"``, the tool's own otherwise.
    ``retryable`` is a promise that another attempt is safe and may help; ``outcome_unknown`` says that the call may have
    taken effect all the same.
    """

    reason: str = ""
    domain: str = ""
    message: str = ""
    retryable: bool = False
    outcome_unknown: bool = False
    retry_after: timedelta | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()


# --- plan.proto


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds on what a plan may spend; ``None`` is no bound."""

    max_tokens: int | None = None
    max_tool_calls: int | None = None
    max_rounds: int | None = None
    max_duration: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent: tokens, model calls, tool calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Give the sum, field by field."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.model_calls + other.model_calls,
            self.tool_calls + other.tool_calls,
        )


@dataclass(frozen=True, slots=True)
class StepCounts:
    """How many steps are in which state."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    running: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class StepRef:
    """A step of another plan."""

    plan_id: str = ""
    step_id: str = ""


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """One message of an earlier conversation; ``role`` is ``user`` or ``assistant``."""

    role: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ContextItem:
    """Something the planner should know from before: the id of an earlier plan, or a message."""

    item: str | ContextMessage | None = None


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan runs. ``None`` and empty mean the server's default; a plan that exists carries every default filled in."""

    max_steps: int | None = None
    enable_tool_call: bool | None = None
    max_rounds: int | None = None
    timeout: timedelta | None = None
    waiting_timeout: timedelta | None = None
    max_parallel_steps: int | None = None
    planner: str = ""
    model: str = ""
    allowed_tools: tuple[str, ...] = ()
    approval_tools: tuple[str, ...] = ()
    on_unknown_outcome: UnknownOutcomeAction = UnknownOutcomeAction.UNSPECIFIED
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is made again. ``max_attempts`` includes the first."""

    max_attempts: int = 0
    initial_backoff: timedelta | None = None
    max_backoff: timedelta | None = None
    backoff_multiplier: float = 0.0


@dataclass(frozen=True, slots=True)
class StepDraft:
    """A step as a caller or a planner writes it.

    ``arguments`` may refer to earlier steps by ``${step}`` or ``${step.path}``. ``timeout`` is of one attempt.
    ``requires_approval`` can only add to what the tool and the options ask for.
    """

    id: str = ""
    title: str = ""
    tool: str = ""
    arguments: JsonObject | None = None
    depends_on: tuple[str, ...] = ()
    retry_policy: RetryPolicy | None = None
    timeout: timedelta | None = None
    requires_approval: bool = False


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that belongs to a result; ``digest`` is ``sha256:…``."""

    name: str = ""
    media_type: str = ""
    size_bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave."""

    output: Json = None
    artifacts: tuple[Artifact, ...] = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One attempt at a step. ``id`` is ``step/attempt``; ``idempotency_key`` is the same for all attempts of a step.

    ``arguments`` are resolved; above 64 KiB they are left out and ``arguments_digest`` stands for them.
    """

    id: str = ""
    attempt: int = 0
    state: ToolCallState = ToolCallState.UNSPECIFIED
    idempotency_key: str = ""
    arguments: JsonObject | None = None
    failure: Failure | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    child_plan_id: str = ""
    arguments_digest: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a step waits for. ``sequence`` names the wait: a decision must carry it. ``arguments`` are resolved."""

    sequence: int = 0
    reason: WaitingReason = WaitingReason.UNSPECIFIED
    arguments: JsonObject | None = None
    message: str = ""
    start_time: datetime | None = None
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A step and what became of it. ``round`` 0 is the caller's own; ``arguments`` are as written, references unresolved.

    ``provider`` is which one the tool was of when the step was added; empty: the server's own.
    """

    id: str = ""
    title: str = ""
    tool: str = ""
    arguments: JsonObject | None = None
    depends_on: tuple[str, ...] = ()
    retry_policy: RetryPolicy | None = None
    timeout: timedelta | None = None
    requires_approval: bool = False
    effect: Effect = Effect.UNSPECIFIED
    tool_digest: str = ""
    state: StepState = StepState.UNSPECIFIED
    round: int = 0
    tool_calls: tuple[ToolCall, ...] = ()
    result: ToolResult | None = None
    failure: Failure | None = None
    waiting: Waiting | None = None
    skipped_by: str = ""
    next_attempt_time: datetime | None = None
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of the planner."""

    number: int = 0
    planner: str = ""
    model: str = ""
    attempts: int = 0
    steps_added: int = 0
    usage: Usage | None = None
    failure: Failure | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A request, the steps made for it, and its one durable run: true up to ``sequence``."""

    id: str = ""
    request: str = ""
    state: PlanState = PlanState.UNSPECIFIED
    options: PlanOptions | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    rounds: tuple[Round, ...] = ()
    answer: str = ""
    output: Json = None
    failure: Failure | None = None
    usage: Usage | None = None
    step_counts: StepCounts | None = None
    principal: str = ""
    request_id: str = ""
    parent: StepRef | None = None
    context_id: str = ""
    context: tuple[ContextItem, ...] = ()
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    deadline: datetime | None = None
    expire_time: datetime | None = None
    sequence: int = 0


# --- event.proto: the facts


@dataclass(frozen=True, slots=True)
class Approve:
    """Make the call."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Do not make the call; the step fails with REJECTED."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Make the call again."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided of a step that waits. A :class:`ToolResult` stands for the call's own."""

    kind: Approve | Reject | Retry | ToolResult | None = None


@dataclass(frozen=True, slots=True)
class PlanCreated:
    """The plan was accepted, with every default filled in. Always sequence 1."""

    request: str = ""
    options: PlanOptions | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    request_digest: str = ""
    parent: StepRef | None = None
    context_id: str = ""
    context: tuple[ContextItem, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanResumed:
    """A process took the plan up; calls and rounds without an outcome were interrupted."""

    epoch: int = 0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class PlanningStarted:
    """A round of the planner began."""

    planner: str = ""
    model: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class PlanningFinished:
    """A round of the planner ended by itself; with ``answer`` or ``output`` if it answered."""

    usage: Usage | None = None
    note: str = ""
    answer: str = ""
    output: Json = None


@dataclass(frozen=True, slots=True)
class PlanningFailed:
    """A round of the planner failed; ``next_attempt_time`` is set when it will be made again."""

    failure: Failure | None = None
    usage: Usage | None = None
    next_attempt_time: datetime | None = None
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class StepAdded:
    """A step joined the plan, with everything resolved that is frozen for its life."""

    step: Step | None = None


@dataclass(frozen=True, slots=True)
class StepRejected:
    """A draft was refused, for these reasons."""

    draft: StepDraft | None = None
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A call begins. ``arguments`` are resolved; above 64 KiB they are left out and ``arguments_digest`` stands for them."""

    idempotency_key: str = ""
    arguments: JsonObject | None = None
    child_plan_id: str = ""
    arguments_digest: str = ""


@dataclass(frozen=True, slots=True)
class StepProgressed:
    """How far a call is (ephemeral); replaces the one before. ``text`` continues at ``offset``."""

    fraction: float = 0.0
    message: str = ""
    data: Json = None
    offset: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class StepRetryScheduled:
    """An attempt failed and another will be made at ``next_attempt_time``. ``usage`` as in :class:`StepFailed`."""

    failure: Failure | None = None
    delay: timedelta | None = None
    next_attempt_time: datetime | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """The step has its result."""

    result: ToolResult | None = None


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The step failed for good. ``usage`` is what its last attempt used all the same, if it is known."""

    failure: Failure | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """The step will not run, because ``skipped_by`` has no output."""

    skipped_by: str = ""


@dataclass(frozen=True, slots=True)
class StepCancelled:
    """The step was stopped with its plan. ``abandoned``: the call could not be stopped and may still be running."""

    outcome_unknown: bool = False
    abandoned: bool = False
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class StepWaiting:
    """The step waits for a person. The sequence of this event names the wait."""

    reason: WaitingReason = WaitingReason.UNSPECIFIED
    arguments: JsonObject | None = None
    message: str = ""
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class StepResolved:
    """A person decided."""

    wait_sequence: int = 0
    decision: Decision | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class AnswerProgressed:
    """The answer as it is generated (ephemeral): ``text`` continues the answer of (round, attempt) at ``offset``."""

    attempt: int = 0
    offset: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class PlanCancelRequested:
    """Somebody asked to cancel the plan."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class PlanLimitReached:
    """A limit was reached; the plan stops and then fails."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class PlanSucceeded:
    """The plan ended with an answer."""

    answer: str = ""
    output: Json = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class PlanFailed:
    """The plan ended with a failure; ``answer`` says what did succeed."""

    failure: Failure | None = None
    answer: str = ""
    output: Json = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class PlanCancelled:
    """The plan ended because it was cancelled."""

    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class UnknownFact:
    """A fact this version does not know. It counts for the sequence and changes nothing.

    ``number`` is the field of the fact on the wire (0 when even that is not known).
    """

    number: int = 0


Fact: TypeAlias = (
    PlanCreated
    | PlanResumed
    | PlanningStarted
    | PlanningFinished
    | PlanningFailed
    | StepAdded
    | StepRejected
    | StepStarted
    | StepProgressed
    | StepRetryScheduled
    | StepSucceeded
    | StepFailed
    | StepSkipped
    | StepCancelled
    | StepWaiting
    | StepResolved
    | AnswerProgressed
    | PlanCancelRequested
    | PlanLimitReached
    | PlanSucceeded
    | PlanFailed
    | PlanCancelled
    | UnknownFact
)
"""What an event says happened."""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact of a plan, with its place in the plan's log.

    ``sequence`` is dense from 1 for durable events; an ephemeral one carries the sequence it followed and is never stored.
    ``step_id``, ``attempt`` and ``round`` say what the fact is about; ``principal`` who asked for it.
    """

    plan_id: str = ""
    sequence: int = 0
    event_time: datetime | None = None
    step_id: str = ""
    attempt: int = 0
    ephemeral: bool = False
    round: int = 0
    principal: str = ""
    fact: Fact = field(default_factory=UnknownFact)


# --- tool.proto


@dataclass(frozen=True, slots=True)
class ToolExample:
    """An example of a tool's use."""

    title: str = ""
    arguments: JsonObject | None = None
    output: Json = None


@dataclass(frozen=True, slots=True)
class Phrase:
    """How the rules planner reads a request for a tool, and how the result is told.

    ``pattern`` is text with typed slots, as ``convert {value:number} {from_unit} to {to_unit}``; ``answer`` a sentence
    with ``{slots}`` and ``{output}``; ``language`` ``en`` or ``zh``.
    """

    pattern: str = ""
    answer: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a step can call. Schemas are JSON Schema as JSON text; ``digest`` is of name, effect and schemas."""

    name: str = ""
    title: str = ""
    description: str = ""
    input_schema: str = ""
    output_schema: str = ""
    effect: Effect = Effect.UNSPECIFIED
    destructive: bool = False
    open_world: bool = False
    timeout: timedelta | None = None
    retry_policy: RetryPolicy | None = None
    requires_approval: bool = False
    tags: tuple[str, ...] = ()
    examples: tuple[ToolExample, ...] = ()
    phrases: tuple[Phrase, ...] = ()
    provider: str = ""
    digest: str = ""
    available: bool = False


# --- tool_service.proto: what a direct call carries


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval that travels with a call; it binds to the digest of the arguments."""

    principal: str = ""
    arguments_digest: str = ""


@dataclass(frozen=True, slots=True)
class CallContext:
    """On whose behalf a tool is called; set by a server that calls for a plan. ``route`` stops loops of servers."""

    plan_id: str = ""
    step_id: str = ""
    attempt: int = 0
    principal: str = ""
    approval: Approval | None = None
    route: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """How far a direct call is."""

    fraction: float = 0.0
    message: str = ""
    data: Json = None
    text: str = ""


# --- plan_service.proto: what callers ask for


@dataclass(frozen=True, slots=True)
class CreatePlanRequest:
    """Ask for a plan: a request in natural language, given steps, or both."""

    request: str = ""
    steps: tuple[StepDraft, ...] = ()
    options: PlanOptions | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    context_id: str = ""
    context: tuple[ContextItem, ...] = ()
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin of a server: where it is from, what it gives, and what has become of it and why.

    ``errors`` counts calls of its hooks that failed, ``dropped`` the events of steps it was not told of.
    """

    name: str = ""
    version: str = ""
    source: str = ""
    enabled: bool = False
    mode: str = ""
    state: PluginState = PluginState.UNSPECIFIED
    reason: str = ""
    tools: tuple[str, ...] = ()
    planners: tuple[str, ...] = ()
    errors: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself (GetServerInfoResponse)."""

    version: str = ""
    journal_id: str = ""
    capabilities: tuple[str, ...] = ()
    planner: str = ""
    plugins: tuple[Plugin, ...] = ()
