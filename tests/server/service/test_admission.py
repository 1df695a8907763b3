"""Who is let in: places by kind and by caller, over a real connection, and what is never refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import LimitError
from autoglm.model import Plan, Tool, ToolResult
from autoglm.v1 import plan_service_pb2 as pb
from autoglm.v1 import tool_service_pb2 as tools_pb
from autoglm_server.service.admission import CREATES, FEW, KINDS, Admission, Kind
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.tool import Invocation
from tests.server.service.harness import Edge, Refusal, refusal, serving, until

ONE = LimitSettings(calls_read=1, calls_write=1, calls_tool=1, calls_share=1)


async def refused(call: Awaitable[Any]) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call

    return refusal(caught.value)


def hold(edge: Edge) -> asyncio.Event:
    """Let every call of a plan wait for the event."""
    release = asyncio.Event()
    edge.plans.before = release.wait
    return release


async def test_each_kind_has_places_of_its_own_and_gives_them_back() -> None:
    async with serving(limits=ONE) as edge:
        await edge.plans.add(Plan(id="p"), 1)
        release, stub = hold(edge), await edge.stub()
        reading = stub.GetPlan(pb.GetPlanRequest(plan_id="p"))
        await until(lambda: edge.boundary.admission.taken(Kind.READ) == 1)

        told = await refused(stub.ListPlans(pb.ListPlansRequest()))
        assert (told.code, told.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert (told.quota, told.info.metadata["limit"]) == ("limits.calls_read", "1")
        assert told.retry is not None
        assert told.retry > 0

        writing = stub.CancelPlan(pb.CancelPlanRequest(plan_id="p"))  # of another kind
        await until(lambda: edge.boundary.admission.taken(Kind.WRITE) == 1)
        for call in (stub.CreatePlan(pb.CreatePlanRequest(request="x")), stub.CancelPlan(pb.CancelPlanRequest())):
            assert (await refused(call)).quota == "limits.calls_write"

        release.set()
        await asyncio.gather(reading, writing)
        assert (await stub.GetPlan(pb.GetPlanRequest(plan_id="p"))).plan.id == "p"
        assert [edge.boundary.admission.taken(kind) for kind in Kind] == [0, 0, 0]
        assert not edge.plans.created


async def test_a_run_holds_a_place_until_its_plan_is_made() -> None:
    async with serving(limits=ONE) as edge:
        release, stub = hold(edge), await edge.stub()
        run = stub.RunPlan(pb.RunPlanRequest(request="x"))
        await until(lambda: edge.boundary.admission.taken(Kind.WRITE) == 1)
        told = await refused(stub.RunPlan(pb.RunPlanRequest(request="y")).read())
        assert told.info.reason == "TOO_MANY_CALLS"

        release.set()
        assert len((await run.read()).events) == 1
        assert edge.boundary.admission.taken(Kind.WRITE) == 0
        assert not (await stub.CreatePlan(pb.CreatePlanRequest(request="z"))).existing
        run.cancel()


async def test_calls_of_tools_are_bounded_too() -> None:
    async with serving(limits=ONE) as edge:
        release, stub = asyncio.Event(), await edge.tool_stub()
        edge.catalog.table["t"] = Tool(name="t")

        async def wait(_: Invocation) -> ToolResult:
            await release.wait()
            return ToolResult(output=1)

        edge.catalog.behave = wait
        call = stub.CallTool(tools_pb.CallToolRequest(name="t"))
        await until(lambda: len(edge.catalog.calls) == 1)
        told = await refused(stub.CallTool(tools_pb.CallToolRequest(name="t")).read())
        assert told.quota == "limits.calls_tool"
        assert len(edge.catalog.calls) == 1

        release.set()
        assert (await call.read()).result.output.number_value == 1
        await until(lambda: edge.boundary.admission.taken(Kind.TOOL) == 0)


async def test_a_caller_has_a_share_and_others_find_room() -> None:
    async with serving(limits=LimitSettings(calls_read=4, calls_share=0.5)) as edge:
        await edge.plans.add(Plan(id="p"), 1)
        release, greedy, other = hold(edge), await edge.stub(), await edge.stub()
        request = pb.GetPlanRequest(plan_id="p")
        calls = [greedy.GetPlan(request) for _ in range(2)]
        await until(lambda: edge.boundary.admission.taken(Kind.READ) == 2)

        told = await refused(greedy.GetPlan(request))
        assert (told.info.reason, told.quota) == ("TOO_MANY_CALLS", "limits.calls_share")
        calls.append(other.GetPlan(request))
        await until(lambda: edge.boundary.admission.taken(Kind.READ) == 3)

        release.set()
        assert [answer.plan.id for answer in await asyncio.gather(*calls)] == ["p"] * 3


async def test_new_plans_wait_for_the_disk_and_nothing_else_does(served: Edge) -> None:
    stub = await served.stub()
    await served.plans.add(Plan(id="p"), 1)
    served.plans.delay = 1.5
    told = await refused(stub.CreatePlan(pb.CreatePlanRequest(request="x")))
    assert (told.info.reason, told.quota) == ("TOO_MANY_CALLS", "limits.journal_wait")
    await stub.GetPlan(pb.GetPlanRequest(plan_id="p"))
    await stub.CancelPlan(pb.CancelPlanRequest(plan_id="p"))

    served.plans.delay = 0.5
    assert (await stub.CreatePlan(pb.CreatePlanRequest(request="x"))).plan.id


async def test_health_reflection_and_streams_are_never_refused_here() -> None:
    async with serving(limits=ONE) as edge:
        await edge.plans.add(Plan(id="p"), 1)
        release, stub = hold(edge), await edge.stub()
        calls = [stub.GetPlan(pb.GetPlanRequest(plan_id="p")), stub.CancelPlan(pb.CancelPlanRequest(plan_id="p"))]
        await until(lambda: edge.boundary.active == 2)
        health = health_pb2_grpc.HealthStub(await edge.channel())
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
        watch = stub.WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        assert len((await watch.read()).events) == 1
        watch.cancel()
        release.set()
        await asyncio.gather(*calls)


def test_new_plans_are_refused_while_the_line_is_late_and_many_are_under_way_and_nothing_else_is() -> None:
    age, busy = [0.0], [FEW]
    limits = LimitSettings(create_wait=timedelta(seconds=0.1))
    admission = Admission(limits, behind=lambda: age[0], busy=lambda: busy[0])
    assert {admission.refusal(method) for method in KINDS} == {None}

    age[0] = 0.101
    refusals = {method: admission.refusal(method) for method in (*KINDS, *CREATES)}
    assert {method for method, refusal in refusals.items() if refusal} == {*CREATES}
    refused = refusals[CREATES[0]]
    assert refused
    assert (refused.reason, refused.metadata["setting"]) == ("TOO_MANY_CALLS", "limits.create_wait")

    busy[0] = FEW - 1  # however late it is
    age[0] = 1e9
    assert admission.refusal(CREATES[0]) is None

    admission.enter(Kind.WRITE, "unix:")  # one that is being made counts like one that was
    assert admission.refusal(CREATES[0])


def test_no_plan_is_refused_for_being_late_where_they_may_wait() -> None:
    assert Admission(LimitSettings(create_wait=None), behind=lambda: 1e9, busy=lambda: 1000).refusal(CREATES[0]) is None


def test_those_who_are_refused_together_do_not_come_back_together() -> None:
    admission = Admission(LimitSettings(calls_write=1))
    admission.enter(Kind.WRITE, "unix:")
    found = {admission.refusal(CREATES[0]) for _ in range(8)}
    times = {refused.retry_after for refused in found if refused}
    assert len(times) == 8
    assert all(time and timedelta(0) < time < timedelta(seconds=1) for time in times)


def test_every_method_has_a_kind_or_is_known_to_have_none() -> None:
    """A method that is added must be thought of here."""
    none = {"RunPlan", "WatchPlan", "WatchPlans", "ReadArtifact"}
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (pb, tools_pb)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name not in none
    }
    assert methods == {*KINDS}


@given(st.lists(st.tuples(st.sampled_from(Kind), st.sampled_from(["ipv4:1", "ipv4:2", "unix:"]), st.booleans())))
def test_places_are_never_more_than_the_limits_and_all_come_back(turns: list[tuple[Kind, str, bool]]) -> None:
    admission = Admission(LimitSettings(calls_read=3, calls_write=4, calls_tool=5, calls_share=0.5))
    most = {Kind.READ: (3, 1), Kind.WRITE: (4, 2), Kind.TOOL: (5, 2)}
    held: list[tuple[Kind, str]] = []
    for kind, peer, ends in turns:
        if ends and (kind, peer) in held:
            held.remove((kind, peer))
            admission.leave(kind, "" if peer == "unix:" else peer)
            continue

        mine, all_ = held.count((kind, peer)), sum(one is kind for one, _ in held)
        welcome = all_ < most[kind][0] and (peer == "unix:" or mine < most[kind][1])
        try:
            admission.enter(kind, peer)
        except LimitError:
            assert not welcome
        else:
            assert welcome
            held.append((kind, peer))

        assert all(admission.taken(one) == sum(held_ is one for held_, _ in held) for one in Kind)
