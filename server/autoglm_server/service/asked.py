"""Requests that are made again and again, but for their request_id: checked and read once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from autoglm.model import CreatePlanRequest
from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.bounds import PRINTABLE, REQUEST_ID_MAX

if TYPE_CHECKING:
    from autoglm_server.settings import LimitSettings

REQUESTS_MAX: Final = 256
"""How many requests are known."""
BYTES_MAX: Final = 4096
"""A larger one is not kept: there are few alike."""


class Asked:
    """Sound requests by their bytes without the request_id, each with its digest. What was asked alike is the same object."""

    def __init__(self, limits: LimitSettings) -> None:
        """Begin with none; what ``limits`` may refuse is not kept."""
        self._room = min(BYTES_MAX, limits.request_bytes - REQUEST_ID_MAX - 8)
        self._known: dict[bytes, tuple[CreatePlanRequest, str]] = {}

    def __len__(self) -> int:
        """How many are known."""
        return len(self._known)

    def find(self, message: pb.CreatePlanRequest | pb.RunPlanRequest) -> tuple[CreatePlanRequest, str] | None:
        """Give a request and its digest, if one like it is known and its request_id is sound."""
        request_id = message.request_id
        if not request_id or type(message) is not pb.CreatePlanRequest:
            return None

        message.request_id = ""
        known = self._known.get(message.SerializeToString())
        message.request_id = request_id
        if known is None or len(request_id) > REQUEST_ID_MAX or not PRINTABLE.fullmatch(request_id):
            return None

        like, digest = known
        request = CreatePlanRequest(
            like.request, like.steps, like.options, like.labels, request_id, like.context_id, like.context
        )
        return request, digest

    def keep(self, message: pb.CreatePlanRequest | pb.RunPlanRequest, request: CreatePlanRequest, digest: str) -> None:
        """Keep a request that was found sound, if it has a digest."""
        if not digest or type(message) is not pb.CreatePlanRequest or request.validate_only:
            return

        message.request_id = ""
        content = message.SerializeToString()
        message.request_id = request.request_id
        if len(content) > self._room:
            return

        if len(self._known) >= REQUESTS_MAX:
            self._known.clear()

        self._known[content] = request, digest
