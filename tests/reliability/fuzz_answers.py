"""What is fuzzed of what others answer us: a server that a client watches, a tool's service, a model."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from autoglm import model, wire
from autoglm._requests import events_of
from autoglm._watch import Batch, CallFailed, Deliver, Outcome, PlanPosition, Sleep, watch_flow
from autoglm.errors import AutoglmError, NotFoundError
from autoglm.v1 import plan_service_pb2, tool_service_pb2
from autoglm_server.planner.llm.backend import Delta, Reply
from autoglm_server.planner.llm.reading import Reading
from autoglm_server.planner.planner import AnswerText, Note, RoundItem
from autoglm_server.tools.providers.grpc import _outcome
from autoglm_server.tools.tool import Invocation, ToolCallError

PLAN_ID: Final = "01j0"


def joined(messages: Sequence[bytes]) -> bytes:
    """Put messages into one input: before each, two bytes for its length."""
    return b"".join(len(one).to_bytes(2, "little") + one for one in messages)


def messages_of(data: bytes) -> Iterator[bytes]:
    """Read them again; the last one may lack its end."""
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "little")
        yield data[at + 2 : end]
        at = end


# --- a server that a client watches


def watched(data: bytes) -> None:
    """Give a watch messages whose seals are right: its durable events are dense, and what ends it is told."""
    left = messages_of(data)
    flow = watch_flow(PlanPosition(PLAN_ID), Random(1))
    outcome: Outcome | None = None
    given = 0
    try:
        command = next(flow)
        while True:
            if isinstance(command, Deliver):
                for event in command.events:
                    given += not event.ephemeral
                    if not event.ephemeral and event.sequence != given:
                        raise AssertionError(f"event {event.sequence} was given as the {given}th")

            outcome = None if isinstance(command, Sleep) else _next_of(left)
            command = flow.send(outcome)
    except StopIteration:
        return
    except AutoglmError as error:
        if not str(error):
            raise AssertionError("a watch ended without words") from error


def _next_of(left: Iterator[bytes]) -> Outcome:
    raw = next(left, None)
    if raw is None:
        return CallFailed(NotFoundError("there is no plan", reason="PLAN_NOT_FOUND"), "NOT_FOUND")

    try:
        message = plan_service_pb2.WatchPlanResponse.FromString(raw)
        return Batch(events_of(message), sequence=message.sequence, journal_id=message.journal_id)
    except DecodeError:
        return CallFailed(AutoglmError("damaged"), "UNAVAILABLE")


def watch_seeds() -> list[bytes]:
    """Give streams as a server writes them: a message for each event, all in one, and with heartbeats between."""
    facts: list[model.Fact] = [
        model.PlanCreated(request="hello"),
        model.StepWaiting(),
        model.PlanSucceeded(answer="hi"),
    ]
    events = [wire.encode(model.Event(PLAN_ID, number, fact=fact)) for number, fact in enumerate(facts, 1)]
    response = plan_service_pb2.WatchPlanResponse
    single = [_response(response, [one], number) for number, one in enumerate(events, 1)]
    beat = response(sequence=1, journal_id="j").SerializeToString()
    return [joined(single), joined([_response(response, events, 3)]), joined([single[0], beat, *single])]


def _response(kind: Any, events: Sequence[bytes], sequence: int) -> bytes:
    message = kind(sequence=sequence, journal_id="j")
    for one in events:
        message.events.add().ParseFromString(one)

    return bytes(message.SerializeToString())


# --- a tool's service


class _Call:
    """A call of a tool's service that answers with these messages, and ends well."""

    def __init__(self, data: bytes) -> None:
        self._left = messages_of(data)

    async def read(self) -> Any:
        return next(self._left, grpc.aio.EOF)

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK


async def answered(data: bytes) -> None:
    """Read what a tool's service answers: a result that can be written down, or a failure in words."""
    reported: list[model.ToolProgress] = []
    invocation = Invocation("t", {}, "key", 1.0, report=reported.append)
    try:
        result = await _outcome(_Call(data), invocation, "t")
    except ToolCallError as failed:
        if not failed.failure.message or not failed.failure.reason:
            raise AssertionError(f"a call failed without words: {failed.failure!r:.300}") from failed
    else:
        wire.encode(model.Event(PLAN_ID, 1, fact=model.StepSucceeded(result)))


def answer_seeds() -> list[bytes]:
    """Give answers: progress and a result, a file, a failure."""
    kind = tool_service_pb2.CallToolResponse
    result: Any = wire.to_message(model.ToolResult({"n": [1, None, {"x": "y"}]}))
    progress: Any = wire.to_message(model.ToolProgress(0.5, "half"))
    failure: Any = wire.to_message(model.Failure("NO", "example.org", "it did not work", retryable=True))
    empty = model.Artifact("a.txt", "text/plain", 2, f"sha256:{hashlib.sha256(b'hi').hexdigest()}")
    file: Any = tool_service_pb2.ArtifactChunk(artifact=wire.to_message(empty), data=b"h")  # type: ignore[arg-type]
    more = tool_service_pb2.ArtifactChunk(data=b"i")
    end = kind(result=result).SerializeToString()
    chunks = [kind(artifact_chunk=one).SerializeToString() for one in (file, more)]
    return [
        joined([kind(progress=progress).SerializeToString(), end]),
        joined([*chunks, end]),
        joined([kind(failure=failure).SerializeToString()]),
    ]


# --- a model


def planned(data: bytes) -> None:
    """Read what a model writes: wherever it is cut, the same comes of it."""
    text = data[1:].decode("utf-8", "replace")
    size = 1 + (data[0] if data else 0) % 7
    whole, pieces = _reading_of([text]), _reading_of([text[at : at + size] for at in range(0, len(text), size)])
    if whole != pieces:
        raise AssertionError(f"cut at every {size} it is {pieces!r:.400}, and whole {whole!r:.400}")


def _reading_of(pieces: Sequence[str]) -> tuple[list[object], object, bool]:
    reading, items = Reading(steps_left=3), list[RoundItem]()
    for piece in pieces:
        if not reading.enough:
            items += reading.feed(Delta(0, piece))

    rest, failure = reading.finish(Reply(finish_reason="stop"), "model", 1000)
    return [*_merged([*items, *rest])], failure, reading.complete


def _merged(items: Sequence[RoundItem]) -> Iterator[object]:
    """Put texts together that came in pieces."""
    for kind, group in itertools.groupby(items, type):
        if kind in (AnswerText, Note):
            yield kind, "".join(one.text for one in group if isinstance(one, (AnswerText, Note)))
        else:
            yield from group


def plan_seeds() -> list[bytes]:
    """Give replies: a plan, an answer, steps alone, words, and a fence."""
    step = {"id": "a", "tool": "text.reverse", "arguments": {"text": "${b} \u00e9"}, "depends_on": ["b"]}
    texts = [
        json.dumps({"note": "first", "steps": [step, {**step, "id": "c"}]}),
        json.dumps({"answer": "it is \n\u20ac", "output": {"n": [1, None]}}, ensure_ascii=False),
        json.dumps([step]),
        json.dumps(step) + json.dumps(step),
        "Just words.",
        "Here it is:\n```json\n" + json.dumps({"steps": [step]}) + "\n```",
    ]
    return [b"\x02" + one.encode() for one in texts]
