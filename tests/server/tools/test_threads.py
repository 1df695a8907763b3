"""The pool of threads: who gets the work, and that a burst's threads do not stay for good."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from autoglm_server.tools.providers.threads import ThreadPool

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
