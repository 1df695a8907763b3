"""What the status of a failed RPC means for a call of a tool: its failure, by the tool's effect.

Only what was refused before anything was sent, or what the other side says with details of its own, has a known outcome.
A bare UNAVAILABLE may be the peer's, a proxy's or our own transport's, before or after the work was done.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import grpc

from autoglm import _grpc
from autoglm.model import DOMAIN, Effect, ErrorReason, Failure
from autoglm_server.tools.failures import MESSAGE_MAX, one_line

# gRPC's own words for a call that was given no connection. Another wording is taken as unknown, which is only careful.
_NOT_SENT: Final = (
    "connections to all backends failing",
    "failed to connect to all addresses",
    "DNS resolution failed",
    "empty address list",
)
_TOO_LARGE: Final = "Received message larger than max"
_TOO_LARGE_TO_SEND: Final = "Sent message larger than max"

# The other side says that it refused the call as it is.
_REFUSED: Final = frozenset(
    {
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)
# The other side says that it did not do it for now.
_LATER: Final = frozenset({"ABORTED", "RESOURCE_EXHAUSTED"})


def not_sent(failed: grpc.RpcError) -> bool:
    """Whether a call failed before anything of it left this process."""
    return _grpc.status(failed) == "UNAVAILABLE" and any(words in _text(failed) for words in _NOT_SENT)


def failure_of(failed: grpc.RpcError, tool: str, effect: Effect, *, timeout: float) -> Failure:
    """Give the failure of a call that was sent; ``tool`` is its name for people, ``timeout`` what it was given, in s."""
    status, text = _grpc.status(failed), _text(failed)
    told = _grpc.translate(failed, tool)
    repeatable = effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
    stated = told.reason != status
    lost = Failure(
        told.reason if stated else ErrorReason.CONNECTION_LOST.name,
        (told.domain or tool) if stated else DOMAIN,
        one_line(f"{tool}: the connection was lost in the middle of the call: {text or status}", MESSAGE_MAX),
        retryable=repeatable,
        outcome_unknown=True,
        retry_after=told.retry_after,
        metadata=told.metadata,
    )
    own = dataclasses.replace(
        lost,
        reason=told.reason,
        domain=told.domain if stated else tool,
        message=one_line(f"{tool}: {status}: {text}" if text else f"{tool}: {status}", MESSAGE_MAX),
        retryable=False,
        outcome_unknown=False,
        violations=told.violations,
    )

    match status:
        case "RESOURCE_EXHAUSTED" if _TOO_LARGE in text:
            message = f"{tool} ended, but its output cannot be used: {_first(text)}"
            return Failure(ErrorReason.OUTPUT_TOO_LARGE.name, DOMAIN, message)

        case "RESOURCE_EXHAUSTED" if _TOO_LARGE_TO_SEND in text:
            return Failure(ErrorReason.INVALID_ARGUMENTS.name, DOMAIN, f"{tool} was not called: {_first(text)}")

        case "DEADLINE_EXCEEDED":
            message = f"{tool} took longer than its limit of {timeout:g} s"
            return dataclasses.replace(lost, reason=ErrorReason.STEP_TIMEOUT.name, domain=DOMAIN, message=message)

        case _ if status in _REFUSED:
            return own

        case _ if status in _LATER:
            return dataclasses.replace(own, retryable=repeatable or told.retry_after is not None)

        case "UNAVAILABLE" | "CANCELLED":
            return lost

        case _:  # UNKNOWN, INTERNAL, DATA_LOSS: it broke, at an end or on the way, and nobody says how far it had come
            reason, domain = (told.reason, told.domain) if stated else (ErrorReason.TOOL_ERROR.name, DOMAIN)
            return dataclasses.replace(own, reason=reason, domain=domain, retryable=repeatable, outcome_unknown=True)


def _text(failed: grpc.RpcError) -> str:
    call: Any = failed
    return str(call.details() or "")


def _first(text: str) -> str:
    return one_line(text, 200)
