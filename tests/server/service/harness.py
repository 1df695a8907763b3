"""A real local server around a scheduler that is only a table: the edge, and nothing behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from autoglm import wire
from autoglm.errors import error
from autoglm.model import (
    CreatePlanRequest,
    Decision,
    ErrorReason,
    Event,
    Plan,
    PlanCreated,
    PlanState,
    PlanSucceeded,
    Tool,
    ToolResult,
    Violation,
)
from autoglm.v1 import plan_service_pb2_grpc, tool_service_pb2_grpc
from autoglm_server.clock import SystemClock
from autoglm_server.journal.artifacts import FolderArtifacts
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Append, JournalError, PlanRow
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.scheduler.scheduler import Submitted
from autoglm_server.service import edge
from autoglm_server.service.admission import Admission
from autoglm_server.service.artifacts import Artifacts
from autoglm_server.service.health import Health
from autoglm_server.service.interceptors import Boundary
from autoglm_server.service.plans import About, PlanService, basic
from autoglm_server.service.tools import ToolService
from autoglm_server.service.watch import Disconnects, Watches, WatchTimes
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.tool import Invocation

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class TablePlans:
    """The port over a table; ``before`` runs first in every call, to raise or to wait."""

    def __init__(self, journal: MemoryJournal, feed: Feed) -> None:
        self.journal = journal
        self.feed = feed
        self.plans: dict[str, Plan] = {}
        self.cancelled: list[tuple[str, str]] = []
        self.created: list[tuple[CreatePlanRequest, str]] = []
        self.resolved: list[Decision] = []
        self.before: Callable[[], object] = lambda: None
        self.faults: list[Violation] = []
        self.delay = 0.0
        """How far the journal's disk is behind, in seconds."""

    async def _before(self) -> None:
        found = self.before()

        if asyncio.iscoroutine(found):
            await found

    def check(self, request: CreatePlanRequest) -> list[Violation]:
        return self.faults

    async def submit(
        self, request: CreatePlanRequest, *, principal: str, digest: str, again: bool = False
    ) -> Submitted:
        await self._before()
        self.created.append((request, digest))
        plan_id = f"plan-{len(self.created)}"
        return Submitted.of(await self.add(Plan(id=plan_id, request=request.request, labels=request.labels), 1))

    async def get(self, plan_id: str) -> Plan:
        await self._before()

        if plan_id not in self.plans:
            raise error(ErrorReason.PLAN_NOT_FOUND, f"there is no plan {plan_id!r}", plan_id=plan_id)

        return self.plans[plan_id]

    async def cancel(self, plan_id: str, *, reason: str, principal: str) -> Plan:
        self.cancelled.append((plan_id, reason))
        return await self.get(plan_id)

    async def resolve(
        self, plan_id: str, step_id: str, *, wait_sequence: int, decision: Decision, comment: str, principal: str
    ) -> Plan:
        self.resolved.append(decision)
        return await self.get(plan_id)

    async def add(self, plan: Plan, events: int, *, ended: bool = False, size: int = 0) -> Plan:
        """Journal a plan of that many events, each with ``size`` bytes of text; ``ended``: the last one ends it."""
        state = PlanState.SUCCEEDED if ended else PlanState.RUNNING
        self.plans[plan.id] = plan = replace(plan, state=state, create_time=NOW, sequence=events)
        facts = [PlanCreated(request="x" * size)] * (events - ended) + [PlanSucceeded()] * ended
        bodies = [wire.encode(Event(plan.id, n, NOW, fact=fact)) for n, fact in enumerate(facts, 1)]
        row = PlanRow(plan.id, "", "", state, plan.labels, plan.context_id, "", NOW, wire.encode(basic(plan)))
        await self._append(Append(plan.id, 1, 1, bodies, _unsettled, row))

        if ended:
            self.feed.finish(plan.id, events)

        return plan

    async def more(self, plan_id: str, *, count: int = 1, ended: bool = False, size: int = 0) -> None:
        """Journal more events of a plan, each with ``size`` bytes of text."""
        plan = self.plans[plan_id]
        facts = [PlanCreated(request="x" * size)] * (count - ended) + [PlanSucceeded()] * ended
        numbered = enumerate(facts, plan.sequence + 1)
        bodies = [wire.encode(Event(plan_id, sequence, NOW, fact=fact)) for sequence, fact in numbered]
        self.plans[plan_id] = replace(plan, sequence=plan.sequence + count)
        await self._append(Append(plan_id, 1, plan.sequence + 1, bodies, _unsettled))

        if ended:
            self.feed.finish(plan_id, plan.sequence + count)

    async def _append(self, append: Append) -> None:
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(refused: JournalError | None) -> None:
            if refused:
                settled.set_exception(refused)
            else:
                settled.set_result(None)

        append.settled = settle
        self.journal.append(append)
        await settled


def _unsettled(_: JournalError | None) -> None:
    raise AssertionError


class TableCatalog:
    """The catalog over a table; ``behave`` is what a call does."""

    def __init__(self) -> None:
        self.table: dict[str, Tool] = {}
        self.digest = "d" * 64
        self.calls: list[Invocation] = []
        self.behave: Callable[[Invocation], object] = lambda _: ToolResult(output=42)

    def get(self, name: str) -> Tool | None:
        return self.table.get(name)

    def tools(self, allowed: Sequence[str] = ()) -> list[Tool]:
        return list(self.table.values())

    def nearest(self, name: str) -> list[str]:
        return [known for known in self.table if known[:3] == name[:3]]

    async def call(self, invocation: Invocation, *, tool_digest: str = "") -> ToolResult:
        self.calls.append(invocation)
        found = self.behave(invocation)
        result = await found if asyncio.iscoroutine(found) else found
        assert isinstance(result, ToolResult)
        return result


@dataclass
class Edge:
    """A serving edge, and channels to it."""

    plans: TablePlans
    catalog: TableCatalog
    journal: MemoryJournal
    feed: Feed
    health: Health
    boundary: Boundary
    watches: Watches
    disconnects: Disconnects
    artifacts: Artifacts
    server: grpc.aio.Server
    address: str
    stack: AsyncExitStack = field(repr=False)

    async def channel(self) -> Any:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
        return await self.stack.enter_async_context(grpc.aio.insecure_channel(self.address, options=options))

    async def stub(self) -> Any:
        return plan_service_pb2_grpc.PlanServiceStub(await self.channel())

    async def tool_stub(self) -> Any:
        return tool_service_pb2_grpc.ToolServiceStub(await self.channel())


@asynccontextmanager
async def serving(
    *,
    limits: LimitSettings | None = None,
    times: WatchTimes | None = None,
    deadline: float = 10.0,
) -> AsyncIterator[Edge]:
    limits = limits or LimitSettings()
    times = times or WatchTimes()
    journal = MemoryJournal()
    feed = Feed(journal)
    await journal.open()
    plans, catalog = TablePlans(journal, feed), TableCatalog()

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        store = FolderArtifacts(folder, durable=False)
        await store.open()
        stack.push_async_callback(store.close)
        artifacts = Artifacts(store, limits, write_seconds=times.write)
        disconnects = await stack.enter_async_context(Disconnects(plans, seconds=times.disconnect))
        watches = Watches(limits, times)
        health = Health(Watches(limits, times))
        admission = Admission(limits, lambda: plans.delay)
        boundary = Boundary(
            clock=SystemClock(),
            timeout=timedelta(seconds=deadline),
            response_bytes=limits.response_bytes,
            admission=admission,
        )
        service = PlanService(
            plans=plans,
            journal=journal,
            feed=feed,
            watches=watches,
            disconnects=disconnects,
            artifacts=artifacts,
            admission=admission,
            limits=limits,
            about=About("1.2.3", "rules", ("b", "a")),
        )
        tools = ToolService(
            catalog=catalog,
            artifacts=artifacts,
            server_id=journal.journal_id,
            limits=limits,
            timeout=timedelta(seconds=30),
        )
        server = edge.build(plans=service, tools=tools, health=health, boundary=boundary, calls_per_connection=1000)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        health.set(serving=True)
        stack.push_async_callback(journal.close)
        stack.push_async_callback(server.stop, None)
        address = f"127.0.0.1:{port}"
        yield Edge(
            plans, catalog, journal, feed, health, boundary, watches, disconnects, artifacts, server, address, stack
        )


@pytest.fixture
async def served() -> AsyncIterator[Edge]:
    async with serving() as found:
        yield found


@dataclass(frozen=True)
class Refusal:
    """A refused call, its details unpacked."""

    code: grpc.StatusCode
    message: str
    info: error_details_pb2.ErrorInfo
    fields: dict[str, str]
    """Field to reason."""
    descriptions: list[str]
    retry: float | None
    quota: str
    size: int


def refusal(raised: grpc.aio.AioRpcError) -> Refusal:
    """Unpack the details of a refused call."""
    raw = dict(raised.trailing_metadata() or ())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = Status.FromString(raw)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    has_retry = False

    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        has_retry = detail.Unpack(retry) or has_retry
        detail.Unpack(quota)

    assert status.message == raised.details()
    return Refusal(
        code=raised.code(),
        message=status.message,
        info=info,
        fields={violation.field: violation.reason for violation in bad.field_violations},
        descriptions=[violation.description for violation in bad.field_violations],
        retry=retry.retry_delay.ToTimedelta().total_seconds() if has_retry else None,
        quota=quota.violations[0].subject if quota.violations else "",
        size=len(raw),
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a server does by itself, within the test's time limit."""
    while not condition():  # noqa: ASYNC110 - it has no event to tell
        await asyncio.sleep(0.01)
