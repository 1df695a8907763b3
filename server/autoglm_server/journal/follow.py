"""Following the journal: read from a sequence, then wait for more.

A watcher is a cursor, not a queue: it holds its place in the log and is woken once a commit. The newest events of live plans
are in memory as the bytes that were journaled, within bounds; what is older, or of a plan nobody writes, is read from the
journal in pages. Nothing durable is given out that the journal has not told of as committed. Beside the log stand the ephemeral
events, which a cursor is given when it has caught up with what they follow.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from autoglm import wire
from autoglm.model import Event
from autoglm_server.journal._cursors import AllBatch, AllCursor, Batch, Cursor, read_cursor
from autoglm_server.journal._pages import Pages
from autoglm_server.journal._progress import Encode, Place, Progress, key_of
from autoglm_server.journal._tail import PlanTail, Ring
from autoglm_server.journal._waiting import Alarms, Waiters
from autoglm_server.journal.journal import Ended, Journal, JournalDamagedError, Record

__all__ = ["AllBatch", "AllCursor", "Batch", "Cursor", "Feed"]

PLAN_BYTES_MAX = 2 << 20
"""Of a plan's events in memory: enough for a watcher that lags by some batches; beyond it, it reads from the journal."""
TOTAL_BYTES_MAX = 64 << 20
"""Of all plans' events in memory; beyond it, the plans that were quiet longest go first."""
RING_BYTES_MAX = 16 << 20
"""Of the events in memory for those who follow all plans, while one of them lags."""
RING_KEPT_BYTES = 1 << 20
"""Of these, what all have been given: for those whose stream was cut, and who come again."""
PROGRESS_MAX = 256
"""Attempts of a plan whose progress is kept; beyond it, the one that began first goes."""
PROGRESS_TEXT_BYTES_MAX = 4 << 20
"""Of all texts so far of a plan."""
FEW_PLANS = 8
"""A commit of so many lets the calls that it allows begin first, and what they append at once be handed over: to write to the
transport takes longer. However many calls a plan has, a few begin in a pass of the loop; of many plans readers would wait for
many turns."""
LABELS_MAX = 10_000
"""Plans whose labels are remembered for filters."""


class Feed:
    """Hands out what the journal commits. One for each journal; all its methods are called on the loop.

    It takes :attr:`Journal.on_commit` for itself, so it is made before the journal is opened.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        encode: Encode | None = None,
        plan_bytes_max: int = PLAN_BYTES_MAX,
        total_bytes_max: int = TOTAL_BYTES_MAX,
        ring_bytes_max: int = RING_BYTES_MAX,
    ) -> None:
        """Feed from ``journal``; ``encode`` makes bytes of ephemeral events (``autoglm.wire.encode`` by default)."""
        self.journal = journal
        self.encode = encode or wire.encode
        self.draining = False
        self.waiters = Waiters()
        self.alarms = Alarms()
        self.pages = Pages(journal)
        self.ring = Ring(ring_bytes_max, RING_KEPT_BYTES)
        self.alive: dict[Place, Progress] = {}
        self.released: OrderedDict[Place, Progress] = OrderedDict()
        self._plan_bytes_max = plan_bytes_max
        self._total_bytes_max = total_bytes_max
        self._tails: dict[str, PlanTail] = {}
        self._recent: dict[PlanTail, None] = {}
        self._bytes = 0
        self._stamp = 0
        self._all_cursors: set[AllCursor] = set()
        self._labels: OrderedDict[str, Mapping[str, str]] = OrderedDict()
        journal.on_commit = self.committed

    # --- what comes in

    def committed(self, records: Sequence[Record]) -> None:
        """Take in what became durable, and wake who waits for it; the journal calls this."""
        tails, recent = self._tails, self._recent
        touched: dict[PlanTail, None] = {}
        for record in records:
            tail = tails.get(record.plan_id)
            if tail is None:
                tail = self._tail(record.plan_id)

            self._bytes += tail.add(record.sequence, record.body)
            touched[tail] = None

        if self._all_cursors:
            self.ring.add(records, (cursor.position for cursor in self._all_cursors))

        for tail in touched:
            tail.live = True
            if tail.size > self._plan_bytes_max:
                self._bytes -= tail.trim(self._plan_bytes_max)

            recent.pop(tail, None)
            recent[tail] = None
            if tail.held:
                self._release_progress(tail)

            if tail.final:
                self._end(tail)

        self._make_room()
        if len(touched) > FEW_PLANS:
            self._wake_for(touched)
        else:  # calls begin in the loop's next pass, and what they append is handed over in the one after it
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._wake_for, touched)

    def _wake_for(self, tails: Iterable[PlanTail]) -> None:
        """Wake who waits for more of these plans."""
        for tail in tails:
            if tail.cursors:
                tail.waiters.wake()

        self.waiters.wake()

    def progress(self, event: Event) -> None:
        """Take in an ephemeral event; its sequence is the last one its plan had been given when it happened.

        Raises:
            ValueError: the fact is not an ephemeral one.
        """
        key = key_of(event)
        tail = self._tails.get(event.plan_id)
        if tail is None or tail.final:
            return

        progress = tail.progress.get(key)
        if progress is None:
            if len(tail.progress) >= PROGRESS_MAX:
                self._void(tail, next(iter(tail.progress.values())))

            progress = tail.progress[key] = Progress(key, event)
            self.alive[progress.place] = progress

        before = progress.text_bytes
        progress.update(event, PROGRESS_TEXT_BYTES_MAX - tail.text_bytes)
        tail.text_bytes += progress.text_bytes - before
        tail.held[key] = progress
        self.released.pop(progress.place, None)
        if self._release_progress(tail):
            tail.waiters.wake()
            self.waiters.wake()

    def clear(self, plan_id: str, *, step_id: str | None = None, round: int | None = None) -> None:
        """Void ephemeral events: of a step, of a round, or of the whole plan.

        Call it in the turn that appends what ends the attempt or round (or ``plan_resumed``), before anything newer is told.
        """
        tail = self._tails.get(plan_id)
        if tail is None or not tail.progress:
            return

        for progress in list(tail.progress.values()):
            name, number = progress.key
            whole = step_id is None and round is None
            if (
                whole
                or (step_id is not None and name == step_id)
                or (round is not None and not name and number >> 32 == round)
            ):
                self._void(tail, progress)

    def finish(self, plan_id: str, last_sequence: int) -> None:
        """Say, once, that the plan's log ends at ``last_sequence``: its cursors end when they have given that out.

        It may be called before that sequence is durable.
        """
        tail = self._tail(plan_id)
        tail.live = True
        tail.final = last_sequence
        self.clear(plan_id)
        tail.waiters.wake()
        self._end(tail)

    def release(self, plan_id: str) -> None:
        """Say that this process no longer writes the plan (it was fenced); its cursors go on reading from the journal."""
        tail = self._tails.get(plan_id)
        if tail is not None:
            self.clear(plan_id)
            tail.live = False
            tail.final = 0
            self._drop_if_unused(tail)

    def removing(self, plans: Sequence[Ended]) -> None:
        """Say that the events of plans are about to be removed: a cursor that has given a part of one cannot go on.

        It is said before the journal is told, so that no cursor passes over the rest without notice.
        """
        for cursor in self._all_cursors:
            cursor.removing(plans)

    def removed(self, plans: Sequence[Ended]) -> None:
        """Say that the journal has been told: events of plans may have been removed."""
        self.pages.forget(plan.plan_id for plan in plans)

    def check_whole(self) -> None:
        """Let nobody wait for what will not come.

        Raises:
            JournalDamagedError: nothing is written any more.
        """
        if self.journal.damaged:
            raise JournalDamagedError(self.journal.damaged)

    def rest(self) -> None:
        """Hold nothing that nobody follows just now; who comes reads it from the journal."""
        self.pages.clear()
        for tail in [tail for tail in self._recent if not tail.cursors]:
            del self._recent[tail]
            self._bytes -= tail.forget()

    def drain(self) -> None:
        """End every cursor's wait, now and from now on: the server goes away."""
        self.draining = True
        self.wake()

    def wake(self) -> None:
        """Let every cursor that waits look again: what it waits for may not come any more."""
        self.waiters.wake()
        for tail in self._tails.values():
            tail.waiters.wake()

    # --- what goes out

    def follow(self, plan_id: str, after_sequence: int = 0, *, durable_only: bool = False) -> Cursor:
        """Give a cursor behind ``after_sequence``; whether that is a place of the plan's is said by its first ``next``."""
        tail = self._tail(plan_id)
        tail.cursors += 1
        return Cursor(self, tail, after_sequence, durable_only=durable_only)

    def follow_all(
        self,
        cursor: str = "",
        *,
        from_now: bool = False,
        labels: Mapping[str, str] | None = None,
        durable_only: bool = False,
    ) -> AllCursor:
        """Give a cursor over all plans that have all of ``labels``: from the start, from ``cursor``, or from now.

        Raises:
            InvalidRequestError: ``cursor`` is not one this server gave.
            PreconditionError: it is another journal's.
        """
        position = read_cursor(cursor, self.journal.journal_id) if cursor else None if from_now else 0
        all_kept = not cursor and not from_now
        all_cursor = AllCursor(self, position, labels or {}, all_kept=all_kept, durable_only=durable_only)
        self._all_cursors.add(all_cursor)
        return all_cursor

    def leave(self, tail: PlanTail) -> None:
        """Take leave of a closed cursor of ``tail``."""
        tail.cursors -= 1
        self._drop_if_unused(tail)

    def leave_all(self, cursor: AllCursor) -> None:
        """Take leave of a closed cursor over all plans."""
        self._all_cursors.discard(cursor)
        if not self._all_cursors:
            self.ring.reset()

    async def labels_of(self, plan_id: str) -> Mapping[str, str]:
        """Give a plan's labels; they never change, so they are remembered."""
        labels = self._labels.get(plan_id)
        if labels is None:
            row = await self.journal.get_row(plan_id)
            labels = self._labels[plan_id] = row.labels if row else {}
            if len(self._labels) > LABELS_MAX:
                self._labels.popitem(last=False)
        else:
            self._labels.move_to_end(plan_id)

        return labels

    def released_after(self, stamp: int) -> list[Progress]:
        """Give the progress of all plans released after ``stamp``, oldest first."""
        news = []
        for progress in reversed(self.released.values()):
            if progress.stamp <= stamp:
                break

            news.append(progress)

        return news[::-1]

    # --- within bounds

    def _tail(self, plan_id: str) -> PlanTail:
        tail = self._tails.get(plan_id)
        if tail is None:
            tail = self._tails[plan_id] = PlanTail(plan_id, self.pages)

        return tail

    def _release_progress(self, tail: PlanTail) -> bool:
        """Release what follows a durable sequence; say whether there was any."""
        ready = (
            [progress for progress in tail.held.values() if progress.event.sequence <= tail.last] if tail.held else []
        )
        for progress in ready:
            self._stamp += 1
            progress.stamp = tail.stamp = self._stamp
            del tail.held[progress.key]
            self.released[progress.place] = progress

        return bool(ready)

    def _void(self, tail: PlanTail, progress: Progress) -> None:
        del tail.progress[progress.key]
        tail.held.pop(progress.key, None)
        tail.text_bytes -= progress.text_bytes
        self.alive.pop(progress.place, None)
        self.released.pop(progress.place, None)

    def _end(self, tail: PlanTail) -> None:
        if tail.ended:
            tail.live = False
            self._drop_if_unused(tail)

    def _drop_if_unused(self, tail: PlanTail) -> None:
        if not tail.live and not tail.cursors and self._tails.get(tail.plan_id) is tail:
            self.clear(tail.plan_id)
            self._bytes -= tail.forget()
            self._recent.pop(tail, None)
            del self._tails[tail.plan_id]

    def _make_room(self) -> None:
        while self._bytes > self._total_bytes_max:
            tail = next(iter(self._recent))
            del self._recent[tail]
            self._bytes -= tail.forget()
