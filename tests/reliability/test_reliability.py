"""The programme itself: it can be repeated exactly, it runs from one command, and its table says what was found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability import state
from tests.reliability.__main__ import _next, _turn
from tests.reliability.breakages import BREAKAGES
from tests.reliability.checker import PROMISES, check
from tests.reliability.hangs import EXIT_STATUS
from tests.reliability.history import History
from tests.reliability.parts import CORES, PARTS, Unit, units
from tests.reliability.rows import Result, Row, holds, render, table
from tests.reliability.simulation import PLANS, Simulation
from tests.reliability.verdict import Verdict

ROOT = Path(__file__).parents[2]
SEEDS = (14, 29, 73)
"""The last two have the SQLite journal, and all that can happen to its disk; the last, retention."""
DIGESTS = f"""
from tests.reliability.simulation import Simulation
for seed in {SEEDS}:
    simulation = Simulation(seed, traced=True)
    simulation.run()
    print(simulation.world.digest)
"""


def digest(seed: int) -> str:
    simulation = Simulation(seed, traced=True)
    simulation.run()
    return simulation.world.digest


def test_a_seed_reproduces_a_run_exactly_in_any_process() -> None:
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.split() == [digest(seed) for seed in SEEDS]


def test_another_seed_is_another_run() -> None:
    assert digest(5) != digest(6)


@pytest.mark.parametrize(("seed", "sqlite"), [(7, True), (8, False)])
def test_a_simulated_world_keeps_every_promise(seed: int, *, sqlite: bool) -> None:
    simulation = Simulation(seed)
    assert simulation.world.faults.sqlite is sqlite
    history = simulation.run()
    assert simulation.world.lives >= PLANS - 1
    assert {name: verdict.violations for name, verdict in check(history).items() if verdict.violations} == {}


def test_every_promise_has_a_control() -> None:
    assert {breakage.promise for breakage in BREAKAGES} == set(PROMISES)


def test_a_history_that_cannot_be_read_is_a_violation() -> None:
    assert check(History(logs={"plan": []}))["cancel-is-final"].violations


def test_the_table_says_what_was_found() -> None:
    found = Result()
    found.take({"dense": Verdict(3, ["a gap"])}, History(faults={"kill": 2}), "seed 5")
    found.control("dense", "a watcher skips", caught=True)
    found.control("one-key", "other keys", caught=False)
    rows = table([found, found], ["one-key", "dense"])
    assert rows == [Row("one-key", control_caught=False), Row("dense", 6, 4, 2, control_caught=True)]
    assert not holds(rows)
    assert "dense" in render(rows)
    assert found.told == ["dense [seed 5]: a gap"]
    assert Row("cancel-is-final", control_caught=False) in table([found], ["cancel-is-final", "dense"], whole=True)
    assert holds([Row("dense", 1)])
    assert not holds([Row("dense", 0)])
    assert not holds([])


def test_units_that_wait_run_beside_others_and_those_that_measure_alone() -> None:
    waiting = sorted(units("push", 1), key=_turn)
    assert PARTS[waiting[-1].part].alone
    begun: list[list[Unit]] = []
    while waiting:
        running: list[Unit] = []
        while (unit := _next(waiting, running)) is not None:
            waiting.remove(unit)
            running.append(unit)

        assert running
        begun.append(running)

    assert all(sum(PARTS[unit.part].cores for unit in running) <= CORES for running in begun)
    assert all(len(running) == 1 for running in begun if any(PARTS[unit.part].alone for unit in running))
    assert any(len(running) > CORES for running in begun)


def test_one_simulated_run_from_the_command_line(tmp_path: Path) -> None:
    out, kept = tmp_path / "rows.json", tmp_path / "state.json"
    command = [sys.executable, "-m", "tests.reliability", "--only", "simulation", "--size", "1", "--seed", "9"]
    command += ["--json", str(out), "--state", str(kept)]
    told = ""
    for _ in range(2):  # the second time, nothing is left to do
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = json.loads(out.read_text())
        assert {"promise", "tries", "faults", "violations", "control_caught"} == set(rows[0])
        told = done.stdout
        assert "plan lives" in told

    assert "simulation (" not in told


def test_a_state_is_of_one_run_and_of_one_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, unit = tmp_path / "state.json", Unit("simulation", 1, 105)
    monkeypatch.setattr(state, "code", lambda: "abc, sources 1")
    state.State(file, "night/1").add(unit, Result(tries={"dense": 3}))
    monkeypatch.setattr(state, "code", lambda: "def, sources 1")  # a commit that changed no source
    assert state.State(file, "night/1").done[unit.name].tries == {"dense": 3}
    with pytest.raises(state.StateError, match="night/1, and this is push/1"):
        state.State(file, "push/1")

    monkeypatch.setattr(state, "code", lambda: "def, sources 2")
    with pytest.raises(state.StateError, match=r"1 units of other code \(abc, sources 1\)"):
        state.State(file, "night/1")

    mixed = state.State(file, "night/1", mixed=True)
    mixed.add(Unit("simulation", 106, 105, 1), Result())
    assert mixed.told() == ["1 units ran abc, sources 1", "1 units ran def, sources 2"]
    file.write_text("{}")
    with pytest.raises(state.StateError, match="no state of this programme"):
        state.State(file, "night/1")


def test_what_runs_has_a_name() -> None:
    assert state.code() == state.code()
    assert " sources " in state.code()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_its_state_and_nothing_else(tmp_path: Path, number: signal.Signals) -> None:
    kept = tmp_path / "state.json"
    command = [
        sys.executable,
        "-m",
        "tests.reliability",
        "--only",
        "simulation",
        "--size",
        "4000",
        "--state",
        str(kept),
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as run:
        while run.poll() is None and not list(tmp_path.glob("autoglm-reliability-*")):  # it has begun
            time.sleep(0.01)

        run.send_signal(number)
        told, _ = run.communicate(timeout=15)

    assert run.returncode == 128 + number
    assert "STOPPED: 0 of 1 units are done; they are kept in" in told
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


HANGS = """
import asyncio, sys
from pathlib import Path
from tests.reliability.hangs import tell_where_on_request

async def answer_that_never_comes():
    asyncio.get_running_loop().call_soon(lambda: print("ready", flush=True))
    await asyncio.Event().wait()

async def main():
    await answer_that_never_comes()

tell_where_on_request(Path(sys.argv[1]))
asyncio.run(main())
"""


def test_a_unit_that_hangs_says_where(tmp_path: Path) -> None:
    told = tmp_path / "unit.stacks"
    with subprocess.Popen(
        [sys.executable, "-c", HANGS, str(told)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(10) == EXIT_STATUS

    text = told.read_text()
    assert "main <string>:11 > answer_that_never_comes <string>:8 > Event.wait locks.py" in text
    assert "thread MainThread: " in text
