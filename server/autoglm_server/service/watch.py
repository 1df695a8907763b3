"""Streams of events: a cursor's batches, sent as the bytes the journal holds.

A watcher holds no queue. A slow one is not cut: its write waits and its cursor lags. One that reads nothing for a
minute, or whose server drains, ends UNAVAILABLE ``WATCH_ENDED``, with where to resume in the details.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import grpc.aio

from autoglm import wire
from autoglm._dataclasses import dataclass
from autoglm.errors import AutoglmError, error
from autoglm.model import ErrorReason
from autoglm_server.service.deadlines import Deadlines, PassedError
from autoglm_server.service.ports import AllCursor, Cursor, PlanPort
from autoglm_server.service.writing import whole

if TYPE_CHECKING:
    from autoglm._seal import Seal
    from autoglm_server.settings import LimitSettings

HEARTBEAT_SECONDS: Final = 15.0
WRITE_SECONDS: Final = 60.0
DISCONNECT_SECONDS: Final = 10.0
FIRST_SECONDS: Final = 0.005
"""How long the first message waits for events; a watcher of a quiet plan is told at once that it is attached."""
RETRY_AFTER: Final = timedelta(seconds=1)
AT_ONCE_BYTES: Final = 16 << 10
"""A message that is sent at once, also to one who reads nothing: transports take 64 KiB of a stream before they wait."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTimes:
    """How long things wait, in seconds."""

    heartbeat: float = HEARTBEAT_SECONDS
    write: float = WRITE_SECONDS
    disconnect: float = DISCONNECT_SECONDS


class Place:
    """The place of one open stream; a generator's frame is a good deal more, and thousands are held."""

    __slots__ = ("_own", "_watches")

    def __init__(self, watches: Watches, own: str) -> None:
        self._watches = watches
        self._own = own

    def __enter__(self) -> None:
        """It is taken already."""

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._watches.leave(self._own)


class Watches:
    """All open streams of events: their number is bounded, per process and per connection."""

    def __init__(self, limits: LimitSettings, times: WatchTimes | None = None) -> None:
        """``times`` are the contract's unless a test cannot wait."""
        self._limits = limits
        self._times = times or WatchTimes()
        self._writes = Deadlines(self._times.write)
        self._open = 0
        self._peers: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many are open."""
        return self._open

    def admit(self, peer: str) -> Place:
        """Take a place for a stream; leaving its block gives it back.

        Raises:
            LimitError: TOO_MANY_WATCHES.
        """
        if self._open >= self._limits.watches:
            raise too_many(self._limits.watches, "of this server (limits.watches)")

        # Peers on a Unix socket all have the same name, so there the bound of the process is the only one.
        own = "" if peer.startswith("unix:") else peer

        if own and self._peers[own] >= self._limits.watches_per_connection:
            raise too_many(self._limits.watches_per_connection, "of this connection (limits.watches_per_connection)")

        self._open += 1
        self._peers[own] += 1
        return Place(self, own)

    def leave(self, own: str) -> None:
        """Give a place back."""
        self._open -= 1
        self._peers[own] -= 1

        if not self._peers[own]:
            del self._peers[own]

    async def stream_plan(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        cursor: Cursor,
        *,
        after_sequence: int,
        journal_id: str,
        seal: Seal,
    ) -> None:
        """Send a plan's events until its end, each message under ``seal``.

        Raises:
            UnavailableError: WATCH_ENDED.
        """
        sent, named, timeout = after_sequence, journal_id, FIRST_SECONDS

        try:
            while True:
                batch = await cursor.next(timeout)
                raw = seal.put(wire.encode_watch(batch.events, batch.sequence, named))
                if named:
                    await begin(context, len(raw))

                if not await self._write(context, raw):
                    raise unread(self._times.write, {"after_sequence": str(sent), "journal_id": journal_id})

                sent, named, timeout = batch.sequence, "", self._times.heartbeat

                if batch.ended:
                    return

                if batch.drained:
                    raise draining({"after_sequence": str(sent), "journal_id": journal_id})
        finally:
            cursor.close()

    async def stream_all(
        self, context: grpc.aio.ServicerContext[Any, Any], cursor: AllCursor, *, start: str, seal: Seal
    ) -> None:
        """Send every plan's events until the client or the server goes away, each message under ``seal``.

        Raises:
            UnavailableError: WATCH_ENDED.
        """
        sent, timeout = start, FIRST_SECONDS

        try:
            while True:
                batch = await cursor.next(timeout)
                raw = seal.put(wire.encode_watch_all(wire.join_events(batch.bodies), batch.cursor))
                if timeout == FIRST_SECONDS:
                    await begin(context, len(raw))

                if not await self._write(context, raw):
                    raise unread(self._times.write, {"cursor": sent})

                sent, timeout = batch.cursor, self._times.heartbeat

                if batch.drained:
                    raise draining({"cursor": sent})
        finally:
            cursor.close()

    async def _write(self, context: grpc.aio.ServicerContext[Any, Any], raw: bytes) -> bool:
        """Write; gives False when it took too long."""
        try:
            await self._writes.within(whole(context.write(raw)))
        except PassedError:
            return False

        return True


class Disconnects:
    """Cancels plans whose clients went away, where they asked for that; entered while it is at work."""

    def __init__(self, plans: PlanPort, *, seconds: float = DISCONNECT_SECONDS) -> None:
        """``seconds`` pass between the end of the last stream that asked and the cancellation."""
        self._plans = plans
        self._tasks = asyncio.TaskGroup()
        self._seconds = seconds
        self._streams: Counter[str] = Counter()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._draining = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drain()
        await self._tasks.__aexit__(kind, error, traceback)

    def drain(self) -> None:
        """Cancel nothing from now on: streams that end now are ended by the server."""
        self._draining = True

        for timer in self._timers.values():
            timer.cancel()

        self._timers.clear()

    @contextmanager
    def attached(self, plan_id: str, *, asked: bool) -> Iterator[None]:
        """Note a stream of a plan while it is open; ``asked``: it asked for the cancellation."""
        if not asked:
            yield
            return

        self._streams[plan_id] += 1

        if timer := self._timers.pop(plan_id, None):
            timer.cancel()

        gone = False

        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            gone = task is not None and task.cancelling() > 0
            raise
        except grpc.aio.InternalError:  # a write that could not be sent: its client is gone, and that is told later
            gone = True
            raise
        finally:
            self._streams[plan_id] -= 1

            if not self._streams[plan_id]:
                del self._streams[plan_id]

                if gone and not self._draining:
                    self._timers[plan_id] = asyncio.get_running_loop().call_later(self._seconds, self._due, plan_id)

    def _due(self, plan_id: str) -> None:
        del self._timers[plan_id]
        self._tasks.create_task(self._cancel(plan_id))

    async def _cancel(self, plan_id: str) -> None:
        _log.info("client went away, cancelling its plan", extra={"plan_id": plan_id})

        try:
            await self._plans.cancel(
                plan_id, reason="the client that asked for cancel_on_disconnect went away", principal=""
            )
        except AutoglmError as refused:
            _log.warning("could not cancel", extra={"plan_id": plan_id, "reason": refused.reason})


async def begin(context: grpc.aio.ServicerContext[Any, Any], size: int) -> None:
    """Begin a stream whose first message has ``size`` bytes.

    Headers go with the first message, and while that waits for its reader there is no other way to send them: without them
    no status can be sent, and the call would be open for ever.
    """
    if size > AT_ONCE_BYTES:
        await context.send_initial_metadata(())


def check_journal(asked: str, journal_id: str) -> None:
    """Refuse a place in another journal.

    Raises:
        PreconditionError: JOURNAL_CHANGED.
    """
    if asked and asked != journal_id:
        message = f"this journal is {journal_id}, not {asked}: it was replaced; GetPlan, then watch from its sequence"
        raise error(ErrorReason.JOURNAL_CHANGED, message, journal_id=journal_id)


def ended(message: str, resume: dict[str, str]) -> AutoglmError:
    """End a watch, saying where to resume."""
    return error(ErrorReason.WATCH_ENDED, message, retry_after=RETRY_AFTER, **resume)


def unread(seconds: float, resume: dict[str, str]) -> AutoglmError:
    """End a watch that reads nothing."""
    return ended(f"the watch read nothing for {seconds:g} s and was ended; watch again from where this says", resume)


def draining(resume: dict[str, str]) -> AutoglmError:
    """End a watch because the server goes away."""
    return ended("the server is shutting down; watch again from where this says", resume)


def too_many(limit: int, whose: str) -> AutoglmError:
    """Refuse a watch."""
    message = f"the limit of {limit} open watches {whose} is reached; close one, or use WatchPlans for many plans"
    return error(ErrorReason.TOO_MANY_WATCHES, message, retry_after=RETRY_AFTER, limit=str(limit))
