"""Requests that really work, one for a tool: a phrase filled in with the values of the tool's examples, and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache

from autoglm.model import Json, JsonObject, Phrase, Tool
from autoglm_server.planner.rules import grammar
from autoglm_server.planner.rules.binding import Binder
from autoglm_server.planner.rules.grammar import Choice, Slot, Words
from autoglm_server.planner.rules.phrasebook import CompiledPhrase, KnownTool, know
from autoglm_server.planner.rules.reading import TooManyClausesError, read
from autoglm_server.planner.rules.source import Source

EXAMPLE_MAX = 80
"""How many characters an example request may have."""
_PHRASES_MAX = 40
_TOOLS_MAX = 64
_TODAY = date(2026, 11, 22)
_VALUES: Mapping[str, Json] = {
    "number": 10,
    "integer": 3,
    "numbers": [1, 2, 3],
    "quoted": "hello world",
    "texts": ["a", "b", "c"],
    "text": "hello world",
    "word": "hello",
    "letter": "l",
    "name": "Tokyo",
    "unit": "km",
    "path": "notes.txt",
    "file": "notes.txt",
    "date": "2026-12-25",
    "time": "10:30",
    "expression": "15% of 2480",
    "json": {"a": 1},
}


_OTHERS: Mapping[str, Json] = {"name": "London", "unit": "miles", "path": "other.txt", "date": "2027-01-01"}
"""The values of a second slot of the same type, whose name begins with *to* or *end*."""


_FILES = frozenset({"path", "file"})


class _UnfitError(ValueError):
    """A phrase that these values do not fill."""


def example_request(tool: Tool, *, chinese: bool = False) -> str:
    """Give a request that the rules planner reads as one step of ``tool``; empty if its phrases give none.

    It is a phrase with the arguments of the first of the tool's examples that fit one, else with values of the slots' types.
    """
    examples = json.dumps([example.arguments for example in tool.examples[:8] if example.arguments], sort_keys=True)
    return _made(tool.name, tool.input_schema, tool.output_schema, tool.phrases, examples, chinese)


def some_requests(tools: Sequence[Tool], *, chinese: bool, count: int = 3) -> list[str]:
    """Give a few short requests, each of another family of tools (what stands before the dot), the shortest first."""
    best: dict[str, str] = {}

    for tool in sorted(tools, key=lambda tool: tool.name)[:_TOOLS_MAX]:
        told = example_request(tool, chinese=chinese) or example_request(tool, chinese=not chinese)
        family = tool.name.partition(".")[0]

        if told and (family not in best or len(told) < len(best[family])):
            best[family] = told

    return sorted(best.values(), key=lambda told: (len(told), told))[:count]


def file_requests(tools: Sequence[Tool], *, chinese: bool, count: int = 4) -> list[str]:
    """Give a request for each of a few tools that work on files, as their phrases' slots tell."""
    told = [
        example_request(tool, chinese=chinese) or example_request(tool, chinese=not chinese)
        for tool in sorted(tools, key=lambda tool: tool.name)[:_TOOLS_MAX]
        if any(slot.kind in _FILES for phrase in know(tool).phrases for slot in grammar.slots_of(phrase.sequence))
    ]
    return [one for one in told if one][:count]


@lru_cache(maxsize=4096)
def _made(
    name: str,
    input_schema: str,
    output_schema: str,
    phrases: tuple[Phrase, ...],
    examples: str,
    chinese: bool,  # noqa: FBT001 # lru_cache takes keywords apart
) -> str:
    known = know(Tool(name=name, input_schema=input_schema, output_schema=output_schema, phrases=phrases))
    usable = [one for one in known.phrases if one.chinese == chinese and not one.implicit and not one.followed]
    values: list[JsonObject] = [*json.loads(examples), {}]

    for arguments in values:
        told = [(told, phrase) for phrase in usable[:_PHRASES_MAX] if (told := _told(phrase, arguments))]

        # With values of its own, a tool's first phrase is the best one; without, the one that needs the fewest.
        for text, phrase in told if arguments else sorted(told, key=lambda one: len(one[0])):
            if len(text) <= EXAMPLE_MAX and _reads(text, known, phrase, arguments):
                return text

    return ""


def _told(phrase: CompiledPhrase, arguments: JsonObject) -> str:
    try:
        return " ".join(_filled(phrase.sequence, arguments, chinese=phrase.chinese).split())
    except _UnfitError:
        return ""


def _reads(told: str, known: KnownTool, phrase: CompiledPhrase, arguments: JsonObject) -> bool:
    """Whether the planner makes of it one step, with these arguments."""
    try:
        clauses = read(Source(told), [known], _TODAY)
    except TooManyClausesError:
        return False

    bound, problems = Binder({known.name: known}, (), chinese=phrase.chinese).bind(clauses)
    made = bound[0].draft.arguments if len(bound) == 1 and not problems and len(clauses) == 1 else None
    return made is not None and all(made.get(name) == value for name, value in arguments.items())


def _filled(sequence: grammar.Sequence, values: JsonObject, *, chinese: bool) -> str:
    """Give the words of a phrase, with the parts that may be left out only where they hold one of the values."""
    told = ""

    for node in sequence:
        match node:
            case Words(text):
                told += text
            case Slot():
                told += _value(node, values, chinese=chinese)
            case Choice(branches=branches, optional=optional):
                told += _chosen(branches, values, optional=optional, chinese=chinese)

    return told


def _chosen(branches: tuple[grammar.Sequence, ...], values: JsonObject, *, optional: bool, chinese: bool) -> str:
    for branch in branches:
        if optional and not any(slot.name in values for slot in grammar.slots_of(branch)):
            continue

        try:
            return _filled(branch, values, chinese=chinese)
        except _UnfitError:
            continue

    if optional:
        return ""

    raise _UnfitError


def _value(slot: Slot, values: JsonObject, *, chinese: bool) -> str:
    if values and slot.name not in values:
        raise _UnfitError

    if not values and slot.choices:
        return slot.choices[0]

    second = slot.name.startswith(("to_", "end"))
    value = values[slot.name] if values else (_OTHERS if second and slot.kind in _OTHERS else _VALUES)[slot.kind]

    match value:
        case str() if slot.kind in {"quoted", "text", "json"}:
            return f"“{value}”" if chinese else f'"{value}"'
        case list() if slot.kind == "texts":
            return ("、" if chinese else ", ").join(f'"{item}"' for item in value)
        case list() if slot.kind == "numbers":
            return ("、" if chinese else ", ").join(map(str, value))
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)
