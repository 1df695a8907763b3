"""The one table from our errors to what travels: google.rpc.Status with its details, small enough to arrive.

gRPC carries a status in the trailers, which are dropped, code and all, when they are larger than about 8 KB. So a
status is kept below :data:`STATUS_BYTES_MAX`, and says how much was left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from autoglm.model import ErrorReason

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from autoglm.errors import AutoglmError

STATUS_BYTES_MAX: Final = 3500
"""The largest encoded Status. Base64 and its message, which travels a second time, take it to less than 8 KB."""
MESSAGE_BYTES_MAX: Final = 900
"""The longest message; it is percent-encoded on the wire, three bytes for one at worst."""
VALUE_BYTES_MAX: Final = 200
METADATA_MAX: Final = 8

_QUOTAS: Final = {
    # the setting, if the error does not name it itself
    ErrorReason.TOO_MANY_PLANS.name: "limits.open_plans",
    ErrorReason.TOO_MANY_WATCHES.name: "limits.watches",
    ErrorReason.TOO_MANY_CALLS.name: "limits",
}

DETAILS_KEY: Final = "grpc-status-details-bin"


def code_of(error: AutoglmError) -> grpc.StatusCode:
    """Give the gRPC status of an error's family."""
    return grpc.StatusCode[error.status]


def to_status(error: AutoglmError) -> Status:
    """Give the error as google.rpc.Status: ErrorInfo always, RetryInfo, QuotaFailure and BadRequest if they apply."""
    code: int = code_of(error).value[0]
    status = Status(code=code, message=shorten(error.message, MESSAGE_BYTES_MAX))
    _add(status, _error_info(error))

    if error.retry_after is not None:
        _add(status, error_details_pb2.RetryInfo(retry_delay=_duration(error)))

    if limit := _QUOTAS.get(error.reason):
        limit = error.metadata.get("setting", limit)
        most = error.metadata.get("limit")
        description = f"at most {most} ({limit})" if most else f"more than {limit} allows"
        _add(status, error_details_pb2.QuotaFailure(violations=[{"subject": limit, "description": description}]))

    if error.violations:
        _add(status, _bad_request(error, STATUS_BYTES_MAX - status.ByteSize() - 64))

    return status


def trailing(status: Status) -> tuple[tuple[str, bytes], ...]:
    """Give the metadata that carries a status's details."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def shorten(text: str, most: int) -> str:
    """Cut a text to ``most`` bytes of UTF-8, between characters, and show that it was cut."""
    raw = text.encode("utf-8", "replace")

    if len(raw) <= most:
        return text

    return raw[: most - 3].decode("utf-8", "ignore") + "…"


def _add(status: Status, detail: Message) -> None:
    packed = Any()
    packed.Pack(detail)
    status.details.append(packed)


def _error_info(error: AutoglmError) -> error_details_pb2.ErrorInfo:
    metadata = {key[:64]: shorten(value, VALUE_BYTES_MAX) for key, value in list(error.metadata.items())[:METADATA_MAX]}
    return error_details_pb2.ErrorInfo(reason=error.reason, domain=error.domain, metadata=metadata)


def _duration(error: AutoglmError) -> Duration:
    duration = Duration()
    duration.FromTimedelta(error.retry_after)  # type: ignore[arg-type]
    return duration


def _bad_request(error: AutoglmError, room: int) -> error_details_pb2.BadRequest:
    """Give as many violations as there is room for; the last one says how many more there are."""
    bad = error_details_pb2.BadRequest()

    for index, violation in enumerate(error.violations):
        bad.field_violations.add(
            field=shorten(violation.field, VALUE_BYTES_MAX),
            description=shorten(violation.description, 2 * VALUE_BYTES_MAX),
            reason=shorten(violation.reason, 63),
        )

        if bad.ByteSize() > room - 64:
            del bad.field_violations[-1]
            left = len(error.violations) - index
            bad.field_violations.add(field="", description=f"and {left} more; mend these first", reason="MORE")
            break

    return bad
