"""The live tree: what a view looks like on a terminal of some width at some moment. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.text import Text

from autoglm._dataclasses import dataclass
from autoglm.cli.nested import flat, read
from autoglm.cli.text import count, duration, one_line
from autoglm.cli.view import View
from autoglm.fold import StepFold
from autoglm.model import PlanState, StepState, WaitingReason

ROWS_MAX: Final = 30
"""How many steps are drawn; of a longer plan, those that matter now, and a count of the rest."""
ANSWER_LINES_MAX: Final = 4
NARROW: Final = 60
"""Below this width the tools' names are left out."""

WAITING_WORDS: Final = {
    WaitingReason.APPROVAL: "waits for approval",
    WaitingReason.OUTCOME_UNKNOWN: "waits: it may have taken effect",
    WaitingReason.TOOL_CHANGED: "waits: its tool has changed",
    WaitingReason.INPUT: "waits for input",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters a tree is drawn with."""

    states: dict[StepState, str]
    spinner: str
    branch: str
    last: str
    rail: str
    bar: str
    bar_rest: str
    more: str


UNICODE = Glyphs(
    states={
        StepState.PENDING: "○",
        StepState.WAITING: "?",
        StepState.SUCCEEDED: "✓",
        StepState.FAILED: "✗",
        StepState.SKIPPED: "↷",
        StepState.CANCELLED: "■",
    },
    spinner="⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    branch="├─ ",
    last="└─ ",
    rail="│  ",
    bar="━",
    bar_rest="─",
    more="…",
)
ASCII = Glyphs(
    states={
        StepState.PENDING: ".",
        StepState.WAITING: "?",
        StepState.SUCCEEDED: "+",
        StepState.FAILED: "x",
        StepState.SKIPPED: ">",
        StepState.CANCELLED: "#",
    },
    spinner="|/-\\",
    branch="|- ",
    last="`- ",
    rail="|  ",
    bar="=",
    bar_rest="-",
    more="...",
)
_STYLES: Final = {
    StepState.PENDING: "dim",
    StepState.WAITING: "bold yellow",
    StepState.RUNNING: "cyan",
    StepState.SUCCEEDED: "green",
    StepState.FAILED: "bold red",
    StepState.SKIPPED: "dim yellow",
    StepState.CANCELLED: "yellow",
}
PLAN_STYLES: Final = {
    PlanState.WAITING: "bold yellow",
    PlanState.CANCELLING: "yellow",
    PlanState.SUCCEEDED: "green",
    PlanState.FAILED: "bold red",
    PlanState.CANCELLED: "yellow",
}
# What a person looks for first. Finished steps come last: they are what is collapsed.
_ORDER: Final = (
    StepState.WAITING,
    StepState.RUNNING,
    StepState.FAILED,
    StepState.CANCELLED,
    StepState.PENDING,
    StepState.SKIPPED,
    StepState.SUCCEEDED,
)


def draw(
    view: View, *, now: datetime, width: int, rows_max: int = ROWS_MAX, glyphs: Glyphs = UNICODE, frame: int = 0
) -> list[Text]:
    """Draw the tree as lines, none wider than ``width``. ``frame`` counts the turns of the spinner."""
    spinner = glyphs.spinner[frame % len(glyphs.spinner)]
    lines = [_head(view, now, spinner, glyphs)]
    shown, hidden = select(view, rows_max)
    rows = list(_rows(view, shown, now=now, width=width, glyphs=glyphs, spinner=spinner))
    below = [list(_below(view, step, glyphs, spinner)) for step in shown]
    room = rows_max - len(rows)

    if hidden:
        rows.append(Text(f"{glyphs.more} {_hidden(hidden)}", style="dim"))
        below.append([])

    for index, (row, nested) in enumerate(zip(rows, below, strict=True)):
        last = index == len(rows) - 1
        lines.append(Text.assemble((glyphs.last if last else glyphs.branch, "dim"), row))
        rail = " " * len(glyphs.rail) if last else glyphs.rail
        lines.extend(Text.assemble((rail, "dim"), line) for line in nested[: max(0, room)])
        room -= len(nested)

    lines.extend(_answer(view, width))

    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis" if glyphs is UNICODE else "crop")

    return lines


def select(view: View, rows_max: int) -> tuple[list[StepFold], Counter[StepState]]:
    """Choose the steps to draw, in the plan's order, and count the rest by state."""
    steps = view.fold.steps

    if len(steps) <= rows_max:
        return list(steps.values()), Counter()

    by_state: dict[StepState, list[str]] = {}

    for step_id, step in steps.items():
        by_state.setdefault(step.state, []).append(step_id)

    chosen: set[str] = set()

    for state in _ORDER:
        room = rows_max - len(chosen)
        found = by_state.get(state, [])
        # Of what has ended the newest, of all else the oldest.
        chosen.update((found[-room:] if state.terminal else found[:room]) if room else [])

    hidden = Counter({state: len(found) - sum(each in chosen for each in found) for state, found in by_state.items()})
    return [step for step_id, step in steps.items() if step_id in chosen], +hidden


def _head(view: View, now: datetime, spinner: str, glyphs: Glyphs) -> Text:
    fold = view.fold
    state = fold.state
    counts = fold.step_counts
    parts = [one_line(fold.created.request, 200) or "given steps"]

    if counts.total:
        parts.append(f"{counts.succeeded}/{count(counts.total, 'step')}")

    parts.append(duration(view.took(now)))
    sign = _plan_sign(state, spinner, glyphs)
    style = PLAN_STYLES.get(state, "cyan")
    return Text.assemble((f"{sign} {state.name.lower()}", style), "  ", "  ".join(part for part in parts if part))


def _plan_sign(state: PlanState, spinner: str, glyphs: Glyphs) -> str:
    like = {
        PlanState.WAITING: StepState.WAITING,
        PlanState.SUCCEEDED: StepState.SUCCEEDED,
        PlanState.FAILED: StepState.FAILED,
        PlanState.CANCELLED: StepState.CANCELLED,
    }
    return glyphs.states[like[state]] if state in like else spinner


def _rows(
    view: View, steps: list[StepFold], *, now: datetime, width: int, glyphs: Glyphs, spinner: str
) -> Iterator[Text]:
    names = [one_line(step.added.title or step.added.id, 40) for step in steps]
    tools = [one_line(step.added.tool, 40) for step in steps]
    name_width = max(map(_width, names), default=0)
    tool_width = max(map(_width, tools), default=0)

    for step, name, tool in zip(steps, names, tools, strict=True):
        sign = spinner if step.state is StepState.RUNNING else glyphs.states.get(step.state, "?")
        row = Text.assemble((f"{sign} ", _STYLES.get(step.state, "")), _padded(name, name_width))

        if width >= NARROW:
            row.append("  ")
            row.append(_padded(tool, tool_width), style="dim")

        row.append(f"  {duration(view.elapsed(step, now)):>8}")
        row.append_text(_detail(view, step, now=now, glyphs=glyphs))
        row.rstrip()
        yield row


def _below(view: View, step: StepFold, glyphs: Glyphs, spinner: str) -> Iterator[Text]:
    """Give a line for each step of the plan that ``step`` runs, as its progress tells them."""
    progress = view.progress.get(step.added.id)

    if step.state is not StepState.RUNNING or progress is None:
        return

    for depth, nested in flat(read(progress.data)):
        sign = spinner if nested.state is StepState.RUNNING else glyphs.states.get(nested.state, "?")
        row = Text("   " * depth).append(f"{sign} ", style=_STYLES.get(nested.state, ""))
        row.append(one_line(nested.name, 40)).append(f"  {one_line(nested.tool, 40)}", style="dim")

        if nested.state is StepState.WAITING:
            row.append("  waits", style="yellow")
        elif nested.message and not nested.steps:
            row.append(f"  {one_line(nested.message, 80)}", style="red" if nested.state is StepState.FAILED else "")

        yield row


def _detail(view: View, step: StepFold, *, now: datetime, glyphs: Glyphs) -> Text:
    """Say what there is to say of a step now."""
    detail = Text()
    policy = step.added.retry_policy

    if step.attempt > 1 or view.backing_off(step):
        most = f"/{policy.max_attempts}" if policy and policy.max_attempts >= step.attempt else ""
        detail.append(f"  attempt {step.attempt}{most}", style="yellow")

    match step.state:
        case StepState.RUNNING if (progress := view.progress.get(step.added.id)) is not None:
            if progress.fraction > 0:
                done = round(10 * min(1.0, progress.fraction))
                detail.append("  " + glyphs.bar * done, style="cyan")
                detail.append(glyphs.bar_rest * (10 - done), style="dim")
                detail.append(f" {min(1.0, progress.fraction):.0%}")

            if told := one_line(progress.message or progress.text[-80:], 80):
                detail.append(f"  {told}")

        case StepState.WAITING if step.waiting is not None:
            detail.append(f"  {WAITING_WORDS.get(step.waiting.reason, 'waits')}", style="yellow")

        case StepState.PENDING if step.next_attempt_time is not None:
            detail.append(f"  again in {duration(step.next_attempt_time - now)}", style="yellow")
            detail.append(f": {_failure(step)}", style="dim")

        case StepState.PENDING if unmet := [one_line(each, 40) for each in view.unmet(step)]:
            more = f", {len(unmet) - 3} more" if len(unmet) > 3 else ""
            detail.append(f"  after {', '.join(unmet[:3])}{more}", style="dim")

        case StepState.FAILED | StepState.CANCELLED if step.failure is not None:
            detail.append(f"  {_failure(step)}", style="red")

        case StepState.SKIPPED:
            detail.append(f"  because of {one_line(step.skipped_by, 40)}", style="dim")

        case _:
            pass

    return detail


def _failure(step: StepFold) -> str:
    failure = step.failure
    return ": ".join(one_line(part, 160) for part in (failure.reason, failure.message) if part) if failure else ""


def _hidden(hidden: Counter[StepState]) -> str:
    told = ", ".join(f"{number:,} {state.name.lower()}" for state, number in sorted(hidden.items(), reverse=True))
    return f"{hidden.total():,} more: {told}"


def _answer(view: View, width: int) -> Iterator[Text]:
    """Give the end of an answer that is being written, as long as it is not there whole."""
    if view.answer and not view.fold.state.terminal:
        lines = [one_line(line) for line in view.answer.splitlines() if line.strip()]
        yield from (Text("  " + line[-max(1, width - 2) :], style="italic") for line in lines[-ANSWER_LINES_MAX:])


def _width(text: str) -> int:
    return Text(text).cell_len


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
