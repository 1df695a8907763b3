"""The gRPC provider: functions served by ``autoglm.serve_tools``, on the port given; with ``2``, of another schema.

``raw PORT`` serves the same contract by hand, so that it can answer what is no message and what no library would send.
"""

# ruff: noqa: T201 - a script
from __future__ import annotations

import asyncio
import sys
from typing import Any

import behaviour  # type: ignore[import-not-found]
import grpc.aio

import autoglm
from autoglm import Effect, ToolContext
from autoglm.v1 import plan_pb2, tool_pb2, tool_service_pb2

READ, WRITE = Effect.READ_ONLY, Effect.NON_IDEMPOTENT


def functions(version: str) -> list[autoglm.FunctionTool]:
    if version == "2":

        def work(do: str, text: str, context: ToolContext, more: str = "") -> str:
            return str(behaviour.work("grpc", do, text + more, context.idempotency_key))
    else:

        def work(do: str, text: str, context: ToolContext) -> str:  # type: ignore[misc]
            return str(behaviour.work("grpc", do, text, context.idempotency_key))

    return [autoglm.tool(name="read", effect=READ)(work), autoglm.tool(name="write", effect=WRITE)(work)]


async def _list(_data: bytes, _context: Any) -> bytes:
    schema = '{"type":"object"}'
    tools = [
        tool_pb2.Tool(name=name, input_schema=schema, effect=effect, digest="sha256:1")
        for name, effect in (("read", plan_pb2.EFFECT_READ_ONLY), ("write", plan_pb2.EFFECT_NON_IDEMPOTENT))
    ]
    return tool_service_pb2.ListToolsResponse(tools=tools, catalog_digest="sha256:1").SerializeToString()


async def _call(data: bytes, context: Any) -> None:
    request = tool_service_pb2.CallToolRequest.FromString(data)
    behaviour.note("raw", request.idempotency_key)
    if request.arguments["do"] == "huge":
        answer = tool_service_pb2.CallToolResponse()
        answer.result.output.string_value = "x" * behaviour.HUGE
        await context.write(answer.SerializeToString())
    else:
        await context.write(b"\xff\xff this is no message")


async def raw(port: str) -> None:
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)])
    handlers: dict[str, Any] = {
        "ListTools": grpc.unary_unary_rpc_method_handler(_list),
        "CallTool": grpc.unary_stream_rpc_method_handler(_call),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("autoglm.v1.ToolService", handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


if sys.argv[1] == "raw":
    asyncio.run(raw(sys.argv[2]))
else:
    autoglm.serve_tools(
        functions(sys.argv[2]), f"127.0.0.1:{sys.argv[1]}", on_ready=lambda _address: print("ready", flush=True)
    )
