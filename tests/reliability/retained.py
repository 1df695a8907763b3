"""What the checker says of retention: it takes what is due, whole and nothing else, and who misses something is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from autoglm.fold import PlanFold
from autoglm.model import PlanCancelled, PlanCreated, PlanFailed, PlanSucceeded
from tests.reliability.history import History, Keeping, Kept, Logged, Swept, Told
from tests.reliability.verdict import Verdict

RETENTION: Final = "retention-takes-what-is-due"
ENDS: Final = (PlanSucceeded, PlanFailed, PlanCancelled)


@dataclass(frozen=True, slots=True)
class _End:
    """A plan that has ended: when that was durable, and what the clock on the wall said."""

    at: int
    time: float
    parent: str


def ends_of(history: History) -> dict[str, _End]:
    """Give the plans that have ended."""
    return {plan_id: end for plan_id, log in history.logs.items() if (end := _end(log)) is not None}


def _end(log: list[Logged]) -> _End | None:
    first, last = log[0].event.fact, log[-1]
    if not isinstance(last.event.fact, ENDS) or last.event.event_time is None:
        return None

    parent = first.parent.plan_id if isinstance(first, PlanCreated) and first.parent is not None else ""
    return _End(last.durable_at or 0, last.event.event_time.timestamp(), parent)


def due(swept: Swept, ends: Mapping[str, _End], rules: Keeping) -> str:
    """Say why a plan, or its events, might not go; empty if that was in order."""
    end = ends.get(swept.plan_id)
    if end is None or end.at > swept.at:
        return "which had not ended"

    above = ends.get(end.parent)
    if swept.whole and end.parent and (above is None or above.at > swept.at):
        return f"though plan {end.parent}, whose step it is, had not ended"

    age = swept.now - end.time
    ages = [one for one in ((rules.plans,) if swept.whole else (rules.events, rules.plans)) if one is not None]
    if ages and age > min(ages):
        return ""

    if rules.max_plans is None or (swept.whole and age <= rules.keys):
        return f"{age:.3f} s after its end"

    newer = sum(
        1 for plan_id, one in ends.items() if plan_id != swept.plan_id and one.at <= swept.at and one.time >= end.time
    )
    return "" if newer >= rules.max_plans else f"{age:.3f} s after its end, and only {newer} had ended later"


def retention_takes_what_is_due(history: History) -> Verdict:
    """Of plans that have ended, what is due goes, whole; nothing else does, and a request_id goes with its plan."""
    verdict = Verdict()
    kept = history.kept
    if kept is None:
        return verdict

    ends = ends_of(history)
    taken: dict[str, bool] = {}
    for swept in kept.swept:
        what = "plan" if swept.whole else "the events of plan"
        wrong = due(swept, ends, kept.rules)
        verdict.expect(holds=not wrong, otherwise=f"{what} {swept.plan_id} went, {wrong}")
        taken[swept.plan_id] = taken.get(swept.plan_id, False) or swept.whole

    for plan_id, log in history.logs.items():
        _left_whole(verdict, plan_id, log, kept, taken)

    if history.healed:
        _nothing_is_overdue(verdict, kept, ends)

    return verdict


def _left_whole(verdict: Verdict, plan_id: str, log: list[Logged], kept: Kept, taken: Mapping[str, bool]) -> None:
    """What is there is whole, and what is not was taken."""
    there = plan_id in kept.rows
    verdict.expect(holds=there or taken.get(plan_id, False), otherwise=f"plan {plan_id} is gone, and nothing took it")
    if there and plan_id not in kept.events:
        verdict.expect(holds=plan_id in taken, otherwise=f"the events of {plan_id} are gone, and nothing took them")
        fold = PlanFold(plan_id)
        for logged in log:
            fold.apply(logged.event)

        whole = kept.snapshots.get(plan_id) == fold.snapshot()
        verdict.expect(holds=whole, otherwise=f"what stayed of {plan_id} is not what its events said")

    created = log[0].event.fact
    request_id = created.request_id if isinstance(created, PlanCreated) else ""
    if request_id:
        known = kept.requests.get(request_id) == plan_id
        otherwise = f"request_id {request_id} of {plan_id}: remembered {known}, and the plan is there: {there}"
        verdict.expect(holds=known is there, otherwise=otherwise)


def _nothing_is_overdue(verdict: Verdict, kept: Kept, ends: Mapping[str, _End]) -> None:
    """When all is well again, a whole sweep leaves what the rules leave."""
    if kept.last is None:
        verdict.expect(holds=False, otherwise="no sweep came to its end")
        return

    rules = kept.rules
    began, now = kept.last
    late = [plan_id for plan_id, end in ends.items() if end.at > began]
    verdict.expect(holds=not late, otherwise=f"no sweep came to its end after these: {late}")
    ended = {plan_id: now - end.time for plan_id, end in ends.items() if end.at <= began}
    ages = [age for age in (rules.events, rules.plans) if age is not None]
    for plan_id, age in ended.items():
        gone = rules.plans is None or age <= rules.plans or plan_id not in kept.rows
        verdict.expect(holds=gone, otherwise=f"plan {plan_id} is there {age:.3f} s after its end")
        gone = not ages or age <= min(ages) or plan_id not in kept.events
        verdict.expect(holds=gone, otherwise=f"the events of {plan_id} are there {age:.3f} s after its end")

    if rules.max_plans is not None:
        whole = [plan_id for plan_id in ended if plan_id in kept.events]
        old = [plan_id for plan_id, age in ended.items() if plan_id in kept.rows and age > rules.keys]
        for what, there in (("events of plans", whole), ("plans whose request_ids may be forgotten", old)):
            few = len(there) <= rules.max_plans
            verdict.expect(holds=few, otherwise=f"{len(there)} {what} are there, {rules.max_plans} are to be: {there}")


def what_went_is_told(history: History) -> Verdict:
    """Who watches is given everything, or told that it is gone; nobody is told so of what is there."""
    verdict = Verdict()
    given: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for seen in history.seen:
        given[seen.watcher][seen.plan_id] = max(given[seen.watcher][seen.plan_id], seen.sequence)

    told = {one.who for one in history.told}
    for one in history.told:
        wrong = _wrongly_told(one, history, given[one.who])
        verdict.expect(holds=not wrong, otherwise=f"{one.who} was told {one.reason}: {wrong}")

    if history.healed:
        for watcher, plan_id in history.watching.items():
            if watcher not in told:
                _given_all(verdict, watcher, plan_id, given[watcher], history)

    return verdict


def _wrongly_told(told: Told, history: History, given: Mapping[str, int]) -> str:
    swept = [one for one in history.kept.swept if one.at < told.at] if history.kept is not None else []
    if told.reason == "PLAN_NOT_FOUND":
        removed = any(one.whole and one.plan_id == told.plan_id for one in swept)
        return "" if removed else f"plan {told.plan_id} is there"

    if told.reason != "SEQUENCE_COMPACTED":
        return "that was nobody's place"

    gone = {one.plan_id for one in swept if told.plan_id in ("", one.plan_id)}
    if not told.plan_id and history.kept is not None:  # who follows all is told before the journal is
        gone |= {plan_id for plan_id, at in history.kept.meant.items() if at < told.at}

    missed = any(given.get(plan_id, 0) < len(history.logs.get(plan_id, ())) for plan_id in gone)
    return "" if missed else f"none of these went before it was given: {sorted(gone)}"


def _given_all(verdict: Verdict, watcher: str, plan_id: str, given: Mapping[str, int], history: History) -> None:
    """Check one who was never told that anything is gone."""
    wanted = [plan_id] if plan_id else [*history.logs]
    since = history.resumed.get(watcher, 1 << 62)
    for one in wanted:
        log = history.logs.get(one, [])
        has = given.get(one, 0)
        # Who follows all plans from the oldest on is not told of one that went before its turn.
        passed = not plan_id and not has and _went(history, one) and (log[0].durable_at or 0) <= since
        otherwise = f"{watcher} was given {has} of the {len(log)} events of {one}, and not told that any are gone"
        verdict.expect(holds=has == len(log) or passed, otherwise=otherwise)


def _went(history: History, plan_id: str) -> bool:
    return history.kept is not None and any(one.plan_id == plan_id for one in history.kept.swept)
