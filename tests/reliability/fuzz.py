"""Fuzzing guided by coverage, with atheris: inputs that reach new branches of our parsers are kept and changed further.

Each target runs in a process of its own (``fuzz_targets``), instrumented as it is imported. What failed once is in
``fuzz_regressions.txt`` and runs at every level, also where there is no atheris.
"""

from __future__ import annotations

import base64
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.reliability.fuzz_targets import PLANTED, TARGETS, Eat
from tests.reliability.rows import Result

PARSERS = "hostile-parsers-hold"
REGRESSIONS: Final = Path(__file__).parent / "fuzz_regressions.txt"
"""Inputs that failed once, one a line: the target, and base64."""
HAS_ATHERIS: Final = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 15)
"""As the marker of the extra ``dev``: elsewhere there is no wheel of it."""
START_SECONDS: Final = 120.0
"""How long a target may take besides fuzzing: instrumenting takes some seconds on a quiet machine."""
_RAISED: Final = re.compile(r"=== Uncaught Python exception: ===\n(.{0,600})")
_UNITS: Final = re.compile(r"stat::number_of_executed_units: (\d+)")


@dataclass
class Found:
    """What came of fuzzing a target."""

    inputs: int = 0
    faults: list[str] = field(default_factory=list)


def fuzz(seed: int, size: int) -> Result:
    """Fuzz every target for ``size`` seconds."""
    result = Result()
    again, faults = repeat(read(REGRESSIONS.read_text().splitlines()))
    if again:
        result.found(PARSERS, tries=again, faults=again, violations=faults, where="--only fuzz")

    if not HAS_ATHERIS:
        result.told.append(f"fuzz: skipped, there is no atheris for this system: {platform.platform()}")
        return result

    for target in TARGETS:
        if target == PLANTED:
            continue

        found = run(target, seed, size)
        where = f"--only fuzz --seed {seed} --size {size}"
        result.found(PARSERS, tries=found.inputs, faults=found.inputs, violations=found.faults, where=where)
        result.count("fuzzed inputs", found.inputs)

    stumbled = run(PLANTED, seed, max(size, 10))
    result.control(PARSERS, "a planted bug", caught=any("PlantedError" in fault for fault in stumbled.faults))
    return result


def run(target: str, seed: int, seconds: int) -> Found:
    """Fuzz a target in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="autoglm-fuzz-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "tests.reliability.fuzz_targets", target, "--seconds", str(seconds)]
        command += ["--seed", str(seed), "--folder", name]
        log = folder / "log"
        with log.open("wb") as out:
            try:
                # TMPDIR: a fuzzer ends its process at once, and leaves what is open.
                environment = {**os.environ, "TMPDIR": name, "GRPC_VERBOSITY": "NONE"}
                status = subprocess.run(
                    command,
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    timeout=seconds + START_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                status = -1

        return judge(target, status, log.read_text(errors="replace"), sorted(folder.glob("found-*")))


def judge(target: str, status: int, log: str, inputs: Iterable[Path]) -> Found:
    """Say what the end of a fuzzer's process means: its status, what it printed, and the inputs it left."""
    units = _UNITS.search(log)
    found = Found(int(units[1]) if units else 0)
    raised = _RAISED.search(log)
    what = raised[1] if raised else f"it ended with status {status}: {log[-300:].strip()}"
    for path in inputs:
        kind = path.name.split("-")[1]  # crash, timeout, oom, leak, slow
        text = base64.b64encode(path.read_bytes()).decode()
        repeat_it = f"python -m tests.reliability.fuzz_targets {target} --input {text}"
        found.faults.append(f"{target}, {kind}: {what}; repeat it with: {repeat_it}")

    if status and not found.faults:
        found.faults.append(f"{target}: {what}")

    if not status and not found.inputs:
        found.faults.append(f"{target}: nothing was fuzzed: {log[-300:].strip()}")

    return found


def read(lines: Iterable[str]) -> list[tuple[str, bytes]]:
    """Read targets and inputs of a regressions file; what follows a # is a comment."""
    parts = (line.partition("#")[0].split() for line in lines)
    return [(part[0], base64.b64decode(part[1])) for part in parts if part]


def repeat(inputs: Iterable[tuple[str, bytes]]) -> tuple[int, list[str]]:
    """Give a target's old failures to it again, in this process; gives how many there were, and what failed."""
    logging.disable(logging.CRITICAL)
    made: dict[str, Eat] = {}
    faults: list[str] = []
    count = 0
    for target, data in inputs:
        count += 1
        eat = made.get(target) or made.setdefault(target, TARGETS[target].make())
        try:
            eat(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, it failed before and fails again
            text = base64.b64encode(data).decode()
            faults.append(f"{target}, again: {type(error).__name__}: {str(error)[:300]}; input {text}")

    return count, faults
