"""ToolService: the catalog for callers, and direct calls, which are checked like a plan's but journaled nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from autoglm import wire
from autoglm._ids import new_id
from autoglm.errors import error
from autoglm.model import DOMAIN, CallContext, ErrorReason, Failure, Tool, ToolResult
from autoglm.v1 import tool_pb2, tool_service_pb2_grpc
from autoglm.v1 import tool_service_pb2 as pb
from autoglm_server.service import pages, validate
from autoglm_server.service.mailbox import Mailbox
from autoglm_server.service.plans import accept
from autoglm_server.service.principal import principal_of
from autoglm_server.tools.tool import AbandonedError, Invocation, ToolCallError

if TYPE_CHECKING:
    import grpc.aio

    from autoglm_server.service.artifacts import Artifacts
    from autoglm_server.settings import LimitSettings

    _Context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)


class CatalogPort(Protocol):
    """What the edge needs of the catalog."""

    @property
    def digest(self) -> str:
        """Changes when any tool does."""
        ...

    def get(self, name: str) -> Tool | None:
        """Give a tool."""
        ...

    def tools(self, allowed: Sequence[str] = ()) -> list[Tool]:
        """Give the tools, all or those that globs allow."""
        ...

    def nearest(self, name: str) -> list[str]:
        """Give names that may have been meant."""
        ...

    async def call(self, invocation: Invocation, *, tool_digest: str = "") -> ToolResult:
        """Make a call, with all checks.

        Raises:
            ToolCallError: the call failed, as data.
        """
        ...


class ToolService(tool_service_pb2_grpc.ToolServiceServicer):
    """The edge of tools. ``server_id`` is what this server adds to a call's route."""

    def __init__(
        self,
        *,
        catalog: CatalogPort,
        artifacts: Artifacts,
        server_id: str,
        limits: LimitSettings,
        timeout: timedelta,
    ) -> None:
        """``timeout`` is for tools that name none; ``artifacts`` holds the files of calls until they are sent."""
        self._catalog = catalog
        self._artifacts = artifacts
        self._server_id = server_id
        self._limits = limits
        self.timeout = timeout
        """The time limit of calls of tools that name none."""
        self._places = asyncio.Semaphore(limits.direct_calls)
        self.active = 0
        """Direct calls under way now."""

    async def ListTools(self, request: pb.ListToolsRequest, context: _Context) -> pb.ListToolsResponse:
        """Give a page of tools."""
        accept(validate.list_tools(request))
        filters = pages.filters_of(request)
        after = pages.place_of(request.page_token, filters)
        tools = sorted((tool for tool in self._catalog.tools() if _fits(tool, request)), key=lambda tool: tool.name)
        left = [tool for tool in tools if tool.name > after]
        page = self._page(left, pages.page_size(request.page_size))
        more = pages.token(page[-1].name, filters) if len(page) < len(left) else ""
        return pb.ListToolsResponse(tools=page, next_page_token=more, catalog_digest=self._catalog.digest)

    async def GetTool(self, request: pb.GetToolRequest, context: _Context) -> pb.GetToolResponse:
        """Give one tool."""
        accept(validate.get_tool(request))
        return pb.GetToolResponse(tool=_tool_message(self._find(request.name)))

    async def CallTool(self, request: pb.CallToolRequest, context: _Context) -> None:  # type: ignore[override]
        """Call a tool: progress while it runs, then its files and its result, or its failure."""
        accept(validate.call_tool(request, self._limits))
        tool = self._find(request.name)
        self._admit(request, tool)

        async with self._places:
            self.active += 1

            try:
                await self._stream(request, tool, context)
            finally:
                self.active -= 1

    async def _stream(self, request: pb.CallToolRequest, tool: Tool, context: _Context) -> None:
        """Make the call and send what it reports, then what it came to."""
        mailbox = Mailbox()
        place = f"call.{new_id()}"  # no plan's id has a dot
        files = self._artifacts.sink(place)
        first = True
        invocation = replace(self._invocation(request, tool, context, mailbox), artifacts=files)

        try:
            async with asyncio.TaskGroup() as tasks:
                call = tasks.create_task(self._outcome(invocation, request.tool_digest))
                call.add_done_callback(lambda _: mailbox.close())

                while (progress := await mailbox.next()) is not None:
                    told: Any = wire.to_message(progress)
                    await self._artifacts.send(context, pb.CallToolResponse(progress=told), first=first)
                    first = False

                last = await call
                for named in last.result.artifacts:
                    if (artifact := files.saved.get(named.name)) and artifact.digest == named.digest:
                        await self._artifacts.chunks(context, place, artifact, first=first)
                        first = False

                await self._artifacts.send(context, last, first=first)
        except ExceptionGroup as group:  # what the call fails with is data, so this is what could not be sent
            raise group.exceptions[0] from None
        finally:
            if files.used:
                await self._artifacts.store.remove(place)

    def _find(self, name: str) -> Tool:
        if tool := self._catalog.get(name):
            return tool

        near = self._catalog.nearest(name)
        there = "ListTools (autoglm tools) says which there are; some need an extra or a setting (autoglm doctor)"
        hint = f"did you mean {', '.join(near[:3])}?" if near else there
        raise error(ErrorReason.TOOL_NOT_FOUND, f"there is no tool {name!r}; {hint}", tool=name)

    def _admit(self, request: pb.CallToolRequest, tool: Tool) -> None:
        """Refuse a call that came through here before, means another tool, or lacks the approval it needs."""
        route = request.context.route

        if self._server_id in route:
            path = ",".join(route)
            message = f"the call came through this server before: {path}; unmount one of the servers from the other"
            raise error(ErrorReason.ROUTE_LOOP, message, route=path)

        if request.tool_digest and request.tool_digest != tool.digest:
            message = f"{tool.name} has digest {tool.digest} by now, not {request.tool_digest}; get the tool again"
            raise error(ErrorReason.TOOL_CHANGED, message, tool=tool.name, digest=tool.digest)

        if tool.requires_approval and not _approved(request):
            message = f"{tool.name} needs a person's approval: call it as a step of a plan, which asks for it"
            raise error(ErrorReason.APPROVAL_REQUIRED, message, tool=tool.name)

    def _invocation(self, request: pb.CallToolRequest, tool: Tool, context: _Context, mailbox: Mailbox) -> Invocation:
        limit = (tool.timeout or self.timeout).total_seconds()
        remaining = context.time_remaining()
        asked: CallContext = wire.from_message(request.context)
        principal = asked.principal or principal_of(context)
        return Invocation(
            tool=tool.name,
            arguments=wire.from_message(request.arguments),
            idempotency_key=request.idempotency_key,
            timeout=limit if remaining is None else min(limit, remaining),
            context=replace(asked, principal=principal, route=(*asked.route, self._server_id)),
            report=mailbox.put,
        )

    async def _outcome(self, invocation: Invocation, tool_digest: str) -> pb.CallToolResponse:
        """Make the call; its failure is data."""
        try:
            result = await self._catalog.call(invocation, tool_digest=tool_digest)
        except ToolCallError as failed:
            return pb.CallToolResponse(failure=wire.to_message(failed.failure))  # type: ignore[arg-type]
        except AbandonedError:
            _log.warning("a direct call could not be stopped and may still be running", extra={"tool": invocation.tool})
            failure = Failure("CANCELLED", DOMAIN, "the call could not be stopped", outcome_unknown=True)
            return pb.CallToolResponse(failure=wire.to_message(failure))  # type: ignore[arg-type]

        return pb.CallToolResponse(result=wire.to_message(result))  # type: ignore[arg-type]

    def _page(self, tools: Sequence[Tool], most: int) -> list[tool_pb2.Tool]:
        page: list[tool_pb2.Tool] = []
        size = 0

        for tool in tools[:most]:
            message = _tool_message(tool)
            size += message.ByteSize() + 8

            if page and size > self._limits.response_bytes - 1024:
                break

            page.append(message)

        return page


def _fits(tool: Tool, request: pb.ListToolsRequest) -> bool:
    return (not request.provider or tool.provider == request.provider) and set(request.tags) <= set(tool.tags)


def _approved(request: pb.CallToolRequest) -> bool:
    """Whether the call carries an approval of just these arguments."""
    given = request.context.approval.arguments_digest.removeprefix("sha256:")
    return bool(given) and given == wire.digest(wire.from_message(request.arguments)).removeprefix("sha256:")


def _tool_message(tool: Tool) -> tool_pb2.Tool:
    message = wire.to_message(tool)
    assert isinstance(message, tool_pb2.Tool)
    return message
