"""What a refused call raises: one class for each family of reasons, the same on both sides of the wire.

::

    AutoglmError
    ├── InvalidRequestError     INVALID_ARGUMENT     a field is wrong; ``violations`` lists every fault at once
    ├── NotFoundError           NOT_FOUND            no such plan, step or tool
    ├── ConflictError           ALREADY_EXISTS       the request_id was used with other content
    ├── PreconditionError       FAILED_PRECONDITION  the state does not allow it
    ├── CompactedError          OUT_OF_RANGE         the events asked for are no longer kept
    ├── AbortedError            ABORTED              something changed in between; look again
    ├── LimitError              RESOURCE_EXHAUSTED   a limit stands in the way; ``retry_after`` may say until when
    ├── UnavailableError        UNAVAILABLE          the server cannot be reached or is going away
    ├── DeadlineError           DEADLINE_EXCEEDED    the call took longer than its deadline
    ├── UnimplementedError      UNIMPLEMENTED        the server does not have this method
    ├── InternalError           INTERNAL             a bug in the server; the message carries an id for its log
    ├── PermissionDeniedError   PERMISSION_DENIED    the caller may not do this
    ├── UnauthenticatedError    UNAUTHENTICATED      the caller is not known
    ├── SequenceGapError        (client)             a watch skipped a sequence: a bug, never to be ignored
    ├── ResultTimeoutError      (client)             ``result(timeout=…)`` ran out; the plan goes on
    ├── ToolFailedError         (client)             a tool that was called directly failed; ``failure`` says how
    └── PlanEndedError          (client)             the plan did not succeed; ``plan`` is the finished plan
        ├── PlanFailedError
        └── PlanCancelledError

``FAMILIES`` is the one table: the service looks up the status of a reason in it, the SDK the class.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from autoglm.model import DOMAIN, ErrorReason, Failure, Plan, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta


class AutoglmError(Exception):
    """The root of everything the SDK and the server raise on purpose.

    ``reason`` is the machine-readable cause (a name of :class:`~autoglm.model.ErrorReason`, or another domain's own),
    ``violations`` every fault of the request, ``retry_after`` when trying again may help, ``metadata`` details by name.
    """

    status: ClassVar[str] = "UNKNOWN"
    """The gRPC status this family travels with, by name."""

    def __init__(
        self,
        message: str,
        *,
        reason: ErrorReason | str = ErrorReason.UNSPECIFIED,
        violations: Iterable[Violation] = (),
        retry_after: timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
        domain: str = DOMAIN,
    ) -> None:
        """Make an error; ``message`` is a sentence for a person that names the value and the fix."""
        super().__init__(message)
        self.message = message
        self.reason = reason.name if isinstance(reason, ErrorReason) else reason
        self.violations = tuple(violations)
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})
        self.domain = domain

    def to_failure(self, *, retryable: bool = False) -> Failure:
        """Give the same as data."""
        return Failure(
            reason=self.reason,
            domain=self.domain,
            message=self.message,
            retryable=retryable,
            retry_after=self.retry_after,
            metadata=self.metadata,
            violations=self.violations,
        )


class InvalidRequestError(AutoglmError):
    """A field of the request is wrong; ``violations`` lists every fault at once."""

    status = "INVALID_ARGUMENT"

    @classmethod
    def of(cls, violations: Iterable[Violation]) -> InvalidRequestError:
        """Make the error that says all ``violations`` in its message too."""
        violations = tuple(violations)
        told = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations[:5])
        more = f"; and {len(violations) - 5} more" if len(violations) > 5 else ""
        return cls(told + more, reason=ErrorReason.INVALID_REQUEST, violations=violations)


class NotFoundError(AutoglmError):
    """No such plan, step, tool or file."""

    status = "NOT_FOUND"


class ConflictError(AutoglmError):
    """The ``request_id`` was used with other content."""

    status = "ALREADY_EXISTS"


class PreconditionError(AutoglmError):
    """The state does not allow it."""

    status = "FAILED_PRECONDITION"


class CompactedError(AutoglmError):
    """The events asked for are no longer kept; read the plan with GetPlan and watch from its sequence."""

    status = "OUT_OF_RANGE"


class AbortedError(AutoglmError):
    """Something changed in between; look again and decide anew."""

    status = "ABORTED"


class LimitError(AutoglmError):
    """A limit stands in the way; ``retry_after`` may say when to try again."""

    status = "RESOURCE_EXHAUSTED"


class UnavailableError(AutoglmError):
    """The server cannot be reached or is going away; trying again later may help."""

    status = "UNAVAILABLE"


class DeadlineError(AutoglmError):
    """The call took longer than its deadline; whether it was carried out is not known."""

    status = "DEADLINE_EXCEEDED"


class UnimplementedError(AutoglmError):
    """The server does not have this method."""

    status = "UNIMPLEMENTED"


class InternalError(AutoglmError):
    """A bug in the server; the message carries an id to look up in its log."""

    status = "INTERNAL"


class PermissionDeniedError(AutoglmError):
    """The caller may not do this."""

    status = "PERMISSION_DENIED"


class UnauthenticatedError(AutoglmError):
    """The caller is not known."""

    status = "UNAUTHENTICATED"


class SequenceGapError(AutoglmError):
    """A watch skipped a sequence: a bug of the server, never to be ignored."""


class ResultTimeoutError(AutoglmError):
    """``result(timeout=…)`` ran out. The plan goes on."""


class ToolFailedError(AutoglmError):
    """A tool that was called directly failed; ``failure`` is what it said."""

    def __init__(self, tool: str, failure: Failure) -> None:
        """Tell of the ``failure`` of ``tool``."""
        super().__init__(
            f"{tool}: {failure.message or failure.reason}",
            reason=failure.reason,
            violations=failure.violations,
            retry_after=failure.retry_after,
            metadata=failure.metadata,
            domain=failure.domain,
        )
        self.tool = tool
        self.failure = failure


class PlanEndedError(AutoglmError):
    """The plan ended without success; ``plan`` is the finished plan."""

    def __init__(self, plan: Plan, why: str = "") -> None:
        """Tell of the end of ``plan``; ``why`` is for one that ended without a failure."""
        failure = plan.failure
        ended = f"plan {plan.id} ended {plan.state.name}" + (f": {why}" if why else "")
        super().__init__(
            failure.message if failure else ended,
            reason=failure.reason if failure else plan.state.name,
            violations=failure.violations if failure else (),
            domain=failure.domain if failure else DOMAIN,
        )
        self.plan = plan


class PlanFailedError(PlanEndedError):
    """The plan failed."""


class PlanCancelledError(PlanEndedError):
    """The plan was cancelled; ``cancel_reason`` is what was said of why, as far as that is known."""

    def __init__(self, plan: Plan, cancel_reason: str = "") -> None:
        """Tell of the end of ``plan``."""
        super().__init__(plan, cancel_reason)
        self.cancel_reason = cancel_reason


_R = ErrorReason

FAMILIES: Mapping[ErrorReason, type[AutoglmError]] = MappingProxyType(
    {
        _R.PLAN_NOT_FOUND: NotFoundError,
        _R.STEP_NOT_FOUND: NotFoundError,
        _R.TOOL_NOT_FOUND: NotFoundError,
        _R.INVALID_REQUEST: InvalidRequestError,
        _R.DECISION_NOT_ALLOWED: InvalidRequestError,
        _R.REQUEST_ID_CONFLICT: ConflictError,
        _R.SEQUENCE_AHEAD: PreconditionError,
        _R.JOURNAL_CHANGED: PreconditionError,
        _R.STEP_NOT_WAITING: PreconditionError,
        _R.STEP_ALREADY_RESOLVED: PreconditionError,
        _R.APPROVAL_REQUIRED: PreconditionError,
        _R.TOOL_CHANGED: PreconditionError,
        _R.ROUTE_LOOP: PreconditionError,
        _R.SEQUENCE_COMPACTED: CompactedError,
        _R.WAIT_CHANGED: AbortedError,
        _R.JOURNAL_FULL: LimitError,
        _R.RESPONSE_TOO_LARGE: LimitError,
        _R.TOO_MANY_PLANS: LimitError,
        _R.TOO_MANY_WATCHES: LimitError,
        _R.WATCH_ENDED: UnavailableError,
        _R.SERVER_DRAINING: UnavailableError,
        _R.DEADLINE_EXCEEDED: DeadlineError,
        _R.UNIMPLEMENTED: UnimplementedError,
        _R.INTERNAL: InternalError,
        _R.ARTIFACT_NOT_FOUND: NotFoundError,
        _R.TOO_MANY_CALLS: LimitError,
        _R.JOURNAL_DAMAGED: PreconditionError,
    },
)
"""Which class, and so which gRPC status, each reason of a refused call belongs to."""

STATUSES: Mapping[str, type[AutoglmError]] = MappingProxyType(
    {
        family.status: family
        for family in (
            InvalidRequestError,
            NotFoundError,
            ConflictError,
            PreconditionError,
            CompactedError,
            AbortedError,
            LimitError,
            UnavailableError,
            DeadlineError,
            UnimplementedError,
            InternalError,
            PermissionDeniedError,
            UnauthenticatedError,
        )
    },
)
"""The class of a gRPC status that carries no reason we know."""


def error(reason: ErrorReason, message: str, *, retry_after: timedelta | None = None, **metadata: str) -> AutoglmError:
    """Make the error of ``reason``'s family."""
    return FAMILIES[reason](message, reason=reason, retry_after=retry_after, metadata=metadata)
