"""How the peers are run; what they come to is no test's business."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from benchmarks import peers

SECONDS = 10.0
STARTS = """
import pathlib, subprocess, sys
started = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
pathlib.Path(sys.argv[1]).write_text(str(started.pid))
print("RESULT", flush=True)
if sys.argv[2:]:
    started.wait()
"""


def ends(pid: int) -> bool:
    """Say whether a process that is nobody's here ends soon."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True

    try:
        return bool(select.select([process], [], [], SECONDS)[0])
    finally:
        os.close(process)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="looks at processes by Linux's handles of them")
@pytest.mark.parametrize("stays", [False, True])
async def test_what_a_peer_has_started_ends_with_it(tmp_path: Path, stays: bool) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-I", "-c", STARTS, str(noted), *["stays"] * stays]

    if stays:
        with pytest.raises(peers.NotThereError, match="took longer than 3 s"):
            await peers._output(command, 3.0, dict(os.environ))
    else:
        assert "RESULT" in await peers._output(command, SECONDS, dict(os.environ))

    assert ends(int(noted.read_text(encoding="ascii")))


async def test_a_command_that_fails_is_told_with_its_last_words() -> None:
    command = [sys.executable, "-I", "-c", "raise OSError('no index')"]
    with pytest.raises(peers.NotThereError, match=r"ended with 1: OSError: no index"):
        await peers._output(command, SECONDS, dict(os.environ))

    with pytest.raises(peers.NotThereError, match=r"^pip: No such file"):
        await peers._output(["/nowhere/pip"], SECONDS, {})
