"""What is told of a plan that no planner answers."""

from __future__ import annotations

import pytest

from autoglm.fold import PlanFold, StepFold
from autoglm.model import Json, Step, StepState, ToolResult
from autoglm_server.scheduler import answers


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({"result": "THE ANSWER IS 42!"}, "THE ANSWER IS 42!"),
        ({"result": [1, {"a": 2}]}, '[1,{"a":2}]'),
        ({"result": None}, "null"),
        ({"result": "6", "what": "words"}, '{"result":"6","what":"words"}'),
        ({"value": "6"}, '{"value":"6"}'),
        (372, "372"),
    ],
)
def test_a_result_that_stands_alone_is_told_bare(output: Json, told: str) -> None:
    plan = PlanFold("p")
    plan.steps["join"] = StepFold(Step(id="join"), state=StepState.SUCCEEDED, result=ToolResult(output))

    assert answers.lines(plan) == f"join: {told}"
