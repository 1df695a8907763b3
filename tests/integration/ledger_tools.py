"""Tools that note every call in a file outside the server, so that a test knows what was really done, and how often."""

from __future__ import annotations

import json
import os
from pathlib import Path

import autoglm

SECONDS = 0.1
"""How long a call takes at least: long enough to be killed in the middle of it."""


@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def look(folder: str, context: autoglm.ToolContext, gate: str = "") -> str:
    """Change nothing.

    Args:
        folder: Where the ledger is.
        gate: A file in it to wait for.
    """
    return _work("look", Path(folder), context, gate)


@autoglm.tool(effect=autoglm.Effect.IDEMPOTENT)
def put(folder: str, context: autoglm.ToolContext, gate: str = "") -> str:
    """Do what may be done twice.

    Args:
        folder: Where the ledger is.
        gate: A file in it to wait for.
    """
    return _work("put", Path(folder), context, gate)


@autoglm.tool(effect=autoglm.Effect.NON_IDEMPOTENT)
def send(folder: str, context: autoglm.ToolContext, gate: str = "") -> str:
    """Do what must not be done twice.

    Args:
        folder: Where the ledger is.
        gate: A file in it to wait for.
    """
    return _work("send", Path(folder), context, gate)


def _work(tool: str, folder: Path, context: autoglm.ToolContext, gate: str) -> str:
    _note("begin", tool, folder, context)
    context.wait_cancelled(SECONDS)

    while gate and not (folder / gate).exists():
        if context.wait_cancelled(0.01):
            context.raise_if_cancelled()

    _note("end", tool, folder, context)
    return context.step_id


def _note(what: str, tool: str, folder: Path, context: autoglm.ToolContext) -> None:
    line = {"what": what, "tool": tool, "key": context.idempotency_key, "attempt": context.attempt, "pid": os.getpid()}
    # One write to a file opened to append: whole lines, in the order of the calls, whoever is killed.
    ledger = os.open(folder / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(ledger, (json.dumps(line) + "\n").encode())
    os.close(ledger)
