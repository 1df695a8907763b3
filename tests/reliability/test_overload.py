"""The judge of an overload, on figures made up: each promise is broken by what breaks it alone."""

from __future__ import annotations

from autoglm.model import PlanState
from tests.reliability.overload import GOODPUT, HEALTH, KEPT, REFUSED, Measured, Phase, judge
from tests.reliability.rows import Result


def measured(
    *, good: tuple[int, ...] = (90, 80), refused: tuple[float, ...] = (0.05, 0.05), name: str = ""
) -> Measured:
    """Rounds with a peak of 100 a second: so many came to their end in time, and so long it took to refuse."""
    found = Measured()
    for number, (count, took) in enumerate(zip(good, refused, strict=True)):
        closed = Phase(1.5, 0.5, [0.5] * 100, began_wall=9.5)
        over = Phase(1.75, 0.75, [0.75] * 300, refused=[took] * 100, began_wall=19.75, health=[0.01] * 50)
        closed.acknowledged = {f"{name}c{number}-{index}": 10.0 for index in range(100)}
        over.acknowledged = {f"{name}o{number}-{index}": 20.5 for index in range(100)}
        found.ends |= dict.fromkeys(closed.acknowledged, 10.5)
        found.ends |= {plan: 21.0 if at < count else 23.0 for at, plan in enumerate(over.acknowledged)}
        found.closed.append(closed)
        found.over.append(over)

    found.states = dict.fromkeys(found.ends, PlanState.SUCCEEDED)
    return found


def broken(found: Measured) -> set[str]:
    result = Result()
    judge(found, result, "here")
    assert {*result.tries} == {GOODPUT, REFUSED, HEALTH, KEPT}
    return {promise for promise, count in result.violations.items() if count}


def test_what_holds_in_all_rounds_together_is_kept_and_for_refusals_in_half_of_them() -> None:
    assert broken(measured()) == set()
    assert broken(measured(good=(99, 62))) == set()
    assert broken(measured(good=(90, 90, 90), refused=(0.05, 0.05, 0.5))) == set()
    assert broken(measured(good=(90, 90, 90, 90), refused=(0.05, 0.05, 0.05, 0.5))) == set()


def test_less_than_is_promised_is_told() -> None:
    assert broken(measured(good=(80, 79))) == {GOODPUT}
    assert broken(measured(good=(90, 90, 90), refused=(0.05, 0.11, 0.5))) == {REFUSED}
    assert broken(measured(refused=(0.01, 0.11))) == {REFUSED}


def test_who_asked_for_too_little_has_not_shown_it() -> None:
    found = measured()
    found.over[1].asked.pop()
    assert broken(found) == {GOODPUT}
    found.over[0].asked.append(0.75)
    assert broken(found) == set()
    found.over[0].asked[-1] -= 0.1  # the beginning does not count
    assert broken(found) == {GOODPUT}


def test_the_peak_is_what_closed_loops_got_done_once_they_had_begun() -> None:
    found = measured()
    found.closed[1].length = 2.5
    assert (found.peak, found.goodput) == (75, 85 / 75)
    found.closed[0].began_wall += 0.1
    assert found.peak == 25


def test_a_server_that_does_nothing_at_all_has_not_shown_it() -> None:
    found = measured()
    found.ends.clear()
    assert (found.peak, found.times, found.goodput) == (0, 0, 0)
    assert broken(found) == {GOODPUT}


def test_what_an_overload_begins_with_does_not_count() -> None:
    found = measured()
    for over in found.over:
        over.began_wall += 0.2

    assert broken(found) == {GOODPUT}


def test_a_call_that_met_its_deadline_is_late_and_nothing_else() -> None:
    found = measured()
    for over in found.over:
        over.untold.append("DEADLINE_EXCEEDED: ")
        over.refused = [0.05] * 199 + [1.0]

    assert broken(found) == set()
    for over in found.over:
        over.refused[-2] = 1.0

    assert broken(found) == {REFUSED}


def test_one_refusal_without_a_time_one_lost_plan_or_one_missing_answer_is_enough() -> None:
    untold, lost, open_, dead = measured(), measured(), measured(), measured()
    untold.over[0].untold.append("RESOURCE_EXHAUSTED: no more")
    lost.states.pop("o1-5")
    open_.states["c0-7"] = PlanState.RUNNING
    dead.over[1].health.append(5.0)
    assert [broken(found) for found in (untold, lost, open_, dead)] == [{REFUSED}, {KEPT}, {KEPT}, {HEALTH}]


def test_a_second_time_is_judged_with_the_first() -> None:
    for first, kept in ((65, set()), (64, {GOODPUT})):
        found = measured(good=(first, first))
        found.more(measured(good=(95, 95), name="again-"))
        assert (found.goodput, broken(found)) == ((first + 95) / 200, kept)


def test_what_a_second_time_lost_is_told() -> None:
    found, again = measured(), measured(name="again-")
    again.states["again-o1-5"] = PlanState.RUNNING
    found.more(again)
    assert broken(found) == {KEPT}
