"""A clause that only quotes keep from being read: *replace the cat with a dog in my story*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache

from autoglm_server.planner.rules import grammar
from autoglm_server.planner.rules.clauses import closings, openings
from autoglm_server.planner.rules.grammar import Choice, Slot, slots_of
from autoglm_server.planner.rules.matcher import Match, Program, compile_sequence, run
from autoglm_server.planner.rules.phrasebook import CompiledPhrase, KnownTool
from autoglm_server.planner.rules.reading import TooManyClausesError, read
from autoglm_server.planner.rules.slots import SlotReader, Written
from autoglm_server.planner.rules.source import Source

_CHARACTERS_MAX = 300
_TRIES_MAX = 12


def with_quotes(text: str, tools: Sequence[KnownTool], today: date) -> str:
    """Give a clause with the quotes that a phrase wants around some of its words, if it can be read then; else nothing.

    It is for the user to say whether this was meant: without quotes nobody knows where a text begins and ends.
    """
    source = Source(text) if len(text) <= _CHARACTERS_MAX else Source("")
    words = {atom.key for atom in source.atoms}
    reader = SlotReader(source, today, frozenset())
    starts, ends = openings(source, 0, len(source)), frozenset(closings(source, 0, len(source)))
    found: list[tuple[int, str]] = []

    for phrase in (phrase for tool in tools for phrase in tool.phrases):
        if phrase.implicit or not phrase.may_fit(words) or not _wants_quotes(phrase):
            continue

        program = _unquoted(phrase.sequence)
        matches = (
            match for start in starts for match in run(program, source, reader, start, ends, len(source)).values()
        )
        found += [(-match.fixed_words, told) for match in matches if (told := _quoted(source, phrase, match))]

    ways = dict.fromkeys(told for _, told in sorted(found))
    return next((told for told in list(ways)[:_TRIES_MAX] if _reads(told, tools, today)), "")


def _wants_quotes(phrase: CompiledPhrase) -> bool:
    return any(slot.kind == "quoted" for slot in slots_of(phrase.sequence))


@lru_cache(maxsize=1024)
def _unquoted(sequence: grammar.Sequence) -> Program:
    return compile_sequence(_loosened(sequence))


def _loosened(sequence: grammar.Sequence) -> grammar.Sequence:
    """Give a pattern that takes any text where it wants quoted text."""
    loose: list[grammar.Node] = []

    for node in sequence:
        match node:
            case Slot(kind="quoted"):
                loose.append(replace(node, kind="text"))
            case Choice():
                loose.append(replace(node, branches=tuple(_loosened(branch) for branch in node.branches)))
            case _:
                loose.append(node)

    return tuple(loose)


def _quoted(source: Source, phrase: CompiledPhrase, match: Match) -> str:
    """Give the clause with quotes around the texts that have none; nothing if they would not tell where a text ends."""
    strict = {slot.name for slot in slots_of(phrase.sequence) if slot.kind == "quoted"}
    opening, closing = ("“", "”") if source.chinese else ('"', '"')
    told, end, last = "", 0, -1

    for capture in sorted(match.captures, key=lambda capture: capture.start):
        raw = source.raw(capture.start, capture.end)
        touching, last = capture.start == last, capture.end

        if capture.slot.name not in strict or not isinstance(capture.value, Written) or capture.value.quoted:
            continue

        if touching or {opening, closing} & set(raw):
            return ""

        start = source.atoms[capture.start].start
        told += f"{source.text[end:start]}{opening}{raw}{closing}"
        end = start + len(raw)

    return told + source.text[end:] if told else ""


def _reads(text: str, tools: Sequence[KnownTool], today: date) -> bool:
    try:
        clauses = read(Source(text), tools, today)
    except TooManyClausesError:
        return False

    return len(clauses) == 1 and clauses[0].phrase is not None
