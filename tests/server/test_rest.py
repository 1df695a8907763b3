"""Giving memory back while there is nothing to do: once in each quiet time, and not in any other."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest

from autoglm_server.rest import ARENAS, BUSY_LOOKS, Rest, release, share_heaps


class Server:
    """Something that works, and notes when it rested."""

    def __init__(self) -> None:
        self.calls = 0
        self.busy = False
        self.rested: list[int] = []
        self.relieved: list[int] = []
        self.rest = Rest(lambda: self.calls, lambda: self.busy, [self._note], meanwhile=self._relieve)

    def _note(self) -> None:
        self.rested.append(self.calls)

    def _relieve(self) -> None:
        self.relieved.append(self.calls)


def test_rests_once_when_nothing_was_done_between_two_looks() -> None:
    server = Server()
    server.calls += 1
    server.rest.look()
    assert not server.rested
    for _ in range(3):
        server.rest.look()

    assert server.rested == [1]


def test_does_not_rest_before_it_worked() -> None:
    server = Server()
    for _ in range(3):
        server.rest.look()

    assert not server.rested


def test_does_not_rest_while_calls_come() -> None:
    server = Server()
    for _ in range(5):
        server.calls += 1
        server.rest.look()

    assert not server.rested


def test_does_not_rest_while_a_plan_goes_on() -> None:
    server = Server()
    server.calls, server.busy = 1, True
    for _ in range(5):
        server.rest.look()

    assert not server.rested
    server.busy = False
    server.rest.look()
    assert server.rested == [1]


def test_rests_again_after_work() -> None:
    server = Server()
    for _ in range(3):
        server.calls += 1
        for _ in range(3):
            server.rest.look()

    assert server.rested == [1, 2, 3]


def test_is_relieved_now_and_then_while_there_is_always_work() -> None:
    server = Server()
    for _ in range(2 * BUSY_LOOKS + 1):
        server.calls += 1
        server.rest.look()

    assert server.relieved == [BUSY_LOOKS, 2 * BUSY_LOOKS]
    assert not server.rested


def test_a_quiet_time_puts_off_the_next_relief() -> None:
    server = Server()
    for calls in [*range(1, BUSY_LOOKS), BUSY_LOOKS - 1, *range(BUSY_LOOKS, 2 * BUSY_LOOKS - 1)]:
        server.calls = calls
        server.rest.look()

    assert server.rested == [BUSY_LOOKS - 1]
    assert not server.relieved


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt and malloc_info are glibc's")
@pytest.mark.parametrize(("shared", "most"), [(True, ARENAS), (False, 1000)])
def test_threads_share_heaps(shared: bool, most: int) -> None:
    """Threads that ask malloc for memory at once; its own report says how many heaps there are."""
    program = f"""
import ctypes, os, threading
from autoglm_server.rest import share_heaps
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
if {shared}: share_heaps()
barrier = threading.Barrier(8)
def work():
    barrier.wait(); libc.malloc(10_000); barrier.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    heaps = done.stdout.count("<heap nr=")
    assert 1 <= heaps <= most
    assert shared or heaps > ARENAS, "the control: without it each thread has its own"


@pytest.mark.parametrize("function", [release, share_heaps])
def test_an_interpreter_without_ctypes_does_without(
    function: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    function()
