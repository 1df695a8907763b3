"""ToolService: the catalog in pages, and direct calls with their checks, progress, results, failures and ends."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import ParseDict

from autoglm import wire
from autoglm.model import Failure, Tool, ToolProgress, ToolResult
from autoglm.v1 import tool_service_pb2 as pb
from autoglm_server.service.mailbox import TEXT_MAX, Mailbox
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.tool import AbandonedError, Invocation, ToolCallError
from tests.server.service.harness import Edge, Refusal, refusal, serving, until

TOOL = Tool(name="echo", digest="abc", timeout=timedelta(seconds=5))


async def refused(call: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call

    return refusal(caught.value)


async def call(edge: Edge, **fields: Any) -> list[pb.CallToolResponse]:
    edge.catalog.table.setdefault("echo", TOOL)
    request = ParseDict({"name": "echo"} | fields, pb.CallToolRequest())
    return [message async for message in (await edge.tool_stub()).CallTool(request)]


async def test_tools_come_sorted_and_in_pages(served: Edge) -> None:
    served.catalog.table = {name: Tool(name=name, tags=("t",) * (name < "f")) for name in "hgfedcba"}
    stub = await served.tool_stub()
    found, token = [], ""

    while True:
        page = await stub.ListTools(pb.ListToolsRequest(page_size=3, page_token=token))
        assert page.catalog_digest == "d" * 64
        found += [tool.name for tool in page.tools]
        token = page.next_page_token

        if not token:
            break

    assert "".join(found) == "abcdefgh"
    page = await stub.ListTools(pb.ListToolsRequest(tags=["t"]))
    assert "".join(tool.name for tool in page.tools) == "abcde"
    assert not (await stub.ListTools(pb.ListToolsRequest(provider="nobody"))).tools


async def test_a_page_of_tools_is_bounded_by_size_too() -> None:
    async with serving(limits=LimitSettings(response_bytes=5_000)) as edge:  # type: ignore[arg-type]
        edge.catalog.table = {name: Tool(name=name, description="d" * 1000) for name in "abcdefgh"}
        page = await (await edge.tool_stub()).ListTools(pb.ListToolsRequest(page_size=500))

        assert 0 < len(page.tools) < 8
        assert page.next_page_token


async def test_a_tool_that_is_not_there(served: Edge) -> None:
    served.catalog.table = {"echo": TOOL}
    told = await refused((await served.tool_stub()).GetTool(pb.GetToolRequest(name="echoo")))

    assert (told.code, told.info.reason) == (grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND")
    assert told.info.metadata["tool"] == "echoo"
    assert "echo" in told.message
    assert (await (await served.tool_stub()).GetTool(pb.GetToolRequest(name="echo"))).tool.digest == "abc"


async def test_a_result(served: Edge) -> None:
    (message,) = await call(served, arguments={"n": 1}, idempotencyKey="key")

    assert message.result.output.number_value == 42
    invocation = served.catalog.calls[0]
    assert (invocation.tool, invocation.arguments, invocation.idempotency_key) == ("echo", {"n": 1}, "key")
    assert invocation.timeout == 5
    assert invocation.context.route == (served.journal.journal_id,)


async def test_progress_comes_before_the_result(served: Edge) -> None:
    first_was_read = asyncio.Event()

    async def behave(invocation: Invocation) -> ToolResult:
        invocation.report(ToolProgress(0.5, "half", text="one "))
        await first_was_read.wait()
        invocation.report(ToolProgress(0.6, text="two "))
        invocation.report(ToolProgress(1.0, "all", data={"n": 1}, text="three"))
        return ToolResult(output="done")

    served.catalog.behave = behave
    served.catalog.table["echo"] = TOOL
    stream = (await served.tool_stub()).CallTool(pb.CallToolRequest(name="echo"))
    first = await stream.read()
    assert (first.progress.fraction, first.progress.message, first.progress.text) == (0.5, "half", "one ")

    first_was_read.set()
    second, last = await stream.read(), await stream.read()
    assert (second.progress.fraction, second.progress.message, second.progress.text) == (1.0, "all", "two three")
    assert second.progress.data.struct_value["n"] == 1
    assert last.result.output.string_value == "done"
    assert await stream.read() is grpc.aio.EOF


async def test_a_failure_is_data(served: Edge) -> None:
    def fail(_: Invocation) -> ToolResult:
        raise ToolCallError(Failure("NOT_THERE", "echo", "no such thing"))

    served.catalog.behave = fail
    (message,) = await call(served)

    assert (message.failure.reason, message.failure.domain) == ("NOT_THERE", "echo")


async def test_a_call_that_cannot_be_stopped_is_told(served: Edge) -> None:
    def fail(_: Invocation) -> ToolResult:
        raise AbandonedError

    served.catalog.behave = fail
    (message,) = await call(served)

    assert message.failure.outcome_unknown


async def test_a_bug_of_a_provider_is_opaque(served: Edge) -> None:
    def fail(_: Invocation) -> ToolResult:
        raise ValueError("hunter2")

    served.catalog.behave = fail

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(served)

    told = refusal(caught.value)
    assert told.code is grpc.StatusCode.INTERNAL
    assert "hunter2" not in told.message


async def test_another_tool_than_was_meant(served: Edge) -> None:
    assert (await call(served, toolDigest="abc"))[0].HasField("result")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(served, toolDigest="abd")

    told = refusal(caught.value)
    assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOOL_CHANGED")
    assert told.info.metadata["digest"] == "abc"
    assert len(served.catalog.calls) == 1


async def test_approval_binds_to_the_arguments(served: Edge) -> None:
    served.catalog.table["echo"] = Tool(name="echo", requires_approval=True)
    digest = wire.digest({"n": 1})

    for context in ({}, {"approval": {"argumentsDigest": wire.digest({"n": 2})}}, {"approval": {"principal": "me"}}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(served, arguments={"n": 1}, context=context)

        told = refusal(caught.value)
        assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REQUIRED")

    for written in (digest, digest.removeprefix("sha256:")):
        context = {"approval": {"principal": "me", "argumentsDigest": written}}
        assert (await call(served, arguments={"n": 1}, context=context))[0].HasField("result")


async def test_a_loop_of_servers_is_cut(served: Edge) -> None:
    assert (await call(served, context={"route": ["other"]}))[0].HasField("result")
    assert served.catalog.calls[0].context.route == ("other", served.journal.journal_id)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(served, context={"route": ["other", served.journal.journal_id]})

    told = refusal(caught.value)
    assert (told.code, told.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_LOOP")
    assert told.info.metadata["route"] == f"other,{served.journal.journal_id}"


async def test_the_calls_deadline_bounds_the_tools_time(served: Edge) -> None:
    served.catalog.table["echo"] = TOOL
    stub = await served.tool_stub()
    [_ async for _ in stub.CallTool(pb.CallToolRequest(name="echo"), timeout=2)]
    [_ async for _ in stub.CallTool(pb.CallToolRequest(name="echo"), timeout=60)]

    assert served.catalog.calls[0].timeout < 3  # the clocks of transport and server differ by some ms
    assert served.catalog.calls[1].timeout == 5


async def test_a_client_that_goes_away_stops_the_tool(served: Edge) -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def behave(_: Invocation) -> ToolResult:
        started.set()

        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

        raise AssertionError

    served.catalog.behave = behave
    served.catalog.table["echo"] = TOOL
    stream = (await served.tool_stub()).CallTool(pb.CallToolRequest(name="echo"))
    reading = asyncio.ensure_future(stream.read())
    await started.wait()
    stream.cancel()
    await stopped.wait()

    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_direct_calls_are_bounded() -> None:
    async with serving(limits=LimitSettings(direct_calls=2)) as edge:
        running, most, release = 0, 0, asyncio.Event()

        async def behave(_: Invocation) -> ToolResult:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await release.wait()
            running -= 1
            return ToolResult(output=1)

        edge.catalog.behave = behave
        edge.catalog.table["echo"] = TOOL

        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(call(edge)) for _ in range(5)]

            await until(lambda: running == 2)
            await asyncio.sleep(0.1)
            assert running == 2
            release.set()

        assert most == 2
        assert all(call.result()[0].HasField("result") for call in calls)


async def test_a_mailbox_keeps_the_end_of_a_long_text() -> None:
    mailbox = Mailbox()
    mailbox.put(ToolProgress(text="a" * TEXT_MAX))
    mailbox.put(ToolProgress(0.5, text="b" * 10))
    mailbox.close()
    mailbox.put(ToolProgress(text="late"))
    held = await mailbox.next()

    assert held is not None
    assert held.text == "a" * (TEXT_MAX - 10) + "b" * 10
    assert held.fraction == 0.5
    assert await mailbox.next() is None
