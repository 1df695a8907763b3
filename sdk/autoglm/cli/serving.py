"""``autoglm serve`` without the rest of the command line: typer, rich and the client take as long to import as the server.

A command line of plain flags is the server's from its first moment. Whatever else it may be (a call for help, a completion, a
value that is wrong) is left to :mod:`autoglm.cli.app`, which has the texts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

from autoglm import local
from autoglm.errors import AutoglmError

PORT_MAX: Final = 65535

_COMPLETES: Final = "_AUTOGLM_COMPLETE"


def plain_flags(arguments: Sequence[str]) -> dict[str, str] | None:
    """Read the flags after ``serve``, if the server's own parser reads them as the command does; else None.

    Gives the values of the flags that the command knows, the last of each.
    """
    if _COMPLETES in os.environ or local.missing_packages():
        return None

    said: dict[str, str] = {}
    words = iter(arguments[1:])
    may_be_value = False

    for word in words:
        flag, joined, value = word.partition("=")

        if flag in {"--help", "--"} or (flag.startswith("-") and not flag.startswith("--")):
            return None

        if fits := _FITS.get(flag):
            said[flag] = value if joined else next(words, "")

            if said[flag].startswith("-") or not fits(said[flag]):
                return None

        if not word.startswith("-") and not may_be_value:
            return None  # the command would put it behind the flag of the server's that it may be a value of

        may_be_value = word.startswith("-") and not fits and not joined

    return said


def serve(arguments: Sequence[str], said: dict[str, str]) -> int:
    """Serve in this process until told to stop; gives the exit status."""
    # gRPC reads it at its first import, and a server starts processes.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

    # A module in the current directory must not take the place of one of the server's: what -P does.
    if not sys.flags.safe_path:
        del sys.path[0]

    try:
        local.make_way(said.get("--data-dir"), progress=_tell)
    except AutoglmError as error:
        from autoglm.cli.exits import error_lines, status_of_error  # noqa: PLC0415 - only where it fails

        for line in error_lines(error):
            _tell(f"autoglm: {line}")

        return status_of_error(error)

    status: int = import_module("autoglm_server.__main__").main(arguments[1:])
    return status


def _tell(line: str) -> None:
    from autoglm.cli.text import clean  # noqa: PLC0415 - most starts have nothing to tell

    print(clean(line), file=sys.stderr)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= PORT_MAX


def _is_provider(text: str) -> bool:
    name, _, uri = text.partition("=")
    return bool(name and uri)


_FITS: Final[dict[str, Callable[[str], bool]]] = {
    "--config": bool,
    "--host": bool,
    "--port": _is_port,
    "--data-dir": bool,
    "--provider": _is_provider,
}
