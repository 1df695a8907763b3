"""Calls of a method are taken up many at once, and behind the door nobody sees that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from autoglm_server.service import accepting

SERVICE = "autoglm.v1.PlanService"
OFTEN, SELDOM = f"/{SERVICE}/CreatePlan", f"/{SERVICE}/ListPlans"


class Names(grpc.aio.ServerInterceptor):
    """Notes the names under which calls come."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        self.seen.append(handler_call_details.method)
        return await continuation(handler_call_details)


@asynccontextmanager
async def served(names: Names, refuse: accepting.Refuse = lambda _method: None) -> AsyncIterator[grpc.aio.Channel]:
    async def echo(raw: bytes, context: Any) -> bytes:
        return raw

    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server = accepting.server([names], [], refuse)
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


async def test_many_calls_of_a_method_are_taken_up_under_as_many_names_and_all_are_that_method() -> None:
    names = Names()
    async with served(names) as channel:
        assert await calls(channel, OFTEN, 200) == [b"%d" % number for number in range(200)]
        assert {accepting.method_of(name) for name in names.seen} == {OFTEN}
        assert len({*names.seen}) > accepting.AT_ONCE[OFTEN] // 2, (
            "the installed grpcio is not the one this was made for"
        )


@pytest.mark.parametrize("possible", [True, False])
async def test_all_methods_are_served_also_where_grpcio_has_no_such_way(
    possible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "POSSIBLE", possible)
    names = Names()
    async with served(names) as channel:
        for method in (OFTEN, SELDOM):
            assert await calls(channel, method, 20) == [b"%d" % number for number in range(20)]

        assert ({*names.seen} == {OFTEN, SELDOM}) is not possible


async def test_what_only_looks_like_a_spare_name_is_no_method() -> None:
    async with served(Names()) as channel:
        for method in (f"{OFTEN}\x01", f"{OFTEN}\x011", f"{OFTEN}\x01.1", "/x"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await calls(channel, method, 1)

            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_is_refused_at_once_is_told_so_and_nobody_behind_the_door_hears_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names, asked = Names(), []
    told = accepting.Refused(8, "later", (("grpc-status-details-bin", b"\x08\x08"),))

    def refuse(method: str) -> accepting.Refused | None:
        asked.append(method)
        return told if len(asked) % 3 else None

    async with served(names, refuse) as channel:
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


async def test_a_fault_while_it_is_asked_who_is_refused_is_left_to_those_behind_the_door() -> None:
    def fail(_method: str) -> None:
        raise ValueError

    async with served(Names(), fail) as channel:
        assert await calls(channel, OFTEN, 40) == [b"%d" % number for number in range(40)]
