"""A journal that commits when told, so that a process can be lost before, and after, what it was about to acknowledge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from autoglm_server.journal.memory import MemoryJournal
from tests.server.scheduler.harness import World


class HeldJournal(MemoryJournal):
    """Keeps what it is handed, while ``held``, as a disk that is slow."""

    held = False

    def _commit(self) -> None:
        if not self.held:
            super()._commit()

    def go_on(self) -> None:
        """Commit what was handed over meanwhile."""
        self.held = False
        self._commit()

    def lose(self) -> None:
        """Forget what was handed over, as a process that dies does."""
        self.held = False
        self._turn.clear()


async def crash_in(world: World, journal: HeldJournal, calls: Iterable[Awaitable[Any]], *, kept: bool) -> list[Any]:
    """Lose the process while ``calls`` wait for the disk: what they asked for is durable if ``kept``.

    Gives the answers that were given although nothing was durable yet.
    """
    journal.held = True
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_awaited(call)) for call in calls]
    await world.settle()
    told = [task.result() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()

    if tasks:
        await asyncio.wait(tasks)

    if kept:
        journal.go_on()
    else:
        journal.lose()
    await world.crash()
    await world.settle()
    return told


async def _awaited(call: Awaitable[Any]) -> Any:
    return await call
