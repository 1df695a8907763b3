"""A TCP proxy that delays, cuts, freezes and damages the connections through it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final

CHUNK: Final = 4096
DAMAGED_SECONDS: Final = 1.0
"""How long a connection goes on at most after a piece of it was damaged."""
Spoil = Callable[[Random, bytes], bytes]
"""Gives a piece as it comes out damaged."""


def flip(random: Random, piece: bytes) -> bytes:
    """Turn one bit over."""
    spoiled = bytearray(piece)
    spoiled[random.randrange(len(piece))] ^= 1 << random.randrange(8)
    return bytes(spoiled)


def drop(random: Random, piece: bytes) -> bytes:
    """Leave out some of it, up to all."""
    begin = random.randrange(len(piece))
    return piece[:begin] + piece[begin + random.randint(1, len(piece)) :]


def double(random: Random, piece: bytes) -> bytes:
    """Give some of it twice."""
    begin = random.randrange(len(piece))
    end = begin + random.randint(1, len(piece))
    return piece[:end] + piece[begin:]


SPOILS: Final[tuple[Spoil, ...]] = (flip, drop, double)


class Damage:
    """Damages a number of pieces, one in each connection: after some bytes, and either way."""

    def __init__(self, random: Random, count: int, *, spoils: tuple[Spoil, ...] = SPOILS, bytes_max: int) -> None:
        """Each comes after up to ``bytes_max``; how many, in orders of magnitude, is even."""
        self.left = count
        self.done: list[str] = []
        self._random = random
        self._spoils = spoils
        self._bytes_max = bytes_max

    def after(self) -> float:
        """Say after how many bytes of a new connection it comes."""
        return float(self._bytes_max ** self._random.uniform(0.3, 1.0))

    def spoil(self, piece: bytes) -> bytes:
        """Damage a piece."""
        spoil = self._random.choice(self._spoils)
        self.left -= 1
        self.done.append(spoil.__name__)
        return spoil(self._random, piece)


class Connection:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.frozen = asyncio.Event()
        self.closed_by_server = asyncio.Event()
        self.sound: dict[bool, float] = {}
        """How many bytes from the client and from the server are left before one is damaged."""

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

    def __init__(self, target: str, random: Random, *, delay: float = 0.0, damage: Damage | None = None) -> None:
        """``delay`` is the longest that a piece is held back, in seconds."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._random = random
        self._delay = delay
        self._damage = damage
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
        if self._damage is not None:
            # A client sends little, so what damages that must come soon, and not always.
            sent = self._random.uniform(0.0, 2000.0) if self._random.random() < 0.2 else float("inf")
            connection.sound = {True: self._damage.after(), False: sent}

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

                writer.write(self._through(connection, data, from_server=from_server))
                await writer.drain()

        if from_server:
            connection.closed_by_server.set()

    def _through(self, connection: Connection, piece: bytes, *, from_server: bool) -> bytes:
        """Give a piece as it goes on; what has been damaged once is cut a moment later, so that nobody waits for a keepalive."""
        damage = self._damage
        if damage is None or damage.left <= 0 or not connection.sound:
            return piece

        connection.sound[from_server] -= len(piece)
        if connection.sound[from_server] > 0:
            return piece

        connection.sound.clear()
        asyncio.get_running_loop().call_later(self._random.uniform(0.0, DAMAGED_SECONDS), connection.cut)
        return damage.spoil(piece)
