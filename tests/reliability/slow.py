"""Peers that stand still are let go of; readers that are slow cost a message and the transport's window, not a log."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc.aio

import autoglm
from autoglm.model import StepDraft
from autoglm.v1 import plan_service_pb2, plan_service_pb2_grpc
from tests.reliability.proxy import Connection, Proxy
from tests.reliability.servers import Life

FROZEN: Final = "watch-frozen-peer-let-go"
SLOW: Final = "watch-slow-reader-costs-little"
FROZEN_SECONDS: Final = 31.0
"""A frozen peer is let go of within 30 s: 20 of silence, and 10 for the answer to a ping."""
LARGE_PLANS: Final = 20
LARGE_STEPS: Final = 30
LARGE_TEXT: Final = 25_000
READERS: Final = 24
ON_A_CONNECTION: Final = 3
SLOW_SECONDS: Final = 4.0
"""For how long they read one message a second, or nothing."""
PATIENCE_SECONDS: Final = 20.0
COST_MAX: Final = 4 << 20
"""The most that one may cost, in bytes: a message of 1 MiB as we made it and as the transport holds it, the transport's window,
and a part of what all share. The plans they read have 16 MB."""


async def let_go(address: str, random: Random) -> list[float | None]:
    """Freeze a watcher of a plan and one of all plans; give the seconds until the server let go of each, None if not in time."""
    async with autoglm.AsyncClient(address) as client:
        plan = await client.create(steps=[StepDraft(id="s", tool="ledger.linger", arguments={"seconds": 60.0})])

    one = plan_service_pb2.WatchPlanRequest(plan_id=plan.id)
    every = plan_service_pb2.WatchPlansRequest(from_now=True)
    return list(await asyncio.gather(_frozen(address, random, one), _frozen(address, random, every)))


async def _frozen(address: str, random: Random, request: Any) -> float | None:
    proxy = Proxy(address, random)
    await proxy.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(proxy.stop)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(proxy.address, options=options))
        call = _watch(plan_service_pb2_grpc.PlanServiceStub(channel), request)
        stack.callback(call.cancel)
        await call.read()
        return await _seconds_until_closed(proxy.connections[0])


async def _seconds_until_closed(connection: Connection) -> float | None:
    connection.freeze()
    began = time.monotonic()
    with suppress(TimeoutError):
        await asyncio.wait_for(connection.closed_by_server.wait(), FROZEN_SECONDS)

    return time.monotonic() - began if connection.closed_by_server.is_set() else None


async def cost(life: Life, *, enough: float = 0.0) -> float:
    """Give how many bytes of the server's memory each of many slow readers of large plans costs.

    A server of which ``enough`` is expected is given longer: on a busy machine it takes its time to send so much.
    """
    assert life.popen is not None
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(autoglm.AsyncClient(life.address))
        plans = [await _large(client, str(life.folder)) for _ in range(LARGE_PLANS)]
        for plan_id in plans:  # what reading costs at all is not what a slow reader costs
            async for _ in client.watch(plan_id, durable_only=True):
                pass

        before = _resident(life.popen.pid)
        calls: list[Any] = []
        stub: Any = None
        for number in range(READERS):
            if number % ON_A_CONNECTION == 0:
                options = [("grpc.use_local_subchannel_pool", 1)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(life.address, options=options))
                stub = plan_service_pb2_grpc.PlanServiceStub(channel)

            one = plan_service_pb2.WatchPlanRequest(plan_id=plans[number % len(plans)], durable_only=True)
            call = _watch(stub, one if number % 2 else plan_service_pb2.WatchPlansRequest(durable_only=True))
            stack.callback(call.cancel)
            calls.append(call)

        most = before
        for _ in range(round(PATIENCE_SECONDS if enough else SLOW_SECONDS)):
            for call in calls[: READERS // 2]:
                await call.read()  # the others read nothing at all; their transport answers pings all the same

            await asyncio.sleep(1.0)
            most = max(most, _resident(life.popen.pid))
            if enough and most - before > enough * READERS:
                break

    return (most - before) / READERS


def _watch(stub: Any, request: Any) -> Any:
    return (stub.WatchPlan if hasattr(request, "plan_id") else stub.WatchPlans)(request)


async def _large(client: autoglm.AsyncClient, folder: str) -> str:
    arguments = {"folder": folder, "of": "x" * LARGE_TEXT}
    steps = [StepDraft(id=f"s{n}", tool="ledger.look", arguments=arguments) for n in range(LARGE_STEPS)]
    return (await client.create(steps=steps)).id


def _resident(process: int) -> int:
    """Give the bytes that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
