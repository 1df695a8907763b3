"""PlanService: each method checks, hands over, and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from autoglm import wire
from autoglm._dataclasses import dataclass, maker
from autoglm._seal import Seal
from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, Plan, PlanState, Plugin, Violation
from autoglm.v1 import plan_pb2, plan_service_pb2_grpc
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.journal.journal import Journal, PlanPage, PlanQuery
from autoglm_server.service import pages, validate
from autoglm_server.service.admission import Kind
from autoglm_server.service.asked import Asked
from autoglm_server.service.bounds import VIOLATIONS_MAX
from autoglm_server.service.principal import principal_of
from autoglm_server.service.watch import check_journal

if TYPE_CHECKING:
    import grpc.aio

    from autoglm_server.service.admission import Admission
    from autoglm_server.service.artifacts import Artifacts
    from autoglm_server.service.ports import FollowPort, PlanPort, Submitted
    from autoglm_server.service.watch import Disconnects, Watches
    from autoglm_server.settings import LimitSettings

    _Context = grpc.aio.ServicerContext[Any, Any]

RAW_METHODS: Final = frozenset({"CreatePlan", "RunPlan", "WatchPlan", "WatchPlans"})
"""Methods that write bytes which are serialised already."""

OFF_LOOP_BYTES: Final = 64 << 10
"""A larger request is read in a thread: 10,000 steps take half a second, and the loop has other calls to serve."""

_make_request = maker(CreatePlanRequest)
_TOO_MUCH: Final = frozenset({"TOO_MANY", "TOO_DEEP"})

TENANT: Final = ""
"""The one tenant there is."""


@dataclass(frozen=True, slots=True)
class About:
    """What GetServerInfo tells."""

    version: str
    planner: str
    capabilities: tuple[str, ...]
    plugins: Callable[[], Sequence[Plugin]] = tuple


class PlanService(plan_service_pb2_grpc.PlanServiceServicer):
    """The edge of plans. It reads the journal, and hands over what callers ask for through one port."""

    def __init__(
        self,
        *,
        plans: PlanPort,
        journal: Journal,
        feed: FollowPort,
        watches: Watches,
        disconnects: Disconnects,
        artifacts: Artifacts,
        admission: Admission,
        limits: LimitSettings,
        about: About,
        kept: timedelta | None = None,
    ) -> None:
        """Join the pieces; none of them is owned. ``kept``: how long after its end a plan is there, None for good."""
        self._plans = plans
        self._journal = journal
        self._feed = feed
        self._watches = watches
        self._disconnects = disconnects
        self._artifacts = artifacts
        self._admission = admission
        self._limits = limits
        self._asked = Asked(limits)
        self._kept = kept
        self.about = about
        """What this server says of itself; it changes with the configuration."""

    async def CreatePlan(self, request: pb.CreatePlanRequest, context: _Context) -> bytes:  # type: ignore[override]
        """Accept a plan."""
        if (turn := self._admission.turn()) is not None:
            await turn

        made = await self._create(request, principal_of(context))
        # A plan that is made has its steps; too large for an answer, they are read with ListSteps.
        rest = made.rest if len(made.basic) + len(made.rest) + 16 <= self._limits.response_bytes else b""

        if made.existing:
            plan = self._expiring(plan_pb2.Plan.FromString(made.basic + rest))
            return pb.CreatePlanResponse(plan=plan, existing=True).SerializeToString()

        return wire.encode_created(made.basic, rest)

    async def RunPlan(self, request: pb.RunPlanRequest, context: _Context) -> None:  # type: ignore[override]
        """Accept a plan and send its events from the start."""
        with self._watches.admit(context.peer()):
            with self._admission.place(Kind.WRITE, context.peer()):
                if (turn := self._admission.turn()) is not None:
                    await turn

                plan_id = (await self._create(request, principal_of(context))).plan_id

            with self._disconnects.attached(plan_id, asked=request.cancel_on_disconnect):
                asked = pb.WatchPlanRequest(plan_id=plan_id, durable_only=request.durable_only)
                await self._stream(context, asked)

    async def GetPlan(self, request: pb.GetPlanRequest, context: _Context) -> pb.GetPlanResponse:
        """Give a snapshot."""
        accept(validate.get_plan(request))
        plan = await self._plans.get(request.plan_id)
        view = basic(plan) if request.view == pb.PLAN_VIEW_BASIC else plan
        return pb.GetPlanResponse(plan=self._message(view))

    async def ListPlans(self, request: pb.ListPlansRequest, context: _Context) -> pb.ListPlansResponse:
        """Give a page of plans."""
        accept(validate.list_plans(request, self._limits))
        page = await self._page(_query(request))
        plans = [self._expiring(plan_pb2.Plan.FromString(row.body)) for row in page.rows]
        return pb.ListPlansResponse(plans=plans, next_page_token=page.next_page_token)

    async def ListSteps(self, request: pb.ListStepsRequest, context: _Context) -> pb.ListStepsResponse:
        """Give a page of a plan's steps."""
        accept(validate.list_steps(request))
        filters = pages.filters_of(request)
        start = _index(pages.place_of(request.page_token, filters))
        plan = await self._plans.get(request.plan_id)
        steps, end = self._steps(plan, start, pages.page_size(request.page_size), frozenset(request.states))
        more = pages.token(str(end), filters) if end < len(plan.steps) else ""
        return pb.ListStepsResponse(steps=steps, next_page_token=more, sequence=plan.sequence)

    async def WatchPlan(self, request: pb.WatchPlanRequest, context: _Context) -> None:  # type: ignore[override]
        """Send a plan's events."""
        accept(validate.watch_plan(request))
        check_journal(request.journal_id, self._journal.journal_id)

        with self._watches.admit(context.peer()):
            await self._stream(context, request)

    async def WatchPlans(self, request: pb.WatchPlansRequest, context: _Context) -> None:  # type: ignore[override]
        """Send every plan's events."""
        accept(validate.watch_plans(request, self._limits))

        place, now, durable_only = request.cursor, request.from_now, request.durable_only
        labels = dict(request.labels)

        with self._watches.admit(context.peer()):
            cursor = self._feed.follow_all(place, from_now=now, labels=labels, durable_only=durable_only)
            seal = Seal.of_all(place, from_now=now, durable_only=durable_only, labels=labels)
            await self._watches.stream_all(context, cursor, start=place, seal=seal)

    async def CancelPlan(self, request: pb.CancelPlanRequest, context: _Context) -> pb.CancelPlanResponse:
        """Ask a plan to stop."""
        accept(validate.cancel_plan(request))
        plan = await self._plans.cancel(request.plan_id, reason=request.reason, principal=principal_of(context))
        return pb.CancelPlanResponse(plan=self._message(basic(plan)))

    async def ResolveStep(self, request: pb.ResolveStepRequest, context: _Context) -> pb.ResolveStepResponse:
        """Decide what a step waits for."""
        accept(validate.resolve_step(request, self._limits))
        plan = await self._plans.resolve(
            request.plan_id,
            request.step_id,
            wait_sequence=request.wait_sequence,
            decision=wire.from_message(request.decision),
            comment=request.comment,
            principal=principal_of(context),
        )
        return pb.ResolveStepResponse(plan=self._message(basic(plan)))

    async def ReadArtifact(self, request: pb.ReadArtifactRequest, context: _Context) -> None:  # type: ignore[override]
        """Send the content of a file that a result carries."""
        accept(validate.read_artifact(request))

        with self._artifacts.admit():
            plan = await self._plans.get(request.plan_id)
            await self._artifacts.stream(context, plan, request.digest, request.offset)

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: _Context) -> pb.GetServerInfoResponse:
        """Say what server this is."""
        return pb.GetServerInfoResponse(
            version=self.about.version,
            journal_id=self._journal.journal_id,
            capabilities=sorted(self.about.capabilities),
            planner=self.about.planner,
            plugins=[wire.to_message(plugin) for plugin in self.about.plugins()],  # type: ignore[misc]
        )

    def _message(self, plan: Plan) -> plan_pb2.Plan:
        message = wire.to_message(plan)
        assert isinstance(message, plan_pb2.Plan)
        return self._expiring(message)

    def _expiring(self, message: plan_pb2.Plan) -> plan_pb2.Plan:
        """Add when retention may remove the plan; it goes by the configuration, so no event and no snapshot holds it."""
        if self._kept is not None and message.HasField("end_time"):
            message.expire_time.CopyFrom(message.end_time)
            message.expire_time.seconds += int(self._kept.total_seconds())

        return message

    def _create(
        self, message: pb.CreatePlanRequest | pb.RunPlanRequest, principal: str
    ) -> Coroutine[Any, Any, Submitted]:
        """Check the shape of a request and hand it over; its meaning is checked there."""
        content = self._asked.content(message)
        found = self._asked.find(content, message.request_id)
        again = found is not None
        if found is None:
            if not content and message.ByteSize() > OFF_LOOP_BYTES:
                return self._create_large(message, principal)

            found = self._read(message, len(content))
            self._asked.keep(content, *found)

        request, digest = found
        return self._plans.submit(request, principal=principal, digest=digest, again=again)

    async def _create_large(self, message: pb.CreatePlanRequest | pb.RunPlanRequest, principal: str) -> Submitted:
        request, digest = await asyncio.to_thread(self._read, message)
        return await self._plans.submit(request, principal=principal, digest=digest)

    def _read(self, message: pb.CreatePlanRequest | pb.RunPlanRequest, size: int = 0) -> tuple[CreatePlanRequest, str]:
        """Give a request whose shape is sound, and its digest, as :func:`read_create`.

        Raises:
            InvalidRequestError: with every violation, of shape and of meaning.
        """
        try:
            return read_create(message, self._limits, size)
        except InvalidRequestError as refused:
            raise InvalidRequestError.of(self._all_faults(message, refused.violations)) from None

    def _all_faults(
        self, message: pb.CreatePlanRequest | pb.RunPlanRequest, shape: Sequence[Violation]
    ) -> Sequence[Violation]:
        """Add the faults of meaning to those of shape, so that a caller mends all at once.

        Of a field whose shape is wrong nothing more is said, nor of a request that is too much to be looked into.
        """
        if any(
            fault.reason == "TOO_LARGE" or (fault.reason in _TOO_MUCH and fault.field.startswith("steps"))
            for fault in shape
        ):
            return shape

        for draft in message.steps:  # what is too large is refused already, and would take longest to be looked into
            if draft.arguments.ByteSize() > self._limits.arguments:
                draft.ClearField("arguments")

        request = _readable(message)
        if request is None:
            return shape

        fields = [violation.field for violation in shape]
        meaning = islice(self._plans.check(request), VIOLATIONS_MAX)
        return [*shape, *(fault for fault in meaning if not any(_overlap(fault.field, field) for field in fields))]

    def _stream(self, context: _Context, asked: pb.WatchPlanRequest) -> Coroutine[Any, Any, None]:
        plan_id, after, durable_only = asked.plan_id, asked.after_sequence, asked.durable_only
        cursor = self._feed.follow(plan_id, after, durable_only=durable_only)
        seal = Seal.of_plan(plan_id, after, durable_only=durable_only, journal_id=asked.journal_id)
        journal_id = self._journal.journal_id
        return self._watches.stream_plan(context, cursor, after_sequence=after, journal_id=journal_id, seal=seal)

    async def _page(self, query: PlanQuery) -> PlanPage:
        """Read a page; of rows that are too large together, as many as fit."""
        try:
            page = await self._journal.list_rows(query)
            fits = _fitting((len(row.body) for row in page.rows), self._limits.response_bytes)

            if fits < len(page.rows):
                page = await self._journal.list_rows(replace(query, page_size=fits))
        except ValueError:
            raise pages.malformed() from None

        return page

    def _steps(self, plan: Plan, start: int, most: int, states: frozenset[int]) -> tuple[list[plan_pb2.Step], int]:
        """Give the steps from ``start`` that fit the filter and one answer, and where the next page begins."""
        found: list[plan_pb2.Step] = []
        size = 0

        for index, step in enumerate(plan.steps[start:], start):
            if states and step.state not in states:
                continue

            message = wire.to_message(step)
            size += message.ByteSize() + 8

            if len(found) == most or (found and size > self._limits.response_bytes - 1024):
                return found, index

            found.append(message)  # type: ignore[arg-type]

        return found, len(plan.steps)


def _overlap(one: str, other: str) -> bool:
    """Tell whether two fields are the same, or one is a part of the other."""
    whole, part = sorted((one, other), key=len)
    return part.startswith(whole) and (not whole or part[len(whole) :][:1] in ("", ".", "["))


def accept(violations: Sequence[Violation]) -> None:
    """Let a sound request pass.

    Raises:
        InvalidRequestError: with every violation.
    """
    if violations:
        raise InvalidRequestError.of(violations)


def read_create(
    message: pb.CreatePlanRequest | pb.RunPlanRequest, limits: LimitSettings, size: int = 0
) -> tuple[CreatePlanRequest, str]:
    """Give a request whose shape is sound, and, if it has a request_id, the digest to compare it by.

    ``size``, if it is known: how many bytes it has but for its request_id, which with it are not too many.

    Raises:
        InvalidRequestError: with every violation.
    """
    request = _readable(message) if size else None
    if request is None or not validate.plainly_sound(request, limits, size):
        accept(validate.create_plan(message, limits))
        request = request or create_request(message)

    return request, request_digest(request) if request.request_id else ""


def _readable(message: pb.CreatePlanRequest | pb.RunPlanRequest) -> CreatePlanRequest | None:
    """Give the request as a value, if it can be one: a number or duration that no value can hold is a fault of its shape."""
    try:
        return create_request(message)
    except (ValueError, OverflowError):
        return None


def create_request(message: pb.CreatePlanRequest | pb.RunPlanRequest) -> CreatePlanRequest:
    """Give the request as a value; RunPlanRequest has the same fields at the same numbers, and is never a dry run."""
    if isinstance(message, pb.CreatePlanRequest):
        request: CreatePlanRequest = wire.from_message(message)
        return request

    return replace(wire.decode(CreatePlanRequest, message.SerializeToString()), validate_only=False)


def request_digest(request: CreatePlanRequest) -> str:
    """Give the digest of what was asked, as it was sent: without the id and without defaults."""
    asked = _make_request(
        request.request, request.steps, request.options, request.labels, "", request.context_id, request.context
    )
    return wire.digest_text(wire.to_json(asked))


def basic(plan: Plan) -> Plan:
    """Give the plan in view BASIC."""
    return replace(plan, steps=(), rounds=(), context=())


def _query(request: pb.ListPlansRequest) -> PlanQuery:
    return PlanQuery(
        tenant=TENANT,
        states=frozenset(PlanState(state) for state in request.states),
        labels=dict(request.labels),
        context_id=request.context_id,
        parent_plan_id=request.parent_plan_id,
        created_after=wire.from_message(request.created_after) if request.HasField("created_after") else None,
        created_before=wire.from_message(request.created_before) if request.HasField("created_before") else None,
        page_size=pages.page_size(request.page_size),
        page_token=request.page_token,
    )


def _index(place: str) -> int:
    if place and not (place.isascii() and place.isdecimal() and len(place) < 10):
        raise pages.malformed()

    return int(place or 0)


def _fitting(sizes: Iterable[int], room: int) -> int:
    """Count how many of the first fit together; the first one always does."""
    used = count = 0

    for size in sizes:
        used += size + 8

        if count and used > room - 1024:
            break

        count += 1

    return count
