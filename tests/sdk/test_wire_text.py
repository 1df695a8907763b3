"""What people write: plan files and arguments of the command line, read with every fault at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm import _text, model, wire
from autoglm._json import FAULTS_MAX
from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, Event, PlanOptions, RetryPolicy, StepDraft
from tests import strategies

PLAN = """{
  "steps": [
    {"id": "sum", "tool": "math.calculate", "arguments": {"expression": "1 + 2"}},
    {"id": "far", "tool": "units.convert", "arguments": {"value": "${sum.value}", "n": 3.0},
     "depends_on": ["sum"], "timeout": "1.5s", "retryPolicy": {"maxAttempts": "3", "backoff_multiplier": 2}}
  ],
  "options": {"max_steps": 4, "timeout": "600s", "onUnknownOutcome": "UNKNOWN_OUTCOME_ACTION_FAIL",
              "budget": {"maxTokens": 10}},
  "labels": {"team": "a"},
  "context": [{"planId": "p0"}, {"message": {"role": "user", "text": "hi"}}]
}"""


def refused(cls: type, source: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        wire.from_json(cls, source)

    return {each.field: each.description for each in caught.value.violations}


def test_a_plan_file() -> None:
    assert wire.from_json(CreatePlanRequest, PLAN) == CreatePlanRequest(
        steps=(
            StepDraft("sum", tool="math.calculate", arguments={"expression": "1 + 2"}),
            StepDraft(
                "far",
                tool="units.convert",
                arguments={"value": "${sum.value}", "n": 3},
                depends_on=("sum",),
                timeout=timedelta(seconds=1.5),
                retry_policy=RetryPolicy(3, backoff_multiplier=2.0),
            ),
        ),
        options=PlanOptions(
            max_steps=4,
            timeout=timedelta(minutes=10),
            on_unknown_outcome=model.UnknownOutcomeAction.FAIL,
            budget=model.Budget(10),
        ),
        labels={"team": "a"},
        context=(model.ContextItem("p0"), model.ContextItem(model.ContextMessage("user", "hi"))),
    )


def test_every_fault_is_told_at_once_by_its_place() -> None:
    found = refused(
        CreatePlanRequest,
        {
            "steps": [
                {"id": 1, "tools": "x"},
                "sum",
                {"id": "b", "dependsOn": [3, "a"], "timeout": "soon", "arguments": [1], "requires_approval": "yes"},
            ],
            "options": {"maxSteps": 1 << 31, "max_rounds": 1.5, "onUnknownOutcome": "fail", "budget": []},
            "labels": {"k": 3},
            "reqest": "x",
            "nothing_like_it": 1,
        },
    )
    assert list(found) == [
        "steps[0].id",
        "steps[0].tools",
        "steps[1]",
        "steps[2].depends_on[0]",
        "steps[2].timeout",
        "steps[2].arguments",
        "steps[2].requires_approval",
        "options.max_steps",
        "options.max_rounds",
        "options.on_unknown_outcome",
        "options.budget",
        "labels.k",
        "reqest",
        "nothing_like_it",
    ]
    assert found["steps[0].tools"] == "no such field; did you mean tool?"
    assert found["steps[2].timeout"] == "'soon' is not a duration; give one in seconds, as \"1.5s\""
    assert found["options.on_unknown_outcome"].endswith("did you mean UNKNOWN_OUTCOME_ACTION_FAIL?")
    assert found["options.max_steps"] == "2147483648 does not fit in 32 bits"
    assert found["reqest"] == "no such field; did you mean request?"
    assert found["nothing_like_it"] == (
        "no such field; there are request, steps, options, labels, request_id, context_id, context, validate_only"
    )


def test_what_was_meant_is_looked_for_no_oftener_than_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def look(word: str, _: object) -> str:
        looked.append(word)
        return ""

    monkeypatch.setattr(_text, "_nearest", look)
    found = refused(CreatePlanRequest, {f"field_{number}": 1 for number in range(1000)})
    assert len(found) == len(looked) == FAULTS_MAX


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{", "not JSON"),
        ("[]", r"\[\] is not an object"),
        ("null", "null is not an object"),
        ('{"request": 1, "request": 2}', "stands twice"),
        (b"\xff", "not UTF-8"),
        ("[" * 70, "deep|not JSON"),
    ],
)
def test_what_is_no_request_at_all(source: str | bytes, told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told) as caught:
        wire.from_json(CreatePlanRequest, source)

    assert caught.value.reason == "INVALID_REQUEST"
    assert [each.field for each in caught.value.violations] == ["$"]


@pytest.mark.parametrize(
    ("cls", "source", "field"),
    [
        (CreatePlanRequest, {"requestId": "a", "request_id": "a"}, "request_id"),
        (model.ContextItem, {"plan_id": "p", "message": {}}, "message"),
        (Event, {"stepFailed": {}, "stepSkipped": {}}, "step_skipped"),
        (StepDraft, {"arguments": {"a": float("nan")}}, "arguments.a"),
        (StepDraft, {"arguments": {"a": "\ud800"}}, "arguments.a"),
        (StepDraft, {"title": "\udfff"}, "title"),
        (StepDraft, {"depends_on": "sum"}, "depends_on"),
        (StepDraft, {"timeout": "999999999999s"}, "timeout"),
        (StepDraft, {"requires_approval": 1}, "requires_approval"),
        (RetryPolicy, {"backoff_multiplier": "NaN"}, "backoff_multiplier"),
        (RetryPolicy, {"backoff_multiplier": 10**400}, "backoff_multiplier"),
        (RetryPolicy, {"backoff_multiplier": True}, "backoff_multiplier"),
        (RetryPolicy, {"max_attempts": True}, "max_attempts"),
        (RetryPolicy, {"max_attempts": "three"}, "max_attempts"),
        (model.Step, {"effect": 9}, "effect"),
        (model.Step, {"effect": []}, "effect"),
        (model.Step, {"start_time": "2026-01-01"}, "start_time"),
        (model.Step, {"start_time": "2026-02-30T00:00:00Z"}, "start_time"),
        (model.Step, {"start_time": "0001-01-01T00:00:00+10:00"}, "start_time"),
        (model.Plan, {"labels": [1]}, "labels"),
        (model.Plan, {"steps": None, "rounds": {}}, "rounds"),
    ],
)
def test_faults(cls: type, source: dict[str, Any], field: str) -> None:
    assert list(refused(cls, source)) == [field]


@pytest.mark.parametrize(
    ("cls", "source", "value"),
    [
        (
            model.Step,
            {"effect": 1, "state": "STEP_STATE_RUNNING"},
            model.Step(effect=model.Effect(1), state=model.StepState.RUNNING),
        ),
        (
            model.Step,
            {"start_time": "2026-01-01T02:00:00.123456789+02:00"},
            model.Step(start_time=datetime(2026, 1, 1, 0, 0, 0, 123456, UTC)),
        ),
        (
            StepDraft,
            {"timeout": "-0.25s", "title": None, "arguments": None},
            StepDraft(timeout=timedelta(seconds=-0.25)),
        ),
        (RetryPolicy, {"max_attempts": 3.0, "backoff_multiplier": "1.5"}, RetryPolicy(3, backoff_multiplier=1.5)),
        (model.ToolResult, {"output": {"n": 2**53, "x": 1.0}}, model.ToolResult({"n": "9007199254740992", "x": 1})),
        (model.Decision, {"approve": {}}, model.Decision(model.Approve())),
        (model.Usage, {"inputTokens": "12", "output_tokens": 3}, model.Usage(12, 3)),
        (Event, {}, Event()),
    ],
)
def test_spellings(cls: type, source: dict[str, Any], value: Any) -> None:
    assert wire.from_json(cls, source) == value


def test_an_enum_is_told_what_there_is() -> None:
    assert "did you mean EFFECT_READ_ONLY?" in refused(model.Step, {"effect": "read_only"})["effect"]
    assert "EFFECT_IDEMPOTENT, EFFECT_NON_IDEMPOTENT" in refused(model.Step, {"effect": 9})["effect"]


def test_the_number_of_faults_is_bounded() -> None:
    assert len(refused(CreatePlanRequest, {"steps": [3] * 1_000})) == 50


def test_long_values_are_shortened() -> None:
    [told] = refused(StepDraft, {"timeout": "x" * 10_000}).values()
    assert len(told) < 150


@given(st.dictionaries(st.sampled_from(["steps", "options", "labels", "context", "id", "x"]), strategies.json_values()))
@settings(deadline=None)
def test_any_json_is_read_or_refused(source: dict[str, Any]) -> None:
    try:
        found = wire.from_json(CreatePlanRequest, source)
    except InvalidRequestError:
        return

    assert wire.decode(CreatePlanRequest, wire.encode(found)) == found


@given(strategies.of(CreatePlanRequest), st.data())
@settings(deadline=None)
def test_one_wrong_key_anywhere_is_found(request: CreatePlanRequest, data: st.DataObject) -> None:
    source = wire.parse_json(wire.to_json(request))
    where = data.draw(st.sampled_from([source, *source.get("steps", [])]))
    where["wrong"] = 1
    [field] = refused(CreatePlanRequest, source)
    assert field.split(".")[-1] == "wrong"
