"""How the line of a soak is judged: a leak of some bytes a plan is told, steps that have an end are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from tests.reliability.rows import Result
from tests.reliability.soak import KINDS, MEMORY, RATE, Sample, Soaked, judge

MIB = 1 << 20
SECONDS = 1800.0


def soaked(level: Callable[[float], float]) -> Soaked:
    """Make a soak whose memory jitters about a level, and falls for a moment each minute, as malloc gives back."""
    random = Random(1)
    samples = []
    for number in range(400):
        at = number * SECONDS / 400
        memory = 50 * MIB + level(at) + random.gauss(0.0, 40_000.0) - MIB * (number % 13 == 0)
        samples.append(Sample(at, round(memory), 5 * MIB, 4 * MIB))

    return Soaked(samples, Counter({kind: round(SECONDS * RATE / len(set(KINDS))) for kind in set(KINDS)}))


def told(found: Soaked) -> list[str]:
    judge(found, result := Result(), "here")
    return [text for text in result.told if text.startswith(MEMORY)]


@pytest.mark.parametrize("at", [200.0, 700.0, 900.0, 1200.0, 1700.0])
def test_a_step_that_has_an_end_is_none(at: float) -> None:
    assert told(soaked(lambda now: MIB * (now >= at))) == []


def test_warming_up_is_none() -> None:
    assert told(soaked(lambda now: min(now, 600.0) / 600.0 * 8 * MIB)) == []


@pytest.mark.parametrize("step", [None, 700.0, 900.0, 1200.0, 1700.0])
def test_a_hundred_bytes_a_plan_are_told(step: float | None) -> None:
    (said,) = told(soaked(lambda now: MIB * (step is not None and now >= step)).seeping(100))
    assert "an hour" in said


def test_what_rises_by_steps_again_and_again_is_told() -> None:
    said = told(soaked(lambda now: now // 600 * 2.5 * MIB))
    assert said
    assert "memory rose by" in said[0]


def test_what_rises_and_falls_back_is_none() -> None:
    assert told(soaked(lambda now: 6 * MIB * (900 < now < 1100))) == []
