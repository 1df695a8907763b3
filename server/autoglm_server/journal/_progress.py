"""Ephemeral events: the present state of what is under way in a plan, never stored.

Each key, one attempt of a step or one attempt at a round, has one state: its last event, and its text so far. A cursor is given
the text from where it stands. A state is released once the sequence it follows is durable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container
from dataclasses import replace
from itertools import count
from typing import TypeAlias

from autoglm.model import AnswerProgressed, Event, StepProgressed

Key: TypeAlias = tuple[str, int]
"""(step id, attempt), or ("", round * 2**32 + attempt) of an answer."""

Place: TypeAlias = tuple[str, Key]
"""A key in a plan: (plan id, key)."""

Encode: TypeAlias = Callable[[Event], bytes]

TEXT_BYTES_MAX = 1 << 20
"""Of one text so far, in UTF-8, so that the one event that brings a late watcher up to date stays below 2 MiB."""

_texts = count(1)
"""Names each text, so that a cursor that has part of another one under the same key is given all of it."""


def key_of(event: Event) -> Key:
    """Give what the event is the state of.

    Raises:
        ValueError: the event is not an ephemeral one.
    """
    match event.fact:
        case StepProgressed():
            return (event.step_id, event.attempt)
        case AnswerProgressed(attempt=attempt):
            return ("", event.round << 32 | attempt)
        case fact:
            raise ValueError(f"{type(fact).__name__} is not an ephemeral event; append it to the journal")


class Progress:
    """The state of one key."""

    __slots__ = ("_encoded", "_parts", "_starts", "event", "key", "length", "place", "stamp", "text_bytes", "text_id")

    def __init__(self, key: Key, event: Event) -> None:
        self.key = key
        self.place: Place = (event.plan_id, key)
        self.event = event
        self.stamp = 0
        """When it was released, as a number that grows; 0 while what it follows is not durable."""
        self.length = 0
        """Of the text so far, in code points."""
        self.text_bytes = 0
        """The same in UTF-8."""
        self.text_id = next(_texts)
        self._parts: list[str] = []
        self._starts: list[int] = []
        self._encoded: dict[int, bytes] = {}

    def update(self, event: Event, room: int) -> None:
        """Replace the state by a newer one; its text continues, or is written anew from its offset on.

        Text that goes beyond ``room`` bytes, or continues what went beyond, is left out.
        """
        self.event = event
        self.stamp = 0
        self._encoded.clear()
        fact = event.fact
        assert isinstance(fact, (StepProgressed, AnswerProgressed))
        if fact.text and fact.offset < self.length:
            self._cut(fact.offset)

        if fact.text and fact.offset == self.length:
            self._add(fact.text, min(room, TEXT_BYTES_MAX - self.text_bytes))

    def _cut(self, length: int) -> None:
        kept = self.text(0)[:length]
        self._parts, self._starts = [], []
        self.length = self.text_bytes = 0
        self.text_id = next(_texts)
        self._add(kept, TEXT_BYTES_MAX)

    def _add(self, text: str, room: int) -> None:
        size = len(text.encode())
        if not text or size > room:
            return

        self._parts.append(text)
        self._starts.append(self.length)
        self.length += len(text)
        self.text_bytes += size

    def text(self, offset: int) -> str:
        """Give the text from an offset on."""
        if offset >= self.length:
            return ""

        index = bisect_right(self._starts, offset) - 1
        return self._parts[index][offset - self._starts[index] :] + "".join(self._parts[index + 1 :])

    def encoded_from(self, offset: int, encode: Encode) -> bytes:
        """Give the event that brings one who has the text up to ``offset`` up to date; encoded once for all who stand there."""
        body = self._encoded.get(offset)
        if body is None:
            fact = replace(self.event.fact, offset=offset, text=self.text(offset))  # type: ignore[arg-type]
            body = self._encoded[offset] = encode(replace(self.event, ephemeral=True, fact=fact))

        return body


class Seen:
    """What one cursor has been given of the ephemeral events: up to which release, and how far of each text."""

    __slots__ = ("_texts", "stamp")

    def __init__(self) -> None:
        self.stamp = 0
        self._texts: dict[Place, tuple[int, int]] = {}

    def catch_up(self, news: list[Progress], alive: Container[Place], encode: Encode) -> list[bytes]:
        """Give the events that bring the cursor up to date with ``news``, and forget what is no longer ``alive``."""
        self._texts = {place: seen for place, seen in self._texts.items() if place in alive}
        bodies = []
        for progress in news:
            text_id, offset = self._texts.get(progress.place, (0, 0))
            bodies.append(progress.encoded_from(offset if text_id == progress.text_id else 0, encode))
            self._texts[progress.place] = (progress.text_id, progress.length)
            self.stamp = max(self.stamp, progress.stamp)

        return bodies
