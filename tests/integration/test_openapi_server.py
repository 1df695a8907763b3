"""A server with an OpenAPI service among its providers: a plan across it, credentials, a service that stumbles."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToJson, ParseDict

from autoglm.v1 import plan_pb2, tool_service_pb2
from autoglm.v1 import plan_service_pb2 as pb
from tests.server.tools.http.serving import Seen, answer, serving

CANARY = "c4nary-of-the-service"
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Orders", "version": "1"},
    "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}},
    "security": [{"key": []}],
    "paths": {
        "/orders/{id}": {
            "get": {
                "operationId": "get",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "responses": {"200": {"description": "An order."}},
            },
            "put": {
                "operationId": "put",
                "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
                "requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}},
                "responses": {"200": {"description": "Done."}},
            },
        }
    },
}


async def test_a_plan_across_a_service(start: Any, tmp_path: Path) -> None:
    seen: list[Seen] = []

    async def handle(request: Seen, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        if request.method == "PUT" and len(seen) == 2:
            writer.write(answer(503, "busy", [("Retry-After", "0")]))
            return

        body = json.dumps({"total": 42, "key": request.headers["x-key"]})
        writer.write(answer(200, body, [("Content-Type", "application/json")]))

    (tmp_path / "orders.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "key").write_text(CANARY)
    async with serving(handle) as served:
        settings = {"server": f"http://127.0.0.1:{served.port}", "auth": {"key": "secret://key"}}
        (tmp_path / "config.yaml").write_text(
            json.dumps(
                {
                    "providers": {"orders": f"openapi:{tmp_path / 'orders.json'}"},
                    "secrets": {"key": f"file:{tmp_path / 'key'}"},
                    "openapi": {"orders": settings},
                }
            )
        )
        server = await start("--config", str(tmp_path / "config.yaml")).serving()
        steps = [
            {"id": "a", "tool": "orders.get", "arguments": {"id": 7}},
            {"id": "b", "tool": "orders.put", "arguments": {"id": 7, "body": {"total": "${a.total}"}}},
        ]
        plans = await server.plans()
        run = plans.RunPlan(ParseDict({"steps": steps}, pb.RunPlanRequest()))
        events = [event async for message in run for event in message.events]
        assert events[-1].WhichOneof("fact") == "plan_succeeded", events[-1]

        plan = (await plans.GetPlan(pb.GetPlanRequest(plan_id=events[0].plan_id))).plan
        assert [call.state for call in plan.steps[1].tool_calls] == [
            plan_pb2.TOOL_CALL_STATE_FAILED,
            plan_pb2.TOOL_CALL_STATE_SUCCEEDED,
        ]
        assert [(request.method, request.target) for request in seen] == [
            ("GET", "/orders/7"),
            ("PUT", "/orders/7"),
            ("PUT", "/orders/7"),
        ]
        assert json.loads(seen[2].body) == {"total": 42}
        assert seen[1].headers["idempotency-key"] == seen[2].headers["idempotency-key"] == f"{plan.id}/b"
        assert {request.headers["x-key"] for request in seen} == {CANARY}
        assert CANARY not in MessageToJson(plan) + "".join(map(MessageToJson, events)) + server.log.read_text()

        await changes(server, tmp_path)


async def changes(server: Any, folder: Path) -> None:
    """Read the configuration again: what is set for a document is taken over, and it is opened anew."""
    tools = await server.tools()
    listed = await tools.ListTools(tool_service_pb2.ListToolsRequest(provider="orders"))
    assert [tool.name for tool in listed.tools] == ["orders.get", "orders.put"]
    config = json.loads((folder / "config.yaml").read_text())
    config["openapi"]["orders"]["include"] = ["GET *"]
    (folder / "config.yaml").write_text(json.dumps(config))
    server.signal(signal.SIGHUP)

    async def taken_over() -> bool:
        found = await tools.ListTools(tool_service_pb2.ListToolsRequest(provider="orders"))
        return [tool.name for tool in found.tools] == ["orders.get"]

    async with asyncio.timeout(40):
        while not await taken_over():  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.02)
