"""Starts a real server whose streams of events are to be watched closely, or are broken on purpose.

    python -m tests.reliability.watch_traps brisk:FILE [flags of the server]

``FILE`` becomes the list of all events in the order of their commits, one line each: the plan and the sequence.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from autoglm_server.__main__ import main
from autoglm_server.journal._cursors import AllCursor, Batch, Cursor
from autoglm_server.journal.journal import Append, EventsRemovedError
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.scheduler import retention
from autoglm_server.service.watch import Watches, too_many
from tests.reliability.launcher import never_ping

EVENTS_SECONDS: Final = 1.0
PLANS_SECONDS: Final = 3.0
SWEEP_SECONDS: Final = 0.25
PLACES: Final = 100

BRISK: Final = "brisk"
"""Lists its events, and keeps them for a second."""
SILENT: Final = "silent"
"""Likewise, and passes over what is gone without a word."""
CROWDED: Final = "crowded"
"""Likewise, and of its places for watches it gets none back."""
HEEDLESS: Final = "heedless"
"""Never asks whether a peer is still there, and keeps for each what it has not read."""


def keep_briefly(path: str) -> None:
    """List all events, and keep them for seconds."""
    made: Any = retention.Retention.__init__

    def made_brisk(self: Any, journal: Any, feed: Any, clock: Any, rules: Any, **named: Any) -> None:
        brisk = retention.Rules(timedelta(seconds=EVENTS_SECONDS), timedelta(seconds=PLANS_SECONDS), rules.max_plans)
        made(self, journal, feed, clock, brisk, **(named | {"interval_seconds": SWEEP_SECONDS}))

    retention.Retention.__init__ = made_brisk  # type: ignore[method-assign]
    listing = Path(path).open("a", buffering=1)  # noqa: SIM115 - it is open as long as the process lives
    append = SqliteJournal.append

    def listed(self: SqliteJournal, job: Append) -> None:
        numbers = range(job.first_sequence, job.first_sequence + len(job.bodies))
        listing.write("".join(f"{job.plan_id} {number}\n" for number in numbers))
        append(self, job)

    SqliteJournal.append = listed  # type: ignore[method-assign,assignment]


def pass_over() -> None:
    """Break the cursors: what is gone is left out, and nobody is told."""
    read = Cursor._read

    async def reads(self: Cursor) -> Batch | None:
        try:
            return await read(self)
        except EventsRemovedError as removed:
            self._sequence = removed.sequence
            return self._take()

    async def believes(self: AllCursor) -> None:
        """Believe that all is there."""

    Cursor._read = reads  # type: ignore[method-assign]
    AllCursor._check_removing = lambda self: None  # type: ignore[method-assign]
    AllCursor._check_removed = believes  # type: ignore[method-assign]


def keep_places() -> None:
    """Break the bound of watches: a place that was taken is never free again."""
    taken: list[str] = []

    def admits(self: Watches, peer: str) -> AbstractContextManager[None]:
        if len(taken) >= PLACES:
            raise too_many(PLACES, "of this server")

        taken.append(peer)
        return nullcontext()

    Watches.admit = admits  # type: ignore[method-assign, assignment]


def hoard() -> None:
    """Break the streams: each has a mailbox without bound, that is filled as fast as the journal can be read."""
    follow, close = AllCursor.next, AllCursor.close
    boxes: dict[AllCursor, tuple[deque[Any], asyncio.Event, asyncio.Task[None]]] = {}

    async def fill(cursor: AllCursor, box: deque[Any], news: asyncio.Event) -> None:
        while True:
            box.append(await follow(cursor, 1.0))
            news.set()

    async def following(self: AllCursor, timeout: float) -> Any:  # noqa: ASYNC109 - as it is
        if self not in boxes:
            box, news = deque[Any](), asyncio.Event()
            boxes[self] = box, news, asyncio.create_task(fill(self, box, news))

        box, news, _ = boxes[self]
        while not box:
            news.clear()
            await news.wait()

        return box.popleft()

    def closing(self: AllCursor) -> None:
        if self in boxes:
            boxes.pop(self)[2].cancel()  # a cursor that is closed does not wait any more: who followed it would spin

        close(self)

    AllCursor.next = following  # type: ignore[method-assign]
    AllCursor.close = closing  # type: ignore[method-assign]


TRAPS: Final[dict[str, tuple[Callable[[], None], ...]]] = {
    BRISK: (),
    SILENT: (pass_over,),
    CROWDED: (keep_places,),
    HEEDLESS: (never_ping, hoard),
}


if __name__ == "__main__":
    trap, _, file = sys.argv[1].partition(":")
    if trap not in TRAPS:
        sys.exit(f"{trap}: there is no such trap; known are: {', '.join(TRAPS)}")

    if file:
        keep_briefly(file)

    for breaks in TRAPS[trap]:
        breaks()

    sys.exit(main(sys.argv[2:]))
