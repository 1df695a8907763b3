"""The grammar of patterns and answers: text with slots, ``[optional]`` parts and ``(a|b)`` choices. See docs/phrases.md."""

from __future__ import annotations

import re
from typing import TypeAlias

from autoglm._dataclasses import dataclass
from autoglm_server.planner.rules.slots import TYPES

PATTERN_MAX = 500
"""How many characters a pattern may have."""
SLOTS_MAX = 20
"""How many slots a pattern may have."""
DEPTH_MAX = 8
"""How deep choices may be nested."""
ANSWER_MAX = 2000
"""How many characters an answer template may have."""

_TOKEN = re.compile(r"\\(.)|=>|[{}\[\]()|]|[^\\{}\[\]()|=]+|=", re.DOTALL)
_SLOT_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*", re.ASCII)


class PhraseError(ValueError):
    """A pattern or an answer that breaks the grammar; the message says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Words:
    """Fixed text."""

    text: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value. ``path`` is what follows the name (``{value.unit}``); ``kind`` is empty where none was written."""

    name: str
    kind: str = ""
    choices: tuple[str, ...] = ()
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these sequences, or nothing where it is ``optional``."""

    branches: tuple[Sequence, ...]
    optional: bool


Node: TypeAlias = "Words | Slot | Choice"
Sequence: TypeAlias = "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern as parsed: what to read, and the templates of its fixed arguments by name."""

    sequence: Sequence
    fixed: tuple[tuple[str, Sequence], ...]

    @property
    def slots(self) -> dict[str, Slot]:
        """Its slots by name; a name in several branches stands once."""
        return {slot.name: slot for slot in slots_of(self.sequence)}


def parse_pattern(text: str) -> Pattern:
    """Parse a pattern.

    Raises:
        PhraseError: it breaks the grammar or a bound.
    """
    if len(text) > PATTERN_MAX:
        raise PhraseError(f"has {len(text)} characters; at most {PATTERN_MAX} are allowed")

    parser = _Parser(text, choices=True)
    sequence = parser.sequence(0)
    fixed = parser.fixed()

    if len(slots_of(sequence)) > SLOTS_MAX:
        raise PhraseError(f"has {len(slots_of(sequence))} slots; at most {SLOTS_MAX} are allowed")

    if not sequence:
        raise PhraseError("is empty; write the words a request has")

    return Pattern(sequence, fixed)


def parse_answer(text: str) -> Sequence:
    """Parse an answer: text, ``{slot}``, ``{output.path}``, and ``[parts]`` left out when something in them is not there.

    Raises:
        PhraseError: it breaks the grammar or a bound.
    """
    if len(text) > ANSWER_MAX:
        raise PhraseError(f"has {len(text)} characters; at most {ANSWER_MAX} are allowed")

    parser = _Parser(text, choices=False)
    sequence = parser.sequence(0)
    parser.end()
    return sequence


def slots_of(sequence: Sequence) -> list[Slot]:
    """Give the slots of a sequence and of the choices in it."""
    found: list[Slot] = []

    for node in sequence:
        if isinstance(node, Slot):
            found.append(node)
        elif isinstance(node, Choice):
            found += [slot for branch in node.branches for slot in slots_of(branch)]

    return found


class _Parser:
    """Recursive descent over the signs of a pattern. In answers, parentheses and bars are text."""

    def __init__(self, text: str, *, choices: bool) -> None:
        self._tokens = [found.group() for found in _TOKEN.finditer(text)]
        self._position = 0
        self._special = frozenset("{}[]()|") | {"=>"} if choices else frozenset("{}[]")
        self._choices = choices

        if "".join(self._tokens) != text:
            raise PhraseError(r"ends with a \ that escapes nothing; write \\ for the sign itself")

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _take(self) -> str:
        sign = self._peek()
        self._position += 1
        return sign

    def sequence(self, depth: int) -> Sequence:
        if depth > DEPTH_MAX:
            raise PhraseError(f"nests deeper than {DEPTH_MAX}")

        nodes: list[Node] = []

        while (sign := self._peek()) and not (sign in self._special and sign in {"]", ")", "|", "=>"}):
            self._position += 1

            if sign not in self._special:
                _add(nodes, sign[1:] if sign.startswith("\\") and len(sign) == 2 else sign)
            elif sign == "{":
                nodes.append(self._slot())
            elif sign == "}":
                raise PhraseError(r"has a } without {; write \} for the sign itself")
            else:
                nodes.append(self._choice(sign, depth))

        return tuple(nodes)

    def _choice(self, opening: str, depth: int) -> Choice:
        closing = "]" if opening == "[" else ")"
        branches = [self.sequence(depth + 1)]

        while self._choices and self._peek() == "|":
            self._position += 1
            branches.append(self.sequence(depth + 1))

        if self._take() != closing:
            raise PhraseError(f"has a {opening} that is not closed by {closing}; write \\{opening} for the sign itself")

        return Choice(tuple(branches), optional=opening == "[")

    def _slot(self) -> Slot:
        inside = ""

        while (sign := self._take()) != "}":
            if not sign or sign == "{":
                raise PhraseError("has a { that is not closed by }; a slot is {name} or {name:type}")

            inside += sign

        name, _, kind = (part.strip() for part in inside.partition(":"))

        if not _SLOT_NAME.fullmatch(name):
            raise PhraseError(f"has a slot named «{name}»; a name is letters, digits and _")

        first, *path = name.split(".")

        if "|" in kind:
            choices = tuple(choice.strip() for choice in kind.split("|") if choice.strip())
            return Slot(first, "choice", choices, tuple(path))

        if kind and kind not in TYPES:
            raise PhraseError(
                f"has a slot of type «{kind}»; the types are {', '.join(TYPES)}, or words to choose from: a|b"
            )

        return Slot(first, kind, (), tuple(path))

    def fixed(self) -> tuple[tuple[str, Sequence], ...]:
        """Parse what follows ``=>``; the bars and brackets in it are text."""
        if self._position >= len(self._tokens):
            return ()

        if self._take() != "=>":
            raise PhraseError(
                f"has a {self._tokens[self._position - 1]} that nothing opened; write it with a \\ before it"
            )

        fixed: list[tuple[str, Sequence]] = []
        name, nodes, named = "", list[Node](), False

        def close() -> None:
            if not re.fullmatch(r"[A-Za-z_]\w*", name.strip(), re.ASCII) or not named:
                raise PhraseError(f"has «{name.strip()}» after =>; a fixed argument is name=value")

            fixed.append((name.strip(), _trimmed(nodes)))

        while sign := self._take():
            if sign == "{" and named and not self._json_ahead():
                nodes.append(self._slot())
                continue

            text, plain = (sign[1:], False) if sign.startswith("\\") and len(sign) == 2 else (sign, True)

            while plain and ";" in text and named:
                before, _, text = text.partition(";")
                _add(nodes, before)
                close()
                name, nodes, named = "", [], False

            if not named and "=" in text and plain:
                more, _, text = text.partition("=")
                name, named = name + more, True
            elif not named:
                name, text = name + text, ""

            _add(nodes, text)

        if name.strip() or named:
            close()

        return tuple(fixed)

    def _json_ahead(self) -> bool:
        return not _SLOT_NAME.match(self._peek().strip())

    def end(self) -> None:
        if self._position < len(self._tokens):
            raise PhraseError(f"has a {self._peek()} that nothing opened; write \\{self._peek()} for the sign itself")


def _add(nodes: list[Node], text: str) -> None:
    if not text:
        return

    if nodes and isinstance(nodes[-1], Words):
        nodes[-1] = Words(nodes[-1].text + text)
    else:
        nodes.append(Words(text))


def _trimmed(nodes: list[Node]) -> Sequence:
    if nodes and isinstance(nodes[0], Words):
        nodes[0] = Words(nodes[0].text.lstrip())

    if nodes and isinstance(nodes[-1], Words):
        nodes[-1] = Words(nodes[-1].text.rstrip())

    return tuple(node for node in nodes if node != Words(""))
