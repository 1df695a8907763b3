"""Sub-plans on the screen: below their steps while they run, in lines, and in what `show` and `plans` tell."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autoglm.cli import tree
from autoglm.cli.lines import Lines
from autoglm.cli.nested import DEPTH_MAX, flat, read
from autoglm.cli.view import View
from autoglm.model import (
    Event,
    PlanSucceeded,
    StepProgressed,
    StepRef,
    StepStarted,
    StepSucceeded,
    StepWaiting,
    ToolResult,
    WaitingReason,
)
from tests.sdk.cli.scripted import PLAN, START, ScriptedClient, added, cli, created, log, said

CHILD = "01jq8w3v5d00000000000000ch"


AFTER = [
    "09:30:02.000 [part > fetch] failed: BUSY: come later",
    "09:30:02.000 [part > sum] waits for a person",
    "09:30:02.000 [part > deep] started",
    "09:30:02.000 [part > deep > leaf] started",
]


def row(step_id: str, state: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "tool": "http.get", "state": state, **more}


def progressed(*rows: dict[str, Any]) -> Event:
    data = {"plan_id": CHILD, "state": "RUNNING", "steps": list(rows)}
    return said(StepProgressed(0.5, "fetch: running", data), step="part", attempt=1, at=2, ephemeral=True)


DEEP = {"plan_id": "01jq8w3v5d00000000000000de", "state": "RUNNING", "steps": [row("leaf", "RUNNING")]}
BEGUN = [
    created("two parts"),
    added("part", "plan.run"),
    added("last", after=("part",)),
    said(StepStarted(child_plan_id=CHILD), step="part", attempt=1, at=1),
]
FIRST = progressed(row("fetch", "RUNNING", title="Fetch it", message="half", fraction=0.5), row("sum", "PENDING"))
SECOND = progressed(
    row("fetch", "FAILED", message="BUSY: come later"), row("sum", "WAITING"), row("deep", "RUNNING", nested=DEEP)
)


def test_the_tree_shows_the_steps_of_a_sub_plan_below_the_step_that_runs_it() -> None:
    view = View(PLAN)
    for event in log(*BEGUN, SECOND):
        view.apply(event)

    lines = [line.plain for line in tree.draw(view, now=START, width=80)]
    assert lines[1:] == [
        "├─ ⠋ part  plan.run            0 ms  ━━━━━───── 50%  fetch: running",
        "│  ✗ fetch  http.get  BUSY: come later",
        "│  ? sum  http.get  waits",
        "│  ⠋ deep  http.get",
        "│     ⠋ leaf  http.get",
        "└─ ○ last  math.calculate            after part",
    ]
    few = [line.plain for line in tree.draw(view, now=START, width=80, rows_max=3, glyphs=tree.ASCII)]
    assert few[2] == "|  x fetch  http.get  BUSY: come later"
    assert few[3].startswith("`- . last")


def test_a_sub_plan_folds_up_when_its_step_has_ended() -> None:
    view = View(PLAN)
    for event in log(*BEGUN, FIRST, said(StepSucceeded(ToolResult(1)), step="part", attempt=1, at=3)):
        view.apply(event)

    assert len(tree.draw(view, now=START, width=80)) == 3


def test_lines_tell_each_state_of_a_nested_step_once() -> None:
    view = View(PLAN)
    lines = Lines(view)
    told: list[str] = []
    for event in log(*BEGUN, FIRST, FIRST, SECOND):
        view.apply(event)
        told.append(lines.tell(event) or "")

    assert told[3:] == [
        f"09:30:01.000 [part] started: plan {CHILD}",
        "09:30:02.000 [part > fetch] started",
        "",
        "\n".join(AFTER),
    ]


def scripted() -> ScriptedClient:
    child = [
        created("the part", parent=StepRef(PLAN, "part")),
        added("fetch", "http.get"),
        said(StepWaiting(WaitingReason.APPROVAL, {"url": "x"}, "approve it"), step="fetch", at=1),
    ]
    return ScriptedClient({PLAN: [*log(*BEGUN)], CHILD: [*log(*child, plan_id=CHILD)]})


def test_show_tells_the_steps_of_sub_plans_and_what_they_wait_for() -> None:
    done = cli("show", PLAN, client=scripted())
    assert done.status == 0
    lines = done.out.splitlines()
    [part] = [line for line in lines if line.startswith("part ")]
    assert f"plan {CHILD}" in part
    assert lines[lines.index(part) + 1].startswith("  fetch  waiting")
    assert f"resolve {CHILD} fetch" in done.out
    assert f"part of   step part of plan {PLAN}" in cli("show", CHILD, client=scripted()).out


def test_show_goes_without_a_sub_plan_that_is_gone() -> None:
    client = scripted()
    del client.logs[CHILD]
    done = cli("show", PLAN, client=client)
    assert done.status == 0
    assert "fetch" not in done.out


def test_plans_of_a_parent() -> None:
    done = cli("plans", "--parent", PLAN[-6:], client=scripted())
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [CHILD]
    ended = ScriptedClient({PLAN: [*log(created(), said(PlanSucceeded("x"), at=1))]})
    assert "There is no such plan." in cli("plans", "--parent", PLAN, client=ended).err


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["plan_id", "steps", "id", "state", "title", "nested", "fraction"]), inner)
    ),
    max_leaves=20,
)


@given(data=JSON)
def test_any_progress_of_any_tool_can_be_read(data: Any) -> None:
    assert all(depth < DEPTH_MAX for depth, _ in flat(read(data)))


def test_nesting_without_end_is_cut() -> None:
    data: dict[str, Any] = DEEP
    for _ in range(50):
        data = {"plan_id": CHILD, "steps": [row("n", "RUNNING", nested=data)]}

    assert len(list(flat(read(data)))) == DEPTH_MAX
