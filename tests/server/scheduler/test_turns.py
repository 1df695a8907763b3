"""The line of work that waits for the loop: its order, and how much begins in a pass."""

from __future__ import annotations

import asyncio

import pytest

from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.turns import MOST, Turns
from tests.server.scheduler.harness import World, step


class Work:
    """A plan: it notes which of its calls began, and in which pass of the loop."""

    def __init__(self, turns: Turns, order: list[int] | None = None) -> None:
        self.turns = turns
        self.order: list[int] = [] if order is None else order
        self.began: list[int] = []
        self.gone: set[int] = set()
        self.passes = 0

    def begin(self, number: int) -> bool:
        if number in self.gone:
            return False

        self.order.append(number)
        self.began.append(self.passes)
        return True

    async def passes_go_by(self, count: int) -> None:
        for _ in range(count):
            self.passes += 1
            await asyncio.sleep(0)


async def test_what_is_alone_begins_at_once() -> None:
    work = Work(Turns())
    for number in range(20):
        work.turns.call(work, number)
        assert work.order == [*range(number + 1)]
        assert work.turns.ask_new() is None
        assert work.turns.wait == 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_all_begin_in_the_order_in_which_they_came_a_few_in_each_pass() -> None:
    work = Work(Turns())
    for number in range(50):
        work.turns.call(work, number)

    await work.passes_go_by(50)
    assert work.order == [*range(50)]
    assert max(work.began.count(number) for number in range(50)) == MOST
    assert work.began[-1] <= 50 / MOST + 2
    assert not work.turns


async def test_who_goes_away_leaves_the_line_to_the_others() -> None:
    work = Work(Turns())
    for number in range(2 * MOST + 3):
        work.turns.call(work, number)

    work.gone = {MOST + 1, MOST + 2}
    await asyncio.sleep(0)
    assert work.order == [*range(MOST + 1), *range(MOST + 3, 2 * MOST + 2)]
    await asyncio.sleep(0)
    assert work.order[-1] == 2 * MOST + 2


class Line:
    """Calls of plans and new plans (named "new") that stand in line in a pass that is full."""

    def __init__(self, turns: Turns, *plans: str) -> None:
        self.turns = turns
        turns._left = 1
        turns.call(Work(turns), -1)
        self.began: list[int] = []
        self.works = {plan: Work(turns, self.began) for plan in plans}
        self.new: dict[int, asyncio.Future[None]] = {}
        for number, plan in enumerate(plans):
            if plan != "new":
                turns.call(self.works[plan], number)
            elif (turn := turns.ask_new()) is not None:
                self.new[number] = turn

        assert not self.began

    def go_away(self) -> None:
        for work in self.works.values():
            work.gone = {*range(1000)}

        for turn in self.new.values():
            turn.cancel()

    def begun(self) -> list[int]:
        """Give who begins one after the other, all passes in one."""
        while self.turns or not all(turn.done() for turn in self.new.values()):
            self.turns._next_pass()
            self.began += [at for at, turn in self.new.items() if turn.done() and at not in self.began]

        return self.began


@pytest.mark.parametrize(
    ("plans", "order"),
    [
        (["a"] * 6 + ["new"] * 2, [0, 6, 1, 7, 2, 3, 4, 5]),
        (["a", "b", "c"] * 2 + ["new", "new"], [0, 1, 2, 6, 3, 4, 7, 5]),
        (["new", "new", "a"], [2, 0, 1]),
    ],
)
async def test_a_new_plan_has_its_turn_when_each_plan_in_line_could_have_had_one(
    plans: list[str], order: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = Turns()
    line = Line(turns, *plans)
    monkeypatch.setattr("autoglm_server.scheduler.turns.MOST", 1)
    assert line.begun() == order


async def test_who_goes_away_takes_no_turn_from_the_new_plan_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    line = Line(turns, *["a", "b", "c"] * 2, "new", "new", "new")
    line.new.pop(6).cancel()
    line.new.pop(7).cancel()
    monkeypatch.setattr("autoglm_server.scheduler.turns.MOST", 1)
    assert line.begun() == [0, 1, 2, 8, 3, 4, 5]


async def test_plans_that_wait_elsewhere_because_of_this_line_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(lambda: 2)
    line = Line(turns, *["a"] * 8, "new", "new")
    monkeypatch.setattr("autoglm_server.scheduler.turns.MOST", 1)
    assert line.begun() == [0, 1, 2, 8, 3, 4, 5, 9, 6, 7]


async def test_a_new_plan_would_wait_like_the_first_or_as_the_pace_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    turns = Turns()
    waiting = [*Line(turns, *["new"] * 40).new.values()]
    assert turns.wait == 0
    now += 0.05
    assert turns.wait == pytest.approx(0.05)  # of the first
    monkeypatch.setattr("autoglm_server.scheduler.turns.MOST", 10)
    turns._next_pass()
    assert turns.wait == pytest.approx(0.05)
    now += 0.06
    turns._next_pass()
    assert turns.wait == pytest.approx(20 * 0.11 / 11)  # 11 had theirs until more than a tenth of a second had gone by
    for turn in waiting[20:30]:
        turn.cancel()

    turns._next_pass()
    assert [turn for turn in waiting if not turn.done()] == []
    assert turns.wait == 0
    again = Line(turns, "new")
    assert turns.wait == 0  # what was known of an earlier line says nothing of this one
    again.go_away()


async def test_who_goes_away_is_not_waited_for() -> None:
    turns = Turns()
    Line(turns, "new", "new").go_away()
    assert turns.wait == 0


@pytest.mark.parametrize("in_line", [2, 4])
async def test_plans_without_a_place_wait_for_the_loop_if_most_calls_do(in_line: int) -> None:
    async with World(limits=Limits(running_calls=4)) as world:
        await world.create(*(step(f"s{number}") for number in range(6)))
        await world.settle()
        assert len(world.scheduler._starving) == 1
        line = Line(world.scheduler.turns, *["a"] * in_line)
        assert world.scheduler._starving_of_the_loop() == (in_line > world.limits.running_calls / 2)
        line.go_away()


async def test_a_drain_waits_for_calls_that_stand_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        turns = world.scheduler.turns
        monkeypatch.setattr(turns, "_at_once", lambda: False)
        plan = await world.create(*(step(f"s{number}", "echo") for number in range(3)))
        await world.settle()
        run = world.scheduler.runs[plan.id]
        assert (len(turns), len(run.tasks)) == (3, 0)
        asyncio.get_running_loop().call_soon(turns._next_pass)
        await world.scheduler.drain(5.0)
        assert run.plan.succeeded == 3


async def test_the_line_goes_on_when_one_of_it_cannot_begin() -> None:
    class Broken:
        def begin(self, _: object) -> bool:
            raise RuntimeError("it cannot")

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    turns = Turns()
    turns._left = 1
    assert turns.ask_new() is None
    turns.call(Broken(), 1)
    after = turns.ask_new()
    assert after is not None
    await after
    assert told == ["it cannot"]
