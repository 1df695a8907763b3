"""An MCP server that does as it is told, faults included. Of the standard library alone: it starts in 20 ms.

``python stand_in.py LEDGER [stubborn|mute|noise|silent|once]``. What it was asked to do stands in LEDGER, a JSON object a line.
"""

# ruff: noqa: PLW0603, PTH110, PTH123, T201 - a script
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

ledger = sys.argv[1]
manner = sys.argv[2] if len(sys.argv) > 2 else ""
generation = 1

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
HINTS = {
    "echo": {"readOnlyHint": True, "openWorldHint": False},
    "add": {"idempotentHint": True, "destructiveHint": True},
    "write": {},
}
NAMES = [
    "echo",
    "add",
    "write",
    "die",
    "die_read",
    "die_write",
    "hang",
    "garbage",
    "huge",
    "huge_first",
    "huge_write",
    "change",
    "fail",
    "refuse",
    "environment",
    "child",
    "many_kinds",
    "number",
    "structured",
    "missing_structure",
    "progress",
    "odd/name",
    "no_result",
]


def tools() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for name in NAMES:
        schema = dict(TEXT)
        if name == "echo" and generation > 1:
            schema = {**TEXT, "required": ["text"]}

        hints = HINTS.get(name) if name in HINTS else {"readOnlyHint": True} if name.endswith("_read") else None
        tool: dict[str, Any] = {"name": name, "description": f"Does {name}.", "inputSchema": schema}
        if hints is not None:
            tool["annotations"] = {"title": name.upper(), **hints}

        if "structure" in name:
            tool["outputSchema"] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

        listed.append(tool)

    return listed


def note(**entry: Any) -> None:
    with open(ledger, "a") as file:
        file.write(json.dumps(entry) + "\n")


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(number: int, **result: Any) -> None:
    send(id=number, result=result)


def text(number: int, *texts: str, **more: Any) -> None:
    answer(number, content=[{"type": "text", "text": one} for one in texts], **more)


def huge(head: str, tail: str) -> None:
    sys.stdout.write(head)
    for _ in range(100):
        sys.stdout.write("x" * (1 << 20))

    sys.stdout.write(tail + "\n")
    sys.stdout.flush()


def call(number: int, name: str, arguments: dict[str, Any], meta: dict[str, Any]) -> None:
    global generation
    note(call=name, key=meta.get("autoglm/idempotencyKey"))
    said = arguments.get("text", "")
    match name:
        case "echo" | "add" | "write":
            text(number, said)
        case "die" | "die_read" | "die_write":
            print("these are my last words", file=sys.stderr, flush=True)
            os._exit(3)
        case "hang":
            pass
        case "garbage":
            for _ in range(3):
                print("this is no message")

            sys.stdout.flush()
        case "huge" | "huge_write":
            huge('{"result":{"content":[{"type":"text","text":"', f'"}}]}},"jsonrpc":"2.0","id":{number}}}')
        case "huge_first":
            huge(f'{{"jsonrpc":"2.0","id":{number},"result":{{"content":[{{"type":"text","text":"', '"}]}}')
        case "change":
            generation += 1
            text(number, "changed")
            send(method="notifications/tools/list_changed")
        case "fail":
            text(number, "there is no such order", isError=True)
        case "refuse":
            send(id=number, error={"code": int(said), "message": "refused"})
        case "environment":
            text(number, json.dumps(dict(os.environ)))
        case "child":
            text(number, str(subprocess.Popen(["sleep", "600"]).pid))
        case "many_kinds":
            blocks = [
                {"type": "text", "text": '{"a": 1}'},
                {"type": "image", "data": "AAEC", "mimeType": "image/png"},
                {"type": "audio", "data": "AAEC", "mimeType": "audio/wav"},
                {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "of a file"}},
                {"type": "resource", "resource": {"uri": "file:///b", "blob": "AAEC"}},
                {"type": "resource_link", "uri": "https://example.org/c", "name": "c", "mimeType": "text/plain"},
            ]
            answer(number, content=blocks)
        case "number":
            text(number, "17")
        case "structured":
            text(number, "n is 1", structuredContent={"n": 1})
        case "missing_structure":
            text(number, "no structure")
        case "progress":
            for done in (1, 2):
                send(
                    method="notifications/progress",
                    params={
                        "progressToken": meta["progressToken"],
                        "progress": done,
                        "total": 4,
                        "message": f"part {done}",
                    },
                )

            text(number, "done")
        case "odd/name":
            text(number, "odd")
        case "no_result":
            answer(number, content="no list")
        case _:
            send(id=number, error={"code": -32602, "message": f"unknown tool {name}"})


if manner == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

if manner == "noise":
    while True:
        print("noise", flush=True)

if manner == "once" and os.path.exists(ledger):
    sys.exit(4)

note(start=os.getpid())
if manner == "silent":
    time.sleep(600)

for line in sys.stdin:
    message = json.loads(line)
    number, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    match method:
        case "initialize":
            answer(
                number,
                protocolVersion="2025-06-18",
                capabilities={"tools": {"listChanged": True}},
                serverInfo={"name": "stand-in", "version": str(os.getpid())},
            )
        case "tools/list" if manner == "mute" and generation > 1:
            pass
        case "tools/list":
            answer(number, tools=tools())
        case "tools/call":
            if manner == "mute":
                generation += 1

            call(number, params["name"], params.get("arguments") or {}, params.get("_meta") or {})
        case "notifications/cancelled":
            note(cancelled=params["requestId"])
        case _ if number is not None:
            send(id=number, error={"code": -32601, "message": "method not found"})
        case _:
            pass

if manner == "stubborn":
    while True:
        time.sleep(60)
