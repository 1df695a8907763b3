"""A server over the pipes of its own process: one JSON-RPC message a line.

In place of the library's own transport, which starts processes by the event loop (see :mod:`.children`), reads lines of
any length, and hands on the server's whole environment when asked for one variable.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage

from autoglm_server.tools.failures import one_line
from autoglm_server.tools.providers.mcp import children
from autoglm_server.tools.providers.mcp.lines import Lines, LongLine
from autoglm_server.tools.providers.mcp.link import MESSAGE_BYTES_MAX, Trouble, error_of
from autoglm_server.tools.providers.mcp.pipes import CHUNK, Pipe
from autoglm_server.tools.providers.threads import ThreadPool

_log = logging.getLogger(__name__)

_NOISE_MAX: Final = 100
"""How many lines that are no messages are passed over before the server is given up."""
_LOG_LINE_MAX: Final = 500
_FLUSH_SECONDS: Final = 0.5

_ID = rb'"id"\s*:\s*(\d{1,18})\s*'
_ID_IN_HEAD = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?' + _ID + rb",")
_ID_IN_TAIL = re.compile(rb",\s*" + _ID + rb'(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')

_Incoming = MemoryObjectSendStream[SessionMessage | Exception]
_Outgoing = MemoryObjectReceiveStream[SessionMessage]
_Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


class StdioLink:
    """One start of a server's process; see :class:`~.link.Link`."""

    lasting = True

    def __init__(self, name: str, words: Sequence[str], environment: Callable[[], Mapping[str, str]]) -> None:
        """Nothing is started before :meth:`open`; ``environment`` gives all variables that the command gets."""
        self._name = name
        self._words = words
        self._environment = environment
        self._threads = ThreadPool(f"mcp-{name}", 2)
        self._last_words = ""
        self._why = ""
        self._noise = 0
        self.lost = False
        self.pid = 0
        """The number of the process, once there is one."""

    def end(self) -> str:
        """Tell what is known of its end."""
        words = f"; its last words: {self._last_words}" if self._last_words else ""
        return (self._why or "its connection ended") + words

    @asynccontextmanager
    async def open(self, news: Callable[[], None]) -> AsyncIterator[_Streams]:
        """Start the process, and give its messages in and out; ends it when left."""
        child = await children.start(self._threads, f"mcp server {self._name}", self._words, self._environment())
        self.pid = child.pid
        ended = self._threads.submit(child.wait, f"mcp server {self._name}")
        try:
            async with self._pipes(child, news) as streams:
                yield streams
        finally:
            # Its input has ended with the pipes; only now are its words on stderr and its status worth waiting for.
            await children.end(child, ended)
            if ended.future.done():
                self._why = self._why or children.told(ended.future.result())
            else:
                _log.error("the process %d of the MCP server %s cannot be killed", child.pid, self._name)

            self._threads.stop()

    @asynccontextmanager
    async def _pipes(self, child: children.Child, news: Callable[[], None]) -> AsyncIterator[_Streams]:
        into, output, messages = Pipe(child.input), Pipe(child.output), Pipe(child.messages)
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write(into, outgoing, incoming))
                others = [
                    tasks.create_task(self._read(output, incoming, child, news)),
                    tasks.create_task(self._listen(messages)),
                ]
                try:
                    yield read, write
                finally:
                    self.lost = True
                    read.close()
                    write.close()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_FLUSH_SECONDS):
                            await asyncio.wait({writing})

                    for task in (writing, *others):
                        task.cancel()
        finally:
            for pipe in (into, output, messages):
                pipe.close()

            for stream in (incoming, read, write, outgoing):
                stream.close()

    async def _read(self, output: Pipe, incoming: _Incoming, child: children.Child, news: Callable[[], None]) -> None:
        """Hand the process's messages on; when there are no more, the connection has ended."""
        lines = Lines(MESSAGE_BYTES_MAX)
        try:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while chunk := await output.read():
                    for line in lines.feed(chunk):
                        if (message := self._message(line)) is not None:
                            await incoming.send(SessionMessage(message))

                    if self._noise > _NOISE_MAX:
                        self._why = f"it wrote {self._noise} lines that are no messages of MCP"
                        child.signal(signal.SIGKILL)
                        return
        finally:
            # Before the session hears of it: a call that fails by it asks for this.
            self.lost = True
            incoming.close()
            news()

    def _message(self, line: bytes | LongLine) -> types.JSONRPCMessage | None:
        if isinstance(line, LongLine):
            return self._too_long(line)

        if not line.strip():
            return None

        try:
            return types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._noise += 1
            if self._noise == 1:
                shown = one_line(line[:_LOG_LINE_MAX].decode("utf-8", "replace"), _LOG_LINE_MAX)
                _log.warning("the MCP server %s wrote a line that is no message: %s", self._name, shown)

            return None

    def _too_long(self, line: LongLine) -> types.JSONRPCMessage | None:
        """Answer the request whose answer was too long; it was not kept, but for its ends, where its id stands."""
        found = _ID_IN_HEAD.match(line.head) or _ID_IN_TAIL.search(line.tail)
        told = f"its answer has {line.length} bytes; at most {MESSAGE_BYTES_MAX} are taken"
        _log.warning("the MCP server %s: %s", self._name, told)
        if found is None:
            return None

        error = types.ErrorData.model_validate(error_of(Trouble.TOO_LARGE, told))
        return types.JSONRPCError(jsonrpc="2.0", id=int(found[1]), error=error)

    async def _write(self, into: Pipe, outgoing: _Outgoing, incoming: _Incoming) -> None:
        try:
            with suppress(anyio.ClosedResourceError):
                async for item in outgoing:
                    await into.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        except OSError:
            incoming.close()  # it does not listen any more: requests must not wait for answers

    async def _listen(self, messages: Pipe) -> None:
        """Put what the process writes to stderr into the log, and remember the last of it."""
        lines = Lines(CHUNK)
        while chunk := await messages.read():
            for line in lines.feed(chunk):
                text = line.head if isinstance(line, LongLine) else line
                if shown := one_line(text[:_LOG_LINE_MAX].decode("utf-8", "replace"), _LOG_LINE_MAX):
                    self._last_words = shown
                    _log.debug("MCP server %s: %s", self._name, shown)
