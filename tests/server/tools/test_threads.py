"""The pool of threads: who gets the work, and that a burst's threads do not stay for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import pytest

from autoglm_server.tools.providers.threads import NoThreadError, ThreadPool

BURST = 8


@pytest.fixture
async def pool() -> AsyncIterator[ThreadPool]:
    pool = ThreadPool("test", BURST, idle_seconds=60)
    yield pool
    pool.stop()


async def burst(pool: ThreadPool) -> None:
    """Have as many threads made as the pool may have, and none with work."""
    together = threading.Barrier(BURST)
    await asyncio.gather(*(pool.submit(together.wait, "burst").future for _ in range(BURST)))


async def all_idle(pool: ThreadPool) -> None:
    while pool.idle < BURST:  # noqa: ASYNC110 - a thread says that its work is done just before it is idle
        await asyncio.sleep(0)


async def test_work_goes_to_the_thread_that_became_idle_last(pool: ThreadPool) -> None:
    await burst(pool)
    seen = set()
    for _ in range(3 * BURST):
        await all_idle(pool)
        seen.add(await pool.submit(threading.current_thread, "one").future)

    assert len(seen) == 1


async def test_jobs_that_come_together_each_get_a_thread(pool: ThreadPool) -> None:
    for _ in range(3):
        await burst(pool)  # would wait for good if two shared a thread
        await all_idle(pool)


async def test_the_threads_of_a_burst_end_while_there_is_some_work() -> None:
    pool = ThreadPool("test", BURST, idle_seconds=0.3)
    await burst(pool)
    await all_idle(pool)
    made = {thread for thread in threading.enumerate() if thread.name.startswith("test-")}
    while sum(thread.is_alive() for thread in made) > 1:
        await pool.submit(lambda: None, "one").future

    pool.stop()


async def test_threads_without_work_end_with_the_pool(pool: ThreadPool) -> None:
    await burst(pool)
    await all_idle(pool)
    made = [thread for thread in threading.enumerate() if thread.name.startswith("test-")]
    pool.stop()
    for thread in made:
        await asyncio.to_thread(thread.join, 10)

    assert not any(thread.is_alive() for thread in made)


class ScarceThread(threading.Thread):
    """One of a system that has few."""

    left = 0

    def start(self) -> None:
        if not ScarceThread.left:
            raise RuntimeError("can't start new thread")

        ScarceThread.left -= 1
        super().start()


async def test_where_the_system_gives_no_thread_nothing_is_done_later(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", ScarceThread)
    done: list[str] = []
    for _ in range(2 * BURST):  # and no place is lost by it
        with pytest.raises(NoThreadError, match="the system gives the pool test no thread"):
            pool.submit(lambda: done.append("refused"), "refused")

    ScarceThread.left = 1
    jobs = [pool.submit(partial(done.append, str(number)), "kept") for number in range(3)]
    await asyncio.gather(*(job.future for job in jobs))
    assert done == ["0", "1", "2"]


async def test_who_is_given_up_where_the_system_gives_no_thread_leaves_what_waits_to_the_next(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", ScarceThread)
    ScarceThread.left = 1
    began, go = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        go.wait()

    stuck = pool.submit(hold, "stuck")
    waiting = pool.submit(lambda: "done", "waiting")
    assert began.wait(10)
    pool.abandon(stuck)
    ScarceThread.left = 1
    assert await pool.submit(lambda: "next", "next").future == "next"
    assert await waiting.future == "done"
    go.set()
