"""How long a call waits before this process takes it up: the server calls itself, and looks how long that takes.

The transport hands over one call of a method at a time, and keeps all others in a queue of its own, which has no bound and
which nothing tells of. When the process has more to do than it can, it is there that calls wait, while everything inside
looks well. So while calls of a method come in, a probe now and then goes the same way and is answered at once when it
arrives: its age says what all others wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from contextlib import suppress
from typing import Final, Protocol

import grpc
import grpc.aio

_log = logging.getLogger(__name__)

KEY: Final = "autoglm-probe"
"""The metadata that tells a probe from a call; its value is known to this process alone."""
EVERY_SECONDS: Final = 0.02
"""How soon after one probe the next may go."""
CALLS: Final = 4
"""How many calls must have come since the last probe: a server with little to do is not asked at all."""
RATE_MIN: Final = 5.0
"""How many calls a second are let in however late it is: a server that refuses everything does nothing."""
FLOOR: Final = 0.6
"""Nor less than this part of what went well a while ago: if that does not help, it is not these calls that others wait for."""
BEST_SECONDS: Final = 10.0
"""How long that is remembered: what calls bring may have become more."""
LESS: Final = 0.9
GROWTH: Final = 1.2
"""How fast it grows again: by this power of e in a second, so it doubles in a bit more than half of one."""
BURST_SECONDS: Final = 0.01
"""By how much a call may come before its turn."""
GROWTH_FAST: Final = 4.0
"""Likewise while calls hardly wait at all."""
DRAIN: Final = 3.0
"""By how much less is let in while calls wait longer than twice the limit, so that those who wait are soon answered."""
HOLD_SECONDS: Final = 0.25
"""How long a lower rate is tried before it is lowered again: those who wait already are still to be refused."""
FLOW_SECONDS: Final = 0.2
"""Over how long it is measured how many are let in."""
CALM_SECONDS: Final = 1.0
"""When nobody had to be refused for so long, all are let in again."""
LOST_SECONDS: Final = 10.0
"""When a probe that has no answer is given up, and another sent."""
PAUSE_SECONDS: Final = 5.0
"""How long nothing is measured when the server cannot reach itself; nobody is refused then."""

TOKEN: Final = secrets.token_hex(16)


class Probes(Protocol):
    """What sends probes."""

    async def ready(self) -> None:
        """Return when one can be sent."""
        ...

    async def ask(self, method: str) -> None:
        """Send one along a method, and return when it was answered.

        Raises:
            ConnectionError: it did not come back.
        """
        ...


class Door:
    """One method's queue, and how many of its calls a second may be let in for it to be short.

    A rate, not a number of calls under way: what a call brings may go on long after it was answered.
    """

    def __init__(self, method: str, limit: float) -> None:
        """Measure nothing until :attr:`probes` is set. ``limit`` is how long calls may wait, in seconds."""
        self.method = method
        self.limit = limit
        self.probes: Probes | None = None
        self.rate = math.inf
        """How many calls a second are let in now."""
        self._flow = 0.0  # how many a second were, around the last one
        self._best = 0.0  # and the most of late that did not make calls wait
        self._next = 0.0  # when the next one fits into the rate
        self._let_in = 0.0
        self._refused = self._hold = -math.inf
        self._sent = self._judged = 0.0
        self._wait = 0.0  # how long the last probe took
        self._cut = True  # nothing is under way that could be late
        self._calls = 0
        self._due = 0.0
        self._asking = False
        self._task: asyncio.Task[None] | None = None

    def passed(self) -> bool:
        """Note that a call has come through, and say whether it is let in."""
        if self.probes is None:
            return True

        loop = asyncio.get_running_loop()
        now = loop.time()
        self._calls += 1

        if self._task is None:
            if self._calls >= CALLS and now >= self._due:
                self._calls = 0
                self._task = loop.create_task(self._measure(self.probes))
        elif not self._cut and now - self._sent > self.limit:
            self._slow_down()

        if self.rate < math.inf:
            if now - self._refused > CALM_SECONDS:
                self.rate = math.inf
            elif now < self._next - BURST_SECONDS:
                self._refused = now
                return False

            self._next = max(now, self._next) + (DRAIN if self._drains(now) else 1.0) / self.rate

        self._flow = self._flow * math.exp((self._let_in - now) / FLOW_SECONDS) + 1 / FLOW_SECONDS
        self._let_in = now
        return True

    async def close(self) -> None:
        """End a probe that is under way."""
        self.probes = None

        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _drains(self, now: float) -> bool:
        """Whether to let the queue run empty: calls wait very long."""
        waits = max(self._wait, now - self._sent if self._asking else 0.0)
        return waits > 2 * self.limit

    def _slow_down(self) -> None:
        """Let in less than of late, unless that was just tried."""
        now = asyncio.get_running_loop().time()
        self._cut = True

        if now < self._hold:
            return

        self._hold = now + HOLD_SECONDS
        self._next = max(self._next, now)
        self._refused = now
        self.rate = max(RATE_MIN, LESS * min(self.rate, self._flow), FLOOR * self._best)

    def _judge(self, now: float) -> None:
        """Say what an answered probe means."""
        self._wait = took = now - self._sent
        since, self._judged = min(now - self._judged, 0.5), now
        self._best *= math.exp(-since / BEST_SECONDS)
        if took <= self.limit:
            self._best = max(self._best, self._flow)

        if took > self.limit and not self._cut:
            self._slow_down()
        elif took < self.limit / 3 and self.rate < 2 * self._flow:  # else it is not the rate that holds them back
            self.rate *= math.exp((GROWTH_FAST if took < self.limit / 6 else GROWTH) * since)

    async def _measure(self, probes: Probes) -> None:
        """Send a probe: if it is late less is let in; if it is soon back, more."""
        loop = asyncio.get_running_loop()
        pause = EVERY_SECONDS
        try:
            async with asyncio.timeout(LOST_SECONDS):
                await probes.ready()

            self._sent, self._cut, self._asking = loop.time(), False, True
            with suppress(TimeoutError):
                async with asyncio.timeout(LOST_SECONDS):
                    await probes.ask(self.method)

            self._judge(loop.time())
        except (ConnectionError, TimeoutError) as error:
            pause, self.rate = PAUSE_SECONDS, math.inf
            _log.warning("the server cannot reach itself, and does not know how long calls wait: %s", error)
        finally:
            self._cut, self._asking, self._task = True, False, None
            self._due = loop.time() + pause


class Prober:
    """Sends the probes: a connection of the server to itself, opened when the first goes."""

    def __init__(self, address: str) -> None:
        """``address``: where the server listens, as it is reached from this machine."""
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    async def ready(self) -> None:
        """Return when the connection is there."""
        if self._channel is None:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            self._channel = grpc.aio.insecure_channel(self._address, options=options)

        await self._channel.channel_ready()

    async def ask(self, method: str) -> None:
        """Send a probe, and return when it was answered.

        Raises:
            ConnectionError: it did not come back.
        """
        assert self._channel is not None
        call: grpc.aio.StreamStreamCall[bytes, bytes] = self._channel.stream_stream(method)(metadata=((KEY, TOKEN),))

        if (code := await call.code()) is not grpc.StatusCode.OK:
            raise ConnectionError(f"{code.name}: {await call.details()}")

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()
