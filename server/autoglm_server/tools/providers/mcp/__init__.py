"""MCP servers as providers: ``mcp:COMMAND …`` over the process's own pipes, ``mcp+http(s)://…`` over streamable HTTP.

The package ``mcp`` is an extra and takes a second to import, so nothing here imports it before a provider is opened.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from autoglm_server.tools.providers.mcp.address import Expand, read_command, read_endpoint
from autoglm_server.tools.tool import Provider

__all__ = ["SCHEMES", "open_command", "open_mcp", "open_url"]

SCHEMES: Final = frozenset({"mcp", "mcp+http", "mcp+https"})


def open_mcp(name: str, uri: str, expand: Expand = str) -> Provider:
    """Open the provider at ``uri``, whose scheme is one of :data:`SCHEMES`; ``expand`` gives the values of secrets.

    Raises:
        ValueError: as :func:`open_command` and :func:`open_url`.
    """
    if uri.startswith("mcp+"):
        return open_url(name, uri.removeprefix("mcp+"), expand)

    return open_command(name, uri.removeprefix("mcp:"), expand)


def open_command(name: str, rest: str, expand: Expand = str, environment: Mapping[str, str] = os.environ) -> Provider:
    """Open the provider at ``mcp:`` and ``rest``: words as a shell splits them, without a shell.

    ``expand`` gives the values of secrets, ``environment`` those of variables that the words name.

    Raises:
        ValueError: they are no command, or name what is not there; or the extra is missing.
    """
    command = read_command(name, rest, environment, expand)
    provider = _load("provider")
    stdio = _load("stdio")
    opened: Provider = provider.McpProvider(
        name, lambda: stdio.StdioLink(name, command.words, lambda: command.environment(environment, expand))
    )
    return opened


def open_url(name: str, url: str, expand: Expand = str, environment: Mapping[str, str] = os.environ) -> Provider:
    """Open the provider at ``mcp+`` and ``url``; ``expand`` and ``environment`` as for :func:`open_command`.

    Raises:
        ValueError: it is no URL of a server, or names a variable that is not there; or the extra is missing.
    """
    endpoint = read_endpoint(name, url, environment, expand)
    provider = _load("provider")
    http = _load("http")
    opened: Provider = provider.McpProvider(
        name, lambda: http.HttpLink(endpoint.url, lambda: endpoint.token(environment, expand))
    )
    return opened


def _load(module: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types", "httpx2", "anyio"}:
            raise

        raise ValueError("MCP servers need an extra: pip install 'open-autoglm[mcp]'") from None
