"""Fills a journal with finished plans: ``python -m benchmarks.filling '{"directory": DIR, "plans": 1000}'``.

One plan is run as any other; the rest are copies of its events with other ids, appended through the journal's own port.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import uvloop

from autoglm._ids import new_id
from autoglm.model import CreatePlanRequest, PlanState, StepDraft
from autoglm.wire import digest_text, to_json
from autoglm_server.journal.journal import Append, Journal, JournalError, PlanRow
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
        journal.on_commit = lambda _: None  # what makes tails of plans for watchers, and there are none
        under_way: list[asyncio.Future[JournalError | None]] = []

        for begin in range(1, plans, AT_ONCE):
            handed = []

            for _number in range(begin, min(plans, begin + AT_ONCE)):
                new = new_id()
                own = [body.replace(old, new.encode()) for body in bodies]
                copied = replace(row, plan_id=new, body=row.body.replace(old, new.encode()))
                handed.append(_append(journal, new, own, copied))

            await _settled(under_way)  # while these are written the next are made
            under_way = handed

        await _settled(under_way)

    return {"plans": plans, "events": plans * len(bodies)}


def _append(journal: Journal, plan_id: str, bodies: list[bytes], row: PlanRow) -> asyncio.Future[JournalError | None]:
    settled: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
    journal.append(Append(plan_id, 1, 1, bodies, settled.set_result, row))
    return settled


async def _settled(appends: list[asyncio.Future[JournalError | None]]) -> None:
    for each in appends:
        if (refused := await each) is not None:
            raise refused


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(uvloop.run(fill(Path(asked["directory"]), int(asked["plans"])))))
