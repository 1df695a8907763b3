"""The tools that plans of the benchmarks call; a provider of the measured server: ``bench=python:benchmarks/tools.py``.

They are IDEMPOTENT, not READ_ONLY: each call waits until its start is durable, as the floor's steps wait for their ends.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from dataclasses import dataclass, field

import autoglm
from autoglm import Effect

KILOBYTE = {"rows": [{"id": i, "name": f"row number {i}", "ok": True, "score": i * 1.5} for i in range(18)]}
"""About 1 kB as JSON."""
SMALL = {"status": 200, "bytes": 51234, "sha": "9f86d081884c7d65"}


@dataclass(slots=True)
class Gate:
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


_gates: defaultdict[str, Gate] = defaultdict(Gate)
_open_for_good = os.environ.get("BENCHMARK_GATES") == "open"


@autoglm.tool(name="noop", effect=Effect.IDEMPOTENT)
async def noop() -> dict:  # type: ignore[type-arg]
    """Do nothing."""
    return SMALL


@autoglm.tool(name="large", effect=Effect.IDEMPOTENT)
async def large(
    a: int,
    b: str,
    c: bool,
    d: float,
    e: int,
    f: str,
    g: bool,
    h: float,
    i: int,
    j: str,
) -> dict:  # type: ignore[type-arg]
    """Do nothing with ten arguments, and give 1 kB."""
    return KILOBYTE


@autoglm.tool(name="read", effect=Effect.READ_ONLY)
async def read() -> dict:  # type: ignore[type-arg]
    """Do nothing, and change nothing: the call need not wait for the disk."""
    return SMALL


@autoglm.tool(name="nap", effect=Effect.IDEMPOTENT)
async def nap(seconds: float) -> dict:  # type: ignore[type-arg]
    """Take a while."""
    await asyncio.sleep(seconds)
    return SMALL


@autoglm.tool(name="gate", effect=Effect.IDEMPOTENT)
async def gate(key: str) -> dict:  # type: ignore[type-arg]
    """Wait until the gate is opened, so that many plans begin at once."""
    if not _open_for_good:
        _gates[key].waiting += 1
        await _gates[key].opened.wait()

    return SMALL


@autoglm.tool(name="waiting", effect=Effect.READ_ONLY)
async def waiting(key: str) -> int:
    """Tell how many wait."""
    return _gates[key].waiting


@autoglm.tool(name="open", effect=Effect.IDEMPOTENT)
async def open_gate(key: str) -> int:
    """Open the gate."""
    _gates[key].opened.set()
    return _gates[key].waiting
