"""A TCP proxy that delays, cuts and freezes the connections through it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Final

CHUNK: Final = 4096


class Connection:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.frozen = asyncio.Event()
        self.closed_by_server = asyncio.Event()

    def cut(self) -> None:
        """Reset both sides at once."""
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.abort()

    def freeze(self) -> None:
        """Let nothing through any more, and leave both sides open: a peer whose machine stands still."""
        self.frozen.set()


class Proxy:
    """Listens on a port of its own, and forwards to another."""

    def __init__(self, target: str, random: Random, *, delay: float = 0.0) -> None:
        """``delay`` is the longest that a piece is held back, in seconds."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._random = random
        self._delay = delay
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections: list[Connection] = []
        self.address = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % self._server.sockets[0].getsockname()[1]  # noqa: UP031

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

        for connection in list(self.connections):
            connection.cut()

        for task in list(self._tasks):
            task.cancel()

        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return

        connection = Connection(writer, server_writer)
        self.connections.append(connection)
        loop = asyncio.get_running_loop()
        pumps = [
            loop.create_task(self._pump(connection, reader, server_writer, from_server=False)),
            loop.create_task(self._pump(connection, server_reader, writer, from_server=True)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if not connection.frozen.is_set():
            connection.cut()
            self.connections.remove(connection)

        self._tasks.difference_update(pump for pump in pumps if pump.done())

    async def _pump(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if connection.frozen.is_set():
                    continue  # read and dropped: only so is it seen when the server closes

                if self._delay and self._random.random() < 0.1:
                    await asyncio.sleep(self._random.uniform(0.0, self._delay))

                writer.write(data)
                await writer.drain()

        if from_server:
            connection.closed_by_server.set()
