"""Where a unit hangs: on SIGUSR1 it writes down what each of its tasks and threads waits for, and ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any, Final

STACKS: Final = ".stacks"
EXIT_STATUS: Final = 70


def tell_where_on_request(path: Path) -> None:
    """Let this process write where it stands to ``path`` when it is sent SIGUSR1, and end."""

    def tell(number: int, frame: FrameType | None) -> None:
        path.write_text("".join(f"{line}\n" for line in (*_tasks(), *_threads(frame))))
        os._exit(EXIT_STATUS)

    signal.signal(signal.SIGUSR1, tell)


def _tasks() -> Iterator[str]:
    # Of every loop, and of a loop that runs no more; all_tasks() knows those of one.
    for task in [one for one in gc.get_objects() if isinstance(one, asyncio.Task)]:
        if not task.done():
            yield f"task {task.get_name()}: {' > '.join(_awaits(task.get_coro()))}"


def _awaits(awaited: Any) -> Iterator[str]:
    """Give the frames from the task's own function inwards, to what it waits for."""
    while isinstance(awaited, CoroutineType) and awaited.cr_frame is not None:
        yield _place(awaited.cr_frame)
        awaited = awaited.cr_await


def _threads(main: FrameType | None) -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for number, current in sys._current_frames().items():
        frame = main if number == threading.main_thread().ident and main else current
        stack = [_place(one) for one, _ in traceback.walk_stack(frame)]
        yield f"thread {names.get(number, number)}: {' > '.join(reversed(stack[:6]))}"


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname} {Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
