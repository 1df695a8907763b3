"""Providers as processes of their own behind a server: the example in Python, the one for Node, and servers in a ring."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoglm import wire
from autoglm.v1 import plan_pb2, plan_service_pb2, tool_service_pb2
from tests.integration.conftest import Process, Start

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "examples" / "node_provider"


def listening(command: list[str], **options: Any) -> tuple[subprocess.Popen[str], str]:
    """Start a program that says where it listens in the last word of its first line; gives it and that word."""
    popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert popen.stdout is not None
    line = popen.stdout.readline()
    assert "serving" in line, line + popen.stdout.read()
    return popen, line.split()[-1]


def end(popen: subprocess.Popen[str]) -> None:
    popen.kill()
    popen.wait()
    assert popen.stdout is not None
    popen.stdout.close()


async def call(server: Process, tool: str, arguments: Any, **fields: Any) -> list[Any]:
    stub = await server.tools()
    request = tool_service_pb2.CallToolRequest(name=tool, arguments=wire.to_struct(arguments), **fields)
    return [message async for message in stub.CallTool(request, timeout=20)]


async def answer(server: Process, request: str) -> Any:
    """Run a plan; gives its last event."""
    stub = await server.plans()
    last: Any = None
    async for message in stub.RunPlan(plan_service_pb2.RunPlanRequest(request=request), timeout=20):
        last = message.events[-1] if message.events else last

    return last


# --- the example in Python


@pytest.fixture
def dice() -> Iterator[str]:
    popen, address = listening([sys.executable, str(ROOT / "examples" / "tool_server.py"), "127.0.0.1:0"])
    yield address
    end(popen)


async def test_the_python_example(dice: str, start: Start) -> None:
    server = await start("--provider", f"dice=grpc://{dice}").serving()

    messages = await call(server, "dice.roll", {"count": 3, "sides": 20})
    assert len(wire.from_message(messages[-1].result).output) == 3
    assert messages[0].progress.message.startswith("a ")
    ended = await answer(server, "roll 2 dice with 4 sides")
    assert ended.plan_succeeded.answer.startswith("You rolled"), ended


# --- a plan, and a provider that dies in the middle of its call

MARKED = """
import sys
from pathlib import Path
import autoglm

def mark(folder: str, context: autoglm.ToolContext) -> str:
    tries = Path(folder) / context.idempotency_key.replace("/", "_")
    with tries.open("a") as file:
        file.write("x")
    context.progress(0.5, "marked")
    while len(tries.read_text()) == 1 and not context.wait_cancelled(0.01):
        pass
    return "done"

read = autoglm.tool(name="read", effect=autoglm.Effect.READ_ONLY)(mark)
write = autoglm.tool(name="write", effect=autoglm.Effect.NON_IDEMPOTENT)(mark)
autoglm.serve_tools([read, write], sys.argv[1], on_ready=lambda address: print("serving on", address, flush=True))
"""
"""Two tools that hold their first call for ever, and count calls in a file named by the idempotency key."""


async def test_a_plan_whose_provider_is_killed_in_the_middle_of_its_calls(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "marked.py"
    script.write_text(MARKED)
    popen, address = listening([sys.executable, str(script), "127.0.0.1:0"])
    server = await start("--provider", f"far=grpc://{address}").serving()
    stub = await server.plans()
    request = plan_service_pb2.RunPlanRequest()
    for name in ("read", "write"):
        step = request.steps.add(id=name, tool=f"far.{name}", arguments=wire.to_struct({"folder": str(tmp_path)}))
        step.retry_policy.max_attempts = 100 if name == "read" else 1
        step.retry_policy.initial_backoff.FromMilliseconds(500)
        step.retry_policy.max_backoff.FromMilliseconds(500)

    marked: set[str] = set()
    failed: list[Any] = []
    waiting: Any = None
    ended: Any = None
    again: subprocess.Popen[str] | None = None
    async for message in stub.RunPlan(request, timeout=40):
        for event in message.events:
            match event.WhichOneof("fact"):
                case "step_progressed":
                    marked.add(event.step_id)
                case "step_waiting":
                    waiting = event
                case "step_retry_scheduled":
                    failed.append(event.step_retry_scheduled.failure)
                case "step_succeeded":
                    ended = event
                case _:
                    pass

        if len(marked) == 2 and again is None:
            end(popen)
            again, _ = listening([sys.executable, str(script), address])

        if waiting is not None and ended is not None:
            break

    assert again is not None
    end(again)
    # What only reads was called again, by the same key; what writes was not, and a person is asked.
    assert (failed[0].reason, failed[0].outcome_unknown) == ("CONNECTION_LOST", True)
    assert {failure.reason for failure in failed[1:]} <= {"TOOL_UNAVAILABLE"}
    assert (ended.step_id, ended.attempt) == ("read", 1 + len(failed))
    assert waiting.step_id == "write"
    assert waiting.step_waiting.reason == plan_pb2.WAITING_REASON_OUTCOME_UNKNOWN
    plan_id = waiting.plan_id
    assert [(tmp_path / f"{plan_id}_{name}").read_text() for name in ("read", "write")] == ["xx", "x"]


# --- the example for Node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its packages, in a folder of its own."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: the example for Node is not tried")

    folder = tmp_path_factory.mktemp("node") / "node_provider"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=50)
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot get the packages in time: the example for Node is not tried")

    if done.returncode:
        pytest.skip(f"npm cannot get the packages: the example for Node is not tried: {done.stderr[-300:]}")

    return folder


@pytest.fixture
def node_provider(node: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = os.environ | {"AUTOGLM_PROTOS": str(ROOT / "proto")}
    popen, address = listening(["node", "server.js", "127.0.0.1:0"], cwd=node, env=environment)
    yield popen, address
    end(popen)


async def test_the_example_for_node(node_provider: Any, start: Start) -> None:
    popen, address = node_provider
    server = await start("--provider", f"node=grpc://{address}").serving()

    ended = await answer(server, "make a slug of 'Hello, World!'")
    assert ended.plan_succeeded.answer == "The slug is hello-world."
    *told, last = await call(server, "node.countdown", {"from": 3})
    assert wire.from_message(last.result).output == "lift-off"
    assert told
    failure = (await call(server, "node.slug", {"text": "!"}))[-1].failure
    assert (failure.reason, failure.domain) == ("NOTHING_LEFT", "slug")
    assert (await call(server, "node.slug", {"text": 1}))[-1].failure.reason == "INVALID_ARGUMENTS"

    # The same key is the same seat: what makes it IDEMPOTENT.
    seats = [
        wire.from_message((await call(server, "node.reserve", {"name": "Ann"}, idempotency_key=key))[-1].result).output
        for key in ("a", "a", "b")
    ]
    assert seats[0] == seats[1] != seats[2]

    # Killed in the middle of a call, which is told as such.
    stub = await server.tools()
    held = tool_service_pb2.CallToolRequest(name="node.countdown", arguments=wire.to_struct({"from": 1000}))
    stream = stub.CallTool(held, timeout=20)
    assert (await stream.read()).HasField("progress")
    popen.kill()
    while not (message := await stream.read()).HasField("failure"):
        pass

    failure = message.failure
    assert (failure.reason, failure.outcome_unknown, failure.retryable) == ("CONNECTION_LOST", True, True)


async def test_cancelling_reaches_node(node_provider: Any, start: Start) -> None:
    popen, address = node_provider
    server = await start("--provider", f"node=grpc://{address}").serving()
    stub = await server.tools()
    held = tool_service_pb2.CallToolRequest(name="node.countdown", arguments=wire.to_struct({"from": 1000}))
    stream = stub.CallTool(held, timeout=20)
    assert (await stream.read()).HasField("progress")
    stream.cancel()

    assert await asyncio.to_thread(popen.stdout.readline) == "countdown was stopped\n"


# --- servers that mount each other


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_a_ring_of_servers(start: Start, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    servers = [
        start("--provider", f"peer=grpc://127.0.0.1:{other}", "--port", str(port), data_dir=tmp_path / str(port))
        for port, other in (ports, ports[::-1])
    ]
    one, two = [await server.serving() for server in servers]
    stub = await one.tools()

    names: set[str] = set()
    async with asyncio.timeout(40):
        while "peer.peer.math.calculate" not in names:
            page = await stub.ListTools(tool_service_pb2.ListToolsRequest(page_size=500))
            names = {tool.name for tool in page.tools}
            await asyncio.sleep(0.2)

    assert [name for name in names if name.endswith("plan.run")] == ["plan.run"], (
        "that of a peer is called by its own plans"
    )
    there = (await call(one, "peer.math.calculate", {"expression": "6 * 7"}))[-1]
    assert wire.from_message(there.result).output["result"] == 42
    back = (await call(one, "peer.peer.math.calculate", {"expression": "6 * 7"}))[-1]
    assert (back.failure.reason, back.failure.domain) == ("ROUTE_LOOP", "autoglm")
    assert two.popen.poll() is None
