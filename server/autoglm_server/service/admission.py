"""Who is let in: how many calls of each kind are under way at once, in all and of one caller, and when no plan is taken.

What is above is refused at once, before its request is read, with when to come back; nothing is queued here. Methods that are
not named here (health, reflection, streams of events, files) are never refused here; the streams have limits of their own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from autoglm._dataclasses import dataclass
from autoglm.errors import AutoglmError, error
from autoglm.model import ErrorReason

if TYPE_CHECKING:
    import asyncio

    from autoglm_server.settings import LimitSettings


class Kind(StrEnum):
    """What a call is, for admission; the value is the setting that bounds it."""

    READ = "limits.calls_read"
    WRITE = "limits.calls_write"
    TOOL = "limits.calls_tool"


_PLANS: Final = "/autoglm.v1.PlanService/"
_TOOLS: Final = "/autoglm.v1.ToolService/"
CREATES: Final = (_PLANS + "CreatePlan", _PLANS + "RunPlan")
"""What makes plans: refused also while the server is behind. Cancelling and deciding are not: they make work end."""
KINDS: Final = {
    **dict.fromkeys((_PLANS + name for name in ("CreatePlan", "CancelPlan", "ResolveStep")), Kind.WRITE),
    **dict.fromkeys((_PLANS + name for name in ("GetPlan", "ListPlans", "ListSteps", "GetServerInfo")), Kind.READ),
    **dict.fromkeys((_TOOLS + name for name in ("ListTools", "GetTool")), Kind.READ),
    _TOOLS + "CallTool": Kind.TOOL,
}
"""The methods whose calls hold a place from their beginning to their end."""
FEW: Final = 16
"""While fewer plans than this are made or make progress, none is refused for being late, whatever the machine does."""
RETRY_AFTER: Final = tuple(timedelta(milliseconds=100 + 25 * step) for step in (0, 5, 2, 7, 4, 1, 6, 3))
"""When to come back, in turn: callers that were refused together do not come back together."""


@dataclass(slots=True)
class _Places:
    """The calls of one kind that are under way."""

    most: int
    share: int
    """The most of one caller."""
    taken: int = 0
    callers: Counter[str] = field(default_factory=Counter)


class Admission:
    """Counts the calls under way, and says who is refused. Costs a call no task and no lock."""

    def __init__(
        self,
        limits: LimitSettings,
        journal_delay: Callable[[], float] = lambda: 0.0,
        *,
        turn: Callable[[], asyncio.Future[None] | None] = lambda: None,
        behind: Callable[[], float] = lambda: 0.0,
        busy: Callable[[], int] = lambda: 0,
    ) -> None:
        """``journal_delay`` gives for how many seconds the oldest event that is handed over has not been durable.

        ``turn`` gives what to await before a plan is made, ``behind`` for how many seconds one that came now would wait for that;
        ``busy`` gives how many plans make progress.
        """
        self._places = {
            kind: _Places(most, max(1, int(most * limits.calls_share)))
            for kind, most in (
                (Kind.READ, limits.calls_read),
                (Kind.WRITE, limits.calls_write),
                (Kind.TOOL, limits.calls_tool),
            )
        }
        self._by_method = {method: self._places[kind] for method, kind in KINDS.items()}
        self._by_method |= dict.fromkeys(CREATES, self._places[Kind.WRITE])
        self._kinds = {**KINDS, **dict.fromkeys(CREATES, Kind.WRITE)}
        self._journal_delay = journal_delay
        self._journal_wait = limits.journal_wait.total_seconds() if limits.journal_wait else float("inf")
        self._retry = itertools.cycle(RETRY_AFTER)
        self._refusals: dict[tuple[str, timedelta], AutoglmError] = {}
        self._turn = turn
        self._behind = behind
        self._turn_wait = limits.create_wait.total_seconds() if limits.create_wait else float("inf")
        self._busy = busy
        self.calls = 0
        """Taken in so far: what asks for work, which health checks and idle streams do not."""

    def turn(self) -> asyncio.Future[None] | None:
        """Give what a call that makes a plan awaits before its request is looked into; None: it need not wait."""
        return self._turn()

    def taken(self, kind: Kind) -> int:
        """Give how many calls of a kind are under way."""
        return self._places[kind].taken

    def refusal(self, method: str) -> AutoglmError | None:
        """Give why no call of a method is taken now, whoever makes it; None: it is welcome.

        The same few objects again and again, so that what is made of them can be kept; they are not to be raised.
        """
        places = self._by_method.get(method)

        if places is None:
            return None

        if places.taken >= places.most:
            setting = self._kinds[method].value
            told = f"{places.most} calls are under way ({setting}); try again a little later"
            return self._kept(told, setting, str(places.most))

        if method not in CREATES:
            return None

        if self._behind() > self._turn_wait and places.taken + self._busy() >= FEW:
            told = "the server is behind, by more than limits.create_wait; try again a little later"
            return self._kept(told, "limits.create_wait", f"{self._turn_wait:g} s")

        if self._journal_delay() > self._journal_wait:
            told = "the journal's disk is behind, by more than limits.journal_wait; try again a little later"
            return self._kept(told, "limits.journal_wait", f"{self._journal_wait:g} s")

        return None

    def enter(self, kind: Kind, peer: str) -> str:
        """Take a place for a call; gives the caller, for :meth:`leave`.

        Raises:
            LimitError: TOO_MANY_CALLS.
        """
        places = self._places[kind]

        if places.taken >= places.most:
            told = f"{places.most} calls are under way ({kind.value}); try again a little later"
            raise self._refuse(told, kind.value, str(places.most))

        # Peers on a Unix socket all have the same name, so there the bound of the process is the only one.
        caller = "" if peer.startswith("unix:") else peer

        if caller and places.callers[caller] >= places.share:
            told = f"this connection has {places.share} calls under way ({kind.value}, limits.calls_share)"
            raise self._refuse(f"{told}; try again when some have ended", "limits.calls_share", str(places.share))

        places.taken += 1
        places.callers[caller] += 1
        self.calls += 1
        return caller

    def leave(self, kind: Kind, caller: str) -> None:
        """Give a place back."""
        places = self._places[kind]
        places.taken -= 1
        places.callers[caller] -= 1

        if not places.callers[caller]:
            del places.callers[caller]

    @contextmanager
    def place(self, kind: Kind, peer: str) -> Iterator[None]:
        """Hold a place for a part of a call.

        Raises:
            LimitError: TOO_MANY_CALLS.
        """
        caller = self.enter(kind, peer)
        try:
            yield
        finally:
            self.leave(kind, caller)

    def _kept(self, told: str, setting: str, limit: str) -> AutoglmError:
        key = setting, next(self._retry)
        if (refusal := self._refusals.get(key)) is None:
            refusal = self._refusals[key] = _refused(told, setting, limit, key[1])

        return refusal

    def _refuse(self, told: str, setting: str, limit: str) -> AutoglmError:
        return _refused(told, setting, limit, next(self._retry))


def _refused(told: str, setting: str, limit: str, retry_after: timedelta) -> AutoglmError:
    return error(ErrorReason.TOO_MANY_CALLS, told, retry_after=retry_after, limit=limit, setting=setting)
