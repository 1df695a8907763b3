"""Pages of plans' logs that were given out lately: what many watchers ask for is read, checked and put together once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from autoglm import wire
from autoglm_server.journal.journal import Journal

EVENTS_MAX = 500
BYTES_MAX = 1 << 20
"""A page ends at either."""
PAGES_BYTES_MAX = 8 << 20
"""Of the pages kept; each counts twice, as it is also kept put together for a message."""
_PAGE_BYTES = 512
_BODY_BYTES = 64
"""What Python needs for a page, and for each of its bodies: of one with an event or two that is more than these."""


class Page(list[bytes]):
    """Bodies that are given out together. Many are given the same one, which is put together for a message once."""

    __slots__ = ("_joined",)

    def __init__(self, bodies: Iterable[bytes] = ()) -> None:
        """Of bodies as journaled; it stays as it is."""
        super().__init__(bodies)
        self._joined: bytes | None = None

    @property
    def joined(self) -> bytes:
        """As a message has them."""
        if self._joined is None:
            self._joined = wire.join_events(self)

        return self._joined


NOTHING = Page()
"""Of who has been given everything."""


def fitting(bodies: Sequence[bytes]) -> int:
    """Give how many of the bodies go into one batch: at least one."""
    if len(bodies) <= EVENTS_MAX and sum(map(len, bodies)) <= BYTES_MAX:
        return len(bodies)

    total = 0
    for count, body in enumerate(bodies[:EVENTS_MAX]):
        total += len(body)
        if total > BYTES_MAX and count:
            return count

    return min(len(bodies), EVENTS_MAX)


_Place = tuple[str, int]
"""(plan id, the sequence before the page)."""


class Pages:
    """What the cursors of a feed read. A log only grows, so a page of it stays true until its events are removed."""

    def __init__(self, journal: Journal, bytes_max: int = PAGES_BYTES_MAX) -> None:
        """Read from ``journal``, and keep at most ``bytes_max``."""
        self._journal = journal
        self._bytes_max = bytes_max
        self._kept: OrderedDict[_Place, Page] = OrderedDict()
        self._bytes = 0
        self._reading: dict[_Place, asyncio.Future[Page | None]] = {}
        self._removals = 0

    async def read(self, plan_id: str, after_sequence: int) -> Page:
        """Give the events after a sequence, as many as make a page; none at the end of the log.

        Raises:
            EventsRemovedError, JournalDamagedError: as :meth:`Journal.read`.
        """
        place = (plan_id, after_sequence)
        while (page := self.get(*place)) is None:
            reading = self._reading.get(place)
            if reading is None:
                return await self._read(place)

            page = await asyncio.shield(reading)
            if page is not None:
                return page

        return page

    def get(self, plan_id: str, after_sequence: int) -> Page | None:
        """Give a page that is kept."""
        page = self._kept.get((plan_id, after_sequence))
        if page is not None:
            self._kept.move_to_end((plan_id, after_sequence))

        return page

    async def _read(self, place: _Place) -> Page:
        """Read for all who come meanwhile; should it fail, the next of them tries."""
        told = self._reading[place] = asyncio.get_running_loop().create_future()
        page: Page | None = None
        removals = self._removals
        try:
            page = Page(await self._journal.read(*place))
            if page and removals == self._removals:
                self.keep(*place, page)
        finally:
            if self._reading.get(place) is told:
                del self._reading[place]

            told.set_result(page)

        return page

    def keep(self, plan_id: str, after_sequence: int, page: Page) -> None:
        """Keep a page for a while."""
        if (before := self._kept.pop((plan_id, after_sequence), None)) is not None:
            self._bytes -= _size(before)

        self._kept[plan_id, after_sequence] = page
        self._bytes += _size(page)
        while self._bytes > self._bytes_max:
            self._bytes -= _size(self._kept.popitem(last=False)[1])

    def forget(self, plan_ids: Iterable[str]) -> None:
        """Give none of the plans' events any more that the journal does not give."""
        self._removals += 1  # what is being read just now may be gone when it comes
        gone = set(plan_ids)
        for place in [place for place in self._reading if place[0] in gone]:
            del self._reading[place]

        for place in [place for place in self._kept if place[0] in gone]:
            self._bytes -= _size(self._kept.pop(place))

    def clear(self) -> None:
        """Keep none any more."""
        self._kept.clear()
        self._bytes = 0


def _size(page: Page) -> int:
    return 2 * sum(map(len, page)) + _BODY_BYTES * len(page) + _PAGE_BYTES
