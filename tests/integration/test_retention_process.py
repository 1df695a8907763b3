"""Retention in a whole server: what it answers before and after, through the SDK."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autoglm.aio import AsyncClient
from autoglm.errors import CompactedError, NotFoundError
from autoglm.model import StepDraft
from autoglm_server.app import Application
from autoglm_server.clock import SystemClock
from autoglm_server.scheduler import retention
from autoglm_server.settings import Settings


class Ahead(SystemClock):
    """The machine's clock, some days on."""

    def __init__(self, days: float = 0.0) -> None:
        self.days = days

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=self.days)


async def test_what_a_client_sees_of_a_plan_that_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "START_SECONDS", 0.0)
    monkeypatch.setattr(retention, "INTERVAL_SECONDS", 0.05)
    clock = Ahead()
    settings = Settings.model_validate({"data_dir": tmp_path, "server": {"port": 0}})
    application = Application(settings, clock=clock)
    serving = asyncio.create_task(application.run())
    await application.ready.wait()
    try:
        async with AsyncClient(application.address) as client:
            step = StepDraft(id="sum", tool="math.calculate", arguments={"expression": "1 + 1"})
            handle = await client.run(steps=[step])
            plan = await handle.result(timeout=40)
            before = await client.get(plan.id)
            assert before.end_time is not None
            assert before.expire_time == before.end_time + timedelta(days=30)
            assert [one.expire_time async for one in client.list()] == [before.expire_time]

            clock.days = 8
            await until_refused(client, plan.id, CompactedError)
            assert await client.get(plan.id) == before
            assert [one.id async for one in client.list_steps(plan.id)] == ["sum"]
            assert (await client.attach(plan.id).result(timeout=40)).answer == plan.answer

            clock.days = 31
            await until_refused(client, plan.id, NotFoundError)
            assert [one async for one in client.list()] == []
    finally:
        application.stop()
        await serving


async def until_refused(client: AsyncClient, plan_id: str, kind: type[CompactedError | NotFoundError]) -> None:
    while True:
        try:
            async for _ in client.watch(plan_id):
                pass
        except (CompactedError, NotFoundError) as refused:
            if isinstance(refused, kind):
                return

        await asyncio.sleep(0.02)
