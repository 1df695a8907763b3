"""Sub-plans as a screen shows them: read from the progress of the step that runs one, or from the plans themselves. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from autoglm._dataclasses import dataclass
from autoglm.errors import NotFoundError
from autoglm.model import Json, Plan, Step, StepState

DEPTH_MAX: Final = 10
"""How deep sub-plans are shown."""
PLANS_MAX: Final = 50
"""How many sub-plans of one plan are fetched to be shown."""


@dataclass(frozen=True, slots=True)
class NestedStep:
    """A step of a sub-plan, as progress tells it."""

    id: str
    name: str
    tool: str
    state: StepState
    message: str
    fraction: float
    steps: tuple[NestedStep, ...]


def read(data: Json, *, depth: int = 0) -> tuple[NestedStep, ...]:
    """Give the steps that the data of a step's progress tells of; none, if it is another tool's data."""
    rows = data.get("steps") if isinstance(data, dict) and isinstance(data.get("plan_id"), str) else None
    if not isinstance(rows, list) or depth >= DEPTH_MAX:
        return ()

    return tuple(_step(row, depth) for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str))


def _step(row: dict[str, Json], depth: int) -> NestedStep:
    fraction = row.get("fraction")
    return NestedStep(
        id=row["id"],
        name=_text(row, "title") or row["id"],
        tool=_text(row, "tool"),
        state=StepState.__members__.get(_text(row, "state"), StepState.UNSPECIFIED),
        message=_text(row, "message"),
        fraction=float(fraction) if isinstance(fraction, int | float) else 0.0,
        steps=read(row.get("nested"), depth=depth + 1),
    )


def _text(row: Mapping[str, Json], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def flat(steps: tuple[NestedStep, ...], depth: int = 0) -> Iterator[tuple[int, NestedStep]]:
    """Give each step with how deep it is, those of a sub-plan after the step that runs it."""
    for step in steps:
        yield depth, step
        yield from flat(step.steps, depth + 1)


def child_id(step: Step) -> str:
    """Give the plan that a step ran as its own; empty if there is none."""
    return step.tool_calls[-1].child_plan_id if step.tool_calls else ""


def fetch(plan: Plan, get: Callable[[str], Plan]) -> dict[str, Plan]:
    """Get the sub-plans of a plan, and theirs, by their ids; what is gone is left out, and what is beyond the bounds."""
    found: dict[str, Plan] = {}
    level = [plan]
    for _ in range(DEPTH_MAX):
        wanted = [each for one in level for step in one.steps if (each := child_id(step))]
        level = []
        for plan_id in wanted[: PLANS_MAX - len(found)]:
            with suppress(NotFoundError):
                found[plan_id] = get(plan_id)
                level.append(found[plan_id])

        if not level:
            break

    return found
