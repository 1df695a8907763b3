"""What the codec costs, in microseconds of CPU, beside protobuf's own ways in the same run: ``python benchmarks/codec.py``.

The machine's speed is in every figure; the ratio to ``construct`` (making the smallest event's dataclasses) is not. Columns:
bytes; encode and decode; the same through ParseDict and MessageToDict; parsing the bytes alone; writing the JSON text.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime

from google.protobuf import json_format

from autoglm import wire
from autoglm.model import Event, Fact, PlanCreated, StepStarted, StepSucceeded, ToolResult
from autoglm.v1 import event_pb2

ROWS = [{"id": i, "name": f"row number {i}", "ok": True, "score": i * 1.5} for i in range(13)]
ARGUMENTS = {f"key{i}": [i, "some text value", True, 1.5][i % 4] for i in range(10)}
FACTS: dict[str, Fact] = {
    "PlanCreated": PlanCreated("15% of 2480, then convert it from kilometers to miles", labels={"team": "a"}),
    "StepStarted, 10 arguments": StepStarted("01J00000000000000000000000/s1", ARGUMENTS),
    "StepSucceeded, small": StepSucceeded(ToolResult({"value": 372, "unit": "km"})),
    "StepSucceeded, 1 kB": StepSucceeded(ToolResult({"rows": ROWS})),
}


def cost(work: Callable[[], object], *, number: int = 500, repeat: int = 15) -> float:
    """The least time of one call, in microseconds of this process."""
    return min(timeit.repeat(work, number=number, repeat=repeat, timer=time.process_time)) / number * 1e6


def row(name: str, fact: Fact) -> str:
    event = Event("01J00000000000000000000000", 12, datetime(2026, 1, 1, 12, 0, 0, 5, UTC), "s1", 1, round=1, fact=fact)
    data, message = wire.encode(event), wire.to_message(event)
    assert wire.decode(Event, data) == event
    plain = json_format.MessageToDict(message)
    figures = [
        cost(lambda: wire.encode(event)),
        cost(lambda: wire.decode(Event, data)),
        cost(lambda: json_format.ParseDict(plain, event_pb2.Event()).SerializeToString(), number=100),
        cost(lambda: json_format.MessageToDict(event_pb2.Event.FromString(data)), number=100),
        cost(lambda: event_pb2.Event.FromString(data)),
        cost(lambda: wire.to_json(event), number=100),
    ]
    return f"{name:26}{len(data):7}" + "".join(f"{each:11.1f}" for each in figures)


def main() -> None:
    columns = ["encode", "decode", "ParseDict", "…ToDict", "FromString", "to_json"]
    print(f"construct {cost(lambda: Event('p', 1, None, 's', 1, fact=StepSucceeded(ToolResult({})))):.1f} us")
    print(f"{'event':26}{'bytes':>7}" + "".join(f"{each:>11}" for each in columns))
    for name, fact in FACTS.items():
        print(row(name, fact))


if __name__ == "__main__":
    main()
