"""Serving Python functions as a provider of tools: ``autoglm.v1.ToolService`` with health, and nothing else.

::

    autoglm.serve_tools([add, multiply], "127.0.0.1:50061")       # blocks until SIGTERM or Ctrl-C

Any AutoGLM server then has them as ``--provider NAME=grpc://127.0.0.1:50061``. The functions keep their own checks: JSON
arguments are checked against the schema of the function's annotations, as a server would.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from autoglm import wire
from autoglm._files import Files
from autoglm._ids import new_id
from autoglm._tool_call import Call, Reports
from autoglm.errors import AutoglmError, InvalidRequestError, error
from autoglm.model import DOMAIN, CallContext, ErrorReason, Failure, JsonObject, Tool, ToolResult, Violation
from autoglm.tool import FunctionTool, ToolContext, tool_digest
from autoglm.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc

__all__ = ["ToolServer", "serve_tools"]

_SERVICES: Final = ("", "autoglm.v1.ToolService")
_MESSAGE_BYTES_MAX: Final = 4 << 20
_PAGE_BYTES_MAX: Final = 3 << 20
_PAGE_MAX: Final = 500
_PAGE_DEFAULT: Final = 50
_WATCHES_MAX: Final = 1000
_MESSAGE_MAX: Final = 500

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # by default a second server takes the same port without a word
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)

_log = logging.getLogger(__name__)

_Context: TypeAlias = Any
"""grpc.aio's context of a call; its methods are typed there by message."""


class ToolServer:
    """Tools on an address, in a running event loop.

    ::

        async with autoglm.ToolServer([add], "127.0.0.1:0") as server:
            print(server.address)
            await server.wait()
    """

    def __init__(
        self,
        tools: Iterable[FunctionTool],
        address: str = "127.0.0.1:50061",
        *,
        max_calls: int = 256,
        drain: timedelta = timedelta(seconds=10),
    ) -> None:
        """Serve ``tools`` on ``address``, ``HOST:PORT`` (port 0: the system chooses) or ``unix:///PATH``, once started.

        At most ``max_calls`` run at once, more wait within their deadlines. When it is stopped, calls under way have
        ``drain`` to end.

        Raises:
            ValueError: two tools have one name, or one must run in a process, which only a server's own tools can.
        """
        self.address = address
        """Where it listens; with the real port once it is started."""
        self._drain = drain.total_seconds()
        self._tools = _Tools(tools, max_calls)
        self._health = _Health()
        self._server: grpc.aio.Server | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is in use, or is none.
        """
        server = grpc.aio.server(options=_OPTIONS)
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(self._tools, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            port = server.add_insecure_port(self.address)
        except RuntimeError as failed:
            raise OSError(f"cannot listen on {self.address}: is it in use, or no address of this machine?") from failed

        if not self.address.startswith("unix:"):
            self.address = f"{self.address.rpartition(':')[0]}:{port}"

        self._server = server
        await server.start()

    async def wait(self) -> None:
        """Wait until :meth:`request_stop`."""
        await self._stopping.wait()

    def request_stop(self) -> None:
        """Let :meth:`wait` return."""
        self._stopping.set()

    async def stop(self) -> None:
        """Take no more calls, let those under way end within the time to drain, then cancel them."""
        self._stopping.set()
        self._health.drain()
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(self._drain)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


def serve_tools(
    tools: Iterable[FunctionTool],
    address: str = "127.0.0.1:50061",
    *,
    max_calls: int = 256,
    drain: timedelta = timedelta(seconds=10),
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve tools until SIGTERM or Ctrl-C; then let calls under way end, within ``drain``. A second signal ends at once.

    ``on_ready`` is given the address once it listens; by default it is told on stderr. In a running event loop use
    :class:`ToolServer`; the other arguments and what is raised are its own.
    """
    server_tools = list(tools)
    asyncio.run(_serve(server_tools, address, max_calls, drain, on_ready or _announce))


async def _serve(
    tools: list[FunctionTool], address: str, max_calls: int, drain: timedelta, on_ready: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    async with ToolServer(tools, address, max_calls=max_calls, drain=drain) as server:
        numbers = (signal.SIGTERM, signal.SIGINT)

        def end() -> None:
            server.request_stop()
            for number in numbers:
                loop.remove_signal_handler(number)  # the second one has its usual effect

        for number in numbers:
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread, or not this system
                loop.add_signal_handler(number, end)

        on_ready(server.address)
        await server.wait()


def _announce(address: str) -> None:
    sys.stderr.write(f"serving tools on {address}\n")
    sys.stderr.flush()


class _Tools(tool_service_pb2_grpc.ToolServiceServicer):
    """The service over a table of functions."""

    def __init__(self, tools: Iterable[FunctionTool], max_calls: int) -> None:
        self._functions: dict[str, FunctionTool] = {}
        self._schemas: dict[str, JsonObject] = {}
        for tool in tools:
            name = tool.spec.name
            if name in self._functions:
                raise ValueError(f"two functions are the tool {name!r}; give each its own name")

            if tool.run == "process":
                raise ValueError(
                    f"the tool {name!r} has run='process', which serve_tools cannot do; write run='thread'"
                )

            self._functions[name] = tool
            self._schemas[name] = json.loads(tool.spec.input_schema)

        self._listed = {name: _listed(self._functions[name]) for name in sorted(self._functions)}
        self._digest = wire.digest([[name, tool.digest] for name, tool in self._listed.items()])
        self._places = asyncio.Semaphore(max_calls)

    async def ListTools(
        self, request: tool_service_pb2.ListToolsRequest, context: _Context
    ) -> tool_service_pb2.ListToolsResponse:
        """Give a page of tools."""
        most = min(request.page_size, _PAGE_MAX) if request.page_size > 0 else _PAGE_DEFAULT
        fit = [
            tool
            for name, tool in self._listed.items()
            if name > request.page_token and not request.provider and set(request.tags) <= set(tool.tags)
        ]
        answer = tool_service_pb2.ListToolsResponse(catalog_digest=self._digest)
        size = 0
        for tool in fit[:most]:
            message = _message(tool)
            size += message.ByteSize() + 8
            if answer.tools and size > _PAGE_BYTES_MAX:
                break

            answer.tools.append(message)

        if 0 < len(answer.tools) < len(fit):
            answer.next_page_token = answer.tools[-1].name

        return answer

    async def GetTool(
        self, request: tool_service_pb2.GetToolRequest, context: _Context
    ) -> tool_service_pb2.GetToolResponse:
        """Give one tool."""
        if request.name not in self._listed:
            await _refuse(context, _missing(request.name))

        return tool_service_pb2.GetToolResponse(tool=_message(self._listed[request.name]))

    async def CallTool(self, request: tool_service_pb2.CallToolRequest, context: _Context) -> None:  # type: ignore[override]  # written, not yielded: only so it hears of a cancel
        """Call a tool: progress while it runs, then its result or failure."""
        try:
            async with self._places:
                await self._stream(request, context)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise

            refusal = error(ErrorReason.SERVER_DRAINING, "the call was stopped inside the provider; try again")
            await _refuse(context, refusal)  # without a status of ours its caller would wait for ever
        except AutoglmError as refusal:
            await _refuse(context, refusal)
        except Exception:  # noqa: BLE001  # the boundary: its text is for the log, not for callers
            error_id = new_id()
            _log.exception("a call of %s failed (%s)", request.name[:128], error_id)
            message = f"a fault of the provider's own; its log says more under {error_id}"
            await _refuse(context, error(ErrorReason.INTERNAL, message, error_id=error_id))

    async def _stream(self, request: tool_service_pb2.CallToolRequest, context: _Context) -> None:
        tool = self._admit(request)
        try:
            arguments: JsonObject = wire.from_message(request.arguments)
            asked: CallContext = wire.from_message(request.context)
        except wire.WireError as failed:
            raise InvalidRequestError.of(failed.violations) from None

        reports = Reports()
        call = Call(
            tool,
            self._schemas[tool.spec.name],
            lambda cancelled: ToolContext(
                idempotency_key=request.idempotency_key, call=asked, report=reports.put, cancelled=cancelled
            ),
        )
        async with asyncio.TaskGroup() as tasks:
            outcome = tasks.create_task(call.outcome(arguments))
            outcome.add_done_callback(lambda _: reports.close())
            while (progress := await reports.next()) is not None:
                with suppress(wire.WireError):  # data that cannot travel is no reason to fail a call
                    await context.write(tool_service_pb2.CallToolResponse(progress=wire.to_message(progress)))  # type: ignore[arg-type]

            last = _last(await outcome, tool.spec.name)
            if last.WhichOneof("message") == "result":
                await _send(call.files, context)

            await context.write(last)

    def _admit(self, request: tool_service_pb2.CallToolRequest) -> FunctionTool:
        if request.name not in self._functions:
            raise _missing(request.name)

        digest = self._listed[request.name].digest
        if request.tool_digest and request.tool_digest != digest:
            message = f"{request.name} has digest {digest} by now, not {request.tool_digest[:128]}; get the tool again"
            raise error(ErrorReason.TOOL_CHANGED, message, tool=request.name, digest=digest)

        if len(request.idempotency_key) > 256:
            fault = Violation("idempotency_key", "has more than 256 characters", "TOO_LONG")
            raise InvalidRequestError.of([fault])

        return self._functions[request.name]


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Health by the standard protocol. Watches end when it drains, so that they do not hold the end up."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()
        self._watches = asyncio.Semaphore(_WATCHES_MAX)

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self._draining.set()

    async def Check(self, request: Any, context: _Context) -> Any:
        """Say how a service is."""
        if request.service not in _SERVICES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:128]!r}")

        return self._state()

    async def Watch(self, request: Any, context: _Context) -> None:
        """Say how a service is, now and when it drains."""
        if self._watches.locked():
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"more than {_WATCHES_MAX} watches of health")

        async with self._watches:
            if request.service not in _SERVICES:
                await context.write(
                    health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
                )
            else:
                await context.write(self._state())

            await self._draining.wait()
            await context.write(self._state())

    def _state(self) -> Any:
        states = health_pb2.HealthCheckResponse
        return states(status=states.NOT_SERVING if self._draining.is_set() else states.SERVING)


def _listed(tool: FunctionTool) -> Tool:
    return replace(tool.spec, digest=tool_digest(tool.spec), available=True)


def _message(tool: Tool) -> tool_pb2.Tool:
    message = wire.to_message(tool)
    assert isinstance(message, tool_pb2.Tool)
    return message


def _last(outcome: ToolResult | Failure, name: str) -> tool_service_pb2.CallToolResponse:
    try:
        message: Any = wire.to_message(outcome)
    except wire.WireError as failed:
        told = f"{name} ended, but what it gave cannot be sent: {failed.violations[0].description}"
        message = wire.to_message(Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, told))
        return tool_service_pb2.CallToolResponse(failure=message)

    if isinstance(outcome, Failure):
        return tool_service_pb2.CallToolResponse(failure=message)

    return tool_service_pb2.CallToolResponse(result=message)


async def _send(files: Files, context: _Context) -> None:
    """Send the content of what a function saved, in parts."""
    try:
        for file in files:
            told: Any = wire.to_message(file.artifact)
            for data in file.pieces():  # at most 256 KiB, of a file that was written just now
                await context.write(_part(told, data))
                told = None

            if told is not None:
                await context.write(_part(told, b""))
    finally:
        files.close()


def _part(artifact: Any, data: bytes) -> tool_service_pb2.CallToolResponse:
    chunk = tool_service_pb2.ArtifactChunk(artifact=artifact, data=data)
    return tool_service_pb2.CallToolResponse(artifact_chunk=chunk)


def _missing(name: str) -> AutoglmError:
    return error(
        ErrorReason.TOOL_NOT_FOUND, f"there is no tool {name[:128]!r}; ListTools says which there are", tool=name[:128]
    )


async def _refuse(context: _Context, refusal: AutoglmError) -> None:
    """End the call with the error's status and its details; never returns."""
    code = grpc.StatusCode[refusal.status]
    status = status_pb2.Status(code=code.value[0], message=refusal.message[:_MESSAGE_MAX])
    info = error_details_pb2.ErrorInfo(
        reason=refusal.reason,
        domain=refusal.domain,
        metadata={key: value[:200] for key, value in refusal.metadata.items()},
    )
    bad = error_details_pb2.BadRequest()
    for fault in refusal.violations[:5]:
        bad.field_violations.add(field=fault.field[:200], description=fault.description[:200], reason=fault.reason[:63])

    for detail in (info, bad) if refusal.violations else (info,):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)

    await context.abort(code, status.message, (("grpc-status-details-bin", status.SerializeToString()),))
