from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import mcp_types as types
import pytest
import uvicorn
from mcp.server import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

from autoglm.model import Failure, ToolProgress, ToolResult
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.mcp.address import Endpoint
from autoglm_server.tools.providers.mcp.http import HttpLink
from autoglm_server.tools.providers.mcp.provider import McpProvider
from autoglm_server.tools.tool import Invocation, ToolCallError

from .conftest import QUICK, until


class Client:
    """A catalog with one provider, ``it``, over HTTP."""

    def __init__(self, port: int, bearer: str = "", **environment: str) -> None:
        endpoint = Endpoint(f"http://127.0.0.1:{port}/mcp", bearer)
        link = partial(HttpLink, endpoint.url, lambda: endpoint.token(environment))
        self.catalog = Catalog([McpProvider("it", link, timing=QUICK)])

    async def __aenter__(self) -> Self:
        await self.catalog.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.catalog.stop()

    async def call(
        self, tool: str, seconds: float = 10.0, report: Any = lambda _: None, **arguments: Any
    ) -> ToolResult:
        return await self.catalog.call(Invocation(f"it.{tool}", arguments, "key", seconds, report=report))

    async def failure(self, tool: str, seconds: float = 10.0, **arguments: Any) -> Failure:
        with pytest.raises(ToolCallError) as caught:
            await self.call(tool, seconds, **arguments)

        return caught.value.failure

    @property
    def available(self) -> bool:
        tool = self.catalog.get("it.echo")
        return tool is not None and tool.available


# --- a real server of the library's own


class Real:
    def __init__(self) -> None:
        self.server = MCPServer("real")
        self.stopped = asyncio.Event()
        self.server.add_tool(self.echo, annotations=ToolAnnotations(read_only_hint=True))
        self.server.add_tool(self.wait)
        self.server.add_tool(self.grow)

    def echo(self, text: str) -> dict[str, str]:
        """Echo."""
        return {"said": text}

    async def wait(self, context: Context) -> str:
        """Wait."""
        await context.report_progress(1, 2, "half")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.stopped.set()
            raise

        return ""

    async def grow(self, context: Context) -> str:
        """Add a tool."""
        self.server.add_tool(self.echo, name="echo2")
        await context.session.send_tool_list_changed()
        return "grown"


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: Any, port: int = 0) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", port))
    server = _Quiet(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


async def test_a_server_over_http_is_listed_called_and_told_to_stop() -> None:
    real = Real()
    seen: list[ToolProgress] = []
    async with serving(real.server.streamable_http_app()) as port, Client(port) as client:
        assert (await client.call("echo", text="hi")).output == {"said": "hi"}
        assert (await client.failure("echo", text=1)).reason == "INVALID_ARGUMENTS"

        with pytest.raises(ToolCallError) as caught:
            await client.call("wait", 0.5, seen.append)

        failure = caught.value.failure
        assert (failure.reason, failure.outcome_unknown) == ("STEP_TIMEOUT", True)
        await real.stopped.wait()
        assert seen[0].fraction == 0.5

        await client.call("grow")
        await until(lambda: client.catalog.get("it.echo2"))


async def test_a_server_over_http_may_go_away_and_come_back() -> None:
    async with serving(Real().server.streamable_http_app()) as port:
        client = Client(port)
        await client.catalog.start()

    try:
        failure = await client.failure("echo", text="hi")
        assert (failure.reason, failure.retryable, failure.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)
        await until(lambda: not client.available)
        assert client.catalog.get("it.wait")

        async with serving(Real().server.streamable_http_app(), port):
            await until(lambda: client.available)
            assert (await client.call("echo", text="back")).output == {"said": "back"}
    finally:
        await client.catalog.stop()


async def test_that_a_server_went_away_is_noticed_without_a_call() -> None:
    async with serving(Real().server.streamable_http_app()) as port:
        client = Client(port)
        await client.catalog.start()
        assert client.available

    await until(lambda: not client.available)
    await client.catalog.stop()


# --- a server of faults


def _bomb() -> bytes:
    """100 MB of nothing, in 100 KB."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(100)), packer.flush()])


BOMB = _bomb()


class _Faults(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[str | None]
    token = ""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).seen.append(self.headers["authorization"])
        if self.token and self.headers["authorization"] != f"Bearer {self.token}":
            self._send(401, b"who are you?", "text/plain")
            return

        match message["method"]:
            case "initialize":
                result: dict[str, Any] = {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "faults", "version": "1"},
                }
            case "tools/list":
                names = ("echo", "die", "die_read", "huge", "huge_events", "zip", "busy", "hang", "moved")
                hints = {"readOnlyHint": True}
                result = {
                    "tools": [
                        {"name": name, "inputSchema": {"type": "object"}, "annotations": hints if "_" in name else {}}
                        for name in names
                    ]
                }
            case "tools/call":
                self._call(message["params"]["name"], message["id"])
                return
            case _ if "id" in message:
                error = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}
                self._send(200, json.dumps(error).encode())
                return
            case _:
                self._send(202, b"")
                return

        self._send(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())

    def _call(self, name: str, number: int) -> None:
        result = {"content": [{"type": "text", "text": "hi"}]}
        answer = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
        match name:
            case "die" | "die_read":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            case "huge" | "huge_events":
                self._huge(events=name == "huge_events")
            case "zip":
                self._send(200, BOMB, encoding="gzip")
            case "busy":
                self._send(503, b"<h1>busy</h1>", "text/html")
            case "hang":
                threading.Event().wait(1)
                self._send(200, answer)
            case "moved":
                self.send_response(302)
                self.send_header("location", "http://169.254.169.254/")
                self.send_header("content-length", "0")
                self.end_headers()
            case _:
                self._send(200, answer)

    def _huge(self, *, events: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if events else "application/json")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            self.wfile.write(b'event: message\ndata: {"' if events else b'{"')
            for _ in range(100):
                self.wfile.write(b"x" * (1 << 20))
        except OSError:
            pass

    def _send(self, status: int, body: bytes, kind: str = "application/json", encoding: str = "") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if encoding:
            self.send_header("content-encoding", encoding)

        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


@pytest.fixture
def faults() -> Iterator[type[_Faults]]:
    handler = type("Handler", (_Faults,), {"seen": [], "port": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # so that closing the server waits for them
    handler.port = server.server_port  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("tool", "reason", "unknown", "retryable"),
    [
        ("die", "CONNECTION_LOST", True, False),
        ("die_read", "CONNECTION_LOST", True, True),
        ("huge", "OUTPUT_TOO_LARGE", False, False),
        ("huge_events", "OUTPUT_TOO_LARGE", False, False),
        ("zip", "CONNECTION_LOST", True, False),
        ("busy", "CONNECTION_LOST", True, False),
        ("hang", "STEP_TIMEOUT", True, False),
        ("moved", "TOOL_ERROR", False, False),
    ],
)
async def test_a_fault_of_one_call_is_its_failure_and_no_others(
    faults: Any, tool: str, reason: str, *, unknown: bool, retryable: bool
) -> None:
    async with Client(faults.port) as client:
        await client.call("echo")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        async with asyncio.TaskGroup() as tasks:
            beside = tasks.create_task(client.call("hang"))
            failure = await client.failure(tool, 0.5 if tool == "hang" else 5)

        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert (failure.reason, failure.outcome_unknown, failure.retryable) == (reason, unknown, retryable)
        assert grown < 64 << 10, f"{grown} KiB more were held"
        assert beside.result().output == "hi"
        assert client.available


async def test_a_token_is_read_from_the_environment_at_each_connection(faults: Any) -> None:
    faults.token = "canary"

    async with Client(faults.port, "$TOKEN", TOKEN="canary") as client:
        assert (await client.call("echo")).output == "hi"

    assert set(faults.seen) == {"Bearer canary"}


async def test_a_refusal_is_told_in_the_log_without_the_token(faults: Any, caplog: pytest.LogCaptureFixture) -> None:
    faults.token = "another"

    async with Client(faults.port, "$TOKEN", TOKEN="canary") as client:
        assert client.catalog.tools() == []

    assert "it answered 401" in caplog.text
    assert "canary" not in caplog.text


def test_a_proxy_of_the_environment_is_not_asked(faults: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)

    async def life() -> None:
        async with Client(faults.port) as client:
            assert (await client.call("echo")).output == "hi"

    asyncio.run(life())
    assert os.environ["HTTP_PROXY"]


async def test_a_tool_that_asks_to_be_asked_again_is_and_one_that_asks_its_caller_fails() -> None:
    asked: list[str | None] = []

    async def listed(_context: Any, _params: Any) -> types.ListToolsResult:
        empty = {"type": "object"}
        return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=empty) for name in ("later", "person")])

    async def called(_context: Any, params: types.CallToolRequestParams) -> Any:
        if params.name == "person":
            question = types.ElicitRequestFormParams(
                message="who are you?", requested_schema={"type": "object", "properties": {}}
            )
            return types.InputRequiredResult(input_requests={"who": types.ElicitRequest(params=question)})

        asked.append(params.request_state)
        if params.request_state is None:
            return types.InputRequiredResult(request_state="in-a-moment")

        return types.CallToolResult(content=[types.TextContent(text="now")])

    server = Server("asking", on_list_tools=listed, on_call_tool=called)
    async with serving(server.streamable_http_app()) as port, Client(port) as client:
        assert (await client.call("later")).output == "now"
        assert asked == [None, "in-a-moment"]
        failure = await client.failure("person")

    assert (failure.domain, failure.reason) == ("it.person", "INPUT_REQUIRED")
