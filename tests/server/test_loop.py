"""The server's loop takes the transport's bytes together, and is otherwise what it is made of."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from autoglm_server.loop import new_loop

BYTES = 100
REPORTS = """
import asyncio
import grpc.aio
from autoglm_server import loop

wrapped = []
drain = loop._after_draining
loop._after_draining = lambda ends, callback: wrapped.append(callback) or drain(ends, callback)

async def main():
    async def echo(raw, context):
        return raw

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("S", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await asyncio.gather(*(channel.unary_unary("/S/Echo")(b"x") for _ in range(100))) == [b"x"] * 100

    await server.stop(None)
    print(len(wrapped), type(asyncio.get_running_loop()).__mro__[2].__module__.partition(".")[0])

with asyncio.Runner(loop_factory=loop.new_loop) as runner:
    runner.run(main())
"""


def left_over(loop: asyncio.AbstractEventLoop, name: str) -> int:
    """Give how many bytes are left of those that came before a reader of this name was called once, for one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def read() -> None:
            assert len(ours.recv(1)) == 1
            loop.remove_reader(ours)
            loop.stop()

        read.__name__ = name
        theirs.send(b"1" * BYTES)
        loop.add_reader(ours, read)
        loop.run_forever()
        loop.close()
        ours.setblocking(False)
        try:
            return len(ours.recv(BYTES))
        except BlockingIOError:
            return 0


@pytest.mark.parametrize("factory", [new_loop, asyncio.SelectorEventLoop])
def test_all_bytes_of_the_transport_are_taken_and_no_others(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    assert left_over(factory(), "_handle_events") == (0 if factory is new_loop else BYTES - 1)
    assert left_over(factory(), "read") == BYTES - 1


@pytest.mark.parametrize("without", ["", "uvloop"])
def test_the_installed_transport_is_known(without: str) -> None:
    hide = f"import sys; sys.modules['{without}'] = None\n" if without else ""
    done = subprocess.run(
        [sys.executable, "-c", hide + REPORTS], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.stdout == f"1 {'asyncio' if without else 'uvloop'}\n", done.stderr
