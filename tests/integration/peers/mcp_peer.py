"""The MCP server, over its pipes; of the standard library alone, so that it starts at once."""

# ruff: noqa: PLW0603, T201 - a script
from __future__ import annotations

import json
import sys
import threading
from typing import Any

import behaviour  # type: ignore[import-not-found]

generation = 1
lock = threading.Lock()


def tools() -> list[dict[str, Any]]:
    properties: dict[str, Any] = {"do": {"type": "string"}, "text": {"type": "string"}}
    if generation > 1:
        properties["more"] = {"type": "string"}

    schema = {"type": "object", "properties": properties}
    hints = {"read": {"readOnlyHint": True}, "write": {"readOnlyHint": False}}
    return [{"name": name, "inputSchema": schema, "annotations": hints[name]} for name in hints]


def send(**message: Any) -> None:
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def call(number: int, arguments: dict[str, Any], key: str) -> None:
    global generation
    match arguments["do"]:
        case "garbage":
            behaviour.note("mcp", key)
            send(id=number, result={"content": "this is no list"})
        case "noise":
            if behaviour.note("mcp", key) > 1:
                send(id=number, result={"content": [{"type": "text", "text": "done"}]})
            else:
                print("this is no message of MCP", flush=True)
        case "huge":
            send(id=number, result={"content": [{"type": "text", "text": "x" * behaviour.HUGE}]})
        case "change":
            generation += 1
            send(id=number, result={"content": []})
            send(method="notifications/tools/list_changed")
        case do:
            text = behaviour.work("mcp", do, arguments["text"], key)
            send(id=number, result={"content": [{"type": "text", "text": text}]})


for line in sys.stdin:
    message = json.loads(line)
    number, params = message.get("id"), message.get("params") or {}
    match message.get("method"):
        case "initialize":
            capabilities = {"tools": {"listChanged": True}}
            info = {"name": "peer", "version": "1"}
            send(id=number, result={"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info})
        case "tools/list":
            send(id=number, result={"tools": tools()})
        case "tools/call":
            key = (params.get("_meta") or {}).get("autoglm/idempotencyKey", "")
            threading.Thread(target=call, args=(number, params["arguments"], key), daemon=True).start()
        case _ if number is not None:
            send(id=number, error={"code": -32601, "message": "method not found"})
        case _:
            pass
