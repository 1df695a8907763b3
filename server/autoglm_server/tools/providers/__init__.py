"""Sources of tools, opened by URI."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from autoglm_server.settings import HttpSettings, ShellSettings, TableSettings
from autoglm_server.tools.builtin import shell, tables
from autoglm_server.tools.loading import load_file, load_module, tools_of
from autoglm_server.tools.providers import mcp
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.providers.openapi import open_openapi
from autoglm_server.tools.tool import Provider

__all__ = ["SCHEMES", "FunctionProvider", "open_http", "open_openapi", "open_provider", "open_shell", "open_tables"]

_GRPC = ("grpc", "GrpcProvider")
_REFLECT = ("reflect", "ReflectProvider")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,31}")


def _python(name: str, rest: str) -> Provider:
    module = (
        load_file(Path(rest).expanduser(), fresh=True) if rest.endswith(".py") or "/" in rest else load_module(rest)
    )
    tools = tools_of(module)
    if not tools:
        raise ValueError(f"provider {name}: {rest} has no tools; decorate its functions with @autoglm.tool")

    return FunctionProvider(name, tools)


def _endpoint(made: tuple[str, str], name: str, rest: str, *, tls: bool = False) -> Provider:
    """Open a provider behind gRPC, whose modules few servers need."""
    from autoglm_server.tools.providers.endpoints import endpoint_opener  # noqa: PLC0415 - see above

    module, kind = made
    make = getattr(import_module(f"{__name__}.{module}"), kind)
    opened: Provider = endpoint_opener(make, tls=tls)(name, rest)
    return opened


def open_http(settings: HttpSettings) -> list[Provider]:
    """Open the provider of ``http.get`` and ``http.send``, if the settings allow any host.

    Raises:
        ValueError: the extra is missing, or a host in the settings is none.
    """
    if not settings.allow:
        return []

    try:
        from autoglm_server.tools.builtin.https import HttpProvider  # noqa: PLC0415 - needs an extra
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("httpcore2", "anyio", "h11"):
            raise

        raise ValueError("http.allow needs more: pip install 'open-autoglm[openapi]'") from None

    try:
        return [HttpProvider(settings)]
    except ValueError as error:
        raise ValueError(f"http: {error}") from None


def open_tables(settings: TableSettings, workspace: Path) -> list[Provider]:
    """Open the provider of ``table.query``, if what it needs is installed."""
    return [tables.TableProvider(settings, workspace)] if tables.installed() else []


def open_shell(settings: ShellSettings, workspace: Path) -> list[Provider]:
    """Open the provider of ``shell.run``, if the settings enable it.

    Raises:
        ValueError: this system has no processes as it needs them.
    """
    if not settings.enabled:
        return []

    if os.name != "posix":
        raise ValueError("shell.enabled: commands can be run on POSIX systems alone")

    return [shell.ShellProvider(settings, workspace)]


SCHEMES: Mapping[str, tuple[str, Callable[[str, str], Provider]]] = MappingProxyType(
    {
        "python": ("python:FILE.py or python:package.module", _python),
        "mcp": ("mcp:COMMAND ARGUMENT …", mcp.open_command),
        "mcp+http": ("mcp+http://HOST:PORT/PATH", lambda name, rest: mcp.open_url(name, f"http:{rest}")),
        "mcp+https": ("mcp+https://HOST/PATH", lambda name, rest: mcp.open_url(name, f"https:{rest}")),
        "openapi": ("openapi:FILE or openapi:URL", open_openapi),
        "grpc": ("grpc://HOST:PORT[,HOST:PORT]", partial(_endpoint, _GRPC)),
        "grpcs": ("grpcs://HOST:PORT[?ca=FILE&cert=FILE&key=FILE]", partial(_endpoint, _GRPC, tls=True)),
        "grpc-reflect": ("grpc-reflect://HOST:PORT[/SERVICE,SERVICE]", partial(_endpoint, _REFLECT)),
        "grpcs-reflect": ("grpcs-reflect://HOST:PORT[/SERVICE]", partial(_endpoint, _REFLECT, tls=True)),
        "dns": ("dns:///NAME:PORT", lambda name, rest: _endpoint(_GRPC, name, f"dns:{rest}")),
    },
)
"""What each scheme of a provider's URI looks like, and what opens it, given its name and the rest of the URI."""


def open_provider(name: str, uri: str) -> Provider:
    """Open the provider at ``uri``, to be called ``name``; its tools are called ``name.tool``.

    Raises:
        ValueError: the name or the URI is not one, or leads to nothing; the message says what is known.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"provider name {name!r}: write 1 to 32 of [A-Za-z0-9_-], not beginning with '-'")

    scheme, colon, rest = uri.partition(":")
    if not colon or scheme not in SCHEMES or not rest:
        known = ", ".join(form for form, _ in SCHEMES.values())
        raise ValueError(f"provider {name}: {uri!r} is not the URI of a provider; known are {known}")

    return SCHEMES[scheme][1](name, rest)
