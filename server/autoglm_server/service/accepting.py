"""Takes up many calls of a method at once.

The transport, as it comes, asks for one call of a method at a time, and needs five passes of the loop from one to the next:
under load callers wait there, where nothing tells of them, and each costs all of these passes, and a look at every method that
is asked for. Here the methods that are called often are asked for many times at once, beside the transport's own loop, and what
comes is handed to the method's handler directly; or refused on the spot, without any of what every other call costs. A call with
one answer is one task and two exchanges with the transport's core, where the transport's own is two tasks and three: whether its
caller has gone away is asked for only of those that take long.

What this uses of grpcio is not public. Where it is not there, calls are taken up one by one (docs/adr/0097).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

AT_ONCE: Final[Mapping[str, int]] = {
    "/autoglm.v1.PlanService/CreatePlan": 16,
    "/autoglm.v1.PlanService/RunPlan": 8,
    "/autoglm.v1.PlanService/GetPlan": 4,
    "/autoglm.v1.PlanService/WatchPlan": 4,
    "/autoglm.v1.ToolService/CallTool": 4,
}
"""How many calls of a method are asked for at once; of all methods that are not named here one together."""
_UNKNOWN: Final = 2
"""The transport's code of a fault that nobody expected."""
_log = logging.getLogger(__name__)
_PASSES: Final = 4
_PASS_SECONDS: Final = 0.005
"""So many passes of the loop, each no sooner than this, the core has to say that a call's time is over."""
WATCH_SECONDS: Final = 1.0
"""What has not been answered by then is watched: whether its caller has gone away, which cancels it."""
_TRANSPORT: Final[Any] = getattr(getattr(grpc.aio, "_server", None), "Server", object)
POSSIBLE: Final = (
    _TRANSPORT is not object
    and all(
        hasattr(cygrpc.AioServer, name)
        for name in ("_make_request_call_future", "_request_registered_call", "is_running")
    )
    and all(
        hasattr(cygrpc, name)
        for name in (
            "_handle_unary_stream_rpc",
            "_receive_message",
            "_schedule_rpc_coro",
            "_RequestCallError",
            "_ServicerContext",
            "execute_batch",
            "ExecuteBatchError",
            "get_working_loop",
            "SendInitialMetadataOperation",
            "SendMessageOperation",
            "SendStatusFromServerOperation",
            "ReceiveCloseOnServerOperation",
        )
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
        """Give the handler of a method as it is run for all calls, from bytes to bytes."""
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
        self._unwatched: dict[asyncio.Task[Any], Any] = {}
        """Calls with one answer that are under way, by their tasks."""
        self._watched: set[asyncio.Task[Any]] = set()
        """Those of them of which it would be noticed if their callers went away."""
        self._armed = False
        self._stopped = False
        """Whether the core's server is gone, which then must not be called any more."""

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

    async def shutdown(self, grace: float | None) -> None:
        """Stop, as the transport does; calls that it cuts off are to end at once."""
        self._look()
        await super().shutdown(grace)
        self._stopped = True
        left, self._unwatched = (*self._unwatched, *self._watched), {}
        for task in left:
            if not task.cancelling():  # its watch may have done so, and a second time would cut off how it ends
                task.cancel()

    async def _take_up(self, method: str, name: bytes) -> None:
        """Take up one call of a method after the other, until the server stops."""
        handler = self.door.guard(method, self._often[method])
        loop, refuse, schedule = self._on, self.door.refuse, cygrpc._schedule_rpc_coro  # noqa: SLF001

        while True:
            try:
                call = await self._request_registered_call(name)
            except cygrpc._RequestCallError:  # noqa: SLF001
                if self.is_running():
                    continue

                return

            if (refused := refuse(method)) is not None:
                _ = self._start(_answer(call, refused, loop))
            elif handler.unary_unary:
                _ = loop.create_task(self._run(handler.unary_unary, call))
            else:
                stream = cygrpc._handle_unary_stream_rpc(handler, call, loop)  # noqa: SLF001
                _ = self._start(schedule(stream, call, loop, method))
                del stream

            del call  # the transport keeps a call for as long as anybody knows it

    async def _run(self, behaviour: Callable[[bytes, Any], Awaitable[bytes]], call: Any) -> None:
        """Read the request of a call, and answer it: all that the transport does for it, in one go."""
        loop, task = self._on, asyncio.current_task()
        assert task is not None
        self._unwatched[task] = call  # and so the task is known to somebody
        if not self._armed:
            self._armed = True
            loop.call_later(WATCH_SECONDS, self._look)

        steps: tuple[Any, ...] = ()
        try:
            raw = await cygrpc._receive_message(call, loop)  # noqa: SLF001
            if raw is None:  # its caller has gone away
                return

            context = cygrpc._ServicerContext(call, None, None, loop)  # noqa: SLF001
            if context.time_remaining() == 0:  # nobody would wait any more for what was made for it
                await self._let_it_end(task, call)

            answer = await behaviour(raw, context)
            status = cygrpc.SendStatusFromServerOperation((), 0, "", 0)
            steps = cygrpc.SendInitialMetadataOperation((), 0), cygrpc.SendMessageOperation(answer, 0), status
        except grpc.aio.AbortError as aborted:  # a status was sent
            aborted.__traceback__ = aborted.__context__ = None  # the call knows it, and would be known to itself
        except cygrpc.ExecuteBatchError:  # it could not be
            pass
        except asyncio.CancelledError:
            if task.cancelling():
                return  # a task that is cancelled keeps the exception, which knows the call, which would be known to itself
        except Exception:  # noqa: BLE001 - a boundary: the door lets none through, and each call is ended all the same
            _log.exception("call failed")
            status = cygrpc.SendStatusFromServerOperation((), _UNKNOWN, "a fault of the server's own", 0)
            steps = cygrpc.SendInitialMetadataOperation((), 0), status
        finally:
            watched = self._unwatched.pop(task, None) is None
            self._watched.discard(task)

        if not watched:
            steps = (*steps, cygrpc.ReceiveCloseOnServerOperation(0))

        if steps and not self._stopped:
            with suppress(cygrpc.ExecuteBatchError):
                await cygrpc.execute_batch(call, steps, loop)

    async def _let_it_end(self, task: asyncio.Task[Any], call: Any) -> None:
        """Have a call cancelled whose time is over, as it seems: it waited for the loop too long.

        It seems so by the wall clock, which somebody may have set. The core goes by a clock that nobody sets: if it says nothing
        for some passes of the loop, there is time left.
        """
        if self._unwatched.pop(task, None) is not None:
            self._begin_to_watch(task, call)

        for _ in range(_PASSES):
            await asyncio.sleep(_PASS_SECONDS)

    def _look(self) -> None:
        """Have those watched that are under way, and look again when others are."""
        self._armed = False
        unwatched, self._unwatched = self._unwatched, {}
        for task, call in unwatched.items():
            self._begin_to_watch(task, call)

    def _begin_to_watch(self, task: asyncio.Task[Any], call: Any) -> None:
        self._watched.add(task)
        _ = self._start(self._watch(task, call))

    async def _watch(self, task: asyncio.Task[Any], call: Any) -> None:
        """Cancel the task of a call when its caller goes away."""
        close = cygrpc.ReceiveCloseOnServerOperation(0)
        with suppress(cygrpc.ExecuteBatchError):
            await cygrpc.execute_batch(call, (close,), self._on)

        if task in self._watched and close.cancelled() and not task.cancelling():
            task.cancel()

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


class _Server(_TRANSPORT):  # type: ignore[misc]
    def __init__(self, door: Door, options: Sequence[tuple[str, int]]) -> None:
        """As :func:`grpc.aio.server`, around another core."""
        self._loop = cygrpc.get_working_loop()
        self._server = _Accepting(self._loop, None, (), (door,), tuple(options), None)
        self._server.door = door
