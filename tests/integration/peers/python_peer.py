"""The plugin: functions in threads and processes of the server itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import autoglm
from autoglm import Effect, ToolContext
from autoglm.plugin import hookimpl

_spec = importlib.util.spec_from_file_location("peer_behaviour", Path(__file__).with_name("behaviour.py"))
assert _spec is not None
assert _spec.loader is not None
behaviour = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(behaviour)


def _work(do: str, text: str, context: ToolContext) -> Any:
    if do == "garbage":
        behaviour.note("py", context.idempotency_key)
        return object()

    return behaviour.work("py", do, text, context.idempotency_key)


@autoglm.tool(effect=Effect.READ_ONLY)
def read(do: str, text: str, context: ToolContext) -> Any:
    """Read, in a thread."""
    return _work(do, text, context)


@autoglm.tool(effect=Effect.NON_IDEMPOTENT)
def write(do: str, text: str, context: ToolContext) -> Any:
    """Write, in a thread."""
    return _work(do, text, context)


@autoglm.tool(effect=Effect.READ_ONLY, run="process")
def read_apart(do: str, text: str, context: ToolContext) -> Any:
    """Read, in a process."""
    return _work(do, text, context)


@autoglm.tool(effect=Effect.NON_IDEMPOTENT, run="process")
def write_apart(do: str, text: str, context: ToolContext) -> Any:
    """Write, in a process."""
    return _work(do, text, context)


class Peer:
    """The plugin."""

    @hookimpl
    def register_tools(self) -> list[autoglm.FunctionTool]:
        """Give the tools."""
        return [read, write, read_apart, write_apart]


plugin = Peer
