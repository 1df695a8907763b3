"""What clients ask and are answered, between values and messages: pure, and the same for both clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from autoglm import _ids, wire
from autoglm.errors import (
    InternalError,
    InvalidRequestError,
    PlanCancelledError,
    PlanFailedError,
    ResultTimeoutError,
)
from autoglm.model import (
    ContextItem,
    ContextMessage,
    CreatePlanRequest,
    ErrorReason,
    Event,
    JsonObject,
    Plan,
    PlanOptions,
    PlanState,
    PlanView,
    StepDraft,
    StepState,
    Violation,
    WaitingReason,
)

_R = TypeVar("_R")

_WAITS_TOLD: Final = 3
"""How many of the steps that wait an error tells of."""
_WAITS: Final = {
    WaitingReason.UNSPECIFIED: ("for a person", "Approve"),
    WaitingReason.APPROVAL: ("for approval", "Approve"),
    WaitingReason.OUTCOME_UNKNOWN: ("because its call may have taken effect", "Retry"),
    WaitingReason.TOOL_CHANGED: ("because its tool has changed", "Approve"),
}
"""Why a step waits, and the decision that lets it go on."""


def create_request(
    request: str | CreatePlanRequest,
    *,
    steps: Iterable[StepDraft],
    options: PlanOptions | None,
    labels: Mapping[str, str] | None,
    context_id: str,
    context: Iterable[ContextItem | ContextMessage | str],
    request_id: str,
    validate_only: bool,
) -> CreatePlanRequest:
    """Give what is asked for as one value; a ``request_id`` is made if none is given.

    Raises:
        InvalidRequestError: a whole request was given and something beside it.
    """
    if not isinstance(request, CreatePlanRequest):
        items = tuple(item if isinstance(item, ContextItem) else ContextItem(item) for item in context)
        request = CreatePlanRequest(
            request=request,
            steps=tuple(steps),
            options=options,
            labels=dict(labels or {}),
            request_id=request_id,
            context_id=context_id,
            context=items,
            validate_only=validate_only,
        )
    elif any((tuple(steps), options, labels, context_id, tuple(context), request_id)):
        fault = "is a whole CreatePlanRequest; say all in it, and nothing beside it"
        raise InvalidRequestError.of([Violation("request", fault, "CONFLICT")])

    request_id = "" if validate_only else request.request_id or _ids.new_id()
    return dataclasses.replace(request, request_id=request_id, validate_only=validate_only or request.validate_only)


def plan_options(
    options: PlanOptions | None, *, max_steps: int | None, enable_tool_call: bool | None
) -> PlanOptions | None:
    """Give the options with what was said beside them."""
    if max_steps is not None:
        options = dataclasses.replace(options or PlanOptions(), max_steps=max_steps)

    if enable_tool_call is not None:
        options = dataclasses.replace(options or PlanOptions(), enable_tool_call=enable_tool_call)

    return options


def to_message(value: object) -> Any:
    """Give the message of a value; what cannot be carried is the caller's fault."""
    try:
        return wire.to_message(value)
    except wire.WireError as error:
        raise InvalidRequestError.of(error.violations) from None


def to_struct(value: JsonObject) -> Any:
    """Give arguments as a message; raises as :func:`to_message`."""
    try:
        return wire.to_struct(value)
    except wire.WireError as error:
        raise InvalidRequestError.of(error.violations) from None


def from_message(message: Message, kind: type[_R]) -> _R:
    """Give the value of a message; what means nothing is the server's fault."""
    try:
        value: _R = wire.from_message(message)
    except wire.WireError as error:
        raise InternalError(f"The server's answer means nothing: {error}", reason=ErrorReason.INTERNAL) from error

    return value


def events_of(message: Any) -> tuple[Event, ...]:
    """Give the events of a message of a watch."""
    return tuple(from_message(event, Event) for event in message.events)


def number(member: PlanState | StepState | PlanView) -> Any:
    """Give an enum's number as the messages' types want it."""
    return int(member)


def timestamp(field: str, moment: datetime | None) -> Timestamp | None:
    """Give a time as a message.

    Raises:
        InvalidRequestError: it has no time zone.
    """
    if moment is None:
        return None

    if moment.tzinfo is None:
        fault = f"{moment.isoformat()} has no time zone; add one, such as tzinfo=datetime.UTC"
        raise InvalidRequestError.of([Violation(field, fault, "NO_TIME_ZONE")])

    message = Timestamp()
    message.FromDatetime(moment)
    return message


def finished(plan: Plan, cancel_reason: str = "") -> Plan:
    """Give a plan that succeeded; raise of one that did not."""
    if plan.state is PlanState.SUCCEEDED:
        return plan

    if plan.state is PlanState.FAILED:
        raise PlanFailedError(plan)

    if plan.state is PlanState.CANCELLED:
        raise PlanCancelledError(plan, cancel_reason)

    raise InternalError(
        f"The watch of plan {plan.id} ended while the plan is {plan.state.name}.", reason=ErrorReason.INTERNAL
    )


def timed_out(plan: Plan, timeout: float) -> ResultTimeoutError:
    """Say that a plan has not ended in time, and of steps that wait for a person how to decide."""
    told = f"The plan {plan.id} has not ended within {timeout:g} s; it goes on."
    waiting = [(step.id, step.waiting.reason) for step in plan.steps if step.waiting is not None]

    for step_id, reason in waiting[:_WAITS_TOLD]:
        why, decision = _WAITS.get(reason, _WAITS[WaitingReason.UNSPECIFIED])
        call = f"client.resolve({plan.id!r}, {step_id!r}, autoglm.Decision(autoglm.{decision}()))"
        command = f"autoglm resolve {plan.id} {step_id} --{decision.lower()}"
        told += f" Step {step_id} waits {why}: {call}, or `{command}`; autoglm.Reject() or --reject refuses it."

    if len(waiting) > _WAITS_TOLD:
        told += f" {len(waiting) - _WAITS_TOLD} more steps wait: `autoglm plans --state waiting` shows them."

    if not waiting:
        told += " Ask again, or cancel it."

    return ResultTimeoutError(told, metadata={"plan_id": plan.id})
