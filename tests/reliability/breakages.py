"""Deliberate breakages of the product, for the simulation: each must be noticed by the promise that it breaks.

A check that notices nothing when the journal loses what it acknowledged proves nothing when it is silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from unittest import mock

from autoglm.errors import AutoglmError
from autoglm.fold import PlanFold, StepFold
from autoglm.model import StepFailed, StepRetryScheduled, ToolResult
from autoglm_server.journal import _retain, sqlite
from autoglm_server.journal._cursors import AllCursor
from autoglm_server.journal._tail import PlanTail
from autoglm_server.journal.journal import Append, JournalError, Record
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.scheduler import outcome
from autoglm_server.scheduler import run as run_module
from autoglm_server.scheduler import scheduler as scheduler_module
from autoglm_server.scheduler.decide import Decided, StartStep, decide
from autoglm_server.scheduler.retention import Retention, Swept
from autoglm_server.scheduler.run import PlanRun
from autoglm_server.scheduler.state import State
from autoglm_server.scheduler.timers import Timers
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.references import References, compile_references
from autoglm_server.tools.tool import Invocation, ToolCallError
from tests.reliability.checker import PROMISES
from tests.reliability.history import Keeping
from tests.reliability.platters import SimSqliteJournal
from tests.reliability.retained import RETENTION
from tests.reliability.simulation import HEALING_SECONDS, Simulation
from tests.reliability.world import Faults, SimJournal
from tests.server.scheduler.test_scheduler_model import _ignores_dependencies, _repeats_what_was_cut

SEEDS: Final = 40
"""A breakage that no seed of these shows is not caught."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """A broken product, the promise that must notice, and the faults that bring it out."""

    name: str
    promise: str
    patches: Callable[[], Sequence[Any]]
    faults: Faults
    heal_seconds: float = HEALING_SECONDS
    """How long plans have to come to their ends, if they can."""

    def caught(self) -> bool:
        """Whether the promise notices it in one of the seeds."""
        for seed in range(SEEDS):
            with self._broken():
                history = Simulation(seed, self.faults, heal_seconds=self.heal_seconds).run()

            if PROMISES[self.promise](history).violations:
                return True

        return False

    @contextmanager
    def _broken(self) -> Iterator[None]:
        patches = self.patches()
        for patch in patches:
            patch.start()

        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


_call = Catalog.call
_hand_over = SimJournal._hand_over
_append = SimSqliteJournal.append
_after = PlanTail.after
_resolve = References.resolve
_launch = PlanRun._launch
_failed = outcome._failed


def _tells_early(self: SimJournal, job: Any) -> None:
    """The watchers are told before the commit."""
    if isinstance(job, Append):
        records = [Record(1, job.plan_id, job.first_sequence + at, body) for at, body in enumerate(job.bodies)]
        self._told(records)

    _hand_over(self, job)


def _settles_early(self: SimJournal, job: Any) -> None:
    """The append is acknowledged before the commit."""
    if isinstance(job, Append):
        settled, job.settled = job.settled, lambda _: None
        asyncio.get_running_loop().call_soon(settled, None)

    _hand_over(self, job)


def _tells_at_once(self: SimSqliteJournal, append: Append) -> None:
    """The watchers are told of what the writer has not seen yet."""
    _append(self, append)
    self.told([Record(1, append.plan_id, append.first_sequence + at, body) for at, body in enumerate(append.bodies)])


def _takes_for_the_end(name: str) -> Any:
    """What cannot be read counts as not there."""
    reads = getattr(SimSqliteJournal, name)

    async def read(self: SimSqliteJournal, *place: Any, **how: Any) -> Any:
        try:
            return await reads(self, *place, **how)
        except JournalError:
            return []

    return mock.patch.object(SimSqliteJournal, name, read)


def _skips(self: PlanTail, sequence: int) -> Sequence[bytes] | None:
    """A watcher that has fallen behind is not given the oldest event it lacks."""
    bodies = _after(self, sequence)
    return bodies[1:] if bodies and len(bodies) > 2 else bodies


async def _twice(self: Catalog, invocation: Invocation, **options: Any) -> ToolResult:
    """A call is sent twice, as a transport that retries by itself would."""
    with suppress(ToolCallError):
        await _call(self, invocation, **options)

    return await _call(self, invocation, **options)


async def _again_later(self: Catalog, invocation: Invocation, **options: Any) -> ToolResult:
    """A call that ended comes once more, some time after."""
    result = await _call(self, invocation, **options)
    loop = asyncio.get_running_loop()
    loop.call_later(3.0, lambda: loop.create_task(_call(self, invocation)).add_done_callback(_ignored))
    return result


def _ignored(task: asyncio.Task[ToolResult]) -> None:
    if not task.cancelled():
        task.exception()


async def _key_of_attempt(self: Catalog, invocation: Invocation, **options: Any) -> ToolResult:
    """The attempt's number goes into the key."""
    key = f"{invocation.idempotency_key}/{invocation.context.attempt}"
    return await _call(self, replace(invocation, idempotency_key=key), **options)


def _launches_at_once(self: PlanRun) -> None:
    """No call waits for its intent."""
    for attempt in self._launches:
        attempt.waits = False

    _launch(self)


def _barrier(state: State, now: float, places: int, *, hold: bool = False) -> Decided:
    """Nothing starts while something runs, as with supersteps."""
    decided = decide(state, now, places, hold=hold)
    running = bool(state.plan.running)
    commands = [one for one in decided.commands if not (running and isinstance(one, StartStep))]
    return Decided(commands, None if running else decided.wake, decided.starved)


def _asks_nobody(self: PlanFold, step_id: str, step: StepFold) -> None:
    """What needs an approval is ready without it."""
    if not step.missing and step_id not in self.doomed:
        self.ready[step_id] = None


def _once_more(*how: Any) -> outcome.Judgement:
    """What has failed as often as it may is tried once more."""
    state, step_id, step, failure, now, _ = how
    judged = _failed(*how)
    most = step.added.retry_policy.max_attempts
    if isinstance(judged, StepFailed) and failure.retryable and state.failures.get(step_id, 0) < most:
        return StepRetryScheduled(failure, timedelta(0), now)

    return judged


def _expands_twice(self: References, output_of: Any, **options: Any) -> Any:
    """What an output contains is read as a reference."""
    resolved = _resolve(self, output_of, **options)
    with suppress(AutoglmError, ToolCallError, KeyError):
        return _resolve(compile_references(resolved, "arguments"), output_of)

    return resolved


def _unfenced(self: MemoryJournal, append: Append) -> JournalError | None:
    """The journal takes what anybody appends."""
    return None


def _patched(target: object, name: str, new: Any) -> Callable[[], Sequence[Any]]:
    return lambda: [mock.patch.object(target, name, new)]


_count_down = Retention._count_down
_remove = MemoryJournal.remove


async def _forgets_early(self: Retention, swept: Swept, most: int, young: datetime) -> None:
    """Of too many plans the young ones go as well, with their request_ids."""
    await _count_down(self, swept, most, self._clock.now())


async def _forgets_never(self: MemoryJournal, plan_ids: Sequence[str]) -> Sequence[str]:
    """A request_id stays when its plan goes."""
    known = dict(self._requests)
    gone = await _remove(self, plan_ids)
    self._requests = known
    return gone


async def _cut_short(self: Retention) -> None:
    """The first sweep that fails is the last."""
    with suppress(JournalError):
        while True:
            await asyncio.sleep(self._interval)
            await self.sweep()


def _takes_what_is_open() -> Sequence[Any]:
    """A sweep looks at no plan's end."""
    ended = _retain._ENDED.replace("end_time IS NOT NULL AND", "").replace("end_time <", "coalesce(end_time, 0) <")
    return [
        mock.patch.object(_retain, "_ENDED", ended),
        mock.patch.object(_retain, "_COMPACT", _retain._COMPACT.replace("AND end_time IS NOT NULL", "")),
    ]


def _takes_sub_plans() -> Sequence[Any]:
    """A sweep does not look at the plan above a sub-plan."""
    return [
        mock.patch.object(_retain, "_ENDED", _retain._ENDED.replace("parent = ''", "true")),
        mock.patch.object(MemoryJournal, "_is_needed", return_value=False),
    ]


def _told_nothing() -> Sequence[Any]:
    """Nobody who follows all plans is told that something went."""

    async def nothing(self: AllCursor) -> None: ...

    return [
        mock.patch.object(AllCursor, "_check_removed", nothing),
        mock.patch.object(AllCursor, "_check_removing", return_value=None),
    ]


KEPT: Final = Keeping(events=0.5, max_plans=4, keys=12.0, every=0.2, batch=2)
SELDOM: Final = replace(KEPT, every=4.0, batch=50)
BROKEN_SWEEPS: Final = Faults(keeping=KEPT, unread_every=2.0, sqlite=True)
SWEEPS: Final = Faults(keeping=KEPT, kill_every=6.0, commit_seconds=0.05)
KILLS: Final = Faults(kill_every=2.0, commit_seconds=0.5, slow_commit=0.1)
UNREAD: Final = Faults(unread_every=2.0, kill_every=6.0, commit_seconds=0.05, sqlite=True)
POWER_CUTS: Final = Faults(kill_every=2.0, commit_seconds=0.05, sqlite=True)
CRASHES: Final = Faults(crash=0.02, kill_every=3.0, commit_seconds=0.05)
FAILURES: Final = Faults(tool=0.4)

BREAKAGES: Final = (
    Breakage(
        "watchers are told before the commit",
        "seen-is-durable",
        _patched(SimJournal, "_hand_over", _tells_early),
        KILLS,
    ),
    *(
        Breakage(
            "a commit is not synced",
            promise,
            lambda: [mock.patch.dict(sqlite.PRAGMAS, {"synchronous": 1})],  # NORMAL
            POWER_CUTS,
            60.0,
        )
        for promise in ("seen-is-durable", "acknowledged-is-kept")
    ),
    Breakage(
        "nobody is told that the disk of the journal is full",
        "full-disk-stalls",
        _patched(SimSqliteJournal, "stalled", property(lambda _: "")),
        Faults(full_every=6.0, sqlite=True),
    ),
    Breakage(
        "watchers are told before the commit of SQLite",
        "seen-is-durable",
        _patched(SimSqliteJournal, "append", _tells_at_once),
        replace(KILLS, sqlite=True),
    ),
    Breakage(
        "what cannot be read counts as not there",
        "watch-compaction-told",
        lambda: [_takes_for_the_end(name) for name in ("read", "read_all", "read_starts", "open_plans")],
        UNREAD,
    ),
    Breakage("a watcher skips an event", "dense", _patched(PlanTail, "after", _skips), Faults()),
    Breakage(
        "an append is acknowledged before the commit",
        "acknowledged-is-kept",
        _patched(SimJournal, "_hand_over", _settles_early),
        KILLS,
    ),
    Breakage("a call that ended comes again", "finished-runs-once", _patched(Catalog, "call", _again_later), Faults()),
    Breakage("every call is sent twice", "effects-not-repeated", _patched(Catalog, "call", _twice), Faults()),
    Breakage(
        "no call waits for its intent", "effects-not-repeated", _patched(PlanRun, "_launch", _launches_at_once), KILLS
    ),
    Breakage(
        "a call that was cut is made again",
        "effects-not-repeated",
        _patched(run_module, "decide", _repeats_what_was_cut),
        CRASHES,
    ),
    Breakage(
        "a call is tried more often than its policy says",
        "effects-not-repeated",
        _patched(outcome, "_failed", _once_more),
        FAILURES,
    ),
    Breakage(
        "nobody is asked for an approval", "first-decision-wins", _patched(PlanFold, "_ready", _asks_nobody), Faults()
    ),
    Breakage("the attempt is part of the key", "one-key", _patched(Catalog, "call", _key_of_attempt), FAILURES),
    Breakage(
        "a cancel is acknowledged and forgotten",
        "cancel-is-final",
        _patched(PlanRun, "cancel", lambda *_: None),
        Faults(),
    ),
    Breakage("steps start at a barrier", "starts-when-ready", _patched(run_module, "decide", _barrier), Faults()),
    Breakage(
        "dependencies are ignored", "starts-when-ready", _patched(run_module, "decide", _ignores_dependencies), Faults()
    ),
    Breakage(
        "every decision is carried out",
        "first-decision-wins",
        _patched(scheduler_module, "_must_wait", lambda *_: True),
        Faults(commit_seconds=0.5),
    ),
    Breakage(
        "outputs are read for references",
        "data-is-not-a-plan",
        _patched(References, "resolve", _expands_twice),
        Faults(),
    ),
    Breakage(
        "nobody is told that the disk is full",
        "full-disk-stalls",
        _patched(SimJournal, "stalled", property(lambda _: "")),
        Faults(full_every=6.0),
    ),
    Breakage(
        "a sweep takes plans that have not ended",
        RETENTION,
        _takes_what_is_open,
        Faults(keeping=SELDOM, sqlite=True),
        30.0,
    ),
    Breakage("a sweep takes sub-plans of an open plan", RETENTION, _takes_sub_plans, SWEEPS),
    Breakage(
        "a request_id is forgotten early",
        "acknowledged-is-kept",
        _patched(Retention, "_count_down", _forgets_early),
        SWEEPS,
    ),
    Breakage("a request_id is kept for ever", RETENTION, _patched(MemoryJournal, "remove", _forgets_never), SWEEPS),
    Breakage("a sweep that failed is the last", RETENTION, _patched(Retention, "run", _cut_short), BROKEN_SWEEPS),
    Breakage("nobody is told of what went", "watch-compaction-told", _told_nothing, SWEEPS),
    Breakage("nobody is woken", "every-plan-ends", _patched(Timers, "set", lambda *_: None), FAILURES),
    Breakage(
        "an overtaken owner goes on writing",
        "one-owner",
        _patched(MemoryJournal, "_refusal", _unfenced),
        Faults(freeze_every=6.0),
    ),
    Breakage(
        "a restart decides otherwise",
        "replay-decides-the-same",
        _patched(run_module, "decide", _ignores_dependencies),
        Faults(),
    ),
)
"""Every promise has at least one."""
