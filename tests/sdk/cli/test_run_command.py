"""``run`` and ``watch`` against a scripted client: what goes where, and the exit status."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from autoglm import wire
from autoglm.errors import (
    CompactedError,
    InvalidRequestError,
    LimitError,
    PermissionDeniedError,
    PreconditionError,
    UnavailableError,
)
from autoglm.model import (
    AnswerProgressed,
    Approve,
    Budget,
    CreatePlanRequest,
    Decision,
    Event,
    Failure,
    Plan,
    PlanCancelled,
    PlanCancelRequested,
    PlanFailed,
    PlanLimitReached,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanOptions,
    PlanResumed,
    PlanSucceeded,
    PlanView,
    Reject,
    Retry,
    StepCancelled,
    StepDraft,
    StepFailed,
    StepProgressed,
    StepRejected,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepStarted,
    StepSucceeded,
    StepWaiting,
    ToolResult,
    UnknownFact,
    Violation,
    WaitingReason,
)
from tests.sdk.cli.scripted import PLAN, START, ScriptedClient, added, cli, created, log, said

GOOD = log(
    created(),
    said(PlanningStarted("rules", attempt=1), round=1),
    added("percent"),
    said(StepStarted(), step="percent", attempt=1, at=0.001),
    added("convert", "units.convert", after=("percent",), attempts=3),
    said(PlanningFinished(), round=1),
    said(StepProgressed(0.5, "half way"), step="percent", attempt=1, ephemeral=True),
    said(StepSucceeded(ToolResult(372)), step="percent", attempt=1, at=0.012),
    said(StepStarted(), step="convert", attempt=1, at=0.012),
    said(StepSucceeded(ToolResult({"value": 231.15})), step="convert", attempt=1, at=0.5),
    said(AnswerProgressed(1, 0, "231"), round=1, ephemeral=True),
    said(PlanSucceeded("231.15 miles"), at=0.6),
)
LOST = Failure("STEPS_FAILED", "autoglm", "pay failed", violations=(Violation("steps[0]", "no money"),))
BAD = log(
    created(""),
    added("pay", "bank.pay"),
    said(StepStarted(), step="pay", attempt=1),
    said(StepFailed(Failure("NO_MONEY", "bank.pay", "there is none")), step="pay", attempt=1, at=2),
    said(PlanFailed(LOST, "Nothing done."), at=2),
)
CANCELLED = log(created(), said(PlanCancelRequested("enough"), by="ada", at=1), said(PlanCancelled(), at=2))
WAIT = [
    created(),
    added("pay", "bank.pay", arguments={"to": "\u202eeve", "amount": 5}),
    said(StepWaiting(WaitingReason.APPROVAL, {"to": "\u202eeve", "amount": 5}, "needs a person"), step="pay", at=1),
]
DECIDED = [
    said(StepResolved(3, Decision(Approve())), step="pay", at=2, by="ada"),
    said(StepStarted(), step="pay", attempt=1, at=2),
    said(StepSucceeded(ToolResult("paid")), step="pay", attempt=1, at=3),
    said(PlanSucceeded("Paid."), at=3),
]


def scripted(events: list[Event]) -> ScriptedClient:
    return ScriptedClient(logs={PLAN: list(events)})


# --- the three forms


def test_answer_alone_goes_to_stdout() -> None:
    done = cli("run", "15% of 2480", client=scripted(GOOD))

    assert (done.status, done.out) == (0, "231.15 miles\n")
    assert done.err == (
        "09:30:00.000 plan 01jq8w3v5d7e9f2g4h6j8k0m2n created: 15% of 2480\n"
        "09:30:00.000 round 1 started (rules)\n"
        '09:30:00.000 [percent] added: math.calculate {"expression": "1"}\n'
        "09:30:00.001 [percent] started\n"
        '09:30:00.000 [convert] added: units.convert {"expression": "1"} after percent\n'
        "09:30:00.000 round 1 planned 2 steps\n"
        "09:30:00.000 [percent] progress: 50% half way\n"
        "09:30:00.012 [percent] succeeded in 11 ms: 372\n"
        "09:30:00.012 [convert] started (attempt 1/3)\n"
        '09:30:00.500 [convert] succeeded in 488 ms: {"value": 231.15}\n'
        "09:30:00.600 plan succeeded in 600 ms\n"
    )


def test_every_fact_has_its_line() -> None:
    failure = Failure("TOOL_ERROR", "autoglm", "broken\npipe", outcome_unknown=True)
    events = log(
        created("two\nlines \x1b[31mred"),
        said(PlanningStarted("llm", "glm", attempt=1), round=1),
        said(StepRejected(StepDraft(id="x"), (Violation("tool", "there is none"),)), round=1),
        said(PlanningFailed(failure, next_attempt_time=START + timedelta(seconds=3)), round=1),
        said(PlanResumed(2)),
        said(PlanningStarted("llm", "glm", attempt=2), round=1),
        added("a", attempts=3),
        added("b", after=("a",)),
        said(PlanningFinished(note="one moment"), round=1),
        said(StepStarted(), step="a", attempt=1),
        said(StepRetryScheduled(failure, timedelta(seconds=0.5)), step="a", attempt=1),
        said(StepWaiting(WaitingReason.OUTCOME_UNKNOWN, {}, "may have"), step="a"),
        said(StepResolved(9, Decision(Retry()), "sure"), step="a", by="ada"),
        said(StepWaiting(WaitingReason.TOOL_CHANGED, {}), step="a"),
        said(StepResolved(11, Decision(Reject("no"))), step="a"),
        said(StepFailed(failure), step="a", attempt=2, at=1),
        said(StepSkipped("a"), step="b"),
        added("c"),
        said(StepResolved(0, Decision(ToolResult([1]))), step="c"),
        said(PlanLimitReached(Failure("PLAN_TIMEOUT", "autoglm", "it took too long"))),
        said(StepCancelled(outcome_unknown=True, abandoned=True), step="c", attempt=1),
        said(UnknownFact(40)),
        said(PlanFailed(Failure("PLAN_TIMEOUT", "autoglm", "it took too long")), at=60),
    )

    done = cli("watch", PLAN, client=scripted(events))

    assert done.status == 1
    assert done.out == ""
    assert done.err.splitlines() == [
        f"09:30:00.000 plan {PLAN} created: two lines \\u001b[31mred",
        "09:30:00.000 round 1 started (llm, glm)",
        "09:30:00.000 [x] draft rejected: tool: there is none",
        "09:30:00.000 round 1 failed: TOOL_ERROR: broken pipe (it may have taken effect); again at 09:30:03.000",
        "09:30:00.000 plan taken up again (epoch 2)",
        "09:30:00.000 round 1 started again, attempt 2 (llm, glm)",
        '09:30:00.000 [a] added: math.calculate {"expression": "1"}',
        '09:30:00.000 [b] added: math.calculate {"expression": "1"} after a',
        "09:30:00.000 round 1 planned 2 steps: one moment",
        "09:30:00.000 [a] started (attempt 1/3)",
        "09:30:00.000 [a] failed (attempt 1/3), again in 500 ms: TOOL_ERROR: broken pipe (it may have taken effect)",
        "09:30:00.000 [a] waits: it may have taken effect: may have",
        "09:30:00.000 [a] to be tried again by ada: sure",
        "09:30:00.000 [a] waits: its tool has changed",
        "09:30:00.000 [a] rejected",
        "09:30:01.000 [a] failed in 1.0 s: TOOL_ERROR: broken pipe (it may have taken effect)",
        "09:30:00.000 [b] skipped because of a",
        '09:30:00.000 [c] added: math.calculate {"expression": "1"}',
        "09:30:00.000 [c] given the result [1]",
        "09:30:00.000 limit reached: PLAN_TIMEOUT: it took too long",
        "09:30:00.000 [c] cancelled (it may still be running, it may have taken effect)",
        "09:30:00.000 event of a kind this version does not know (field 40)",
        "09:31:00.000 plan failed in 1 m",
        "The plan failed: PLAN_TIMEOUT: it took too long",
    ]


def test_json_of_run_and_of_watch_is_the_same_byte_for_byte() -> None:
    client = scripted(GOOD)
    ran = cli("run", "15% of 2480", "--json", client=client)
    watched = cli("watch", PLAN, "--json", client=client)

    assert ran.out == watched.out
    assert ran.out == "".join(wire.to_json(event) + "\n" for event in GOOD if not event.ephemeral)
    assert (ran.status, watched.status, ran.err) == (0, 0, "")


def test_json_with_ephemeral_events() -> None:
    done = cli("run", "15% of 2480", "--json", "--ephemeral", client=scripted(GOOD))

    assert sum(json.loads(line).get("ephemeral", False) for line in done.out.splitlines()) == 2


def test_watch_after_a_sequence() -> None:
    as_json = cli("watch", PLAN, "--after", "8", "--json", client=scripted(GOOD))
    as_lines = cli("watch", PLAN, "--after", "8", client=scripted(GOOD))

    assert [json.loads(line)["sequence"] for line in as_json.out.splitlines()] == ["9", "10"]
    assert len(as_lines.err.splitlines()) == 2
    assert as_lines.err.startswith("09:30:00.500 [convert] succeeded in 488 ms")


def test_watch_after_a_sequence_the_plan_has_not_come_to() -> None:
    last = cli("watch", PLAN, "--after", "10", client=scripted(GOOD))
    ahead = cli("watch", PLAN, "--after", "11", client=scripted(GOOD))

    assert (last.status, last.out) == (0, "231.15 miles\n")
    assert (ahead.status, ahead.out) == (2, "")
    assert ahead.err == f"autoglm: --after 11: plan {PLAN} has come to sequence 10; give a sequence up to that\n"


def test_watch_after_the_end_still_tells_how_it_ended() -> None:
    done = cli("watch", PLAN, "--after", "5", "--json", client=scripted(BAD))

    assert (done.status, done.out) == (1, "")


def test_a_tree_on_a_terminal() -> None:
    done = cli("run", "15% of 2480", client=scripted(GOOD), terminal="err")

    assert done.out == "231.15 miles\n"
    assert "✓ succeeded" in done.err
    assert "├─ " in done.err
    assert "percent" in done.err
    assert "\x1b[?25h" in done.err, "the cursor is shown again"


@pytest.mark.parametrize(
    ("encoding", "environment", "glyph"), [("ascii", {}, "+ percent"), ("utf-8", {"NO_COLOR": "1"}, "✓ percent")]
)
def test_poor_terminals(encoding: str, environment: dict[str, str], glyph: str) -> None:
    done = cli("run", "15% of 2480", client=scripted(GOOD), terminal="err", encoding=encoding, environment=environment)

    assert glyph in re.sub(r"\x1b\[[0-9;]*m", "", done.err)
    assert not environment or "\x1b[32m" not in done.err


def test_a_dumb_terminal_gets_lines() -> None:
    done = cli("run", "15% of 2480", client=scripted(GOOD), terminal="in out err", environment={"TERM": "dumb"})

    assert "[percent] succeeded" in done.err
    assert "\x1b" not in done.err


def test_a_terminal_gets_a_cleaned_answer_and_a_file_the_exact_one() -> None:
    events = log(created(), said(PlanSucceeded("a\x1b]0;title\x07\u202eb [red]c[/red]")))

    assert cli("run", "x", client=scripted(events)).out == "a\x1b]0;title\x07\u202eb [red]c[/red]\n"
    assert (
        cli("run", "x", client=scripted(events), terminal="out").out == "a\\u001b]0;title\\u0007\\u202eb [red]c[/red]\n"
    )


def test_a_plan_without_an_answer_gives_its_output() -> None:
    events = log(created(""), said(PlanSucceeded("", {"sum": 2})))

    assert cli("run", "x", client=scripted(events)).out == '{"sum":2}\n'


# --- exit status and errors


@pytest.mark.parametrize(("events", "status"), [(GOOD, 0), (BAD, 1), (CANCELLED, 3)])
@pytest.mark.parametrize("command", [["run", "x"], ["run", "x", "--json"], ["watch", PLAN], ["watch", PLAN, "--json"]])
def test_exit_status_is_the_plans(command: list[str], events: list[Event], status: int) -> None:
    assert cli(*command, client=scripted(events)).status == status


def test_a_failed_plan_tells_why_and_what_was_done() -> None:
    done = cli("run", "x", client=scripted(BAD))

    assert done.out == "Nothing done.\n"
    assert done.err.endswith("The plan failed: STEPS_FAILED: pay failed\n  steps[0]: no money\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnavailableError("Cannot reach the server"), 4),
        (LimitError("too many plans", retry_after=timedelta(seconds=3)), 1),
        (PermissionDeniedError("not you"), 1),
        (PreconditionError("other settings"), 1),
        (PreconditionError("--after is too far", reason="SEQUENCE_AHEAD"), 2),
    ],
)
def test_errors_have_their_status(error: Exception, status: int) -> None:
    client = scripted(GOOD)
    client.refuse["create"] = error  # type: ignore[assignment]

    done = cli("run", "x", client=client)

    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"autoglm: {error}\n")


def test_every_violation_is_a_line_and_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"steps": [{"id": "a", "tool": "math.calclate"}]}')
    client = scripted(GOOD)
    client.refuse["create"] = InvalidRequestError.of(
        [
            Violation("steps[0].tool", "there is no tool math.calclate; did you mean math.calculate?"),
            Violation("labels", "too many"),
        ]
    )

    done = cli("run", "--plan", str(file), client=client)

    assert done.status == 2
    assert done.err == (
        f"autoglm: {file}: steps[0].tool: there is no tool math.calclate; did you mean math.calculate?\n"
        f"autoglm: {file}: labels: too many\n"
    )


def test_a_watch_that_breaks_off_is_no_success() -> None:
    done = cli("run", "x", client=scripted(GOOD[:5]))

    assert done.status == 4
    assert "ended before the plan did" in done.err


def test_compacted_events_leave_the_answer() -> None:
    client = scripted(GOOD)
    client.logs[PLAN].insert(0, CompactedError("The events are no longer kept."))

    done = cli("watch", PLAN, client=client)

    assert (done.status, done.out) == (0, "231.15 miles\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run"], "REQUEST is missing"),
        (["run", "x", "--label", "nothing"], "--label 'nothing': write KEY=VALUE"),
        (["run", "x", "--label", "a=1", "--label", "a=2"], "is there twice"),
        (["run", "x", "--ephemeral"], "--ephemeral is for --json"),
        (["run", "x", "--dry-run", "--detach"], "give one of them"),
        (
            ["run", "x", "--max-steps", "many"],
            "Invalid value for '--max-steps': 'many': Input should be a valid integer",
        ),
        (["run", "x", "--budget", "money=3"], "write one of tokens=…, tool_calls=…, rounds=…, duration=…"),
        (["run", "x", "--budget", "rounds=0"], "--budget 'rounds=0': write a whole number from 1"),
        (["run", "x", "--budget", "tokens"], "--budget 'tokens': write a whole number from 1"),
        (["run", "x", "--budget", "duration=5"], "--budget 'duration=5': write a number and ms, s, m, h or d"),
        (["run", "x", "--budget", "duration=999999999999d"], "write a number and ms, s, m, h or d"),
        (["run", "x", "--budget", "rounds=1,rounds=2"], "rounds is there twice"),
        (["run", "x", "--provider", "mine"], "write NAME=URI"),
        (["run", "x", "--jsn"], "--json"),
        (["run", "--file", "plan.json"], "No such option: --file (Possible options: --plan)"),
        (["run", "-f", "plan.json"], "No such option: -f (Possible options: --plan)"),
        (["tools", "--file", "plan.json"], "No such option: --file\n"),
        (["--file", "plan.json"], "No such option: --file\n"),
        (["rnu", "x"], "run"),
        (["run", "two", "words"], "(words); put a request of several words in quotes"),
        (["call", "a.b", '{"c": 1}'], "one JSON object after --args, as in autoglm call math.calculate --args '{"),
        (["tools", "x"], "Got unexpected extra argument(s) (x)\nSee: autoglm tools --help"),
        (["watch", PLAN, "--after", "-1"], "Invalid value for '--after': '-1': Input should be greater than"),
        (["watch", PLAN, "--ephemeral"], "--ephemeral is for --json"),
        (["plans", "--state", "wating"], "Invalid value for '--state': 'wating' is not one of 'queued'"),
        ([], "Usage: autoglm"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str) -> None:
    done = cli(*arguments, client=scripted(GOOD))

    assert (done.status, done.out) == (2, "")
    assert told in done.err


# --- what is asked of the server


def test_flags_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "steps: [{id: a, tool: t}]\nlabels: {a: '1', b: '2'}\n"
        "options: {maxSteps: 3, maxRounds: 2, approvalTools: [x.*]}\n"
    )
    client = scripted(GOOD)

    cli(
        *(
            "run",
            "and more",
            "--plan",
            str(file),
            "--max-steps",
            "5",
            "--no-tools",
            "--planner",
            "llm",
            "--model",
            "glm",
        ),
        *("--label", "b=3", "--label", "c=x=y", "--approve-tools", "bank.*"),
        client=client,
    )

    assert client.asked[0] == (
        "create",
        CreatePlanRequest(
            request="and more",
            steps=(StepDraft(id="a", tool="t"),),
            labels={"a": "1", "b": "3", "c": "x=y"},
            options=PlanOptions(
                max_steps=5,
                enable_tool_call=False,
                max_rounds=2,
                planner="llm",
                model="glm",
                approval_tools=("x.*", "bank.*"),
            ),
        ),
    )


@pytest.mark.parametrize(
    "flags", [["tokens=9000,rounds=3", "duration=1.5h"], ["rounds=3", "tokens=9000", "duration=5400s"]]
)
def test_a_budget_goes_over_the_file_bound_by_bound(tmp_path: Path, flags: list[str]) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"request": "x", "options": {"budget": {"maxRounds": 9, "maxToolCalls": 4}}}')
    client = scripted(GOOD)
    cli("run", "--plan", str(file), *(part for flag in flags for part in ("--budget", flag)), client=client)

    budget = Budget(max_tokens=9000, max_tool_calls=4, max_rounds=3, max_duration=timedelta(hours=1.5))
    assert client.asked[0] == ("create", CreatePlanRequest(request="x", options=PlanOptions(budget=budget)))


def test_nothing_said_leaves_the_servers_defaults() -> None:
    client = scripted(GOOD)
    cli("run", "x", client=client)

    assert client.asked[0] == ("create", CreatePlanRequest(request="x"))


def test_a_request_in_both_places_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"request": "a"}')

    done = cli("run", "b", "--plan", str(file), client=scripted(GOOD))

    assert (done.status, done.out) == (2, "")


def test_dry_run_makes_nothing() -> None:
    client = scripted(log(created("sum up"), added("a", "math.calculate"), added("b", after=("a",))))

    shown = cli("run", "sum up", "--dry-run", client=client)
    as_json = cli("run", "sum up", "--dry-run", "--json", client=client)

    assert [asked[0] for asked in client.asked] == ["validate", "validate"]
    assert shown.status == 0
    assert shown.out.startswith("plan (dry run)")
    assert "math.calculate" in shown.out
    assert json.loads(as_json.out)["request"] == "sum up"


def test_detach_prints_the_id() -> None:
    client = scripted(GOOD)

    done = cli("run", "x", "--detach", client=client)

    assert (done.status, done.out, done.err) == (0, f"{PLAN}\n", "")
    assert [asked[0] for asked in client.asked] == ["create"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "a:1", "run", "x"],
        ["run", "x", "--address", "a:1"],
        ["--address", "b:2", "run", "x", "--address", "a:1"],
    ],
)
def test_the_address_before_or_after_the_command(arguments: list[str]) -> None:
    assert cli(*arguments, client=scripted(GOOD)).target.address == "a:1"


def test_the_data_directory_and_providers() -> None:
    done = cli("--data-dir", "d", "run", "x", "--provider", "mine=python:t.py", client=scripted(GOOD))

    assert (done.target.data_dir, done.target.server_args) == ("d", ("--provider", "mine=python:t.py"))


# --- what waits for a person


class Deciding(ScriptedClient):
    """Its watch goes on where a decision leads."""

    def watch(self, plan_id: str, *, after_sequence: int = 0, durable_only: bool = False) -> Iterator[Event]:
        seen = after_sequence

        while True:
            news = [event for event in self.logs[plan_id] if isinstance(event, Event) and event.sequence > seen]

            if not news:
                return

            for event in news:
                seen = event.sequence
                yield event


def deciding() -> Deciding:
    client = Deciding(logs={PLAN: list(log(*WAIT))})

    def decide() -> None:
        client.logs[PLAN] = list(log(*WAIT, *DECIDED))

    client.on_resolve = decide
    return client


@pytest.mark.parametrize(
    ("typed", "kind"),
    [
        ("a", Approve()),
        ("approve", Approve()),
        ("Yes", Approve()),
        ("r", Reject()),
        ("n", Reject()),
        ("what?\ny", Approve()),
    ],
)
def test_on_a_terminal_a_person_decides(typed: str, kind: Approve | Reject) -> None:
    client = deciding()

    done = cli("run", "x", client=client, terminal="in err", stdin=f"{typed}\n")

    assert ("resolve", PLAN, "pay", Decision(kind), 3, "") in client.asked
    assert (done.status, done.out) == (0, "Paid.\n")
    assert "bank.pay with" in done.err
    assert '"to": "\\u202eeve"' in done.err
    assert "[a]pprove / [r]eject / [L]eave it waiting?" in done.err


@pytest.mark.parametrize("typed", ["", "\n", "l\n", "yes please\n", "ax\n"])
def test_left_waiting_the_command_is_told(typed: str) -> None:
    client = deciding()

    done = cli("run", "x", client=client, terminal="in err", stdin=typed)

    assert not [asked for asked in client.asked if asked[0] == "resolve"]
    assert f"autoglm resolve {PLAN} pay --wait 3 --approve" in done.err


def test_without_a_terminal_the_command_is_told_and_the_watch_goes_on() -> None:
    client = scripted(log(*WAIT))
    everything = log(*WAIT, *DECIDED)
    client.logs[PLAN] = [*everything[:3], lambda: client.logs.update({PLAN: list(everything)}), *everything[3:]]
    snapshots = iter([log(*WAIT)])
    real = client.get

    def get(plan_id: str, *, view: PlanView = PlanView.FULL) -> Plan:
        held = client.logs[PLAN]
        client.logs[PLAN] = list(next(snapshots, everything))

        try:
            return real(plan_id)
        finally:
            client.logs[PLAN] = held

    client.create = lambda request: real(PLAN)  # type: ignore[method-assign]
    client.get = get  # type: ignore[method-assign]

    done = cli("--address", "h:1", "run", "x", client=client)

    assert (done.status, done.out) == (0, "Paid.\n")
    assert f"  approve: autoglm --address h:1 resolve {PLAN} pay --wait 3 --approve\n" in done.err
    assert f"  reject:  autoglm --address h:1 resolve {PLAN} pay --wait 3 --reject\n" in done.err


def test_each_wait_is_told_after_the_line_of_its_own_event() -> None:
    waiting = [said(StepWaiting(WaitingReason.APPROVAL, {}), step=step) for step in ("a", "b")]
    events = log(created(""), added("a", "bank.pay"), added("b", "bank.pay"), *waiting)
    got = []
    client = ScriptedClient(logs={PLAN: [*events, KeyboardInterrupt()]})
    real = client.get
    client.get = lambda *asked, **more: got.append(asked) or real(*asked, **more)  # type: ignore[func-returns-value,method-assign]

    done = cli("watch", PLAN, client=client)

    told = re.findall(r"\[\w\] waits for approval|--wait \d+ --approve", done.err)
    assert told == [
        "[a] waits for approval",
        "--wait 4 --approve",
        "[b] waits for approval",
        "--wait 5 --approve",
    ]
    assert len(got) == 1  # however many wait


def test_a_wait_that_is_over_is_not_asked_again() -> None:
    client = scripted(log(*WAIT, *DECIDED))

    done = cli("watch", PLAN, client=client, terminal="in err", stdin="a\n")

    assert done.status == 0
    assert "[a]pprove" not in done.err
    assert not [asked for asked in client.asked if asked[0] == "resolve"]


def test_somebody_else_was_quicker() -> None:
    client = deciding()
    client.refuse["resolve"] = PreconditionError("The step was resolved already.", reason="STEP_ALREADY_RESOLVED")

    done = cli("run", "x", client=client, terminal="in err", stdin="a\n")

    assert "The step was resolved already." in done.err


def test_a_plan_too_large_to_get_is_asked_by_its_steps() -> None:
    client = deciding()
    client.create = lambda request: ScriptedClient.get(deciding(), PLAN)  # type: ignore[method-assign]
    client.refuse["get"] = LimitError("too large", reason="RESPONSE_TOO_LARGE")

    done = cli("run", "x", client=client, terminal="in err", stdin="a\n")

    assert (done.status, done.out) == (0, "Paid.\n")


# --- Ctrl-C


def interrupted(*, cancelled: bool = False) -> ScriptedClient:
    client = ScriptedClient(logs={PLAN: [*GOOD[:4], KeyboardInterrupt(), *GOOD[4:]]})

    if cancelled:
        client.on_cancel = lambda: client.logs.update({PLAN: list(CANCELLED)})

    return client


def test_ctrl_c_can_cancel() -> None:
    client = interrupted(cancelled=True)

    done = cli("run", "x", client=client, terminal="in err", stdin="c\n")

    assert ("cancel", PLAN, "cancelled by Ctrl-C") in client.asked
    assert (done.status, done.out) == (3, "")
    assert "The plan was cancelled." in done.err


@pytest.mark.parametrize("typed", ["\n", "l\n", ""])
def test_ctrl_c_can_leave_it(typed: str) -> None:
    client = interrupted()

    done = cli("run", "x", client=client, terminal="in err", stdin=typed)

    assert done.status == 130
    assert f"To see it again: autoglm watch {PLAN}\n" in done.err
    assert not [asked for asked in client.asked if asked[0] == "cancel"]


def test_ctrl_c_twice_leaves_it() -> None:
    client = interrupted()
    client.logs[PLAN].insert(5, KeyboardInterrupt())

    done = cli("run", "x", client=client, terminal="in err", stdin="c\n")

    assert done.status == 130


def test_ctrl_c_without_a_terminal_leaves_it() -> None:
    done = cli("run", "x", client=interrupted())

    assert done.status == 130
    assert "To see it again" in done.err


def test_ctrl_c_of_json_says_where_to_go_on() -> None:
    client = interrupted()

    done = cli("run", "x", "--json", client=client, terminal="in err", stdin="c\n")

    assert done.status == 130
    assert f"autoglm watch {PLAN} --after 4 --json\n" in done.err
    rest = cli("watch", PLAN, "--after", "4", "--json", client=client)
    assert done.out + rest.out == "".join(wire.to_json(event) + "\n" for event in GOOD if not event.ephemeral)
