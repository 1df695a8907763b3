"""How cost grows: for each thing there can be many of, the cost of one at the largest number beside the least at a smaller one.

A line that is straight gives 1. What is paid once for all (a plan's creation, a commit) makes few of a thing dearer each, so the
first number is no good measure; the least is the strictest. Costs are CPU of all threads, which noise moves less than time;
but of what is asked of a server with many plans in its journal it is the time that the caller waits.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from autoglm.v1 import plan_service_pb2
from benchmarks.edge import called
from benchmarks.load import ProductLoad, gated, quantile, watch_while
from benchmarks.processes import child, folder, product, start_product
from benchmarks.rows import Options, Row, at_most
from benchmarks.shapes import chain

STRAIGHT = at_most(2.0, 1.5)
"""Over two to three decades, noise included: n log n would be at 2 or more."""
Costs = Mapping[int, list[float]]


def row(name: str, unit: str, costs: Costs, note: str) -> Row:
    """``costs`` are by the number of things; of each round one."""
    *smaller, last = sorted(costs)
    least = min(smaller, key=lambda number: sum(costs[number]))
    curve = {f"{number}": sorted(each)[len(each) // 2] for number, each in sorted(costs.items())}
    return Row(name, unit, costs[last], costs[least], f"the same with {least:,}", STRAIGHT, note, {"costs": curve})


async def steps(options: Options) -> list[Row]:
    """Steps of a plan, its gate among them: a chain, or all at once. Always two plans, so that as many share a commit."""
    sizes = (10, 100, 1000) if options.quick else (10, 100, 1000, 10_000)
    costs: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    for _ in range(min(3, options.rounds)):
        for size in sizes:
            for shape in ("chain", "wide"):
                repeat = max(1, 500 // size)
                asked = {"plans": 2, "steps": size - 1, "repeat": repeat, "wide": shape == "wide", "parallel": 256}
                found = await child("inprocess", {**asked, "under": options.data_dir})
                each = 2 * repeat * size / 1e6
                costs[f"growth.steps.{shape}"][size].append(found["cpu"] / each)
                costs[f"growth.steps.create.{shape}"][size].append(found["created"] / each)

    span = f"{sizes[0]} to {sizes[-1]:,} steps a plan"
    return [
        row(name, "us/step", each, f"CPU of a step, {span}") for name, each in costs.items() if options.wanted(name)
    ]


async def plans(options: Options) -> list[Row]:
    """Plans that have ended and are still in the journal. A round has a server on each journal, the next in the other order."""
    sizes = (1000, 10_000) if options.quick else (1000, 10_000, 100_000, 1_000_000)
    costs: defaultdict[tuple[str, str], defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    async with folder(options.data_dir) as directory:
        journals = {size: directory / f"{size}" for size in sizes}
        fillings = [{"directory": str(path), "plans": size} for size, path in journals.items()]
        await asyncio.gather(*(child("filling", each, seconds=1800) for each in fillings))
        await asyncio.to_thread(os.sync)  # gigabytes on their way to the disk would be in every commit

        for number in range(options.rounds):
            for size in sizes if number % 2 == 0 else reversed(sizes):
                served = await start_product(journals[size])

                try:
                    async with served.channel() as channel:
                        costs["start", "s"][size].append(served.seconds)
                        costs["memory", "MB"][size].append(served.resident())
                        load = ProductLoad(served, channel)

                        for name, value in (await _asked(load)).items():
                            costs[name, "ms"][size].append(value)
                finally:
                    await served.stop()

    span = f"{sizes[0]:,} to {sizes[-1]:,} plans in the journal"
    notes = {
        "start": "to SERVING",
        "memory": "resident",
        "run": "RunPlan of one step",
        "list": "a page of ListPlans",
        "filter": "a page of ListPlans by label",
        "get": "GetPlan of an old plan",
    }
    return [
        row(f"growth.plans.{name}", unit, each, f"{notes[name]}; {span}")
        for (name, unit), each in costs.items()
        if options.wanted(f"growth.plans.{name}")
    ]


async def _asked(load: ProductLoad) -> dict[str, float]:
    """Give the medians, in ms, of what is asked of a server."""
    page = plan_service_pb2.ListPlansRequest(page_size=50)
    labelled = plan_service_pb2.ListPlansRequest(page_size=50, labels={"kind": "filling"})
    oldest = plan_service_pb2.GetPlanRequest(plan_id=(await load.plans.ListPlans(page)).plans[-1].id)
    one = plan_service_pb2.RunPlanRequest()
    one.steps.add(id="s", tool="bench.noop")

    async def run() -> None:
        async for _ in load.plans.RunPlan(one):
            pass

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "run": run,
        "list": lambda: load.plans.ListPlans(page),
        "filter": lambda: load.plans.ListPlans(labelled),
        "get": lambda: load.plans.GetPlan(oldest),
    }
    return {name: quantile((await called(call, 1, 0.5))[1], 0.5) * 1e3 for name, call in calls.items()}


async def watchers(options: Options) -> list[Row]:
    """Watchers of one plan, while it runs."""
    sizes, steps_of_it = (1, 10, 100, 1000), 50 if options.quick else 200
    costs: defaultdict[int, list[float]] = defaultdict(list)

    for _ in range(min(3, options.rounds)):
        more = {f"AUTOGLM_LIMITS__{name}_PER_CONNECTION": "2000" for name in ("WATCHES", "CALLS")}

        async with product(options.data_dir, **more) as served, served.channel() as channel:
            load = ProductLoad(served, channel)
            await load.run(chain(10), 4)

            for size in sizes:
                costs[size].append(await _watched(load, size, steps_of_it, f"watched-{size}"))

    note = f"CPU of the server for an event delivered, {sizes[0]} to {sizes[-1]:,} watchers"
    return [row("growth.watchers", "us/event", costs, note)]


async def _watched(load: ProductLoad, size: int, steps_of_it: int, key: str) -> float:
    plan = (await load.create(gated(chain(steps_of_it), key), 1))[0]
    await load.waiting(key, 1)
    asked = plan_service_pb2.GetPlanRequest(plan_id=plan.id, view=plan_service_pb2.PLAN_VIEW_BASIC)
    now = (await load.plans.GetPlan(asked)).plan.sequence
    request = plan_service_pb2.WatchPlanRequest(plan_id=plan.id, after_sequence=now)
    calls = [(load.plans.WatchPlan(request), lambda message: message) for _ in range(size)]
    used = 0.0

    async def go() -> None:
        nonlocal used
        used = load.cpu()
        await load.call("open", key)

    expected = size * (2 * steps_of_it + 2)
    await watch_while(calls, expected, go)
    return (load.cpu() - used) / expected * 1e6


async def growth(options: Options) -> list[Row]:
    rows = []

    for name, measure in (("growth.steps", steps), ("growth.plans", plans), ("growth.watchers", watchers)):
        if options.wanted(name):
            rows += await measure(options)

    return rows
