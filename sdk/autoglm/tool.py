"""Making tools of Python functions.

::

    @autoglm.tool(name="math.add", effect=autoglm.Effect.READ_ONLY)
    def add(a: float, b: float) -> float:
        '''Add two numbers.

        Args:
            a: The first.
            b: The second.
        '''
        return a + b

The function stays callable as it was. Its schema comes from its annotations and docstring; a type that JSON cannot say
is refused when the function is decorated. Give the file to a server as the provider ``NAME=python:FILE.py``; its tools are
called ``NAME.tool`` there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, overload

from autoglm._files import Files, FileTooLargeError
from autoglm._schema import Constraint, to_plain
from autoglm._signature import read_docstring, read_signature
from autoglm.model import (
    DOMAIN,
    Artifact,
    CallContext,
    Effect,
    ErrorReason,
    Failure,
    Json,
    JsonObject,
    Phrase,
    RetryPolicy,
    Tool,
    ToolExample,
    ToolProgress,
    ToolResult,
)

__all__ = ["Constraint", "FunctionTool", "ToolContext", "ToolError", "tool", "tool_digest"]

Run = Literal["async", "thread", "process"]
"""Where a function runs: on the event loop, in a thread, or in a process of its own (which can be killed)."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


class ToolError(Exception):
    """A tool's own failure, told to the caller as data.

    ``reason`` is UPPER_SNAKE and a part of the tool's contract. ``retryable`` promises that another attempt is safe and
    may help, ``retry_after`` says when; ``outcome_unknown`` says that the call may have taken effect all the same. An
    exception of another class is the failure TOOL_ERROR.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "FAILED",
        retryable: bool = False,
        outcome_unknown: bool = False,
        retry_after: timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Make a failure; ``message`` is a sentence for the caller, without secrets."""
        if not _REASON.fullmatch(reason):
            raise ValueError(f"reason is {reason!r}; write it in UPPER_SNAKE, such as NOT_THERE")

        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retryable = retryable
        self.outcome_unknown = outcome_unknown
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})

    def to_failure(self, tool: str) -> Failure:
        """Give the failure as data, in the domain of ``tool``."""
        return Failure(
            reason=self.reason,
            domain=tool,
            message=self.message,
            retryable=self.retryable,
            outcome_unknown=self.outcome_unknown,
            retry_after=self.retry_after,
            metadata=self.metadata,
        )


class InvalidArtifactError(ToolError):
    """The files of a call are too many or too large; what the function did has happened."""

    def __init__(self, refused: FileTooLargeError) -> None:
        """Tell what was refused."""
        metadata = {"limit": str(refused.limit), "size": str(refused.size)}
        super().__init__(str(refused), reason=ErrorReason.INVALID_ARTIFACT.name, metadata=metadata)

    def to_failure(self, tool: str) -> Failure:
        """Give the failure as data, in the domain of AutoGLM: its reason is one of ours."""
        return dataclasses.replace(super().to_failure(tool), domain=DOMAIN)


class ToolContext:
    """What a function learns of its call, when a parameter is annotated with this class.

    Made by whoever runs the function; ``ToolContext()`` is enough to call one in a test.
    """

    __slots__ = ("_call", "_cancelled", "_report", "files", "idempotency_key")

    def __init__(
        self,
        *,
        idempotency_key: str = "",
        call: CallContext | None = None,
        report: Callable[[ToolProgress], None] | None = None,
        cancelled: threading.Event | None = None,
        files: Files | None = None,
    ) -> None:
        """Make the context of one call; ``report`` takes progress from any thread and never blocks or raises."""
        self.idempotency_key = idempotency_key
        """The same for all attempts of a step: what to de-duplicate a side effect by."""
        self.files = files if files is not None else Files()
        """What :meth:`save` has taken; for whoever runs the function."""
        self._call = call or CallContext()
        self._report = report
        self._cancelled = cancelled or threading.Event()

    @property
    def plan_id(self) -> str:
        """The plan on whose behalf the call is made; empty for a direct call."""
        return self._call.plan_id

    @property
    def step_id(self) -> str:
        """The step on whose behalf the call is made; empty for a direct call."""
        return self._call.step_id

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1; 0 for a direct call."""
        return self._call.attempt

    @property
    def principal(self) -> str:
        """Who the plan belongs to."""
        return self._call.principal

    @property
    def cancelled(self) -> bool:
        """Whether the call was told to stop. A function in a thread must look: nothing else can stop it."""
        return self._cancelled.is_set()

    def wait_cancelled(self, seconds: float) -> bool:
        """Sleep for ``seconds`` or until the call is told to stop; give whether it was. Not for async functions."""
        return self._cancelled.wait(seconds)

    def raise_if_cancelled(self) -> None:
        """End the call here, as cancelled, if it was told to stop.

        Raises:
            asyncio.CancelledError: it was; let it pass through.
        """
        if self._cancelled.is_set():
            raise asyncio.CancelledError

    def progress(self, fraction: float, message: str = "", data: Json = None, text: str = "") -> None:
        """Tell how far the call is: ``fraction`` of 1, and what a watcher should see. May be dropped when too frequent.

        A fraction outside 0 to 1 is brought inside, so that a rounding error never fails a call.
        """
        if self._report is not None:
            bounded = 0.0 if math.isnan(fraction) else min(max(float(fraction), 0.0), 1.0)
            self._report(ToolProgress(bounded, message, to_plain(data, "data"), text))

    def save(self, name: str, content: bytes | str | Path, media_type: str = "") -> Artifact:
        """Give a file to the result: its bytes, its text, or the file it is in, which is copied now.

        It joins the result when the function returns; when it raises, its files are dropped. ``name`` is a label, unique
        in the call, such as ``report.csv``; the media type is guessed by its ending if it is empty. In an async function,
        save a large file by ``await asyncio.to_thread(context.save, name, path)``.

        Raises:
            ToolError: the call's files are too many or too large; let it pass through.
            ValueError: the name or the media type cannot be used, or the name is taken.
            OSError: the file cannot be read.
        """
        try:
            return self.files.add(name, content, media_type)
        except FileTooLargeError as refused:
            raise InvalidArtifactError(refused) from None


class FunctionTool:
    """A Python function with all that makes it a tool. Call it as the function itself.

    ``spec`` is what the catalog shows; ``run`` where the function runs. :meth:`keywords` and :meth:`result` are for
    whoever serves it: JSON arguments as the function's own values, and what it returned as a result.
    """

    def __init__(self, function: Callable[..., Any], spec: Tool, run: Literal["auto"] | Run = "auto") -> None:
        """Make a tool of ``function``; ``spec`` gives what its signature does not. Use :func:`tool` instead.

        Raises:
            TypeError: the signature has no schema; names function, parameter, type and what is supported. Or the effect or the
            time limit is of another type.
            ValueError: the name, the time limit or ``run`` is out of bounds.
        """
        signature = read_signature(function, ToolContext)
        self.function = function
        self.run: Run = _where(function, run)
        self.spec = _complete(spec, function, signature.input_schema, signature.output_schema)
        self._parameters = signature.parameters
        self._context = signature.context
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name}: {self.function.__module__}.{self.function.__qualname__}>"

    @property
    def takes_context(self) -> bool:
        """Whether the function has a parameter for a :class:`ToolContext`."""
        return bool(self._context)

    def keywords(self, arguments: JsonObject, context: ToolContext | None) -> dict[str, Any]:
        """Give the function's keyword arguments for JSON arguments that fit the input schema.

        ``context`` may be left out where the function does not take one.
        """
        parameters = self._parameters
        values = {name: parameters[name].read(value) for name, value in arguments.items()}
        if self._context:
            values[self._context] = context

        return values

    def result(self, returned: Any) -> ToolResult:
        """Give what the function returned as a result.

        Raises:
            TypeError: part of it has no JSON form; the message says which.
        """
        return returned if isinstance(returned, ToolResult) else ToolResult(output=to_plain(returned))


class _Typed(FunctionTool, Generic[_P, _R]):
    """The same for a type checker that knows the function's signature."""

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return cast("_R", self.function(*args, **kwargs))


@overload
def tool(function: Callable[_P, _R], /) -> _Typed[_P, _R]: ...


@overload
def tool(
    *,
    name: str = "",
    title: str = "",
    description: str = "",
    effect: Effect = Effect.NON_IDEMPOTENT,
    destructive: bool = False,
    open_world: bool = False,
    phrases: Iterable[Phrase] = (),
    examples: Iterable[ToolExample] = (),
    tags: Iterable[str] = (),
    timeout: timedelta | None = None,
    retry_policy: RetryPolicy | None = None,
    requires_approval: bool = False,
    run: Literal["auto", "async", "thread", "process"] = "auto",
) -> Callable[[Callable[_P, _R]], _Typed[_P, _R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    title: str = "",
    description: str = "",
    effect: Effect = Effect.NON_IDEMPOTENT,
    destructive: bool = False,
    open_world: bool = False,
    phrases: Iterable[Phrase] = (),
    examples: Iterable[ToolExample] = (),
    tags: Iterable[str] = (),
    timeout: timedelta | None = None,
    retry_policy: RetryPolicy | None = None,
    requires_approval: bool = False,
    run: Literal["auto", "async", "thread", "process"] = "auto",
) -> Any:
    """Make a tool of a function; also bare, ``@autoglm.tool``.

    Args:
        function: The function, when used bare.
        name: What plans call it; the function's name by default.
        title: Its name for people.
        description: What it does; the first paragraph of the docstring by default.
        effect: What calling it does to the world. The default is the careful one: never repeated by itself.
        destructive: It may destroy something.
        open_world: It reaches into the world outside, such as the web.
        phrases: How the rules planner reads a request for it.
        examples: Examples of its use.
        tags: What to find it by.
        timeout: The longest one attempt may take.
        retry_policy: How to retry; the default of its effect otherwise.
        requires_approval: Every call needs a person's approval.
        run: Where it runs. ``auto``: a coroutine function on the event loop, any other in a thread. A thread cannot be
            stopped, so a long one must look at ``ToolContext.cancelled``; ``process`` is for work that keeps the
            processor busy, can be killed, and needs a function at module level.

    Raises:
        TypeError: the signature has no schema; names function, parameter, type and what is supported.
        ValueError: the name, the time limit or ``run`` is out of bounds.
    """
    spec = Tool(
        name=name,
        title=title,
        description=description,
        effect=effect,
        destructive=destructive,
        open_world=open_world,
        timeout=timeout,
        retry_policy=retry_policy,
        requires_approval=requires_approval,
        tags=tuple(tags),
        examples=tuple(examples),
        phrases=tuple(phrases),
    )
    if function is not None:
        return _Typed(function, spec, run)

    return lambda decorated: _Typed(decorated, spec, run)


def tool_digest(tool: Tool) -> str:
    """Give the digest of a tool: of its name, effect and schemas. Two tools with the same digest are used alike.

    Raises:
        ValueError: a schema is not JSON.
    """
    from autoglm import wire  # noqa: PLC0415  # a function that is never served needs no messages

    schemas = [wire.parse_json(text) if text else None for text in (tool.input_schema, tool.output_schema)]
    effect = Effect.NON_IDEMPOTENT if tool.effect is Effect.UNSPECIFIED else tool.effect
    return wire.digest({"effect": effect.name, "input": schemas[0], "name": tool.name, "output": schemas[1]})


def _where(function: Callable[..., Any], run: Literal["auto"] | Run) -> Run:
    name = function.__qualname__
    is_async = inspect.iscoroutinefunction(function)
    if run == "auto":
        return "async" if is_async else "thread"

    if run not in ("async", "thread", "process"):
        raise ValueError(f"tool function {name}: run is {run!r}; write auto, async, thread or process")

    if is_async != (run == "async"):
        remedy = "write `def`, not `async def`, or run='async'" if is_async else "write `async def`, or run='thread'"
        raise ValueError(f"tool function {name}: run is {run!r}; {remedy}")

    if run == "process" and "." in name:
        raise ValueError(f"tool function {name}: run='process' needs a function at module level, to find it by name")

    return run


def _complete(spec: Tool, function: Callable[..., Any], inputs: JsonObject, output: JsonObject | None) -> Tool:
    name = spec.name or function.__name__
    if not _NAME.fullmatch(name):
        raise ValueError(f"tool name {name!r}: write 1 to 128 of [A-Za-z0-9_.-], not beginning with '.' or '-'")

    effect: object = spec.effect  # whoever writes the function need not check types
    timeout: object = spec.timeout
    if not isinstance(effect, Effect):
        known = ", ".join(f"Effect.{each.name}" for each in Effect if each is not Effect.UNSPECIFIED)
        raise TypeError(f"tool {name}: effect is {effect!r}; write one of {known}")

    if timeout is not None and not isinstance(timeout, timedelta):
        raise TypeError(f"tool {name}: timeout is {timeout!r}; write a timedelta, as timedelta(seconds=30)")

    if spec.timeout is not None and spec.timeout <= timedelta(0):
        raise ValueError(f"tool {name}: timeout is {spec.timeout}; it must be longer than 0")

    return Tool(
        name=name,
        title=spec.title,
        description=spec.description or read_docstring(function).summary,
        input_schema=_text(inputs),
        output_schema="" if output is None else _text(output),
        effect=spec.effect,
        destructive=spec.destructive,
        open_world=spec.open_world,
        timeout=spec.timeout,
        retry_policy=spec.retry_policy,
        requires_approval=spec.requires_approval,
        tags=spec.tags,
        examples=spec.examples,
        phrases=spec.phrases,
    )


def _text(schema: JsonObject) -> str:
    # In the order of the parameters: it is what people read first. Digests are of the canonical form.
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
