"""What every plan's log must satisfy, checked offline on its events and on the calls that its tools saw."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm.fold import PlanFold
from autoglm.model import (
    Decision,
    Effect,
    Event,
    PlanCancelled,
    PlanCreated,
    PlanFailed,
    PlanLimitReached,
    PlanningStarted,
    PlanSucceeded,
    Retry,
    StepCancelled,
    StepFailed,
    StepResolved,
    StepSkipped,
    StepStarted,
    StepState,
    StepSucceeded,
    StepWaiting,
)
from autoglm_server.scheduler import families
from autoglm_server.scheduler.decide import (
    AskPerson,
    CancelStep,
    Command,
    FailStep,
    FinishPlan,
    MakePlan,
    ReachLimit,
    SkipStep,
    StartStep,
    decide,
)
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.scheduler.state import State, apply
from autoglm_server.tools.tool import Invocation


def replay(events: Sequence[Event], *, revises: bool = True) -> State:
    state = State(PlanFold(events[0].plan_id), Limits(), revises=revises)
    for event in events:
        apply(state, event, _seconds(event))

    return state


def _seconds(event: Event) -> float:
    assert event.event_time is not None
    return event.event_time.timestamp()


def check_decisions(events: Sequence[Event], *, revises: bool = True) -> None:
    """Any prefix, replayed, decides what was done: each event that only a decision can cause is decided at its prefix."""
    state = State(PlanFold(events[0].plan_id), Limits(), revises=revises)
    for event in events:
        if isinstance(
            event.fact,
            (StepStarted, StepSkipped, PlanningStarted, PlanSucceeded, PlanFailed, PlanCancelled),
        ):
            commands = decide(state, _seconds(event), 1 << 30).commands
            if not any(_causes(command, event) for command in commands):
                # What is due at that very moment need not have been due by the process's own clock, which rounds otherwise.
                commands = decide(state, _seconds(event) - 1e-6, 1 << 30).commands

            assert any(_causes(command, event) for command in commands), f"{event} was not decided: {commands}"

        apply(state, event, _seconds(event))


def _causes(command: Command, event: Event) -> bool:
    match command, event.fact:
        case StartStep(step_id), StepStarted() | StepWaiting() | StepFailed():
            return step_id == event.step_id
        case SkipStep(step_id, by), StepSkipped(skipped_by):
            return (step_id, by) == (event.step_id, skipped_by)
        case AskPerson(step_id), StepWaiting():
            return step_id == event.step_id
        case FailStep(step_id), StepFailed():
            return step_id == event.step_id
        case CancelStep(step_id), StepCancelled():
            return step_id == event.step_id
        case MakePlan(number, attempt), PlanningStarted(attempt=made):
            return (number, attempt) == (event.round, made)
        case FinishPlan(), PlanSucceeded() | PlanFailed() | PlanCancelled():
            return True
        case ReachLimit(), PlanLimitReached():
            return True
        case _:
            return False


def check_log(events: Sequence[Event]) -> None:
    """Sequences are dense, times never go back, and nothing follows the end."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    times = [_seconds(event) for event in events]
    assert times == sorted(times)
    ends = [event for event in events if isinstance(event.fact, (PlanSucceeded, PlanFailed, PlanCancelled))]
    assert not ends or ends == [events[-1]]


def check_steps(events: Sequence[Event]) -> None:
    """A step starts after what it depends on succeeded, and ends once."""
    fold = PlanFold(events[0].plan_id)
    created = events[0].fact
    assert isinstance(created, PlanCreated)
    at_once = (created.options.max_parallel_steps if created.options is not None else None) or 1
    for event in events:
        if isinstance(event.fact, StepStarted):
            step = fold.steps[event.step_id]
            assert all(fold.steps[other].state is StepState.SUCCEEDED for other in step.added.depends_on), event
            assert not step.state.terminal, event
            assert len(fold.running) < at_once, event

        if isinstance(event.fact, (StepSucceeded, StepFailed, StepSkipped, StepCancelled)):
            assert not fold.steps[event.step_id].state.terminal, event

        fold.apply(event)
        assert_indexes(fold)


def assert_indexes(fold: PlanFold) -> None:
    """The fold's indexes say what its steps say."""
    by_state = {state: {name for name, one in fold.steps.items() if one.state is state} for state in StepState}
    assert set(fold.running) == by_state[StepState.RUNNING]
    assert set(fold.waiting) == by_state[StepState.WAITING]
    assert set(fold.pending) == by_state[StepState.PENDING]
    assert fold.succeeded == len(by_state[StepState.SUCCEEDED])
    assert fold.failed == len(by_state[StepState.FAILED])
    assert fold.skipped == len(by_state[StepState.SKIPPED])
    assert fold.cancelled == len(by_state[StepState.CANCELLED])
    placed: list[dict[str, None] | dict[str, str]] = [fold.ready, fold.unapproved, fold.backing_off, fold.interrupted]
    placed.append(fold.doomed)
    for index in placed:
        assert set(index) <= set(fold.pending), index


def check_calls(events: Sequence[Event], calls: Sequence[Invocation]) -> None:
    """Every call was intended in the log first, and a NON_IDEMPOTENT one is repeated only where a person said so."""
    plan_id = events[0].plan_id
    mine = [call for call in calls if call.context.plan_id == plan_id]
    started = {(event.step_id, event.attempt) for event in events if isinstance(event.fact, StepStarted)}
    made = [(call.context.step_id, call.context.attempt) for call in mine]
    assert len(made) == len(set(made)), "an attempt was made twice"
    fold = PlanFold(plan_id)
    allowed: dict[str, int] = {}
    for event in events:
        fold.apply(event)
        if isinstance(event.fact, StepResolved) and event.fact.decision == Decision(Retry()):
            allowed[event.step_id] = allowed.get(event.step_id, 0) + 1

    for name, step in fold.steps.items():
        count = sum(1 for call in made if call[0] == name)
        if step.added.effect is not Effect.READ_ONLY:
            assert {call for call in made if call[0] == name} <= started, "a call left before its intent"

        if step.added.effect is Effect.NON_IDEMPOTENT:
            assert count <= 1 + allowed.get(name, 0), f"{name} was called {count} times"

        keys = {call.idempotency_key for call in mine if call.context.step_id == name}
        assert keys <= {f"{plan_id}/{name}"}


def check_budget(events: Sequence[Event]) -> None:
    """No more calls are made than the budget has, and none after its time."""
    created = events[0].fact
    assert isinstance(created, PlanCreated)
    budget = created.options.budget if created.options is not None else None
    starts = [event.event_time for event in events if isinstance(event.fact, StepStarted)]
    if budget is None or not starts:
        return

    fold = replay(events).plan
    assert budget.max_tool_calls is None or fold.usage.tool_calls <= budget.max_tool_calls, "a call over the budget"
    first, last = starts[0], starts[-1]
    assert first is not None
    assert last is not None
    assert budget.max_duration is None or last - first <= budget.max_duration, "a call after the budget's time"


def check_everything(events: Sequence[Event], calls: Sequence[Invocation], *, revises: bool = True) -> None:
    check_log(events)
    check_steps(events)
    check_decisions(events, revises=revises)
    check_calls(events, calls)
    check_budget(events)


def check_nothing_is_due(scheduler: Scheduler) -> None:
    """What was decided has been done, and who has something to do later will be woken."""
    for run in scheduler._runs.values():
        hold = scheduler.holding or not families.root_of(run).admitted
        if run.state.pool is not None:
            run.state.pool = families.pool(run)

        due = decide(run.state, scheduler.clock.monotonic(), scheduler.places(), hold=hold)
        # What another plan of its family used up ends a plan when it wants to go on.
        left = [command for command in due.commands if not (run.state.pool and isinstance(command, ReachLimit))]
        assert not left, f"nobody has done what is due: {left}"
        assert due.wake is None or run in scheduler.timers._entries, "nobody will look again"
