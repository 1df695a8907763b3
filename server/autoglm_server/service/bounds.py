"""The elementary checks of a request's fields: each adds what is wrong to one list, with the value and the fix."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from autoglm import wire
from autoglm._dataclasses import dataclass
from autoglm.model import Violation

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
LABEL_KEY: Final = re.compile(r"[A-Za-z0-9_./-]{1,63}")
TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
TOOL_GLOB: Final = re.compile(r"[A-Za-z0-9_.*?-]{1,128}")
REQUEST_ID_MAX: Final = 128
"""Characters of a request_id."""
PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")

VIOLATIONS_MAX: Final = 1000
"""The most faults that are looked for in one request: 10,000 bad steps need not cost 30,000 sentences."""

JSON_GROWTH: Final = 6
"""JSON is at most this much longer than the Struct's encoding: a control character, one byte, is ``\\u0001``."""


class Enum(Protocol):
    """An enum of the generated code."""

    def keys(self) -> Sequence[str]:
        """Give the names."""
        ...

    def values(self) -> Sequence[int]:
        """Give the numbers."""
        ...


@dataclass(slots=True)
class Checks:
    """What is wrong with one request so far."""

    violations: list[Violation] = field(default_factory=list)

    def add(self, name: str, description: str, reason: str) -> None:
        """Note a fault."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(name, description, reason))

    @property
    def full(self) -> bool:
        """Whether no more faults are noted."""
        return len(self.violations) >= VIOLATIONS_MAX

    # --- text

    def id(self, name: str, value: str, *, what: str = "an id") -> None:
        """Require an id."""
        if not value:
            self.add(name, f"is required: {what}", "REQUIRED")
        elif not ID.fullmatch(value):
            self.add(
                name, f"{shown(value)} is not an id: 1 to 64 of A-Z a-z 0-9 _ -, not beginning with -", "MALFORMED"
            )

    def matches(self, name: str, value: str, pattern: re.Pattern[str], rule: str, *, required: bool = True) -> None:
        """Require a pattern."""
        if not value:
            if required:
                self.add(name, f"is required: {rule}", "REQUIRED")

        elif not pattern.fullmatch(value):
            self.add(name, f"{shown(value)} must be {rule}", "MALFORMED")

    def characters(self, name: str, value: str, most: int) -> None:
        """Bound a text in characters."""
        if len(value) > most:
            self.add(name, f"is {len(value)} characters long; at most {most}", "TOO_LONG")

    def utf8(self, name: str, value: str, most: int, limit: str = "") -> None:
        """Bound a text in bytes."""
        if len(value) * 4 > most and (size := len(value.encode())) > most:
            self.add(name, f"is {size} bytes long in UTF-8; at most {most}{named(limit)}", "TOO_LONG")

    def labels(self, value: Mapping[str, str], most: int) -> None:
        """Bound labels: how many, their keys and their values."""
        if len(value) > most:
            self.add("labels", f"there are {len(value)}; at most {most} (limits.labels)", "TOO_MANY")
            return

        for key in sorted(value):
            name = f"labels[{json.dumps(key[:64])}]"
            self.matches(name, key, LABEL_KEY, "1 to 63 of A-Z a-z 0-9 _ . / -")
            self.characters(name, value[key], 256)

    # --- numbers

    def between(self, name: str, value: float, least: float, most: float, *, fix: str = "") -> None:
        """Bound a number."""
        if not least <= value <= most:
            self.add(name, f"is {value}; must be {least:g} to {most:g}{fix}", "OUT_OF_RANGE")

    def count(self, name: str, items: Collection[object], most: int, limit: str = "") -> bool:
        """Bound how many items there are; say whether they are worth looking at."""
        if len(items) > most:
            self.add(name, f"there are {len(items)}; at most {most}{named(limit)}", "TOO_MANY")
            return False

        return True

    def at_least(self, name: str, value: int, least: int) -> None:
        """Bound a number from below."""
        if value < least:
            self.add(name, f"is {value}; must be at least {least}", "OUT_OF_RANGE")

    def duration(self, name: str, value: Duration, most: timedelta, *, zero: bool = False) -> None:
        """Bound a duration; it is above zero unless ``zero``."""
        seconds = value.seconds + value.nanos / 1e9

        if abs(value.nanos) >= 1_000_000_000 or value.seconds * value.nanos < 0:
            self.add(name, f'nanos {value.nanos} do not fit seconds {value.seconds}; write it as "1.5s"', "MALFORMED")
        elif seconds > most.total_seconds() or seconds < 0 or (not seconds and not zero):
            least = "0s" if zero else "above 0s"
            self.add(name, f"is {seconds:.12g}s; must be {least}, at most {most.total_seconds():.12g}s", "OUT_OF_RANGE")

    def timestamp(self, name: str, value: Timestamp) -> None:
        """Require a time of the years 1 to 9999."""
        if not (-62_135_596_800 <= value.seconds <= 253_402_300_799 and 0 <= value.nanos < 1_000_000_000):
            self.add(name, 'is not a time of the years 1 to 9999; write it as "2026-01-31T12:00:00Z"', "MALFORMED")

    def enum(self, name: str, value: int, kind: Enum, *, required: bool = False) -> None:
        """Require a value of an enum that this version knows."""
        if value not in kind.values():
            self.add(name, f"{value} is not known; one of {', '.join(kind.keys())}", "UNKNOWN_VALUE")
        elif required and not value:
            self.add(name, f"is required; one of {', '.join(kind.keys()[1:])}", "REQUIRED")

    # --- JSON

    def json(self, name: str, value: Struct | Value, *, bytes_max: int, depth_max: int, limit: str) -> None:
        """Bound a Struct or Value: its depth, its numbers, and its length as JSON."""
        size = value.ByteSize()

        if size <= bytes_max and not sound(value, depth_max):
            self._walk(name, value, depth_max)
            return

        if size <= bytes_max < size * JSON_GROWTH:
            size = max(size, len(wire.canonical_json(wire.from_message(value)).encode()))

        if size > bytes_max:  # of which nothing is read: that could take longer than all the rest
            self.add(name, f"is {size} bytes long; at most {bytes_max} ({limit})", "TOO_LONG")

    def _walk(self, name: str, value: Struct | Value | ListValue, room: int) -> None:
        """Name the numbers that JSON does not have, and nesting that is too deep; ``room`` is the levels left."""
        if isinstance(value, Value):
            match value.WhichOneof("kind"):
                case "number_value":
                    if not math.isfinite(value.number_value):
                        self.add(name, f"is {value.number_value}; JSON has only finite numbers", "NOT_FINITE")

                case "struct_value":
                    self._walk(name, value.struct_value, room)
                case "list_value":
                    self._walk(name, value.list_value, room)
                case _:
                    pass

            return

        items: Iterable[tuple[str, Value]]
        is_object = isinstance(value, Struct)
        items = (
            ((f"{name}.{key[:64]}", item) for key, item in sorted(value.fields.items()))
            if isinstance(value, Struct)
            else ((f"{name}[{index}]", item) for index, item in enumerate(value.values))
        )

        if room <= 1 and (value.fields if isinstance(value, Struct) else value.values):
            kind = "object" if is_object else "array"
            self.add(name, f"the {kind} is nested too deep; flatten it (limits.json_depth)", "TOO_DEEP")
            return

        for where, item in items:
            self._walk(where, item, room - 1)


def sound(value: Struct | Value | ListValue, room: int) -> bool:
    """Whether a value is nothing but finite numbers and at most ``room`` deep; names no place, so it is quick."""
    if isinstance(value, Value):
        kind = value.WhichOneof("kind")
        if kind == "number_value":
            return math.isfinite(value.number_value)

        if kind == "struct_value":
            return sound(value.struct_value, room)

        return kind != "list_value" or sound(value.list_value, room)

    if isinstance(value, Struct):
        fields = value.fields
        return not fields or (room > 1 and all(sound(fields[key], room - 1) for key in fields))

    return not value.values or (room > 1 and all(sound(item, room - 1) for item in value.values))


def shown(value: str) -> str:
    """Show a value in a sentence, shortened."""
    return repr(value if len(value) <= 64 else f"{value[:61]}...")


def named(limit: str) -> str:
    """Name the setting that a limit comes from."""
    return f" ({limit})" if limit else ""
