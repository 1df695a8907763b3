"""Retention: finished plans go in two steps, first their events, then the plans themselves.

It works in small batches, each a short transaction of the journal's between those of the plans that run. Whatever it is cut
in, a crash included, the next sweep goes on from what the journal says; nothing is held in memory.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from autoglm._dataclasses import dataclass
from autoglm.fold import PlanFold
from autoglm.model import Event, Plan
from autoglm.wire import decode, encode
from autoglm_server.journal.artifacts import ArtifactStoreError
from autoglm_server.journal.journal import Compaction, Ended, EventsRemovedError, JournalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoglm_server.clock import Clock
    from autoglm_server.journal.artifacts import ArtifactStore
    from autoglm_server.journal.follow import Feed
    from autoglm_server.journal.journal import Journal

log = logging.getLogger(__name__)

KEYS_KEPT: Final = timedelta(hours=24)
"""How long a request_id is remembered at least, and the plan with it, however many plans there are."""
INTERVAL_SECONDS: Final = 60.0
START_SECONDS: Final = 1.0
"""When the first sweep begins: an embedded server may not be there for a minute."""
SNAPSHOT_BYTES_MAX: Final = 64 << 20
"""Of what stays of a plan. Above it the outputs of its steps go with its events."""

_PAUSE_SECONDS = 0.01
_COMPACTED_AT_ONCE = 20
_PURGED_AT_ONCE = 500
_REMOVED_AT_ONCE = 50
_PAGE = 2_000
_START_EVENTS = 100
_START_BYTES = 256 << 10
"""So much is read of each log of a batch at first, and the logs that are whole by that are folded together: one turn of a thread
for each of the two. A busy server waits for each turn: when each plan took some, retention fell behind."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is kept, counted from the plan's end. None: without end."""

    events: timedelta | None = None
    plans: timedelta | None = None
    max_plans: int | None = None

    @property
    def none(self) -> bool:
        """Whether everything is kept."""
        return self == Rules()


@dataclass(slots=True)
class Swept:
    """What a sweep did: plans whose events went, events freed, plans removed."""

    compacted: int = 0
    purged: int = 0
    removed: int = 0


class Retention:
    """Removes what is no longer to be kept. One for each journal."""

    def __init__(
        self,
        journal: Journal,
        feed: Feed,
        clock: Clock,
        rules: Rules,
        *,
        artifacts: ArtifactStore | None = None,
        interval_seconds: float | None = None,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        """Join the pieces; ``pause_seconds`` pass between two batches, for those who wait for the journal meanwhile."""
        self.rules = rules
        self._journal = journal
        self._feed = feed
        self._clock = clock
        self._artifacts = artifacts
        self._interval = INTERVAL_SECONDS if interval_seconds is None else interval_seconds
        self._pause = pause_seconds

    async def run(self) -> None:
        """Sweep soon, and from then on again and again, until cancelled."""
        await asyncio.sleep(min(START_SECONDS, self._interval))
        while True:
            try:
                swept = await self.sweep()
            except (JournalError, ArtifactStoreError) as error:
                log.warning("retention stopped, and goes on later: %s", error)
            else:
                if swept != Swept():
                    log.info(
                        "retention: the events of %d plans went, %d plans were removed", swept.compacted, swept.removed
                    )

            await asyncio.sleep(self._interval)

    async def sweep(self) -> Swept:
        """Remove what is due now.

        Raises:
            JournalError, ArtifactStoreError: something could not be removed; the rest is for the next sweep.
        """
        swept = Swept()
        if not self._able:
            return swept

        now = self._clock.now()
        await self._purge(swept)  # what an earlier sweep was cut in
        ages = [age for age in (self.rules.events, self.rules.plans) if age is not None]
        if ages:
            await self._compact(swept, now - min(ages))

        if self.rules.plans is not None:
            await self._remove(swept, now - self.rules.plans)

        if self.rules.max_plans is not None:
            await self._count_down(swept, self.rules.max_plans, now - KEYS_KEPT)

        return swept

    @property
    def _able(self) -> bool:
        journal = self._journal
        return not (self.rules.none or journal.stalled or journal.damaged or journal.failure)

    async def _count_down(self, swept: Swept, most: int, young: datetime) -> None:
        """Bring the number of plans down to ``most``; of those that ended after ``young`` only the events go."""
        compacted = await self._journal.count_ended(compacted=True)
        over = await self._journal.count_ended(compacted=False) + compacted - most
        await self._compact(swept, None, over - compacted)
        await self._remove(swept, young, over)

    async def _compact(self, swept: Swept, before: datetime | None, most: int | None = None) -> None:
        plans: Sequence[Ended] = ()
        limit = 0
        while (most is None or most > 0) and len(plans) == limit:
            limit = _COMPACTED_AT_ONCE if most is None else min(most, _COMPACTED_AT_ONCE)
            plans = await self._journal.ended_plans(before=before, compacted=False, limit=limit)
            if not plans or not self._able:
                return

            snapshots = await self._snapshots(plans)
            self._feed.removing(plans)
            try:
                await self._journal.compact(
                    [Compaction(plan.plan_id, plan.sequence, snapshots[plan.plan_id]) for plan in plans]
                )
            finally:
                self._feed.removed(plans)

            await self._purge(swept)
            swept.compacted += len(plans)
            most = None if most is None else most - len(plans)

    async def _snapshots(self, plans: Sequence[Ended]) -> dict[str, bytes]:
        """Give what stays of each plan; of one whose log is long it is made alone."""
        try:
            starts = await self._journal.read_starts(
                [plan.plan_id for plan in plans], limit=_START_EVENTS, bytes_max=_START_BYTES
            )
        except EventsRemovedError:  # by another sweep: who of them, each is asked
            starts = [()] * len(plans)

        snapshots = await asyncio.to_thread(_whole, plans, starts)
        return snapshots | {plan.plan_id: await self._snapshot(plan) for plan in plans if plan.plan_id not in snapshots}

    async def _snapshot(self, ended: Ended) -> bytes:
        fold = PlanFold(ended.plan_id)
        try:
            while fold.sequence < ended.sequence:
                bodies = await self._journal.read(ended.plan_id, fold.sequence, limit=_PAGE)
                if not bodies:
                    raise JournalError(
                        f"plan {ended.plan_id} has events up to {ended.sequence}, and {fold.sequence} could be read"
                    )

                await asyncio.to_thread(_apply, fold, bodies)
        except EventsRemovedError:  # by another sweep: then this compaction changes nothing
            return b""

        return await asyncio.to_thread(_encoded, fold)

    async def _purge(self, swept: Swept) -> None:
        freed = _PURGED_AT_ONCE
        while self._able and freed == _PURGED_AT_ONCE:
            freed = await self._journal.purge(_PURGED_AT_ONCE)
            swept.purged += freed
            await asyncio.sleep(self._pause)

    async def _remove(self, swept: Swept, before: datetime, most: int | None = None) -> None:
        while most is None or most > 0:
            limit = _REMOVED_AT_ONCE if most is None else min(most, _REMOVED_AT_ONCE)
            plans = await self._journal.ended_plans(before=before, compacted=True, limit=limit)
            if not plans or not self._able:
                return

            if self._artifacts is not None:
                for plan in plans:  # before the plan: nobody would look for them afterwards
                    await self._artifacts.remove(plan.plan_id)

            removed = await self._journal.remove([plan.plan_id for plan in plans])
            swept.removed += len(removed)
            most = None if most is None else most - len(plans)
            await asyncio.sleep(self._pause)


def _whole(plans: Sequence[Ended], starts: Sequence[Sequence[bytes]]) -> dict[str, bytes]:
    """Give the snapshots of those plans whose events were all read."""
    snapshots = {}
    for plan, bodies in zip(plans, starts, strict=True):
        if len(bodies) == plan.sequence:
            fold = PlanFold(plan.plan_id)
            _apply(fold, bodies)
            snapshots[plan.plan_id] = _encoded(fold)

    return snapshots


def _apply(fold: PlanFold, bodies: Sequence[bytes]) -> None:
    for body in bodies:
        fold.apply(decode(Event, body))


def _encoded(fold: PlanFold) -> bytes:
    plan = fold.snapshot()
    snapshot = encode(plan)
    return snapshot if len(snapshot) <= SNAPSHOT_BYTES_MAX else encode(_without_outputs(plan))


def _without_outputs(plan: Plan) -> Plan:
    steps = [replace(step, result=None, tool_calls=(), waiting=None) for step in plan.steps]
    return replace(plan, steps=tuple(steps))
