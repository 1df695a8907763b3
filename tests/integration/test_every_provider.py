"""One plan across a plugin, a gRPC provider, an MCP server and an OpenAPI service; then each of them misbehaves in turn.

The server is a process, and so is each provider but the plugin, whose functions run in threads and processes of the server.
What a provider does is in ``peers``. It holds a call for ever the first time it sees its key, so that the same call, made
again, succeeds: only what a tool may be asked twice is asked twice.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("mcp", reason="needs the extra mcp: pip install 'open-autoglm[mcp]'")
pytest.importorskip("httpcore2", reason="needs the extra openapi: pip install 'open-autoglm[openapi]'")

import autoglm
from autoglm.model import PlanState, Step, StepState, ToolCallState, WaitingReason

PEERS = Path(__file__).parent / "peers"
MIB = 1 << 20
GROWTH_MAX = 64 * MIB
"""How much the server may grow while it is answered 100 MB."""

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP"),
]
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class World:
    """The server and its providers, shared by all tests here."""

    folder: Path
    server: subprocess.Popen[str] | None = None
    ports: dict[str, int] = field(default_factory=dict)
    peers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(json.loads((self.folder / "data" / "server.json").read_text())["address"])

    @property
    def pid(self) -> int:
        assert self.server is not None
        return self.server.pid

    def begin(self, name: str, *, version: str = "1") -> None:
        """Start a peer that is a process of its own, and wait until it serves."""
        port = str(self.ports.setdefault(name, free_port()))
        script, words = {
            "grpc": ("grpc_peer.py", [port, version]),
            "raw": ("grpc_peer.py", ["raw", port]),
            "http": ("http_peer.py", [port]),
        }[name]
        popen = self.peers[name] = subprocess.Popen(
            [sys.executable, str(PEERS / script), *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PEER_FOLDER": str(self.folder)},
        )
        assert popen.stdout is not None
        assert popen.stdout.readline() == "ready\n"

    def kill(self, name: str) -> None:
        popen = self.peers.pop(name)
        popen.kill()
        popen.wait()
        assert popen.stdout is not None
        popen.stdout.close()

    def calls(self, text: str = "") -> list[dict[str, Any]]:
        """Give the calls that began, of one key."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["key"] == text]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def serve(self) -> None:
        mcp = f"PEER_FOLDER={self.folder} {sys.executable} {PEERS / 'mcp_peer.py'}"
        http = f"http://127.0.0.1:{self.ports['http']}"
        config = {
            "plugins": [{"name": "py", "source": f"python:{self.folder / 'python_peer.py'}"}],
            "providers": {
                "grpc": f"grpc://127.0.0.1:{self.ports['grpc']}",
                "raw": f"grpc://127.0.0.1:{self.ports['raw']}",
                "mcp": f"mcp:{mcp}",
                "http": f"openapi:{http}/openapi.json",
            },
        }
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        words = ["--data-dir", str(self.folder / "data"), "--config", str(self.folder / "config.yaml"), "--port", "0"]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM_")}
        with (self.folder / "log").open("w") as stderr:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "autoglm.cli", "serve", *words],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                text=True,
                env={**kept, "PEER_FOLDER": str(self.folder)},
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("every")
    for name in ("python_peer.py", "behaviour.py"):
        shutil.copy(PEERS / name, folder / name)

    found = World(folder)
    for name in ("grpc", "raw", "http"):
        found.begin(name)

    found.serve()
    yield found

    for name in list(found.peers):
        found.kill(name)

    assert found.server is not None
    found.server.kill()
    found.server.wait()


@pytest.fixture
async def client(world: World) -> AsyncIterator[autoglm.AsyncClient]:
    """A client of the server, whose every provider is there; afterwards it still serves, in the same process."""
    async with asyncio.timeout(40):
        while not (world.folder / "data" / "server.json").exists():
            assert world.server is not None
            assert world.server.poll() is None, world.log()
            await asyncio.sleep(0.02)

    async with autoglm.AsyncClient(world.address) as found:
        await all_there(found)
        yield found
        assert await found.health() == "SERVING"
        assert world.server is not None
        assert world.server.poll() is None, world.log()


PROVIDERS = ("py", "grpc", "mcp", "http")


async def all_there(client: autoglm.AsyncClient) -> None:
    async with asyncio.timeout(40):
        while True:
            tools = {tool.name: tool async for tool in client.tools.list()}
            names = [f"{name}.{kind}" for name in (*PROVIDERS, "raw") for kind in ("read", "write")]
            if all(name in tools and tools[name].available for name in names):
                return

            await asyncio.sleep(0.05)


def step(step_id: str, tool: str, do: str, text: str, *, after: str = "", limit: float = 20.0) -> autoglm.StepDraft:
    arguments: dict[str, Any] = {"do": do, "text": text}
    if tool == "http.write":
        arguments = {"body": arguments}

    depends_on = (after,) if after else ()
    timeout = timedelta(seconds=limit)
    return autoglm.StepDraft(id=step_id, tool=tool, arguments=arguments, depends_on=depends_on, timeout=timeout)


async def settled(client: autoglm.AsyncClient, plan_id: str) -> Step:
    """Follow a plan until its step ``x`` has ended or waits for a person; gives it."""
    async for event in client.watch(plan_id):
        if isinstance(event.fact, autoglm.StepWaiting):
            break

    return next(each for each in (await client.get(plan_id)).steps if each.id == "x")


@asynccontextmanager
async def others_work(client: autoglm.AsyncClient, but: str) -> AsyncIterator[None]:
    """Within: something is wrong with one provider. A plan of the others goes through meanwhile."""
    yield
    others = [name for name in PROVIDERS if name != but]
    steps = [step(name, f"{name}.read", "echo", "fine") for name in others]
    plan = await (await client.run(steps=steps)).result(timeout=30)
    assert [each.result and each.result.output for each in plan.steps] == [f"fine+{name}" for name in others]


async def until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(40):
        while not what():  # noqa: ASYNC110 - other processes tell nobody
            await asyncio.sleep(0.01)


def key_of(plan_id: str, text: str, tool: str) -> str:
    """Give what a peer knows a call by: its key; the text, where HTTP sends none because the call only reads."""
    return text if tool == "http.read" else f"{plan_id}/x"


# --- all together


async def test_one_plan_across_all_of_them(client: autoglm.AsyncClient, world: World) -> None:
    steps = [
        step("a", "py.read", "echo", "start"),
        step("b", "grpc.write", "echo", "${a}"),
        step("c", "mcp.read", "echo", "${b}"),
        step("d", "http.write", "echo", "${c}"),
        autoglm.StepDraft(id="e", tool="text.count", arguments={"text": "${d} ${b}"}),
    ]
    plan = await (await client.run(steps=steps)).result(timeout=20)

    outputs = [each.result.output for each in plan.steps if each.result is not None]
    assert outputs[:4] == ["start+py", "start+py+grpc", "start+py+grpc+mcp", "start+py+grpc+mcp+http"]
    tools = {tool.name: tool async for tool in client.tools.list()}
    assert [each.provider for each in plan.steps] == ["py", "grpc", "mcp", "http", ""]
    assert [tools[each.tool].provider for each in plan.steps] == [each.provider for each in plan.steps]
    assert [each.tool_digest for each in plan.steps] == [tools[each.tool].digest for each in plan.steps]

    shown = await said("show", plan.id, "--address", world.address)
    listed = await said("tools", "--address", world.address)
    for name, provider in (("py.read", "py"), ("grpc.write", "grpc"), ("mcp.read", "mcp"), ("http.write", "http")):
        assert re.search(rf"  {re.escape(name)} +{provider}  ", shown)
        assert re.search(rf"^{re.escape(name)} +{provider}  ", listed, re.MULTILINE)

    assert re.search(r"  text\.count +\d+ ms", shown)
    assert re.search(r"^text\.count +read only  ", listed, re.MULTILINE)
    [told] = json.loads(await said("show", plan.id, "--json", "--address", world.address))["steps"][:1]
    assert told["provider"] == "py"


async def said(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "autoglm.cli",
        *words,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


# --- one of them misbehaves


def stop_work(world: World, tool: str, call: dict[str, Any]) -> Callable[[], None]:
    """Kill the process that does a call; gives what brings its provider back."""
    name = tool.partition(".")[0]
    if name in world.peers:
        world.kill(name)
        return lambda: world.begin(name)

    assert call["pid"] != world.pid
    os.kill(call["pid"], signal.SIGKILL)  # a worker, or an MCP server: the server starts another by itself
    return lambda: None


KILLED = ("py.{}_apart", "grpc.{}", "mcp.{}", "http.{}")


@pytest.mark.parametrize("pattern", KILLED)
async def test_killed_in_the_middle_what_reads_is_done_again(
    client: autoglm.AsyncClient, world: World, pattern: str
) -> None:
    tool, text = pattern.format("read"), f"t{next(_numbers)}"
    handle = await client.run(steps=[step("x", tool, "hold", text)])
    key = key_of(handle.id, text, tool)
    await until(lambda: world.calls(key))
    come_back = stop_work(world, tool, world.calls(key)[0])
    async with others_work(client, tool.partition(".")[0]):
        pass

    await asyncio.to_thread(come_back)
    plan = await handle.result(timeout=20)
    [done] = plan.steps
    assert done.result is not None
    assert done.result.output == f"{text}+{tool.partition('.')[0]}"
    assert [call.state for call in done.tool_calls] == [ToolCallState.FAILED, ToolCallState.SUCCEEDED]
    assert done.tool_calls[0].failure is not None
    assert done.tool_calls[0].failure.reason == "CONNECTION_LOST"
    assert len(world.calls(key)) == 2


@pytest.mark.parametrize("pattern", KILLED)
async def test_killed_in_the_middle_what_writes_asks_a_person(
    client: autoglm.AsyncClient, world: World, pattern: str
) -> None:
    tool, text = pattern.format("write"), f"t{next(_numbers)}"
    handle = await client.run(steps=[step("x", tool, "hold", text)])
    key = key_of(handle.id, text, tool)
    await until(lambda: world.calls(key))
    come_back = stop_work(world, tool, world.calls(key)[0])
    async with others_work(client, tool.partition(".")[0]):
        asked = await settled(client, handle.id)

    assert asked.waiting is not None
    assert asked.waiting.reason is WaitingReason.OUTCOME_UNKNOWN
    assert len(world.calls(key)) == 1  # nobody did it twice

    await asyncio.to_thread(come_back)
    await client.resolve(handle.id, "x", autoglm.Decision(autoglm.Retry()))
    plan = await handle.result(timeout=20)
    assert plan.steps[0].result is not None
    assert plan.steps[0].result.output == f"{text}+{tool.partition('.')[0]}"
    assert len(world.calls(key)) == 2  # the same key


@pytest.mark.parametrize("name", ["grpc", "http"])
async def test_a_call_to_a_provider_that_is_away_waits_for_it(
    client: autoglm.AsyncClient, world: World, name: str
) -> None:
    """Also one that may be made only once: nothing of it was sent."""
    world.kill(name)
    text = f"t{next(_numbers)}"
    handle = await client.run(steps=[step("x", f"{name}.write", "echo", text)])
    async for event in handle:
        if isinstance(event.fact, autoglm.StepProgressed):
            assert event.fact.message == "waits for its provider, which is away"
            break

    async with others_work(client, name):
        pass

    await asyncio.to_thread(world.begin, name)
    plan = await handle.result(timeout=20)
    assert [call.state for call in plan.steps[0].tool_calls] == [ToolCallState.SUCCEEDED]
    assert len(world.calls(f"{plan.id}/x")) == 1


HANGS = [("py", "hold"), ("grpc", "hold"), ("mcp", "hold"), ("mcp", "noise"), ("http", "hold")]


@pytest.mark.parametrize(("name", "do"), HANGS)
async def test_what_hangs_is_cut_and_what_reads_is_done_again(
    client: autoglm.AsyncClient, world: World, name: str, do: str
) -> None:
    tool, text = f"{name}.read", f"t{next(_numbers)}"
    handle = await client.run(steps=[step("x", tool, do, text, limit=0.6)])
    await until(lambda: world.calls(key_of(handle.id, text, tool)))
    async with others_work(client, name):
        pass

    plan = await handle.result(timeout=20)
    [done] = plan.steps
    assert done.state is StepState.SUCCEEDED
    assert len(done.tool_calls) > 1
    assert done.tool_calls[0].failure is not None
    assert done.tool_calls[0].failure.reason == "STEP_TIMEOUT"
    assert "0.6 s" in done.tool_calls[0].failure.message


@pytest.mark.parametrize(("name", "do"), HANGS)
async def test_what_hangs_is_cut_and_what_writes_asks_a_person(
    client: autoglm.AsyncClient, world: World, name: str, do: str
) -> None:
    tool, text = f"{name}.write", f"t{next(_numbers)}"
    handle = await client.run(steps=[step("x", tool, do, text, limit=0.6)])
    async with others_work(client, name):
        asked = await settled(client, handle.id)

    assert asked.waiting is not None
    assert asked.waiting.reason is WaitingReason.OUTCOME_UNKNOWN
    assert "took longer than its limit of 0.6 s" in asked.waiting.message
    assert len(world.calls(key_of(handle.id, text, tool))) == 1
    await handle.cancel()


@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("name", ["py", "raw", "mcp", "http"])
async def test_garbage_is_told_as_such_and_not_asked_for_again(
    client: autoglm.AsyncClient, world: World, name: str, kind: str
) -> None:
    tool, text = f"{name}.{kind}", f"t{next(_numbers)}"
    handle = await client.run(steps=[step("x", tool, "garbage", text)])
    async with others_work(client, name):
        failed = await settled(client, handle.id)

    assert failed.state is StepState.FAILED
    assert failed.failure is not None
    assert failed.failure.reason == "INVALID_OUTPUT"
    assert tool in failed.failure.message
    assert len(world.calls(key_of(handle.id, text, tool))) == 1


async def test_what_is_no_http_may_have_happened(client: autoglm.AsyncClient, world: World) -> None:
    reads = await client.run(steps=[step("x", "http.read", "noise", f"t{next(_numbers)}")])
    plan = await reads.result(timeout=20)
    assert [call.state for call in plan.steps[0].tool_calls] == [ToolCallState.FAILED, ToolCallState.SUCCEEDED]
    writes = await client.run(steps=[step("x", "http.write", "noise", "t")])
    asked = await settled(client, writes.id)
    assert asked.waiting is not None
    assert asked.waiting.reason is WaitingReason.OUTCOME_UNKNOWN
    assert len(world.calls(f"{writes.id}/x")) == 1
    await writes.cancel()


def memory(pid: int, name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) << 10


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("name", ["py", "grpc", "raw", "mcp", "http"])
async def test_a_hundred_megabytes_are_refused_and_not_held(
    client: autoglm.AsyncClient, world: World, name: str, kind: str
) -> None:
    tool = f"{name}.{kind}_apart" if name == "py" else f"{name}.{kind}"
    forget_peak(world.pid)
    before = memory(world.pid, "VmRSS")
    handle = await client.run(steps=[step("x", tool, "huge", f"t{next(_numbers)}")])
    async with others_work(client, name):
        failed = await settled(client, handle.id)

    grown = memory(world.pid, "VmHWM") - before
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (StepState.FAILED, "OUTPUT_TOO_LARGE")
    assert len(failed.tool_calls) == 1
    assert any(number in failed.failure.message for number in ("1048576", "4194304", "1 MiB", "4 MiB"))
    assert grown < GROWTH_MAX, f"the server grew by {grown / MIB:.0f} MiB"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
async def test_a_function_of_the_server_itself_that_makes_them_is_the_control(
    client: autoglm.AsyncClient, world: World
) -> None:
    """A thread of the server must hold what its function made: so the measure notices. It is let go of afterwards."""
    forget_peak(world.pid)
    before = memory(world.pid, "VmRSS")
    handle = await client.run(steps=[step("x", "py.read", "huge", f"t{next(_numbers)}")])
    failed = await settled(client, handle.id)
    assert failed.failure is not None
    assert failed.failure.reason == "OUTPUT_TOO_LARGE"
    assert memory(world.pid, "VmHWM") - before > GROWTH_MAX
    await until(lambda: memory(world.pid, "VmRSS") - before < GROWTH_MAX)


# --- one of them changes its schema


async def change(client: autoglm.AsyncClient, world: World, name: str) -> None:
    """Give the tools of a provider an argument more."""
    match name:
        case "py":
            file = world.folder / "python_peer.py"
            more = f"context: ToolContext, more{next(_numbers)}: str = ''"
            tools = file.read_text().partition("@autoglm.tool")
            file.write_text(tools[0] + tools[1] + tools[2].replace("context: ToolContext", more))
            os.kill(world.pid, signal.SIGHUP)
        case "grpc":
            world.kill("grpc")
            await asyncio.to_thread(world.begin, "grpc", version="2")
        case "mcp":
            await client.tools.call("mcp.write", {"do": "change", "text": ""})
        case _:
            (world.folder / "v2").write_text("")
            os.kill(world.pid, signal.SIGHUP)


async def changed_for(client: autoglm.AsyncClient, tool: str, digest: str) -> None:
    async with asyncio.timeout(40):
        while (await client.tools.get(tool)).digest == digest:  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_schema_that_changes_while_a_plan_waits(client: autoglm.AsyncClient, world: World, name: str) -> None:
    before = {tool.name: tool.digest async for tool in client.tools.list()}
    gate = "mcp.read" if name == "http" else "http.read"
    text = f"t{next(_numbers)}"
    steps = [
        step("gate", gate, "gate", text),
        step("x", f"{name}.write", "echo", text, after="gate"),
        step("reads", f"{name}.read", "echo", text, after="gate"),
    ]
    handle = await client.run(steps=steps)
    await until(lambda: world.calls(text if gate == "http.read" else f"{handle.id}/gate"))
    await change(client, world, name)
    if name != "grpc":  # of which the provider itself says so, before the server has looked
        await changed_for(client, f"{name}.write", before[f"{name}.write"])

    async with others_work(client, name):
        (world.folder / text).write_text("")
        asked = await settled(client, handle.id)

    assert asked.waiting is not None
    assert asked.waiting.reason is WaitingReason.TOOL_CHANGED
    assert asked.waiting.arguments is not None
    assert text in json.dumps(dict(asked.waiting.arguments))
    assert not world.calls(f"{handle.id}/x")

    await client.resolve(handle.id, "x", autoglm.Decision(autoglm.Approve()))
    plan = await handle.result(timeout=20)
    assert plan.state is PlanState.SUCCEEDED
    assert {each.id: each.result and each.result.output for each in plan.steps}["reads"] == f"{text}+{name}"
    after = {tool.name: tool.digest async for tool in client.tools.list()}
    changed = {tool.partition(".")[0] for tool in after if after[tool] != before.get(tool)}
    assert changed == {name}  # and nothing else did
