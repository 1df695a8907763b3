"""The parts of the programme, and into which units of work each level cuts them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.reliability.checker import PROMISES, check
from tests.reliability.clocks import TIME, clocks
from tests.reliability.corruption import UNDAMAGED, corruption
from tests.reliability.damage import BACKUP, FOUND, SAVED, VERSIONS, damage
from tests.reliability.damage import KEPT as NOT_WRITTEN_OVER
from tests.reliability.disks import broken_disks, power_cuts
from tests.reliability.fuzz import PARSERS, fuzz
from tests.reliability.hostile import FLAT, PROPER, UP, hostile
from tests.reliability.models import MODEL_PROMISES, models
from tests.reliability.mutated import CHEAP, mutated
from tests.reliability.overload import GOODPUT, HEALTH, KEPT, REFUSED, overload
from tests.reliability.processes import failpoints, forgetful, kills
from tests.reliability.rows import Result
from tests.reliability.slow import FROZEN, SLOW
from tests.reliability.soak import DISK, GONE, MEMORY, soak
from tests.reliability.storms import RECOVERED, TOLD, storm
from tests.reliability.streams import WATCH_PROMISES, watch

CORES: Final = 2.0
"""Of the machine that this is sized for: units run beside each other as long as they find room on them."""
REGRESSIONS: Final = Path(__file__).parent / "regressions.txt"
"""Seeds that failed once. They are run at every level, for ever."""
WORLDS_A_UNIT: Final = 96
"""Simulated runs in one unit, of twelve plans each."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work for one process: a part, how much of it, and its seed. Its name is what a state file knows it by."""

    part: str
    seed: int
    size: int
    number: int = 0

    @property
    def name(self) -> str:
        return f"{self.part}/{self.seed}/{self.size}/{self.number}"


@dataclass(frozen=True, slots=True)
class Part:
    """One way to break promises. ``push`` and ``night`` are (units, size of each)."""

    run: Callable[[int, int], Result]
    push: tuple[int, int]
    night: tuple[int, int]
    promises: tuple[str, ...] = tuple(PROMISES)
    cores: float = 1.0
    """Of how many cores a unit makes use, about: beside one that mostly waits, there is room for more."""
    seconds: float = 30.0
    """What a unit of a push takes, about: the longest begin first."""
    fixed: float = 0.0
    """How much of it a unit of any size takes."""
    alone: bool = False
    """It measures, so nothing else runs meanwhile."""
    timed: bool = False
    """Its size is seconds."""


def simulate(seed: int, size: int) -> Result:
    """Run ``size`` simulated worlds, from ``seed`` on."""
    result = Result()
    for number in range(seed, seed + size):
        _simulate_one(number, result)

    return result


def regressions(seed: int, size: int) -> Result:
    """Run the seeds that failed once."""
    result = Result()
    for line in REGRESSIONS.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text:
            _simulate_one(int(text), result)

    return result


def _simulate_one(seed: int, result: Result) -> None:
    from tests.reliability.simulation import Simulation

    logging.disable(logging.CRITICAL)  # what goes wrong on purpose would fill the screen
    simulation = Simulation(seed)
    history = simulation.run()
    result.take(check(history), history, f"--only simulation --seed {seed} --size 1")
    result.count("plan lives", simulation.world.lives)
    result.count("simulated faults", sum(history.faults.values()))
    result.count("process ends", sum(count for kind, count in history.faults.items() if kind.startswith("killed")))


def break_on_purpose(seed: int, size: int) -> Result:
    """Break the product in every way that a promise must notice."""
    from tests.reliability.breakages import BREAKAGES

    logging.disable(logging.CRITICAL)
    result = Result()
    for breakage in BREAKAGES:
        result.control(breakage.promise, breakage.name, caught=breakage.caught())
        result.count("breakages")

    return result


PARTS: Final[dict[str, Part]] = {
    "regressions": Part(regressions, (1, 1), (1, 1), seconds=3.0),
    "simulation": Part(simulate, (4, WORLDS_A_UNIT), (160, WORLDS_A_UNIT), seconds=20.0),
    "kills": Part(kills, (2, 20), (30, 50), cores=0.7, seconds=23.0),
    "failpoints": Part(failpoints, (1, 1), (4, 5), cores=0.6, seconds=16.0),
    "breakages": Part(break_on_purpose, (1, 1), (1, 1), seconds=8.0),
    "watch": Part(
        watch, (1, 100), (20, 500), (*WATCH_PROMISES, FROZEN, SLOW, "seen-is-durable", "dense"), cores=0.6, seconds=38.0
    ),
    "corruption": Part(corruption, (1, 40), (10, 400), (UNDAMAGED,), seconds=5.0),
    "storm": Part(storm, (1, 200), (10, 4_900), (TOLD, RECOVERED), seconds=9.0),
    "hostile": Part(hostile, (1, 20_000), (20, 50_000), (UP, FLAT, PROPER), seconds=32.0),
    "mutated": Part(mutated, (2, 500_000), (40, 500_000), (PROPER, CHEAP, FLAT, UP), seconds=68.0),
    "fuzz": Part(fuzz, (1, 2), (2, 300), (PARSERS,), cores=0.75, seconds=38.0, fixed=22.0, timed=True),
    "models": Part(models, (1, 40), (10, 500), MODEL_PROMISES, seconds=28.0),
    "power": Part(power_cuts, (1, 100), (10, 100), cores=0.7, seconds=9.0),
    "disks": Part(broken_disks, (1, 20), (5, 50), cores=0.7, seconds=5.0),
    "forgetful": Part(forgetful, (1, 4), (1, 4), cores=0.5, seconds=19.0),
    "damage": Part(damage, (1, 4), (5, 60), (FOUND, NOT_WRITTEN_OVER, SAVED, BACKUP, VERSIONS), seconds=18.0),
    "clocks": Part(clocks, (1, 1), (4, 5), (TIME, *PROMISES), cores=0.4, seconds=24.0),
    "soak": Part(soak, (1, 24), (1, 1800), (MEMORY, DISK, GONE), cores=0.5, seconds=27.0, timed=True),
    "overload": Part(overload, (1, 8), (1, 60), (GOODPUT, REFUSED, HEALTH, KEPT), seconds=46.0, fixed=14.0, alone=True),
}


def work_of(unit: Unit) -> float:
    """Give about how many seconds of a core a unit takes, by what its part takes at a push."""
    part = PARTS[unit.part]
    seconds = part.fixed + (part.seconds - part.fixed) * unit.size / part.push[1]
    return seconds * (CORES if part.alone else part.cores)


def units(level: str, seed: int, only: str = "") -> list[Unit]:
    """Cut the work of a level into units; ``only`` a part, or the parts that put a promise to the test."""
    found = []
    for name, part in PARTS.items():
        if only and only not in (name, *part.promises):
            continue

        count, size = part.push if level == "push" else part.night
        found += [Unit(name, seed + number * size, size, number) for number in range(count)]

    return found


def promises() -> list[str]:
    """Give every promise, in the order of the table."""
    return list(dict.fromkeys(name for part in PARTS.values() for name in (*PROMISES, *part.promises)))
