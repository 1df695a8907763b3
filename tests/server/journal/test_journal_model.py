"""The SQLite journal against the reference model, over histories nobody would think of."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from autoglm.model import PlanState
from autoglm_server.journal.journal import (
    Append,
    Claim,
    Compaction,
    DuplicateRequestError,
    EventsRemovedError,
    Journal,
    JournalError,
    PlanQuery,
    PlanRow,
    RequestKey,
)
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.journal.sqlite import SqliteJournal

PLANS = ["a", "b", "c", "雪", "e'"]
LABELS = st.dictionaries(st.sampled_from(["x", "y", "ö"]), st.sampled_from(["", "1", "\U0001f600"]), max_size=2)
STATES = st.sampled_from(list(PlanState)[1:])
KEYS = st.sampled_from(
    [None, ("", "ann", "r1"), ("", "ann", "r1"), ("", "ann", "r2"), ("", "bob", "r1"), ("t", "ann", "r1")]
)


@st.composite
def moves(draw: st.DrawFn) -> dict[str, Any]:
    """One append: mostly right, sometimes of another epoch or sequence."""
    return {
        "plan_id": draw(st.sampled_from(PLANS)),
        "epoch": draw(st.sampled_from([0, 0, 0, 0, -1, 1])),
        "sequence": draw(st.sampled_from([0, 0, 0, 0, -1, 1])),
        "bodies": draw(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=4)),
        "state": draw(st.none() | STATES),
        "labels": draw(LABELS),
        "context_id": draw(st.sampled_from(["", "c"])),
        "key": draw(KEYS),
    }


class JournalMachine(RuleBasedStateMachine):
    """Does the same to both and compares all that can be seen."""

    make_suspect: Any = SqliteJournal

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.model = MemoryJournal()
        self.suspect: Journal = self.make_suspect(self.directory / "data")
        self.epochs: dict[str, int] = {}
        self.sequences: dict[str, int] = {}
        self.commits: list[list[Any]] = [[], []]
        self.model.on_commit = self.commits[0].extend
        self.suspect.on_commit = self.commits[1].extend

    def both(self, call: Any) -> Any:
        """Make the call on both, and give what they agree on."""

        async def made(journal: Journal) -> Any:
            try:
                return await call(journal)
            except EventsRemovedError as removed:
                return (EventsRemovedError, removed.plan_id, removed.sequence)

        async def run() -> list[Any]:
            return [await made(self.model), await made(self.suspect)]

        model, suspect = self.runner.run(run())
        assert suspect == model
        return model

    @initialize()
    def open(self) -> None:
        self.both(lambda journal: journal.open())

    def teardown(self) -> None:
        self.runner.run(self.suspect.close())
        self.runner.close()
        shutil.rmtree(self.directory)

    @rule(turn=st.lists(moves(), min_size=1, max_size=5))
    def append(self, turn: list[dict[str, Any]]) -> None:
        sequences = dict(self.sequences)
        shapes = []
        for number, move in enumerate(turn):
            plan_id = move["plan_id"]
            first = max(1, sequences.get(plan_id, 0) + 1 + move["sequence"])
            shapes.append((move, max(1, self.epochs.get(plan_id, 1) + move["epoch"]), first, number))
            sequences[plan_id] = first + len(move["bodies"]) - 1

        async def run(journal: Journal) -> list[Any]:
            outcomes = [self._hand_over(journal, *shape) for shape in shapes]
            return [_told(await outcome) for outcome in outcomes]

        outcomes = self.both(run)
        assert self.commits[1] == self.commits[0]
        for (move, _, first, _), outcome in zip(shapes, outcomes, strict=True):
            if outcome is None:
                self.sequences[move["plan_id"]] = first + len(move["bodies"]) - 1

    def _hand_over(
        self, journal: Journal, move: dict[str, Any], epoch: int, first: int, number: int
    ) -> asyncio.Future[JournalError | None]:
        outcome: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
        plan_id, row, key = move["plan_id"], None, None
        if first == 1 or move["state"] is not None:
            time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=first * 7 + number)
            state = move["state"] or PlanState.QUEUED
            body = b"".join(move["bodies"])
            end_time = time + timedelta(seconds=number) if state.terminal else None
            tenant = (move["key"] or [""])[0]
            row = PlanRow(plan_id, tenant, "ann", state, move["labels"], move["context_id"], "", time, body, end_time)

        if first == 1 and move["key"] is not None:
            key = RequestKey(*move["key"], f"sha256:{number}")  # type: ignore[call-arg]

        journal.append(Append(plan_id, epoch, first, move["bodies"], outcome.set_result, row, key))
        return outcome

    @rule(plan_ids=st.lists(st.sampled_from([*PLANS, "unknown"]), max_size=4))
    def claim(self, plan_ids: list[str]) -> None:
        for claim in self.both(lambda journal: journal.claim(plan_ids, "owner")):
            self.epochs[claim.plan_id] = claim.epoch

    @rule(
        plan_id=st.sampled_from(PLANS), after=st.integers(0, 12), limit=st.integers(1, 5), bytes_max=st.integers(1, 30)
    )
    def read(self, plan_id: str, after: int, limit: int, bytes_max: int) -> None:
        self.both(lambda journal: journal.read(plan_id, after, limit=limit, bytes_max=bytes_max))
        self.both(lambda journal: journal.read_all(after, limit=limit, bytes_max=bytes_max))
        self.both(lambda journal: journal.get_row(plan_id))
        self.both(lambda journal: journal.get_snapshot(plan_id))
        self.both(lambda journal: journal.last_sequence(plan_id))
        self.both(lambda journal: journal.last_position())
        self.both(lambda journal: journal.removed_position())
        self.both(lambda journal: journal.open_plans())
        self.both(lambda journal: journal.count_ended(compacted=False))
        self.both(lambda journal: journal.count_ended(compacted=True))
        before = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=after * 7)
        self.both(lambda journal: journal.ended_plans(before=before, limit=limit))
        self.both(lambda journal: journal.ended_plans(before=before, compacted=True, limit=limit))

    @rule(key=KEYS.filter(bool))
    def find(self, key: tuple[str, str, str]) -> None:
        self.both(lambda journal: journal.find_request(*key))

    @rule(
        states=st.frozensets(STATES, max_size=3),
        labels=LABELS,
        context_id=st.sampled_from(["", "c"]),
        size=st.integers(1, 3),
    )
    def list_rows(self, states: frozenset[PlanState], labels: dict[str, str], context_id: str, size: int) -> None:
        query = PlanQuery(states=states, labels=labels, context_id=context_id, page_size=size)
        page = self.both(lambda journal: journal.list_rows(query))
        while page.next_page_token:
            following = replace(query, page_token=page.next_page_token)
            page = self.both(lambda journal, following=following: journal.list_rows(following))

    @rule(plan_id=st.sampled_from(PLANS), count=st.integers(1, 4))
    def end(self, plan_id: str, count: int) -> None:
        """A plan that ends, so that retention has something to do."""
        move = {"plan_id": plan_id, "epoch": 0, "sequence": 0, "bodies": [b"end"] * count, "labels": {}}
        self.append([move | {"state": PlanState.SUCCEEDED, "context_id": "", "key": ("", "ann", plan_id)}])

    @rule(
        what=st.sampled_from(["compact", "compact", "purge", "remove"]),
        plan_ids=st.lists(st.sampled_from([*PLANS, "unknown"]), min_size=1, max_size=4),
        off=st.sampled_from([0, 0, 0, 1]),
        limit=st.integers(1, 6),
    )
    def one_step(self, what: str, plan_ids: list[str], off: int, limit: int) -> None:
        """Also of plans that go on, are gone, or have another last sequence, and twice in one call."""
        if what == "compact":
            compactions = [
                Compaction(plan_id, self.sequences.get(plan_id, 0) + off, f"snapshot {number}".encode())
                for number, plan_id in enumerate(plan_ids)
            ]
            self.both(lambda journal: journal.compact(compactions))
        elif what == "purge":
            self.both(lambda journal: journal.purge(limit))
        else:
            self._remove(plan_ids)

        self.both(lambda journal: journal.removed_position())

    def _remove(self, plan_ids: list[str]) -> None:
        for plan_id in self.both(lambda journal: journal.remove(plan_ids)):
            del self.sequences[plan_id]
            self.epochs.pop(plan_id, None)

    @rule()
    def retain(self) -> None:
        """All that has ended goes, as retention does it."""
        for one in self.both(lambda journal: journal.ended_plans()):
            self.both(
                lambda journal, one=one: journal.compact([Compaction(one.plan_id, one.sequence, b"the snapshot")])
            )

        while self.both(lambda journal: journal.purge(3)):
            pass

        self._remove([one.plan_id for one in self.both(lambda journal: journal.ended_plans(compacted=True))])

    @rule()
    def reopen(self) -> None:
        self.both(lambda journal: journal.close())
        self.both(lambda journal: journal.open())


def _told(outcome: JournalError | None) -> Any:
    if isinstance(outcome, DuplicateRequestError):
        return (DuplicateRequestError, outcome.plan_id, outcome.request_digest)

    return outcome and (type(outcome), str(outcome))


JournalMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestSqliteIsTheModel = JournalMachine.TestCase


class Unfenced(SqliteJournal):
    """A journal with one fault: it takes events of any epoch."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.epochs: dict[str, int] = {}

    async def claim(self, plan_ids: Sequence[str], owner: str) -> Sequence[Claim]:
        claims = await super().claim(plan_ids, owner)
        self.epochs.update({claim.plan_id: claim.epoch for claim in claims})
        return claims

    def append(self, append: Append) -> None:
        super().append(replace(append, epoch=self.epochs.get(append.plan_id, 1)))


class Forgetful(SqliteJournal):
    """A journal with one fault: it forgets request keys."""

    def append(self, append: Append) -> None:
        super().append(replace(append, request_key=None))


class Silent(SqliteJournal):
    """A journal with one fault: it does not note what retention has removed."""

    async def compact(self, compactions: Sequence[Compaction]) -> None:
        await super().compact(compactions)
        await self._task(lambda db: db.execute("DELETE FROM meta WHERE name = 'removed_position'").get)


def takes_any_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JournalMachine, "make_suspect", Unfenced)


def forgets_request_keys(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JournalMachine, "make_suspect", Forgetful)


def does_not_note_what_was_removed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JournalMachine, "make_suspect", Silent)


BROKEN = [takes_any_epoch, forgets_request_keys, does_not_note_what_was_removed]


@pytest.mark.parametrize("broken", BROKEN)
def test_the_machine_finds_a_broken_journal(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)

    class Broken(JournalMachine):
        pass

    quick = settings(
        max_examples=100,
        stateful_step_count=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=quick)
