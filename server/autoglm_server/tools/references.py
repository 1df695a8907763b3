"""References: how a step's arguments take the outputs of other steps.

In any string of the arguments, ``${id}`` stands for the output of step ``id``, and ``${id.path}`` or ``${id[…]}`` for
the part of it that a JMESPath expression gives. When the reference is the whole string, the value keeps its type;
inside a longer string it is written out, and null is a fault. ``$${`` is a literal ``${``. Everything is read once,
when a step is added: what an output contains is never read as a reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from autoglm._dataclasses import dataclass
from autoglm.errors import InvalidRequestError
from autoglm.model import DOMAIN, ErrorReason, Failure, Json, JsonObject, Violation
from autoglm.wire import DEPTH_MAX, INTEGER_MAX, canonical_json
from autoglm_server.tools.expressions import Expression, ExpressionError, compile_expression
from autoglm_server.tools.fields import member, place
from autoglm_server.tools.tool import ToolCallError

REFERENCES_MAX: Final = 1000
"""How many strings with references one step's arguments may hold."""
RESOLVED_MAX: Final = 256 * 1024
"""How many characters resolved arguments may have, keys and values together."""

_MEMBER = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)(?![A-Za-z0-9_(])")
SECRET: Final = re.compile(r"secret://([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})")
"""A reference to a secret, which the arguments themselves must write: an output never makes one."""

_REFERS = re.compile(r"\$+\{")
_STEP_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in the arguments: keys and indexes from the outside in."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One ``${…}``: the step it names, how to take its part of the output, and its text for messages."""

    step_id: str
    select: Expression
    text: str

    @property
    def member(self) -> str:
        """The member of the output that it goes into first, if that can be told from its text."""
        name = _MEMBER.match(self.text, len(self.step_id) + 2)
        return name[1] if name is not None else ""


TimesRead: TypeAlias = Callable[[JsonObject, Path], int | None]
"""Says of a place in arguments how often what stands there is read for references once more; None: no output may go there."""


@dataclass(frozen=True, slots=True)
class _Template:
    """A string with references: literal text and references, in turn. ``field`` is for messages."""

    parts: tuple[str | Reference, ...]
    field: str
    path: Path


class _Problem(Exception):  # noqa: N818  # never leaves this module
    """A string's references cannot be read; the argument is the description."""


class References:
    """The arguments of one step, read: which steps they need, and how to fill them in."""

    __slots__ = ("_compiled", "as_written", "field", "found", "paths")

    def __init__(
        self,
        compiled: JsonObject,
        field: str,
        paths: tuple[Path, ...],
        found: tuple[tuple[str, Reference], ...],
    ) -> None:
        """Keep what :func:`compile_references` read."""
        self._compiled = compiled
        self.field = field
        """What the arguments are called in violations."""
        self.paths = paths
        """Where references stand."""
        self.found = found
        """Every reference, and what the place it stands at is called in violations."""
        self.as_written = False
        """Whether they were found right, and small, as they are written: there is nothing in them that is filled in."""

    def resolve(self, output_of: Callable[[str], Json], *, times_read: TimesRead | None = None) -> JsonObject:
        """Give the arguments with every reference filled in; they share nothing with the outputs.

        Where ``times_read`` says that references are read again, what is filled in is escaped as often.

        Raises:
            ToolCallError: INVALID_ARGUMENTS, with every reference that could not be filled in.
        """
        if not self.paths:
            return {key: _copied(value) for key, value in self._compiled.items()}

        violations: list[Violation] = []
        times = (lambda path: times_read(self._compiled, path)) if times_read is not None else _never
        try:
            resolved: JsonObject = _fill(self._compiled, _Outputs(output_of, violations, times), _Room(RESOLVED_MAX))
        except _TooLargeError:
            told = f"the resolved arguments have more than {RESOLVED_MAX} characters; refer to less of an output"
            violations = [Violation(self.field, told, "TOO_LARGE")]
            resolved = {}

        violations = violations or [
            Violation(
                place(self.field, path), "an output cannot name a secret; write it in the arguments", "SECRET_REFUSED"
            )
            for path in self.paths
            if _names_secret(_at(resolved, path))
        ]
        if violations:
            raise ToolCallError(invalid_arguments(violations))

        return resolved


def compile_references(arguments: JsonObject | None, field: str, *, text: str = "${") -> References:
    """Read the references of a step's arguments; ``field`` is what violations call them, as ``steps[3].arguments``.

    Where it is known, ``text`` is their JSON: if that refers to nothing, neither do they, and they are not looked through.

    Raises:
        InvalidRequestError: with every reference that cannot be read.
    """
    if "${" not in text:
        return References(arguments if arguments is not None else {}, "arguments", (), ())

    reader = _Reader()
    compiled = reader.read(arguments or {}, (), field)
    if len(reader.paths) > REFERENCES_MAX:
        told = f"more than {REFERENCES_MAX} strings with references; split the step"
        reader.violations.append(Violation(field, told, "TOO_MANY"))

    if reader.violations:
        raise InvalidRequestError.of(reader.violations)

    return References(compiled, field, tuple(reader.paths), tuple(reader.found))


def _never(_path: Path) -> int:
    return 0


def escape(value: Json) -> Json:
    """Give ``value`` written so that it stands for itself: every ``${`` in its strings becomes ``$${``.

    For who writes arguments from text that is not his own, such as a planner.
    """
    if isinstance(value, str):
        return value.replace("${", "$${")

    if isinstance(value, dict):
        return {key: escape(one) for key, one in value.items()}

    if isinstance(value, list):
        return [escape(one) for one in value]

    return value


def without_references(arguments: JsonObject) -> tuple[JsonObject, tuple[Path, ...]]:
    """Give the arguments with ``$${`` read, and where the strings stand that have references, readable or not."""
    reader = _Reader()
    compiled = reader.read(arguments, (), "")
    return _show(compiled), tuple(reader.paths)


def invalid_arguments(violations: list[Violation]) -> Failure:
    """Give the failure of a call whose arguments are wrong; never retried."""
    told = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:5])
    more = f"; and {len(violations) - 5} more" if len(violations) > 5 else ""
    return Failure(ErrorReason.INVALID_ARGUMENTS.name, DOMAIN, told + more, violations=tuple(violations))


class _Reader:
    """Reads arguments once, and gathers what was found on the way."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.found: list[tuple[str, Reference]] = []
        self.violations: list[Violation] = []

    def read(self, value: Json, path: Path, field: str) -> Json:
        """Give ``value`` with its strings compiled where they hold references."""
        if len(path) >= DEPTH_MAX:
            self.violations.append(Violation(field, f"nested more than {DEPTH_MAX} deep", "TOO_DEEP"))
            return None

        if isinstance(value, str):
            return self._text(value, path, field) if "${" in value else value

        if isinstance(value, dict):
            return {key: self.read(one, (*path, key), member(field, key)) for key, one in value.items()}

        if isinstance(value, list):
            return [self.read(one, (*path, index), member(field, index)) for index, one in enumerate(value)]

        return value

    def _text(self, text: str, path: Path, field: str) -> Json:
        try:
            parts = tuple(_parts(text))
        except _Problem as problem:
            self.paths.append(path)
            self.violations.append(Violation(field, str(problem), "INVALID_REFERENCE"))
            return text

        if all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))

        self.paths.append(path)
        self.found += [(field, part) for part in parts if isinstance(part, Reference)]
        return _Template(parts, field, path)


def _parts(text: str) -> Iterator[str | Reference]:
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            yield text[at : start - 1] + "${"
            at = start + 2
            continue

        if start > at:
            yield text[at:start]

        at = _end(text, start) + 1
        yield _reference(text[start:at])

    if at < len(text):
        yield text[at:]


def _reference(text: str) -> Reference:
    name = _STEP_ID.match(text, 2)
    if name is None:
        raise _Problem(f"{_shown(text)} names no step; write ${{step}}, ${{step.path}}, or $${{ for a literal ${{")

    rest = text[name.end() : -1]
    if not rest:
        return Reference(name[0], lambda output: output, text)

    if rest[0] not in ".[":
        raise _Problem(
            f"{_shown(text)}: after the step {name[0]!r} comes {rest[0]!r}; write a path as .name or [0], "
            "or $${ for a literal ${",
        )

    try:
        return Reference(name[0], compile_expression(rest.removeprefix(".")), text)
    except ExpressionError as error:
        raise _Problem(f"{_shown(text)}: the path {_shown(rest)} cannot be used: {error}") from None


def _end(text: str, start: int) -> int:
    """Give where the brace is that closes the reference at ``start``: braces nest, and do not count in quotes."""
    depth = 0
    at = start + 1
    while at < len(text):
        character = text[at]
        if character in "'\"`" and depth:
            at = _quoted(text, at)
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return at

        at += 1

    raise _Problem(f"{_shown(text[start:])} has no closing brace; write $${{ for a literal ${{")


def _quoted(text: str, start: int) -> int:
    at = start + 1
    while at < len(text) and text[at] != text[start]:
        at += 2 if text[at] == "\\" else 1

    return at


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


class _TooLargeError(Exception):
    """The resolved arguments are larger than they may be."""


class _Room:
    """How many characters may still be written; an output that is large, or shared many times over, ends it early."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, characters: int) -> None:
        """Use up ``characters``."""
        self.left -= characters
        if self.left < 0:
            raise _TooLargeError


class _Outputs:
    """The outputs of steps, each asked for once; faults are gathered with the field they are at."""

    def __init__(
        self,
        output_of: Callable[[str], Json],
        violations: list[Violation],
        times_read: Callable[[Path], int | None],
    ) -> None:
        self._output_of = output_of
        self._times_read = times_read
        self._known: dict[str, Json] = {}
        self._violations = violations

    def select(self, reference: Reference, field: str) -> Json:
        """Give what a reference stands for; null, and a violation, when its expression does not fit the output."""
        step_id = reference.step_id
        if step_id not in self._known:
            self._known[step_id] = self._output_of(step_id)

        try:
            return reference.select(self._known[step_id])
        except ExpressionError as error:
            self.fault(field, f"{_shown(reference.text)} does not fit the output of step {step_id!r}: {error}")
            return None

    def times_read(self, template: _Template) -> int:
        """Give how often what a template comes to is read once more; notes a fault where no output may go."""
        times = self._times_read(template.path)
        if times is None:
            self.fault(
                template.field, "an output cannot make steps, nor choose their tools; write them in the arguments"
            )

        return times or 0

    def fault(self, field: str, description: str) -> None:
        """Note that the reference at ``field`` cannot be filled in."""
        self._violations.append(Violation(field, description, "UNRESOLVED_REFERENCE"))


def _copied(value: Json) -> Json:
    """Give a copy: a function may change what it is given, and the step's own arguments must stay."""
    if type(value) is dict:
        return {key: _copied(one) for key, one in value.items()}

    return [_copied(one) for one in value] if type(value) is list else value


def _fill(value: Json, outputs: _Outputs, room: _Room) -> Json:
    if isinstance(value, _Template):
        if len(value.parts) == 1:
            found = outputs.select(_only(value), value.field)
            for _ in range(outputs.times_read(value)):
                found = escape(found)

            return _fill(found, outputs, room)

        return _interpolated(value, outputs, room)

    if isinstance(value, str):
        room.take(len(value))
        return value

    room.take(1)
    if isinstance(value, dict):
        room.take(sum(map(len, value)))
        return {key: _fill(one, outputs, room) for key, one in value.items()}

    if isinstance(value, list):
        room.take(len(value))
        return [_fill(one, outputs, room) for one in value]

    # JMESPath counts in floats where the wire has integers.
    if isinstance(value, float) and value.is_integer() and abs(value) <= INTEGER_MAX:
        return int(value)

    return value


def _at(value: Json, path: Path) -> Json:
    for key in path:
        value = value[key]

    return value


def _names_secret(value: Json) -> bool:
    if isinstance(value, str):
        return SECRET.fullmatch(value) is not None

    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_names_secret, inner))


def _only(template: _Template) -> Reference:
    part = template.parts[0]
    assert isinstance(part, Reference)
    return part


def _interpolated(template: _Template, outputs: _Outputs, room: _Room) -> str:
    written: list[str] = []
    times = outputs.times_read(template)
    end = ""
    for part in template.parts:
        text = part if isinstance(part, str) else _written(part, template.field, outputs, room)
        if times:
            if end == "$" and isinstance(part, str) and _REFERS.match(part):
                told = "what stands before a reference of the sub-plan ends with $, which would make it plain text"
                outputs.fault(template.field, told)

            text = _inert(text, end, times, is_output=not isinstance(part, str))

        room.take(len(text))
        written.append(text)
        end = text[-1:] or end

    return "".join(written)


def _inert(text: str, end: str, times: int, *, is_output: bool) -> str:
    """Give the next piece of a text that is read again, so that no output makes a reference, alone or with its neighbour."""
    for _ in range(times if is_output else 0):
        text = text.replace("${", "$${")

    # A literal piece never ends with $ before one that begins with {, so an output is one of the two.
    return f"{'$' * times}{text}" if end == "$" and text.startswith("{") else text


def _written(reference: Reference, field: str, outputs: _Outputs, room: _Room) -> str:
    value = outputs.select(reference, field)
    if value is None:
        outputs.fault(field, f"{_shown(reference.text)} is null, which cannot be a part of a text; refer to it alone")
        return ""

    if isinstance(value, str):
        return value

    # The copy is bounded, so that what is written out is, too.
    plain = _fill(value, outputs, _Room(room.left))
    try:
        return canonical_json(plain)
    except ValueError as error:
        outputs.fault(field, f"{_shown(reference.text)} cannot be written as JSON: {error}")
        return ""


def _show(value: Json) -> Json:
    if isinstance(value, _Template):
        return "".join(part if isinstance(part, str) else part.text for part in value.parts)

    if isinstance(value, dict):
        return {key: _show(one) for key, one in value.items()}

    if isinstance(value, list):
        return [_show(one) for one in value]

    return value
