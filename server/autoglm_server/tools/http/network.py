"""Connecting to the address that was checked.

A name is resolved once for a connection; every address it has must be allowed, and one of just these is connected to. So a
name server that answers otherwise a moment later (rebinding) changes nothing. TLS still asks for the name, since the
client gives it apart from the address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

import httpcore2

from autoglm_server.tools.http.addresses import refusal
from autoglm_server.tools.http.errors import RefusedError, UnreachableError
from autoglm_server.tools.http.hosts import HostRules

Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives all addresses of a host, as text; raises OSError when it has none."""

_ADDRESSES_MAX = 16


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """A network in which only allowed addresses exist."""

    def __init__(
        self,
        rules: HostRules,
        resolver: Resolver = resolve,
        inner: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """Connect to hosts at addresses that ``rules`` allow them; whether they may be talked to was checked before.

        ``inner`` connects to an address, given as text.
        """
        self._rules = rules
        self._resolver = resolver
        self._inner = inner or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
        local_address: str | None = None,  # noqa: ARG002 - likewise
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - likewise
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check all, connect to the first that answers.

        Raises:
            RefusedError: an address of the host is not allowed.
            UnreachableError: it has none, or none answers.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._checked(host, port)
                share = None if timeout is None else timeout / len(addresses)
                return await self._first(host, port, addresses, share)
        except TimeoutError:
            raise UnreachableError(f"{host}:{port} could not be connected to within {timeout:g} s") from None

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"the host {host} has no address: {_why(error)}") from None

        private = self._rules.is_private(host)
        for address in addresses:
            if told := refusal(address, private=private):
                raise RefusedError(f"the host {host} is at {address}, which {told}")

        if not addresses:
            raise UnreachableError(f"the host {host} has no address")

        return addresses[:_ADDRESSES_MAX]

    async def _first(
        self, host: str, port: int, addresses: Sequence[str], share: float | None
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address that answers, each within its ``share`` of the time: one may answer nothing at all."""
        told = ""
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout=share)
            except (httpcore2.NetworkError, httpcore2.ConnectTimeout) as error:
                told = str(error)

        raise UnreachableError(f"{host}:{port} could not be connected to: {told or 'no address answers'}")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
