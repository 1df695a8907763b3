"""Health by the standard protocol: for the whole server, and for each of its services.

Also the sign of an attached client: who uses an embedded server keeps a Watch open.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from autoglm.errors import NotFoundError
from autoglm_server.service.watch import Watches, draining

if TYPE_CHECKING:
    import grpc.aio

SERVICES: Final = ("", "autoglm.v1.PlanService", "autoglm.v1.ToolService")
"""Who has a health; the empty name is the whole server."""

_Status = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """One state for all services: this server serves all of them or none."""

    def __init__(self, watches: Watches) -> None:
        """Begin NOT_SERVING; ``watches`` bounds the open streams."""
        self._watches = watches
        self._serving = False
        self._draining = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether calls are welcome."""
        return self._serving and not self._draining

    def set(self, *, serving: bool) -> None:
        """Say whether calls are welcome; after :meth:`drain` they are not, whatever is said."""
        self._serving = serving
        self._tell()

    def drain(self) -> None:
        """Say for good that calls are not welcome, and end all watches."""
        self._draining = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _state(self) -> health_pb2.HealthCheckResponse:
        return _Status(status=_Status.SERVING if self.serving else _Status.NOT_SERVING)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Say how a service is."""
        if request.service not in SERVICES:
            known = ", ".join(name for name in SERVICES if name)
            raise NotFoundError(
                f"there is no service {request.service[:128]!r}; there are {known}", reason="SERVICE_NOT_FOUND"
            )

        return self._state()

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        """Say how all services are."""
        return health_pb2.HealthListResponse(statuses={name: self._state() for name in SERVICES})

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Say how a service is, now and whenever it changes."""
        with self._watches.admit(context.peer()):
            if request.service not in SERVICES:
                await context.write(_Status(status=_Status.SERVICE_UNKNOWN))

            told: health_pb2.HealthCheckResponse | None = None

            while True:
                changed = self._changed

                if request.service in SERVICES and (state := self._state()) != told:
                    await context.write(state)
                    told = state

                if self._draining:
                    raise draining({})

                await changed.wait()
