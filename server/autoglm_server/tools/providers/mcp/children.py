"""Starting, watching and ending the process of a server.

By plain ``Popen`` in a thread, never by the event loop: uvloop forks, and a fork of a process that serves gRPC dies before
it runs, one time in a hundred to one in ten. The process leads a session of its own, so that all it starts ends with it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Final, cast

from autoglm_server.tools.providers.threads import Job, ThreadPool

PATIENCE: Final = 1.0
"""How long a process may take to end after its input ended, and again after it was told to, in seconds."""


class Child:
    """One process, with pipes to all its streams."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; for a thread.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        self._process = subprocess.Popen(  # noqa: S603  # the operator's own command, and no shell
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        self.input = cast("IO[bytes]", self._process.stdin)
        self.output = cast("IO[bytes]", self._process.stdout)
        self.messages = cast("IO[bytes]", self._process.stderr)
        self._lock = threading.Lock()
        self._reaped = False

    @property
    def pid(self) -> int:
        """Its number, which is its group's as well."""
        return self._process.pid

    def wait(self) -> int:
        """Wait for its end, end what it left behind, and give its status; for one thread."""
        if hasattr(os, "waitid"):
            # Without reaping it: while its number is taken, no other group can have it.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.signal(signal.SIGKILL)
        else:
            self._process.wait()

        with self._lock:
            self._reaped = True
            return self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and all it started, if it is still there."""
        with self._lock, suppress(ProcessLookupError, PermissionError):
            if not self._reaped:
                os.killpg(self.pid, number)


async def start(threads: ThreadPool, label: str, words: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start a process in a thread. Whoever is cancelled meanwhile leaves none behind.

    Raises:
        OSError, ValueError: as :class:`Child`.
    """
    job = threads.submit(functools.partial(Child, words, environment), f"start of {label}")
    cancelled = False
    while not job.future.done():
        try:
            await asyncio.wait({job.future})
        except asyncio.CancelledError:
            cancelled = True

    if not cancelled:
        return job.future.result()

    if job.future.exception() is None:
        child = job.future.result()
        child.signal(signal.SIGKILL)
        threads.submit(child.wait, f"end of {label}")
        for pipe in (child.input, child.output, child.messages):
            pipe.close()

    raise asyncio.CancelledError


async def end(child: Child, ended: Job[int]) -> None:
    """Wait for a process whose input has ended; tell it to end, then kill it, if it takes its time.

    It is ended, or cannot be, before a cancellation goes on.
    """
    cancelled = False
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            child.signal(number)

        cancelled = await _done(ended, PATIENCE) or cancelled
        if ended.future.done():
            break

    if cancelled:
        raise asyncio.CancelledError


async def _done(ended: Job[int], seconds: float) -> bool:
    """Wait for an end, for so long; give whether the wait was cancelled meanwhile."""
    loop, cancelled = asyncio.get_running_loop(), False
    limit = loop.time() + seconds
    while not ended.future.done() and (left := limit - loop.time()) > 0:
        try:
            await asyncio.wait({ended.future}, timeout=left)
        except asyncio.CancelledError:
            cancelled = True

    return cancelled


def told(status: int) -> str:
    """Tell how a process ended."""
    if status >= 0:
        return f"its process ended with status {status}"

    try:
        return f"its process was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"its process was ended by signal {-status}"
