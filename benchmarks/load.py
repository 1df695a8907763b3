"""The client's side of a run of plans: it starts them, watches every event, and says what it saw.

For the floor and the product alike: the messages are parsed when they come, and evaluated afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc.aio
from google.protobuf import struct_pb2

from autoglm.v1 import plan_pb2, plan_service_pb2, plan_service_pb2_grpc, tool_service_pb2, tool_service_pb2_grpc
from benchmarks import floor as floor_process
from benchmarks.processes import Served
from benchmarks.shapes import Shape

RUN_SECONDS = 120.0
Streams = Literal["one", "each", "none"]
"""Who watches: one stream of everything, one for each plan on one connection, nobody."""
LARGE: dict[str, Any] = {
    "a": 1,
    "b": "some text value",
    "c": True,
    "d": 1.5,
    "e": 2,
    "f": "another text value",
    "g": False,
    "h": 2.5,
    "i": 3,
    "j": "x",
}


@dataclass(slots=True)
class Seen:
    """What a run was seen to do. Times are seconds by the events' own clocks, latencies from there to the client."""

    started: dict[str, list[float]] = field(default_factory=dict)
    """By plan, when its steps started, in order."""
    first: float = float("inf")
    last: float = 0.0
    steps: int = 0
    events: int = 0
    messages: int = 0
    latencies: list[float] = field(default_factory=list)
    cpu: float = 0.0
    """Of the server."""
    wall: float = 0.0
    """Seconds by the client's clock, from the beginning until it had the last event."""

    @property
    def seconds(self) -> float:
        """From the first start to the last success."""
        return self.last - self.first

    @property
    def rate(self) -> float:
        return self.steps / self.seconds

    @property
    def gaps(self) -> list[float]:
        """From one start to the next, in each plan."""
        return [b - a for starts in self.started.values() for a, b in itertools.pairwise(starts)]

    def add(self, plan: str, step_started: bool, step_succeeded: bool, built: float, received: float) -> None:
        if step_started:
            self.started.setdefault(plan, []).append(built)
            self.first = min(self.first, built)
        elif step_succeeded:
            self.steps += 1
            self.last = max(self.last, built)

        if step_started or step_succeeded:
            self.latencies.append(received - built)


def quantile(figures: Sequence[float], part: float) -> float:
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Collector:
    """Takes the messages of all streams until so many events have come."""

    def __init__(self, expected: int) -> None:
        self.messages: list[tuple[int, Any]] = []
        self.done = asyncio.Event()
        self._left = expected

    async def read(self, call: Any, parse: Any, attached: asyncio.Semaphore) -> None:
        first = True

        async for raw in call:
            if first:
                first = False
                attached.release()

            message = parse(raw)
            self.messages.append((time.time_ns(), message))
            self._left -= len(message.events)
            if self._left <= 0:
                self.done.set()


async def watch_while(calls: Sequence[tuple[Any, Any]], expected: int, go: Any) -> tuple[list[tuple[int, Any]], float]:
    """Attach all streams, begin, and read until all events are there; gives also how long that took."""
    collector, attached = Collector(expected), asyncio.Semaphore(0)

    async with asyncio.timeout(RUN_SECONDS), asyncio.TaskGroup() as group:
        readers = [group.create_task(collector.read(call, parse, attached)) for call, parse in calls]

        for _ in readers:
            await attached.acquire()

        collector.messages.clear()
        began = time.perf_counter()
        await go()
        if calls:
            await collector.done.wait()

        wall = time.perf_counter() - began

        for call, _ in calls:
            call.cancel()

        for reader in readers:
            reader.cancel()

    return collector.messages, wall


class FloorLoad:
    def __init__(self, served: Served, channel: grpc.aio.Channel) -> None:
        self._served = served
        self.channel = channel
        self._next = 0

    async def run(self, shape: Shape, plans: int, streams: Streams = "one", *, graph: bool = False) -> Seen:
        first, self._next = self._next, self._next + plans
        asked = {"shape": shape, "plans": plans, "first": first, "graph": graph}
        stream: Any = self.channel.unary_stream(f"/{floor_process.SERVICE}/Watch")
        keys = {"one": [floor_process.EVERYTHING], "each": range(first, first + plans), "none": []}[streams]
        calls = [(stream(str(key).encode()), floor_process.Batch.FromString) for key in keys]
        answer: dict[str, float] = {}
        used = self._served.cpu()

        async def go() -> None:
            ask: Any = self.channel.unary_unary(f"/{floor_process.SERVICE}/Go")
            answer.update(json.loads(await ask(json.dumps(asked).encode())))

        messages, wall = await watch_while(calls, 2 * plans * len(shape), go)
        seen = Seen(cpu=self._served.cpu() - used, messages=len(messages), wall=wall)

        for received, message in messages:
            for event in message.events:
                seen.events += 1
                kind = event.kind
                built = event.ts_us / 1e6
                seen.add(event.run_id, kind == "step.started", kind == "step.succeeded", built, received / 1e9)

        if streams == "none":
            seen.first, seen.last, seen.steps = 0.0, answer["seconds"], plans * len(shape)

        return seen


class ProductLoad:
    def __init__(self, served: Served, channel: grpc.aio.Channel) -> None:
        self._served = served
        self.channel = channel
        self.plans = plan_service_pb2_grpc.PlanServiceStub(channel)
        self.address = served.address
        self.cpu = served.cpu
        self._tools = tool_service_pb2_grpc.ToolServiceStub(channel)
        self._runs = 0

    async def call(self, name: str, key: str) -> float:
        arguments = struct_pb2.Struct()
        arguments.update({"key": key})
        request = tool_service_pb2.CallToolRequest(name=f"bench.{name}", arguments=arguments)

        async for answer in self._tools.CallTool(request):
            if answer.HasField("result"):
                return float(answer.result.output.number_value)

        raise RuntimeError(f"bench.{name} gave nothing")

    async def waiting(self, key: str, plans: int) -> None:
        """Wait until as many plans stand at the gate."""
        async with asyncio.timeout(RUN_SECONDS):
            while await self.call("waiting", key) < plans:
                await asyncio.sleep(0.01)

    async def create(self, request: plan_service_pb2.CreatePlanRequest, plans: int) -> list[plan_pb2.Plan]:
        made: list[plan_pb2.Plan] = []

        async def caller(number: int) -> None:
            for _ in range(number, plans, 16):
                made.append((await self.plans.CreatePlan(request, timeout=RUN_SECONDS)).plan)

        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(caller(number))

        return made

    async def run(self, shape: Shape, plans: int, streams: Streams = "one", *, tool: str = "noop") -> Seen:
        """Run plans of this shape. They all stand at a gate until everybody watches."""
        self._runs += 1
        key = f"run-{self._runs}"
        made = await self.create(gated(shape, key, tool), plans)
        await self.waiting(key, plans)
        used = 0.0

        async def go() -> None:
            nonlocal used
            used = self._served.cpu()
            await self.call("open", key)

        expected = plans * (2 * len(shape) + 2)  # the steps, the gate's success, the plan's
        messages, wall = await watch_while(await self._calls(made, streams), expected, go)
        seen = Seen(cpu=self._served.cpu() - used, messages=len(messages), wall=wall)

        for received, message in messages:
            for event in message.events:
                seen.events += 1
                if event.step_id == "gate":
                    continue

                built = event.event_time.seconds + event.event_time.nanos / 1e9
                started, succeeded = event.HasField("step_started"), event.HasField("step_succeeded")
                seen.add(event.plan_id, started, succeeded, built, received / 1e9)

        assert seen.steps == plans * len(shape), f"{seen.steps} steps succeeded of {plans * len(shape)}"
        return seen

    async def _calls(self, plans: Sequence[plan_pb2.Plan], streams: Streams) -> list[tuple[Any, Any]]:
        if streams == "one":
            return [(self.plans.WatchPlans(plan_service_pb2.WatchPlansRequest(from_now=True)), _as_it_is)]

        requests = []

        for plan in plans:  # they all stand at the gate, so this is the last of each until it opens
            asked = plan_service_pb2.GetPlanRequest(plan_id=plan.id, view=plan_service_pb2.PLAN_VIEW_BASIC)
            now = (await self.plans.GetPlan(asked)).plan.sequence
            requests.append(plan_service_pb2.WatchPlanRequest(plan_id=plan.id, after_sequence=now))

        return [(self.plans.WatchPlan(request), _as_it_is) for request in requests]


def _as_it_is(message: Any) -> Any:
    return message


def gated(shape: Shape, key: str, tool: str = "noop") -> plan_service_pb2.CreatePlanRequest:
    """Give the request of a plan of this shape whose first step waits at a gate."""
    request = plan_service_pb2.CreatePlanRequest()
    request.options.max_parallel_steps = 1000
    gate = request.steps.add(id="gate", tool="bench.gate")
    gate.arguments.update({"key": key})

    for name, (seconds, parents) in shape.items():
        step = request.steps.add(id=name, tool="bench.nap" if seconds else f"bench.{tool}")
        step.depends_on.extend(parents or ("gate",))
        if seconds:
            step.arguments.update({"seconds": seconds})
        elif tool == "large":
            step.arguments.update(LARGE)

    return request
