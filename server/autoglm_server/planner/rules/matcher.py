"""Patterns compiled to a small program, run over a clause without ever trying the same thing twice.

A state is (instruction, atom). The first way into a state decides: if the rest fails from there once, it fails always. So a
clause of n atoms costs at most n times the pattern's length, whatever both say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from autoglm_server.planner.rules.grammar import Choice, Sequence, Slot, Words
from autoglm_server.planner.rules.slots import SlotReader, Value, Written
from autoglm_server.planner.rules.source import Kind, Source, words_of

_NOISE: tuple[tuple[str, ...], ...] = (
    ("the",),
    ("a",),
    ("an",),
    ("please",),
    ("一", "下"),
    ("一", "个"),
    ("请",),
    (":",),
    ("：",),
)
"""What may stand before a fixed word or a slot without being written in the pattern."""


@dataclass(frozen=True, slots=True)
class Word:
    """One fixed word."""

    key: str


@dataclass(frozen=True, slots=True)
class Fill:
    """A slot of any type but text."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Begin:
    """A text begins; at least one atom of it follows."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class End:
    """A text may end here; if the rest does not fit then, it goes on one atom further."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Fork:
    """Try these instructions, in this order."""

    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on elsewhere."""

    target: int


@dataclass(frozen=True, slots=True)
class Done:
    """The pattern is at its end."""


Instruction: TypeAlias = "Word | Fill | Begin | End | Fork | Jump | Done"
Program: TypeAlias = "tuple[Instruction, ...]"


@dataclass(frozen=True, slots=True)
class Capture:
    """What a slot took, and where."""

    slot: Slot
    value: Value
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Match:
    """A pattern that fits: its captures, and how many fixed words it shares with the clause."""

    captures: tuple[Capture, ...]
    fixed_words: int


_Trail: TypeAlias = "tuple[Capture, _Trail] | None"


def compile_sequence(sequence: Sequence) -> Program:
    """Turn a parsed pattern, whose slots all have a type, into a program."""
    program: list[Instruction] = []
    _emit(sequence, program)
    program.append(Done())
    return tuple(program)


def _emit(sequence: Sequence, program: list[Instruction]) -> None:
    for node in sequence:
        match node:
            case Words(text):
                program += [Word(key) for key in words_of(text)]
            case Slot(kind="text"):
                program += [Begin(node), End(node)]
            case Slot():
                program.append(Fill(node))
            case Choice():
                _emit_choice(node, program)


def _emit_choice(choice: Choice, program: list[Instruction]) -> None:
    fork = len(program)
    program.append(Done())  # its place; the targets are known below
    targets: list[int] = []
    jumps: list[int] = []

    for branch in choice.branches:
        targets.append(len(program))
        _emit(branch, program)
        jumps.append(len(program))
        program.append(Done())

    if choice.optional:
        targets.append(len(program))

    program[fork] = Fork(tuple(targets))

    for jump in jumps:
        program[jump] = Jump(len(program))


def run(program: Program, source: Source, reader: SlotReader, start: int, ends: frozenset[int]) -> Match | None:
    """Find the first way, in the program's order, in which it fits from ``start`` to one of ``ends``."""
    limit = max(ends)
    seen: set[tuple[int, int]] = set()
    pending: list[tuple[int, int, _Trail, int, int]] = [
        (0, start, None, 0, start)
    ]  # instruction, atom, captures, words, text's start

    while pending:
        at, position, trail, words, begun = pending.pop()

        if (at, position) in seen:
            continue

        seen.add((at, position))
        instruction = program[at]
        noise = 0

        match instruction:
            case Done():
                if position in ends:
                    return Match(_unwound(trail), words)
            case Jump(target):
                pending.append((target, position, trail, words, begun))
            case Fork(targets):
                pending += [(target, position, trail, words, begun) for target in reversed(targets)]
            case Word(key):
                if position < limit and source.key(position) == key:
                    pending.append((at + 1, position + 1, trail, words + 1, begun))
                else:
                    noise = _noise(source, position, limit)
            case Fill(slot):
                noise = _noise(source, position, limit)
                found = reader.read(slot.kind, slot.choices, position) if position < limit else []
                fits = [(end, value) for end, value in found if end <= limit]

                if noise:
                    pending.append((at, position + noise, trail, words, begun))
                    noise = 0

                pending += [
                    (at + 1, end, (Capture(slot, value, position, end), trail), words, begun)
                    for end, value in reversed(fits)
                ]
            case Begin():
                if position < limit:
                    pending.append((at + 1, position + 1, trail, words, position))
            case End(slot):
                if position < limit:
                    pending.append((at, position + 1, trail, words, begun))

                capture = Capture(slot, _text(source, begun, position), begun, position)
                pending.append((at + 1, position, (capture, trail), words, begun))

        if noise:
            pending.append((at, position + noise, trail, words, begun))

    return None


def _noise(source: Source, position: int, limit: int) -> int:
    """Give how many atoms of noise stand here."""
    return next(
        (len(words) for words in _NOISE if position + len(words) < limit and source.starts_with(position, words)), 0
    )


def _text(source: Source, start: int, end: int) -> Value:
    atom = source.atoms[start]

    if end == start + 1 and atom.kind is Kind.QUOTED:
        return Written(atom.content, quoted=True)

    return Written(source.raw(start, end))


def _unwound(trail: _Trail) -> tuple[Capture, ...]:
    captures: list[Capture] = []

    while trail is not None:
        capture, trail = trail
        captures.append(capture)

    return tuple(reversed(captures))
