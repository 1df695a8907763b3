"""Hostile input: mutated requests, raw bytes where HTTP/2 should be, huge metadata and gzip bombs, at a real server."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc.aio

from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, PlanOptions, StepDraft
from autoglm.v1 import plan_service_pb2, tool_service_pb2
from autoglm.wire import WireError, from_json, to_json, to_message
from tests.reliability.launcher import CARELESS
from tests.reliability.rows import Result
from tests.reliability.servers import Life

UP, FLAT, PROPER = "hostile-server-stays-up", "hostile-memory-flat", "hostile-proper-status"
TOGETHER: Final = 32
GARBAGE_CONNECTIONS: Final = 200
GROWTH_MAX: Final = 48 << 20
"""Bytes that the second half of the requests may add to what the server holds."""
CONTROL_REQUESTS: Final = 3000
PROPER_CODES: Final = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
NOT_A_MESSAGE: Final = "Exception deserializing request!"
"""What grpcio itself answers, as INTERNAL, to bytes that are no message; no code of the server has seen them."""


@dataclass
class Answers:
    """How a server took what it was sent."""

    codes: Counter[str] = field(default_factory=Counter)
    improper: list[str] = field(default_factory=list)
    grown: int = 0
    alive: bool = True
    refused_text: int = 0


def hostile(seed: int, size: int) -> Result:
    """Send ``size`` hostile requests, and fewer to a server that is careless on purpose."""
    return asyncio.run(_hostile(seed, size))


async def _hostile(seed: int, size: int) -> Result:
    result = Result()
    answers = await _attack(seed, size)
    where = f"--only hostile --seed {seed} --size {size}"
    sent = sum(answers.codes.values())
    dead = [] if answers.alive else ["the server ended"]
    result.found(UP, tries=sent + GARBAGE_CONNECTIONS, faults=sent, violations=dead, where=where)
    fat = [f"grew by {answers.grown >> 20} MiB"] if answers.grown > GROWTH_MAX else []
    result.found(FLAT, tries=1, faults=sent, violations=fat, where=where)
    result.found(PROPER, tries=sent, faults=sent, violations=answers.improper, where=where)
    result.count("hostile requests", sent)
    result.count("texts refused before they were sent", answers.refused_text)
    result.count("MiB the server grew by", max(0, answers.grown >> 20))

    careless = await _attack(seed, CONTROL_REQUESTS, CARELESS)
    result.control(PROPER, "a handler that raises", caught=bool(careless.improper))
    result.control(FLAT, "memory kept of every request", caught=careless.grown > GROWTH_MAX)
    dying = await _attack(seed, 200, "before-append:1")
    result.control(UP, "a server that dies of a request", caught=not dying.alive)
    return result


async def _attack(seed: int, size: int, *trap: str) -> Answers:
    random, answers = Random(seed), Answers()
    with tempfile.TemporaryDirectory(prefix="autoglm-hostile-") as folder:
        life = Life(Path(folder))
        try:
            await life.begin(*trap)
            options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
            options += [("grpc.absolute_max_metadata_size", 1 << 20)]
            async with grpc.aio.insecure_channel(life.address, options=options) as channel:
                await _send(channel, life, random, answers, size // 2)
                await _special(channel, life, random, answers)
                before = _resident(life)
                await _send(channel, life, random, answers, size // 2)
                answers.grown = max(0, _resident(life) - before)
                if life.alive:
                    answers.alive = await _serves(channel)
        finally:
            answers.alive = answers.alive and life.alive
            await life.kill()

    return answers


async def _send(channel: grpc.aio.Channel, life: Life, random: Random, answers: Answers, count: int) -> None:
    makers = (_mutated_bytes, _mutated_text)
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0 and life.alive:
            left -= 1
            method, raw = random.choice(makers)(random, answers)
            await _ask(channel, method, raw, answers)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(TOGETHER):
            tasks.create_task(work())


async def _ask(channel: grpc.aio.Channel, method: str, raw: bytes, answers: Answers, **how: Any) -> None:
    call: Any = channel.unary_unary(method)
    try:
        await call(raw, timeout=20.0, **how)
        code, details = grpc.StatusCode.OK, ""
    except grpc.aio.AioRpcError as error:
        code, details = error.code(), error.details() or ""

    answers.codes[code.name] += 1
    if code not in PROPER_CODES and details != NOT_A_MESSAGE:
        answers.improper.append(
            f"{method} was answered {code.name}: {details[:200]}; the request was {raw[:200].hex()}"
        )


def _requests() -> list[tuple[str, Any]]:
    plans, tools = "/autoglm.v1.PlanService/", "/autoglm.v1.ToolService/"
    steps = (
        StepDraft(id="a", tool="ledger.look", arguments={"folder": "/nowhere", "n": [1, 2.5, None, {"x": True}]}),
        StepDraft(id="b", tool="text.upper", arguments={"text": "${a}"}, depends_on=("a",)),
    )
    create = CreatePlanRequest(request="15% of 2480", steps=steps, options=PlanOptions(max_steps=3), labels={"k": "v"})
    return [
        (plans + "CreatePlan", to_message(create)),
        (plans + "GetPlan", plan_service_pb2.GetPlanRequest(plan_id="01j00000000000000000000000")),
        (plans + "ListPlans", plan_service_pb2.ListPlansRequest(page_size=5, page_token="abc")),
        (plans + "ListSteps", plan_service_pb2.ListStepsRequest(plan_id="01j00000000000000000000000", page_size=5)),
        (plans + "CancelPlan", plan_service_pb2.CancelPlanRequest(plan_id="01j00000000000000000000000")),
        (plans + "ResolveStep", plan_service_pb2.ResolveStepRequest(plan_id="01j", step_id="a", wait_sequence=3)),
        (tools + "ListTools", tool_service_pb2.ListToolsRequest(page_size=5)),
        (tools + "GetTool", tool_service_pb2.GetToolRequest(name="text.upper")),
    ]


_REQUESTS: Final = [(method, message.SerializeToString()) for method, message in _requests()]
_TEXT: Final = to_json(
    CreatePlanRequest(
        steps=(StepDraft(id="a", tool="text.upper", arguments={"text": "x", "list": [1, {"deep": [None, 1e3]}]}),),
        labels={"k": "v"},
    )
)


def _mutated_bytes(random: Random, answers: Answers) -> tuple[str, bytes]:
    method, raw = random.choice(_REQUESTS)
    return method, mutate(random, raw)


def mutate(random: Random, raw: bytes) -> bytes:
    """Turn over, take out, put in, double and cut off bytes."""
    data = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1:
                del data[at : at + random.randint(1, 8)]
            case 2:
                data[at:at] = random.randbytes(random.randint(1, 12))
            case 3:
                data[at:at] = data[at : at + 40]
            case _:
                data = data[:at]

    return bytes(data)


PIECES: Final = (
    '{"a":1}',
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "1e400",
    "-0.0",
    "123456789012345678901234567890",
    '"\\ud800"',
    '"\\u0000"',
    '"${a}"',
    '"${a.b[?c==`1`]}"',
    '"${"',
    "NaN",
    "null",
    '"' + "x" * 2000 + '"',
    "",
    ",",
    "}",
)


def _mutated_text(random: Random, answers: Answers) -> tuple[str, bytes]:
    """Mutate a request's JSON; what the codec takes is sent, and what it refuses it must refuse by its own error."""
    text = _TEXT
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(text) + 1)
        end = min(len(text), at + random.choice([0, 1, 1, 3, 10]))
        text = text[:at] + random.choice(PIECES) + text[end:]

    try:
        message = to_message(from_json(CreatePlanRequest, text))
        return "/autoglm.v1.PlanService/CreatePlan", message.SerializeToString()
    except (WireError, InvalidRequestError):
        answers.refused_text += 1
    except Exception as error:  # noqa: BLE001 - any other error of the codec is what is looked for
        answers.improper.append(f"the codec raised {type(error).__name__}: {error} for {text[:300]!r}")

    return _mutated_bytes(random, answers)


async def _special(channel: grpc.aio.Channel, life: Life, random: Random, answers: Answers) -> None:
    """Send what is no request at all: raw bytes, metadata of a megabyte, and messages that unpack to a hundred."""
    for _ in range(GARBAGE_CONNECTIONS):
        await asyncio.to_thread(_garbage, life.address, random)

    method, raw = _REQUESTS[1]
    for size in (4 << 10, 9 << 10, 20 << 10, 200 << 10):
        await _ask(channel, method, raw, answers, metadata=(("x-long", "y" * size),))

    bomb = plan_service_pb2.GetPlanRequest(plan_id="0" * (100 << 20)).SerializeToString()
    await _ask(channel, method, bomb, answers, compression=grpc.Compression.Gzip)


def _garbage(address: str, random: Random) -> None:
    host, _, port = address.rpartition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    kinds: list[Callable[[], bytes]] = [
        lambda: random.randbytes(random.randint(1, 4000)),
        lambda: preface + random.randbytes(random.randint(1, 4000)),
        lambda: preface + b"\0\0\0\4\0\0\0\0\0" + random.randbytes(400),
        lambda: preface + b"\xff\xff\xff\1\4\0\0\0\1" + bytes(4000),
        lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=2.0) as connection:
        connection.sendall(random.choice(kinds)())
        if random.random() < 0.2:
            connection.settimeout(0.05)
            connection.recv(100)


async def _serves(channel: grpc.aio.Channel) -> bool:
    """Whether a plain call is still answered."""
    method, raw = _REQUESTS[6]
    call: Any = channel.unary_unary(method)
    try:
        await call(raw, timeout=20.0)
    except grpc.aio.AioRpcError:
        return False

    return True


def _resident(life: Life) -> int:
    """Give the bytes that the server's process holds."""
    if life.popen is None or not life.alive:
        return 0

    return int(Path(f"/proc/{life.popen.pid}/statm").read_text().split()[1]) * 4096
