"""LangGraph with its SQLite checkpointer (WAL, FULL), durability="sync": each superstep's checkpoint is awaited.

`graph`: StateGraph, streamed. `functions`: @entrypoint and @task; its tasks' results are checkpointed, but the next task does not
wait for that, so it promises less.
"""

from __future__ import annotations

import asyncio
import operator
import shutil
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from typing import Annotated, TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from work import CHAIN, FAN, SLEEP, STEPS, measure, tell

stamps = []


class Chained(TypedDict):
    i: int


class Fanned(TypedDict):
    xs: Annotated[list, operator.add]


async def noop(state):
    stamps.append(time.perf_counter())
    return {"i": state["i"] + 1}


def napper(number):
    async def nap(_):
        await asyncio.sleep(SLEEP)
        return {"xs": [number]}

    return nap


def chained(n, saver):
    graph = StateGraph(Chained)

    for i in range(n):
        graph.add_node(f"n{i}", noop)
        graph.add_edge(f"n{i - 1}" if i else START, f"n{i}")

    graph.add_edge(f"n{n - 1}", END)
    return graph.compile(checkpointer=saver)


def fanned(n, saver):
    graph = StateGraph(Fanned)
    graph.add_node("root", lambda _: {"xs": []})
    graph.add_node("join", lambda _: {"xs": []})

    for i in range(n):
        graph.add_node(f"n{i}", napper(i))
        graph.add_edge("root", f"n{i}")

    graph.add_edge([f"n{i}" for i in range(n)], "join")
    graph.add_edge(START, "root")
    graph.add_edge("join", END)
    return graph.compile(checkpointer=saver)


async def drive(graph, given):
    config = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 5000}

    async for _ in graph.astream(given, config, stream_mode="updates", durability="sync"):
        pass


def of_graphs(saver):
    graphs = {n: chained(n, saver) for n in {3, 10, CHAIN, STEPS}}
    fan_graph = fanned(FAN, saver)
    return lambda n: drive(graphs[n], {"i": 0}), lambda _: drive(fan_graph, {"xs": []})


def of_functions(saver):
    @task
    async def one(i):
        stamps.append(time.perf_counter())
        return i

    @task
    async def nap(i):
        await asyncio.sleep(SLEEP)
        return i

    @entrypoint(checkpointer=saver)
    async def chain(n):
        for i in range(n):
            await one(i)

        return n

    @entrypoint(checkpointer=saver)
    async def fan(n):
        await one(0)
        await asyncio.gather(*[nap(i) for i in range(n)])
        await one(1)
        return n

    return lambda n: drive(chain, n), lambda n: drive(fan, n)


async def main(folder):
    async with AsyncSqliteSaver.from_conn_string(f"{folder}/c.db") as saver:
        await saver.setup()
        told = []

        for name in ("journal_mode", "synchronous"):
            async with saver.conn.execute(f"PRAGMA {name}") as cursor:
                told.append(f"{name}={(await cursor.fetchone())[0]}")

        chain, fan = of_graphs(saver) if sys.argv[1] == "graph" else of_functions(saver)

        async def many(plans, n):
            await asyncio.gather(*[chain(n) for _ in range(plans)])

        tell(note=f"langgraph {version('langgraph')}, {', '.join(told)}", **await measure(chain, many, fan, stamps))


directory = tempfile.mkdtemp(prefix="autoglm-benchmark-")

try:
    asyncio.run(main(directory))
finally:
    shutil.rmtree(directory, ignore_errors=True)
