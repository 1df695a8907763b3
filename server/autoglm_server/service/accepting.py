"""Takes up many calls of a method at once.

The transport, as it comes, asks for one call of a method at a time, and needs five passes of the loop from one to the next:
under load callers wait there, where nothing tells of them, and each costs all of these passes, and a look at every method that
is asked for. Here the methods that are called often are asked for many times at once, beside the transport's own loop, and what
comes is handed to the method's handler directly; or refused on the spot, without any of what every other call costs.

What this uses of grpcio is not public. Where it is not there, calls are taken up one by one (docs/adr/0097).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine

AT_ONCE: Final[Mapping[str, int]] = {
    "/autoglm.v1.PlanService/CreatePlan": 16,
    "/autoglm.v1.PlanService/RunPlan": 8,
    "/autoglm.v1.PlanService/GetPlan": 4,
    "/autoglm.v1.PlanService/WatchPlan": 4,
    "/autoglm.v1.ToolService/CallTool": 4,
}
"""How many calls of a method are asked for at once; of all methods that are not named here one together."""
_HANDLING: Final = {
    (False, False): "_handle_unary_unary_rpc",
    (False, True): "_handle_unary_stream_rpc",
    (True, False): "_handle_stream_unary_rpc",
    (True, True): "_handle_stream_stream_rpc",
}
"""Who of the transport runs a handler, by whether requests and answers are streams."""
POSSIBLE: Final = all(
    hasattr(cygrpc.AioServer, name) for name in ("_make_request_call_future", "_request_registered_call", "is_running")
) and all(
    hasattr(cygrpc, name)
    for name in (
        *_HANDLING.values(),
        "_schedule_rpc_coro",
        "_RequestCallError",
        "SendInitialMetadataOperation",
        "SendStatusFromServerOperation",
        "ReceiveCloseOnServerOperation",
    )
)


class Refused(NamedTuple):
    """A status without an answer."""

    code: int
    message: str
    trailing: tuple[tuple[str, bytes], ...]


class Door(Protocol):
    """What every call comes through; besides, the interceptor of those calls that the transport takes up itself."""

    def refuse(self, method: str) -> Refused | None:
        """Say whether the call of a method that has just come is refused; never raises."""
        ...

    def guard(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """Give the handler of a method as it is run for all calls."""
        ...

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Do both, for one call."""
        ...


def add(server: grpc.aio.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
    """Let the server serve a service's methods."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
    if often := {name: handler for name, handler in handlers.items() if f"/{service}/{name}" in AT_ONCE}:
        server.add_registered_method_handlers(service, often)


def server(door: Door, options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
    """Make a server; it has no port and is not started."""
    interceptor: Any = door
    if not POSSIBLE:
        return grpc.aio.server(interceptors=(interceptor,), options=options)

    return _Server(door, options)


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """The transport's server, whose loop never sees the calls of methods that are called often: they are taken up beside it."""

    door: Door

    def __init__(self, loop: asyncio.AbstractEventLoop, *rest: Any) -> None:
        super().__init__(loop, *rest)
        self._on = loop
        self._often: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def add_registered_method_handlers(self, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        super().add_registered_method_handlers(handlers)
        self._often |= handlers

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Give the transport's loop what it waits for, once for each method when it starts."""
        if method is None:
            future: asyncio.Future[Any] = super()._make_request_call_future(None)
            return future

        never: asyncio.Future[Any] = self._on.create_future()

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (fault := task.exception()) is not None and not never.done():
                never.set_exception(fault)  # it ends the server, as a fault of the transport's own loop does

        for _ in range(AT_ONCE[method.decode()]):
            self._start(self._take_up(method.decode(), method)).add_done_callback(ended)

        return never

    async def _take_up(self, method: str, name: bytes) -> None:
        """Take up one call of a method after the other, until the server stops."""
        handler = self.door.guard(method, self._often[method])
        handle = getattr(cygrpc, _HANDLING[bool(handler.request_streaming), bool(handler.response_streaming)])
        loop, refuse, schedule = self._on, self.door.refuse, cygrpc._schedule_rpc_coro  # noqa: SLF001

        while True:
            try:
                call = await self._request_registered_call(name)
            except cygrpc._RequestCallError:  # noqa: SLF001
                if self.is_running():
                    continue

                return

            if (refused := refuse(method)) is None:
                work = schedule(handle(handler, call, loop), call, loop, method)
            else:
                work = _answer(call, refused, loop)

            _ = self._start(work)
            del call, work  # the transport keeps a call for as long as anybody knows it

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._on.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


async def _answer(call: Any, refused: Refused, loop: asyncio.AbstractEventLoop) -> None:
    """End a call with a status, in one go: whether it was read or its caller has gone makes no difference."""
    status = cygrpc.SendStatusFromServerOperation(refused.trailing, refused.code, refused.message, 0)
    steps = cygrpc.SendInitialMetadataOperation((), 0), status, cygrpc.ReceiveCloseOnServerOperation(0)

    with suppress(cygrpc.ExecuteBatchError):
        await cygrpc.execute_batch(call, steps, loop)


class _Server(grpc.aio._server.Server):  # type: ignore[misc,name-defined]  # noqa: SLF001 - see the module's docstring
    def __init__(self, door: Door, options: Sequence[tuple[str, int]]) -> None:
        """As :func:`grpc.aio.server`, around another core."""
        self._loop = cygrpc.get_working_loop()
        self._server = _Accepting(self._loop, None, (), (door,), tuple(options), None)
        self._server.door = door
