"""``text.slice``: reads a part of a text, or of any JSON as text, such as a long output of an earlier step."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, TypedDict

from autoglm import wire
from autoglm.model import Effect, Json, Phrase, ToolExample
from autoglm.tool import Constraint, tool

SLICE_MAX: Final = 100_000
"""Characters of one slice."""


class Slice(TypedDict):
    """A part of a text: ``result``, the characters from ``start`` up to ``end``, of ``length`` in all."""

    result: str
    start: int
    end: int
    length: int


@tool(
    name="text.slice",
    title="Read a part of a text",
    effect=Effect.READ_ONLY,
    timeout=timedelta(seconds=10),
    tags=("text", "output"),
    phrases=(
        Phrase(
            "[read|show|get|take] [me] [the] first {end:integer} (characters|letters) (of|in|from) {value:quoted}",
            "The first {end} characters are {output}.",
            "en",
        ),
        Phrase("[读|取|显示] {value:quoted} 的前 {end:integer} 个(字符|字)", "前 {end} 个字符是 {output}。", "zh"),
    ),
    examples=(
        ToolExample(
            'first 5 characters of "to be or not to be"',
            {"value": "to be or not to be", "end": 5},
            {"result": "to be", "start": 0, "end": 5, "length": 18},
        ),
    ),
)
def slice_text(
    value: Json,
    start: Annotated[int, Constraint(minimum=0)] = 0,
    end: Annotated[int, Constraint(minimum=0)] = 4000,
) -> Slice:
    """Read the characters from start up to end, such as the next part of the long output of an earlier step.

    What lies beyond the text's end is left out. A slice has at most 100000 characters.

    Args:
        value: A text, or any JSON, which is read as its text, such as "${step}".
        start: The first character, from 0.
        end: The character after the last.
    """
    text = value if isinstance(value, str) else wire.canonical_json(value)
    first = min(start, len(text))
    last = max(first, min(end, len(text), first + SLICE_MAX))
    return Slice(result=text[first:last], start=first, end=last, length=len(text))
