"""Python functions as tools: on the event loop, in threads, or in processes of their own."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from autoglm._files import Files, SavedFile
from autoglm.model import (
    DOMAIN,
    Artifact,
    Effect,
    ErrorReason,
    Failure,
    JsonObject,
    Tool,
    ToolProgress,
    ToolResult,
    Violation,
)
from autoglm.tool import FunctionTool, ToolContext, ToolError
from autoglm.wire import from_json, to_json
from autoglm_server.tools.artifacts import refused
from autoglm_server.tools.failures import invalid_output, one_line, raised, text_of, tool_error
from autoglm_server.tools.frames import FrameTooLargeError
from autoglm_server.tools.loading import address_of
from autoglm_server.tools.providers.processes import KilledError, NoWorkerError, WorkerCall, WorkerDiedError, WorkerPool
from autoglm_server.tools.providers.threads import Job, NoThreadError, RaisedError, ThreadPool
from autoglm_server.tools.references import invalid_arguments
from autoglm_server.tools.tool import AbandonedError, Invocation, NotBegunError, ToolCallError

_log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 256
_PROCESSES = max(2, os.cpu_count() or 2)
_IDLE_WORKERS = 2


class FunctionProvider:
    """Serves functions made tools by :func:`autoglm.tool`."""

    unchanging = True
    """Its tools are always the same, so the catalog asks for them once."""

    def __init__(
        self,
        name: str,
        tools: Sequence[FunctionTool],
        *,
        threads: int = _THREADS,
        processes: int = _PROCESSES,
    ) -> None:
        """Serve ``tools``; ``threads`` and ``processes`` bound how many calls run at once, more wait for their turn.

        Raises:
            ValueError: two tools have the same name, or one that runs in a process cannot be found by another process.
        """
        self._name = name
        names = Counter(tool.spec.name for tool in tools)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"two functions are the tool {twice[0]!r}; give each its own name")

        self._addresses = {tool.spec.name: address_of(tool) for tool in tools if tool.run == "process"}
        prefix = f"{name}." if name else ""
        self._functions = {tool.spec.name: (tool, prefix + tool.spec.name) for tool in tools}
        self._tools = tuple(dataclasses.replace(tool.spec, available=True) for tool in tools)
        self._threads = ThreadPool("tool", threads)
        self._callers = ThreadPool("tool-process", processes)
        self._workers = WorkerPool(_IDLE_WORKERS)

    @property
    def name(self) -> str:
        """What the configuration calls it; empty for the server's own tools."""
        return self._name

    @property
    def abandoned(self) -> list[str]:
        """The tools of calls that were given up and still run, one for each call."""
        return self._threads.abandoned

    async def start(self) -> None:
        """Nothing to do: threads and processes come with the calls."""

    async def stop(self) -> None:
        """Let threads end, and kill the processes that wait for calls."""
        self._threads.stop()
        self._callers.stop()
        self._workers.stop()

    def tools(self) -> Sequence[Tool]:
        """Give the tools; always the same."""
        return self._tools

    def call(self, invocation: Invocation) -> Coroutine[Any, Any, ToolResult]:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`."""
        function, name = self._functions[invocation.tool]
        call = _Call(function, name, invocation)
        match function.run:
            case "async":
                return call.on_loop()

            case "thread":
                return self._in_thread(call)

            case "process":
                return self._in_process(call)

    async def _in_thread(self, call: _Call) -> ToolResult:
        stop = call.cancelled.set  # made here: the thread, just beginning, would make another, and never be told
        job = _begun(call, self._threads, call.in_thread)
        return await call.with_files(await _ended(call, job, self._threads, stop))

    async def _in_process(self, call: _Call) -> ToolResult:
        worker = WorkerCall()
        with tempfile.TemporaryDirectory(prefix="autoglm-", ignore_cleanup_errors=True) as folder:
            request = call.request(*self._addresses[call.function.spec.name], folder)
            work = functools.partial(self._workers.make, request, worker, call.report_text)
            job = _begun(call, self._callers, work)
            message = await _ended(call, job, self._callers, worker.kill)
            return await call.with_files(call.told(message), saved_in(Path(folder), message))


class _Call:
    """One call of one function: how it is made in each place, and what its end means."""

    __slots__ = ("_cancelled", "_files", "_invocation", "function", "name")

    def __init__(self, function: FunctionTool, name: str, invocation: Invocation) -> None:
        self.function = function
        self.name = name
        self._cancelled: threading.Event | None = None
        self._invocation = invocation
        self._files: Files | None = None

    @property
    def cancelled(self) -> threading.Event:
        """Set when the call is told to stop; made when somebody asks, which most async functions never do."""
        if self._cancelled is None:
            self._cancelled = threading.Event()

        return self._cancelled

    @property
    def _effect(self) -> Effect:
        return self.function.spec.effect

    async def on_loop(self) -> ToolResult:
        """Call an async function in this task, and hand in what it saved."""
        keywords = self._keywords()
        try:
            returned = await self.function.function(**keywords)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise

            # Something inside was cancelled, not this call.
            self.failed(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the boundary: whatever a function raises is a failure
            self.failed(error)

        result = self._result(returned)
        return result if self._files is None else await self.with_files(result)

    def in_thread(self) -> ToolResult:
        """Call a plain function in this thread."""
        returned = self.function.function(**self._keywords())
        return self._result(returned)

    async def with_files(self, result: ToolResult, saved: Iterable[SavedFile] | None = None) -> ToolResult:
        """Hand in what the function saved, and give the result that names it.

        Raises:
            ToolCallError: it cannot be kept.
        """
        saved = self._files if saved is None else saved
        if saved is None:
            return result

        artifacts = list(result.artifacts)
        try:
            for file in saved:
                told = file.artifact
                kept = await self._invocation.artifacts.save(told.name, file.content, told.media_type)
                if kept.digest != told.digest:
                    raise refused(f"the file {told.name!r} changed after it was saved")

                if kept not in artifacts:
                    artifacts.append(kept)
        finally:
            if self._files is not None:
                self._files.close()

        return dataclasses.replace(result, artifacts=tuple(artifacts)) if artifacts else result

    def request(self, module: str, file: str, name: str, text: str, folder: str) -> JsonObject:
        """Give the message that makes a worker call the function at this address, and leave its files in ``folder``."""
        return {
            "folder": folder,
            "limits": dataclasses.asdict(self._invocation.artifacts.limits),
            "module": module,
            "file": file,
            "name": name,
            "text": text,
            "tool": self.name,
            "arguments": self._invocation.arguments,
            "idempotency_key": self._invocation.idempotency_key,
            "context": to_json(self._invocation.context),
        }

    def report_text(self, text: str) -> None:
        """Take progress as a worker tells it."""
        self._invocation.report(from_json(ToolProgress, text))

    def told(self, message: JsonObject) -> ToolResult:
        """Give the outcome that a worker told."""
        match message:
            case {"result": str(text)}:
                return from_json(ToolResult, text)

            case {"failure": str(text)}:
                raise ToolCallError(from_json(Failure, text))

            case {"error": {"kind": str(kind), "text": str(text), "deterministic": bool(deterministic), **rest}}:
                told = "the tool %s raised an exception\n%s"
                _log.warning(told, self.name, rest.get("traceback", ""), extra=self._ids)
                raise ToolCallError(raised(kind, text, self._effect, deterministic=deterministic))

            case {"edited": str(text)}:
                told = f"{self.name} was not called: {text}"
                raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True))

            case {"invalid_output": str(text)}:
                raise invalid_output(self.name, text)

            case _:
                raise self._too_large(str(message.get("too_large", "")))

    def failed(self, error: BaseException) -> NoReturn:
        """Raise what an exception of the function means."""
        match error:
            case RaisedError(error=asyncio.CancelledError()) | KilledError() if self.cancelled.is_set():
                # Not the exception of the await that was cancelled: the call itself says that it has stopped.
                raise asyncio.CancelledError

            case RaisedError(error=cause):
                self.failed(cause)

            case ToolCallError():
                raise error

            case ToolError():
                raise ToolCallError(error.to_failure(self.name)) from None

            case WorkerDiedError():
                raise ToolCallError(self._died(error)) from None

            case NoWorkerError() | NoThreadError():
                told = f"{self.name} could not be called: {error}"
                raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True)) from None

            case FrameTooLargeError():
                raise self._too_large(str(error)) from None

            case _:
                _log.warning("the tool %s raised an exception", self.name, exc_info=error, extra=self._ids)
                raise ToolCallError(tool_error(error, self._effect)) from None

    @property
    def _ids(self) -> dict[str, str]:
        """Whose call it is, for the log."""
        context = self._invocation.context
        return {"plan_id": context.plan_id, "step_id": context.step_id}

    def _keywords(self) -> dict[str, Any]:
        context: ToolContext | None = None
        if self.function.takes_context:
            self._files = Files(self._invocation.artifacts.limits)
            context = ToolContext(
                idempotency_key=self._invocation.idempotency_key,
                call=self._invocation.context,
                report=self._invocation.report,
                cancelled=self.cancelled,
                files=self._files,
            )

        try:
            return self.function.keywords(self._invocation.arguments, context)
        except (ValueError, TypeError) as error:
            # They fit the schema; a dataclass of the function's own refused them.
            fault = Violation("arguments", one_line(text_of(error), 300), "REFUSED")
            raise ToolCallError(invalid_arguments([fault])) from None

    def _result(self, returned: object) -> ToolResult:
        try:
            return self.function.result(returned)
        except TypeError as error:
            raise invalid_output(self.name, str(error)) from None

    def _died(self, error: Exception) -> Failure:
        repeatable = self._effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
        message = f"{self.name} did not end: {error}"
        return Failure(ErrorReason.CONNECTION_LOST.name, DOMAIN, message, retryable=repeatable, outcome_unknown=True)

    def _too_large(self, text: str) -> ToolCallError:
        message = f"{self.name} ended, but its output cannot be used: {text}"
        return ToolCallError(Failure(ErrorReason.OUTPUT_TOO_LARGE.name, DOMAIN, message))


def saved_in(folder: Path, message: JsonObject) -> list[SavedFile]:
    """Give the files that a worker left in ``folder``, of its message about a result."""
    found: list[SavedFile] = []
    for place, text in message.get("files", {}).items():
        found.append(SavedFile(from_json(Artifact, text), folder / Path(place).name))

    return found


def _begun(call: _Call, pool: ThreadPool, work: Callable[[], T]) -> Job[T]:
    """Give the call's work to a thread."""
    try:
        return pool.submit(work, call.name)
    except NoThreadError as error:
        call.failed(error)


async def _ended(call: _Call, job: Job[T], pool: ThreadPool, stop: Callable[[], None]) -> T:
    """Wait until a job has ended. Cancelled once, ``stop`` it and wait on; cancelled again, give it up."""
    while not job.future.done():
        try:
            await asyncio.wait({job.future})
        except asyncio.CancelledError:
            if pool.withdraw(job):
                raise NotBegunError(f"{call.name} was told to stop before it began") from None

            if call.cancelled.is_set():
                pool.abandon(job)
                _log.warning("a call of the tool %s was told to stop and did not; it was given up", call.name)
                raise AbandonedError(f"{call.name} was told to stop and may still be running") from None

            call.cancelled.set()
            stop()

    error = job.future.exception()
    if error is not None:
        call.failed(error)

    return job.future.result()
