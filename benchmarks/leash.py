"""Ends what a benchmark has started when the benchmark itself is ended, however that happens.

A process of its own holds the other end of a pipe: who is killed cannot clean up, but its end of the pipe is closed for it. It
is told the processes that lead a group of their own, and kills these groups when the pipe ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO


class Leash:
    """Holds processes. Its own process is started with the first."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._process: subprocess.Popen[str] | None = None

    def hold(self, pid: int) -> None:
        """See to it that the group which a process leads does not outlive this one."""
        self._tell(pid)

    def release(self, pid: int) -> None:
        """Let go of a process that has ended: another may get its number."""
        self._tell(-pid)

    def _tell(self, number: int) -> None:
        if self._process is None:
            command = [sys.executable, "-I", str(Path(__file__).resolve())]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()


def watch(told: TextIO) -> None:
    """Take in what is told, and kill what is still held when nobody can tell any more."""
    held: set[int] = set()
    for line in told:
        number = int(line)
        if number > 0:
            held.add(number)
        else:
            held.discard(-number)

    for pid in held:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    watch(sys.stdin)
