"""The answer of a plan that no planner answers: given steps, and what a failed plan did achieve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.model import Json, StepState
from autoglm.wire import canonical_json

if TYPE_CHECKING:
    from autoglm.fold import PlanFold, StepFold

_LINE_CHARS = 200
_SUCCEEDED = StepState.SUCCEEDED


def output_of_leaves(plan: PlanFold, *, bytes_max: int) -> dict[str, Json] | None:
    """Give {step: output} of the steps whose output no other result stands for, or None if it is more than ``bytes_max``.

    Too much is noticed before all of it has been looked at; the steps have their outputs too.
    """
    outputs: dict[str, Json] = {}
    size = 2
    for step_id, step in plan.steps.items():
        if step.state is not _SUCCEEDED or _stands_for_more(plan, step):
            continue

        output = step.result.output if step.result is not None else None
        size += len(canonical_json({step_id: output}).encode())
        if size > bytes_max:
            return None

        outputs[step_id] = output

    return outputs


def lines(plan: PlanFold, *, lines_max: int = 100) -> str:
    """Give a line for each step that nothing depends on, each that failed, and each whose output came to nothing."""
    told = [item for item in plan.steps.items() if _is_told(plan, item[1])]
    more = [f"… and {len(told) - lines_max} more"] if len(told) > lines_max else []
    return "\n".join([_line(step_id, step) for step_id, step in told[:lines_max]] + more)


def _is_told(plan: PlanFold, step: StepFold) -> bool:
    if step.state is _SUCCEEDED:
        return not _stands_for_more(plan, step)

    return not step.dependents or step.state is StepState.FAILED


def _stands_for_more(plan: PlanFold, step: StepFold) -> bool:
    """Whether a step that succeeded has used the output, so that this one's result stands in that one's."""
    steps = plan.steps
    for dependent in step.dependents:  # noqa: SIM110 - of every step of a plan that ends; a generator takes three times as long
        if steps[dependent].state is _SUCCEEDED:
            return True

    return False


def _line(step_id: str, step: StepFold) -> str:
    name = step.added.title or step_id
    match step.state:
        case StepState.SUCCEEDED:
            return f"{name}: {_short(step.result.output if step.result is not None else None)}"
        case StepState.FAILED:
            return f"{name}: failed, {step.failure.message if step.failure else 'for no known reason'}"
        case StepState.SKIPPED:
            return f"{name}: skipped, because {step.skipped_by} has no output"
        case _:
            return f"{name}: {step.state.name.lower()}"


def _short(output: Json) -> str:
    value = output["result"] if isinstance(output, dict) and output.keys() == {"result"} else output
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _LINE_CHARS else f"{text[: _LINE_CHARS - 1]}…"
