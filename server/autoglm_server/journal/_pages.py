"""Pages of plans' logs that were read from the journal lately: what many watchers ask for is read and checked once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from autoglm_server.journal._tail import Page
from autoglm_server.journal.journal import Journal

PAGES_BYTES_MAX = 8 << 20
"""Of the pages kept; each counts twice, as it is also kept put together for a message."""

_Place = tuple[str, int]
"""(plan id, the sequence before the page)."""


class Pages:
    """Reads for all cursors of a feed. A log only grows, so a page of it stays true until its events are removed."""

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
        while (page := self._kept.get(place)) is None:
            reading = self._reading.get(place)
            if reading is None:
                return await self._read(place)

            page = await asyncio.shield(reading)
            if page is not None:
                return page

        self._kept.move_to_end(place)
        return page

    async def _read(self, place: _Place) -> Page:
        """Read for all who come meanwhile; should it fail, the next of them tries."""
        told = self._reading[place] = asyncio.get_running_loop().create_future()
        page: Page | None = None
        removals = self._removals
        try:
            page = Page(await self._journal.read(*place))
            if page and removals == self._removals:
                self._keep(place, page)
        finally:
            if self._reading.get(place) is told:
                del self._reading[place]

            told.set_result(page)

        return page

    def _keep(self, place: _Place, page: Page) -> None:
        self._kept[place] = page
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


def _size(page: Page) -> int:
    return 2 * sum(map(len, page))
