"""Mutated requests by the million, in this process: JSON texts and protobuf bytes through the code that a server runs on them.

Over the wire (``hostile``) a request costs a hundred times as much, so there are fewer there. Here each text is read as the
command line and the SDK read it, what it describes is encoded as the SDK does, and the bytes pass the boundary and the services.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from autoglm import wire
from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, StepDraft
from autoglm.v1 import event_pb2, plan_pb2, plan_service_pb2, tool_service_pb2
from autoglm.wire import WireError, to_message
from autoglm_server.loop import new_loop
from autoglm_server.service.admission import Admission
from autoglm_server.service.interceptors import Boundary
from autoglm_server.service.plans import PlanService
from tests.reliability.hostile import FLAT, PIECES, PROPER, UP, mutate
from tests.reliability.mutated_edge import Inside, faults_of, inside
from tests.reliability.rows import Result

CHEAP = "hostile-request-is-cheap"
CPU_SECONDS = 3.0
"""Processor time that one request may take, however large: it is at most 3 MiB."""
GROWTH_MAX: Final = 16 << 20
"""Bytes that the last three quarters of the requests may add to what the process holds."""
CONTROL_REQUESTS: Final = 800
LARGE_EVERY: Final = 50_000
"""One request of so many is very large; each kind of these goes before all others, so that memory has been as full as it gets."""
PAUSE_EVERY: Final = 64
"""After so many calls the loop has a pass to itself, as between what the transport hands over."""
TOLD_MAX: Final = 50

_PLANS, _TOOLS = "/autoglm.v1.PlanService/", "/autoglm.v1.ToolService/"


@dataclass
class Taken:
    """How an edge took what it was given."""

    sent: int = 0
    read: Counter[str] = field(default_factory=Counter)
    """Texts: refused while they were read, or read."""
    codes: Counter[str] = field(default_factory=Counter)
    improper: list[str] = field(default_factory=list)
    dear: list[str] = field(default_factory=list)
    dearest: float = 0.0
    used: float = 0.0
    """Seconds of the processor, a few requests ago."""
    grown: int = 0
    stuck: str = ""


def mutated(seed: int, size: int) -> Result:
    """Put ``size`` mutated requests to an edge, and fewer to one that is broken on purpose."""
    logging.disable(logging.CRITICAL)  # a refusal is not news here
    result = Result()
    taken = _run(seed, size)
    where = f"--only mutated --seed {seed} --size {size}"
    stuck = [taken.stuck] if taken.stuck else []
    fat = [f"grew by {taken.grown >> 10} KiB"] if taken.grown > GROWTH_MAX else []
    result.found(PROPER, tries=taken.sent, faults=taken.sent, violations=taken.improper, where=where)
    result.found(CHEAP, tries=taken.sent, faults=taken.sent, violations=taken.dear, where=where)
    result.found(FLAT, tries=1, faults=taken.sent, violations=fat, where=where)
    result.found(UP, tries=taken.sent, faults=taken.sent, violations=stuck, where=where)
    result.count("mutated requests in process", taken.sent)
    result.count("of them refused as they were read", taken.read["refused"])
    result.count("JSON texts that are requests", taken.read["read"])
    result.count("mutated requests refused by the service", sum(taken.codes.values()) - taken.codes["OK"])
    result.count("mutated requests accepted", taken.codes["OK"])
    result.count("KiB the process grew by", max(0, taken.grown >> 10))
    result.count("ms of the dearest mutated requests", round(taken.dearest * 1000, 1))
    for promise, broken, noticed in CONTROLS:
        with pytest.MonkeyPatch.context() as patch:
            broken(patch)
            result.control(promise, broken.__name__.replace("_", " "), caught=noticed(_run(seed, CONTROL_REQUESTS)))

    return result


def _run(seed: int, size: int) -> Taken:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(attack(seed, size))


async def attack(seed: int, size: int) -> Taken:
    """Put ``size`` mutated requests to an edge, one after the other."""
    random, taken = Random(seed), Taken()
    async with inside() as edge:
        await put(edge, _CREATES[0], CREATE_TEXTS[-1], Taken())  # the first plan in words loads what reads them
        if size >= LARGE_EVERY:
            for kind in range(len(_STEPS)):
                await _put(edge, _CREATES[kind % 2], _large(random, kind), taken)

        await _send(edge, random, taken, size // 4)
        before = _resident()
        await _send(edge, random, taken, size - size // 4)
        taken.grown = _resident() - before
        taken.stuck = await edge.still_serves()

    return taken


async def _send(edge: Inside, random: Random, taken: Taken, count: int) -> None:
    for number in range(count):
        method, content = _request(random, large=number % LARGE_EVERY == LARGE_EVERY - 1)
        await _put(edge, method, content, taken)
        if number % PAUSE_EVERY == 0:
            await asyncio.sleep(0)


async def _put(edge: Inside, method: str, content: str | bytes, taken: Taken) -> None:
    if taken.sent % PAUSE_EVERY == 0 or len(content) > _SMALL:
        taken.used = time.process_time()

    taken.sent += 1
    began = time.perf_counter()
    fault = await put(edge, method, content, taken)
    took = time.perf_counter() - began
    if took > taken.dearest or took > CPU_SECONDS:
        # The time of the processor costs a system call, so it is asked for only then; few others are counted with this one.
        took = min(took, time.process_time() - taken.used)
        taken.dearest = max(taken.dearest, took)

    if fault and len(taken.improper) < TOLD_MAX:
        taken.improper.append(f"{fault}; {_told(method, content)}")

    if took > CPU_SECONDS and len(taken.dear) < TOLD_MAX:
        taken.dear.append(f"took {took:.1f} s of processor time; {_told(method, content)}")


async def put(edge: Inside, method: str, content: str | bytes, taken: Taken) -> str:
    """Put one request to an edge, a text as what it describes; tells what is improper about what came of it."""
    try:
        if isinstance(content, str):
            try:
                content = wire.encode(wire.from_json(CreatePlanRequest, content))
            except (InvalidRequestError, WireError) as refused:
                taken.read["refused"] += 1
                return "" if _said(refused) else f"refused without words: {refused!r}"

            taken.read["read"] += 1

        context = await edge.ask(method, content)
    except Exception as error:  # noqa: BLE001 - any that gets here is what is looked for
        return f"{type(error).__name__} was raised: {str(error)[:200]}"

    taken.codes[context.code.name if context.code else "OK"] += 1
    return faults_of(context)


def _said(refused: InvalidRequestError | WireError) -> bool:
    found = refused.violations
    return bool(found) and all(one.description and one.reason for one in found)


def _told(method: str, content: str | bytes) -> str:
    """Show a request whole if it is small: what is made by chance need not come again in another version of this file."""
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    kind = "text" if isinstance(content, str) else "bytes"
    return f"{method} of {len(raw)} {kind}, in base64 {base64.b64encode(raw[:450]).decode()}"


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- requests


_RICH: Final = """{"request":"15% of 2480","steps":[{"id":"a","tool":"json.query","arguments":{"value":[1,{"deep":[null,1e3]}],
"query":"[0]"},"timeout":"1.5s","retry_policy":{"maxAttempts":3,"initial_backoff":"0.1s"}}],"options":{"maxSteps":3,
"planner":"rules","allowedTools":["json.*"],"budget":{"max_tokens":"1000"},"on_unknown_outcome":"UNKNOWN_OUTCOME_ACTION_WAIT"},
"request_id":"one","context":[{"message":{"role":"user","text":"hello"}}]}""".replace("\n", "")
CREATE_TEXTS: Final = (
    wire.to_json(
        CreatePlanRequest(
            steps=(
                StepDraft(id="a", tool="text.reverse", arguments={"text": "x"}),
                StepDraft(id="b", tool="math.calculate", arguments={"expression": "${a} + 1"}, depends_on=("a",)),
            ),
            labels={"k": "v"},
        )
    ),
    _RICH,
    '{"request":"15% of 2480","validateOnly":true}',
)


def _messages() -> list[tuple[str, Any]]:
    plan_id = "01j00000000000000000000000"
    creates = [to_message(wire.from_json(CreatePlanRequest, text)) for text in CREATE_TEXTS[:2]]
    return [
        *((_PLANS + name, message) for name in ("CreatePlan", "RunPlan") for message in creates),
        (_PLANS + "GetPlan", plan_service_pb2.GetPlanRequest(plan_id=plan_id)),
        (
            _PLANS + "ListPlans",
            plan_service_pb2.ListPlansRequest(page_size=5, states=[plan_pb2.PLAN_STATE_QUEUED], labels={"k": "v"}),
        ),
        (_PLANS + "ListPlans", plan_service_pb2.ListPlansRequest(page_token="abc", context_id="c")),
        (_PLANS + "ListSteps", plan_service_pb2.ListStepsRequest(plan_id=plan_id, page_size=5)),
        (_PLANS + "WatchPlan", plan_service_pb2.WatchPlanRequest(plan_id=plan_id, after_sequence=7)),
        (_PLANS + "CancelPlan", plan_service_pb2.CancelPlanRequest(plan_id=plan_id, reason="enough")),
        (
            _PLANS + "ResolveStep",
            plan_service_pb2.ResolveStepRequest(
                plan_id=plan_id,
                step_id="a",
                wait_sequence=3,
                decision=event_pb2.Decision(reject=event_pb2.Decision.Reject(reason="no")),
                comment="no",
            ),
        ),
        (
            _PLANS + "ReadArtifact",
            plan_service_pb2.ReadArtifactRequest(plan_id=plan_id, digest="sha256:" + "0" * 64, offset=1),
        ),
        (_PLANS + "GetServerInfo", plan_service_pb2.GetServerInfoRequest()),
        (_TOOLS + "ListTools", tool_service_pb2.ListToolsRequest(page_size=5, tags=["x"])),
        (_TOOLS + "GetTool", tool_service_pb2.GetToolRequest(name="text.reverse")),
        # No tool that is there: a mutated call would be made.
        (
            _TOOLS + "CallTool",
            tool_service_pb2.CallToolRequest(
                name="no.such.tool.here", arguments=wire.to_struct({"a": [1, None]}), idempotency_key="k"
            ),
        ),
    ]


def _tokens_of(text: str) -> tuple[str, ...]:
    """Cut a text into its tokens; a key's colon stands by itself."""
    tokens, at = [], 0
    decode = json.JSONDecoder().raw_decode
    while at < len(text):
        end = at + 1 if text[at] in "{}[],: " else decode(text, at)[1]
        tokens.append(text[at:end])
        at = end

    return tuple(tokens)


_SELDOM: Final = 40
"""What has a request in words and no steps is planned, which takes fifty times as long as all checks: one in so many."""
_OFTEN: Final = (*CREATE_TEXTS[:2] * _SELDOM, CREATE_TEXTS[2])
_TOKENS_OFTEN: Final = tuple(map(_tokens_of, _OFTEN))
_MESSAGES: Final = [(method, message.SerializeToString()) for method, message in _messages()]
_CREATES: Final = (_PLANS + "CreatePlan", _PLANS + "RunPlan")
_LARGE: Final = 200 << 10
_SMALL: Final = 10 << 10


def _request(random: Random, *, large: bool) -> tuple[str, str | bytes]:
    """Make a request: most are texts cut up anywhere, which fail early; others stay JSON, or are protobuf's bytes."""
    if large:
        return random.choice(_CREATES), _large(random, random.randrange(len(_STEPS)))

    match random.random():
        case chance if chance < 0.82:
            return _CREATES[0], _spliced(random)
        case chance if chance < 0.9:
            return random.choice(_CREATES), _exchanged(random)
        case _:
            method, raw = random.choice(_MESSAGES)
            return method, mutate(random, raw)


def _spliced(random: Random) -> str:
    """Put pieces anywhere into a text."""
    text = random.choice(_OFTEN)
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(text) + 1)
        end = min(len(text), at + random.choice((0, 1, 1, 3, 10)))
        text = text[:at] + random.choice(PIECES) + text[end:]

    return text


def _exchanged(random: Random) -> str:
    """Put another value, or another key, in the place of one: what comes of it is JSON."""
    tokens = list(random.choice(_TOKENS_OFTEN))
    for _ in range(random.randint(1, 2)):
        tokens[random.choice(_values_of(tokens))] = random.choice(_VALUES)

    return "".join(tokens)


_STEP: Final = '{"id":"s%d","tool":"text.reverse","arguments":{"text":"${a}"}}'
_ARGUMENTS: Final = '{"id":"a","tool":"x","arguments":{%s}}'
_STEPS: Final[tuple[Callable[[], str], ...]] = (
    lambda: ",".join(_STEP % number for number in range(8000)),
    lambda: _STEP % 0 + "," + _ARGUMENTS % ('"x":' + "[" * 5000 + "]" * 5000),
    lambda: _ARGUMENTS % ('"x":"' + "${a}" * (_LARGE >> 2) + '"'),
    lambda: _ARGUMENTS % ('"x":"' + "${a.b[?" * (_LARGE >> 3) + '"'),
    lambda: _ARGUMENTS % ('"x":[' + "0," * _LARGE + "0]"),
    lambda: _ARGUMENTS % ",".join(f'"k{number}":[[]]' for number in range(_LARGE >> 4)),
    lambda: _ARGUMENTS % ('"x":' + "9" * _LARGE),
    lambda: '{"id":"a","tool":"' + "x" * _LARGE + '"}',
    lambda: ",".join(['{"id":"a","tool":"x","depends_on":["a"],"title":[]}'] * 2000),
)


def _large(random: Random, kind: int) -> str:
    """Make one part very long, very deep or very often."""
    request = random.choice(("", "1+" * (_LARGE >> 3), "(" * 20_000, "and then " * 5000))
    return json.dumps({"request": request})[:-1] + f', "steps": [{_STEPS[kind]()}]}}'


def _values_of(tokens: list[str]) -> list[int]:
    return [index for index, token in enumerate(tokens) if token not in _MARKS]


_MARKS: Final = frozenset("{}[],: ")
_VALUES: Final = (
    *[piece for piece in PIECES if len(piece) > 1],
    '"a"',
    '"text.reverse"',
    '"${b}"',
    '"${a.b}"',
    '"$${a}"',
    '"1s"',
    '"-1s"',
    '"999999999999s"',
    '"2026-02-30T00:00:00Z"',
    '"UNKNOWN_OUTCOME_ACTION_FAIL"',
    "-1",
    "0",
    "1e15",
    "2147483648",
    "true",
    "[]",
    "{}",
    '[null,{"a":{}}]',
    '"request"',
    '"steps"',
    '"options"',
    '"secret://x"',
    '""',
    '"\\u202e"',
    '"18% of 20 and then 3 km in miles"',
)


# --- what must be noticed


def a_handler_that_raises(patch: pytest.MonkeyPatch) -> None:
    async def raises(*_: object) -> None:
        raise ValueError("nobody thought of this")

    patch.setattr(PlanService, "CreatePlan", raises)


def a_boundary_that_lets_errors_out(patch: pytest.MonkeyPatch) -> None:
    def unguarded(_: object, __: str, behaviour: Any, read: Any, answer: Any = None) -> Any:
        async def call(raw: Any, context: object) -> Any:
            message = await behaviour(read(raw), context)
            return answer(message) if answer else None

        return call

    patch.setattr(Boundary, "_guarded", unguarded)


def a_reader_that_raises(patch: pytest.MonkeyPatch) -> None:
    def parse(text: str, **_: object) -> Any:
        return json.loads(text)  # its own error is no ValueError of ours: it says nothing of what to do

    def read(cls: type, source: str) -> Any:
        return from_json(cls, parse(source))

    from_json = wire.from_json
    patch.setattr(wire, "from_json", read)


def memory_kept_of_each_request(patch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    create = PlanService.CreatePlan

    async def keeps(self: PlanService, request: Any, context: Any) -> Any:
        kept.append(bytes(4 << 20).replace(b"\0", b"x"))
        return await create(self, request, context)

    patch.setattr(PlanService, "CreatePlan", keeps)


def places_that_are_not_given_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Admission, "leave", lambda *_: None)


def a_request_that_spins(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys.modules[__name__], "CPU_SECONDS", 0.3)
    asked: list[bool] = []

    async def spins(*_: object) -> Any:
        asked.append(True)
        until = time.process_time() + 1.2 * CPU_SECONDS
        while len(asked) == 2 and time.process_time() < until:  # the first comes before anything is measured
            pass

        return plan_service_pb2.CreatePlanResponse()

    patch.setattr(PlanService, "CreatePlan", spins)


CONTROLS: Final[tuple[tuple[str, Callable[[pytest.MonkeyPatch], None], Callable[[Taken], bool]], ...]] = (
    (PROPER, a_handler_that_raises, lambda taken: any("INTERNAL" in one for one in taken.improper)),
    (PROPER, a_boundary_that_lets_errors_out, lambda taken: any("was raised" in one for one in taken.improper)),
    (PROPER, a_reader_that_raises, lambda taken: any("JSONDecodeError" in one for one in taken.improper)),
    (FLAT, memory_kept_of_each_request, lambda taken: taken.grown > GROWTH_MAX),
    (UP, places_that_are_not_given_back, lambda taken: bool(taken.stuck)),
    (CHEAP, a_request_that_spins, lambda taken: any("CreatePlan" in one for one in taken.dear)),
)
