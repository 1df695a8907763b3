"""The offline checker: one function for each promise of docs/guarantees.md, over nothing but a recorded history.

A promise gives how often the history put it to the test, and what broke it, in words. Whatever recorded the history (the
simulation, processes that are killed, disks that fail, streams that are cut), these functions decide.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from autoglm.fold import PlanFold
from autoglm.model import (
    Approve,
    Decision,
    Effect,
    Event,
    Json,
    PlanCancelled,
    PlanCancelRequested,
    PlanCreated,
    PlanFailed,
    PlanLimitReached,
    PlanResumed,
    PlanSucceeded,
    Retry,
    Step,
    StepAdded,
    StepCancelled,
    StepDraft,
    StepFailed,
    StepResolved,
    StepRetryScheduled,
    StepStarted,
    StepSucceeded,
    StepWaiting,
)
from autoglm.wire import canonical_json, normal_json
from tests.reliability.history import Asked, Call, History, Logged
from tests.reliability.retained import RETENTION, ends_of, retention_takes_what_is_due, what_went_is_told
from tests.reliability.verdict import Verdict
from tests.server.scheduler.checks import check_decisions, check_log, check_steps

ENDS: Final = (PlanSucceeded, PlanFailed, PlanCancelled)
LATE_SECONDS: Final = 0.05
"""A step that starts this much after its inputs were there had to wait for something else."""


Promise = Callable[[History], Verdict]


def seen_is_durable(history: History) -> Verdict:
    """What you see happened: all that a watcher or a snapshot showed is in the journal, and was before it was shown."""
    verdict = Verdict()
    for seen in history.seen:
        log = history.logs.get(seen.plan_id, [])
        where = f"{seen.watcher} saw {seen.plan_id}#{seen.sequence}"
        if not 0 < seen.sequence <= len(log):
            verdict.expect(holds=False, otherwise=f"{where}, which the journal does not hold ({len(log)} events)")
            continue

        logged = log[seen.sequence - 1]
        same = logged.body == seen.body
        verdict.expect(holds=same, otherwise=f"{where}, but the journal holds another event there")
        if same and logged.durable_at is not None:
            early = seen.at < logged.durable_at
            verdict.expect(holds=not early, otherwise=f"{where} at {seen.at}, durable at {logged.durable_at}")

    folds: dict[str, PlanFold] = {}
    shown = [asked for asked in history.asked if asked.plan is not None and asked.answered_at is not None]
    for asked in sorted(shown, key=lambda one: one.plan.sequence if one.plan is not None else 0):
        plan = asked.plan
        if plan is None or asked.answered_at is None or not plan.id:
            continue

        log = history.logs.get(plan.id, [])
        where = f"{asked.kind} showed {plan.id} at {plan.sequence}"
        if plan.sequence > len(log):
            verdict.expect(holds=False, otherwise=f"{where}, the journal ends at {len(log)}")
            continue

        durable_at = log[plan.sequence - 1].durable_at if plan.sequence else None
        if durable_at is not None:
            verdict.expect(holds=asked.answered_at >= durable_at, otherwise=f"{where} before it was durable")

        if durable_at is not None or asked.kind == "get":
            fold = folds.setdefault(plan.id, PlanFold(plan.id))
            for logged in log[fold.sequence : plan.sequence]:
                fold.apply(logged.event)

            verdict.expect(holds=fold.snapshot() == plan, otherwise=f"{where}: not what its events say")

    return verdict


def dense(history: History) -> Verdict:
    """No gaps, no doubles, in order: in the journal, and for every watcher across all its streams."""
    verdict = Verdict()
    for plan_id, log in history.logs.items():
        verdict.asserted(lambda log=log: check_log([one.event for one in log]), plan_id)  # type: ignore[misc]

    at: dict[tuple[str, str], int] = {}
    for seen in history.seen:
        key = (seen.watcher, seen.plan_id)
        before = at.get(key, seen.after)
        otherwise = f"{seen.watcher} was given {seen.plan_id}#{seen.sequence} after #{before} (stream {seen.stream})"
        verdict.expect(holds=seen.sequence == before + 1, otherwise=otherwise)
        at[key] = seen.sequence

    return verdict


def acknowledged_is_kept(history: History) -> Verdict:
    """An acknowledged plan, cancel or decision is not lost, and a request_id makes one plan."""
    verdict = Verdict()
    made: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for plan_id, log in history.logs.items():
        fact = log[0].event.fact if log else None
        if isinstance(fact, PlanCreated) and fact.request_id:
            others = [one for one, _ in made[fact.request_id] if not _forgotten_between(one, plan_id, history)]
            otherwise = f"request_id {fact.request_id} made {others} and {plan_id}"
            verdict.expect(holds=not others, otherwise=otherwise)
            made[fact.request_id].append((plan_id, fact.request_digest))

    for asked in history.asked:
        if asked.answered_at is None:
            continue

        if asked.kind == "create":
            _kept_create(verdict, asked, history, made)
        elif asked.refused:
            continue
        elif asked.kind == "cancel":
            otherwise = f"the acknowledged cancel of {asked.plan_id} is not in the journal"
            verdict.expect(holds=_stopped(asked, history), otherwise=otherwise)
        elif asked.kind == "resolve":
            found = any(
                isinstance(one.fact, StepResolved)
                and one.step_id == asked.step_id
                and one.fact.decision == asked.decision
                for one in history.events(asked.plan_id)
            )
            otherwise = f"the acknowledged decision on {asked.plan_id}/{asked.step_id} is not in the journal"
            verdict.expect(holds=found, otherwise=otherwise)

    return verdict


def _forgotten_between(one: str, other: str, history: History) -> bool:
    """Whether retention took the earlier of two plans, with its request_id and in its time, before the later was made."""
    if history.kept is None:
        return False

    ends, rules = ends_of(history), history.kept.rules
    began = {plan_id: history.logs[plan_id][0].durable_at or 0 for plan_id in (one, other)}
    earlier, later = sorted(began, key=lambda plan_id: began[plan_id])
    return any(
        swept.whole
        and swept.plan_id == earlier
        and swept.at < began[later]
        and earlier in ends
        and swept.now - ends[earlier].time > rules.keys
        for swept in history.kept.swept
    )


def _stopped(asked: Asked, history: History) -> bool:
    """Whether the journal holds, up to what the answer showed, why the plan stops or that it has ended."""
    events = history.events(asked.plan_id)[: asked.plan.sequence if asked.plan is not None else None]
    return any(isinstance(one.fact, (PlanCancelRequested, PlanLimitReached, *ENDS)) for one in events)


def _kept_create(verdict: Verdict, asked: Asked, history: History, made: Mapping[str, list[tuple[str, str]]]) -> None:
    where = f"create {asked.request_id}"
    if asked.refused == "REQUEST_ID_CONFLICT":
        known = made.get(asked.request_id, ())
        differs = any(digest != asked.content for _, digest in known)
        verdict.expect(holds=differs, otherwise=f"{where} was refused as a conflict, but the journal has {known}")
        return

    if asked.refused:
        return

    log = history.events(asked.plan_id)
    fact = log[0].fact if log else None
    if not isinstance(fact, PlanCreated):
        verdict.expect(holds=False, otherwise=f"{where}: the acknowledged plan {asked.plan_id} is not in the journal")
        return

    same = fact.request_id == asked.request_id and (not asked.content or fact.request_digest == asked.content)
    verdict.expect(holds=same, otherwise=f"{where} was answered with {asked.plan_id}, which another request made")


def finished_runs_once(history: History) -> Verdict:
    """A finished step does not run again: one result, and no call after it."""
    verdict = Verdict()
    calls = _calls_by_step(history)
    for plan_id, log in history.logs.items():
        succeeded: dict[str, tuple[Event, int | None]] = {}
        added: dict[str, int | None] = {}
        for logged in log:
            event = logged.event
            if isinstance(event.fact, StepAdded):
                added[event.step_id] = logged.durable_at

            if not isinstance(event.fact, StepSucceeded):
                continue

            where = f"{plan_id}/{event.step_id}"
            verdict.expect(holds=event.step_id not in succeeded, otherwise=f"{where} succeeded twice")
            succeeded[event.step_id] = (event, logged.durable_at)

        for step_id, (event, durable_at) in succeeded.items():
            others = _owners_lost_before(calls[plan_id, step_id], added[step_id])
            begun = [call for call in calls[plan_id, step_id] if call.what == "begin" and call.owner not in others]
            # What a process that was lost had done before is not "again": its READ_ONLY attempts may not have become durable.
            own = max((call.at for call in begun if call.attempt == event.attempt), default=0)
            later = [call for call in begun if call.attempt > event.attempt and call.at > own and not call.outlived]
            verdict.expect(holds=not later, otherwise=f"{plan_id}/{step_id} ran again after it had succeeded: {later}")
            if durable_at is not None:
                late = [call for call in begun if call.at > durable_at and not call.outlived]
                verdict.expect(holds=not late, otherwise=f"{plan_id}/{step_id} was called after its success: {late}")

    return verdict


def _owners_lost_before(calls: Sequence[Call], durable_at: int | None) -> set[str]:
    """Give who was lost before this step was in the journal: what they called was another one, whose name it has."""
    return {call.owner for call in calls if call.what == "lost" and durable_at is not None and call.at < durable_at}


def effects_not_repeated(history: History) -> Verdict:
    """A call with an effect leaves only after its intent is durable; a NON_IDEMPOTENT one is not repeated by itself."""
    verdict = Verdict()
    for (plan_id, step_id), calls in _calls_by_step(history).items():
        log = history.logs.get(plan_id, [])
        own = [logged for logged in log if logged.event.step_id == step_id]
        added = next((one.event.fact.step for one in own if isinstance(one.event.fact, StepAdded)), None)
        # A READ_ONLY step may be called and lost before it is durable; another then has its name.
        begun = [call for call in calls if call.what == "begin" and _has_effect(call, added, history)]
        if not begun:
            continue

        where = f"{plan_id}/{step_id}"
        planned = added is not None and {added.tool} == {call.tool for call in begun}
        verdict.expect(holds=planned, otherwise=f"{where}: {begun[0].tool} was called, the journal has {added}")
        started = {one.event.attempt: one.durable_at for one in own if isinstance(one.event.fact, StepStarted)}
        for call in begun:
            intended = call.attempt in started
            verdict.expect(holds=intended, otherwise=f"{where}: attempt {call.attempt} left without an intent")
            durable_at = started.get(call.attempt)
            if durable_at is not None:
                otherwise = f"{where}: attempt {call.attempt} left at {call.at}, its intent was durable at {durable_at}"
                verdict.expect(holds=call.at >= durable_at, otherwise=otherwise)

        twice = [attempt for attempt, count in Counter(call.attempt for call in begun).items() if count > 1]
        verdict.expect(holds=not twice, otherwise=f"{where}: attempts {twice} were made twice")
        if added is not None and added.retry_policy is not None:
            most = added.retry_policy.max_attempts
            tried = _tried_in_a_row(own)
            verdict.expect(holds=tried <= most, otherwise=f"{where}: tried {tried} times, its policy says {most}")

        if added is not None and added.effect is Effect.NON_IDEMPOTENT:
            allowed = 1 + sum(_lets_repeat(one.event) for one in own)
            otherwise = f"{where}: called {len(begun)} times, {allowed} were allowed"
            verdict.expect(holds=len(begun) <= allowed, otherwise=otherwise)

    return verdict


def _tried_in_a_row(own: Sequence[Logged]) -> int:
    """Give how often a step was tried, one failure after the other, without a person's saying so."""
    tried = most = 1
    for logged in own:
        fact = logged.event.fact
        if isinstance(fact, StepRetryScheduled):
            tried += 1
            most = max(most, tried)
        elif isinstance(fact, StepResolved):
            tried = 1

    return most


def _has_effect(call: Call, added: Step | None, history: History) -> bool:
    effect = history.effects.get(call.tool) or (added.effect if added is not None else Effect.UNSPECIFIED)
    return effect is not Effect.READ_ONLY


def _lets_repeat(event: Event) -> bool:
    """Whether a person, or the tool itself, said that the call may be made again."""
    fact = event.fact
    if isinstance(fact, StepResolved):
        return fact.decision is not None and isinstance(fact.decision.kind, Retry)

    return isinstance(fact, StepRetryScheduled) and fact.failure is not None and fact.failure.retryable


def one_key(history: History) -> Verdict:
    """The same key for every attempt."""
    verdict = Verdict()
    for call in history.calls:
        key = f"{call.plan_id}/{call.step_id}"
        verdict.expect(holds=call.key == key, otherwise=f"attempt {call.attempt} of {key} was given the key {call.key}")

    return verdict


def cancel_is_final(history: History) -> Verdict:
    """Cancel means cancelled: nothing starts after it, and at the end every call has stopped or is named abandoned."""
    verdict = Verdict()
    acknowledged: dict[str, int] = {}
    for asked in history.asked:
        if asked.kind == "cancel" and asked.answered_at is not None and not asked.refused:
            earlier = acknowledged.get(asked.plan_id, asked.answered_at)
            acknowledged[asked.plan_id] = min(earlier, asked.answered_at)
            otherwise = f"{asked.plan_id}: the acknowledged cancel was forgotten"
            verdict.expect(holds=_stopped(asked, history), otherwise=otherwise)

    for plan_id, log in history.logs.items():
        stopping = [
            at for at, one in enumerate(log) if isinstance(one.event.fact, (PlanCancelRequested, PlanLimitReached))
        ]
        ended = isinstance(log[-1].event.fact, ENDS)
        if not stopping:
            continue

        after = [one.event for one in log[stopping[0] :]]
        started = [one for one in after if isinstance(one.fact, StepStarted)]
        verdict.expect(holds=not started, otherwise=f"{plan_id}: a step was started after the stop: {started}")
        if history.healed:
            verdict.expect(holds=ended, otherwise=f"{plan_id}: was stopped and never came to its end")

        by_request = isinstance(log[stopping[0]].event.fact, PlanCancelRequested)
        if ended and by_request:
            end = log[-1].event.fact
            verdict.expect(holds=isinstance(end, PlanCancelled), otherwise=f"{plan_id}: cancelled, but ended as {end}")

        if ended:
            _stopped_calls(verdict, plan_id, history)

        if plan_id in acknowledged:
            late = [
                call
                for call in history.calls
                if call.plan_id == plan_id and call.what == "begin" and call.at > acknowledged[plan_id]
            ]
            late = [call for call in late if not call.outlived]
            verdict.expect(holds=not late, otherwise=f"{plan_id}: called after the cancel was acknowledged: {late}")

    return verdict


def _stopped_calls(verdict: Verdict, plan_id: str, history: History) -> None:
    """When the end is durable, no call of the plan still runs that is not named."""
    last = history.logs[plan_id][-1]
    if last.durable_at is None:
        return

    under_way: dict[tuple[str, int, str], Call] = {}
    for call in history.calls:
        if call.plan_id == plan_id and call.at <= last.durable_at:
            key = (call.step_id, call.attempt, call.owner)
            if call.what == "begin":
                under_way[key] = call
            else:
                under_way.pop(key, None)

    unknown = {
        one.event.step_id
        for one in history.logs[plan_id]
        if (isinstance(one.event.fact, StepCancelled) and (one.event.fact.abandoned or one.event.fact.outcome_unknown))
        or (
            isinstance(one.event.fact, StepFailed)
            and one.event.fact.failure is not None
            and one.event.fact.failure.outcome_unknown
        )
    }
    left = [call for call in under_way.values() if call.step_id not in unknown and not call.outlived]
    verdict.expect(holds=not left, otherwise=f"{plan_id}: ended while these still ran, unnamed: {left}")


def starts_when_ready(history: History) -> Verdict:
    """A step starts after its own inputs are there, and does not wait for what it does not need."""
    verdict = Verdict()
    for plan_id in history.logs:
        events = history.events(plan_id)
        verdict.asserted(lambda events=events: check_steps(events), plan_id)  # type: ignore[misc]
        if history.steady and plan_id not in history.held:
            _no_barrier(verdict, plan_id, events)

    return verdict


def _no_barrier(verdict: Verdict, plan_id: str, events: list[Event]) -> None:
    created = events[0].fact
    options = created.options if isinstance(created, PlanCreated) else None
    parallel = (options.max_parallel_steps if options is not None else None) or 1
    fold = PlanFold(plan_id)
    ready_since: dict[str, float] = {}
    for event in events:
        now = event.event_time.timestamp() if event.event_time is not None else 0.0
        if isinstance(event.fact, StepStarted) and event.step_id in ready_since:
            late = now - ready_since.pop(event.step_id)
            otherwise = f"{plan_id}/{event.step_id} was ready and started {late:.3f} s later, with room for it"
            verdict.expect(holds=late <= LATE_SECONDS, otherwise=otherwise)

        fold.apply(event)
        if len(fold.running) >= parallel or fold.stopping is not None or fold.start_time is None:
            ready_since.clear()  # what waits for room, or for the plan to be durable, proves nothing
            continue

        for step_id in fold.ready:
            ready_since.setdefault(step_id, now)


def first_decision_wins(history: History) -> Verdict:
    """One decision for each wait; who decided otherwise, or about an older wait, was told so; none is passed over."""
    verdict = Verdict()
    for plan_id in history.logs:
        events = history.events(plan_id)
        _approved_first(verdict, plan_id, events)
        waits: dict[str, int] = {}
        resolved: dict[tuple[str, int], StepResolved] = {}
        for event in events:
            if isinstance(event.fact, StepWaiting):
                waits[event.step_id] = event.sequence

            if isinstance(event.fact, StepResolved):
                key = (event.step_id, event.fact.wait_sequence)
                current = waits.get(event.step_id) == event.fact.wait_sequence
                verdict.expect(holds=current, otherwise=f"{plan_id}: {key} resolves a wait that is not the current one")
                verdict.expect(holds=key not in resolved, otherwise=f"{plan_id}: {key} was resolved twice")
                resolved[key] = event.fact

        for asked in history.asked:
            if (
                asked.kind != "resolve"
                or asked.plan_id != plan_id
                or asked.answered_at is None
                or not asked.wait_sequence
            ):
                continue

            fact = resolved.get((asked.step_id, asked.wait_sequence))
            if not asked.refused and not (isinstance(events[-1].fact, ENDS) and fact is None):
                won = fact is not None and fact.decision == asked.decision
                otherwise = f"{plan_id}/{asked.step_id}: {asked.decision} was accepted, the journal has {fact}"
                verdict.expect(holds=won, otherwise=otherwise)
            elif asked.refused == "STEP_ALREADY_RESOLVED":
                lost = fact is not None and fact.decision != asked.decision
                otherwise = f"{plan_id}/{asked.step_id}: {asked.decision} was refused, though the journal has {fact}"
                verdict.expect(holds=lost, otherwise=otherwise)

    return verdict


def _approved_first(verdict: Verdict, plan_id: str, events: Sequence[Event]) -> None:
    """What needs a person's approval is not called without it; read from the events alone, as the fold may be wrong."""
    approved: dict[str, bool] = {}
    for event in events:
        match event.fact:
            case StepAdded(step=step) if step is not None and step.requires_approval:
                approved[step.id] = False
            case StepResolved(decision=Decision(kind=Approve() | Retry())):
                approved[event.step_id] = True
            case StepStarted() if event.step_id in approved:
                otherwise = f"{plan_id}/{event.step_id} was called, and nobody had approved it"
                verdict.expect(holds=approved[event.step_id], otherwise=otherwise)
            case _:
                pass


def data_is_not_a_plan(history: History) -> Verdict:
    """Outputs fill arguments as they are, once; every step is one that a caller or the planner wrote."""
    verdict = Verdict()
    for plan_id in history.logs:
        written = history.written.get(plan_id)
        if written is None:
            continue

        outputs: dict[str, Json] = {}
        for event in history.events(plan_id):
            match event.fact:
                case StepAdded(step=step) if step is not None:
                    ours = any(
                        (draft.tool, draft.arguments or {}) == (step.tool, step.arguments or {})
                        for draft in written.get(step.id, ())
                    )
                    verdict.expect(holds=ours, otherwise=f"{plan_id}/{step.id} was written by nobody")
                case StepSucceeded(result=result) if result is not None:
                    outputs[event.step_id] = result.output
                case StepStarted(arguments=arguments) if arguments is not None:
                    drafts = written.get(event.step_id, ())
                    fits = any(_same(_filled(draft, outputs), arguments) for draft in drafts)
                    otherwise = f"{plan_id}/{event.step_id} was called with {arguments}, written as {drafts}"
                    verdict.expect(holds=fits, otherwise=otherwise)
                case _:
                    pass

    return verdict


_REFERENCE = re.compile(r"(?<!\$)\$\{([A-Za-z0-9_-]+)(\.value)?\}")


def _filled(draft: StepDraft, outputs: Mapping[str, Json]) -> Json:
    """Fill a draft's arguments in by a second, simpler reading of references: whole outputs, and ``.value`` of them."""

    def value_of(match: re.Match[str]) -> Json:
        output = outputs.get(match[1])
        return output.get("value") if match[2] and isinstance(output, dict) else output

    def fill(value: Json) -> Json:
        if isinstance(value, dict):
            return {key: fill(one) for key, one in value.items()}

        if isinstance(value, str):
            whole = _REFERENCE.fullmatch(value)
            if whole:
                return value_of(whole)

            return _REFERENCE.sub(lambda found: _text(value_of(found)), value)

        return value

    return fill(draft.arguments or {})


def _text(value: Json) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _same(expected: Json, found: Json) -> bool:
    return canonical_json(normal_json(expected)) == canonical_json(normal_json(found))


def full_disk_stalls(history: History) -> Verdict:
    """While the disk is full no call starts, creates are refused, and reads go on; nothing that was there is lost."""
    verdict = Verdict()
    for begin, end in history.stalls:
        started = [
            call for call in history.calls if call.what == "begin" and begin < call.at < end and not call.outlived
        ]
        verdict.expect(holds=not started, otherwise=f"calls began while the disk was full ({begin}-{end}): {started}")
        for asked in history.asked:
            if asked.answered_at is None or not begin < asked.at <= asked.answered_at < end:
                continue

            if asked.kind == "create":
                told = asked.refused in ("JOURNAL_FULL", "REQUEST_ID_CONFLICT") or not asked.refused
                new = not asked.refused and _created_at(history, asked.plan_id) > begin
                otherwise = f"create {asked.request_id} in {begin}-{end} was answered {asked.refused or asked.plan_id}"
                verdict.expect(holds=told and not new, otherwise=otherwise)
            elif asked.kind == "get":
                # Who is told that a plan is gone is looked after by watch-compaction-told.
                read = asked.refused in ("", "PLAN_NOT_FOUND")
                verdict.expect(holds=read, otherwise=f"a read was refused on a full disk: {asked.refused}")

    return verdict


def _created_at(history: History, plan_id: str) -> int:
    log = history.logs.get(plan_id)
    return (log[0].durable_at or 0) if log else 0


def every_plan_ends(history: History) -> Verdict:
    """When faults stop, every plan comes to its end."""
    verdict = Verdict()
    for what in history.broken:
        verdict.expect(holds=False, otherwise=what)

    if history.healed:
        for plan_id, log in history.logs.items():
            ended = bool(log) and isinstance(log[-1].event.fact, ENDS)
            where = log[-1].event if log else None
            verdict.expect(holds=ended, otherwise=f"{plan_id} never came to its end; its last event is {where}")

    return verdict


def one_owner(history: History) -> Verdict:
    """Every take-over has a later epoch, and after it nothing of an earlier owner is in the log."""
    verdict = Verdict()
    for plan_id, log in history.logs.items():
        epoch = 1
        for logged in log:
            event = logged.event
            if isinstance(event.fact, PlanResumed):
                otherwise = f"{plan_id}: epoch {event.fact.epoch} after {epoch}"
                verdict.expect(holds=event.fact.epoch > epoch, otherwise=otherwise)
                epoch = event.fact.epoch
            elif logged.epoch and epoch > 1:
                otherwise = (
                    f"{plan_id}#{event.sequence} was stored under epoch {logged.epoch}, after a take-over with {epoch}"
                )
                verdict.expect(holds=logged.epoch == epoch, otherwise=otherwise)

    return verdict


def replay_decides_the_same(history: History) -> Verdict:
    """Recovery is a replay: every prefix of a log decides what was done next."""
    verdict = Verdict()
    if history.steady:
        for plan_id in history.logs:
            if plan_id not in history.held:
                verdict.asserted(lambda plan_id=plan_id: check_decisions(history.events(plan_id)), plan_id)  # type: ignore[misc]

    return verdict


def _calls_by_step(history: History) -> dict[tuple[str, str], list[Call]]:
    found: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in history.calls:
        found[call.plan_id, call.step_id].append(call)

    return found


PROMISES: Final[Mapping[str, Promise]] = {
    "seen-is-durable": seen_is_durable,
    "dense": dense,
    "acknowledged-is-kept": acknowledged_is_kept,
    "finished-runs-once": finished_runs_once,
    "effects-not-repeated": effects_not_repeated,
    "one-key": one_key,
    "cancel-is-final": cancel_is_final,
    "starts-when-ready": starts_when_ready,
    "first-decision-wins": first_decision_wins,
    "data-is-not-a-plan": data_is_not_a_plan,
    "full-disk-stalls": full_disk_stalls,
    RETENTION: retention_takes_what_is_due,
    "watch-compaction-told": what_went_is_told,
    "every-plan-ends": every_plan_ends,
    "one-owner": one_owner,
    "replay-decides-the-same": replay_decides_the_same,
}
"""Every promise by its name, in the order of docs/guarantees.md; the last three are what the others rest on."""


def check(history: History) -> dict[str, Verdict]:
    """Put a history to all promises. What a promise itself cannot read breaks it."""
    return {name: _checked(promise, history) for name, promise in PROMISES.items()}


def _checked(promise: Promise, history: History) -> Verdict:
    try:
        return promise(history)
    except Exception as error:  # noqa: BLE001 - a history so broken that it cannot be read is a violation, not a crash
        return Verdict(1, [f"the history cannot be read: {type(error).__name__}: {error}"])
