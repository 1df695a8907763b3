"""The simulated world: a disk that outlives processes, server processes on it, and everything that goes wrong between them.

The scheduler, the feed, the catalog and the journal (SQLite's, or the reference one) are the real ones. What is simulated are
their ports: the disk under the journal, the tools, the planner, the clock, and the processes themselves.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from autoglm import _ids
from autoglm.errors import AutoglmError
from autoglm.model import Event, StepDraft
from autoglm.wire import decode, to_json
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import (
    Append,
    Compaction,
    FencedError,
    Journal,
    JournalError,
    JournalFailedError,
    PlanRow,
    Record,
)
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.planner.planner import Planner
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.scheduler.subplans import SubPlans
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import Invocation, Provider
from tests.reliability import sweeps
from tests.reliability.history import Asked, Call, History, Keeping, Kept, Logged, Seen, Swept, Told
from tests.reliability.loop import PROCESS, Killed, Process, VirtualLoop
from tests.reliability.platters import SimSqliteJournal, SqliteDisk
from tests.server.scheduler.harness import DEFAULTS

_T = TypeVar("_T")

START = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINE_SECONDS = 30.0
"""How long a client waits for an answer."""


class ConnectionLostError(Exception):
    """The server went away, or did not answer in time: what became of the call is not known."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong in one run, as chances, or as seconds between two of a kind (0: never). Drawn from the seed."""

    crash: float = 0.0
    """At each named point: before and after each append, commit, acknowledgement, dispatch and call."""
    lost_answer: float = 0.0
    commit_seconds: float = 0.002
    """The longest a commit takes."""
    slow_commit: float = 0.0
    kill_every: float = 0.0
    freeze_every: float = 0.0
    full_every: float = 0.0
    broken_every: float = 0.0
    unread_every: float = 0.0
    jump_every: float = 0.0
    tool: float = 0.0
    """That a call does something else than end well."""
    planner: float = 0.0
    few_places: bool = False
    sqlite: bool = False
    """The journal is the product's, on platters; otherwise the reference one."""
    keeping: Keeping | None = None
    """What retention keeps; None: there is none, and everything is kept."""

    @classmethod
    def drawn(cls, random: Random) -> Faults:
        """Draw some kinds of faults, not all: what one kind hides, another run without it shows."""

        def maybe(value: float) -> float:
            return value if random.random() < 0.4 else 0.0

        return cls(
            crash=maybe(random.choice([0.002, 0.01, 0.03])),
            lost_answer=maybe(0.1),
            commit_seconds=random.choice([0.0, 0.002, 0.05, 0.5]),
            slow_commit=maybe(0.05),
            kill_every=maybe(random.choice([2.0, 8.0])),
            freeze_every=maybe(15.0),
            full_every=maybe(12.0),
            broken_every=maybe(20.0),
            jump_every=maybe(10.0),
            tool=random.choice([0.0, 0.1, 0.4]),
            planner=random.choice([0.0, 0.2]),
            few_places=random.random() < 0.15,
            sqlite=random.random() < 0.5,
        )

    def with_more(self, random: Random) -> Faults:
        """Draw the rest."""
        return replace(self, unread_every=random.choice([3.0, 10.0]) if random.random() < 0.25 else 0.0)


class SimClock:
    """The loop's time, and a wall clock that an administrator may set."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset = timedelta(0)

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time()) + self.offset

    def monotonic(self) -> float:
        return self._loop.time()


Stored = tuple[bytes, int | None, int]
"""An event, when it was durable, and under which epoch it was stored."""


class Disk(Protocol):
    """What outlives the processes."""

    taken: dict[str, list[Stored]]
    """The logs that retention took, as they were right before."""

    full: bool
    broken: bool
    unread: bool
    """Nothing can be read for a while."""

    @property
    def shared(self) -> bool:
        """Whether another process can take over while one that stands still is there."""
        ...

    def journal(self, process: Process) -> SimJournal | SimSqliteJournal:
        """Give a process that starts its journal."""
        ...

    def ended(self) -> None:
        """Take note that the process which had the journal has ended."""
        ...

    def refuses_another(self) -> bool:
        """Whether a second process beside the one that has the journal is turned away."""
        ...

    def log(self) -> AbstractAsyncContextManager[tuple[Journal, Iterable[tuple[str, Stored]]]]:
        """Give the journal at the end, and all events in it, by plan."""
        ...

    def scope(self) -> AbstractContextManager[object]:
        """Last as long as the run."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class MemoryDisk:
    """The content of the reference journal, which several processes may write at once."""

    shared = True

    def __init__(self, world: World) -> None:
        self._world = world
        self.content = MemoryJournal()
        self.taken: dict[str, list[Stored]] = {}
        self.durable_at: dict[tuple[str, int], int] = {}
        self.epochs: dict[str, list[int]] = {}
        """Under which epoch each event of a plan was stored."""
        self.full = False
        self.broken = False
        self.unread = False

    def journal(self, process: Process) -> SimJournal:
        return SimJournal(self._world, self, process)

    def ended(self) -> None: ...

    def refuses_another(self) -> bool:
        return False

    @asynccontextmanager
    async def log(self) -> AsyncIterator[tuple[Journal, Iterable[tuple[str, Stored]]]]:
        yield self.content, [(plan_id, one) for plan_id in self.content._plans for one in self.stored(plan_id)]

    def stored(self, plan_id: str) -> list[Stored]:
        """Give the events that are there of a plan."""
        return [
            (body, self.durable_at.get((plan_id, number)), self.epochs[plan_id][number - 1])
            for number, body in enumerate(self.content._plans[plan_id].bodies, 1)
        ]

    def scope(self) -> AbstractContextManager[object]:
        return nullcontext()

    def close(self) -> None: ...


_OF_PROCESS = frozenset(
    {
        "_told",
        "on_commit",
        "on_health",
        "_open",
        "_turn",
        "_world",
        "_disk",
        "_process",
        "_stalled",
        "_stall",
        "_failed",
    }
)
"""What of a journal is lost with its process."""


class SimJournal(MemoryJournal):
    """The reference journal on a disk that is slow, full or broken, in a process that may end at any point."""

    def __init__(self, world: World, disk: MemoryDisk, process: Process) -> None:
        self._disk = disk
        self._told: Callable[[Sequence[Record]], None] = lambda _: None
        self.on_health: Callable[[], None] = lambda: None
        self._open = False
        self._turn: list[Any] = []
        self._world = world
        self._process = process
        self._stalled = ""
        self._stall: Stall | None = None
        self._failed: JournalFailedError | None = None

    def __getattr__(self, name: str) -> Any:
        """Everything stored is the disk's, whichever process stored it."""
        return getattr(self._disk.content, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_PROCESS:
            object.__setattr__(self, name, value)
        else:
            setattr(self._disk.content, name, value)

    @property
    def on_commit(self) -> Callable[[Sequence[Record]], None]:
        return self._commit_told

    @on_commit.setter
    def on_commit(self, told: Callable[[Sequence[Record]], None]) -> None:
        self._told = told

    @property
    def stalled(self) -> str:
        return self._stalled

    @property
    def failure(self) -> JournalFailedError | None:
        return self._failed

    def _hand_over(self, job: Any) -> None:
        self._world.point("append")
        if isinstance(job, Append):
            job.settled = self._pointed(job.settled)

        self._turn.append(job)
        if len(self._turn) == 1:
            self._world.loop.call_later(self._world.commit_seconds(), self._commit)

    def _pointed(self, settled: Callable[[JournalError | None], None]) -> Callable[[JournalError | None], None]:
        def called(refusal: JournalError | None) -> None:
            self._world.point("acknowledge")
            settled(refusal)
            self._world.point("acknowledged")

        return called

    def _commit(self) -> None:
        if not self._turn:
            return

        if self._failed is not None or self._disk.broken:
            self._break()
        elif self._disk.full:
            self._stay_full()
        else:
            if self._stall is not None:
                self._stall.over()
                self._stall, self._stalled = None, ""
                self.on_health()

            self._world.point("commit")
            super()._commit()

    def _refusal(self, append: Append) -> JournalError | None:
        if self._world.overtaken(self._process) and append.first_sequence == 1:
            return FencedError("another process has taken over the data")

        return super()._refusal(append)

    async def read(self, *place: Any, **how: Any) -> Sequence[bytes]:
        self._readable()
        return await super().read(*place, **how)

    async def read_all(self, *place: Any, **how: Any) -> Sequence[Record]:
        self._readable()
        return await super().read_all(*place, **how)

    async def get_row(self, plan_id: str) -> PlanRow | None:
        self._readable()
        return await super().get_row(plan_id)

    def _readable(self) -> None:
        if self._disk.unread:
            self._world.history.fault("read refused")
            raise JournalError("the disk does not read")

    # --- retention

    async def compact(self, compactions: Sequence[Compaction]) -> None:
        self._world.note_meant(one.plan_id for one in compactions)
        await self._writing()
        plans = self._disk.content._plans
        there = {one.plan_id: self._disk.stored(one.plan_id) for one in compactions if one.plan_id in plans}
        await super().compact(compactions)
        for plan_id, stored in there.items():
            if len(plans[plan_id].bodies) < len(stored):
                self._world.note_taken(self._process, plan_id, stored)

        self._world.point("swept")

    async def purge(self, limit: int) -> int:
        await self._writing()
        freed = await super().purge(limit)
        self._world.point("swept")
        return freed

    async def remove(self, plan_ids: Sequence[str]) -> Sequence[str]:
        await self._writing()
        gone = await super().remove(plan_ids)
        for plan_id in gone:
            self._world.note_removed(self._process, plan_id)

        self._world.point("swept")
        return gone

    async def _writing(self) -> None:
        """Take as long as a commit. Who was overtaken removes nothing: SQLite's lock sees to that in the product."""
        self._world.point("sweep")
        await asyncio.sleep(self._world.commit_seconds())
        while self._disk.full:  # noqa: ASYNC110 - a disk tells nobody that there is room
            await asyncio.sleep(1.0)

        if self._disk.broken:
            self._break()

        if self._failed is not None:
            raise self._failed

        if self._world.overtaken(self._process):
            raise FencedError("another process has taken over the data")

    def _store(self, append: Append) -> None:
        self._disk.epochs.setdefault(append.plan_id, []).extend([append.epoch] * len(append.bodies))
        super()._store(append)

    def _commit_told(self, records: Sequence[Record]) -> None:
        world = self._world
        tick = world.tick()
        for record in records:
            self._disk.durable_at[record.plan_id, record.sequence] = tick

        world.point("committed")
        self._told(records)
        world.point("told")

    def _stay_full(self) -> None:
        if self._stall is None:
            self._stalled = "the disk is full"
            self._stall = self._world.stall(self._process)
            self.on_health()

        self._world.loop.call_later(1.0, self._commit)

    def _break(self) -> None:
        """A write fails for good; what was written of it is not known. The process ends soon after."""
        if self._failed is None:
            self._failed = JournalFailedError("the disk is broken")
            if self._world.random.random() < 0.5:
                # It had arrived: the error came after it.
                for job in self._turn:
                    before = len(self._records)
                    self._apply(job)
                    for record in self._records[before:]:
                        self._disk.durable_at[record.plan_id, record.sequence] = self._world.tick()

            self.on_health()
            self._world.loop.call_later(0.01, self._world.point, "broken")

        turn, self._turn = self._turn, []
        for job in turn:
            if isinstance(job, Append):
                job.settled(self._failed)
            elif not job.claims.done():
                job.claims.set_exception(self._failed)


class Stall:
    """A time in which the server knew that the disk is full, noted once calls that had left before have begun."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._began = 0
        self._timer = world.loop.call_later(0.01, self._note, context=world.context)
        self.process = process
        world.stalls.append(self)

    def _note(self) -> None:
        self._began = self._world.tick()

    def over(self) -> None:
        self._timer.cancel()
        if self in self._world.stalls:
            self._world.stalls.remove(self)
            if self._began and not self._world.overtaken(self.process):
                self._world.history.stalls.append((self._began, self._world.tick()))


class Server:
    """One process, from its start to its end."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.process = Process(f"server-{number}")
        self.answers: dict[asyncio.Future[Any], None] = {}
        self.ready = False
        self.booting: asyncio.Task[None] | None = None
        self.journal = world.disk.journal(self.process)
        self.feed = Feed(self.journal)
        keeping = world.faults.keeping
        self.sweeping: asyncio.Task[None] | None = None
        self.retention = None if keeping is None else sweeps.SimRetention(world, self, keeping)
        # Sub-plans are played where retention may take them: in other worlds every seed would play something else than it has.
        subplans = None if keeping is None else SubPlans()
        self.catalog = Catalog([world.provider, *([] if subplans is None else [subplans])])
        self.scheduler = Scheduler(
            journal=self.journal,
            feed=self.feed,
            catalog=self.catalog,
            planners={planner.name: planner for planner in world.planners},
            clock=world.clock,
            jitter=world.random.random,
            defaults=DEFAULTS,
            limits=world.limits,
            subplans=subplans,
        )

    async def boot(self) -> None:
        try:
            await self.journal.open()
            self.journal.on_health = self.scheduler.journal_health_changed
            await self.catalog.start()
            await self.scheduler.start()
            self.ready = True
            self.world.opened()
            if self.retention is not None:
                self.sweeping = self.process.spawn(self.world.loop, self.retention.live())
        except JournalError:
            self.world.kill(self, "start")


class World:
    """One seeded run."""

    def __init__(self, seed: int, faults: Faults | None = None, *, traced: bool = False) -> None:
        self.random = Random(seed)
        # What was added later is drawn apart, so that the seeds of before go on to play what they played.
        self.faults = faults or replace(
            Faults.drawn(self.random).with_more(Random(seed * 2 + 3)), keeping=sweeps.drawn(seed)
        )
        self.loop = VirtualLoop(Random(seed * 2 + 1))
        self.clock = SimClock(self.loop)
        self.history = History(seed)
        if self.faults.keeping is not None:
            self.history.kept = Kept(self.faults.keeping)

        self.sweep_began: dict[str, float] = {}
        """What the clock on the wall said when a process began its last sweep."""
        # Not drawn, or every seed would play something else than it has.
        limits = Limits(taken_up_first=(128, 3, 0)[seed % 3])
        self.limits = replace(limits, running_plans=2, running_calls=2) if self.faults.few_places else limits
        self.context = Process("world").context
        self.context.run(PROCESS.set, None)
        self.chaos = True
        self.lives = 0
        self.servers: list[Server] = []
        self._at_the_door: list[asyncio.Future[None]] = []
        self.current: Server | None = None
        self.stalls: list[Stall] = []
        self.provider: Provider
        self.planners: Sequence[Planner] = ()
        self.disk: Disk = SqliteDisk(self, Random(seed * 2 + 2)) if self.faults.sqlite else MemoryDisk(self)
        self._under_way: dict[tuple[str, str, int], Call] = {}
        self._decoded: dict[bytes, Event] = {}
        self._tick = 0
        self._trace = hashlib.sha256() if traced else None

    def tick(self) -> int:
        """Give the next number of the order in which things were recorded."""
        self._tick += 1
        return self._tick

    def trace(self, *what: object) -> None:
        """Take something into the digest of the run."""
        if self._trace is not None:
            self._trace.update(repr((self._tick, self.loop.time(), *what)).encode())

    @property
    def digest(self) -> str:
        return self._trace.hexdigest() if self._trace is not None else ""

    def chance(self, probability: float) -> bool:
        return self.chaos and probability > 0 and self.random.random() < probability

    # --- processes

    def start(self) -> None:
        """Start a server process; the one before, if it still is, has been overtaken."""
        self.current = server = Server(self, len(self.servers))
        self.servers.append(server)
        self.trace("start", server.process.name)
        server.booting = server.process.spawn(self.loop, server.boot())

    def kill(self, server: Server, where: str) -> None:
        """End a process here and now. Raises in the process itself: it does not live to return from this."""
        self.end(server, where)
        if PROCESS.get() is server.process:
            raise Killed

    def end(self, server: Server, where: str) -> None:
        """End a process; none of its callbacks runs again."""
        if not server.process.dead:
            self.tick()
            self.trace("kill", server.process.name, where)
            self.history.fault(f"killed at {where}")
            server.process.dead = True
            server.ready = False
            self._end_stalls(server)
            self._lose_calls(server)
            for answer in server.answers:
                if not answer.done():
                    answer.set_exception(ConnectionLostError(where))

            if server is self.current:
                self.disk.ended()
                self.disk.broken = False
                away = [30.0] if self.faults.keeping is not None and self.chaos else []
                seconds = self.random.choice([0.0, 0.1, 2.0, *away])
                self.loop.call_later(seconds, self.start, context=self.context)

    def _end_stalls(self, server: Server) -> None:
        for stall in [one for one in self.stalls if one.process is server.process]:
            stall.over()

    def _lose_calls(self, server: Server) -> None:
        """Calls end with the process that makes them."""
        for call in [one for one in self._under_way.values() if one.owner == server.process.name]:
            self._under_way.pop((call.owner, call.key, call.attempt))
            self.history.calls.append(replace(call, at=self.tick(), what="lost"))

    def point(self, name: str) -> None:
        """A named point that a process passes: it may end here."""
        process = PROCESS.get()
        if process is None:
            return

        if process.dead:
            raise Killed

        if name == "broken" or self.chance(self.faults.crash):
            server = next(one for one in self.servers if one.process is process)
            self.kill(server, name)

    def freeze(self) -> None:
        """Freeze the server, and let it go on later, not knowing. Another takes over meanwhile if the disk can be shared."""
        server = self.current
        if server is None or not server.ready or server.process.frozen:
            return

        self.trace("freeze", server.process.name)
        server.process.frozen = True
        self.loop.call_later(self.random.uniform(0.1, 8.0), self.loop.thaw, server.process, context=self.context)
        if not self.disk.shared:
            self.history.fault("frozen")
            if not self.disk.refuses_another():
                self.history.broken.append("a second server has opened the data directory of one that stands still")

            return

        self.history.fault("frozen and overtaken")
        self._end_stalls(server)
        self._lose_calls(server)
        self.start()
        end = self.random.uniform(8.0, 20.0)
        self.loop.call_later(end, self._end_overtaken, server, context=self.context)

    def _end_overtaken(self, server: Server) -> None:
        if server is not self.current:
            self.kill(server, "overtaken")

    def overtaken(self, process: Process) -> bool:
        """Whether another process has taken over since."""
        return self.current is None or process is not self.current.process

    def stall(self, process: Process) -> Stall:
        """Note that a process knows from now on that the disk is full."""
        return Stall(self, process)

    def commit_seconds(self) -> float:
        """Say how long the next commit takes."""
        slow = self.chance(self.faults.slow_commit)
        if slow:
            self.history.fault("slow commit")

        return self.random.uniform(0.0, 5.0 if slow else self.faults.commit_seconds)

    # --- calls

    async def ask(self, server: Server, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Call a server as a client does: it may go away, and its answer may be lost.

        Raises:
            ConnectionLostError: nobody knows what became of the call.
            AutoglmError: it was refused.
        """
        answer: asyncio.Future[_T] = self.loop.create_future()

        async def serve() -> None:
            try:
                result = await work()
            except (AutoglmError, ConnectionLostError) as error:
                reply(error)
            except JournalError as error:
                reply(ConnectionLostError(str(error)))
            else:
                if not answer.done():
                    if self.chance(self.faults.lost_answer):
                        self.history.fault("answer lost")
                        reply(ConnectionLostError("the answer was lost"))
                    else:
                        answer.set_result(result)

        def reply(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        if server.process.dead:
            raise ConnectionLostError("the connection was refused")

        server.answers[answer] = None
        task = server.process.spawn(self.loop, serve())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await answer
        except TimeoutError:
            raise ConnectionLostError("the deadline was over") from None
        finally:
            server.answers.pop(answer, None)
            if not task.done() and not server.process.dead:
                task.cancel()

    async def serving(self) -> Server:
        """Wait for a server that is ready."""
        while self.current is None or not self.current.ready:
            waiting = self.loop.create_future()
            self._at_the_door.append(waiting)
            await waiting
            await asyncio.sleep(self.random.uniform(0.0, 0.1))

        return self.current

    def opened(self) -> None:
        """Let those know who wait for a server."""
        at_the_door, self._at_the_door = self._at_the_door, []
        for waiting in at_the_door:
            if not waiting.done():
                waiting.set_result(None)

    # --- notes

    def note(self, asked: Asked) -> Asked:
        self.history.asked.append(asked)
        self.trace("ask", asked.kind, asked.plan_id, asked.request_id, asked.step_id)
        return asked

    def answered(self, asked: Asked, refused: str = "") -> None:
        asked.answered_at, asked.refused = self.tick(), refused
        self.trace("answered", asked.kind, asked.plan_id, refused)

    def note_call(self, what: str, invocation: Invocation) -> None:
        process = PROCESS.get()
        owner = process.name if process is not None else ""
        outlived = process is None or self.overtaken(process)
        context = invocation.context
        call = Call(
            self.tick(),
            what,
            invocation.tool,
            invocation.idempotency_key,
            context.plan_id,
            context.step_id,
            context.attempt,
            invocation.arguments,
            owner,
            outlived,
        )
        self.history.calls.append(call)
        place = (owner, call.key, call.attempt)
        if what == "begin":
            self._under_way[place] = call
        else:
            self._under_way.pop(place, None)

        self.trace(what, call.key, call.attempt, owner)

    def note_seen(self, watcher: str, stream: int, after: int, event: Event, body: bytes) -> None:
        seen = Seen(self.tick(), watcher, stream, after, event.plan_id, event.sequence, body)
        self.history.seen.append(seen)
        self.trace("saw", watcher, event.plan_id, event.sequence)

    def note_told(self, who: str, plan_id: str, reason: str) -> None:
        self.history.told.append(Told(self.tick(), who, plan_id, reason))
        self.trace("told", who, plan_id, reason)

    def note_meant(self, plan_ids: Iterable[str]) -> None:
        """Note that the journal is asked to let the events of plans go."""
        if self.history.kept is not None:
            for plan_id in plan_ids:
                self.history.kept.meant.setdefault(plan_id, self.tick())

    def note_taken(self, process: Process, plan_id: str, stored: list[Stored]) -> None:
        """Note that the events of a plan are about to be gone, and what they were."""
        before = self.disk.taken.setdefault(plan_id, stored)
        if [one[0] for one in before] != [one[0] for one in stored]:
            self.history.broken.append(
                f"plan {plan_id} was there again, with other events, after retention had taken it"
            )

        self._note_swept(process, plan_id, whole=False)

    def note_removed(self, process: Process, plan_id: str) -> None:
        """Note that a plan is about to be gone."""
        self._note_swept(process, plan_id, whole=True)

    def _note_swept(self, process: Process, plan_id: str, *, whole: bool) -> None:
        if self.history.kept is not None:
            self.history.kept.swept.append(Swept(self.tick(), plan_id, whole, self.sweep_began[process.name]))
            self.trace("swept", plan_id, whole)

    def decoded(self, body: bytes) -> Event:
        """Read an event; each of its readers would find the same."""
        event = self._decoded.get(body)
        if event is None:
            event = self._decoded[body] = decode(Event, body)

        return event

    def written(self, plan_id: str, drafts: Sequence[StepDraft]) -> None:
        for draft in drafts:
            self.history.written.setdefault(plan_id, {}).setdefault(draft.id, []).append(draft)

    # --- life

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> History:
        """Run to the end, and give what was recorded."""
        with ExitStack() as stack:
            stack.enter_context(seeded_ids(Random(self.random.random())))
            stack.enter_context(self.disk.scope())
            stack.enter_context(sweeps.in_small_batches(self.faults.keeping))
            stack.enter_context(_collected_after())
            try:
                self._complete(main())
            finally:
                self._complete(self._collect())
                self._reap()
                self.disk.close()

        return self.history

    def _complete(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(self.loop.create_task(work, context=self.context))

    async def _collect(self) -> None:
        logs: dict[str, list[Logged]] = {}
        try:
            async with self.disk.log() as (journal, stored):
                for plan_id, one in stored:
                    logs.setdefault(plan_id, []).append(self._logged(one))

                if self.history.kept is not None:
                    await self._collect_kept(journal, self.history.kept, logs)
        except JournalError as error:
            self.history.broken.append(f"the journal at the end: {error}")

        self.history.logs = logs

    def _logged(self, stored: Stored) -> Logged:
        body, durable_at, epoch = stored
        event = self.decoded(body)
        if self._trace is not None:
            self.trace(to_json(event))

        return Logged(event, body, durable_at, epoch)

    async def _collect_kept(self, journal: Journal, kept: Kept, logs: dict[str, list[Logged]]) -> None:
        """Note what there is, and put what retention took beside it."""
        kept.events = set(logs)
        for plan_id, stored in self.disk.taken.items():
            before = [body for body, _, _ in stored]
            if plan_id not in logs:
                logs[plan_id] = [self._logged(one) for one in stored]
            elif [one.body for one in logs[plan_id]] != before:
                self.history.broken.append(f"plan {plan_id} is there again, with other events than retention took")

        await sweeps.look(journal, kept, logs)

    def _reap(self) -> None:
        """Let what is left end quietly; nothing of it is recorded."""
        self.loop.reaping = True

        def silent(*_: object, **__: object) -> None: ...

        self.point = self.note_call = self.trace = silent  # type: ignore[method-assign]
        for server in self.servers:
            self.loop.thaw(server.process)
            server.scheduler.timers.stop()
            for run in list(server.scheduler._runs.values()):
                run.gone = True

        async def end() -> None:
            for _ in range(5):
                left = [task for task in asyncio.all_tasks(self.loop) if task is not asyncio.current_task()]
                for task in left:
                    task.cancel()

                if not left:
                    break

                await asyncio.wait(left, timeout=30.0)

        self._complete(end())
        self.loop.close()


@contextmanager
def _collected_after() -> Iterator[None]:
    """Leave garbage until this is over: what the collector finalizes meanwhile would come at no seed's moment, and it costs."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def seeded_ids(random: Random) -> Iterator[None]:
    """Let ids come from the seed while this lasts."""
    ids: Any = _ids
    secrets, time = ids.secrets, ids.time
    count = iter(range(1 << 40))
    ids.secrets = SimpleNamespace(token_bytes=random.randbytes)
    ids.time = SimpleNamespace(time_ns=lambda: next(count) * 1_000_000)
    ids._drawn.clear()  # what was drawn before is not the seed's, and what is drawn now is nobody else's
    try:
        yield
    finally:
        ids.secrets, ids.time = secrets, time
        ids._drawn.clear()
