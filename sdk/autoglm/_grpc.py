"""What both clients know of gRPC: addresses, channel options, and the way from a status to an error."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]

from autoglm._version import __version__
from autoglm.errors import FAMILIES, STATUSES, AutoglmError, InvalidRequestError
from autoglm.model import DOMAIN, ErrorReason, Violation

_Options: TypeAlias = tuple[tuple[str, str | int], ...]

_DETAILS_KEY = "grpc-status-details-bin"
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$")
_PORT = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")
_SCHEMES = ("dns:", "ipv4:", "ipv6:")

_SERVICE_CONFIG = '{"loadBalancingConfig":[{"round_robin":{}}]}'

_OPTIONS: _Options = (
    ("grpc.primary_user_agent", f"autoglm-python/{__version__}"),
    # Every channel has a connection of its own. Watches must not share that of calls: a server bounds the streams of a
    # connection, and one above the bound waits without a word. Nor must a new client wait where another one's attempts to
    # connect failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", _SERVICE_CONFIG),
    # ping_timeout is the one that works; keepalive_timeout alone notices a frozen peer after a minute (grpc#39239).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that restarts is found again quickly; grpc's own bound is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 4 << 20),
)


def target(address: str) -> str:
    """Check an address and give it as gRPC wants it: ``host:port``, ``[::1]:port``, or ``unix:///path``.

    Raises:
        InvalidRequestError: it is neither; the message says what to write.
    """
    if address.startswith("unix:///") and len(address) > len("unix:///"):
        return address

    rest = address

    for scheme in _SCHEMES:
        rest = rest.removeprefix(scheme)

    found = _PORT.fullmatch(rest.rpartition("/")[2] if address.startswith("dns:") else rest)

    if found and 0 < int(found[1]) <= 65535:
        return address

    hint = "without a scheme" if "://" in address else "with a port from 1 to 65535"
    description = (
        f"{address!r} is no address; write host:port {hint}, such as localhost:50051, or unix:///path/to/socket"
    )
    raise InvalidRequestError.of([Violation("address", description, "ADDRESS")])


def options(address: str) -> _Options:
    """Give the options of a channel to ``address``."""
    # A proxy of the environment cannot reach this machine's own ports.
    return (*_OPTIONS, ("grpc.enable_http_proxy", 0)) if _LOOPBACK.match(address) else _OPTIONS


def health_check(channel: Any) -> Any:
    """Give the method ``Health/Check`` of a channel, of either kind."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def health_watch(channel: Any) -> Any:
    """Give the method ``Health/Watch`` of a channel, of either kind."""
    return channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )


def health_request() -> Any:
    """Ask for the health of the server as a whole."""
    return health_pb2.HealthCheckRequest(service="")


def health_name(response: Any) -> str:
    """Give the state of a server by name: ``SERVING``, ``NOT_SERVING``, …."""
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def serving(address: str, *, timeout: float) -> str:
    """Ask the server at ``address`` for its health, within ``timeout`` seconds; ``""`` if none answers.

    Blocks; for a thread, or a synchronous caller.
    """
    with grpc.insecure_channel(address, options=options(address)) as channel:
        try:
            return health_name(health_check(channel)(health_request(), timeout=timeout))
        except grpc.RpcError:
            return ""


def translate(failed: grpc.RpcError, address: str) -> AutoglmError:
    """Make the typed error of a failed call.

    The reason and all details come from google.rpc details, if the server sent any; the class from the reason, else
    from the status. Without details the reason is the status's name.
    """
    call: Any = failed  # RpcError is a bare class; what is raised is always a Call as well
    status_name = status(failed)
    text = str(call.details() or "")
    details = _Details(call.trailing_metadata())
    reason = details.reason or status_name
    family = STATUSES.get(status_name, AutoglmError)

    if details.domain == DOMAIN and details.reason in ErrorReason.__members__:
        family = FAMILIES.get(ErrorReason[details.reason], family)

    if not details.reason and status_name == "UNAVAILABLE":
        text = (
            f"Cannot reach the server at {address}: {text or 'no connection'}. Check that it runs (autoglm serve), and "
            f"that the address is right (--address, AUTOGLM_ADDRESS)."
        )
    elif not details.reason and status_name == "DEADLINE_EXCEEDED":
        text = f"The server at {address} did not answer in time: {text}. Give the call a longer timeout."

    return family(
        text or status_name,
        reason=reason,
        violations=details.violations,
        retry_after=details.retry_after,
        metadata=details.metadata,
        domain=details.domain or DOMAIN,
    )


def status(failed: grpc.RpcError) -> str:
    """Give the status of a failed call by name."""
    call: Any = failed
    return str(call.code().name)


def frozen(address: str, seconds: float) -> AutoglmError:
    """Make the error of a stream that gave nothing for too long."""
    return STATUSES["UNAVAILABLE"](
        f"The server at {address} sent nothing for {seconds:g} s, not even a heartbeat; taken for dead.",
        reason="UNAVAILABLE",
    )


def damaged(address: str) -> AutoglmError:
    """Make the error of a stream that brought what was not sent."""
    return STATUSES["UNAVAILABLE"](
        f"What came from the server at {address} is not what it sent: the checksum of the stream differs. Something on the way "
        f"damages bytes (then go through TLS), or the server is too old to send checksums.",
        reason="UNAVAILABLE",
    )


def unreadable(address: str) -> AutoglmError:
    """Make the error of an answer that is no message."""
    return STATUSES["INTERNAL"](
        f"The answer of the server at {address} cannot be read; what became of the call is unknown.", reason="INTERNAL"
    )


class _Details:
    """What the trailing metadata of a failed call say."""

    def __init__(self, trailing: Any) -> None:
        self.reason = ""
        self.domain = ""
        self.metadata: dict[str, str] = {}
        self.violations: tuple[Violation, ...] = ()
        self.retry_after: timedelta | None = None

        for key, value in trailing or ():
            if key == _DETAILS_KEY:
                self._read(value)

    def _read(self, data: bytes) -> None:
        try:
            details = status_pb2.Status.FromString(data).details

            for detail in details:
                self._take(detail)
        except DecodeError:
            return  # not what we know; the status alone must do

    def _take(self, detail: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        quota = error_details_pb2.QuotaFailure()

        if detail.Unpack(info):
            self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
        elif detail.Unpack(bad):
            faults = bad.field_violations
            self.violations += tuple(Violation(fault.field, fault.description, fault.reason) for fault in faults)
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.ToTimedelta()
        elif detail.Unpack(quota):
            limits = quota.violations
            self.violations += tuple(Violation(limit.subject, limit.description, "QUOTA") for limit in limits)
