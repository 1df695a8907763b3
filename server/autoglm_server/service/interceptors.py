"""The outermost boundary of every call: whatever happens inside, the caller gets a status that says what to do.

It takes (de)serialisation inside, so that garbage on the wire is an INVALID_REQUEST like any other and an answer that
is too large a RESPONSE_TOO_LARGE. It is the one place where an unexpected exception becomes a status: its text goes to the
log, and the caller gets an id to find it there.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from autoglm import _ids
from autoglm.errors import AutoglmError, InvalidRequestError, error
from autoglm.model import ErrorReason, Violation
from autoglm_server.journal.journal import JournalDamagedError
from autoglm_server.service.accepting import Refused
from autoglm_server.service.admission import KINDS
from autoglm_server.service.deadlines import Deadlines, PassedError
from autoglm_server.service.status import code_of, to_status, trailing

if TYPE_CHECKING:
    from autoglm_server.clock import Clock
    from autoglm_server.service.admission import Admission

ABORT_SECONDS: Final = 2.0
"""How long sending a status may take: a peer that reads nothing would hold the call. It arrives later all the same."""

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_log = logging.getLogger(__name__)


class Boundary(grpc.aio.ServerInterceptor):
    """Turns every end of a call into a status, admits, gives unary calls a deadline, counts and logs calls."""

    def __init__(self, *, clock: Clock, timeout: timedelta, response_bytes: int, admission: Admission) -> None:
        """``timeout`` is for unary calls whose client set none; ``response_bytes`` bounds a unary call's answer."""
        self.admission = admission
        """Who is let in."""
        self.active = 0
        """Calls under way now."""
        self.calls = 0
        """Calls begun so far."""
        self._clock = clock
        self._deadlines = Deadlines(timeout.total_seconds())
        self._response_bytes = response_bytes
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Give the handler of a call, wrapped; one that refuses if there is none."""
        method = handler_call_details.method

        if refused := self.refuse(method):
            return _refusing(refused)

        if wrapped := self._wrapped.get(method):
            return wrapped

        handler = await continuation(handler_call_details)

        if handler is None:  # not kept: anybody can make up methods
            return self._unknown(method)

        wrapped = self._wrapped[method] = self.guard(method, handler)
        return wrapped

    def refuse(self, method: str) -> Refused | None:
        """Give what a call of a method is answered with before anything is done for it; None: it is welcome."""
        try:
            refusal = self.admission.refusal(method)
        except Exception:  # noqa: BLE001 - the documented boundary: see the module's docstring
            refusal = _fault(method)

        if refusal is None:
            return None

        self.calls += 1
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("call", extra={"method": method, "code": code_of(refusal).name, "seconds": 0.0})

        return _refused(refusal)

    def guard(self, method: str, handler: _Handler) -> _Handler:
        """Wrap a handler, by arity. Requests arrive as bytes; answers of streams are serialised where they are written."""
        read, write = handler.request_deserializer, handler.response_serializer

        def answer(message: Any) -> bytes:
            return self._answer(message, write)

        if handler.unary_unary:
            call = self._guarded(method, handler.unary_unary, partial(_read, read), answer)
            return grpc.unary_unary_rpc_method_handler(call)

        if handler.stream_unary:
            call = self._guarded(method, handler.stream_unary, partial(_read_each, read), answer)
            return grpc.stream_unary_rpc_method_handler(call)

        if handler.unary_stream:
            call = self._guarded(method, _written(handler.unary_stream), partial(_read, read))
            return grpc.unary_stream_rpc_method_handler(call, response_serializer=write)

        call = self._guarded(method, _written(handler.stream_stream), partial(_read_each, read))
        return grpc.stream_stream_rpc_method_handler(call, response_serializer=write)

    def _unknown(self, method: str) -> _Handler:
        """Refuse a method that is not there; a unary refusal serves every arity."""

        async def refuse(_request: bytes, _context: _Context) -> None:
            raise error(ErrorReason.UNIMPLEMENTED, f"there is no method {method[:200]!r}; list them by reflection")

        return grpc.unary_unary_rpc_method_handler(self._guarded(method, refuse, partial(_read, None)))

    def _answer(self, message: Any, write: Any) -> bytes:
        raw: bytes = write(message) if write else message

        if len(raw) > self._response_bytes:
            raise too_large(len(raw), self._response_bytes)

        return raw

    def _guarded(
        self,
        method: str,
        behaviour: Callable[[Any, Any], Awaitable[Any]],
        read: Callable[[Any], Any],
        answer: Callable[[Any], bytes] | None = None,
    ) -> Callable[[Any, _Context], Awaitable[Any]]:
        """Give what runs a call and turns what it raises into a status; what is answered at once has a deadline.

        It is one coroutine: thousands of idle streams hold each as long as they last.
        """
        kind = KINDS.get(method)

        async def call(raw: Any, context: _Context) -> Any:
            self.active += 1
            self.calls += 1
            started, code = self._clock.monotonic(), "OK"
            caller: str | None = None

            try:
                if kind is not None:
                    caller = self.admission.enter(kind, context.peer())

                doing = behaviour(read(raw), context)

                if answer is None:
                    await doing
                    return None

                if context.time_remaining() is None:  # a client's own is kept by the transport
                    doing = self._deadlines.within(doing)

                return answer(await doing)
            except PassedError as passed:
                code = "DEADLINE_EXCEEDED"
                message = f"{passed}, the server's deadline (server.timeout); set a longer one in the call"
                await _refuse(context, error(ErrorReason.DEADLINE_EXCEEDED, message))
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) and task.cancelling():
                    code = "CANCELLED"
                    raise

                # Something inside was cancelled, not the call: without a status of ours its client would wait for ever.
                code = "UNAVAILABLE"
                refusal = error(ErrorReason.SERVER_DRAINING, "the call was stopped inside the server; try again")
                refusal.retry_after = timedelta(seconds=1)
                await _refuse(context, refusal)
            except AutoglmError as refusal:
                code = code_of(refusal).name
                await _refuse(context, refusal)
            except JournalDamagedError as damaged:
                code = "FAILED_PRECONDITION"
                await _refuse(context, error(ErrorReason.JOURNAL_DAMAGED, str(damaged)))
            except grpc.aio.InternalError:
                # A write could not be sent: the client went away, and the transport has not said so yet. It would log that as
                # a fault of ours, once for each watch.
                code = "CANCELLED"
                raise asyncio.CancelledError from None
            except grpc.aio.BaseError:
                code = "ABORTED_BY_TRANSPORT"
                raise
            except Exception:  # noqa: BLE001 - the documented boundary: see the module's docstring
                code = "INTERNAL"
                await _refuse(context, _fault(method))
            finally:
                if kind is not None and caller is not None:
                    self.admission.leave(kind, caller)

                self.active -= 1
                if _log.isEnabledFor(logging.DEBUG):
                    took = round(self._clock.monotonic() - started, 6)
                    _log.debug("call", extra={"method": method, "code": code, "seconds": took})

        return call


def _fault(method: str) -> AutoglmError:
    """Log the exception that is being handled, and give what its caller is told."""
    error_id = _ids.new_id()
    _log.exception("call failed", extra={"method": method, "error_id": error_id})
    message = f"a fault of the server's own; its log says more under {error_id}"
    return error(ErrorReason.INTERNAL, message, error_id=error_id)


@lru_cache(64)
def _refused(refusal: AutoglmError) -> Refused:
    """Give the status of a refusal; there are a few that come again and again."""
    status = to_status(refusal)
    return Refused(status.code, status.message, trailing(status))


@lru_cache(64)
def _refusing(refused: Refused) -> _Handler:
    """Give what ends a call with a status alone. Of whatever arity it is: its request is not even read."""
    code = next(code for code in grpc.StatusCode if code.value[0] == refused.code)

    async def call(_raws: AsyncIterator[bytes], context: _Context) -> None:
        context.set_code(code)
        context.set_details(refused.message)
        context.set_trailing_metadata(refused.trailing)

    return grpc.stream_stream_rpc_method_handler(call)


def too_large(size: int, limit: int) -> AutoglmError:
    """Refuse to send an answer that clients would not take."""
    message = (
        f"the answer is {size} bytes, at most {limit} (limits.response_bytes); ask for less, or page with ListSteps"
    )
    return error(ErrorReason.RESPONSE_TOO_LARGE, message, limit=str(limit), size=str(size))


def _written(behaviour: Any) -> Any:
    """Give a streaming behaviour as a coroutine that writes, whichever way it was made."""
    if not inspect.isasyncgenfunction(behaviour):
        return behaviour

    async def write_all(request: Any, context: _Context) -> None:
        async for message in behaviour(request, context):
            await context.write(message)

    return write_all


def _read(deserialize: Any, raw: bytes) -> Any:
    if deserialize is None:
        return raw

    try:
        return deserialize(raw)
    except DecodeError:
        kind = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)
        what = kind.full_name if kind else "this method's request"
        description = f"cannot be read as {what}: not its protobuf encoding, or JSON in it is more than 32 deep"
        raise InvalidRequestError.of([Violation("", description, "MALFORMED")]) from None


async def _read_each(deserialize: Any, raws: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    async for raw in raws:
        yield _read(deserialize, raw)


async def _refuse(context: _Context, refusal: AutoglmError) -> None:
    """End the call with the error's status; never returns."""
    status = to_status(refusal)

    try:
        async with asyncio.timeout(ABORT_SECONDS):
            await context.abort(code_of(refusal), status.message, trailing(status))
    except TimeoutError:
        raise asyncio.CancelledError from None
