"""Checking JSON against the schemas that this package itself makes of Python types.

The SDK has no JSON Schema library. What :mod:`autoglm._schema` writes uses few keywords, and these are checked here, with
every fault at once and as a full validator would: a test compares the two. Schemas from elsewhere are not for this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Final

from autoglm._json import canonical_json, join
from autoglm.model import Json, JsonObject, Violation

VIOLATIONS_MAX: Final = 50
"""How many faults of one value are told."""

_DECIMAL = re.compile(r"-?[1-9][0-9]{15,4000}")
_BOUNDS: Final[dict[str, tuple[str, Any]]] = {
    "minimum": ("must be at least", lambda value, bound: value >= bound),
    "maximum": ("must be at most", lambda value, bound: value <= bound),
    "exclusiveMinimum": ("must be more than", lambda value, bound: value > bound),
    "exclusiveMaximum": ("must be less than", lambda value, bound: value < bound),
    "multipleOf": ("must be a multiple of", lambda value, bound: Fraction(repr(value)) % Fraction(repr(bound)) == 0),
}
_SIZES: Final[dict[type, tuple[str, str, str]]] = {
    str: ("minLength", "maxLength", "characters"),
    list: ("minItems", "maxItems", "items"),
    dict: ("minProperties", "maxProperties", "properties"),
}


def check(value: Json, schema: JsonObject, field: str) -> list[Violation]:
    """Give every fault of ``value``, with the names of their places under ``field``; none is right."""
    found: list[Violation] = []
    for fault in _faults(value, schema, field):
        found.append(fault)
        if len(found) >= VIOLATIONS_MAX:
            break

    return found


def _faults(value: Any, schema: JsonObject, path: str) -> Iterator[Violation]:
    if "anyOf" in schema and not any(not check(value, one, path) for one in schema["anyOf"]):
        yield Violation(path, f"{_told(value)} fits none of the kinds that are allowed", "ANY_OF")
        return

    kinds = schema.get("type")
    if kinds is not None and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        wanted = kinds if isinstance(kinds, str) else " or ".join(kinds)
        yield Violation(path, f"{_told(value)} is not of type {wanted}", "TYPE")
        return

    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        allowed = ", ".join(map(_told, schema["enum"][:20]))
        yield Violation(path, f"{_told(value)} is not one of {allowed}", "ENUM")

    yield from _bounds(value, schema, path)
    if isinstance(value, dict):
        yield from _members(value, schema, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, schema.get("items", {}), f"{path}[{index}]")


def _bounds(value: Any, schema: JsonObject, path: str) -> Iterator[Violation]:
    if _is_number(value):
        for keyword, (words, holds) in _BOUNDS.items():
            if keyword in schema and not holds(value, schema[keyword]):
                yield Violation(path, f"{_told(value)} {words} {schema[keyword]}", _reason(keyword))

    if type(value) in _SIZES:
        least, most, what = _SIZES[type(value)]
        if len(value) < schema.get(least, 0):
            yield Violation(path, f"has {len(value)} {what}, at least {schema[least]} are needed", _reason(least))

        if most in schema and len(value) > schema[most]:
            yield Violation(path, f"has {len(value)} {what}, at most {schema[most]} are allowed", _reason(most))

    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield Violation(path, f"{_told(value)} does not match {schema['pattern']!r}", "PATTERN")

    if (
        isinstance(value, list)
        and schema.get("uniqueItems")
        and len({canonical_json(one) for one in value}) < len(value)
    ):
        yield Violation(path, "has an item twice", "UNIQUE_ITEMS")


def _members(value: dict[str, Any], schema: JsonObject, path: str) -> Iterator[Violation]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Violation(join(path, name), "is required", "REQUIRED")

    rest = schema.get("additionalProperties", True)
    for name, one in value.items():
        if name in properties:
            yield from _faults(one, properties[name], join(path, name))
        elif rest is False:
            known = ", ".join(properties) or "none"
            yield Violation(join(path, name), f"is not known; known are {known}", "ADDITIONAL_PROPERTIES")
        elif isinstance(rest, dict):
            yield from _faults(one, rest, join(path, name))


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return (whole and not isinstance(value, bool)) or _is_decimal(value)

        case "number":
            return _is_number(value) or _is_decimal(value)

        case "null":
            return value is None

        case _:
            return isinstance(value, {"boolean": bool, "string": str, "array": list, "object": dict}[kind])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_decimal(value: Any) -> bool:
    """Whether this is an integer beyond ±(2^53-1), which travels as text."""
    return isinstance(value, str) and _DECIMAL.fullmatch(value) is not None


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _told(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _reason(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", keyword).upper()
