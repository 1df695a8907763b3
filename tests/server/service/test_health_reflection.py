"""Health and reflection, by the standard protocols and by a client that is not ours."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2

from autoglm.model import Plan
from autoglm_server.service.reflection import Reflection, contract
from tests.server.service.harness import Edge, refusal

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ["", "autoglm.v1.PlanService", "autoglm.v1.ToolService"]


async def read_all(call: Any, found: list[Any]) -> None:
    while (message := await call.read()) is not grpc.aio.EOF:
        found.append(message)


@pytest.mark.parametrize("service", NAMES)
async def test_health_is_checked(served: Edge, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(await served.channel())
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await stub.Check(request)).status == SERVING

    served.health.set(serving=False)
    assert (await stub.Check(request)).status == NOT_SERVING
    served.health.set(serving=True)
    assert (await stub.Check(request)).status == SERVING
    served.health.drain()
    served.health.set(serving=True)
    assert (await stub.Check(request)).status == NOT_SERVING


async def test_the_health_of_nobody(served: Edge) -> None:
    stub = health_pb2_grpc.HealthStub(await served.channel())

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


async def test_all_healths(served: Edge) -> None:
    stub = health_pb2_grpc.HealthStub(await served.channel())
    found = await stub.List(health_pb2.HealthListRequest())

    assert {name: state.status for name, state in found.statuses.items()} == dict.fromkeys(NAMES, SERVING)


async def test_health_is_watched_until_the_drain(served: Edge) -> None:
    watch = health_pb2_grpc.HealthStub(await served.channel()).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    assert served.boundary.active == 1  # what tells an embedded server that somebody is there

    served.health.set(serving=False)
    assert (await watch.read()).status == NOT_SERVING
    served.health.set(serving=True)
    assert (await watch.read()).status == SERVING
    served.health.drain()

    seen: list[Any] = []

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(watch, seen)

    # A status may overtake the message right before it.
    assert {message.status for message in seen} <= {NOT_SERVING}
    assert refusal(caught.value).info.reason == "WATCH_ENDED"


# --- reflection


@pytest.fixture(scope="module")
def reflection() -> Reflection:
    return Reflection(contract)


def files(response: Any) -> dict[str, FileDescriptorProto]:
    found = [FileDescriptorProto.FromString(raw) for raw in response.file_descriptor_response.file_descriptor_proto]
    return {file.name: file for file in found}


def test_services_are_listed(reflection: Reflection) -> None:
    response = reflection.answer(reflection_pb2.ServerReflectionRequest(list_services=""))

    assert [service.name for service in response.list_services_response.service] == [
        "autoglm.v1.PlanService",
        "autoglm.v1.ToolService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("autoglm.v1.PlanService", "autoglm/v1/plan_service.proto"),
        (".autoglm.v1.PlanService.WatchPlan", "autoglm/v1/plan_service.proto"),
        ("autoglm.v1.Decision.Reject", "autoglm/v1/event.proto"),
        ("autoglm.v1.Plan.request", "autoglm/v1/plan.proto"),
        ("autoglm.v1.PLAN_STATE_QUEUED", "autoglm/v1/plan.proto"),
        ("autoglm.v1.PlanState", "autoglm/v1/plan.proto"),
        ("google.protobuf.Struct", "google/protobuf/struct.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.health.v1.Health", "grpc_health/v1/health.proto"),
    ],
)
def test_a_symbol_is_found_with_all_its_file_imports(reflection: Reflection, symbol: str, file: str) -> None:
    found = files(reflection.answer(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)))

    assert file in found or symbol.startswith("grpc.health")
    assert {name for each in found.values() for name in each.dependency} <= set(found)


def test_the_contract_has_its_comments(reflection: Reflection) -> None:
    request = reflection_pb2.ServerReflectionRequest(file_by_filename="autoglm/v1/plan_service.proto")
    (file,) = [file for name, file in files(reflection.answer(request)).items() if name == request.file_by_filename]
    comments = [location.leading_comments for location in file.source_code_info.location]

    assert any("Accepts a plan and answers once it is durable" in comment for comment in comments)


def test_what_is_not_known_is_said(reflection: Reflection) -> None:
    for request in (
        reflection_pb2.ServerReflectionRequest(file_by_filename="nope.proto"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such"),
        reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="no.Such"),
    ):
        assert reflection.answer(request).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]

    nothing = reflection.answer(reflection_pb2.ServerReflectionRequest())
    assert nothing.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_both_versions_are_served(served: Edge, version: str) -> None:
    channel = await served.channel()
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()

    for symbol in ("autoglm.v1.ToolService", "autoglm.v1.Tool"):
        await call.write(reflection_pb2.ServerReflectionRequest(host="h", file_containing_symbol=symbol))
        response = await call.read()
        assert response.valid_host == "h"
        assert response.original_request.file_containing_symbol == symbol
        assert files(response)

    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


# --- a client that is not ours


async def buf(served: Edge, *arguments: str) -> str:
    """Run ``buf curl`` against the server; it knows nothing of the contract but by reflection."""
    program = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")

    if program is None:
        pytest.skip("buf is not installed: pip install buf-bin")

    process = await asyncio.create_subprocess_exec(
        program,
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_methods_are_listed_for_anybody(served: Edge) -> None:
    listed = (await buf(served, "--list-methods", f"http://{served.address}")).split()

    assert "autoglm.v1.PlanService/RunPlan" in listed
    assert "autoglm.v1.ToolService/CallTool" in listed
    assert "grpc.health.v1.Health/Check" in listed


async def test_the_bytes_of_a_watch_are_messages_for_anybody(served: Edge) -> None:
    await served.plans.add(Plan(id="p"), 3, ended=True)
    url = f"http://{served.address}/autoglm.v1.PlanService/WatchPlan"
    out = await buf(served, "-d", '{"planId": "p"}', url)
    events = [event for message in _objects(out) for event in message.get("events", [])]

    assert [event["sequence"] for event in events] == ["1", "2", "3"]
    assert "planSucceeded" in events[-1]


def _objects(text: str) -> list[dict[str, Any]]:
    """Read JSON values that stand one after the other."""
    found, decoder, text = [], json.JSONDecoder(), text.strip()

    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()

    return found
