"""What has no equal text on both sides: reading a stream, and taking a lock, under a time limit.

Each class with ``Async`` in its name has its twin below it, with the same methods and the same meaning.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import grpc

M = TypeVar("M")

STATUS_SECONDS: Final = 0.2
"""How long the end of a call that has given all may take to come; then it is cancelled."""


class Closed(Exception):  # noqa: N818 - a signal, not an error: the client turns it into one
    """The call was cancelled from outside: its channel was closed."""


class AsyncReader(Generic[M]):
    """Reads one server-streaming call."""

    def __init__(self, call: Any) -> None:
        """Read ``call``, which is this reader's own from now on."""
        self._call = call

    async def read(self, timeout: float | None) -> M | None:
        """Give the next message, or None after the last. Without a ``timeout`` it waits as long as the call lasts.

        Raises:
            TimeoutError: there was none for ``timeout`` seconds; the call is cancelled.
            grpc.RpcError: the call failed.
            Closed: the channel was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                message = await self._call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()

            if task is not None and task.cancelling():
                raise

            raise Closed from None  # the call was cancelled, not this task

        return None if message is grpc.aio.EOF else message

    def release(self) -> None:
        """Read no more, and let the call live."""

    async def finish(self) -> None:
        """Let the call end by itself, when its last message has been read; what its status is does not matter.

        A call that is cancelled while its status is on the way is a fault in its server's log, and memory that gRPC loses there.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(STATUS_SECONDS):
                await self._call.code()

    def close(self) -> None:
        """Cancel the call; it does not matter whether it has ended."""
        self._call.cancel()


class Reader(Generic[M]):
    """Reads one server-streaming call.

    Nothing in grpc's synchronous API waits for a message with a time limit, so a thread cancels the call when it is
    over.
    """

    def __init__(self, call: Any) -> None:
        """Read ``call``, which is this reader's own from now on."""
        self._call = call
        self._watchdog = _Watchdog(call)

    def read(self, timeout: float | None) -> M | None:
        """Give the next message, or None after the last. Without a ``timeout`` it waits as long as the call lasts.

        Raises:
            TimeoutError: there was none for ``timeout`` seconds; the call is cancelled.
            grpc.RpcError: the call failed, or its channel was closed.
        """
        try:
            with nullcontext() if timeout is None else self._watchdog.armed(timeout):
                message: M = next(self._call)
        except StopIteration:
            return None
        except grpc.RpcError:
            if self._watchdog.fired:
                raise TimeoutError from None

            raise

        return message

    def release(self) -> None:
        """Read no more, and let the call live."""
        self._watchdog.close()

    def finish(self) -> None:
        """Let the call end by itself, when its last message has been read; what its status is does not matter."""
        with suppress(grpc.FutureTimeoutError, grpc.FutureCancelledError):
            self._call.exception(STATUS_SECONDS)

    def close(self) -> None:
        """Cancel the call; it does not matter whether it has ended."""
        self._watchdog.close()
        self._call.cancel()


class _Watchdog:
    """Cancels a call whose reader has waited too long; one thread for the life of the call, begun when first needed."""

    def __init__(self, call: Any) -> None:
        self.fired = False
        self._call = call
        self._changed = threading.Condition()
        self._due: float | None = None
        self._wakes = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def armed(self, timeout: float) -> _Watchdog:
        """Watch over the block that follows."""
        with self._changed:
            self._due = time.monotonic() + timeout

            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="autoglm-watchdog", daemon=True)
                self._thread.start()
            elif self._due < self._wakes:
                self._changed.notify()  # else the thread is up before that anyway

        return self

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._due = None

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()

                if self._due is not None and self._due <= now:
                    self.fired = True
                    self._call.cancel()
                    return

                self._wakes = self._due if self._due is not None else now + 3600.0
                self._changed.wait(self._wakes - now)


class AsyncTurn:
    """A lock whose taker does not wait for ever."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, timeout: float | None) -> None:
        """Take it, or raise TimeoutError after ``timeout`` seconds; None waits without end."""
        async with asyncio.timeout(timeout):
            await self._lock.acquire()

    def give(self) -> None:
        """Let the next one take it."""
        self._lock.release()


class Turn:
    """A lock whose taker does not wait for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def take(self, timeout: float | None) -> None:
        """Take it, or raise TimeoutError after ``timeout`` seconds; None waits without end."""
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise TimeoutError

    def give(self) -> None:
        """Let the next one take it."""
        self._lock.release()
