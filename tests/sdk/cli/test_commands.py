"""The other commands against a scripted client."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from autoglm import local, wire
from autoglm._version import __version__
from autoglm.cli import reference
from autoglm.cli.exits import InputError
from autoglm.cli.session import Session, Target
from autoglm.errors import (
    InternalError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    ToolFailedError,
    UnavailableError,
)
from autoglm.model import (
    Approve,
    Decision,
    Effect,
    Event,
    Failure,
    Json,
    Phrase,
    PlanFailed,
    PlanSucceeded,
    Reject,
    Retry,
    RetryPolicy,
    StepFailed,
    StepStarted,
    StepSucceeded,
    StepWaiting,
    Tool,
    ToolExample,
    ToolProgress,
    ToolResult,
    Violation,
    WaitingReason,
)
from tests.sdk.cli.scripted import PLAN, ScriptedClient, ScriptedTools, added, cli, created, log, said

ROOT = Path(__file__).resolve().parents[3]
OTHER = "01jq8w3v5d0000000000000zzz"
DONE = [
    created("sum up", labels={"team": "data"}),
    added("sum"),
    said(StepStarted(), step="sum", attempt=1, at=1),
    said(StepSucceeded(ToolResult({"value": [1, 2]})), step="sum", attempt=1, at=1.25),
    said(PlanSucceeded("It is [red]2[/red]."), at=2),
]
WAITS = [
    created("pay"),
    added("pay", "bank.pay", title="Pay \x1b[31mnow"),
    said(StepWaiting(WaitingReason.OUTCOME_UNKNOWN, {"to": "ada"}, "the connection was lost"), step="pay", at=1),
]
TOOLS = [
    Tool(
        name="math.calculate",
        title="Calculator",
        description="Calculate.\n\nExactly where possible.",
        input_schema='{"type":"object","properties":{"expression":{"type":"string"}}}',
        effect=Effect.READ_ONLY,
        timeout=timedelta(seconds=5),
        retry_policy=RetryPolicy(max_attempts=3),
        examples=(ToolExample("calculate 1+1", {"expression": "1+1"}, 2),),
        phrases=(Phrase("calculate {expression}", "{output}", "en"),),
        tags=("math",),
        digest="sha256:1",
        available=True,
    ),
    Tool(name="bank.pay", description="Pay.", effect=Effect.NON_IDEMPOTENT, requires_approval=True),
]


def scripted() -> ScriptedClient:
    return ScriptedClient(
        logs={PLAN: list(log(*DONE)), OTHER: list(log(*WAITS, plan_id=OTHER))}, tools=ScriptedTools(list(TOOLS))
    )


# --- plans


def test_plans() -> None:
    done = cli("plans", client=scripted())

    assert done.status == 0
    assert done.out.splitlines() == [
        "plan                        state      created               steps  request",
        f"{PLAN}  succeeded  2026-03-01 09:30:00Z  1/1    sum up",
        f"{OTHER}  waiting    2026-03-01 09:30:00Z  0/1    pay",
    ]


def test_on_a_narrow_terminal_ids_stay_whole() -> None:
    client = ScriptedClient({PLAN: [*log(created("a request that is longer than a terminal is wide " * 3))]})
    done = cli("plans", client=client, terminal="out", environment={"COLUMNS": "80", "NO_COLOR": "1"})

    (line,) = done.out.splitlines()[1:]
    assert line.startswith(f"{PLAN}  ")
    assert line.endswith("…")
    assert len(line) <= 80


def test_plans_as_json() -> None:
    client = scripted()
    done = cli("plans", "--json", "--label", "team=data", client=client)

    assert done.out == wire.to_json(next(iter(client.list(labels={"team": "data"})))) + "\n"


def test_plans_has_a_limit() -> None:
    done = cli("plans", "--limit", "1", client=scripted())

    assert len(done.out.splitlines()) == 2
    assert done.err == "There are more than 1; list more with --limit.\n"


def test_no_plans() -> None:
    assert "autoglm run REQUEST" in cli("plans", client=ScriptedClient()).err
    assert cli("plans", "--state", "failed", client=scripted()).err == "There is no such plan.\n"
    assert cli("plans", "--json", client=ScriptedClient()) == cli("plans", "--json", client=ScriptedClient())


def test_what_waits_for_me() -> None:
    done = cli("plans", "--state", "WAITING", "--data-dir", "d e", client=scripted())

    assert done.out.splitlines() == [
        f"{OTHER}  2026-03-01 09:30:00Z  pay",
        "  pay (Pay \\u001b[31mnow) waits: it may have taken effect",
        "    the connection was lost",
        "    bank.pay with",
        "      {",
        '        "to": "ada"',
        "      }",
        f"    retry:   autoglm --data-dir 'd e' resolve {OTHER} pay --wait 3 --retry",
        f"    reject:  autoglm --data-dir 'd e' resolve {OTHER} pay --wait 3 --reject",
    ]


def test_show() -> None:
    done = cli("show", PLAN, client=scripted())

    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"{PLAN}  succeeded",
        "  request   sum up",
        "  labels    team=data",
        "  created   2026-03-01 09:30:00Z",
        "  ended     2026-03-01 09:30:02Z",
        "  took      1.0 s",
        "  steps     1 step",
        "  used      1 tool call",
        "  sequence  5",
        "",
        "step  state      tool            took    calls  result or arguments",
        'sum   succeeded  math.calculate  250 ms  1      {"value": [1, 2]}',
        "",
        "It is [red]2[/red].",
    ]


def test_show_of_a_failed_plan_succeeds() -> None:
    client = scripted()
    failure = Failure("STEPS_FAILED", "autoglm", "a failed", violations=(Violation("steps[0]", "bad"),))
    client.logs[PLAN] = list(
        log(
            created(),
            added("a"),
            said(StepStarted(), step="a", attempt=1),
            said(StepFailed(Failure("X", "a", "no")), step="a", attempt=1),
            said(PlanFailed(failure)),
        )
    )
    done = cli("show", PLAN, client=client)

    assert done.status == 0
    assert done.out.splitlines()[-3:] == ["", "failed: STEPS_FAILED: a failed", "  steps[0]: bad"]
    assert "X: no" in done.out


def test_show_says_what_waits() -> None:
    done = cli("show", OTHER, client=scripted())

    assert f"  retry:   autoglm resolve {OTHER} pay --wait 3 --retry" in done.out.splitlines()


def test_show_as_json() -> None:
    client = scripted()

    assert cli("show", PLAN, "--json", client=client).out == wire.to_json(client.get(PLAN)) + "\n"


def test_colours_only_on_a_terminal() -> None:
    assert "\x1b[" in cli("show", PLAN, client=scripted(), terminal="out").out
    assert "\x1b[" not in cli("show", PLAN, client=scripted(), terminal="err").out
    assert "\x1b[3" not in cli("show", PLAN, client=scripted(), terminal="out", environment={"NO_COLOR": "1"}).out


# --- the plan's id


@pytest.mark.parametrize("part", ["8k0m2n", "2g4h6j8k0m2n", PLAN, "01jq8w3v5d7", f" {PLAN} "])
def test_a_part_of_an_id_is_enough(part: str) -> None:
    assert cli("show", part, client=scripted()).out.startswith(f"{PLAN}  succeeded")


def test_a_part_of_two_ids_is_not() -> None:
    done = cli("show", "01jq8w3v5d", client=scripted())

    assert (done.status, done.out) == (2, "")
    assert f"2 plans have an id with that beginning or end: {PLAN}, {OTHER}" in done.err


@pytest.mark.parametrize("command", ["show", "watch", "cancel"])
def test_the_nearest_id_is_named(command: str) -> None:
    done = cli(command, PLAN[:-1] + "x", client=scripted())

    assert (done.status, done.out) == (2, "")
    assert (
        done.err
        == f"autoglm: There is no plan {PLAN[:-1]}x. Did you mean {PLAN}?\nautoglm: `autoglm plans` lists the plans there are\n"
    )


@pytest.mark.parametrize("text", ["zzzzzz", "zzzzzzzzzzzz"])
def test_an_id_that_is_none(text: str) -> None:
    done = cli("show", text, client=scripted())

    assert (done.status, done.err) == (
        2,
        f"autoglm: There is no plan {text}.\nautoglm: `autoglm plans` lists the plans there are\n",
    )


# --- cancel and resolve


def test_cancel() -> None:
    client = scripted()
    done = cli("cancel", "8k0m2n", "--reason", "enough", client=client)

    assert ("cancel", PLAN, "enough") in client.asked
    assert (done.status, done.out) == (0, f"{PLAN} had ended already: succeeded\n")


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        (["--approve"], (Decision(Approve()), 0, "")),
        (["--approve", "--wait", "3"], (Decision(Approve()), 3, "")),
        (["--retry", "--comment", "checked"], (Decision(Retry()), 0, "checked")),
        (["--reject", "--comment", "no"], (Decision(Reject("no")), 0, "no")),
        (["--output", '{"paid": true}'], (Decision(ToolResult({"paid": True})), 0, "")),
        (["--output", "null"], (Decision(ToolResult(None)), 0, "")),
    ],
)
def test_resolve(flags: list[str], asked: tuple[object, ...]) -> None:
    client = scripted()
    done = cli("resolve", OTHER, "pay", *flags, client=client)

    assert client.asked == [("resolve", OTHER, "pay", *asked)]
    word = flags[0].removeprefix("--")
    said = {"approve": "approved", "retry": "to be tried again", "reject": "rejected", "output": "given its result"}[
        word
    ]
    assert (done.status, done.out) == (0, f"pay {said}; plan {OTHER} is waiting\n")


def test_resolve_reads_an_output_from_a_file_or_stdin(tmp_path: Path) -> None:
    file = tmp_path / "output.json"
    file.write_text("[1, 2]")
    client = scripted()

    cli("resolve", OTHER, "pay", "--output", f"@{file}", client=client)
    cli("resolve", OTHER, "pay", "--output", "-", client=client, stdin='"typed"')

    assert [asked[3].kind.output for asked in client.asked] == [[1, 2], "typed"]


@pytest.mark.parametrize("flags", [[], ["--approve", "--reject"], ["--retry", "--output", "1"]])
def test_resolve_takes_one_decision(flags: list[str]) -> None:
    done = cli("resolve", OTHER, "pay", *flags, client=scripted())

    assert done.status == 2
    assert "exactly one of --approve, --reject, --retry and --output" in done.err


def test_resolve_names_the_nearest_step() -> None:
    client = scripted()
    client.refuse["resolve"] = NotFoundError("There is no step pays.", reason="STEP_NOT_FOUND")

    done = cli("resolve", OTHER, "pays", "--retry", client=client)

    assert (done.status, done.err) == (2, "autoglm: There is no step pays. Did you mean pay?\n")


# --- tools


def test_tools() -> None:
    done = cli("tools", client=scripted())

    assert done.out.splitlines() == [
        "tool            effect          approval  description",
        "math.calculate  read only                 Calculate.",
        "bank.pay        not idempotent  required  (not available) Pay.",
    ]
    assert cli("tools", "--json", client=scripted()).out == "".join(wire.to_json(tool) + "\n" for tool in TOOLS)
    assert cli("tools", client=ScriptedClient()).err == "The server has no tools.\n"


def test_tool() -> None:
    done = cli("tool", "math.calculate", client=scripted())

    assert done.out.splitlines() == [
        "math.calculate  Calculator",
        "  effect    read only",
        "  timeout   5.0 s",
        "  attempts  at most 3",
        "  tags      math",
        "  digest    sha256:1",
        "",
        "Calculate.",
        "",
        "Exactly where possible.",
        "",
        "input schema",
        "{",
        '  "properties": {',
        '    "expression": {',
        '      "type": "string"',
        "    }",
        "  },",
        '  "type": "object"',
        "}",
        "",
        "example",
        "autoglm run 'calculate 1+1'",
        """autoglm call math.calculate --args '{"expression": "1+1"}'""",
        "→ 2",
        "",
        "phrases",
        "en  calculate {expression}",
    ]
    assert cli("tool", "none", client=scripted()).status == 2


def test_what_an_example_is_pasted_as() -> None:
    """A title is a request where phrases read it; a call that needs approval is none that can be made directly."""
    example = ToolExample("-it's $(no) shell", {}, None)
    phrase = Phrase("pay", "", "en")
    for phrases, approval, lines in (
        ((), False, ["example: -it's $(no) shell", "autoglm --address host:1 call pay"]),
        ((), True, ["example: -it's $(no) shell"]),
        ((phrase,), True, ["example", """autoglm --address host:1 run -- '-it'"'"'s $(no) shell'"""]),
    ):
        tool = Tool(name="pay", requires_approval=approval, examples=(example,), phrases=phrases)
        client = ScriptedClient(tools=ScriptedTools([tool]))
        shown = cli("--address", "host:1", "tool", "pay", client=client).out.splitlines()
        at = shown.index(lines[0])
        assert shown[at : at + len(lines)] == lines
        assert shown[at + len(lines) :] in ([], ["", "phrases", "en  pay"])


def test_call() -> None:
    client = scripted()
    client.tools.progress = (ToolProgress(0.5, "half\nway"), ToolProgress())

    done = cli("call", "math.calculate", "--args", '{"expression": "1"}', "--timeout", "90", client=client)

    assert done.status == 0
    assert client.tools.timeout == 90
    assert json.loads(done.out) == {"of": "math.calculate", "with": {"expression": "1"}}
    assert done.err == "50% half way\n"


@pytest.mark.parametrize(
    ("output", "shown"), [("text", "text\n"), (3, "3\n"), ({"b": 1, "a": "é"}, '{\n  "a": "é",\n  "b": 1\n}\n')]
)
def test_call_prints_the_output(output: Json, shown: str) -> None:
    client = scripted()
    client.tools.answer = lambda name, arguments: ToolResult(output)

    assert cli("call", "x", client=client).out == shown
    assert cli("call", "x", "--json", client=client).out == wire.to_json(ToolResult(output)) + "\n"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ToolFailedError("t", Failure("X", "t", "broken")), 1, "t: broken"),
        (InvalidRequestError.of([Violation("arguments.a", "is missing")]), 2, "arguments.a: is missing"),
        (InternalError("a bug; error id 12"), 1, "a bug; error id 12"),
        (UnavailableError("cannot reach"), 4, "cannot reach"),
    ],
)
def test_call_that_fails(error: Exception, status: int, told: str) -> None:
    def answer(name: str, arguments: dict[str, Json]) -> ToolResult:
        raise error

    client = scripted()
    client.tools.answer = answer
    done = cli("call", "t", client=client)

    assert (done.status, done.out, done.err) == (status, "", f"autoglm: {told}\n")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("{a: 1}", "put the JSON in single quotes"),
        ("[1]", "must be a JSON object"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        ("@/none/there", "cannot be read"),
    ],
)
def test_call_with_wrong_arguments(args: str, told: str) -> None:
    done = cli("call", "t", "--args", args, client=scripted())

    assert done.status == 2
    assert told in done.err


# --- serve, version, completion, docs


def test_serve_becomes_the_server() -> None:
    done = cli(
        *("--data-dir", "d", "serve", "--config", "c.yaml", "--host", "h", "--port", "0"),
        *("--provider", "mine=python:t.py", "--log-level", "debug"),
        environment={"KEPT": "1"},
    )
    ((command, environment),) = done.replaced

    assert command == [
        *(sys.executable, "-P", "-m", "autoglm_server"),
        *("--config", "c.yaml", "--host", "h", "--port", "0", "--data-dir", "d"),
        *("--provider", "mine=python:t.py", "--log-level", "debug"),
    ]
    assert environment["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert environment["KEPT"] == "1"


def test_serve_without_the_servers_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_NEEDED", ("no_such_package",))
    done = cli("serve")

    assert (done.status, done.replaced) == (2, [])
    assert "pip install 'open-autoglm[server]'" in done.err


def test_version() -> None:
    assert cli("version").out.startswith(f"autoglm {__version__}\n  python ")
    assert json.loads(cli("version", "--json").out)["autoglm"] == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts(shell: str) -> None:
    done = cli("completion", shell)

    assert done.status == 0
    assert "_AUTOGLM_COMPLETE" in done.out


def test_bash_completes(tmp_path: Path) -> None:
    def completed(*words: str) -> list[str]:
        environment: Mapping[str, str] = {
            "PATH": "/usr/bin:/bin",
            "_AUTOGLM_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "autoglm.cli"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        return done.stdout.split()

    assert completed("autoglm", "re") == ["resolve", "restore"]
    assert completed("autoglm", "plans", "--state", "wa") == ["waiting"]
    assert "--plan" in completed("autoglm", "run", "--p")


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_documentation_is_current(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    assert (ROOT / "docs" / "cli.md").read_text() == reference.render(), (
        "docs/cli.md is not what the help says; run: python -m autoglm.cli.reference > docs/cli.md"
    )


@pytest.mark.parametrize(
    "name", ["run", "watch", "plans", "show", "cancel", "resolve", "tools", "tool", "call", "serve", "doctor"]
)
def test_every_command_has_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h"):
        assert cli(name, flag).status == 0
        assert f"    autoglm {name}" in capsys.readouterr().out


def test_without_typer_the_command_line_says_how_to_get_it() -> None:
    program = """
import sys
sys.modules["typer"] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "typer" else real(name, *rest)
import autoglm.cli
sys.exit(autoglm.cli.main(["version"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "autoglm: the command line needs typer. To fix: pip install 'open-autoglm[server]'\n"


def test_importing_the_command_line_loads_neither_typer_nor_rich() -> None:
    program = "import sys, autoglm.cli; sys.exit(bool({'typer', 'rich'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_who_stops_reading_is_not_an_error() -> None:
    program = """
import sys
from tests.sdk.cli.scripted import ScriptedClient, created, log, PLAN
from autoglm.cli.app import run
from autoglm.cli.session import Session
client = ScriptedClient(logs={PLAN: list(log(*[created("x" * 1000)] * 1))})
client.list = lambda **_: (client.get(PLAN) for _ in range(2000))
sys.exit(run(["plans", "--json", "--limit", "2000"], Session(connect=lambda target, progress: client)))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None

    with process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""

    assert process.returncode == 141


def test_plans_of_given_steps_are_told_by_them() -> None:
    given = [created("", labels={"team": "data"}), added("a", "text.count", title="Count words")]
    client = ScriptedClient(
        logs={
            PLAN: list(log(*given, *(added(name) for name in "bcd"))),
            OTHER: list(log(created(""), added("a", "units.convert"), plan_id=OTHER)),
        }
    )

    first, second = cli("plans", client=client).out.splitlines()[1:]

    assert first.endswith("  Count words, math.calculate, math.calculate, … team=data")
    assert second.endswith("  units.convert")


def test_a_decision_that_does_not_fit_is_answered_with_the_options_that_do() -> None:
    client = ScriptedClient(logs={PLAN: list(log(*WAITS))})
    told = {"waits_for": "APPROVAL"}
    client.refuse["resolve"] = InvalidRequestError("takes", reason="DECISION_NOT_ALLOWED", metadata=told)
    done = cli("resolve", PLAN, "pay", "--retry", client=client)
    expected = "autoglm: step pay waits for approval: decide with one of --approve, --reject, --output JSON\n"
    assert (done.status, done.err) == (2, expected)

    client.refuse["resolve"] = InvalidRequestError("takes", reason="DECISION_NOT_ALLOWED")
    assert "--output JSON" in cli("resolve", PLAN, "pay", "--retry", client=client).err


def test_too_little_of_an_id_is_said_to_be_too_little() -> None:
    done = cli("show", PLAN[:5], client=ScriptedClient(logs={PLAN: list(log(*DONE))}))
    assert done.status == 2
    assert f"PLAN {PLAN[:5]}: give the plan's id, or at least 6 characters of its beginning or end" in done.err


def test_show_and_watch_tell_the_same_duration() -> None:
    client = ScriptedClient(logs={PLAN: list(log(*DONE))})
    assert re.search(r"took +1\.0 s", cli("show", PLAN, client=client).out)
    assert "plan succeeded in 1.0 s" in cli("watch", PLAN, client=client).err
    assert "  1.0 s" in cli("watch", PLAN, client=client, terminal="err").err


# --- the doctor


SUM: list[Event] = [
    created(""),
    added("sum", arguments={"expression": "1 + 1"}),
    said(StepStarted(), step="sum", attempt=1),
    said(StepSucceeded(ToolResult(2)), step="sum", attempt=1),
    said(PlanSucceeded("2")),
]


def verdicts(*arguments: str, client: ScriptedClient) -> dict[str, tuple[str, str, str]]:
    done = cli("doctor", "--json", *arguments, client=client)
    checks = [json.loads(line) for line in done.out.splitlines()]
    found = {check["check"]: (check["verdict"], check["detail"], check["remedy"]) for check in checks}
    return found | {"exit": (str(done.status), "", "")}


def test_doctor_of_a_fold_that_differs() -> None:
    client = ScriptedClient(logs={PLAN: list(log(*SUM))})
    real = client.get
    client.get = lambda plan_id, **_: replace(real(plan_id), answer="3")  # type: ignore[method-assign]

    found = verdicts("--address", "localhost:1", client=client)

    assert found["round trip"][0] == "ok"
    assert found["fold"][0] == "failed"
    assert found["fold"][1].endswith("in: answer")
    assert found["fold"][2]


def test_doctor_of_a_server_that_is_not_there() -> None:
    client = ScriptedClient(address="localhost:1")
    client.refuse["health"] = UnavailableError("Cannot reach the server at localhost:1.")

    found = verdicts("--address", "localhost:1", client=client)

    assert found["data directory"][0] == "skipped"
    assert found["port"][0] == "failed"
    assert found["health"][0] == "failed"
    assert found["fold"][0] == "skipped"
    assert found["exit"][0] == "4"
    assert all(remedy for verdict, _, remedy in found.values() if verdict == "failed")


def test_doctor_of_a_plan_that_fails() -> None:
    client = ScriptedClient(logs={PLAN: list(log(created(""), said(PlanFailed(Failure("X", "autoglm", "no")))))})

    found = verdicts("--address", "localhost:1", client=client)

    assert found["round trip"][0] == "failed"
    assert found["round trip"][2] == f"autoglm show {PLAN}"
    assert found["fold"][0] == "ok"


def test_doctor_of_a_server_without_the_tool() -> None:
    client = ScriptedClient()
    client.refuse["create"] = InvalidRequestError.of([Violation("steps[0].tool", "there is none")])

    found = verdicts("--address", "localhost:1", client=client)

    assert found["round trip"][0] == "failed"
    assert "built-in tools" in found["round trip"][2]
    assert found["fold"][0] == "skipped"


def test_doctor_of_a_damaged_journal() -> None:
    """It is found by the round trip, after the server said SERVING; one remedy, and no ok beside it."""
    client = ScriptedClient()
    client.refuse["create"] = PreconditionError("page 3 is not what was written", reason="JOURNAL_DAMAGED")

    found = verdicts("--address", "localhost:1", client=client)

    assert found["health"][0] == found["round trip"][0] == "failed"
    assert found["health"][2] == found["round trip"][2] == "stop the server, then run: autoglm doctor --repair"

    client.refuse["create"] = InternalError("something else", reason="INTERNAL")
    found = verdicts("--address", "localhost:1", client=client)

    assert found["health"][2] != "stop the server, then run: autoglm doctor --repair"
    assert found["round trip"][2] == "look at the server's log"


def test_doctor_of_a_server_that_does_not_start_for_its_journal() -> None:
    class Dead(ScriptedClient):
        def __enter__(self) -> NoReturn:
            raise InvalidRequestError("It cannot start: … stop the server, then `autoglm doctor --repair` saves …")

    found = verdicts("--address", "localhost:1", client=Dead())

    assert found["server"][0] == "failed"
    assert found["server"][2] == "stop the server, then run: autoglm doctor --repair"


def test_doctor_of_data_directories(tmp_path: Path) -> None:
    from autoglm.cli.doctor import data_directory

    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    file = tmp_path / "file"
    file.touch()

    assert data_directory(tmp_path / "a" / "b").verdict.value == "ok"
    assert data_directory(closed).verdict.value == "ok"
    assert data_directory(open_to_all).remedy == f"chmod 700 {open_to_all}"
    assert data_directory(file).verdict.value == "failed"
    assert data_directory(file / "below").verdict.value == "failed"


# --- Ctrl-C


def test_an_interrupt_waits_for_what_is_held() -> None:
    from autoglm.cli.interrupts import Interrupts

    done = []

    def hold() -> None:
        with Interrupts() as interrupts, interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    def do_not_hold() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("nothing more")

    with pytest.raises(KeyboardInterrupt):
        hold()

    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    with pytest.raises(KeyboardInterrupt):
        do_not_hold()

    assert done == ["all of it"]


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    from autoglm.cli.interrupts import Interrupts

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    try:
        with Interrupts() as interrupts, interrupts.held():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_settings_of_the_embedded_server_do_not_go_with_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError

    session = Session(
        refuse, Target(None, None, ("--provider", "x=python:x.py")), environment={"AUTOGLM_ADDRESS": "h:1"}
    )

    with pytest.raises(InputError, match="--provider is for the embedded server, but AUTOGLM_ADDRESS names another"):
        session.client()


@pytest.mark.parametrize("missing", ["mcp_types", "anyio"])
def test_mcp_without_its_extra_says_which_it_is(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("autoglm.mcp_server", raising=False)
    monkeypatch.delitem(sys.modules, "autoglm.mcp_server", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    ran = cli("mcp")

    assert ran.status == 2
    assert "pip install 'open-autoglm[mcp]'" in ran.err
