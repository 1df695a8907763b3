"""How long plans take that a model writes, beside the least they could take, and beside two simpler ways to run them.

A loopback server writes tokens at a set rate; tools take a set time. The lower bound is the model's own time to write each
step, and from there the critical path. Strawmen, on the same server and scheduler in the same run: the planner that waits for
the whole plan before it gives a step, and the model that writes one step a round.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import autoglm
from autoglm.model import CreatePlanRequest, Effect, PlanOptions, PlanState
from autoglm_server.clock import SystemClock
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.planner import Planner, RoundItem, RoundView
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.functions import FunctionProvider
from benchmarks.processes import folder
from benchmarks.rows import Options, Row, at_most
from tests.server.planner.llm.fake_model import FakeModel, Reply, answer, call, plan, tokens_of

TOKEN_CHARS = 4
FIRST_TOKEN = 0.15
"""Seconds from a request to the first token."""
RATE = 60.0
"""Tokens a second."""
GOAL = 1.05


@autoglm.tool(name="lookup", effect=Effect.READ_ONLY)
async def lookup(*, seconds: float, fails: bool = False, needs: list[str] | None = None) -> str:
    """Take a set time.

    Args:
        seconds: How long.
        fails: Whether it fails then.
        needs: What it waits for.
    """
    await asyncio.sleep(seconds)
    if fails:
        raise autoglm.ToolError("nothing there", reason="NOT_THERE")

    return "found"


@dataclass(frozen=True)
class Step:
    id: str
    seconds: float
    needs: tuple[str, ...] = ()
    fails: bool = False

    def written(self) -> dict[str, object]:
        return call(
            self.id, "lookup", seconds=self.seconds, fails=self.fails, needs=[f"${{{one}}}" for one in self.needs]
        )


@dataclass(frozen=True)
class Shape:
    name: str
    rounds: tuple[tuple[Step, ...], ...]
    answer: str = "That is what was found, in a sentence of some length, as answers are."


SHAPES = (
    Shape(
        "8 lookups and a join",
        ((*(Step(f"s{n}", 0.6 + 0.1 * n) for n in range(8)), Step("join", 0.3, tuple(f"s{n}" for n in range(8)))),),
    ),
    Shape("a chain of 5", (tuple(Step(f"s{n}", 0.5, (f"s{n - 1}",) if n else ()) for n in range(5)),)),
    Shape(
        "two lookups, each with a chain",
        (
            (
                Step("a", 1.2),
                Step("b", 0.4),
                Step("b1", 0.8, ("b",)),
                Step("b2", 0.6, ("b1",)),
                Step("join", 0.2, ("a", "b2")),
            ),
        ),
    ),
    Shape(
        "a replan after a failure",
        ((Step("a", 0.5), Step("b", 0.7, fails=True), Step("c", 0.9)), (Step("d", 0.4), Step("e", 0.3, ("c", "d")))),
    ),
)


def lower_bound(shape: Shape, rate: float) -> float:
    """Give the seconds below which nothing can be: every token is waited for, and every step starts when it can."""
    now = 0.0
    ended: dict[str, float] = {}
    for steps in shape.rounds:
        text = plan(*(step.written() for step in steps))
        begun, position = now + FIRST_TOKEN, 0
        now = begun + (len(tokens_of(text, TOKEN_CHARS)) - 1) / rate
        for step in steps:
            body = json.dumps(step.written(), ensure_ascii=False)
            position = text.index(body, position) + len(body)
            ready = begun + ((position - 1) // TOKEN_CHARS) / rate
            ended[step.id] = max([ready, *(ended[one] for one in step.needs)]) + step.seconds

        now = max([now, *ended.values()])

    return now + FIRST_TOKEN + (len(tokens_of(answer(shape.answer), TOKEN_CHARS)) - 1) / rate


class WaitForWhole:
    """The strawman that gives no step before the model has written them all."""

    name = "whole"
    revises = True

    def __init__(self, inner: LlmPlanner) -> None:
        self._inner = inner

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        for item in [item async for item in self._inner.round(view)]:
            yield item


@dataclass
class Way:
    name: str
    planner: str
    stepwise: bool = False
    seconds: list[float] = field(default_factory=list)


def replies(shape: Shape, rate: float, *, stepwise: bool) -> list[Reply]:
    rounds = [(step,) for steps in shape.rounds for step in steps] if stepwise else list(shape.rounds)
    texts = [plan(*(step.written() for step in steps)) for steps in rounds] + [answer(shape.answer)]
    return [Reply(tokens_of(text, TOKEN_CHARS), rate=rate, first=FIRST_TOKEN) for text in texts]


async def measure(shape: Shape, way: Way, rate: float, model: FakeModel, scheduler: Scheduler, feed: Feed) -> float:
    model.script.clear()
    model.will(*replies(shape, rate, stepwise=way.stepwise))
    start = time.perf_counter()
    asked = CreatePlanRequest(request="look it up", options=PlanOptions(planner=way.planner))
    made, _ = await scheduler.create(asked, principal="", digest="")
    cursor = feed.follow(made.id, 0, durable_only=True)
    while not (await cursor.next(60.0)).ended:
        pass

    took = time.perf_counter() - start
    cursor.close()
    ended = await scheduler.get(made.id)
    if ended.state is not PlanState.SUCCEEDED:
        raise RuntimeError(f"{shape.name}, {way.name}: {ended.failure}")

    return took


@dataclass(frozen=True)
class Found:
    shape: str
    bound: float
    ways: dict[str, list[float]]


async def run(repeat: int, rate: float, directory: Path) -> list[Found]:
    found: list[Found] = []
    async with FakeModel() as model:
        llm = LlmPlanner(LlmOptions(model="ollama:paced", base_url=model.base_url), {})
        journal = SqliteJournal(directory)
        await journal.open()
        feed = Feed(journal)
        catalog = Catalog([FunctionProvider("", [lookup])])
        await catalog.start()
        planners: dict[str, Planner] = {"llm": llm, "whole": WaitForWhole(llm)}
        scheduler = Scheduler(
            journal=journal,
            feed=feed,
            catalog=catalog,
            planners=planners,
            clock=SystemClock(),
            jitter=random.random,
            defaults=PlanOptions(
                max_steps=100, enable_tool_call=True, max_rounds=50, timeout=timedelta(minutes=5), max_parallel_steps=32
            ),
        )
        await scheduler.start()
        # The first round imports the client library; that is no part of a plan's time.
        await measure(Shape("warm", ((Step("a", 0.0),),)), Way("warm", "llm"), 10_000, model, scheduler, feed)

        for shape in SHAPES:
            ways = [
                Way("autoglm", "llm"),
                Way("whole plan first", "whole"),
                Way("one step a round", "llm", stepwise=True),
            ]
            for number in range(repeat):
                for way in ways if number == 0 else ways[:1]:  # the simpler ones take twice as long, and once tells it
                    way.seconds.append(await measure(shape, way, rate, model, scheduler, feed))

            found.append(Found(shape.name, lower_bound(shape, rate), {way.name: way.seconds for way in ways}))

        await scheduler.stop()
        await catalog.stop()
        await journal.close()
        await llm.close()

    return found


async def rows(options: Options) -> list[Row]:
    """Give each shape beside its lower bound, the simpler ways among the details."""
    async with folder(options.data_dir) as directory:
        found = await run(1 if options.quick else min(3, options.rounds), 200.0 if options.quick else RATE, directory)

    return [
        Row(
            f"model.{one.shape.replace(' ', '_').replace(',', '')}",
            "s",
            one.ways["autoglm"],
            [one.bound] * len(one.ways["autoglm"]),
            "the model's own writing, then the critical path",
            at_most(1.2, GOAL),
            "; ".join(
                f"{name} {statistics.median(seconds):.3g} s" for name, seconds in one.ways.items() if name != "autoglm"
            ),
        )
        for one in found
    ]
