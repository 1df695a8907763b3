"""Streams of events over a real connection: the first message, heartbeats, resuming, limits, slow readers, drains."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from autoglm.model import Plan
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.watch import WatchTimes
from autoglm_server.settings import LimitSettings
from tests.server.service.harness import Edge, refusal, serving, until

QUICK = WatchTimes(heartbeat=0.05, write=0.2, disconnect=0.1)


async def read_all(call: Any, found: list[Any] | None = None) -> list[Any]:
    found = [] if found is None else found

    while (message := await call.read()) is not grpc.aio.EOF:
        found.append(message)

    return found


async def failure(call: Any) -> Any:
    """Read a stream to its end, which must be an error; gives its details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(call)

    return refusal(caught.value)


async def test_a_finished_plan_replays_and_ends(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 5, ended=True)
    messages = await read_all((await served.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p")))

    assert [event.sequence for message in messages for event in message.events] == [1, 2, 3, 4, 5]
    assert messages[0].journal_id == served.journal.journal_id
    assert messages[-1].sequence == 5
    assert messages[-1].events[-1].WhichOneof("fact") == "plan_succeeded"


async def test_a_watch_resumes_behind_what_was_seen(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 5, ended=True)
    messages = await read_all((await served.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p", after_sequence=3)))

    assert [event.sequence for message in messages for event in message.events] == [4, 5]


async def test_the_first_message_comes_at_once_and_then_what_happens() -> None:
    async with serving() as edge:  # heartbeats every 15 s: only news can come within the test
        await edge.plans.add(Plan(id="p"), 2)
        call = (await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p", after_sequence=2))
        first = await call.read()
        assert (list(first.events), first.sequence, first.journal_id) == ([], 2, edge.journal.journal_id)

        await edge.plans.more("p", count=2, ended=True)
        messages = await read_all(call)
        assert [event.sequence for message in messages for event in message.events] == [3, 4]


async def test_heartbeats() -> None:
    async with serving(times=QUICK) as edge:
        await edge.plans.add(Plan(id="p"), 2)
        call = (await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        messages = [await call.read() for _ in range(4)]

        assert [len(message.events) for message in messages] == [2, 0, 0, 0]
        assert [message.sequence for message in messages] == [2, 2, 2, 2]
        call.cancel()


async def test_what_may_not_be_watched(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 2)
    stub = await served.stub()

    told = await failure(stub.WatchPlan(pb.WatchPlanRequest(plan_id="other")))
    assert (told.code, told.info.reason) == (grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND")
    told = await failure(stub.WatchPlan(pb.WatchPlanRequest(plan_id="p", after_sequence=3)))
    assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SEQUENCE_AHEAD")
    told = await failure(stub.WatchPlan(pb.WatchPlanRequest(plan_id="p", journal_id="old")))
    assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOURNAL_CHANGED")
    assert told.info.metadata["journal_id"] == served.journal.journal_id
    told = await failure(stub.WatchPlans(pb.WatchPlansRequest(cursor="?")))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert served.watches.count == 0


async def test_all_plans_and_from_where_they_were_left(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 2)
    stub = await served.stub()
    call = stub.WatchPlans(pb.WatchPlansRequest())
    first = await call.read()
    call.cancel()
    assert [(event.plan_id, event.sequence) for event in first.events] == [("p", 1), ("p", 2)]

    await served.plans.add(Plan(id="q"), 1)
    call = stub.WatchPlans(pb.WatchPlansRequest(cursor=first.cursor))
    second = await call.read()
    call.cancel()
    assert [(event.plan_id, event.sequence) for event in second.events] == [("q", 1)]


async def test_from_now_begins_with_an_empty_message_that_has_a_cursor(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 2)
    call = (await served.stub()).WatchPlans(pb.WatchPlansRequest(from_now=True))
    first = await call.read()
    assert not first.events
    assert first.cursor

    await served.plans.more("p")
    assert [event.sequence for event in (await call.read()).events] == [3]
    call.cancel()


async def test_watches_are_bounded_for_the_process() -> None:
    async with serving(limits=LimitSettings(watches=2)) as edge:
        await edge.plans.add(Plan(id="p"), 1)
        calls = [(await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p")) for _ in range(2)]
        assert [len((await call.read()).events) for call in calls] == [1, 1]

        told = await failure((await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p")))
        assert (told.code, told.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert (told.info.metadata["limit"], told.quota) == ("2", "limits.watches")
        assert told.retry is not None

        calls[0].cancel()
        await until(lambda: edge.watches.count == 1)
        call = (await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        assert len((await call.read()).events) == 1
        call.cancel()
        calls[1].cancel()


async def test_watches_are_bounded_for_a_connection() -> None:
    async with serving(limits=LimitSettings(watches_per_connection=1)) as edge:
        await edge.plans.add(Plan(id="p"), 1)
        stub = await edge.stub()
        first = stub.WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        await first.read()
        told = await failure(stub.WatchPlan(pb.WatchPlanRequest(plan_id="p")))
        assert told.info.reason == "TOO_MANY_WATCHES"
        assert "watches_per_connection" in told.message

        other = (await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        assert len((await other.read()).events) == 1
        first.cancel()
        other.cancel()


async def test_a_watch_that_reads_nothing_is_ended_with_where_to_resume() -> None:
    async with serving(times=WatchTimes(heartbeat=1, write=0.2)) as edge:
        await edge.plans.add(Plan(id="p"), 100, size=1 << 18)
        call = (await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        first = await call.read()  # and then nothing, until the server gives up
        await until(lambda: edge.watches.count == 0)
        rest: list[Any] = []

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call, rest)

        told = refusal(caught.value)
        assert (told.code, told.info.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_ENDED")
        seen = [event.sequence for message in (first, *rest) for event in message.events]
        assert seen == list(range(1, len(seen) + 1))
        assert 0 < int(told.info.metadata["after_sequence"]) <= len(seen) < 100
        assert told.info.metadata["journal_id"] == edge.journal.journal_id


@pytest.mark.parametrize("every", [False, True])
async def test_a_watch_that_never_read_anything_is_told_too(every: bool) -> None:
    """Its first message waits for it, and the headers must not wait with that: then no status could be sent."""
    async with serving(times=WatchTimes(heartbeat=1, write=0.2)) as edge:
        await edge.plans.add(Plan(id="p"), 3, size=1 << 18)
        stub = await edge.stub()
        call = stub.WatchPlans(pb.WatchPlansRequest()) if every else stub.WatchPlan(pb.WatchPlanRequest(plan_id="p"))
        await until(lambda: edge.watches.count == 1)
        await until(lambda: edge.boundary.active == 0)

        assert (await failure(call)).info.reason == "WATCH_ENDED"


async def test_a_watch_that_reads_is_not_ended() -> None:
    """The control of the test above."""
    async with serving(times=WatchTimes(heartbeat=1, write=0.2)) as edge:
        await edge.plans.add(Plan(id="p"), 100, size=1 << 18, ended=True)
        messages = await read_all((await edge.stub()).WatchPlan(pb.WatchPlanRequest(plan_id="p")))

        assert sum(len(message.events) for message in messages) == 100


async def test_a_drain_ends_watches_with_where_to_resume(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 3)
    stub = await served.stub()
    one, every = stub.WatchPlan(pb.WatchPlanRequest(plan_id="p")), stub.WatchPlans(pb.WatchPlansRequest())
    await one.read()
    cursor = (await every.read()).cursor
    served.feed.drain()

    told = await failure(one)
    assert (told.code, told.info.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_ENDED")
    assert told.info.metadata["after_sequence"] == "3"
    told = await failure(every)
    assert (told.info.reason, told.info.metadata["cursor"]) == ("WATCH_ENDED", cursor)


# --- RunPlan


async def test_a_run_creates_and_streams(served: Edge) -> None:
    call = (await served.stub()).RunPlan(pb.RunPlanRequest(request="do it"))
    first = await call.read()
    assert first.events[0].WhichOneof("fact") == "plan_created"
    assert first.journal_id == served.journal.journal_id
    assert served.plans.created[0][0].request == "do it"

    await served.plans.more("plan-1", ended=True)
    rest = [event.WhichOneof("fact") for message in await read_all(call) for event in message.events]
    assert rest == ["plan_succeeded"]


async def test_a_run_is_never_a_dry_run(served: Edge) -> None:
    """Field 8 is unknown to RunPlanRequest; sent all the same, it must not reach the scheduler as validate_only."""
    raw = pb.CreatePlanRequest(request="do it", validate_only=True).SerializeToString()
    channel = await served.channel()
    call = channel.unary_stream("/autoglm.v1.PlanService/RunPlan")(raw)
    await call.read()
    call.cancel()

    assert not served.plans.created[0][0].validate_only


async def test_a_client_that_goes_away_leaves_its_plan_running() -> None:
    async with serving(times=QUICK) as edge:
        call = (await edge.stub()).RunPlan(pb.RunPlanRequest(request="r"))
        await call.read()
        call.cancel()
        await until(lambda: edge.watches.count == 0)
        await asyncio.sleep(3 * QUICK.disconnect)

        assert not edge.plans.cancelled


async def test_a_client_that_asked_for_it_takes_its_plan_with_it() -> None:
    async with serving(times=QUICK) as edge:
        call = (await edge.stub()).RunPlan(pb.RunPlanRequest(request="r", cancel_on_disconnect=True))
        await call.read()
        call.cancel()
        await until(lambda: bool(edge.plans.cancelled))

        assert edge.plans.cancelled[0][0] == "plan-1"


@pytest.mark.parametrize("asked", [True, False])
async def test_a_client_that_goes_away_under_a_write_is_no_fault(
    caplog: pytest.LogCaptureFixture, *, asked: bool
) -> None:
    """The transport fails the write before it says that the client has gone."""
    async with serving(times=WatchTimes(write=30, disconnect=0.1)) as edge:
        call = (await edge.stub()).RunPlan(pb.RunPlanRequest(request="r", cancel_on_disconnect=asked))
        await call.read()

        for _ in range(40):
            await edge.plans.more("plan-1", count=4, size=1 << 18)

        await asyncio.sleep(0.3)  # now the write waits for a reader
        call.cancel()
        await until(lambda: edge.watches.count == 0)

        if asked:
            await until(lambda: bool(edge.plans.cancelled))

    assert not [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}]


async def test_a_drain_cancels_no_plan() -> None:
    async with serving(times=QUICK) as edge:
        stub = await edge.stub()
        ended = stub.RunPlan(pb.RunPlanRequest(request="r", cancel_on_disconnect=True))
        gone = stub.RunPlan(pb.RunPlanRequest(request="r", cancel_on_disconnect=True))
        await ended.read()
        await gone.read()
        gone.cancel()  # its timer runs when the drain begins
        await until(lambda: edge.watches.count == 1)
        edge.disconnects.drain()
        edge.feed.drain()
        assert (await failure(ended)).info.reason == "WATCH_ENDED"
        await asyncio.sleep(3 * QUICK.disconnect)

        assert not edge.plans.cancelled


async def test_a_stream_that_comes_back_in_time_keeps_the_plan() -> None:
    async with serving(times=WatchTimes(disconnect=0.3)) as edge:
        attached = edge.disconnects.attached

        async def stream(release: asyncio.Event) -> None:
            with attached("p", asked=True):
                await release.wait()

        await edge.plans.add(Plan(id="p"), 1)
        never = asyncio.Event()

        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(stream(never))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0.1)
            release = asyncio.Event()
            second = tasks.create_task(stream(release))
            await asyncio.sleep(0.4)
            assert not edge.plans.cancelled
            release.set()  # it ends by itself: nobody went away
            await second

        await asyncio.sleep(0.4)
        assert not edge.plans.cancelled
