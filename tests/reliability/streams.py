"""The stream: two hundred watchers through a proxy that delays and cuts, and etcd's six checks on what they were given."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc.aio

import autoglm
from autoglm.model import PlanOptions, StepDraft
from autoglm.v1 import plan_service_pb2, plan_service_pb2_grpc
from autoglm.wire import from_message, to_json
from tests.reliability.checker import PROMISES
from tests.reliability.history import History, Logged, Seen
from tests.reliability.proxy import Proxy
from tests.reliability.rows import Result
from tests.reliability.servers import Life
from tests.reliability.slow import COST_MAX, FROZEN, FROZEN_SECONDS, READERS, SLOW, cost, let_go
from tests.reliability.verdict import Verdict
from tests.reliability.watch_traps import HEEDLESS

PLANS: Final = 20
WATCHERS_A_PLAN: Final = 10
STEPS: Final = 80
WATCH_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a message said of where its reader is, after ``given``, the last event that the stream had been given."""

    watcher: str
    stream: int
    sequence: int
    given: int


@dataclass
class Streams:
    """What all watchers were given."""

    history: History
    marks: list[Mark] = field(default_factory=list)
    together: dict[str, int] = field(default_factory=dict)
    """How many of a plan's first events were appended as one."""


def ordered(streams: Streams) -> Verdict:
    """A later event is never before an earlier one on a stream."""
    verdict = Verdict()
    for name, seen in _by_stream(streams):
        sequences = [one.sequence for one in seen]
        verdict.expect(holds=sequences == sorted(sequences), otherwise=f"{name}: {sequences}")

    return verdict


def unique(streams: Streams) -> Verdict:
    """No event is given twice, not even across streams."""
    verdict = Verdict()
    for watcher, seen in _by_watcher(streams):
        sequences = [one.sequence for one in seen]
        verdict.expect(holds=len(set(sequences)) == len(sequences), otherwise=f"{watcher}: {sequences}")

    return verdict


def reliable(streams: Streams) -> Verdict:
    """Nothing is left out, from the first event to the last."""
    verdict = Verdict()
    for watcher, seen in _by_watcher(streams):
        log = streams.history.logs[seen[0].plan_id]
        missing = {logged.event.sequence for logged in log} - {one.sequence for one in seen}
        verdict.expect(holds=not missing, otherwise=f"{watcher} was never given {sorted(missing)}")

    return verdict


def atomic(streams: Streams) -> Verdict:
    """What was appended as one is given in one message."""
    verdict = Verdict()
    for name, seen in _by_stream(streams):
        count = streams.together.get(seen[0].plan_id, 0)
        first = [one for one in seen if one.sequence <= count]
        if first and seen[0].after == 0:
            whole = len(first) == count and len({one.batch for one in first}) == 1
            verdict.expect(holds=whole, otherwise=f"{name}: the first {count} events came in pieces")

    return verdict


def resumable(streams: Streams) -> Verdict:
    """A stream that is to begin after a sequence begins with the next one."""
    verdict = Verdict()
    for name, seen in _by_stream(streams):
        holds = seen[0].sequence == seen[0].after + 1
        verdict.expect(holds=holds, otherwise=f"{name} began with {seen[0].sequence}, not after {seen[0].after}")

    return verdict


def bookmarkable(streams: Streams) -> Verdict:
    """Where a message says its reader is, everything before has been given."""
    verdict = Verdict()
    for mark in streams.marks:
        where = f"{mark.watcher}/{mark.stream}: the message said {mark.sequence}, the last event was {mark.given}"
        verdict.expect(holds=mark.sequence == mark.given, otherwise=where)

    return verdict


WATCH_PROMISES: Final[Mapping[str, Callable[[Streams], Verdict]]] = {
    "watch-ordered": ordered,
    "watch-unique": unique,
    "watch-reliable": reliable,
    "watch-atomic": atomic,
    "watch-resumable": resumable,
    "watch-bookmarkable": bookmarkable,
}
CUT: Final = "connection cut"


def _by_stream(streams: Streams) -> list[tuple[str, list[Seen]]]:
    found: dict[str, list[Seen]] = {}
    for seen in streams.history.seen:
        found.setdefault(f"{seen.watcher}/{seen.stream}", []).append(seen)

    return list(found.items())


def _by_watcher(streams: Streams) -> list[tuple[str, list[Seen]]]:
    found: dict[str, list[Seen]] = {}
    for seen in streams.history.seen:
        found.setdefault(seen.watcher, []).append(seen)

    return list(found.items())


def watch(seed: int, size: int) -> Result:
    """Watch while ``size`` connections are cut; freeze peers, and read slowly, of this server and of a heedless one."""
    return asyncio.run(_watch(seed, size))


async def _watch(seed: int, size: int) -> Result:
    result = Result()
    random = Random(seed)
    where = f"--only watch --seed {seed} --size {size}"
    with tempfile.TemporaryDirectory(prefix="autoglm-watch-") as folder, tempfile.TemporaryDirectory() as other:
        life, weak = Life(Path(folder)), Life(Path(other), traps="tests.reliability.watch_traps")
        try:
            await life.begin()
            await weak.begin(HEEDLESS)
            async with asyncio.TaskGroup() as tasks:
                frozen = tasks.create_task(let_go(life.address, random))
                control = tasks.create_task(let_go(weak.address, random))
                streams = await _cut_streams(life, random, size)
                costs, costs_of_weak = await cost(life), await cost(weak, enough=COST_MAX)

            _tell_of_frozen(result, frozen.result(), control.result(), where)
            large = [f"a slow reader cost {costs:,.0f} bytes"] if costs > COST_MAX else []
            result.found(SLOW, tries=READERS, faults=READERS, violations=large, where=where)
            result.control(SLOW, "a mailbox without bound", caught=costs_of_weak > COST_MAX)
            result.figures["MB that a slow reader costs"] = round(costs / 1e6, 1)
        finally:
            await life.kill()
            await weak.kill()

    result.take({name: promise(streams) for name, promise in WATCH_PROMISES.items()}, streams.history, where)
    kept = {name: PROMISES[name](streams.history) for name in ("seen-is-durable", "dense")}
    result.take(kept, streams.history, where)
    for name, broken in _broken(streams).items():
        result.control(name, "watchers that were given otherwise", caught=bool(WATCH_PROMISES[name](broken).violations))

    result.count("watchers", PLANS * WATCHERS_A_PLAN)
    result.count("cuts", sum(streams.history.faults.values()))
    result.count("events given to watchers", len(streams.history.seen))
    return result


def _tell_of_frozen(result: Result, found: list[float | None], control: list[float | None], where: str) -> None:
    late = [f"a frozen peer was still held after {FROZEN_SECONDS:g} s" for seconds in found if seconds is None]
    result.found(FROZEN, tries=len(found), faults=len(found), violations=late, where=where)
    result.control(FROZEN, "no keepalive", caught=control == [None] * len(control))
    result.figures["seconds until a frozen peer was let go"] = round(max(seconds or 0.0 for seconds in found), 1)


async def _cut_streams(life: Life, random: Random, cuts: int) -> Streams:
    streams = Streams(History(steady=False))
    proxy = Proxy(life.address, random, delay=0.1)
    await proxy.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(proxy.stop)
        client = await stack.enter_async_context(autoglm.AsyncClient(life.address))
        async with asyncio.TaskGroup() as tasks:
            watching = []
            for number in range(PLANS):
                steps = _steps(life.folder, random)
                plan = await client.create(steps=steps, options=PlanOptions(max_parallel_steps=1))
                streams.together[plan.id] = len(steps) + 1
                options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 300)]
                options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 1000)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(proxy.address, options=options))
                stub = plan_service_pb2_grpc.PlanServiceStub(channel)
                for watcher in range(WATCHERS_A_PLAN):
                    name = f"watcher-{number}.{watcher}"
                    following = _follow(stub, name, plan.id, streams, Random(random.random()), cuts)
                    watching.append(tasks.create_task(following))

            cutting = tasks.create_task(_cut(proxy, random, cuts, streams.history))
            _, late = await asyncio.wait([*watching, cutting], timeout=WATCH_SECONDS)
            for task in late:
                task.cancel()

        for plan_id in streams.together:
            log = [Logged(event, to_json(event).encode()) async for event in client.watch(plan_id, durable_only=True)]
            streams.history.logs[plan_id] = log

    return streams


async def _cut(proxy: Proxy, random: Random, cuts: int, history: History) -> None:
    """Cut single connections, and towards the end all at once, so that everybody comes back at the same time."""
    left = cuts
    while left > 0:
        await asyncio.sleep(random.uniform(0.0, 0.1))
        connections = list(proxy.connections)
        struck = connections if left <= PLANS * 2 else random.sample(connections, min(1, len(connections)))
        for connection in struck:
            connection.cut()
            history.fault(CUT)
            left -= 1


async def _follow(stub: Any, name: str, plan_id: str, streams: Streams, random: Random, cuts: int) -> None:
    """Follow a plan to its end, again and again while there are cuts to come; each time is a watcher of its own."""
    time_round = 0
    while not time_round or streams.history.faults.get(CUT, 0) < cuts:
        time_round += 1
        await _follow_once(stub, f"{name}, time {time_round}", plan_id, streams, random)


async def _follow_once(stub: Any, name: str, plan_id: str, streams: Streams, random: Random) -> None:
    """Follow a plan to its end, now fast and now slowly, and go on where a stream was cut."""
    given = stream = 0
    ended = False
    while not ended:
        stream += 1
        after, batch = given, 0
        request = plan_service_pb2.WatchPlanRequest(plan_id=plan_id, after_sequence=after, durable_only=True)
        call = stub.WatchPlan(request)
        try:
            async for message in call:
                batch += 1
                for found in message.events:
                    event = from_message(found)
                    given = event.sequence
                    body = to_json(event).encode()
                    seen = Seen(time.monotonic_ns(), name, stream, after, plan_id, event.sequence, body, batch)
                    streams.history.seen.append(seen)

                streams.marks.append(Mark(name, stream, message.sequence, given))
                if random.random() < 0.1:
                    await asyncio.sleep(random.uniform(0.0, 0.3))

            ended = True
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise

            await asyncio.sleep(random.uniform(0.0, 0.2))
        finally:
            call.cancel()


def _steps(folder: Path, random: Random) -> list[StepDraft]:
    made: list[StepDraft] = []
    for number in range(STEPS):
        after = (random.choice(made).id,) if made and random.random() < 0.7 else ()
        made.append(StepDraft(id=f"s{number}", tool="ledger.put", arguments={"folder": str(folder)}, depends_on=after))

    return made


def _broken(streams: Streams) -> dict[str, Streams]:
    """What was recorded, as watchers would have been given it that break each promise."""
    first = next(
        seen for _, seen in _by_stream(streams) if len(seen) > streams.together[seen[0].plan_id] and not seen[0].after
    )
    middle = streams.history.seen.index(first[3])

    def with_seen(seen: Sequence[Seen]) -> Streams:
        return replace(streams, history=replace(streams.history, seen=list(seen)))

    seen = streams.history.seen
    one = seen[middle]
    resumed = [replace(each, after=each.after + 1) if each.after == 0 else each for each in seen]
    return {
        "watch-ordered": with_seen([*seen, replace(one, at=one.at + 1)]),
        "watch-unique": with_seen([*seen, one]),
        "watch-reliable": with_seen([*seen[:middle], *seen[middle + 1 :]]),
        "watch-atomic": with_seen([*seen[:middle], replace(one, batch=one.batch + 1), *seen[middle + 1 :]]),
        "watch-resumable": with_seen(resumed),
        "watch-bookmarkable": replace(streams, marks=[*streams.marks, replace(streams.marks[0], sequence=10_000)]),
    }
