"""Fills a journal with finished plans: ``python -m benchmarks.filling '{"directory": DIR, "plans": 1000}'``.

One plan is run as any other; the rest are copies of its events with other ids, appended through the journal's own port.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from autoglm._ids import new_id
from autoglm.model import CreatePlanRequest, PlanState, StepDraft
from autoglm.wire import digest_text, to_json
from autoglm_server.journal.journal import Append, Journal, JournalError
from benchmarks.inprocess import running

AT_ONCE = 500


async def fill(directory: Path, plans: int) -> dict[str, float]:
    async with running(directory) as (scheduler, _, journal):
        steps = (StepDraft(id="s", tool="bench.noop"),)
        wanted = CreatePlanRequest(steps=steps, labels={"kind": "filling"})
        plan, _existing = await scheduler.create(wanted, principal="", digest=digest_text(to_json(wanted)))

        while scheduler.open_plans:
            await asyncio.sleep(0.001)

        bodies, row = list(await journal.read(plan.id, 0)), await journal.get_row(plan.id)
        assert row is not None
        assert row.state is PlanState.SUCCEEDED, row.state
        old = plan.id.encode()

        for begin in range(1, plans, AT_ONCE):
            appends = []

            for _number in range(begin, min(plans, begin + AT_ONCE)):
                new = new_id()
                own = [body.replace(old, new.encode()) for body in bodies]
                copied = replace(row, plan_id=new, body=row.body.replace(old, new.encode()))
                appends.append((new, own, copied))

            await _appended(journal, appends)

    return {"plans": plans, "events": plans * len(bodies)}


async def _appended(journal: Journal, appends: list[tuple[str, list[bytes], Any]]) -> None:
    loop = asyncio.get_running_loop()
    settled: list[asyncio.Future[JournalError | None]] = [loop.create_future() for _ in appends]

    for (plan_id, bodies, row), future in zip(appends, settled, strict=True):
        journal.append(Append(plan_id, 1, 1, bodies, future.set_result, row))

    for future in settled:
        if (refused := await future) is not None:
            raise refused


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(uvloop.run(fill(Path(asked["directory"]), int(asked["plans"])))))
