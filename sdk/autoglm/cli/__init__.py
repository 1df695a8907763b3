"""The command line ``autoglm``. Importing it needs nothing beyond the SDK; typer and rich are loaded when it runs."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Sequence

PIP_LINE = "pip install 'open-autoglm[server]'"
"""What gives the command line and the embedded server."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on ``arguments`` (the process's own by default) and give its exit status."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]

    if missing:
        print(f"autoglm: the command line needs {' and '.join(missing)}. To fix: {PIP_LINE}", file=sys.stderr)
        return 2

    try:
        if arguments is None and sys.argv[1:2] == ["serve"]:
            from autoglm.cli import serving  # noqa: PLC0415 - only then

            if (said := serving.plain_flags(sys.argv[1:])) is not None:
                return serving.serve(sys.argv[1:], said)

        from autoglm.cli.app import run  # noqa: PLC0415 - typer and rich are an extra
    except KeyboardInterrupt:  # before there was anything to interrupt
        return 130

    # What is imported lives as long as the process: looking through it for garbage, at the end above all, is a fifth of
    # the time that a short command takes.
    gc.freeze()
    return run(sys.argv[1:] if arguments is None else list(arguments))
