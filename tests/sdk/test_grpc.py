"""Addresses, and the way from a status with details to an error."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

import autoglm
from autoglm import _grpc, errors
from autoglm.model import ErrorReason


class Refused(grpc.RpcError):
    """What a call raises, as far as it is looked at."""

    def __init__(self, status: grpc.StatusCode, trailing: Any, text: str = "said") -> None:
        super().__init__()
        self._status, self._trailing, self._text = status, trailing, text

    def code(self) -> grpc.StatusCode:
        return self._status

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return self._trailing


def detailed(*details: Any) -> list[tuple[str, bytes]]:
    status = status_pb2.Status(code=3, message="said")

    for detail in details:
        status.details.add().Pack(detail)

    return [("other", b"x"), ("grpc-status-details-bin", status.SerializeToString())]


@pytest.mark.parametrize("reason", sorted(errors.FAMILIES))
def test_each_reason_gives_its_family(reason: ErrorReason) -> None:
    family = errors.FAMILIES[reason]
    info = error_details_pb2.ErrorInfo(reason=reason.name, domain="autoglm", metadata={"plan_id": "p"})
    error = _grpc.translate(Refused(grpc.StatusCode[family.status], detailed(info)), "there:1")

    assert type(error) is family
    assert (error.reason, error.message, error.metadata) == (reason.name, "said", {"plan_id": "p"})


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
def test_each_status_without_details_gives_a_class(status: grpc.StatusCode) -> None:
    error = _grpc.translate(Refused(status, None), "there:1")

    assert type(error) is errors.STATUSES.get(status.name, errors.AutoglmError)
    assert error.reason == status.name
    assert "said" in error.message


def test_all_details_are_read() -> None:
    faults = [error_details_pb2.BadRequest.FieldViolation(field="a", description="b", reason="C")]
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromTimedelta(timedelta(seconds=2))
    quota = error_details_pb2.QuotaFailure(
        violations=[error_details_pb2.QuotaFailure.Violation(subject="limits.open_plans", description="10 of 10")]
    )
    trailing = detailed(error_details_pb2.BadRequest(field_violations=faults), retry, quota)
    error = _grpc.translate(Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, trailing), "there:1")

    assert error.retry_after == timedelta(seconds=2)
    assert error.violations == (
        autoglm.Violation("a", "b", "C"),
        autoglm.Violation("limits.open_plans", "10 of 10", "QUOTA"),
    )


@given(st.binary(max_size=100))
def test_details_that_are_none_leave_the_status(data: bytes) -> None:
    error = _grpc.translate(Refused(grpc.StatusCode.NOT_FOUND, [("grpc-status-details-bin", data)]), "there:1")

    assert type(error) is errors.NotFoundError


@pytest.mark.parametrize(
    "address", ["localhost:50051", "a.b-c:1", "[::1]:65535", "unix:///run/x.sock", "dns:///a.b:443", "ipv4:127.0.0.1:1"]
)
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert _grpc.target(address) == address


@pytest.mark.parametrize(
    "address", ["localhost", "http://a:1", "a:0", "a:65536", "a:b", ":1", "unix:///", "a b:1", "::1:50051", "a:1/x", ""]
)
def test_what_is_no_address_is_told_with_what_to_write(address: str) -> None:
    with pytest.raises(autoglm.InvalidRequestError, match="localhost:50051"):
        _grpc.target(address)


def test_a_proxy_is_not_asked_for_this_machine() -> None:
    assert ("grpc.enable_http_proxy", 0) in _grpc.options("127.0.0.1:1")
    assert ("grpc.enable_http_proxy", 0) not in _grpc.options("far.away:1")
