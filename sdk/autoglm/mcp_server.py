"""A server's tools and plans for MCP clients: ``autoglm mcp``.

A process of its own that speaks MCP on one side and is a client of the server on the other. What an MCP client can call is the
catalog, as it is at that moment, and ``run_plan``, which makes a plan of a request in natural language. Needs the extra ``mcp``.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server

from autoglm import wire
from autoglm._version import __version__
from autoglm.aio import AsyncClient, AsyncPlanHandle
from autoglm.errors import (
    AutoglmError,
    InvalidRequestError,
    NotFoundError,
    PlanCancelledError,
    PlanFailedError,
    ToolFailedError,
    UnavailableError,
)
from autoglm.model import (
    Effect,
    Event,
    Failure,
    Json,
    JsonObject,
    Plan,
    PlanOptions,
    StepProgressed,
    StepWaiting,
    Tool,
    ToolProgress,
    WaitingReason,
)

__all__ = ["RUN_PLAN", "McpServer", "make_server", "serve_http", "serve_pipes"]

RUN_PLAN: Final = "run_plan"
_OF_PLANS: Final = (RUN_PLAN, "plan.run")
"""Tools of the server that are not offered: the name of its own is taken here, and only steps of plans can call the other."""
KEY_META: Final = "autoglm/idempotencyKey"
"""Where in a call's ``_meta`` an idempotency key may stand: the same call made again is then made once."""

_CALL_SECONDS: Final = 24 * 3600.0
"""The client's own limit on a call; the server has a shorter one."""
_CANCEL_SECONDS: Final = 10.0
_HOST: Final = "127.0.0.1"
_GRACE_SECONDS: Final = 2
_REQUEST_MAX: Final = 65_536
_INSTRUCTIONS: Final = (
    "Tools that this AutoGLM server can call, each once and directly; and run_plan, which plans a request in natural "
    "language, runs its steps in parallel, and answers."
)
_RUN_PLAN: Final = types.Tool(
    name=RUN_PLAN,
    title="Run a plan",
    description=(
        "Make a plan of a request in natural language, run its steps with this server's tools, and give the answer. "
        "The plan is durable: its id is told with the progress, and it is cancelled when this call is."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "request": {"type": "string", "minLength": 1, "description": "What is wanted, in natural language."},
            "max_steps": {"type": "integer", "minimum": 0, "description": "The most steps the planner may add."},
            "allowed_tools": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Globs of the tools it may use; all of them if left out.",
            },
        },
        "required": ["request"],
        "additionalProperties": False,
    },
    output_schema={
        "type": "object",
        "properties": {
            "plan_id": {"type": "string"},
            "state": {"type": "string"},
            "answer": {"type": "string"},
            "output": {"description": "What the answer says, as data."},
        },
        "required": ["plan_id", "state", "answer"],
    },
    annotations=types.ToolAnnotations(read_only_hint=False, idempotent_hint=False, open_world_hint=True),
)

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

_Context = ServerRequestContext[Any, Any]


def make_server(client: AsyncClient, *, tools: Iterable[str] = (), plans: bool = True) -> Server[Any]:
    """Make an MCP server of ``client``'s server; ``tools`` are globs of the tools to offer, all if empty."""
    front = McpServer(client, tools=tools, plans=plans)
    return Server(
        "autoglm",
        version=__version__,
        title="AutoGLM",
        instructions=_INSTRUCTIONS,
        on_list_tools=front.list,
        on_call_tool=front.call,
    )


async def serve_pipes(server: Server[Any]) -> None:
    """Serve the one client that started this process, over stdin and stdout, until it closes them."""
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


async def serve_http(server: Server[Any], port: int, tell: Callable[[str], None]) -> None:
    """Serve streamable HTTP on a port of this machine, for requests that name this machine, until a signal.

    Raises:
        UnavailableError: the port cannot be had.
    """
    import uvicorn  # noqa: PLC0415 - only here

    try:
        listener = socket.create_server((_HOST, port))
    except OSError as error:
        raise UnavailableError(f"port {port} of {_HOST} cannot be listened on: {error.strerror}") from None

    app = server.streamable_http_app(host=_HOST)
    tell(f"MCP is served on http://{_HOST}:{listener.getsockname()[1]}/mcp")
    with listener:
        settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)
        await uvicorn.Server(settings).serve(sockets=[listener])


class McpServer:
    """What an MCP client may ask, answered by asking the server."""

    def __init__(self, client: AsyncClient, *, tools: Iterable[str] = (), plans: bool = True) -> None:
        """Forward to ``client``, which must stay open."""
        self._client = client
        self._globs = tuple(tools)
        self._plans = plans

    async def list(self, context: _Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """Give the tools that are there now, and ``run_plan``."""
        del context, params
        found = [_RUN_PLAN] if self._plans else []
        try:
            tools = [tool async for tool in self._client.tools.list() if tool.available]
        except AutoglmError as error:
            raise MCPError(code=types.INTERNAL_ERROR, message=f"the AutoGLM server: {error}") from None

        found += [_listed(tool) for tool in tools if tool.name not in _OF_PLANS and self._offers(tool.name)]
        return types.ListToolsResult(tools=found)

    async def call(self, context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Make a call, or run a plan. Cancelled, the call is too, and the plan.

        Raises:
            MCPError: there is no such tool.
        """
        arguments = params.arguments or {}
        key = str((context.meta or {}).get(KEY_META, ""))
        if params.name == RUN_PLAN and self._plans:
            return await self._run_plan(context, arguments, key)

        if not self._offers(params.name):
            raise MCPError(code=types.INVALID_PARAMS, message=f"there is no tool {params.name!r}")

        reporter = _Reporter(context)
        try:
            call = self._client.tools.call(
                params.name, arguments, timeout=_CALL_SECONDS, idempotency_key=key, progress=reporter.tool
            )
            result = await reporter.while_waiting(call)
        except ToolFailedError as error:
            return _failed(_told(error.failure))
        except NotFoundError as error:
            raise MCPError(code=types.INVALID_PARAMS, message=str(error)) from None
        except AutoglmError as error:
            return _failed(_refused(error))

        notes = [f"[{one.name}: {one.media_type}, {one.size_bytes} bytes]" for one in result.artifacts]
        return _succeeded(result.output, notes)

    def _offers(self, name: str) -> bool:
        return not self._globs or any(fnmatch.fnmatchcase(name, glob) for glob in self._globs)

    # --- plans

    async def _run_plan(self, context: _Context, arguments: Mapping[str, Any], key: str) -> types.CallToolResult:
        if faults := _faults(arguments):
            return _failed("; ".join(faults))

        allowed = tuple(arguments.get("allowed_tools") or self._globs)
        if outside := [glob for glob in allowed if self._globs and glob not in self._globs and not self._offers(glob)]:
            return _failed(f"allowed_tools: {outside[0]!r} is not offered here; offered is {', '.join(self._globs)}")

        try:
            handle = await self._client.run(
                arguments["request"],
                options=PlanOptions(max_steps=arguments.get("max_steps"), allowed_tools=allowed),
                labels={"source": "mcp"},
                request_id=key,
            )
            plan = await self._followed(context, handle)
        except (PlanFailedError, PlanCancelledError) as error:
            return _failed(_ended(error.plan), _outcome(error.plan))
        except AutoglmError as error:
            return _failed(_refused(error))

        return types.CallToolResult(content=[_text(plan.answer)], structured_content=_outcome(plan))

    async def _followed(self, context: _Context, handle: AsyncPlanHandle) -> Plan:
        """Follow a plan to its end, and report its events; cancelled, cancel it.

        Raises:
            PlanFailedError, PlanCancelledError: it ended so.
        """
        reporter = _Reporter(context)
        reporter.put(0, None, f"plan {handle.id}")

        async def follow() -> Plan:
            async for event in handle:
                reporter.plan(handle.plan, event)

            return await handle.result()

        try:
            return await reporter.while_waiting(follow())
        except asyncio.CancelledError:
            await _cancelled(handle)
            raise


class _Reporter:
    """Sends progress, one report after the other; of those that wait, only the last."""

    def __init__(self, context: _Context) -> None:
        self._session = context.session
        self._news = asyncio.Event()
        self._last: tuple[float, float | None, str] = (0.0, None, "")
        self._done = 0.0

    def put(self, progress: float, total: float | None, message: str) -> None:
        """Take a report. What is done never becomes less: MCP says so."""
        self._done = max(self._done, progress)
        self._last = (self._done, total, message)
        self._news.set()

    def tool(self, progress: ToolProgress) -> None:
        self.put(progress.fraction, 1.0, progress.message)

    def plan(self, plan: Plan, event: Event) -> None:
        """Report an event of a plan: how many of its steps have ended, and what just happened."""
        ended = sum(step.state.terminal for step in plan.steps)
        match event.fact:
            case StepProgressed(message=message):
                told = f"{event.step_id}: {message}" if message else event.step_id
            case StepWaiting(reason=WaitingReason.APPROVAL):
                told = f"{event.step_id} waits for approval: autoglm resolve {plan.id} {event.step_id} --approve"
            case StepWaiting(reason=reason):
                told = f"{event.step_id} waits for a person ({reason.name}): autoglm show {plan.id}"
            case fact:
                told = f"{_words(type(fact).__name__)} {event.step_id}".rstrip()

        self.put(ended, len(plan.steps) or None, told)

    async def while_waiting(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Do ``work`` and send what is put meanwhile."""
        sending = asyncio.get_running_loop().create_task(self._send())
        try:
            result = await work
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending

        if self._news.is_set():
            await self._session.report_progress(*self._last)

        return result

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._session.report_progress(*self._last)


async def _cancelled(handle: AsyncPlanHandle) -> None:
    """Cancel a plan although the task that asks for it is being cancelled itself."""
    try:
        # Its scope is cancelled for good: without the shield, so would be everything awaited here.
        with anyio.move_on_after(_CANCEL_SECONDS, shield=True):
            await handle.cancel("the MCP client cancelled the call")
    except AutoglmError as error:
        _log.warning("the plan %s could not be cancelled: %s", handle.id, error)


# --- our words in MCP's


def _listed(tool: Tool) -> types.Tool:
    read_only = tool.effect is Effect.READ_ONLY
    output = wire.parse_json(tool.output_schema) if tool.output_schema else None
    return types.Tool(
        name=tool.name,
        title=tool.title or None,
        description=tool.description,
        input_schema=wire.parse_json(tool.input_schema) if tool.input_schema else {"type": "object"},
        # Until 2026 a structured result was an object, and most clients still expect one.
        output_schema=output if isinstance(output, dict) and output.get("type") == "object" else None,
        annotations=types.ToolAnnotations(
            read_only_hint=read_only,
            destructive_hint=tool.destructive,
            idempotent_hint=read_only or tool.effect is Effect.IDEMPOTENT,
            open_world_hint=tool.open_world,
        ),
    )


def _succeeded(output: Json, notes: list[str]) -> types.CallToolResult:
    text = output if isinstance(output, str) else wire.canonical_json(output)
    content: list[types.ContentBlock] = [_text("\n".join([text, *notes]))]
    if isinstance(output, dict):
        return types.CallToolResult(content=content, structured_content=output)

    return types.CallToolResult(content=content)


def _failed(told: str, outcome: JsonObject | None = None) -> types.CallToolResult:
    if outcome is None:
        return types.CallToolResult(content=[_text(told)], is_error=True)

    return types.CallToolResult(content=[_text(told)], structured_content=outcome, is_error=True)


def _text(text: str) -> types.TextContent:
    return types.TextContent(text=text)


def _told(failure: Failure) -> str:
    unknown = " Nobody knows whether it took effect." if failure.outcome_unknown else ""
    again = " It may be tried again." if failure.retryable else ""
    faults = "".join(f"\n{fault.field}: {fault.description}" for fault in failure.violations)
    return f"{failure.reason}: {failure.message}{unknown}{again}{faults}"


def _refused(error: AutoglmError) -> str:
    if isinstance(error, InvalidRequestError) and error.violations:
        return "\n".join(f"{fault.field}: {fault.description}" for fault in error.violations)

    remedy = "; use run_plan, and approve the step" if error.reason == "APPROVAL_REQUIRED" else ""
    return f"{error}{remedy}"


def _ended(plan: Plan) -> str:
    failure = f"{plan.failure.reason}: {plan.failure.message}" if plan.failure else plan.state.name
    return f"the plan {plan.id} ended {plan.state.name.lower()}: {failure}" + (
        f"\n{plan.answer}" if plan.answer else ""
    )


def _outcome(plan: Plan) -> JsonObject:
    return {"plan_id": plan.id, "state": plan.state.name, "answer": plan.answer, "output": plan.output}


def _words(name: str) -> str:
    return "".join(f" {char.lower()}" if char.isupper() else char for char in name).strip()


def _faults(arguments: Mapping[str, Any]) -> list[str]:
    """Check ``run_plan``'s arguments: a client may send what its schema forbids."""
    request, steps, allowed = (arguments.get(name) for name in ("request", "max_steps", "allowed_tools"))
    faults = [f"{name!r} is not known" for name in arguments.keys() - {"request", "max_steps", "allowed_tools"}]
    if not isinstance(request, str) or not request.strip() or len(request) > _REQUEST_MAX:
        faults.append(f"request: write what is wanted, in 1 to {_REQUEST_MAX} characters")

    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 0):
        faults.append("max_steps: write a whole number from 0")

    if allowed is not None and not (isinstance(allowed, list) and all(isinstance(one, str) for one in allowed)):
        faults.append("allowed_tools: write a list of globs")

    return faults
