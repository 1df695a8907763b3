"""Serving functions: what a caller sees of arguments, progress, failures and ends, and that checks are those of a server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict

import grpc
import grpc.aio
import jsonschema_rs
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

import autoglm
from autoglm import _grpc, wire
from autoglm._arguments import check
from autoglm._tool_call import Reports
from autoglm.model import Effect, ToolProgress
from autoglm.v1 import tool_service_pb2 as pb
from autoglm.v1 import tool_service_pb2_grpc

HELD = threading.Event()


@autoglm.tool(effect=Effect.READ_ONLY, tags=["a", "b"])
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@autoglm.tool(effect=Effect.READ_ONLY)
def tell(context: autoglm.ToolContext) -> dict[str, Any]:
    """Tell what is known of the call."""
    for number in range(3):
        context.progress(number / 3, text=f"{number} ")

    return {"key": context.idempotency_key, "plan": context.plan_id, "principal": context.principal}


@autoglm.tool(effect=Effect.READ_ONLY)
def stuck(context: autoglm.ToolContext) -> None:
    """Run until told to stop."""
    context.progress(0.0, "began")
    while not context.wait_cancelled(0.01):
        pass

    HELD.set()


@autoglm.tool(effect=Effect.NON_IDEMPOTENT)
async def waits(context: autoglm.ToolContext) -> None:
    """Wait for ever."""
    context.progress(0.0, "began")
    await asyncio.Event().wait()


@autoglm.tool(effect=Effect.IDEMPOTENT, timeout=timedelta(milliseconds=50))
async def slow() -> None:
    """Wait longer than allowed."""
    await asyncio.Event().wait()


@autoglm.tool(effect=Effect.IDEMPOTENT)
def fails(how: Literal["own", "error", "value", "exit", "cancel", "nan", "large", "surrogate"]) -> Any:
    """Fail."""
    match how:
        case "own":
            raise autoglm.ToolError("no such thing", reason="NOT_THERE", metadata={"id": "7"})
        case "error":
            raise OSError("the disk\x1b[2J is away")
        case "value":
            raise ValueError("seven")
        case "exit":
            raise SystemExit(3)
        case "cancel":
            raise asyncio.CancelledError
        case "nan":
            return float("nan")
        case "large":
            return "x" * (2 << 20)
        case "surrogate":
            raise autoglm.ToolError("half \ud800 of a pair")


TOOLS: list[autoglm.FunctionTool] = [add, tell, stuck, waits, slow, fails]


@pytest.fixture
async def server() -> AsyncIterator[autoglm.ToolServer]:
    async with autoglm.ToolServer(TOOLS, "127.0.0.1:0", drain=timedelta(0)) as found:
        yield found


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call

    return _grpc.translate(caught.value, "")


async def call(
    server: autoglm.ToolServer, name: str, arguments: Any = None, **fields: Any
) -> list[pb.CallToolResponse]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = tool_service_pb2_grpc.ToolServiceStub(channel)
        request = pb.CallToolRequest(name=name, arguments=wire.to_struct(arguments or {}), **fields)
        return [message async for message in stub.CallTool(request, timeout=10)]


async def test_tools_in_pages(server: autoglm.ToolServer) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = tool_service_pb2_grpc.ToolServiceStub(channel)
        first = await stub.ListTools(pb.ListToolsRequest(page_size=4))
        second = await stub.ListTools(pb.ListToolsRequest(page_size=4, page_token=first.next_page_token))
        found = [*first.tools, *second.tools]
        assert [tool.name for tool in found] == sorted(tool.spec.name for tool in TOOLS)
        assert all(tool.available and tool.digest.startswith("sha256:") for tool in found)
        assert first.catalog_digest == second.catalog_digest
        assert not second.next_page_token
        assert [tool.name for tool in (await stub.ListTools(pb.ListToolsRequest(tags=["b"]))).tools] == ["add"]
        assert not (await stub.ListTools(pb.ListToolsRequest(provider="x"))).tools
        assert (await stub.GetTool(pb.GetToolRequest(name="add"))).tool.description == "Add."
        assert (await refused(stub.GetTool(pb.GetToolRequest(name="sub")))).reason == "TOOL_NOT_FOUND"


async def test_a_result_and_what_the_function_learns_of_its_call(server: autoglm.ToolServer) -> None:
    (message,) = await call(server, "add", {"a": 2**53 - 1})
    assert wire.from_message(message.result).output == str(2**53)
    context = pb.CallContext(plan_id="p", principal="ann")
    messages = await call(server, "tell", idempotency_key="p/s", context=context)
    assert wire.from_message(messages[-1].result).output == {"key": "p/s", "plan": "p", "principal": "ann"}
    assert "".join(message.progress.text for message in messages) == "0 1 2 "


async def test_all_faults_of_arguments_at_once(server: autoglm.ToolServer) -> None:
    (message,) = await call(server, "add", {"b": "x", "c": 1})

    assert message.failure.reason == "INVALID_ARGUMENTS"
    assert {(one.field, one.reason) for one in message.failure.violations} == {
        ("arguments.a", "REQUIRED"),
        ("arguments.b", "TYPE"),
        ("arguments.c", "ADDITIONAL_PROPERTIES"),
    }


@pytest.mark.parametrize(
    ("how", "reason", "retryable"),
    [
        ("own", "NOT_THERE", False),
        ("error", "TOOL_ERROR", True),
        ("value", "TOOL_ERROR", False),
        ("exit", "TOOL_ERROR", True),
        ("cancel", "TOOL_ERROR", True),
        ("nan", "INVALID_OUTPUT", False),
        ("large", "OUTPUT_TOO_LARGE", False),
        ("surrogate", "INVALID_OUTPUT", False),
    ],
)
async def test_a_failure_is_data(server: autoglm.ToolServer, how: str, reason: str, retryable: bool) -> None:
    (message,) = await call(server, "fails", {"how": how})

    assert (message.failure.reason, message.failure.retryable) == (reason, retryable)
    assert "\x1b" not in message.failure.message


async def test_a_time_limit(server: autoglm.ToolServer) -> None:
    (message,) = await call(server, "slow")
    failure = message.failure
    assert (failure.reason, failure.retryable, failure.outcome_unknown) == ("STEP_TIMEOUT", True, True)


@pytest.mark.parametrize("name", ["stuck", "waits"])
async def test_cancelling_stops_it(server: autoglm.ToolServer, name: str) -> None:
    HELD.clear()
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = tool_service_pb2_grpc.ToolServiceStub(channel)
        stream = stub.CallTool(pb.CallToolRequest(name=name), timeout=10)
        assert (await stream.read()).progress.message == "began"
        stream.cancel()

    if name == "stuck":
        assert await asyncio.to_thread(HELD.wait, 5)

    places = server._tools._places
    while places._value != 256:  # noqa: ASYNC110 - the call has no event to tell that it ended
        await asyncio.sleep(0.01)


async def test_refusals(server: autoglm.ToolServer) -> None:
    assert (await refused(call(server, "sub"))).reason == "TOOL_NOT_FOUND"
    assert (await refused(call(server, "add", tool_digest="sha256:other"))).reason == "TOOL_CHANGED"
    assert (await refused(call(server, "add", idempotency_key="k" * 257))).violations[0].field == "idempotency_key"
    request = pb.CallToolRequest(name="add")
    request.arguments.fields["a"].number_value = float("inf")
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub: Any = tool_service_pb2_grpc.ToolServiceStub(channel)
        assert (await refused(stub.CallTool(request, timeout=10).read())).violations


async def test_health_and_a_graceful_end() -> None:
    async with (
        autoglm.ToolServer(TOOLS, "127.0.0.1:0", drain=timedelta(seconds=30)) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="autoglm.v1.ToolService"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        unknown = await refused(stub.Check(health_pb2.HealthCheckRequest(service="x")))
        assert isinstance(unknown, autoglm.NotFoundError)

        async with asyncio.timeout(5):  # the open watch does not hold it up for the 30 s
            await server.stop()

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_an_address_in_use(server: autoglm.ToolServer) -> None:
    other = autoglm.ToolServer([add], server.address)
    with pytest.raises(OSError, match="cannot listen on"):
        await other.start()


def test_what_cannot_be_served() -> None:
    with pytest.raises(ValueError, match="two functions are the tool 'add'"):
        autoglm.ToolServer([add, add])

    spec = autoglm.tool(run="process")(add.function)
    with pytest.raises(ValueError, match="run='process'"):
        autoglm.ToolServer([spec])


# --- the checks are a validator's


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: Annotated[float, autoglm.Constraint(minimum=-10, exclusive_maximum=10, multiple_of=0.5)]
    label: str = ""


class Options(TypedDict, total=False):
    deep: bool
    points: list[Point]


@autoglm.tool
def everything(
    number: Annotated[int, autoglm.Constraint(minimum=0, maximum=5)],
    colour: Colour,
    options: Options,
    choice: Literal["a", 1, True] | None = "a",
    either: int | str | None = None,
    union: Point | list[int] | None = None,
    words: Annotated[
        list[Annotated[str, autoglm.Constraint(pattern="^[a-z]+$", min_length=1, max_length=3)]],
        autoglm.Constraint(min_items=1, max_items=3, unique_items=True),
    ] = ["a"],  # noqa: B006
    table: Annotated[dict[str, float], autoglm.Constraint(max_properties=2)] = {},  # noqa: B006
) -> None:
    """Take every kind there is."""


SCHEMA = json.loads(everything.spec.input_schema)
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 7)
    | st.sampled_from([0.5, -10.0, 10.0, 0.3, 3.0, "a", "red", "green", "abc", "abcd", "A", ""])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "label", "deep", "points", "other"]), inner, max_size=3)
    ),
    max_leaves=8,
)
RIGHT: dict[str, Any] = {"number": 3, "colour": "red", "options": {}}


@given(changes=st.dictionaries(st.sampled_from([*SCHEMA["properties"], "unknown"]), VALUES, max_size=4))
@example(changes={"union": {"x": 1.5}, "options": {"points": [{"x": 2, "label": "a"}]}})
@example(changes={"choice": 1.0, "words": ["a", "a"]})
def test_arguments_are_checked_as_a_validator_does(changes: dict[str, Any]) -> None:
    value = RIGHT | changes
    assert (not check(value, SCHEMA, "arguments")) == VALIDATOR.is_valid(value)


def test_an_integer_beyond_what_json_carries_comes_as_text() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert check({"n": str(2**60)}, schema, "a") == []
    assert [fault.reason for fault in check({"n": "12"}, schema, "a")] == ["TYPE"]


def test_faults_are_bounded() -> None:
    assert len(check({"n": ["x"] * 999}, {"properties": {"n": {"items": {"type": "integer"}}}}, "a")) == 50


async def test_reports_that_come_together_do_not_end_those_that_come_later() -> None:
    reports = Reports()
    reports.put(ToolProgress(0.1, text="one "))
    await asyncio.sleep(0)
    reports.put(ToolProgress(0.2, text="two"))  # taken with the first, before it was told of itself
    held = await reports.next()
    assert held is not None
    assert (held.fraction, held.text) == (0.2, "one two")

    waiting = asyncio.ensure_future(reports.next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    reports.put(ToolProgress(0.3, text="three"))
    held = await waiting
    assert held is not None
    assert held.text == "three"

    reports.put(ToolProgress(0.4))
    reports.close()
    last, end = await reports.next(), await reports.next()
    assert last is not None
    assert (last.fraction, end) == (0.4, None)
