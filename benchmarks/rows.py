"""One result: a figure, the limit that was taken in the same run, and what their ratio should be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row is held to: its ratio, or where there is no sensible limit its value, from above or from below."""

    of: Literal["ratio", "value"]
    sense: Literal["<=", ">="]
    bound: float

    def holds(self, row: Row) -> bool:
        figure = row.ratio if self.of == "ratio" else row.value
        return figure <= self.bound if self.sense == "<=" else figure >= self.bound

    def told(self, row: Row) -> str:
        return f"{self.sense} {self.bound:g}" + (f" {row.unit}" if self.of == "value" else "")


@dataclass(frozen=True, slots=True)
class Aim:
    """A row's first bar and its goal."""

    first_bar: Bar
    goal: Bar


def at_least(first_bar: float, goal: float) -> Aim:
    """Aim at a part of the limit: for rates."""
    return Aim(Bar("ratio", ">=", first_bar), Bar("ratio", ">=", goal))


def at_most(first_bar: float, goal: float) -> Aim:
    """Aim at a multiple of the limit: for times and sizes."""
    return Aim(Bar("ratio", "<=", first_bar), Bar("ratio", "<=", goal))


def below(first_bar: float, goal: float) -> Aim:
    """Aim at a value, whatever the limit."""
    return Aim(Bar("value", "<=", first_bar), Bar("value", "<=", goal))


@dataclass(frozen=True, slots=True)
class Row:
    """``values`` and ``limits`` are of the rounds, in pairs: round i measured both, one right after the other."""

    name: str
    unit: str
    values: Sequence[float]
    limits: Sequence[float]
    limit_is: str
    """What the limit is, in a few words."""
    aim: Aim | None = None
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    """Further figures, for the JSON alone."""

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def limit(self) -> float:
        return statistics.median(self.limits)

    @property
    def ratios(self) -> list[float]:
        return [value / limit for value, limit in zip(self.values, self.limits, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: what moves the whole machine for a while does not move it."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> str | None:
        """The higher of the bars that it meets."""
        if self.aim is None:
            return None

        return "goal" if self.aim.goal.holds(self) else "first bar" if self.aim.first_bar.holds(self) else "neither"

    def to_object(self) -> dict[str, Any]:
        def span(figures: Sequence[float]) -> list[float]:
            return [rounded(min(figures)), rounded(max(figures))]

        return {
            "name": self.name,
            "unit": self.unit,
            "value": rounded(self.value),
            "limit": rounded(self.limit),
            "ratio": rounded(self.ratio),
            "first_bar": self.aim.first_bar.told(self) if self.aim else None,
            "goal": self.aim.goal.told(self) if self.aim else None,
            "met": self.met,
            "range": {"value": span(self.values), "limit": span(self.limits), "ratio": span(self.ratios)},
            "n": len(self.values),
            "limit_is": self.limit_is,
            "note": self.note,
            "details": self.details,
        }


def rounded(figure: float) -> float:
    """Keep four digits: there is never more in a measurement here."""
    return float(f"{figure:.4g}")


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    quick: bool = False
    only: tuple[str, ...] = ()
    """Rows, by the beginning of their names; empty is all."""
    rounds: int = 5
    peers_dir: str = ""
    """Where the peers' environments are kept; empty is the temporary folder."""
    data_dir: str | None = None
    """Where journals are written; None is the temporary folder."""
    missing: dict[str, str] = field(default_factory=dict)
    """Told by what is measured: what gave no rows here, and why."""

    def wanted(self, name: str) -> bool:
        return not self.only or any(
            name == each or name.startswith(f"{each}.") or each.startswith(f"{name}.") for each in self.only
        )
