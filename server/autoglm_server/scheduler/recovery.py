"""Taking up, at a start, the plans that have not ended: families and the oldest at once, the rest beside callers.

All are claimed before the server serves, so each is this process's from then on. Folding them takes its time: those that are
left are taken up oldest first, some at a time, and one that is asked for at once. Nobody can tell whether a plan has been taken
up: it is before anything is said or done about it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import chain, islice
from typing import TYPE_CHECKING, Protocol

from autoglm.errors import InternalError
from autoglm.fold import PlanFold
from autoglm.model import Event, Plan, PlanCreated, PlanResumed, UnknownFact, Usage
from autoglm.wire import decode
from autoglm_server.journal.journal import JournalDamagedError, JournalError
from autoglm_server.scheduler.run import Host, PlanRun
from autoglm_server.scheduler.state import State, apply, clamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from autoglm.model import StepRef
    from autoglm_server.journal.journal import Claim

log = logging.getLogger(__name__)

PAGE = 2_000
"""Events read at once when a plan is folded from disk."""
_READ_AHEAD = 32
"""Of how many plans the first pages are read at once, while as many are folded."""
_AT_ONCE = 16
"""How many plans are taken up beside callers before these have the loop."""
_EVENTS = 250
"""How many events of a plan are folded before others have the loop."""
_TURNS = 100
"""How many of the plans that were taken up at the start have their turn before others have the loop."""
_FROZEN = 32
"""After how many reads what has been made is put where nobody looks for garbage: it stays."""
_RETRY_SECONDS = 5.0
"""After which time reading is tried again when it has failed."""
PARENT_ENDED = "the step that runs this plan was stopped"


class Holder(Host, Protocol):
    """What taking up plans asks of the scheduler."""

    owner: str

    @property
    def runs(self) -> Mapping[str, PlanRun]:
        """The plans that are held."""
        ...

    def hold(self, run: PlanRun) -> None:
        """Hold a plan."""
        ...

    def enter(self, run: PlanRun) -> None:
        """Let a plan make progress, when there is a place for it."""
        ...

    def join(self, holder: PlanRun, step_id: str, child: PlanRun) -> None:
        """Put a sub-plan below the plan whose step waits for it."""
        ...


class Recovery:
    """The plans that were claimed, and are to be taken up."""

    def __init__(self, host: Holder) -> None:
        """Begin with none."""
        self._host = host
        self._claims: dict[str, Claim] = {}
        self._taking: dict[str, asyncio.Lock] = {}
        """Held while a plan is taken up beside callers, so that all who want it wait for the same."""
        self._rest: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many plans are claimed and not taken up yet."""
        return len(self._claims)

    async def start(self) -> None:
        """Claim every plan that has not ended, and take up those that others must find.

        Raises:
            JournalError: the journal cannot be read or written.
        """
        host, journal = self._host, self._host.journal
        try:
            open_plans = await journal.open_plans()
            claims = await journal.claim(open_plans, host.owner) if open_plans else ()
            parents = await journal.open_children() if claims else {}
        except JournalDamagedError as damaged:
            log.error("no plan is taken up: %s", damaged)  # noqa: TRY400 - it is told whole
            return

        if not claims:
            return

        self._claims = {claim.plan_id: claim for claim in claims}
        first = self._first(parents)
        collects = gc.isenabled()
        gc.disable()  # all that is made here stays, and looking through it again and again takes as long as making it
        try:
            async with aclosing(self._logs(first)) as logs:
                async for some in logs:
                    for claim, page in some:
                        run = await self._take_up(claim, page)
                        if run is not None:
                            run.flush()

            stray = await self._join_families()
        finally:
            if collects:
                gc.enable()

        runs = list(host.runs.values())
        log.info("took up %d of %d plans that had not ended", len(runs), len(open_plans))
        for run in runs:
            if run.parent is None:
                host.enter(run)

        self._begin_again(iter(runs))
        for run in stray:
            run.cancel(PARENT_ENDED, "")

        if self._claims:
            self._rest = asyncio.get_running_loop().create_task(self._take_up_rest())

    def _first(self, parents: Mapping[str, str]) -> list[Claim]:
        """Give what is taken up before the server serves: families, which share budgets and places, and the oldest."""
        claims = self._claims
        families = {plan_id for plan_id in chain(parents, parents.values()) if plan_id in claims}
        single = (plan_id for plan_id in claims if plan_id not in families)
        families.update(islice(single, max(0, self._host.limits.taken_up_first - len(families))))
        return [claim for plan_id, claim in claims.items() if plan_id in families]

    def _begin_again(self, runs: Iterator[PlanRun]) -> None:
        """Let plans that were taken up go on, oldest first, some at a time: callers need the loop as well."""
        some = list(islice(runs, _TURNS))
        for run in some:
            run.turn()

        if len(some) == _TURNS:
            asyncio.get_running_loop().call_soon(self._begin_again, runs)

    # --- those that are left

    async def want(self, plan_id: str) -> None:
        """Take the plan up now, if it is one of those that are left.

        Raises:
            JournalError: it cannot be read.
        """
        if plan_id in self._claims:
            await self._take_up_beside(plan_id, None)

    async def _take_up_rest(self) -> None:
        """Take up what is left. What cannot be read for now is tried again: callers may be told meanwhile."""
        while self._claims:
            try:
                await self._take_up_once()
            except JournalError as failed:
                left = len(self._claims)
                log.error("%d plans are not taken up yet: %s", left, failed)  # noqa: TRY400 - it is told whole
                await asyncio.sleep(_RETRY_SECONDS)

        log.info("no plan is left to be taken up")

    async def _take_up_once(self) -> None:
        """Take up what can be.

        Raises:
            JournalError: some of it cannot be read, which keeps nobody else's plan.
        """
        reads = 0
        failed: JournalError | None = None
        async with aclosing(self._logs(list(self._claims.values()))) as logs:
            async for some in logs:
                for number, (claim, page) in enumerate(some):
                    try:
                        await self._take_up_beside(claim.plan_id, page)
                    except JournalError as error:
                        failed = error

                    if number % _AT_ONCE == _AT_ONCE - 1:
                        await asyncio.sleep(0)

                reads += 1
                if not reads % _FROZEN:
                    gc.freeze()

        if failed is not None:
            raise failed

    async def _take_up_beside(self, plan_id: str, page: Sequence[bytes] | None) -> None:
        """Take a plan up that has no family, and let it go on."""
        if plan_id not in self._claims:
            return

        async with self._taking.setdefault(plan_id, asyncio.Lock()):
            claim = self._claims.get(plan_id)
            if claim is None:
                return  # somebody has asked for it, or nothing is taken up any more

            run = await self._take_up(claim, page)
            if run is not None:
                self._host.enter(run)
                run.turn()  # hands over what it brings about together with the plan's being taken up

    def let_go(self) -> None:
        """Take up no more plans; the next start does."""
        self._claims.clear()
        self._taking.clear()

    def pause(self) -> None:
        """Take up only what is asked for."""
        if self._rest is not None:
            self._rest.cancel()

    async def stop(self) -> None:
        """Take up no more plans, and end."""
        self.let_go()
        self.pause()
        if self._rest is not None:
            await asyncio.wait([self._rest])

    # --- one plan

    async def _logs(self, claims: Sequence[Claim]) -> AsyncGenerator[Iterable[tuple[Claim, Sequence[bytes] | None]]]:
        """Give plans with the beginnings of their logs; the journal reads the next ones' while some are folded."""
        chunks = [claims[start : start + _READ_AHEAD] for start in range(0, len(claims), _READ_AHEAD)]
        loop = asyncio.get_running_loop()
        ahead: asyncio.Task[Sequence[Sequence[bytes]]] | None = None
        try:
            for number, chunk in enumerate(chunks):
                reading = ahead or loop.create_task(self._starts(chunk))
                ahead = loop.create_task(self._starts(chunks[number + 1])) if number + 1 < len(chunks) else None
                try:
                    pages: Sequence[Sequence[bytes] | None] = await reading
                except JournalError:
                    pages = [None] * len(chunk)  # then each is read by itself, for the others' sake

                yield zip(chunk, pages, strict=True)
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])
                if not ahead.cancelled():
                    ahead.exception()  # what was to be told has been

    async def _starts(self, claims: Sequence[Claim]) -> Sequence[Sequence[bytes]]:
        return await self._host.journal.read_starts([claim.plan_id for claim in claims], limit=PAGE)

    async def _take_up(self, claim: Claim, page: Sequence[bytes] | None) -> PlanRun | None:
        """Take a plan up; one that cannot be read does not keep the others, or the server, from going on.

        Its being taken up is still to be handed to the journal.
        """
        run: PlanRun | None = None
        try:
            run = await self._resumed(claim, await self._page(claim.plan_id, 0) if page is None else page)
        except JournalDamagedError as damaged:
            log.error("cannot take the plan up: %s", damaged, extra={"plan_id": claim.plan_id})  # noqa: TRY400 - it is told whole
        except JournalError:
            raise
        except Exception:
            # A boundary, see above.
            log.exception("cannot take the plan up", extra={"plan_id": claim.plan_id})

        self._taking.pop(claim.plan_id, None)
        wanted = self._claims.pop(claim.plan_id, None) is not None
        if run is None or not wanted:
            return None

        self._host.hold(run)
        return run

    async def _page(self, plan_id: str, after_sequence: int) -> Sequence[bytes]:
        return await self._host.journal.read(plan_id, after_sequence, limit=PAGE)

    async def _resumed(self, claim: Claim, bodies: Sequence[bytes]) -> PlanRun | None:
        """Fold a plan, with its being taken up as its newest event; None if it has ended."""
        clock = self._host.clock
        offset = clock.monotonic() - clock.now().timestamp()
        state: State | None = None
        sequence = 0
        while bodies:
            for body in bodies:
                event = decode(Event, body)
                if isinstance(event.fact, UnknownFact):
                    raise InternalError(f"event {event.sequence} is of a kind only a newer version knows")

                if state is None:
                    state = self._state(claim.plan_id, event)

                time = event.event_time.timestamp() if event.event_time is not None else 0.0
                apply(state, event, time + offset)
                sequence += 1
                if not sequence % _EVENTS:
                    await asyncio.sleep(0)

            bodies = await self._page(claim.plan_id, sequence) if sequence < claim.sequence else ()

        if state is None or state.plan.state.terminal:
            return None

        clamp(state, clock.monotonic())
        run = PlanRun(self._host, state, claim.epoch, claim.sequence)
        run.emit(PlanResumed(claim.epoch, self._host.owner))
        await self._count_ended_children(run)
        return run

    def _state(self, plan_id: str, created: Event) -> State:
        fact = created.fact
        name = fact.options.planner if isinstance(fact, PlanCreated) and fact.options is not None else ""
        planner = self._host.planners.get(name)
        return State(PlanFold(plan_id), self._host.limits, revises=planner is not None and planner.revises)

    # --- families

    async def _count_ended_children(self, run: PlanRun) -> None:
        """Take in what sub-plans have used that ended before their steps were told; one that has not counts when it joins."""
        for step_id in run.plan.pending:
            child_id = run.plan.steps[step_id].child_plan_id
            row = await self._host.journal.get_row(child_id) if child_id else None
            if row is not None:
                run.left[step_id] = decode(Plan, row.body).usage or Usage()

    async def _join_families(self) -> list[PlanRun]:
        """Put sub-plans below the plans whose steps wait for them; gives those whose step waits no more."""
        runs = self._host.runs
        stray: list[PlanRun] = []
        for run in runs.values():
            parent = run.plan.created.parent
            if parent is None:
                continue

            run.depth = await self._depth_below(parent)
            holder = runs.get(parent.plan_id)
            step = holder.plan.steps.get(parent.step_id) if holder is not None else None
            if holder is None:
                row = await self._host.journal.get_row(parent.plan_id)
                over = row is None or row.state.terminal
            else:
                over = step is None or step.state.terminal or step.child_plan_id != run.plan.id

            if over:
                stray.append(run)
            elif holder is not None:
                self._host.join(holder, parent.step_id, run)

        return stray

    async def _depth_below(self, parent: StepRef) -> int:
        """Give how many plans are above a sub-plan of ``parent``; as many as may be if that is not known any more."""
        depth, plan_id = 0, parent.plan_id
        while plan_id and depth < self._host.limits.plan_depth:
            depth += 1
            run = self._host.runs.get(plan_id)
            row = await self._host.journal.get_row(plan_id) if run is None else None
            if run is not None:
                above = run.plan.created.parent
                plan_id = above.plan_id if above is not None else ""
            elif row is not None:
                plan_id = row.parent_plan_id
            else:
                return self._host.limits.plan_depth

        return depth
