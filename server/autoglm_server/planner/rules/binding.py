"""Clauses that were read become steps: references bound, arguments fitted, order kept where something changes."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from autoglm._dataclasses import dataclass
from autoglm.model import Json, JsonObject, Step, StepDraft, StepState
from autoglm_server.planner.rules import grammar
from autoglm_server.planner.rules.backrefs import BackReference, read_back_reference
from autoglm_server.planner.rules.grammar import Slot, Words
from autoglm_server.planner.rules.numerals import Number
from autoglm_server.planner.rules.phrasebook import IMPLICIT, CompiledPhrase, KnownTool
from autoglm_server.planner.rules.reading import Clause
from autoglm_server.planner.rules.schemas import MisfitError, Properties, Shape, escape, fit
from autoglm_server.planner.rules.slots import Data, Expression, Numbers, Value, Written
from autoglm_server.planner.rules.source import Source
from autoglm_server.planner.rules.templates import fill_json, is_json

_TITLE_MAX = 120
_REFERENCE_MAX = 60
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class BindingError(ValueError):
    """A clause was read, but cannot become a step; the message is a sentence in the request's language."""


@dataclass(frozen=True, slots=True)
class OutputPart:
    """A part of a step's output: what a back reference means."""

    step_id: str
    path: tuple[str, ...]


Shown: TypeAlias = "tuple[str | OutputPart, ...]"
"""A value as the answer tells it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A clause and its step, with the clause's values by slot."""

    clause: Clause
    phrase: CompiledPhrase
    draft: StepDraft
    values: Mapping[str, Shown]
    output: Properties

    @property
    def needs(self) -> frozenset[str]:
        """The steps it waits for, by reference or for the order's sake."""
        return frozenset(self.draft.depends_on) | {part.step_id for part in self.referred}

    @property
    def referred(self) -> Iterator[OutputPart]:
        """The outputs that its values refer to."""
        return (part for shown in self.values.values() for part in shown if isinstance(part, OutputPart))


@dataclass(frozen=True, slots=True)
class _Target:
    """A step that may be referred to."""

    step_id: str
    output: Properties


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The steps before a clause: all of them, and those that no clause refers to yet."""

    all: tuple[_Target, ...]
    unused: tuple[_Target, ...]


class Binder:
    """Makes the steps of one request."""

    def __init__(self, tools: Mapping[str, KnownTool], given: Sequence[Step], *, chinese: bool) -> None:
        """Bind to ``tools``. ``given`` are the steps of the caller's own, of which the last that succeeded may be *it*."""
        self._tools = tools
        self._chinese = chinese
        self._taken = frozenset(step.id for step in given)
        done = [step for step in given if step.state is StepState.SUCCEEDED]
        self._given = [_Target(step.id, self._output(step.tool)) for step in done]

    def _output(self, tool: str) -> Properties:
        return self._tools[tool].output if tool in self._tools else Properties(Shape())

    def bind(self, clauses: Sequence[Clause]) -> tuple[list[Bound], dict[int, str]]:
        """Give the steps, in the order of the clauses, and for clauses that cannot be bound, by number, why."""
        ids = self._ids(len(clauses))
        targets: list[_Target] = []
        bound: list[Bound] = []
        problems: dict[int, str] = {}

        for index, clause in enumerate(clauses):
            targets.append(_Target(ids[index], self._output(clause.phrase.tool if clause.phrase else "")))

            scope = targets if clause.like is None else [*targets[: clause.like], targets[-1]]

            try:
                self._check_object(clauses, index)
                one = self._best(clause, scope, bound)
            except BindingError as error:
                problems[index] = str(error)
                continue

            if one is not None:
                bound.append(one)
                targets[-1] = _Target(ids[index], one.output)

        return bound, problems

    def _check_object(self, clauses: Sequence[Clause], index: int) -> None:
        """Check that what an action without an object is about can be one thing only: the result before it.

        Raises:
            BindingError: it may as well be what stands after it (*uppercase and reverse "a"*), what the clause before is about
                (*to uppercase and lowercase*), or one of several results.
        """
        clause = clauses[index]

        if clause.phrase is None or not clause.phrase.bare or not index:
            return

        before = clauses[index - 1]
        after = clauses[index + 1] if index + 1 < len(clauses) else None
        together = before.stage == clause.stage

        if after and after.phrase and after.stage == clause.stage and _object_of(after, clause.phrase):
            raise self._unclear(after.text)

        if together and before.phrase and before.phrase.tool == clause.phrase.tool:
            raise self._unclear(before.text)

        if index > 1 and _alike(clauses[index - 2], before):
            raise self._unclear(clauses[index - 2].text)

    def _unclear(self, other: str) -> BindingError:
        told = _cut(other, _REFERENCE_MAX)
        return BindingError(self._say(
            f"it leaves open whether it is about the result before it or goes with «{told}»; say what it is about.",
            f"没有说明对象：可能是前面的结果，也可能与“{told}”有关；请写明。",
        ))  # fmt: skip

    def _best(self, clause: Clause, targets: list[_Target], before: Sequence[Bound]) -> Bound | None:
        """Bind the reading whose references fit best: the fewest conversions between text and number, then the first.

        Raises:
            BindingError: none can be bound; of the first.
        """
        best: tuple[int, Bound] | None = None
        problem: BindingError | None = None

        for reading in clause.readings():
            if reading.phrase is None:
                return None

            try:
                one = self._bind(reading, reading.phrase, targets, before)
            except BindingError as error:
                problem = problem or error
                continue

            if best is None or one[0] < best[0]:
                best = one

        if best is None and problem is not None:
            raise problem

        return best[1] if best is not None else None

    def _ids(self, count: int) -> list[str]:
        """Give ids that no step of the caller's own has: step1, step2 and so on."""
        prefix, attempt = "step", 1

        while any(f"{prefix}{number}" in self._taken for number in range(1, count + 1)):
            attempt += 1
            prefix = f"part{attempt}_step"

        return [f"{prefix}{number}" for number in range(1, count + 1)]

    def _bind(
        self, clause: Clause, phrase: CompiledPhrase, targets: list[_Target], before: Sequence[Bound]
    ) -> tuple[int, Bound]:
        """Give how many references had to be converted, and the step."""
        tool = self._tools[phrase.tool]
        step = _Arguments(
            self,
            phrase,
            {capture.slot.name: _resolved(capture.value, capture.slot) for capture in clause.captures},
            {capture.slot.name: capture.slot.kind for capture in clause.captures},
            _Earlier(tuple(targets[:-1]), self._unused(targets[:-1], before)),
        )
        draft = StepDraft(
            id=targets[-1].step_id,
            title=_cut(clause.text, _TITLE_MAX),
            tool=tool.name,
            arguments=step.arguments(tool.input.named),
            depends_on=tuple(_order(clause, tool, before, self._tools)),
        )
        return step.conversions, Bound(clause, phrase, draft, step.shown(), tool.output)

    def _unused(self, earlier: Sequence[_Target], before: Sequence[Bound]) -> tuple[_Target, ...]:
        """Give the steps whose output no clause refers to yet, or the caller's own where there is no clause."""
        ids = {target.step_id for target in earlier}
        used = {part.step_id for one in before if one.draft.id in ids for part in one.referred}
        return tuple(target for target in earlier if target.step_id not in used) or tuple(
            self._given if not earlier else earlier[-1:]
        )

    def find(self, reference: BackReference, steps: _Earlier) -> tuple[_Target, ...]:
        """Find the steps that a reference means: one, unless it speaks of several and there are several.

        Raises:
            BindingError: there is no such step, or not as many as the words say.
        """
        earlier = steps.all

        if reference.many and steps.unused:
            if reference.count not in {0, len(steps.unused)}:
                raise BindingError(self._say(
                    f"«{reference.words}» are {reference.count}, but {len(steps.unused)} results before it are not used yet.",
                    f"“{reference.words}”是 {reference.count} 个，但前面有 {len(steps.unused)} 个还没有用到的结果。",
                ))  # fmt: skip

            return steps.unused

        if reference.number > len(earlier):
            raise BindingError(self._say(
                f"«{reference.words}» refers to clause {reference.number}, which does not come before it.",
                f"“{reference.words}”指的是第 {reference.number} 个分句，它不在前面。",
            ))  # fmt: skip

        if reference.number:
            return (earlier[reference.number - 1],)

        if not earlier and not self._given:
            raise BindingError(self._say(
                f"«{reference.words or 'it'}» refers to nothing: no clause comes before it.",
                f"“{reference.words or '它'}”没有所指：前面没有别的分句。",
            ))  # fmt: skip

        return (earlier[-1] if earlier else self._given[-1],)

    def several(self, words: str, count: int) -> BindingError:
        """Give the error of a reference to several results where one is taken."""
        return BindingError(self._say(
            f"«{words}» means {count} results, and this takes one; say which: the first result, the result of step 2.",
            f"“{words}”指 {count} 个结果，而这里只能用一个；请写明：第一步的结果、第2步的结果。",
        ))  # fmt: skip

    def single(self, words: str) -> BindingError:
        """Give the error of a reference to one result where several are taken."""
        return BindingError(self._say(
            f"«{words or 'it'}» is one result, and this takes several; say «them» for all before it, or write them.",
            f"“{words or '它'}”是一个结果，而这里需要几个；用“它们”表示前面的所有结果，或者写明。",
        ))  # fmt: skip

    def no_object(self) -> BindingError:
        """Give the error of an action without an object after a result that cannot be its object."""
        return BindingError(self._say(
            "it leaves out what it is about, and the result before it is not one text or number; say what it is about.",
            "没有说明对象，而前面的结果不是一个文本或数；请写明。",
        ))  # fmt: skip

    def missing_field(self, words: str, field: str) -> BindingError:
        """Give the error of a phrase that needs a field which the step referred to has not."""
        return BindingError(self._say(
            f"«{words or 'it'}» has no {field} of its own; say which {field}.",
            f"“{words or '它'}”没有 {field}，请写明。",
        ))  # fmt: skip

    def misfit(self, name: str, error: MisfitError) -> BindingError:
        """Give the error of a value that the tool does not take."""
        return BindingError(self._say(f"the value of {name} {error}", f"{name} 的值不合适：{error}"))

    def _say(self, english: str, chinese: str) -> str:
        return chinese if self._chinese else english


class _Arguments:
    """The arguments of one step, from its values."""

    def __init__(
        self,
        binder: Binder,
        phrase: CompiledPhrase,
        values: Mapping[str, Value],
        kinds: Mapping[str, str],
        earlier: _Earlier,
    ) -> None:
        self._binder = binder
        self._phrase = phrase
        self._values = dict(values)
        self._kinds = kinds
        self._earlier = earlier
        self.conversions = 0
        """How many references were converted between text and number."""

        if phrase.implicit:
            self._values[IMPLICIT] = BackReference(0, "")

    def arguments(self, named: Mapping[str, Shape]) -> JsonObject:
        """Give them as the draft carries them."""
        fixed = dict(self._phrase.fixed)
        used = {slot.name for template in fixed.values() for slot in template if isinstance(slot, Slot)}
        given = {
            name: self._fitted(name, value, (), named.get(name, Shape()), self._kinds.get(name, ""))
            for name, value in self._values.items()
            if name not in fixed and (name in named or (not named and name not in used))
        }
        return given | {
            name: made
            for name, template in fixed.items()
            if (made := self._made(name, template, named.get(name, Shape()))) is not _ABSENT
        }

    def shown(self) -> dict[str, Shown]:
        """Give the values as the answer tells them: slots, and fixed arguments that are not slots."""
        told = {name: tuple(self._told(value, (), name)) for name, value in self._values.items()}

        for name, template in self._phrase.fixed:
            parts: list[str | OutputPart] = []

            for node in template:
                match node:
                    case Words(text):
                        parts.append(text)
                    case Slot(name=slot, path=path) if slot in self._values:
                        parts += self._told(self._values[slot], path, name)
                    case _:
                        pass

            told.setdefault(name, tuple(parts))

        return told

    def _made(self, name: str, template: grammar.Sequence, shape: Shape) -> Json:
        """Give a fixed argument: a constant, a slot's value, or text with slots in it."""
        slots = [node for node in template if isinstance(node, Slot)]

        if slots and not any(slot.name in self._values for slot in slots):
            return _ABSENT  # all of it stood in a part that was not there

        if len(template) == 1 and slots:
            return self._fitted(name, self._values[slots[0].name], slots[0].path, shape, self._kind(slots[0]))

        if not slots:
            return self._constant(name, "".join(node.text for node in template if isinstance(node, Words)), shape)

        if is_json(template):
            return self._json(name, template)

        return "".join(escape(node.text) if isinstance(node, Words) else self._text(node) for node in template)

    def _json(self, name: str, template: grammar.Sequence) -> Json:
        try:
            return fill_json(
                template,
                lambda slot: self._fitted(name, self._values[slot.name], slot.path, Shape(), self._kind(slot)),
                self._text,
            )
        except MisfitError as error:
            raise self._binder.misfit(name, error) from None

    def _text(self, node: grammar.Node) -> str:
        """Give a slot's value inside a longer text; nothing for a slot that was not there."""
        return (
            self._inside(self._values[node.name], node.path, self._kind(node))
            if isinstance(node, Slot) and node.name in self._values
            else ""
        )

    def _constant(self, name: str, text: str, shape: Shape) -> Json:
        try:
            value = json.loads(text)
        except ValueError:
            value = text

        try:
            return fit(Data(value, text) if not isinstance(value, str) else Written(value), shape)
        except MisfitError as error:
            raise self._binder.misfit(name, error) from None

    def _kind(self, slot: Slot) -> str:
        """Give the type of a slot in a fixed argument: the one written there, else that of the slot in the pattern."""
        return slot.kind or self._kinds.get(slot.name, "")

    def _fitted(self, name: str, value: Value, path: tuple[str, ...], shape: Shape, kind: str) -> Json:
        """Give a value as the whole of an argument."""
        try:
            match value:
                case BackReference() | Expression(parts=(BackReference(),)):
                    reference = value if isinstance(value, BackReference) else value.parts[0]
                    assert isinstance(reference, BackReference)
                    return self._whole(name, reference, path, shape, kind)
                case Expression():
                    return self._inside(value, (), kind)
                case _:
                    return fit(value, shape)
        except MisfitError as error:
            raise self._binder.misfit(name, error) from None

    def _whole(self, name: str, reference: BackReference, path: tuple[str, ...], shape: Shape, kind: str) -> Json:
        """Give what a reference means as the whole of an argument: one output, or a list of them."""
        found = self._binder.find(reference, self._earlier)
        listed = shape.listed or (kind in _LISTS and "string" not in shape.types)

        if len(found) > 1:
            if path or not (listed or (kind == "json" and not shape.textual and not shape.numeric)):
                raise self._binder.several(reference.words, len(found))

            return [self._reference(reference, target, (), Shape(shape.items), name) for target in found]

        if listed and not path and self._alone(found[0], name):
            raise self._binder.single(reference.words)

        if not reference.words and not path and not self._suits(found[0], name, shape, kind):
            raise self._binder.no_object()

        return self._reference(reference, found[0], path, shape, name)

    def _alone(self, target: _Target, name: str) -> bool:
        """Whether an output is known to be one value, and no list."""
        types = _shape_of(target, _primary(target, name)).types
        return bool(types) and "array" not in types

    def _suits(self, target: _Target, name: str, shape: Shape, kind: str) -> bool:
        """Whether an output may be what an action is about that names no object: text takes no part of a list, and no object."""
        part = _primary(target, name)
        types = _shape_of(target, part).types
        scalar = not types or not types.isdisjoint(_SCALAR) or not part
        mixed = bool(target.output.named) and not part
        return "string" not in shape.types or kind in _LISTS or (scalar and not mixed)

    def _inside(self, value: Value, path: tuple[str, ...], kind: str) -> str:
        """Give a value as it stands inside a longer text."""
        match value:
            case BackReference():
                return self._among(value, path, kind)
            case Expression(parts):
                return self._arithmetic(parts)
            case Number(written=written, value=number):
                return str(number) if written.endswith("%") else written
            case Numbers(numbers):
                return ", ".join(number.written for number in numbers)
            case Written(text) | Data(text=text):
                return str(escape(text))

    def _arithmetic(self, parts: Sequence[str | BackReference]) -> str:
        """Give arithmetic; what a reference stands for is one operand, or the operands of a function."""
        pieces: list[str] = []

        for index, part in enumerate(parts):
            if isinstance(part, str):
                pieces.append(part)
                continue

            before = parts[index - 1] if index else ""
            listed = isinstance(before, str) and (before == ", " or bool(_FUNCTION.search(before)))
            piece = self._among(part, (), "numbers" if listed and part.many else "expression")
            pieces.append(piece if len(parts) == 1 or (listed and part.many) else f"({piece})")

        return "".join(pieces)

    def _among(self, reference: BackReference, path: tuple[str, ...], kind: str) -> str:
        """Give what a reference means inside a longer text: several with commas between, where the slot takes several."""
        found = self._binder.find(reference, self._earlier)
        shape = _NUMBER if kind in _NUMERIC and not path else Shape()

        if len(found) > 1 and (kind not in _LISTS or path):
            raise self._binder.several(reference.words, len(found))

        if len(found) == 1 and kind in _LISTS and not path:
            if self._alone(found[0], ""):
                raise self._binder.single(reference.words)

            convert = "to_string(to_number(@))" if kind in _NUMERIC else "to_string(@)"
            part = _primary(found[0], "")
            return f"${{{found[0].step_id}.join(', ', map(&{convert}, {_selector(part) or '@'}))}}"

        return ", ".join(self._reference(reference, target, path, shape, "") for target in found)

    def _reference(
        self, reference: BackReference, target: _Target, path: tuple[str, ...], shape: Shape, name: str
    ) -> str:
        """Give the reference to a step's output, converted between text and number where the two schemas differ."""
        part = self._part(reference, target, path, name)
        kind = _shape_of(target, part.path)
        selected = _selector(part.path)

        if "string" in shape.types and kind.types and "string" not in kind.types:
            self.conversions += 1

            if not shape.takes(kind):
                selected = _as_text(selected or "@", kind)
        elif shape.numeric and kind.textual:
            selected = f"to_number({selected or '@'})"
            self.conversions += 1

        return f"${{{part.step_id}.{selected}}}" if selected else f"${{{part.step_id}}}"

    def _part(self, reference: BackReference, target: _Target, path: tuple[str, ...], name: str) -> OutputPart:
        if path and target.output.named and path[0] not in target.output.named:
            raise self._binder.missing_field(reference.words, path[0])

        return OutputPart(target.step_id, path or _primary(target, name))

    def _told(self, value: Value, path: tuple[str, ...], name: str) -> Iterator[str | OutputPart]:
        match value:
            case BackReference():
                for index, target in enumerate(self._binder.find(value, self._earlier)):
                    yield from (", ",) if index else ()
                    yield self._part(value, target, path, name)
            case Expression(parts):
                for part in parts:
                    yield from (part,) if isinstance(part, str) else self._told(part, (), name)
            case Number(written=written):
                yield written
            case Numbers(numbers):
                yield ", ".join(number.written for number in numbers)
            case Written(text) | Data(text=text):
                yield text


_LISTS = frozenset({"numbers", "texts"})
_NUMERIC = frozenset({"number", "integer", "numbers", "expression"})
_NUMBER = Shape(frozenset({"number"}))
_SCALAR = frozenset({"string", "number", "integer", "boolean"})
_FUNCTION = re.compile(r"[a-z0-9]\($")


def _primary(target: _Target, name: str) -> tuple[str, ...]:
    """Give the path of what a reference means: the primary output, else the property called as the argument is."""
    output = target.output
    return (output.primary,) if output.primary else (name,) if name in output.named else ()


def _shape_of(target: _Target, path: tuple[str, ...]) -> Shape:
    return target.output.named.get(path[0], Shape()) if path else target.output.whole


def _selector(path: tuple[str, ...]) -> str:
    return ".".join(name if _PLAIN_NAME.fullmatch(name) else json.dumps(name) for name in path)


def _as_text(selected: str, kind: Shape) -> str:
    return f"join(', ', map(&to_string(@), {selected}))" if kind.listed else f"to_string({selected})"


_ABSENT = object()


def _object_of(clause: Clause, action: CompiledPhrase) -> bool:
    """Whether a clause has an object of its own that an action of the same family of tools may share."""
    return _self_contained(clause) and clause.phrase is not None and _family(clause.phrase) == _family(action)


def _alike(one: Clause, other: Clause) -> bool:
    """Whether two clauses do the same kind of thing, side by side, each to an object of its own."""
    if one.phrase is None or other.phrase is None or one.stage != other.stage:
        return False

    return one.phrase.tool == other.phrase.tool and _self_contained(one) and _self_contained(other)


def _self_contained(clause: Clause) -> bool:
    implicit = clause.phrase is None or clause.phrase.implicit
    return not implicit and not any(isinstance(capture.value, BackReference) for capture in clause.captures)


def _family(phrase: CompiledPhrase) -> str:
    return phrase.tool.partition(".")[0]


def _resolved(value: Value, slot: Slot) -> Value:
    """Take a text that is a back reference and nothing else for one."""
    if slot.kind != "text" or not isinstance(value, Written) or value.quoted or len(value.text) > _REFERENCE_MAX:
        return value

    source = Source(value.text)
    return next((found for end, found in read_back_reference(source, 0) if end == len(source)), value)


def _order(clause: Clause, tool: KnownTool, before: Sequence[Bound], tools: Mapping[str, KnownTool]) -> Iterator[str]:
    """Give the steps that must end first although nothing of theirs is needed: see "Clauses" in docs/phrases.md."""
    paths = _paths(clause)

    for earlier in before:
        changes = tool.changes or tools[earlier.phrase.tool].changes
        later = clause.stage > earlier.clause.stage

        if changes and (later or not paths.isdisjoint(_paths(earlier.clause))):
            yield earlier.draft.id


def _paths(clause: Clause) -> frozenset[str]:
    return frozenset(
        posixpath.normpath(capture.value.text)
        for capture in clause.captures
        if capture.slot.kind in {"path", "file"} and isinstance(capture.value, Written)
    )


def _cut(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
