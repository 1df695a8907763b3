"""The link to a gRPC provider: its channels, kept connected, and a task that keeps what it offers up to date.

A channel connects and connects again by itself, with backoff and jitter; it is watched, and its state says whether the
provider can be reached. A call is made on a channel that is ready, so one that finds none has sent nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

import grpc
import grpc.aio

from autoglm.model import DOMAIN, ErrorReason, Failure
from autoglm_server.tools.failures import one_line
from autoglm_server.tools.providers.endpoints import Endpoint
from autoglm_server.tools.providers.statuses import not_sent
from autoglm_server.tools.tool import ToolCallError

POLL_SECONDS: Final = 10.0
"""How often a provider is asked whether what it offers has changed."""
START_SECONDS: Final = 5.0
"""How long a server that starts waits for the first answer of a provider; later ones come while it serves."""
CONNECT_SECONDS: Final = 5.0
"""How long a call waits for a connection that is being made."""
BACKOFF_SECONDS: Final = (0.2, 10.0)
"""The first and the longest wait before a provider that failed is asked again; each is doubled, with full jitter."""
_TOLD_MAX: Final = 300

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_READY = grpc.ChannelConnectivity.READY
_FAILING = grpc.ChannelConnectivity.TRANSIENT_FAILURE


class OfferError(Exception):
    """A provider answered, and what it says it offers cannot be used; the message says why."""


class Link:
    """The channels to one provider. ``refresh`` reads what it offers; ``changed`` hears whether it can be reached."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        refresh: Callable[[grpc.aio.Channel], Awaitable[None]],
        changed: Callable[[], None],
        keepalive_ms: int,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Make a link that is not open; ``refresh`` may raise OfferError and grpc.RpcError."""
        self.name = name
        self.endpoint = endpoint
        self.available = False
        """Whether it answered, and can be reached as far as is known."""
        self._refresh = refresh
        self._changed = changed
        self._keepalive_ms = keepalive_ms
        self._poll_seconds = poll_seconds
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._moved = asyncio.Event()
        self._asked = asyncio.Event()
        self._turn = 0
        self._trouble = ""

    async def start(self) -> None:
        """Open the channels, and wait a moment for the first answer; a provider that is away is no error."""
        self._channels = self.endpoint.channels(keepalive_ms=self._keepalive_ms)
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(self._watch(channel)) for channel in self._channels]
        self._tasks.append(spawn(self._keep()))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(START_SECONDS):
                    await self._asked.wait()
        except asyncio.CancelledError:
            await self.stop()  # who did not start is not stopped
            raise

    async def stop(self) -> None:
        """Stop watching and close the channels; calls under way end."""
        for task in self._tasks:
            task.cancel()

        if self._tasks:
            await asyncio.wait(self._tasks)

        for channel in self._channels:
            await channel.close()

        self._tasks, self._channels = [], []

    def poke(self) -> None:
        """Ask for what is offered soon: a call met something else than expected."""
        self._news.set()

    async def ready(self, tool: str, seconds: float) -> grpc.aio.Channel:
        """Give a channel that is connected, the next one of those that are; wait while connections are being made.

        Raises:
            ToolCallError: TOOL_UNAVAILABLE, there is none; nothing was sent.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, CONNECT_SECONDS)):
                while True:
                    if (channel := self._pick()) is not None:
                        return channel

                    if self._failing():
                        break

                    await self._moved.wait()

        raise self.unavailable(tool, self._trouble or "no connection")

    async def send(self, tool: str, seconds: float, make: Callable[[grpc.aio.Channel], Awaitable[_T]]) -> _T:
        """Make a call on a channel that is ready, on the next one if nothing of it was sent.

        Raises:
            ToolCallError: TOOL_UNAVAILABLE, there is no connection; nothing was sent.
            grpc.RpcError: it was sent, and failed.
        """
        why = ""
        for _ in range(2):
            channel = await self.ready(tool, seconds)
            try:
                return await make(channel)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise

                # Not this call was cancelled: its channel was closed under it, because the provider is being stopped.
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.CANCELLED, nothing, nothing, "the connection was closed on this side"
                ) from None
            except grpc.RpcError as failed:
                if not not_sent(failed):
                    raise

                why = _told(failed)

        raise self.unavailable(tool, why)

    def unavailable(self, tool: str, why: str) -> ToolCallError:
        """Give the failure of a call that was not made."""
        self.poke()
        message = f"{tool} was not called: its provider {self.name!r} at {self.endpoint} cannot be reached: {why}"
        return ToolCallError(
            Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, one_line(message, 1024), retryable=True)
        )

    def _pick(self) -> grpc.aio.Channel | None:
        for _ in self._channels:
            self._turn = (self._turn + 1) % len(self._channels)
            channel = self._channels[self._turn]
            if channel.get_state(try_to_connect=True) is _READY:
                return channel

        return None

    def _failing(self) -> bool:
        return all(channel.get_state() is _FAILING for channel in self._channels)

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        """Keep one channel connected, and say when it comes or goes."""
        state = channel.get_state(try_to_connect=True)
        while True:
            await channel.wait_for_state_change(state)
            before, state = state, channel.get_state(try_to_connect=True)
            self._moved.set()
            self._moved = asyncio.Event()
            if _READY in (before, state) or state is _FAILING:
                self._news.set()

    async def _keep(self) -> None:
        """Keep what is offered up to date for ever. This is the boundary: no fault of a provider ends it."""
        backoff, longest = BACKOFF_SECONDS
        while True:
            self._news.clear()
            try:
                await self._ask()
            except (grpc.RpcError, OfferError, TimeoutError) as error:
                self._lost(_told(error))
            except Exception:  # noqa: BLE001  # as the docstring says
                _log.exception("what the provider %s offers could not be read", self.name)
                self._lost("what it offers could not be read; the log says more")
            else:
                self._found()

            self._asked.set()
            if self.available:
                backoff, wait = BACKOFF_SECONDS[0], self._poll_seconds
            else:
                wait, backoff = backoff * (0.5 + random.random() / 2), min(2 * backoff, longest)

            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()

    async def _ask(self) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            while not (ready := [c for c in self._channels if c.get_state(try_to_connect=True) is _READY]):
                if self._failing():
                    break

                await self._moved.wait()

        # Always the first that is there: replicas that differ for a moment must not make the list go to and fro. One that
        # is not ready says in its failure why.
        await self._refresh(ready[0] if ready else self._channels[0])

    def _found(self) -> None:
        if not self.available:
            _log.info("the provider %s at %s is there", self.name, self.endpoint)
            self.available, self._trouble = True, ""
            self._changed()

    def _lost(self, why: str) -> None:
        if self.available or why != self._trouble:
            _log.warning("the provider %s at %s cannot be used, and is tried again: %s", self.name, self.endpoint, why)

        was, self.available, self._trouble = self.available, False, why
        if was:
            self._changed()


def _told(error: BaseException) -> str:
    if isinstance(error, grpc.RpcError):
        details = getattr(error, "details", str)
        code = getattr(error, "code", str)()
        return one_line(f"{getattr(code, 'name', '')}: {details()}", _TOLD_MAX)

    return one_line(str(error) or "it did not answer in time", _TOLD_MAX)
