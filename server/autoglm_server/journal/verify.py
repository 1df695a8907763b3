"""Whether a journal's file is whole: its pages, its tables, and every plan's events, which must fold to its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field

import apsw

from autoglm._dataclasses import dataclass
from autoglm.fold import PlanFold
from autoglm.model import Event, Plan, UnknownFact
from autoglm.wire import decode
from autoglm_server.journal import _read, _retain
from autoglm_server.journal.journal import JournalDamagedError

FAULTS_MAX = 100
_PAGE = 500

Tell = Callable[[str, int, int], None]
"""Told how far something is: what, how many of them are done, of how many."""


@dataclass(slots=True)
class Verified:
    """What was found: how many plans and events, and every fault in a sentence, up to a hundred."""

    plans: int = 0
    events: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, fault: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)


def verify(db: apsw.Connection, tell: Tell) -> Verified:
    """Read everything; takes as long as that takes. Nothing is written."""
    found = Verified()
    try:
        for (fault,) in db.execute("PRAGMA integrity_check(20)"):
            if fault != "ok":
                found.add(f"the file: {fault}")

        total = int(db.execute("SELECT count(*) FROM plan").get)
        for plan_id in _plan_ids(db):
            found.plans += 1
            found.events += _verify_plan(db, plan_id, found)
            tell("plans verified", found.plans, total)
    except apsw.Error as error:
        found.add(f"the file: {type(error).__name__}: {error}")

    return found


def _plan_ids(db: apsw.Connection) -> Iterator[str]:
    last = 0
    while page := db.execute("SELECT key, id FROM plan WHERE key > ? ORDER BY key LIMIT ?", (last, _PAGE)).fetchall():
        for key, plan_id in page:
            last = int(str(key))
            yield str(plan_id)


def _verify_plan(db: apsw.Connection, plan_id: str, found: Verified) -> int:
    """Fold a plan; gives how many events it has. A boundary: whatever its events make of the fold is a fault of theirs."""
    fold = PlanFold(plan_id)
    try:
        row = _read.get_row(db, plan_id)
        if (snapshot := _retain.get_snapshot(db, plan_id)) is not None:
            plan = decode(Plan, snapshot)
        else:
            for event in events_of(db, plan_id):
                fold.apply(event)

            plan = fold.snapshot()
    except Exception as error:  # noqa: BLE001 - see above
        found.add(f"plan {plan_id}: after event {fold.sequence}: {error}")
        return fold.sequence

    if row is None or plan.state is not row.state:
        found.add(f"plan {plan_id}: its events say {plan.state.name}, its row {row.state.name if row else 'nothing'}")

    last = _read.last_sequence(db, plan_id)
    if last != plan.sequence:
        found.add(f"plan {plan_id}: its log ends at {last}, and {plan.sequence} events can be read")

    return fold.sequence


def events_of(db: apsw.Connection, plan_id: str) -> Iterator[Event]:
    """Give a plan's events.

    Raises:
        JournalDamagedError: one is not what was written, or only a newer version knows it.
    """
    sequence = 0
    while bodies := _read.read(db, plan_id, sequence, _PAGE, 1 << 22):
        for body in bodies:
            event = decode(Event, body)
            sequence += 1
            if isinstance(event.fact, UnknownFact) or event.plan_id != plan_id or event.sequence != sequence:
                raise JournalDamagedError(f"event {sequence} of plan {plan_id} cannot be read as one")

            yield event
