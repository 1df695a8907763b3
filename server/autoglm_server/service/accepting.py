"""Takes up many calls of a method at once.

The transport, as it comes, asks for one call of a method at a time, and needs five passes of the loop from one to the next:
under load callers wait there, where nothing tells of them, and each costs all of these passes. Here the methods that are called
often are asked for many times at once, under spare names beside their own; what comes then is taken up in the same passes.

A call that is refused at once is not handed on at all: the server answers it where it is taken up, without the two tasks, the
context and the wait for its end that every other call costs.

What this uses of grpcio is not public. Where it is not there, calls are taken up one by one, and refused behind (docs/adr/0097).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

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
POSSIBLE: Final = all(
    hasattr(cygrpc.AioServer, name) for name in ("_make_request_call_future", "_request_registered_call")
) and all(
    hasattr(cygrpc, f"{name}Operation")
    for name in ("SendInitialMetadata", "SendStatusFromServer", "ReceiveCloseOnServer")
)
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


class Refused(NamedTuple):
    """A status without an answer."""

    code: int
    message: str
    trailing: tuple[tuple[str, bytes], ...]


Refuse: TypeAlias = Callable[[str], Refused | None]
"""Says whether the call of a method that has just come is refused. A method may be asked about again behind the door."""


def server(
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    options: Sequence[tuple[str, int]],
    refuse: Refuse = lambda _method: None,
) -> grpc.aio.Server:
    """Make a server; it has no port and is not started. ``refuse`` is asked of methods that are called often, if possible."""
    if not POSSIBLE:
        return grpc.aio.server(interceptors=interceptors, options=options)

    return _Server(interceptors, options, refuse)


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """The transport's server, which asks for a method's next call under its own name when it would under a spare one."""

    refuse: Refuse

    def __init__(self, loop: asyncio.AbstractEventLoop, *rest: Any) -> None:
        super().__init__(loop, *rest)
        self._on = loop
        self._refusing: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        if method is None:
            future: asyncio.Future[Any] = super()._make_request_call_future(None)
            return future

        return self._on.create_task(self._welcome(method.partition(_SPARE.encode())[0]))

    async def _welcome(self, method: bytes) -> Any:
        """Give the method's next call that is not refused."""
        name = method.decode()

        while True:
            call = await self._request_registered_call(method)
            if (refused := self._refused(name)) is None:
                return call

            task = self._on.create_task(_answer(call, refused, self._on))
            self._refusing.add(task)
            task.add_done_callback(self._refusing.discard)
            del call  # the transport keeps a call for as long as anybody knows it

    def _refused(self, method: str) -> Refused | None:
        try:
            return self.refuse(method)
        except Exception:  # noqa: BLE001 - it would end the server; asked again behind the door, it fails that call alone
            return None


async def _answer(call: Any, refused: Refused, loop: asyncio.AbstractEventLoop) -> None:
    """End a call with a status, in one go: whether it was read or its caller has gone makes no difference."""
    status = cygrpc.SendStatusFromServerOperation(refused.trailing, refused.code, refused.message, 0)
    steps = cygrpc.SendInitialMetadataOperation((), 0), status, cygrpc.ReceiveCloseOnServerOperation(0)

    with suppress(cygrpc.ExecuteBatchError):
        await cygrpc.execute_batch(call, steps, loop)


class _Server(grpc.aio._server.Server):  # type: ignore[misc,name-defined]  # noqa: SLF001 - see the module's docstring
    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, int]],
        refuse: Refuse,
    ) -> None:
        """As :func:`grpc.aio.server`, around another core."""
        self._loop = cygrpc.get_working_loop()
        self._server = _Accepting(self._loop, None, (), tuple(interceptors), tuple(options), None)
        self._server.refuse = refuse
