"""Requests that are made again and again, but for their request_id: checked and read once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from autoglm._dataclasses import maker
from autoglm.model import CreatePlanRequest
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.bounds import PRINTABLE, REQUEST_ID_MAX

if TYPE_CHECKING:
    from autoglm_server.settings import LimitSettings

REQUESTS_MAX: Final = 256
"""How many requests are known."""
BYTES_MAX: Final = 4096
"""A larger one is not kept: there are few alike."""
STEPS_MAX: Final = 64
"""One of more steps is not kept either, and not even written to see how large it is: that would take milliseconds of the loop."""


class Asked:
    """Sound requests by their bytes without the request_id, each with its digest. What was asked alike is the same object."""

    def __init__(self, limits: LimitSettings) -> None:
        """Begin with none; what ``limits`` may refuse is not kept."""
        self._room = min(BYTES_MAX, limits.request_bytes - REQUEST_ID_MAX - 8)
        self._known: dict[bytes, tuple[CreatePlanRequest, str]] = {}
        self._make = maker(CreatePlanRequest)

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    def content(self, message: pb.CreatePlanRequest | pb.RunPlanRequest) -> bytes:
        """Give what a request is known by; empty if it is not kept: RunPlan's, or it makes nothing, has no digest or is large."""
        request_id = message.request_id
        if not request_id or type(message) is not pb.CreatePlanRequest or message.validate_only:
            return b""

        if len(message.steps) > STEPS_MAX:
            return b""

        message.request_id = ""
        content = message.SerializeToString()
        message.request_id = request_id
        return content if len(content) <= self._room else b""

    def find(self, content: bytes, request_id: str) -> tuple[CreatePlanRequest, str] | None:
        """Give a request and its digest, if one like it is known and its request_id is sound."""
        known = self._known.get(content)
        if known is None or len(request_id) > REQUEST_ID_MAX or not PRINTABLE.fullmatch(request_id):
            return None

        like, digest = known
        request = self._make(
            like.request, like.steps, like.options, like.labels, request_id, like.context_id, like.context
        )
        return request, digest

    def keep(self, content: bytes, request: CreatePlanRequest, digest: str) -> None:
        """Keep a request that was found sound."""
        if content:
            if len(self._known) >= REQUESTS_MAX:
                self._known.clear()

            self._known[content] = request, digest
