"""Providers of stand-in servers, in a catalog; ended after each test, with their processes."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp: pip install 'open-autoglm[mcp]'")

from autoglm.model import Failure, ToolProgress, ToolResult
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.mcp.address import read_command
from autoglm_server.tools.providers.mcp.provider import McpProvider, Timing
from autoglm_server.tools.providers.mcp.stdio import StdioLink
from autoglm_server.tools.tool import Invocation, ToolCallError

STAND_IN = Path(__file__).with_name("stand_in.py")
QUICK = Timing(start=15, connect=15, reply=0.3, look=0.1, pause=0.01, backoff=0.01, backoff_max=0.1)


class Rig:
    """A catalog with one provider, ``it``, and the ledger of its server."""

    def __init__(self, ledger: Path, manner: str = "", timing: Timing = QUICK, **environment: str) -> None:
        self.ledger = ledger
        self.links: list[StdioLink] = []
        words = [sys.executable, "-I", "-S", str(STAND_IN), str(ledger), *([manner] if manner else [])]
        text = shlex.join(words)
        self.environment = {"PATH": "/usr/bin:/bin", **environment}
        self.command = read_command("it", text, self.environment)
        self.provider = McpProvider("it", self._link, timing=timing)
        self.catalog = Catalog([self.provider])

    def _link(self) -> StdioLink:
        self.links.append(StdioLink("it", self.command.words, lambda: self.command.environment(self.environment)))
        return self.links[-1]

    async def call(
        self,
        tool: str,
        seconds: float = 10.0,
        report: Callable[[ToolProgress], None] = lambda _progress: None,
        **arguments: Any,
    ) -> ToolResult:
        return await self.catalog.call(Invocation(f"it.{tool}", arguments, "plan/step", seconds, report=report))

    async def failure(self, tool: str, seconds: float = 10.0, **arguments: Any) -> Failure:
        with pytest.raises(ToolCallError) as caught:
            await self.call(tool, seconds, **arguments)

        return caught.value.failure

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ledger.read_text().splitlines()] if self.ledger.exists() else []

    def available(self) -> bool:
        tool = self.catalog.get("it.echo")
        return tool is not None and tool.available


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds; the test's own limit is the limit."""
    while not condition():  # noqa: ASYNC110 - it may be of another process
        await asyncio.sleep(0.005)


Make = Callable[..., Awaitable[Rig]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Rig] = []

    async def rig(manner: str = "", **more: Any) -> Rig:
        rig = Rig(tmp_path / f"ledger-{len(made)}", manner, **more)
        made.append(rig)
        await rig.catalog.start()
        return rig

    yield rig
    for each in made:
        await each.catalog.stop()
