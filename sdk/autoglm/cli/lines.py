"""The plain form: one line for each event, for logs and for who cannot see a tree. Pure.

``09:30:05.125 [convert] succeeded in 12 ms: 231.15`` is the time in UTC, the step (nothing for the plan itself), what happened.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoglm.cli.exits import failure_line, violation_lines
from autoglm.cli.nested import NestedStep, read
from autoglm.cli.text import clock, count, duration, one_line, plain_json, value_text
from autoglm.cli.tree import WAITING_WORDS
from autoglm.cli.view import View
from autoglm.model import (
    AnswerProgressed,
    Approve,
    Decision,
    Event,
    PlanCancelled,
    PlanCancelRequested,
    PlanCreated,
    PlanFailed,
    PlanLimitReached,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanResumed,
    PlanSucceeded,
    Reject,
    Retry,
    StepAdded,
    StepCancelled,
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
    ToolResult,
    UnknownFact,
)

_STATES = {StepState.RUNNING: "started", StepState.WAITING: "waits for a person", StepState.PENDING: "not started"}
VALUE_CHARS_MAX = 200
"""How much of an argument or an output a line shows."""


class Lines:
    """Tells events as lines. Ephemeral progress is told when its message changes or another tenth is done.

    Of a step that runs a sub-plan, each step of that is told when its state has changed: ``[part > convert] succeeded``.
    """

    def __init__(self, view: View) -> None:
        """Tell the events of ``view``'s plan."""
        self._view = view
        self._told: dict[str, tuple[str, int]] = {}
        self._nested: dict[tuple[str, ...], StepState] = {}

    def tell(self, event: Event) -> str | None:
        """Give the line of ``event``, which the view has taken in already; None if there is nothing to say."""
        if isinstance(event.fact, StepProgressed) and (steps := read(event.fact.data)):
            return "\n".join(self._below(event, (event.step_id,), steps)) or None

        said = self._say(event)

        if said is None:
            return None

        step_id = _step_id(event)
        subject = f"[{one_line(step_id)}] " if step_id else ""
        return f"{clock(event.event_time)} {subject}{said}"

    def _below(self, event: Event, path: tuple[str, ...], steps: tuple[NestedStep, ...]) -> Iterator[str]:
        """Tell the steps of a sub-plan whose state has changed since they were told."""
        for step in steps:
            place = (*path, step.id)
            before = self._nested.get(place, StepState.PENDING)
            self._nested[place] = step.state

            if step.state is not before:
                subject = " > ".join(map(one_line, place))
                why = f": {one_line(step.message, VALUE_CHARS_MAX)}" if step.message and step.state.terminal else ""
                yield f"{clock(event.event_time)} [{subject}] {_STATES.get(step.state, step.state.name.lower())}{why}"

            yield from self._below(event, place, step.steps)

    def _say(self, event: Event) -> str | None:
        match event.fact:
            case PlanCreated(request=request):
                asked = f": {one_line(request, VALUE_CHARS_MAX)}" if request else ""
                return f"plan {event.plan_id} created{asked}"

            case PlanResumed(epoch=epoch):
                return f"plan taken up again (epoch {epoch})"

            case PlanningStarted(planner=planner, model=model, attempt=attempt):
                by = ", ".join(one_line(part) for part in (planner, model) if part)
                again = f" again, attempt {attempt}" if attempt > 1 else ""
                return f"round {event.round} started{again}" + (f" ({by})" if by else "")

            case PlanningFinished() as finished:
                return self._round_finished(event, finished)

            case PlanningFailed(failure=failure, next_attempt_time=due):
                if due is None and failure is not None:  # the plan's own end tells it in full
                    return f"round {event.round} failed: {one_line(failure.reason)}"

                again = f"; again at {clock(due)}" if due else ""
                return f"round {event.round} failed: {failure_line(failure)}{again}"

            case AnswerProgressed():
                return None

            case PlanCancelRequested(reason=reason):
                by = f" by {one_line(event.principal)}" if event.principal else ""
                return f"cancel requested{by}" + (f": {one_line(reason, VALUE_CHARS_MAX)}" if reason else "")

            case PlanLimitReached(failure=failure):
                return f"limit reached: {failure_line(failure)}"

            case PlanSucceeded() | PlanFailed() | PlanCancelled():
                return self._plan_ended()

            case UnknownFact(number=number):
                return f"event of a kind this version does not know (field {number})"

            case _:
                return self._say_step(event)

    def _say_step(self, event: Event) -> str | None:
        match event.fact:
            case StepAdded(step=step) if step is not None:
                after = f" after {', '.join(map(one_line, step.depends_on))}" if step.depends_on else ""
                return f"added: {one_line(step.tool)} {_short(step.arguments or {})}{after}"

            case StepRejected(violations=violations):
                return f"draft rejected: {'; '.join(violation_lines(violations))}"

            case StepStarted(child_plan_id=child):
                return "started" + self._attempt(event) + (f": plan {one_line(child)}" if child else "")

            case StepProgressed() as progressed:
                return self._progressed(event, progressed)

            case StepRetryScheduled(failure=failure, delay=delay):
                return f"failed{self._attempt(event)}, again in {duration(delay)}: {failure_line(failure)}"

            case StepSucceeded(result=result):
                return f"succeeded{self._took(event)}: {_result(result)}"

            case StepFailed(failure=failure):
                return f"failed{self._took(event)}: {failure_line(failure)}"

            case StepSkipped(skipped_by=cause):
                return f"skipped because of {one_line(cause)}"

            case StepCancelled(outcome_unknown=unknown, abandoned=abandoned):
                told = ["it may still be running"] if abandoned else []
                told += ["it may have taken effect"] if unknown else []
                return "cancelled" + (f" ({', '.join(told)})" if told else "")

            case StepWaiting() as waiting:
                message = f": {one_line(waiting.message, VALUE_CHARS_MAX)}" if waiting.message else ""
                return f"{WAITING_WORDS.get(waiting.reason, 'waits')}{message}"

            case StepResolved(decision=decision, comment=comment):
                by = f" by {one_line(event.principal)}" if event.principal else ""
                return f"{_decided(decision)}{by}" + (f": {one_line(comment, VALUE_CHARS_MAX)}" if comment else "")

            case _:
                return None

    def _round_finished(self, event: Event, finished: PlanningFinished) -> str:
        rounds = self._view.fold.rounds
        added = rounds[-1].steps_added if rounds else 0
        said = f"planned {count(added, 'step')}" if added else "answered" if finished.answer else "finished"
        note = f": {one_line(finished.note, VALUE_CHARS_MAX)}" if finished.note else ""
        return f"round {event.round} {said}{note}"

    def _plan_ended(self) -> str:
        fold = self._view.fold
        took = duration(self._view.took())
        return f"plan {fold.state.name.lower()}" + (f" in {took}" if took else "")

    def _attempt(self, event: Event) -> str:
        step = self._view.fold.steps.get(event.step_id)
        policy = step.added.retry_policy if step else None
        most = policy.max_attempts if policy else 0

        if event.attempt <= 1 and most <= 1:
            return ""

        return f" (attempt {event.attempt}" + (f"/{most})" if most >= event.attempt else ")")

    def _took(self, event: Event) -> str:
        step = self._view.fold.steps.get(event.step_id)

        if step is None or step.start_time is None or step.end_time is None:
            return ""

        return f" in {duration(step.end_time - step.start_time)}"

    def _progressed(self, event: Event, progressed: StepProgressed) -> str | None:
        tenth = int(10 * min(1.0, max(0.0, progressed.fraction)))
        message = one_line(progressed.message, VALUE_CHARS_MAX)

        if self._told.get(event.step_id) == (message, tenth):
            return None

        self._told[event.step_id] = (message, tenth)
        parts = [f"{min(1.0, progressed.fraction):.0%}" if progressed.fraction > 0 else "", message]
        told = " ".join(part for part in parts if part)
        return f"progress: {told}" if told else None


def _step_id(event: Event) -> str:
    match event.fact:
        case StepAdded(step=step) if step is not None:
            return step.id

        case StepRejected(draft=draft) if draft is not None:
            return draft.id

        case _:
            return event.step_id


def _decided(decision: Decision | None) -> str:
    match decision.kind if decision else None:
        case Approve():
            return "approved"

        case Reject():
            return "rejected"

        case Retry():
            return "to be tried again"

        case ToolResult() as result:
            return f"given the result {_result(result)}"

        case _:
            return "resolved"


def _result(result: ToolResult | None) -> str:
    output = result.output if result else None
    return one_line(value_text(output), VALUE_CHARS_MAX)


def _short(value: object) -> str:
    return one_line(plain_json(value), VALUE_CHARS_MAX)
