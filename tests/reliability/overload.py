"""More than a server can do: what it still gets done, how soon it refuses the rest, and whether what it took is kept.

A closed loop finds the peak, an open one, which waits for nobody, asks for three times that, and so on in turn, for a second or
two each: a processor whose other half works for somebody else takes up to twice as long for the same work, for some seconds, so
what is compared has to be measured in the same ones. Callers of a closed loop may not be refused, so they ask a server of the
same kind without limits. What counts is plans that were acknowledged and came to their end in time, by the journal.

The control is that server without limits, which takes every call when too much is asked of it, and does nothing of use any more;
at last it stands still: who is not answered then, or asks for its health, must be seen to wait.

The callers cost next to nothing (callers.py), as they share the machine with the servers. What was asked for is counted: unless
it was three times the peak, the goodput is not kept.

Eight rounds have a standard deviation of some six parts in a hundred on such a machine: if too little was done, or asked for,
twice as many more are measured, and all are judged together. Refusals are late when they are in half of the rounds.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from random import Random
from statistics import mean, median_high
from typing import Final

import grpc
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from autoglm.model import PlanState
from autoglm.v1 import plan_service_pb2 as pb
from autoglm.v1.plan_pb2 import StepDraft
from autoglm_server.journal.journal import PlanQuery
from autoglm_server.journal.sqlite import SqliteJournal
from tests.reliability.callers import Answer, Connection
from tests.reliability.rows import Result
from tests.reliability.servers import Life

GOODPUT: Final = "overload-goodput"
REFUSED: Final = "overload-refused-at-once"
HEALTH: Final = "overload-health"
KEPT: Final = "acknowledged-is-kept"

STEPS: Final = 24
"""In each plan. To refuse a call costs the loop 0.15 to 0.18 ms in an overload, and two and a half to three are refused for each
plan that is taken: little beside such a plan, much beside one of one step, of which this does not hold (docs/adr/0083)."""
WORKERS: Final = 24
"""Callers of the closed loops. 8, 24, 48 and 96 get the same done, within four parts in a hundred (docs/adr/0083)."""
TIMES: Final = 3
"""How many times the peak is asked for, at least."""
AIM: Final = 3.15
"""So many times what was just reached is tried, as the moments are random."""
GOODPUT_MIN: Final = 0.8
"""Of the peak."""
AGAIN: Final = 2
"""So many times as many rounds are measured once more, if too little was done, and judged together with the first."""
IN_TIME: Final = 1.0
"""Seconds from asking for a plan to its end, for it to be of use; and the deadline of every create."""
REFUSED_SECONDS: Final = 0.1
"""Ninety-nine of a hundred calls that are refused know it after so long; without limits it is a second, their deadline."""
LATE: Final = "DEADLINE_EXCEEDED"
"""The status of a call that the server did not come to in time: it is late, and nobody could tell it when to come back."""
CLOSED_SECONDS: Final = 1.35
"""How long callers ask in a closed loop."""
CLOSED_SETTLE_SECONDS: Final = 0.35
"""What is asked for at first does not count: lines fill as they are left at the end, and the overload before is worked off."""
SECONDS: Final = 2.25
"""How long too much is asked for in an overload."""
SETTLE_SECONDS: Final = 0.75
"""What is asked for at first does not count: a crowd is taken in, and nobody while that is worked off."""
HEALTH_SECONDS: Final = 0.25
HEALTH_LOST_SECONDS: Final = 0.9
CONNECTIONS: Final = 6
AS_IT_IS: Final = ""
NO_LIMITS: Final = """\
limits: {calls_read: 100000, calls_write: 100000, calls_tool: 100000, calls_share: 1, create_wait: none, journal_wait: none}
"""
_CREATE: Final = "/autoglm.v1.PlanService/CreatePlan"
_CHECK: Final = "/grpc.health.v1.Health/Check"
_WORK: Final = pb.CreatePlanRequest(
    steps=[StepDraft(id=f"s{index}", tool="time.now") for index in range(STEPS)]
).SerializeToString()
_SERVING: Final = health_pb2.HealthCheckResponse(status="SERVING").SerializeToString()


@dataclass
class Phase:
    """Some seconds of load: what was asked when, and what came of it."""

    length: float
    """In seconds."""
    settled: float
    """What was asked for before that does not count."""
    asked: list[float] = field(default_factory=list)
    """When each call was made, in seconds since the beginning."""
    answers: list[tuple[bytes, float]] = field(default_factory=list)
    """Of the calls that were acknowledged, and when each was made, by the wall clock."""
    began: float = field(default_factory=time.monotonic)
    began_wall: float = field(default_factory=time.time)
    refused: list[float] = field(default_factory=list)
    """How long each call took that was not acknowledged."""
    untold: list[str] = field(default_factory=list)
    """Refusals that do not say when to come back and what was exceeded."""
    health: list[float] = field(default_factory=list)
    """How long each health check took."""

    @property
    def offered(self) -> float:
        """How many plans a second were asked for, once the load had begun."""
        return sum(at >= self.settled for at in self.asked) / (self.length - self.settled)

    @property
    def answered(self) -> float:
        """How many of them a second were acknowledged."""
        return sum(at >= self.began_wall + self.settled for _, at in self.answers) / (self.length - self.settled)

    @cached_property
    def acknowledged(self) -> dict[str, float]:
        """Plan id to when it was asked for, by the wall clock; read once the load is over."""
        return {pb.CreatePlanResponse.FromString(message).plan.id: wall for message, wall in self.answers}

    def good(self, ends: dict[str, float]) -> float:
        """Give how many plans a second came to their end in time, of those asked for once the load had begun."""
        asked = {plan_id: at for plan_id, at in self.acknowledged.items() if at >= self.began_wall + self.settled}
        ended = [(ends.get(plan_id), at) for plan_id, at in asked.items()]
        return sum(end is not None and end - at <= IN_TIME for end, at in ended) / (self.length - self.settled)


NOTHING: Final = Phase(0, 0)


class Load:
    """Clients of one server; every plan has its own request_id."""

    def __init__(self, random: Random, connections: list[Connection]) -> None:
        self.phase = NOTHING
        """What is under way."""
        self._random = random
        *self._connections, self._looks = connections
        self._numbers = iter(range(1 << 30))

    @classmethod
    async def connected(cls, address: str, random: Random, stack: AsyncExitStack) -> Load:
        """Connect to a server, until the stack ends."""
        loop, (host, _, port) = asyncio.get_running_loop(), address.rpartition(":")
        made = [
            await loop.create_connection(lambda: Connection(IN_TIME), host, int(port)) for _ in range(CONNECTIONS + 1)
        ]
        connections = [connection for _, connection in made]
        for connection in connections:
            stack.callback(connection.close)

        return cls(random, connections)

    async def ask(self) -> float:
        """Ask for a plan once; gives how long the server says to wait before the next, in seconds."""
        phase = self.phase
        number = next(self._numbers)
        request = _WORK + pb.CreatePlanRequest(request_id=f"overload-{number}").SerializeToString()
        wall, began = time.time(), time.monotonic()
        phase.asked.append(began - phase.began)
        answer = await self._connections[number % CONNECTIONS].call(_CREATE, request)
        if answer.code is grpc.StatusCode.OK:
            phase.answers.append((answer.message, wall))
            return 0.0

        phase.refused.append(time.monotonic() - began)
        wait = _told(answer)
        if wait is None:
            phase.untold.append(f"{answer.code.name}: {answer.text}")

        return wait or 0.0

    async def closed(self) -> Phase:
        """Let callers ask one after the other; one that is refused comes back when it was told to."""
        async with self._begun(CLOSED_SECONDS, CLOSED_SETTLE_SECONDS) as (phase, tasks):

            async def work() -> None:
                while time.monotonic() < phase.began + phase.length:
                    wait = await self.ask()
                    await asyncio.sleep(wait)

            for _ in range(WORKERS):
                tasks.create_task(work())

        return phase

    async def open(self, rate: float) -> Phase:
        """Ask at random moments, ``rate`` times a second, whatever comes of it."""
        due = 0.0
        async with self._begun(SECONDS, SETTLE_SECONDS) as (phase, tasks):
            while (now := time.monotonic() - phase.began) < phase.length:
                while due < now:
                    tasks.create_task(self.ask())
                    due += self._random.expovariate(rate)

                await asyncio.sleep(0.002)

        return phase

    @asynccontextmanager
    async def _begun(self, length: float, settled: float) -> AsyncIterator[tuple[Phase, asyncio.TaskGroup]]:
        """Begin some seconds of load, which end when all of it is answered."""
        self.phase = Phase(length, settled)
        async with asyncio.TaskGroup() as tasks:
            yield self.phase, tasks

        self.phase = NOTHING

    async def look(self) -> None:
        """Ask for the health all the time, on a connection of its own."""
        while True:
            phase, began = self.phase, time.monotonic()
            answer = await self._looks.call(_CHECK, b"")
            good = answer.code is grpc.StatusCode.OK and answer.message == _SERVING
            if phase is not NOTHING:
                phase.health.append(time.monotonic() - began if good else math.inf)

            await asyncio.sleep(0.02)


def _told(refused: Answer) -> float | None:
    """Give when to come back, of a refusal that is as it should be."""
    return _read_status(refused.details) if refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED else None


@cache
def _read_status(raw: bytes) -> float | None:
    info, retry, quota = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    found = [detail.Unpack(one) for detail in Status.FromString(raw).details for one in (info, retry, quota)]
    good = info.reason == "TOO_MANY_CALLS" and sum(found) == 3
    return retry.retry_delay.ToTimedelta().total_seconds() if good else None


@dataclass(slots=True)
class Measured:
    """What rounds came to."""

    closed: list[Phase] = field(default_factory=list)
    """The closed loops, one before each overload, of a server without limits."""
    over: list[Phase] = field(default_factory=list)
    """The overloads."""
    ends: dict[str, float] = field(default_factory=dict)
    """When each plan that the journal has came to its end."""
    states: dict[str, PlanState] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """Give the plans a second that were good in closed loops."""
        return mean(phase.good(self.ends) for phase in self.closed)

    @property
    def times(self) -> float:
        """Give how many times the peak was asked for."""
        return mean(over.offered for over in self.over) / self.peak if self.peak else 0.0

    @property
    def goodput(self) -> float:
        """Give the part of the peak that was good in overloads."""
        return mean(over.good(self.ends) for over in self.over) / self.peak if self.peak else 0.0

    @property
    def refusals(self) -> list[float]:
        """For each round, after how long ninety-nine of a hundred that were not acknowledged under overload knew it."""
        return [_percentile(phase.refused, 0.99) for phase in self.over]

    @property
    def acknowledged(self) -> set[str]:
        """The ids of all plans that were."""
        return {plan_id for phase in chain(self.closed, self.over) for plan_id in phase.acknowledged}

    @property
    def health(self) -> list[float]:
        """How long each health check took that was made under overload."""
        return [took for phase in self.over for took in phase.health]

    def more(self, other: Measured) -> None:
        """Add what another time came to."""
        self.closed += other.closed
        self.over += other.over
        self.ends |= other.ends
        self.states |= other.states

    def looked(self) -> float:
        """Give after how long ninety-nine of a hundred health checks were answered."""
        return _percentile(self.health, 0.99)

    def lost(self) -> list[str]:
        """Give the acknowledged plans that are not there, or have not come to their end."""
        return [
            f"plan {plan_id} is {self.states[plan_id].name if plan_id in self.states else 'gone'}"
            for plan_id in sorted(self.acknowledged)
            if self.states.get(plan_id) is not PlanState.SUCCEEDED
        ]


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


async def measure(folder: Path, random: Random, rounds: int, *, controls: bool = False) -> list[Measured]:
    """Load a server in rounds; let it finish, and read its journal. Closed loops are of one without limits, which refuses nobody.

    ``controls``: load that one too much as well, and then once more while it stands still, and give three.
    """
    found, *more = measured = [Measured() for _ in range(3 if controls else 1)]
    async with AsyncExitStack() as stack:
        lives = [await _start(folder / name, text, stack) for name, text in (("as-is", AS_IT_IS), ("free", NO_LIMITS))]
        own, free = [await Load.connected(life.address, random, stack) for life in lives]
        for load in (own, free):
            await load.closed()  # it warms up

        for life in lives:
            await _rested(life)

        async with _looking(own), _looking(free):
            for _ in range(rounds):
                found.closed.append(await free.closed())
                found.over.append(await own.open(AIM * max(1.0, found.closed[-1].answered)))

            for control in more:
                control.closed = [*found.closed]
                async with _stopped(lives[1]) if control is more[-1] else nullcontext():
                    control.over.append(await free.open(mean(over.offered for over in found.over)))

                await asyncio.sleep(IN_TIME)

    for life in lives:
        await _read(life.data_dir, found)

    for control in more:
        control.ends, control.states = {**found.ends}, {**found.states}

    return measured


@asynccontextmanager
async def _stopped(life: Life) -> AsyncIterator[None]:
    """Let a server stand still from a third of an overload on, to its end."""
    timer = asyncio.get_running_loop().call_later(SECONDS / 3, life.signal, signal.SIGSTOP)
    try:
        yield
    finally:
        timer.cancel()
        life.signal(signal.SIGCONT)


async def _start(folder: Path, settings: str, stack: AsyncExitStack) -> Life:
    """Start a server that ends with the stack, and has then come to the end of its plans."""
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs yet
    config, life = folder / "autoglm.yaml", Life(folder)
    config.write_text(settings)
    stack.push_async_callback(life.kill)
    await life.begin(flags=("--config", str(config)))
    stack.push_async_callback(life.stop)
    return life


async def _rested(life: Life) -> None:
    """Wait until a server that has just started does nothing any more; a while at most, if others keep it from ending."""
    for _ in range(40):
        before = _cpu_seconds(life)
        await asyncio.sleep(0.25)
        if _cpu_seconds(life) - before < 0.05:
            return


def _cpu_seconds(life: Life) -> float:
    assert life.popen is not None
    fields = Path(f"/proc/{life.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _looking(load: Load) -> AsyncIterator[None]:
    task = asyncio.create_task(load.look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _read(data_dir: Path, found: Measured) -> None:
    journal, epoch = SqliteJournal(data_dir), datetime(1970, 1, 1, tzinfo=UTC)
    await journal.open()
    try:
        token = ""
        while True:
            page = await journal.list_rows(PlanQuery(page_size=500, page_token=token))
            for row in page.rows:
                found.states[row.plan_id] = row.state
                if row.end_time is not None:
                    found.ends[row.plan_id] = (row.end_time - epoch).total_seconds()

            if not (token := page.next_page_token):
                return
    finally:
        await journal.close()


def _too_little(found: Measured) -> list[str]:
    """Say what is missing of the goodput, and of the load that it is judged by."""
    told = [] if found.times >= TIMES else [f"only {found.times:.2f} times the peak of {found.peak:.1f} was asked for"]
    if found.goodput < GOODPUT_MIN:
        told.append(f"at {found.times:.1f} times the peak {found.goodput:.1%} of it was done")

    return told


def judge(found: Measured, result: Result, where: str) -> None:
    """Say what of the promises was broken."""
    asked = sum(len(phase.asked) for phase in found.over)
    result.found(GOODPUT, tries=asked, faults=0, violations=_too_little(found), where=where)

    turned = sum(len(phase.refused) for phase in found.over)
    told = [text for phase in found.over for text in phase.untold if not text.startswith(LATE)]
    if (took := median_high(found.refusals)) > REFUSED_SECONDS:
        told.append(f"99 of 100 refused calls knew it after {took * 1e3:.0f} ms only, in half of the rounds")

    result.found(REFUSED, tries=turned, faults=0, violations=told, where=where)
    told = [] if found.looked() <= HEALTH_SECONDS else [f"99 of 100 health checks took {found.looked() * 1e3:.0f} ms"]
    told += ["a health check was lost, or took as long" for took in found.health if took > HEALTH_LOST_SECONDS]
    result.found(HEALTH, tries=len(found.health), faults=0, violations=told, where=where)
    result.found(KEPT, tries=len(found.acknowledged), faults=0, violations=found.lost(), where=where)


def _measured(random: Random, rounds: int, *, controls: bool = False) -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="autoglm-overload-") as folder:
        return asyncio.run(measure(Path(folder), random, rounds, controls=controls))


def overload(seed: int, size: int) -> Result:
    """Load a server in ``size`` rounds, and one without limits in two."""
    result, random, where = Result(), Random(seed), f"--only overload --seed {seed} --size {size}"
    found, over, still = _measured(random, size, controls=True)
    if _too_little(found):
        found.more(*_measured(random, AGAIN * size))

    judge(found, result, where)
    result.control(GOODPUT, "a server without limits", caught=over.goodput < GOODPUT_MIN and len(over.acknowledged) > 0)
    broken = Result()
    judge(still, broken, where)
    for promise in (REFUSED, HEALTH):
        result.control(promise, "a server without limits that stands still", caught=broken.violations[promise] > 0)

    result.count("calls above capacity", sum(len(phase.asked) for phase in found.over))
    result.count("plans a second at the peak", found.peak)
    result.count("times the peak asked for", round(found.times, 2))
    result.count("% of the peak", round(100 * found.goodput, 1))
    result.count("% of the control", round(100 * over.goodput, 1))
    result.count("rounds", len(found.over))
    result.count("ms to a refusal (p99)", round(median_high(found.refusals) * 1e3, 1))
    result.count("ms to a refusal of the control (p99)", round(median_high(still.refusals) * 1e3, 1))
    result.count("ms to a health check (p99)", round(found.looked() * 1e3, 1))
    return result
