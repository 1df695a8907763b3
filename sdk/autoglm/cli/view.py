"""What a screen knows of a plan: the fold of its durable events, and the last ephemeral state. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from autoglm.fold import PlanFold, StepFold
from autoglm.model import (
    AnswerProgressed,
    Event,
    PlanResumed,
    StepProgressed,
    StepState,
)

ANSWER_CHARS_MAX = 4096
"""How much of an answer that is being written is kept: a screen shows its end."""


class View:
    """A plan as a screen shows it. Feed it every event in order, ephemeral ones too."""

    def __init__(self, plan_id: str) -> None:
        """Start with nothing known but the id."""
        self.fold = PlanFold(plan_id)
        self.progress: dict[str, StepProgressed] = {}
        """The last progress of each step that runs."""
        self.answer = ""
        """The end of the answer as it is being written."""
        self._written = (0, 0, 0)  # round, attempt, and how many characters of it were seen

    def apply(self, event: Event) -> None:
        """Take one event in; raises SequenceGapError as the fold does."""
        match event.fact:
            case StepProgressed() as progressed if event.ephemeral:
                self.progress[event.step_id] = progressed

            case AnswerProgressed() as progressed if event.ephemeral:
                self._write(event, progressed)

            case PlanResumed():
                self.progress.clear()
                self._written, self.answer = (0, 0, 0), ""

            case _:
                pass

        self.fold.apply(event)

        if not event.ephemeral and event.step_id:
            self.progress.pop(event.step_id, None)

    def backing_off(self, step: StepFold) -> bool:
        """Tell whether ``step`` failed and will be tried again."""
        return step.state is StepState.PENDING and step.next_attempt_time is not None

    def elapsed(self, step: StepFold, now: datetime) -> timedelta | None:
        """Give how long ``step`` took, or has taken by ``now``; None if it has not begun."""
        if step.start_time is None:
            return None

        return max(timedelta(), (step.end_time or now) - step.start_time)

    def took(self, now: datetime | None = None) -> timedelta | None:
        """Give how long the plan took, or has taken by ``now``, as its own times say; None if it has not begun."""
        end = self.fold.end_time or now
        begin = self.fold.start_time or self.fold.create_time
        return max(timedelta(), end - begin) if begin and end else None

    def unmet(self, step: StepFold) -> Iterator[str]:
        """Give the steps that ``step`` still waits for."""
        for dependency in step.added.depends_on:
            other = self.fold.steps.get(dependency)

            if other is None or other.state is not StepState.SUCCEEDED:
                yield dependency

    def _write(self, event: Event, fact: AnswerProgressed) -> None:
        number, attempt, seen = self._written

        if (event.round, fact.attempt) != (number, attempt):
            seen, self.answer = 0, ""

        if fact.offset != seen:
            self.answer = ""  # something is missing, as may be; what follows is shown

        self.answer = (self.answer + fact.text)[-ANSWER_CHARS_MAX:]
        self._written = (event.round, fact.attempt, fact.offset + len(fact.text))
