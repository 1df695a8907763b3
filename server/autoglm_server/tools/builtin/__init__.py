"""The tools that come with the server: ``math``, ``units``, ``time``, ``text``, ``json`` and ``files``."""

from __future__ import annotations

from pathlib import Path

from autoglm.tool import FunctionTool
from autoglm_server.clock import Clock, SystemClock


def builtin_tools(workspace: Path, clock: Clock | None = None) -> list[FunctionTool]:
    """Make the built-in tools.

    Args:
        workspace: The one folder that ``files.*`` see.
        clock: What ``time.*`` ask the time of; the machine's own by default.
    """
    # Imported when asked for, so that a part of the server that needs one tool does not load them all.
    from autoglm_server.tools.builtin import arithmetic, jsons, slices, texts, units  # noqa: PLC0415
    from autoglm_server.tools.builtin.files import file_tools  # noqa: PLC0415
    from autoglm_server.tools.builtin.times import time_tools  # noqa: PLC0415

    return [
        arithmetic.calculate,
        units.convert,
        *time_tools(clock or SystemClock()),
        texts.count,
        texts.case,
        texts.extract,
        texts.replace,
        texts.reverse,
        texts.sort,
        texts.join,
        slices.slice_text,
        jsons.query,
        *file_tools(workspace),
    ]
