"""A write goes to its end, whoever waits for it: until then the transport holds what it took for the message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc.aio
import pytest

from autoglm_server.service.writing import whole


class Transport:
    """Sends when it is told, and says what became of its writes."""

    def __init__(self) -> None:
        self.sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.freed = False

    async def write(self) -> None:
        await asyncio.sleep(0)
        await self.sent
        self.freed = True


async def direct(write: Coroutine[Any, Any, None]) -> None:
    await write


async def begun(transport: Transport, through: Callable[[Coroutine[Any, Any, None]], Any]) -> asyncio.Task[None]:
    async def do() -> None:
        await through(transport.write())

    task = asyncio.create_task(do())
    for _ in range(3):
        await asyncio.sleep(0)

    return task


@pytest.mark.parametrize(("through", "freed"), [(whole, True), (direct, False)])
async def test_a_write_that_nobody_waits_for_any_more_ends_by_itself(through: Any, freed: bool) -> None:
    transport = Transport()
    task = await begun(transport, through)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not transport.freed
    assert transport.sent.cancelled() is not freed
    if freed:
        transport.sent.set_result(None)
        await asyncio.sleep(0)

    assert transport.freed is freed


async def test_so_does_one_that_was_sent_just_before_its_handler_was_cancelled() -> None:
    transport = Transport()
    task = await begun(transport, whole)
    transport.sent.set_result(None)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert transport.freed


async def test_who_waits_is_told_the_end() -> None:
    transport = Transport()
    task = await begun(transport, whole)
    assert not task.done()
    transport.sent.set_result(None)
    await task
    assert transport.freed


@pytest.mark.parametrize("waits", [True, False])
async def test_what_could_not_be_sent_is_told_to_who_still_waits(waits: bool) -> None:
    transport = Transport()
    task = await begun(transport, whole)
    if not waits:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    transport.sent.set_exception(unsent := grpc.aio.InternalError("not sent"))
    await asyncio.sleep(0)
    if waits:
        with pytest.raises(grpc.aio.InternalError) as caught:
            await task

        assert caught.value is unsent
