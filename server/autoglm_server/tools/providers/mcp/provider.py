"""The provider of one MCP server: one task owns its connection, lists its tools, and connects again when it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Final, cast

import anyio
import mcp_types as types
from mcp import Client, MCPError
from mcp.client import IncomingMessage
from mcp.client.subscriptions import SubscriptionLost
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter, ValidationError

from autoglm._dataclasses import dataclass
from autoglm._version import __version__
from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, Tool, ToolResult
from autoglm_server.tools.failures import invalid_output, one_line, text_of
from autoglm_server.tools.providers.mcp import mapping
from autoglm_server.tools.providers.mcp.link import Link
from autoglm_server.tools.tool import Invocation, NotBegunError, ToolCallError

_log = logging.getLogger(__name__)

KEY_META: Final = "autoglm/idempotencyKey"
"""Where in a call's ``_meta`` its idempotency key stands."""
_PAGES_MAX: Final = 100
_ROUNDS_MAX: Final = 10
_ROUND_SECONDS: Final = 0.25
_STOP_SECONDS: Final = 10.0

_ANSWER: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds."""

    start: float = 10.0
    """How long the server's own start waits for the tools; then it goes on without, and they come when they do."""
    connect: float = 60.0
    """From the start of a connection until the tools are listed. ``npx`` may have to fetch what it starts."""
    reply: float = 10.0
    """How long a server that is asked for its tools, to see whether it lives, may take."""
    look: float = 60.0
    """How often a server is looked after whose end nothing tells."""
    pause: float = 1.0
    """The least time between two lists of tools."""
    backoff: float = 0.2
    """The first delay before another connection; it doubles, and half of it to all of it is waited."""
    backoff_max: float = 30.0
    steady: float = 30.0
    """How long a connection that served no call must have lasted to be made again without a delay."""
    patience: float = 5.0
    """How long a call waits for a connection that was lost and is being made again at once."""


@dataclass(frozen=True, slots=True)
class _Connected:
    """A connection that calls may use."""

    client: Client
    link: Link
    names: dict[str, tuple[str, Effect]]
    """The server's own name of each tool, and its effect."""


class McpProvider:
    """Serves the tools of one MCP server."""

    def __init__(self, name: str, link: Callable[[], Link], *, timing: Timing | None = None) -> None:
        """Nothing is started before :meth:`start`; ``link`` makes a way to the server, for one connection each."""
        self._name = name
        self._link = link
        self._timing = timing or Timing()
        self._tools: tuple[Tool, ...] = ()
        self._connected: _Connected | None = None
        self._owner: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._news = asyncio.Event()
        self._calls = 0
        self._served = 0
        self._again = False
        self._settled = asyncio.Event()
        """Set when it is known whether there is a connection; not while a lost one is made again for the first time."""
        self._settled.set()
        self._stopping = False

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._name

    def tools(self) -> Sequence[Tool]:
        """Give the tools listed last; not available while there is no connection."""
        return self._tools

    async def start(self) -> None:
        """Connect. A server that is not there in time, or at all, is waited for in the background."""
        self._owner = asyncio.get_running_loop().create_task(self._own(), name=f"mcp {self._name}")
        try:
            async with asyncio.timeout(self._timing.start):
                await self._tried.wait()
        except TimeoutError:
            _log.warning("the MCP server %s is not ready yet; its tools come when it is", self._name)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the connection, and the server's process where it is ours."""
        self._stopping = True
        while self._owner is not None and not self._owner.done():
            # Again, should a scope inside have taken the cancellation for its own.
            self._owner.cancel()
            await asyncio.wait({self._owner}, timeout=_STOP_SECONDS)

    def refresh(self) -> None:
        """List the tools anew, soon."""
        self._news.set()

    # --- calls

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`.

        The server is told when it is cancelled, and by the protocol does not answer then: it counts as stopped.
        """
        name = f"{self._name}.{invocation.tool}"
        await self._reconnection(name)
        connected = self._connected
        if connected is None or connected.link.lost or invocation.tool not in connected.names:
            told = f"the server of {name} cannot be reached"
            raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True))

        own_name, effect = connected.names[invocation.tool]
        self._calls += 1
        self._served += 1
        try:
            answer = await self._answer(connected, own_name, invocation)
            result, contents = mapping.result_of(name, answer)
            for artifact in result.artifacts:
                if artifact.name in contents:
                    await invocation.artifacts.save(artifact.name, contents[artifact.name], artifact.media_type)
        except MCPError as error:
            raise ToolCallError(self._failure(connected, name, effect, error.error)) from None
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise invalid_output(name, f"it is no result of MCP: {place}: {fault['msg']}") from None
        except asyncio.CancelledError:
            self._news.set()  # perhaps it hangs
            raise
        finally:
            self._calls -= 1

        return result

    async def _reconnection(self, name: str) -> None:
        """Wait, for a while, if the connection was lost this moment and is being made again."""
        if self._connected is not None and self._connected.link.lost:
            self._settled.clear()  # the owner has yet to see it

        try:
            async with asyncio.timeout(self._timing.patience):
                await self._settled.wait()
        except TimeoutError:
            return
        except asyncio.CancelledError:
            raise NotBegunError(f"{name} was told to stop before it began") from None

    async def _answer(self, connected: _Connected, own_name: str, invocation: Invocation) -> types.CallToolResult:
        """Ask until there is an answer: a server may say that it needs to be asked again."""
        session = connected.client.session
        state: str | None = None
        key = {KEY_META: invocation.idempotency_key} if invocation.idempotency_key else {}
        meta = cast("types.RequestParamsMeta", key)  # it may have items of our own

        async def told(progress: float, total: float | None, message: str | None) -> None:
            invocation.report(mapping.progress_of(progress, total, message))

        for _ in range(_ROUNDS_MAX):
            parameters = types.CallToolRequestParams(
                name=own_name,
                arguments=invocation.arguments,
                request_state=state,
                _meta=meta,
            )
            # Not the session's own call_tool: it would check the output as well, with patterns that can hang Python's.
            answer = await session.send_request(
                types.CallToolRequest(params=parameters), _ANSWER, progress_callback=told
            )
            if isinstance(answer, types.CallToolResult):
                return answer

            if answer.input_requests:
                break

            state = answer.request_state
            await asyncio.sleep(_ROUND_SECONDS)

        told_why = "the tool asks the caller for something, which a step of a plan cannot give"
        raise ToolCallError(Failure("INPUT_REQUIRED", f"{self._name}.{invocation.tool}", told_why))

    def _failure(self, connected: _Connected, name: str, effect: Effect, error: types.ErrorData) -> Failure:
        self._news.set()
        # Over pipes we know the end of the connection; over HTTP the transport tells of it by this code.
        lost = connected.link.lost if connected.link.lasting else error.code == types.CONNECTION_CLOSED
        lost = lost or (error.code == types.CONNECTION_CLOSED and self._connected is not connected)
        return mapping.failure_of(name, effect, error, lost=lost)

    # --- the connection, all in one task: what enters a client must leave it

    async def _own(self) -> None:
        timing = self._timing
        delay = timing.backoff
        while not self._stopping:
            link = self._link()
            try:
                await self._live(link)
                why = link.end()
            except asyncio.CancelledError:
                if self._stopping:
                    raise

                why = "its connection was cancelled from inside"
            except Exception as error:  # noqa: BLE001  # the boundary: whatever ends a connection, there will be another
                why = f"{_told(error)} ({link.end()})"

            if self._again:
                self._again, delay = False, timing.backoff
                _log.warning("lost the MCP server %s: %s; connecting anew", self._name, one_line(why, 500))
                continue

            self._withdraw()
            pause = delay * random.uniform(0.5, 1)
            delay = min(delay * 2, timing.backoff_max)
            _log.warning(
                "no connection to the MCP server %s: %s; again in %.1f s", self._name, one_line(why, 500), pause
            )
            await asyncio.sleep(pause)

    async def _live(self, link: Link) -> None:
        """Connect, list the tools, and attend to the connection until it ends."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._timing.connect):
                client = await stack.enter_async_context(
                    Client(
                        link.open(self._news.set),
                        cache=None,
                        client_info=types.Implementation(name="autoglm", version=__version__),
                        message_handler=self._on_message,
                    )
                )
                stack.callback(self._let_go, asyncio.get_running_loop().time(), self._served)
                await self._list(client, link)

            info = client.server_info
            shown = one_line(f"{info.name} {info.version}", 100) if info else "it does not say its name"
            _log.info("connected to the MCP server %s: %s, %d tools", self._name, shown, len(self._tools))

            async with anyio.create_task_group() as tasks:
                capability = client.server_capabilities.tools
                if client.protocol_version in MODERN_PROTOCOL_VERSIONS and capability and capability.list_changed:
                    tasks.start_soon(self._listen, client)

                await self._attend(client, link)
                tasks.cancel_scope.cancel()

    async def _attend(self, client: Client, link: Link) -> None:
        """List the tools anew whenever there are news, until the connection is lost.

        Raises:
            TimeoutError, MCPError: it does not answer any more.
        """
        timing = self._timing
        look = None if link.lasting else timing.look
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(look):
                    await self._news.wait()

            self._news.clear()
            if link.lost:
                return

            try:
                async with asyncio.timeout(timing.reply):
                    await self._list(client, link)
            except TimeoutError:
                if not self._calls:
                    raise TimeoutError("it does not answer") from None

                self._news.set()  # it may be busy with them, and be one that does one thing at a time
            except MCPError:
                if not link.lost:
                    raise

            await asyncio.sleep(timing.pause)

    async def _listen(self, client: Client) -> None:
        """Hear of changes from a server that tells them only to who asks for them."""
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self._news.set()  # what changed before we listened
                    async for _ in changes:
                        self._news.set()
            except (MCPError, SubscriptionLost, TimeoutError) as error:
                _log.debug("the MCP server %s does not tell of changes: %s", self._name, error)

            await asyncio.sleep(self._timing.look)

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._news.set()

    # --- tools

    async def _list(self, client: Client, link: Link) -> None:
        """List the tools, and offer them."""
        listed: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break

        found = mapping.tools_of(listed)
        names = {name: (own, tool.effect) for name, (tool, own) in found.items()}
        self._connected = _Connected(client, link, names)
        self._offer(tuple(tool for tool, _ in found.values()))

        self._tried.set()
        self._settled.set()

    def _let_go(self, began: float, served: int) -> None:
        """Use the connection no more; if it was of use, it is made again at once, and calls wait for that.

        A server that dies of one call is there for the others. How often it is called, its callers bound.
        """
        self._connected = None
        lasted = asyncio.get_running_loop().time() - began
        self._again = self._served != served or lasted >= self._timing.steady
        if self._again:
            self._settled.clear()
        else:
            self._withdraw()

    def _withdraw(self) -> None:
        """Keep the tools on the list while there is no connection, and say that they cannot be called."""
        self._connected = None
        self._tried.set()
        self._settled.set()
        self._offer(tuple(replace(tool, available=False) for tool in self._tools))

    def _offer(self, tools: tuple[Tool, ...]) -> None:
        if tools != self._tools:
            self._tools = tools


def _told(error: BaseException) -> str:
    """Tell of an error in a line; of a group, of the first in it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]

    return f"{type(error).__name__}: {text_of(error)}" if text_of(error) else type(error).__name__
