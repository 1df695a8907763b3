"""The line of work that waits for the loop: its order, and how much begins in a pass."""

from __future__ import annotations

import asyncio

import pytest

from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.turns import MOST, Turns
from tests.server.scheduler.harness import World, step


class Work:
    """Asks for turns, and notes in which pass of the loop each began."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began: list[int] = []
        self.passes = 0

    async def one(self, number: int, order: list[int], plan: str = "plan") -> None:
        if (turn := self.turns.ask(plan)) is not None:
            await turn

        order.append(number)
        self.began.append(self.passes)

    async def passes_go_by(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.passes += 1


async def test_what_is_alone_begins_at_once() -> None:
    turns = Turns()
    for _ in range(20):
        assert turns.ask("plan") is None
        assert turns.ask_new() is None
        assert turns.wait == 0
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_all_begin_in_the_order_in_which_they_came_a_few_in_each_pass() -> None:
    work, order = Work(Turns()), list[int]()
    tasks = [asyncio.create_task(work.one(number, order)) for number in range(50)]
    await work.passes_go_by(50)
    assert order == [*range(50)]
    assert max(work.began.count(number) for number in range(50)) == MOST
    assert work.began[-1] <= 50 / MOST + 2
    await asyncio.gather(*tasks)


async def test_who_goes_away_leaves_the_line_to_the_others() -> None:
    work, order = Work(Turns()), list[int]()
    tasks = [asyncio.create_task(work.one(number, order)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[MOST + 1 : 16]:
        task.cancel()

    await asyncio.wait(tasks)
    assert order == [*range(MOST + 1), *range(16, 20)]


def line(turns: Turns, *plans: str) -> list[asyncio.Future[None]]:
    """Let calls of these plans, and new plans (named "new"), stand in line in a pass that is full."""
    turns._left = 1
    assert turns.ask("full") is None
    asked = [turns.ask_new() if plan == "new" else turns.ask(plan) for plan in plans]
    return [turn for turn in asked if turn is not None]


def begun(turns: Turns, waiting: list[asyncio.Future[None]]) -> list[int]:
    """Give who begins one after the other, all passes in one."""
    order: list[int] = []
    while len(order) < len(waiting):
        turns._next_pass()
        order += [at for at, turn in enumerate(waiting) if turn.done() and at not in order]

    return order


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
    waiting = line(turns, *plans)
    monkeypatch.setattr("autoglm_server.scheduler.turns.MOST", 1)
    assert begun(turns, waiting) == order


async def test_plans_that_wait_elsewhere_because_of_this_line_count_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(lambda: 2)
    waiting = line(turns, *["a"] * 8, "new", "new")
    monkeypatch.setattr("autoglm_server.scheduler.turns.MOST", 1)
    assert begun(turns, waiting) == [0, 1, 2, 8, 3, 4, 5, 9, 6, 7]


async def test_a_new_plan_would_wait_like_the_first_or_as_the_pace_says(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    turns = Turns()
    waiting = line(turns, *["new"] * 40)
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
    (again,) = line(turns, "new")
    assert turns.wait == 0  # what was known of an earlier line says nothing of this one
    again.cancel()


async def test_who_goes_away_is_not_waited_for() -> None:
    turns = Turns()
    waiting = line(turns, "new", "new")
    for turn in waiting:
        turn.cancel()

    assert turns.wait == 0


@pytest.mark.parametrize("in_line", [2, 4])
async def test_plans_without_a_place_wait_for_the_loop_if_most_calls_do(in_line: int) -> None:
    async with World(limits=Limits(running_calls=4)) as world:
        await world.create(*(step(f"s{number}") for number in range(6)))
        await world.settle()
        assert len(world.scheduler._starving) == 1
        waiting = line(world.scheduler.turns, *["a"] * in_line)
        assert world.scheduler._starving_of_the_loop() == (in_line > world.limits.running_calls / 2)
        for turn in waiting:
            turn.cancel()
