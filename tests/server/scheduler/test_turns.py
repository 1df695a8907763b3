"""The line of work that waits for the loop: its order, how much begins in a pass, and whom it makes room for."""

from __future__ import annotations

import asyncio

from autoglm_server.scheduler.turns import CLOSE, LEAST, MOST, Turns


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


async def counted(*, calls_every: int) -> float:
    """How many turns a pass are given while a call is handed over every so many passes."""
    turns, begun = Turns(), 0
    for _ in range(2000):
        turns.ask()

    for number in range(200):
        if calls_every and number % calls_every == 0:
            turns.came("m")

        before = len(turns._line)
        await asyncio.sleep(0)
        begun += before - len(turns._line)

    return begun / 200


async def test_while_calls_come_one_right_behind_the_other_the_line_makes_room_for_them() -> None:
    assert await counted(calls_every=0) >= MOST * 0.9
    assert await counted(calls_every=4 * CLOSE) >= MOST * 0.8
    assert LEAST <= await counted(calls_every=4) <= MOST / 4


async def test_the_line_never_stands_still() -> None:
    work, order = Work(Turns()), list[int]()
    tasks = [asyncio.create_task(work.one(number, order)) for number in range(100)]
    for _ in range(int(100 / LEAST) + 100):
        work.turns.came("m")
        await asyncio.sleep(0)

    assert len(order) == 100
    await asyncio.gather(*tasks)
