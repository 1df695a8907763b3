"""The callers that cost nothing hear from a server of gRPC's what any other caller does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from tests.reliability.callers import Connection


@asynccontextmanager
async def connected(within: float) -> AsyncIterator[Connection]:
    async def echo(raw: bytes, context: Any) -> bytes:
        return raw

    async def refuse(raw: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", raw),))
        context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
        context.set_details("later")
        return b""

    async def hang(raw: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return raw

    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(called)
        for name, called in (("echo", echo), ("refuse", refuse), ("hang", hang))
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(within), "127.0.0.1", port)
    try:
        yield connection
    finally:
        connection.close()
        await server.stop(None)


async def test_answers_and_refusals_come_as_they_are_also_when_more_is_sent_than_the_server_has_room_for() -> None:
    async with connected(10.0) as connection:
        messages = [b"%03d" % number + bytes(5000) for number in range(100)]
        answers = await asyncio.gather(*(connection.call("/s/echo", message) for message in messages))
        assert [answer.message for answer in answers] == messages
        assert {answer.code for answer in answers} == {grpc.StatusCode.OK}
        told = await connection.call("/s/refuse", b"\0\xff, any bytes")
        assert (told.code, told.text, told.details) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "later",
            b"\0\xff, any bytes",
        )
        assert (await connection.call("/s/none", b"")).code is grpc.StatusCode.UNIMPLEMENTED


async def test_who_is_not_answered_knows_it_when_the_time_has_passed_or_the_connection_is_lost() -> None:
    async with connected(0.05) as connection:
        assert (await connection.call("/s/hang", b"")).code is grpc.StatusCode.DEADLINE_EXCEEDED
        waiting = connection.call("/s/hang", b"")
        connection.close()
        assert (await waiting).code is grpc.StatusCode.UNAVAILABLE
        assert (await connection.call("/s/echo", b"")).code is grpc.StatusCode.UNAVAILABLE
