"""What to do next: a pure function of the state and the time.

Every command begins with an event of its own, folded in the same turn, so that no command is decided twice. ``decide``
looks only at indexes and costs as much as it commands.
"""

from __future__ import annotations

import heapq
import sys
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from autoglm._dataclasses import dataclass
from autoglm.model import (
    DOMAIN,
    Effect,
    ErrorReason,
    Failure,
    PlanCancelRequested,
    PlanLimitReached,
    PlanState,
    StepState,
    UnknownOutcomeAction,
    WaitingReason,
)

if TYPE_CHECKING:
    from autoglm.fold import StepFold
    from autoglm_server.scheduler.state import State


@dataclass(frozen=True, slots=True)
class MakePlan:
    """Let the planner make a round; ``attempt`` counts the makings of this round."""

    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class CutRound:
    """Stop the round under way."""


@dataclass(frozen=True, slots=True)
class StartStep:
    """Make a call, if its arguments turn out right."""

    step_id: str


@dataclass(frozen=True, slots=True)
class AskPerson:
    """Let a step wait for a person."""

    step_id: str
    reason: WaitingReason
    message: str


@dataclass(frozen=True, slots=True)
class SkipStep:
    """A step it depends on has no output."""

    step_id: str
    skipped_by: str


@dataclass(frozen=True, slots=True)
class FailStep:
    """Fail a step without another call."""

    step_id: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class CancelStep:
    """End a step because its plan is being stopped."""

    step_id: str
    outcome_unknown: bool
    abandoned: bool


@dataclass(frozen=True, slots=True)
class ReachLimit:
    """Stop the plan, because of a limit."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class FinishPlan:
    """End the plan. ``failure`` is set when it FAILED."""

    state: PlanState
    failure: Failure | None = None


Command: TypeAlias = (
    MakePlan | CutRound | StartStep | AskPerson | SkipStep | FailStep | CancelStep | ReachLimit | FinishPlan
)
"""What the loop is asked to do."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The commands, in order, and when to look again if nothing happens before (seconds; None: never)."""

    commands: list[Command]
    wake: float | None
    starved: bool = False
    """More calls could start, if there were places for them over all plans."""


def failure_of(reason: ErrorReason, message: str, **metadata: str) -> Failure:
    """Make a failure of the domain ``autoglm``."""
    return Failure(reason.name, DOMAIN, message, metadata=metadata)


def decide(state: State, now: float, places: int, *, hold: bool = False) -> Decided:
    """Decide what to do next.

    Args:
        state: the plan's state; only read, but for entries of the heap of due times that are no longer true.
        now: seconds of the clock that ``apply`` was given.
        places: how many calls may start, over all plans.
        hold: start no call and no round (the server drains, the disk is full, or it is not this plan's turn).
    """
    plan = state.plan
    if plan.state.terminal or plan.sequence == 0:
        return Decided([], None)

    if plan.stopping is not None:
        return _stop(state, now)

    limit = _limit(state, now)
    if limit is not None:
        return Decided([ReachLimit(limit)], None)

    commands: list[Command] = []
    for step_id, by in plan.doomed.items():
        commands.append(SkipStep(step_id, by))

    starved = _calls(state, now, 0 if hold else places, commands)
    wake = state.deadline
    for due in (state.waiting_deadline, state.budget_deadline):
        if due is not None:
            wake = _earlier(wake, due)

    if hold:
        return Decided(commands, wake)

    for step_id in plan.unapproved:
        told = f"approve the call of {plan.steps[step_id].added.tool}"
        commands.append(AskPerson(step_id, WaitingReason.APPROVAL, told))

    if not commands:
        if _spent(state):
            commands.append(ReachLimit(_no_more_calls(state)))
        else:
            _round(state, now, commands)

    if state.due_heap and not starved and _free(state) > 0:
        wake = _earlier(wake, state.due_heap[0][0])

    if state.round_due is not None:
        wake = _earlier(wake, state.round_due[0])

    return Decided(commands, wake, starved)


def _earlier(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)


def _calls(state: State, now: float, places: int, commands: list[Command]) -> bool:
    """Command the calls that there is room for: interrupted ones, then those that backed off, then what is ready.

    Gives whether more would start if there were more places over all plans.
    """
    plan = state.plan
    free = _free(state)
    if not plan.interrupted and not state.due_heap:  # as it nearly always is
        if not plan.ready:
            return False

        room = max(0, min(free, places))
        commands += map(StartStep, islice(plan.ready, room))
        return room < len(plan.ready) and places < free

    left = False
    _prune(state)
    # A sub-plan goes on by itself: following it again costs nothing, but is one of the steps at once.
    followed = {step_id: None for step_id in plan.interrupted if places and plan.steps[step_id].child_plan_id}
    commands += [StartStep(step_id) for step_id in followed]
    room = max(0, min(free - len(followed), places))
    for step_id in plan.interrupted:
        if step_id in followed:
            continue

        command = _interrupted(state, step_id)
        if not isinstance(command, StartStep):
            commands.append(command)
        elif room:
            commands.append(command)
            room -= 1
        else:
            left = True

    due = _due(state, now, room)
    commands += [StartStep(step_id) for step_id in due]
    room -= len(due)
    starts = min(room, len(plan.ready))
    commands += [StartStep(step_id) for step_id in islice(plan.ready, starts)]
    left = left or starts < len(plan.ready) or (not room and _is_due(state, now, len(due)))
    return left and places < free


def _free(state: State) -> int:
    """Give how many calls may start by what the plan itself was given."""
    free = (state.options.max_parallel_steps or 1) - len(state.plan.running)
    return free if state.pool is None and state.options.budget is None else min(free, _calls_left(state))


def _calls_left(state: State) -> int:
    """Give how many calls the budget still allows."""
    if state.pool is not None:
        return sys.maxsize if state.pool.calls is None else state.pool.calls

    budget = state.options.budget
    if budget is None or budget.max_tool_calls is None:
        return sys.maxsize

    return budget.max_tool_calls - state.plan.usage.tool_calls


def _spent(state: State) -> bool:
    """Whether the plan can go on only with a call that its budget does not allow."""
    plan = state.plan
    wanted = bool(plan.ready or plan.backing_off or plan.interrupted)
    return wanted and not plan.running and _calls_left(state) <= 0


def _prune(state: State) -> None:
    """Let what is no longer true leave the head of the heap of due times."""
    heap = state.due_heap
    while heap:
        due, step_id = heap[0]
        current = state.due.get(step_id)
        if step_id in state.plan.backing_off and current is not None and current[0] == due:
            break

        heapq.heappop(heap)


def _due(state: State, now: float, most: int) -> list[str]:
    """Give the steps whose backing off is over, in the order of their due times."""
    heap = state.due_heap
    found: list[tuple[float, str]] = []
    while heap and len(found) < most and heap[0][0] <= now:
        found.append(heapq.heappop(heap))
        _prune(state)

    # They leave the heap for good when their step_started is folded.
    for entry in found:
        heapq.heappush(heap, entry)

    return [step_id for _, step_id in found]


def _is_due(state: State, now: float, known: int) -> bool:
    return len(state.due_heap) > known and state.due_heap[0][0] <= now


def _interrupted(state: State, step_id: str) -> Command:
    """Deal with a call that was cut by a crash, by its effect."""
    step = state.plan.steps[step_id]
    if step.added.effect in (Effect.READ_ONLY, Effect.IDEMPOTENT):
        times = state.interruptions.get(step_id, 0)
        if times >= state.limits.interruptions and not step.child_plan_id:
            message = f"the call was interrupted {times} times in a row, so it is not made again"
            return FailStep(step_id, failure_of(ErrorReason.INTERRUPTED, message))

        return StartStep(step_id)

    return unknown_outcome(state, step_id, "the server went away during the call")


def unknown_outcome(state: State, step_id: str, why: str) -> AskPerson | FailStep:
    """Deal with a NON_IDEMPOTENT call that may or may not have taken effect: never repeat it by itself."""
    tool = state.plan.steps[step_id].added.tool
    if state.options.on_unknown_outcome is UnknownOutcomeAction.FAIL:
        message = f"{why}: {tool} may or may not have taken effect"
        failure = Failure(ErrorReason.OUTCOME_UNKNOWN.name, DOMAIN, message, outcome_unknown=True)
        return FailStep(step_id, failure)

    message = f"{why}: {tool} may or may not have taken effect; look, then retry it, give its result, or reject it"
    return AskPerson(step_id, WaitingReason.OUTCOME_UNKNOWN, message)


def changes_matter(step: StepFold) -> bool:
    """Whether it matters that the step's tool is no longer the one it was planned with."""
    return step.added.effect is not Effect.READ_ONLY or step.added.requires_approval


def changed_tool(step: StepFold) -> AskPerson:
    """Ask whether to call a tool that is no longer the one the step was planned with."""
    added = step.added
    message = f"{added.tool} is no longer the tool this step was planned with; approve to call it as it is now"
    return AskPerson(added.id, WaitingReason.TOOL_CHANGED, message)


def may_have_taken_effect(step: StepFold) -> bool:
    """Whether a call that was cut may have changed something."""
    return step.added.effect is not Effect.READ_ONLY


def _stop(state: State, now: float) -> Decided:
    plan = state.plan
    commands: list[Command] = []
    if plan.planning:
        commands.append(CutRound())

    for step_id in (*plan.pending, *plan.waiting):
        step = plan.steps[step_id]
        last = step.calls[-1].failure if step.calls else None
        unknown = last is not None and last.outcome_unknown and may_have_taken_effect(step)
        commands.append(CancelStep(step_id, outcome_unknown=unknown, abandoned=False))

    grace_end = (now if state.stop_time is None else state.stop_time) + state.limits.cancel_grace
    if plan.running and now >= grace_end:
        # A sub-plan gives its own calls as long, and ends a little later.
        child_grace_end = grace_end + state.limits.child_grace
        commands += [
            CancelStep(step_id, outcome_unknown=may_have_taken_effect(plan.steps[step_id]), abandoned=True)
            for step_id in plan.running
            if now >= child_grace_end or not plan.steps[step_id].child_plan_id
        ]
        grace_end = child_grace_end

    if commands:
        return Decided(commands, None)

    if plan.running:
        return Decided([], grace_end)

    match plan.stopping:
        case PlanLimitReached(failure=failure):
            return Decided([FinishPlan(PlanState.FAILED, failure)], None)
        case PlanCancelRequested() | None:
            return Decided([FinishPlan(PlanState.CANCELLED)], None)


def _over_budget(name: str, limit: str, message: str) -> Failure:
    return failure_of(ErrorReason.BUDGET_EXCEEDED, message, budget=name, limit=limit)


def _no_more_calls(state: State) -> Failure:
    budget, most = state.options.budget, state.plan.usage.tool_calls
    if state.pool is not None and (budget is None or budget.max_tool_calls is None or most < budget.max_tool_calls):
        message = "another tool call would exceed budget.max_tool_calls of the plans that this one shares it with"
        return _over_budget("max_tool_calls", "", message)

    return _over_budget("max_tool_calls", f"{most}", f"another tool call would exceed budget.max_tool_calls {most}")


def _limit(state: State, now: float) -> Failure | None:
    plan, options = state.plan, state.options
    if state.deadline is not None and now >= state.deadline:
        seconds = options.timeout.total_seconds() if options.timeout is not None else 0
        return failure_of(ErrorReason.PLAN_TIMEOUT, f"the plan took longer than its timeout of {seconds:g} s")

    if state.waiting_deadline is not None and now >= state.waiting_deadline:
        seconds = options.waiting_timeout.total_seconds() if options.waiting_timeout is not None else 0
        return failure_of(ErrorReason.WAITING_TIMEOUT, f"nobody decided within waiting_timeout of {seconds:g} s")

    most = state.limits.events
    near = plan.sequence + 2 * len(plan.steps) + 8 > most  # or there is no need to count those that are open
    if near and plan.sequence + 2 * plan.open_steps + 8 > most and plan.start_time is not None:
        return failure_of(ErrorReason.TOO_MANY_EVENTS, f"the plan came to its limit of {state.limits.events} events")

    budget = options.budget
    if budget is not None:
        tokens = plan.usage.input_tokens + plan.usage.output_tokens
        if budget.max_tokens is not None and tokens > budget.max_tokens:
            message = f"the plan used {tokens} tokens, more than budget.max_tokens {budget.max_tokens}"
            return _over_budget("max_tokens", f"{budget.max_tokens}", message)

        if state.budget_deadline is not None and now >= state.budget_deadline and budget.max_duration is not None:
            longest = f"{budget.max_duration.total_seconds():.12g}s"
            message = f"the plan is not done within budget.max_duration {longest} of its start"
            return _over_budget("max_duration", longest, message)

    if state.pool is not None and state.pool.tokens is not None and state.pool.tokens < 0:
        message = "the plan and those it shares its budget with used more tokens than budget.max_tokens"
        return _over_budget("max_tokens", "", message)

    return None


def _round(state: State, now: float, commands: list[Command]) -> None:
    """Make a round, make it again, or finish."""
    plan = state.plan
    if plan.planning:
        return

    if not plan.rounds:
        if not plan.open_steps:
            commands.append(MakePlan(1, 1) if plan.created.request else _finish(state))

        return

    current = plan.rounds[-1]
    failure = current.failure
    if current.interrupted and not current.steps_added:
        if state.cuts_in_a_row >= state.limits.interruptions:
            if not plan.open_steps:
                message = f"the planner was interrupted {state.cuts_in_a_row} times in a row"
                commands.append(FinishPlan(PlanState.FAILED, failure_of(ErrorReason.INTERRUPTED, message)))
        else:
            commands.append(MakePlan(current.number, current.attempts + 1))
    elif state.round_due is not None:
        if now >= state.round_due[0]:
            commands.append(MakePlan(current.number, current.attempts + 1))
    elif failure is not None and not current.interrupted and not (failure.retryable and current.steps_added):
        if not plan.open_steps:
            commands.append(FinishPlan(PlanState.FAILED, failure))
    elif failure is None and not _answered(state) and state.repairable and not state.repaired and not state.last:
        commands.append(MakePlan(current.number, current.attempts + 1))
    elif not plan.open_steps:
        commands.append(_next(state, current.number))


def may_plan_meanwhile(state: State) -> bool:
    """Whether a round may be due although steps have not ended."""
    rounds = state.plan.rounds
    return state.repairable > 0 or (bool(rounds) and rounds[-1].interrupted)


def _answered(state: State) -> bool:
    return bool(state.plan.answer) or state.plan.output is not None


def _next(state: State, number: int) -> Command:
    """All steps have ended: finish with the answer, or go on with the next round."""
    plan = state.plan
    current = plan.rounds[-1]
    if current.failure is None and _answered(state):
        return _finish(state)

    if state.last:
        bound = (
            ErrorReason.MAX_ROUNDS if state.steps_left or not state.options.enable_tool_call else ErrorReason.MAX_STEPS
        )
        value = state.options.max_rounds if bound is ErrorReason.MAX_ROUNDS else state.options.max_steps
        message = f"the planner had to answer in its last round and did not ({bound.name.lower()} {value})"
        return FinishPlan(PlanState.FAILED, failure_of(bound, message))

    if current.failure is None and not current.steps_added and not state.rejected:
        message = "the planner gave neither steps nor an answer"
        return FinishPlan(PlanState.FAILED, failure_of(ErrorReason.PLANNER_EMPTY, message))

    budget = state.options.budget
    if budget is not None and budget.max_rounds is not None and number >= budget.max_rounds:
        message = f"the planner needs another round, and budget.max_rounds is {budget.max_rounds}"
        return ReachLimit(_over_budget("max_rounds", f"{budget.max_rounds}", message))

    return MakePlan(number + 1, 1)


def _finish(state: State) -> FinishPlan:
    plan = state.plan
    lost = plan.failed + plan.skipped + plan.cancelled
    if not lost or (plan.rounds and state.revises):
        return FinishPlan(PlanState.SUCCEEDED)

    failed = [step for step in plan.steps.values() if step.state is StepState.FAILED]
    told = "; ".join(f"{step.added.id}: {step.failure.message if step.failure else 'failed'}" for step in failed[:3])
    more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
    skipped = f"; {plan.skipped} skipped" if plan.skipped else ""
    alone = len(plan.steps) == 1
    message = told if alone else f"{plan.failed} of {len(plan.steps)} steps failed ({told}{more}){skipped}"
    return FinishPlan(PlanState.FAILED, failure_of(ErrorReason.STEPS_FAILED, message))
