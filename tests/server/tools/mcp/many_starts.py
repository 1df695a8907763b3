# ruff: noqa: T201 - a script
"""Starts many processes in one that serves gRPC to busy clients, on uvloop, and prints what became of them.

``python many_starts.py COUNT FOLDER ours|loop``: as the provider does, or (the control) by the event loop. Run it with
``GRPC_ENABLE_FORK_SUPPORT=1``, under which a fork is dangerous; the server itself sets it to 0 besides.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.tool import Invocation

STAND_IN = Path(__file__).with_name("stand_in.py")
AT_ONCE = 8


class Traffic:
    """A gRPC server and clients that call it without a pause, with large messages; any error is one too many."""

    def __init__(self) -> None:
        self.calls = 0
        self.errors: list[str] = []

    async def run(self, stopped: asyncio.Event) -> None:
        server = grpc.aio.server()
        handler: Any = grpc.unary_unary_rpc_method_handler(_echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {"Echo": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(self._calls(port, stopped))

        await server.stop(None)

    async def _calls(self, port: int, stopped: asyncio.Event) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            echo: Any = channel.unary_unary("/t.T/Echo")
            message = bytes(100_000)
            while not stopped.is_set():
                try:
                    if await echo(message, timeout=30) != message:
                        self.errors.append("another message came back")
                except grpc.RpcError as error:
                    self.errors.append(str(error.code()))

                self.calls += 1


async def _echo(message: bytes, _context: Any) -> bytes:
    return message


async def ours(number: int, folder: Path) -> str:
    """Start one by the provider, call it, end it; gives what is wrong."""
    ledger = folder / f"ledger-{number}"
    words = [sys.executable, "-I", "-S", str(STAND_IN), str(ledger)]
    catalog = Catalog([open_provider("it", f"mcp:{shlex.join(words)}")])
    await catalog.start()
    try:
        result = await catalog.call(Invocation("it.echo", {"text": str(number)}, "", 20))
    finally:
        await catalog.stop()

    starts = sum("start" in json.loads(line) for line in ledger.read_text().splitlines())
    return "" if result.output == str(number) and starts == 1 else f"{starts} starts, {result.output!r}"


async def by_the_loop(_number: int, _folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", "pass")
    status = await process.wait()
    return "" if status == 0 else (signal.Signals(-status).name if status < 0 else str(status))


async def main(count: int, folder: Path, way: str) -> None:
    traffic, stopped, limit = Traffic(), asyncio.Event(), asyncio.Semaphore(AT_ONCE)
    faults: list[str] = []
    one = ours if way == "ours" else by_the_loop

    async def start(number: int) -> None:
        async with limit:
            if fault := await one(number, folder):
                faults.append(fault)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic.run(stopped))
        async with asyncio.TaskGroup() as starts:
            for number in range(count):
                starts.create_task(start(number))

        stopped.set()

    told = {"starts": count, "faults": faults, "calls": traffic.calls, "errors": traffic.errors}
    print(json.dumps(told))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
