"""A gRPC service by reflection: its methods as tools, calls of them, and every way for the other side to be unfit."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from autoglm.model import Effect, ToolProgress
from autoglm_server.service import reflection as served_reflection
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.providers.endpoints import Endpoint
from autoglm_server.tools.providers.links import OfferError
from autoglm_server.tools.providers.reflect import ReflectProvider
from autoglm_server.tools.providers.reflection import Reflected, join, reflect
from autoglm_server.tools.tool import Invocation
from tests.server.tools.grpc_peers import catalog_of, failure, until
from tests.server.tools.zoo import SOURCE, files, message_class, zoo

ANIMAL: Any = message_class("zoo.v1.Animal")
FIND: Any = message_class("zoo.v1.FindRequest")
EVERYTHING: Any = message_class("zoo.v1.Everything")
TEXT: Any = message_class("google.protobuf.StringValue")


def provider(address: str, path: str = "") -> ReflectProvider:
    return ReflectProvider("zoo", Endpoint.parse(f"//{address}/{path}"), poll_seconds=0.05)


def invocation(tool: str, arguments: Any = None, **fields: Any) -> Invocation:
    given: dict[str, Any] = {"arguments": arguments or {}, "idempotency_key": "p/s", "timeout": 5.0}
    return Invocation(tool=tool, **given | fields)


async def find(raw: bytes, context: Any) -> bytes:
    name = FIND.FromString(raw).name
    if name == "nobody":
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such animal")

    young = [ANIMAL(name="Kit", tree_number=3)]
    return bytes(ANIMAL(name=name, kind=1, young=young).SerializeToString())


async def animals(raw: bytes, context: Any) -> None:
    for name in ("a", "b", "c"):
        await context.write(ANIMAL(name=name).SerializeToString())


async def greet(raw: bytes, context: Any) -> bytes:
    return bytes(TEXT(value=TEXT.FromString(raw).value + "!").SerializeToString())


async def hang(raw: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


METHODS: dict[str, Any] = {"Find": find, "stream:List": animals, "Name": greet, "Feed": hang}


@pytest.mark.parametrize("version", served_reflection.VERSIONS)
async def test_methods_become_tools(version: str) -> None:
    async with zoo(METHODS, versions=[version]) as address, catalog_of(provider(address)) as catalog:
        tools = {tool.name: tool for tool in catalog.tools()}

    assert sorted(tools) == ["zoo.Feed", "zoo.Find", "zoo.List", "zoo.Name", "zoo.Put"]
    find_ = tools["zoo.Find"]
    assert find_.description == "Finds an animal.\nCase does not matter."
    assert find_.tags == ("zoo.v1.Zoo",)
    assert [tools[f"zoo.{name}"].effect for name in ("Find", "Put", "Feed")] == [
        Effect.READ_ONLY,
        Effect.IDEMPOTENT,
        Effect.NON_IDEMPOTENT,
    ]
    assert json.loads(find_.input_schema)["properties"]["name"] == {
        "description": "Its name, as on the sign.",
        "type": "string",
    }
    assert json.loads(tools["zoo.List"].output_schema)["type"] == "array"


async def test_calls() -> None:
    told: list[ToolProgress] = []
    keys: list[Any] = []

    async def keyed(raw: bytes, context: Any) -> bytes:
        keys.append(dict(context.invocation_metadata()).get("idempotency-key"))
        return await find(raw, context)

    async with zoo(METHODS | {"Find": keyed}) as address, catalog_of(provider(address)) as catalog:
        found = await catalog.call(invocation("zoo.Find", {"name": "Tom"}))
        assert found.output["kind"] == "KIND_CAT"
        assert found.output["young"][0]["treeNumber"] == 3
        listed = await catalog.call(invocation("zoo.List", report=told.append))
        assert [one["name"] for one in listed.output] == ["a", "b", "c"]
        assert (await catalog.call(invocation("zoo.Name", {"value": "Tom"}))).output == "Tom!"

    assert keys == ["p/s"]
    assert told


async def test_what_the_schema_refuses_is_not_sent() -> None:
    async with zoo({}) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation("zoo.Find", {"nme": "Tom"})))
        assert (failed.reason, failed.violations[0].field) == ("INVALID_ARGUMENTS", "arguments.nme")
        # The schema alone does not say how large 64 bits are.
        assert (await failure(catalog.call(invocation("zoo.Put", {"treeNumber": 2**40})))).reason == "INVALID_ARGUMENTS"


@pytest.mark.parametrize(
    ("code", "reason", "retryable", "unknown"),
    [
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT", False, False),
        ("NOT_FOUND", "NOT_FOUND", False, False),
        ("UNAVAILABLE", "CONNECTION_LOST", True, True),
        ("INTERNAL", "TOOL_ERROR", True, True),
        ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", True, False),
    ],
)
@pytest.mark.parametrize("tool", ["Find", "Feed"])
async def test_a_status(tool: str, code: str, reason: str, retryable: bool, unknown: bool) -> None:
    async def refuse(raw: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode[code], "no such thing")

    async with zoo({tool: refuse}) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation(f"zoo.{tool}")))

    # Feed is not idempotent: it is never said to be safe to repeat.
    assert (failed.reason, failed.retryable, failed.outcome_unknown) == (reason, retryable and tool == "Find", unknown)
    assert "no such thing" in failed.message
    if failed.reason == code:
        assert failed.domain == f"zoo.{tool}"


async def test_a_call_that_hangs_and_one_that_is_cancelled() -> None:
    stopped: list[str] = []

    async def watched(raw: bytes, context: Any) -> bytes:
        try:
            return await hang(raw, context)
        except asyncio.CancelledError:
            stopped.append("stopped")
            raise

    async with zoo({"Feed": watched}) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation("zoo.Feed", timeout=0.2)))
        assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("STEP_TIMEOUT", False, True)
        await until(lambda: len(stopped) == 1)
        call = asyncio.get_running_loop().create_task(catalog.call(invocation("zoo.Feed", timeout=60.0)))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        await until(lambda: len(stopped) == 2)


async def test_garbage() -> None:
    async def garbage(raw: bytes, context: Any) -> bytes:
        return b"\xff" * 9

    async with zoo({"Find": garbage}) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation("zoo.Find")))

    assert (failed.reason, failed.retryable) == ("INVALID_OUTPUT", False)


async def test_100_mb_are_refused() -> None:
    async def large(raw: bytes, context: Any) -> bytes:
        return b"\x0a\x80\xc2\xd7\x2f" + b"x" * 100_000_000

    async def endless(raw: bytes, context: Any) -> None:
        while True:
            await context.write(ANIMAL(name="x" * 1_000_000).SerializeToString())

    async def many(raw: bytes, context: Any) -> None:
        while True:
            await context.write(b"")

    async with zoo({"Find": large, "stream:List": endless}) as address, catalog_of(provider(address)) as catalog:
        assert (await failure(catalog.call(invocation("zoo.Find", timeout=15.0)))).reason == "OUTPUT_TOO_LARGE"
        assert (await failure(catalog.call(invocation("zoo.List", timeout=15.0)))).reason == "OUTPUT_TOO_LARGE"

    async with zoo({"stream:List": many}) as address, catalog_of(provider(address)) as catalog:
        assert (await failure(catalog.call(invocation("zoo.List", timeout=15.0)))).reason == "OUTPUT_TOO_LARGE"


async def test_killed_and_back_with_other_methods() -> None:
    async with zoo({"Find": find}) as address:
        catalog = Catalog([provider(address)])
        await catalog.start()
        before = catalog.get("zoo.Find")
        assert before is not None
        await catalog.call(invocation("zoo.Find"))

    await until(lambda: not catalog.tools()[0].available)
    assert (await failure(catalog.call(invocation("zoo.Find")))).reason == "TOOL_UNAVAILABLE"

    changed = SOURCE.read_text().replace("string name = 1;", "string name = 1; bool loud = 2;", 1)
    changed = changed.replace("rpc Put(", "rpc Place(")
    async with zoo({"Find": find}, source=changed, address=address):
        await until(lambda: catalog.get("zoo.Place"))
        after = catalog.get("zoo.Find")
        assert after is not None
        assert after.digest != before.digest
        assert after.available
        assert catalog.get("zoo.Put") is None
        await catalog.call(invocation("zoo.Find", {"loud": True}))
        await catalog.stop()


async def test_nothing_changes_while_nothing_changes() -> None:
    asked = 0

    class Counting(ReflectProvider):
        async def _refresh(self, channel: grpc.aio.Channel) -> None:
            nonlocal asked
            asked += 1
            await super()._refresh(channel)

    async with zoo({}) as address:
        one = Counting("zoo", Endpoint.parse(f"//{address}"), poll_seconds=0.02)
        await one.start()
        before = one.tools()
        await until(lambda: asked > 5)
        assert one.tools() is before
        await one.stop()


async def test_services_are_chosen_by_name_and_scoped_when_there_are_several() -> None:
    source = SOURCE.read_text() + "\nservice Shop { rpc Buy(FindRequest) returns (Animal); }\n"
    async with zoo({}, source=source) as address:
        async with catalog_of(provider(address)) as catalog:
            assert {"zoo.Shop.Buy", "zoo.Zoo.Find"} <= {tool.name for tool in catalog.tools()}

        async with catalog_of(provider(address, "Shop")) as catalog:
            assert [tool.name for tool in catalog.tools()] == ["zoo.Buy"]

        async with catalog_of(provider(address, "zoo.v1.Nothing")) as catalog:
            assert catalog.tools() == []

        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(OfferError, match=r"there are zoo.v1.Shop"):
                await reflect(channel, ["zoo.v1.Shp"])


async def test_without_reflection_it_is_told() -> None:
    async with zoo({}, versions=[]) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(OfferError, match="no reflection"):
            await reflect(channel)


async def serve_answers(*answers: bytes) -> tuple[grpc.aio.Server, str]:
    """Serve a reflection that gives these answers, whatever it is asked."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

    async def info(requests: Any, context: Any) -> None:
        given = iter(answers)
        async for _ in requests:
            if (answer := next(given, None)) is None:
                return

            await context.write(answer)

    table: Any = {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(info)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", table),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, f"127.0.0.1:{port}"


LIST: Any = {"list_services_response": {"service": [{"name": "zoo.v1.Zoo"}]}}
RESPONSE: Any = reflection_pb2.ServerReflectionResponse


def told(*protos: bytes) -> bytes:
    return bytes(RESPONSE(file_descriptor_response={"file_descriptor_proto": protos}).SerializeToString())


ZOO = files(SOURCE.read_text())[-1].SerializeToString()


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        ((b"\xff\xff",), "no ServerReflectionResponse"),
        ((), "ended without an answer"),
        ((RESPONSE().SerializeToString(),), "no services"),
        ((RESPONSE(**LIST).SerializeToString(), told(b"\xff\xff\xff")), "no FileDescriptorProto"),
        ((RESPONSE(**LIST).SerializeToString(), told()), "do not fit together"),
        (
            (
                RESPONSE(**LIST).SerializeToString(),
                RESPONSE(error_response={"error_message": "ouch"}).SerializeToString(),
            ),
            "ouch",
        ),
        ((RESPONSE(**LIST).SerializeToString(), told(b"\x0a\x01x\x1a\x09gone.prot")), "ended without an answer"),
    ],
    ids=["garbage", "nothing", "none", "no-file", "no-service", "error", "import"],
)
async def test_a_reflection_that_is_unfit(answers: tuple[bytes, ...], match: str) -> None:
    server, address = await serve_answers(*answers)
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(OfferError, match=match):
            join(await reflect(channel))

    await server.stop(None)


def test_files_that_do_not_fit_together() -> None:
    with pytest.raises(OfferError, match="do not fit together"):
        join(Reflected(("zoo.v1.Zoo",), {"zoo.proto": ZOO}))


async def test_googles_own_files_need_not_be_told() -> None:
    server, address = await serve_answers(
        RESPONSE(**LIST).SerializeToString(),
        told(ZOO),
        *[RESPONSE(error_response={"error_code": 5}).SerializeToString()] * 9,
    )
    async with grpc.aio.insecure_channel(address) as channel:
        assert len(join(await reflect(channel)).services[0].methods) == 6

    await server.stop(None)


def test_its_address() -> None:
    assert open_provider("zoo", "grpc-reflect://localhost:1/a.B,c.D").name == "zoo"
    with pytest.raises(ValueError, match="port"):
        open_provider("zoo", "grpc-reflect://localhost")
