"""One call of a tool's function, wherever it is served: from JSON arguments to a result or a failure, both data."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import logging
import re
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from autoglm import wire
from autoglm._arguments import check
from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, JsonObject, ToolProgress, ToolResult
from autoglm.tool import FunctionTool, ToolContext, ToolError

OUTPUT_BYTES_MAX: Final = 1 << 20
"""The largest output, as JSON or on the wire."""
ARGUMENTS_BYTES_MAX: Final = 256 << 10
"""The largest arguments, likewise."""
_MESSAGE_MAX: Final = 1024
_TEXT_MAX: Final = 64 << 10

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
# These say that the function, or what it was given, is wrong: the same call would fail in the same way.
_DETERMINISTIC = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Reports:
    """The last progress of a call, from any thread to one reader in the loop: a place, never a queue."""

    def __init__(self) -> None:
        """Begin empty, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._news = asyncio.Event()
        self._held: ToolProgress | None = None
        self._closed = False

    def put(self, progress: ToolProgress) -> None:
        """Leave a progress: it replaces the one before, but for the text, which is added. Never blocks or raises."""
        with self._lock:
            text = (self._held.text if self._held else "") + progress.text
            self._held = ToolProgress(progress.fraction, progress.message, progress.data, text[-_TEXT_MAX:])

        if not self._closed and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def close(self) -> None:
        """Say that nothing more comes."""
        self._closed = True
        self._news.set()

    async def next(self) -> ToolProgress | None:
        """Take what is there, waiting for it; None when all is taken and nothing more comes."""
        while True:
            await self._news.wait()
            closed = self._closed
            if not closed:
                self._news.clear()

            with self._lock:
                held, self._held = self._held, None

            # Else the news was of what had been taken already, together with what came before it.
            if held is not None or closed:
                return held


class Call:
    """One call of ``tool``."""

    def __init__(
        self, tool: FunctionTool, schema: JsonObject, context: Callable[[threading.Event], ToolContext]
    ) -> None:
        """Prepare it; ``schema`` is the tool's input schema, ``context`` makes what the function may ask for."""
        self._tool = tool
        self._schema = schema
        self._cancelled = threading.Event()
        self._context = context(self._cancelled)
        self.files = self._context.files
        """What the function saved; named in its result, and sent before that."""

    async def outcome(self, arguments: JsonObject) -> ToolResult | Failure:
        """Make the call. Cancelling stops an async function; a thread is told, and left to itself.

        Raises:
            asyncio.CancelledError: it was cancelled.
        """
        spec = self._tool.spec
        faults = wire.check_json(arguments, "arguments", bytes_max=ARGUMENTS_BYTES_MAX) or check(
            arguments, self._schema, "arguments"
        )
        if faults:
            told = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:3])
            message = _line(f"the arguments of {spec.name} are wrong: {told}")
            return Failure(ErrorReason.INVALID_ARGUMENTS.name, DOMAIN, message, violations=tuple(faults))

        limit = asyncio.timeout(spec.timeout.total_seconds() if spec.timeout else None)
        try:
            async with limit:
                return self._checked(await self._returned(arguments))
        except TimeoutError as error:
            if not limit.expired():
                return self._raised(error)

            message = f"{spec.name} took longer than its limit of {spec.timeout}"
            return Failure(
                ErrorReason.STEP_TIMEOUT.name, DOMAIN, message, retryable=self._repeatable, outcome_unknown=True
            )
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise

            return self._raised(error)  # something inside was cancelled, not this call
        except ToolError as error:
            return error.to_failure(spec.name)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the boundary: whatever a function raises is a failure
            return self._raised(error)

    async def _returned(self, arguments: JsonObject) -> Any:
        keywords = self._tool.keywords(arguments, self._context)
        if self._tool.run == "async":
            return await self._tool.function(**keywords)

        try:
            return await _in_thread(lambda: self._tool.function(**keywords), self._tool.spec.name)
        except asyncio.CancelledError:
            self._cancelled.set()
            raise

    def _checked(self, returned: Any) -> ToolResult | Failure:
        name = self._tool.spec.name
        try:
            result = self._tool.result(returned)
        except TypeError as error:
            message = _line(f"{name} ended, but its output cannot be used: {error}")
            return Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, message)

        if faults := wire.check_json(result.output, "output", bytes_max=OUTPUT_BYTES_MAX):
            large = faults[0].reason == "TOO_LARGE"
            reason = ErrorReason.OUTPUT_TOO_LARGE if large else ErrorReason.INVALID_OUTPUT
            message = _line(f"{name} ended, but its output cannot be used: {faults[0].description}")
            return Failure(reason.name, DOMAIN, message, violations=tuple(faults))

        if not self.files:
            return result

        return dataclasses.replace(result, artifacts=self.files.joined(result.artifacts))

    def _raised(self, error: BaseException) -> Failure:
        _log.warning("the tool %s raised an exception", self._tool.spec.name, exc_info=error)
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        retryable = self._repeatable and not isinstance(error, _DETERMINISTIC)
        return Failure(ErrorReason.TOOL_ERROR.name, DOMAIN, _line(text), retryable=retryable)

    @property
    def _repeatable(self) -> bool:
        return self._tool.spec.effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)


async def _in_thread(work: Callable[[], _T], name: str) -> _T:
    """Run ``work`` in a thread of its own; a daemon, so that one that never ends does not keep the program."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[_T] = loop.create_future()
    run = contextvars.copy_context().run

    def tell(settle: Callable[[Any], None], outcome: Any) -> None:
        if not ended.done():
            settle(outcome)

    def body() -> None:
        try:
            settle: tuple[Callable[[Any], None], Any] = ended.set_result, run(work)
        except BaseException as error:  # noqa: BLE001  # also SystemExit, which would end the thread without an outcome
            plain = isinstance(error, Exception | SystemExit) and not isinstance(error, StopIteration)
            settle = ended.set_exception, error if plain else RuntimeError(f"{type(error).__name__}: {error}")

        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, *settle)

    threading.Thread(target=body, name=f"tool-{name}", daemon=True).start()
    return await ended


def _line(text: str) -> str:
    line = _CONTROL.sub(" ", wire_text(text[: 2 * _MESSAGE_MAX])).strip()
    return line if len(line) <= _MESSAGE_MAX else f"{line[: _MESSAGE_MAX - 1]}…"


def wire_text(text: str) -> str:
    """Give ``text`` with every half of a surrogate pair replaced, which UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()
