"""``table.query``: SQL over CSV, JSON and Parquet files of the workspace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from autoglm.model import Tool, ToolResult
from autoglm_server.settings import TableSettings
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tables.call import query
from autoglm_server.tools.tool import Invocation

NAME: Final = "table"
EXTRA_LINE: Final = "pip install 'open-autoglm[server,data]'"
"""What installs what the tool needs."""


def installed() -> bool:
    """Whether what the tool needs is installed; nothing of it is imported."""
    return find_spec("duckdb") is not None and find_spec("matplotlib") is not None


class TableProvider(FunctionProvider):
    """Serves the tool. A query runs in a worker process, which is told beside the arguments what it may use."""

    def __init__(self, settings: TableSettings, workspace: Path) -> None:
        """Query files below ``workspace``."""
        super().__init__(NAME, [query])
        self._told: dict[str, Any] = {"root": str(workspace), "memory": int(settings.memory)}
        spec = replace(query.spec, timeout=settings.timeout, available=True)
        self._offered = (replace(spec, input_schema=_without(spec.input_schema, self._told)),)

    def tools(self) -> Sequence[Tool]:
        """Give the tool as it is asked for: without what the worker is told."""
        return self._offered

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`."""
        return await super().call(replace(invocation, arguments={**invocation.arguments, **self._told}))


def _without(text: str, names: dict[str, Any]) -> str:
    """Give an input schema without these properties."""
    schema = json.loads(text)
    schema["properties"] = {name: inner for name, inner in schema["properties"].items() if name not in names}
    schema["required"] = [name for name in schema["required"] if name not in names]
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
