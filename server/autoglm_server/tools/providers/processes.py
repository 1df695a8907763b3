"""Worker processes: for functions that keep the processor busy, and must be stoppable at any moment.

A worker is started when a call needs one and none is idle, serves one call at a time, and is killed with everything it
started when its call is cancelled. It is a fresh interpreter (never a fork of a process that serves gRPC), made by
plain ``Popen`` in the thread that makes the call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, cast

from autoglm.model import JsonObject
from autoglm_server.tools.frames import read_frame, write_frame

_LAST_SECONDS = 1.0
_COMMAND = (sys.executable, "-m", "autoglm_server.tools.worker")


class WorkerDiedError(Exception):
    """A worker ended in the middle of a call, which may have taken effect."""


class NoWorkerError(Exception):
    """No worker could begin the call; it has had no effect."""


class KilledError(Exception):
    """A call's worker was killed, as asked."""


class WorkerCall:
    """One call made by a worker; :meth:`kill` may be called from any thread at any time."""

    def __init__(self) -> None:
        """Begin without a worker."""
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self.killed = False

    def kill(self) -> None:
        """Kill the worker of this call, now or as soon as it has one."""
        with self._lock:
            self.killed = True
            if self._worker is not None:
                self._worker.kill()

    def attach(self, worker: Worker | None) -> None:
        """Say which worker makes the call; ``None`` when it is no longer this call's.

        Raises:
            KilledError: the call was killed before.
        """
        with self._lock:
            self._worker = worker
            if self.killed and worker is not None:
                raise KilledError


class Worker:
    """One process and its pipes."""

    def __init__(self) -> None:
        """Start the process."""
        paths = [path or os.getcwd() for path in sys.path]  # noqa: PTH109  # the import path is of strings
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GRPC_ENABLE_FORK_SUPPORT": "0"}
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a group of its own: to be killed as one, and not by the terminal's Ctrl-C
        )
        self._calls = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, call: JsonObject) -> None:
        """Send a call; raises OSError when the process is gone, FrameTooLargeError when it is too long."""
        write_frame(self._calls, call)  # type: ignore[arg-type]  # a pipe is a BinaryIO

    def receive(self) -> JsonObject | None:
        """Wait for the next message; ``None`` when the process is gone."""
        return read_frame(self._answers)  # type: ignore[arg-type]  # as above

    def kill(self) -> None:
        """Kill the process and all it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.alive:
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self, *, patience: float = 0.0) -> int:
        """End the process and let go of its pipes; give its exit status. It is killed after ``patience`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)

        self.kill()
        status = self._process.wait()
        for pipe in (self._calls, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()

        return status


class WorkerPool:
    """Workers that wait for calls, at most ``idle_max`` of them. As many work as there are calls."""

    def __init__(self, idle_max: int) -> None:
        """Make a pool without workers."""
        self._idle_max = idle_max
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._stopped = False

    def make(self, request: JsonObject, call: WorkerCall, on_progress: Callable[[str], None]) -> JsonObject:
        """Make a call and wait for its outcome, in the calling thread.

        Raises:
            KilledError: ``call`` was killed.
            NoWorkerError: no worker could begin it.
            WorkerDiedError: the worker ended in the middle of it.
            FrameTooLargeError: the outcome is larger than any that is allowed.
        """
        worker = self._begun(request, call)
        outcome: JsonObject | None = None
        try:
            outcome = _outcome(worker, on_progress)
        finally:
            call.attach(None)
            kept = outcome is not None and not call.killed and self._keep(worker)
            # When it closed its pipe by itself, it is about to end, and how it does is worth knowing.
            status = 0 if kept else worker.close(patience=0 if call.killed or outcome else _LAST_SECONDS)

        if outcome is not None:
            return outcome

        if call.killed:
            raise KilledError

        raise WorkerDiedError(_end(status))

    def stop(self) -> None:
        """Kill the workers that wait; those that work are killed by their calls."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []

        for worker in idle:
            worker.close()

    def _begun(self, request: JsonObject, call: WorkerCall) -> Worker:
        """Give a worker that has begun the call. One that died while it was idle is replaced."""
        while True:
            with self._lock:
                used = self._idle.pop() if self._idle else None

            try:
                worker = used or Worker()
            except OSError as error:
                raise NoWorkerError(f"no process could be started: {error.strerror}") from None

            begun, status = False, 0
            try:
                call.attach(worker)
                begun = _begins(worker, request)
            finally:
                if not begun:
                    call.attach(None)
                    status = worker.close(patience=0 if call.killed or used else _LAST_SECONDS)

            if begun:
                return worker

            if call.killed:
                raise KilledError

            if used is None:
                raise NoWorkerError(_end(status))

    def _keep(self, worker: Worker) -> bool:
        with self._lock:
            if self._stopped or len(self._idle) >= self._idle_max or not worker.alive:
                return False

            self._idle.append(worker)
            return True


def _begins(worker: Worker, request: JsonObject) -> bool:
    try:
        worker.send(request)
    except OSError:
        return False

    return worker.receive() is not None


def _outcome(worker: Worker, on_progress: Callable[[str], None]) -> JsonObject | None:
    while (message := worker.receive()) is not None and "progress" in message:
        on_progress(message["progress"])

    return message


def _end(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}"

    try:
        return f"its process was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"its process was ended by signal {-status}"
