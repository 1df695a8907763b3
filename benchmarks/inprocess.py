"""Plans in this process, without gRPC and watchers: ``python -m benchmarks.inprocess '{"plans": 64, "steps": 100}'``.

The real scheduler, catalog and journal, made as the server makes them. Prints seconds and CPU seconds from the opening of
the gate to the last plan's durable end, and the CPU of the creation.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop

from autoglm.model import CreatePlanRequest, PlanOptions, StepDraft
from autoglm.wire import digest_text, to_json
from autoglm_server import app
from autoglm_server.configuration import load
from autoglm_server.journal.journal import Journal
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import Invocation
from benchmarks.processes import ROOT, SETTINGS

WAIT_SECONDS = 120.0


def drafts(steps: int, tool: str, key: str, *, wide: bool) -> tuple[StepDraft, ...]:
    """A gate, and behind it a chain, or everything at once."""
    gate = StepDraft(id="gate", tool="bench.gate", arguments={"key": key})
    before = ["gate" if wide or not i else f"s{i - 1}" for i in range(steps)]
    return gate, *(StepDraft(id=f"s{i}", tool=f"bench.{tool}", depends_on=(before[i],)) for i in range(steps))


@contextlib.asynccontextmanager
async def running(directory: Path, **more: str) -> AsyncIterator[tuple[Scheduler, Catalog, Journal]]:
    """Run the server's own composition in this process, and give the pieces that a caller here needs of it."""
    provider = f"python:{ROOT / 'benchmarks/tools.py'}"
    variables = {**SETTINGS, "AUTOGLM_DATA_DIR": str(directory), "AUTOGLM_SERVER__PORT": "0", **more}
    settings = load(environment=variables, flags={"providers.bench": ("--provider", provider)})

    with (
        mock.patch.object(app, "make_scheduler", Keeping(app.make_scheduler)) as scheduler,
        mock.patch.object(app, "make_catalog", Keeping(app.make_catalog)) as catalog,
        mock.patch.object(app, "make_journal", Keeping(app.make_journal)) as journal,
    ):
        application = app.Application(settings)

        async with asyncio.TaskGroup() as group:
            group.create_task(application.run())
            await application.ready.wait()
            yield scheduler.made, catalog.made, journal.made
            application.stop()


class Keeping:
    """Calls a maker, and keeps what it made."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self.made: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.made = self._make(*args, **kwargs)
        return self.made


async def measured(directory: Path, asked: dict[str, Any]) -> dict[str, float]:
    found = {"seconds": 0.0, "cpu": 0.0, "created": 0.0}

    async with asyncio.timeout(WAIT_SECONDS), running(directory) as (scheduler, catalog, _):
        for number in range(int(asked.get("repeat", 1))):
            for name, figure in (await once(scheduler, catalog, asked, f"gate-{number}")).items():
                found[name] += figure

    return found


async def once(scheduler: Scheduler, catalog: Catalog, asked: dict[str, Any], key: str) -> dict[str, float]:
    plans = int(asked["plans"])
    steps = drafts(int(asked["steps"]), asked.get("tool", "noop"), key, wide=bool(asked.get("wide")))
    wanted = CreatePlanRequest(steps=steps, options=PlanOptions(max_parallel_steps=int(asked.get("parallel", 32))))
    began = time.process_time()

    for _ in range(plans):
        await scheduler.create(wanted, principal="", digest=digest_text(to_json(wanted)))

    created = time.process_time() - began
    waiting = Invocation("bench.waiting", {"key": key}, "", 30)

    while (await catalog.call(waiting)).output != plans:
        await asyncio.sleep(0.005)

    gc.collect()
    gc.freeze()
    began, used = time.perf_counter(), time.process_time()
    await catalog.call(Invocation("bench.open", {"key": key}, "", 30))

    while scheduler.open_plans:  # nothing tells that all have ended, and 1 ms is little here
        await asyncio.sleep(0.001)

    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used, "created": created}


def main() -> None:
    asked = json.loads(sys.argv[1])

    with tempfile.TemporaryDirectory(dir=asked.get("under")) as name:
        print(json.dumps(uvloop.run(measured(Path(name), asked))))


if __name__ == "__main__":
    main()
