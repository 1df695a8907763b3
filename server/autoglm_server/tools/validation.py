"""JSON Schema checks: compiled once for each digest of a tool, and never reaching out of the process."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

import jsonschema_rs

from autoglm.model import Json, JsonObject, Violation
from autoglm.wire import INTEGER_MAX, parse_json
from autoglm_server.tools.fields import member, place
from autoglm_server.tools.references import Path, without_references

VIOLATIONS_MAX: Final = 50
"""How many faults of one value are told."""
_BRANCHES_TOLD: Final = 3
_MESSAGE_MAX: Final = 300
_VALUE_MAX: Final = 60

_DECIMAL = re.compile(r"-?[1-9][0-9]{15,4000}")
_BACKTRACK_MAX = 100_000
_PATTERN_BYTES_MAX = 1 << 20

# Whether these hold depends on all that is below the place they stand at: not known while a reference is there.
_WHOLE = frozenset({"anyOf", "oneOf", "not", "enum", "const", "contains", "minContains", "maxContains", "uniqueItems"})
_CONDITIONAL = frozenset({"if", "then", "else", "unevaluatedItems", "unevaluatedProperties"})


class SchemaError(ValueError):
    """A tool's schema cannot be used; the message is a sentence about it."""


class Schema:
    """A compiled JSON Schema."""

    def __init__(self, text: str, *, bytes_max: int) -> None:
        """Compile the JSON text of a schema.

        Raises:
            SchemaError: it is not JSON, not JSON Schema, too long, or refers to another document.
        """
        try:
            self.document: Json = parse_json(text, bytes_max=bytes_max)
            """The schema as it was written."""
            self._validator = jsonschema_rs.validator_for(
                self.document,
                retriever=refuse,
                pattern_options=jsonschema_rs.FancyRegexOptions(
                    backtrack_limit=_BACKTRACK_MAX,
                    size_limit=_PATTERN_BYTES_MAX,
                ),
            )
        except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
            # jsonschema-rs says where in the lines after the first, with all of the schema.
            raise SchemaError(_cut(str(error).split("\n")[0])) from None

    def fits(self, value: Json) -> bool:
        """Whether ``value`` is right as it is."""
        return self._validator.is_valid(value)

    def check(self, value: Json, field: str, *, left_open: Sequence[Path] = ()) -> list[Violation]:
        """Give every fault of ``value``, with the name of its place under ``field``.

        Values at the places ``left_open`` are not there yet: what depends on them is left out.
        """
        errors = [] if self._validator.is_valid(value) else self._validator.iter_errors(value)
        return _violations((error for error in errors if not _is_open(error, left_open)), field, self.document)

    def fit(self, value: Json, field: str, *, left_open: Sequence[Path] = ()) -> tuple[Json, list[Violation]]:
        """Give ``value`` widened, and every fault of it: :meth:`widened` and :meth:`check` in one."""
        if self._validator.is_valid(value):
            return value, []

        value = self.widened(value)
        return value, self.check(value, field, left_open=left_open)

    def check_written(self, arguments: JsonObject, field: str, *, left_open: Sequence[Path] = ()) -> list[Violation]:
        """Give every fault of arguments as written that no output can mend.

        Left out are errors at a string with references, and of what depends on a value that has one below it
        (``anyOf``, ``oneOf``, ``not``, ``if``, ``const`` and their like): these are checked when the arguments are
        resolved. The same holds for the places ``left_open``.
        """
        shown, references = without_references(arguments)
        references = (*references, *left_open)
        shown = self.widened(shown)
        if self._validator.is_valid(shown):
            return []

        errors = self._validator.iter_errors(shown)
        return _violations((error for error in errors if not _is_open(error, references)), field, self.document)

    def widened(self, value: Json) -> Json:
        """Give ``value`` with decimal strings as the integers they stand for, where the schema asks for one.

        An integer beyond ±(2^53-1) travels as such a string. The value is copied only where something changes.
        """
        if self._validator.is_valid(value):
            return value

        for error in self._validator.iter_errors(value):
            for path, text in _decimals(error):
                value = _with(value, path, int(text))

        return value


def refuse(uri: str) -> NoReturn:
    """Refuse to fetch another document: a schema comes from outside, and would choose whom this server talks to."""
    raise ValueError(f"it refers to {uri}; only references inside the schema itself are followed")


def _violations(errors: Iterable[jsonschema_rs.ValidationError], field: str, schema: Json) -> list[Violation]:
    found: dict[tuple[str, str], Violation] = {}
    for error in errors:
        for violation in _told(error, field, schema):
            found.setdefault((violation.field, violation.description), violation)

        if len(found) >= VIOLATIONS_MAX:
            break

    return list(found.values())


def _told(error: jsonschema_rs.ValidationError, field: str, schema: Json) -> Iterator[Violation]:
    where = place(field, error.instance_path)
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required():
            yield Violation(member(where, kind.property), "is required", "REQUIRED")

        case jsonschema_rs.ValidationErrorKind.AdditionalProperties():
            for name in kind.unexpected[:VIOLATIONS_MAX]:
                near = nearest(name, _properties(schema, error.schema_path))
                hint = f"did you mean {near[0]}?" if near else "leave it out"
                yield Violation(member(where, name), f"is not known; {hint}", "UNKNOWN_FIELD")

        case jsonschema_rs.ValidationErrorKind.AnyOf() | jsonschema_rs.ValidationErrorKind.OneOfNotValid():
            branches = [_cut(_message(branch[0])) for branch in kind.context[:_BRANCHES_TOLD] if branch]
            yield Violation(where, f"fits none of what is allowed: {'; or '.join(branches)}", _reason(kind.name))

        case _:
            yield Violation(where, _cut(_message(error)), _reason(kind.name))


def _message(error: jsonschema_rs.ValidationError) -> str:
    """Say what is wrong with a value; of an enumeration all that it allows, since one of these is the fix."""
    kind = error.kind

    if not isinstance(kind, jsonschema_rs.ValidationErrorKind.Enum):
        return error.message

    value, *allowed = (json.dumps(one, ensure_ascii=False) for one in (error.instance, *kind.options))
    shown = value if len(value) <= _VALUE_MAX else f"{value[: _VALUE_MAX - 1]}…"
    return f"{shown} is not one of {', '.join(allowed)}"


def _properties(schema: Json, keyword: Sequence[str | int]) -> list[str]:
    """Name the properties beside a keyword of the schema; none if they stand elsewhere."""
    for step in keyword[:-1]:
        match schema, step:
            case dict(), str() if step in schema:
                schema = schema[step]
            case list(), int() if step < len(schema):
                schema = schema[step]
            case _:
                return []

    known = schema.get("properties") if isinstance(schema, dict) else None
    return list(known) if isinstance(known, dict) else []


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Give up to three of ``known`` that ``name`` may have meant, the nearest first."""
    return difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def _is_open(error: jsonschema_rs.ValidationError, references: Sequence[Path]) -> bool:
    at = tuple(error.instance_path)
    if any(at[: len(path)] == path for path in references):
        return True

    if error.kind.name in _WHOLE and any(path[: len(at)] == at for path in references):
        return True

    # The place such a keyword stands at is this one or above it; the path in the schema does not say which.
    return bool(references) and bool(_CONDITIONAL.intersection(map(str, error.evaluation_path)))


def _decimals(error: jsonschema_rs.ValidationError) -> Iterator[tuple[Path, str]]:
    kind = error.kind
    match kind:
        case jsonschema_rs.ValidationErrorKind.AnyOf() | jsonschema_rs.ValidationErrorKind.OneOfNotValid():
            for branch in kind.context:
                if len(branch) == 1:
                    yield from _decimals(branch[0])

        case jsonschema_rs.ValidationErrorKind.Type() if "integer" in kind.types or "number" in kind.types:
            text = error.instance
            if isinstance(text, str) and _DECIMAL.fullmatch(text) and abs(int(text)) > INTEGER_MAX:
                yield tuple(error.instance_path), text


def _with(value: Any, path: Path, leaf: int) -> Any:
    if not path:
        return leaf

    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], leaf)
    return copy


def _reason(keyword: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", keyword).upper()


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_MAX else f"{text[: _MESSAGE_MAX - 1]}…"
