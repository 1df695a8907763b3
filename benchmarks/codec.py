"""What the codec costs, in microseconds of CPU, beside protobuf's own ways in the same run."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime

from google.protobuf import json_format

from autoglm import wire
from autoglm.model import Event, Fact, PlanCreated, StepStarted, StepSucceeded, ToolResult
from autoglm.v1 import event_pb2
from benchmarks.rows import Options, Row

ROWS = [{"id": i, "name": f"row number {i}", "ok": True, "score": i * 1.5} for i in range(13)]
ARGUMENTS = {f"key{i}": [i, "some text value", True, 1.5][i % 4] for i in range(10)}
FACTS: dict[str, Fact] = {
    "created": PlanCreated("15% of 2480, then convert it from kilometers to miles", labels={"team": "a"}),
    "started": StepStarted("01J00000000000000000000000/s1", ARGUMENTS),
    "succeeded": StepSucceeded(ToolResult({"value": 372, "unit": "km"})),
    "large": StepSucceeded(ToolResult({"rows": ROWS})),
}


def cost(work: Callable[[], object], *, number: int = 500, repeat: int = 15) -> float:
    """The least time of one call, in microseconds of this process."""
    return min(timeit.repeat(work, number=number, repeat=repeat, timer=time.process_time)) / number * 1e6


def measured(fact: Fact, repeat: int) -> dict[str, float]:
    """Give microseconds: ours, the parse or write of the bytes alone, and protobuf's own way through JSON values."""
    event = Event("01J00000000000000000000000", 12, datetime(2026, 1, 1, 12, 0, 0, 5, UTC), "s1", 1, round=1, fact=fact)
    data, message = wire.encode(event), wire.to_message(event)
    assert wire.decode(Event, data) == event
    plain = json_format.MessageToDict(message)
    return {
        "encode": cost(lambda: wire.encode(event), repeat=repeat),
        "write": cost(message.SerializeToString, repeat=repeat),
        "ParseDict": cost(
            lambda: json_format.ParseDict(plain, event_pb2.Event()).SerializeToString(), number=100, repeat=repeat
        ),
        "decode": cost(lambda: wire.decode(Event, data), repeat=repeat),
        "parse": cost(lambda: event_pb2.Event.FromString(data), repeat=repeat),
        "MessageToDict": cost(
            lambda: json_format.MessageToDict(event_pb2.Event.FromString(data)), number=100, repeat=repeat
        ),
        "to_json": cost(lambda: wire.to_json(event), number=100, repeat=repeat),
        "bytes": float(len(data)),
    }


async def rows(options: Options) -> list[Row]:
    """Encode and decode, beside protobuf alone with a message that is already there, or is all that is wanted."""
    found = []

    for name, fact in FACTS.items():
        rounds = [measured(fact, 3 if options.quick else 7) for _ in range(options.rounds)]

        for what, limit, beside in (("encode", "write", "ParseDict"), ("decode", "parse", "MessageToDict")):
            values, limits = [one[what] for one in rounds], [one[limit] for one in rounds]
            note = f"CPU; {rounds[0]['bytes']:.0f} bytes; by {beside} {rounds[-1][beside]:.3g} us"
            found.append(
                Row(f"codec.{what}.{name}", "us", values, limits, f"protobuf's {limit} alone", None, note, rounds[-1])
            )

    return [row for row in found if options.wanted(row.name)]
