"""The command line as people run it: a real embedded server, and real processes and a real terminal where they matter."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.command_line import tell

TOOLS = '''
import time

import autoglm
from autoglm import Effect


@autoglm.tool(name="pay", effect=Effect.NON_IDEMPOTENT, requires_approval=True)
def pay(to: str, amount: float) -> str:
    """Pay somebody.

    Args:
        to: whom
        amount: how much
    """
    return f"{to} got {amount:g}"


@autoglm.tool(name="slow", effect=Effect.READ_ONLY)
def slow(seconds: float, context: autoglm.ToolContext) -> str:
    """Take its time.

    Args:
        seconds: how long
    """
    ends = time.monotonic() + seconds

    while time.monotonic() < ends and not context.cancelled:
        time.sleep(0.01)

    context.progress(1.0, "nearly there")
    return "at last"
'''
PAYMENT = """
steps:
  - id: sum
    tool: math.calculate
    arguments: {expression: 40 + 2}
  - id: pay
    tool: mine.pay
    arguments: {to: "\\u202eeve", amount: "${sum.result}"}
"""

PAYMENTS = (
    PAYMENT
    + """
  - id: tip
    tool: mine.pay
    arguments: {to: waiter, amount: 1}
"""
)


@dataclass
class Home:
    """A data directory, and command lines that use it."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "autoglm.cli", *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(stdin, timeout=45)

        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def tell(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command line in this process: as :meth:`run`, without the half second that another one takes to start."""
        return tell(self.environment, *arguments, stdin=stdin)

    def stop(self) -> None:
        """End the server that holds the data directory, if there is one, and wait for it."""
        try:
            pid = int(json.loads((self.folder / "server.json").read_text())["pid"])
            os.kill(pid, signal.SIGTERM)
        except (FileNotFoundError, ProcessLookupError):
            return

        due = time.monotonic() + 30

        while (self.folder / "server.json").exists() and time.monotonic() < due:
            time.sleep(0.02)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tools.py").write_text(TOOLS)
    (folder / "autoglm.yaml").write_text(f"providers: {{mine: 'python:{folder / 'tools.py'}'}}\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOGLM_")}
    made = Home(
        folder / "data",
        kept
        | {
            "AUTOGLM_DATA_DIR": str(folder / "data"),
            "AUTOGLM_CONFIG": str(folder / "autoglm.yaml"),
            "TERM": "xterm",
            "COLUMNS": "100",
            "LINES": "40",
        },
    )

    try:
        yield made
    finally:
        made.stop()


def test_the_answer_and_only_the_answer_is_on_stdout(home: Home) -> None:
    done = home.run("run", "15% of 2480")

    assert done.returncode == 0, done.stderr
    assert "372" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert "math.calculate" in done.stderr


def test_what_run_printed_a_later_watch_prints_byte_for_byte(home: Home) -> None:
    ran = home.run("run", "15% of 2480", "--json")
    assert ran.returncode == 0, ran.stderr
    plan_id = json.loads(ran.stdout.splitlines()[0])["planId"]
    watched = home.run("watch", plan_id, "--json")
    rest = home.run("watch", plan_id, "--json", "--after", "3")

    assert (ran.returncode, watched.returncode, rest.returncode) == (0, 0, 0), ran.stderr + watched.stderr
    assert watched.stdout == ran.stdout
    assert rest.stdout == "".join(ran.stdout.splitlines(keepends=True)[3:])
    assert [json.loads(line)["sequence"] for line in ran.stdout.splitlines()] == [
        str(number + 1) for number in range(len(ran.stdout.splitlines()))
    ]


def test_ephemeral_events_on_demand(home: Home) -> None:
    steps = '{"steps": [{"id": "s", "tool": "mine.slow", "arguments": {"seconds": 0.3}}]}'
    done = home.run("run", "--plan", "-", "--json", "--ephemeral", stdin=steps)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    durable = home.run("watch", events[0]["planId"], "--json")

    assert done.returncode == 0, done.stderr
    assert any("stepProgressed" in event for event in events)
    assert [event for event in events if not event.get("ephemeral")] == [
        json.loads(line) for line in durable.stdout.splitlines()
    ]


def test_the_commands_that_are_told_decide(home: Home) -> None:
    plan_id = home.tell("run", "--plan", "-", "--detach", stdin=PAYMENTS).stdout.strip()
    told = ""
    due = time.monotonic() + 40

    while told.count("waits for approval") < 2:
        assert time.monotonic() < due
        told = home.tell("plans", "--state", "waiting").stdout

    lines = [line.strip() for line in told.splitlines()]
    (approve,) = [line for line in lines if line.startswith("approve:") and f"{plan_id} pay " in line]
    (reject,) = [line for line in lines if line.startswith("reject:") and f"{plan_id} tip " in line]
    shown = home.tell("show", plan_id[-8:]).stdout
    decided = [home.tell(*shlex.split(line.partition(":")[2])[1:]) for line in (approve, reject)]
    watched = home.tell("watch", plan_id)

    assert '"to": "\\u202eeve"' in told
    assert approve in shown
    assert reject in shown
    assert [each.returncode for each in decided] == [0, 0], decided
    assert watched.returncode == 1, watched.stderr
    assert "[pay] succeeded" in watched.stderr
    assert "eve got 42" in watched.stderr
    assert "REJECTED" in watched.stderr


def test_cancel(home: Home) -> None:
    steps = '{"steps": [{"id": "s", "tool": "mine.slow", "arguments": {"seconds": 30}}]}'
    plan_id = home.tell("run", "--plan", "-", "--detach", stdin=steps).stdout.strip()
    cancelled = home.tell("cancel", plan_id, "--reason", "enough")
    watched = home.tell("watch", plan_id)

    assert cancelled.returncode == 0, cancelled.stderr
    assert (watched.returncode, watched.stdout) == (3, "")
    assert "cancel requested" in watched.stderr
    assert "enough" in watched.stderr


def test_every_fault_of_a_plan_file(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "steps:\n"
        "  - {id: a, tool: math.calculat, arguments: {expression: '1'}}\n"
        "  - {id: b, tool: math.calculate, arguments: {expression: 1}}\n"
        "  - {id: c, tool: math.calculate, arguments: {expression: '${nobody}'}}\n"
    )
    done = home.tell("run", "--plan", str(file))

    assert (done.returncode, done.stdout) == (2, "")
    lines = [line for line in done.stderr.splitlines() if line.startswith("autoglm: ")]
    assert len(lines) == 3, done.stderr
    assert all(line.startswith(f"autoglm: {file}: steps[{index}]") for index, line in enumerate(lines))
    assert "math.calculate" in lines[0]


def test_dry_run(home: Home) -> None:
    before = home.tell("plans", "--json").stdout
    done = home.tell("run", "--plan", "-", "--dry-run", stdin=PAYMENT)

    assert done.returncode == 0, done.stderr
    assert "mine.pay" in done.stdout
    assert home.tell("plans", "--json").stdout == before


def test_tools(home: Home) -> None:
    listed = home.tell("tools")
    shown = home.tell("tool", "mine.pay")
    called = home.tell("call", "math.calculate", "--args", '{"expression": "2480 * 0.15"}', "--json")
    unknown = home.tell("call", "math.calculat")
    wrong = home.tell("call", "math.calculate", "--args", "{}")
    guarded = home.tell("call", "mine.pay", "--args", '{"to": "eve", "amount": 1}')

    assert "mine.pay" in listed.stdout
    assert "Pay somebody." in shown.stdout
    assert json.loads(called.stdout)["output"]["result"] == 372
    assert (unknown.returncode, wrong.returncode, guarded.returncode) == (2, 2, 1)
    assert "math.calculate" in unknown.stderr
    assert "expression" in wrong.stderr
    assert "approv" in guarded.stderr


def test_doctor_finds_all_well(home: Home) -> None:
    home.tell("tools")
    done = home.tell("doctor", "--json")
    checks = {check["check"]: check for check in map(json.loads, done.stdout.splitlines())}

    assert done.returncode == 0, done.stdout
    assert {"installation", "data directory", "port", "health", "reflection", "round trip", "fold"} <= checks.keys()
    assert {name: check for name, check in checks.items() if check["verdict"] != "ok" and name != "default port"} == {}


@pytest.mark.parametrize("command", [["run", "x"], ["doctor"], ["watch", "x" * 26, "--json"]])
def test_a_server_that_is_not_there(home: Home, command: list[str]) -> None:
    done = home.tell("--address", "127.0.0.1:1", *command)

    assert done.returncode == 4
    assert "127.0.0.1:1" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_unknown_plan(home: Home) -> None:
    done = home.tell("show", "0" * 26)

    assert (done.returncode, done.stdout) == (2, "")
    assert "0" * 26 in done.stderr


def test_ctrl_c_leaves_the_plan_running(home: Home) -> None:
    steps = '{"steps": [{"id": "s", "tool": "mine.slow", "arguments": {"seconds": 2}}]}'

    with home.start("run", "--plan", "-", "--json") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(steps)
        process.stdin.close()
        seen = [process.stdout.readline()]

        while "stepStarted" not in seen[-1]:
            seen.append(process.stdout.readline())

        process.send_signal(signal.SIGINT)
        seen += process.stdout.readlines()
        told = process.stderr.read()

    assert process.returncode == 130
    command = told.strip().splitlines()[-1].partition("autoglm ")[2]
    rest = home.run(*shlex.split(command))
    plan_id = json.loads(seen[0])["planId"]
    everything = home.run("watch", plan_id, "--json")

    assert rest.returncode == 0, rest.stderr
    assert "".join(seen) + rest.stdout == everything.stdout


class Terminal:
    """A command line on a terminal of its own; stdout is a file."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.screen = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autoglm.cli", *arguments],
            env=home.environment,
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def until(self, text: str) -> None:
        due = time.monotonic() + 40

        while text not in self.screen:
            assert time.monotonic() < due, self.screen
            assert self._read(), self.screen

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        while self._read():
            pass

        assert self.process.stdout is not None
        out = self.process.stdout.read().decode()
        self.process.stdout.close()
        os.close(self._master)
        return self.process.wait(30), out

    def _read(self) -> bool:
        if not select.select([self._master], [], [], 40)[0]:
            return False

        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False

        self.screen += data.decode(errors="replace")
        return bool(data)


def test_a_person_approves_on_a_terminal(home: Home, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PAYMENT)
    terminal = Terminal(home, "run", "--plan", str(tmp_path / "plan.yaml"))

    terminal.until("[L]eave it waiting?")
    terminal.type("a\n")
    status, out = terminal.end()

    assert status == 0, terminal.screen
    assert "eve got 42" in out
    assert "✓" in terminal.screen
    assert '"to": "\\u202eeve"' in terminal.screen
    assert "\u202e" not in terminal.screen
    assert terminal.screen.count("\x1b[?25l") == terminal.screen.count("\x1b[?25h"), "the cursor is left as it was"


def test_ctrl_c_on_a_terminal_asks_and_cancels(home: Home, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("steps: [{id: s, tool: mine.slow, arguments: {seconds: 30}}]")
    terminal = Terminal(home, "run", "--plan", str(tmp_path / "plan.yaml"))

    terminal.until("mine.slow")
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until("or leave it running?")
    terminal.type("c\n")
    status, out = terminal.end()

    assert (status, out) == (3, ""), terminal.screen
    assert "The plan was cancelled." in terminal.screen


def test_serve(home: Home, tmp_path: Path) -> None:
    environment = {name: value for name, value in home.environment.items() if name != "AUTOGLM_CONFIG"}
    served = Home(tmp_path / "d", environment | {"AUTOGLM_DATA_DIR": str(tmp_path / "d")})

    with served.start("serve", "--port", "0") as process:
        try:
            due = time.monotonic() + 30

            while not (served.folder / "server.json").exists():
                assert process.poll() is None
                assert time.monotonic() < due
                time.sleep(0.02)

            address = json.loads((served.folder / "server.json").read_text())["address"]
            found = served.run("call", "math.calculate", "--args", '{"expression": "1 + 1"}', "--address", address)
            shared = served.run("run", "15% of 2480")
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

    assert found.returncode == 0, found.stderr
    assert "372" in shared.stdout
    assert "starting the embedded server" not in shared.stderr
    assert process.returncode == 0
