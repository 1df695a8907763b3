"""The fold from events to a plan: the plan is what its events say, and nothing else.

Handles, GetPlan, doctor and the scheduler all use this one fold. It owns its state and changes it in place, with indexes
(unmet dependencies, ready, running, backing off, waiting …), so that an event costs the same at any size of plan. Others
see only the frozen snapshots.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from autoglm._dataclasses import dataclass
from autoglm.errors import SequenceGapError
from autoglm.model import (
    DOMAIN,
    AnswerProgressed,
    Approve,
    ContextItem,
    Decision,
    Event,
    Failure,
    Plan,
    PlanCancelled,
    PlanCancelRequested,
    PlanCreated,
    PlanFailed,
    PlanLimitReached,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanResumed,
    PlanState,
    PlanSucceeded,
    Retry,
    Round,
    Step,
    StepAdded,
    StepCancelled,
    StepCounts,
    StepFailed,
    StepProgressed,
    StepRejected,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepStarted,
    StepState,
    StepSucceeded,
    StepWaiting,
    ToolCall,
    ToolCallState,
    ToolResult,
    UnknownFact,
    Usage,
    Waiting,
    WaitingReason,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta

_NOTHING_USED = Usage()
_NOT_CREATED = PlanCreated()
# Asked for with every event: in a module's own names a member is found at a tenth of what its class takes.
_PLAN_QUEUED, _PLAN_RUNNING, _PLAN_WAITING = PlanState.QUEUED, PlanState.RUNNING, PlanState.WAITING
_PENDING, _WAITING, _RUNNING, _SUCCEEDED = (
    StepState.PENDING,
    StepState.WAITING,
    StepState.RUNNING,
    StepState.SUCCEEDED,
)
_CALL_RUNNING, _CALL_SUCCEEDED = ToolCallState.RUNNING, ToolCallState.SUCCEEDED
_WITHOUT_OUTPUT = (StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED)
_INTERRUPTED = Failure(
    reason="INTERRUPTED",
    domain=DOMAIN,
    message="the process that ran this went away before there was an outcome",
    retryable=True,
    outcome_unknown=True,
)


@dataclass(slots=True)
class CallFold:
    """A call as it is now."""

    step_id: str
    attempt: int
    started: StepStarted
    start_time: datetime | None
    state: ToolCallState = ToolCallState.RUNNING
    failure: Failure | None = None
    end_time: datetime | None = None

    def snapshot(self) -> ToolCall:
        """Give the call as a frozen value."""
        started = self.started
        return ToolCall(
            f"{self.step_id}/{self.attempt}",
            self.attempt,
            self.state,
            started.idempotency_key,
            started.arguments,
            self.failure,
            self.start_time,
            self.end_time,
            started.child_plan_id,
            started.arguments_digest,
        )


@dataclass(slots=True)
class StepFold:
    """A step as it is now. ``added`` is what was frozen when it joined the plan."""

    added: Step
    state: StepState = StepState.PENDING
    missing: int = 0
    """How many of its dependencies have not succeeded yet."""
    dependents: list[str] = field(default_factory=list)
    attempt: int = 0
    calls: tuple[CallFold, ...] = ()
    result: ToolResult | None = None
    failure: Failure | None = None
    waiting: Waiting | None = None
    decided: tuple[int, Decision] | None = None
    """The last wait that was resolved, and how."""
    approved: bool = False
    skipped_by: str = ""
    next_attempt_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    frozen: Step | None = None

    @property
    def child_plan_id(self) -> str:
        """The plan that the step's last call ran as its own; empty if there is none."""
        return self.calls[-1].started.child_plan_id if self.calls else ""

    def snapshot(self) -> Step:
        """Give the step as a frozen value; made anew only when something changed."""
        if self.frozen is None:
            added = self.added
            self.frozen = Step(
                added.id,
                added.title,
                added.tool,
                added.arguments,
                added.depends_on,
                added.retry_policy,
                added.timeout,
                added.requires_approval,
                added.effect,
                added.tool_digest,
                self.state,
                added.round,
                tuple([call.snapshot() for call in self.calls]),
                self.result,
                self.failure,
                self.waiting,
                self.skipped_by,
                self.next_attempt_time,
                added.create_time,
                self.start_time,
                self.end_time,
                added.provider,
            )

        return self.frozen


@dataclass(slots=True)
class RoundFold:
    """A round as it is now."""

    number: int
    planner: str = ""
    model: str = ""
    attempts: int = 0
    steps_added: int = 0
    usage: Usage | None = None
    failure: Failure | None = None
    interrupted: bool = False
    start_time: datetime | None = None
    end_time: datetime | None = None

    def snapshot(self) -> Round:
        """Give the round as a frozen value."""
        return Round(
            self.number,
            self.planner,
            self.model,
            self.attempts,
            self.steps_added,
            self.usage,
            self.failure,
            self.start_time,
            self.end_time,
        )


class PlanFold:
    """A plan, from its events. Feed it every durable event in order; read it by :meth:`snapshot`."""

    __slots__ = (
        "_calls",
        "_remaining",
        "_used",
        "answer",
        "backing_off",
        "cancelled",
        "create_time",
        "created",
        "deadline",
        "doomed",
        "end_time",
        "failed",
        "failure",
        "id",
        "interrupted",
        "last_event_time",
        "output",
        "pending",
        "planning",
        "principal",
        "ready",
        "rounds",
        "running",
        "sequence",
        "skipped",
        "start_time",
        "state",
        "steps",
        "stopping",
        "succeeded",
        "unapproved",
        "waiting",
    )

    def __init__(self, plan_id: str) -> None:
        """Start with nothing known but the id."""
        self.id = plan_id
        self.sequence = 0
        self.state = PlanState.QUEUED
        self.created = _NOT_CREATED
        self.principal = ""
        self.steps: dict[str, StepFold] = {}
        self.rounds: list[RoundFold] = []
        self.planning = False
        """A round is under way."""
        self.answer = ""
        self.output: Any = None
        self.failure: Failure | None = None
        self._used = _NOTHING_USED
        self._calls = 0
        """Calls of tools that are not in what was used."""
        self.stopping: PlanCancelRequested | PlanLimitReached | None = None
        """Why the plan is being stopped; whichever came first."""
        self.create_time: datetime | None = None
        self.start_time: datetime | None = None
        self.end_time: datetime | None = None
        self.deadline: datetime | None = None
        self.last_event_time: datetime | None = None
        self._remaining: timedelta | None = None
        # Ordered sets: what is in which situation, so that nobody has to look through all steps.
        self.ready: dict[str, None] = {}
        self.unapproved: dict[str, None] = {}
        """Ready but for an approval that has not been asked for yet."""
        self.running: dict[str, None] = {}
        self.backing_off: dict[str, None] = {}
        self.waiting: dict[str, None] = {}
        self.doomed: dict[str, str] = {}
        """Steps that will be skipped, and because of which step."""
        self.interrupted: dict[str, None] = {}
        """Steps whose call was cut and not dealt with yet."""
        self.pending: dict[str, None] = {}
        """Steps in state PENDING, whatever they wait for."""
        self.succeeded = 0
        self.failed = 0
        self.skipped = 0
        self.cancelled = 0

    # --- reading

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        return self._used + Usage(tool_calls=self._calls) if self._calls else self._used

    @property
    def open_steps(self) -> int:
        """How many steps have not ended."""
        return len(self.steps) - self.succeeded - self.failed - self.skipped - self.cancelled

    @property
    def step_counts(self) -> StepCounts:
        """How many steps are in which state."""
        return StepCounts(
            len(self.steps),
            self.succeeded,
            self.failed,
            self.skipped,
            self.cancelled,
            len(self.running),
            len(self.waiting),
        )

    def basic(self) -> Plan:
        """Give the plan in view BASIC: without its steps, rounds and context."""
        return self._plan((), (), ())

    def snapshot(self) -> Plan:
        """Give the whole plan as a frozen value, true up to :attr:`sequence`."""
        return self._plan(
            tuple([step.snapshot() for step in self.steps.values()]),
            tuple([one.snapshot() for one in self.rounds]),
            self.created.context,
        )

    def _plan(self, steps: tuple[Step, ...], rounds: tuple[Round, ...], context: tuple[ContextItem, ...]) -> Plan:
        created = self.created
        return Plan(
            id=self.id,
            request=created.request,
            state=self.state,
            options=created.options,
            labels=created.labels,
            steps=steps,
            rounds=rounds,
            answer=self.answer,
            output=self.output,
            failure=self.failure,
            usage=self.usage,
            step_counts=self.step_counts,
            principal=self.principal,
            request_id=created.request_id,
            parent=created.parent,
            context_id=created.context_id,
            context=context,
            create_time=self.create_time,
            start_time=self.start_time,
            end_time=self.end_time,
            deadline=self.deadline,
            sequence=self.sequence,
        )

    # --- folding

    def apply(self, event: Event) -> None:
        """Fold one event.

        Raises:
            SequenceGapError: a durable event is not the next one.
        """
        if event.ephemeral:
            return

        if event.sequence != self.sequence + 1:
            message = f"plan {self.id}: event {event.sequence} came after event {self.sequence}"
            raise SequenceGapError(message, reason="SEQUENCE_GAP")

        self.sequence = event.sequence
        self.last_event_time = event.event_time
        _HANDLERS[type(event.fact)](self, event, event.fact)
        self._derive(event.event_time)

    def begin(self, created: PlanCreated, steps: Sequence[Step], principal: str, time: datetime) -> None:
        """Fold the first events of a new plan, all of one time: what was asked for, and its first steps."""
        self._create(created, principal, time)
        for step in steps:
            self._add(step)

        self.sequence, self.last_event_time = 1 + len(steps), time

    def _derive(self, now: datetime | None) -> None:
        """Find the plan's state; the clock of ``timeout`` stands still while the plan waits for a person."""
        before = self.state
        if self.stopping is None and (
            self.running if before is _PLAN_RUNNING else before is _PLAN_QUEUED and self.start_time is None
        ):
            return  # what nearly all events of a plan come to

        state = self._state()
        if state is before:
            return

        self.state = state
        if state is _PLAN_WAITING:
            if self.deadline is not None and now is not None:
                self._remaining = self.deadline - now
                self.deadline = None
        elif before is _PLAN_WAITING and self._remaining is not None and now is not None:
            self.deadline = now + self._remaining
            self._remaining = None

    def _state(self) -> PlanState:
        if self.state.terminal:
            return self.state

        if self.stopping is not None:
            return PlanState.CANCELLING

        if self.start_time is None:
            return PlanState.QUEUED

        if self.running or self.ready or self.unapproved or self.backing_off or self.interrupted or self.doomed:
            return _PLAN_RUNNING

        if self.planning or not self.waiting:
            return PlanState.PLANNING if self.planning or self.created.request else PlanState.RUNNING

        return PlanState.WAITING

    def _begin(self, now: datetime | None) -> None:
        if self.start_time is None:
            self.start_time = now
            options = self.created.options
            if options is not None and options.timeout is not None and now is not None:
                self.deadline = now + options.timeout

    def _plan_created(self, event: Event, fact: PlanCreated) -> None:
        self._create(fact, event.principal, event.event_time)

    def _create(self, created: PlanCreated, principal: str, time: datetime | None) -> None:
        self.created = created
        self.principal = principal
        self.create_time = time

    def _plan_resumed(self, event: Event, _fact: PlanResumed) -> None:
        for step_id in list(self.running):
            step = self.steps[step_id]
            self._end_call(step, ToolCallState.INTERRUPTED, _INTERRUPTED, event.event_time)
            self._set(step_id, step, StepState.PENDING)
            self.interrupted[step_id] = None

        if self.planning:
            self.planning = False
            current = self.rounds[-1]
            current.interrupted = True
            current.failure = _INTERRUPTED
            current.end_time = event.event_time

    def _planning_started(self, event: Event, fact: PlanningStarted) -> None:
        self._begin(event.event_time)
        self.planning = True
        if not self.rounds or self.rounds[-1].number != event.round:
            self.rounds.append(RoundFold(event.round, start_time=event.event_time))

        current = self.rounds[-1]
        current.planner, current.model = fact.planner, fact.model
        current.attempts = fact.attempt
        current.failure, current.end_time, current.interrupted = None, None, False

    def _planning_finished(self, event: Event, fact: PlanningFinished) -> None:
        self._end_round(event, fact.usage)
        self.answer, self.output = fact.answer, fact.output

    def _planning_failed(self, event: Event, fact: PlanningFailed) -> None:
        self._end_round(event, fact.usage)
        if self.rounds:
            self.rounds[-1].failure = fact.failure

    def _end_round(self, event: Event, usage: Usage | None) -> None:
        self.planning = False
        if not self.rounds:
            return

        current = self.rounds[-1]
        current.end_time = event.event_time
        if usage is not None:
            current.usage = usage if current.usage is None else current.usage + usage
            self._used = self._used + usage

    def _step_added(self, event: Event, fact: StepAdded) -> None:
        if fact.step is None:
            return

        self._add(fact.step)
        if event.round and self.rounds:
            self.rounds[-1].steps_added += 1

    def _add(self, added: Step) -> None:
        step = self.steps[added.id] = StepFold(added)
        self.pending[added.id] = None
        for dependency in added.depends_on:
            other = self.steps.get(dependency)
            if other is None:
                continue

            if other.state in _WITHOUT_OUTPUT:
                self.doomed.setdefault(added.id, dependency)
            elif other.state is not StepState.SUCCEEDED:
                step.missing += 1
                other.dependents.append(added.id)

        self._ready(added.id, step)

    def _ready(self, step_id: str, step: StepFold) -> None:
        """Put a step whose inputs are there where it will be found."""
        if step.missing or step_id in self.doomed:
            return

        if step.added.requires_approval and not step.approved:
            self.unapproved[step_id] = None
        else:
            self.ready[step_id] = None

    def _set(self, step_id: str, step: StepFold, state: StepState) -> None:
        """Move a step to a state, out of every index that the old one kept it in."""
        if step.state is _RUNNING:
            self.running.pop(step_id, None)
        elif step.state is _WAITING:
            self.waiting.pop(step_id, None)
        else:
            self.pending.pop(step_id, None)
            for index in (self.ready, self.unapproved, self.backing_off, self.interrupted):
                if index:
                    index.pop(step_id, None)

        step.state = state
        step.frozen = None
        step.next_attempt_time = None
        step.waiting = None
        if state is _PENDING:
            self.pending[step_id] = None

    def _end_call(self, step: StepFold, state: ToolCallState, failure: Failure | None, now: datetime | None) -> None:
        if step.calls and (call := step.calls[-1]).state is _CALL_RUNNING:
            call.state, call.failure, call.end_time = state, failure, now

    def _step_started(self, event: Event, fact: StepStarted) -> None:
        step_id, now = event.step_id, event.event_time
        if self.start_time is None:
            self._begin(now)

        step = self.steps[step_id]
        self._set(step_id, step, _RUNNING)
        self.running[step_id] = None
        step.attempt = event.attempt
        step.failure = None
        step.start_time = step.start_time or now
        # One that goes on with the plan that was counted with the attempt before is not counted again.
        if not fact.child_plan_id or step.child_plan_id != fact.child_plan_id:
            self._calls += 1

        step.calls += (CallFold(step_id, event.attempt, fact, now),)

    def _step_retry_scheduled(self, event: Event, fact: StepRetryScheduled) -> None:
        step = self.steps[event.step_id]
        self._end_call(step, ToolCallState.FAILED, fact.failure, event.event_time)
        self._set(event.step_id, step, StepState.PENDING)
        step.failure = fact.failure
        step.next_attempt_time = fact.next_attempt_time
        self._use(fact.usage)
        self.backing_off[event.step_id] = None

    def _step_succeeded(self, event: Event, fact: StepSucceeded) -> None:
        step = self.steps[event.step_id]
        self._end_call(step, _CALL_SUCCEEDED, None, event.event_time)
        self._end_step(event, step, _SUCCEEDED)
        step.failure = None
        result = step.result = fact.result or ToolResult()
        if result.usage is not None:
            self._use(result.usage)

        self.succeeded += 1
        for dependent_id in step.dependents:
            dependent = self.steps[dependent_id]
            dependent.missing -= 1
            if not dependent.missing and dependent.state is _PENDING:
                self._ready(dependent_id, dependent)

    def _step_failed(self, event: Event, fact: StepFailed) -> None:
        step = self.steps[event.step_id]
        self._end_call(step, ToolCallState.FAILED, fact.failure, event.event_time)
        self._end_step(event, step, StepState.FAILED)
        step.failure = fact.failure
        self._use(fact.usage)
        self.failed += 1
        self._doom(event.step_id, step)

    def _step_skipped(self, event: Event, fact: StepSkipped) -> None:
        step = self.steps[event.step_id]
        self._end_step(event, step, StepState.SKIPPED)
        step.skipped_by = fact.skipped_by
        self.skipped += 1
        self._doom(event.step_id, step)

    def _step_cancelled(self, event: Event, fact: StepCancelled) -> None:
        step = self.steps[event.step_id]
        failure = None
        if fact.outcome_unknown or fact.abandoned:
            told = (
                "the call could not be stopped and may still be running" if fact.abandoned else "the call was stopped"
            )
            failure = Failure("CANCELLED", DOMAIN, told, outcome_unknown=fact.outcome_unknown)

        self._end_call(step, ToolCallState.CANCELLED, failure, event.event_time)
        self._end_step(event, step, StepState.CANCELLED)
        step.failure = failure
        self._use(fact.usage)
        self.cancelled += 1
        self._doom(event.step_id, step)

    def _use(self, usage: Usage | None) -> None:
        if usage is not None:
            self._used = self._used + usage

    def _end_step(self, event: Event, step: StepFold, state: StepState) -> None:
        self._set(event.step_id, step, state)
        self.doomed.pop(event.step_id, None)
        step.end_time = event.event_time

    def _doom(self, step_id: str, step: StepFold) -> None:
        for dependent_id in step.dependents:
            if self.steps[dependent_id].state is StepState.PENDING:
                self.doomed.setdefault(dependent_id, step_id)

    def _step_waiting(self, event: Event, fact: StepWaiting) -> None:
        self._begin(event.event_time)
        step = self.steps[event.step_id]
        # A call whose provider found that the tool is another one by now was not made; of any other nobody knows.
        made = fact.reason is not WaitingReason.TOOL_CHANGED
        why = Failure("OUTCOME_UNKNOWN" if made else "TOOL_CHANGED", DOMAIN, fact.message, outcome_unknown=made)
        self._end_call(step, ToolCallState.FAILED, why, event.event_time)
        self._set(event.step_id, step, StepState.WAITING)
        self.waiting[event.step_id] = None
        step.waiting = Waiting(
            sequence=event.sequence,
            reason=fact.reason,
            arguments=fact.arguments,
            message=fact.message,
            start_time=event.event_time,
            expire_time=fact.expire_time,
        )

    def _step_resolved(self, event: Event, fact: StepResolved) -> None:
        step = self.steps[event.step_id]
        decision = fact.decision or Decision()
        self._set(event.step_id, step, StepState.PENDING)
        step.decided = (fact.wait_sequence, decision)
        if isinstance(decision.kind, (Approve, Retry)):
            step.approved = True
            self._ready(event.step_id, step)

    def _plan_cancel_requested(self, _event: Event, fact: PlanCancelRequested) -> None:
        self.stopping = self.stopping or fact

    def _plan_limit_reached(self, _event: Event, fact: PlanLimitReached) -> None:
        self.stopping = self.stopping or fact

    def _plan_succeeded(self, event: Event, fact: PlanSucceeded) -> None:
        self._end(event, PlanState.SUCCEEDED, fact.usage)
        self.answer, self.output = fact.answer, fact.output

    def _plan_failed(self, event: Event, fact: PlanFailed) -> None:
        self._end(event, PlanState.FAILED, fact.usage)
        self.answer, self.output, self.failure = fact.answer, fact.output, fact.failure

    def _plan_cancelled(self, event: Event, fact: PlanCancelled) -> None:
        self._end(event, PlanState.CANCELLED, fact.usage)

    def _end(self, event: Event, state: PlanState, usage: Usage | None) -> None:
        self.state = state
        self.end_time = event.event_time
        self.deadline = None
        if usage is not None:
            self._used, self._calls = usage, 0

    def _nothing(self, _event: Event, _fact: object) -> None:
        """Count it; it changes nothing."""


_HANDLERS: Mapping[type, Callable[[PlanFold, Event, Any], None]] = {
    PlanCreated: PlanFold._plan_created,
    PlanResumed: PlanFold._plan_resumed,
    PlanningStarted: PlanFold._planning_started,
    PlanningFinished: PlanFold._planning_finished,
    PlanningFailed: PlanFold._planning_failed,
    StepAdded: PlanFold._step_added,
    StepRejected: PlanFold._nothing,
    StepStarted: PlanFold._step_started,
    StepProgressed: PlanFold._nothing,
    StepRetryScheduled: PlanFold._step_retry_scheduled,
    StepSucceeded: PlanFold._step_succeeded,
    StepFailed: PlanFold._step_failed,
    StepSkipped: PlanFold._step_skipped,
    StepCancelled: PlanFold._step_cancelled,
    StepWaiting: PlanFold._step_waiting,
    StepResolved: PlanFold._step_resolved,
    AnswerProgressed: PlanFold._nothing,
    PlanCancelRequested: PlanFold._plan_cancel_requested,
    PlanLimitReached: PlanFold._plan_limit_reached,
    PlanSucceeded: PlanFold._plan_succeeded,
    PlanFailed: PlanFold._plan_failed,
    PlanCancelled: PlanFold._plan_cancelled,
    UnknownFact: PlanFold._nothing,
}
"""Total over :data:`autoglm.model.Fact`; a test says so."""
