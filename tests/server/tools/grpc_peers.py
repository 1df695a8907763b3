"""The other side of gRPC providers: real servers on loopback that do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from autoglm import wire
from autoglm.model import Effect, Tool
from autoglm.v1 import tool_service_pb2, tool_service_pb2_grpc
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import Provider, ToolCallError

OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_send_message_length", -1))
PORT = "127.0.0.1:0"


class Peer(tool_service_pb2_grpc.ToolServiceServicer):
    """A ToolService over a list of tools; ``behave`` answers calls, by writing messages."""

    def __init__(self, *tools: Tool) -> None:
        self.offered: Sequence[Tool] = tools
        self.requests: list[tool_service_pb2.CallToolRequest] = []
        self.remaining: list[float] = []
        self.lists = 0
        self.cancelled = asyncio.Event()
        self.behave: Callable[[Any], Awaitable[None]] = answer("done")

    async def ListTools(self, request: Any, context: Any) -> Any:
        self.lists += 1
        answer: Any = tool_service_pb2.ListToolsResponse(
            catalog_digest=wire.digest([repr(tool) for tool in self.offered])
        )
        after = [tool for tool in sorted(self.offered, key=lambda tool: tool.name) if tool.name > request.page_token]
        answer.tools.extend(wire.to_message(tool) for tool in after[: min(request.page_size, 3)])

        if len(after) > len(answer.tools):
            answer.next_page_token = answer.tools[-1].name

        return answer

    async def GetTool(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def CallTool(self, request: Any, context: Any) -> None:  # type: ignore[override]
        self.requests.append(request)
        self.remaining.append(context.time_remaining())

        try:
            await self.behave(context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def answer(output: Any) -> Callable[[Any], Awaitable[None]]:
    async def behave(context: Any) -> None:
        result = tool_service_pb2.CallToolResponse()
        result.result.output.CopyFrom(wire.to_value(output))
        await context.write(result)

    return behave


async def hang(context: Any) -> None:
    await asyncio.Event().wait()


def tool(name: str = "echo", effect: Effect = Effect.READ_ONLY, **fields: Any) -> Tool:
    return Tool(name=name, effect=effect, input_schema='{"type":"object"}', available=True, **fields)


@asynccontextmanager
async def served(peer: Any, address: str = PORT) -> AsyncIterator[str]:
    """Serve ``peer``; gives the address. It ends abruptly."""
    server = grpc.aio.server(options=OPTIONS)
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(peer, server)
    port = server.add_insecure_port(address)
    await server.start()

    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def catalog_of(*providers: Provider) -> AsyncIterator[Catalog]:
    catalog = Catalog(providers)
    await catalog.start()

    try:
        yield catalog
    finally:
        await catalog.stop()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what a provider does by itself, within the test's time limit."""
    while not condition():  # noqa: ASYNC110 - it has no event to tell
        await asyncio.sleep(0.01)


async def failure(call: Awaitable[object]) -> Any:
    """Give the failure of a call that must fail."""
    try:
        await call
    except ToolCallError as failed:
        return failed.failure

    raise AssertionError("the call did not fail")
