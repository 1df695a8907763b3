"""Whose turn it is on the loop: new plans and calls of tools begin in the order in which they came, a few in each pass.

The loop runs all that is ready before it looks at its connections again, and the transport needs five such passes to take up
one call. If all that may begin did so at once, callers would wait for it in the transport, where nothing tells of them. So
it stands in line here: the age of the first one tells how much more there is to do than can be done. And the line makes room
for the transport: while calls come out of it one right behind the other, as they do only when more of them wait there,
turns are given in ever fewer passes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

MOST: Final = 8
"""How many turns are given together, and in each pass when no call waits in the transport: two milliseconds of work. Given
one by one, what comes of them would be written one by one."""
LEAST: Final = 0.2
"""How many turns a pass comes to when calls wait however few are given: some work is always done."""
CLOSE: Final = 8
"""Calls of one method that come within so many passes come right behind each other; the transport needs four or five."""
SLOWER: Final = 0.8
"""What a call that comes right behind another makes of the rate of turns."""
FASTER: Final = 1.25
"""What a pass does when none has come lately."""


class Turns:
    """The line of work that waits for the loop. One instance a process; everything happens on its loop."""

    def __init__(self) -> None:
        """Begin with an empty line."""
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self._rate = self._saved = float(MOST)
        self._left = MOST
        """How many may begin in this pass."""
        self._passes = 0
        self._armed = False
        self._came: dict[str, int] = {}

    def ask(self) -> asyncio.Future[None] | None:
        """Give what to await before work begins; None: it may begin at once."""
        loop = asyncio.get_running_loop()
        if not self._armed:
            self._armed = True
            loop.call_soon(self._next_pass)

        if self._left and not self._line:
            self._left -= 1
            self._saved -= 1
            return None

        turn: asyncio.Future[None] = loop.create_future()
        self._line.append((turn, loop.time()))
        return turn

    @property
    def waited(self) -> float:
        """For how many seconds the first of the line has waited."""
        while self._line and self._line[0][0].done():
            self._line.popleft()

        return asyncio.get_running_loop().time() - self._line[0][1] if self._line else 0.0

    def came(self, method: str) -> None:
        """Note that the transport has handed a call over."""
        last, self._came[method] = self._came.get(method, -CLOSE), self._passes
        if self._line and self._passes - last < CLOSE:
            self._rate = max(LEAST, self._rate * SLOWER)

    def _next_pass(self) -> None:
        self._passes += 1
        if self._passes - max(self._came.values(), default=0) >= CLOSE:
            self._rate = min(MOST, self._rate * FASTER)

        self._saved = min(self._saved + self._rate, MOST)
        self._left = MOST if self._saved >= MOST else 0
        while self._line and self._left:
            turn, _ = self._line.popleft()
            if not turn.done():  # else who asked has gone away
                turn.set_result(None)
                self._left -= 1
                self._saved -= 1

        self._armed = bool(self._line) or self._saved < MOST
        if self._armed:
            asyncio.get_running_loop().call_soon(self._next_pass)
        else:
            self._rate = MOST
