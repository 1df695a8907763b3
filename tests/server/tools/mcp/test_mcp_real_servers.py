"""Servers no one here wrote. npm's are taken from where ``npm install`` puts them, without asking the network anew."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import Effect, ToolProgress, ToolResult
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.providers.mcp.link import Link
from autoglm_server.tools.providers.mcp.provider import McpProvider
from autoglm_server.tools.tool import Invocation, ToolCallError

from .conftest import until

PACKAGES = ("server-everything", "server-filesystem", "server-memory")
INSTALL_SECONDS = 100


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the servers' commands: ``AUTOGLM_TEST_MCP_NPM``, or installed there once for all tests."""
    if given := os.environ.get("AUTOGLM_TEST_MCP_NPM"):
        return Path(given)

    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no node and npm here: the MCP servers of npm are not tested")

    folder = tmp_path_factory.mktemp("npm")
    names = [f"@modelcontextprotocol/{package}" for package in PACKAGES]
    command = [
        "npm",
        "install",
        "--prefix",
        str(folder),
        "--no-fund",
        "--no-audit",
        "--ignore-scripts",
        "--prefer-offline",
    ]
    try:
        done = subprocess.run([*command, *names], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm could not install the MCP servers in time: they are not tested")

    if done.returncode:
        pytest.skip(f"npm could not install the MCP servers: they are not tested: {done.stderr[-300:]}")

    return folder / "node_modules" / ".bin"


class Called:
    def __init__(self, **uris: str) -> None:
        providers = [open_provider(name, uri) for name, uri in uris.items()]
        self.links: list[Any] = []
        for provider in providers:
            assert isinstance(provider, McpProvider)
            provider._link = self._kept(provider._link)

        self.catalog = Catalog(providers)

    def _kept(self, make: Callable[[], Link]) -> Callable[[], Link]:
        def link() -> Link:
            made = make()
            self.links.append(made)
            return made

        return link

    async def __call__(
        self, tool: str, seconds: float = 15, report: Any = lambda _: None, **arguments: Any
    ) -> ToolResult:
        return await self.catalog.call(Invocation(tool, arguments, "key", seconds, report=report))


@asynccontextmanager
async def started(**uris: str) -> AsyncIterator[Called]:
    called = Called(**uris)
    await called.catalog.start()
    try:
        yield called
    finally:
        await called.catalog.stop()


@pytest.mark.timeout(INSTALL_SECONDS + 20)
async def test_server_everything_over_pipes(npm: Path) -> None:
    seen: list[ToolProgress] = []
    async with started(it=f"mcp:{npm}/mcp-server-everything") as call:
        assert (await call("it.echo", message="hi")).output == "Echo: hi"
        assert (await call("it.get-sum", a=1, b=2)).output == "The sum of 1 and 2 is 3."
        assert set((await call("it.get-structured-content", location="Chicago")).output) >= {"temperature", "humidity"}
        image = await call("it.get-tiny-image")
        assert [(one.media_type, one.size_bytes > 1000) for one in image.artifacts] == [("image/png", True)]
        assert "bytes]" in image.output
        assert len((await call("it.get-resource-links")).artifacts) == 3
        await call("it.trigger-long-running-operation", report=seen.append, duration=1, steps=4)
        assert [report.fraction for report in seen][-1] == 1.0
        with pytest.raises(ToolCallError) as caught:
            await call("it.trigger-long-running-operation", 0.3, duration=60, steps=4)

        assert caught.value.failure.reason == "STEP_TIMEOUT"
        assert (await call("it.echo", message="on")).output == "Echo: on"


@pytest.mark.timeout(INSTALL_SECONDS + 20)
async def test_server_everything_over_http(npm: Path, http_everything: str) -> None:
    async with started(it=f"mcp+http://{http_everything}/mcp") as call:
        await until(lambda: call.catalog.get("it.echo"))
        assert (await call("it.echo", message="hi")).output == "Echo: hi"
        seen: list[ToolProgress] = []
        await call("it.trigger-long-running-operation", report=seen.append, duration=1, steps=2)
        assert seen[-1].fraction == 1.0


@pytest.fixture
def http_everything(npm: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    command = [str(npm / "mcp-server-everything"), "streamableHttp"]
    log = subprocess.DEVNULL
    with subprocess.Popen(command, env={**os.environ, "PORT": str(port)}, stdout=log, stderr=log) as server:
        yield f"127.0.0.1:{port}"
        server.kill()


@pytest.mark.timeout(INSTALL_SECONDS + 20)
async def test_server_filesystem(npm: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("of a file")
    (tmp_path / "out.txt").write_text("secret")
    async with started(it=f"mcp:{npm}/mcp-server-filesystem '{tmp_path / 'in'}'") as call:
        write, read = call.catalog.get("it.write_file"), call.catalog.get("it.read_text_file")
        assert write
        assert read
        assert (write.effect, write.destructive, read.effect) == (Effect.IDEMPOTENT, True, Effect.READ_ONLY)

        result = await call("it.read_text_file", path=str(tmp_path / "in" / "a.txt"))
        assert result.output == {"content": "of a file"}
        await call("it.write_file", path=str(tmp_path / "in" / "b.txt"), content="written")
        assert (tmp_path / "in" / "b.txt").read_text() == "written"
        with pytest.raises(ToolCallError) as caught:
            await call("it.read_text_file", path=str(tmp_path / "out.txt"))

        failure = caught.value.failure
        assert (failure.domain, failure.reason) == ("it.read_text_file", "FAILED")
        assert "Access denied" in failure.message


@pytest.mark.timeout(INSTALL_SECONDS + 20)
async def test_server_memory_keeps_what_it_is_told_over_its_own_death(npm: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory.json"
    async with started(it=f"mcp:MEMORY_FILE_PATH='{file}' {npm}/mcp-server-memory") as call:
        entity = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
        await call("it.create_entities", entities=[entity])
        (link,) = call.links
        os.kill(link.pid, 9)
        await until(lambda: len(call.links) == 2)

        assert (await call("it.read_graph")).output["entities"] == [entity]


async def test_mcp_server_time() -> None:
    pytest.importorskip("mcp_server_time", reason="mcp-server-time is not installed: pip install -e '.[dev]'")

    async with started(clock=f"mcp:{sys.executable} -m mcp_server_time") as call:
        tool = call.catalog.get("clock.get_current_time")
        assert tool
        assert tool.effect is Effect.READ_ONLY

        async with asyncio.TaskGroup() as tasks:
            several = [tasks.create_task(call("clock.get_current_time", timezone="Asia/Tokyo")) for _ in range(8)]

        assert {one.result().output["timezone"] for one in several} == {"Asia/Tokyo"}
        arguments: dict[str, Any] = {"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "UTC"}
        assert (await call("clock.convert_time", **arguments)).output["target"]["datetime"].endswith("T03:00:00+00:00")
        with pytest.raises(ToolCallError) as caught:
            await call("clock.get_current_time", timezone="Nowhere/Nowhere")

        assert (caught.value.failure.reason, caught.value.failure.domain) == ("FAILED", "clock.get_current_time")
