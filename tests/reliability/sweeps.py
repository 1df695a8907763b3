"""Retention in the simulated world: the server's own, with rules of seconds, and notes of all that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final
from unittest import mock

from autoglm.model import Plan, PlanCreated
from autoglm.wire import decode
from autoglm_server.journal.journal import Journal
from autoglm_server.scheduler import retention
from autoglm_server.scheduler.retention import Retention, Rules, Swept
from tests.reliability.history import Keeping, Kept, Logged

if TYPE_CHECKING:
    from tests.reliability.world import Server, World

WORLDS: Final = 0.2
"""In which part of all worlds there is retention."""
PAGE: Final = 4
"""How many events a sweep reads at once."""


def drawn(seed: int) -> Keeping | None:
    """Draw what is kept in the world of a seed; in most, everything."""
    random = Random(f"kept {seed}")
    if random.random() >= WORLDS:
        return None

    keys = random.choice([4.0, 12.0])
    plans = random.choice([None, keys, 2 * keys])
    events = random.choice([None, 0.5, 5.0])
    most = random.choice([None, 1, 4]) if plans or events else random.choice([1, 4])
    return Keeping(events, plans, most, keys, random.choice([0.2, 1.0, 4.0]), random.choice([1, 2, 50]))


def rules_of(keeping: Keeping) -> Rules:
    events, plans = (None if age is None else timedelta(seconds=age) for age in (keeping.events, keeping.plans))
    return Rules(events, plans, keeping.max_plans)


@contextmanager
def in_small_batches(keeping: Keeping | None) -> Iterator[None]:
    """Let sweeps take little at once while this lasts, and remember a request_id for seconds."""
    if keeping is None:
        yield
        return

    with mock.patch.multiple(
        retention,
        KEYS_KEPT=timedelta(seconds=keeping.keys),
        _COMPACTED_AT_ONCE=keeping.batch,
        _PURGED_AT_ONCE=keeping.batch,
        _REMOVED_AT_ONCE=keeping.batch,
        _PAGE=PAGE,
    ):
        yield


class SimRetention(Retention):
    """The product's, which notes when its sweeps began and which came to their end."""

    def __init__(self, world: World, server: Server, keeping: Keeping) -> None:
        super().__init__(server.journal, server.feed, world.clock, rules_of(keeping), interval_seconds=keeping.every)
        self._world = world
        self._server = server

    async def live(self) -> None:
        """Run as the application does, for which any other error is the end of the process."""
        try:
            await self.run()
        except Exception as error:
            self._world.history.broken.append(f"retention ended with {error!r}")
            raise

    async def sweep(self) -> Swept:
        world, journal = self._world, self._server.journal
        began, now = world.tick(), world.clock.now().timestamp()
        world.sweep_began[self._server.process.name] = now
        world.trace("sweep", self._server.process.name)
        swept = await super().sweep()
        if world.history.kept is not None and not (journal.stalled or journal.failure):
            world.history.kept.last = (began, now)

        return swept


async def look(journal: Journal, kept: Kept, logs: Mapping[str, list[Logged]]) -> None:
    """Note what is there at the end."""
    for plan_id, log in logs.items():
        created = log[0].event.fact
        found = await journal.find_request("", "", created.request_id) if isinstance(created, PlanCreated) else None
        if found is not None and isinstance(created, PlanCreated):
            kept.requests[created.request_id] = found[0]

        if await journal.get_row(plan_id) is not None:
            kept.rows.add(plan_id)

        snapshot = await journal.get_snapshot(plan_id)
        if snapshot is not None:
            kept.snapshots[plan_id] = decode(Plan, snapshot)
