"""Python's types as JSON Schema, and JSON as values of those types.

:func:`shape_of` turns an annotation into a :class:`Shape`: the schema a caller's JSON must fit, and how JSON that fits
becomes the value a function expects. :func:`to_plain` is the way back, by the value's own type.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ForwardRef, Literal, Union

from autoglm._dataclasses import dataclass
from autoglm.model import Json, JsonObject

SUPPORTED = (
    "bool, int, float, str, None, Any, Literal, Enum, list[T], tuple[T, ...], Sequence[T], dict[str, T], "
    "Mapping[str, T], T | None and other unions, TypedDict, dataclasses, "
    "and Annotated[T, autoglm.Constraint(...)] of these"
)
"""What an annotation may be, for people."""

_DEPTH_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What a value must satisfy beyond its type: ``Annotated[int, Constraint(minimum=1, maximum=10)]``.

    Each field is the JSON Schema keyword of the same name in camelCase. A plain string in ``Annotated`` is a
    description.
    """

    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    format: str | None = None
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    enum: Sequence[Json] | None = None
    description: str | None = None

    def to_schema(self) -> JsonObject:
        """Give the keywords that are set."""
        keywords: JsonObject = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                head, *rest = field.name.split("_")
                keywords[head + "".join(word.title() for word in rest)] = list(value) if field.name == "enum" else value

        return keywords


def _same(value: Json) -> Any:
    return value


def _own(value: Json) -> Any:
    """Give a value of the function's own: what it changes in it must not change what the caller shows as its arguments."""
    if type(value) is dict:
        return {key: _own(one) for key, one in value.items()}

    return [_own(one) for one in value] if type(value) is list else value


@dataclass(frozen=True, slots=True)
class Shape:
    """A type seen from JSON: its schema, whether JSON looks like it (one level deep), how to read JSON that fits."""

    schema: JsonObject
    fits: Callable[[Json], bool]
    read: Callable[[Json], Any] = _same


class UnsupportedTypeError(TypeError):
    """An annotation has no JSON form."""


def shape_of(annotation: Any, *, _within: tuple[type, ...] = ()) -> Shape:
    """Give the shape of a resolved annotation (no strings).

    Raises:
        UnsupportedTypeError: it has no JSON form; the message says which part.
    """
    if isinstance(annotation, typing.NewType):
        return shape_of(annotation.__supertype__, _within=_within)

    if annotation in _PLAIN:
        return _PLAIN[annotation]

    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)

    if origin is typing.Annotated:
        return _annotated(shape_of(arguments[0], _within=_within), arguments[1:])

    if origin in (typing.Required, typing.NotRequired):
        return shape_of(arguments[0], _within=_within)

    if origin is Literal:
        return _choice(arguments, {value: value for value in arguments})

    if origin in (Union, types.UnionType):
        return _union([shape_of(argument, _within=_within) for argument in arguments])

    if origin in _SEQUENCES:
        return _sequence(annotation, origin, arguments, _within)

    if origin in (dict, Mapping):
        return _mapping(annotation, arguments, _within)

    if isinstance(annotation, type):
        return _class(annotation, _within)

    raise UnsupportedTypeError(f"{_name(annotation)} has no JSON form")


def _number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of_type(kind: str, python: type, read: Callable[[Json], Any] = _same) -> Shape:
    return Shape({"type": kind}, lambda value: isinstance(value, python), read)


# An integer beyond ±(2^53-1) travels as a decimal string; int() and float() read both forms.
_PLAIN: dict[Any, Shape] = {
    Any: Shape({}, lambda _value: True, _own),
    object: Shape({}, lambda _value: True, _own),
    None: Shape({"type": "null"}, lambda value: value is None),
    type(None): Shape({"type": "null"}, lambda value: value is None),
    bool: _of_type("boolean", bool),
    int: Shape({"type": "integer"}, _integer, int),
    float: Shape({"type": "number"}, _number, float),
    str: _of_type("string", str),
    list: _of_type("array", list, _own),
    tuple: _of_type("array", list, lambda value: tuple(_own(value))),
    Sequence: _of_type("array", list, _own),
    dict: _of_type("object", dict, _own),
    Mapping: _of_type("object", dict, _own),
}

_SEQUENCES = (list, tuple, Sequence)


def _annotated(shape: Shape, extras: Iterable[Any]) -> Shape:
    schema = dict(shape.schema)
    for extra in extras:
        if isinstance(extra, Constraint):
            schema |= extra.to_schema()
        elif isinstance(extra, str):
            schema["description"] = extra

    return dataclasses.replace(shape, schema=schema)


def _choice(values: Iterable[Any], members: Mapping[Any, Any]) -> Shape:
    allowed = list(values)
    if wrong := [value for value in allowed if not isinstance(value, str | int | None)]:
        raise UnsupportedTypeError(f"the choice {wrong[0]!r} is neither a string, an integer, a bool nor None")

    # True == 1 in Python and not in JSON.
    def fits(value: Json) -> bool:
        return any(type(value) is type(one) and value == one for one in allowed)

    kinds = {bool: "boolean", int: "integer", str: "string"}
    named = {kinds.get(type(value), "null") for value in allowed}
    schema: JsonObject = {"enum": allowed}
    if len(named) == 1:
        schema = {"type": named.pop(), "enum": allowed}

    return Shape(schema, fits, lambda value: members[value])


def _union(shapes: list[Shape]) -> Shape:
    if all(set(shape.schema) == {"type"} and isinstance(shape.schema["type"], str) for shape in shapes):
        schema: JsonObject = {"type": [shape.schema["type"] for shape in shapes]}
    else:
        schema = {"anyOf": [shape.schema for shape in shapes]}

    def read(value: Json) -> Any:
        for shape in shapes:
            if shape.fits(value):
                return shape.read(value)

        return value

    return Shape(schema, lambda value: any(shape.fits(value) for shape in shapes), read)


def _sequence(annotation: Any, origin: Any, arguments: tuple[Any, ...], within: tuple[type, ...]) -> Shape:
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        raise UnsupportedTypeError(f"{_name(annotation)} has a fixed length; write tuple[T, ...] or a dataclass")

    item = shape_of(arguments[0], _within=within)
    build: Callable[[Iterable[Any]], Any] = tuple if origin is tuple else list
    schema: JsonObject = {"type": "array", "items": item.schema} if item.schema else {"type": "array"}
    return Shape(schema, lambda value: isinstance(value, list), lambda value: build(map(item.read, value)))


def _mapping(annotation: Any, arguments: tuple[Any, ...], within: tuple[type, ...]) -> Shape:
    if arguments[0] is not str:
        raise UnsupportedTypeError(f"{_name(annotation)} has keys that are not str; JSON's keys are strings")

    value_shape = shape_of(arguments[1], _within=within)
    schema: JsonObject = {"type": "object"}
    if value_shape.schema:
        schema["additionalProperties"] = value_shape.schema

    def read(value: Json) -> Any:
        return {key: value_shape.read(one) for key, one in value.items()}

    return Shape(schema, lambda value: isinstance(value, dict), read)


def _class(annotation: type, within: tuple[type, ...]) -> Shape:
    if annotation in within:
        raise UnsupportedTypeError(f"{_name(annotation)} contains itself; describe one level and take the rest as dict")

    within = (*within, annotation)
    if issubclass(annotation, enum.Enum):
        return _choice([member.value for member in annotation], {member.value: member for member in annotation})

    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        required = frozenset(name for name, hint in hints.items() if _must_be_there(annotation, name, hint))
        shapes = {name: shape_of(hint, _within=within) for name, hint in hints.items()}
        return _object(annotation, shapes, required, dict)

    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        fields = [field for field in dataclasses.fields(annotation) if field.init]
        shapes = {field.name: shape_of(hints[field.name], _within=within) for field in fields}
        needed = frozenset(field.name for field in fields if _is_required(field))
        return _object(annotation, shapes, needed, lambda values: annotation(**values))

    raise UnsupportedTypeError(f"{_name(annotation)} has no JSON form")


def _must_be_there(annotation: type, name: str, hint: Any) -> bool:
    # __required_keys__ alone does not know of NotRequired in a module whose annotations are strings.
    origin = typing.get_origin(hint)
    known: frozenset[str] = annotation.__required_keys__  # type: ignore[attr-defined]  # every TypedDict has it
    return origin is typing.Required or (origin is not typing.NotRequired and name in known)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _object(
    annotation: type,
    shapes: Mapping[str, Shape],
    required: frozenset[str],
    build: Callable[[dict[str, Any]], Any],
) -> Shape:
    schema: JsonObject = {
        "type": "object",
        "properties": {name: shape.schema for name, shape in shapes.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = [name for name in shapes if name in required]

    if own := _own_doc(annotation):
        schema["description"] = own

    def fits(value: Json) -> bool:
        return isinstance(value, dict) and required <= value.keys() <= shapes.keys()

    return Shape(schema, fits, lambda value: build({name: shapes[name].read(one) for name, one in value.items()}))


def _own_doc(annotation: type) -> str:
    # A dataclass without a docstring gets its signature as one; a TypedDict inherits dict's.
    doc = annotation.__dict__.get("__doc__") or ""
    return "" if doc.startswith(f"{annotation.__name__}(") else doc.strip().split("\n\n")[0].replace("\n", " ")


_AS_IT_IS = frozenset({bool, str, int, type(None)})
"""Types of values that are JSON as they are."""
_TEXT = frozenset({str})


def to_plain(value: Any, path: str = "output", *, depth: int = 0) -> Json:
    """Give ``value`` as JSON: dataclasses and mappings as objects, lists and tuples as arrays, enums by their values.

    Raises:
        TypeError: something has no JSON form; the message names where, and its type.
    """
    kind = type(value)
    if kind in _AS_IT_IS or (kind is float and math.isfinite(value)):
        return value

    if kind is not dict and kind is not list:
        if isinstance(value, enum.Enum):
            return to_plain(value.value, path, depth=depth)

        if isinstance(value, str | int):
            return value

        if isinstance(value, float):
            return _finite(value, path)

        value = _opened(value, path)

    if depth >= _DEPTH_MAX:
        raise TypeError(f"{path} is nested deeper than {_DEPTH_MAX} levels")

    depth += 1
    if isinstance(value, dict):
        if not _TEXT.issuperset(map(type, value)):
            value = {_key(key, path): one for key, one in value.items()}

        return {  # no path is made of what needs none
            key: one if type(one) in _AS_IT_IS else to_plain(one, f"{path}.{key}", depth=depth)
            for key, one in value.items()
        }

    return [
        one if type(one) in _AS_IT_IS else to_plain(one, f"{path}[{index}]", depth=depth)
        for index, one in enumerate(value)
    ]


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise TypeError(f"{path} is {value}, which JSON cannot say; return None or leave it out")

    return value


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{path} has the key {key!r}; keys of a JSON object are strings")

    return str(key)


def _opened(value: object, path: str) -> dict[Any, Any] | list[Any]:
    """Give what a value has in it as a dict or a list."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}

    if isinstance(value, Mapping):
        return dict(value)

    if isinstance(value, list | tuple):
        return list(value)

    raise TypeError(f"{path} is a {type(value).__qualname__}, which has no JSON form")


def _name(annotation: Any) -> str:
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__

    plain = isinstance(annotation, type) and not typing.get_args(annotation)
    return annotation.__qualname__ if plain else str(annotation)
