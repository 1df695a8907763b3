"""What the server takes while it does little: its start, its memory, its watchers; and how it comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio

from autoglm.v1 import plan_pb2, plan_service_pb2, plan_service_pb2_grpc
from benchmarks import floor as floor_process
from benchmarks.edge import captured
from benchmarks.load import ProductLoad, gated
from benchmarks.processes import Served, floor, folder, product, start_floor, start_product
from benchmarks.rows import Options, Row, at_most, below
from benchmarks.shapes import chain

STREAMS_OF_A_CONNECTION = 400
SETTLE_SECONDS = 1.0
QUIET = {"AUTOGLM_LOG__LEVEL": "warning"}


async def startup(options: Options) -> list[Row]:
    """From the start of the process to SERVING, on an empty data directory; and the memory then."""
    times: list[tuple[float, float]] = []
    sizes: list[tuple[float, float]] = []

    for number in range(options.rounds + 1):  # the first writes Python's caches, and is not counted
        async with folder(options.data_dir) as directory:
            ours = await start_product(directory / "data", provider=False, settings=QUIET)
            bare = await start_floor(directory)

            try:
                await asyncio.sleep(SETTLE_SECONDS)
                if number:
                    times.append((ours.seconds, bare.seconds))
                    sizes.append((ours.resident(), bare.resident()))
            finally:
                await ours.stop()
                await bare.stop()

    rows = [
        Row("startup.time", "s", *_columns(times), "the floor's start", below(0.8, 0.4), "`autoglm serve` to SERVING"),
        Row("startup.memory", "MB", *_columns(sizes), "the floor's", below(100, 80), "resident, idle, after the start"),
    ]
    return [row for row in rows if options.wanted(row.name)]


def _columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [value for value, _ in pairs], [limit for _, limit in pairs]


class Idle:
    """Streams that are open and say nothing, over as many connections as that takes."""

    def __init__(self, served: Served, open_stream: Callable[[grpc.aio.Channel], Any], stack: AsyncExitStack) -> None:
        self._served = served
        self._open = open_stream
        self._stack = stack
        self._number = 0
        self._channel: grpc.aio.Channel | None = None
        self._calls: list[Any] = []
        self._before = served.resident()

    async def grow(self, number: int) -> None:
        """Open streams until there are so many, each with its first message."""
        while self._number < number:
            fresh = []

            if not self._number % STREAMS_OF_A_CONNECTION:
                self._channel = await self._stack.enter_async_context(self._served.channel())

            assert self._channel is not None

            for _ in range(min(50, number - self._number)):
                fresh.append(self._open(self._channel))

            for call in fresh:
                await call.read()

            self._number += len(fresh)
            self._calls += fresh

    async def cost(self, seconds: float) -> tuple[float, float]:
        """Give the memory added since before, in MB, and the CPU, in ms a second."""
        await asyncio.sleep(SETTLE_SECONDS)
        used, began = self._served.cpu(), time.perf_counter()
        await asyncio.sleep(seconds)
        spent = (self._served.cpu() - used) / (time.perf_counter() - began) * 1e3
        return self._served.resident() - self._before, spent

    def close(self) -> None:
        for call in self._calls:
            call.cancel()


async def watchers(options: Options) -> list[Row]:
    """Idle watchers of a plan, beside as many idle streams of bare grpc.aio."""
    sizes, seconds = (1000, 5000), 3.0 if options.quick else 31.0  # two heartbeats of 15 s
    found: dict[int, list[tuple[tuple[float, float], tuple[float, float]]]] = {size: [] for size in sizes}

    for _ in range(1 if options.quick else min(3, options.rounds)):
        async with AsyncExitStack() as stack:
            ours = await stack.enter_async_context(product(options.data_dir))
            bare = await stack.enter_async_context(floor(options.data_dir))
            load = ProductLoad(ours, await stack.enter_async_context(ours.channel()))
            plan = (await load.create(gated(chain(1), "held"), 1))[0]
            await load.waiting("held", 1)
            request = plan_service_pb2.WatchPlanRequest(plan_id=plan.id).SerializeToString()
            mine = Idle(ours, lambda channel: _stream(channel, "autoglm.v1.PlanService/WatchPlan")(request), stack)  # noqa: B023
            theirs = Idle(bare, lambda channel: _stream(channel, f"{floor_process.SERVICE}/Idle")(b""), stack)

            for size in sizes:
                await mine.grow(size)
                await theirs.grow(size)
                costs = [await one.cost(seconds) for one in (mine, theirs)]
                found[size].append((costs[0], costs[1]))

            mine.close()
            theirs.close()

    rows = []

    for size, pairs in found.items():
        note, tick = f"{size} idle watchers, over {seconds:.0f} s", 10 / seconds
        memory = [(value[0], limit[0]) for value, limit in pairs]
        spent = [(max(value[1], tick), max(limit[1], tick)) for value, limit in pairs]
        aim = at_most(1.4, 1.1) if size == 5000 else None
        rows.append(Row(f"watchers.{size}.memory", "MB", *_columns(memory), "bare grpc.aio", aim, f"added by {note}"))
        rows.append(
            Row(
                f"watchers.{size}.cpu", "ms/s", *_columns(spent), "bare grpc.aio, at least one tick", None, f"of {note}"
            )
        )

    return [row for row in rows if options.wanted(row.name)]


def _stream(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_stream(f"/{method}")


async def open_plans(options: Options) -> list[Row]:
    """The memory of a plan that waits for a person, beside the bytes of its events."""
    number, pairs = 500 if options.quick else 5000, []

    for _ in range(1 if options.quick else min(3, options.rounds)):
        async with product(options.data_dir) as served, served.channel() as channel:
            load = ProductLoad(served, channel)
            request = plan_service_pb2.CreatePlanRequest()
            request.options.approval_tools.append("bench.noop")

            for step in range(3):
                request.steps.add(id=f"s{step}", tool="bench.noop", depends_on=[f"s{step - 1}"] if step else [])

            await load.create(request, 100)  # what grows once has grown then
            await _quiet(served)
            before = served.resident()
            made = await load.create(request, number)
            await _quiet(served)
            now = (
                await load.plans.GetPlan(
                    plan_service_pb2.GetPlanRequest(plan_id=made[0].id, view=plan_service_pb2.PLAN_VIEW_BASIC)
                )
            ).plan.sequence
            watch = plan_service_pb2.WatchPlanRequest(plan_id=made[0].id).SerializeToString()
            messages = await captured(_stream(channel, "autoglm.v1.PlanService/WatchPlan"), watch, now)
            pairs.append(((served.resident() - before) / number * 1e3, sum(map(len, messages)) / 1e3))

    note = f"each of {number} plans of 3 steps that wait for approval"
    return [Row("openplans.memory", "kB", *_columns(pairs), "the bytes of its events", None, note)]


async def _quiet(served: Served) -> None:
    """Wait until the server does nothing any more."""
    used = -1.0

    while (now := served.cpu()) > used:
        used = now
        await asyncio.sleep(0.5)


async def restart(options: Options) -> list[Row]:
    """A server that is killed with open plans, until the next is SERVING and a step of theirs has succeeded."""
    number, pairs, every = 1000 if options.quick else 10_000, [], []

    for _ in range(1 if options.quick else min(3, options.rounds)):
        async with folder(options.data_dir) as directory:
            fresh = await _start_of_none(options)

            served = await start_product(directory / "data")

            async with served.channel() as channel:
                await ProductLoad(served, channel).create(gated(chain(2), "held"), number)
                await _quiet(served)
                place = await _newest(channel)

            await served.stop(signal.SIGKILL)
            began = time.perf_counter()
            again = await start_product(directory / "data", {"BENCHMARK_GATES": "open"})

            try:
                ran = await _first_success(again, place) - began
                await _all_ended(again)
                every.append((time.perf_counter() - began, fresh))
            finally:
                await again.stop()

            pairs.append((max(ran, again.seconds), fresh))

    note = f"SIGKILL with {number} open plans; to SERVING and a step that succeeded"
    aim = below(5, 3) if number == 10_000 else None
    limit = "the start with none"
    rows = [
        Row("restart.running", "s", *_columns(pairs), limit, aim, note),
        Row("restart.done", "s", *_columns(every), limit, None, f"the same, until all {number} plans have succeeded"),
    ]
    return [row for row in rows if options.wanted(row.name)]


async def _start_of_none(options: Options) -> float:
    """Give the seconds that a start takes with an empty journal; the first of two may write Python's caches."""
    seconds = 0.0

    for _ in range(2):
        async with product(options.data_dir) as served:
            seconds = served.seconds

    return seconds


async def _newest(channel: grpc.aio.Channel) -> str:
    """Give the cursor behind all that has happened."""
    call = plan_service_pb2_grpc.PlanServiceStub(channel).WatchPlans(plan_service_pb2.WatchPlansRequest(from_now=True))
    message = await call.read()
    call.cancel()
    assert isinstance(message, plan_service_pb2.WatchPlansResponse), "the stream ended at once"
    return message.cursor


async def _first_success(served: Served, place: str) -> float:
    """Wait for a step that succeeded behind ``place``: what happened before is not read again."""
    async with asyncio.timeout(120), served.channel() as channel:
        plans = plan_service_pb2_grpc.PlanServiceStub(channel)
        call = plans.WatchPlans(plan_service_pb2.WatchPlansRequest(cursor=place))

        async for message in call:
            if any(event.HasField("step_succeeded") for event in message.events):
                call.cancel()
                return time.perf_counter()

    raise RuntimeError("the stream ended before a step succeeded")


async def _all_ended(served: Served) -> None:
    running = [plan_pb2.PLAN_STATE_QUEUED, plan_pb2.PLAN_STATE_RUNNING, plan_pb2.PLAN_STATE_WAITING]
    asked = plan_service_pb2.ListPlansRequest(page_size=1, states=running)

    async with asyncio.timeout(300), served.channel() as channel:
        plans = plan_service_pb2_grpc.PlanServiceStub(channel)

        while (await plans.ListPlans(asked)).plans:
            await asyncio.sleep(0.1)
