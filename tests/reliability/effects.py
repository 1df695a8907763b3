"""Tools that note in a ledger outside the server when a call of them began and ended, so that it is known what was done."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import autoglm

SECONDS = 0.03
"""How long a call takes at least: long enough to be killed in the middle of it."""


@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def look(folder: str, context: autoglm.ToolContext, of: str = "") -> str:
    """Change nothing.

    Args:
        folder: Where the ledger is.
        of: What an earlier step gave.
    """
    return _work("look", Path(folder), context, of)


@autoglm.tool(effect=autoglm.Effect.IDEMPOTENT)
def put(folder: str, context: autoglm.ToolContext, of: str = "") -> str:
    """Do what may be done twice.

    Args:
        folder: Where the ledger is.
        of: What an earlier step gave.
    """
    return _work("put", Path(folder), context, of)


@autoglm.tool(effect=autoglm.Effect.NON_IDEMPOTENT)
def send(folder: str, context: autoglm.ToolContext, of: str = "") -> str:
    """Do what must not be done twice.

    Args:
        folder: Where the ledger is.
        of: What an earlier step gave.
    """
    return _work("send", Path(folder), context, of)


@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def report(name: str, size: int, context: autoglm.ToolContext) -> str:
    """Give a file.

    Args:
        name: What its content begins with.
        size: How many bytes it has, about.
    """
    context.save("report.txt", name.ljust(size, "."))
    return f"{size} bytes"


@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def linger(seconds: float, context: autoglm.ToolContext) -> str:
    """Take some time, unless it is cancelled.

    Args:
        seconds: How long.
    """
    if context.wait_cancelled(seconds):
        raise autoglm.ToolError("cancelled", reason="CANCELLED")

    return "stayed"


@autoglm.tool(effect=autoglm.Effect.READ_ONLY, retry_policy=autoglm.RetryPolicy(3, timedelta(milliseconds=50)))
def stumble(context: autoglm.ToolContext, until: int = 2) -> str:
    """Fail, in a way that another attempt may mend.

    Args:
        until: The attempt that does not fail.
    """
    if context.attempt < until:
        raise autoglm.ToolError("stumbled", retryable=True)

    return f"stood up in attempt {context.attempt}"


def _work(tool: str, folder: Path, context: autoglm.ToolContext, of: str) -> str:
    _note("begin", tool, folder, context, of)
    context.wait_cancelled(SECONDS)
    _note("end", tool, folder, context, of)
    return f"${{s0}} of {context.step_id}"  # reads like a reference, and is none


def _note(what: str, tool: str, folder: Path, context: autoglm.ToolContext, of: str) -> None:
    line = {
        "at": time.monotonic_ns(),
        "what": what,
        "tool": f"ledger.{tool}",
        "key": context.idempotency_key,
        "plan_id": context.plan_id,
        "step_id": context.step_id,
        "attempt": context.attempt,
        "arguments": {"folder": str(folder), **({"of": of} if of else {})},
        "owner": str(os.getpid()),
    }
    # One write to a file opened to append: in the order of the calls, whoever is killed. One that is killed at the edge of a
    # page leaves a part; so that this spoils no other line, each begins one.
    ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(ledger, f"\n{json.dumps(line)}\n".encode())
    os.close(ledger)
