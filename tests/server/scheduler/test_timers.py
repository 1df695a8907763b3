"""Waking plans: in time, no more often than asked for, and without keeping alive what has ended."""

from __future__ import annotations

import gc
import weakref

from autoglm_server.clock import FakeClock
from autoglm_server.scheduler.timers import Timers
from tests.server.scheduler.harness import World, step


class Sleeper:
    def __init__(self) -> None:
        self.woken = 0

    def turn(self) -> None:
        self.woken += 1


async def test_only_the_last_time_set_counts() -> None:
    clock = FakeClock()
    timers = Timers(clock)
    early, late, never = Sleeper(), Sleeper(), Sleeper()
    start = clock.monotonic()
    timers.set(early, start + 9)
    timers.set(early, start + 1)
    timers.set(late, start + 1)
    timers.set(late, start + 9)
    timers.set(late, start + 1)
    timers.set(late, start + 9)
    timers.set(never, start + 1)
    timers.set(never, None)
    clock.advance(2)
    timers.tick()
    assert (early.woken, late.woken, never.woken) == (1, 0, 0)
    clock.advance(8)
    timers.tick()
    assert (early.woken, late.woken, never.woken) == (1, 1, 0)
    timers.stop()


async def test_times_that_were_given_up_do_not_pile_up() -> None:
    clock = FakeClock()
    timers = Timers(clock)
    sleeper = Sleeper()
    start = clock.monotonic()
    for number in range(10_000):
        timers.set(sleeper, start + 600 + number % 2)

    assert len(timers) < 100
    timers.stop()


async def test_a_plan_that_has_ended_is_not_kept_until_its_timeout() -> None:
    async with World() as world:
        plan = await world.create(step("a"))
        call = await world.tools.called("a")
        run = weakref.ref(world.scheduler._runs[plan.id])
        call.succeed()
        await world.ended(plan)
        del call
        world.tools.calls.clear()
        await world.settle()
        gc.collect()
        assert run() is None
