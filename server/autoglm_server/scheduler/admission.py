"""Which plans may make progress at once: a bounded number, the rest queued, fair per principal."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autoglm_server.scheduler.run import PlanRun


class Admission:
    """Admits plans up to a bound. A plan that only waits for a person, or has ended, leaves its place to another."""

    def __init__(self, most: int) -> None:
        """Admit at most ``most`` at once."""
        self._most = most
        self._admitted: set[PlanRun] = set()
        self._queues: OrderedDict[str, deque[PlanRun]] = OrderedDict()

    def __len__(self) -> int:
        """How many plans make progress, or would if it were their turn."""
        return len(self._admitted) + sum(len(queue) for queue in self._queues.values())

    def enter(self, run: PlanRun) -> None:
        """Ask for a place. ``run.admitted`` says whether it has one now."""
        if len(self._admitted) < self._most:
            self._admitted.add(run)
            run.admitted = True
        else:
            self._queues.setdefault(run.plan.principal, deque()).append(run)

    def waits(self, run: PlanRun) -> bool:
        """Whether the plan has a place or stands in the queue."""
        return run.admitted or run in self._queues.get(run.plan.principal, ())

    def leave(self, run: PlanRun) -> list[PlanRun]:
        """Give back a place, or a place in the queue; gives the plans whose turn it is now."""
        if run.admitted:
            run.admitted = False
            self._admitted.discard(run)
        else:
            queue = self._queues.get(run.plan.principal)
            if queue is not None and run in queue:
                queue.remove(run)
                if not queue:
                    del self._queues[run.plan.principal]

        admitted: list[PlanRun] = []
        while self._queues and len(self._admitted) < self._most:
            principal, queue = next(iter(self._queues.items()))
            following = queue.popleft()
            if queue:
                self._queues.move_to_end(principal)
            else:
                del self._queues[principal]

            self._admitted.add(following)
            following.admitted = True
            admitted.append(following)

        return admitted
