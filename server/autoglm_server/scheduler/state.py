"""The scheduler's state of one plan: the fold of its events, plus what only decisions need.

``apply`` owns the state and changes it in place; it costs the same at any size of plan. Time is an argument: ``now`` is in
seconds of a clock that never jumps. While a plan lives, that is the monotonic clock; when a journal is replayed, each
event's wall-clock time is mapped onto it, and :func:`clamp` then bounds what a changed wall clock could have stretched.
"""

from __future__ import annotations

import heapq
from dataclasses import field
from typing import TYPE_CHECKING

from autoglm._dataclasses import dataclass
from autoglm.fold import PlanFold
from autoglm.model import (
    Event,
    PlanCancelRequested,
    PlanCreated,
    PlanLimitReached,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanOptions,
    PlanResumed,
    PlanState,
    Retry,
    StepAdded,
    StepFailed,
    StepRejected,
    StepResolved,
    StepRetryScheduled,
    StepStarted,
    StepSucceeded,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from autoglm.model import Step
    from autoglm_server.scheduler.limits import Limits

_NO_OPTIONS = PlanOptions()
BOUND_REASONS = frozenset({"MAX_STEPS", "MAX_ROUNDS"})
"""Why a draft is refused whatever it says: making the round again would not help."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What is left to a plan that has sub-plans or is one; ``None`` is no bound."""

    calls: int | None
    tokens: int | None


@dataclass(slots=True)
class State:
    """Everything :func:`~autoglm_server.scheduler.decide.decide` looks at."""

    plan: PlanFold
    limits: Limits
    options: PlanOptions = _NO_OPTIONS
    """The plan's options, every default filled in."""
    revises: bool = True
    """Whether the plan's planner can find another way when a step failed."""
    steps_planned: int = 0
    """Steps that planners added, over all rounds; ``max_steps`` bounds it."""
    rejected: tuple[StepRejected, ...] = ()
    """Refused drafts that the planner has not been told of."""
    told: tuple[StepRejected, ...] = ()
    """Refused drafts that the round under way was told of."""
    repairable: int = 0
    """Drafts refused in this making of the round that another making could mend."""
    repaired: bool = False
    """Whether this round was made once more because of refused drafts."""
    last: bool = False
    """Whether the newest round was the last one allowed: it had to answer."""
    rounds_cut: int = 0
    """Rounds that ended early and kept their steps; they do not count to ``max_rounds``."""
    cuts_in_a_row: int = 0
    """How often the newest round was interrupted without having added anything."""
    interruptions: dict[str, int] = field(default_factory=dict)
    """How often in a row a step's call was interrupted."""
    failures: dict[str, int] = field(default_factory=dict)
    """How many attempts of a step count to its ``max_attempts``."""
    due: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Steps that back off: when they are due, and the delay that was recorded."""
    due_heap: list[tuple[float, str]] = field(default_factory=list)
    round_due: tuple[float, float] | None = None
    """When a failed round is made again, and the delay that was recorded."""
    deadline: float | None = None
    remaining: float | None = None
    """What is left of ``timeout`` while the plan waits for a person."""
    waiting_deadline: float | None = None
    budget_deadline: float | None = None
    """When ``budget.max_duration`` is over; it runs from the start, also while the plan waits or no process holds it."""
    stop_time: float | None = None
    """Since when the plan is being stopped."""
    pool: Pool | None = None
    """What is left of the budgets that it shares with other plans; None if it shares none."""

    @property
    def steps_left(self) -> int:
        """How many steps a planner may still add."""
        options = self.options
        if options.enable_tool_call is False:
            return 0

        return max(0, (options.max_steps or 0) - self.steps_planned)

    @property
    def longest(self) -> float | None:
        """How long the plan may take in all, by its budget; seconds."""
        budget = self.options.budget
        return None if budget is None or budget.max_duration is None else budget.max_duration.total_seconds()


def begin(state: State, created: PlanCreated, steps: Sequence[Step], principal: str, time: datetime) -> None:
    """Fold the first events of a new plan, all of one time, as :func:`apply` does one by one."""
    state.plan.begin(created, steps, principal, time)
    _take(state, created.options)


def apply(state: State, event: Event, now: float) -> None:
    """Fold one event into the state."""
    plan = state.plan
    before = plan.state
    started = plan.start_time is not None
    planning = plan.planning
    cut = tuple(plan.running) if type(event.fact) is PlanResumed else ()
    plan.apply(event)
    match event.fact:
        case StepStarted():
            if state.due:
                state.due.pop(event.step_id, None)
        case StepSucceeded():
            if state.interruptions or state.due:
                state.interruptions.pop(event.step_id, None)
                state.due.pop(event.step_id, None)
        case StepAdded():
            if event.round:
                state.steps_planned += 1
        case PlanCreated(options=options):
            _take(state, options)
        case StepFailed():
            state.interruptions.pop(event.step_id, None)
        case StepRetryScheduled() as fact:
            _schedule_retry(state, event, fact, now)
        case StepResolved(decision=decision):
            if decision is not None and isinstance(decision.kind, Retry):
                state.failures.pop(event.step_id, None)
                state.interruptions.pop(event.step_id, None)
        case StepRejected() as fact:
            state.rejected += (fact,)
            if not any(violation.reason in BOUND_REASONS for violation in fact.violations):
                state.repairable += 1
        case PlanningStarted(attempt=attempt):
            _start_round(state, event, attempt)
        case PlanningFinished():
            state.told = ()
            state.cuts_in_a_row = 0
        case PlanningFailed() as fact:
            _fail_round(state, event, fact, now)
        case PlanResumed():
            _resume(state, cut, planning=planning)
        case PlanCancelRequested() | PlanLimitReached():
            if state.stop_time is None:
                state.stop_time = now
        case _:
            pass  # the fold knows the rest; no decision needs more of it

    if plan.state is not before or (not started and plan.start_time is not None):
        _keep_time(state, before, started=started, now=now)


def _take(state: State, options: PlanOptions | None) -> None:
    state.options = options or PlanOptions()
    timeout = state.options.timeout
    state.remaining = None if timeout is None else timeout.total_seconds()


def _keep_time(state: State, before: PlanState, *, started: bool, now: float) -> None:
    """Let ``timeout`` run from the start, but not while the plan waits for a person; then ``waiting_timeout`` runs."""
    after = state.plan.state
    if not started and state.plan.start_time is not None:
        longest = state.longest
        state.budget_deadline = None if longest is None else now + longest
        if state.remaining is not None:
            state.deadline = now + state.remaining

    if after is before:
        return

    if after is PlanState.WAITING:
        state.remaining = None if state.deadline is None else state.deadline - now
        state.deadline = None
        waiting_timeout = state.options.waiting_timeout
        state.waiting_deadline = None if waiting_timeout is None else now + waiting_timeout.total_seconds()
    elif before is PlanState.WAITING:
        state.waiting_deadline = None
        if state.remaining is not None:
            state.deadline = now + state.remaining


def _schedule_retry(state: State, event: Event, fact: StepRetryScheduled, now: float) -> None:
    delay = fact.delay.total_seconds() if fact.delay is not None else 0.0
    state.failures[event.step_id] = state.failures.get(event.step_id, 0) + 1
    state.interruptions.pop(event.step_id, None)
    state.due[event.step_id] = (now + delay, delay)
    heapq.heappush(state.due_heap, (now + delay, event.step_id))


def _start_round(state: State, event: Event, attempt: int) -> None:
    state.repaired = attempt > 1 and (state.repaired or state.repairable > 0)
    state.told, state.rejected = state.rejected, ()
    state.repairable = 0
    state.round_due = None
    counted = event.round - state.rounds_cut
    state.last = counted >= (state.options.max_rounds or 1) or state.steps_left == 0


def _fail_round(state: State, event: Event, fact: PlanningFailed, now: float) -> None:
    state.rejected = state.told + state.rejected
    state.told = ()
    if fact.next_attempt_time is not None and event.event_time is not None:
        delay = max(0.0, (fact.next_attempt_time - event.event_time).total_seconds())
        state.round_due = (now + delay, delay)
    elif fact.failure is not None and fact.failure.retryable and state.plan.rounds[-1].steps_added:
        state.rounds_cut += 1


def _resume(state: State, cut: tuple[str, ...], *, planning: bool) -> None:
    plan = state.plan
    for step_id in cut:
        state.interruptions[step_id] = state.interruptions.get(step_id, 0) + 1

    if planning:
        state.rejected = state.told + state.rejected
        state.told = ()
        if plan.rounds[-1].steps_added:
            state.rounds_cut += 1
        else:
            state.cuts_in_a_row += 1


def clamp(state: State, now: float) -> None:
    """After a replay: let nothing be due later than its recorded delay from ``now``, whatever the wall clock says."""
    state.due = {step_id: (min(due, now + delay), delay) for step_id, (due, delay) in state.due.items()}
    state.due_heap = [(due, step_id) for step_id, (due, _) in state.due.items()]
    heapq.heapify(state.due_heap)
    if state.round_due is not None:
        due, delay = state.round_due
        state.round_due = (min(due, now + delay), delay)

    options = state.options
    if state.deadline is not None and options.timeout is not None:
        state.deadline = min(state.deadline, now + options.timeout.total_seconds())

    longest = state.longest
    if state.budget_deadline is not None and longest is not None:
        state.budget_deadline = min(state.budget_deadline, now + longest)

    if state.waiting_deadline is not None and options.waiting_timeout is not None:
        state.waiting_deadline = min(state.waiting_deadline, now + options.waiting_timeout.total_seconds())
