"""A soak: a server that plans come to and go from for long, with everything that one does with plans, holds what it held.

Memory is what the process has for itself (``RssAnon``: where leaks are; pages of files come and go as the machine likes).
After a time to warm up, its line goes through the medians of its minutes, and two things are asked of it. Its slope is the median
of the slopes between minutes that are near to each other: a leak of some bytes a plan tilts all of them, one step of an
allocator few. Its rise, from the first minutes to the last, has a bound too, for what comes by steps again and again.
Retention takes away after seconds what has ended, so the disk has a level as well. One control keeps memory of every plan, and
everything on the disk; in a long soak another one is the line itself, with some bytes a plan more.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, groupby
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

import autoglm
from autoglm.errors import CompactedError, NotFoundError
from autoglm.model import Approve, Plan, PlanOptions, PlanState, Reject, StepDraft, StepState
from tests.reliability.launcher import BRISK, EVENTS_SECONDS, LEAKY, PLANS_SECONDS
from tests.reliability.rows import Result
from tests.reliability.servers import Life

MEMORY: Final = "soak-memory-flat"
DISK: Final = "soak-disk-bounded"
GONE: Final = "soak-what-went-is-told"

KINDS: Final = ("steps", "request", "file", "approve", "steps", "cancel", "stumble", "approve")
RATE: Final = 8.0
"""Plans a second: a quarter of a core, the clients included."""
CONTROL_SECONDS: Final = 24
SAMPLES: Final = 400
WARM: Final = 0.4
"""The part of a soak in which memory and disk find their level."""
WARM_SECONDS_MAX: Final = 600.0
"""What threads keep of what they freed, and what was once made larger, fills for some minutes."""
LONG_SECONDS: Final = 300.0
"""From when on the slope of a line is judged."""
MEMORY_SLOPE_MAX: Final = (1 << 20) / 3600
"""Bytes a second, over a long soak: a MiB an hour."""
MEMORY_GROWTH_MAX: Final = 3 << 20
"""Bytes that the line of a short one may rise by in all, while an allocator still finds its level."""
MEMORY_STEPS_MAX: Final = 2 << 20
"""Bytes that the line of a long one may rise by in all, steps included."""
NEAR: Final = 5
"""How many minutes two may lie apart whose slope counts."""
PARTS_MIN: Final = 12
"""Into how many parts a time is cut at least that has fewer minutes."""
SEEP_BYTES: Final = 100
"""Of memory a plan, which a long soak must see."""
DISK_GROWTH_MAX: Final = 1 << 20
WAL_MAX: Final = 16 << 20
NO_CACHES: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
"""Of a soak's server: threads keep nothing of what they freed. What each of them keeps otherwise has an end, 236 KiB, which half
an hour does not reach: like the other caches of this server it is made small, so that the line shows what has no end."""
OPEN_MAX: Final = 64
"""Plans at a time; what a slower machine does not get done is not asked for."""
END_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server held at a moment, in bytes."""

    at: float
    memory: int
    disk: int
    wal: int


@dataclass(slots=True)
class Soaked:
    """What came of a soak."""

    samples: list[Sample] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """How often each thing was done."""
    wrong: list[str] = field(default_factory=list)
    """What was not told as it should be of plans, gone or not."""
    went: list[tuple[str, float, float]] = field(default_factory=list)
    """What of a plan was gone, how long after its end at most, and after how long it may be."""

    def too_soon(self) -> list[str]:
        """Say what was gone before it might be."""
        return [f"{what}: {age:.1f} s after the end" for what, age, kept in self.went if age < kept]

    def settled(self) -> list[Sample]:
        """Give the samples from after the time to warm up."""
        first, last = self.samples[0].at, self.samples[-1].at
        begin = first + min(WARM * (last - first), WARM_SECONDS_MAX)
        return [one for one in self.samples if one.at >= begin]

    @property
    def seconds(self) -> float:
        """Give how long it was judged for."""
        settled = self.settled()
        return settled[-1].at - settled[0].at

    @property
    def rate(self) -> float:
        """Give the plans a second that were made."""
        return sum(self.done[kind] for kind in set(KINDS)) / (self.samples[-1].at - self.samples[0].at)

    def line(self, of: str) -> list[tuple[float, float]]:
        """Give the medians of ``memory`` or ``disk``, in bytes, of each minute, or part of a short time."""
        settled = self.settled()
        begin, part = settled[0].at, min(60.0, self.seconds / PARTS_MIN)
        parts = [list(group) for _, group in groupby(settled, lambda one: int((one.at - begin) / part))]
        return [(median(one.at for one in group), median(getattr(one, of) for one in group)) for group in parts]

    def slope(self, of: str) -> float:
        """Give the slope of the line of ``memory`` or ``disk``, in bytes a second, as it mostly is."""
        line = self.line(of)
        pairs = [(line[one], line[other]) for one, other in combinations(range(len(line)), 2) if other - one <= NEAR]
        return median((right[1] - left[1]) / (right[0] - left[0]) for left, right in pairs)

    def rise(self, of: str) -> float:
        """Give by how much the line of ``memory`` or ``disk`` is higher at its end than at its beginning, in bytes."""
        levels = [level for _, level in self.line(of)]
        return median(levels[-3:]) - median(levels[:3])

    def seeping(self, bytes_a_plan: float) -> Soaked:
        """Give the same with so much more memory for each plan that was made."""
        begin, rate = self.samples[0].at, self.rate * bytes_a_plan
        more = [replace(one, memory=one.memory + round((one.at - begin) * rate)) for one in self.samples]
        return replace(self, samples=more)


class Churn:
    """Clients that do with plans what clients do, at a steady rate, for a time."""

    def __init__(self, life: Life, random: Random, seconds: float) -> None:
        self.found = Soaked()
        self._life = life
        self._random = random
        self._seconds = seconds
        self._old: list[tuple[datetime, str]] = []
        """Plans that have ended, and when, by the server's clock, which is the one of this machine."""

    async def run(self) -> Soaked:
        """Make plans until the time is over, and let them end."""
        async with autoglm.AsyncClient(self._life.address) as client:
            following = asyncio.create_task(self._follow_all(client))
            sampling = asyncio.create_task(self._sample())
            try:
                await self._make(client)
            finally:
                for beside in (sampling, following):
                    beside.cancel()
                    await asyncio.wait([beside])
                    self._note(beside)

        return self.found

    async def _make(self, client: autoglm.AsyncClient) -> None:
        begin, number = time.monotonic(), 0
        under_way: set[asyncio.Task[None]] = set()
        while (now := time.monotonic() - begin) < self._seconds:
            number += 1
            if len(under_way) < OPEN_MAX:
                task = asyncio.create_task(self._live(client, number))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(self._note)

            await asyncio.sleep(max(0.0, number / RATE - now))

        if under_way:
            _, late = await asyncio.wait(under_way, timeout=END_SECONDS)
            self.found.wrong += [f"{len(late)} plans did not come to their end"] if late else []
            for task in late:
                task.cancel()

    def _note(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.found.wrong.append(f"{type(error).__name__}: {error}")

    async def _live(self, client: autoglm.AsyncClient, number: int) -> None:
        """One plan, on a connection of its own now and then."""
        if self._random.random() < 0.2:
            async with autoglm.AsyncClient(self._life.address) as other:
                await self._one(other, number)
        else:
            await self._one(client, number)

    async def _one(self, client: autoglm.AsyncClient, number: int) -> None:
        random = self._random
        kind = KINDS[number % len(KINDS)]  # in turn: what is kept of them has a level, then
        self.found.done[kind] += 1
        options = PlanOptions(timeout=timedelta(seconds=60), waiting_timeout=timedelta(seconds=60))
        labels = {"number": str(number % 100)}
        begun = datetime.now(UTC)
        if kind == "request":
            plan = await client.create(f"{number % 200}% of 2480", options=options, labels=labels)
        else:
            plan = await client.create(
                steps=_steps(kind, number), options=options, labels=labels, request_id=f"soak-{number}"
            )

        if random.random() < 0.2:
            await self._look_in(client, plan)

        try:
            await self._to_its_end(client, plan, kind)
            ended = await client.get(plan.id)
            self._judge(ended, kind)
            if kind == "file":
                await self._read_file(client, ended)
        except (CompactedError, NotFoundError) as error:  # a client that is late meets what retention left
            self._went("plans that went meanwhile", error, begun)
        else:
            assert ended.end_time is not None
            self._old = [*self._old[-299:], (ended.end_time, plan.id)]
            await self._look_at_old(client)

    async def _to_its_end(self, client: autoglm.AsyncClient, plan: Plan, kind: str) -> None:
        cancelled = False
        async for event in client.watch(plan.id):
            if kind == "cancel" and not cancelled and event.sequence >= 2:
                cancelled = True
                await client.cancel(plan.id, "enough")

            if kind == "approve" and isinstance(event.fact, autoglm.model.StepWaiting):
                decision = Approve() if self._random.random() < 0.7 else Reject("no")
                await client.resolve(plan.id, event.step_id, decision, wait_sequence=event.sequence)

    async def _look_in(self, client: autoglm.AsyncClient, plan: Plan) -> None:
        """Watch for a moment and leave; list; call a tool."""
        async for _ in client.watch(plan.id):
            break

        async for _ in client.list(labels=dict(plan.labels)):
            break

        await client.tools.call("text.reverse", {"text": "soak"})

    async def _read_file(self, client: autoglm.AsyncClient, plan: Plan) -> None:
        for step in plan.steps:
            for artifact in step.result.artifacts if step.result is not None else ():
                size = 0
                async for piece in client.read_artifact(plan.id, artifact.digest):
                    size += len(piece)

                if size != artifact.size_bytes:
                    self.found.wrong.append(f"a file of {artifact.size_bytes} bytes came with {size}")

    def _judge(self, plan: Plan, kind: str) -> None:
        if not plan.state.terminal:
            self.found.wrong.append(f"{plan.id}: its watch ended, and it is {plan.state.name}")

        if kind in ("steps", "file", "stumble", "request") and plan.state is not PlanState.SUCCEEDED:
            self.found.wrong.append(f"{plan.id} ({kind}) is {plan.state.name}: {plan.failure}")

    async def _look_at_old(self, client: autoglm.AsyncClient) -> None:
        """Ask for a plan that has ended before: it is there, or was taken by retention, which is told."""
        end, plan_id = self._random.choice(self._old)
        try:
            plan = await client.get(plan_id)
            if StepState.RUNNING in {step.state for step in plan.steps}:
                self.found.wrong.append(f"{plan_id} has ended, and a step of it runs")

            seen = 0
            async for event in client.watch(plan_id, durable_only=True):
                seen += 1
                if event.sequence != seen:
                    self.found.wrong.append(f"{plan_id}: event {event.sequence} came as number {seen}")

            self.found.done["old plans that are there"] += 1
            if seen != plan.sequence:
                self.found.wrong.append(f"{plan_id}: {seen} of {plan.sequence} events, and its watch ended")
        except CompactedError as error:
            self._went("old plans without events", error, end)
        except NotFoundError as error:
            self._went("old plans that are gone", error, end)

    def _went(self, what: str, error: CompactedError | NotFoundError, end: datetime) -> None:
        """Note what is gone of a plan that ended at ``end``, or later: its age when it went was less than that."""
        age = (datetime.now(UTC) - end).total_seconds()
        self.found.done[what] += 1
        self.found.went.append((what, age, EVENTS_SECONDS if isinstance(error, CompactedError) else PLANS_SECONDS))

    async def _follow_all(self, client: autoglm.AsyncClient) -> None:
        """Follow all plans; told that events it was to be given went, begin from now."""
        while True:
            with suppress(CompactedError):
                async for _ in client.watch_all(from_now=True):
                    self.found.done["events followed"] += 1

    async def _sample(self) -> None:
        pause = max(0.1, self._seconds / SAMPLES)
        while True:
            self.found.samples.append(await asyncio.to_thread(sample, self._life))
            await asyncio.sleep(pause)


def _steps(kind: str, number: int) -> list[StepDraft]:
    text = StepDraft(id="text", tool="text.case", arguments={"text": f"plan {number} " + "x" * 400, "case": "upper"})
    match kind:
        case "approve":
            asked = StepDraft(
                id="asked", tool="text.reverse", arguments={"text": "${text.result}"}, requires_approval=True
            )
            return [text, asked]
        case "cancel":
            return [text, StepDraft(id="long", tool="ledger.linger", arguments={"seconds": 30})]
        case "file":
            return [StepDraft(id="file", tool="ledger.report", arguments={"name": f"{number}", "size": 200_000}), text]
        case "stumble":
            return [StepDraft(id="falls", tool="ledger.stumble", arguments={"until": 2}), text]
        case _:
            return [text, StepDraft(id="more", tool="text.reverse", arguments={"text": "${text.result}"}), *_fan(3)]


def _fan(width: int) -> Iterator[StepDraft]:
    for number in range(width):
        yield StepDraft(id=f"fan{number}", tool="time.now", depends_on=("more",))


def sample(life: Life) -> Sample:
    """Look at what a server holds."""
    assert life.popen is not None
    status = Path(f"/proc/{life.popen.pid}/status").read_text()
    memory = sum(
        int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:")
    )  # a dead one has none
    disk = wal = 0
    for folder, _, names in os.walk(life.data_dir):
        for name in names:
            with suppress(FileNotFoundError):
                size = (Path(folder) / name).stat().st_size
                disk, wal = (disk, size) if name.endswith("-wal") else (disk + size, wal)

    return Sample(time.monotonic(), memory, disk, wal)


async def _soak(folder: Path, trap: str, random: Random, seconds: float) -> Soaked:
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs yet
    life = Life(folder, environment=NO_CACHES)
    try:
        await life.begin(trap)
        if not life.alive:
            raise RuntimeError(f"the server ended at its start: {(folder / 'log').read_text()[-2000:]}")

        return await Churn(life, random, seconds).run()
    finally:
        await life.kill()


def judge(found: Soaked, result: Result, where: str) -> None:
    """Say what of the promises was broken."""
    plans = found.done.total()
    slope, rise, seconds = found.slope("memory"), found.rise("memory"), found.seconds
    over = f"over {seconds:.0f} s, {found.rate:.1f} plans a second"
    long = seconds >= LONG_SECONDS
    most = MEMORY_STEPS_MAX if long else MEMORY_GROWTH_MAX
    told = [f"memory rose by {rise / (1 << 20):.2f} MiB ({over})"] if rise > most else []
    if long and slope > MEMORY_SLOPE_MAX:
        told.append(f"memory rises by {slope * 3600 / (1 << 20):.2f} MiB an hour ({over})")

    result.found(MEMORY, tries=plans, faults=0, violations=told, where=where)

    filled, wal = found.rise("disk"), max(one.wal for one in found.samples)
    told_disk = (
        [f"the disk filled by {filled / (1 << 20):.2f} MiB in {seconds:.0f} s"] if filled > DISK_GROWTH_MAX else []
    )
    told_disk += [f"the WAL grew to {wal >> 20} MiB"] if wal > WAL_MAX else []
    result.found(DISK, tries=plans, faults=0, violations=told_disk, where=where)
    result.found(GONE, tries=plans, faults=0, violations=[*found.wrong, *found.too_soon()], where=where)


def soak(seed: int, size: int) -> Result:
    """Let a server work for ``size`` seconds, and beside it for a short time one that leaks."""

    async def both(folder: Path) -> tuple[Soaked, Soaked]:
        async with asyncio.TaskGroup() as tasks:
            good = tasks.create_task(_soak(folder / "good", BRISK, Random(seed), size))
            leaky = tasks.create_task(_soak(folder / "leaky", LEAKY, Random(seed), CONTROL_SECONDS))

        return good.result(), leaky.result()

    result, where = Result(), f"--only soak --seed {seed} --size {size}"
    with tempfile.TemporaryDirectory(prefix="autoglm-soak-") as folder:
        found, leaky = asyncio.run(both(Path(folder)))

    judge(found, result, where)
    broken = Result()
    judge(leaky, broken, where)
    result.control(MEMORY, "a server that keeps memory of every plan", caught=broken.violations[MEMORY] > 0)
    if found.seconds >= LONG_SECONDS:
        judge(found.seeping(SEEP_BYTES), seeping := Result(), where)
        result.control(MEMORY, f"{SEEP_BYTES} bytes more a plan", caught=seeping.violations[MEMORY] > 0)

    result.control(DISK, "a server that keeps everything", caught=broken.violations[DISK] > 0)
    hasty = replace(found, wrong=[], went=[(what, age / 4, kept) for what, age, kept in found.went])
    judge(hasty, broken := Result(), where)
    result.control(GONE, "a server that takes plans in a quarter of the time", caught=broken.violations[GONE] > 0)
    for kind, count in sorted(found.done.items()):
        result.count(f"soak: {kind}", count)

    for name, one in (("soak", found), ("soak, leaky", leaky)):
        for of in ("memory", "disk"):
            result.count(f"{name}: KiB of {of} a minute", round(one.slope(of) * 60 / 1024, 1))

        result.count(f"{name}: bytes of memory a plan", round(one.slope("memory") / one.rate))
        result.count(f"{name}: KiB of memory in all", round(one.rise("memory") / 1024, 1))
        result.count(f"{name}: MiB of memory at its end", round(one.samples[-1].memory / (1 << 20), 1))
        result.count(f"{name}: MiB of disk at its end", round(one.samples[-1].disk / (1 << 20), 1))
        result.count(f"{name}: MiB of WAL at most", round(max(sample.wal for sample in one.samples) / (1 << 20), 1))

    return result
