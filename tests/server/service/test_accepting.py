"""Calls of a method are taken up many at once, and behind the door nobody sees that."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from autoglm_server.service import accepting

SERVICE = "autoglm.v1.PlanService"
OFTEN, SELDOM = f"/{SERVICE}/CreatePlan", f"/{SERVICE}/ListPlans"


class Names(grpc.aio.ServerInterceptor):
    """Notes the methods that are called, and which calls were taken up by the transport's own loop."""

    def __init__(self, refuse: Callable[[str], accepting.Refused | None] = lambda _method: None) -> None:
        self.seen: list[str] = []
        self.one_by_one: list[str] = []
        self._refuse = refuse

    def refuse(self, method: str) -> accepting.Refused | None:
        return self._refuse(method)

    def guard(self, method: str, handler: Any) -> Any:
        async def noted(raw: bytes, context: Any) -> Any:
            self.seen.append(method)
            return await handler.unary_unary(raw, context)

        return grpc.unary_unary_rpc_method_handler(noted)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        self.one_by_one.append(handler_call_details.method)
        handler = await continuation(handler_call_details)
        return handler and self.guard(handler_call_details.method, handler)


async def echo(raw: bytes, context: Any) -> bytes:
    return raw


@asynccontextmanager
async def served(
    names: Names, behaviour: Callable[[bytes, Any], Awaitable[bytes]] = echo
) -> AsyncIterator[grpc.aio.Channel]:
    handler: Any = grpc.unary_unary_rpc_method_handler(behaviour)
    server = accepting.server(names, [])
    accepting.add(server, SERVICE, {"CreatePlan": handler, "ListPlans": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def calls(channel: grpc.aio.Channel, method: str, count: int) -> list[bytes]:
    call: Any = channel.unary_unary(method)
    return [*await asyncio.gather(*(call(b"%d" % number) for number in range(count)))]


async def test_calls_of_a_method_that_is_called_often_are_taken_up_beside_the_transports_loop() -> None:
    names = Names()
    async with served(names) as channel:
        assert await calls(channel, OFTEN, 200) == [b"%d" % number for number in range(200)]
        assert names.seen == [OFTEN] * 200
        assert not names.one_by_one, "the installed grpcio is not the one this was made for"


@pytest.mark.parametrize("possible", [True, False])
async def test_all_methods_are_served_also_where_grpcio_has_no_such_way(
    possible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "POSSIBLE", possible)
    names = Names()
    async with served(names) as channel:
        for method in (OFTEN, SELDOM):
            assert await calls(channel, method, 20) == [b"%d" % number for number in range(20)]

        assert names.seen == [OFTEN] * 20 + [SELDOM] * 20
        assert (OFTEN in names.one_by_one) is not possible


async def test_what_is_refused_at_once_is_told_so_and_nobody_behind_the_door_hears_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[str] = []
    told = accepting.Refused(8, "later", (("grpc-status-details-bin", b"\x08\x08"),))

    def refuse(method: str) -> accepting.Refused | None:
        asked.append(method)
        return told if len(asked) % 3 else None

    names = Names(refuse)
    async with served(names) as channel:
        call: Any = channel.unary_unary(OFTEN)
        ends = await asyncio.gather(*(call(b"x") for _ in range(300)), return_exceptions=True)
        refusals = [end for end in ends if isinstance(end, grpc.aio.AioRpcError)]
        assert {(one.code(), one.details(), *one.trailing_metadata()) for one in refusals} == {
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "later", *told.trailing)
        }
        assert (len(refusals), ends.count(b"x"), len(names.seen), {*asked}) == (200, 100, 100, {OFTEN})
        gone = [call(b"x") for _ in range(30)]
        await asyncio.sleep(0)
        for one in gone:
            one.cancel()

        assert await calls(channel, SELDOM, 3) == [b"0", b"1", b"2"]

    assert not caplog.records


@pytest.mark.parametrize("seconds", [0.01, 60.0])
async def test_a_call_that_takes_long_is_cancelled_when_its_caller_goes_away(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "WATCH_SECONDS", seconds)
    began: asyncio.Queue[bytes] = asyncio.Queue()
    cut, may_end = asyncio.Event(), asyncio.Event()

    async def slow(raw: bytes, context: Any) -> bytes:
        began.put_nowait(raw)
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            cut.set()
            raise

        return raw

    async with served(Names(), slow) as channel:
        call: Any = channel.unary_unary(OFTEN)
        stays, goes = call(b"stays"), call(b"goes")
        assert {await began.get(), await began.get()} == {b"stays", b"goes"}
        goes.cancel()
        later = call(b"later")  # what comes after it on the connection has come, and so has that it was cancelled
        assert await began.get() == b"later"
        if seconds < 1:
            await cut.wait()

        may_end.set()
        assert [await stays, await later] == [b"stays", b"later"]

    assert cut.is_set() is (seconds < 1)


async def test_a_step_of_the_clock_ends_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time

    async def stepping(raw: bytes, context: Any) -> bytes:
        monkeypatch.setattr(time, "time", lambda: real() + 3600)
        return raw

    async with served(Names(), stepping) as channel:
        call: Any = channel.unary_unary(OFTEN)
        await channel.channel_ready()
        assert await asyncio.gather(*(call(b"x", timeout=10) for _ in range(12))) == [b"x"] * 12


async def test_nothing_is_begun_for_calls_whose_deadlines_have_passed_while_the_loop_was_busy() -> None:
    handled: list[bytes] = []

    async def busy(raw: bytes, context: Any) -> bytes:
        handled.append(raw)
        time.sleep(0.5)  # noqa: ASYNC251 - what is to be seen is what comes of those that wait for the loop meanwhile
        return raw

    async with served(Names(), busy) as channel:
        call: Any = channel.unary_unary(OFTEN)
        await channel.channel_ready()
        ends = await asyncio.gather(*(call(b"x", timeout=0.2) for _ in range(12)), return_exceptions=True)
        assert {end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)} == {
            grpc.StatusCode.DEADLINE_EXCEEDED
        }
        assert len(handled) <= 1


async def test_a_call_whose_caller_went_away_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "WATCH_SECONDS", 0.01)
    came, cut, count = asyncio.Event(), asyncio.Event(), 30
    known: weakref.WeakSet[asyncio.Event] = weakref.WeakSet()
    left: list[None] = []

    async def never(raw: bytes, context: Any) -> bytes:
        known.add(mine := asyncio.Event())
        if len(known) == count:
            came.set()

        try:
            await mine.wait()
        finally:
            left.append(None)
            if len(left) == count:
                cut.set()

        return raw

    gc.disable()
    try:
        async with served(Names(), never) as channel, asyncio.timeout(10):
            call: Any = channel.unary_unary(OFTEN)
            under_way = [call(b"x") for _ in range(count)]
            await came.wait()
            for one in under_way:
                one.cancel()

            await cut.wait()
            await asyncio.sleep(0)
            assert not len(known)
    finally:
        gc.enable()


async def test_a_call_that_is_refused_or_breaks_is_let_go_of(caplog: pytest.LogCaptureFixture) -> None:
    async def behaviour(raw: bytes, context: Any) -> bytes:
        assert raw == b"sound", "it broke"
        try:
            return {}[context]
        except KeyError:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no", (("why", "so"),))
            raise

    gc.disable()
    try:
        async with served(Names(), behaviour) as channel:
            call: Any = channel.unary_unary(OFTEN)
            ends = await asyncio.gather(*(call(b"sound") for _ in range(20)), return_exceptions=True)
            told = {(end.code(), end.details(), *end.trailing_metadata()) for end in ends}  # type: ignore[union-attr]
            assert told == {(grpc.StatusCode.NOT_FOUND, "no", ("why", "so"))}
            assert not caplog.records
            with pytest.raises(grpc.aio.AioRpcError) as broken:
                await call(b"x")

            assert broken.value.code() is grpc.StatusCode.UNKNOWN
            assert "it broke" not in str(broken.value.details())
    finally:  # a server stops when nobody knows its calls any more
        gc.enable()

    assert "it broke" in caplog.text


async def test_a_server_that_stops_cuts_off_the_calls_that_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "WATCH_SECONDS", 60.0)
    began, cut = asyncio.Event(), asyncio.Event()

    async def never(raw: bytes, context: Any) -> bytes:
        began.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        finally:
            cut.set()

    async with served(Names(), never) as channel:
        call: Any = channel.unary_unary(OFTEN)
        under_way = call(b"x")
        await began.wait()

    async with asyncio.timeout(10):
        await cut.wait()

    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await under_way


async def test_calls_that_a_server_cuts_off_are_cancelled_once_and_may_take_a_moment_to_end() -> None:
    began, ended, count = asyncio.Event(), asyncio.Event(), 50
    cancellations: list[int] = []
    under_way = 0

    async def tidy(raw: bytes, context: Any) -> bytes:
        nonlocal under_way
        task = asyncio.current_task()
        assert task is not None
        under_way += 1
        if under_way == count:
            began.set()

        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)

            cancellations.append(task.cancelling())
            if len(cancellations) == count:
                ended.set()

    for _ in range(8):  # whether the core tells of its end or of its calls' first is up to it
        began.clear()
        ended.clear()
        cancellations.clear()
        under_way = 0
        async with served(Names(), tidy) as channel:
            call: Any = channel.unary_unary(OFTEN)
            calls_made = [call(b"x") for _ in range(count)]
            await began.wait()

        async with asyncio.timeout(10):
            await ended.wait()

        await asyncio.gather(*calls_made, return_exceptions=True)
        assert cancellations == [1] * count


async def test_a_server_that_takes_calls_up_stops_within_its_grace_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    async with served(Names()) as channel:
        assert await calls(channel, OFTEN, 40) == [b"%d" % number for number in range(40)]

    while left := [task for task in asyncio.all_tasks() - before if "_take_up" in repr(task) or "rpc" in repr(task)]:
        await asyncio.wait(left, timeout=20)
        assert all(task.done() for task in left)
