"""MCP servers as providers: ``mcp:COMMAND …`` over the process's own pipes, ``mcp+http(s)://…`` over streamable HTTP.

The package ``mcp`` is an extra and takes a second to import, so nothing here imports it before a provider is opened.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from types import ModuleType

from autoglm_server.tools.providers.mcp.address import read_command, read_endpoint
from autoglm_server.tools.tool import Provider

__all__ = ["open_command", "open_url"]


def open_command(name: str, rest: str, environment: Mapping[str, str] = os.environ) -> Provider:
    """Open the provider at ``mcp:`` and ``rest``: words as a shell splits them, without a shell.

    Raises:
        ValueError: they are no command, or name what is not there; or the extra is missing.
    """
    command = read_command(name, rest, environment)
    provider = _load("provider")
    stdio = _load("stdio")
    opened: Provider = provider.McpProvider(name, lambda: stdio.StdioLink(name, command, environment))
    return opened


def open_url(name: str, url: str, environment: Mapping[str, str] = os.environ) -> Provider:
    """Open the provider at ``mcp+`` and ``url``.

    Raises:
        ValueError: it is no URL of a server, or names a variable that is not there; or the extra is missing.
    """
    endpoint = read_endpoint(name, url, environment)
    provider = _load("provider")
    http = _load("http")
    opened: Provider = provider.McpProvider(name, lambda: http.HttpLink(endpoint, environment))
    return opened


def _load(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types", "httpx2", "anyio"}:
            raise

        raise ValueError("MCP servers need an extra: pip install 'open-autoglm[mcp]'") from None
