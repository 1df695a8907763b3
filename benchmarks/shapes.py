"""The work: plans as graphs of steps, each with how long it takes and what it waits for. The same for product and floor."""

from __future__ import annotations

import random
from typing import TypeAlias

Shape: TypeAlias = dict[str, tuple[float, tuple[str, ...]]]
"""Seconds and parents, by step; a step stands behind its parents."""


def chain(steps: int) -> Shape:
    return {f"s{i}": (0.0, (f"s{i - 1}",) if i else ()) for i in range(steps)}


def fan(width: int, seconds: float = 0.05) -> Shape:
    middle: Shape = {f"n{i}": (seconds, ("root",)) for i in range(width)}
    return {"root": (0.0, ()), **middle, "join": (0.0, tuple(middle))}


def two_chains() -> Shape:
    """Two chains of ten, one 90, 10, 90 … ms, the other 10, 90, 10 …: whoever works in waves takes 900 ms, not 500."""
    shape: Shape = {}

    for i in range(10):
        shape[f"a{i}"] = (0.09 if i % 2 == 0 else 0.01, (f"a{i - 1}",) if i else ())
        shape[f"b{i}"] = (0.01 if i % 2 == 0 else 0.09, (f"b{i - 1}",) if i else ())

    return shape


def random_layers(steps: int = 100) -> Shape:
    """Steps of 5 to 60 ms, each but the first five behind up to three of the 25 before it; always the same."""
    draw = random.Random(7)
    shape: Shape = {}

    for i in range(steps):
        seconds = draw.uniform(0.005, 0.06)
        parents = {f"t{draw.randrange(max(0, i - 25), i)}" for _ in range(draw.randint(1, 3))} if i > 4 else set()
        shape[f"t{i}"] = (seconds, tuple(sorted(parents)))

    return shape


def critical_path(shape: Shape) -> float:
    """Seconds that nobody can be quicker than."""
    ends: dict[str, float] = {}

    for step, (seconds, parents) in shape.items():
        ends[step] = seconds + max((ends[parent] for parent in parents), default=0.0)

    return max(ends.values())
