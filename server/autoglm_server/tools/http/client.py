"""Requests to allowed hosts at checked addresses, with bounds on everything."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

import httpcore2

from autoglm._dataclasses import dataclass
from autoglm._version import __version__
from autoglm_server.tools.http.bodies import ENCODINGS, read_body
from autoglm_server.tools.http.errors import LostError, RefusedError, UnreachableError
from autoglm_server.tools.http.hosts import HostRules
from autoglm_server.tools.http.network import CheckedNetwork, Resolver, resolve
from autoglm_server.tools.http.urls import Url, joined

__all__ = ["Answer", "HttpClient", "HttpLimits", "Request"]

Headers = tuple[tuple[str, str], ...]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONNECTIONS = 64
_IDLE_CONNECTIONS = 8
_IDLE_SECONDS = 15.0

# Written by the client itself, or between two neighbours only.
_RESERVED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    },
)
# All that goes along to another host; every other header may be a credential.
_HARMLESS: Final = frozenset({"accept", "accept-language", "user-agent"})


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one request; sizes in bytes, times in seconds. The whole is bounded by the call's own limit."""

    body_bytes: int = 1 << 20
    """The answer's body, on the wire and decoded."""
    redirects: int = 5
    """How many redirects are followed."""
    connect_timeout: float = 10.0
    """Resolving and connecting, and again for TLS."""
    silence: float = 60.0
    """How long a connection may be without a byte."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. Only GET and HEAD follow redirects: what else was sent is sent to nobody else."""

    method: str
    url: Url
    headers: Headers = ()
    body: bytes = b""

    @property
    def is_safe(self) -> bool:
        """Whether it changes nothing by its method."""
        return self.method in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; ``url`` is where, after redirects. Header names are in lower case."""

    status: int
    headers: Headers
    body: bytes
    url: Url

    def header(self, name: str) -> str:
        """Give a header's value, the first of several; empty without it."""
        return next((value for known, value in self.headers if known == name), "")


class HttpClient:
    """Makes requests. It reads no environment: no proxy, no ``.netrc``."""

    def __init__(
        self,
        rules: HostRules,
        *,
        limits: HttpLimits | None = None,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """Talk to whom ``rules`` allow.

        ``tls`` says whose certificates are trusted, the system's by default; ``network`` connects to an address.
        """
        self._rules = rules
        self._limits = limits or HttpLimits()
        self._network = CheckedNetwork(rules, resolver, network)
        self._tls = tls
        self._pools: dict[bool, httpcore2.AsyncConnectionPool] = {}

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

        self._pools.clear()

    async def send(self, request: Request) -> Answer:
        """Make a request and read the whole answer, whatever its status.

        Raises:
            HttpError: there is no answer, or none that may be had; see :mod:`autoglm_server.tools.http.errors`.
        """
        _check_headers(request.headers)
        for _ in range(self._limits.redirects + 1):
            self._rules.check(request.url)
            answer = await self._exchange(request)
            location = answer.header("location")
            if not request.is_safe or answer.status not in _REDIRECTS or not location:
                return answer

            request = _redirected(request, joined(request.url, location))

        raise RefusedError(f"{request.url.origin} redirects more than {self._limits.redirects} times")

    async def _exchange(self, request: Request) -> Answer:
        url = request.url
        target = httpcore2.URL(
            scheme=url.scheme.encode(),
            host=url.host.encode(),
            port=url.port,
            target=url.target.encode("ascii"),
        )
        raw = httpcore2.Request(
            request.method.encode("ascii"),
            target,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in _headers(request)],
            content=request.body,
            extensions={"timeout": self._timeouts()},
        )

        try:
            response = await self._pool(keep=request.is_safe).handle_async_request(raw)
            try:
                # Of a too large or garbled body the rest is not read: closing drops the connection.
                return await self._answer(response, url)
            finally:
                await response.aclose()
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout) as error:
            raise UnreachableError(f"{url.origin} could not be connected to: {_told(error)}") from None
        except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol) as error:
            raise RefusedError(f"the request cannot be sent: {_told(error)}") from None
        except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError) as error:
            raise LostError(f"the connection to {url.origin} broke before it had answered: {_told(error)}") from None

    async def _answer(self, response: httpcore2.Response, url: Url) -> Answer:
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers)
        answer = Answer(response.status, headers, b"", url)
        async with aclosing(response.aiter_stream()) as chunks:
            body = await read_body(chunks, answer.header("content-encoding"), self._limits.body_bytes)

        return Answer(response.status, headers, body, url)

    def _pool(self, *, keep: bool) -> httpcore2.AsyncConnectionPool:
        """Give the connections for requests that may be kept, or used once.

        A kept connection may be closed by its peer at the moment it is used again, and then nobody knows whether the
        request was carried out: only for those that change nothing is that no matter.
        """
        pool = self._pools.get(keep)
        if pool is None:
            pool = self._pools[keep] = httpcore2.AsyncConnectionPool(
                ssl_context=self._tls,
                max_connections=_CONNECTIONS,
                max_keepalive_connections=_IDLE_CONNECTIONS if keep else 0,
                keepalive_expiry=_IDLE_SECONDS,
                network_backend=self._network,
            )

        return pool

    def _timeouts(self) -> dict[str, float]:
        connect, silence = self._limits.connect_timeout, self._limits.silence
        return {"connect": connect, "read": silence, "write": silence, "pool": silence}


def _redirected(request: Request, url: Url) -> Request:
    """Give the request to make next; to another origin no header goes along that may be a credential."""
    headers = request.headers
    if url.origin != request.url.origin:
        headers = tuple((name, value) for name, value in headers if name.lower() in _HARMLESS)

    return Request(request.method, url, headers)


def _headers(request: Request) -> list[tuple[str, str]]:
    own = [("Host", request.url.authority), ("Accept-Encoding", ENCODINGS)]
    if not any(name.lower() == "user-agent" for name, _ in request.headers):
        own.append(("User-Agent", f"autoglm/{__version__}"))

    if request.body or not request.is_safe:
        own.append(("Content-Length", str(len(request.body))))

    return [*own, *request.headers]


def _check_headers(headers: Sequence[tuple[str, str]]) -> None:
    for name, value in headers:
        if name.lower() in _RESERVED:
            raise RefusedError(f"the header {name[:64]} is written by the client; leave it out")

        if not name.isascii() or not value.isascii() or not value.isprintable():
            raise RefusedError(f"the header {name[:64]!r} must be printable ASCII")


def _told(error: Exception) -> str:
    text: Any = str(error) or type(error).__name__
    return str(text)[:200]
