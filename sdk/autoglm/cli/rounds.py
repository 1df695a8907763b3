"""The rounds of a plan as a person reads them: what the planner was asked and what it answered, without any value. Pure.

Prompts are not kept, and arguments and outputs are left out here: a round is told by what there was to know (the request,
how many steps had ended) and by what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, field
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autoglm._dataclasses import dataclass
from autoglm.cli.exits import failure_line
from autoglm.cli.text import clean, count, duration, moment, one_line
from autoglm.model import (
    Event,
    Failure,
    JsonObject,
    PlanCreated,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanResumed,
    StepAdded,
    StepCancelled,
    StepFailed,
    StepRejected,
    StepSkipped,
    StepSucceeded,
    Usage,
)

TEXT_CHARS_MAX = 500
FAULTS_MAX = 5
_ENDS = (StepSucceeded, StepFailed, StepSkipped, StepCancelled)


@dataclass(slots=True)
class Story:
    """One making of one round."""

    round: int
    attempt: int
    planner: str
    model: str
    asked: list[str]
    start_time: datetime | None
    end_time: datetime | None = None
    steps: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    note: str = ""
    answer: str = ""
    failure: str = ""
    usage: Usage | None = None
    state: str = "under way"

    def to_object(self) -> JsonObject:
        """Give it as JSON."""
        said: JsonObject = asdict(self)

        for name in ("start_time", "end_time"):
            said[name] = moment(said[name])

        return {name: value for name, value in said.items() if value not in ("", None, [])}


def stories(events: Iterable[Event]) -> list[Story]:
    """Tell the rounds of a plan's durable events."""
    found: list[Story] = []
    request, ended, told = False, 0, 0

    for event in events:
        story = found[-1] if found and found[-1].state == "under way" else None

        match event.fact:
            case PlanCreated(request=text):
                request = bool(text)
            case PlanningStarted() as fact:
                refused = sum(len(one.refused) for one in found)
                asked = [*_asked(request=request, ended=ended, refused=refused - told)]
                told = refused
                found.append(Story(event.round, fact.attempt, fact.planner, fact.model, asked, event.event_time))
            case StepAdded(step=step) if story and step:
                after = f" after {', '.join(map(one_line, step.depends_on))}" if step.depends_on else ""
                story.steps.append(f"{one_line(step.id)}: {one_line(step.tool)}{after}")
            case StepRejected() as fact if story:
                story.refused.append(_refused(fact))
            case PlanningFinished() as fact if story:
                story.note, story.answer, story.usage = fact.note, fact.answer, fact.usage
                _end(story, event, "answered" if fact.answer or fact.output is not None else "planned")
            case PlanningFailed(failure=failure, usage=usage) if story:
                story.failure, story.usage = failure_line(failure or Failure()), usage
                _end(story, event, "failed")
            case PlanResumed() if story:
                _end(story, event, "interrupted")
            case _:
                ended += isinstance(event.fact, _ENDS)

    return found


def render(found: Iterable[Story]) -> RenderableType:
    """Show rounds to a person."""
    parts: list[RenderableType] = []

    for story in found:
        parts += [Text()] if parts else []
        again = f", attempt {story.attempt}" if story.attempt > 1 else ""
        facts = [", ".join(one_line(part) for part in (story.planner, story.model) if part), *_spent(story)]
        head = (f"round {story.round}{again}", "bold")
        parts.append(Text.assemble(head, f"  {story.state}  ", ("  ".join(part for part in facts if part), "dim")))
        lines = Table.grid(padding=(0, 2))

        for name, value in _lines(story):
            lines.add_row(Text(name, "dim"), Text(value))

        parts.append(Padding(lines, (0, 0, 0, 2)))

    return Group(*parts)


def _end(story: Story, event: Event, state: str) -> None:
    story.state, story.end_time = state, event.event_time


def _asked(*, request: bool, ended: int, refused: int) -> Iterator[str]:
    if request:
        yield "the request"

    if ended:
        yield f"how {count(ended, 'step')} ended"

    if refused:
        yield f"why {count(refused, 'draft')} {'was' if refused == 1 else 'were'} refused"


def _refused(fact: StepRejected) -> str:
    draft = fact.draft
    name = ": ".join(one_line(part, 64) for part in (draft.id, draft.tool) if part) if draft else ""
    faults = "; ".join(one_line(one.description, 200) for one in fact.violations[:FAULTS_MAX])
    more = len(fact.violations) - FAULTS_MAX
    return f"{name or 'a draft'} ({faults}{f'; and {more} more' if more > 0 else ''})"


def _spent(story: Story) -> Iterator[str]:
    if story.start_time and story.end_time:
        yield duration(story.end_time - story.start_time)

    used = story.usage

    if used and (used.input_tokens or used.output_tokens):
        cached = f" ({used.cached_input_tokens:,} cached)" if used.cached_input_tokens else ""
        yield f"{used.input_tokens:,}{cached} + {used.output_tokens:,} tokens"


def _lines(story: Story) -> Iterator[tuple[str, str]]:
    yield "asked", ", ".join(story.asked)

    if story.note:
        yield "note", one_line(story.note, TEXT_CHARS_MAX)

    for number, line in enumerate(story.steps):
        yield "" if number else "steps", line

    for number, line in enumerate(story.refused):
        yield "" if number else "refused", line

    if story.answer:
        shown = clean(story.answer)
        yield "answer", shown if len(shown) <= TEXT_CHARS_MAX else f"{shown[: TEXT_CHARS_MAX - 1]}…"

    if story.failure:
        yield "failure", story.failure
