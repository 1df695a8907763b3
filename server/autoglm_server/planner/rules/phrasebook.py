"""The phrases of the tools that may be used, compiled once per tool and kept for as long as the tool stays the same."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from autoglm._dataclasses import dataclass
from autoglm.model import Effect, Phrase, Tool, Violation
from autoglm_server.planner.rules.grammar import (
    Choice,
    PhraseError,
    Sequence,
    Slot,
    Words,
    parse_answer,
    parse_pattern,
)
from autoglm_server.planner.rules.matcher import Program, compile_sequence
from autoglm_server.planner.rules.schemas import Properties, read_schema
from autoglm_server.planner.rules.source import chinese, words_of

_PHRASES_MAX = 100
"""How many phrases of one tool are used."""
IMPLICIT = "it"
"""In a fixed argument, when there is no slot of this name: the step before."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompiledPhrase:
    """A phrase, ready to be matched.

    ``required`` are groups of fixed words, of each of which it needs one; ``words`` all it may have. ``implicit`` tells that a
    fixed argument is of the step before (``{it}``), ``followed`` which slots must be back references (``{value.unit}``).
    ``bare`` tells that it names an action alone, whose whole object is the step before: *then reverse*.
    """

    tool: str
    phrase: Phrase
    sequence: Sequence
    program: Program
    fixed: tuple[tuple[str, Sequence], ...]
    answer: Sequence
    required: tuple[frozenset[str], ...]
    words: frozenset[str]
    readable: str
    chinese: bool
    implicit: bool
    followed: frozenset[str]
    bare: bool

    def may_fit(self, words: Collection[str]) -> bool:
        """Whether what it needs is among ``words``; cheap, and asked before it is matched."""
        return not any(group.isdisjoint(words) for group in self.required)


@dataclass(frozen=True, slots=True)
class KnownTool:
    """What the planner knows of a tool."""

    name: str
    title: str
    input: Properties
    output: Properties
    changes: bool
    phrases: tuple[CompiledPhrase, ...]


def know(tool: Tool) -> KnownTool:
    """Compile a tool's phrases; one that breaks the grammar is left out, with a line in the log."""
    return _know(
        tool.name, tool.title, tool.input_schema, tool.output_schema, tool.effect is not Effect.READ_ONLY, tool.phrases
    )


def check_phrases(tool: Tool) -> list[Violation]:
    """Give every fault of a tool's phrases, for whoever declares tools."""
    violations: list[Violation] = []
    properties = read_schema(tool.input_schema)

    for index, phrase in enumerate(tool.phrases):
        try:
            _compile(tool.name, phrase, properties)
        except PhraseError as error:
            violations.append(Violation(f"phrases[{index}]", f"«{phrase.pattern[:100]}» {error}", "INVALID_PHRASE"))

    return violations


@lru_cache(maxsize=4096)
def _know(
    name: str,
    title: str,
    input_schema: str,
    output_schema: str,
    changes: bool,  # noqa: FBT001 # lru_cache takes keywords apart
    phrases: tuple[Phrase, ...],
) -> KnownTool:
    properties = read_schema(input_schema)
    compiled: list[CompiledPhrase] = []

    for phrase in phrases[:_PHRASES_MAX]:
        try:
            compiled.append(_compile(name, phrase, properties))
        except PhraseError as error:
            _logger.warning("tool %s: its phrase %r %s; it is not used", name, phrase.pattern[:100], error)

    return KnownTool(name, title, properties, read_schema(output_schema), changes, tuple(compiled))


def _compile(tool: str, phrase: Phrase, properties: Properties) -> CompiledPhrase:
    pattern = parse_pattern(phrase.pattern)
    answer = parse_answer(phrase.answer)
    slots = pattern.slots
    templates = [slot for _, template in pattern.fixed for slot in template if isinstance(slot, Slot)]
    templated = {slot.name for slot in templates}

    for name in templated - slots.keys() - {IMPLICIT}:
        raise PhraseError(f"has a fixed argument with {{{name}}}, which is no slot of the pattern")

    for name in (*(name for name, _ in pattern.fixed), *(slots.keys() - templated)):
        if properties.named and name not in properties.named:
            raise PhraseError(f"has {{{name}}}, which is no argument of {tool}; it has {', '.join(properties.named)}")

    sequence = _typed(pattern.sequence, properties)
    return CompiledPhrase(
        tool,
        phrase,
        sequence,
        compile_sequence(sequence),
        pattern.fixed,
        answer,
        tuple(dict.fromkeys(_required(sequence))),
        _all_words(sequence),
        readable(pattern.sequence),
        chinese(phrase.pattern) or phrase.language.startswith("zh"),
        IMPLICIT in templated - slots.keys(),
        frozenset(slot.name for slot in templates if slot.path),
        IMPLICIT in templated - slots.keys()
        and all(slot.kind == "choice" for slot in slots.values())
        and any(len(template) == 1 and _is_it(template[0]) for _, template in pattern.fixed),
    )


def _is_it(node: Words | Slot | Choice) -> bool:
    return isinstance(node, Slot) and node.name == IMPLICIT and not node.path


def _typed(sequence: Sequence, properties: Properties) -> Sequence:
    """Give every slot the type it names, or that of its argument."""
    typed: list[Words | Slot | Choice] = []

    for node in sequence:
        match node:
            case Slot(kind=""):
                shape = properties.named.get(node.name)
                typed.append(replace(node, kind=shape.slot_kind if shape else "text"))
            case Choice():
                typed.append(replace(node, branches=tuple(_typed(branch, properties) for branch in node.branches)))
            case _:
                typed.append(node)

    return tuple(typed)


def _required(sequence: Sequence) -> Iterator[frozenset[str]]:
    """Give groups of fixed words: of each, one must be there, or the phrase cannot fit."""
    for node in sequence:
        match node:
            case Words(text):
                yield from (frozenset({word}) for word in words_of(text))
            case Choice(branches=branches, optional=False):
                groups = [next(_required(branch), None) for branch in branches]

                if all(groups):
                    yield frozenset().union(*(group for group in groups if group))
            case _:
                pass


def _all_words(sequence: Sequence) -> frozenset[str]:
    words: set[str] = set()

    for node in sequence:
        match node:
            case Words(text):
                words.update(words_of(text))
            case Slot(choices=choices):
                words.update(word for choice in choices for word in words_of(choice))
            case Choice(branches=branches):
                words.update(*(_all_words(branch) for branch in branches))

    return frozenset(words)


def readable(sequence: Sequence) -> str:
    """Give a pattern as a person would write it: the first of each choice, what is optional only if no other words are there.

    What must stand between quotes does so.
    """
    bare = all(
        isinstance(node, Slot)
        or (isinstance(node, Choice) and node.optional)
        or (isinstance(node, Words) and not node.text.strip())
        for node in sequence
    )
    return _readable(sequence, optional=bare)


def _readable(sequence: Iterable[Words | Slot | Choice], *, optional: bool) -> str:
    told = ""

    for node in sequence:
        match node:
            case Words(text):
                told += text
            case Slot(name=name, choices=choices, kind=kind):
                slot = f"<{'|'.join(choices[:3]) + ('|…' if len(choices) > 3 else '') or name.replace('_', ' ')}>"
                told += f'"{slot}"' if kind in {"quoted", "texts"} else slot
            case Choice(branches=branches) if optional or not node.optional:
                told += _readable(branches[0], optional=optional)
            case _:
                pass

    return " ".join(told.split())
