"""The tree, drawn from recorded events: golden pictures, and what holds at any size and width."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from autoglm.cli import tree
from autoglm.cli.view import ANSWER_CHARS_MAX, View
from autoglm.model import (
    AnswerProgressed,
    Approve,
    Decision,
    Event,
    Failure,
    PlanCancelled,
    PlanCancelRequested,
    PlanFailed,
    PlanningStarted,
    PlanResumed,
    PlanSucceeded,
    StepCancelled,
    StepFailed,
    StepProgressed,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepStarted,
    StepState,
    StepSucceeded,
    StepWaiting,
    ToolResult,
    WaitingReason,
)
from tests.sdk.cli.scripted import PLAN, START, added, created, log, said

NOW = START + timedelta(seconds=3)
MIXED = [
    created("pay the bill [bold]now[/bold] \x1b[31m"),
    said(PlanningStarted("llm", attempt=1), round=1),
    added("look", "bank.look", title="Look it up"),
    added("fetch", "http.get", attempts=3),
    added("flaky", "http.get", attempts=3),
    added("pay", "bank.pay"),
    added("broken", "bank.break"),
    added("東京", "time.now", after=("broken",)),
    added("tell", "text.tell", after=("look", "fetch", "flaky", "pay")),
    said(StepStarted(), step="look", attempt=1, at=0.1),
    said(StepSucceeded(ToolResult(1)), step="look", attempt=1, at=0.35),
    said(StepStarted(), step="fetch", attempt=1, at=0.5),
    said(StepRetryScheduled(Failure("X"), timedelta(seconds=1)), step="fetch", attempt=1, at=0.6),
    said(StepStarted(), step="fetch", attempt=2, at=1.6),
    said(StepStarted(), step="flaky", attempt=1, at=1),
    said(
        StepRetryScheduled(
            Failure("BUSY", "http", "come\nlater"), timedelta(seconds=4), START + timedelta(seconds=5.5)
        ),
        step="flaky",
        attempt=1,
        at=1.5,
    ),
    said(StepWaiting(WaitingReason.APPROVAL, {}), step="pay", at=1),
    said(StepStarted(), step="broken", attempt=1, at=1),
    said(StepFailed(Failure("TOOL_ERROR", "autoglm", "no\x07pe")), step="broken", attempt=1, at=1.2),
    said(StepSkipped("broken"), step="東京"),
    said(StepProgressed(0.42, "half\nway"), step="fetch", attempt=2, ephemeral=True),
    said(AnswerProgressed(1, 0, "The bill\nis being "), round=1, ephemeral=True),
    said(AnswerProgressed(1, 18, "paid"), round=1, ephemeral=True),
]


def view_of(events: list[Event]) -> View:
    view = View(PLAN)

    for event in log(*events):
        view.apply(event)

    return view


def picture(events: list[Event], width: int = 100, **options: object) -> list[str]:
    lines = tree.draw(view_of(events), now=NOW, width=width, **options)  # type: ignore[arg-type]
    return [line.plain for line in lines]


def test_picture() -> None:
    assert picture(MIXED) == [
        "⠋ running  pay the bill [bold]now[/bold] \\u001b[31m  1/7 steps  3.0 s",
        "├─ ✓ Look it up  bank.look     250 ms",
        "├─ ⠋ fetch       http.get       2.5 s  attempt 2/3  ━━━━────── 42%  half way",
        "├─ ○ flaky       http.get       2.0 s  attempt 1/3  again in 2.5 s: BUSY: come later",
        "├─ ? pay         bank.pay              waits for approval",
        "├─ ✗ broken      bank.break    200 ms  TOOL_ERROR: no\\u0007pe",
        "├─ ↷ 東京        time.now              because of broken",
        "└─ ○ tell        text.tell             after fetch, flaky, pay",
        "  The bill",
        "  is being paid",
    ]


def test_picture_without_unicode() -> None:
    lines = picture(MIXED[:9] + MIXED[9:12], glyphs=tree.ASCII, frame=1)

    assert lines[0].startswith("/ running  pay the bill")
    assert lines[1] == "|- + Look it up  bank.look     250 ms"
    assert lines[2] == "|- / fetch       http.get       2.5 s"
    assert lines[-1] == "`- . tell        text.tell             after fetch, flaky, pay"


def test_narrow() -> None:
    lines = picture(MIXED, width=40)

    assert lines[1] == "├─ ✓ Look it up    250 ms"
    assert lines[3] == "├─ ○ flaky          2.0 s  attempt 1/3 …"
    assert all(Text(line).cell_len <= 40 for line in lines)


def test_how_plans_end() -> None:
    done = [created(), said(PlanSucceeded("x"), at=1)]
    failed = [created(), said(PlanFailed(Failure("X")), at=61)]
    stopping = [created(), added("a"), said(StepStarted(), step="a", attempt=1), said(PlanCancelRequested())]
    stopped = [
        *stopping,
        said(StepCancelled(outcome_unknown=True, abandoned=True), step="a", attempt=1, at=2),
        said(PlanCancelled(), at=2),
    ]

    assert picture(done) == ["✓ succeeded  15% of 2480  1.0 s"]
    assert picture(failed) == ["✗ failed  15% of 2480  1 m 1 s"]
    assert picture(stopping)[0] == "⠋ cancelling  15% of 2480  0/1 step  3.0 s"
    assert picture(stopped)[1] == (
        "└─ ■ a  math.calculate     2.0 s  CANCELLED: the call could not be stopped and may still be running"
    )


def test_the_spinner_turns() -> None:
    assert [picture(MIXED, frame=frame)[0][0] for frame in (0, 1, 10)] == ["⠋", "⠙", "⠋"]


def test_a_resolved_wait_waits_no_more() -> None:
    sequence = log(*MIXED)[16].sequence
    events = [*MIXED, said(StepResolved(sequence, Decision(Approve())), step="pay", at=2)]

    assert picture(events)[4] == "├─ ○ pay         bank.pay"


def test_progress_goes_with_its_call() -> None:
    events = [*MIXED, said(StepSucceeded(ToolResult(1)), step="fetch", attempt=2, at=2)]

    assert picture(events)[2] == "├─ ✓ fetch       http.get       1.5 s  attempt 2/3"
    assert not view_of(events).progress


def test_a_restart_voids_what_is_not_stored() -> None:
    view = view_of([*MIXED, said(PlanResumed(2))])

    assert (view.answer, view.progress) == ("", {})


def test_the_answer_is_a_state_and_not_a_sum() -> None:
    view = view_of(
        [
            created(),
            said(AnswerProgressed(1, 0, "first"), round=1, ephemeral=True),
            said(AnswerProgressed(2, 0, "again"), round=1, ephemeral=True),
            said(AnswerProgressed(2, 100, "later"), round=1, ephemeral=True),
        ]
    )
    assert view.answer == "later"

    view.apply(
        Event(PLAN, 1, START, ephemeral=True, round=1, fact=AnswerProgressed(2, 105, "x" * 10 * ANSWER_CHARS_MAX))
    )
    assert view.answer == "x" * ANSWER_CHARS_MAX


# --- long plans


def long_plan(size: int = 200) -> list[Event]:
    events = [created(), *(added(f"s{n}") for n in range(size))]

    for n in range(size - 50):
        events.append(said(StepStarted(), step=f"s{n}", attempt=1))

        if n < size - 60:
            events.append(said(StepSucceeded(ToolResult(n)), step=f"s{n}", attempt=1, at=1))

    events.append(said(StepFailed(Failure("X")), step=f"s{size - 60}", attempt=1, at=1))
    return events


def test_a_long_plan_collapses_what_has_ended() -> None:
    lines = picture(long_plan())

    assert len(lines) == 1 + tree.ROWS_MAX + 1
    assert lines[-1] == "└─ … 170 more: 140 succeeded, 30 pending"
    assert sum("⠋ s" in line for line in lines) == 9
    assert sum("✗" in line for line in lines) == 1


def test_what_ended_last_is_kept() -> None:
    finished = [event for event in long_plan() if isinstance(event.fact, StepSucceeded) or not event.step_id]
    started = [said(StepStarted(), step=event.step_id, attempt=1) for event in finished if event.step_id]
    added_ids = {event.step_id for event in finished}
    kept = [event for event in finished if not event.step_id][:1]
    steps = [event for event in long_plan() if getattr(event.fact, "step", None) and event.fact.step.id in added_ids]  # type: ignore[union-attr]

    view = view_of([*kept, *steps, *started, *(event for event in finished if event.step_id)])
    shown, hidden = tree.select(view, 10)

    assert [step.added.id for step in shown] == [f"s{n}" for n in range(130, 140)]
    assert hidden == {StepState.SUCCEEDED: 130}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(20, 160), st.integers(1, 40))
def test_it_always_fits(size: int, width: int, rows: int) -> None:
    events = [
        created("a long request " * 20),
        *(added(f"step{n}" * (n % 9 + 1), tool="tool" * (n % 20 + 1)) for n in range(size)),
    ]

    lines = picture(events, width, rows_max=rows)

    assert len(lines) == 1 + min(size, rows) + (size > rows)
    assert all(Text(line).cell_len <= width for line in lines)


def test_of_ten_thousand_steps_thirty_are_drawn() -> None:
    view = view_of([created(), *(added(f"s{n}") for n in range(10_000))])
    shown, hidden = tree.select(view, tree.ROWS_MAX)

    assert len(shown) == tree.ROWS_MAX
    assert hidden.total() == 10_000 - tree.ROWS_MAX


@pytest.mark.parametrize(
    "state", [each for each in StepState if each not in {StepState.UNSPECIFIED, StepState.RUNNING}]
)
@pytest.mark.parametrize("glyphs", [tree.UNICODE, tree.ASCII])
def test_every_state_has_its_glyph(state: StepState, glyphs: tree.Glyphs) -> None:
    assert state in glyphs.states
