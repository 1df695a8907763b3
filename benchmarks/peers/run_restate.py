"""Restate: its server (from the npm package, default configuration) and a service of its Python SDK under hypercorn."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import restate
from work import SLEEP, measure, tell

service = restate.Service("Benchmark")


async def one():
    return 1


async def nap():
    await asyncio.sleep(SLEEP)
    return 1


@service.handler()
async def chain(ctx: restate.Context, n: int) -> list:
    starts = []

    async def noop():
        starts.append(time.perf_counter())
        return 1

    for i in range(n):
        await ctx.run_typed(f"s{i}", noop)

    return starts


@service.handler()
async def fan(ctx: restate.Context, n: int) -> int:
    await ctx.run_typed("root", one)
    await restate.gather(*[ctx.run_typed(f"n{i}", nap) for i in range(n)])
    await ctx.run_typed("join", one)
    return n


app = restate.app([service])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(check, seconds=60.0):
    end = time.monotonic() + seconds

    while time.monotonic() < end:
        if await check():
            return

        await asyncio.sleep(0.05)

    raise RuntimeError("restate is not ready")


async def main(folder, binary):
    import httpx

    ingress, admin, node, own = (free_port() for _ in range(4))
    variables = {
        **os.environ,
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "RUST_LOG": "warn",
        "RESTATE_LOG_FILTER": "warn",
    }
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([binary, "--base-dir", folder], env=variables, cwd=folder, **quiet)]

    try:
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=200)) as client:

            async def ready():
                try:
                    answers = [
                        await client.get(f"http://127.0.0.1:{ingress}/restate/health"),
                        await client.get(f"http://127.0.0.1:{admin}/health"),
                    ]
                except httpx.HTTPError:
                    return False

                return all(answer.status_code == 200 for answer in answers)

            async def serving():
                try:
                    socket.create_connection(("127.0.0.1", own), 1).close()
                except OSError:
                    return False

                return True

            await until(ready)
            hypercorn = [sys.executable, "-m", "hypercorn", "-b", f"127.0.0.1:{own}", "run_restate:app"]
            processes.append(subprocess.Popen(hypercorn, cwd=Path(__file__).parent, **quiet))
            await until(serving)
            deployment = {"uri": f"http://127.0.0.1:{own}", "use_http_11": False}
            (await client.post(f"http://127.0.0.1:{admin}/deployments", json=deployment)).raise_for_status()
            await asyncio.sleep(2)

            async def call(method, n):
                answer = await client.post(f"http://127.0.0.1:{ingress}/Benchmark/{method}", json=n)
                answer.raise_for_status()
                return answer.json()

            async def many(plans, n):
                await asyncio.gather(*[call("chain", n) for _ in range(plans)])

            async def fanned(n):
                await call("fan", n)

            found = await measure(lambda n: call("chain", n), many, fanned, [])
            told = subprocess.run(
                [binary, "--version"], capture_output=True, text=True, check=True
            ).stdout.splitlines()[0]
            tell(note=f"{told}, sdk {version('restate-sdk')}", **found)
    finally:
        for process in reversed(processes):
            process.terminate()

        for process in processes:
            process.wait(15)


if __name__ == "__main__":
    directory = tempfile.mkdtemp(prefix="autoglm-benchmark-")

    try:
        asyncio.run(main(directory, sys.argv[1]))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
