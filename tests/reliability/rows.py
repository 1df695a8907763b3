"""What a run comes to: what each unit of work found, and the table of all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.reliability.history import History
from tests.reliability.verdict import Verdict

TOLD_MAX: Final = 20
"""How many violations of one unit are told in words."""


@dataclass(slots=True)
class Row:
    """One promise, over everything that put it to the test."""

    promise: str
    tries: int = 0
    faults: int = 0
    violations: int = 0
    control_caught: bool = True


@dataclass(slots=True)
class Result:
    """What one unit of work found."""

    tries: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    violations: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    """The first violations, in words, each with what reproduces it."""
    controls: dict[str, dict[str, bool]] = field(default_factory=dict)
    """For each promise, its deliberate breakages, and whether a check noticed."""
    figures: dict[str, float] = field(default_factory=dict)
    """What else was counted: plan lives, kills, seconds."""

    def count(self, name: str, amount: float = 1) -> None:
        self.figures[name] = self.figures.get(name, 0) + amount

    def take(self, verdicts: Mapping[str, Verdict], history: History, where: str) -> None:
        """Add what the checker said of a history. ``where`` is what reproduces it."""
        injected = sum(history.faults.values())
        for name, verdict in verdicts.items():
            if verdict.tries:
                self.found(name, tries=verdict.tries, faults=injected, violations=verdict.violations, where=where)

    def found(self, promise: str, *, tries: int, faults: int, violations: Iterable[str], where: str) -> None:
        """Add to a promise."""
        violations = list(violations)
        self.tries[promise] = self.tries.get(promise, 0) + tries
        self.faults[promise] = self.faults.get(promise, 0) + faults
        self.violations[promise] = self.violations.get(promise, 0) + len(violations)
        self.told += [f"{promise} [{where}]: {text}" for text in violations[:3]][: TOLD_MAX - len(self.told)]

    def control(self, promise: str, name: str, *, caught: bool) -> None:
        """Note a deliberate breakage, and whether a check noticed it."""
        self.controls.setdefault(promise, {})[name] = caught

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Result:
        return cls(**found)


def table(results: Iterable[Result], order: Iterable[str], *, whole: bool = False) -> list[Row]:
    """Give a row for each promise, in ``order``; what is not named there comes last.

    Of the ``whole`` programme also for one that nothing has put to the test, which is then seen not to hold.
    """
    rows: dict[str, Row] = {name: Row(name) for name in order}
    caught: dict[str, list[bool]] = {}
    for result in results:
        for name, tries in result.tries.items():
            row = rows.setdefault(name, Row(name))
            row.tries += tries
            row.faults += result.faults.get(name, 0)
            row.violations += result.violations.get(name, 0)

        for name, controls in result.controls.items():
            rows.setdefault(name, Row(name))
            caught.setdefault(name, []).extend(controls.values())

    for row in rows.values():
        row.control_caught = bool(caught.get(row.promise)) and all(caught[row.promise])

    return [row for row in rows.values() if whole or row.tries or row.promise in caught]


def holds(rows: Iterable[Row]) -> bool:
    """Whether every promise was put to the test, none was broken, and every control was caught."""
    rows = list(rows)
    return bool(rows) and all(row.tries > 0 and row.violations == 0 and row.control_caught for row in rows)


def render(rows: Iterable[Row], *, whole: bool = True) -> str:
    """Give the table as text. Where not the whole programme was run, a control may not have been tried."""
    heads = ("promise", "tries", "faults", "violations", "control caught")
    lines = [heads]
    for row in rows:
        caught = "yes" if row.control_caught else "NO" if whole else "-"
        lines.append((row.promise, f"{row.tries:,}", f"{row.faults:,}", f"{row.violations:,}", caught))

    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    text = []
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append("  ".join(cells))

    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def write(rows: Iterable[Row], path: Path) -> None:
    """Write the rows as JSON, under the names of the table's heads."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
