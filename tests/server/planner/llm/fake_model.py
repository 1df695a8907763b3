"""A real HTTP server on loopback that speaks chat completions with server-sent events, token by token, as a test scripts it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Self, TypeAlias

Dialect = Literal["openai", "glm", "ollama", "vllm"]


class Fault(Enum):
    CUT = "close the connection at once"
    STALL = "say nothing any more"


Token: TypeAlias = str | bytes | asyncio.Event | Fault
"""A piece of the model's text; bytes as they are; an event to wait for; a fault."""


@dataclass
class Reply:
    """What the server answers to one request."""

    tokens: Iterable[Token] = ()
    dialect: Dialect = "openai"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    finish: str | None = "stop"
    usage: tuple[int, int] | None = (100, 20)
    as_tool: bool = False
    chunked: bool = True
    thinks: str = ""
    cut_at: int | None = None
    """Close the connection after this many bytes of the body."""
    done: bool = True
    rate: float | None = None
    """Tokens a second; None: as fast as they can be sent."""
    first: float = 0.0
    """Seconds until the first token."""


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return "\n".join(str(message["content"]) for message in self.body["messages"])


def plan(*steps: dict[str, Any], note: str = "") -> str:
    return json.dumps(({"note": note} if note else {}) | {"steps": list(steps)}, ensure_ascii=False)


def answer(text: str) -> str:
    return json.dumps({"answer": text})


def call(step_id: str, tool: str, depends_on: Sequence[str] = (), **arguments: Any) -> dict[str, Any]:
    return {"id": step_id, "title": f"do {step_id}", "tool": tool, "arguments": arguments, "depends_on": [*depends_on]}


def tokens_of(text: str, size: int = 5) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


class FakeModel:
    """The server. ``script`` are its replies, in order; ``requests`` what it was asked."""

    def __init__(self) -> None:
        self.script: deque[Reply] = deque()
        self.requests: list[Request] = []
        self.finished = asyncio.Event()
        """Set whenever a reply was written to its end."""
        self.asked = asyncio.Event()
        """Set whenever a request has come."""
        self.left = asyncio.Event()
        """Set when a client closes its connection while the server stalls."""
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

        await self._server.wait_closed()
        for _turn in range(3):
            await asyncio.sleep(0)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def will(self, *texts: str | Reply, **options: Any) -> None:
        for text in texts:
            self.script.append(text if isinstance(text, Reply) else Reply(tokens_of(text), **options))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(head[0].split(" ")[1], headers, json.loads(body or b"{}")))
        self.asked.set()
        reply = self.script.popleft() if self.script else Reply(status=500, body='{"error":{"message":"no script"}}')
        if reply.status != 200:
            return await self._refuse(reply, writer)

        framing = "Transfer-Encoding: chunked" if reply.chunked else "Connection: close"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n".encode())
        sent = 0
        async for piece in self._body(reply):
            if piece is Fault.CUT:
                return False

            if piece is Fault.STALL:
                if not await reader.read(1):
                    self.left.set()

                return False

            assert isinstance(piece, bytes)
            cut = piece if reply.cut_at is None else piece[: max(0, reply.cut_at - sent)]
            sent += len(piece)
            writer.write(b"%x\r\n%s\r\n" % (len(cut), cut) if reply.chunked and cut else cut)
            await writer.drain()
            if len(cut) < len(piece):
                return False

        if reply.chunked:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

        self.finished.set()
        return reply.chunked

    async def _refuse(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        body = reply.body.encode()
        lines = [f"HTTP/1.1 {reply.status} Refused", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        return True

    async def _body(self, reply: Reply) -> Any:
        if reply.thinks:
            yield event(reply, {_THOUGHT[reply.dialect]: reply.thinks})

        first = True
        loop = asyncio.get_running_loop()
        start = loop.time() + reply.first
        for number, token in enumerate(reply.tokens):
            if reply.rate is not None:
                await asyncio.sleep(max(0.0, start + number / reply.rate - loop.time()))

            if isinstance(token, asyncio.Event):
                await token.wait()
            elif isinstance(token, bytes | Fault):
                yield token
            elif reply.as_tool:
                yield event(reply, {"tool_calls": [_tool_call(token, first=first)]})
                first = False
            else:
                yield event(reply, {"content": token})

        if reply.finish is not None:
            yield event(reply, {}, finish=reply.finish)

        if reply.usage is not None:
            yield event(reply, None)

        if reply.done:
            yield b"data: [DONE]\n\n"


_THOUGHT = {"openai": "reasoning", "glm": "reasoning_content", "ollama": "reasoning", "vllm": "reasoning_content"}


def _tool_call(token: str, *, first: bool) -> dict[str, Any]:
    function = {"arguments": token} | ({"name": "plan"} if first else {})
    return {"index": 0, "function": function} | ({"id": "call_1", "type": "function"} if first else {})


def event(reply: Reply, delta: dict[str, Any] | None, finish: str | None = None) -> bytes:
    """Write one chunk as the dialect's server does; without a delta, the one that tells the usage."""
    choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1790000000}
    match reply.dialect:
        case "openai":
            chunk |= {"model": "gpt-5-mini-2025-08-07", "service_tier": "default", "system_fingerprint": "fp_1"}
            chunk |= {"obfuscation": "x7"}
            choice |= {"logprobs": None}
        case "glm":
            # The role in every delta; no finish reason until the last chunk, which has the usage too.
            chunk |= {"id": "20260101", "model": "glm-4.7"}
            last = {"finish_reason": finish} if finish is not None else {}
            text = {"content": ""} if finish is not None else {}
            choice = {"index": 0} | last | {"delta": {"role": "assistant"} | text | (delta or {})}
        case "ollama":
            chunk |= {"id": "chatcmpl-442", "model": "qwen3:8b", "system_fingerprint": "fp_ollama"}
            choice["delta"] = {"role": "assistant", "content": ""} | (delta or {})
        case "vllm":
            chunk |= {"model": "Qwen/Qwen3-8B", "prompt_token_ids": None}
            choice |= {"logprobs": None, "stop_reason": None, "token_ids": None}

    used = _usage(reply)
    if delta is None:
        if reply.dialect == "glm":
            return b""

        chunk |= {"choices": [], "usage": used}
    else:
        chunk["choices"] = [choice]
        if reply.dialect == "glm" and finish is not None:
            chunk["usage"] = used
        elif reply.dialect == "openai":
            chunk["usage"] = None

    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n\n"


def _usage(reply: Reply) -> dict[str, Any] | None:
    if reply.usage is None:
        return None

    given, written = reply.usage
    used: dict[str, Any] = {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}
    if reply.dialect in ("openai", "glm"):
        used["prompt_tokens_details"] = {"cached_tokens": 10}

    return used
