"""A clause that one wrong letter keeps from being read: *waht time is it*."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import islice, product

from autoglm_server.planner.rules.phrasebook import KnownTool
from autoglm_server.planner.rules.reading import TooManyClausesError, read
from autoglm_server.planner.rules.source import Kind, Source
from autoglm_server.spelling import edits

_CHARACTERS_MAX = 300
_WORDS_MAX = 40
_WRONG_MAX = 3
_LETTERS_MIN = 3
_CHOICES_MAX = 4
_TRIES_MAX = 12


def corrected(text: str, tools: Sequence[KnownTool], today: date) -> str:
    """Give a clause with words of phrases in place of those that are one letter off, if it can be read then; else nothing."""
    source = Source(text) if len(text) <= _CHARACTERS_MAX else Source("")
    known = {word for tool in tools for phrase in tool.phrases for word in phrase.words if word.isascii()}
    choices: list[tuple[int, list[str]]] = []

    for position, atom in enumerate(source.atoms[:_WORDS_MAX]):
        if atom.kind is not Kind.WORD or len(atom.key) < _LETTERS_MIN or atom.key in known:
            continue

        near = sorted(
            (atom.key[0] != word[0], sorted(atom.key) != sorted(word), word)
            for word in known
            if edits(atom.key, word, 1) == 1
        )

        if near:
            choices.append((position, [word for _, _, word in near[:_CHOICES_MAX]]))

    if not choices or len(choices) > _WRONG_MAX:
        return ""

    ways = product(*(["", *words] for _, words in choices))

    for way in islice(ways, 1, _TRIES_MAX + 1):
        told = _replaced(source, dict(zip((position for position, _ in choices), way, strict=True)))

        if _reads(told, tools, today):
            return told

    return ""


def _replaced(source: Source, words: dict[int, str]) -> str:
    told, end = "", 0

    for position, word in words.items():
        atom = source.atoms[position]
        told += source.text[end : atom.start] + (word or source.text[atom.start : atom.end])
        end = atom.end

    return told + source.text[end:]


def _reads(text: str, tools: Sequence[KnownTool], today: date) -> bool:
    try:
        clauses = read(Source(text), tools, today)
    except TooManyClausesError:
        return False

    return bool(clauses) and all(clause.phrase is not None for clause in clauses)
