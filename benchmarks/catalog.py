"""What many tools cost: microseconds of CPU with 1,000 tools beside the same with 20.

What is done once for all tools (start, list, a page's digest) may grow with their number: 50 is proportional. What is done for
one call or one step must not: 1 is flat. The rules planner reads a request with the phrases of all tools; it keeps what it
compiled of them, so its first plan is told apart from the next.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoglm.model import Effect, Phrase, Plan, PlanOptions, Tool, ToolResult
from autoglm.planner import RoundView
from autoglm_server.planner.rules import RulesPlanner
from autoglm_server.settings import ToolSettings
from autoglm_server.tools.builtin import builtin_tools
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tool import Invocation
from autoglm_server.tools.wrappers import Wrappers
from benchmarks.rows import Options, Row, at_most

SIZES = (20, 1000)
SCHEMA = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "description": "The customer's number.", "minLength": 1},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
        "filter": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
    },
    "required": ["customer"],
    "additionalProperties": False,
}
RULES = [
    ToolSettings.model_validate(rule)
    for rule in (
        {"match": "*", "concurrency": 100, "redact": ["password"]},
        {"match": "many.*", "rate": "1000000/s", "timeout": "20s"},
    )
]
WHAT = {
    "start": "start",
    "change": "a provider goes away or comes back",
    "list": "list",
    "find": "find one",
    "check": "check arguments",
    "nearest": "name the nearest to a typo",
    "call": "call",
    "wrapped": "call, with a rate, places and redaction",
    "plan.first": "plan with rules, the first time",
    "plan": "plan with rules, then",
}
ARGUMENTS = {"customer": "c-17", "limit": 5, "filter": {"open": True}}


class Many:
    """A provider of many tools that do nothing."""

    name = "many"

    def __init__(self, number: int) -> None:
        # Each its own schema, as in life: else one compiled schema would serve all.
        self._tools = tuple(
            Tool(
                name=f"records.list_{index}",
                description=f"Lists the records of kind {index} that belong to a customer.",
                input_schema=json.dumps(SCHEMA | {"title": f"List {index}"}),
                effect=Effect.READ_ONLY,
                available=True,
                timeout=timedelta(seconds=30),
                phrases=(Phrase(f"list kind {index} of {{customer:name}}", "{output}", "en"),),
            )
            for index in range(number)
        )

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def call(self, _: Invocation) -> ToolResult:
        return ToolResult({"rows": [], "total": 0})


def made(provider: Many, rules: list[ToolSettings] | None = None) -> Catalog:
    builtin = FunctionProvider("", builtin_tools(Path(TemporaryDirectory().name)))
    return Catalog([builtin, provider], wrappers=Wrappers(rules or []))


async def cost(work: Callable[[], Coroutine[Any, Any, object]], number: int, repeat: int = 5) -> float:
    """The least time of one, in microseconds of this process."""
    least = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        for _ in range(number):
            await work()

        least = min(least, (time.process_time() - began) / number * 1e6)

    return least


async def planned(planner: RulesPlanner, tools: list[Tool], index: int) -> None:
    plan = Plan(id="p", request=f"list kind {index} of Ann", options=PlanOptions(max_steps=10))
    view = RoundView(plan, 1, 1, tools, (), steps_left=10, last=False)
    drafts = [item async for item in planner.round(view)]
    assert [getattr(draft, "tool", "") for draft in drafts] == [f"many.records.list_{index}"], drafts


async def measured(size: int) -> dict[str, float]:
    provider = Many(size)
    catalog, wrapped = made(provider), made(Many(size), RULES)
    await catalog.start()
    await wrapped.start()
    name = f"many.records.list_{size - 1}"
    call = Invocation(name, ARGUMENTS, "", 30)

    async def starting() -> None:
        await made(Many(size)).start()

    async def changing() -> None:
        provider._tools = tuple(dataclasses.replace(tool, available=not tool.available) for tool in provider._tools)
        assert catalog.get(name)

    async def listing() -> list[Tool]:
        return catalog.tools()

    async def getting() -> Tool | None:
        return catalog.get(name)

    async def checking() -> None:
        assert not catalog.check_written(name, ARGUMENTS, field="arguments")

    async def missing() -> None:
        assert catalog.nearest("many.records.lst_7")

    planner, tools = RulesPlanner(), catalog.tools()
    began = time.process_time()
    await planned(planner, tools, 0)
    first = (time.process_time() - began) * 1e6
    return {
        "start": await cost(starting, 1, 3),
        "change": await cost(changing, 2, 4),
        "list": await cost(listing, 20),
        "find": await cost(getting, 500),
        "check": await cost(checking, 500),
        "nearest": await cost(missing, 3),
        "call": await cost(lambda: catalog.call(call), 300),
        "wrapped": await cost(lambda: wrapped.call(call), 300),
        "plan.first": first,
        "plan": await cost(lambda: planned(planner, tools, size // 2), 3),
    }


FLAT, STRAIGHT = at_most(2.0, 1.5), at_most(100.0, 75.0)
"""What is done for one call must not know how many tools there are; what is done once for all may grow as their number."""
FOR_ALL = {"start", "change", "list", "nearest", "plan.first", "plan"}


async def rows(options: Options) -> list[Row]:
    """Growth with tools: the cost with 1,000 beside the cost with 20."""
    few, many = [], []

    for _ in range(min(options.rounds, 3)):
        few.append(await measured(SIZES[0]))
        many.append(await measured(SIZES[1]))

    return [
        Row(
            f"catalog.{name}",
            "us",
            [one[name] for one in many],
            [one[name] for one in few],
            f"the same with {SIZES[0]} tools",
            STRAIGHT if name in FOR_ALL else FLAT,
            f"CPU; {what}, {SIZES[1]:,} tools",
        )
        for name, what in WHAT.items()
        if options.wanted(f"catalog.{name}")
    ]
