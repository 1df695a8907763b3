"""How long a call waits before this process takes it up: the server calls itself, and looks how long that takes.

The transport hands over one call of a method at a time, and keeps all others in a queue of its own, which has no bound and
which nothing tells of. When the process has more to do than it can, it is there that calls wait, while everything inside
looks well. So while calls of a method come in, a probe now and then goes the same way and is answered at once when it
arrives: its age says what all others wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Final, Protocol

import grpc
import grpc.aio

_log = logging.getLogger(__name__)

KEY: Final = "autoglm-probe"
"""The metadata that tells a probe from a call; its value is known to this process alone."""
EVERY_SECONDS: Final = 0.01
"""How soon after one probe the next may go."""
CALLS: Final = 4
"""How many calls must have come since the last probe: a server with little to do is not asked at all."""
ROOM_MIN: Final = 4
"""How many calls may be under way however late it is: a server that refuses everything does nothing."""
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
    """One method's queue, and how many of its calls may be under way for it to be short."""

    def __init__(self, method: str, limit: float, most: int) -> None:
        """Measure nothing until :attr:`probes` is set.

        Args:
            method: its full name.
            limit: how long calls may wait, in seconds.
            most: the room when they do not.
        """
        self.method = method
        self.limit = limit
        self.probes: Probes | None = None
        self.room = most
        """How many calls may be under way now."""
        self._most = most
        self._sent = 0.0
        self._cut = True  # nothing is under way that could be late
        self._calls = 0
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None

    def passed(self, taken: int) -> bool:
        """Note that a call has come through while ``taken`` are under way, and say whether there is room for it."""
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
            self._narrow(taken)

        return taken < self.room

    async def close(self) -> None:
        """End a probe that is under way."""
        self.probes = None

        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _narrow(self, taken: int) -> None:
        """Halve the room, of what is really used; once for each probe."""
        self._cut = True
        self.room = max(ROOM_MIN, min(self.room, taken) // 2)

    def _widen(self) -> None:
        self.room = min(self._most, self.room + max(1, self.room // 4))

    async def _measure(self, probes: Probes) -> None:
        """Send a probe: if it is late the room is halved, else it grows."""
        loop = asyncio.get_running_loop()
        pause = EVERY_SECONDS
        try:
            async with asyncio.timeout(LOST_SECONDS):
                await probes.ready()

            self._sent, self._cut = loop.time(), False
            with suppress(TimeoutError):
                async with asyncio.timeout(LOST_SECONDS):
                    await probes.ask(self.method)

            if loop.time() - self._sent <= self.limit:
                self._widen()
            elif not self._cut:
                self._narrow(self.room)
        except (ConnectionError, TimeoutError) as error:
            pause, self.room = PAUSE_SECONDS, self._most
            _log.warning("the server cannot reach itself, and does not know how long calls wait: %s", error)
        finally:
            self._cut, self._task = True, None
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
