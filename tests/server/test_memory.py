"""Nothing stays in memory of plans that have ended and were removed: the objects of a whole server are counted."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import autoglm
from autoglm.model import Approve, PlanOptions, RetryPolicy, StepDraft, StepWaiting
from autoglm_server import app
from autoglm_server.app import Application
from autoglm_server.configuration import load
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Journal, PlanQuery
from autoglm_server.scheduler.retention import Retention, Rules
from autoglm_server.scheduler.timers import _Entry
from autoglm_server.service.plans import PlanService

PLANS = 24
BOUNDED = (PlanOptions, RetryPolicy, _Entry)
"""Of these some are kept on purpose, within bounds: so that equal ones are one, or until the timers' heap is cleared of them."""


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> list[Feed]:
    """Feeds of the servers that were started; these keep nothing that has ended."""
    made: list[Feed] = []

    def hasty(settings: Any, journal: Journal, feed: Feed, clock: Any, artifacts: Any) -> Retention:
        made.append(feed)
        rules = Rules(timedelta(0), timedelta(0))
        return Retention(journal, feed, clock, rules, artifacts=artifacts, interval_seconds=0.01, pause_seconds=0)

    monkeypatch.setattr(app, "make_retention", hasty)
    return made


async def live(client: autoglm.AsyncClient, number: int) -> None:
    """One plan as clients have them: watched, approved or cancelled, looked at.

    They are all alike: of requests some are kept, for who asks the same again.
    """
    first = StepDraft(id="first", tool="text.reverse", arguments={"text": "x"})
    asked = StepDraft(id="asked", tool="text.reverse", arguments={"text": "${first.result}"}, requires_approval=True)
    plan = await client.create(steps=[first, asked], labels={"team": "x"}, request_id=f"r{number}")
    async for event in client.watch(plan.id):
        if isinstance(event.fact, StepWaiting) and number % 3:
            await client.resolve(plan.id, "asked", Approve(), wait_sequence=event.sequence)
        elif isinstance(event.fact, StepWaiting):
            await client.cancel(plan.id, "enough")

    await client.tools.call("text.reverse", {"text": "x"})
    async for _ in client.list(labels={"team": "x"}):
        pass


async def work(client: autoglm.AsyncClient, feed: Feed, numbers: range) -> Counter[str]:
    """Have some plans live and go; give how many objects of each kind of ours there are then."""
    for start in numbers[::8]:
        await asyncio.gather(*(live(client, number) for number in numbers[start - numbers[0] :][:8]))

    while (await feed.journal.list_rows(PlanQuery())).rows:  # noqa: ASYNC110 - retention takes them away
        await asyncio.sleep(0.01)

    feed.rest()
    gc.collect()
    kinds = (type(one) for one in gc.get_objects() if type(one) not in BOUNDED)
    return Counter(kind.__qualname__ for kind in kinds if kind.__module__.startswith("autoglm"))


async def grown(feeds: list[Feed], folder: Path) -> dict[str, int]:
    """Give the kinds of which there are more after twice as many plans, by at least half of those plans."""
    flags = {"data_dir": folder, "server.port": 0, "journal.url": "memory:"}
    application = Application(load(flags={key: ("test", value) for key, value in flags.items()}))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(application.run())
        await application.ready.wait()
        async with autoglm.AsyncClient(application.address) as client:
            await work(client, feeds[0], range(PLANS))  # what is made once is made
            before = await work(client, feeds[0], range(PLANS, 2 * PLANS))
            after = await work(client, feeds[0], range(2 * PLANS, 3 * PLANS))

        application.stop()

    return {kind: count - before[kind] for kind, count in after.items() if count - before[kind] >= PLANS // 2}


async def test_nothing_stays_of_plans_that_are_gone(feeds: list[Feed], tmp_path: Path) -> None:
    assert await grown(feeds, tmp_path) == {}


async def test_control_a_server_that_keeps_plans_is_found(
    feeds: list[Feed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    creates: Any = PlanService.CreatePlan

    async def keeps(self: Any, request: Any, context: Any) -> Any:
        answer = await creates(self, request, context)
        kept.extend(self._plans._runs.values())
        return answer

    monkeypatch.setattr(PlanService, "CreatePlan", keeps)
    assert "PlanRun" in await grown(feeds, tmp_path)
