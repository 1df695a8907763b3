"""Servers as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from autoglm.v1 import plan_service_pb2_grpc, tool_service_pb2_grpc

TOOLS = '''
import os
import time
from pathlib import Path
import autoglm
from autoglm import Effect

@autoglm.tool(name="gate", effect=Effect.READ_ONLY)
def gate(path: str) -> str:
    """Wait for a file.

    Args:
        path: the file.
    """
    while not Path(path).exists():
        time.sleep(0.01)
    return "open"

@autoglm.tool(name="count", effect=Effect.NON_IDEMPOTENT)
def count(path: str) -> int:
    """Add a line to a file.

    Args:
        path: the file.
    """
    with open(path, "a") as file:
        file.write("x\\n")
    return len(Path(path).read_text())
'''
"""A provider's tools, that a test can hold and count."""


@dataclass
class Process:
    """A server process, and channels to it."""

    popen: subprocess.Popen[str]
    data_dir: Path
    stack: AsyncExitStack
    log: Path
    file: dict[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.file["address"])

    async def channel(self) -> Any:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return await self.stack.enter_async_context(grpc.aio.insecure_channel(self.address, options=options))

    async def plans(self) -> Any:
        return plan_service_pb2_grpc.PlanServiceStub(await self.channel())

    async def tools(self) -> Any:
        return tool_service_pb2_grpc.ToolServiceStub(await self.channel())

    async def health(self) -> Any:
        return health_pb2_grpc.HealthStub(await self.channel())

    async def serving(self) -> Process:
        """Wait until it says where it is."""
        while not (self.data_dir / "server.json").exists():
            assert self.popen.poll() is None, self.log.read_text()
            await asyncio.sleep(0.02)

        self.file = json.loads((self.data_dir / "server.json").read_text())
        health = await self.health()
        response = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=40)
        assert response.status == health_pb2.HealthCheckResponse.SERVING
        return self

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end, within the test's time limit."""
        return await asyncio.to_thread(self.popen.wait)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., Process]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    (tmp_path / "tools.py").write_text(TOOLS)

    async with AsyncExitStack() as stack:

        def begin(*flags: str, data_dir: Path | None = None, **environment: str) -> Process:
            folder = data_dir or tmp_path / "data"
            log = tmp_path / f"log-{len(processes)}"
            command = [sys.executable, "-m", "autoglm_server", "--data-dir", str(folder)]
            command += [] if "--embedded" in flags or "--port" in flags else ["--port", "0"]
            settings = {f"AUTOGLM_{key}": value for key, value in environment.items()}
            kept = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM_")}

            with log.open("w") as stderr:
                popen = subprocess.Popen(
                    [*command, "--log-level", "debug", *flags],
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    env=kept | settings,
                )

            processes.append(popen)
            return Process(popen, folder, stack, log)

        yield begin

    for popen in processes:
        popen.kill()
        popen.wait()
        assert popen.stdout is not None
        popen.stdout.close()
