"""The whole edge of a server in this process, without a transport: what happens to a request from its bytes to its status.

It is put together by the application's own code, from its journal (in memory) to its boundary; only gRPC's server is not
started. Nothing is created: every request for a plan is a dry run, which passes all checks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from autoglm.model import CreatePlanRequest, ErrorReason
from autoglm.v1 import plan_service_pb2_grpc, tool_service_pb2_grpc
from autoglm_server.app import Application, _Parts, make_journal, make_scheduler, open_artifacts
from autoglm_server.clock import SystemClock
from autoglm_server.journal.follow import Feed
from autoglm_server.service import edge
from autoglm_server.service.admission import Kind
from autoglm_server.service.artifacts import Artifacts
from autoglm_server.service.status import DETAILS_KEY
from autoglm_server.settings import JournalSettings, Settings
from tests.reliability.hostile import PROPER_CODES

PEER: Final = "ipv4:127.0.0.1:50000"
LISTS_TOOLS: Final = "/autoglm.v1.ToolService/ListTools"


class Aborted(grpc.aio.AbortError):
    """The call was ended by a status."""


@dataclass(slots=True)
class Context:
    """What the transport gives a handler; it keeps how the call ended."""

    code: grpc.StatusCode | None = None
    details: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    written: list[bytes] = field(default_factory=list)

    def peer(self) -> str:
        return PEER

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def write(self, message: bytes) -> None:
        self.written.append(message)

    async def send_initial_metadata(self, metadata: object) -> None: ...

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailers: tuple[tuple[str, str | bytes], ...]) -> None:
        self.trailers = trailers

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        self.code, self.details, self.trailers = code, details, trailing_metadata
        raise Aborted


class _Handlers(list[Any]):
    """Stands for gRPC's server while services register."""

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        self.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None: ...


@dataclass
class Inside:
    """A server's edge, to be called directly."""

    parts: _Parts
    handlers: _Handlers

    async def _continuation(self, details: Any) -> Any:
        return next((found for handlers in self.handlers if (found := handlers.service(details))), None)

    async def ask(self, method: str, raw: bytes) -> Context:
        """Make a call. What it raises besides a status has escaped the boundary."""
        context = Context()
        details: Any = SimpleNamespace(method=method, invocation_metadata=())
        handler: Any = await self.parts.boundary.intercept_service(self._continuation, details)
        try:
            if handler.stream_stream:  # a refusal at the door reads nothing
                await handler.stream_stream(_nothing(), context)
            elif handler.unary_stream:
                await handler.unary_stream(raw, context)
            else:
                context.written.append(await handler.unary_unary(raw, context))
        except Aborted:
            pass

        return context

    async def still_serves(self) -> str:
        """Tell what is wrong after all calls have ended: a call that is refused, or places that were not given back."""
        context = await self.ask(LISTS_TOOLS, b"")
        if context.code is not None:
            return f"a plain call is answered {context.code.name}: {context.details}"

        taken = {kind.name: self.parts.admission.taken(kind) for kind in Kind}
        if any(taken.values()) or self.parts.boundary.active:
            return f"calls have ended and still hold places: {taken}, {self.parts.boundary.active} under way"

        return ""


async def _nothing() -> AsyncIterator[bytes]:
    for never in tuple[bytes, ...]():
        yield never


@asynccontextmanager
async def inside() -> AsyncIterator[Inside]:
    """Put an edge together; it ends with the context."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="autoglm-inside-")))
        settings = Settings(data_dir=folder, journal=JournalSettings(url="memory:"))
        application = Application(settings)
        journal = make_journal(settings)
        await application._open(journal, stack)
        feed, clock = Feed(journal), SystemClock()
        plugins = await application._load_plugins(stack)
        _, catalog = await application._start_catalog(plugins, stack)
        artifacts = Artifacts(await open_artifacts(settings, stack), settings.limits)
        planners, subplans = plugins.planners(), application._subplans
        scheduler = make_scheduler(settings, journal, feed, catalog, clock, planners, artifacts.sink, subplans=subplans)
        stack.push_async_callback(scheduler.stop)
        _only_dry_runs(scheduler)
        parts = _Parts(
            settings=settings,
            journal=journal,
            feed=feed,
            catalog=catalog,
            scheduler=scheduler,
            artifacts=artifacts,
            clock=clock,
            plugins=plugins,
        )
        stack.push_async_callback(parts.server.stop, None)
        await stack.enter_async_context(parts.disconnects)
        handlers = _Handlers()
        registry: Any = edge._Registrar(handlers)  # type: ignore[arg-type]
        plan_service_pb2_grpc.add_PlanServiceServicer_to_server(parts._plans, registry)
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(parts._tools, registry)
        yield Inside(parts, handlers)


def _only_dry_runs(scheduler: Any) -> None:
    submit: Callable[..., Any] = scheduler.submit

    async def dry(request: CreatePlanRequest, **named: Any) -> Any:
        return await submit(replace(request, validate_only=True), **named)

    scheduler.submit = dry


def faults_of(context: Context) -> str:
    """Tell what is improper about the end of a call, "" if nothing is: the promise of a status that says what to do."""
    code = context.code
    if code is None:
        return ""

    if code not in PROPER_CODES:
        return f"{code.name}: {context.details}"

    raw = dict(context.trailers).get(DETAILS_KEY)
    if not isinstance(raw, bytes):
        return f"{code.name} without details: {context.details}"

    status = Status.FromString(raw)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)

    if status.message != context.details or not status.message or status.code != code.value[0]:
        return f"{code.name} and its details do not say the same: {context.details!r}, {status.message!r}"

    if info.reason not in ErrorReason.__members__:
        return f"{code.name} without a reason of the contract: {info.reason!r}, {context.details}"

    return _unsaid(bad.field_violations) if info.reason == ErrorReason.INVALID_REQUEST.name else ""


def _unsaid(violations: Sequence[Any]) -> str:
    """Tell whether an invalid request was refused without saying what is wrong with it."""
    if not violations:
        return "INVALID_REQUEST without a violation"

    empty = [violation.field for violation in violations if not (violation.description and violation.reason)]
    return f"violations without words: {empty}" if empty else ""
