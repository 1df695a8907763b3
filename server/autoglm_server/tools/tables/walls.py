"""Limits of this process while a query runs: what it may write, and how much memory it may take."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_BESIDE: Final = 512 << 20
"""How much memory may be taken beyond what DuckDB counts: it does not count everything."""


@contextmanager
def walls(*, write_bytes: int, memory_bytes: int) -> Iterator[None]:
    """Let no file grow beyond ``write_bytes``, and this process by no more than about ``memory_bytes``."""
    with _limited(resource.RLIMIT_FSIZE, write_bytes):
        held = _held()
        if not held:
            yield
            return

        with _limited(resource.RLIMIT_AS, held + memory_bytes + _BESIDE):
            yield


@contextmanager
def _limited(which: int, most: int) -> Iterator[None]:
    """Lower the soft limit, which may be raised again; where the system has none of the kind, there is none."""
    before, hard = resource.getrlimit(which)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    set_here = False
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (wanted, hard))
        set_here = True

    try:
        yield
    finally:
        if set_here:
            resource.setrlimit(which, (before, hard))


def _held() -> int:
    """Give how much address space this process has, in bytes; 0 where that cannot be known."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0

    return pages * os.sysconf("SC_PAGE_SIZE")
