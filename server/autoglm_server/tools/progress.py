"""Progress of a call, from any thread to the loop, at a bounded rate and size."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from autoglm.model import ToolProgress
from autoglm.wire import check_json
from autoglm_server.tools.failures import encodable, one_line
from autoglm_server.tools.limits import ToolLimits

_MESSAGE_MAX = 1024


class ProgressGate:
    """Takes reports from any thread and passes them on in the loop, at most one each interval.

    What comes in between is merged: the last fraction, message and data count, texts are joined. Neither
    :meth:`report` nor what it starts ever blocks or raises.
    """

    __slots__ = ("_closed", "_deliver", "_limits", "_lock", "_loop", "_next_time", "_reported", "_timer", "_waiting")

    def __init__(self, deliver: Callable[[ToolProgress], None], limits: ToolLimits) -> None:
        """Pass reports on to ``deliver``, from the running loop."""
        self._deliver = deliver
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: ToolProgress | None = None
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._next_time = 0.0
        self._reported = False

    def report(self, progress: ToolProgress) -> None:
        """Take a report; one whose data is not JSON or too large comes without it."""
        self._reported = True
        progress = bounded(progress, self._limits.progress_bytes)
        with self._lock:
            if self._closed:
                return

            before, self._waiting = self._waiting, merged(self._waiting, progress, self._limits.progress_bytes)

        if before is None:
            try:
                self._loop.call_soon_threadsafe(self._schedule)
            except RuntimeError:
                self.close()  # the loop has ended, and a thread that was given up goes on

    def close(self) -> None:
        """Pass on what waits, in the loop's thread, and drop what comes later."""
        if self._reported:
            self._flush()

        self._closed = True  # who reports at this moment finds that it is dropped, now or when its turn comes

    def _schedule(self) -> None:
        delay = self._next_time - self._loop.time()
        if delay <= 0:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(delay, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        with self._lock:
            waiting, self._waiting = self._waiting, None
            closed = self._closed

        if waiting is not None and not closed and not self._loop.is_closed():
            self._next_time = self._loop.time() + self._limits.progress_interval
            self._deliver(waiting)


def bounded(progress: ToolProgress, bytes_max: int) -> ToolProgress:
    """Give a report that can travel: without data that is not JSON or too large, and with text that UTF-8 can carry."""
    data = progress.data
    if data is not None and check_json(data, "data", bytes_max=bytes_max):
        data = None

    message = one_line(progress.message, _MESSAGE_MAX)
    return ToolProgress(progress.fraction, message, data, encodable(progress.text[:bytes_max]))


def merged(before: ToolProgress | None, after: ToolProgress, text_max: int) -> ToolProgress:
    """Give one report that says what two said, one after the other; ``text_max`` bounds its text, in characters."""
    if before is None:
        return after

    return ToolProgress(
        after.fraction,
        after.message or before.message,
        before.data if after.data is None else after.data,
        (before.text + after.text)[:text_max],
    )
