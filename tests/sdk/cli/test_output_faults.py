"""The command line as a process whose streams are full or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERSION = f"{sys.executable} -m autoglm.cli version"


def shell(line: str) -> tuple[int, str]:
    """Run a line of shell; gives the exit status, and what came on stderr."""
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is full")
def test_a_full_disk_is_told_in_a_line() -> None:
    assert shell(f"{VERSION} > /dev/full") == (1, "autoglm: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("streams", ["<&-", ">&-", "<&- >&-"])
def test_streams_that_are_not_there_are_nobody(streams: str) -> None:
    assert shell(f"{VERSION} {streams}") == (0, "")


def test_faults_are_told_to_nobody_without_a_stderr() -> None:
    assert shell(f"{VERSION} --no-such-option 2>&-") == (2, "")
