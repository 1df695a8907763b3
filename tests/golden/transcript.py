"""A plan's events as text that a person reviews: one line each, with what differs from run to run made equal."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from autoglm.model import Event
from autoglm.wire import canonical_json

ITEMS_MAX = 12
"""A longer list is shown by its ends and its length."""
SHOWN = 3

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"\b[0-9a-hjkmnp-tv-z]{26}\b")
_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def transcript(events: Sequence[Event]) -> str:
    """Write the events down; times are seconds since the first, the plan's id is PLAN, other ids are ID, digests ``sha256:*``."""
    first = events[0]
    assert first.event_time is not None
    writer = _Writer(first.plan_id, first.event_time)
    return "".join(f"{writer.line(event)}\n" for event in events)


def compare(found: str, golden: Path, *, update: bool) -> None:
    """Fail if the transcript is not the reviewed one; with ``update`` write it, for a person to review the diff."""
    if update:
        golden.write_text(found, encoding="utf-8")
        return

    assert golden.is_file(), f"{golden.name} is not there; run pytest tests/golden --update-golden, and read it"
    reviewed = golden.read_text(encoding="utf-8")
    diff = difflib.unified_diff(reviewed.splitlines(), found.splitlines(), golden.name, "this run", n=1, lineterm="")
    told = "\n".join(diff)
    assert not told, f"not the reviewed transcript; if it is meant, run pytest tests/golden --update-golden\n{told}"


class _Writer:
    def __init__(self, plan_id: str, start: datetime) -> None:
        self._plan_id = plan_id
        self._start = start

    def line(self, event: Event) -> str:
        where = f"{event.step_id}/{event.attempt}" if event.attempt else event.step_id
        name = _WORD.sub("_", type(event.fact).__name__).lower()
        envelope = [f"{key}={value}" for key in ("round", "principal") if (value := getattr(event, key))]
        parts = [f"{event.sequence:4}", self._value(event.event_time), name, where, *envelope]
        return " ".join([*filter(None, parts), *self._fields(event.fact)])

    def _fields(self, value: Any) -> list[str]:
        """Write what is set: everything that is not as it would be if nobody had said it."""
        given = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        unsaid = type(value)()
        return [f"{name}={self._value(item)}" for name, item in given.items() if item != getattr(unsaid, name)]

    def _value(self, value: Any) -> str:
        if dataclasses.is_dataclass(value):
            return f"{type(value).__name__}({' '.join(self._fields(value))})"

        match value:
            case enum.Enum():
                return value.name
            case datetime():
                return f"+{(value - self._start).total_seconds():.3f}s"
            case timedelta():
                return f"{value.total_seconds():g}s"
            case tuple() if all(isinstance(item, str) for item in value):
                return self._text(canonical_json(_shortened(list(value))))
            case tuple():
                return f"[{', '.join(map(self._value, value))}]"
            case _:
                return self._text(canonical_json(_shortened(value)))

    def _text(self, text: str) -> str:
        return _ID.sub("ID", _DIGEST.sub("sha256:*", text.replace(self._plan_id, "PLAN")))


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item) for key, item in value.items()}

    if not isinstance(value, list):
        return value

    items = [_shortened(item) for item in value]
    if len(items) <= ITEMS_MAX:
        return items

    return [*items[:SHOWN], f"and {len(items) - 2 * SHOWN} more", *items[-SHOWN:]]
