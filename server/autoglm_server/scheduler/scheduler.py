"""The scheduler: the only writer. It holds the live plans, and carries out what callers ask for."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from autoglm._dataclasses import dataclass, maker
from autoglm._ids import new_id
from autoglm.errors import AutoglmError, InternalError, InvalidRequestError, NotFoundError, error
from autoglm.fold import PlanFold
from autoglm.model import (
    Approve,
    Budget,
    ContextItem,
    ContextMessage,
    CreatePlanRequest,
    Decision,
    ErrorReason,
    Event,
    Plan,
    PlanCreated,
    PlanOptions,
    Reject,
    Retry,
    StepDraft,
    StepRef,
    StepRejected,
    StepState,
    ToolResult,
    UnknownOutcomeAction,
    Usage,
    Violation,
    WaitingReason,
)
from autoglm.wire import decode, digest_text, encode, to_json
from autoglm_server.journal.journal import (
    DuplicateRequestError,
    EventsRemovedError,
    FencedError,
    JournalDamagedError,
    RequestKey,
)
from autoglm_server.planner.llm.models import EXTRA_LINE
from autoglm_server.planner.planner import OptionsChecker, PlannerError
from autoglm_server.scheduler import families
from autoglm_server.scheduler.admission import Admission
from autoglm_server.scheduler.drafts import Checked, Checks, Rules, check_given, check_planned, resolve
from autoglm_server.scheduler.forms import Beginnings
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.recovery import PAGE, PARENT_ENDED, Recovery
from autoglm_server.scheduler.run import PlanRun
from autoglm_server.scheduler.state import State
from autoglm_server.scheduler.timers import Timers
from autoglm_server.scheduler.turns import Turns
from autoglm_server.tools.artifacts import described
from autoglm_server.tools.tool import PLAN_RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from autoglm.fold import StepFold
    from autoglm_server.clock import Clock
    from autoglm_server.journal.follow import Cursor, Feed
    from autoglm_server.journal.journal import Journal
    from autoglm_server.planner.planner import Planner
    from autoglm_server.scheduler.subplans import SubPlans
    from autoglm_server.tools.artifacts import Sinks
    from autoglm_server.tools.catalog import Catalog

log = logging.getLogger(__name__)

_RETRY_LATER = timedelta(seconds=5)
_STEPS_BESIDE = 200
"""A request of more given steps than this is made into a plan beside the loop, which others need meanwhile."""
_OPTIONS_MAX = 256
"""So many options are known with their defaults filled in; what reads requests gives those that are alike as one object."""
_CUT_SECONDS = 2.0
"""How long calls that are cut at the end of a drain may take to notice."""

_ALLOWED: Mapping[WaitingReason, tuple[type, ...]] = {
    WaitingReason.APPROVAL: (Approve, Reject, ToolResult),
    WaitingReason.OUTCOME_UNKNOWN: (Retry, Reject, ToolResult),
    WaitingReason.TOOL_CHANGED: (Approve, Reject, ToolResult),
    WaitingReason.INPUT: (Reject, ToolResult),
}
"""What may be decided of a step that waits for this reason."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a request for a plan, serialised: ``basic`` followed by ``rest`` is the plan in view FULL.

    (Of two messages one after the other protobuf makes one that has the fields of both.)
    """

    plan_id: str
    basic: bytes
    rest: bytes
    existing: bool = False
    """Whether the request had made the plan before."""

    @classmethod
    def of(cls, plan: Plan, *, existing: bool = False) -> Submitted:
        """Tell of a plan as it is."""
        rest = Plan(steps=plan.steps, rounds=plan.rounds, context=plan.context)
        return cls(plan.id, encode(replace(plan, steps=(), rounds=(), context=())), encode(rest), existing)


_make_created, _make_submitted = maker(PlanCreated), maker(Submitted)


class Scheduler:
    """Holds the live plans. One instance a process; everything happens on its loop."""

    def __init__(
        self,
        *,
        journal: Journal,
        feed: Feed,
        catalog: Catalog,
        planners: Mapping[str, Planner],
        clock: Clock,
        jitter: Callable[[], float],
        defaults: PlanOptions,
        limits: Limits | None = None,
        artifacts: Sinks = described,
        subplans: SubPlans | None = None,
    ) -> None:
        """Take the ports. ``defaults`` fills in what a request leaves open; ``jitter`` gives a number from 0 to 1.

        ``artifacts`` gives where the files of a plan's calls go; ``subplans`` is the catalog's provider of ``plan.run``.
        """
        self.journal = journal
        self.feed = feed
        self.catalog = catalog
        self.planners = planners
        self.clock = clock
        self.jitter = jitter
        self.artifacts = artifacts
        self.defaults = defaults
        self._rules: dict[int, tuple[PlanOptions | None, PlanOptions, Rules]] = {}
        """What requests with the same options are held to, by which object these are, and of which defaults it was made."""
        self.limits = limits or Limits()
        self.timers = Timers(clock)
        self.turns = Turns(self._starving_of_the_loop)
        self.owner = new_id()
        """New at every start of a process, so that nobody mistakes an earlier one for this one."""
        self._checks = Checks()
        self._beginnings = Beginnings()
        self._runs: dict[str, PlanRun] = {}
        self._admission = Admission(self.limits.running_plans)
        self._starving: dict[PlanRun, None] = {}
        """Plans that wait for a place for a call, in the order in which they came."""
        self._serving = False
        self._calls = 0
        self._draining = False
        self._recovery = Recovery(self)
        self._subplans = subplans
        if subplans is not None:
            subplans.bind(self, depth=self.limits.plan_depth)

    # --- life

    async def start(self) -> None:
        """Claim every plan that has not ended, and begin to take them up."""
        await self._recovery.start()

    async def drain(self, seconds: float) -> None:
        """Start no call any more, and give those under way ``seconds`` to end."""
        self._draining = True
        self._recovery.pause()
        end = self.clock.monotonic() + seconds
        while (tasks := self._busy_tasks()) or self.turns:
            left = end - self.clock.monotonic()
            if left <= 0:
                break

            if not tasks:
                await asyncio.sleep(0)  # whose turn it is in the next pass
                continue

            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    def _busy_tasks(self) -> list[asyncio.Task[None]]:
        """Give what may end by itself; calls that follow a sub-plan go on at the next start, as that does."""
        return [task for run in self._runs.values() for task in run.tasks if task not in run.following]

    async def stop(self) -> None:
        """Cut what is still running; it is dealt with at the next start."""
        self._draining = True
        await self._recovery.stop()
        self.timers.stop()
        tasks: list[asyncio.Task[None]] = []
        for run in list(self._runs.values()):
            run.turn_if_due()  # what has ended is not to be done again
            tasks += run.let_go()

        self._runs.clear()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=_CUT_SECONDS)
            for task in pending:
                task.cancel()

            if pending:
                log.warning("%d calls did not stop and are abandoned with the process", len(pending))
                await asyncio.wait(pending, timeout=_CUT_SECONDS)

    def journal_health_changed(self) -> None:
        """Let reads go on without what cannot be written for now; go on when it can be again."""
        if self.journal.damaged:
            self._recovery.let_go()

        for run in list(self._runs.values()):
            if self.journal.damaged:
                self.lost(run, JournalDamagedError(self.journal.damaged))
            elif self.journal.stalled:
                run.stalled()
            elif run.durable:  # one that is still being created begins when it is
                run.turn()

    @property
    def busy(self) -> bool:
        """Whether a plan can make progress."""
        return self.progressing > 0

    @property
    def progressing(self) -> int:
        """How many plans make progress, or would if it were their turn."""
        return len(self._admission) + len(self._recovery)

    @property
    def open_plans(self) -> int:
        """How many plans are held, or are to be."""
        return len(self._runs) + len(self._recovery)

    @property
    def runs(self) -> Mapping[str, PlanRun]:
        """The plans that are held."""
        return self._runs

    def hold(self, run: PlanRun) -> None:
        """Hold a plan that was taken up."""
        self._runs[run.plan.id] = run

    async def _held(self, plan_id: str) -> PlanRun | None:
        """Give a plan that is held; one that was claimed and not taken up yet is taken up now."""
        await self._recovery.want(plan_id)
        return self._runs.get(plan_id)

    def tick(self) -> None:
        """Wake what is due by now; for tests that move a fake clock."""
        self.timers.tick()

    # --- what a live plan asks for (run.Host)

    @property
    def holding(self) -> bool:
        """Whether no call and no round may start."""
        return self._draining or bool(self.journal.stalled or self.journal.damaged)

    def places(self) -> int:
        """How many calls may start, over all plans."""
        return self.limits.running_calls - self._calls

    def call_began(self) -> None:
        """Take a place."""
        self._calls += 1

    def call_ended(self) -> None:
        """Give a place back, to the plan that has waited longest for one."""
        self._calls -= 1
        if self._starving and not self._serving:
            self._serving = True
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        self._serving = False
        for run in list(self._starving):
            if self.places() <= 0:
                break

            self._starving.pop(run, None)
            run.turn()

    def starving(self, run: PlanRun, *, starved: bool) -> None:
        """Note whether the plan could start more calls if there were places."""
        if starved:
            self._starving.setdefault(run)
        else:
            self._starving.pop(run, None)

    def _starving_of_the_loop(self) -> int:
        """Give how many plans wait for a place among calls of which most only wait for their turn."""
        return len(self._starving) if 2 * len(self.turns) > self.limits.running_calls else 0

    def moved(self, run: PlanRun) -> None:
        """Let a plan that only waits, or has ended, leave its place to the next in the queue."""
        root = run if run.parent is None else families.root_of(run)
        rests = families.rests(root)
        if rests == (root.admitted or root.queued):
            if rests:
                self._leave(root)
            else:
                self.enter(root)
                if root.admitted:
                    self._turn_soon(root)

    def enter(self, run: PlanRun) -> None:
        """Let a plan make progress, when there is a place for it."""
        self._admission.enter(run)

    def _leave(self, run: PlanRun) -> None:
        for following in self._admission.leave(run):
            self._turn_soon(following)

    def _turn_soon(self, root: PlanRun) -> None:
        for member in families.members(root):
            asyncio.get_running_loop().call_soon(member.turn)

    def began(self, run: PlanRun) -> None:
        """Let a plan run that has become durable."""
        if run.parent is None:
            self._admission.enter(run)
            if run.queued and run.plan.sequence == run.durable and run.plan.stopping is None:
                return  # it is not its turn yet, and nothing has happened since it was made

        run.turn()

    def ended(self, run: PlanRun) -> None:
        """Let go of a plan whose end is durable."""
        run.gone = True
        self.timers.set(run, None)
        self._forget(run)
        log.info("plan %s", run.plan.state.name.lower(), extra={"plan_id": run.plan.id, "sequence": run.plan.sequence})

    def lost(self, run: PlanRun, error: Exception) -> None:
        """Let go of a plan that this process may not or cannot go on with."""
        if run.gone:
            return

        run.let_go()
        self.feed.release(run.plan.id)
        self._forget(run)
        if isinstance(error, FencedError):
            log.warning("another process has taken the plan up", extra={"plan_id": run.plan.id})

    def _forget(self, run: PlanRun) -> None:
        self._runs.pop(run.plan.id, None)
        self._starving.pop(run, None)
        self._leave(run)
        for child in run.children.values():
            self._set_free(child)

        run.children.clear()

    # --- what plan.run asks for (SubPlanPort), and what comes of it

    def child_of(self, step: StepFold) -> str:
        """Give the id of the plan that the step's next call runs as its own; empty if its tool makes none."""
        if self._subplans is None or step.added.tool != PLAN_RUN:
            return ""

        return step.child_plan_id or new_id()

    async def begin_child(self, parent: StepRef, plan_id: str, request: CreatePlanRequest) -> None:
        """Make a sub-plan of a step, durable when this returns; one that is there is taken up.

        Raises:
            AutoglmError: it cannot be made.
            ToolCallError: there is nothing left for it to use.
        """
        child = self._runs.get(plan_id)
        known = child is not None or await self.journal.last_sequence(plan_id) is not None
        holder = self._runs.get(parent.plan_id)
        if holder is None or (self._draining and not known):
            await asyncio.get_running_loop().create_future()  # until the call is cut; the next start makes it again

        assert holder is not None
        if child is not None:
            self.join(holder, parent.step_id, child)
            await child.until_durable(1)
        elif not known:
            await self._create_child(holder, parent, plan_id, request)

    async def _create_child(self, holder: PlanRun, parent: StepRef, plan_id: str, request: CreatePlanRequest) -> None:
        child = self._new_child(holder, parent, plan_id, request)
        self._runs[plan_id] = child
        self.join(holder, parent.step_id, child)
        child.flush()
        try:
            await child.until_durable(child.plan.sequence)
        except (DuplicateRequestError, FencedError):
            holder.children.pop(parent.step_id, None)
            message = f"request_id {request.request_id!r} was used for another plan; plan it anew, under another id"
            raise error(ErrorReason.REQUEST_ID_CONFLICT, message, plan_id=plan_id) from None

    def _new_child(self, holder: PlanRun, parent: StepRef, plan_id: str, request: CreatePlanRequest) -> PlanRun:
        if holder.depth >= self.limits.plan_depth:
            told = f"the plan is {holder.depth} deep in others, and limits.plan_depth is {self.limits.plan_depth}"
            raise error(ErrorReason.INVALID_REQUEST, told)

        self._refuse_above_limit()
        share = families.share_of(holder, self.clock.monotonic())
        asked = request.options or PlanOptions()
        narrowed = families.options_of_child(asked, share, self.catalog, plans=bool(request.request))
        created = holder.plan.created
        request = replace(request, options=narrowed, labels=created.labels, context_id=created.context_id)
        rules = self._rules_of(request)
        checked, violations = self._check(request, replace(rules, depth=holder.depth + 1))
        if violations:
            raise InvalidRequestError.of(violations)

        digest = digest_text(to_json(replace(request, request_id="")))
        principal = holder.plan.principal
        child, _, _ = self._new(request, checked, rules, principal, digest, plan_id=plan_id, parent=parent)
        child.depth = holder.depth + 1
        child.request_key = RequestKey("", principal, request.request_id, digest)
        return child

    def join(self, holder: PlanRun, step_id: str, child: PlanRun) -> None:
        """Put a sub-plan below the plan whose step waits for it."""
        if child.parent is None and not child.gone:
            self._leave(child)
            child.parent = holder
            holder.children[step_id] = child
            holder.left.pop(step_id, None)

    def stop_child(self, parent: StepRef, plan_id: str) -> bool:
        """Ask a sub-plan to stop; False if it is only this process that lets go of the plan above it."""
        holder, child = self._runs.get(parent.plan_id), self._runs.get(plan_id)
        if holder is None or holder.gone:
            return False

        if child is not None:
            child.cancel(PARENT_ENDED, "")

        return True

    async def has_child(self, plan_id: str) -> bool:
        """Say whether there is such a sub-plan; of one that is being made, when that is known."""
        child = self._runs.get(plan_id)
        if child is not None:
            with suppress(DuplicateRequestError, FencedError):
                return await child.until_durable(1)

        return await self.journal.last_sequence(plan_id) is not None

    def child_used(self, parent: StepRef, usage: Usage) -> None:
        """Take in what a sub-plan has used by now."""
        holder = self._runs.get(parent.plan_id)
        attempt = holder.attempts.get(parent.step_id) if holder is not None else None
        if attempt is not None:
            attempt.usage = usage

    def follow_child(self, plan_id: str) -> Cursor:
        """Give a cursor at the start of a sub-plan's log."""
        return self.feed.follow(plan_id)

    def parted(self, child: PlanRun) -> None:
        """Let a sub-plan go whose step has ended: if it has not, it is to stop."""
        self._set_free(child)
        if not child.plan.state.terminal:
            asyncio.get_running_loop().call_soon(child.cancel, PARENT_ENDED, "")

    def _set_free(self, child: PlanRun) -> None:
        """Let a sub-plan stand for itself."""
        child.parent = None
        if not child.gone and not child.plan.state.terminal:
            self.enter(child)
            self._turn_soon(child)

    def spawn(self, run: PlanRun, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that the plan owns; it is cancelled and awaited when the plan is let go of."""
        task = asyncio.get_running_loop().create_task(work)
        run.tasks[task] = None
        task.add_done_callback(run.tasks.pop)
        return task

    # --- what callers ask for (PlanPort)

    def _rules_of(self, request: CreatePlanRequest) -> Rules:
        """Fill in every default of a request's options: what a plan is created with never changes with the configuration."""
        asked, defaults, limits = request.options, self.defaults, self.limits
        known = self._rules.get(id(asked))
        if known is not None and known[0] is asked and known[1] is defaults and known[2].limits is limits:
            return known[2]

        rules = Rules(self.catalog, self._filled_in(asked or PlanOptions()), limits)
        if len(self._rules) >= _OPTIONS_MAX:
            self._rules.clear()

        self._rules[id(asked)] = asked, defaults, rules
        return rules

    def _filled_in(self, asked: PlanOptions) -> PlanOptions:
        default = self.defaults
        return PlanOptions(
            max_steps=default.max_steps if asked.max_steps is None else asked.max_steps,
            enable_tool_call=default.enable_tool_call if asked.enable_tool_call is None else asked.enable_tool_call,
            max_rounds=default.max_rounds if asked.max_rounds is None else asked.max_rounds,
            timeout=asked.timeout or default.timeout,
            waiting_timeout=asked.waiting_timeout or default.waiting_timeout,
            max_parallel_steps=asked.max_parallel_steps or default.max_parallel_steps,
            planner=asked.planner or default.planner,
            model=asked.model or default.model,
            allowed_tools=asked.allowed_tools or default.allowed_tools,
            approval_tools=tuple(dict.fromkeys((*default.approval_tools, *asked.approval_tools))),
            on_unknown_outcome=asked.on_unknown_outcome or default.on_unknown_outcome or UnknownOutcomeAction.WAIT,
            budget=_budget(asked.budget, default.budget),
        )

    def check(self, request: CreatePlanRequest) -> list[Violation]:
        """Give every fault of the request that takes the catalog and the other steps to find."""
        return self._check(request, self._rules_of(request))[1]

    def _check(
        self, request: CreatePlanRequest, rules: Rules, *, again: bool = False
    ) -> tuple[list[Checked], list[Violation]]:
        check = self._checks.check if again else check_given
        checked, violations = check(request.steps, rules)
        if request.request:
            violations += self._check_planner(rules.options)

        if request.steps and not rules.options.enable_tool_call:
            description = "given steps call tools, but options.enable_tool_call is false; leave one of them out"
            violations.append(Violation("options.enable_tool_call", description, "CONFLICT"))

        return checked, violations

    def _check_planner(self, options: PlanOptions) -> list[Violation]:
        planner: object = self.planners.get(options.planner)
        if planner is None:
            known = ", ".join(sorted(self.planners))
            needs = f"; models need {EXTRA_LINE} where it runs" if options.planner == "llm" else ""
            description = f"there is no planner {options.planner!r}; this server has: {known}{needs}"
            return [Violation("options.planner", description, "UNKNOWN_PLANNER")]

        return list(planner.check(options)) if isinstance(planner, OptionsChecker) else []

    async def _check_context(self, items: Sequence[ContextItem]) -> list[Violation]:
        violations: list[Violation] = []
        for index, item in enumerate(items):
            if isinstance(item.item, str) and not await self.context_of([item]):
                description = f"there is no plan {item.item[:64]!r}; name one that this server still keeps"
                violations.append(Violation(f"context[{index}].plan_id", description, "UNKNOWN_PLAN"))

        return violations

    async def context_of(self, items: Sequence[ContextItem]) -> tuple[Plan | ContextMessage, ...]:
        """Give what came before a request; earlier plans that are gone are left out."""
        found: list[Plan | ContextMessage] = []
        for item in items:
            match item.item:
                case ContextMessage() as message:
                    found.append(message)
                case str(plan_id):
                    with suppress(NotFoundError):
                        found.append(await self.get(plan_id))
                case None:
                    pass

        return tuple(found)

    async def create(self, request: CreatePlanRequest, *, principal: str, digest: str) -> tuple[Plan, bool]:
        """Do as :meth:`submit`, and give the plan as a value: for who is in this process."""
        made = await self.submit(request, principal=principal, digest=digest)
        return decode(Plan, made.basic + made.rest), made.existing

    async def submit(
        self, request: CreatePlanRequest, *, principal: str, digest: str, again: bool = False
    ) -> Submitted:
        """Create a plan, or find the one that this request made before.

        ``again``: a request whose parts are these very objects was asked for before, and is small.

        Raises:
            InvalidRequestError: with every violation.
            ConflictError: the request_id was used with other content.
            LimitError: too many plans are open, or the disk is full.
            UnavailableError: the server is going away.
        """
        rules, beside = self._rules_of(request), len(request.steps) > _STEPS_BESIDE
        if beside:
            checked, violations = await asyncio.to_thread(self._check, request, rules)
        else:
            checked, violations = self._check(request, rules, again=again)

        if request.context:
            violations += await self._check_context(request.context)

        if violations:
            known = await self._known(request.request_id, principal, digest)
            if known is not None:
                return Submitted.of(known, existing=True)

            raise InvalidRequestError.of(violations)

        if request.validate_only:
            return Submitted.of(await self._dry_run(request, checked, rules, principal))

        try:
            self._refuse_when_full()
        except AutoglmError:
            known = await self._known(request.request_id, principal, digest)
            if known is None:
                raise

            return Submitted.of(known, existing=True)

        key = RequestKey("", principal, request.request_id, digest) if request.request_id else None
        if beside:
            made = await asyncio.to_thread(self._new, request, checked, rules, principal, digest)
            self._refuse_when_full()
        else:
            made = self._new(request, checked, rules, principal, digest)

        run, basic, rest = made
        plan = run.plan
        self._runs[plan.id] = run
        run.request_key = key
        run.flush(basic)  # it goes on also when the caller does not wait any more
        try:
            await run.durable_soon(plan.sequence)
        except DuplicateRequestError as duplicate:
            if duplicate.request_digest != digest:
                told = request.request_id
                message = f"request_id {told!r} made plan {duplicate.plan_id} from another request; use a new one"
                raise error(ErrorReason.REQUEST_ID_CONFLICT, message, plan_id=duplicate.plan_id) from None

            return Submitted.of(await self.get(duplicate.plan_id), existing=True)
        except FencedError:
            message = "another process has taken the plan up; ask again"
            raise error(ErrorReason.SERVER_DRAINING, message, plan_id=plan.id) from None

        return _make_submitted(plan.id, basic, rest)

    async def _known(self, request_id: str, principal: str, digest: str) -> Plan | None:
        """Give the plan that this very request made before, whatever became of its tools since."""
        found = await self.journal.find_request("", principal, request_id) if request_id else None
        return await self.get(found[0]) if found is not None and found[1] == digest else None

    def _refuse_when_full(self) -> None:
        if self._draining:
            raise error(ErrorReason.SERVER_DRAINING, "the server is shutting down; ask another or try again")

        if self.journal.damaged:
            raise error(ErrorReason.JOURNAL_DAMAGED, self.journal.damaged)

        if self.journal.stalled:
            message = f"the journal cannot be written: {self.journal.stalled}; make room and try again"
            raise error(ErrorReason.JOURNAL_FULL, message, retry_after=_RETRY_LATER)

        self._refuse_above_limit()

    def _refuse_above_limit(self) -> None:
        if len(self._runs) + len(self._recovery) >= self.limits.open_plans:  # as open_plans is, without a call
            message = f"{self.open_plans} plans are open, the limit limits.open_plans; try again when some have ended"
            raise error(
                ErrorReason.TOO_MANY_PLANS, message, retry_after=_RETRY_LATER, limit=str(self.limits.open_plans)
            )

    def _new(
        self,
        request: CreatePlanRequest,
        checked: list[Checked],
        rules: Rules,
        principal: str,
        digest: str,
        *,
        plan_id: str = "",
        parent: StepRef | None = None,
    ) -> tuple[PlanRun, bytes, bytes]:
        """Give a new plan, which has its first events; and it in view BASIC, and what view FULL has besides."""
        run = self._blank(rules.options, plan_id)
        created = _make_created(
            request.request,
            rules.options,
            request.labels,
            request.request_id,
            digest,
            parent,
            request.context_id,
            request.context,
        )
        return run, *self._beginnings.begin(run, created, checked, principal, rules)

    def _blank(self, options: PlanOptions, plan_id: str = "") -> PlanRun:
        """Give a plan that has no events yet."""
        planner = self.planners.get(options.planner)
        state = State(PlanFold(plan_id or new_id()), self.limits, revises=planner is not None and planner.revises)
        return PlanRun(self, state, 1, 0)

    async def _dry_run(self, request: CreatePlanRequest, checked: list[Checked], rules: Rules, principal: str) -> Plan:
        """Show the plan that would run, without an id: the given steps, or the first round's.

        Nothing is written and nothing is called.
        """
        run, _, _ = self._new(request, checked, rules, principal, "")
        planner = self.planners.get(rules.options.planner)
        if not request.request or request.steps or planner is None:
            return replace(run.plan.snapshot(), id="")

        drafts: list[Checked] = []
        violations: list[Violation] = []
        try:
            view = replace(run.view(1, 1, ()), context=await self.context_of(request.context))
            async for item in planner.round(view):
                if isinstance(item, StepRejected):
                    violations += item.violations

                if not isinstance(item, StepDraft):
                    continue

                one, faults = check_planned(item, run.plan.steps, 1, rules)
                violations += [replace(fault, field=f"steps[{len(drafts)}].{fault.field}") for fault in faults]
                if one is not None:
                    drafts.append(one)
                    now = run.now()
                    run.added(resolve(one, rules, 1, now), one.references, round_number=1, now=now)
        except PlannerError as refused:
            failure = refused.failure
            found = failure.violations or (Violation("request", failure.message, failure.reason),)
            raise InvalidRequestError(failure.message, reason=failure.reason, violations=found) from None

        if violations:
            raise InvalidRequestError.of(violations)

        return replace(run.plan.snapshot(), id="")

    async def get(self, plan_id: str) -> Plan:
        """Give a plan as it is; durable up to its sequence. While nothing can be written, as it was when that began.

        Raises:
            NotFoundError: there is no such plan.
        """
        run = await self._held(plan_id)
        if run is not None:
            snapshot = await self._durable(run, reads=True)
            if snapshot is not None:
                return snapshot

        try:
            fold = await self._fold(plan_id)
        except EventsRemovedError:
            snapshot_bytes = await self.journal.get_snapshot(plan_id)
            if snapshot_bytes is None:
                raise _no_plan(plan_id) from None

            return decode(Plan, snapshot_bytes)

        if not fold.sequence:
            raise _no_plan(plan_id)

        return fold.snapshot()

    async def _acknowledged(self, run: PlanRun) -> Plan:
        """Give the plan as it is now, when it is durable."""
        snapshot = await self._durable(run, reads=False)
        assert snapshot is not None
        return snapshot

    async def _durable(self, run: PlanRun, *, reads: bool) -> Plan | None:
        """Give the plan as it is now, when it is durable; None to who only reads while the journal is stalled."""
        snapshot = run.plan.snapshot()
        try:
            durable = await run.until_durable(snapshot.sequence, reads=reads)
        except DuplicateRequestError:
            raise error(ErrorReason.PLAN_NOT_FOUND, f"there is no plan {run.plan.id!r}") from None
        except FencedError:
            message = "another process has taken the plan up; ask again"
            raise error(ErrorReason.SERVER_DRAINING, message, plan_id=run.plan.id) from None

        return snapshot if durable else None

    async def cancel(self, plan_id: str, *, reason: str, principal: str) -> Plan:
        """Ask a plan to stop; the request is durable when it returns. A finished plan is left as it is."""
        run = await self._held(plan_id)
        if run is None:
            plan = await self.get(plan_id)
            self._must_have_ended(plan)
            return plan

        run.cancel(reason, principal)
        return await self._acknowledged(run)

    async def resolve(
        self, plan_id: str, step_id: str, *, wait_sequence: int, decision: Decision, comment: str, principal: str
    ) -> Plan:
        """Decide for a step that waits: the first decision wins, the same one again is fine.

        Raises:
            NotFoundError: no such plan or step.
            InvalidRequestError: DECISION_NOT_ALLOWED for what it waits for.
            PreconditionError: it does not wait, or was decided otherwise.
            AbortedError: it waits anew since ``wait_sequence``.
        """
        run = await self._held(plan_id)
        try:
            plan = run.plan if run is not None else await self._fold(plan_id)
        except EventsRemovedError:
            raise _decided_long_ago(await self.get(plan_id), step_id) from None

        if not plan.sequence:
            raise _no_plan(plan_id)

        if step_id not in plan.steps:
            raise error(ErrorReason.STEP_NOT_FOUND, f"plan {plan_id} has no step {step_id!r}", step_id=step_id)

        try:
            due = _must_wait(plan, step_id, wait_sequence, decision)
        except AutoglmError:
            if run is not None:
                await self._acknowledged(run)  # what it is refused for must have happened for good, as all that is told

            raise

        if run is None:
            snapshot = plan.snapshot()
            self._must_have_ended(snapshot)
            return snapshot

        if due:
            waiting = plan.steps[step_id].waiting
            try:
                run.decided(step_id, waiting.sequence if waiting is not None else 0, decision, comment, principal)
            except InternalError as large:
                fault = Violation(
                    "decision.result", f"{large}, too many to be journaled; give a smaller one", "TOO_LARGE"
                )
                raise InvalidRequestError.of([fault]) from None

        return await self._acknowledged(run)

    def _must_have_ended(self, plan: Plan) -> None:
        """Refuse what only the holder of a plan can do, when nobody here holds it."""
        if plan.state.terminal:
            return

        if self.journal.damaged:
            raise error(ErrorReason.JOURNAL_DAMAGED, self.journal.damaged)

        message = f"this server does not hold plan {plan.id} now (its log says why); try again later"
        raise error(ErrorReason.SERVER_DRAINING, message, plan_id=plan.id)

    async def _fold(self, plan_id: str) -> PlanFold:
        fold = PlanFold(plan_id)
        while bodies := await self.journal.read(plan_id, fold.sequence, limit=PAGE):
            for body in bodies:
                fold.apply(decode(Event, body))

        return fold


def _budget(asked: Budget | None, default: Budget | None) -> Budget | None:
    """Fill in each bound that was left out; None if there is none at all."""
    if asked is None or default is None:
        return asked or default

    return Budget(
        max_tokens=default.max_tokens if asked.max_tokens is None else asked.max_tokens,
        max_tool_calls=default.max_tool_calls if asked.max_tool_calls is None else asked.max_tool_calls,
        max_rounds=default.max_rounds if asked.max_rounds is None else asked.max_rounds,
        max_duration=asked.max_duration or default.max_duration,
    )


def _no_plan(plan_id: str) -> AutoglmError:
    return error(ErrorReason.PLAN_NOT_FOUND, f"there is no plan {plan_id!r}", plan_id=plan_id)


def _decided_long_ago(plan: Plan, step_id: str) -> AutoglmError:
    """Refuse a decision on a plan whose events have gone, and with them who decided what."""
    step = next((step for step in plan.steps if step.id == step_id), None)
    if step is None:
        return error(ErrorReason.STEP_NOT_FOUND, f"plan {plan.id} has no step {step_id!r}", step_id=step_id)

    message = f"step {step_id} is {step.state.name} and does not wait for a decision"
    return error(ErrorReason.STEP_NOT_WAITING, message, state=step.state.name)


def _must_wait(plan: PlanFold, step_id: str, wait_sequence: int, decision: Decision) -> bool:
    """Whether the decision is to be carried out; False if it was already.

    Raises:
        AutoglmError: it cannot be.
    """
    step = plan.steps[step_id]
    waiting, decided = step.waiting, step.decided
    if waiting is None or step.state is not StepState.WAITING:
        if decided is None:
            message = f"step {step_id} is {step.state.name} and does not wait for a decision"
            raise error(ErrorReason.STEP_NOT_WAITING, message, state=step.state.name)

        sequence, earlier = decided
        if wait_sequence not in (0, sequence):
            raise _wait_changed(step_id, wait_sequence, sequence)

        if earlier != decision:
            kind = type(earlier.kind).__name__.lower()
            raise error(
                ErrorReason.STEP_ALREADY_RESOLVED, f"step {step_id} was resolved already, by {kind}", decision=kind
            )

        return False

    if wait_sequence not in (0, waiting.sequence):
        raise _wait_changed(step_id, wait_sequence, waiting.sequence)

    allowed = _ALLOWED[waiting.reason]
    if not isinstance(decision.kind, allowed):
        names = ", ".join("result" if kind is ToolResult else kind.__name__.lower() for kind in allowed)
        given = type(decision.kind).__name__.lower()
        message = f"step {step_id} waits for {waiting.reason.name}, which takes {names}, not {given}"
        raise error(ErrorReason.DECISION_NOT_ALLOWED, message, waits_for=waiting.reason.name)

    return True


def _wait_changed(step_id: str, asked: int, current: int) -> AutoglmError:
    told = "is over" if asked < current else "has not been"
    message = f"step {step_id}: wait {asked} {told}, the newest is {current}; look at it and decide anew"
    return error(ErrorReason.WAIT_CHANGED, message, wait_sequence=str(current))
