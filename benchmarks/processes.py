"""The processes that are measured: the server as operators start it, and the floor. Memory and CPU are read from /proc."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from benchmarks.leash import Leash

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")
leash = Leash()
"""What keeps servers from going on when a benchmark is killed."""
CHANNEL = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
"""A connection of its own for each channel."""

SETTINGS = {
    "AUTOGLM_LOG__LEVEL": "warning",
    "AUTOGLM_LIMITS__OPEN_PLANS": "1000000",
    "AUTOGLM_LIMITS__WATCHES": "20000",
    "AUTOGLM_LIMITS__CALLS_READ": "100000",
    "AUTOGLM_LIMITS__CALLS_WRITE": "100000",
    "AUTOGLM_LIMITS__CALLS_TOOL": "100000",
    "AUTOGLM_LIMITS__CALLS_SHARE": "1",
    "AUTOGLM_LIMITS__CREATE_WAIT": "none",
    "AUTOGLM_LIMITS__JOURNAL_WAIT": "none",
    "AUTOGLM_RETENTION__MAX_PLANS": "none",
    "AUTOGLM_SCHEDULER__MAX_RUNNING_PLANS": "100000",
    "AUTOGLM_SCHEDULER__MAX_RUNNING_CALLS": "2000",
    "AUTOGLM_SERVER__DRAIN": "0s",
    "AUTOGLM_PLAN__TIMEOUT": "1h",
    "AUTOGLM_PLAN__STEP_TIMEOUT": "10m",
}
"""Limits out of the way. Nothing here makes it faster, and durability is what it always is."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This tree's code before any that is installed; no setting of whoever measures, and Python's caches as everywhere."""
    other = ("AUTOGLM_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(other)}
    path = os.pathsep.join([str(ROOT), str(ROOT / "sdk"), str(ROOT / "server")])
    return {**kept, "PYTHONPATH": path, "GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR", **(more or {})}


def resident(pid: int) -> float:
    """Resident memory, in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6

    raise ProcessLookupError(f"process {pid} has ended")


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(slots=True)
class Served:
    """A process that serves at an address."""

    pid: int
    address: str
    seconds: float
    """From its start until it answered for the first time."""
    process: asyncio.subprocess.Process

    def resident(self) -> float:
        return resident(self.pid)

    def cpu(self) -> float:
        return cpu(self.pid)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=CHANNEL)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

        leash.release(self.pid)


def free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def folder(under: str | None = None) -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="autoglm-benchmark-", dir=under, ignore_cleanup_errors=True) as name:
        yield Path(name)


async def start_product(
    directory: Path,
    more: Mapping[str, str] | None = None,
    provider: bool = True,
    settings: Mapping[str, str] = SETTINGS,
) -> Served:
    """Start ``autoglm serve`` on a data directory and wait until it says SERVING."""
    port = free_port()
    flags = ["--host", "127.0.0.1", "--port", str(port), "--data-dir", str(directory)]
    flags += ["--provider", f"bench=python:{ROOT / 'benchmarks/tools.py'}"] if provider else []
    command = [sys.executable, "-m", "autoglm.cli", "serve", *flags]
    return await _start(command, f"127.0.0.1:{port}", environment({**settings, **(more or {})}))


async def start_floor(directory: Path) -> Served:
    """Start the floor and wait until it says SERVING."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.floor", str(port), str(directory)]
    return await _start(command, f"127.0.0.1:{port}", environment())


async def _start(command: Sequence[str], address: str, variables: Mapping[str, str]) -> Served:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command, env=dict(variables), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )
    leash.hold(process.pid)
    served = Served(process.pid, address, 0.0, process)

    try:
        await _serving(served, began)
    except BaseException:
        await served.stop(signal.SIGKILL)
        raise

    served.seconds = time.perf_counter() - began
    return served


async def _serving(served: Served, began: float) -> None:
    # Asking a port that nobody listens on makes the channel back off, so look with plain sockets first.
    host, _, port = served.address.rpartition(":")

    while True:
        if served.process.returncode is not None:
            raise RuntimeError(f"the process ended with {served.process.returncode} before it served")

        if time.perf_counter() - began > START_SECONDS:
            raise TimeoutError(f"not serving after {START_SECONDS:g} s")

        try:
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.002)

    async with served.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        while True:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=START_SECONDS, wait_for_ready=True)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return

            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def product(under: str | None = None, **more: str) -> AsyncIterator[Served]:
    """A server on a new data directory."""
    async with folder(under) as directory:
        served = await start_product(directory / "data", more)

        try:
            yield served
        finally:
            await served.stop()


@contextlib.asynccontextmanager
async def floor(under: str | None = None) -> AsyncIterator[Served]:
    async with folder(under) as directory:
        served = await start_floor(directory)

        try:
            yield served
        finally:
            await served.stop()


async def child(module: str, asked: Mapping[str, object], seconds: float = 300.0) -> dict[str, float]:
    """Run a module of the benchmarks in a process of its own; it reads an object and prints one."""
    command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(asked)]
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    leash.hold(process.pid)

    try:
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    finally:
        leash.release(process.pid)

    if process.returncode:
        raise RuntimeError(f"benchmarks.{module} ended with {process.returncode}")

    answer: dict[str, float] = json.loads(out.splitlines()[-1])
    return answer
