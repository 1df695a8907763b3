"""The state machines of the test suite, run longer: the real code against a simple model of each thing that has state.

Each machine has its controls beside it, in the same file: the product is broken, and the machine must find that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test

from tests.reliability.rows import Result
from tests.server.journal import test_journal_model, test_watch_model
from tests.server.scheduler import test_approval_model, test_create_model, test_retention_model, test_scheduler_model

APPROVAL, CREATE, RETENTION = "model-approval", "model-create", "model-retention"
WATCH, JOURNAL, SCHEDULER = "model-watch", "model-journal", "model-scheduler"
MODEL_PROMISES: Final = (APPROVAL, CREATE, RETENTION, WATCH, JOURNAL, SCHEDULER)
STEPS: Final = 30
"""What happens in one history, at most."""
HUNT: Final = 300
"""Histories in which a breakage must be found."""


@dataclass(frozen=True, slots=True)
class Model:
    """A machine, and the file with its controls."""

    promise: str
    machine: type[RuleBasedStateMachine]
    file: ModuleType


MODELS: Final = (
    Model(APPROVAL, test_approval_model.ApprovalMachine, test_approval_model),
    Model(CREATE, test_create_model.CreateMachine, test_create_model),
    Model(RETENTION, test_retention_model.RetentionMachine, test_retention_model),
    Model(WATCH, test_watch_model.WatchMachine, test_watch_model),
    Model(JOURNAL, test_journal_model.JournalMachine, test_journal_model),
    Model(SCHEDULER, test_scheduler_model.SchedulerMachine, test_scheduler_model),
)


def models(seed: int, size: int) -> Result:
    """Run ``size`` histories of each machine, and look for each breakage."""
    logging.disable(logging.CRITICAL)
    result = Result()
    for model in MODELS:
        steps, told = _run(model.machine, seed, size)
        where = f"--only models --seed {seed} --size {size}"
        result.found(model.promise, tries=steps, faults=size, violations=[told] if told else [], where=where)
        result.count("histories against a model", size)
        for broken in model.file.BROKEN:
            result.control(model.promise, _words(broken), caught=_found(model.machine, seed, broken))

    return result


def _run(machine: type[RuleBasedStateMachine], seed: int, size: int) -> tuple[int, str]:
    """Give how many states were looked at, and what was wrong."""
    steps = 0

    class Counted(machine):  # type: ignore[misc,valid-type]
        @invariant()
        def count(self) -> None:
            nonlocal steps
            steps += 1

    how = settings(
        max_examples=size,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    try:
        run_state_machine_as_test(seeded(seed)(Counted), settings=how)
    except AssertionError as wrong:
        notes = " ".join(getattr(wrong, "__notes__", ()))
        return steps, f"{machine.__name__}: {wrong} {notes}"[:1500]

    return steps, ""


def _found(machine: type[RuleBasedStateMachine], seed: int, broken: Callable[[pytest.MonkeyPatch], None]) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        return bool(_hunt(machine, seed))


def _hunt(machine: type[RuleBasedStateMachine], seed: int) -> str:
    class Broken(machine):  # type: ignore[misc,valid-type]
        """Another class, so that the seed is not put on the machine itself."""

    how = settings(
        max_examples=HUNT,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    try:
        run_state_machine_as_test(seeded(seed)(Broken), settings=how)
    except AssertionError as wrong:
        return str(wrong) or "found"

    return ""


def _words(broken: Callable[[pytest.MonkeyPatch], None]) -> str:
    return broken.__name__.replace("_", " ")
