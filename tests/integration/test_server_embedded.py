"""The embedded server: its socket, its file, and that it goes when nobody needs it, and not before."""

# ruff: noqa: ASYNC240 - a test may look at the disk
from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from autoglm.v1 import plan_pb2
from autoglm.v1 import plan_service_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
QUICK = {"SERVER__IDLE": "400ms"}


async def test_it_is_found_by_its_file_and_reached_by_its_socket(start: Any) -> None:
    server = await start("--embedded", "--fingerprint", "abc").serving()

    assert (server.file["embedded"], server.file["fingerprint"], server.file["pid"]) == (True, "abc", server.popen.pid)
    path = Path(server.address.removeprefix("unix://"))
    assert path.is_relative_to(server.data_dir)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.getsid(server.popen.pid) == server.popen.pid
    assert (await (await server.plans()).GetServerInfo(pb.GetServerInfoRequest())).planner == "rules"
    server.signal()
    assert await server.ended() == 0
    assert not path.exists()


async def test_a_long_path_gets_a_folder_of_its_own(start: Any, tmp_path: Path) -> None:
    server = await start("--embedded", data_dir=tmp_path / ("long" * 30)).serving()
    path = Path(server.address.removeprefix("unix://"))

    assert len(os.fsencode(path)) <= 100
    assert path.parent.stat().st_mode & 0o777 == 0o700
    server.signal()
    assert await server.ended() == 0
    assert not path.parent.exists()


async def test_a_socket_left_by_a_crash_is_replaced(start: Any) -> None:
    server = await start("--embedded").serving()
    server.signal(signal.SIGKILL)
    await server.ended()
    (server.data_dir / "server.json").unlink()
    again = await start("--embedded").serving()

    assert again.address == server.address
    assert (await (await again.plans()).GetServerInfo(pb.GetServerInfoRequest())).version


async def test_it_goes_when_nobody_is_there(start: Any) -> None:
    server = await start("--embedded", **QUICK).serving()

    assert await server.ended() == 0
    assert not (server.data_dir / "server.json").exists()
    assert "nobody is attached" in server.log.read_text()


async def test_it_stays_while_a_client_is_attached(start: Any) -> None:
    server = await start("--embedded", **QUICK).serving()
    watch = (await server.health()).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    await asyncio.sleep(1.5)
    assert server.popen.poll() is None

    watch.cancel()
    assert await server.ended() == 0


async def test_it_stays_while_a_plan_can_make_progress(start: Any, tmp_path: Path) -> None:
    server = await start("--embedded", "--provider", f"t=python:{tmp_path / 'tools.py'}", **QUICK).serving()
    steps = [{"id": "a", "tool": "t.gate", "arguments": {"path": str(tmp_path / "go")}}]
    await (await server.plans()).CreatePlan(ParseDict({"steps": steps}, pb.CreatePlanRequest()))
    await asyncio.sleep(1.5)
    assert server.popen.poll() is None

    (tmp_path / "go").touch()
    assert await server.ended() == 0


async def test_a_plan_that_waits_for_a_person_does_not_hold_it(start: Any, tmp_path: Path) -> None:
    server = await start("--embedded", "--provider", f"t=python:{tmp_path / 'tools.py'}", **QUICK).serving()
    step = {"id": "a", "tool": "t.count", "arguments": {"path": str(tmp_path / "counted")}, "requiresApproval": True}
    plans = await server.plans()
    created = (await plans.CreatePlan(ParseDict({"steps": [step]}, pb.CreatePlanRequest()))).plan
    assert await server.ended() == 0
    assert not (tmp_path / "counted").exists()

    server = await start("--embedded", "--provider", f"t=python:{tmp_path / 'tools.py'}", **QUICK).serving()
    plans = await server.plans()
    plan = (await plans.GetPlan(pb.GetPlanRequest(plan_id=created.id))).plan
    assert plan.state == plan_pb2.PLAN_STATE_WAITING
    decide = {"planId": plan.id, "stepId": "a", "decision": {"approve": {}}}
    await plans.ResolveStep(ParseDict(decide, pb.ResolveStepRequest()))
    call = plans.WatchPlan(pb.WatchPlanRequest(plan_id=plan.id, durable_only=True))
    facts: list[str] = []

    while (message := await call.read()) is not grpc.aio.EOF:
        facts += [event.WhichOneof("fact") for event in message.events]

    assert facts[-1] == "plan_succeeded"
    assert (tmp_path / "counted").read_text() == "x\n"
