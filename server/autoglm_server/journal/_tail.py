"""The newest end of a log in memory: the bytes as journaled, and who waits for more."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from autoglm_server.journal._pages import EVENTS_MAX, NOTHING, Page, Pages, fitting
from autoglm_server.journal._progress import Key, Progress
from autoglm_server.journal._waiting import Waiters
from autoglm_server.journal.journal import Record


class PlanTail:
    """What is in memory of one plan: the newest durable events, the ephemeral ones, and its cursors.

    ``first`` is the sequence of the first body held, 0 while it is not known where the log ends.
    """

    __slots__ = (
        "_waiters",
        "bodies",
        "cursors",
        "final",
        "first",
        "held",
        "live",
        "page",
        "pages",
        "plan_id",
        "progress",
        "size",
        "stamp",
        "text_bytes",
    )

    def __init__(self, plan_id: str, pages: Pages) -> None:
        self.plan_id = plan_id
        self.pages = pages
        self.first = 0
        self.bodies: list[bytes] = []
        self.size = 0
        """Bytes of the bodies."""
        self.final = 0
        """The sequence of the plan's last event, 0 while it goes on."""
        self.live = False
        """Whether this process writes the plan."""
        self.cursors = 0
        self.page: tuple[int, int, Page] | None = None
        """The newest end as given out last: after which sequence, and up to which."""
        self._waiters: Waiters | None = None
        self.progress: dict[Key, Progress] = {}
        self.held: dict[Key, Progress] = {}
        """Of the progress, what follows a sequence that is not durable yet."""
        self.text_bytes = 0
        self.stamp = 0
        """Of the newest progress released."""

    @property
    def waiters(self) -> Waiters:
        """Who waits for more; most plans are followed by nobody."""
        if self._waiters is None:
            self._waiters = Waiters()

        return self._waiters

    @property
    def last(self) -> int:
        """The last durable sequence known here."""
        return self.first + len(self.bodies) - 1 if self.first else 0

    @property
    def ended(self) -> bool:
        """Whether the plan's last event is durable."""
        return 0 < self.final <= self.last

    def add(self, sequence: int, body: bytes) -> int:
        """Take a durable event in, and give the bytes by which the tail grew. What a reader was told already is skipped."""
        freed = 0
        if not self.first:
            self.first = sequence
        else:
            following = self.first + len(self.bodies)
            if sequence < following:
                return 0

            if sequence > following:
                freed = self.forget()
                self.first = sequence

        self.bodies.append(body)
        self.size += len(body)
        return len(body) - freed

    def ends_at(self, sequence: int) -> None:
        """Note that the journal holds nothing after ``sequence``, unless a commit has said more in the meantime."""
        if not self.first:
            self.first = sequence + 1

    def trim(self, size: int) -> int:
        """Drop the older half of what is held once it is more than ``size`` bytes; give the bytes freed."""
        if self.size <= size:
            return 0

        freed = count = 0
        while self.size - freed > size // 2:
            freed += len(self.bodies[count])
            count += 1

        del self.bodies[:count]
        self.first += count
        self.size -= freed
        return freed

    def forget(self) -> int:
        """Drop all bodies; give the bytes freed."""
        freed, self.first = self.size, self.last + 1 if self.first else 0
        self.bodies, self.page = [], None
        self.size = 0
        return freed

    def after(self, sequence: int) -> Page | None:
        """Give a batch of the bodies after a sequence, or None when the journal must be asked."""
        if not self.first or sequence + 1 < self.first:
            return None

        if sequence >= self.last:
            return NOTHING

        page = self.pages.get(self.plan_id, sequence)
        if page is not None:
            return page

        if self.page is not None and self.page[:2] == (sequence, self.last):
            return self.page[2]

        start = sequence + 1 - self.first
        bodies = self.bodies[start : start + EVENTS_MAX]
        page = Page(bodies[: fitting(bodies)])
        if sequence + len(page) == self.last:
            self.page = (sequence, self.last, page)
        else:
            self.pages.keep(self.plan_id, sequence, page)

        return page

    def news(self, stamp: int) -> list[Progress]:
        """Give the progress released after ``stamp``."""
        return [progress for progress in self.progress.values() if progress.stamp > stamp]


_POSITION: Final = attrgetter("position")


class Ring:
    """The newest events of all plans, in commit order; kept only while somebody follows all plans.

    What nobody of them needs any more goes, but for some that is kept for those who come again.
    """

    def __init__(self, size_max: int, kept_max: int) -> None:
        """Hold ``size_max`` bytes at most, and of what all have been given ``kept_max``."""
        self._size_max = size_max
        self._kept_max = min(kept_max, size_max)
        self._size = 0
        self._full = self._kept_max
        """The size above which it is looked at what may go."""
        self._records: list[Record] = []
        self._start: int | None = None

    @property
    def start(self) -> int | None:
        """The position after which all is here; None while it is not known where the journal ends."""
        return self._start

    @property
    def end(self) -> int | None:
        """The position of the newest event."""
        return self._records[-1].position if self._records else self._start

    def add(self, records: Sequence[Record], positions: Iterable[int] = ()) -> None:
        """Take in what became durable; ``positions`` is up to where each who follows has been given it."""
        if not records:
            return

        end = self.end
        if end is None:
            self._start = records[0].position - 1
        elif records[0].position <= end:  # read from the journal before its commit was told
            records = [record for record in records if record.position > end]

        self._records += records
        self._size += sum([len(record.body) for record in records])
        if self._size > self._full:
            self._trim(positions)

    def _trim(self, positions: Iterable[int]) -> None:
        start = self._start or 0
        # Who is further back than what is here reads from the journal, whatever goes.
        given = min([position for position in positions if position >= start], default=self._records[-1].position)
        most = self._size_max // 2 if self._size > self._size_max else self._size_max
        count = 0
        for record in self._records:
            if self._size <= (self._kept_max // 2 if record.position <= given else most):
                break

            self._size -= len(record.body)
            count += 1

        if count:
            self._start = self._records[count - 1].position
            del self._records[:count]

        self._full = min(self._size_max, max(self._kept_max, self._size + self._kept_max // 2))

    def ends_at(self, position: int) -> None:
        """Note that the journal holds nothing after ``position``, unless a commit has said more in the meantime."""
        if self._start is None:
            self._start = position

    def after(self, position: int) -> Sequence[Record] | None:
        """Give a batch of the events after a position, or None when the journal must be asked."""
        if self._start is None or position < self._start:
            return None

        if self.end is not None and position >= self.end:
            return ()

        start = bisect_right(self._records, position, key=_POSITION)
        page = self._records[start : start + EVENTS_MAX]
        return page[: fitting([record.body for record in page])]

    def reset(self) -> None:
        """Drop everything."""
        self._records, self._size, self._start = [], 0, None
        self._full = self._kept_max
