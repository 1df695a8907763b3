"""Files over gRPC: ReadArtifact with its refusals and its readers, and the parts before the result of a direct call."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from pydantic import ByteSize

from autoglm.model import Artifact, Plan, Step, Tool, ToolProgress, ToolResult
from autoglm.v1 import plan_service_pb2 as pb
from autoglm.v1 import tool_service_pb2
from autoglm_server.service.deadlines import Deadlines
from autoglm_server.service.watch import WatchTimes
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.tool import Invocation, ToolCallError
from tests.server.service.harness import Edge, Refusal, refusal, serving, until

CONTENT = os.urandom(600_000)
NOWHERE = f"sha256:{'0' * 64}"


async def plan_with(edge: Edge, content: bytes = CONTENT, plan_id: str = "plan") -> Artifact:
    kept = await edge.artifacts.store.put(plan_id, "chart.png", "image/png", content)
    step = Step(id="draw", result=ToolResult("ok", (Artifact("a link", "text/html", 5), kept)))
    edge.plans.plans[plan_id] = Plan(id=plan_id, steps=(Step(id="other"), step))
    return kept


async def read(edge: Edge, digest: str, offset: int = 0, plan_id: str = "plan") -> list[pb.ReadArtifactResponse]:
    request = pb.ReadArtifactRequest(plan_id=plan_id, digest=digest, offset=offset)
    return [message async for message in (await edge.stub()).ReadArtifact(request)]


async def refused(edge: Edge, digest: str, offset: int = 0, plan_id: str = "plan") -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(edge, digest, offset, plan_id)

    return refusal(caught.value)


async def read_into(call: Any, found: list[bytes]) -> None:
    async for message in call:
        found.append(getattr(message, "data", b""))  # noqa: PERF401  # what came before it broke off counts


async def test_first_what_it_is_then_its_bytes_in_pieces(served: Edge) -> None:
    kept = await plan_with(served)
    head, *pieces = await read(served, kept.digest)

    assert (head.artifact.name, head.artifact.media_type) == ("chart.png", "image/png")
    assert (head.artifact.size_bytes, head.artifact.digest, head.data) == (len(CONTENT), kept.digest, b"")
    assert b"".join(piece.data for piece in pieces) == CONTENT
    assert all(0 < len(piece.data) <= 256 << 10 and not piece.HasField("artifact") for piece in pieces)


@pytest.mark.parametrize("offset", [1, 256 << 10, 599_999, 600_000])
async def test_it_goes_on_from_an_offset(served: Edge, offset: int) -> None:
    kept = await plan_with(served)
    head, *pieces = await read(served, kept.digest, offset)

    assert head.artifact.size_bytes == len(CONTENT)
    assert b"".join(piece.data for piece in pieces) == CONTENT[offset:]


async def test_an_empty_file_is_its_head(served: Edge) -> None:
    kept = await plan_with(served, b"")

    assert [message.HasField("artifact") for message in await read(served, kept.digest)] == [True]


async def test_what_cannot_be_read_is_refused_with_its_reason(served: Edge) -> None:
    kept = await plan_with(served)
    other = await plan_with(served, b"another's", "other")
    unnamed = await served.artifacts.store.put("plan", "of a failed call", "", b"no result names it")

    assert (await refused(served, kept.digest, plan_id="none")).info.reason == "PLAN_NOT_FOUND"
    assert (await refused(served, kept.digest, len(CONTENT) + 1)).fields == {"offset": "OUT_OF_RANGE"}
    assert set((await refused(served, "x", -1, "")).fields) == {"plan_id", "digest", "offset"}

    for digest in (NOWHERE, other.digest, unnamed.digest):
        found = await refused(served, digest)
        assert (found.code, found.info.reason) == (grpc.StatusCode.NOT_FOUND, "ARTIFACT_NOT_FOUND")
        assert dict(found.info.metadata) == {"plan_id": "plan", "digest": digest}

    await served.artifacts.store.remove("plan")
    assert (await refused(served, kept.digest)).info.reason == "ARTIFACT_NOT_FOUND"


async def test_a_result_that_names_the_file_of_another_plan_gives_no_way_to_it(served: Edge) -> None:
    kept = await plan_with(served, b"secret", "other")
    served.plans.plans["plan"] = Plan(id="plan", steps=(Step(id="a", result=ToolResult(None, (kept,))),))

    assert (await refused(served, kept.digest)).info.reason == "ARTIFACT_NOT_FOUND"
    assert (await read(served, kept.digest, plan_id="other"))[1].data == b"secret"


async def test_how_many_read_at_once_is_bounded() -> None:
    async with serving(limits=LimitSettings(artifact_reads=1)) as edge:
        kept = await plan_with(edge, bytes(8 << 20))
        request = pb.ReadArtifactRequest(plan_id="plan", digest=kept.digest)
        slow = (await edge.stub()).ReadArtifact(request)
        await slow.read()
        found = await refused(edge, kept.digest)

        assert (found.code, found.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
        assert (found.quota, found.retry) == ("limits.artifact_reads", 1.0)

        slow.cancel()
        await until(lambda: edge.artifacts.open == 0)
        assert len(await read(edge, kept.digest)) > 1


async def test_one_who_reads_nothing_is_ended_and_told_where_to_go_on() -> None:
    async with serving(times=WatchTimes(write=0.1)) as edge:
        kept = await plan_with(edge, content := os.urandom(8 << 20))
        request = pb.ReadArtifactRequest(plan_id="plan", digest=kept.digest)
        call = (await edge.stub()).ReadArtifact(request)
        await until(lambda: edge.artifacts.open == 1)
        await until(lambda: edge.artifacts.open == 0)
        found: list[bytes] = []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_into(call, found)

        ended = refusal(caught.value)
        assert (ended.code, ended.info.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_ENDED")
        assert int(ended.info.metadata["offset"]) < len(content)
        edge.artifacts._writes = Deadlines(60.0)  # who reads may be slow on a busy machine
        rest = await read(edge, kept.digest, sum(map(len, found)))
        whole = b"".join([*found, *(message.data for message in rest)])
        assert hashlib.sha256(whole).hexdigest() == kept.digest[7:]


async def test_a_drain_ends_reads_with_where_to_go_on(served: Edge) -> None:
    kept = await plan_with(served)
    served.artifacts.drain()

    found = await refused(served, kept.digest, 7)
    assert (found.info.reason, dict(found.info.metadata)) == ("WATCH_ENDED", {"offset": "7"})


# --- direct calls


async def call(edge: Edge, *files: tuple[str, bytes], named: Sequence[str] | None = None) -> list[Any]:
    """Call a tool that saves ``files`` and whose result names them all, or those ``named``."""

    async def behave(invocation: Invocation) -> ToolResult:
        kept = [await invocation.artifacts.save(name, content, "text/plain") for name, content in files]
        return ToolResult("ok", tuple(each for each in kept if named is None or each.name in named))

    edge.catalog.table["save"] = Tool(name="save", digest="d")
    edge.catalog.behave = behave
    request = tool_service_pb2.CallToolRequest(name="save")
    return [message async for message in (await edge.tool_stub()).CallTool(request)]


def files_of(messages: list[Any]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    name = ""
    for message in messages:
        if message.WhichOneof("message") == "artifact_chunk":
            name = message.artifact_chunk.artifact.name or name
            assert message.artifact_chunk.HasField("artifact") is (name not in found)
            found[name] = found.get(name, b"") + message.artifact_chunk.data

    return found


async def test_files_come_in_parts_before_the_result(served: Edge) -> None:
    messages = await call(served, ("large", CONTENT), ("empty", b""), ("same", CONTENT))

    assert files_of(messages) == {"large": CONTENT, "empty": b"", "same": CONTENT}
    assert [artifact.name for artifact in messages[-1].result.artifacts] == ["large", "empty", "same"]
    assert messages[0].artifact_chunk.artifact.digest == f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


async def test_a_file_that_the_result_does_not_name_is_dropped(served: Edge) -> None:
    assert files_of(await call(served, ("a", b"1"), ("b", b"2"), named=["b"])) == {"b": b"2"}


async def test_nothing_of_a_direct_call_is_kept(served: Edge) -> None:
    store: Any = served.artifacts.store
    await call(served, ("a", CONTENT))
    await until(lambda: not any(store._plans.iterdir()))

    assert not [path for path in store._content.rglob("*") if path.is_file()]


@pytest.mark.parametrize("what", ["files", "progress"])
async def test_a_direct_call_whose_caller_reads_nothing_is_ended_and_gives_its_place_back(what: str) -> None:
    async def behave(invocation: Invocation) -> ToolResult:
        if what == "files":
            return ToolResult("ok", (await invocation.artifacts.save("large", bytes(8 << 20)),))

        while True:
            invocation.report(ToolProgress(text="x" * (64 << 10)))
            await asyncio.sleep(0)

    async with serving(times=WatchTimes(write=0.1)) as edge:
        edge.catalog.table["save"] = Tool(name="save", digest="d")
        edge.catalog.behave = behave
        call = (await edge.tool_stub()).CallTool(tool_service_pb2.CallToolRequest(name="save"))
        await until(lambda: edge.boundary.active == 1)
        await until(lambda: edge.boundary.active == 0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_into(call, [])

        ended = refusal(caught.value)
        assert (ended.code, ended.info.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_ENDED")
        assert "nothing was read for 0.1 s" in ended.message


async def test_the_limits_of_a_call() -> None:
    limits = LimitSettings(artifact=ByteSize(2048), call_artifacts=2, call_artifacts_bytes=ByteSize(3000))
    async with serving(limits=limits) as edge:
        assert files_of(await call(edge, ("a", bytes(2048)), ("b", bytes(952)))) != {}

        for files, limit in (
            ([("a", bytes(2049))], "2048"),
            ([("a", bytes(2048)), ("b", bytes(953))], "3000"),
            ([("a", b""), ("b", b""), ("c", b"")], "2"),
            ([("a", b""), ("a", b"x")], ""),
        ):
            failure = (await call(edge, *files))[-1].failure
            assert (failure.reason, failure.domain, failure.retryable) == ("INVALID_ARTIFACT", "autoglm", False)
            assert failure.metadata.get("limit", "") == limit


async def test_a_sink_counts_what_comes_in_pieces(served: Edge) -> None:
    async def endless() -> Any:
        while True:
            yield bytes(1 << 20)

    sink = served.artifacts.sink("plan")
    with pytest.raises(ToolCallError, match=r"limits\.artifact\)"):
        await asyncio.wait_for(sink.save("a", endless()), 10)
