"""Both clients against a real gRPC server that injects faults."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

import autoglm
from autoglm import _watch, wire
from autoglm.model import Plan, PlanOptions, PlanState, Step, StepDraft, StepState, Tool, ToolResult, Violation
from autoglm.v1 import plan_service_pb2, tool_service_pb2
from tests.sdk.both import Both
from tests.sdk.scripted_server import (
    CANCELLED,
    FAILED,
    JOURNAL,
    LOG,
    Crash,
    Fail,
    Freeze,
    Linger,
    ScriptedServer,
    batch,
    batch_all,
    damaged,
    event,
    heartbeat,
    info,
    progress,
    serving,
)

GONE = Fail("UNAVAILABLE", text="the server goes")
ENDED = Fail("UNAVAILABLE", "WATCH_ENDED", "the watch was ended")


def message(value: Any) -> Any:
    return wire.to_message(value)


def plan(**fields: Any) -> Any:
    return message(Plan(id="p1", request="15% of 2480", state=PlanState.PLANNING, sequence=1, **fields))


def created(**fields: Any) -> Any:
    return plan_service_pb2.CreatePlanResponse(plan=plan(**fields))


def sequences(events: list[Any]) -> list[int]:
    return [one.sequence for one in events]


# --- unary calls


async def test_create_says_all_and_always_has_a_request_id(both: Both, server: ScriptedServer) -> None:
    server.on("CreatePlan", [created()])
    made = await both.do(
        both.client.create(
            "15% of 2480",
            steps=[StepDraft(id="a", tool="math.calculate", arguments={"expression": "1+1"})],
            options=PlanOptions(max_steps=3, timeout=timedelta(minutes=1)),
            max_steps=5,
            enable_tool_call=False,
            labels={"team": "data"},
            context_id="c",
            context=["earlier", autoglm.ContextMessage("user", "hi")],
        )
    )
    sent = wire.from_message(server.requests["CreatePlan"][0])

    assert made == wire.from_message(plan())
    assert sent.options == PlanOptions(max_steps=5, enable_tool_call=False, timeout=timedelta(minutes=1))
    assert sent.steps[0].arguments == {"expression": "1+1"}
    assert sent.labels == {"team": "data"}
    assert [item.item for item in sent.context] == ["earlier", autoglm.ContextMessage("user", "hi")]
    assert len(sent.request_id) == 26


async def test_create_is_retried_with_the_same_request_id(both: Both, server: ScriptedServer) -> None:
    server.on("CreatePlan", [GONE], [Fail("UNAVAILABLE", "SERVER_DRAINING")], [created()])
    await both.do(both.client.create("15% of 2480"))
    ids = {request.request_id for request in server.requests["CreatePlan"]}

    assert len(server.requests["CreatePlan"]) == 3
    assert len(ids) == 1


async def test_create_comes_back_to_a_busy_server_when_it_says_with_the_same_request_id(
    both: Both, server: ScriptedServer
) -> None:
    busy = Fail("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS", metadata={"limit": "9"}, retry_after=timedelta(seconds=0.01))
    server.on("CreatePlan", *[[busy]] * 3, [created()])
    await both.do(both.client.create("15% of 2480"))

    assert len(server.requests["CreatePlan"]) == 4
    assert len({request.request_id for request in server.requests["CreatePlan"]}) == 1


async def test_a_refusal_is_not_retried_and_carries_all_its_details(both: Both, server: ScriptedServer) -> None:
    faults = (Violation("steps[0].tool", "there is no tool maths; nearest: math.calculate", "TOOL_NOT_FOUND"),)
    server.on("CreatePlan", [Fail("INVALID_ARGUMENT", "INVALID_REQUEST", "one fault", violations=faults)])

    with pytest.raises(autoglm.InvalidRequestError, match="one fault") as caught:
        await both.do(both.client.create("x"))

    assert caught.value.violations == faults
    assert caught.value.reason == "INVALID_REQUEST"
    assert len(server.requests["CreatePlan"]) == 1


async def test_a_limit_says_when_to_come_back(both: Both, server: ScriptedServer) -> None:
    refusal = Fail("RESOURCE_EXHAUSTED", "TOO_MANY_PLANS", metadata={"limit": "9"}, retry_after=timedelta(seconds=1.5))
    server.on("CreatePlan", [refusal])

    with pytest.raises(autoglm.LimitError) as caught:
        await both.do(both.client.create("x"))

    assert caught.value.retry_after == timedelta(seconds=1.5)
    assert caught.value.metadata == {"limit": "9"}


@pytest.mark.parametrize("method", ["get", "cancel", "info", "health", "resolve"])
async def test_what_is_repeatable_is_retried(both: Both, server: ScriptedServer, method: str) -> None:
    server.on("GetPlan", [GONE], [plan_service_pb2.GetPlanResponse(plan=plan())])
    server.on("CancelPlan", [GONE], [plan_service_pb2.CancelPlanResponse(plan=plan())])
    server.on("ResolveStep", [GONE], [plan_service_pb2.ResolveStepResponse(plan=plan())])
    server.on("GetServerInfo", [GONE], [info()])
    server.on("Check", [GONE], [serving()])
    calls = {
        "get": lambda: both.client.get("p1"),
        "cancel": lambda: both.client.cancel("p1", "no"),
        "info": both.client.info,
        "health": both.client.health,
        "resolve": lambda: both.client.resolve("p1", "a", autoglm.Approve(), wait_sequence=7),
    }
    answer = await both.do(calls[method]())

    assert answer in (wire.from_message(plan()), wire.from_message(info()), "SERVING")
    assert sum(len(requests) for requests in server.requests.values()) == 2


async def test_a_decision_about_whatever_waits_is_sent_once(both: Both, server: ScriptedServer) -> None:
    server.on("ResolveStep", [GONE], [plan_service_pb2.ResolveStepResponse(plan=plan())])

    with pytest.raises(autoglm.UnavailableError):
        await both.do(both.client.resolve("p1", "a", autoglm.Retry()))

    assert len(server.requests["ResolveStep"]) == 1


async def test_attempts_are_bounded(both: Both, server: ScriptedServer) -> None:
    server.on("GetPlan", [GONE])

    with pytest.raises(autoglm.UnavailableError):
        await both.do(both.client.get("p1"))

    assert len(server.requests["GetPlan"]) == 6


async def test_a_server_that_is_not_there_is_named_with_what_to_check(both: Both, server: ScriptedServer) -> None:
    server.stop()

    with pytest.raises(autoglm.UnavailableError) as caught:
        await both.do(both.client.get("p1"))

    assert server.address in str(caught.value)
    assert "autoglm serve" in str(caught.value)


async def test_a_deadline_is_its_own_error(server: ScriptedServer) -> None:
    server.on("GetPlan", [Freeze()])

    for asynchronous in (False, True):
        slow = Both(asynchronous, server.address, timeout=0.2)

        with pytest.raises(autoglm.DeadlineError, match="longer timeout"):
            await slow.do(slow.client.get("p1"))

        await slow.do(slow.client.close())


async def test_lists_turn_their_pages(both: Both, server: ScriptedServer) -> None:
    page = plan_service_pb2.ListPlansResponse
    server.on("ListPlans", [page(plans=[plan(), plan()], next_page_token="t")], [page(plans=[plan()])])
    steps = plan_service_pb2.ListStepsResponse(steps=[message(Step(id="a", state=StepState.FAILED))])
    server.on("ListSteps", [steps])
    tools = tool_service_pb2.ListToolsResponse(tools=[message(Tool(name="a.b"))])
    server.on("ListTools", [tools])

    assert len(await both.collect(both.client.list(states=[PlanState.WAITING], labels={"a": "b"}))) == 3
    assert [request.page_token for request in server.requests["ListPlans"]] == ["", "t"]
    assert list(server.requests["ListPlans"][1].states) == [PlanState.WAITING]
    assert [step.id for step in await both.collect(both.client.list_steps("p1"))] == ["a"]
    assert [tool.name for tool in await both.collect(both.client.tools.list(tags=["x"]))] == ["a.b"]


async def test_a_closed_client_says_so(both: Both, server: ScriptedServer) -> None:
    server.on("GetPlan", [plan_service_pb2.GetPlanResponse(plan=plan())])
    await both.do(both.client.get("p1"))
    await both.do(both.client.close())

    with pytest.raises(autoglm.PreconditionError, match="closed"):
        await both.do(both.client.get("p1"))

    with pytest.raises(autoglm.PreconditionError, match="closed"):
        await both.collect(both.client.watch("p1"))


# --- watching


async def test_a_watch_goes_on_over_lost_streams_duplicates_and_ends(both: Both, server: ScriptedServer) -> None:
    server.on(
        "WatchPlan",
        [heartbeat(), batch(LOG[:2]), GONE],
        [batch(LOG[1:3]), ENDED],  # one is sent twice
        [heartbeat(3), Fail("CANCELLED", text="reset")],
        [batch(LOG[3:4])],  # ends OK too early
        [batch(LOG[4:])],
    )
    events = await both.collect(both.client.watch("p1"))

    assert events == LOG
    assert [request.after_sequence for request in server.requests["WatchPlan"]] == [0, 2, 3, 3, 4]
    assert [request.journal_id for request in server.requests["WatchPlan"]] == ["", *[JOURNAL] * 4]


async def test_a_gap_is_never_ignored(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch([LOG[0], LOG[2]])])

    with pytest.raises(autoglm.SequenceGapError, match="the next event has 3"):
        await both.collect(both.client.watch("p1"))


async def test_what_was_not_sent_so_is_never_given(both: Both, server: ScriptedServer) -> None:
    server.on(
        "WatchPlan",
        [batch(LOG[:2]), damaged(batch(LOG[2:4]))],
        [damaged(batch(LOG[2:]))],
        [damaged(heartbeat(2)), batch(LOG[2:])],  # what comes after it is no better
        [damaged(heartbeat(2)), ENDED],
        [batch(LOG[2:])],
    )

    assert await both.collect(both.client.watch("p1")) == LOG
    assert [request.after_sequence for request in server.requests["WatchPlan"]] == [0, 2, 2, 2, 2]


async def test_a_server_without_checksums_is_told_of(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlans", [damaged(batch_all(LOG[:2], "c"))])

    with pytest.raises(autoglm.UnavailableError, match="the checksum of the stream differs"):
        await both.collect(both.client.watch_all())


async def test_an_answer_that_cannot_be_read_is_no_plan(both: Both) -> None:
    async def unreadable(*_: Any, **__: Any) -> None:
        """Answer as grpc.aio does then."""

    with pytest.raises(autoglm.InternalError, match="cannot be read"):
        await both.do(
            both.client._link.call(lambda _: unreadable if both.asynchronous else lambda *_, **__: None, None)
        )


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        ("NOT_FOUND", "PLAN_NOT_FOUND", autoglm.NotFoundError),
        ("FAILED_PRECONDITION", "SEQUENCE_AHEAD", autoglm.PreconditionError),
        ("FAILED_PRECONDITION", "JOURNAL_CHANGED", autoglm.PreconditionError),
        ("OUT_OF_RANGE", "SEQUENCE_COMPACTED", autoglm.CompactedError),
        ("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHES", autoglm.LimitError),
        ("INTERNAL", "INTERNAL", autoglm.InternalError),
        ("UNAUTHENTICATED", "", autoglm.UnauthenticatedError),
    ],
)
async def test_a_refusal_ends_the_watch(
    both: Both, server: ScriptedServer, status: str, reason: str, error: type[Exception]
) -> None:
    server.on("WatchPlan", [batch(LOG[:1]), GONE], [Fail(status, reason)])

    with pytest.raises(error):
        await both.collect(both.client.watch("p1"))

    assert len(server.requests["WatchPlan"]) == 2


async def test_a_frozen_stream_is_left(both: Both, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch, "FROZEN_AFTER", 0.3)
    server.on("WatchPlan", [batch(LOG[:3]), Freeze()], [batch(LOG[3:])])

    assert await both.collect(both.client.watch("p1")) == LOG
    assert server.cancelled.acquire(timeout=30)


async def test_a_server_restarted_under_a_watch_goes_unnoticed(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:3]), Crash()], [batch(LOG[3:])])

    def restart() -> None:
        while server._server is not None:
            time.sleep(0.01)

        server.start()

    restarter = threading.Thread(target=restart)
    restarter.start()

    assert await both.collect(both.client.watch("p1")) == LOG
    restarter.join()


@pytest.mark.parametrize("both", ["synchronous", "asynchronous"], indirect=True)
async def test_the_end_of_a_connection_goes_unnoticed(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends its connections by age (GOAWAY, then RST) cuts the streams on them."""
    age = [("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 100)]

    with ScriptedServer(age) as old:
        old.on("WatchPlan", [batch(LOG[:3]), Freeze()], [batch(LOG[3:5]), Freeze()], [batch(LOG[5:])])
        watcher = Both(both.asynchronous, old.address)

        assert await watcher.collect(watcher.client.watch("p1")) == LOG
        assert len(old.requests["WatchPlan"]) == 3
        await watcher.do(watcher.client.close())


async def test_watches_have_their_own_connection(both: Both, server: ScriptedServer) -> None:
    server.on("GetPlan", [plan_service_pb2.GetPlanResponse(plan=plan())])
    server.on("WatchPlan", [batch(LOG)])
    await both.do(both.client.get("p1"))
    await both.collect(both.client.watch("p1"))

    assert server.peers["WatchPlan"][0] != server.peers["GetPlan"][0]


async def test_many_watches_are_spread_over_connections(
    both: Both, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("autoglm._link", "autoglm._aio_link"):
        monkeypatch.setattr(f"{module}._WATCHES_PER_CONNECTION", 2)

    server.on("WatchPlan", [batch(LOG[:1]), Freeze()])
    watches = [both.client.watch("p1") for _ in range(5)]

    for watch in watches:
        await both.do(watch.next())

    assert len(set(server.peers["WatchPlan"])) == 3

    for watch in watches:
        await both.do(watch.close())

    again = both.client.watch("p1")
    await both.do(again.next())
    await both.do(again.close())
    assert len(set(server.peers["WatchPlan"])) == 3  # there is room again


async def test_a_watch_that_was_closed_or_refused_has_ended(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:3]), Freeze()], [Fail("PERMISSION_DENIED")])
    watch = both.client.watch("p1")
    await both.do(watch.next())
    await both.do(watch.close())
    refused = both.client.watch("p1")

    with pytest.raises(autoglm.PermissionDeniedError):
        await both.do(refused.next())

    assert await both.do(watch.next()) is None
    assert await both.do(refused.next()) is None
    assert len(server.requests["WatchPlan"]) == 2


async def test_leaving_a_watch_early_cancels_its_call(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:2]), Freeze()])
    watch = both.client.watch("p1")

    assert len(await both.collect(watch, most=2)) == 2
    assert not server.cancelled.acquire(timeout=0.1)  # control: it is open until it is left

    del watch
    gc.collect()
    assert await asyncio.to_thread(server.cancelled.acquire, timeout=30)


async def test_closing_the_client_ends_a_watch_that_is_being_read(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:1]), Freeze()])
    watch = both.client.watch("p1")
    await both.do(watch.next())

    if both.asynchronous:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_outcome(watch.next()))
            await asyncio.sleep(0.05)
            await both.client.close()
    else:
        closer = threading.Timer(0.05, both.client.close)
        closer.start()
        reading = asyncio.ensure_future(_outcome(asyncio.to_thread(watch.next)))

    assert isinstance(await reading, autoglm.PreconditionError)


async def _outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except autoglm.AutoglmError as error:
        return error


async def test_a_cancelled_task_leaves_a_watch_that_goes_on(server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:2]), Freeze()], [batch(LOG[2:])])

    async with autoglm.AsyncClient(server.address) as client:
        watch = client.watch("p1")
        first = [await watch.next(), await watch.next()]

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.next(), 0.1)

        assert [*first, *[one async for one in watch]] == LOG


async def test_watching_all_plans_tells_where_to_go_on(both: Both, server: ScriptedServer) -> None:
    other = [event(1, autoglm.PlanCreated(), "p2"), event(2, autoglm.PlanSucceeded(), "p2")]
    server.on(
        "WatchPlans",
        [batch_all([], "c0"), GONE],
        [batch_all([LOG[0], other[0]], "c1"), GONE],
        [batch_all([other[1], LOG[1]], "c2"), Freeze()],
    )
    watch = both.client.watch_all(from_now=True, labels={"a": "b"})
    seen = []

    for expected in ("c0", "c1", "c1", "c2"):
        seen.append(await both.do(watch.next()))
        assert watch.cursor == expected

    await both.do(watch.close())

    assert seen == [LOG[0], other[0], other[1], LOG[1]]
    asked = server.requests["WatchPlans"]
    assert [(request.cursor, request.from_now) for request in asked] == [("", True), ("c0", False), ("c1", False)]


# --- handles


async def test_a_handle_folds_what_it_sees_and_replays_it(both: Both, server: ScriptedServer) -> None:
    server.on("CreatePlan", [created()])
    server.on("WatchPlan", [batch([*LOG[:4], progress(4, 0.5)]), GONE], [batch(LOG[4:])])
    handle = await both.do(both.client.run("15% of 2480"))

    assert handle.id == "p1"
    states = [handle.state]  # by the answer to create
    assert repr(handle).endswith(f"PlanHandle {handle.id} {handle.state.name}>")
    seen = await both.collect(handle)
    states.append(handle.state)

    assert sequences(seen) == [1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert states == [PlanState.PLANNING, PlanState.SUCCEEDED]
    assert handle.plan.answer == "372"
    assert await both.collect(handle) == LOG  # what was not stored is not replayed
    assert (await both.do(handle.result())).answer == "372"
    assert len(server.requests["WatchPlan"]) == 2


async def test_who_waits_for_a_plan_that_waits_is_told_for_what_and_how_to_decide(
    both: Both, server: ScriptedServer
) -> None:
    facts = [
        event(1, autoglm.PlanCreated()),
        event(2, autoglm.StepAdded(Step(id="pay", tool="bank.pay"))),
        replace(event(3, autoglm.StepWaiting(autoglm.WaitingReason.APPROVAL)), step_id="pay"),
    ]
    server.on("WatchPlan", [batch(facts), Freeze()])

    with pytest.raises(autoglm.ResultTimeoutError) as caught:
        await both.do(both.client.attach("p1").result(timeout=1.0))

    assert str(caught.value) == (
        "The plan p1 has not ended within 1 s; it goes on. Step pay waits for approval: "
        "client.resolve('p1', 'pay', autoglm.Decision(autoglm.Approve())), or `autoglm resolve p1 pay --approve`; "
        "autoglm.Reject() or --reject refuses it."
    )


async def test_a_cancelled_plan_says_why(both: Both, server: ScriptedServer) -> None:
    asked, ended = event(8, autoglm.PlanCancelRequested("changed my mind")), event(9, autoglm.PlanCancelled())
    server.on("WatchPlan", [batch([*LOG[:7], asked, ended])])

    with pytest.raises(autoglm.PlanCancelledError, match=r"^plan p1 ended CANCELLED: changed my mind$") as caught:
        await both.do(both.client.attach("p1").result())

    assert caught.value.cancel_reason == "changed my mind"


async def test_a_handle_left_early_goes_on_from_there(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:5]), Freeze()], [batch(LOG[5:])])
    handle = both.client.attach("p1")

    assert sequences(await both.collect(handle, most=2)) == [1, 2]
    assert handle.plan.sequence == 2
    assert sequences(await both.collect(handle, most=4)) == [1, 2, 3, 4]

    with pytest.raises(autoglm.ResultTimeoutError, match="goes on"):
        await both.do(handle.result(timeout=0.1))

    assert handle.plan.sequence == 5
    assert (await both.do(handle.result(timeout=10))).state is PlanState.SUCCEEDED
    assert [request.after_sequence for request in server.requests["WatchPlan"]] == [0, 5]


@pytest.mark.parametrize(
    ("events", "error"), [(FAILED, autoglm.PlanFailedError), (CANCELLED, autoglm.PlanCancelledError)]
)
async def test_a_plan_that_did_not_succeed_raises_with_the_plan(
    both: Both, server: ScriptedServer, events: list[Any], error: type[autoglm.PlanEndedError]
) -> None:
    server.on("WatchPlan", [batch(events)])
    handle = both.client.attach("p1")

    for _ in range(2):
        with pytest.raises(error) as caught:
            await both.do(handle.result())

        assert caught.value.plan.sequence == 8


async def test_the_result_of_a_plan_whose_events_are_gone_is_its_snapshot(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [Fail("OUT_OF_RANGE", "SEQUENCE_COMPACTED")])
    last = message(Plan(id="p1", state=PlanState.SUCCEEDED, answer="372", sequence=8))
    server.on("GetPlan", [plan_service_pb2.GetPlanResponse(plan=last)])

    assert (await both.do(both.client.attach("p1").result())).answer == "372"


async def test_a_handle_may_be_asked_again_after_an_error(both: Both, server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:3]), Fail("PERMISSION_DENIED")], [batch(LOG[3:])])
    handle = both.client.attach("p1")

    with pytest.raises(autoglm.PermissionDeniedError):
        await both.collect(handle)

    assert await both.collect(handle) == LOG


async def test_cancel_of_a_handle_names_its_plan(both: Both, server: ScriptedServer) -> None:
    server.on("CancelPlan", [plan_service_pb2.CancelPlanResponse(plan=plan())])
    await both.do(both.client.attach("p1").cancel("enough"))
    asked = server.requests["CancelPlan"][0]

    assert (asked.plan_id, asked.reason) == ("p1", "enough")


async def test_two_tasks_share_one_handle(server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:3]), ENDED], [batch(LOG[3:])])

    async with autoglm.AsyncClient(server.address) as client, asyncio.TaskGroup() as group:
        handle = client.attach("p1")

        async def follow() -> list[Any]:
            return [one async for one in handle]

        tasks = [group.create_task(follow()) for _ in range(5)]
        waiting = group.create_task(handle.result())

    assert all(task.result() == LOG for task in tasks)
    assert waiting.result().answer == "372"
    assert len(server.requests["WatchPlan"]) == 2


def test_two_threads_share_one_handle(server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:3]), ENDED], [batch(LOG[3:])])
    found: list[Any] = []

    with autoglm.Client(server.address) as client:
        handle = client.attach("p1")
        threads = [threading.Thread(target=lambda: found.append(list(handle))) for _ in range(5)]

        for thread in threads:
            thread.start()

        assert handle.result().answer == "372"

        for thread in threads:
            thread.join()

    assert found == [LOG] * 5
    assert len(server.requests["WatchPlan"]) == 2


def test_run_makes_the_default_client_if_there_is_none(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_ADDRESS", server.address)
    server.on("GetServerInfo", [info()])
    server.on("CreatePlan", [created()])

    try:
        assert autoglm.run("15% of 2480", labels={"a": "b"}).id == "p1"
        assert autoglm.init().address == server.address
    finally:
        autoglm.shutdown()


# --- tools


async def test_calling_a_tool_gives_progress_and_then_its_result(both: Both, server: ScriptedServer) -> None:
    answer = tool_service_pb2.CallToolResponse
    reports = [answer(progress=tool_service_pb2.ToolProgress(fraction=part)) for part in (0.5, 1.0)]
    server.on("CallTool", [*reports, answer(result=message(ToolResult(output={"value": 372})))])
    seen: list[float] = []
    called = both.client.tools.call("math.calculate", {"a": [1, 2.5]}, progress=lambda one: seen.append(one.fraction))

    assert (await both.do(called)).output == {"value": 372}
    assert seen == [0.5, 1.0]
    assert wire.from_message(server.requests["CallTool"][0].arguments) == {"a": [1, 2.5]}


async def test_a_tool_that_fails_raises_what_it_said(both: Both, server: ScriptedServer) -> None:
    failure = autoglm.Failure("NOT_THERE", "files.read", "no such file", metadata={"path": "x"})
    server.on("CallTool", [tool_service_pb2.CallToolResponse(failure=message(failure))])

    with pytest.raises(autoglm.ToolFailedError, match=r"files.read: no such file") as caught:
        await both.do(both.client.tools.call("files.read", {"path": "x"}))

    assert caught.value.failure == failure


@pytest.mark.parametrize(
    "last", [{"result": ToolResult()}, {"failure": autoglm.Failure("NO")}], ids=["result", "failure"]
)
async def test_a_call_of_a_tool_is_not_cancelled_while_it_ends(
    both: Both, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, last: dict[str, Any]
) -> None:
    monkeypatch.setattr("autoglm._stream.STATUS_SECONDS", 10.0)
    answer = tool_service_pb2.CallToolResponse(**{kind: message(value) for kind, value in last.items()})
    server.on("CallTool", [answer, Linger()])

    with suppress(autoglm.ToolFailedError):
        await both.do(both.client.tools.call("time.now"))

    server.stop()
    assert server.left == 0


async def test_a_call_of_a_tool_that_does_not_end_is_not_waited_for(
    both: Both, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoglm._stream.STATUS_SECONDS", 0.01)
    server.on("CallTool", [tool_service_pb2.CallToolResponse(result=message(ToolResult("now"))), Freeze()])

    assert (await both.do(both.client.tools.call("time.now"))).output == "now"
    assert await asyncio.to_thread(server.cancelled.acquire, timeout=30)


async def test_a_call_of_a_tool_is_never_repeated(both: Both, server: ScriptedServer) -> None:
    server.on("CallTool", [GONE])

    with pytest.raises(autoglm.UnavailableError):
        await both.do(both.client.tools.call("pay"))

    assert len(server.requests["CallTool"]) == 1


async def test_arguments_that_cannot_be_sent_are_the_callers_fault(both: Both, server: ScriptedServer) -> None:
    with pytest.raises(autoglm.InvalidRequestError):
        await both.do(both.client.tools.call("x", {"a": float("nan")}))

    assert not server.requests["CallTool"]


async def test_get_a_tool(both: Both, server: ScriptedServer) -> None:
    server.on("GetTool", [tool_service_pb2.GetToolResponse(tool=message(Tool(name="a.b")))])

    assert (await both.do(both.client.tools.get("a.b"))).name == "a.b"


# --- a time limit on reading


def test_ctrl_c_leaves_a_handle_that_goes_on(server: ScriptedServer) -> None:
    server.on("WatchPlan", [batch(LOG[:3]), Freeze()], [batch(LOG[3:])])

    with autoglm.Client(server.address) as client:
        handle = client.attach("p1")
        events = iter(handle)

        assert [next(events) for _ in range(3)] == LOG[:3]

        threading.Thread(target=_interrupt, args=[threading.get_ident()]).start()

        with pytest.raises(KeyboardInterrupt):
            next(events)

        assert server.cancelled.acquire(timeout=30)
        assert list(handle) == LOG


def _interrupt(main: int) -> None:
    """Interrupt the main thread as soon as it waits for the server, and not on its way there."""
    import _thread

    while (frame := sys._current_frames()[main].f_back) is None or frame.f_globals["__name__"] != "grpc._common":
        time.sleep(0.01)

    _thread.interrupt_main()
