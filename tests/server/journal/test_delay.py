"""How far the disk is behind: the age of the oldest that was handed over and is not settled."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from autoglm_server.journal import _writer
from autoglm_server.journal.sqlite import SqliteJournal


async def test_the_delay_is_that_of_the_oldest_which_is_not_settled(
    tmp_path: Path, hand_of: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns and commits are cut differently: two turns wait for one commit, behind another."""
    writer: Any = _writer
    free, entered, real = threading.Event(), threading.Semaphore(0), writer.commit

    def slow(*arguments: Any) -> Any:
        entered.release()
        free.wait(10)
        return real(*arguments)

    monkeypatch.setattr(writer, "commit", slow)
    journal = SqliteJournal(tmp_path)
    await journal.open()
    loop, start = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    try:
        with monkeypatch.context() as clock:
            clock.setattr(loop, "time", lambda: start)
            assert journal.delay == 0
            hand = hand_of(journal)
            writes = [asyncio.create_task(hand.write("a", 1))]
            await _turn()
            await asyncio.to_thread(entered.acquire)
            for number, plan_id in enumerate("bc", 1):
                clock.setattr(loop, "time", lambda number=number: start + number)
                writes.append(asyncio.create_task(hand.write(plan_id, 1)))
                await _turn()

            clock.setattr(loop, "time", lambda: start + 5)
            assert journal.delay == 5

        free.set()
        await asyncio.gather(*writes)
        assert journal.delay == 0
    finally:
        free.set()
        await journal.close()


async def _turn() -> None:
    for _ in range(4):
        await asyncio.sleep(0)
