"""A state machine over what readers are given: of one plan and of all, at old and new places, with all that happens meanwhile.

The model is a list of what became durable, in its order, and which plans are gone. Whoever reads is given what stands behind his
place, in order and without a gap; or he is told that it is gone, or was never there; and if there is something to give or to
tell, he does not wait. Bounds are small, so that readers lag behind what is in memory; commits are held and released, reads of
the journal take their time, readers are cancelled and go on, and processes are lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from autoglm.errors import AutoglmError
from autoglm.model import Event, PlanState, StepProgressed
from autoglm.wire import decode, encode
from autoglm_server.journal._cursors import AllBatch, AllCursor, Batch, Cursor, read_cursor
from autoglm_server.journal._tail import PlanTail
from autoglm_server.journal._waiting import Waiters
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Append, Compaction, PlanRow
from tests.server.scheduler.held import HeldJournal

SETTINGS = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
LONG: Final = 3600.0
PLANS_MAX: Final = 6
READERS_MAX: Final = 6


class SlowJournal(HeldJournal):
    """Its reads take as long as the test wants, and then give what was there at their beginning, or at their end."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: asyncio.Event | None = None
        self.late = False

    async def read(self, *place: Any, **how: Any) -> Any:
        return await self._slowly(lambda: super(SlowJournal, self).read(*place, **how))

    async def read_all(self, *place: Any, **how: Any) -> Any:
        return await self._slowly(lambda: super(SlowJournal, self).read_all(*place, **how))

    async def _slowly(self, look: Callable[[], Any]) -> Any:
        if self.gate is None:
            return await look()

        if self.late:
            await self.gate.wait()
            return await look()

        found = await look()
        await self.gate.wait()
        return found


@dataclass(slots=True)
class Log:
    """A plan: its events as they were handed over, how many of them are durable, and what is left of it."""

    plan_id: str
    labels: Mapping[str, str]
    bodies: list[bytes] = field(default_factory=list)
    durable: int = 0
    ending: bool = False
    gone: bool = False
    """Its events were removed."""
    alive: dict[str, Event] = field(default_factory=dict)
    """The progress of its steps."""

    @property
    def ended(self) -> bool:
        return self.ending and self.durable == len(self.bodies)


@dataclass(slots=True)
class Reader:
    """Someone who reads, and where the model says that he is: a sequence, or a position in the order of all."""

    cursor: Cursor | AllCursor
    plan_id: str
    place: int
    durable_only: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    from_now: bool = False
    whole: bool = False
    """He began with the oldest that is kept."""
    parts: dict[str, int] = field(default_factory=dict)
    """Up to where he has been given each plan."""
    task: asyncio.Task[Any] | None = None
    to_come: bool = False
    """Whether there was something to give or to tell when he asked, or since."""
    unknown: bool = False
    """Whether his plan was not there when he asked."""
    ahead: bool = False
    """Whether his place was one that the plan had not come to."""
    waits: bool = False


class WatchMachine(RuleBasedStateMachine):
    """Drives one feed after the other, over one journal."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.journal = SlowJournal()
        self.logs: dict[str, Log] = {}
        self.order: list[tuple[str, int]] = []
        """What became durable, as (plan, sequence): its position is its place in this list, from 1."""
        self.cursors: list[str] = []
        self.readers: list[Reader] = []
        self.names = count(1)
        self.do(self.journal.open)
        self.begin()

    def begin(self) -> None:
        """Let a process begin: its feed has little room, so that readers lag behind it."""
        self.feed = Feed(self.journal, plan_bytes_max=300, total_bytes_max=700, ring_bytes_max=400)
        told = self.journal.on_commit

        def committed(records: Any) -> None:
            for record in records:
                self.order.append((record.plan_id, record.sequence))
                self.logs[record.plan_id].durable = record.sequence

            told(records)

        self.journal.on_commit = committed

    def do(self, call: Callable[[], Any]) -> None:
        """Do something, let all happen that can, and judge what readers have by then."""

        async def act() -> None:
            made = call()
            if asyncio.iscoroutine(made):
                await made

            for _ in range(30):
                await asyncio.sleep(0)

        self.runner.run(act())
        for reader in list(getattr(self, "readers", ())):
            self.judge(reader)

    # --- what is written

    @precondition(lambda self: len(self.logs) < PLANS_MAX)
    @rule(labelled=st.booleans(), events=st.integers(1, 4), size=st.integers(1, 60))
    def a_plan_begins(self, events: int, size: int, *, labelled: bool) -> None:
        plan_id = f"plan{next(self.names)}"
        self.logs[plan_id] = Log(plan_id, {"x": "1"} if labelled else {})
        self.do(lambda: self.append(self.logs[plan_id], events, size))

    @precondition(lambda self: self.open_plans())
    @rule(data=st.data(), events=st.integers(1, 4), size=st.integers(1, 120))
    def a_plan_goes_on(self, data: st.DataObject, events: int, size: int) -> None:
        log = self.logs[data.draw(st.sampled_from(self.open_plans()))]
        self.do(lambda: self.append(log, events, size))

    @precondition(lambda self: self.open_plans())
    @rule(data=st.data())
    def a_plan_ends(self, data: st.DataObject) -> None:
        log = self.logs[data.draw(st.sampled_from(self.open_plans()))]
        log.ending = True
        log.alive.clear()
        self.do(lambda: self.append(log, 1, 1))

    @precondition(lambda self: not self.journal.held)
    @rule()
    def commits_are_held(self) -> None:
        self.journal.held = True

    @precondition(lambda self: self.journal.held)
    @rule()
    def commits_are_released(self) -> None:
        self.do(self.journal.go_on)

    @precondition(lambda self: self.open_plans())
    @rule(data=st.data(), step=st.sampled_from(["s", "t"]), clears=st.booleans())
    def a_step_progresses(self, data: st.DataObject, step: str, *, clears: bool) -> None:
        log = self.logs[data.draw(st.sampled_from(self.open_plans()))]
        if clears:
            log.alive.pop(step, None)
            self.do(lambda: self.feed.clear(log.plan_id, step_id=step))
            return

        fact = StepProgressed(0.5, f"{len(self.order)}")
        event = Event(log.plan_id, len(log.bodies), step_id=step, attempt=1, ephemeral=True, fact=fact)
        log.alive[step] = event
        self.do(lambda: self.feed.progress(event))

    @precondition(lambda self: any(log.ended and not log.gone for log in self.logs.values()))
    @rule(data=st.data())
    def retention_takes_events_away(self, data: st.DataObject) -> None:
        kept = [log.plan_id for log in self.logs.values() if log.ended and not log.gone]
        plan_ids = data.draw(st.lists(st.sampled_from(kept), min_size=1, unique=True))
        self.do(lambda: self.compact(plan_ids))

    @precondition(lambda self: self.journal.gate is None and self.readers)
    @rule(late=st.booleans())
    def reads_take_long(self, *, late: bool) -> None:
        self.journal.gate, self.journal.late = asyncio.Event(), late

    @precondition(lambda self: self.journal.gate is not None)
    @rule()
    def reads_are_done(self) -> None:
        self.do(self.open_gate)

    @precondition(lambda self: len(self.order) > 8)
    @rule(kept=st.booleans())
    def the_process_is_lost(self, *, kept: bool) -> None:
        """What was handed over is durable, or was lost with it; nobody who read there is heard of again."""
        self.do(self.open_gate)
        for reader in list(self.readers):
            self.leave(reader)

        if kept:
            self.do(self.journal.go_on)
        else:
            self.journal.lose()

        for log in self.logs.values():
            log.ending = log.ended
            del log.bodies[log.durable :]
            log.alive.clear()

        self.logs = {plan_id: log for plan_id, log in self.logs.items() if log.durable}
        self.begin()

    # --- who reads

    @precondition(lambda self: self.logs and len(self.readers) < READERS_MAX)
    @rule(data=st.data(), durable_only=st.booleans())
    def somebody_follows_a_plan(self, data: st.DataObject, *, durable_only: bool) -> None:
        log = self.logs[data.draw(st.sampled_from(list(self.logs)))]
        after = data.draw(st.integers(0, log.durable + 1))
        cursor = self.feed.follow(log.plan_id, after, durable_only=durable_only)
        self.readers.append(Reader(cursor, log.plan_id, after, durable_only))

    @precondition(lambda self: len(self.readers) < READERS_MAX)
    @rule(data=st.data(), labelled=st.booleans(), durable_only=st.booleans())
    def somebody_follows_all(self, data: st.DataObject, *, labelled: bool, durable_only: bool) -> None:
        cursor = data.draw(st.sampled_from(["", "now", *self.cursors]))
        labels = {"x": "1"} if labelled else {}
        how: Any = {"from_now": True} if cursor == "now" else {"cursor": cursor}
        place = read_cursor(cursor, self.journal.journal_id) if cursor not in ("", "now") else 0
        made = self.feed.follow_all(**how, labels=labels, durable_only=durable_only)
        reader = Reader(made, "", place, durable_only, labels, from_now=cursor == "now", whole=not cursor)
        self.readers.append(reader)

    @precondition(lambda self: self.idle())
    @rule(data=st.data(), waits=st.booleans())
    def somebody_reads(self, data: st.DataObject, *, waits: bool) -> None:
        reader = self.idle()[data.draw(st.integers(0, len(self.idle()) - 1))]
        self.do(lambda: self.ask(reader, LONG if waits else 0.0))

    @precondition(lambda self: self.busy())
    @rule(data=st.data(), leaves=st.booleans())
    def somebody_is_cancelled(self, data: st.DataObject, *, leaves: bool) -> None:
        """He has not been given anything, so he may go on where he was."""
        reader = self.busy()[data.draw(st.integers(0, len(self.busy()) - 1))]
        self.do(lambda: self.cancel(reader))
        if leaves:
            self.leave(reader)

    # --- the model

    def open_plans(self) -> list[str]:
        return [log.plan_id for log in self.logs.values() if not log.ending]

    def idle(self) -> list[Reader]:
        return [reader for reader in self.readers if reader.task is None]

    def busy(self) -> list[Reader]:
        return [reader for reader in self.readers if reader.task is not None]

    def append(self, log: Log, events: int, size: int) -> None:
        first = len(log.bodies) + 1
        bodies = [
            encode(Event(log.plan_id, number, START, fact=StepProgressed(0.0, "x" * size)))
            for number in range(first, first + events)
        ]
        log.bodies += bodies
        row = None
        if first == 1 or log.ending:
            state = PlanState.SUCCEEDED if log.ending else PlanState.RUNNING
            end = START + timedelta(seconds=len(self.logs)) if log.ending else None
            row = PlanRow(log.plan_id, "", "", state, log.labels, "", "", START, b"", end)

        if log.ending:
            self.feed.finish(log.plan_id, len(log.bodies))

        self.journal.append(Append(log.plan_id, 1, first, bodies, lambda _: None, row))

    async def compact(self, plan_ids: list[str]) -> None:
        plans = [one for one in await self.journal.ended_plans() if one.plan_id in plan_ids]
        self.feed.removing(plans)
        await self.journal.compact([Compaction(one.plan_id, one.sequence, b"") for one in plans])
        self.feed.removed(plans)
        for plan_id in plan_ids:
            self.logs[plan_id].gone = True

    def open_gate(self) -> None:
        if self.journal.gate is not None:
            self.journal.gate.set()
            self.journal.gate = None

    def ask(self, reader: Reader, seconds: float) -> None:
        if reader.from_now:
            reader.place, reader.from_now = len(self.order), False

        log = self.logs.get(reader.plan_id)
        reader.waits = seconds > 0
        reader.to_come = self.has_news(reader)
        reader.ahead = log is not None and reader.place > log.durable
        reader.unknown = log is not None and log.durable == 0
        reader.task = asyncio.get_running_loop().create_task(reader.cursor.next(seconds))

    async def cancel(self, reader: Reader) -> None:
        assert reader.task is not None
        reader.task.cancel()
        await asyncio.wait([reader.task])

    def leave(self, reader: Reader) -> None:
        if reader.task is not None:
            self.runner.run(self.cancel(reader))

        reader.cursor.close()
        self.readers.remove(reader)

    def behind(self, reader: Reader) -> list[tuple[int, str, int]]:
        """Give what stands behind a reader's place, and is still there: (position, plan, sequence)."""
        return [
            (position, plan_id, sequence)
            for position, (plan_id, sequence) in enumerate(self.order, 1)
            if position > reader.place and not self.logs[plan_id].gone and self.is_his(reader, plan_id)
        ]

    def is_his(self, reader: Reader, plan_id: str) -> bool:
        return reader.labels.items() <= self.logs[plan_id].labels.items()

    def lacks(self, reader: Reader) -> list[str]:
        """Give the plans of which the rest is gone where he is: he must be told, as it would be a gap."""
        places: dict[str, list[int]] = {}
        for position, (plan_id, _) in enumerate(self.order, 1):
            places.setdefault(plan_id, []).append(position)

        return [
            plan_id
            for plan_id, at in places.items()
            if self.logs[plan_id].gone and reader.place < at[-1] and (at[0] <= reader.place or not reader.whole)
        ]

    def has_news(self, reader: Reader) -> bool:
        """Whether there is something durable to give him, or to tell him."""
        if reader.plan_id:
            log = self.logs[reader.plan_id]
            return bool(log.durable) and (
                reader.place != log.durable or log.ended
            )  # none asks for what nobody was told of

        return bool(self.behind(reader) or any(self.is_his(reader, one) for one in self.lacks(reader)))

    def judge(self, reader: Reader) -> None:
        """Compare what a reader got with the model; one who got nothing must have nothing to come."""
        task = reader.task
        if task is None:
            return

        if not task.done():
            assert reader.waits or self.journal.gate is not None, "who would not wait waits"
            assert self.journal.gate is not None or not self.has_news(reader), "he waits for what is there"
            return

        reader.task = None
        if task.cancelled():
            return

        error = task.exception()
        if isinstance(error, AutoglmError):
            self.judge_told(reader, error.reason)
            self.leave(reader)
            return

        if reader.plan_id:
            self.judge_plan(reader, task.result())
        else:
            self.judge_all(reader, task.result())

    def judge_told(self, reader: Reader, told: str) -> None:
        log = self.logs.get(reader.plan_id)
        if log is None:
            assert told == "SEQUENCE_COMPACTED", told
            lacking = self.lacks(reader)
            assert lacking, "he is told that events are gone which he has, or can be given"
        elif told == "SEQUENCE_COMPACTED":
            assert log.gone, "events are said to have gone that are there"
            assert reader.place < log.durable, "he has had all that is gone"
        elif told == "SEQUENCE_AHEAD":
            assert reader.ahead, "he is ahead of nobody"
        else:
            assert told == "PLAN_NOT_FOUND", told
            assert reader.unknown, "a plan is said not to be there that is"

    def judge_plan(self, reader: Reader, batch: Batch) -> None:
        log = self.logs[reader.plan_id]
        given = [decode(Event, body) for body in batch.bodies]
        lasting = [body for body, event in zip(batch.bodies, given, strict=True) if not event.ephemeral]
        self.judge_progress(reader, given)
        assert lasting == log.bodies[reader.place : reader.place + len(lasting)], "not what follows"
        reader.place += len(lasting)
        assert reader.place <= log.durable, "he is given what is not durable"
        assert batch.sequence == reader.place, "he is told that he is somewhere else"
        assert batch.ended is (log.ended and reader.place == log.durable), "he is told of an end at another place"
        assert lasting or batch.ended or not reader.to_come, "he is given nothing, and told nothing"
        for event in given:
            assert not event.ephemeral or event.sequence <= reader.place, "progress comes before what it follows"

    def judge_all(self, reader: Reader, batch: AllBatch) -> None:
        self.cursors = [*self.cursors[-5:], batch.cursor]
        before, place = reader.place, read_cursor(batch.cursor, self.journal.journal_id)
        expected = [one for one in enumerate(self.order, 1) if before < one[0] <= place]
        given = [decode(Event, body) for body in batch.bodies]
        self.judge_progress(reader, given)
        lasting = [(event.plan_id, event.sequence) for event in given if not event.ephemeral]
        rest = iter([one for _, one in expected])
        assert all(one in rest for one in lasting), "not in the order of their commits"
        for plan_id, sequence in lasting:
            assert self.is_his(reader, plan_id), "another's plan"
            first = plan_id not in reader.parts
            assert first or sequence == reader.parts[plan_id] + 1, "a gap"
            assert not (first and reader.whole) or sequence == 1, "a plan from its middle on"
            reader.parts[plan_id] = sequence

        reader.place = place
        missing = [one for _, one in expected if one not in lasting and self.is_his(reader, one[0])]
        for plan_id, _ in missing:
            assert self.logs[plan_id].gone, "left out"
            assert reader.whole, "what is gone was passed over without a word"
            assert reader.parts.get(plan_id, 0) in (0, self.logs[plan_id].durable), "the rest of a plan was passed over"

        assert place > before or not reader.to_come, "he is given nothing, and told nothing"
        assert place >= before, "back"

    def judge_progress(self, reader: Reader, given: list[Event]) -> None:
        passing = [event for event in given if event.ephemeral]
        assert not (passing and reader.durable_only), "he asked for what lasts"
        for event in passing:
            assert self.is_his(reader, event.plan_id)
            known = self.logs[event.plan_id].alive.get(event.step_id)
            assert known is not None, "progress that is void"
            assert event.sequence <= self.logs[event.plan_id].durable, "progress comes before what it follows"
            assert event.fact == known.fact, "progress that is old"

    def teardown(self) -> None:
        try:
            self.do(self.open_gate)
            self.do(self.journal.go_on)
            for _ in range(40):
                for reader in filter(self.has_news, self.idle()):
                    self.do(partial(self.ask, reader, 0.0))

            behind = [reader.plan_id or "all" for reader in self.idle() if self.behind_at_last(reader)]
            assert not behind, f"{behind} were never given the rest"
            self.do(self.feed.drain)
            assert not self.busy(), "somebody waits on a server that goes away"
        finally:
            for reader in list(self.readers):
                self.leave(reader)

            self.runner.close()

    def behind_at_last(self, reader: Reader) -> bool:
        return self.has_news(reader) and not (reader.plan_id and self.logs[reader.plan_id].ended)


def test_watch_model() -> None:
    run_state_machine_as_test(WatchMachine, settings=SETTINGS)


async def test_what_came_while_the_end_was_read_is_given_although_it_has_left_memory() -> None:
    """Found by the machine: a plan was left out, as another one that came after it had been removed meanwhile."""
    journal = SlowJournal()
    feed = Feed(journal, ring_bytes_max=100)
    await journal.open()

    def append(plan_id: str, state: PlanState, *bodies: bytes) -> None:
        end = START if state.terminal else None
        row = PlanRow(plan_id, "", "", state, {}, "", "", START, b"", end)
        journal.append(Append(plan_id, 1, 1, bodies, lambda _: None, row))

    cursor = feed.follow_all(durable_only=True)
    journal.gate = gate = asyncio.Event()
    reading = asyncio.create_task(cursor.next(LONG))
    await asyncio.sleep(0)
    bodies = [bytes([number]) * 50 for number in range(4)]
    append("kept", PlanState.RUNNING, *bodies)
    append("gone", PlanState.SUCCEEDED, *bodies)
    await asyncio.sleep(0)
    gone = await journal.ended_plans()
    feed.removing(gone)
    await journal.compact([Compaction(one.plan_id, one.sequence, b"") for one in gone])
    feed.removed(gone)
    journal.gate = None
    gate.set()
    assert (await reading).bodies == bodies
    assert (await cursor.next(0.0)).bodies == []


async def test_a_plan_that_came_and_ended_while_its_beginning_was_read_is_given_although_it_has_left_memory() -> None:
    """Found by the machine: the read had begun before the commit, and what it did not find was told to be gone."""
    journal = SlowJournal()
    feed = Feed(journal, plan_bytes_max=100)
    await journal.open()
    journal.held = True
    end = PlanRow("p", "", "", PlanState.SUCCEEDED, {}, "", "", START, b"", START)
    bodies = [bytes([number]) * 50 for number in range(4)]
    journal.append(Append("p", 1, 1, bodies, lambda _: None, end))
    cursor = feed.follow("p", durable_only=True)
    cursor._checked = True  # it was looked for while it was there: what counts is the read
    journal.gate = gate = asyncio.Event()
    reading = asyncio.create_task(cursor.next(LONG))
    await asyncio.sleep(0)
    journal.go_on()
    await asyncio.sleep(0)
    journal.gate = None
    gate.set()
    assert list((await reading).bodies) == bodies


# --- controls: what the machine must find


def tells_no_reader(patch: pytest.MonkeyPatch) -> None:
    """A broken feed: who follows all plans is not told that retention takes away what he has not read."""
    patch.setattr(Feed, "removing", lambda *_: None)


def wakes_nobody(patch: pytest.MonkeyPatch) -> None:
    """Another: who waits is not woken by a commit."""
    patch.setattr(Waiters, "wake", lambda _: None)


def skips_what_left_memory(patch: pytest.MonkeyPatch) -> None:
    """A broken tail: who lags behind it goes on with the oldest that it has."""
    after = PlanTail.after
    patch.setattr(PlanTail, "after", lambda self, sequence: after(self, max(sequence, self.first - 1)))


def gives_all_to_everyone(patch: pytest.MonkeyPatch) -> None:
    """A broken cursor: labels are not looked at."""

    async def match(self: AllCursor, plan_id: str) -> bool:
        return True

    patch.setattr(AllCursor, "_match", match)


BROKEN: list[Callable[[pytest.MonkeyPatch], None]] = [
    tells_no_reader,
    wakes_nobody,
    skips_what_left_memory,
    gives_all_to_everyone,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_control_a_broken_feed_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    hunt = settings(
        SETTINGS,
        max_examples=300,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(WatchMachine, settings=hunt)
