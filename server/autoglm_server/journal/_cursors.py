"""Places in the log: of one plan, and of all plans together."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from autoglm._dataclasses import dataclass
from autoglm.errors import AutoglmError, InvalidRequestError, error
from autoglm.model import ErrorReason, Violation
from autoglm_server.journal._pages import NOTHING, Page
from autoglm_server.journal._progress import Seen
from autoglm_server.journal._tail import PlanTail
from autoglm_server.journal._waiting import Waiter, due_after
from autoglm_server.journal.journal import Ended, EventsRemovedError, Record

if TYPE_CHECKING:
    from autoglm_server.journal.follow import Feed


@dataclass(frozen=True, slots=True)
class Batch:
    """What a cursor gives: bodies as they are sent, and the last sequence they bring the reader to.

    ``ended``: the plan's last event has been given out, nothing follows. ``drained``: the server goes away; follow on elsewhere.
    """

    bodies: Page
    sequence: int
    ended: bool = False
    drained: bool = False

    @property
    def events(self) -> bytes:
        """The bodies as a message has them."""
        return self.bodies.joined


@dataclass(frozen=True, slots=True)
class AllBatch:
    """What a cursor over all plans gives; ``cursor`` is where to go on."""

    bodies: Sequence[bytes]
    cursor: str
    drained: bool = False


class Cursor:
    """A place in the log of one plan. Not for two tasks at once; close it when done."""

    __slots__ = ("_checked", "_closed", "_feed", "_seen", "_sequence", "_tail", "_waiter")

    def __init__(self, feed: Feed, tail: PlanTail, after_sequence: int, *, durable_only: bool) -> None:
        self._feed = feed
        self._tail = tail
        self._sequence = after_sequence
        self._seen = None if durable_only else Seen()
        self._waiter = Waiter(feed.alarms)
        self._checked = False
        self._closed = False

    async def next(self, timeout: float) -> Batch:  # noqa: ASYNC109 - the end of it is a heartbeat, not an error
        """Give what is new, as soon as there is any; an empty batch after ``timeout`` seconds.

        Raises:
            NotFoundError: there is no such plan.
            PreconditionError: the plan has not come to the sequence the cursor began with.
            CompactedError: the events are no longer kept.
            JournalDamagedError: all that can be read has been given, and no more will come.
        """
        if not self._checked:
            await self._check()

        loop = asyncio.get_running_loop()
        deadline = due_after(timeout)
        while True:
            batch = self._take()
            if batch is not None:
                return batch

            if self._tail.after(self._sequence) is None:
                batch = await self._read()
                if batch is not None:
                    return batch

                continue

            self._feed.check_whole()
            if loop.time() >= deadline:
                return Batch(NOTHING, self._sequence)

            # Nothing was awaited since the look into memory, so no commit can have been missed.
            await self._waiter.wait(self._tail.waiters, deadline)

    def close(self) -> None:
        """Give the place up."""
        if not self._closed:
            self._closed = True
            self._waiter.close()
            self._feed.leave(self._tail)

    def _take(self) -> Batch | None:
        """Give what is in memory, or None if there is nothing new in it."""
        bodies = self._tail.after(self._sequence)
        if bodies:
            return self._give(bodies)

        if self._ended or self._feed.draining:
            return self._give(NOTHING)

        if self._seen is not None and bodies is not None and self._tail.stamp > self._seen.stamp:
            news = self._tail.news(self._seen.stamp)
            progressed = self._seen.catch_up(news, self._feed.alive, self._feed.encode)
            self._seen.stamp = self._tail.stamp
            return Batch(Page(progressed), self._sequence) if progressed else None

        return None

    async def _read(self) -> Batch | None:
        """Give a page from the journal, or None if it holds nothing more."""
        plan_id, tail = self._tail.plan_id, self._tail
        try:
            bodies = await self._feed.pages.read(plan_id, self._sequence)
            if bodies:
                return self._give(bodies)

            gone = 0
            if tail.first and self._sequence + 1 < tail.first:
                gone = tail.last
            elif not tail.live and self._sequence < tail.final:  # removed as a whole since the plan was looked at
                gone = tail.final

            if not gone:
                tail.ends_at(self._sequence)
            elif not await self._feed.journal.read(plan_id, self._sequence, limit=1):
                raise self._compacted(gone)
        except EventsRemovedError as removed:
            raise self._compacted(removed.sequence) from None

        return None  # what came after the read, and may have left memory, is read next

    def _compacted(self, last: int) -> AutoglmError:
        plan_id = self._tail.plan_id
        return error(
            ErrorReason.SEQUENCE_COMPACTED,
            f"events after sequence {self._sequence} of plan {plan_id} are no longer kept; get the plan, which is true up "
            f"to sequence {last}",
            plan_id=plan_id,
            sequence=str(last),
        )

    def _give(self, bodies: Page) -> Batch:
        self._sequence += len(bodies)
        return Batch(bodies, self._sequence, ended=self._ended, drained=self._feed.draining)

    @property
    def _ended(self) -> bool:
        return 0 < self._tail.final <= self._sequence

    async def _check(self) -> None:
        tail, journal = self._tail, self._feed.journal
        if not (tail.live and self._sequence <= tail.last):
            # The row first: if it says that the plan has ended, the sequence asked for after it is the last one for good.
            row = await journal.get_row(tail.plan_id)
            last = await journal.last_sequence(tail.plan_id)
            if row is None or last is None:
                raise error(
                    ErrorReason.PLAN_NOT_FOUND,
                    f"there is no plan {tail.plan_id!r}",
                )

            if self._sequence > last:
                raise error(
                    ErrorReason.SEQUENCE_AHEAD,
                    f"plan {tail.plan_id} has come to sequence {last}, after_sequence is {self._sequence}; watch from 0, "
                    "or from a sequence this server gave",
                    last_sequence=str(last),
                )

            if row.state.terminal and not tail.final:
                tail.final = last

        self._checked = True


class AllCursor:
    """A place in the log of all plans. Not for two tasks at once; close it when done."""

    __slots__ = (
        "_all_kept",
        "_checked",
        "_closed",
        "_feed",
        "_from_now",
        "_labels",
        "_position",
        "_removing",
        "_seen",
        "_waiter",
    )

    def __init__(
        self, feed: Feed, position: int | None, labels: Mapping[str, str], *, all_kept: bool, durable_only: bool
    ) -> None:
        self._feed = feed
        self._position = position or 0
        self._from_now = position is None
        self._all_kept = all_kept
        """Whether it was to begin with the oldest that is kept: a plan that goes before its turn is none of it. (Who comes
        back to a journal that was empty has place 0 as well, and is told what went since.)"""
        self._removing: list[Ended] = []
        self._labels = labels
        self._seen = None if durable_only else Seen()
        self._waiter = Waiter(feed.alarms)
        self._checked = False
        self._closed = False

    @property
    def position(self) -> int:
        """Up to where it has given everything."""
        return self._position

    async def next(self, timeout: float) -> AllBatch:  # noqa: ASYNC109 - the end of it is a heartbeat, not an error
        """Give what is new, as soon as there is any; an empty batch after ``timeout`` seconds. "Now" is the first call.

        Raises:
            PreconditionError: the journal has not come to the place the cursor names.
            CompactedError: events behind it are no longer kept.
            JournalDamagedError: all that can be read has been given, and no more will come.
        """
        if not self._checked:
            await self._check()

        loop = asyncio.get_running_loop()
        deadline = due_after(timeout)
        while True:
            records = self._feed.ring.after(self._position)
            behind = records is None
            if records is None:
                records = await self._feed.journal.read_all(self._position)
                if not records:
                    await self._reach_end()
                    continue

            bodies = await self._matching(records)
            self._check_removing()
            if records:
                self._position = records[-1].position

            if not records and not behind:
                bodies = await self._progressed()

            if not bodies and not records and not self._feed.draining:
                self._feed.check_whole()

            if bodies or self._feed.draining or loop.time() >= deadline:
                return AllBatch(bodies, make_cursor(self._feed.journal.journal_id, self._position), self._feed.draining)

            if not records and self._idle:
                await self._waiter.wait(self._feed.waiters, deadline)

    def close(self) -> None:
        """Give the place up."""
        if not self._closed:
            self._closed = True
            self._waiter.close()
            self._feed.leave_all(self)

    def removing(self, plans: Sequence[Ended]) -> None:
        """Note that the events of plans are about to be removed."""
        self._removing += [plan for plan in plans if plan.last_position > self._position]

    def _check_removing(self) -> None:
        """Refuse to pass over events that may be gone.

        Raises:
            CompactedError: there is one.
        """
        if not self._removing:
            return

        self._removing = [plan for plan in self._removing if plan.last_position > self._position]
        if any(plan.first_position <= self._position or not self._all_kept for plan in self._removing):
            raise _all_compacted()

    async def _matching(self, records: Sequence[Record]) -> list[bytes]:
        if not self._labels:
            return [record.body for record in records]

        return [record.body for record in records if await self._match(record.plan_id)]

    async def _match(self, plan_id: str) -> bool:
        return not self._labels or self._labels.items() <= (await self._feed.labels_of(plan_id)).items()

    async def _progressed(self) -> list[bytes]:
        """Give the ephemeral events that are new; the cursor stands at the end, so all they follow has been given out."""
        feed, seen = self._feed, self._seen
        if seen is None:
            return []

        news = feed.released_after(seen.stamp)
        if not news:
            return []

        newest = news[-1].stamp
        matching = [progress for progress in news if await self._match(progress.place[0])]
        # While labels were read one may have been voided, or may follow by now what was not given out yet.
        good = [
            progress
            for progress in matching
            if progress.stamp <= newest and feed.released.get(progress.place) is progress
        ]
        bodies = seen.catch_up(good, feed.alive, feed.encode)
        seen.stamp = newest
        return bodies

    async def _reach_end(self) -> None:
        """Come to the end, after a read that gave nothing, unless something has come since.

        Raises:
            CompactedError: there was something behind the cursor, and it is gone.
        """
        ring, journal = self._feed.ring, self._feed.journal
        left, removed = ring.start or 0, await journal.removed_position()
        if await journal.read_all(self._position, limit=1):  # it came after the read before, and may have left memory
            return

        self._check_removing()
        if self._all_kept:  # what went before its turn is none of it
            self._position = max(self._position, removed, left)
        elif left > self._position:
            raise _all_compacted()

        ring.ends_at(self._position)

    @property
    def _idle(self) -> bool:
        """Whether nothing has come while something else was awaited."""
        no_progress = self._seen is None or not self._feed.released_after(self._seen.stamp)
        return no_progress and self._feed.ring.after(self._position) == ()

    async def _check(self) -> None:
        end = self._feed.ring.end
        if not self._from_now and not self._all_kept:
            await self._check_removed()

        if self._from_now:
            self._position = await self._feed.journal.last_position() if end is None else end
        elif end is None or self._position > end:
            last = await self._feed.journal.last_position()
            if self._position > last:
                raise error(
                    ErrorReason.SEQUENCE_AHEAD,
                    "cursor is ahead of the journal; watch without it, or with the last one this server gave",
                )

        self._checked = True

    async def _check_removed(self) -> None:
        if self._position < await self._feed.journal.removed_position():
            raise _all_compacted()


def _all_compacted() -> AutoglmError:
    return error(
        ErrorReason.SEQUENCE_COMPACTED,
        "events after the cursor are no longer kept; read the plans again, and watch without a cursor or from now",
    )


def make_cursor(journal_id: str, position: int) -> str:
    """Make the opaque, url-safe name of a place in the log of all plans."""
    return base64.urlsafe_b64encode(f"{journal_id}.{position}".encode()).decode().rstrip("=")


def read_cursor(cursor: str, journal_id: str) -> int:
    """Give the position a cursor names.

    Raises:
        InvalidRequestError: it is not one this server gave.
        PreconditionError: it is another journal's.
    """
    try:
        named, _, position = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode().rpartition(".")
        )
        place = int(position)
    except ValueError:
        named, place = "", -1

    if not named or place < 0:
        fault = Violation(
            "cursor",
            f"{cursor[:100]!r} is not a cursor this server gave; leave it empty to watch from the start",
            "CURSOR",
        )
        raise InvalidRequestError.of([fault])

    if named != journal_id:
        raise error(
            ErrorReason.JOURNAL_CHANGED,
            f"cursor is of journal {named}, this is {journal_id}: it was created anew or restored; "
            "read the plans again and watch without it",
            journal_id=journal_id,
        )

    return place
