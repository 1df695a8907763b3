"""Patterns compiled to a small program, run over a clause without ever trying the same thing twice.

A state is (instruction, atom). The first way into a state decides: if the rest fails from there once, it fails always. So a
clause of n atoms costs at most n times the pattern's length, whatever both say.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TypeAlias

from autoglm._dataclasses import dataclass
from autoglm_server.planner.rules.grammar import Choice, Sequence, Slot, Words
from autoglm_server.planner.rules.slots import SlotReader, Value, Written
from autoglm_server.planner.rules.source import Kind, Source, words_of

_NOISE: dict[str, tuple[tuple[str, ...], ...]] = {
    "the": (("the",),),
    "a": (("a",),),
    "an": (("an",),),
    "please": (("please",),),
    ":": ((":",),),
    "请": (("请",),),
    "一": (("一", "下"), ("一", "个")),
}
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
_State: TypeAlias = tuple[int, int, _Trail, int, int]
"""Instruction, atom, captures so far, fixed words so far, where the last text began."""


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


def run(
    program: Program, source: Source, reader: SlotReader, start: int, ends: Container[int], limit: int
) -> dict[int, Match]:
    """Find for each of ``ends`` the first way, in the program's order, in which it fits from ``start``.

    No end is beyond ``limit``.
    """
    found: dict[int, Match] = {}
    seen: set[tuple[int, int]] = set()
    pending: list[_State] = [(0, start, None, 0, start)]

    while pending:
        state = pending.pop()
        at, position, trail, words, begun = state

        if (at, position) in seen:
            continue

        seen.add((at, position))

        match program[at]:
            case Word(key):
                if position < limit and source.atoms[position].key == key and not _glued(program, at, source, position):
                    pending.append((at + 1, position + 1, trail, words + 1, begun))
                elif noise := _noise(source, position, limit):
                    pending.append((at, position + noise, trail, words, begun))
            case Fill(slot):
                pending += _filled(state, slot, source, reader, limit)
            case Fork(targets):
                pending += [(target, position, trail, words, begun) for target in reversed(targets)]
            case Jump(target):
                pending.append((target, position, trail, words, begun))
            case Begin():
                if position < limit:
                    pending.append((at + 1, position + 1, trail, words, position))
            case End(slot):
                if position < limit:
                    pending.append((at, position + 1, trail, words, begun))

                capture = Capture(slot, _text(source, begun, position), begun, position)
                pending.append((at + 1, position, (capture, trail), words, begun))
            case Done():
                if position in ends:
                    found[position] = Match(_unwound(trail), words)

    return found


def _filled(state: _State, slot: Slot, source: Source, reader: SlotReader, limit: int) -> Iterator[_State]:
    """Give the states after a slot, the one to be tried first last."""
    at, position, trail, words, begun = state

    if position >= limit:
        return

    if noise := _noise(source, position, limit):
        yield at, position + noise, trail, words, begun

    for end, value in reversed(reader.read(slot.kind, slot.choices, position)):
        if end <= limit:
            yield at + 1, end, (Capture(slot, value, position, end), trail), words, begun


def _glued(program: Program, at: int, source: Source, position: int) -> bool:
    """Whether the atom is the beginning of a name such as ``a.txt`` or ``to/b``, which the pattern does not mean."""
    sign = source.key(position + 1)

    if sign not in {".", "/", "\\", "@", "_"} or position + 2 >= len(source):
        return False

    glued = not source.atoms[position + 1].spaced and not source.atoms[position + 2].spaced
    return glued and source.atoms[position + 2].kind in {Kind.WORD, Kind.DIGITS} and program[at + 1] != Word(sign)


def _noise(source: Source, position: int, limit: int) -> int:
    """Give how many atoms of noise stand here, with something after them."""
    for words in _NOISE.get(source.atoms[position].key, ()) if position < limit else ():
        if position + len(words) < limit and source.starts_with(position, words):
            return len(words)

    return 0


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
