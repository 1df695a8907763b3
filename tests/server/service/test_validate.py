"""Every bound of every request, at the bound and one beyond."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from autoglm import wire
from autoglm.model import Violation
from autoglm.v1 import plan_pb2, tool_service_pb2
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service import validate
from autoglm_server.service.bounds import VIOLATIONS_MAX, Checks, sound
from autoglm_server.settings import LimitSettings

LIMITS = LimitSettings()


def reasons(violations: list[Violation]) -> dict[str, str]:
    """Field to reason; every violation must say something."""
    assert all(violation.description and violation.reason for violation in violations)
    return {violation.field: violation.reason for violation in violations}


def create(**fields: Any) -> dict[str, str]:
    """Check a request that is sound but for ``fields``, given as JSON."""
    request = ParseDict({"request": "r"} | fields, pb.CreatePlanRequest())
    found = reasons(validate.create_plan(request, LIMITS))
    assert not (found and glanced(request, LIMITS)), "what is at fault would not be looked at"
    return found


def glanced(request: pb.CreatePlanRequest, limits: LimitSettings) -> bool:
    """Whether a glance at a request is enough to pass it; what cannot be read cannot be passed."""
    try:
        value = wire.from_message(request)
    except wire.WireError:
        return False

    return validate.plainly_sound(value, limits, request.ByteSize())


def step(**fields: Any) -> dict[str, str]:
    """Check a request with one step, sound but for ``fields``."""
    return create(steps=[{"id": "a", "tool": "t"} | fields])


def nested(depth: int) -> Any:
    """Give an object that is ``depth`` deep."""
    value: Any = {}

    for _ in range(depth - 1):
        value = {"a": value}

    return value


def test_a_sound_request_passes() -> None:
    assert create() == {}
    assert step() == {}
    assert create(request="", steps=[{"id": "a", "tool": "t"}]) == {}


PLAIN: list[dict[str, Any]] = [
    {"request": "r", "requestId": "~" * 128, "contextId": "c" * 128},
    {"steps": [{"id": "a", "tool": "t", "title": "t" * 256, "arguments": {"n": 1, "t": "x", "k": None, "b": True}}]},
    {"steps": [{"id": "a", "tool": "t", "requiresApproval": True}, {"id": "b", "tool": "t", "dependsOn": ["a"]}]},
]
LOOKED_AT: list[dict[str, Any]] = [
    {"request": "r", "options": {"maxSteps": 1}},
    {"request": "r", "labels": {"k": "v"}},
    {"request": "r", "context": [{"planId": "p"}]},
    {"steps": [{"id": "a", "tool": "t", "timeout": "1s"}]},
    {"steps": [{"id": "a", "tool": "t", "retryPolicy": {"maxAttempts": 1}}]},
    {"steps": [{"id": "a", "tool": "t", "arguments": {"l": [1]}}]},
    {"steps": [{"id": "a", "tool": "t", "arguments": {"o": {"k": 1}}}]},
]


@pytest.mark.parametrize("asked", PLAIN + LOOKED_AT)
def test_most_requests_are_sound_at_a_glance(asked: dict[str, Any]) -> None:
    request = ParseDict(asked, pb.CreatePlanRequest())
    assert validate.create_plan(request, LIMITS) == []
    assert glanced(request, LIMITS) == (asked in PLAIN)


@pytest.mark.parametrize("limit", [{"json_depth": 1}, {"arguments": 64}, {"steps": 1}, {"request_text": 0}])
def test_a_glance_knows_the_limits(limit: dict[str, Any]) -> None:
    limits = LIMITS.model_copy(update=limit)
    for asked in PLAIN:
        request = ParseDict(asked, pb.CreatePlanRequest())
        assert not glanced(request, limits) or validate.create_plan(request, limits) == []

    assert not all(glanced(ParseDict(asked, pb.CreatePlanRequest()), limits) for asked in PLAIN)


OPTION = "options."
CREATE_BOUNDS: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("text", {"request": "x" * 65536}, {"request": "x" * 65537}, "request", "TOO_LONG"),
    ("text in UTF-8", {"request": "界" * 21845}, {"request": "界" * 21846}, "request", "TOO_LONG"),
    ("either", {"request": "r"}, {"request": " \n"}, "request", "REQUIRED"),
    ("request_id", {"requestId": "~" * 128}, {"requestId": "~" * 129}, "request_id", "TOO_LONG"),
    ("request_id", {"requestId": "a b~"}, {"requestId": "a\tb"}, "request_id", "MALFORMED"),
    ("request_id", {"requestId": "abc"}, {"requestId": "é"}, "request_id", "MALFORMED"),
    ("context_id", {"contextId": "c" * 128}, {"contextId": "c" * 129}, "context_id", "TOO_LONG"),
    (
        "labels",
        {"labels": {f"k{n}": "" for n in range(64)}},
        {"labels": {f"k{n}": "" for n in range(65)}},
        "labels",
        "TOO_MANY",
    ),
    ("key", {"labels": {"A-z0_9./-": ""}}, {"labels": {"a b": ""}}, 'labels["a b"]', "MALFORMED"),
    (
        "key",
        {"labels": {"k" * 63: ""}},
        {"labels": {"k" * 64: ""}},
        f'labels["{"k" * 64}"]',
        "MALFORMED",
    ),
    ("key", {"labels": {"k": ""}}, {"labels": {"": "v"}}, 'labels[""]', "REQUIRED"),
    ("value", {"labels": {"k": "v" * 256}}, {"labels": {"k": "v" * 257}}, 'labels["k"]', "TOO_LONG"),
    (
        "context",
        {"context": [{"planId": "p"}] * 256},
        {"context": [{"planId": "p"}] * 257},
        "context",
        "TOO_MANY",
    ),
    ("item", {"context": [{"planId": "p"}]}, {"context": [{}]}, "context[0]", "REQUIRED"),
    ("item", {"context": [{"planId": "p"}]}, {"context": [{"planId": "-p"}]}, "context[0].plan_id", "MALFORMED"),
    (
        "role",
        {"context": [{"message": {"role": "assistant"}}]},
        {"context": [{"message": {"role": "system"}}]},
        "context[0].message.role",
        "UNKNOWN_VALUE",
    ),
    (
        "message",
        {"context": [{"message": {"role": "user", "text": "x" * 65536}}]},
        {"context": [{"message": {"role": "user", "text": "x" * 65537}}]},
        "context[0].message.text",
        "TOO_LONG",
    ),
]
OPTION_BOUNDS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"maxSteps": 1}, {"maxSteps": 0}, "max_steps", "OUT_OF_RANGE"),
    ({"maxSteps": 1000}, {"maxSteps": 1001}, "max_steps", "OUT_OF_RANGE"),
    ({"maxRounds": 1}, {"maxRounds": 0}, "max_rounds", "OUT_OF_RANGE"),
    ({"maxRounds": 100}, {"maxRounds": 101}, "max_rounds", "OUT_OF_RANGE"),
    ({"maxParallelSteps": 1}, {"maxParallelSteps": 0}, "max_parallel_steps", "OUT_OF_RANGE"),
    ({"maxParallelSteps": 1000}, {"maxParallelSteps": -1}, "max_parallel_steps", "OUT_OF_RANGE"),
    ({"timeout": "0.000000001s"}, {"timeout": "0s"}, "timeout", "OUT_OF_RANGE"),
    ({"timeout": "2592000s"}, {"timeout": "2592000.001s"}, "timeout", "OUT_OF_RANGE"),
    ({"timeout": "1s"}, {"timeout": "-1s"}, "timeout", "OUT_OF_RANGE"),
    ({"waitingTimeout": "31622400s"}, {"waitingTimeout": "31622401s"}, "waiting_timeout", "OUT_OF_RANGE"),
    ({"planner": "p" * 64}, {"planner": "p" * 65}, "planner", "TOO_LONG"),
    ({"model": "m" * 256}, {"model": "m" * 257}, "model", "TOO_LONG"),
    ({"onUnknownOutcome": 2}, {"onUnknownOutcome": 3}, "on_unknown_outcome", "UNKNOWN_VALUE"),
    ({"allowedTools": ["*"] * 256}, {"allowedTools": ["*"] * 257}, "allowed_tools", "TOO_MANY"),
    ({"allowedTools": ["web.*"]}, {"allowedTools": ["web.[ab]"]}, "allowed_tools[0]", "MALFORMED"),
    ({"approvalTools": ["a?"]}, {"approvalTools": ["a?", ""]}, "approval_tools[1]", "REQUIRED"),
    ({"budget": {"maxTokens": 1}}, {"budget": {"maxTokens": 0}}, "budget.max_tokens", "OUT_OF_RANGE"),
    ({"budget": {"maxToolCalls": 1}}, {"budget": {"maxToolCalls": -1}}, "budget.max_tool_calls", "OUT_OF_RANGE"),
    ({"budget": {"maxRounds": 1}}, {"budget": {"maxRounds": 0}}, "budget.max_rounds", "OUT_OF_RANGE"),
    ({"budget": {"maxRounds": 1000}}, {"budget": {"maxRounds": -3}}, "budget.max_rounds", "OUT_OF_RANGE"),
    ({"budget": {"maxDuration": "0.001s"}}, {"budget": {"maxDuration": "0s"}}, "budget.max_duration", "OUT_OF_RANGE"),
    (
        {"budget": {"maxDuration": "31622400s"}},
        {"budget": {"maxDuration": "31622401s"}},
        "budget.max_duration",
        "OUT_OF_RANGE",
    ),
]
STEP_BOUNDS: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"id": "_" * 64}, {"id": "_" * 65}, "id", "MALFORMED"),
    ({"id": "a-b_9"}, {"id": "-a"}, "id", "MALFORMED"),
    ({"id": "a"}, {"id": "a.b"}, "id", "MALFORMED"),
    ({"id": "a"}, {"id": "a\n"}, "id", "MALFORMED"),
    ({"id": "a"}, {"id": ""}, "id", "REQUIRED"),
    ({"title": "界" * 256}, {"title": "界" * 257}, "title", "TOO_LONG"),
    ({"tool": "a.b-c_d"}, {"tool": ""}, "tool", "REQUIRED"),
    ({"tool": "t" * 128}, {"tool": "t" * 129}, "tool", "MALFORMED"),
    ({"tool": "t"}, {"tool": "t*"}, "tool", "MALFORMED"),
    ({"timeout": "86400s"}, {"timeout": "86400.5s"}, "timeout", "OUT_OF_RANGE"),
    ({"dependsOn": ["b"]}, {"dependsOn": ["b", "b c"]}, "depends_on[1]", "MALFORMED"),
    (
        {"retryPolicy": {"maxAttempts": 100}},
        {"retryPolicy": {"maxAttempts": 101}},
        "retry_policy.max_attempts",
        "OUT_OF_RANGE",
    ),
    (
        {"retryPolicy": {"initialBackoff": "0s"}},
        {"retryPolicy": {"initialBackoff": "-0.1s"}},
        "retry_policy.initial_backoff",
        "OUT_OF_RANGE",
    ),
    (
        {"retryPolicy": {"maxBackoff": "86400s"}},
        {"retryPolicy": {"maxBackoff": "86401s"}},
        "retry_policy.max_backoff",
        "OUT_OF_RANGE",
    ),
    (
        {"retryPolicy": {"backoffMultiplier": 1}},
        {"retryPolicy": {"backoffMultiplier": 0.5}},
        "retry_policy.backoff_multiplier",
        "OUT_OF_RANGE",
    ),
    (
        {"retryPolicy": {"backoffMultiplier": 100}},
        {"retryPolicy": {"backoffMultiplier": "NaN"}},
        "retry_policy.backoff_multiplier",
        "OUT_OF_RANGE",
    ),
    # {"k":"…"} is 8 characters around its text
    ({"arguments": {"k": "v" * (262144 - 30)}}, {"arguments": {"k": "v" * 262144}}, "arguments", "TOO_LONG"),
]


@pytest.mark.parametrize(("at", "beyond", "field", "reason"), [case[1:] for case in CREATE_BOUNDS])
def test_bounds_of_a_plan(at: dict[str, Any], beyond: dict[str, Any], field: str, reason: str) -> None:
    assert create(**at) == {}
    assert create(**beyond) == {field: reason}


@pytest.mark.parametrize(("at", "beyond", "field", "reason"), OPTION_BOUNDS)
def test_bounds_of_options(at: dict[str, Any], beyond: dict[str, Any], field: str, reason: str) -> None:
    assert create(options=at) == {}
    assert create(options=beyond) == {OPTION + field: reason}


@pytest.mark.parametrize(("at", "beyond", "field", "reason"), STEP_BOUNDS)
def test_bounds_of_a_step(at: dict[str, Any], beyond: dict[str, Any], field: str, reason: str) -> None:
    assert step(**at) == {}
    assert step(**beyond) == {f"steps[0].{field}": reason}


def test_an_argument_of_control_characters_is_measured_as_it_is_written() -> None:
    """One byte on the wire is six in JSON."""
    assert step(arguments={"k": "\x01" * 43000}) == {}
    assert step(arguments={"k": "\x01" * 44000}) == {"steps[0].arguments": "TOO_LONG"}


def test_steps_are_counted() -> None:
    drafts = [plan_pb2.StepDraft(id=f"s{n}", tool="t") for n in range(10_001)]

    assert validate.create_plan(pb.CreatePlanRequest(steps=drafts[:10_000]), LIMITS) == []
    assert reasons(validate.create_plan(pb.CreatePlanRequest(steps=drafts), LIMITS)) == {"steps": "TOO_MANY"}


def test_the_whole_request_is_bounded() -> None:
    request = ParseDict({"steps": [{"id": "a", "tool": "t"}], "request": "r"}, pb.CreatePlanRequest())
    limits = LimitSettings(request_bytes=1024)  # type: ignore[arg-type]
    request.request = "r" * (1024 - request.ByteSize())
    assert request.ByteSize() == 1024
    assert validate.create_plan(request, limits) == []

    request.request += "r"
    assert reasons(validate.create_plan(request, limits)) == {"": "TOO_LARGE"}


def test_json_is_bounded_in_depth() -> None:
    assert step(arguments=nested(32)) == {}
    assert step(arguments={"a": nested(32)}) == {"steps[0].arguments" + ".a" * 31: "TOO_DEEP"}
    assert step(arguments={"a": [[[nested(29)]]]}) != {}
    assert step(arguments={"a": [[[nested(28)]]]}) == {}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have(number: str) -> None:
    request = pb.CreatePlanRequest(steps=[plan_pb2.StepDraft(id="a", tool="t")])
    request.steps[0].arguments["list"] = [1, {"deep": 2}]
    request.steps[0].arguments.fields["list"].list_value.values[1].struct_value.fields["deep"].number_value = float(
        number
    )

    assert reasons(validate.create_plan(request, LIMITS)) == {"steps[0].arguments.list[1].deep": "NOT_FINITE"}


def test_a_duration_must_be_well_formed() -> None:
    request = pb.CreatePlanRequest(request="r", options=plan_pb2.PlanOptions(timeout=Duration(seconds=1, nanos=-1)))

    assert reasons(validate.create_plan(request, LIMITS)) == {"options.timeout": "MALFORMED"}


def test_all_violations_come_at_once() -> None:
    found = create(
        requestId="é",
        labels={"a b": "v" * 257},
        options={"maxSteps": 5000, "timeout": "-1s"},
        steps=[{"id": "", "tool": "", "arguments": nested(33)}, {"id": "ok", "tool": "t", "dependsOn": ["-"]}],
    )

    assert len(found) == 8
    assert {
        "request_id",
        'labels["a b"]',
        "options.max_steps",
        "options.timeout",
        "steps[0].id",
        "steps[0].tool",
    } <= set(found)


def test_very_many_violations_are_bounded() -> None:
    drafts = [plan_pb2.StepDraft(id="-", tool="") for _ in range(10_000)]

    assert len(validate.create_plan(pb.CreatePlanRequest(steps=drafts), LIMITS)) == VIOLATIONS_MAX


def test_a_run_is_checked_as_a_plan_is() -> None:
    request = pb.RunPlanRequest(request_id="é")

    assert reasons(validate.create_plan(request, LIMITS)) == {"request": "REQUIRED", "request_id": "MALFORMED"}


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
VALUES = st.recursive(
    st.one_of(
        NUMBERS.map(lambda number: Value(number_value=number)), st.just(Value(string_value="x")), st.just(Value())
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda items: Value(list_value=ListValue(values=items))),
        st.dictionaries(st.text("ab", max_size=2), inner, max_size=2).map(
            lambda fields: Value(struct_value=Struct(fields=fields))
        ),
    ),
)


@given(VALUES, st.integers(1, 4))
def test_what_is_not_sound_is_named(value: Value, depth: int) -> None:
    checks = Checks()
    checks._walk("v", value, depth)

    assert sound(value, depth) == (not checks.violations)


Check = Callable[[Any], list[Violation]]
WITH_LIMITS: dict[type[Message], Check] = {
    pb.ListPlansRequest: lambda request: validate.list_plans(request, LIMITS),
    pb.WatchPlansRequest: lambda request: validate.watch_plans(request, LIMITS),
    pb.ResolveStepRequest: lambda request: validate.resolve_step(request, LIMITS),
    tool_service_pb2.CallToolRequest: lambda request: validate.call_tool(request, LIMITS),
    pb.GetPlanRequest: validate.get_plan,
    pb.ListStepsRequest: validate.list_steps,
    pb.WatchPlanRequest: validate.watch_plan,
    pb.CancelPlanRequest: validate.cancel_plan,
    tool_service_pb2.ListToolsRequest: validate.list_tools,
    tool_service_pb2.GetToolRequest: validate.get_tool,
}
PLAN, STEP = {"planId": "p"}, {"planId": "p", "stepId": "s", "decision": {"approve": {}}}
TOOL = {"name": "t"}
OTHERS: list[tuple[type[Message], dict[str, Any], dict[str, Any], dict[str, str]]] = [
    (pb.GetPlanRequest, PLAN, {}, {"plan_id": "REQUIRED"}),
    (pb.GetPlanRequest, PLAN, {"planId": "a/b"}, {"plan_id": "MALFORMED"}),
    (pb.GetPlanRequest, PLAN | {"view": 2}, PLAN | {"view": 9}, {"view": "UNKNOWN_VALUE"}),
    (pb.ListPlansRequest, {"pageSize": 500}, {"pageSize": -1}, {"page_size": "OUT_OF_RANGE"}),
    (pb.ListPlansRequest, {"pageToken": "t" * 1024}, {"pageToken": "t" * 1025}, {"page_token": "TOO_LONG"}),
    (pb.ListPlansRequest, {"states": [1, 8]}, {"states": [1, 9]}, {"states[1]": "UNKNOWN_VALUE"}),
    (pb.ListPlansRequest, {"states": [1]}, {"states": [0]}, {"states[0]": "REQUIRED"}),
    (pb.ListPlansRequest, {"labels": {"k": "v"}}, {"labels": {"k ": "v"}}, {'labels["k "]': "MALFORMED"}),
    (pb.ListPlansRequest, {"parentPlanId": ""}, {"parentPlanId": "-"}, {"parent_plan_id": "MALFORMED"}),
    (pb.ListStepsRequest, PLAN | {"states": [7]}, PLAN | {"states": [8]}, {"states[0]": "UNKNOWN_VALUE"}),
    (pb.ListStepsRequest, PLAN, {"pageSize": -5}, {"plan_id": "REQUIRED", "page_size": "OUT_OF_RANGE"}),
    (pb.WatchPlanRequest, PLAN, PLAN | {"afterSequence": "-1"}, {"after_sequence": "OUT_OF_RANGE"}),
    (pb.WatchPlanRequest, PLAN, PLAN | {"journalId": "j" * 129}, {"journal_id": "TOO_LONG"}),
    (pb.WatchPlansRequest, {"cursor": "c"}, {"cursor": "c" * 1025}, {"cursor": "TOO_LONG"}),
    (pb.CancelPlanRequest, PLAN | {"reason": "r" * 4096}, PLAN | {"reason": "r" * 4097}, {"reason": "TOO_LONG"}),
    (pb.ResolveStepRequest, STEP, PLAN | {"stepId": "s"}, {"decision": "REQUIRED"}),
    (pb.ResolveStepRequest, STEP, STEP | {"waitSequence": "-1"}, {"wait_sequence": "OUT_OF_RANGE"}),
    (pb.ResolveStepRequest, STEP, STEP | {"comment": "c" * 4097}, {"comment": "TOO_LONG"}),
    (
        pb.ResolveStepRequest,
        STEP | {"decision": {"result": {"output": "o" * 1_000_000}}},
        STEP | {"decision": {"result": {"output": "o" * (1 << 20)}}},
        {"decision.result.output": "TOO_LONG"},
    ),
    (
        pb.ResolveStepRequest,
        STEP | {"decision": {"reject": {"reason": "r" * 4096}}},
        STEP | {"decision": {"reject": {"reason": "r" * 4097}}},
        {"decision.reject.reason": "TOO_LONG"},
    ),
    (tool_service_pb2.ListToolsRequest, {}, {"pageSize": -1}, {"page_size": "OUT_OF_RANGE"}),
    (tool_service_pb2.ListToolsRequest, {"tags": ["t"] * 64}, {"tags": ["t"] * 65}, {"tags": "TOO_MANY"}),
    (tool_service_pb2.GetToolRequest, TOOL, {}, {"name": "REQUIRED"}),
    (tool_service_pb2.CallToolRequest, TOOL, {"name": "a b"}, {"name": "MALFORMED"}),
    (
        tool_service_pb2.CallToolRequest,
        TOOL | {"idempotencyKey": "k" * 256},
        TOOL | {"idempotencyKey": "k" * 257},
        {"idempotency_key": "TOO_LONG"},
    ),
    (
        tool_service_pb2.CallToolRequest,
        TOOL | {"context": {"route": ["r"] * 16}},
        TOOL | {"context": {"route": ["r"] * 17}},
        {"context.route": "TOO_MANY"},
    ),
    (
        tool_service_pb2.CallToolRequest,
        TOOL | {"arguments": nested(32)},
        TOOL | {"arguments": {"l": [nested(31)]}},
        {"arguments.l[0]" + ".a" * 29: "TOO_DEEP"},
    ),
]


@pytest.mark.parametrize(("kind", "sound", "faulty", "wanted"), OTHERS)
def test_bounds_of_the_other_requests(
    kind: type[Message], sound: dict[str, Any], faulty: dict[str, Any], wanted: dict[str, str]
) -> None:
    check = WITH_LIMITS[kind]

    assert check(ParseDict(sound, kind())) == []
    assert reasons(check(ParseDict(faulty, kind()))) == wanted


def test_times_must_be_of_the_calendar() -> None:
    request = pb.ListPlansRequest()
    request.created_after.FromDatetime(datetime(9999, 12, 31, tzinfo=UTC))
    assert validate.list_plans(request, LIMITS) == []

    request.created_after.seconds += int(timedelta(days=2).total_seconds())
    request.created_before.nanos = -1
    assert reasons(validate.list_plans(request, LIMITS)) == {
        "created_after": "MALFORMED",
        "created_before": "MALFORMED",
    }


@given(st.sampled_from([*WITH_LIMITS, pb.CreatePlanRequest]), st.binary(max_size=80))
def test_whatever_can_be_read_can_be_judged(kind: type[Message], raw: bytes) -> None:
    check = WITH_LIMITS.get(kind, lambda request: validate.create_plan(request, LIMITS))

    try:
        request = kind.FromString(raw)
    except DecodeError:  # not a message: the boundary's business
        return

    found = reasons(check(request))
    assert not (found and isinstance(request, pb.CreatePlanRequest) and glanced(request, LIMITS))
