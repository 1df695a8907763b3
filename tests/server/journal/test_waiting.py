"""Waiting for a commit or for a time: one timer for all who wait for the same, and none left behind."""

from __future__ import annotations

import asyncio

from autoglm_server.journal._waiting import Alarms, Waiter, Waiters, due_after


def timers(alarms: Alarms) -> int:
    return len(alarms._due)


async def begun(count: int, alarms: Alarms, due: float) -> tuple[Waiters, list[Waiter], list[asyncio.Task[None]]]:
    waiters, those = Waiters(), [Waiter(alarms) for _ in range(count)]
    tasks = [asyncio.create_task(waiter.wait(waiters, due)) for waiter in those]
    await asyncio.sleep(0)
    assert list(waiters) == those
    return waiters, those, tasks


async def test_long_waits_share_a_timer_and_leave_none() -> None:
    alarms = Alarms()
    waiters, those, tasks = await begun(50, alarms, due_after(60.0))
    assert timers(alarms) == 1
    waiters.wake()
    await asyncio.gather(*tasks)
    assert timers(alarms) == 1, "who waits again need not set it"
    for waiter in those:
        waiter.close()
        waiter.close()

    assert timers(alarms) == 0


async def test_who_waits_again_is_not_woken_by_the_alarm_of_before() -> None:
    alarms, now = Alarms(), asyncio.get_running_loop().time()
    waiters, those, tasks = await begun(3, alarms, now + 0.02)
    waiters.wake()
    await asyncio.gather(*tasks)
    again = asyncio.create_task(those[0].wait(waiters, now + 0.04))
    sooner = asyncio.create_task(those[1].wait(waiters, now + 0.01))
    await sooner
    assert not again.done()
    await again
    assert asyncio.get_running_loop().time() >= now + 0.039
    those[2].close()
    assert timers(alarms) == 0


async def test_a_cancelled_wait_is_over() -> None:
    alarms = Alarms()
    waiters, (waiter,), (task,) = await begun(1, alarms, due_after(60.0))
    task.cancel()
    await asyncio.wait([task])
    assert list(waiters) == []
    waiter.close()
    assert timers(alarms) == 0


async def test_a_long_wait_is_never_longer_and_hardly_shorter() -> None:
    time = asyncio.get_running_loop().time
    for timeout in (0.0, 0.05, 1.9, 2.0, 2.3, 15.0, 15.7):
        before, due, after = time(), due_after(timeout), time()
        assert before - (0.5 if timeout >= 2.0 else 0.0) <= due - timeout <= after
        assert timeout < 2.0 or due % 0.5 == 0.0
