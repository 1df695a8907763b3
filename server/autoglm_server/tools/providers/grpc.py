"""Tools of anything that serves ``autoglm.v1.ToolService``, in any language; another AutoGLM server is one.

Its deadline is the attempt's, cancelling is passed on, and so are the idempotency key, the context (whose route lets a
server notice a ring of servers) and the digest of the tool that is meant.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from autoglm import wire
from autoglm.model import (
    DOMAIN,
    Approval,
    Artifact,
    CallContext,
    Effect,
    ErrorReason,
    Failure,
    RetryPolicy,
    Tool,
    ToolResult,
)
from autoglm.v1 import tool_pb2, tool_service_pb2
from autoglm_server.tools.artifacts import refused
from autoglm_server.tools.failures import clean, encodable, invalid_output, one_line
from autoglm_server.tools.providers.endpoints import Endpoint
from autoglm_server.tools.providers.links import POLL_SECONDS, Link, OfferError
from autoglm_server.tools.providers.statuses import failure_of
from autoglm_server.tools.tool import PLAN_RUN, Invocation, ToolCallError

TOOLS_MAX: Final = 10_000
"""How many tools one provider may offer."""
LIST_SECONDS: Final = 5.0
"""How long one page of its tools may take."""
FULL_POLLS: Final = 6
"""Each so many polls everything is read: the catalog's digest says nothing of descriptions and availability."""
_STATUS_SECONDS: Final = 0.2
"""How long the end of a call may take to come after its result; then it is cancelled."""
KEEPALIVE_MS: Final = 30_000
_PAGE: Final = 500
_NAME_MAX: Final = 128
_DESCRIPTION_MAX: Final = 16 << 10
_TITLE_MAX: Final = 256
_ATTEMPTS_MAX: Final = 100
_DAY: Final = timedelta(days=1)
_LISTED_MAX: Final = 64

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_RING = re.compile(r"(.+\.)\1\1")
"""A name that goes round three times: servers that mount one another."""
_SERVICE = "/autoglm.v1.ToolService/"

_log = logging.getLogger(__name__)


class GrpcProvider:
    """The tools of one ToolService, or of several replicas of it."""

    def __init__(self, name: str, endpoint: Endpoint, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Serve the tools of ``endpoint``, once started.

        Raises:
            ValueError: the address has a path.
        """
        if endpoint.path:
            raise ValueError(f"the address has the path {endpoint.path!r}; write grpc://HOST:PORT")

        self._name = name
        self._link = Link(
            name,
            endpoint,
            refresh=self._refresh,
            changed=self._show,
            keepalive_ms=KEEPALIVE_MS,
            poll_seconds=poll_seconds,
        )
        self._offered: tuple[Tool, ...] = ()
        self._digests: dict[str, str] = {}
        self._shown: tuple[Tool, ...] = ()
        self._catalog_digest = ""
        self._polls = 0

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self._name

    async def start(self) -> None:
        """Connect; a provider that is away is no error, its tools come when it does."""
        await self._link.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._link.stop()

    def tools(self) -> Sequence[Tool]:
        """Give the tools it offered last; not available while it cannot be reached."""
        return self._shown

    def refresh(self) -> None:
        """Ask soon what it offers."""
        self._link.poke()

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`."""
        own = next((tool for tool in self._offered if tool.name == invocation.tool), Tool())
        name = f"{self._name}.{invocation.tool}"
        request = _request(invocation, own, self._digests.get(own.name, ""))

        async def send(channel: grpc.aio.Channel) -> ToolResult:
            method: Any = channel.unary_stream(_SERVICE + "CallTool")
            call = method(request, timeout=invocation.timeout)
            try:
                return await _outcome(call, invocation, name)
            finally:
                call.cancel()  # nothing, when it has ended

        try:
            return await self._link.send(name, invocation.timeout, send)
        except grpc.RpcError as failed:
            raise self._failed(failed, name, own.effect, invocation.timeout) from None

    def _failed(self, failed: grpc.RpcError, name: str, effect: Effect, timeout: float) -> ToolCallError:
        failure = failure_of(failed, name, effect, timeout=timeout)
        if failure.domain == DOMAIN and failure.reason in _STALE:
            # It is not what we took it for; the next attempt meets what it is now.
            failure = dataclasses.replace(failure, retryable=True)
            self._catalog_digest = ""
            self._link.poke()

        if failure.outcome_unknown:
            self._link.poke()

        return ToolCallError(failure)

    async def _refresh(self, channel: grpc.aio.Channel) -> None:
        """Read the list of tools if it is another one than before."""
        self._polls += 1
        if self._catalog_digest and self._polls % FULL_POLLS:
            page = await _page(channel, 1, "")
            if page.catalog_digest == self._catalog_digest:
                return

        digest, messages = await _all_pages(channel)
        offered: list[Tool] = []
        digests: dict[str, str] = {}
        refused: list[str] = []
        for message in messages:
            if message.name == PLAN_RUN:
                continue  # of another AutoGLM server: only the steps of its own plans can call it

            try:
                tool = _offer(message, f"{self._name}.")
            except ValueError as error:
                refused.append(f"{one_line(message.name, _NAME_MAX)!r} ({one_line(str(error), 200)})")
                continue

            offered.append(tool)
            digests[tool.name] = message.digest

        if tuple(offered) != self._offered or digests != self._digests or self._polls == 1:
            _log.info("the provider %s offers %d tools", self._name, len(offered))
            if refused:
                _log.warning("tools of %s are left out: %s", self._name, ", ".join(refused[:10]))

        self._digests, self._catalog_digest = digests, digest
        if tuple(offered) != self._offered:
            self._offered = tuple(offered)
            self._show()

    def _show(self) -> None:
        """Make the list anew: the catalog compares its identity."""
        reached = self._link.available
        self._shown = tuple(tool if reached else dataclasses.replace(tool, available=False) for tool in self._offered)


_STALE = frozenset({ErrorReason.TOOL_CHANGED.name, ErrorReason.TOOL_NOT_FOUND.name})


def _request(invocation: Invocation, tool: Tool, digest: str) -> bytes:
    arguments = wire.to_struct(invocation.arguments)
    context = invocation.context
    if tool.requires_approval and context.approval is None:
        # Approval is asked for by the server that holds the plan, or refused by its CallTool; so whoever came here has it.
        given = Approval(context.principal, wire.digest(wire.from_message(arguments)))
        context = dataclasses.replace(context, approval=given)

    request = tool_service_pb2.CallToolRequest(
        name=invocation.tool,
        arguments=arguments,
        idempotency_key=invocation.idempotency_key,
        tool_digest=digest,
    )
    if context != CallContext():
        request.context.CopyFrom(wire.to_message(context))  # type: ignore[arg-type]  # a CallContext's message is one

    return request.SerializeToString()


async def _outcome(call: Any, invocation: Invocation, name: str) -> ToolResult:
    """Read a call's messages up to the last."""
    answers = _Answers(call, invocation, name)
    while True:
        message = await answers.next()
        kind = message.WhichOneof("message")
        if kind in ("result", "failure"):
            await _end(call)

        match kind:
            case "artifact_chunk":
                await answers.save(message.artifact_chunk)

            case "result":
                result: ToolResult = answers.read(message.result)
                return result

            case "failure":
                raise ToolCallError(_own_failure(answers.read(message.failure), name))

            case _:
                continue  # a kind of message to come


async def _end(call: Any) -> None:
    """Let a call end by itself, for a moment: cancelled now, its provider would log a fault and gRPC lose memory there.

    Who is told to stop meanwhile stops waiting. What the call came to is known, and counts.
    """
    with suppress(TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(_STATUS_SECONDS):
            await call.code()


class _Answers:
    """The messages of one call, in order. Progress is reported on the way; of the parts of a file one is read ahead."""

    def __init__(self, call: Any, invocation: Invocation, name: str) -> None:
        self._call = call
        self._invocation = invocation
        self._name = name
        self._ahead: tool_service_pb2.CallToolResponse | None = None

    async def next(self) -> tool_service_pb2.CallToolResponse:
        """Give the next message that is no progress.

        Raises:
            grpc.RpcError: the call failed.
            ToolCallError: there is none, or it means nothing.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            return ahead

        while (data := await self._call.read()) is not grpc.aio.EOF:
            try:
                message = tool_service_pb2.CallToolResponse.FromString(data)
            except DecodeError as error:
                raise self._meaningless(error) from None

            if message.WhichOneof("message") != "progress":
                return message

            self._invocation.report(self.read(message.progress))

        call = self._call
        if (code := await call.code()) is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )

        told = f"{self._name} ended without a result or a failure, so nobody knows what it did"
        raise ToolCallError(Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, told, outcome_unknown=True))

    def read(self, message: Any) -> Any:
        """Give a message's value."""
        try:
            return wire.from_message(message)
        except wire.WireError as error:
            raise self._meaningless(error) from None

    async def save(self, first: tool_service_pb2.ArtifactChunk) -> None:
        """Hand in a file, as its parts come; it is what its first part says, or the call has failed."""
        if not first.HasField("artifact"):
            raise refused(f"{self._name} ended, but sent a part of a file without saying of which")

        told: Artifact = self.read(first.artifact)
        async with aclosing(self._parts(first, told)) as parts:
            await self._invocation.artifacts.save(told.name, parts, told.media_type)

    async def _parts(self, first: tool_service_pb2.ArtifactChunk, told: Artifact) -> AsyncGenerator[bytes]:
        """Give a file's parts, and break off at its end if they are not what was told: then nothing is kept."""
        data, size, hashed = first.data, 0, hashlib.sha256()
        while True:
            size += len(data)
            hashed.update(data)
            yield data
            message = await self.next()
            if message.WhichOneof("message") != "artifact_chunk" or message.artifact_chunk.HasField("artifact"):
                self._ahead = message
                break

            data = message.artifact_chunk.data

        if (size, f"sha256:{hashed.hexdigest()}") != (told.size_bytes, told.digest):
            shown = one_line(told.name, _TITLE_MAX)
            raise refused(f"{self._name} ended, but the content of its file {shown!r} does not fit its size and digest")

    def _meaningless(self, error: Exception) -> ToolCallError:
        told = f"it answered what is no CallToolResponse: {one_line(str(error), 200)}"
        return invalid_output(self._name, told)


def _own_failure(failure: Failure, name: str) -> Failure:
    """Give a failure as the tool told it; what it left out is said for it."""
    failure = clean(failure)
    return dataclasses.replace(
        failure,
        reason=failure.reason or ErrorReason.TOOL_ERROR.name,
        message=failure.message or f"{name} failed, and did not say why",
        domain=one_line(failure.domain, _NAME_MAX) or (name if failure.reason else DOMAIN),
    )


async def _all_pages(channel: grpc.aio.Channel) -> tuple[str, list[tool_pb2.Tool]]:
    """Read all tools; the digest is empty when the list changed meanwhile, so that it is read again."""
    found: dict[str, tool_pb2.Tool] = {}
    digests: set[str] = set()
    token = ""
    while True:
        page = await _page(channel, _PAGE, token)
        digests.add(page.catalog_digest)
        new = {tool.name: tool for tool in page.tools}
        if len(found.keys() | new.keys()) > TOOLS_MAX:
            raise OfferError(f"it offers more than {TOOLS_MAX} tools")

        if page.next_page_token and new.keys() <= found.keys():
            raise OfferError("its pages of tools never end: one brought nothing new")

        found |= new
        token = page.next_page_token
        if not token:
            return digests.pop() if len(digests) == 1 else "", list(found.values())


async def _page(channel: grpc.aio.Channel, size: int, token: str) -> tool_service_pb2.ListToolsResponse:
    request = tool_service_pb2.ListToolsRequest(page_size=size, page_token=token)
    method: Any = channel.unary_unary(_SERVICE + "ListTools")
    call = method(request.SerializeToString(), timeout=LIST_SECONDS)
    try:
        return tool_service_pb2.ListToolsResponse.FromString(await call)
    except DecodeError:
        raise OfferError("its answer to ListTools is no ListToolsResponse") from None
    finally:
        call.cancel()


def _offer(message: tool_pb2.Tool, prefix: str) -> Tool:
    """Give a tool as it was offered, within bounds; raises ValueError when it cannot be offered on."""
    tool: Tool = wire.from_message(message)
    if not _NAME.fullmatch(tool.name) or len(prefix) + len(tool.name) > _NAME_MAX:
        raise ValueError(f"its name is not 1 to {_NAME_MAX - len(prefix)} of [A-Za-z0-9_.-]")

    if _RING.match(prefix + tool.name):
        raise ValueError("it comes round a ring of servers that mount one another")

    policy, timeout = tool.retry_policy, tool.timeout
    return dataclasses.replace(
        tool,
        title=one_line(tool.title, _TITLE_MAX),
        description=encodable(tool.description[:_DESCRIPTION_MAX]),
        timeout=timeout if timeout is not None and timedelta(0) < timeout <= _DAY else None,
        retry_policy=policy if policy is not None and _sane(policy) else None,
        tags=tool.tags[:_LISTED_MAX],
        examples=tool.examples[:_LISTED_MAX],
        phrases=tool.phrases[:_LISTED_MAX],
        # What a server has mounted itself may be away; a provider's own tools are there when it answers.
        available=tool.available or not tool.provider,
    )


def _sane(policy: RetryPolicy) -> bool:
    waits = (policy.initial_backoff, policy.max_backoff)
    return (
        0 < policy.max_attempts <= _ATTEMPTS_MAX
        and all(wait is None or timedelta(0) <= wait <= _DAY for wait in waits)
        and 0 <= policy.backoff_multiplier <= 100
    )
