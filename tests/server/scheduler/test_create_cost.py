"""What one more create costs, in counts that are the same on every machine: of a plan like others, and of one like no other.

A count that falls is good: lower its bound.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import autoglm
import autoglm_server
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.scheduler import forms
from autoglm_server.scheduler import run as run_module
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.run import PlanRun
from autoglm_server.service.asked import Asked
from autoglm_server.service.plans import read_create
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.validation import Schema
from tests.server.scheduler.harness import World
from tests.server.scheduler.test_cost import counted

CREATES = 32
OURS = (*(str(Path(str(package.__file__)).parent) for package in (autoglm, autoglm_server)), "<autoglm ")
"""Where the product's own code is, and what it generates: not a folder that happens to be named like it, and this test in it."""
LIMITS = LimitSettings()
ALIKE = {
    "appends": 1.0,
    "encodings": 2.0,  # what was created, and its options, which are written once for all who have them
    "validations": 0.0,
    "turns": 0.0,  # it waits for its place
    "tasks": 0.0,
    "python calls": 75.0,
}
OTHER = ALIKE | {"validations": 1.0, "python calls": 114.0}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    monkeypatch.setattr(time, "time_ns", lambda: 0)  # what an id says of its time is made once a millisecond
    counted(monkeypatch, found, "turns", PlanRun, "turn")
    for module, name in ((run_module, "encode"), (forms, "encode")):
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
        content = asked.content(each)
        found = asked.find(content, each.request_id)
        again = found is not None
        if found is None:
            found = read_create(each, LIMITS, len(content))
            asked.keep(content, *found)

        request, digest = found
        await world.scheduler.submit(request, principal="", digest=digest, again=again)


async def cost(directory: Path, counts: Counter[str], *, alike: bool) -> dict[str, float]:
    """Give the counts of one more create; the loop's thread alone is looked at."""
    loop = asyncio.get_running_loop()

    def make_task(_: object, work: Any, **more: Any) -> asyncio.Task[Any]:
        counts["tasks"] += 1
        return asyncio.Task(work, loop=loop, **more)

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
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


async def test_a_plan_like_others_is_not_read_again(tmp_path: Path, counts: Counter[str]) -> None:
    found = await cost(tmp_path, counts, alike=True)
    assert {name: count for name, count in found.items() if count > ALIKE[name]} == {}


async def test_a_plan_like_no_other_is_looked_at_once(tmp_path: Path, counts: Counter[str]) -> None:
    found = await cost(tmp_path, counts, alike=False)
    assert {name: count for name, count in found.items() if count > OTHER[name]} == {}
    assert (found["validations"], found["encodings"]) == (1.0, 2.0), "or the counters count nothing"
    assert found["python calls"] > ALIKE["python calls"]


async def test_a_create_that_costs_more_is_noticed(
    tmp_path: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Asked, "find", lambda *_: None)
    found = await cost(tmp_path, counts, alike=True)
    assert {name for name, count in found.items() if count > ALIKE[name]} == {"validations", "python calls"}
