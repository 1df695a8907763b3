"""A plan in a nutshell, as the progress of the step that runs it: what each of its steps does, within bounds."""

from __future__ import annotations

import re
from typing import Final

from autoglm.fold import PlanFold, StepFold
from autoglm.model import Event, JsonObject, StepProgressed, StepState, ToolProgress, WaitingReason

ROWS_MAX: Final = 20
"""How many steps of a sub-plan are told; of a longer one, those that matter now."""
NESTED_ROWS_MAX: Final = 60
"""How many steps in all, with those of the sub-plans below."""
_NAME_MAX: Final = 80
_MESSAGE_MAX: Final = 200

_WORD = re.compile(r"(?<!^)(?=[A-Z])")
# What is looked for first; what has ended comes last.
_ORDER: Final = (
    StepState.WAITING,
    StepState.RUNNING,
    StepState.FAILED,
    StepState.CANCELLED,
    StepState.PENDING,
    StepState.SKIPPED,
    StepState.SUCCEEDED,
)
_WAITS: Final = {
    WaitingReason.APPROVAL: "approval",
    WaitingReason.OUTCOME_UNKNOWN: "a decision, because it may have taken effect",
    WaitingReason.TOOL_CHANGED: "a decision, because its tool has changed",
    WaitingReason.INPUT: "input",
}


class Nested:
    """Folds the events of a sub-plan; :meth:`progress` is its state at that moment, whole each time."""

    def __init__(self, plan_id: str) -> None:
        """Start with nothing known but the id."""
        self.fold = PlanFold(plan_id)
        self._live: dict[str, StepProgressed] = {}
        self._last: Event | None = None

    def apply(self, event: Event) -> None:
        """Take in an event of the sub-plan, durable or not."""
        if event.ephemeral:
            if isinstance(event.fact, StepProgressed):
                self._live[event.step_id] = event.fact

            return

        self.fold.apply(event)
        self._last = event
        self._live.pop(event.step_id, None)

    def progress(self) -> ToolProgress:
        """Give the state as progress: a line for people, and the same for programs."""
        counts = self.fold.step_counts
        ended = counts.succeeded + counts.failed + counts.skipped + counts.cancelled
        return ToolProgress(ended / counts.total if counts.total else 0.0, self._line(), self._data())

    def _line(self) -> str:
        for step_id, step in self.fold.steps.items():
            if step.waiting is not None:
                return (
                    f"waiting for {_WAITS.get(step.waiting.reason, 'a person')}: step {step_id} of plan {self.fold.id}"
                )

        last = self._last
        if last is None or not last.step_id or last.step_id not in self.fold.steps:
            return self.fold.state.name.lower()

        step = self.fold.steps[last.step_id]
        return f"{step.added.title or last.step_id}: {step.state.name.lower()}"

    def _data(self) -> JsonObject:
        rows = [self._row(step_id, step) for step_id, step in self._chosen()]
        room = NESTED_ROWS_MAX - len(rows)
        for row in rows:
            nested = row.get("nested")
            if nested is not None and (room := room - count_rows(nested)) < 0:
                del row["nested"]

        data: JsonObject = {"plan_id": self.fold.id, "state": self.fold.state.name, "steps": rows}
        if len(rows) < len(self.fold.steps):
            data["more_steps"] = len(self.fold.steps) - len(rows)

        if self._last is not None:
            kind = _WORD.sub("_", type(self._last.fact).__name__).lower()
            data["event"] = {"sequence": self._last.sequence, "kind": kind}
            if self._last.step_id:
                data["event"]["step_id"] = self._last.step_id

        return data

    def _chosen(self) -> list[tuple[str, StepFold]]:
        steps = self.fold.steps
        if len(steps) <= ROWS_MAX:
            return list(steps.items())

        ranked = sorted(steps, key=lambda step_id: _ORDER.index(steps[step_id].state))
        kept = set(ranked[:ROWS_MAX])
        return [item for item in steps.items() if item[0] in kept]

    def _row(self, step_id: str, step: StepFold) -> JsonObject:
        row: JsonObject = {"id": step_id, "tool": step.added.tool, "state": step.state.name}
        if step.added.title:
            row["title"] = step.added.title[:_NAME_MAX]

        if step.child_plan_id:
            row["plan_id"] = step.child_plan_id

        if step.failure is not None:
            row["message"] = f"{step.failure.reason}: {step.failure.message}"[:_MESSAGE_MAX]

        live = self._live.get(step_id)
        if live is not None:
            row["fraction"] = live.fraction
            row["message"] = live.message[:_MESSAGE_MAX]
            if step.child_plan_id and isinstance(live.data, dict) and live.data.get("plan_id") == step.child_plan_id:
                row["nested"] = live.data

        return row


def count_rows(data: JsonObject) -> int:
    """Count the steps that are told of a sub-plan, with those of the sub-plans below."""
    rows = data.get("steps", ())
    return sum(1 + (count_rows(row["nested"]) if "nested" in row else 0) for row in rows)
