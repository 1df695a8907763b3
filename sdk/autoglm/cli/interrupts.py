"""Ctrl-C where it does no harm: not between a line that was printed and the note that it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupts:
    """Raises KeyboardInterrupt on Ctrl-C as Python does, but what is :meth:`held` is finished first.

    A process that was told to ignore Ctrl-C goes on ignoring it.
    """

    def __init__(self) -> None:
        """Nothing changes before it is entered."""
        self._before: Callable[[int, FrameType | None], Any] | int | None = None
        self._installed = False
        self._held = False
        self._pending = False

    def __enter__(self) -> Self:
        before = signal.getsignal(signal.SIGINT)
        self._installed = threading.current_thread() is threading.main_thread() and before is signal.default_int_handler

        if self._installed:
            self._before = signal.signal(signal.SIGINT, self._handle)

        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold an interrupt back until the block that follows is done."""
        self._held = True

        try:
            yield
        finally:
            self._held = False

        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if not self._held:
            raise KeyboardInterrupt

        self._pending = True
