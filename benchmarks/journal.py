"""What the journal takes, beside bare SQLite in the same run.

Callers append one event of 200 bytes each and wait until it is durable, over and over; ``bare`` is one thread that inserts
batches of that size with apsw and does nothing else. Then the same events are followed: 64 cursors on a plan each, and one on
all plans.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw

from autoglm.model import PlanState
from autoglm_server.journal._writer import WriterThread
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Append, JournalError, PlanRow, Record
from autoglm_server.journal.sqlite import PRAGMAS, SqliteJournal
from benchmarks.processes import folder
from benchmarks.rows import Options, Row

SECONDS = 2.0
BODY = os.urandom(200)


def bare(directory: Path, batch: int, seconds: float) -> float:
    """Events a second of one thread that commits batches."""
    db = apsw.Connection(str(directory / "bare.db"))
    for name, value in PRAGMAS.items():
        db.execute(f"PRAGMA {name} = {value}")

    db.execute("CREATE TABLE event(id INTEGER PRIMARY KEY, plan INTEGER, sequence INTEGER, body BLOB)")
    db.execute("CREATE UNIQUE INDEX sequence ON event(plan, sequence)")
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
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
        runner = self._writer._runner
        assert isinstance(runner, WriterThread)
        ident = runner._thread.ident
        assert ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(ident))


@dataclass(frozen=True, slots=True)
class Taken:
    """What callers got, and what it took."""

    rate: float
    bare: float
    p50: float
    p99: float
    events_per_commit: float
    writer_us: float
    """CPU of the writer's thread for an event."""
    process_us: float
    """CPU of the process for an event, callers included."""


async def measure(directory: Path, callers: int, seconds: float) -> Taken:
    journal = Clocked(directory / "data")
    commits = 0

    def count(_: Sequence[Record]) -> None:
        nonlocal commits
        commits += 1

    journal.on_commit = count
    await journal.open()
    cpu, stop = (time.process_time(), journal.writer_cpu()), time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(journal, f"plan{number:022}", stop)) for number in range(callers)]

    latencies = sorted(latency for task in tasks for latency in task.result())
    events = len(latencies)
    process, writer = (time.process_time() - cpu[0]) / events * 1e6, (journal.writer_cpu() - cpu[1]) / events * 1e6
    await journal.close()
    return Taken(
        rate=events / seconds,
        bare=bare(directory, max(1, round(events / commits)), seconds / 2),
        p50=latencies[events // 2] * 1e3,
        p99=latencies[events * 99 // 100] * 1e3,
        events_per_commit=events / commits,
        writer_us=writer,
        process_us=process,
    )


async def follow(directory: Path, seconds: float, *, everything: bool) -> tuple[float, float]:
    """Give the events a second given out, and those appended."""
    journal = SqliteJournal(directory / "data")
    feed = Feed(journal)
    await journal.open()
    stop = time.perf_counter() + seconds
    plans = [f"plan{number:022}" for number in range(64)]
    given, ended = 0, stop

    async def watch(plan_id: str) -> None:
        nonlocal given, ended
        cursor = feed.follow_all() if everything else feed.follow(plan_id)
        while batch := (await cursor.next(0.5)).bodies:
            given += len(batch)
            ended = time.perf_counter()

        cursor.close()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(journal, plan_id, stop)) for plan_id in plans]
        while await journal.last_sequence(plans[-1]) is None:
            await asyncio.sleep(0.001)

        for plan_id in plans[:1] if everything else plans:
            group.create_task(watch(plan_id))

    appended = sum(len(task.result()) for task in tasks)
    assert given == appended
    await journal.close()
    return given / (seconds + max(0.0, ended - stop)), appended / seconds


async def rows(options: Options) -> list[Row]:
    seconds = SECONDS / 2 if options.quick else SECONDS
    taken: dict[int, list[Taken]] = {1: [], 64: [], 512: []}
    given: dict[bool, list[tuple[float, float]]] = {False: [], True: []}

    for _ in range(options.rounds):
        for callers, found in taken.items():
            async with folder(options.data_dir) as directory:
                found.append(await measure(directory, callers, seconds))

        for everything, pairs in given.items():
            async with folder(options.data_dir) as directory:
                pairs.append(await follow(directory, seconds, everything=everything))

    appends = [
        Row(
            f"journal.append.{callers}",
            "events/s",
            [one.rate for one in found],
            [one.bare for one in found],
            "one thread of bare SQLite, batches of that size",
            None,
            f"{callers} callers, each waits for its event; p50 {found[-1].p50:.2f} ms, p99 {found[-1].p99:.2f} ms",
            asdict(found[-1]),
        )
        for callers, found in taken.items()
    ]
    follows = [
        Row(
            f"journal.follow.{'one' if everything else 'each'}",
            "events/s",
            [value for value, _ in pairs],
            [limit for _, limit in pairs],
            "those appended meanwhile",
            None,
            "one cursor on all plans" if everything else "64 cursors on a plan each",
        )
        for everything, pairs in given.items()
    ]
    return [row for row in (*appends, *follows) if options.wanted(row.name)]
