"""A state machine over retention: plans that end, sweeps by any rules, cut anywhere, and watchers from old and new places.

The model holds for each plan its end, its last snapshot, and how much of it is left: its events, its snapshot, nothing. A sweep
that is cut leaves a plan somewhere between what it was and what the whole sweep makes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from autoglm.errors import AutoglmError, NotFoundError
from autoglm.model import Event, Plan
from autoglm.wire import decode
from autoglm_server.journal._cursors import AllCursor, Cursor
from autoglm_server.journal.journal import Ended, EventsRemovedError, Journal
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.scheduler import retention
from autoglm_server.scheduler.retention import Retention, Rules
from tests.server.scheduler.harness import World, step

SETTINGS = settings(
    max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
DAY = timedelta(days=1)
RULES = [
    Rules(events=DAY),
    Rules(events=DAY, plans=3 * DAY),
    Rules(plans=2 * DAY),
    Rules(max_plans=2),
    Rules(events=2 * DAY, plans=4 * DAY, max_plans=1),
]


class Left(IntEnum):
    """How much of a plan is there."""

    EVENTS = 0
    SNAPSHOT = 1
    NOTHING = 2


@dataclass(slots=True)
class Known:
    """A plan that has ended."""

    plan: Plan
    end: datetime
    left: Left = Left.EVENTS


@dataclass(slots=True)
class Reader:
    """Someone who watches, and what was given: sequences of one plan, or of each."""

    cursor: Cursor | AllCursor
    plan_id: str
    given: dict[str, list[int]] = field(default_factory=dict)


class CutError(Exception):
    """The process is gone."""


class CuttingJournal:
    """A journal over which the process is lost, before or after its ``cut``-th call that removes something."""

    def __init__(self, journal: Journal, cut: int) -> None:
        self._journal = journal
        self._cut = cut

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._journal, name)
        if name not in ("compact", "purge", "remove"):
            return call

        async def counted(*arguments: Any) -> Any:
            self.count()
            given = await call(*arguments)
            self.count()
            return given

        return counted

    def count(self) -> None:
        self._cut -= 1
        if self._cut < 0:
            raise CutError


class Files:
    """An artifact store: it has a file of every plan whose files were not removed."""

    def __init__(self) -> None:
        self.removed: set[str] = set()

    async def remove(self, plan_id: str) -> None:
        self.removed.add(plan_id)


class RetentionMachine(RuleBasedStateMachine):
    """Drives one world over its lives."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World(MemoryJournal())
        self.files = Files()
        self.ended: dict[str, Known] = {}
        self.due: set[str] = set()
        """Plans that some sweep was to remove."""
        self.open: list[str] = []
        self.readers: list[Reader] = []
        self.cursors: list[str] = []
        """Where readers of all plans were told to go on."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(retention, "_COMPACTED_AT_ONCE", 2)
        self.patch.setattr(retention, "_PURGED_AT_ONCE", 3)
        self.patch.setattr(retention, "_REMOVED_AT_ONCE", 1)
        self.runner.run(self.world.__aenter__())

    def do(self, work: Any) -> Any:
        return self.runner.run(work)

    # --- what happens

    @rule(steps=st.integers(1, 3), asked=st.booleans())
    def a_plan_ends(self, steps: int, *, asked: bool) -> None:
        async def make() -> Plan:
            drafts = [step(f"s{number}", "echo") for number in range(steps)]
            name = f"r{len(self.ended)}" if asked else ""
            return await self.world.ended(await self.world.create(*drafts, request_id=name))

        plan = self.do(make())
        self.has_ended(plan)

    @precondition(lambda self: len(self.open) < 2)
    @rule()
    def a_plan_waits(self) -> None:
        plan = self.do(self.world.create(step("s", "guarded")))
        self.do(self.world.settle())
        self.open.append(plan.id)

    @precondition(lambda self: self.open)
    @rule()
    def a_waiting_plan_is_cancelled(self) -> None:
        plan_id = self.open.pop()

        async def cancel() -> Plan:
            plan = await self.world.scheduler.cancel(plan_id, reason="", principal="")
            return await self.world.ended(plan)

        plan = self.do(cancel())
        self.has_ended(plan)

    @rule(seconds=st.sampled_from([60.0, 40_000.0, 90_000.0, 200_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.world.advance(seconds))

    @rule(rules=st.sampled_from(RULES))
    def sweep(self, rules: Rules) -> None:
        after = self.swept(rules)
        self.do(self.retention(rules, self.world.journal).sweep())
        self.do(self.look(after, after))

    @rule(rules=st.sampled_from(RULES), cut=st.integers(0, 7))
    def sweep_and_crash(self, rules: Rules, cut: int) -> None:
        before, after = {one: known.left for one, known in self.ended.items()}, self.swept(rules)

        async def cut_short() -> None:
            journal: Any = CuttingJournal(self.world.journal, cut)
            with suppress(CutError):
                await self.retention(rules, journal).sweep()

            await self.world.crash()

        self.do(cut_short())
        self.readers.clear()
        self.do(self.look(before, after))

    @rule()
    def crash(self) -> None:
        self.do(self.world.crash())
        self.readers.clear()

    # --- who watches

    @precondition(lambda self: self.ended and len(self.readers) < 6)
    @rule(data=st.data())
    def watch(self, data: st.DataObject) -> None:
        plan_id = data.draw(st.sampled_from(list(self.ended)))
        after = data.draw(st.integers(0, self.ended[plan_id].plan.sequence + 1))
        reader = Reader(self.world.feed.follow(plan_id, after), plan_id, {plan_id: [after]})
        self.readers.append(reader)
        if data.draw(st.booleans()):
            self.read(reader)

    @precondition(lambda self: len(self.readers) < 6)
    @rule(data=st.data())
    def watch_all(self, data: st.DataObject) -> None:
        cursor = data.draw(st.sampled_from(["", *self.cursors]))
        reader = Reader(self.world.feed.follow_all(cursor), "")
        self.readers.append(reader)
        if data.draw(st.booleans()):
            self.read_all(reader, whole=not cursor)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        if reader.plan_id:
            self.read(reader)
        else:
            self.read_all(reader, whole=False)

    # --- the model

    def teardown(self) -> None:
        try:
            everything = {one: known.left for one, known in self.ended.items()}
            self.do(self.look(everything, everything))
        finally:
            self.patch.undo()
            self.do(self.world.__aexit__())
            self.runner.close()

    def has_ended(self, plan: Plan) -> None:
        assert plan.end_time is not None
        self.ended[plan.id] = Known(plan, plan.end_time)
        self.world.clock.advance(1.0)  # no two end together, so it is plain which is the oldest

    def retention(self, rules: Rules, journal: Journal) -> Retention:
        files: Any = self.files
        return Retention(journal, self.world.feed, self.world.clock, rules, artifacts=files, pause_seconds=0.0)

    def swept(self, rules: Rules) -> dict[str, Left]:
        """What a whole sweep leaves of each plan, by the words of docs/operations.md."""
        now = self.world.clock.now()
        left = {plan_id: known.left for plan_id, known in self.ended.items()}
        for plan_id, known in self.ended.items():
            age = now - known.end
            if rules.plans is not None and age > rules.plans:
                left[plan_id] = Left.NOTHING
            elif rules.events is not None and age > rules.events:
                left[plan_id] = max(left[plan_id], Left.SNAPSHOT)

        if rules.max_plans is not None:
            kept = sorted((one for one in left if left[one] < Left.NOTHING), key=lambda one: self.ended[one].end)
            for plan_id in kept[: max(0, len(kept) - rules.max_plans)]:
                young = now - self.ended[plan_id].end <= DAY
                left[plan_id] = Left.SNAPSHOT if young else Left.NOTHING

        return left

    async def look(self, least: dict[str, Left], most: dict[str, Left]) -> None:
        """See what is left of each plan, which is between ``least`` and ``most``, and that all that is left is whole."""
        for plan_id in self.open:
            plan = await self.world.scheduler.get(plan_id)
            assert len(await self.world.events(plan)) == plan.sequence, "a plan that has not ended lost events"

        for plan_id, known in self.ended.items():
            known.left = await self.left_of(known)
            assert least[plan_id] <= known.left <= most[plan_id], (
                f"{known.left!r}, not {least[plan_id]!r} to {most[plan_id]!r}"
            )
            if most[plan_id] == Left.NOTHING:
                self.due.add(plan_id)  # a sweep that is cut may have come to its files and not to it

            assert plan_id in self.due or plan_id not in self.files.removed, "the files of a plan went that stays"
            assert known.left < Left.NOTHING or plan_id in self.files.removed, "files stay that nobody can ask for"
            await self.still_found(known)

    async def left_of(self, known: Known) -> Left:
        plan = known.plan
        try:
            assert await self.world.scheduler.get(plan.id) == plan, "the snapshot is another one"
        except NotFoundError:
            return Left.NOTHING

        try:
            assert len(await self.world.events(plan)) == plan.sequence, "some events went and some stay"
        except EventsRemovedError:
            return Left.SNAPSHOT

        return Left.EVENTS

    async def still_found(self, known: Known) -> None:
        """A request_id is there as long as its plan."""
        if known.plan.request_id:
            found = await self.world.journal.find_request("", "", known.plan.request_id)
            assert (found is not None) is (known.left < Left.NOTHING), "a request_id and its plan did not go together"

    # --- what readers are given

    def read(self, reader: Reader) -> None:
        """One who watches a plan is given what follows, told that it is gone, or told that he has had all of it."""
        known = self.ended[reader.plan_id]
        last, after = known.plan.sequence, reader.given[reader.plan_id][-1]
        told, bodies = self.do(self.next(reader))
        if told == "SEQUENCE_COMPACTED":
            assert known.left == Left.SNAPSHOT, "events are said to have gone that are there"
            assert after < last
        elif told == "PLAN_NOT_FOUND":
            assert known.left == Left.NOTHING, "a plan is said to have gone that is there"
        elif told == "SEQUENCE_AHEAD":
            assert after > last
        else:
            assert not told, told
            assert after <= last
            assert bodies or after == last, "he waits for ever for what has gone"
            assert [one.sequence for one in bodies] == list(range(after + 1, after + 1 + len(bodies)))
            reader.given[reader.plan_id] += [one.sequence for one in bodies]
            return

        self.leave(reader)

    def read_all(self, reader: Reader, *, whole: bool) -> None:
        """One who watches all is given each plan without a gap; from the start on, each whole or not at all."""
        told, bodies = self.do(self.next(reader))
        if told:
            assert told == "SEQUENCE_COMPACTED", told
            assert not whole, "who asks for all that is there cannot be late"
            self.leave(reader)
            return

        for one in bodies:
            given = reader.given.setdefault(one.plan_id, [])
            assert not given or one.sequence == given[-1] + 1, (
                f"{one.sequence} of {one.plan_id} came after {given[-1:]}"
            )
            given.append(one.sequence)

        if whole:
            firsts = {plan_id: given[0] for plan_id, given in reader.given.items()}
            assert set(firsts.values()) <= {1}, firsts
            there = {one for one, known in self.ended.items() if known.left == Left.EVENTS}
            missing = there - set(reader.given)
            assert not missing, f"{missing} were left out"

    async def next(self, reader: Reader) -> tuple[str, list[Event]]:
        """Give why there is no more, or what there is."""
        try:
            batch = await reader.cursor.next(0.0)
        except AutoglmError as error:
            return error.reason, []

        if isinstance(reader.cursor, AllCursor):
            cursor: Any = batch
            self.cursors.append(cursor.cursor)

        return "", [one for one in (decode(Event, body) for body in batch.bodies) if not one.ephemeral]

    def leave(self, reader: Reader) -> None:
        reader.cursor.close()
        self.readers.remove(reader)


def test_retention_model() -> None:
    run_state_machine_as_test(RetentionMachine, settings=SETTINGS)


# --- controls: what the machine must find


def removes_what_is_young(patch: pytest.MonkeyPatch) -> None:
    """Broken retention: of too many plans it forgets the ids, too."""
    patch.setattr(retention, "KEYS_KEPT", timedelta(0))


def leaves_files(patch: pytest.MonkeyPatch) -> None:
    """Broken retention: files stay behind."""

    async def remove(self: Files, plan_id: str) -> None:
        return None

    patch.setattr(Files, "remove", remove)


def counts_from_the_newest(patch: pytest.MonkeyPatch) -> None:
    """A broken journal: of too many plans the newest go."""
    original = MemoryJournal.ended_plans

    async def ended_plans(self: MemoryJournal, *, limit: int = 100, **how: Any) -> Sequence[Ended]:
        return list(reversed(await original(self, **how)))[:limit]

    patch.setattr(MemoryJournal, "ended_plans", ended_plans)


def loses_the_snapshot(patch: pytest.MonkeyPatch) -> None:
    """Another: nothing stays of a plan whose events went."""

    async def get_snapshot(self: MemoryJournal, plan_id: str) -> bytes | None:
        return None

    patch.setattr(MemoryJournal, "get_snapshot", get_snapshot)


BROKEN: list[Callable[[pytest.MonkeyPatch], None]] = [
    removes_what_is_young,
    leaves_files,
    counts_from_the_newest,
    loses_the_snapshot,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_control_broken_retention_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    hunt = settings(SETTINGS, max_examples=300, derandomize=True, phases=[Phase.generate], print_blob=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(RetentionMachine, settings=hunt)
