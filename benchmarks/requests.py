"""A request in natural language: the planner alone, the whole of it, and what the SDK adds to each event."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import autoglm
from autoglm.model import Plan, PlanOptions, Tool
from autoglm.planner import PlannerError, RoundView
from autoglm.v1 import plan_service_pb2
from autoglm_server.planner.rules import RulesPlanner
from autoglm_server.tools.builtin import builtin_tools
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.functions import FunctionProvider
from benchmarks import floor as floor_process
from benchmarks.edge import called, last_gated
from benchmarks.load import FloorLoad, ProductLoad, quantile
from benchmarks.processes import folder
from benchmarks.rows import Options, Row
from benchmarks.shapes import chain
from benchmarks.steps import Loads

REQUEST = "15% of 2480, then convert it from kilometers to miles"
FILE = Path(__file__).with_name("requests.jsonl")


async def echoed(bare: FloorLoad, seconds: float) -> float:
    """Give the median of a bare unary call, in seconds."""
    echo: Any = bare.channel.unary_unary(
        f"/{floor_process.SERVICE}/Echo", floor_process.Event.SerializeToString, floor_process.Event.FromString
    )
    event = floor_process.event(1, 1, "step-1", "step.succeeded")
    return quantile((await called(lambda: echo(event), 1, seconds))[1], 0.5)


async def planner(options: Options) -> list[Row]:
    """The first round of the rules planner, with all built-in tools, on the requests of `requests.jsonl`."""
    texts = [json.loads(line)["request"] for line in FILE.read_text(encoding="utf-8").splitlines()]
    pairs: list[tuple[float, float]] = []

    async with folder() as workspace:
        catalog = Catalog([FunctionProvider("", builtin_tools(workspace))])
        await catalog.start()
        tools, rules = catalog.tools(), RulesPlanner()
        texts = [text for text in texts if await _readable(rules, tools, text)]

        for _ in range(options.rounds):
            async with Loads(options) as (_, bare):
                repeat, began = 2 if options.quick else 10, time.process_time()

                for _ in range(repeat):
                    await _planned(rules, tools, texts)

                spent = (time.process_time() - began) / repeat / len(texts)
                pairs.append((spent * 1e3, await echoed(bare, 0.5) * 1e3))

        await catalog.stop()

    note = f"CPU of the first round, mean of {len(texts)} requests, {len(tools)} tools"
    values, limits = [value for value, _ in pairs], [limit for _, limit in pairs]
    return [Row("planner.rules", "ms", values, limits, "one bare unary call", None, note)]


async def _readable(rules: RulesPlanner, tools: list[Tool], text: str) -> bool:
    """Some of the requests are there for models."""
    try:
        await _planned(rules, tools, [text])
    except PlannerError:
        return False

    return True


async def _planned(rules: RulesPlanner, tools: list[Tool], texts: list[str]) -> None:
    for text in texts:
        plan = Plan(id="p", request=text, options=PlanOptions(max_steps=10))
        found = [item async for item in rules.round(RoundView(plan, 1, 1, tools, (), 10, last=False))]
        assert found, text


async def request(options: Options) -> list[Row]:
    """RunPlan of a request of two steps to its answer, beside the floor: one call, and three commits one after the other."""
    pairs: list[tuple[float, float]] = []

    for _ in range(options.rounds):
        async with Loads(options) as (ours, bare):
            await _answered(ours)  # what is imported at first use
            repeat = 10 if options.quick else 50
            values = [await _answered(ours) for _ in range(repeat)]
            limits = [(await bare.run(chain(3), 1)).wall for _ in range(repeat)]
            pairs.append((quantile(values, 0.5) * 1e3, quantile(limits, 0.5) * 1e3))

    values, limits = [value for value, _ in pairs], [limit for _, limit in pairs]
    note = f"p50 of RunPlan of {REQUEST!r}: two rounds, two steps, the answer"
    return [Row("request.p50", "ms", values, limits, "the floor: a call that runs three steps", None, note)]


async def _answered(ours: ProductLoad) -> float:
    began = time.perf_counter()

    async for message in ours.plans.RunPlan(plan_service_pb2.RunPlanRequest(request=REQUEST)):
        for event in message.events:
            if event.HasField("plan_succeeded"):
                return time.perf_counter() - began

    raise RuntimeError(f"{REQUEST!r} was not answered")


async def sdk(options: Options) -> list[Row]:
    """The CPU of this process for each event of a plan: AsyncClient beside the bare stub."""
    steps, pairs = 300 if options.quick else 2000, []

    for number in range(options.rounds):
        async with Loads(options) as (ours, _):
            plan = (await ours.plans.CreatePlan(last_gated(steps, "last"))).plan
            await ours.waiting("last", 1)
            await ours.call("open", "last")

            async with autoglm.AsyncClient(ours.address) as client:
                await _through_sdk(client, plan.id)
                costs = {}

                for which in ("sdk", "stub") if number % 2 else ("stub", "sdk"):
                    work = _through_sdk(client, plan.id) if which == "sdk" else _through_stub(ours, plan.id)
                    costs[which] = await work

                pairs.append((costs["sdk"], costs["stub"]))

    values, limits = [value for value, _ in pairs], [limit for _, limit in pairs]
    return [Row("sdk.event", "us", values, limits, "the bare stub", None, "CPU of the client, each event of a replay")]


async def _through_sdk(client: autoglm.AsyncClient, plan_id: str) -> float:
    events, began = 0, time.process_time()

    async for _ in client.watch(plan_id):
        events += 1

    return (time.process_time() - began) / events * 1e6


async def _through_stub(ours: ProductLoad, plan_id: str) -> float:
    events, began = 0, time.process_time()

    async for message in ours.plans.WatchPlan(plan_service_pb2.WatchPlanRequest(plan_id=plan_id)):
        for _ in message.events:
            events += 1

    return (time.process_time() - began) / events * 1e6
