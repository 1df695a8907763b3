"""What one more create costs, in counts that hardly differ between machines: of a plan like others, and of one like no other.

A count that falls is good: lower its bound.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.scheduler import run as run_module
from autoglm_server.scheduler import scheduler
from autoglm_server.scheduler.forms import Kinds
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.run import PlanRun
from autoglm_server.service.asked import Asked
from autoglm_server.service.plans import read_create
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.validation import Schema
from tests.server.scheduler.harness import World
from tests.server.scheduler.test_cost import counted

CREATES = 32
LIMITS = LimitSettings()
ALIKE = {
    "appends": 1.0,
    "encodings": 0.0,
    "validations": 0.0,
    "turns": 0.0,  # it waits for its place
    "tasks": 0.0,
    "python calls": 92.0,  # 84, and some where others have the machine, as the journal then wakes the loop more often
}
OTHER = {
    "appends": 1.0,
    "encodings": 4.0,  # two events, the row, and the steps behind it
    "validations": 1.0,
    "turns": 0.0,
    "tasks": 0.0,
    "python calls": 224.0,  # 204, likewise
}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    counted(monkeypatch, found, "turns", PlanRun, "turn")
    for module, name in ((run_module, "encode"), (scheduler, "encode"), (scheduler, "encode_steps")):
        counted(monkeypatch, found, "encodings", module, name)

    for method in ("check", "check_written", "fit", "fits"):
        counted(monkeypatch, found, "validations", Schema, method)

    counted(monkeypatch, found, "appends", SqliteJournal, "append")
    yield found
    sys.setprofile(None)


def message(number: int, *, alike: bool) -> pb.CreatePlanRequest:
    asked = pb.CreatePlanRequest(request_id=f"r{number}")
    arguments = asked.steps.add(id="s", tool="echo").arguments
    arguments.update({"n": 1 if alike else number})
    return pb.CreatePlanRequest.FromString(asked.SerializeToString())


async def created(world: World, asked: Asked, messages: list[pb.CreatePlanRequest]) -> None:
    for each in messages:
        found = asked.find(each)
        if found is None:
            found = read_create(each, LIMITS)
            asked.keep(each, *found)

        request, digest = found
        await world.scheduler.submit(request, principal="", digest=digest)


async def cost(directory: Path, counts: Counter[str], *, alike: bool) -> dict[str, float]:
    """Give the counts of one more create; the loop's thread alone is looked at."""
    loop = asyncio.get_running_loop()

    def make_task(_: object, work: Any, **more: Any) -> asyncio.Task[Any]:
        counts["tasks"] += 1
        return asyncio.Task(work, loop=loop, **more)

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "autoglm" in frame.f_code.co_filename:
            counts["python calls"] += 1

    async with World(SqliteJournal(directory), Limits(running_plans=0)) as world:
        asked = Asked(LIMITS)
        await created(world, asked, [message(number, alike=alike) for number in range(3)])
        more = [message(number, alike=alike) for number in range(3, 3 + CREATES)]
        loop.set_task_factory(make_task)
        counts.clear()
        sys.setprofile(called)
        await created(world, asked, more)
        sys.setprofile(None)
        loop.set_task_factory(None)
        return {name: counts[name] / CREATES for name in ALIKE}


async def test_a_plan_like_others_is_filled_in(tmp_path: Path, counts: Counter[str]) -> None:
    found = await cost(tmp_path, counts, alike=True)
    assert {name: count for name, count in found.items() if count > ALIKE[name]} == {}


async def test_a_plan_like_no_other_is_looked_at_once(tmp_path: Path, counts: Counter[str]) -> None:
    found = await cost(tmp_path, counts, alike=False)
    assert {name: count for name, count in found.items() if count > OTHER[name]} == {}
    assert found["validations"] == 1.0, "or the counters count nothing"
    assert found["python calls"] > ALIKE["python calls"]


async def test_a_create_that_costs_more_is_noticed(
    tmp_path: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kinds, "find", lambda *_: None)
    found = await cost(tmp_path, counts, alike=True)
    assert {name for name, count in found.items() if count > ALIKE[name]} >= {
        "encodings",
        "validations",
        "python calls",
    }
