"""Prefect 3: its API server on SQLite, async tasks in an async flow, as it comes: results are not persisted.

With many flows at once its SQLite is busy: its server answers 503, and its client waits for seconds before it asks again. So the
caller asks for 4 flows of 5 tasks.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from work import SLEEP, measure, tell

READY_SECONDS = 180
directory = tempfile.mkdtemp(prefix="autoglm-benchmark-")

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]

os.environ.update(
    PREFECT_HOME=directory,
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    PREFECT_LOGGING_LEVEL="ERROR",
    PREFECT_LOGGING_TO_API_ENABLED="false",
    PREFECT_SERVER_LOGGING_LEVEL="ERROR",
    PREFECT_CLI_PROMPT="false",
    PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
)
command = [
    str(Path(sys.executable).with_name("prefect")),
    "server",
    "start",
    "--host",
    "127.0.0.1",
    "--port",
    str(port),
]
server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

try:
    ready_by = time.monotonic() + READY_SECONDS

    while True:
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).status == 200:
                break
        except OSError:
            if server.poll() is not None:
                raise RuntimeError(f"its server ended with {server.returncode}") from None

            if time.monotonic() > ready_by:
                raise RuntimeError(f"its server is not ready after {READY_SECONDS} s") from None

            time.sleep(0.1)

    import prefect
    from prefect import flow, task

    stamps = []

    @task
    async def noop(i):
        stamps.append(time.perf_counter())
        return i

    @task
    async def nap(i):
        await asyncio.sleep(SLEEP)
        return i

    @flow
    async def chain(n):
        for i in range(n):
            await noop(i)

    @flow
    async def fan(n):
        await noop(0)
        await asyncio.gather(*[nap(i) for i in range(n)])
        await noop(1)

    async def many(plans, n):
        await asyncio.gather(*[chain(n) for _ in range(plans)])

    tell(note=f"prefect {prefect.__version__}", **asyncio.run(measure(chain, many, fan, stamps)))
finally:
    server.send_signal(signal.SIGINT)

    try:
        server.wait(15)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()

    shutil.rmtree(directory, ignore_errors=True)
