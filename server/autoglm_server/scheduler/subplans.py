"""``plan.run``: a tool whose call is a plan of its own, a sub-plan of the plan whose step calls it.

The sub-plan is a plan like any other: it has a log, is watched, listed, cancelled and decided for by its own id. The step that
calls the tool names it in ``step_started`` before it is made, so that an attempt after a crash takes the same one up. The call
waits for its end, tells what happens in it as progress, and stops it when the call is to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from autoglm import wire
from autoglm.errors import AutoglmError, CompactedError, InvalidRequestError
from autoglm.model import (
    DOMAIN,
    CreatePlanRequest,
    Effect,
    ErrorReason,
    Event,
    Failure,
    JsonObject,
    Plan,
    PlanState,
    RetryPolicy,
    StepRef,
    Tool,
    ToolResult,
    Usage,
    Violation,
)
from autoglm_server.scheduler.nested import Nested
from autoglm_server.tools.references import Path, invalid_arguments
from autoglm_server.tools.tool import PLAN_RUN, AbandonedError, Invocation, ToolCallError

if TYPE_CHECKING:
    from autoglm_server.journal.follow import Cursor

PROVIDER: Final = "plan"
_STEP_TIMEOUT: Final = timedelta(hours=24)
_STEPS_MAX: Final = 1_000
_WAIT_SECONDS: Final = 60.0
_TEXT_MAX: Final = 64 << 10

_DURATION: Final = {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?s$", "description": "Seconds, as `30s`."}
_GLOBS: Final = {"type": "array", "maxItems": 100, "items": {"type": "string", "pattern": "^[A-Za-z0-9_.*?-]{1,128}$"}}


def _count(most: int, description: str) -> JsonObject:
    return {"type": "integer", "minimum": 1, "maximum": most, "description": description}


_RETRY_POLICY: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": 100},
        "initial_backoff": _DURATION,
        "max_backoff": _DURATION,
        "backoff_multiplier": {"type": "number", "minimum": 1, "maximum": 100},
    },
}
_STEP: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "tool"],
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 64},
        "title": {"type": "string", "maxLength": 256},
        "tool": {"type": "string", "minLength": 1, "maxLength": 128},
        "arguments": {
            "type": "object",
            "description": "May refer to other steps of the sub-plan, written as `$${step.path}`.",
        },
        "depends_on": {"type": "array", "items": {"type": "string", "maxLength": 64}, "maxItems": _STEPS_MAX},
        "retry_policy": _RETRY_POLICY,
        "timeout": _DURATION,
        "requires_approval": {"type": "boolean"},
    },
}
_BUDGET: Final = {
    "type": "object",
    "additionalProperties": False,
    "description": "What it may use; never more than what is left to the plan that calls it.",
    "properties": {
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_tool_calls": {"type": "integer", "minimum": 1},
        "max_rounds": {"type": "integer", "minimum": 1},
        "max_duration": _DURATION,
    },
}
_OPTIONS: Final[Mapping[str, Any]] = {
    "max_steps": _count(1_000, "The most steps its planner may add."),
    "max_rounds": _count(100, "The most rounds of its planner."),
    "max_parallel_steps": _count(1_000, "The most of its calls under way at once."),
    "timeout": _DURATION,
    "planner": {"type": "string", "maxLength": 64, "description": "The planner; else that of the plan that calls it."},
    "model": {"type": "string", "maxLength": 256},
    "enable_tool_call": {"type": "boolean", "description": "Whether its planner may make steps."},
    "allowed_tools": {**_GLOBS, "description": "The tools it may use, of those the plan that calls it may use."},
    "approval_tools": {**_GLOBS, "description": "Tools whose calls a person must approve, besides those of that plan."},
    "budget": _BUDGET,
}
INPUT: Final[JsonObject] = {
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["request"]}, {"required": ["steps"]}],
    "properties": {
        "request": {"type": "string", "minLength": 1, "maxLength": _TEXT_MAX, "description": "What it is to do."},
        "steps": {"type": "array", "minItems": 1, "maxItems": _STEPS_MAX, "items": _STEP},
        **_OPTIONS,
    },
}
OUTPUT: Final[JsonObject] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["plan_id", "state", "answer", "output"],
    "properties": {
        "plan_id": {"type": "string"},
        "state": {"type": "string"},
        "answer": {"type": "string"},
        "output": {},
    },
}
TOOL: Final = Tool(
    name="run",
    title="Run a sub-plan",
    description=(
        "Run a plan of its own for a part of the work, and give its answer and output. Give it a request in words, or steps. "
        "It may use only the tools this plan may use, and what it uses counts to this plan's budget."
    ),
    input_schema=wire.canonical_json(INPUT),
    output_schema=wire.canonical_json(OUTPUT),
    effect=Effect.IDEMPOTENT,
    timeout=_STEP_TIMEOUT,
    retry_policy=RetryPolicy(max_attempts=1),
    tags=("plan",),
    available=True,
)


class SubPlanPort(Protocol):
    """What the tool asks of the scheduler."""

    async def begin_child(self, parent: StepRef, plan_id: str, request: CreatePlanRequest) -> None:
        """Make the sub-plan, durable when this returns; one that is there is taken up.

        Raises:
            AutoglmError: it cannot be made.
        """
        ...

    def stop_child(self, parent: StepRef, plan_id: str) -> bool:
        """Ask the sub-plan to stop; False if it is only this process that ends, and the plans go on in another."""
        ...

    async def has_child(self, plan_id: str) -> bool:
        """Say whether there is such a sub-plan; of one that is being made, when that is known."""
        ...

    def child_used(self, parent: StepRef, usage: Usage) -> None:
        """Take in what the sub-plan has used by now."""
        ...

    def follow_child(self, plan_id: str) -> Cursor:
        """Give a cursor at the start of the sub-plan's log."""
        ...

    async def get(self, plan_id: str) -> Plan:
        """Give the sub-plan as it is."""
        ...


class SubPlans:
    """The provider of ``plan.run``. It has no tool until a scheduler is bound that lets plans nest."""

    def __init__(self) -> None:
        """Begin without a scheduler, which needs the catalog of this provider's tools first."""
        self._port: SubPlanPort | None = None
        self._tools: Sequence[Tool] = ()

    @property
    def name(self) -> str:
        """What stands before the tool's own name."""
        return PROVIDER

    @property
    def unchanging(self) -> bool:
        """Whether it has the tools that it will have."""
        return self._port is not None

    def bind(self, port: SubPlanPort, *, depth: int) -> None:
        """Run sub-plans by ``port``, nested at most ``depth`` deep; 0 is none at all."""
        self._port = port
        self._tools = (TOOL,) if depth > 0 else ()

    async def start(self) -> None:
        """There is nothing to get ready."""

    async def stop(self) -> None:
        """There is nothing to let go of."""

    def tools(self) -> Sequence[Tool]:
        """Give the tool."""
        return self._tools

    async def call(self, invocation: Invocation) -> ToolResult:
        """Run a sub-plan to its end.

        Raises:
            ToolCallError: SUB_PLAN_FAILED, or it could not be made.
            AbandonedError: it was told to stop, and has not ended yet.
        """
        plan_id = invocation.child_plan_id
        if self._port is None or not plan_id:
            message = f"{PLAN_RUN} is called by the steps of plans alone; to run a plan of its own, create it as one"
            raise ToolCallError(Failure(ErrorReason.UNIMPLEMENTED.name, DOMAIN, message))

        parent = StepRef(invocation.context.plan_id, invocation.context.step_id)
        request = read_request(invocation.arguments, invocation.idempotency_key)
        call = _Call(self._port, parent, plan_id, invocation)
        try:
            await call.begin(request)
            return result_of(await call.end())
        except asyncio.CancelledError:
            if not self._port.stop_child(parent, plan_id):
                raise

        try:
            plan = await call.end() if await self._port.has_child(plan_id) else None
        except asyncio.CancelledError:
            raise AbandonedError from None

        if plan is None or plan.state is PlanState.CANCELLED:
            raise asyncio.CancelledError

        return result_of(plan)


class _Call:
    """One call: begins the sub-plan, or takes it up, and follows it to its end."""

    def __init__(self, port: SubPlanPort, parent: StepRef, plan_id: str, invocation: Invocation) -> None:
        self._port = port
        self._parent = parent
        self._plan_id = plan_id
        self._invocation = invocation

    async def begin(self, request: CreatePlanRequest) -> None:
        try:
            await self._port.begin_child(self._parent, self._plan_id, request)
        except InvalidRequestError as error:
            raise ToolCallError(invalid_arguments([_as_argument(fault) for fault in error.violations])) from None
        except AutoglmError as error:
            retryable = error.reason in (ErrorReason.TOO_MANY_PLANS.name, ErrorReason.JOURNAL_FULL.name)
            failure = Failure(error.reason, DOMAIN, error.message, retryable, retry_after=error.retry_after)
            raise ToolCallError(failure) from None

    async def end(self) -> Plan:
        """Follow it to its end, and tell of every event."""
        nested = Nested(self._plan_id)
        cursor = self._port.follow_child(self._plan_id)
        try:
            while not nested.fold.state.terminal:
                batch = await cursor.next(_WAIT_SECONDS)
                for body in batch.bodies:
                    nested.apply(wire.decode(Event, body))

                if batch.bodies:
                    self._port.child_used(self._parent, nested.fold.usage)
                    self._invocation.report(nested.progress())
                elif batch.drained:
                    await asyncio.get_running_loop().create_future()  # until this process lets go
        except CompactedError:
            plan = await self._port.get(self._plan_id)
            self._port.child_used(self._parent, plan.usage or Usage())
            return plan
        finally:
            cursor.close()

        return nested.fold.basic()


def times_read(arguments: JsonObject, path: Path) -> int | None:
    """Say how many plans deep a place in the arguments is an argument of a step, whose references are read there.

    None where the steps themselves are written: what a tool gave fills arguments, and never becomes a step or names a tool.
    """
    times = 0
    while path[:1] == ("steps",):
        if len(path) < 3:
            return None

        step, (member, *rest) = arguments["steps"][path[1]], path[2:]
        if member == "title":
            return times

        if member != "arguments":
            return None

        times += 1
        if step.get("tool") != PLAN_RUN:
            return times

        if not rest:
            return None

        arguments, path = step["arguments"], tuple(rest)

    return times


def read_request(arguments: JsonObject, key: str) -> CreatePlanRequest:
    """Read the arguments of a call as the request for the sub-plan; ``key`` is what makes it once.

    Raises:
        ToolCallError: INVALID_ARGUMENTS, with every fault.
    """
    told = {name: value for name, value in arguments.items() if name not in _OPTIONS}
    options = {name: value for name, value in arguments.items() if name in _OPTIONS}
    try:
        return wire.from_json(CreatePlanRequest, {**told, "request_id": key, "options": options})
    except InvalidRequestError as error:
        raise ToolCallError(invalid_arguments([_as_argument(fault) for fault in error.violations])) from None


def _as_argument(fault: Violation) -> Violation:
    """Name the place of a fault as the tool's arguments do, which have the options beside the request."""
    return Violation(f"arguments.{fault.field.removeprefix('options.')}", fault.description, fault.reason)


def result_of(plan: Plan) -> ToolResult:
    """Give what a sub-plan that has ended comes to.

    Raises:
        ToolCallError: SUB_PLAN_FAILED.
    """
    if plan.state is PlanState.SUCCEEDED:
        output = {"plan_id": plan.id, "state": plan.state.name, "answer": plan.answer, "output": plan.output}
        return ToolResult(output, usage=plan.usage)

    failure = plan.failure
    reason = failure.reason if failure is not None else plan.state.name
    why = failure.message if failure is not None else f"it was {plan.state.name.lower()}"
    message = f"sub-plan {plan.id} {'failed' if failure is not None else 'did not end'}: {why}"
    metadata = {"plan_id": plan.id, "reason": reason}
    raise ToolCallError(Failure(ErrorReason.SUB_PLAN_FAILED.name, DOMAIN, message, metadata=metadata))
