"""An asyncio event loop without time, threads or I/O: time jumps to the next timer, and what is ready runs in a seeded order.

Every callback belongs to the process in whose context it was scheduled. A process that is killed never runs again, not even
to clean up; one that is frozen finds everything that became ready meanwhile when it is thawed, as after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from functools import partial
from random import Random
from typing import Any, TypeVar

_T = TypeVar("_T")

TIMER_SECONDS = 1e-6
"""A timer is this late, as real ones are: without it, a clock rounded down would be asked the same for ever."""


class Killed(BaseException):
    """The process ends here and now; passes through everything that handles errors."""


class StuckError(Exception):
    """Nothing can ever happen again, or far too much does."""


class Process:
    """What is killed, frozen and thawed as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.held: list[asyncio.Handle] = []
        self.posted: deque[Callable[[], object]] = deque()
        """What its threads have told its loop."""
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def spawn(self, loop: VirtualLoop, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start a task inside the process."""
        return loop.create_task(work, context=self.context.copy())

    def run(self, call: Callable[[], _T]) -> _T:
        """Call something as the process does."""
        return self.context.copy().run(call)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self, random: Random, *, turns_max: int = 2_000_000) -> None:
        super().__init__()
        self._random = random
        self._virtual = 0.0
        self._turns_left = turns_max
        self.turns = 0
        self.reaping = False
        """At the very end the dead may clean up, so that the interpreter does not complain of them."""
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self._virtual

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on."""
        process.frozen = False
        held, process.held = process.held, []
        self._ready.extend(held)  # type: ignore[attr-defined]

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            self._advance()

        batch = list(self._ready)  # type: ignore[attr-defined]
        self._ready.clear()  # type: ignore[attr-defined]
        self._random.shuffle(batch)
        for handle in batch:
            if handle._cancelled:
                continue

            process = handle._context.get(PROCESS)
            if process is not None and not self.reaping and (process.frozen or process.dead):
                process.held.append(handle)
                continue

            self.turns += 1
            handle._run()

        if self.turns > self._turns_left:
            raise StuckError(f"{self.turns} callbacks ran and there is no end of it, at {self._virtual} s")

    def _advance(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False

        if not timers:
            raise StuckError(f"nothing is ready and no timer is set, at {self._virtual} s")

        self._virtual = max(self._virtual, timers[0]._when) + TIMER_SECONDS
        while timers and timers[0]._when <= self._virtual:
            handle = heapq.heappop(timers)
            handle._scheduled = False
            self._ready.append(handle)  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector that would have to be woken."""

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers leave the heap when their time comes."""

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *arguments: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call in a later turn, and in the order in which it was told: a process's threads speak with one voice."""
        process = PROCESS.get()
        if process is None:
            return self.call_soon(callback, *arguments, context=context)

        process.posted.append(partial(callback, *arguments))
        return self.call_soon(self._hear, process, context=context)

    @staticmethod
    def _hear(process: Process) -> None:
        process.posted.popleft()()

    def run_in_executor(self, executor: object, call: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
        """Call in the loop itself, a turn later."""
        future: asyncio.Future[_T] = self.create_future()

        def run() -> None:
            try:
                result = call(*arguments)
            except Exception as error:  # noqa: BLE001 - given to who waits, as an executor does
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_soon(run)
        return future
