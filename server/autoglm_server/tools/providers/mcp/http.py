"""A server over streamable HTTP, with a bound on every answer and an error for one request, not the end of all.

The library's transport reads JSON answers of any length, and an error of the network in one request ends its whole client.
So it is given an HTTP transport that answers in the server's place, with an error of JSON-RPC, when the server does not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from autoglm._version import __version__
from autoglm_server.tools.providers.mcp.link import MESSAGE_BYTES_MAX, Trouble, error_of

# It logs every request at INFO, with its whole URL.
logging.getLogger("httpx2").setLevel(logging.WARNING)

_CONNECT_SECONDS: Final = 10.0
_GOODBYE_SECONDS: Final = 2.0
_CONNECTIONS_MAX: Final = 512
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class HttpLink:
    """One session with a server; see :class:`~.link.Link`."""

    lasting = False
    lost = False

    def __init__(self, url: str, token: Callable[[], str] = str) -> None:
        """Nothing is sent before :meth:`open`; ``token`` gives the bearer token to send, empty for none."""
        self._url = url
        self._token = token
        self._why = ""

    def end(self) -> str:
        """Tell what is known of its end."""
        return self._why or "it does not answer"

    @asynccontextmanager
    async def open(self, news: Callable[[], None]) -> AsyncIterator[Any]:
        """Give the session's messages in and out; ends it when left."""

        def troubled(why: str) -> None:
            self._why = why
            news()

        headers = {"accept-encoding": "identity", "user-agent": f"autoglm/{__version__}"}
        if token := self._token():
            headers["authorization"] = f"Bearer {token}"

        limits = httpx2.Limits(max_connections=_CONNECTIONS_MAX, max_keepalive_connections=20)
        bounded = _Bounded(httpx2.AsyncHTTPTransport(limits=limits, trust_env=False), troubled)
        # Calls have limits of their own; a stream of events may say nothing for hours.
        timeout = httpx2.Timeout(_CONNECT_SECONDS, read=None)
        async with (
            httpx2.AsyncClient(transport=bounded, headers=headers, timeout=timeout, trust_env=False) as client,
            streamable_http_client(self._url, http_client=client, max_sse_event_size=MESSAGE_BYTES_MAX) as streams,
        ):
            yield streams


class _Bounded(httpx2.AsyncBaseTransport):
    """Reads every answer but streams of events, up to a limit, and answers itself when there is none."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, troubled: Callable[[str], None]) -> None:
        self._inner = inner
        self._troubled = troubled

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":  # the end of the session: a courtesy
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), _GOODBYE_SECONDS)

        try:
            return await self._answer(request)
        except _NOT_SENT as error:
            return self._instead(request, Trouble.UNREACHABLE, f"it cannot be reached: {_told(error)}")
        except httpx2.TransportError as error:
            return self._instead(request, Trouble.LOST, f"the connection ended before the answer: {_told(error)}")

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        events = kind == "text/event-stream" and response.status_code < 300
        if encoding not in {"", "identity"}:
            await response.aclose()
            return self._instead(
                request, Trouble.LOST, f"its answer is compressed ({encoding}), which was not asked for"
            )

        if events:
            return response

        body = await _read(response)
        if body is None:
            told = f"its answer has more than {MESSAGE_BYTES_MAX} bytes, which is all that is taken"
            return _refusal(request, Trouble.TOO_LARGE, told)

        if response.status_code >= 400 and kind != "application/json" and response.status_code != 404:
            told = f"it answered {response.status_code} {response.reason_phrase}".rstrip()
            return self._instead(request, Trouble.LOST, told, response.status_code)

        if response.status_code >= 400:
            self._troubled(f"it answered {response.status_code} {response.reason_phrase}".rstrip())

        headers = [(key, value) for key, value in response.headers.multi_items() if key.lower() not in _BODY_HEADERS]
        return httpx2.Response(
            response.status_code, headers=headers, content=body, request=request, extensions=response.extensions
        )

    def _instead(self, request: httpx2.Request, trouble: Trouble, told: str, status: int = 502) -> httpx2.Response:
        self._troubled(told)
        return _refusal(request, trouble, told, status)


_BODY_HEADERS: Final = frozenset({"content-length", "transfer-encoding", "connection"})


async def _read(response: httpx2.Response) -> bytes | None:
    """Give the body; ``None`` when it is too long."""
    parts, length = [], 0
    try:
        async for part in response.aiter_raw():
            length += len(part)
            if length > MESSAGE_BYTES_MAX:
                return None

            parts.append(part)
    finally:
        await response.aclose()

    return b"".join(parts)


def _refusal(request: httpx2.Request, trouble: Trouble, told: str, status: int = 502) -> httpx2.Response:
    error = {"jsonrpc": "2.0", "id": None, "error": error_of(trouble, told)}
    return httpx2.Response(
        status, headers={"content-type": "application/json"}, content=json.dumps(error).encode(), request=request
    )


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
