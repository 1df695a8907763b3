"""What one more step costs, in counts that are the same on every machine: a regression is noticed without measuring time.

A plan of 110 steps in sequence less one of 60, on the real scheduler, catalog and SQLite journal, is fifty steps; what is
paid once cancels out. A count that falls is good: lower its bound.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from autoglm import _carry, wire
from autoglm.model import Effect, Tool, ToolResult
from autoglm_server.journal.journal import Append, Record
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.scheduler import run as run_module
from autoglm_server.scheduler.run import PlanRun
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import Invocation
from autoglm_server.tools.validation import Schema
from tests.server.scheduler.harness import ANY, Tools, World, step

SHORT, LONG = 60, 110
"""Both have sequence numbers of two bytes at their ends."""

BOUNDS = {
    "events": 3.0,  # step_added, step_started, step_succeeded
    "encodings": 3.0,  # once an event, for the journal and for every watcher
    "appends": 1.0,  # the end of one step and the start of the next, together
    "commits": 1.0,
    "batches": 1.0,  # a watcher is woken once a commit
    "turns": 1.0,
    "decisions": 1.0,
    "calls": 1.0,
    "tasks": 1.0,  # of asyncio: the attempt's
    "validations": 1.0,  # of arguments by their schema: as they are written, since nothing is filled in
    "json texts": 0.0,
    "outputs written": 0.0,  # by themselves: the event takes the bytes that the check of the output has made
    "journal bytes": 328.0,
}


Beside = Callable[[], Coroutine[Any, Any, None]]


class CountingJournal(SqliteJournal):
    """Counts what it is given."""

    def __init__(self, directory: Path, counts: Counter[str]) -> None:
        super().__init__(directory)
        self._counts = counts

    def append(self, append: Append) -> None:
        self._counts["appends"] += 1
        self._counts["events"] += len(append.bodies)
        self._counts["journal bytes"] += sum(map(len, append.bodies))
        super().append(append)


class Idempotent(Tools):
    """Answers at once; a test may add work to each call."""

    def __init__(self, beside: Beside | None = None) -> None:
        super().__init__(offered=[Tool("echo", input_schema=ANY, effect=Effect.IDEMPOTENT, available=True)])
        self._beside = beside

    async def call(self, invocation: Invocation) -> ToolResult:
        if self._beside is not None:
            await self._beside()

        return await super().call(invocation)


class Counting(World):
    """Counts what the journal makes durable."""

    def __init__(self, directory: Path, counts: Counter[str], beside: Beside | None) -> None:
        super().__init__(CountingJournal(directory, counts))
        self.tools = Idempotent(beside)
        self.providers = [self.tools]
        self._counts = counts

    async def boot(self) -> None:
        await super().boot()
        follow = self.journal.on_commit

        def committed(records: Sequence[Record]) -> None:
            self._counts["commits"] += 1
            follow(records)

        self.journal.on_commit = committed


def counted(monkeypatch: pytest.MonkeyPatch, counts: Counter[str], name: str, owner: object, attribute: str) -> None:
    original = getattr(owner, attribute)

    def call(*args: Any, **kwargs: Any) -> Any:
        counts[name] += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, attribute, call)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    found: Counter[str] = Counter()
    counted(monkeypatch, found, "turns", PlanRun, "turn")
    counted(monkeypatch, found, "decisions", run_module, "decide")
    counted(monkeypatch, found, "encodings", run_module, "encode")
    counted(monkeypatch, found, "calls", Catalog, "call")

    for method in ("check", "check_written", "fit", "fits"):
        counted(monkeypatch, found, "validations", Schema, method)

    counted(monkeypatch, found, "outputs written", _carry, "write_value")
    counted(monkeypatch, found, "json texts", json.JSONEncoder, "encode")
    counted(monkeypatch, found, "json texts", json.JSONDecoder, "decode")
    return found


async def run_chain(directory: Path, counts: Counter[str], steps: int, beside: Beside | None) -> Counter[str]:
    """Run a plan of so many steps in sequence, watched; gives what was counted."""
    counts.clear()
    loop = asyncio.get_running_loop()

    def make_task(_: object, work: Any, **more: Any) -> asyncio.Task[Any]:
        counts["tasks"] += 1
        return asyncio.Task(work, loop=loop, **more)

    async with Counting(directory, counts, beside) as world:
        drafts = [step(f"s{i:03}", "echo", [f"s{i - 1:03}"] if i else []) for i in range(steps)]
        loop.set_task_factory(make_task)
        plan = await world.create(*drafts)
        cursor = world.feed.follow(plan.id, 0, durable_only=True)

        while not (batch := await cursor.next(5.0)).ended:
            counts["batches"] += 1
            assert batch.bodies, "nothing happens any more"

        loop.set_task_factory(None)
        cursor.close()
        assert world.tools.times("s000") == 1

    return Counter(counts)


async def cost(directory: Path, counts: Counter[str], beside: Beside | None = None) -> dict[str, float]:
    """Give the counts of one more step."""
    short = await run_chain(directory / "short", counts, SHORT, beside)
    long = await run_chain(directory / "long", counts, LONG, beside)
    return {name: (long[name] - short[name]) / (LONG - SHORT) for name in BOUNDS}


async def test_one_more_step_costs_no_more_than_it_did(tmp_path: Path, counts: Counter[str]) -> None:
    found = await cost(tmp_path, counts)
    assert {name: count for name, count in found.items() if count > BOUNDS[name]} == {}


@pytest.mark.parametrize("name", ["tasks", "json texts", "outputs written", "validations", "turns"])
async def test_a_step_that_costs_more_is_noticed(tmp_path: Path, counts: Counter[str], name: str) -> None:
    async def beside() -> None:
        match name:
            case "tasks":
                await asyncio.get_running_loop().create_task(asyncio.sleep(0))
            case "json texts":
                json.dumps({})
            case "outputs written":
                wire.encode(ToolResult({}))
            case "validations":
                schema.check({}, "arguments")
            case _:
                PlanRun.turn(gone)

    schema = Schema(ANY, bytes_max=1000)
    gone = PlanRun.__new__(PlanRun)
    gone.gone = True
    found = await cost(tmp_path, counts, beside)
    assert found[name] > BOUNDS[name]
