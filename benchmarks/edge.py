"""What the service costs over the bare transport: making plans, and telling many watchers."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from autoglm.v1 import plan_service_pb2
from benchmarks import floor as floor_process
from benchmarks.load import FloorLoad, ProductLoad, gated, quantile
from benchmarks.rows import Options, Row, at_least
from benchmarks.shapes import chain
from benchmarks.steps import Loads

CALLERS = 64
WATCHERS = 64
_numbers = itertools.count()


async def called(call: Callable[[], Awaitable[Any]], callers: int, seconds: float) -> tuple[float, list[float]]:
    """Call over and over from so many callers; gives calls a second and the latencies in seconds."""
    latencies: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        while (start := time.perf_counter()) < began + seconds:
            await call()
            latencies.append(time.perf_counter() - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())

    return len(latencies) / (time.perf_counter() - began), latencies


def creating(ours: ProductLoad, *, alike: bool = True) -> Callable[[], Awaitable[Any]]:
    """Give what asks for a plan of one step; ``alike``: it has nothing that no other has, but for its request_id."""

    def call() -> Awaitable[Any]:
        number = next(_numbers)
        request = plan_service_pb2.CreatePlanRequest(request_id=f"benchmark-{number}")
        request.steps.add(id="s", tool="bench.noop", title="" if alike else f"step {number}")
        return ours.plans.CreatePlan(request)

    return call


async def submit(options: Options) -> list[Row]:
    """CreatePlan, acknowledged durable, beside bare unary echo. The plans are queued: no step of theirs runs."""
    seconds = 1.0 if options.quick else 3.0
    parts = ("rate", "unlike.rate", "p50", "p99", "one.p50")
    found: dict[str, list[tuple[float, float]]] = {f"submit.{part}": [] for part in parts}

    for number in range(options.rounds):
        async with Loads(options, AUTOGLM_SCHEDULER__MAX_RUNNING_PLANS="1") as (ours, bare):
            await ours.create(gated(chain(1), "held"), 1)
            await ours.waiting("held", 1)
            echo: Any = bare.channel.unary_unary(
                f"/{floor_process.SERVICE}/Echo", floor_process.Event.SerializeToString, floor_process.Event.FromString
            )
            event = floor_process.event(1, 1, "step-1", "step.succeeded")
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "value": creating(ours),
                "limit": functools.partial(echo, event),
                "unlike": creating(ours, alike=False),
            }
            order = ("limit", "value", "unlike") if number % 2 else ("unlike", "value", "limit")
            many = {which: await called(calls[which], CALLERS, seconds) for which in order}
            one = {which: (await called(calls[which], 1, seconds / 2))[1] for which in order if which != "unlike"}

        found["submit.rate"].append((many["value"][0], many["limit"][0]))
        found["submit.unlike.rate"].append((many["unlike"][0], many["limit"][0]))

        for part, name in ((0.5, "submit.p50"), (0.99, "submit.p99")):
            found[name].append((quantile(many["value"][1], part) * 1e3, quantile(many["limit"][1], part) * 1e3))

        found["submit.one.p50"].append((quantile(one["value"], 0.5) * 1e3, quantile(one["limit"], 0.5) * 1e3))

    kinds = {
        "submit.one.p50": "one caller",
        "submit.unlike.rate": f"{CALLERS} callers, each plan with a title of its own",
    }
    return [
        Row(
            name,
            "plans/s" if name.endswith("rate") else "ms",
            [value for value, _ in pairs],
            [limit for _, limit in pairs],
            "bare unary echo",
            at_least(0.6, 0.8) if name.endswith("rate") else None,
            "CreatePlan of one step, acknowledged durable, " + kinds.get(name, f"{CALLERS} callers"),
        )
        for name, pairs in found.items()
        if options.wanted(name)
    ]


async def received(streams: Sequence[tuple[Any, int]]) -> float:
    """Read all streams to the event asked for; gives the seconds it took."""

    async def read(call: Any, last: int) -> None:
        async for raw in call:
            if plan_service_pb2.WatchPlanResponse.FromString(raw).sequence >= last:
                return

        raise RuntimeError("a stream ended before its last event")

    began = time.perf_counter()

    async with asyncio.TaskGroup() as group:
        for call, last in streams:
            group.create_task(read(call, last))

    took = time.perf_counter() - began

    for call, _ in streams:
        call.cancel()

    return took


async def captured(watch: Any, request: bytes, last: int) -> list[bytes]:
    messages: list[bytes] = []
    call = watch(request)

    async for raw in call:
        messages.append(raw)
        if plan_service_pb2.WatchPlanResponse.FromString(raw).sequence >= last:
            break

    call.cancel()
    return messages


def last_gated(steps: int, key: str) -> plan_service_pb2.CreatePlanRequest:
    """Give the request of a plan that has done everything but its last step."""
    request = plan_service_pb2.CreatePlanRequest()
    request.options.max_parallel_steps = 1000

    for number in range(steps):
        request.steps.add(id=f"s{number}", tool="bench.noop")

    gate = request.steps.add(id="gate", tool="bench.gate", depends_on=[f"s{number}" for number in range(steps)])
    gate.arguments.update({"key": key})
    return request


async def fanout(options: Options) -> list[Row]:
    """The events of one plan to 64 watchers on one connection, beside the same messages sent by nobody."""
    steps = 500 if options.quick else 2000
    found: dict[str, list[tuple[float, float]]] = {"fanout.tail": [], "fanout.disk": []}
    sizes: dict[str, float] = {}

    for number in range(options.rounds):
        async with Loads(options) as (ours, bare):
            plan = (await ours.plans.CreatePlan(last_gated(steps, "last"))).plan
            await ours.waiting("last", 1)

            for name, pairs in found.items():
                now = (
                    await ours.plans.GetPlan(
                        plan_service_pb2.GetPlanRequest(plan_id=plan.id, view=plan_service_pb2.PLAN_VIEW_BASIC)
                    )
                ).plan.sequence
                measured = await _fanned(number, ours, bare, plan.id, now, sizes)
                pairs.append(measured)

                if name == "fanout.tail":
                    await ours.call("open", "last")
                    await _ended(ours, plan.id)

    notes = {
        "fanout.tail": f"{WATCHERS} watchers read a live plan from its start",
        "fanout.disk": f"{WATCHERS} watchers read a plan that has ended",
    }
    return [
        Row(
            name,
            "events/s",
            [value for value, _ in pairs],
            [limit for _, limit in pairs],
            "bare streaming of the same messages",
            at_least(0.5, 0.8),
            notes[name],
            sizes,
        )
        for name, pairs in found.items()
        if options.wanted(name)
    ]


async def _fanned(
    number: int, ours: ProductLoad, bare: FloorLoad, plan_id: str, last: int, sizes: dict[str, float]
) -> tuple[float, float]:
    watch: Any = ours.channel.unary_stream("/autoglm.v1.PlanService/WatchPlan")
    request = plan_service_pb2.WatchPlanRequest(plan_id=plan_id).SerializeToString()
    messages = await captured(watch, request, last)
    sizes.update(events=last, messages=len(messages), bytes=sum(map(len, messages)))
    take: Any = bare.channel.unary_unary(f"/{floor_process.SERVICE}/Take")
    send: Any = bare.channel.unary_stream(f"/{floor_process.SERVICE}/Send")

    for message in (b"", *messages):
        await take(message)

    def mine() -> Awaitable[float]:
        return received([(watch(request), last) for _ in range(WATCHERS)])

    def limit() -> Awaitable[float]:
        return received([(send(b"1"), last) for _ in range(WATCHERS)])

    if number % 2:
        without = await limit()
        took = await mine()
    else:
        took = await mine()
        without = await limit()

    return WATCHERS * last / took, WATCHERS * last / without


async def _ended(ours: ProductLoad, plan_id: str) -> None:
    async for message in ours.plans.WatchPlan(plan_service_pb2.WatchPlanRequest(plan_id=plan_id)):
        if any(event.HasField("plan_succeeded") for event in message.events):
            return
