"""What a request that came to nothing, or an answer that says no, means for a call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from autoglm.model import DOMAIN, Effect, ErrorReason, Failure
from autoglm_server.tools.http.errors import GarbledError, HttpError, LostError, RefusedError, TooLargeError

_RETRY_AFTER_MAX = timedelta(hours=1)
_EXCERPT_MAX = 300

_REASONS = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "CONFLICT",
    412: "PRECONDITION_FAILED",
    429: "RATE_LIMITED",
}


def failure_of(error: HttpError, tool: str, effect: Effect) -> Failure:
    """Give the failure of a call whose request came to nothing."""
    repeatable = effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
    match error:
        case RefusedError():
            return Failure("REFUSED", tool, str(error))
        case LostError():
            reason = ErrorReason.CONNECTION_LOST.name
            return Failure(reason, DOMAIN, str(error), retryable=repeatable, outcome_unknown=True)
        case TooLargeError():
            return Failure(ErrorReason.OUTPUT_TOO_LARGE.name, DOMAIN, f"{tool} ended, but {error}")
        case GarbledError():
            return Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, f"{tool} ended, but {error}")
        case _:
            # Nothing was sent, so another attempt is safe whatever the effect.
            return Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, str(error), retryable=True)


def refused_status(status: int, retry_after: timedelta | None, told: str, tool: str, effect: Effect) -> Failure:
    """Give the failure of a call that was answered with a status of 300 or above.

    A 429 or 503 that says when to come back was not carried out. 502 and 504 come from a gateway that does not know what
    became of the request.
    """
    repeatable = effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
    asked_back = status in (429, 503) and retry_after is not None
    message = f"the service answered {status}"
    excerpt = told.strip()[:_EXCERPT_MAX]
    return Failure(
        _REASONS.get(status, f"HTTP_{status}"),
        tool,
        f"{message}: {excerpt}" if excerpt else message,
        retryable=asked_back or (repeatable and (status >= 500 or status in (408, 425, 429))),
        outcome_unknown=status in (502, 504),
        retry_after=retry_after if asked_back else None,
        metadata={"status": str(status)},
    )


def retry_after(value: str, date: str) -> timedelta | None:
    """Read a ``Retry-After``: seconds, or a time, which counts from the answer's own ``Date``; at most an hour."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = int(text[:9])
        return min(timedelta(seconds=seconds), _RETRY_AFTER_MAX)

    then, now = _time(text), _time(date)
    if then is None or now is None:
        return None

    return min(max(then - now, timedelta(0)), _RETRY_AFTER_MAX)


def _time(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None

    return time if time.tzinfo else time.replace(tzinfo=UTC)
