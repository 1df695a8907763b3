"""The methods of PlanService that answer once: what they hand over, what they give back, and their pages."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import ParseDict

from autoglm import wire
from autoglm.errors import InvalidRequestError
from autoglm.model import Approve, CreatePlanRequest, Plan, Round, Step, StepDraft, StepState, Violation
from autoglm.v1 import plan_pb2
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.plans import OFF_LOOP_BYTES, create_request, request_digest
from autoglm_server.settings import LimitSettings
from tests.server.service.harness import Edge, Refusal, refusal, serving


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call

    return refusal(caught.value)


async def test_a_plan_is_handed_over_as_it_was_sent(served: Edge) -> None:
    request = ParseDict(
        {"request": "r", "labels": {"k": "v"}, "steps": [{"id": "a", "tool": "t", "arguments": {"n": 3}}]},
        pb.CreatePlanRequest(),
    )
    response = await (await served.stub()).CreatePlan(request)

    assert (response.plan.id, response.plan.labels["k"], response.existing) == ("plan-1", "v", False)
    wanted = CreatePlanRequest("r", (StepDraft("a", tool="t", arguments={"n": 3}),), labels={"k": "v"})
    assert served.plans.created[0][0] == wanted


async def test_a_large_request_is_read_like_a_small_one(served: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = tuple(StepDraft(f"s{n}", tool="t", arguments={"text": "x" * 100}) for n in range(2000))
    wanted = CreatePlanRequest(steps=steps)
    message = wire.to_message(wanted)
    assert isinstance(message, pb.CreatePlanRequest)
    assert message.ByteSize() > OFF_LOOP_BYTES
    await (await served.stub()).CreatePlan(message)
    assert served.plans.created == [(wanted, request_digest(wanted) if wanted.request_id else "")]

    threads: list[int] = []

    def check(_: CreatePlanRequest) -> list[Violation]:
        threads.append(threading.get_ident())
        return []

    monkeypatch.setattr(served.plans, "check", check)
    message.steps[1999].id = "-"
    told = await refused((await served.stub()).CreatePlan(message))
    assert told.fields == {"steps[1999].id": "MALFORMED"}
    assert threads, "its meaning is looked into as well"
    assert threads != [threading.get_ident()], "and beside the loop, which others need"


async def test_the_shape_is_refused_before_anything_is_handed_over(served: Edge) -> None:
    told = await refused((await served.stub()).CreatePlan(pb.CreatePlanRequest(request_id="é")))

    assert told.fields == {"request": "REQUIRED", "request_id": "MALFORMED"}
    assert not served.plans.created


async def test_the_meaning_is_refused_with_every_violation(served: Edge) -> None:
    violations = [
        Violation("steps[0].tool", "there is no tool 't'", "UNKNOWN_TOOL"),
        Violation("steps[0].depends_on", "cycle", "CYCLE"),
    ]

    def refuse() -> None:
        raise InvalidRequestError.of(violations)

    served.plans.before = refuse
    told = await refused((await served.stub()).CreatePlan(pb.CreatePlanRequest(request="r")))

    assert told.fields == {"steps[0].tool": "UNKNOWN_TOOL", "steps[0].depends_on": "CYCLE"}


async def test_a_fault_of_a_field_hides_none_of_another_that_begins_like_it(served: Edge) -> None:
    served.plans.faults = [
        Violation("request", "says nothing", "MALFORMED"),
        Violation("steps[1].depends_on", "a circle", "CYCLE"),
    ]
    request = pb.CreatePlanRequest(
        request="r", request_id="é", steps=[plan_pb2.StepDraft(id="a", tool="t", title="t" * 10_000)]
    )
    told = await refused((await served.stub()).CreatePlan(request))
    assert told.fields.keys() == {"request", "request_id", "steps[0].title", "steps[1].depends_on"}


async def test_faults_of_shape_and_of_meaning_are_told_at_once(served: Edge) -> None:
    served.plans.faults = [
        Violation("steps[0].id", "is malformed, says the scheduler too", "MALFORMED"),
        Violation("steps[0].depends_on", "there is no step '-' to depend on", "UNKNOWN_STEP"),
        Violation("steps[1].tool", "there is no tool 'u'", "UNKNOWN_TOOL"),
        Violation("options.planner", "there is no planner 'gpt'", "UNKNOWN_PLANNER"),
    ]
    request = ParseDict(
        {
            "steps": [{"id": "a b", "tool": "t", "dependsOn": ["-"]}, {"id": "b", "tool": "u"}],
            "options": {"maxSteps": 1_000_000_000, "planner": "gpt"},
        },
        pb.CreatePlanRequest(),
    )
    told = await refused((await served.stub()).CreatePlan(request))

    assert told.fields == {
        "steps[0].id": "MALFORMED",
        "steps[0].depends_on[0]": "MALFORMED",
        "options.max_steps": "OUT_OF_RANGE",
        "steps[1].tool": "UNKNOWN_TOOL",
        "options.planner": "UNKNOWN_PLANNER",
    }
    assert len(told.descriptions) == 5
    assert "is 1000000000; must be 1 to 1000" in told.message
    assert not served.plans.created


async def test_arguments_that_are_too_large_are_refused_unread_and_the_rest_is_looked_into(
    served: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[CreatePlanRequest] = []

    def check(request: CreatePlanRequest) -> list[Violation]:
        asked.append(request)
        return [Violation("steps[1].tool", "there is no tool 'u'", "UNKNOWN_TOOL")]

    monkeypatch.setattr(served.plans, "check", check)
    monkeypatch.setattr(wire, "canonical_json", lambda _: pytest.fail("what is too large was read"))
    steps = (StepDraft("a", tool="t", arguments={"n": [0] * 30_000}), StepDraft("b", tool="u", arguments={"n": 1}))
    message = wire.to_message(CreatePlanRequest(steps=steps))
    told = await refused((await served.stub()).CreatePlan(message))

    assert told.fields == {"steps[0].arguments": "TOO_LONG", "steps[1].tool": "UNKNOWN_TOOL"}
    assert [step.arguments for step in asked[0].steps] == [None, {"n": 1}]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"steps": [{"id": "a", "tool": "t"}, {"id": "b", "tool": "t"}]}, "TOO_MANY"),
        ({"steps": [{"id": "a", "tool": "t", "arguments": {"n": 1}}]}, "NOT_FINITE"),
    ],
)
async def test_a_request_that_cannot_be_looked_into_is_told_by_its_shape(fault: dict[str, Any], reason: str) -> None:
    async with serving(limits=LimitSettings(steps=1)) as edge:
        edge.plans.faults = [Violation("options.planner", "there is no planner 'gpt'", "UNKNOWN_PLANNER")]
        request = ParseDict(fault, pb.CreatePlanRequest())

        if reason == "NOT_FINITE":
            request.steps[0].arguments["n"] = float("nan")

        told = await refused((await edge.stub()).CreatePlan(request))

        assert list(told.fields.values()) == [reason]


def test_the_digest_is_of_what_was_asked() -> None:
    def digest(kind: Any = pb.CreatePlanRequest, **fields: Any) -> str:
        return request_digest(create_request(ParseDict({"request": "r"} | fields, kind())))

    assert (
        digest() == digest(requestId="one") == digest(validateOnly=True) == digest(pb.RunPlanRequest, requestId="two")
    )
    assert digest(pb.RunPlanRequest, cancelOnDisconnect=True, durableOnly=True) == digest()
    assert digest(labels={"a": "1", "b": "2"}) == digest(labels={"b": "2", "a": "1"}) != digest()
    assert digest(options={"maxSteps": 10}) != digest()  # a default that is written is not one that is left out
    steps = [{"id": "a", "tool": "t", "arguments": {"x": 1, "y": 2}}]
    other = [{"id": "a", "tool": "t", "arguments": {"y": 2, "x": 1}}]
    assert digest(steps=steps) == digest(steps=other)


async def test_views(served: Edge) -> None:
    plan = Plan(id="p", request="r", steps=(Step(id="a"),), rounds=(Round(number=1),))
    served.plans.plans["p"] = plan
    stub = await served.stub()
    full = (await stub.GetPlan(pb.GetPlanRequest(plan_id="p"))).plan
    basic = (await stub.GetPlan(pb.GetPlanRequest(plan_id="p", view=pb.PLAN_VIEW_BASIC))).plan

    assert (len(full.steps), len(full.rounds), full.request) == (1, 1, "r")
    assert (len(basic.steps), len(basic.rounds), basic.request) == (0, 0, "r")
    assert not (await stub.CancelPlan(pb.CancelPlanRequest(plan_id="p", reason="enough"))).plan.steps
    assert served.plans.cancelled == [("p", "enough")]
    decision = plan_pb2_decision()
    resolved = await stub.ResolveStep(pb.ResolveStepRequest(plan_id="p", step_id="a", decision=decision))
    assert not resolved.plan.steps
    assert served.plans.resolved[0].kind == Approve()


def plan_pb2_decision() -> Any:
    from autoglm.v1.event_pb2 import Decision

    return Decision(approve=Decision.Approve())


async def test_a_plan_too_large_for_one_answer() -> None:
    async with serving(limits=LimitSettings(response_bytes=10_000)) as edge:  # type: ignore[arg-type]
        edge.plans.plans["p"] = Plan(id="p", steps=tuple(Step(id=f"s{n}", title="t" * 100) for n in range(200)))
        stub = await edge.stub()
        told = await refused(stub.GetPlan(pb.GetPlanRequest(plan_id="p")))

        assert (told.code, told.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE")
        assert told.info.metadata["limit"] == "10000"
        assert int(told.info.metadata["size"]) > 20_000
        assert (await stub.GetPlan(pb.GetPlanRequest(plan_id="p", view=pb.PLAN_VIEW_BASIC))).plan.id == "p"
        assert len(await steps_of(stub, plan_id="p", page_size=500)) == 200


async def test_a_plan_that_was_made_is_answered_even_if_it_is_too_large_to_show() -> None:
    async with serving(limits=LimitSettings(response_bytes=2_000)) as edge:  # type: ignore[arg-type]
        add = edge.plans.add

        async def grown(plan: Plan, events: int) -> Plan:
            return replace(await add(plan, events), steps=tuple(Step(id=f"s{n}") for n in range(1000)))

        edge.plans.add = grown  # type: ignore[method-assign,assignment]
        response = await (await edge.stub()).CreatePlan(pb.CreatePlanRequest(request="r"))

        assert response.plan.id == "plan-1"
        assert not response.plan.steps


async def steps_of(stub: Any, **fields: Any) -> list[Any]:
    found: list[Any] = []
    token = ""

    while True:
        page = await stub.ListSteps(pb.ListStepsRequest(page_token=token, **fields))
        found += page.steps
        token = page.next_page_token

        if not token:
            return found


@pytest.mark.parametrize("page_size", [0, 1, 7, 119, 120, 121, 500, 100_000])
async def test_pages_of_steps(served: Edge, page_size: int) -> None:
    steps = tuple(Step(id=f"s{n}", state=StepState.FAILED if n % 3 else StepState.SUCCEEDED) for n in range(120))
    served.plans.plans["p"] = Plan(id="p", steps=steps, sequence=9)
    stub = await served.stub()

    assert [step.id for step in await steps_of(stub, plan_id="p", page_size=page_size)] == [step.id for step in steps]
    some = await steps_of(stub, plan_id="p", page_size=page_size, states=[plan_pb2.STEP_STATE_SUCCEEDED])
    assert [step.id for step in some] == [f"s{n}" for n in range(0, 120, 3)]
    assert (await stub.ListSteps(pb.ListStepsRequest(plan_id="p"))).sequence == 9


async def test_a_page_of_steps_is_bounded_by_size_too() -> None:
    async with serving(limits=LimitSettings(response_bytes=5_000)) as edge:  # type: ignore[arg-type]
        edge.plans.plans["p"] = Plan(id="p", steps=tuple(Step(id=f"s{n}", title="t" * 1000) for n in range(20)))
        stub = await edge.stub()
        page = await stub.ListSteps(pb.ListStepsRequest(plan_id="p", page_size=500))

        assert 0 < len(page.steps) < 20
        assert page.ByteSize() <= 5_000
        assert len(await steps_of(stub, plan_id="p", page_size=500)) == 20


@pytest.mark.parametrize("token", ["nonsense", "é", "AAAA", "e30="])
async def test_a_page_token_must_be_ours(served: Edge, token: str) -> None:
    served.plans.plans["p"] = Plan(id="p")
    stub = await served.stub()

    assert (await refused(stub.ListSteps(pb.ListStepsRequest(plan_id="p", page_token=token)))).fields == {
        "page_token": "MALFORMED"
    }
    assert (await refused(stub.ListPlans(pb.ListPlansRequest(page_token=token)))).fields == {"page_token": "MALFORMED"}


async def test_a_page_token_belongs_to_its_filters(served: Edge) -> None:
    served.plans.plans["p"] = Plan(id="p", steps=tuple(Step(id=f"s{n}") for n in range(10)))
    served.plans.plans["q"] = Plan(id="q", steps=tuple(Step(id=f"s{n}") for n in range(10)))
    stub = await served.stub()
    token = (await stub.ListSteps(pb.ListStepsRequest(plan_id="p", page_size=3))).next_page_token

    assert (await stub.ListSteps(pb.ListStepsRequest(plan_id="p", page_size=5, page_token=token))).steps[0].id == "s3"
    told = await refused(stub.ListSteps(pb.ListStepsRequest(plan_id="q", page_token=token)))
    assert told.fields == {"page_token": "MALFORMED"}
    told = await refused(
        stub.ListSteps(pb.ListStepsRequest(plan_id="p", states=[plan_pb2.STEP_STATE_PENDING], page_token=token))
    )
    assert told.fields == {"page_token": "MALFORMED"}


async def test_pages_of_plans(served: Edge) -> None:
    for number in range(7):
        await served.plans.add(Plan(id=f"p{number}", labels={"odd": str(number % 2)}), 1)

    stub = await served.stub()

    async def pages(**fields: Any) -> list[str]:
        found: list[str] = []
        token = ""

        while True:
            page = await stub.ListPlans(pb.ListPlansRequest(page_token=token, page_size=2, **fields))
            assert len(page.plans) <= 2
            found += [plan.id for plan in page.plans]
            token = page.next_page_token

            if not token:
                return found

    assert sorted(await pages()) == [f"p{number}" for number in range(7)]
    assert sorted(await pages(labels={"odd": "1"})) == ["p1", "p3", "p5"]
    assert await pages(states=[plan_pb2.PLAN_STATE_FAILED]) == []
    later = pb.ListPlansRequest()
    later.created_after.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    assert not (await stub.ListPlans(later)).plans


async def test_a_page_of_plans_is_bounded_by_size_too() -> None:
    async with serving(limits=LimitSettings(response_bytes=5_000)) as edge:  # type: ignore[arg-type]
        for number in range(10):
            await edge.plans.add(Plan(id=f"p{number}", request="r" * 1000), 1)

        stub = await edge.stub()
        found: list[str] = []
        token = ""

        while True:
            page = await stub.ListPlans(pb.ListPlansRequest(page_token=token, page_size=500))
            assert 0 < len(page.plans) < 10
            found += [plan.id for plan in page.plans]
            token = page.next_page_token

            if not token:
                break

        assert sorted(found) == [f"p{number}" for number in range(10)]


async def test_server_info(served: Edge) -> None:
    info = await (await served.stub()).GetServerInfo(pb.GetServerInfoRequest())

    assert (info.version, info.planner, list(info.capabilities)) == ("1.2.3", "rules", ["a", "b"])
    assert info.journal_id == served.journal.journal_id
