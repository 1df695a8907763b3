# Generated from aio.py by sdk/unasync.py: never edit it here.
# fmt: off
# ruff: noqa: I001
"""The synchronous client: :class:`Client` and its handles.

It is generated.

A client belongs to the process that made it: after ``os.fork()`` a child must make its own, and should be started by
spawn rather than fork, because gRPC's threads do not survive a fork. Policy is elsewhere and pure (``_watch.py``,
``_retry.py``); ``_link.py`` drives it; here are the calls.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from autoglm import _grpc, _watch, local
from autoglm._link import Lane, Link, Watch, closed_meanwhile
from autoglm._files import Received, Target, disk_name, placed
from autoglm._requests import (
    create_request,
    events_of,
    finished,
    from_message,
    number,
    plan_options,
    timed_out,
    timestamp,
    to_message,
    to_struct,
)
from autoglm._retry import Attempts
from autoglm._seal import Seal
from autoglm._stream import Reader, Turn, Closed
from autoglm.errors import (
    AutoglmError,
    CompactedError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    ToolFailedError,
)
from autoglm.fold import PlanFold
from autoglm.model import (
    Approve,
    Artifact,
    ContextItem,
    ContextMessage,
    CreatePlanRequest,
    Decision,
    ErrorReason,
    Event,
    Failure,
    JsonObject,
    Plan,
    PlanCancelRequested,
    PlanOptions,
    PlanState,
    PlanView,
    Reject,
    Retry,
    ServerInfo,
    Step,
    StepDraft,
    StepStarted,
    StepState,
    Tool,
    ToolProgress,
    ToolResult,
    Violation,
)
from autoglm.v1 import plan_service_pb2, tool_service_pb2

__all__ = ["Client", "PlanHandle", "Tools", "Watch"]

_PAGE_SIZE = 200
_INFINITE = float("inf")
_SILENT = 60.0
"""Seconds without a piece of a file after which its connection counts as lost."""


class Client:
    """Makes plans, follows and steers them, and calls tools.

    ``address`` is ``host:port`` or ``unix:///path``. Without one, ``AUTOGLM_ADDRESS`` counts, and without that the
    embedded server: the one of ``data_dir`` is used, and started if there is none; ``server_args`` are its flags, as of
    ``autoglm serve``. ``timeout`` is of one call, in seconds, attempts and pauses included; watches have none.
    ``progress`` is told in a sentence what is waited for while an embedded server starts.

    Nothing is connected before the first call. A call that finds the server unreachable is made again a few times if
    that is safe. One client serves many threads at once. It belongs to the process that made it; after a fork make
    another.

    >>> with autoglm.Client("localhost:50051") as client:  # doctest: +SKIP
    ...     plan = client.run("15% of 2480")
    ...     print(plan.result().answer)
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout: float = 30.0,
        data_dir: str | os.PathLike[str] | None = None,
        server_args: Sequence[str] = (),
        progress: Callable[[str], None] | None = None,
    ) -> None:
        """Make a client; nothing is connected yet.

        Raises:
            InvalidRequestError: the address is none, or is given together with what is for the embedded server.
        """
        embedded = data_dir is not None or bool(server_args)

        if address and embedded:
            fault = "cannot be given together with data_dir or server_args, which are for the embedded server"
            raise InvalidRequestError.of([Violation("address", fault, "CONFLICT")])

        if timeout <= 0:
            raise InvalidRequestError.of([Violation("timeout", f"is {timeout}; give seconds above 0", "OUT_OF_RANGE")])

        named = address or ("" if embedded else os.environ.get("AUTOGLM_ADDRESS", ""))
        find = None if named else partial(local.ensure, data_dir, server_args=tuple(server_args), progress=progress)
        self._link = Link(_grpc.target(named) if named else "", timeout, find)
        self._tools = Tools(self._link)

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The server's address; of an embedded one empty until it is connected."""
        return self._link.address

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._link.closed

    @property
    def tools(self) -> Tools:
        """The tools: ``tools.list()``, ``tools.get(name)``, ``tools.call(name, arguments)``."""
        return self._tools

    def connect(self) -> None:
        """Open the channel, and start the embedded server if that is what is used. Calls do this by themselves.

        Raises:
            UnavailableError: the embedded server does not start.
            PreconditionError: the one that runs has other settings.

        >>> client.connect()  # doctest: +SKIP
        """
        self._link.connected()

    def close(self) -> None:
        """End all calls and watches; plans go on. May be called twice.

        >>> client.close()  # doctest: +SKIP
        """
        self._link.close()

    def run(
        self,
        request: str = "",
        *,
        steps: Iterable[StepDraft] = (),
        options: PlanOptions | None = None,
        max_steps: int | None = None,
        enable_tool_call: bool | None = None,
        labels: Mapping[str, str] | None = None,
        context_id: str = "",
        context: Iterable[ContextItem | ContextMessage | str] = (),
        request_id: str = "",
    ) -> PlanHandle:
        """Make a plan and give its handle; the plan is durable then, and goes on without this program.

        ``request`` is what is wanted, in natural language; ``steps`` are steps of your own, with or without one.
        ``max_steps`` and ``enable_tool_call`` are short for the same in ``options``. ``context`` is earlier messages,
        and ids of earlier plans. With a ``request_id`` of your own, the same call made again gives the same plan.

        Raises:
            InvalidRequestError: with every fault at once.
            ConflictError: the ``request_id`` was used for something else.
            LimitError: there are too many plans; ``retry_after`` may say when to come back.

        >>> plan = client.run("15% of 2480", labels={"team": "data"})  # doctest: +SKIP
        """
        plan = self.create(
            request,
            steps=steps,
            options=options,
            max_steps=max_steps,
            enable_tool_call=enable_tool_call,
            labels=labels,
            context_id=context_id,
            context=context,
            request_id=request_id,
        )
        return PlanHandle(self, plan.id, plan)

    def create(
        self,
        request: str | CreatePlanRequest = "",
        *,
        steps: Iterable[StepDraft] = (),
        options: PlanOptions | None = None,
        max_steps: int | None = None,
        enable_tool_call: bool | None = None,
        labels: Mapping[str, str] | None = None,
        context_id: str = "",
        context: Iterable[ContextItem | ContextMessage | str] = (),
        request_id: str = "",
        validate_only: bool = False,
    ) -> Plan:
        """Make a plan and give it as it begins; arguments and errors are those of :meth:`run`.

        ``request`` may be a whole CreatePlanRequest instead. A ``request_id`` is always sent, so that an answer that is
        lost does not make two plans.

        >>> plan = client.create("15% of 2480")  # doctest: +SKIP
        """
        wanted = create_request(
            request,
            steps=steps,
            options=plan_options(options, max_steps=max_steps, enable_tool_call=enable_tool_call),
            labels=labels,
            context_id=context_id,
            context=context,
            request_id=request_id,
            validate_only=validate_only,
        )
        message = to_message(wanted)
        answer = self._link.call(lambda connection: connection.plans.CreatePlan, message)
        return from_message(answer.plan, Plan)

    def validate(
        self,
        request: str | CreatePlanRequest = "",
        *,
        steps: Iterable[StepDraft] = (),
        options: PlanOptions | None = None,
        max_steps: int | None = None,
        enable_tool_call: bool | None = None,
        labels: Mapping[str, str] | None = None,
        context_id: str = "",
        context: Iterable[ContextItem | ContextMessage | str] = (),
    ) -> Plan:
        """Check all that :meth:`create` would, and give the plan as it would begin, without an id; nothing is made.

        >>> plan = client.validate(steps=[autoglm.StepDraft(id="a", tool="time.now")])  # doctest: +SKIP
        """
        return self.create(
            request,
            steps=steps,
            options=options,
            max_steps=max_steps,
            enable_tool_call=enable_tool_call,
            labels=labels,
            context_id=context_id,
            context=context,
            validate_only=True,
        )

    def get(self, plan_id: str, *, view: PlanView = PlanView.FULL) -> Plan:
        """Give a plan as it is now, true up to its ``sequence``.

        Raises:
            NotFoundError: there is no such plan.
            LimitError: it is larger than one answer may be; take view BASIC, and :meth:`list_steps`.

        >>> plan = client.get("01j…")  # doctest: +SKIP
        """
        message = plan_service_pb2.GetPlanRequest(plan_id=plan_id, view=number(view))
        answer = self._link.call(lambda connection: connection.plans.GetPlan, message)
        return from_message(answer.plan, Plan)

    def list(
        self,
        *,
        states: Iterable[PlanState] = (),
        labels: Mapping[str, str] | None = None,
        context_id: str = "",
        parent_plan_id: str = "",
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[Plan]:
        """Give the plans that fit every filter, newest first, in view BASIC; pages are asked for as they are needed.

        >>> for plan in client.list(states=[autoglm.PlanState.WAITING]):  # doctest: +SKIP
        ...     print(plan.id, plan.request)
        """
        message = plan_service_pb2.ListPlansRequest(
            page_size=_PAGE_SIZE,
            states=[number(state) for state in states],
            labels=dict(labels or {}),
            context_id=context_id,
            parent_plan_id=parent_plan_id,
            created_after=timestamp("created_after", created_after),
            created_before=timestamp("created_before", created_before),
        )

        while True:
            answer = self._link.call(lambda connection: connection.plans.ListPlans, message)

            for plan in answer.plans:
                yield from_message(plan, Plan)

            if not answer.next_page_token:
                return

            message.page_token = answer.next_page_token

    def list_steps(self, plan_id: str, *, states: Iterable[StepState] = ()) -> Iterator[Step]:
        """Give the steps of a plan in the order in which they were added; pages are asked for as they are needed.

        Raises:
            NotFoundError: there is no such plan.

        >>> for step in client.list_steps(plan.id, states=[autoglm.StepState.FAILED]):  # doctest: +SKIP
        ...     print(step.id, step.failure)
        """
        message = plan_service_pb2.ListStepsRequest(
            plan_id=plan_id, page_size=_PAGE_SIZE, states=[number(state) for state in states]
        )

        while True:
            answer = self._link.call(lambda connection: connection.plans.ListSteps, message)

            for step in answer.steps:
                yield from_message(step, Step)

            if not answer.next_page_token:
                return

            message.page_token = answer.next_page_token

    def watch(
        self, plan_id: str, *, after_sequence: int = 0, durable_only: bool = False, journal_id: str = ""
    ) -> Watch:
        """Give a plan's events after a sequence, those there are and then each when it happens, to the plan's end.

        It survives lost connections and restarts of the server: it goes on after the last sequence seen. Iterating
        raises what it cannot survive: NotFoundError, CompactedError (the events are no longer kept), PreconditionError
        (the sequence is ahead, or of another journal), SequenceGapError, and UnavailableError when the server stays
        away.

        >>> for event in client.watch(plan.id, after_sequence=plan.sequence):  # doctest: +SKIP
        ...     print(event.sequence, event.fact)
        """

        def open_stream(lane: Lane, command: _watch.OpenStream) -> tuple[Any, Seal]:
            after, named = command.after_sequence, command.journal_id
            request = plan_service_pb2.WatchPlanRequest(
                plan_id=plan_id, after_sequence=after, durable_only=durable_only, journal_id=named
            )
            return lane.watch_plan(request), Seal.of_plan(plan_id, after, durable_only=durable_only, journal_id=named)

        def batch(raw: bytes) -> _watch.Batch:
            message = plan_service_pb2.WatchPlanResponse.FromString(raw)
            return _watch.Batch(events_of(message), sequence=message.sequence, journal_id=message.journal_id)

        return Watch(self._link, _watch.PlanPosition(plan_id, after_sequence, journal_id), open_stream, batch)

    def watch_all(
        self,
        *,
        cursor: str = "",
        from_now: bool = False,
        labels: Mapping[str, str] | None = None,
        durable_only: bool = False,
    ) -> Watch:
        """Give the events of every plan that one may see, in the order of their commits; it never ends by itself.

        ``cursor`` is the watch's ``cursor`` from before, to go on; without one it begins with the oldest events kept,
        or with ``from_now`` with what happens next. Errors as of :meth:`watch`.

        >>> watch = client.watch_all(from_now=True, labels={"team": "data"})  # doctest: +SKIP
        >>> for event in watch:  # doctest: +SKIP
        ...     handle(event)
        ...     remember(watch.cursor)
        """
        wanted = dict(labels or {})

        def open_stream(lane: Lane, command: _watch.OpenStream) -> tuple[Any, Seal]:
            place, now = command.cursor, from_now and not command.cursor
            request = plan_service_pb2.WatchPlansRequest(
                cursor=place, from_now=now, labels=wanted, durable_only=durable_only
            )
            return lane.watch_plans(request), Seal.of_all(place, from_now=now, durable_only=durable_only, labels=wanted)

        def batch(raw: bytes) -> _watch.Batch:
            message = plan_service_pb2.WatchPlansResponse.FromString(raw)
            return _watch.Batch(events_of(message), cursor=message.cursor)

        return Watch(self._link, _watch.AllPosition(cursor), open_stream, batch)

    def attach(self, plan_id: str) -> PlanHandle:
        """Give the handle of a plan that exists; whether it does shows when it is used.

        >>> plan = client.attach("01j…")  # doctest: +SKIP
        """
        return PlanHandle(self, plan_id, None)

    def cancel(self, plan_id: str, reason: str = "") -> Plan:
        """Ask a plan to stop, and give it as it is when that is durable: CANCELLING, or ended already.

        Raises:
            NotFoundError: there is no such plan.

        >>> client.cancel(plan.id, "asked for the wrong thing")  # doctest: +SKIP
        """
        message = plan_service_pb2.CancelPlanRequest(plan_id=plan_id, reason=reason)
        answer = self._link.call(lambda connection: connection.plans.CancelPlan, message)
        return from_message(answer.plan, Plan)

    def resolve(
        self,
        plan_id: str,
        step_id: str,
        decision: Decision | Approve | Reject | Retry | ToolResult,
        *,
        wait_sequence: int = 0,
        comment: str = "",
    ) -> Plan:
        """Decide what a step waits for: approve, reject, try again, or give its result yourself.

        ``wait_sequence`` (``step.waiting.sequence``) names the wait that was looked at, so that a decision never meets
        a later one; 0 is the present one, whatever it is, and is therefore sent once only.

        Raises:
            PreconditionError: the step does not wait, or somebody decided otherwise before.
            AbortedError: the wait is no longer the one named.
            InvalidRequestError: what it waits for cannot be decided so.

        >>> client.resolve(plan.id, "pay", autoglm.Approve(), wait_sequence=12)  # doctest: +SKIP
        """
        decided = decision if isinstance(decision, Decision) else Decision(decision)
        message = plan_service_pb2.ResolveStepRequest(
            plan_id=plan_id,
            step_id=step_id,
            wait_sequence=wait_sequence,
            decision=to_message(decided),
            comment=comment,
        )
        answer = self._link.call(
            lambda connection: connection.plans.ResolveStep, message, repeatable=wait_sequence != 0
        )
        return from_message(answer.plan, Plan)

    def read_artifact(self, plan_id: str, digest: str, *, offset: int = 0) -> Iterator[bytes]:
        """Give the content of a file that a result of the plan carries, in pieces, from an offset.

        A connection that is lost is made again, and the reading goes on where it was.

        Raises:
            NotFoundError: there is no such plan, or no such file in it, or its content is not kept.
            UnavailableError: the server stays away.

        >>> for piece in client.read_artifact(plan.id, plan.artifacts[0].digest):  # doctest: +SKIP
        ...     size += len(piece)
        """
        attempts = Attempts(self._link.random)

        while True:
            connection = self._link.connected()
            message = plan_service_pb2.ReadArtifactRequest(plan_id=plan_id, digest=digest, offset=offset)
            reader: Reader[Any] = Reader(connection.plans.ReadArtifact(message))
            size = 0

            try:
                while (answer := reader.read(_SILENT)) is not None:
                    if answer.HasField("artifact"):
                        size = answer.artifact.size_bytes
                    elif answer.data:
                        offset += len(answer.data)
                        attempts = Attempts(self._link.random)
                        yield answer.data

            except TimeoutError:
                error: AutoglmError = _grpc.frozen(connection.address, _SILENT)
            except grpc.RpcError as failure:
                error = self._link.failed(failure, connection)
            except Closed:
                raise closed_meanwhile() from None
            else:
                if offset == size:
                    return

                told = f"The file ended after {offset} of {size} bytes."
                raise InternalError(told, reason=ErrorReason.INTERNAL)
            finally:
                reader.close()

            time.sleep(attempts.pause(error, remaining=_INFINITE))

    def save_artifact(
        self,
        plan_id: str,
        artifact: Artifact | str,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Save a file that a result of the plan carries, and give where it is; checked by its digest, and put there whole.

        ``artifact`` may be a digest alone. In a ``path`` that is a folder the file gets its own name, as far as it can be
        one; it never leads out of the folder. ``progress`` is called with the bytes that have come so far.

        Raises:
            NotFoundError: there is no such plan, or no such file in it, or its content is not kept.
            FileExistsError: the path exists, and is not to be overwritten.
            OSError: it cannot be written.

        >>> path = client.save_artifact(plan.id, plan.artifacts[0], "charts")  # doctest: +SKIP
        """
        digest = artifact if isinstance(artifact, str) else artifact.digest

        if not digest:
            told = "The file is described alone: who named it did not give its content."
            raise NotFoundError(told, reason=ErrorReason.ARTIFACT_NOT_FOUND, metadata={"plan_id": plan_id})

        name = disk_name(digest if isinstance(artifact, str) else artifact.name)
        target = Target(placed(Path(path), name), overwrite=overwrite)

        try:
            for piece in self.read_artifact(plan_id, digest):
                target.write(piece)

                if progress is not None:
                    progress(target.size)

            if target.digest != digest:
                told = f"What came is not the file {digest}, but {target.digest}."
                raise InternalError(told, reason=ErrorReason.INTERNAL)

            target.keep()
        finally:
            target.discard()

        return target.path

    def info(self) -> ServerInfo:
        """Tell what server this is: version, journal, capabilities, planner.

        >>> client.info().version  # doctest: +SKIP
        '0.1.0'
        """
        message = plan_service_pb2.GetServerInfoRequest()
        answer = self._link.call(lambda connection: connection.plans.GetServerInfo, message)
        return from_message(answer, ServerInfo)

    def health(self) -> str:
        """Tell how the server is: ``SERVING``, or ``NOT_SERVING`` while it starts, drains, or cannot write.

        Raises:
            UnavailableError: it cannot be reached.

        >>> client.health()  # doctest: +SKIP
        'SERVING'
        """
        answer = self._link.call(
            lambda connection: _grpc.health_check(connection.channel), _grpc.health_request()
        )
        return _grpc.health_name(answer)


class PlanHandle:
    """A plan to follow: iterate it for its events, wait for its result, cancel it.

    Iterating gives the plan's events from the first, replays what was seen before, and goes on as it happens to the
    end; progress that was not stored is given once. Several may iterate and wait at the same time.

    >>> plan = client.run("15% of 2480")  # doctest: +SKIP
    >>> for event in plan:  # doctest: +SKIP
    ...     print(event.sequence, event.fact)
    """

    def __init__(self, client: Client, plan_id: str, plan: Plan | None) -> None:
        """Follow the plan of this id; clients make these. ``plan`` is a snapshot that is known already."""
        self._client = client
        self._snapshot = plan
        self._fold = PlanFold(plan_id)
        self._events: list[Event] = []
        self._watch: Watch | None = None
        self._journal_id = ""
        self._ended = False
        self._turn = Turn()

    def __repr__(self) -> str:
        """Name the plan and the state that was seen last."""
        return f"<{type(self).__name__} {self.id} {self.state.name}>"

    @property
    def id(self) -> str:
        """The plan's id."""
        return self._fold.id

    @property
    def state(self) -> PlanState:
        """The plan's state, by what was seen so far; nobody is asked."""
        return self._snapshot.state if self._snapshot and self._is_ahead(self._snapshot) else self._fold.state

    @property
    def plan(self) -> Plan:
        """The plan, by what was seen so far; nobody is asked. Iterate, or ``client.get(handle.id)``, to see more."""
        return self._snapshot if self._snapshot and self._is_ahead(self._snapshot) else self._fold.snapshot()

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files that the plan's results carry, by what was seen so far; nobody is asked."""
        return tuple(artifact for step in self.plan.steps if step.result for artifact in step.result.artifacts)

    def save_artifact(
        self, artifact: Artifact | str, path: str | os.PathLike[str], *, overwrite: bool = False
    ) -> Path:
        """Save one of the plan's files; as :meth:`Client.save_artifact`.

        >>> for artifact in plan.artifacts:  # doctest: +SKIP
        ...     plan.save_artifact(artifact, "charts")
        """
        return self._client.save_artifact(self.id, artifact, path, overwrite=overwrite)

    def __iter__(self) -> Iterator[Event]:
        seen = 0

        while (event := self._event(seen, None)) is not None:
            if not event.ephemeral:
                seen += 1

            yield event

    def nested(self) -> Iterator[Event]:
        """Give the plan's events, and those of the sub-plans that its steps run: each event after what led to it.

        All of a sub-plan's events come between the start of its step and that step's end, whatever else happens at the
        same time; ``event.plan_id`` says whose an event is.

        >>> for event in plan.nested():  # doctest: +SKIP
        ...     print(event.plan_id, event.sequence, event.fact)
        """
        known: set[str] = set()
        due: dict[str, None] = {}

        for event in self:
            for plan_id in list(due):
                with suppress(NotFoundError):  # named before it is made: not yet there, or refused
                    for below in self._client.attach(plan_id).nested():
                        due.pop(plan_id, None)
                        yield below

            yield event

            if isinstance(event.fact, StepStarted) and (child := event.fact.child_plan_id) and child not in known:
                known.add(child)
                due[child] = None

    def result(self, timeout: float | None = None) -> Plan:
        """Wait for the plan's end and give the finished plan; ``timeout`` is in seconds, None waits without end.

        Raises:
            PlanFailedError: it failed; ``error.plan`` is the finished plan.
            PlanCancelledError: it was cancelled.
            ResultTimeoutError: it has not ended yet; it goes on.

        >>> print(plan.result(timeout=60).answer)  # doctest: +SKIP
        """
        due = _INFINITE if timeout is None else time.monotonic() + timeout

        try:
            while not self.state.terminal:
                remaining = None if timeout is None else due - time.monotonic()

                if self._event(len(self._events), remaining) is None and self._ended:
                    break
        except TimeoutError:
            raise timed_out(self.plan, timeout or 0.0) from None
        except CompactedError:
            self._snapshot = self._client.get(self.id)

        stopping = self._fold.stopping
        return finished(self.plan, stopping.reason if isinstance(stopping, PlanCancelRequested) else "")

    def cancel(self, reason: str = "") -> Plan:
        """Ask the plan to stop; it has stopped when it is CANCELLED, which :meth:`result` waits for.

        >>> plan.cancel("no longer needed")  # doctest: +SKIP
        """
        return self._client.cancel(self.id, reason)

    def _event(self, seen: int, timeout: float | None) -> Event | None:
        """Give the event after the first ``seen`` durable ones, or None at the end; one at a time asks the server."""
        if seen < len(self._events):
            return self._events[seen]

        due = _INFINITE if timeout is None else time.monotonic() + timeout
        self._turn.take(timeout)

        try:
            if seen < len(self._events):
                return self._events[seen]

            if self._ended:
                return None

            return self._next(None if timeout is None else due - time.monotonic())
        finally:
            self._turn.give()

    def _next(self, timeout: float | None) -> Event | None:
        if self._watch is None:
            self._watch = self._client.watch(self.id, after_sequence=self._fold.sequence, journal_id=self._journal_id)

        try:
            event = self._watch.next(timeout)
        except AutoglmError:
            self._watch = None  # asked again, it is tried again, after what was seen
            raise

        self._journal_id = self._watch.journal_id

        if event is None:
            self._ended = True
        elif not event.ephemeral:
            self._fold.apply(event)
            self._events.append(event)

        return event

    def _is_ahead(self, plan: Plan) -> bool:
        return plan.sequence > self._fold.sequence


class Tools:
    """The tools of a server; ``client.tools``."""

    def __init__(self, link: Link) -> None:
        """Use ``link``; clients make these."""
        self._link = link

    def list(self, *, provider: str = "", tags: Iterable[str] = ()) -> Iterator[Tool]:
        """Give the tools of a provider (any, if empty) that have all ``tags``, by name.

        >>> for tool in client.tools.list():  # doctest: +SKIP
        ...     print(tool.name, tool.description)
        """
        message = tool_service_pb2.ListToolsRequest(page_size=_PAGE_SIZE, provider=provider, tags=tags)

        while True:
            answer = self._link.call(lambda connection: connection.tools.ListTools, message)

            for tool in answer.tools:
                yield from_message(tool, Tool)

            if not answer.next_page_token:
                return

            message.page_token = answer.next_page_token

    def get(self, name: str) -> Tool:
        """Give a tool.

        Raises:
            NotFoundError: there is no such tool; the message names the nearest.

        >>> client.tools.get("math.calculate").input_schema  # doctest: +SKIP
        """
        message = tool_service_pb2.GetToolRequest(name=name)
        answer = self._link.call(lambda connection: connection.tools.GetTool, message)
        return from_message(answer.tool, Tool)

    def call(
        self,
        name: str,
        arguments: JsonObject | None = None,
        *,
        timeout: float | None = None,
        idempotency_key: str = "",
        tool_digest: str = "",
        progress: Callable[[ToolProgress], None] | None = None,
        save_to: str | os.PathLike[str] | None = None,
        on_file: Callable[[Artifact, Path], None] | None = None,
    ) -> ToolResult:
        """Call a tool directly, without a plan: the same checks, no journal. It is never made again by itself.

        ``timeout`` is in seconds, the client's if None. ``idempotency_key`` is what the tool de-duplicates by; with a
        ``tool_digest``, a tool that is no longer that one is refused. ``progress`` is called with each progress.

        Files that the result carries are put into the folder ``save_to``, which is made if need be, under their own names
        as far as these can be ones, and beside what is there; ``on_file`` is told of each and where it is. Without a
        folder their content is dropped.

        Raises:
            ToolFailedError: the tool failed; ``error.failure`` says how.
            InvalidRequestError: the arguments do not fit the tool's schema.
            PreconditionError: the tool needs approval, which a direct call does not have, or has changed.

        >>> client.tools.call("math.calculate", {"expression": "2480 * 0.15"}).output  # doctest: +SKIP
        """
        message = tool_service_pb2.CallToolRequest(
            name=name,
            arguments=to_struct(arguments or {}),
            idempotency_key=idempotency_key,
            tool_digest=tool_digest,
        )
        limit = self._link.timeout if timeout is None else timeout
        received = Received(None if save_to is None else Path(save_to))
        connection = self._link.connected()
        reader: Reader[Any] = Reader(connection.tools.CallTool(message, timeout=limit))

        try:
            while (answer := reader.read(None)) is not None:  # the call has its deadline
                kind = answer.WhichOneof("message")

                if kind == "artifact_chunk":
                    chunk = answer.artifact_chunk
                    told = from_message(chunk.artifact, Artifact) if chunk.HasField("artifact") else None
                    received.add(told, chunk.data)

                if kind in ("result", "failure"):
                    reader.finish()

                if kind == "result":
                    result = from_message(answer.result, ToolResult)
                    received.keep(result.artifacts, on_file)
                    return result

                if kind == "failure":
                    raise ToolFailedError(name, from_message(answer.failure, Failure))

                if kind == "progress" and progress is not None:
                    progress(from_message(answer.progress, ToolProgress))
        except grpc.RpcError as failure:
            raise self._link.failed(failure, connection) from None
        except Closed:
            raise closed_meanwhile() from None
        finally:
            reader.close()
            received.discard()

        raise InternalError(f"The call of {name} ended without a result.", reason=ErrorReason.INTERNAL)
