"""Which plans may make progress at once: a bounded number, the rest queued, fair per principal."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoglm_server.scheduler.run import PlanRun


class Admission:
    """Admits plans up to a bound. A plan that only waits for a person, or has ended, leaves its place to another.

    A plan knows by ``admitted`` and ``queued`` where it stands; one that left the queue is passed over when its turn comes.
    """

    def __init__(self, most: int) -> None:
        """Admit at most ``most`` at once."""
        self._most = most
        self._admitted = 0
        self._queued = 0
        self._queues: OrderedDict[str, deque[PlanRun]] = OrderedDict()

    def __len__(self) -> int:
        """How many plans make progress, or would if it were their turn."""
        return self._admitted + self._queued

    def enter(self, run: PlanRun) -> None:
        """Give a place, or one in the queue, unless it has one."""
        if run.admitted or run.queued:
            return

        if self._admitted < self._most:
            self._admit(run)
        else:
            run.queued = True
            self._queued += 1
            self._queues.setdefault(run.plan.principal, deque()).append(run)

    def _admit(self, run: PlanRun) -> None:
        run.admitted = True
        self._admitted += 1

    def leave(self, run: PlanRun) -> list[PlanRun]:
        """Take back a place, or one in the queue; gives the plans whose turn it is now."""
        if run.admitted:
            run.admitted = False
            self._admitted -= 1
        elif run.queued:
            run.queued = False
            self._queued -= 1

        turns: list[PlanRun] = []
        while self._queues and self._admitted < self._most:
            principal, queue = next(iter(self._queues.items()))
            following = queue.popleft()
            if queue:
                self._queues.move_to_end(principal)
            else:
                del self._queues[principal]

            if following.queued:
                following.queued = False
                self._queued -= 1
                self._admit(following)
                turns.append(following)

        return turns
