"""One live plan: its state, its attempts and its round, and the turn that moves it.

A turn is a plain call, made from whatever happened: an attempt ended, a commit became durable, somebody asked for
something, a time came. What happened is made into events, folded, and handed to the journal as one append; then ``decide``
is asked what to do until it has nothing more. Only what leaves the process waits for durability.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from autoglm._dataclasses import dataclass, maker
from autoglm.errors import AutoglmError, InternalError, error
from autoglm.model import (
    DOMAIN,
    AnswerProgressed,
    Approve,
    CallContext,
    ContextItem,
    ContextMessage,
    Decision,
    Effect,
    ErrorReason,
    Event,
    Fact,
    Failure,
    JsonObject,
    Plan,
    PlanCancelled,
    PlanCancelRequested,
    PlanCreated,
    PlanFailed,
    PlanLimitReached,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanState,
    PlanSucceeded,
    Reject,
    Step,
    StepAdded,
    StepCancelled,
    StepDraft,
    StepFailed,
    StepProgressed,
    StepRejected,
    StepResolved,
    StepRetryScheduled,
    StepSkipped,
    StepStarted,
    StepSucceeded,
    StepWaiting,
    ToolProgress,
    ToolResult,
    Usage,
    Violation,
    Waiting,
    WaitingReason,
)
from autoglm.wire import digest_text, encode
from autoglm_server.journal.journal import Append, JournalError, PlanRow, RequestKey
from autoglm_server.planner.planner import (
    AnswerOutput,
    AnswerText,
    Note,
    Planner,
    PlannerError,
    RoundItem,
    RoundView,
    UsageMeter,
)
from autoglm_server.scheduler import answers, families
from autoglm_server.scheduler.decide import (
    AskPerson,
    CancelStep,
    Command,
    CutRound,
    FailStep,
    FinishPlan,
    MakePlan,
    ReachLimit,
    SkipStep,
    StartStep,
    changed_tool,
    changes_matter,
    decide,
    failure_of,
    may_plan_meanwhile,
)
from autoglm_server.scheduler.drafts import RETRY_POLICY, Rules, check_planned, resolve
from autoglm_server.scheduler.outcome import Judgement, Outcome, Stopped, backoff, judge
from autoglm_server.scheduler.state import State, apply, begin
from autoglm_server.scheduler.subplans import times_read
from autoglm_server.tools.catalog import Resolved
from autoglm_server.tools.failures import MESSAGE_MAX, clean, encodable, one_line
from autoglm_server.tools.references import References, compile_references
from autoglm_server.tools.tool import PLAN_RUN, AbandonedError, Invocation, ToolCallError, make_invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from autoglm.fold import StepFold
    from autoglm_server.clock import Clock
    from autoglm_server.journal.follow import Feed
    from autoglm_server.journal.journal import Journal
    from autoglm_server.scheduler.limits import Limits
    from autoglm_server.scheduler.timers import Timers
    from autoglm_server.scheduler.turns import Turns
    from autoglm_server.tools.artifacts import Sinks
    from autoglm_server.tools.catalog import Catalog

log = logging.getLogger(__name__)

VIOLATIONS_MAX = 50
"""How many faults of one refused draft are journaled and told."""
NAME_CHARS = 256
"""Of a name in a refused draft that cannot be written down as it is."""
NOTES_CHARS = 64 << 10
"""Of what a planner says beside its steps; what is longer is cut."""
ENDS_SECONDS = 0.01
"""How long at most ends of calls wait for others, while each pass of the loop brings more. A commit asks for the interpreter a
few times, of which a loop that is busy with ends has none to spare, and the last end waits for the commits before its own."""

_make_context, _make_event, _make_row = maker(CallContext), maker(Event), maker(PlanRow)


class Host(Protocol):
    """What a live plan asks of the scheduler."""

    journal: Journal
    feed: Feed
    catalog: Catalog
    planners: Mapping[str, Planner]
    clock: Clock
    limits: Limits
    timers: Timers
    turns: Turns
    jitter: Callable[[], float]
    artifacts: Sinks

    @property
    def holding(self) -> bool:
        """Whether no call and no round may start."""
        ...

    def places(self) -> int:
        """How many calls may start, over all plans."""
        ...

    def call_began(self) -> None:
        """Take a place."""
        ...

    def call_ended(self) -> None:
        """Give a place back."""
        ...

    def starving(self, run: PlanRun, *, starved: bool) -> None:
        """Note whether the plan could start more calls if there were places."""
        ...

    def moved(self, run: PlanRun) -> None:
        """Note that the plan's turn is over; whether it makes progress may have changed."""
        ...

    def began(self, run: PlanRun) -> None:
        """Let a plan run that has become durable."""
        ...

    def ended(self, run: PlanRun) -> None:
        """Let go of a plan whose end is durable."""
        ...

    def lost(self, run: PlanRun, error: Exception) -> None:
        """Let go of a plan that this process may not or cannot go on with."""
        ...

    def spawn(self, run: PlanRun, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that belongs to the plan."""
        ...

    def child_of(self, step: StepFold) -> str:
        """Give the id of the plan that the step's next call runs as its own; empty if its tool makes none."""
        ...

    def parted(self, child: PlanRun) -> None:
        """Let a sub-plan go whose step has ended: if it has not, it is to stop."""
        ...

    async def context_of(self, items: Sequence[ContextItem]) -> tuple[Plan | ContextMessage, ...]:
        """Give what came before a request; earlier plans that are gone are left out."""
        ...


@dataclass(slots=True, eq=False)
class Attempt:
    """A call decided upon. It has no task until it may leave the process and it is its turn on the loop."""

    step_id: str
    number: int
    arguments: JsonObject
    key: str
    """To de-duplicate by."""
    checked: str
    """The digest of the tool that the arguments were found exactly right for; empty: the call checks them."""
    child_plan_id: str
    tool_digest: str
    """The tool that is meant; empty where any of this name will do."""
    intent: int
    """The sequence of its step_started; a call with an effect waits until that is durable."""
    waits: bool
    task: asyncio.Task[None] | None = None
    began: bool = False
    told: int = 0
    """How many characters of progress text have been shown."""
    usage: Usage | None = None
    """What its sub-plan has used by now."""
    spent: Usage | None = None
    """What the call itself has used without giving a result, as far as it has said so."""


@dataclass(slots=True, eq=False)
class Making:
    """A round under way."""

    number: int
    attempt: int
    text: str = ""
    notes: str = ""
    output: object = None
    usage: Usage | None = None
    meter: UsageMeter | None = None
    """What to ask for the usage, until the planner has told it."""
    drafts: int = 0
    task: asyncio.Task[None] | None = None


@asynccontextmanager
async def _closing(items: AsyncIterator[RoundItem]) -> AsyncIterator[AsyncIterator[RoundItem]]:
    """Close a planner's round when it is not followed any more, so that what it holds open is let go of at once."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


class PlanRun:
    """A plan that this process holds."""

    __slots__ = (
        "__weakref__",
        "_accepted",
        "_due",
        "_launches",
        "_out",
        "_out_first",
        "_readers",
        "_ready",
        "_route",
        "_row_state",
        "_starved",
        "_waiters",
        "admitted",
        "attempts",
        "children",
        "depth",
        "durable",
        "epoch",
        "following",
        "gone",
        "host",
        "left",
        "making",
        "parent",
        "plan",
        "queued",
        "references",
        "request_key",
        "state",
        "tasks",
    )

    def __init__(self, host: Host, state: State, epoch: int, durable: int) -> None:
        """Hold ``state``, which is durable up to ``durable``, under ``epoch``."""
        self.host = host
        self.state = state
        self.plan = state.plan
        self.epoch = epoch
        self.durable = durable
        self.parent: PlanRun | None = None
        self.children: dict[str, PlanRun] = {}
        """Sub-plans under way, by the steps that run them."""
        self.left: dict[str, Usage] = {}
        """What sub-plans used that are not under way here any more, by the steps, which have not ended."""
        self.depth = 0
        """How many plans are above it."""
        self.admitted = False
        self.queued = False
        self.gone = False
        """Let go of: nothing is decided, recorded or started any more."""
        self.attempts: dict[str, Attempt] = {}
        self.making: Making | None = None
        self.request_key: RequestKey | None = None
        self.tasks: dict[asyncio.Task[None], None] = {}  # in the order they began, so that a simulation can be replayed
        self.following: dict[asyncio.Task[None], None] = {}
        """Those of the tasks that follow a sub-plan."""
        self._out: list[bytes] = []
        self._out_first = durable + 1
        # What is taken up has its row already, of the state that it had then.
        self._row_state: PlanState | None = state.plan.state if durable else None
        self._route = (host.journal.journal_id,)
        self._due = False
        """Whether something was taken in that a turn in a later pass of the loop is to hand over."""
        self._starved = False
        """Whether the scheduler was told that the plan could start more calls if there were places."""
        # Lists: these three are short, and a deque that is empty takes ten times the memory.
        self._ready: list[Attempt] = []
        """Calls that need not wait for their intents to be durable."""
        self._launches: list[Attempt] = []
        """Those that must, in the order of their intents."""
        self._waiters: list[tuple[int, asyncio.Future[bool]]] = []
        self._readers: dict[asyncio.Future[bool], None] = {}
        """Those of the waiters that do not wait for a full disk."""
        self.references: dict[str, References] = {}
        """What was read of the arguments of its steps, as far as it has been."""
        self._accepted: dict[str, str] = {}
        """Digests of changed tools that a person let pass, by step."""

    # --- events

    def emit(
        self,
        fact: Fact,
        *,
        step_id: str = "",
        attempt: int = 0,
        round_number: int = 0,
        principal: str = "",
        now: datetime | None = None,
    ) -> None:
        """Make an event of the fact, fold it, and keep it for this turn's append."""
        plan = self.plan
        time = now or self.now()
        event = _make_event(plan.id, plan.sequence + 1, time, step_id, attempt, False, round_number, principal, fact)  # noqa: FBT003
        body = encode(event)
        if len(body) > self.host.limits.event_bytes:
            raise self._event_too_large(event.sequence, body)

        apply(self.state, event, self.host.clock.monotonic())
        self._out.append(body)

    def create(
        self, created: PlanCreated, steps: Sequence[Step], principal: str, time: datetime, bodies: list[bytes]
    ) -> None:
        """Fold a new plan's first events, and keep ``bodies``, which are theirs, for the append."""
        for sequence, body in enumerate(bodies, 1):
            if len(body) > self.host.limits.event_bytes:
                raise self._event_too_large(sequence, body)

        begin(self.state, created, steps, principal, time)
        self._out = bodies

    def _event_too_large(self, sequence: int, body: bytes) -> InternalError:
        return InternalError(f"event {sequence} of plan {self.plan.id} has {len(body)} bytes")

    def now(self) -> datetime:
        """Give the time of the next event: the wall clock's, but never before the event before it."""
        return self._at(self.host.clock.now())

    def _at(self, time: datetime) -> datetime:
        """Give ``time``, or that of the last event if it was later."""
        last = self.plan.last_event_time
        return time if last is None or time > last else last

    @property
    def unhanded(self) -> Sequence[bytes]:
        """The events that have not been handed to the journal yet."""
        return self._out

    def flush(self, basic: bytes = b"") -> None:
        """Hand this turn's events to the journal as one append, and start what need not wait for it.

        ``basic`` is the plan in view BASIC, if it has been written.
        """
        if self._out:
            plan, row = self.plan, None
            if plan.state is not self._row_state:
                self._row_state = plan.state
                row = self._row(basic)

            last = plan.sequence
            append = Append(
                plan.id,
                self.epoch,
                self._out_first,
                self._out,
                partial(self._settled, last),
                row,
                self.request_key,
            )
            self.request_key = None
            self._out, self._out_first = [], last + 1
            if plan.state.terminal:
                self.host.feed.finish(plan.id, last)

            self.host.journal.append(append)

        self._launch()

    def _row(self, basic: bytes) -> PlanRow:
        plan = self.plan
        created = plan.created
        return _make_row(
            plan.id,
            "",
            plan.principal,
            plan.state,
            created.labels,
            created.context_id,
            created.parent.plan_id if created.parent is not None else "",
            plan.create_time or self.now(),
            basic or encode(plan.basic()),
            plan.end_time,
        )

    def _settled(self, last: int, error: JournalError | None) -> None:
        if error is not None:
            self._fail_waiters(error)
            if not self.gone:
                self.host.lost(self, error)

            return

        before, self.durable = self.durable, last
        while self._waiters and self._waiters[0][0] <= last:
            _, future = self._waiters.pop(0)
            if not future.done():
                future.set_result(True)

        if self.gone:
            return

        if not before:
            self.host.began(self)
            return

        self._launch()
        if self.plan.state.terminal and last == self.plan.sequence:
            self.host.ended(self)

    def _fail_waiters(self, error: Exception) -> None:
        while self._waiters:
            _, future = self._waiters.pop(0)
            if not future.done():
                future.set_exception(error)

    async def until_durable(self, sequence: int, *, reads: bool = False) -> bool:
        """Wait until everything up to ``sequence`` is durable; gives whether it is.

        That is always so, but for who only ``reads`` while the journal is stalled: that may last until somebody acts.

        Raises:
            JournalError: it will not be.
            UnavailableError: the plan was let go of before it was handed over.
        """
        if sequence <= self.durable:
            return True

        if self.gone and sequence >= self._out_first:
            raise self._not_held()

        if reads and self.host.journal.stalled:
            return False

        future = self.durable_soon(sequence)
        if not reads:
            return await future

        self._readers[future] = None
        try:
            return await future
        finally:
            self._readers.pop(future, None)

    def durable_soon(self, sequence: int) -> asyncio.Future[bool]:
        """Give what is done when everything up to ``sequence`` is durable, which has been handed over and is not yet."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.append((sequence, future))
        return future

    def _not_held(self) -> AutoglmError:
        """Say why what was to be recorded will not be; what was handed over to the journal is told of by it."""
        message = f"this server does not hold plan {self.plan.id} any more (its log says why); try again later"
        return error(ErrorReason.SERVER_DRAINING, message, plan_id=self.plan.id)

    def stalled(self) -> None:
        """Let go of who only reads: the journal cannot be written to for now."""
        for future in self._readers:
            if not future.done():
                future.set_result(False)

    # --- the turn

    def turn(self, happened: Callable[[], None] | None = None, *, may_wait: bool = False) -> None:
        """Take in what ``happened``, then decide and do until there is nothing more to do now.

        Where that ``may_wait``, and no step has become ready, it is left to a turn in the loop's next pass, or in a later one
        while each brings more: of many calls that end at about the same time each would else pay for an append, a decision
        about nothing and a share in a commit.
        """
        if self.gone:
            return

        host = self.host
        try:
            if happened is not None:
                happened()

            if may_wait and not self.plan.ready and not self.plan.unapproved:
                self._turn_later()
                return

            self._due = False
            while True:
                root = self if self.parent is None else families.root_of(self)
                hold = host.holding or not root.admitted
                shares = self.parent is not None or self.children or self.left
                self.state.pool = families.pool(self) if shares else None
                decided = decide(self.state, host.clock.monotonic(), host.places(), hold=hold)
                if not decided.commands:
                    break

                began = self.plan.start_time is not None
                now = self.now()
                for command in decided.commands:
                    self._execute(command, now)

                if began and self._only_started(decided.commands):
                    break

            self.flush()
        except Exception as error:
            # The boundary of one plan: a bug in its turn ends this process's hold on it, not the server.
            log.exception("a turn failed; the plan is let go of until the next start", extra={"plan_id": self.plan.id})
            host.lost(self, error)
            return

        host.timers.set(self, decided.wake)
        if decided.starved or self._starved:
            self._starved = decided.starved
            host.starving(self, starved=decided.starved)

        host.moved(self)

    def _turn_later(self) -> None:
        if not self._due:
            self._due = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._turn_unless_more_come, len(self._out), loop.time())

    def _turn_unless_more_come(self, before: int, since: float) -> None:
        """Take the turn that was left to this pass, or leave it to the next one if there is more than ``before``."""
        loop = asyncio.get_running_loop()
        if len(self._out) > before and loop.time() < since + ENDS_SECONDS:
            loop.call_soon(self._turn_unless_more_come, len(self._out), since)
        else:
            self.turn_if_due()

    def turn_if_due(self) -> None:
        """Take the turn that was left to a later pass of the loop, unless there has been one since."""
        if self._due:
            self.turn()

    def _only_started(self, commands: Sequence[Command]) -> bool:
        """Whether what was decided was to start calls, and they did start: then there is nothing more to decide.

        A call that runs a sub-plan was counted as if it took a place, and takes none.
        """
        if may_plan_meanwhile(self.state):
            return False

        attempts = self.attempts
        for command in commands:
            attempt = attempts.get(command.step_id) if type(command) is StartStep else None
            if attempt is None or attempt.child_plan_id:
                return False

        return True

    def _execute(self, command: Command, now: datetime) -> None:
        match command:
            case StartStep(step_id):
                self._start(step_id, now)
            case SkipStep(step_id, by):
                self.emit(StepSkipped(by), step_id=step_id)
            case FailStep(step_id, failure):
                self.emit(StepFailed(failure), step_id=step_id, attempt=self.plan.steps[step_id].attempt)
            case AskPerson(step_id, reason, message):
                self._ask(step_id, reason, message)
            case CancelStep(step_id, unknown, abandoned):
                self._cancel_step(step_id, StepCancelled(unknown, abandoned))
            case MakePlan(number, attempt):
                self._make(number, attempt)
            case CutRound():
                self._cut_round(failure_of(ErrorReason.CANCELLED, "the plan was stopped"))
            case ReachLimit(failure):
                self.emit(PlanLimitReached(failure))
                self._tell_stop()
            case FinishPlan(state, failure):
                self._finish(state, failure)
            case _:
                assert_never(command)

    # --- steps

    def added(self, step: Step, references: References, *, round_number: int, now: datetime) -> None:
        """Add a step to the plan."""
        self.references[step.id] = references
        self.emit(StepAdded(step), step_id=step.id, round_number=round_number, now=now)

    def _resolved(self, step: Step) -> JsonObject:
        """Resolve a step's arguments from the outputs of the steps before it.

        Raises:
            ToolCallError: an output does not fit in, as data.
        """
        references = self.references.get(step.id)
        if references is None:
            references = self.references[step.id] = compile_references(step.arguments or {}, "arguments")

        return references.resolve(self._output_of, times_read=times_read if step.tool == PLAN_RUN else None)

    def _arguments(self, step: Step) -> tuple[JsonObject, Resolved]:
        """Resolve a step's arguments and check them in full, unless they were when it was planned and nothing has changed.

        Of a tool that is not there the digest is empty: the call will say so, and be made again.

        Raises:
            ToolCallError: they are not right, as data.
        """
        arguments, catalog = self._resolved(step), self.host.catalog
        if self.references[step.id].as_written:
            tool = catalog.get(step.tool)
            if tool is not None and tool.digest == step.tool_digest:
                return arguments, Resolved("", tool.digest, exact=True)

        return arguments, catalog.checked(step.tool, arguments)

    def _output_of(self, step_id: str) -> object:
        result = self.plan.steps[step_id].result
        return result.output if result is not None else None

    def _start(self, step_id: str, now: datetime) -> None:
        """Start a step; those that start together do so at one time, ``now``, or after what happened meanwhile."""
        host, step = self.host, self.plan.steps[step_id]
        added = step.added
        try:
            arguments, (text, checked, exact) = self._arguments(added)
        except ToolCallError as error:
            self.emit(StepFailed(error.failure), step_id=step_id, attempt=step.attempt)
            return

        matters = not step.child_plan_id and changes_matter(step)
        meant = self._accepted.get(step_id, added.tool_digest) if matters else ""
        if checked and matters and checked not in (added.tool_digest, meant):
            ask = changed_tool(step)
            self._ask(step_id, ask.reason, ask.message)
            return

        # Of a tool whose provider is away it is the call that will see whether it is the same when it is back.
        meant = checked if checked and meant else meant

        number = step.attempt + 1
        key = f"{self.plan.id}/{step_id}"
        small = len(text) <= host.limits.journaled_arguments_bytes
        child = host.child_of(step)
        digest = "" if small else digest_text(text)
        started = StepStarted(key, arguments if small else None, child, digest)
        self.emit(started, step_id=step_id, attempt=number, now=self._at(now))
        sequence = self.plan.sequence
        ahead = sequence - self.durable > host.limits.run_ahead
        waits = ahead or added.effect is not Effect.READ_ONLY
        right = checked if exact else ""
        attempt = Attempt(step_id, number, arguments, key, right, child, meant, sequence, waits)
        self.attempts[step_id] = attempt
        (self._launches if attempt.waits else self._ready).append(attempt)
        if not child:
            host.call_began()

    def _launch(self) -> None:
        """Let the calls that may leave the process by now stand in line for the loop."""
        turns = self.host.turns
        while self._ready:
            turns.call(self, self._ready.pop(0))

        launches = self._launches
        while launches and (launches[0].intent <= self.durable or not launches[0].waits):
            turns.call(self, launches.pop(0))

    def begin(self, attempt: Attempt) -> bool:
        """Start a call whose turn it is, unless it has been given up; gives whether it did."""
        if self.attempts.get(attempt.step_id) is not attempt:
            return False

        task = attempt.task = self.host.spawn(self, self._call(attempt))
        if attempt.child_plan_id:
            self.following[task] = None
            task.add_done_callback(self.following.pop)

        return True

    async def _call(self, attempt: Attempt) -> None:
        attempt.began = True
        outcome: Outcome
        try:
            outcome = await self.host.catalog.call(self._invocation(attempt), tool_digest=attempt.tool_digest)
        except ToolCallError as error:
            outcome = error.failure
        except AbandonedError:
            outcome = Stopped.ABANDONED
        except asyncio.CancelledError:
            outcome = Stopped.STOPPED
        except Exception:
            # The one boundary of an attempt: whatever goes wrong in a call is that call's failure.
            log.exception("a call broke", extra={"plan_id": self.plan.id, "step_id": attempt.step_id})
            outcome = failure_of(ErrorReason.TOOL_ERROR, "the call broke inside the server; its log says how")

        self._ended(attempt, outcome)

    def _invocation(self, attempt: Attempt) -> Invocation:
        step_id, number, plan = attempt.step_id, attempt.number, self.plan
        added = plan.steps[step_id].added
        return make_invocation(
            added.tool,
            attempt.arguments,
            attempt.key,
            added.timeout.total_seconds() if added.timeout is not None else 0.0,
            _make_context(plan.id, step_id, number, plan.principal, None, self._route),
            partial(self._progressed, step_id, number),
            partial(self._spent, step_id, number),
            self.host.artifacts(plan.id),
            attempt.checked,
            attempt.child_plan_id,
        )

    def _ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Record how a call ended."""
        if self.attempts.get(attempt.step_id) is not attempt:
            log.info(
                "a call that was given up has ended; its outcome is dropped",
                extra={"plan_id": self.plan.id, "step_id": attempt.step_id, "attempt": attempt.number},
            )
            return

        self._leave(attempt)
        if self.gone:
            return

        if isinstance(outcome, Stopped) and self.plan.stopping is None:
            outcome = Failure(ErrorReason.CANCELLED.name, DOMAIN, "the call stopped by itself", outcome_unknown=True)

        among_others = type(outcome) is ToolResult and len(self.plan.running) > 1 and self.plan.stopping is None
        self.turn(partial(self._record, attempt, outcome), may_wait=among_others)

    def _leave(self, attempt: Attempt) -> None:
        """Let go of an attempt, and give its place back; one that runs a sub-plan has none."""
        del self.attempts[attempt.step_id]
        if not attempt.child_plan_id:
            self.host.call_ended()

    def _part(self, step_id: str, usage: Usage | None) -> Usage | None:
        """Let go of a step's sub-plan, which is to stop if it has not ended; gives what it used."""
        if not self.children and not self.left:
            return usage

        child = self.children.pop(step_id, None)
        left = self.left.pop(step_id, None)
        if child is None:
            return usage or left

        usage = families.used(child)
        self.host.parted(child)
        return usage

    def _record(self, attempt: Attempt, outcome: Outcome) -> None:
        now = self.now()
        fact = judge(self.state, attempt.step_id, outcome, now, self.host.jitter)
        usage = self._part(attempt.step_id, attempt.usage)
        if not isinstance(fact, StepSucceeded):
            fact = self._charged(attempt, fact, usage)

        if isinstance(fact, AskPerson):
            self._ask(fact.step_id, fact.reason, fact.message)
        else:
            try:
                self.emit(fact, step_id=attempt.step_id, attempt=attempt.number, now=now)
            except (InternalError, ValueError) as error:
                # What a tool gave could not be written down; that is the call's failure, and the plan goes on.
                failure = Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, f"the output cannot be journaled: {error}")
                spent = outcome.usage if isinstance(outcome, ToolResult) else usage
                self.emit(StepFailed(failure, spent), step_id=attempt.step_id, attempt=attempt.number, now=now)

        self.host.feed.clear(self.plan.id, step_id=attempt.step_id)

    def _charged(self, attempt: Attempt, fact: Judgement, usage: Usage | None) -> Judgement:
        """Note what a call without a result has used: in its fact, or until its step has ended."""
        if isinstance(fact, (StepFailed, StepCancelled)):
            fact = replace(fact, usage=usage)
        elif usage is not None:
            self.left[attempt.step_id] = usage

        if attempt.spent is not None and isinstance(fact, (StepFailed, StepCancelled, StepRetryScheduled)):
            fact = replace(fact, usage=attempt.spent if fact.usage is None else fact.usage + attempt.spent)

        return fact

    def _attempt(self, step_id: str, number: int) -> Attempt | None:
        """Give a call that is under way; a call does not refer to its own attempt, or the two would be garbage together."""
        attempt = self.attempts.get(step_id)
        return attempt if attempt is not None and attempt.number == number else None

    def _spent(self, step_id: str, number: int, usage: Usage) -> None:
        attempt = self._attempt(step_id, number)
        if attempt is not None:
            attempt.spent = usage if attempt.spent is None else attempt.spent + usage

    def _progressed(self, step_id: str, number: int, progress: ToolProgress) -> None:
        attempt = self._attempt(step_id, number)
        if self.gone or attempt is None:
            return

        fact = StepProgressed(progress.fraction, progress.message, progress.data, attempt.told, progress.text)
        attempt.told += len(progress.text)
        self._live(fact, step_id=step_id, attempt=number)

    def _live(self, fact: Fact, *, step_id: str = "", attempt: int = 0, round_number: int = 0) -> None:
        """Show a fact that is never stored."""
        event = Event(
            self.plan.id,
            self.plan.sequence,
            self.now(),
            step_id,
            attempt,
            ephemeral=True,
            round=round_number,
            fact=fact,
        )
        self.host.feed.progress(event)

    def _ask(self, step_id: str, reason: WaitingReason, message: str) -> None:
        """Let a step wait for a person, who sees the arguments as they would be used."""
        step = self.plan.steps[step_id]
        made = reason is WaitingReason.OUTCOME_UNKNOWN
        try:
            # A call that was made is asked about, whatever its tool would say of its arguments by now.
            arguments = self._resolved(step.added) if made else self._arguments(step.added)[0]
        except ToolCallError as error:
            self.emit(StepFailed(error.failure), step_id=step_id, attempt=step.attempt)
            return

        waiting_timeout = self.state.options.waiting_timeout
        now = self.now()
        expire = now + waiting_timeout if waiting_timeout is not None else None
        self.emit(StepWaiting(reason, arguments, message, expire), step_id=step_id, attempt=step.attempt, now=now)

    def _cancel_step(self, step_id: str, fact: StepCancelled) -> None:
        step = self.plan.steps[step_id]
        attempt = self.attempts.get(step_id)
        if attempt is not None:
            self._leave(attempt)
            if attempt.task is not None:
                attempt.task.cancel()

        usage = self._part(step_id, attempt.usage if attempt is not None else None)
        self.emit(replace(fact, usage=usage), step_id=step_id, attempt=step.attempt)

    # --- stopping

    def cancel(self, reason: str, principal: str) -> None:
        """Stop the plan, unless it is being stopped already."""
        if self.plan.state.terminal or self.plan.stopping is not None:
            return

        def happened() -> None:
            self.emit(PlanCancelRequested(reason), principal=principal)
            self._tell_stop()

        self.turn(happened)

    def _tell_stop(self) -> None:
        """Tell every call to stop; those that have not left the process end at once."""
        for attempt in list(self.attempts.values()):
            if attempt.task is None or not attempt.began:
                self._leave(attempt)
                if attempt.task is not None:
                    attempt.task.cancel()

                self._record(attempt, Stopped.BEFORE_IT_BEGAN)
            else:
                attempt.task.cancel()

    # --- a person's decision

    def decided(self, step_id: str, sequence: int, decision: Decision, comment: str, principal: str) -> None:
        """Carry out a decision that was found to be allowed.

        Raises:
            InternalError: it is too large for an event; nothing has changed.
        """
        step = self.plan.steps[step_id]
        waiting = step.waiting
        number = step.attempt
        self.emit(StepResolved(sequence, decision, comment), step_id=step_id, attempt=number, principal=principal)
        self.turn(lambda: self._carry_out(step_id, waiting, number, decision))

    def _carry_out(self, step_id: str, waiting: Waiting | None, number: int, decision: Decision) -> None:
        match decision.kind:
            case ToolResult() as result:
                self.emit(StepSucceeded(result), step_id=step_id, attempt=number)
            case Reject(reason=reason):
                message = reason or "a person rejected it"
                self.emit(StepFailed(failure_of(ErrorReason.REJECTED, message)), step_id=step_id, attempt=number)
            case Approve() if waiting is not None and waiting.reason is WaitingReason.TOOL_CHANGED:
                tool = self.host.catalog.get(self.plan.steps[step_id].added.tool)
                if tool is not None:
                    self._accepted[step_id] = tool.digest
            case _:
                pass

    # --- rounds

    def _make(self, number: int, attempt: int) -> None:
        options = self.state.options
        planner = self.host.planners.get(options.planner)
        rejected = self.state.rejected
        self.emit(PlanningStarted(options.planner, options.model, attempt), round_number=number)
        making = self.making = Making(number, attempt)
        if planner is None:
            message = (
                f"there is no planner {options.planner!r} here; this server has {', '.join(sorted(self.host.planners))}"
            )
            self._fail_round(making, failure_of(ErrorReason.PLANNER_UNAVAILABLE, message))
            return

        view = self.view(number, attempt, rejected)
        making.task = self.host.spawn(self, self._plan_round(making, planner, view))

    def rules(self) -> Rules:
        """Give what the plan's drafts are checked against."""
        return Rules(self.host.catalog, self.state.options, self.host.limits, self.depth)

    def view(self, number: int, attempt: int, rejected: tuple[StepRejected, ...]) -> RoundView:
        """Give what the planner sees."""
        tools = self.rules().tools
        last = self.state.last
        return RoundView(self.plan.snapshot(), number, attempt, tools, rejected, self.state.steps_left, last)

    async def _plan_round(self, making: Making, planner: Planner, view: RoundView) -> None:
        failure: Failure | None = None
        limit = self.host.limits.round_timeout
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                if self.plan.created.context:
                    view = replace(view, context=await self.host.context_of(self.plan.created.context))

                async with _closing(planner.round(view)) as items:
                    async for item in items:
                        if self.making is not making or self.gone:
                            return

                        self._item(making, item)
        except PlannerError as error:
            failure = clean(error.failure)
        except (Exception, asyncio.CancelledError):
            if self.making is not making or self.gone:
                return

            if timer.expired():
                message = f"planner {planner.name!r} took longer than {limit:g} s for round {making.number}"
                failure = Failure(ErrorReason.PLANNER_TIMEOUT.name, DOMAIN, message, retryable=True)
            else:
                # The one boundary of a round: a planner that breaks fails its round.
                log.exception("a planner broke", extra={"plan_id": self.plan.id, "round": making.number})
                message = f"planner {planner.name!r} broke; the server's log says how"
                failure = failure_of(ErrorReason.PLANNER_FAILED, message)

        if self.making is not making or self.gone:
            return

        if failure is not None:
            self.turn(lambda: self._fail_round(making, failure))
        else:
            self.turn(lambda: self._finish_round(making))

    def _item(self, making: Making, item: RoundItem) -> None:
        match item:
            case StepDraft():
                making.drafts += 1
                self._draft(making, item)
                self.turn()
            case StepRejected(draft=draft, violations=violations):
                making.drafts += 1
                self._reject(making, draft, violations)
                self.turn()
            case AnswerText(text):
                offset, text = len(making.text), encodable(text)
                making.text += text
                if len(making.text) > self.host.limits.answer_bytes:
                    raise PlannerError(self._too_large("the answer"))

                if not making.drafts:
                    self._live(AnswerProgressed(making.attempt, offset, text), round_number=making.number)
            case AnswerOutput(output):
                making.output = output
            case Note(text):
                making.notes += encodable(text[: NOTES_CHARS - len(making.notes)])
            case Usage():
                making.usage = item if making.usage is None else making.usage + item
                making.meter = None
            case UsageMeter():
                making.meter = item
            case _:
                assert_never(item)

    def _draft(self, making: Making, draft: StepDraft) -> None:
        rules = self.rules()
        checked, violations = check_planned(draft, self.plan.steps, making.number, rules)
        bound = self._bound()
        if bound is not None:
            violations = [bound, *violations]

        if violations or checked is None:
            self._reject(making, draft, violations)
            return

        now = self.now()
        step = resolve(checked, rules, making.number, now)
        try:
            self.added(step, checked.references, round_number=making.number, now=now)
        except (InternalError, ValueError) as error:
            self._reject(making, draft, [Violation("", f"the step cannot be journaled: {error}", "INVALID")])

    def _reject(self, making: Making, draft: StepDraft | None, violations: Sequence[Violation]) -> None:
        """Refuse a draft. One that cannot be written down is told of by its names alone."""
        told = tuple(violations[:VIOLATIONS_MAX])
        step_id = encodable(draft.id[:64]) if draft is not None else ""
        try:
            self.emit(StepRejected(draft, told), step_id=step_id, round_number=making.number)
        except (InternalError, ValueError):
            told = tuple(
                Violation(one_line(each.field, NAME_CHARS), one_line(each.description, MESSAGE_MAX), each.reason)
                for each in told
            )
            if draft is not None:
                names = (one_line(name, NAME_CHARS) for name in (draft.title, draft.tool))
                draft = StepDraft(step_id, title=next(names), tool=next(names))

            self.emit(StepRejected(draft, told), step_id=step_id, round_number=making.number)

    def _bound(self) -> Violation | None:
        """Say why no step may be added any more, if that is so."""
        options = self.state.options
        if not options.enable_tool_call:
            return Violation(
                "tool", "this plan was made with enable_tool_call false: answer without steps", "MAX_STEPS"
            )

        if not self.state.steps_left:
            return Violation("", f"max_steps {options.max_steps} is used up: answer with what is known", "MAX_STEPS")

        if self.state.last:
            return Violation("", f"this is the last of max_rounds {options.max_rounds}: answer", "MAX_ROUNDS")

        return None

    def _finish_round(self, making: Making) -> None:
        self.making = None
        self.host.feed.clear(self.plan.id, round=making.number)
        text, notes = making.text, making.notes
        if making.drafts:
            text, notes = "", "\n".join(part for part in (notes, text) if part)[:NOTES_CHARS]

        if len(text.encode()) > self.host.limits.answer_bytes:
            self._failed(making, self._too_large("the answer"), None)
            return

        output = None if making.drafts else making.output
        try:
            self.emit(PlanningFinished(making.usage, notes, text, output), round_number=making.number)
        except InternalError:
            self._failed(making, self._too_large("the answer with its output"), None)
        except ValueError as error:
            message = f"the planner's output cannot be journaled: {error}"
            self._failed(making, failure_of(ErrorReason.PLANNER_FAILED, message), None)

    def _too_large(self, what: str) -> Failure:
        message = f"{what} is longer than limits.answer allows, {self.host.limits.answer_bytes} bytes"
        return failure_of(ErrorReason.ANSWER_TOO_LARGE, message)

    def _fail_round(self, making: Making, failure: Failure) -> None:
        """Record that a round failed, and when it will be made again if that may help."""
        self.making = None
        self.host.feed.clear(self.plan.id, round=making.number)
        again = failure.retryable and not self.plan.rounds[-1].steps_added and self.plan.stopping is None
        delay: timedelta | None = None
        if again and making.attempt < self.host.limits.round_attempts:
            delay = backoff(RETRY_POLICY, making.attempt, failure.retry_after, self.host.jitter)

        self._failed(making, failure, delay)

    def _failed(self, making: Making, failure: Failure, delay: timedelta | None) -> None:
        now = self.now()
        due = now + delay if delay is not None else None
        if making.meter is not None:
            failure = replace(failure, metadata={**failure.metadata, "usage": "estimated"})

        fact = PlanningFailed(failure, self._used(making), due, making.attempt)
        self.emit(fact, round_number=making.number, now=now)

    def _used(self, making: Making) -> Usage | None:
        """Give what a round used: what its planner told, and what its meter says if it was cut before that."""
        if making.meter is None:
            return making.usage

        try:
            metered = making.meter.read()
        except Exception:
            # A boundary: a planner whose meter is broken must not keep its round from ending.
            log.exception("a planner's meter broke", extra={"plan_id": self.plan.id, "round": making.number})
            return making.usage

        return metered if making.usage is None else making.usage + metered

    def _cut_round(self, failure: Failure) -> None:
        making = self.making
        if making is None:
            making = Making(self.plan.rounds[-1].number, self.plan.rounds[-1].attempts)

        if making.task is not None:
            making.task.cancel()

        self._fail_round(making, failure)

    # --- the end

    def _finish(self, state: PlanState, failure: Failure | None) -> None:
        plan = self.plan
        if state is PlanState.CANCELLED:
            self.emit(PlanCancelled(plan.usage))
            return

        answer, output = plan.answer, plan.output
        if not answer and output is None:
            answer = answers.lines(plan)
            bytes_max = self.host.limits.answer_bytes
            if not plan.rounds:
                output = answers.output_of_leaves(plan, bytes_max=bytes_max)
            elif isinstance(plan.stopping, PlanLimitReached):
                output = (
                    answers.output_of_leaves(plan, bytes_max=bytes_max) or None
                )  # what is known, without the planner

        try:
            self.emit(self._end(state, failure, answer, output))
        except InternalError:
            # Numbers take more room in an event than in JSON; what does not fit here is still with the steps.
            self.emit(self._end(state, failure, answer, None))

    def _end(self, state: PlanState, failure: Failure | None, answer: str, output: object) -> Fact:
        usage = self.plan.usage
        if state is PlanState.SUCCEEDED:
            return PlanSucceeded(answer, output, usage)

        return PlanFailed(failure, answer, output, usage)

    def let_go(self) -> list[asyncio.Task[None]]:
        """Stop deciding and recording; give the tasks that are still running, told to stop."""
        self.gone = True
        for sequence, future in self._waiters:
            if sequence >= self._out_first and not future.done():
                future.set_exception(self._not_held())

        self.host.timers.set(self, None)
        for attempt in list(self.attempts.values()):
            self._leave(attempt)

        self._ready.clear()
        self._launches.clear()
        for task in self.tasks:
            task.cancel()

        return list(self.tasks)
