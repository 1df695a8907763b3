"""Reconnect storms: everybody is cut at the same moment, again and again, while retention removes what they were reading."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc.aio

import autoglm
from autoglm._grpc import translate
from autoglm.model import StepDraft
from autoglm.v1 import plan_service_pb2, plan_service_pb2_grpc
from tests.reliability.proxy import Proxy
from tests.reliability.rows import Result
from tests.reliability.servers import Life
from tests.reliability.verdict import Verdict
from tests.reliability.watch_traps import BRISK, CROWDED, SILENT

TOLD: Final = "watch-compaction-told"
RECOVERED: Final = "watch-storm-recovered"

STORMS: Final = 5
STEPS: Final = 3
EVERY_SECONDS: Final = 0.12
"""How soon a plan follows the other."""
ALL_READERS: Final = 24
ON_A_CONNECTION: Final = 10
AWAY_SECONDS: Final = 2.5
"""How long one stays away at most after a cut: longer than events are kept."""
CONTROL_WATCHERS: Final = 60
CONTROL_ROUNDS: Final = 5
CONTROL_SECONDS: Final = 3.0
SECONDS: Final = 60.0
"""Who has not come back after so long starves; most are back within three seconds."""
AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""What else one may be told: the server cannot be reached, the stream was broken off, there is no place for it now."""
GONE: Final = ("SEQUENCE_COMPACTED", "PLAN_NOT_FOUND")


@dataclass
class Reading:
    """What one was given from where it began until it had all or was told that it cannot, over all its streams."""

    watcher: str
    plan_id: str = ""
    """Empty: of all plans."""
    oldest: bool = False
    """Of all plans: it began with the oldest that was kept."""
    given: list[tuple[str, int]] = field(default_factory=list)
    """Plans and sequences."""
    ended: bool = False
    """It was said that this is all."""


@dataclass
class Storm:
    """What all readers were given, and what they should have been."""

    readings: list[Reading] = field(default_factory=list)
    listing: list[tuple[str, int]] = field(default_factory=list)
    """All events, in the order of their commits."""
    recent: list[str] = field(default_factory=list)
    """Plans that began lately."""
    late: set[str] = field(default_factory=set)
    """Plans that began after the last storm."""
    over: bool = False
    """The last storm is over."""
    cuts: int = 0
    told: int = 0
    """How often it was said that events are gone."""
    readers: int = 0
    starved: list[str] = field(default_factory=list)

    def reading(self, watcher: str, plan_id: str = "", *, oldest: bool = False) -> Reading:
        """Begin to read."""
        self.readings.append(Reading(watcher, plan_id, oldest))
        return self.readings[-1]


def compaction_told(storm: Storm) -> Verdict:
    """Who reads is given everything, or told that it is gone: there is no silent gap."""
    verdict = Verdict()
    places = {event: place for place, event in enumerate(storm.listing)}
    last = dict(storm.listing)
    for reading in storm.readings:
        if reading.plan_id:
            wanted: Iterable[tuple[str, int]] = [(reading.plan_id, n + 1) for n in range(len(reading.given))]
            verdict.expect(holds=reading.given == wanted, otherwise=f"{reading.watcher} was given {reading.given}")
            whole = len(reading.given) == last[reading.plan_id]
            short = f"{reading.watcher}: {len(reading.given)} of {last[reading.plan_id]} events were said to be all"
            verdict.expect(holds=whole or not reading.ended, otherwise=short)
        elif reading.given:
            missing = _missing(reading, storm.listing, places)
            verdict.expect(holds=not missing, otherwise=f"{reading.watcher} was never given {missing[:5]}")

    return verdict


def _missing(
    reading: Reading, listing: list[tuple[str, int]], places: Mapping[tuple[str, int], int]
) -> list[tuple[str, int]]:
    """Give what one was not given between its first and its last event, or was given twice or too early."""
    found = [places[event] for event in reading.given]
    twice = [listing[later] for sooner, later in pairwise(found) if later <= sooner]
    there = set(found)
    missing = [listing[place] for place in range(found[0], found[-1]) if place not in there]
    if reading.oldest:  # a plan that went as a whole before its turn was none of the oldest that are kept
        seen = {plan_id for plan_id, _ in reading.given}
        missing = [event for event in missing if event[0] in seen]

    return twice + missing


def storm(seed: int, size: int) -> Result:
    """Let ``size`` watchers through five storms; then fewer, of servers that are broken."""
    return asyncio.run(_storm(seed, size))


async def _storm(seed: int, size: int) -> Result:
    result = Result()
    where = f"--only storm --seed {seed} --size {size}"
    random = Random(seed)
    async with asyncio.TaskGroup() as tasks:
        sound = tasks.create_task(_through(Random(random.random()), size, BRISK, SECONDS))
        silent = tasks.create_task(_is_silent(Random(random.random())))
        crowded = tasks.create_task(_through(Random(random.random()), CONTROL_WATCHERS, CROWDED, CONTROL_SECONDS))

    found = sound.result()
    verdict = compaction_told(found)
    result.found(TOLD, tries=verdict.tries, faults=found.cuts, violations=verdict.violations, where=where)
    result.found(RECOVERED, tries=found.readers, faults=found.cuts, violations=found.starved, where=where)
    result.count("connections cut in storms", found.cuts)
    result.count("times told that events are gone", found.told)
    result.control(TOLD, "a server that passes over what is gone", caught=silent.result())
    result.control(RECOVERED, "places for watches that are never free again", caught=bool(crowded.result().starved))
    doubled = [replace(one, given=[*one.given, *one.given[-1:]]) for one in found.readings if not one.plan_id]
    caught = bool(compaction_told(replace(found, readings=doubled)).violations)
    result.control(TOLD, "an event that comes twice", caught=caught)
    return result


async def _is_silent(random: Random) -> bool:
    """Whether it is noticed that a server says nothing; where many others watch, few may come back late enough at first."""
    for _ in range(CONTROL_ROUNDS):
        found = await _through(random, CONTROL_WATCHERS, SILENT, SECONDS)
        if compaction_told(found).violations:
            return True

    return False


async def _through(random: Random, watchers: int, trap: str, seconds: float) -> Storm:
    """Let watchers through storms at a server; after the last, each has so many ``seconds`` to come back."""
    found = Storm(readers=watchers)
    with tempfile.TemporaryDirectory(prefix="autoglm-storm-") as folder:
        listing = Path(folder) / "listing"
        life = Life(Path(folder), traps="tests.reliability.watch_traps")
        try:
            await life.begin(f"{trap}:{listing}")
            async with AsyncExitStack() as stack:
                proxy = Proxy(life.address, random)
                await proxy.start()
                stack.push_async_callback(proxy.stop)
                await _blow(life, proxy, found, random, seconds, stack)
        finally:
            await life.kill()

        found.listing = [(line.split()[0], int(line.split()[1])) for line in listing.read_text().splitlines()]

    return found


async def _blow(life: Life, proxy: Proxy, found: Storm, random: Random, seconds: float, stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(autoglm.AsyncClient(life.address))
    await _make_one(client, life.folder, found)
    async with asyncio.TaskGroup() as tasks:
        making = tasks.create_task(_make(client, life.folder, found))
        readers = []
        stub: Any = None
        of_all = min(ALL_READERS, found.readers // 4)
        for number in range(found.readers):
            own = Random(random.random())
            if number < of_all or number % ON_A_CONNECTION == 0:
                options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 300)]
                options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 1000)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(proxy.address, options=options))
                stub = plan_service_pb2_grpc.PlanServiceStub(channel)

            name = f"reader-{number}"
            reads = _read_all(stub, name, found, own) if number < of_all else _read_plans(stub, name, found, own)
            readers.append(tasks.create_task(reads, name=name))

        for _ in range(STORMS):
            await asyncio.sleep(random.uniform(0.4, 0.9))
            for connection in list(proxy.connections):
                connection.cut()
                found.cuts += 1

        found.over = True
        _, late = await asyncio.wait(readers, timeout=seconds)
        found.starved += [f"{task.get_name()} was given nothing of what came after the last storm" for task in late]
        for task in (*late, making):
            task.cancel()


async def _make(client: autoglm.AsyncClient, folder: Path, found: Storm) -> None:
    """Begin short plans, one after the other."""
    while True:
        await _make_one(client, folder, found)
        await asyncio.sleep(EVERY_SECONDS)


async def _make_one(client: autoglm.AsyncClient, folder: Path, found: Storm) -> None:
    arguments = {"folder": str(folder)}
    over = found.over
    plan = await client.create(
        steps=[StepDraft(id=f"s{n}", tool="ledger.look", arguments=arguments) for n in range(STEPS)]
    )
    found.recent = [*found.recent[-9:], plan.id]
    if over:
        found.late.add(plan.id)


async def _read_plans(stub: Any, name: str, found: Storm, random: Random) -> None:
    """Read one plan after the other, each to its end or until it is gone; the last is one that began after the storms."""
    number = 0
    while True:
        number += 1
        plan_id = random.choice(found.recent)
        reading = found.reading(f"{name}, {number}", plan_id)
        while not reading.ended:
            await _stay_away(reading, random)
            request = plan_service_pb2.WatchPlanRequest(
                plan_id=plan_id, after_sequence=len(reading.given), durable_only=True
            )
            call = stub.WatchPlan(request)
            try:
                async for message in call:
                    reading.given += [(event.plan_id, event.sequence) for event in message.events]
                    if random.random() < 0.1:
                        await asyncio.sleep(random.uniform(0.0, 0.3))

                reading.ended = True
            except grpc.aio.AioRpcError as error:
                if _gone(error, found):
                    break
            finally:
                call.cancel()

        if plan_id in found.late:
            return


async def _read_all(stub: Any, name: str, found: Storm, random: Random) -> None:
    """Read all plans, on and on, and from now on when one was told that something is gone."""
    number, cursor = 0, ""
    reading = found.reading(name, oldest=True)
    while True:
        await _stay_away(reading, random)
        request = plan_service_pb2.WatchPlansRequest(
            cursor=cursor, from_now=not cursor and not reading.oldest, durable_only=True
        )
        call = stub.WatchPlans(request)
        try:
            async for message in call:
                reading.given += [(event.plan_id, event.sequence) for event in message.events]
                cursor = message.cursor
                if any(event.plan_id in found.late for event in message.events):
                    return

                if random.random() < 0.1:
                    await asyncio.sleep(random.uniform(0.0, 0.3))
        except grpc.aio.AioRpcError as error:
            if _gone(error, found):
                number += 1
                cursor = ""
                reading = found.reading(f"{name}, {number}", oldest=random.random() < 0.3)
        finally:
            call.cancel()


async def _stay_away(reading: Reading, random: Random) -> None:
    """Wait for a while where one was cut, some for longer than events are kept."""
    longest = AWAY_SECONDS if reading.given and random.random() < 0.3 else 0.3
    await asyncio.sleep(random.uniform(0.0, longest))


def _gone(error: grpc.aio.AioRpcError, found: Storm) -> bool:
    """Whether one was told that it is gone; other than that the server is away or has no place now, nothing may be said."""
    reason = translate(error, "").reason
    if reason in GONE:
        found.told += 1
        return True

    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError  # grpc.aio tells of it as of a call that failed

    if error.code() not in AWAY:
        raise error

    return False
