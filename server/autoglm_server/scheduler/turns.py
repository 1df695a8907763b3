"""Whose turn it is on the loop: new plans and calls of tools begin a few in each pass, each kind in the order in which it came.

The loop runs all that is ready before it looks at its connections again, and the transport needs five such passes to take calls
up. If all that may begin did so at once, callers would wait for it in the transport, where nothing tells of them. So it stands in
line here.

The next new plan has its turn when each plan that waits here with its calls could have had one. So what was begun gets done, one
large plan keeps nobody out, and where more is asked than can be done it is new plans that wait, before anything was done for
them. How long the next of them would wait tells how much more there is to do than can be done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

MOST: Final = 12
"""How many turns are given in each pass: three milliseconds of work."""
_LATELY: Final = 0.1
"""Over so many seconds, or the time that one turn took, it is counted how soon new plans have their turns."""


class Caller(Hashable, Protocol):
    """A plan whose calls stand in line."""

    def begin(self, call: Any, /) -> bool:
        """Begin a call whose turn it is; False if it has been given up meanwhile."""
        ...


class Turns:
    """The lines of work that waits for the loop. One instance a process; everything happens on its loop."""

    def __init__(self, others: Callable[[], int] = lambda: 0) -> None:
        """Begin with empty lines. ``others`` gives how many plans wait elsewhere because of the calls that wait here."""
        self._others = others
        self._calls: deque[tuple[Caller, object]] = deque()
        self._plans: dict[Caller, int] = {}
        """Those that have calls in line, and how many."""
        self._since_new = 0
        """How many calls had their turn since the last new plan had."""
        self._new: deque[tuple[asyncio.Future[None], float]] = deque()
        """New plans, and since when they wait."""
        self._begun = 0
        self._begun_since = 0.0
        """How many new plans had their turn since then."""
        self._pace = 0.0
        """Seconds from one new plan's turn to the next's, lately; 0 while that is not known."""
        self._left = MOST
        """How many may begin in this pass."""
        self._armed = False

    def __len__(self) -> int:
        """How many calls wait, and some that have gone away."""
        return len(self._calls)

    def call(self, plan: Caller, call: object) -> None:
        """Let a call of a plan begin, at once or when it is its turn."""
        if self._at_once():
            plan.begin(call)
            return

        self._calls.append((plan, call))
        self._plans[plan] = self._plans.get(plan, 0) + 1

    def ask_new(self) -> asyncio.Future[None] | None:
        """Give what to await before a plan is made; None: it may be made at once."""
        if self._at_once():
            return None

        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._new:
            self._begun, self._begun_since, self._pace = 0, loop.time(), 0.0

        self._new.append((turn, loop.time()))
        return turn

    @property
    def wait(self) -> float:
        """For how many seconds a new plan would wait that came now: as long as the first has waited, or longer."""
        while self._new and self._new[0][0].done():
            self._new.popleft()

        if not self._new:
            return 0.0

        return max(asyncio.get_running_loop().time() - self._new[0][1], len(self._new) * self._pace)

    def _at_once(self) -> bool:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._next_pass)

        if self._left and not self._calls and not self._new:
            self._left -= 1
            return True

        return False

    def _next_pass(self) -> None:
        self._left = MOST
        self._armed = bool(self._calls or self._new)
        if self._armed:  # first, so that the line goes on whatever happens to one of it
            asyncio.get_running_loop().call_soon(self._next_pass)

        while self._left and (self._calls or self._new):
            if self._next():  # else who asked has gone away
                self._left -= 1

    def _next(self) -> bool:
        """Give the next one its turn; False if nobody wants it any more."""
        if self._new and (not self._calls or self._since_new >= len(self._plans) + self._others()):
            return self._next_new()

        plan, call = self._calls.popleft()
        self._since_new += 1
        self._plans[plan] -= 1
        if not self._plans[plan]:
            del self._plans[plan]

        return plan.begin(call)

    def _next_new(self) -> bool:
        turn, _ = self._new.popleft()
        if turn.done():
            return False

        self._since_new = 0
        self._begun += 1
        took = asyncio.get_running_loop().time() - self._begun_since
        if took >= _LATELY:
            self._begun, self._begun_since, self._pace = 0, self._begun_since + took, took / self._begun

        turn.set_result(None)
        return True
