"""The server as a process: start, serve, drain, crash, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from autoglm._version import __version__
from autoglm.v1 import plan_pb2, tool_service_pb2
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.app import SIGNAL_REPEAT_SECONDS
from tests.server.service.harness import refusal, until


async def read_all(call: Any, found: list[Any] | None = None) -> list[Any]:
    """Read a stream of batches; gives the events."""
    found = [] if found is None else found

    while (message := await call.read()) is not grpc.aio.EOF:
        found += message.events

    return found


def plan_of(*steps: dict[str, Any], **fields: Any) -> pb.CreatePlanRequest:
    return ParseDict({"steps": list(steps)} | fields, pb.CreatePlanRequest())


async def test_a_plan_from_end_to_end(start: Any) -> None:
    server = await start().serving()
    plans = await server.plans()
    request = plan_of(
        {"id": "a", "tool": "math.calculate", "arguments": {"expression": "6 * 7"}},
        {"id": "b", "tool": "math.calculate", "arguments": {"expression": "${a.result} + 1"}},
        requestId="one",
    )
    created = (await plans.CreatePlan(request)).plan
    events = await read_all(plans.WatchPlan(pb.WatchPlanRequest(plan_id=created.id, durable_only=True)))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].WhichOneof("fact") == "plan_succeeded", events[-1]

    again = await plans.CreatePlan(request)
    assert (again.plan.id, again.existing) == (created.id, True)
    request.labels["k"] = "v"

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plans.CreatePlan(request)

    assert refusal(caught.value).info.reason == "REQUEST_ID_CONFLICT"
    plan = (await plans.GetPlan(pb.GetPlanRequest(plan_id=created.id))).plan
    assert (plan.state, plan.sequence) == (plan_pb2.PLAN_STATE_SUCCEEDED, len(events))
    listed = await plans.ListPlans(pb.ListPlansRequest(states=[plan_pb2.PLAN_STATE_SUCCEEDED]))
    assert [one.id for one in listed.plans] == [created.id]
    assert [step.id for step in (await plans.ListSteps(pb.ListStepsRequest(plan_id=created.id))).steps] == ["a", "b"]


async def test_what_a_plan_is_refused_for_comes_at_once(start: Any) -> None:
    server = await start().serving()
    steps: list[dict[str, Any]] = [
        {"id": "a", "tool": "math.calculat", "arguments": {"expression": "1"}},
        {"id": "b", "tool": "math.calculate"},
    ]

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (await server.plans()).CreatePlan(plan_of(*steps))

    told = refusal(caught.value)
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {field.partition(".")[0] for field in told.fields} == {"steps[0]", "steps[1]"}
    assert "math.calculate" in told.message


async def test_a_tool_is_called_directly(start: Any) -> None:
    server = await start().serving()
    tools = await server.tools()
    request = ParseDict(
        {"name": "math.calculate", "arguments": {"expression": "2 + 2"}}, tool_service_pb2.CallToolRequest()
    )
    messages = [message async for message in tools.CallTool(request)]

    assert messages[-1].HasField("result"), messages
    request.arguments["expression"] = 5
    messages = [message async for message in tools.CallTool(request)]
    assert messages[-1].failure.reason == "INVALID_ARGUMENTS"


async def test_what_is_written_and_where(start: Any, tmp_path: Path) -> None:
    server = await start().serving()
    assert server.file["version"] == __version__
    assert (server.file["pid"], server.file["embedded"], server.file["fingerprint"]) == (server.popen.pid, False, "")
    assert (server.data_dir / "server.json").stat().st_mode & 0o777 == 0o600
    await (await server.plans()).GetServerInfo(pb.GetServerInfoRequest())
    server.signal()

    assert await server.ended() == 0
    assert server.popen.stdout.read() == ""
    assert not (server.data_dir / "server.json").exists()
    lines = server.lines()
    assert f"listening on {server.address}" in [line["message"] for line in lines]
    (call,) = [line for line in lines if line.get("method", "").endswith("GetServerInfo")]
    assert call["code"] == "OK"
    assert {"time", "level", "seconds"} <= call.keys()


async def test_the_port_is_not_shared(start: Any, tmp_path: Path) -> None:
    server = await start().serving()
    port = server.address.rpartition(":")[2]
    other = start("--port", port, data_dir=tmp_path / "other")

    assert await other.ended() == 2
    (told,) = other.log.read_text().splitlines()  # without the transport's own words
    assert told == (
        f"autoglm: cannot listen on 127.0.0.1:{port}: the port is in use; stop who has it, or choose another with --port"
    )
    assert not (tmp_path / "other" / "server.json").exists()
    assert (await (await server.plans()).GetServerInfo(pb.GetServerInfoRequest())).version


async def test_the_data_directory_is_not_shared(start: Any) -> None:
    server = await start().serving()
    other, embedded = start(), start("--embedded")

    assert await other.ended() == 2
    assert f"process {server.popen.pid}" in other.log.read_text()
    assert await embedded.ended() == 75
    assert server.file["pid"] == server.popen.pid
    assert (server.data_dir / "server.json").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--host", "203.0.113.7"], "203.0.113.7 is no address of this machine"),
        (["--planner", "magic"], "planner.kind 'magic' is not there; this server has: llm, rules"),
        (["--journal", "redis://x"], "journal.url 'redis://x' is not known"),
        (["--provider", "x=python:/no/such/file.py"], "the tools cannot be set up"),
        (["--provider", "nonsense"], "write NAME=URI"),
        (["--log-level", "loud", "--port", "x"], "--port: server.port = 'x'"),
    ],
)
async def test_what_it_refuses_to_start_with(start: Any, flags: list[str], told: str) -> None:
    server = start(*flags)

    assert await server.ended() == 2
    text = server.log.read_text()
    assert told in text
    assert "Traceback" not in text


async def test_a_drain(start: Any, tmp_path: Path) -> None:
    """A call that is under way may end, the watch ends with where to resume, and the next start goes on."""
    server = await start("--provider", f"t=python:{tmp_path / 'tools.py'}").serving()
    plans, health = await server.plans(), await server.health()
    request = plan_of(
        {"id": "a", "tool": "t.gate", "arguments": {"path": str(tmp_path / "go")}},
        {"id": "b", "tool": "t.count", "arguments": {"path": str(tmp_path / "counted")}, "dependsOn": ["a"]},
    )
    created = (await plans.CreatePlan(request)).plan
    watch = plans.WatchPlan(pb.WatchPlanRequest(plan_id=created.id, durable_only=True))
    seen: list[Any] = []

    while not any(event.WhichOneof("fact") == "step_started" for event in seen):
        seen += (await watch.read()).events

    server.signal()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(watch, seen)

    told = refusal(caught.value)
    assert (told.code, told.info.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_ENDED")
    assert told.info.metadata["after_sequence"] == str(seen[-1].sequence)
    state = (await health.Check(health_pb2.HealthCheckRequest())).status
    assert state == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await plans.GetPlan(pb.GetPlanRequest(plan_id=created.id))).plan.state == plan_pb2.PLAN_STATE_RUNNING

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plans.CreatePlan(plan_of({"id": "a", "tool": "t.gate", "arguments": {"path": "x"}}))

    assert refusal(caught.value).info.reason == "SERVER_DRAINING"
    (tmp_path / "go").touch()
    assert await server.ended() == 0
    assert not (tmp_path / "counted").exists()  # no call starts in a drain

    server = await start("--provider", f"t=python:{tmp_path / 'tools.py'}").serving()
    plans = await server.plans()
    after, journal_id = int(told.info.metadata["after_sequence"]), told.info.metadata["journal_id"]
    resume = pb.WatchPlanRequest(plan_id=created.id, after_sequence=after, journal_id=journal_id, durable_only=True)
    rest = await read_all(plans.WatchPlan(resume))
    assert [event.sequence for event in seen + rest] == list(range(1, len(seen + rest) + 1))
    assert rest[0].WhichOneof("fact") == "step_succeeded"  # the call under way was recorded before the end
    assert rest[-1].WhichOneof("fact") == "plan_succeeded"
    assert (tmp_path / "counted").read_text() == "x\n"


async def test_a_drain_has_an_end(start: Any, tmp_path: Path) -> None:
    server = await start("--provider", f"t=python:{tmp_path / 'tools.py'}", SERVER__DRAIN="200ms").serving()
    plans = await server.plans()
    request = plan_of({"id": "a", "tool": "t.gate", "arguments": {"path": str(tmp_path / "never")}})
    created = (await plans.CreatePlan(request)).plan
    watch = plans.WatchPlan(pb.WatchPlanRequest(plan_id=created.id))
    await watch.read()
    server.signal()
    await until(lambda: "SIGTERM: draining" in server.log.read_text())
    server.signal()  # as GNU timeout does: once for the process, once for its group
    (tmp_path / "later").touch()

    assert await server.ended() == 0
    watch.cancel()


async def test_a_second_signal_ends_it_now(start: Any, tmp_path: Path) -> None:
    server = await start("--provider", f"t=python:{tmp_path / 'tools.py'}", SERVER__DRAIN="10m").serving()
    plans = await server.plans()
    request = plan_of({"id": "a", "tool": "t.gate", "arguments": {"path": str(tmp_path / "never")}})
    created = (await plans.CreatePlan(request)).plan
    watch = plans.WatchPlan(pb.WatchPlanRequest(plan_id=created.id, durable_only=True))
    facts: list[str] = []

    while "step_started" not in facts:
        facts += [event.WhichOneof("fact") for event in (await watch.read()).events]

    server.signal(signal.SIGINT)
    await until(lambda: "SIGINT: draining" in server.log.read_text())
    assert server.popen.poll() is None
    await asyncio.sleep(SIGNAL_REPEAT_SECONDS)  # real time is what tells a second wish from the first one's echo
    server.signal(signal.SIGINT)

    assert await server.ended() == 128 + signal.SIGINT
    watch.cancel()


async def test_a_crash_loses_nothing_that_was_acknowledged(start: Any, tmp_path: Path) -> None:
    server = await start("--provider", f"t=python:{tmp_path / 'tools.py'}").serving()
    plans = await server.plans()
    request = plan_of({"id": "a", "tool": "t.gate", "arguments": {"path": str(tmp_path / "go")}}, requestId="r")
    created = (await plans.CreatePlan(request)).plan
    server.signal(signal.SIGKILL)
    await server.ended()
    stale = (server.data_dir / "server.json").read_text()
    (tmp_path / "go").touch()

    (server.data_dir / "server.json").unlink()  # the fixture waits for the new one
    server = await start("--provider", f"t=python:{tmp_path / 'tools.py'}").serving()
    assert (server.data_dir / "server.json").read_text() != stale
    plans = await server.plans()
    again = await plans.CreatePlan(request)
    assert (again.plan.id, again.existing) == (created.id, True)
    events = await read_all(plans.WatchPlan(pb.WatchPlanRequest(plan_id=created.id, durable_only=True)))
    facts = [event.WhichOneof("fact") for event in events]
    assert "plan_resumed" in facts
    assert facts[-1] == "plan_succeeded"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_cannot_be_written_to(start: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    server = start()

    assert await server.ended() == 2
    assert "cannot write to the data directory" in server.log.read_text()


async def test_a_port_that_anything_else_has(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start("--port", str(taken.getsockname()[1]))

        assert await server.ended() == 2
        assert "the port is in use" in server.log.read_text()
