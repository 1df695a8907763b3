"""Every reason of a refused call, over a real connection: its status, its details, and what must not be in them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from autoglm.errors import FAMILIES, AutoglmError, InvalidRequestError, error
from autoglm.model import ErrorReason, Violation
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.journal.journal import JournalDamagedError
from autoglm_server.service.status import STATUS_BYTES_MAX
from tests.server.service.harness import Edge, Refusal, refusal, serving, until

GET = "/autoglm.v1.PlanService/GetPlan"


async def refused(edge: Edge, raised: BaseException | None = None, plan_id: str = "p") -> Refusal:
    """Get a plan from an edge whose port raises that, and give the refusal."""

    def fail() -> None:
        if raised:
            raise raised

    edge.plans.before = fail

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await edge.stub()).GetPlan(pb.GetPlanRequest(plan_id=plan_id), timeout=5)

    return refusal(caught.value)


@pytest.mark.parametrize("reason", list(FAMILIES), ids=lambda reason: reason.name)
async def test_every_reason_travels_with_its_familys_status(served: Edge, reason: ErrorReason) -> None:
    told = await refused(served, error(reason, "what, and what to do", retry_after=timedelta(seconds=7), key="value"))

    assert told.code is grpc.StatusCode[FAMILIES[reason].status]
    assert (told.info.reason, told.info.domain, dict(told.info.metadata)) == (reason.name, "autoglm", {"key": "value"})
    assert told.message == "what, and what to do"
    assert told.retry == 7


async def test_damage_of_the_journal_is_told_whatever_met_it(served: Edge) -> None:
    told = await refused(served, JournalDamagedError("the journal is damaged; autoglm doctor --repair"))

    assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOURNAL_DAMAGED")
    assert "doctor --repair" in told.message


async def test_a_reason_without_a_time_to_retry_has_none(served: Edge) -> None:
    assert (await refused(served)).retry is None


@pytest.mark.parametrize(
    ("reason", "subject"),
    [(ErrorReason.TOO_MANY_PLANS, "limits.open_plans"), (ErrorReason.TOO_MANY_WATCHES, "limits.watches")],
)
async def test_a_quota_is_named(served: Edge, reason: ErrorReason, subject: str) -> None:
    assert (await refused(served, error(reason, "full", limit="5"))).quota == subject


async def test_every_violation_is_told(served: Edge) -> None:
    violations = [Violation(f"steps[{index}]", "is wrong", "WRONG") for index in range(20)]
    told = await refused(served, InvalidRequestError.of(violations))

    assert told.fields == {violation.field: "WRONG" for violation in violations}
    assert told.info.reason == "INVALID_REQUEST"


async def test_too_many_violations_are_cut_and_counted(served: Edge) -> None:
    violations = [Violation(f"steps[{index}].arguments", "界" * 300, "WRONG") for index in range(5000)]
    told = await refused(served, InvalidRequestError.of(violations))

    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.size <= STATUS_BYTES_MAX
    assert told.fields[""] == "MORE"
    kept = len(told.fields) - 1
    assert kept >= 2
    assert told.descriptions[-1].startswith(f"and {5000 - kept} more")


async def test_the_largest_status_arrives(served: Edge) -> None:
    """The transport drops a status whose trailers are too large, and its code with it."""
    metadata = {f"key{index}": "界" * 5000 for index in range(50)}
    violations = [Violation("界" * 500, "界" * 500, "R" * 500)] * 500
    told = await refused(
        served,
        InvalidRequestError(
            "界" * 5000, reason=ErrorReason.INVALID_REQUEST, violations=violations, metadata=metadata, domain="autoglm"
        ),
    )

    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.message.endswith("…")
    assert told.size <= STATUS_BYTES_MAX


async def test_a_bug_is_opaque(served: Edge, caplog: pytest.LogCaptureFixture) -> None:
    told = await refused(served, ValueError("password=hunter2 in /srv/secret"))

    assert told.code is grpc.StatusCode.INTERNAL
    assert told.info.reason == "INTERNAL"
    assert "hunter2" not in told.message
    assert "secret" not in str(told.info)
    error_id = told.info.metadata["error_id"]
    assert error_id in told.message
    logged = [record for record in caplog.records if error_id in str(record.msg) + str(record.__dict__)]
    assert logged
    assert logged[0].exc_info


@pytest.mark.parametrize("method", ["GetPlan", "ListPlans"], ids=["taken up here", "by the transport"])
async def test_a_fault_in_asking_who_is_refused_fails_that_call_alone(
    served: Edge, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_method: str) -> None:
        raise ValueError("a secret")

    call = getattr(await served.stub(), method)
    request = pb.GetPlanRequest(plan_id="p") if method == "GetPlan" else pb.ListPlansRequest()
    with monkeypatch.context() as patched:
        patched.setattr(served.boundary.admission, "refusal", fail)
        for _ in range(40):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request, timeout=5)

            told = refusal(caught.value)
            assert told.code is grpc.StatusCode.INTERNAL
            assert told.info.metadata["error_id"] in {getattr(one, "error_id", "") for one in caplog.records}
            assert "a secret" not in told.message

    if method == "ListPlans":
        await call(request, timeout=5)
    else:
        assert (await refused(served)).code is not grpc.StatusCode.INTERNAL


async def test_an_error_of_ours_is_not_a_bug(served: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """The control of the test above."""
    told = await refused(served, AutoglmError("as it is", reason="OWN"))

    assert told.code is grpc.StatusCode.UNKNOWN
    assert told.message == "as it is"
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_cancellation_inside_is_told_at_once(served: Edge) -> None:
    """Without the boundary the client would wait for its deadline: the transport sends no status."""
    told = await refused(served, asyncio.CancelledError())

    assert told.code is grpc.StatusCode.UNAVAILABLE
    assert told.retry is not None


async def test_the_servers_deadline(tmp_path: object) -> None:
    async with serving(deadline=0.05) as edge:
        edge.plans.before = lambda: asyncio.sleep(60)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (await edge.stub()).GetPlan(pb.GetPlanRequest(plan_id="p"))

        told = refusal(caught.value)
        assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert told.info.reason == "DEADLINE_EXCEEDED"
        assert "server.timeout" in told.message


async def test_a_clients_deadline_goes_before_the_servers() -> None:
    async with serving(deadline=0.01) as edge:
        release = asyncio.Event()
        edge.plans.before = release.wait
        call = (await edge.stub()).GetPlan(pb.GetPlanRequest(plan_id="p"), timeout=10)

        await until(lambda: edge.boundary.active > 0)
        await asyncio.sleep(0.05)
        release.set()

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_time_out_inside_is_a_bug_and_not_a_deadline(served: Edge) -> None:
    assert (await refused(served, TimeoutError())).code is grpc.StatusCode.INTERNAL


@pytest.mark.parametrize("method", [GET, "/autoglm.v1.PlanService/WatchPlan", "/autoglm.v1.ToolService/GetTool"])
@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_garbage_is_refused(served: Edge, method: str, raw: bytes) -> None:
    channel = await served.channel()
    answer = (
        channel.unary_stream(method)(raw, timeout=5).read() if "Watch" in method else channel.unary_unary(method)(raw)
    )

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer

    told = refusal(caught.value)
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.fields == {"": "MALFORMED"}


async def test_a_method_that_is_not_there(served: Edge) -> None:
    channel = await served.channel()

    for method in ("/autoglm.v1.PlanService/Nope", "/no.Service/X", "/autoglm.v1.PlanService%2FGetPlan"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(method)(b"", timeout=5)

        told = refusal(caught.value)
        assert told.code is grpc.StatusCode.UNIMPLEMENTED
        assert told.info.reason == "UNIMPLEMENTED"


async def test_a_message_above_the_transports_limit(served: Edge) -> None:
    request = pb.CreatePlanRequest(request="x" * (5 << 20))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await served.stub()).CreatePlan(request, timeout=5)

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not served.plans.created


async def test_calls_are_counted_and_forgotten(served: Edge) -> None:
    before = served.boundary.calls
    await refused(served)

    assert served.boundary.calls == before + 1
    await until(lambda: served.boundary.active == 0)  # its caller may know its end first
