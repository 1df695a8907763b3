# Generated from _aio_link.py by sdk/unasync.py: never edit it here.
# fmt: off
# ruff: noqa: I001
"""The way to one server for the synchronous client: connections, calls, watches.

It is generated.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.message import DecodeError

from autoglm import _grpc, _watch
from autoglm._retry import Attempts
from autoglm._seal import Seal, SealBrokenError
from autoglm._stream import Reader, Turn, Closed
from autoglm.errors import AutoglmError, PreconditionError, UnavailableError
from autoglm.model import ErrorReason, Event
from autoglm.v1 import plan_service_pb2, plan_service_pb2_grpc, tool_service_pb2_grpc

if TYPE_CHECKING:
    from autoglm.v1.plan_service_pb2_grpc import PlanServiceStub
    from autoglm.v1.tool_service_pb2_grpc import ToolServiceStub

_ATTACH_ATTEMPTS_MAX = 3
_ATTACH_TIMEOUT = 5.0
_WATCHES_PER_CONNECTION = 100
_INFINITE = float("inf")


class Lane:
    """A connection for watches, and how many use it."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, options=_grpc.options(address))
        self.watches = 0
        # What these give is bytes: a seal is of the bytes, and grpc tells an unreadable message apart from an end in no way.
        self.watch_plan: Any = self.channel.unary_stream(
            "/autoglm.v1.PlanService/WatchPlan",
            request_serializer=plan_service_pb2.WatchPlanRequest.SerializeToString,
        )
        self.watch_plans: Any = self.channel.unary_stream(
            "/autoglm.v1.PlanService/WatchPlans",
            request_serializer=plan_service_pb2.WatchPlansRequest.SerializeToString,
        )


class Connection:
    """The channels to one address: one for calls, and others, each with its own connection, for watches."""

    plans: PlanServiceStub
    tools: ToolServiceStub

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address, options=_grpc.options(address))
        self.plans = plan_service_pb2_grpc.PlanServiceStub(self.channel)
        self.tools = tool_service_pb2_grpc.ToolServiceStub(self.channel)
        self.suspect = False
        self._attached: Any = None
        self._lanes: list[Lane] = []

    @property
    def lost(self) -> bool:
        """Whether the embedded server that we were attached to may be gone."""
        return self.gone or (self._attached is not None and self.suspect)

    @property
    def gone(self) -> bool:
        """Whether the embedded server has ended the stream that we hold."""
        return self._attached is not None and bool(self._attached.done())

    def attach(self) -> bool:
        """Hold a stream open, so that the embedded server stays; True once it has answered on it."""
        self._attached = _grpc.health_watch(self.channel)(_grpc.health_request())
        reader: Reader[Any] = Reader(self._attached)

        try:
            return reader.read(_ATTACH_TIMEOUT) is not None
        except (TimeoutError, grpc.RpcError):
            return False
        finally:
            reader.release()

    def enter_lane(self) -> Lane:
        """Give a connection that few watches use, for one more; who has it takes itself off its count at the end."""
        lane = next((lane for lane in self._lanes if lane.watches < _WATCHES_PER_CONNECTION), None)

        if lane is None:
            lane = Lane(self.address)
            self._lanes.append(lane)

        lane.watches += 1
        return lane

    def close(self) -> None:
        """End all that is under way."""
        if self._attached is not None:
            self._attached.cancel()

        for lane in self._lanes:
            lane.channel.close()

        self.channel.close()


class Link:
    """The way to one server: its address, found or given, the connection to it, and calls over that."""

    def __init__(self, address: str, timeout: float, find: Callable[[], str] | None) -> None:
        """Go to ``address``, or if that is empty to the embedded server, which ``find`` finds or starts."""
        self.timeout = timeout
        self.random = Random()
        self.closed = False
        self._address = address
        self._find = find
        self._connection: Connection | None = None
        self._turn = Turn()

    @property
    def address(self) -> str:
        """The server's address; of an embedded one empty until it is connected."""
        return self._connection.address if self._connection else self._address

    def close(self) -> None:
        """End all that is under way. May be called twice."""
        self.closed = True
        connection, self._connection = self._connection, None

        if connection is not None:
            connection.close()

    def connected(self) -> Connection:
        """Give the connection; the embedded server is looked for if it was never found, or may be gone."""
        connection = self._connection

        if connection is not None and not connection.lost:
            return connection

        self._turn.take(None)

        try:
            self._check_open()
            connection = self._connection

            if connection is None or connection.lost:
                connection = self._reconnect(connection)

                try:
                    self._check_open()
                except PreconditionError:
                    connection.close()
                    raise

                self._connection = connection

            return connection
        finally:
            self._turn.give()

    def _check_open(self) -> None:
        if self.closed:
            raise PreconditionError("The client is closed; make another.")

    def _reconnect(self, old: Connection | None) -> Connection:
        if self._find is None:
            return Connection(self._address)

        for _ in range(_ATTACH_ATTEMPTS_MAX):
            address = self._find()

            if old is not None and old.address == address and not old.gone:
                old.suspect = False  # its server is there, and others may have calls under way on it
                return old

            # A new one even if the address is the same: the old channels pause before they try to connect again.
            connection = Connection(address)

            if connection.attach():
                break

            connection.close()  # it was idle and went as we came
        else:
            raise UnavailableError("The embedded server went away each time it was found.", reason="UNAVAILABLE")

        if old is not None:
            old.close()

        return connection

    def call(
        self, method: Callable[[Connection], Callable[..., Any]], message: Any, *, repeatable: bool = True
    ) -> Any:
        """Make a unary call, again while that is safe and may help."""
        due = time.monotonic() + self.timeout
        attempts = Attempts(self.random, repeatable=repeatable)

        while True:
            connection = self.connected()

            try:
                answer = method(connection)(message, timeout=max(0.001, due - time.monotonic()))
            except grpc.RpcError as failure:
                error = self.failed(failure, connection)

            else:
                if answer is None:  # so gRPC gives an answer that it cannot read
                    raise _grpc.unreadable(connection.address)

                return answer

            time.sleep(attempts.pause(error, remaining=due - time.monotonic()))

    def failed(self, failure: grpc.RpcError, connection: Connection) -> AutoglmError:
        """Translate an error of a call; what cannot be reached is looked for again before the next."""
        error = _grpc.translate(failure, connection.address)

        if self.closed:
            return closed_meanwhile()

        if isinstance(error, UnavailableError) and error.reason != ErrorReason.WATCH_ENDED.name:
            connection.suspect = True

        return error


class Watch:
    """The events of a watch; iterate it. It opens its stream again by itself.

    It may be iterated by one thread at a time, and goes on where it was left. Left early, it is ended by :meth:`close`,
    or when nobody refers to it any more.
    """

    def __init__(
        self,
        link: Link,
        position: _watch.PlanPosition | _watch.AllPosition,
        open_stream: Callable[[Lane, _watch.OpenStream], tuple[Any, Seal]],
        batch: Callable[[bytes], _watch.Batch],
    ) -> None:
        """Begin at ``position``; clients make these. ``open_stream`` gives a call and its seal, ``batch`` reads a message."""
        self._link = link
        self._position = position
        self._flow = _watch.watch_flow(position, link.random)
        self._command: _watch.Command = next(self._flow)
        self._open_stream = open_stream
        self._batch = batch
        self._reader: Reader[bytes] | None = None
        self._seal = Seal(b"")
        self._connection: Connection | None = None
        self._lane: Lane | None = None
        self._events: deque[Event] = deque()
        self._ended = False
        self._cursor = position.cursor if isinstance(position, _watch.AllPosition) else ""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self.next()

        if event is None:
            raise StopIteration

        return event

    def __del__(self) -> None:
        if getattr(self, "_reader", None) is not None:
            self._drop()

    @property
    def cursor(self) -> str:
        """Of a watch of all plans: where to go on later. Nothing is missed; the newest events may come once more.

        It moves when the last event of a message has been handed out. Of a watch of one plan it is empty.
        """
        return self._cursor

    @property
    def journal_id(self) -> str:
        """Of a watch of one plan: the journal its sequences are of, once a message came. Else empty."""
        return self._position.journal_id if isinstance(self._position, _watch.PlanPosition) else ""

    def next(self, timeout: float | None = None) -> Event | None:
        """Give the next event, or None at the end.

        Raises:
            TimeoutError: there was none for ``timeout`` seconds; the next call goes on.

        >>> event = watch.next(timeout=5)  # doctest: +SKIP
        """
        due = _INFINITE if timeout is None else time.monotonic() + timeout

        while not self._events:
            if self._ended:
                return None

            self._go_on(due)

        event = self._events.popleft()
        self._advance()
        return event

    def close(self) -> None:
        """End the watch.

        >>> watch.close()  # doctest: +SKIP
        """
        self._ended = True
        self._events.clear()
        self._drop()

    def _go_on(self, due: float) -> None:
        """Do what the flow asks for, and tell it what came of it."""
        try:
            outcome = self._perform(due)
        except BaseException:
            self._drop()
            raise

        try:
            self._command = self._flow.send(outcome)
        except StopIteration:
            self._ended = True
        except BaseException:
            self._ended = True
            self._drop()
            raise

        if isinstance(self._command, _watch.Deliver) and not self._ended:
            self._events.extend(self._command.events)
            self._advance()
        else:
            self._drop()

    def _advance(self) -> None:
        """Move the cursor once all events of a batch have been handed out; at once, if it has none."""
        if not self._events and isinstance(self._command, _watch.Deliver):
            self._cursor = self._command.cursor

    def _perform(self, due: float) -> _watch.Outcome | None:
        match self._command:
            case _watch.Sleep(seconds):
                self._sleep(seconds, due)
                return None
            case _watch.OpenStream() as command:
                self._connection = self._link.connected()
                self._lane = self._connection.enter_lane()
                call, self._seal = self._open_stream(self._lane, command)
                self._reader = Reader(call)
            case _watch.Deliver():
                pass

        if self._reader is None or self._connection is None:
            return _watch.Interrupted()  # the one who waited before gave up, and the stream went with that

        return self._read(self._reader, self._connection, due)

    def _read(self, reader: Reader[bytes], connection: Connection, due: float) -> _watch.Outcome:
        limit = min(_watch.FROZEN_AFTER, due - time.monotonic())

        try:
            message = reader.read(max(0.0, limit))
        except TimeoutError:
            if limit < _watch.FROZEN_AFTER:
                raise

            return _watch.CallFailed(_grpc.frozen(connection.address, limit), "UNAVAILABLE")
        except Closed:
            raise closed_meanwhile() from None
        except grpc.RpcError as failure:
            return _watch.CallFailed(self._link.failed(failure, connection), _grpc.status(failure))

        if message is None:
            return _watch.CallEnded()

        try:
            self._seal.check(message)
            return self._batch(message)
        except (SealBrokenError, DecodeError):
            return _watch.CallFailed(_grpc.damaged(connection.address), "UNAVAILABLE")

    def _sleep(self, seconds: float, due: float) -> None:
        remaining = due - time.monotonic()

        if remaining < seconds:
            time.sleep(max(0.0, remaining))
            raise TimeoutError

        time.sleep(seconds)

    def _drop(self) -> None:
        """Cancel the stream, if one is open."""
        reader, self._reader = self._reader, None

        if reader is not None:
            reader.close()

        lane, self._lane = self._lane, None

        if lane is not None:
            lane.watches -= 1


def closed_meanwhile() -> AutoglmError:
    """Make the error of a call whose client was closed."""
    return PreconditionError("The client was closed while it was used.")
