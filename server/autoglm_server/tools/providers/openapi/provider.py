"""An OpenAPI document as a provider: its operations are tools, their calls are requests to its service."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Final

from autoglm._dataclasses import dataclass
from autoglm.model import DOMAIN, ErrorReason, Failure, Tool, ToolResult
from autoglm_server.tools.http.client import HttpClient, HttpLimits, Request
from autoglm_server.tools.http.errors import HttpError, RefusedError
from autoglm_server.tools.http.failures import failure_of
from autoglm_server.tools.http.hosts import HostRule, HostRules
from autoglm_server.tools.http.network import Resolver, resolve
from autoglm_server.tools.http.urls import Url, parse_url
from autoglm_server.tools.providers.openapi.document import BYTES_MAX, Document, DocumentError, parse
from autoglm_server.tools.providers.openapi.operations import Choices, Operation, Operations, read_operations
from autoglm_server.tools.providers.openapi.requests import make_request, read_answer
from autoglm_server.tools.providers.openapi.security import Scheme, Shown, read_schemes
from autoglm_server.tools.secrets import SecretError, Secrets
from autoglm_server.tools.tool import Invocation, ToolCallError

BACKOFF_SECONDS: Final = (1.0, 60.0)
"""The first and the longest wait before a document that cannot be had is asked for again; doubled, with full jitter."""
START_SECONDS: Final = 5.0
"""How long a server that starts waits for a document from elsewhere; a later one comes while it serves."""
ANSWER_BYTES_MAX: Final = 4 << 20
"""The largest body of an answer: JSON with its blanks is longer than the output it makes, which has its own limit."""
_REFUSED_TOLD = 10
_CLIENTS_MAX = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A document: where it is, and what the settings say about it. ``headers`` may hold references to secrets."""

    location: str
    choices: Choices = field(default_factory=Choices)
    headers: Mapping[str, str] = field(default_factory=dict)
    refresh: float = 300.0
    """How often it is read again, in seconds."""
    depth_max: int = 32

    @property
    def is_url(self) -> bool:
        """Whether it is fetched, rather than read from a file."""
        return self.location.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was made of a document."""

    digest: str
    operations: Operations
    schemes: Mapping[str, Scheme]
    tools: tuple[Tool, ...]
    client: HttpClient


class OpenApiProvider:
    """Serves the operations of one document."""

    def __init__(
        self,
        name: str,
        source: Source,
        secrets: Secrets | None = None,
        *,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Serve what is at ``source``; ``tls`` says whose certificates are trusted.

        Raises:
            ValueError: the location or the server is no URL.
        """
        self._name = name
        self._source = source
        self._secrets = secrets or Secrets()
        self._resolver = resolver
        self._tls = tls
        self._jitter = jitter
        self._loaded: _Loaded | None = None
        self._clients: list[HttpClient] = []
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._now = asyncio.Event()
        try:
            self._named = _named(source)
        except RefusedError as error:
            raise ValueError(f"provider {name}: {error}") from None

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._name

    async def start(self) -> None:
        """Read the document. A service that is away is no error: it is asked again, and its tools come then.

        Raises:
            ValueError: a file is not there, or holds no document that can be used.
        """
        if not self._source.is_url:
            try:
                await self._load()
            except DocumentError as error:
                raise ValueError(f"provider {self._name}: {self._source.location}: {error}") from None

        self._task = asyncio.get_running_loop().create_task(self._keep())
        if self._source.is_url:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(START_SECONDS):
                    await self._asked.wait()

    async def stop(self) -> None:
        """Stop reading, and close all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

        for client in self._clients:
            await client.close()

        self._clients.clear()

    def tools(self) -> Sequence[Tool]:
        """Give the operations as tools; another list when the document has changed."""
        return self._loaded.tools if self._loaded else ()

    def refresh(self) -> None:
        """Read the document again, now."""
        self._now.set()

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`."""
        loaded = self._loaded
        operation = loaded.operations.by_name.get(invocation.tool) if loaded else None
        tool = f"{self._name}.{invocation.tool}"
        if loaded is None or operation is None:
            told = f"{tool} is not in the document of its service any more"
            raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True))

        try:
            answer = await loaded.client.send(self._request(loaded, operation, invocation))
        except HttpError as error:
            raise ToolCallError(failure_of(error, tool, operation.tool.effect)) from None
        except SecretError as error:
            _log.error("%s: %s", tool, error)
            told = f"{tool} was not called: a credential of it is missing; the server's log says which"
            raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told)) from None

        return await read_answer(answer, operation, tool, self._source.depth_max, invocation.artifacts)

    def _request(self, loaded: _Loaded, operation: Operation, invocation: Invocation) -> Request:
        shown = Shown()
        for name in operation.schemes:
            shown.add(loaded.schemes[name], self._secrets.expand(self._source.choices.credentials[name]))

        headers = [(name, self._secrets.expand(value)) for name, value in self._source.headers.items()]
        return make_request(operation, invocation.arguments, shown, headers, invocation.idempotency_key)

    # --- the document

    async def _keep(self) -> None:
        """Read the document again and again: soon, with backoff, after it could not be had."""
        wait = 0.0 if self._source.is_url else self._source.refresh
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._now.wait()

            self._now.clear()
            try:
                await self._load()
                failures = 0
                wait = self._source.refresh
            except (DocumentError, HttpError) as error:
                least, most = BACKOFF_SECONDS
                wait = min(least * 2 ** min(failures, 10), most) * self._jitter()
                if not failures:
                    _log.warning("provider %s: %s: %s", self._name, self._source.location.partition("?")[0], error)

                failures += 1
            except Exception:  # noqa: BLE001
                # The boundary: whatever is in a document, the server goes on with the one before.
                _log.exception("provider %s: its document could not be read", self._name)
                wait = self._source.refresh
            finally:
                self._asked.set()

    async def _load(self) -> None:
        data = await self._data()
        digest = hashlib.sha256(data).hexdigest()
        if self._loaded is not None and self._loaded.digest == digest:
            return

        document, operations = await asyncio.to_thread(self._read, data)
        if not operations.by_name:
            why = next(iter(operations.refused.values()), "it has none that the settings include")
            raise DocumentError(f"none of its operations can be offered: {why}")

        rules = HostRules([_rule(operation.base) for operation in operations.by_name.values()], self._named)
        limits = HttpLimits(body_bytes=ANSWER_BYTES_MAX)
        client = HttpClient(rules, limits=limits, resolver=self._resolver, tls=self._tls)
        # Those before stay open for a while: calls may be under way.
        self._clients.append(client)
        if len(self._clients) > _CLIENTS_MAX:
            await self._clients.pop(0).close()

        tools = tuple(operation.tool for operation in operations.by_name.values())
        self._loaded = _Loaded(digest, operations, read_schemes(document), tools, client)
        self._tell(operations)

    def _read(self, data: bytes) -> tuple[Document, Operations]:
        document = parse(data)
        location = self._source.location if self._source.is_url else ""
        return document, read_operations(document, location, self._source.choices)

    async def _data(self) -> bytes:
        if not self._source.is_url:
            return await asyncio.to_thread(_file, self._source.location)

        rules = HostRules([_rule(self._source.location), HostRule.parse("https://*:*")], self._named)
        limits = HttpLimits(body_bytes=BYTES_MAX, silence=20.0)
        client = HttpClient(rules, limits=limits, resolver=self._resolver, tls=self._tls)
        try:
            answer = await client.send(Request("GET", parse_url(self._source.location)))
        finally:
            await client.close()

        if answer.status != 200:
            raise DocumentError(f"the document cannot be had: its server answered {answer.status}")

        return answer.body

    def _tell(self, operations: Operations) -> None:
        _log.info("provider %s: %d operations", self._name, len(operations.by_name))
        for name, why in list(operations.refused.items())[:_REFUSED_TOLD]:
            _log.warning("provider %s: the operation %s is not offered: %s", self._name, name, why)

        if len(operations.refused) > _REFUSED_TOLD:
            _log.warning(
                "provider %s: and %d more are not offered", self._name, len(operations.refused) - _REFUSED_TOLD
            )


def _named(source: Source) -> list[str]:
    """Give the hosts that the settings name: these alone may be at private addresses, not one that a document names."""
    return [parse_url(text).host for text in (source.location if source.is_url else "", source.choices.server) if text]


def _rule(base: str) -> HostRule:
    url: Url = parse_url(base)
    return HostRule(url.scheme, url.host, url.port)


def _file(path: str) -> bytes:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(BYTES_MAX + 1)
    except OSError as error:
        raise DocumentError(error.strerror or "cannot be read") from None
