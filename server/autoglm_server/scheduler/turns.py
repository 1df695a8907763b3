"""Whose turn it is on the loop: new plans and calls of tools begin in the order in which they came, a few in each pass.

The loop runs all that is ready before it looks at its connections again, and the transport needs five such passes to take calls
up. If all that may begin did so at once, callers would wait for it in the transport, where nothing tells of them. So it stands in
line here: the age of the first one tells how much more there is to do than can be done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

MOST: Final = 8
"""How many turns are given in each pass: two milliseconds of work."""


class Turns:
    """The line of work that waits for the loop. One instance a process; everything happens on its loop."""

    def __init__(self) -> None:
        """Begin with an empty line."""
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self._left = MOST
        """How many may begin in this pass."""
        self._armed = False

    def __len__(self) -> int:
        """How many wait, and some that have gone away."""
        return len(self._line)

    def ask(self) -> asyncio.Future[None] | None:
        """Give what to await before work begins; None: it may begin at once."""
        loop = asyncio.get_running_loop()
        if not self._armed:
            self._armed = True
            loop.call_soon(self._next_pass)

        if self._left and not self._line:
            self._left -= 1
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

    def _next_pass(self) -> None:
        self._left = MOST
        while self._line and self._left:
            turn, _ = self._line.popleft()
            if not turn.done():  # else who asked has gone away
                turn.set_result(None)
                self._left -= 1

        self._armed = bool(self._line)
        if self._armed:
            asyncio.get_running_loop().call_soon(self._next_pass)
