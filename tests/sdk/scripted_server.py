"""A real gRPC server that does what a script says: it speaks the protos, and injects the faults a watch must survive.

Each method has a queue of scripts, one for each call; the last one is used again. A script is a list of what to do: send a
message, fail with a status and google.rpc details, say nothing, restart. ``requests`` holds what was asked.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from autoglm import wire
from autoglm._seal import Seal
from autoglm.model import (
    Event,
    Fact,
    PlanCancelled,
    PlanCreated,
    PlanFailed,
    PlanningFinished,
    PlanningStarted,
    PlanResumed,
    PlanSucceeded,
    ServerInfo,
    StepProgressed,
    Violation,
)
from autoglm.v1 import plan_service_pb2, plan_service_pb2_grpc, tool_service_pb2, tool_service_pb2_grpc

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
JOURNAL = "journal-1"


@dataclass(frozen=True, slots=True)
class Fail:
    """End the call with a status, with details if ``reason`` is set."""

    status: str
    reason: str = ""
    text: str = "scripted"
    domain: str = "autoglm"
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None


class Freeze:
    """Say nothing more, and do not end, until the client goes away or the server stops."""


class Linger:
    """Take a moment before what comes next, and note in ``left`` if the client goes away in it."""


class Crash:
    """Stop the server at once: every connection is cut."""


Action: TypeAlias = Message | Fail | Freeze | Linger | Crash
Script: TypeAlias = Sequence[Action]


def event(sequence: int, fact: Fact, plan_id: str = "p1", *, ephemeral: bool = False) -> Event:
    return Event(plan_id=plan_id, sequence=sequence, event_time=EPOCH, ephemeral=ephemeral, fact=fact)


def log(plan_id: str = "p1", end: Fact | None = None) -> list[Event]:
    """A short plan: eight events, the last one terminal."""
    middle: list[Fact] = [PlanningStarted(planner="rules", attempt=1), PlanningFinished(answer="372")]
    facts: list[Fact] = [PlanCreated(request="15% of 2480"), *[PlanResumed(epoch=n) for n in range(1, 5)], *middle]
    facts.append(end or PlanSucceeded(answer="372"))
    return [event(number, fact, plan_id) for number, fact in enumerate(facts, 1)]


LOG = log()
FAILED = log(end=PlanFailed())
CANCELLED = log(end=PlanCancelled())


def batch(events: Sequence[Event], *, journal_id: str = JOURNAL, sequence: int | None = None) -> Message:
    """A message of WatchPlan; ``sequence`` is the last durable event's unless given."""
    durable = [one.sequence for one in events if not one.ephemeral]
    last = sequence if sequence is not None else max(durable, default=0)
    messages = [wire.to_message(one) for one in events]
    return plan_service_pb2.WatchPlanResponse(events=messages, sequence=last, journal_id=journal_id)  # type: ignore[arg-type]


def heartbeat(sequence: int = 0) -> Message:
    return batch([], sequence=sequence)


def progress(sequence: int, fraction: float) -> Event:
    return event(sequence, StepProgressed(fraction=fraction), ephemeral=True)


def batch_all(events: Sequence[Event], cursor: str) -> Message:
    messages = [wire.to_message(one) for one in events]
    return plan_service_pb2.WatchPlansResponse(events=messages, cursor=cursor)  # type: ignore[arg-type]


def damaged(message: Message) -> Message:
    """A message of a stream that its checksum does not fit."""
    return type(message).FromString(message.SerializeToString() + b"\x25\x01\x02\x03\x04")


class ScriptedServer:
    """The server; a context manager, on a port of its own that it keeps over restarts."""

    def __init__(self, options: Sequence[tuple[str, int]] = ()) -> None:
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.peers: dict[str, list[str]] = defaultdict(list)
        self.scripts: dict[str, list[Script]] = defaultdict(list)
        self.cancelled = threading.Semaphore(0)
        self.left = 0
        self.port = 0
        self._options = options
        self._stopping = threading.Event()
        self._server: grpc.Server | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def on(self, method: str, *scripts: Script) -> None:
        """Say what the next calls of a method do."""
        self.scripts[method] = list(scripts)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._stopping.clear()
        self._pool = ThreadPoolExecutor(64)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0), *self._options])
        plan_service_pb2_grpc.add_PlanServiceServicer_to_server(_scripted(self, _PLANS), self._server)
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(_scripted(self, _TOOLS), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(_scripted(self, _HEALTH), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        self._stopping.set()

        if self._server is not None and self._pool is not None:
            self._server.stop(grace=None).wait()
            self._pool.shutdown()
            self._server = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def answer(self, method: str, request: Any, context: Any) -> Iterator[Any]:
        """Play the next script of a method."""
        self.requests[method].append(request)
        self.peers[method].append(context.peer())
        context.add_callback(self.cancelled.release)
        queue = self.scripts[method] or [[Fail("UNIMPLEMENTED", text="no script")]]
        script = queue[0] if len(queue) == 1 else queue.pop(0)
        seal = _seal(request)

        for action in script:
            if isinstance(action, Message):
                yield _sealed(action, seal) if seal is not None else action
            elif isinstance(action, Fail):
                _fail(action, context)
            elif isinstance(action, Crash):
                self._stopping.set()
                threading.Thread(target=self.stop).start()
                self._wait(context)
            elif isinstance(action, Linger):
                gone = threading.Event()
                self.left += not context.add_callback(gone.set) or gone.wait(0.05)
            else:
                self._wait(context)

    def _wait(self, context: Any) -> None:
        gone = threading.Event()

        if context.add_callback(gone.set):
            while not gone.wait(0.05) and not self._stopping.is_set():
                pass


def _seal(request: Any) -> Seal | None:
    """Begin the seal of a stream, if it has one."""
    if isinstance(request, plan_service_pb2.WatchPlanRequest):
        after, journal_id = request.after_sequence, request.journal_id
        return Seal.of_plan(request.plan_id, after, durable_only=request.durable_only, journal_id=journal_id)

    if isinstance(request, plan_service_pb2.WatchPlansRequest):
        now, durable_only, labels = request.from_now, request.durable_only, dict(request.labels)
        return Seal.of_all(request.cursor, from_now=now, durable_only=durable_only, labels=labels)

    return None


def _sealed(message: Message, seal: Seal) -> Message:
    """Give a message with its checksum; one that has a wrong one already keeps it."""
    if message.HasField("checksum"):
        return message

    return type(message).FromString(seal.put(message.SerializeToString()))


def _fail(action: Fail, context: Any) -> None:
    code = grpc.StatusCode[action.status]
    details = []

    if action.reason:
        details.append(
            error_details_pb2.ErrorInfo(reason=action.reason, domain=action.domain, metadata=action.metadata)
        )

    if action.violations:
        faults = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description, reason=v.reason)
            for v in action.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=faults))

    if action.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(action.retry_after)
        details.append(retry)

    if details:
        status = status_pb2.Status(code=code_pb2.Code.Value(action.status), message=action.text)

        for detail in details:
            status.details.add().Pack(detail)

        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])

    context.abort(code, action.text)


_PLANS = plan_service_pb2.DESCRIPTOR.services_by_name["PlanService"]
_TOOLS = tool_service_pb2.DESCRIPTOR.services_by_name["ToolService"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]


def _scripted(server: ScriptedServer, service: Any) -> Any:
    """Make a servicer whose every method plays the scripts of its name."""

    def method(name: str, *, streams: bool) -> Callable[[Any, Any], Any]:
        if streams:
            return lambda request, context: server.answer(name, request, context)

        return lambda request, context: next(server.answer(name, request, context))

    methods = {one.name: method(one.name, streams=one.server_streaming) for one in service.methods}
    return type("Scripted", (), {name: staticmethod(made) for name, made in methods.items()})()


def info(version: str = "0.1.0") -> Message:
    return wire.to_message(ServerInfo(version=version, journal_id=JOURNAL, planner="rules"))


def serving() -> Message:
    answer: Message = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
    return answer
