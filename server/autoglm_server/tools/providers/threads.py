"""A pool of threads for calls that cannot be stopped.

The standard library's pool joins its threads when the interpreter ends, so one function that never returns would keep a
server from stopping; its size is also eaten up by such functions. Here threads are daemons, and one that is given up no
longer counts: another may take its place, and its name is kept until it ends.

Work goes to the thread that became idle last. So those that a burst made stay without work and end; were they to take turns,
a few jobs a second would keep all of them, and their memory, for good.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

_IDLE_SECONDS = 30.0
"""How long a thread without work waits for more before it ends."""


class Job(Generic[T]):
    """One function on its way through a thread. ``future`` belongs to the loop of whoever submitted it."""

    def __init__(self, work: Callable[[], T], label: str, future: asyncio.Future[T]) -> None:
        """Take ``work``; ``label`` names it in messages."""
        self.label = label
        self.future = future
        self.abandoned = False
        self._work = contextvars.copy_context().run, work
        self._loop = future.get_loop()

    def run(self) -> None:
        """Do the work, in a thread, and tell the loop. This is the boundary: nothing of ``work`` reaches the thread."""
        run, work = self._work
        try:
            result = run(work)
        except BaseException as error:  # noqa: BLE001  # also SystemExit, which would end the thread without an outcome
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, result)

    def _tell(self, settle: Callable[..., None], outcome: object) -> None:
        try:
            self._loop.call_soon_threadsafe(settle, outcome)
        except RuntimeError:
            assert self._loop.is_closed()  # given up, and outlived the server's loop

    def _succeed(self, result: T) -> None:
        if self.future.done():
            _log.warning("%s ended after it was given up; its result is dropped", self.label)
        else:
            self.future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if self.future.done():
            _log.warning("%s failed after it was given up", self.label, exc_info=error)
        else:
            # A future refuses StopIteration, and the loop would end at a SystemExit or KeyboardInterrupt.
            plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
            self.future.set_exception(error if plain else RaisedError(error))


class RaisedError(Exception):
    """A function in a thread raised something that is no ordinary exception, such as SystemExit."""

    def __init__(self, error: BaseException) -> None:
        """Wrap ``error``."""
        super().__init__(str(error))
        self.error = error


class NoThreadError(RuntimeError):
    """A job was refused: the pool was stopped, or the system lets it have no thread at all. It will not be done."""


class ThreadPool:
    """Daemon threads that do jobs in order, at most ``size`` at once, not counting those given up."""

    def __init__(self, name: str, size: int, *, idle_seconds: float = _IDLE_SECONDS) -> None:
        """Make a pool without threads; they come with the work and go when there was none for ``idle_seconds``."""
        self._name = name
        self._size = size
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._waiting: deque[Job[object]] = deque()
        self._running: dict[Job[object], threading.Thread] = {}
        self._threads = 0
        self._idle: list[threading.Condition] = []
        """What each thread without work waits for, the one that became so last at the end."""
        self._stopped = False
        self._made = 0

    @property
    def abandoned(self) -> list[str]:
        """The labels of jobs that were given up and have not ended."""
        with self._lock:
            return [job.label for job in self._running if job.abandoned]

    @property
    def idle(self) -> int:
        """How many threads have no work."""
        with self._lock:
            return len(self._idle)

    def submit(self, work: Callable[[], T], label: str) -> Job[T]:
        """Give ``work`` to a thread. Called in the loop that will hear of the outcome.

        Raises:
            NoThreadError: it will not be done.
        """
        job: Job[T] = Job(work, label, asyncio.get_running_loop().create_future())
        with self._lock:
            if self._stopped:
                raise NoThreadError(f"the pool {self._name} was stopped")

            self._waiting.append(job)  # type: ignore[arg-type]  # a queue of jobs of every kind
            if self._idle:
                self._idle.pop().notify()
            elif self._threads < self._size and not self._added() and not self._threads:
                self._waiting.pop()  # or it would be done after all, when a later one has a thread
                raise NoThreadError(f"the system gives the pool {self._name} no thread")

        return job

    def withdraw(self, job: Job[T]) -> bool:
        """Take back a job that no thread has begun; give whether it was."""
        with self._lock:
            try:
                self._waiting.remove(job)  # type: ignore[arg-type]
            except ValueError:
                return False

            return True

    def abandon(self, job: Job[T]) -> None:
        """Give a job up: its outcome is dropped, and its thread no longer counts to the pool's size. In the loop."""
        job.future.cancel()
        with self._lock:
            if job in self._running and not job.abandoned:
                job.abandoned = True
                self._threads -= 1
                if self._waiting and self._threads < self._size:
                    self._added()

    def stop(self) -> None:
        """Let the threads end when they have no more work; what waits is not begun."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
            while self._idle:
                self._idle.pop().notify()

    def _added(self) -> bool:
        """Add a thread; gives whether the system let it begin. If not, what waits is for those that there are."""
        self._made += 1
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{self._made}", daemon=True).start()
        except RuntimeError as refused:
            _log.error("the pool %s has %d threads and cannot have more: %s", self._name, self._threads, refused)
            return False

        self._threads += 1
        return True

    def _work(self) -> None:
        called = threading.Condition(self._lock)
        while (job := self._take(called)) is not None:
            job.run()
            with self._lock:
                del self._running[job]
                if job.abandoned:
                    return  # this thread was replaced

            del job  # and with it what it gave: the next one may be long in coming

    def _take(self, called: threading.Condition) -> Job[object] | None:
        with self._lock:
            while not self._waiting:
                if self._stopped or not self._called(called):
                    self._threads -= 1
                    return None

            job = self._waiting.popleft()
            self._running[job] = threading.current_thread()
            return job

    def _called(self, called: threading.Condition) -> bool:
        """Wait for work or the end, and give whether either came in time."""
        self._idle.append(called)
        if called.wait(self._idle_seconds):
            return True

        if called in self._idle:
            self._idle.remove(called)
            return False

        return True  # at the last moment
