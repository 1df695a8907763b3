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

    async def one(self, number: int, order: list[int]) -> None:
        if (turn := self.turns.ask()) is not None:
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
        assert turns.ask() is None
        assert turns.waited == 0
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
    for task in tasks[10:16]:
        task.cancel()

    await asyncio.wait(tasks)
    assert order == [*range(10), *range(16, 20)]


async def test_the_first_of_the_line_says_how_long_it_is() -> None:
    turns = Turns()
    waiting = [turn for _ in range(MOST + 2) if (turn := turns.ask()) is not None]
    loop, before = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    assert len(waiting) == 2
    while loop.time() == before:
        pass

    assert turns.waited > 0
    for turn in waiting:
        turn.cancel()

    assert turns.waited == 0


@pytest.mark.parametrize("in_line", [2, 4])
async def test_who_waits_for_a_place_behind_calls_that_wait_for_the_loop_waits_for_the_loop(in_line: int) -> None:
    async with World(limits=Limits(running_calls=4)) as world:
        await world.create(*(step(f"s{number}") for number in range(6)))
        await world.settle()
        assert len(world.scheduler._starving) == 1
        turns, loop = world.scheduler.turns, asyncio.get_running_loop()
        waiting = [turn for _ in range(MOST + in_line) if (turn := turns.ask()) is not None]
        before = loop.time()
        while loop.time() == before:
            pass

        starved = loop.time() - next(iter(world.scheduler._starving.values()))
        assert (world.scheduler.behind >= starved) is (in_line > world.limits.running_calls / 2)
        for turn in waiting:
            turn.cancel()

        assert world.scheduler.behind == 0
