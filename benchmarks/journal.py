"""What the journal takes, beside bare SQLite in the same run: ``python benchmarks/journal.py [DIRECTORY]``.

Callers append one event of 200 bytes each and wait until it is durable, over and over. Beside events a second and latency
stand the CPU of the writer's thread and of the whole process for an event, callers included, and the ratio to ``bare``: one
thread that inserts batches of that size with apsw and does nothing else. Rates move with the machine and its disk, the ratio
less so.
The last lines follow the same events: 64 cursors on a plan each, and one on all plans.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import apsw
import uvloop

from autoglm.model import PlanState
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Append, JournalError, PlanRow, Record
from autoglm_server.journal.sqlite import PRAGMAS, SqliteJournal

SECONDS = 2.0
BODY = os.urandom(200)

Callers = Callable[[float], Awaitable[Sequence[float]]]


def bare(directory: Path, batch: int) -> float:
    """Events a second of one thread that commits batches."""
    db = apsw.Connection(str(directory / "bare.db"))
    for name, value in PRAGMAS.items():
        db.execute(f"PRAGMA {name} = {value}")

    db.execute("CREATE TABLE event(id INTEGER PRIMARY KEY, plan INTEGER, sequence INTEGER, body BLOB)")
    db.execute("CREATE UNIQUE INDEX sequence ON event(plan, sequence)")
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS / 2:
        rows = [(number, count // batch, BODY) for number in range(batch)]
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO event(plan, sequence, body) VALUES(?, ?, ?)", rows)
        db.execute("COMMIT")
        count += batch

    rate = count / (time.perf_counter() - start)
    db.close()
    return rate


async def call(journal: SqliteJournal, plan_id: str, stop: float) -> list[float]:
    """One caller: append, wait, again; the latencies."""
    loop = asyncio.get_running_loop()
    row: PlanRow | None = PlanRow(plan_id, "", "", PlanState.RUNNING, {}, "", "", datetime.now(UTC), BODY)
    latencies: list[float] = []
    while (begun := time.perf_counter()) < stop:
        settled: asyncio.Future[JournalError | None] = loop.create_future()
        journal.append(Append(plan_id, 1, len(latencies) + 1, [BODY], settled.set_result, row))
        assert await settled is None
        row = None
        latencies.append(time.perf_counter() - begun)

    return latencies


class Clocked(SqliteJournal):
    """Keeps the CPU time of the writer's thread."""

    def writer_cpu(self) -> float:
        assert self._writer is not None
        ident = self._writer._thread.ident
        assert ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(ident))


async def measure(directory: Path, callers: int) -> str:
    journal = Clocked(directory / "data")
    commits = 0

    def count(_: Sequence[Record]) -> None:
        nonlocal commits
        commits += 1

    journal.on_commit = count
    await journal.open()
    cpu, stop = (time.process_time(), journal.writer_cpu()), time.perf_counter() + SECONDS
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(journal, f"plan{number:022}", stop)) for number in range(callers)]

    latencies = sorted(latency for task in tasks for latency in task.result())
    events = len(latencies)
    process, writer = (time.process_time() - cpu[0]) / events * 1e6, (journal.writer_cpu() - cpu[1]) / events * 1e6
    await journal.close()
    rate, floor = events / SECONDS, bare(directory, max(1, round(events / commits)))
    p50, p99 = latencies[events // 2] * 1e3, latencies[events * 99 // 100] * 1e3
    return f"{callers:8}{rate:11,.0f}{p50:9.2f}{p99:9.2f}{events / commits:9.1f}{writer:9.1f}{process:9.1f}{rate / floor:9.2f}"


async def follow(directory: Path, *, everything: bool) -> str:
    journal = SqliteJournal(directory / "data")
    feed = Feed(journal)
    await journal.open()
    stop = time.perf_counter() + SECONDS
    plans = [f"plan{number:022}" for number in range(64)]
    given = 0

    async def watch(plan_id: str) -> None:
        nonlocal given
        cursor = feed.follow_all() if everything else feed.follow(plan_id)
        while batch := (await cursor.next(0.5)).bodies:
            given += len(batch)

        cursor.close()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(journal, plan_id, stop)) for plan_id in plans]
        while await journal.last_sequence(plans[-1]) is None:
            await asyncio.sleep(0.001)

        for plan_id in plans[:1] if everything else plans:
            group.create_task(watch(plan_id))

    assert given == sum(len(task.result()) for task in tasks)
    await journal.close()
    return (
        f"{'one cursor on all plans' if everything else '64 cursors'}: {given / SECONDS:,.0f} events/s, each given out"
    )


def run(work: Callable[[Path], Awaitable[str]], under: str | None) -> None:
    async def main(directory: Path) -> str:
        return await work(directory)

    with tempfile.TemporaryDirectory(dir=under) as name, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(main(Path(name))))


def main() -> None:
    under = sys.argv[1] if len(sys.argv) > 1 else None
    columns = (
        ("events/s", 11),
        ("p50 ms", 9),
        ("p99 ms", 9),
        ("a commit", 9),
        ("writer us", 9),
        ("all us", 9),
        ("of bare", 9),
    )
    print(f"{'callers':>8}" + "".join(f"{name:>{width}}" for name, width in columns))
    for callers in (1, 64, 512):
        run(lambda directory, callers=callers: measure(directory, callers), under)  # type: ignore[misc]

    for everything in (False, True):
        run(lambda directory, everything=everything: follow(directory, everything=everything), under)  # type: ignore[misc]


if __name__ == "__main__":
    main()
