"""``python -m tests.reliability --level push``: put every promise to the test, and print what came of it.

Work is cut into units, each of which runs in a process of its own, as many at a time as two cores hold. Exit status: 0 when
every promise was put to the test, none was broken and every control was caught; 1 otherwise; 2 wrong usage. SIGINT and SIGTERM
stop it: what is under way is given up, what is done is told and kept (``--state``), and the status is 128 plus the number.
"""

# ruff: noqa: T201 - a command line prints
from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from tests.reliability.hangs import STACKS, tell_where_on_request
from tests.reliability.parts import CORES, PARTS, Part, Unit, promises, units, work_of
from tests.reliability.rows import Result, holds, render, table, write
from tests.reliability.state import State, StateError

TOGETHER = 4
"""Units at a time, at most."""
UNIT_SECONDS = {"push": 300.0, "night": 7200.0}
"""A unit that takes longer hangs; that is a violation. At night the machine may have other things to do as well."""
TELL_SECONDS = 5.0
"""A unit that hangs has so long to say where, and one that is stopped so long to leave nothing behind."""
STOPS = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Run; gives the exit status."""
    given = _flags().parse_args()
    if given.unit:
        signal.signal(signal.SIGTERM, _leave)
        unit = Unit(**json.loads(given.unit))
        tell_where_on_request(Path(given.out).with_suffix(STACKS))
        result = PARTS[unit.part].run(unit.seed, unit.size)
        Path(given.out).write_text(json.dumps(result.to_json()))
        return 0

    known = (*PARTS, *promises())
    if given.only and given.only not in known:
        print(f"--only {given.only}: there is no such part or promise; known are: {', '.join(known)}", file=sys.stderr)
        return 2

    if given.json and not given.json.parent.is_dir():
        print(f"--json {given.json}: there is no folder {given.json.parent}; make it first", file=sys.stderr)
        return 2

    start = time.monotonic()
    night = given.level == "night"
    work = sorted(units(given.level, given.seed, given.only), key=_turn_at_night if night else _turn)
    if given.size:
        work = [Unit(unit.part, unit.seed, given.size) for unit in work[:1]]

    stop = _Stop()
    try:
        state = State(given.state, f"{given.level}/{given.seed}", mixed=given.mixed)
        results = _run(work, state, UNIT_SECONDS[given.level], stop)
    except StateError as error:
        print(f"--state: {error}", file=sys.stderr)
        return 2

    whole = not given.only and not stop.asked
    rows = [row for row in table(results, promises(), whole=whole) if given.only in ("", *PARTS, row.promise)]
    print(render(rows, whole=whole))
    _tell_more(results, given, time.monotonic() - start)
    if given.json:
        write(rows, given.json)

    for line in state.told():
        print(line)

    if stop.asked:
        kept = f"they are kept in {given.state}, and the same command goes on" if given.state else "none is kept"
        print(f"STOPPED: {len(results)} of {len(work)} units are done; {kept}")
        return 128 + stop.asked

    # A part alone may have no controls for its promises: then only what it found counts.
    good = holds(rows) if whole else bool(rows) and not any(row.violations for row in rows) and _caught(results)
    print("every promise holds" if good else "FAILED")
    return 0 if good else 1


def _leave(number: int, _frame: object) -> NoReturn:
    """End a unit that is given up; of the tasks that this breaks off nothing is told."""
    logging.getLogger("asyncio").disabled = True
    sys.exit(128 + number)


def _flags() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="python -m tests.reliability", description="Put every promise to the test.")
    flags.add_argument("--level", choices=("push", "night"), default="push", help="how much of it (push)")
    flags.add_argument("--only", default="", metavar="NAME", help="one part, or one promise")
    flags.add_argument("--seed", type=int, default=1, help="with a commit, says exactly what is run (1)")
    flags.add_argument("--size", type=_size, default=0, help="one unit of this size alone, such as one simulated run")
    flags.add_argument("--json", type=Path, metavar="FILE", help="write the table's rows there")
    flags.add_argument("--state", type=Path, metavar="FILE", help="keep what is done there, and go on from it")
    flags.add_argument("--mixed", action="store_true", help="go on from a --state of other code, too")
    flags.add_argument("--unit", default="", help=argparse.SUPPRESS)
    flags.add_argument("--out", default="", help=argparse.SUPPRESS)
    return flags


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")

    return int(text)


def _caught(results: list[Result]) -> bool:
    return all(all(controls.values()) for result in results for controls in result.controls.values())


class _Stop:
    """Whether a signal has asked to stop: which, or 0."""

    def __init__(self) -> None:
        self.asked = 0
        for number in STOPS:
            signal.signal(number, self._ask)

    def _ask(self, number: int, _frame: object) -> None:
        self.asked = number


def _run(work: list[Unit], state: State, limit: float, stop: _Stop) -> list[Result]:
    """Run what is not done yet, each for ``limit`` seconds at most, and give the results of all.

    Raises:
        StateError: what is done cannot be kept.
    """
    waiting = [unit for unit in work if unit.name not in state.done]
    progress = _Progress(work, waiting)
    with tempfile.TemporaryDirectory(prefix="autoglm-reliability-", ignore_cleanup_errors=True) as folder:
        running: dict[subprocess.Popen[bytes], tuple[Unit, Path, float]] = {}
        try:
            while (waiting or running) and not stop.asked:
                while (unit := _next(waiting, [unit for unit, _, _ in running.values()])) is not None:
                    waiting.remove(unit)
                    out = Path(folder) / f"{len(state.done)}-{time.monotonic_ns()}.json"
                    running[_begin(unit, out)] = (unit, out, time.monotonic())

                time.sleep(0.05)
                for process in list(running):
                    unit, out, began = running[process]
                    patience = limit + unit.size * PARTS[unit.part].timed
                    before = _processor_seconds()
                    if process.poll() is None and time.monotonic() - began < patience:
                        continue

                    del running[process]
                    result = _ended(process, unit, out, time.monotonic() - began)
                    took = f"{time.monotonic() - began:.0f} s, {_processor_seconds() - before:.0f} s of processor time"
                    print(f"  {unit.part} ({unit.name}): {took}; {progress.told(unit)}", flush=True)
                    for text in result.told if sum(result.violations.values()) else ():
                        print(f"    {text[:1000]}", flush=True)

                    state.add(unit, result)
        finally:
            _end_all(list(running))

    return [state.done[unit.name] for unit in work if unit.name in state.done]


class _Progress:
    """How far it is, by what units take about."""

    def __init__(self, work: list[Unit], waiting: list[Unit]) -> None:
        self._all = sum(map(work_of, work))
        self._left = sum(map(work_of, waiting))
        self._units, self._units_left = len(work), len(waiting)
        self._began, self._done = time.monotonic(), 0.0

    def told(self, ended: Unit) -> str:
        """Say it, after another unit has ended."""
        self._done += work_of(ended)
        self._left -= work_of(ended)
        self._units_left -= 1
        seconds = (time.monotonic() - self._began) * self._left / self._done
        far = f"{self._units - self._units_left} of {self._units} units, {1 - self._left / self._all:.0%}"
        return f"{far}, about {max(0.0, seconds) / 60:.0f} min left"


def _end_all(running: list[subprocess.Popen[bytes]]) -> None:
    """End units that are under way, with the servers that they started; what they found is not kept."""
    for process in running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)

    end = time.monotonic() + TELL_SECONDS
    for process in running:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))

        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

        process.wait()


def _turn(unit: Unit) -> tuple[bool, float]:
    """The longest first. Those that measure come last: the cores empty once for all of them."""
    part = PARTS[unit.part]
    return part.alone, -work_of(unit) / part.cores


def _turn_at_night(unit: Unit) -> tuple[bool, int, float]:
    """One unit of each part after the other: a night that ends early has put all to the test, some of it less often."""
    alone, length = _turn(unit)
    return alone, unit.number, length


def _next(waiting: list[Unit], running: list[Unit]) -> Unit | None:
    """Give the first unit for which there is room: one that measures may not run beside others, and none beside it."""
    parts = [PARTS[unit.part] for unit in running]
    if len(parts) >= TOGETHER or any(part.alone for part in parts):
        return None

    room = CORES - sum(part.cores for part in parts)
    return next((unit for unit in waiting if not running or _fits(PARTS[unit.part], room)), None)


def _fits(part: Part, room: float) -> bool:
    return not part.alone and part.cores <= room + 0.01


def _processor_seconds() -> float:
    """Give what the units that have ended, and the processes they waited for, took of the processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _begin(unit: Unit, out: Path) -> subprocess.Popen[bytes]:
    content = json.dumps({"part": unit.part, "seed": unit.seed, "size": unit.size, "number": unit.number})
    command = [sys.executable, "-m", "tests.reliability", "--unit", content, "--out", str(out)]
    kept = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "NONE", "TMPDIR": str(out.parent)}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred servers are started, and each would compile all of it again
    return subprocess.Popen(command, env=kept, start_new_session=True)


def _ended(process: subprocess.Popen[bytes], unit: Unit, out: Path, seconds: float) -> Result:
    """Read what a unit found. One that did not come to its end proves nothing, and is a violation."""
    stacks = out.with_suffix(STACKS)
    if process.poll() is None:
        process.send_signal(signal.SIGUSR1)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TELL_SECONDS)

    with suppress(ProcessLookupError):  # the servers that it left, too
        os.killpg(process.pid, signal.SIGKILL)

    status = process.wait()
    if out.exists():
        result = Result.from_json(json.loads(out.read_text()))
    else:
        result = Result()
        for promise in PARTS[unit.part].promises[:1]:
            text = f"the unit {unit.name} did not come to its end (status {status} after {seconds:.0f} s)"
            result.found(promise, tries=1, faults=0, violations=[text], where=unit.name)

        result.told += stacks.read_text().splitlines() if stacks.exists() else ["it did not say where it was"]

    result.figures[f"seconds of {unit.part}"] = result.figures.get(f"seconds of {unit.part}", 0.0) + round(seconds, 1)
    return result


def _tell_more(results: list[Result], given: argparse.Namespace, seconds: float) -> None:
    figures: dict[str, float] = {}
    missed: list[str] = []
    for result in results:
        for name, amount in result.figures.items():
            figures[name] = figures.get(name, 0) + amount

        missed += [
            f"control not caught: {promise}: {name}"
            for promise, controls in result.controls.items()
            for name, caught in controls.items()
            if not caught
        ]

    print()
    print("; ".join(f"{_number(amount)} {name}" for name, amount in figures.items()))
    for line in (*missed, *(text for result in results for text in result.told)):
        print(line[:1000])

    print(f"level {given.level}, seed {given.seed}, {seconds:.0f} s")


def _number(amount: float) -> str:
    return f"{amount:,.0f}" if math.isinf(amount) or amount == int(amount) else f"{amount:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
