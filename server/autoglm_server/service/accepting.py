"""Takes up many calls of a method at once.

The transport, as it comes, asks for one call of a method at a time, and needs five passes of the loop from one to the next:
under load callers wait there, where nothing tells of them, and each costs all of these passes. Here the methods that are called
often are asked for many times at once, under spare names beside their own; what comes then is taken up in the same passes.

The one method of grpcio that this overrides is not public. Where it is not there, calls are taken up one by one (docs/adr/0097).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from autoglm._ids import new_id

if TYPE_CHECKING:
    import asyncio

AT_ONCE: Final[Mapping[str, int]] = {
    "/autoglm.v1.PlanService/CreatePlan": 16,
    "/autoglm.v1.PlanService/RunPlan": 8,
    "/autoglm.v1.PlanService/GetPlan": 4,
    "/autoglm.v1.PlanService/WatchPlan": 4,
    "/autoglm.v1.ToolService/CallTool": 4,
}
"""How many calls of a method are asked for at once; of all methods that are not named here one together. Each costs every
call a little, as the transport looks through all that it asks for."""
POSSIBLE: Final = hasattr(cygrpc.AioServer, "_make_request_call_future")
_SPARE: Final = f"\x01{new_id()}."
"""Stands between a method and the number of a spare name. Nobody can guess it: who called a spare name would wait for ever."""


def method_of(name: str) -> str:
    """Give the method that was called, whichever name it was taken up under."""
    return name.partition(_SPARE)[0]


def add(server: grpc.aio.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
    """Let the server serve a service's methods."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
    names = {name: AT_ONCE.get(f"/{service}/{name}", 0) for name in handlers}
    often = {name: handlers[name] for name, count in names.items() if count}
    if POSSIBLE:
        often |= {
            f"{name}{_SPARE}{number}": handlers[name] for name, count in names.items() for number in range(1, count)
        }

    if often:
        server.add_registered_method_handlers(service, often)


def server(interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
    """Make a server; it has no port and is not started."""
    return _Server(interceptors, options) if POSSIBLE else grpc.aio.server(interceptors=interceptors, options=options)


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """The transport's server, which asks for a method's next call under its own name when it would under a spare one."""

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        real = method and method.partition(_SPARE.encode())[0]
        future: asyncio.Future[Any] = super()._make_request_call_future(real)
        return future


class _Server(grpc.aio._server.Server):  # type: ignore[misc,name-defined]  # noqa: SLF001 - see the module's docstring
    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor], options: Sequence[tuple[str, int]]) -> None:
        """As :func:`grpc.aio.server`, around another core."""
        self._loop = cygrpc.get_working_loop()
        self._server = _Accepting(self._loop, None, (), tuple(interceptors), tuple(options), None)
