"""What a benchmark has started ends with it, also when it is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 15.0
STARTS = """
import subprocess, sys
from benchmarks.leash import Leash
leash = Leash()
kept, left = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2)]
leash.hold(left.pid)
leash.hold(kept.pid)
leash.release(left.pid)
print(kept.pid, left.pid, flush=True)
sys.stdin.read()
"""


def ended(process: int, seconds: float) -> bool:
    """Say whether a process ends within so many seconds."""
    return bool(select.select([process], [], [], seconds)[0])


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="looks at processes by Linux's handles of them")
def test_what_is_held_ends_with_who_is_killed() -> None:
    command = [sys.executable, "-c", STARTS]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as benchmark:
        assert benchmark.stdout is not None
        held, let_go = (os.pidfd_open(int(pid)) for pid in benchmark.stdout.readline().split())
        try:
            assert not ended(held, 0)
            benchmark.kill()
            assert ended(held, SECONDS)
            assert not ended(let_go, 0), "it was let go of, and is nobody's any more"
        finally:
            for process in (held, let_go):
                if not ended(process, 0):
                    signal.pidfd_send_signal(process, signal.SIGKILL)

                os.close(process)
