"""What a tool's schemas say to the rules planner: the type of an argument, the primary output, and how a value becomes either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from autoglm._dataclasses import dataclass
from autoglm.model import Json
from autoglm_server.planner.rules.numerals import Number, parse_number
from autoglm_server.planner.rules.slots import Data, Numbers, Value, Written
from autoglm_server.planner.rules.source import fold

_PRIMARY = ("result", "value", "text", "content")
_NUMERIC = frozenset({"number", "integer"})
_YES = {"true": True, "yes": True, "on": True, "是": True, "false": False, "no": False, "off": False, "否": False}


class MisfitError(ValueError):
    """A value that an argument's schema does not take."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a schema that is looked at: its types (none: any), the values it is limited to, and the types of its items."""

    types: frozenset[str] = frozenset()
    values: tuple[Json, ...] = ()
    items: frozenset[str] = frozenset()

    @property
    def numeric(self) -> bool:
        """Whether only numbers fit."""
        return bool(self.types) and self.types <= _NUMERIC | {"null"} and bool(self.types & _NUMERIC)

    @property
    def textual(self) -> bool:
        """Whether only text fits."""
        return bool(self.types) and self.types <= {"string", "null"} and "string" in self.types

    @property
    def listed(self) -> bool:
        """Whether only lists fit."""
        return bool(self.types) and self.types <= {"array", "null"} and "array" in self.types

    def takes(self, other: Shape) -> bool:
        """Whether all that is of the types of ``other`` is of these types."""
        types = self.types | ({"integer"} if "number" in self.types else frozenset())
        return not self.types or (bool(other.types) and other.types <= types)

    @property
    def slot_kind(self) -> str:
        """The type of a slot that names none."""
        if self.numeric:
            return "number" if "number" in self.types else "integer"

        return "text" if not self.types or "string" in self.types else "json"


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of an object's schema. ``whole`` is the shape of the value itself."""

    whole: Shape
    named: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def primary(self) -> str:
        """The property that a back reference means, empty for the whole."""
        return next(
            (name for name in _PRIMARY if name in self.named), next(iter(self.named)) if len(self.named) == 1 else ""
        )


def read_schema(text: str) -> Properties:
    """Look at a JSON Schema; what cannot be read says nothing."""
    try:
        schema = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        schema = {}

    if not isinstance(schema, dict):
        return Properties(Shape())

    properties = schema.get("properties")
    named = {name: _shape(inner) for name, inner in properties.items()} if isinstance(properties, dict) else {}
    return Properties(_shape(schema), named)


def _shape(schema: Any) -> Shape:
    if not isinstance(schema, dict):
        return Shape()

    kind = schema.get("type")
    values = (
        schema.get("enum") if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    )
    types = (
        {kind}
        if isinstance(kind, str)
        else {name for name in kind if isinstance(name, str)}
        if isinstance(kind, list)
        else set()
    )
    branches = schema.get("anyOf") or schema.get("oneOf")

    if isinstance(branches, list) and not types:
        shapes = [_shape(branch) for branch in branches]
        types = set().union(*(shape.types for shape in shapes)) if all(shape.types for shape in shapes) else set()
        limited = all(shape.values or shape.types == {"null"} for shape in shapes)
        values = values or ([value for shape in shapes for value in shape.values] if limited else [])

    items = schema.get("items")
    return Shape(frozenset(types), tuple(values or ()), _shape(items).types if isinstance(items, dict) else frozenset())


def fit(value: Value, shape: Shape) -> Json:
    """Make of ``value`` what ``shape`` takes, as the request will carry it: a ``${`` of the user's own stays text.

    Raises:
        MisfitError: it does not fit.
    """
    match value:
        case Number():
            fitted = _fit_number(value, shape)
        case Numbers(numbers):
            fitted = (
                ", ".join(number.written for number in numbers)
                if shape.textual
                else [_carried(number) for number in numbers]
            )
        case Written(text):
            fitted = _fit_text(text, shape)
        case Data(data, text):
            fitted = text if shape.textual and not isinstance(data, str) else data
        case _:
            raise TypeError(f"{value} is bound, not fitted")

    return _limited(escape(fitted), shape)


def escape(value: Json) -> Json:
    """Write ``${`` so that it is not taken for a reference, in every string of ``value``."""
    if isinstance(value, str):
        return value.replace("${", "$${")

    if isinstance(value, list):
        return [escape(item) for item in value]

    if isinstance(value, dict):
        return {name: escape(item) for name, item in value.items()}

    return value


def _fit_number(number: Number, shape: Shape) -> Json:
    if shape.types and not shape.types & _NUMERIC:
        if "string" in shape.types:
            return number.written

        raise MisfitError("is a number")

    if "number" not in shape.types and "integer" in shape.types and not number.integral:
        raise MisfitError("is not a whole number")

    return _carried(number)


def _carried(number: Number) -> Json:
    """Give a number as values carry it: a whole number beyond 2^53 as decimal text."""
    exact = abs(number.value) <= 2**53 - 1
    return str(number.value) if number.integral and not exact else number.value


def _fit_text(text: str, shape: Shape) -> Json:
    if not shape.types or "string" in shape.types:
        return text

    if shape.types & _NUMERIC and (number := parse_number(text)):
        return _fit_number(number, shape)

    if "boolean" in shape.types and fold(text.strip()) in _YES:
        return _YES[fold(text.strip())]

    if "array" in shape.types:
        return [text]

    raise MisfitError("is text")


def _limited(value: Json, shape: Shape) -> Json:
    if not shape.values or value in shape.values:
        return value

    if isinstance(value, str):
        for allowed in shape.values:
            if isinstance(allowed, str) and fold(allowed) == fold(value):
                return allowed

    raise MisfitError(f"is none of {', '.join(map(str, shape.values[:10]))}")
