"""What must hold of a plan, however often its server was killed: of its history, and of what its tools really did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm.model import Effect, Event, Retry, StepAdded, StepResolved, StepStarted, StepSucceeded


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the ledger: a call began or ended."""

    what: str
    tool: str
    key: str
    attempt: int
    pid: int


def read_ledger(path: Path) -> list[Line]:
    """Read the ledger; a line that is just being written is not one yet."""
    text = path.read_text() if path.exists() else ""
    return [Line(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def check(events: Sequence[Event], ledger: Sequence[Line]) -> None:
    """Every sequence once and in order; each success was one call that ended once; nothing ran again behind one's back."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    plan_id = events[0].plan_id
    added = [event.fact.step for event in events if isinstance(event.fact, StepAdded)]
    effects = {step.id: step.effect for step in added if step is not None}
    assert {line.key for line in ledger} <= {f"{plan_id}/{step_id}" for step_id in effects}

    for step_id, effect in effects.items():
        own = [event for event in events if event.step_id == step_id]
        _check_step(own, effect, [line for line in ledger if line.key == f"{plan_id}/{step_id}"])


def _check_step(events: Sequence[Event], effect: Effect, ledger: Sequence[Line]) -> None:
    started = [event.attempt for event in events if isinstance(event.fact, StepStarted)]
    begun = [line.attempt for line in ledger if line.what == "begin"]
    ended = Counter(line.attempt for line in ledger if line.what == "end")
    retried = sum(isinstance(event.fact, StepResolved) and _is_retry(event.fact) for event in events)
    succeeded = [event for event in events if isinstance(event.fact, StepSucceeded)]
    where = f"{events[0].step_id}: started {started}, begun {begun}, ended {dict(ended)}"
    assert started == list(range(1, len(started) + 1)), where
    assert len(succeeded) <= 1, where

    # A READ_ONLY call may begin before its intent is durable; if that is lost, the next call has the same number.
    if effect is not Effect.READ_ONLY:
        assert len(set(begun)) == len(begun), where
        assert set(begun) <= set(started), where
        assert set(ended.values()) <= {1}, where

    if effect is Effect.NON_IDEMPOTENT:
        assert len(begun) <= 1 + retried, where

    if succeeded and not any(isinstance(event.fact, StepResolved) for event in events):
        assert ended[succeeded[0].attempt], where
        assert begun[-1] == max(begun) == succeeded[0].attempt, where


def _is_retry(fact: StepResolved) -> bool:
    return fact.decision is not None and isinstance(fact.decision.kind, Retry)
