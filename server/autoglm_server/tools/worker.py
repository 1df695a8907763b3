"""A worker process: calls one function at a time for a server, until the server closes the pipe.

``python -m autoglm_server.tools.worker``; started by ``providers.processes`` alone. Messages come on standard input and
leave on what was standard output; what a function prints goes to standard error, like the server's log.

A call is ``{module, file, name, text, tool, arguments, idempotency_key, context, folder, limits}``. It is answered by
``{begun}``, before the function is looked for, then any number of ``{progress}``, and one of ``{result}``, ``{failure}`` (the
tool's own), ``{error}`` (it raised), ``{edited}`` (its file has another text than ``text`` says), ``{invalid_output}`` or
``{too_large}``. Beside a result, ``{files}`` says what each file in the call's folder is, which the function saved.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from autoglm._files import FileLimits, Files
from autoglm.model import CallContext, JsonObject, ToolProgress
from autoglm.tool import ToolContext, ToolError
from autoglm.wire import from_json, to_json
from autoglm_server.tools.failures import clean, is_deterministic, text_of
from autoglm_server.tools.frames import FrameTooLargeError, read_frame, write_frame
from autoglm_server.tools.loading import EditedError, find_tool
from autoglm_server.tools.progress import bounded, merged

_PROGRESS_SECONDS = 0.02
_TEXT_MAX = 64 << 10


class _Outlet:
    """Writes messages, from any thread; progress at a bounded rate, the last of it before the outcome."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: ToolProgress | None = None
        self._next_time = 0.0

    def progress(self, progress: ToolProgress) -> None:
        """Take a report, as a :class:`ToolContext` gives it."""
        with self._lock:
            self._waiting = merged(self._waiting, bounded(progress, _TEXT_MAX), _TEXT_MAX)
            if time.monotonic() >= self._next_time:
                self._flush()

    def outcome(self, message: JsonObject) -> None:
        """Write the beginning or the outcome of a call."""
        with self._lock:
            self._flush()
            try:
                write_frame(self._stream, message)
            except FrameTooLargeError as error:
                write_frame(self._stream, {"too_large": str(error)})

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            write_frame(self._stream, {"progress": to_json(waiting)})
            self._next_time = time.monotonic() + _PROGRESS_SECONDS


def main() -> None:
    """Serve calls until the server is gone."""
    calls, outlet = _streams()
    waiting: queue.SimpleQueue[JsonObject] = queue.SimpleQueue()

    # Another thread reads, so that a worker whose server died ends in the middle of a call, too.
    threading.Thread(target=_receive, args=(calls, waiting), daemon=True).start()
    while True:
        call = waiting.get()
        outlet.outcome({"begun": True})
        outlet.outcome(_answer(call, outlet))


def _streams() -> tuple[BinaryIO, _Outlet]:
    """Take standard input and output away from functions: what they print must not run into the messages."""
    calls = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return calls, _Outlet(answers)


def _receive(calls: BinaryIO, waiting: queue.SimpleQueue[JsonObject]) -> None:
    while (call := read_frame(calls)) is not None:
        waiting.put(call)

    os._exit(0)


def _answer(call: JsonObject, outlet: _Outlet) -> JsonObject:
    """Make a call. This is the boundary: whatever a function raises becomes a message."""
    files = Files(FileLimits(**call["limits"]), Path(call["folder"]))
    try:
        tool = find_tool(call["module"], call["file"], call["name"], call["text"])
        context = ToolContext(
            idempotency_key=call["idempotency_key"],
            call=from_json(CallContext, call["context"]),
            report=outlet.progress,
            files=files,
        )
        keywords = tool.keywords(call["arguments"], context)
        returned = tool.function(**keywords)
    except EditedError as error:
        return {"edited": str(error)}
    except ToolError as error:
        return {"failure": to_json(clean(error.to_failure(call["tool"])))}
    except BaseException as error:  # noqa: BLE001  # also SystemExit, which would end the worker without an outcome
        return {"error": _described(error)}

    try:
        return {"result": to_json(tool.result(returned)), "files": _left(files)}
    except (TypeError, ValueError) as error:
        return {"invalid_output": str(error)}


def _left(files: Files) -> JsonObject:
    """Say what each file in the call's folder is, by its name there."""
    return {file.content.name: to_json(file.artifact) for file in files if isinstance(file.content, Path)}


def _described(error: BaseException) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "text": text_of(error),
        "deterministic": is_deterministic(error),
        "traceback": "".join(traceback.format_exception(error))[-_TEXT_MAX:],
    }


if __name__ == "__main__":
    main()
