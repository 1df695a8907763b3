"""Functions for the tests of providers; worker processes load this file, too."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm import Effect, ToolContext, ToolError, tool

started = threading.Event()
release = threading.Event()
ended = threading.Event()


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


@tool(effect=Effect.READ_ONLY)
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@tool(effect=Effect.READ_ONLY)
async def add_async(a: int, b: int = 1) -> int:
    return a + b


@tool(run="process", effect=Effect.READ_ONLY)
def add_process(a: int, b: int = 1) -> int:
    print("what is printed must not disturb the messages")  # noqa: T201  # that is the point
    return a + b


@tool
def halve(even: Even) -> int:
    return even.number // 2


@tool
def stubborn() -> str:
    """Does not look whether it was told to stop."""
    started.set()
    release.wait(15)
    ended.set()
    return "late"


@tool
def attentive(context: ToolContext, last: str = "") -> str:
    """Stops when told to; with ``last``, it gives that."""
    started.set()
    assert context.wait_cancelled(15)
    if not last:
        context.raise_if_cancelled()

    return last


@tool
async def patient() -> None:
    started.set()
    await asyncio.Event().wait()


def _fail(kind: str) -> Any:
    failures: dict[str, Callable[[], BaseException]] = {
        "tool": lambda: ToolError("Full.", reason="NO_SPACE", retryable=True, metadata={"disk": "a"}),
        "value": lambda: ValueError("bad \x1b[31mvalue\n" + "x" * 5000),
        "connection": lambda: ConnectionError("gone"),
        "exit": lambda: SystemExit(3),
        "cancelled": asyncio.CancelledError,
        "stop": StopIteration,
        "timeout": lambda: TimeoutError("its own"),
        "surrogate": lambda: ToolError("half \ud800", metadata={"\ud800": "\ud800"}),
    }
    error = failures[kind]()
    raise error


@tool(effect=Effect.IDEMPOTENT)
def fail(kind: str) -> None:
    _fail(kind)


@tool(effect=Effect.IDEMPOTENT)
async def fail_async(kind: str) -> None:
    _fail(kind)


@tool(effect=Effect.IDEMPOTENT, run="process")
def fail_process(kind: str) -> None:
    _fail(kind)


@tool
def unwritable(kind: str = "") -> Any:
    return {1, 2}


@tool(run="process")
def unwritable_process(kind: str = "") -> Any:
    return float("nan")


@tool
def lies() -> int:
    return "no integer"  # type: ignore[return-value]  # what is tested


@tool
def large(size: int) -> str:
    return "x" * size


@tool(run="process")
def large_process(size: int) -> str:
    return "x" * size


@tool(effect=Effect.READ_ONLY)
def chatty(count: int, context: ToolContext) -> None:
    for number in range(count):
        context.progress(number / count, f"step {number}", text="x")


@tool(effect=Effect.READ_ONLY, run="process")
def chatty_process(context: ToolContext, count: int) -> dict[str, Any]:
    for number in range(count):
        context.progress(number / count, f"step {number}", text="x")

    return {
        "key": context.idempotency_key,
        "step": context.step_id,
        "attempt": context.attempt,
        "fork": os.environ["GRPC_ENABLE_FORK_SUPPORT"],
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "input": sys.stdin.read(),
    }


@tool(run="process")
def hang_process(context: ToolContext, pid_file: str) -> None:
    """Start a child, tell both ids, and go on for ever, deaf to everything."""
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)

    Path(pid_file).write_text(f"{os.getpid()} {child}", encoding="utf-8")
    context.progress(0.1, "hangs")
    while True:
        pass


@tool(run="process", effect=Effect.READ_ONLY)
def die_process(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


@tool(run="process", effect=Effect.READ_ONLY)
def leave_process() -> int:
    """End well, but let the process die soon after."""
    threading.Timer(0.01, os._exit, (0,)).start()
    return os.getpid()
