"""A small HTTP server on this machine, whose answers a test writes byte for byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from autoglm_server.tools.http.hosts import HostRule, HostRules


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Served:
    """The server: where it listens, and what it was asked."""

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0


def answer(
    status: int = 200, body: bytes | str = b"", headers: Sequence[tuple[str, str]] = (), *, length: bool = True
) -> bytes:
    """Write an answer."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers)]
    if length:
        lines.append(f"Content-Length: {len(body)}")

    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def always(data: bytes) -> Handler:
    """Answer every request with ``data``."""

    async def handle(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return handle


def routes(table: dict[str, bytes]) -> Handler:
    """Answer by the path of the target."""

    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(table.get(seen.target.partition("?")[0], answer(404)))

    return handle


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Serve ``handler`` on a free port of 127.0.0.1."""
    served = Served()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while (seen := await _read(reader)) is not None:
                served.seen.append(seen)
                await handler(seen, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for task in tasks:
            task.cancel()

        if tasks:
            await asyncio.wait(tasks)


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    line = (await reader.readline()).decode().split()
    if len(line) < 2:
        return None

    headers: dict[str, str] = {}
    while (text := (await reader.readline()).decode("latin-1").strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()

    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(line[0], line[1], headers, body)


def resolver(**hosts: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """Give a name server that knows ``hosts`` (with ``_`` for ``.``), and addresses by themselves."""
    known = {name.replace("_", "."): addresses for name, addresses in hosts.items()}

    async def resolve(host: str, _port: int) -> Sequence[str]:
        if host in known:
            return known[host]

        if host.replace(".", "").isdigit() or ":" in host:
            return [host]

        raise OSError(f"no address for {host}")

    return resolve


def anything(*private: str) -> HostRules:
    """Allow every host, with ``private`` at private addresses."""
    return HostRules([HostRule.parse("http://*:*"), HostRule.parse("https://*:*")], private)
