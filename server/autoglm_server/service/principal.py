"""Who calls: the one door through which identities will come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc.aio


def principal_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:  # noqa: ARG001 - the credential will be in it
    """Name the caller. Empty: there is no authentication yet, and nothing a caller says of itself counts."""
    return ""
