"""The server's own tools, as a plugin like any other; only their names have no prefix."""

from __future__ import annotations

from autoglm.plugin import ToolsRequest, hookimpl
from autoglm.tool import FunctionTool
from autoglm_server.tools.builtin import builtin_tools

NAME = "builtin"


class Builtin:
    """Gives the built-in tools."""

    @hookimpl
    def register_tools(self, event: ToolsRequest) -> list[FunctionTool]:
        """Make them for the workspace."""
        event.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
        return builtin_tools(event.workspace)
