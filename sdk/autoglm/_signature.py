"""A function's signature and docstring as a tool's schemas."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from autoglm._dataclasses import dataclass
from autoglm._schema import SUPPORTED, Shape, UnsupportedTypeError, shape_of, to_plain
from autoglm.model import JsonObject, ToolResult

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Return|Raises|Yields|Examples?|Notes?):\s*$")
_ENTRY = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Docstring:
    """What a Google-style docstring says: the first paragraph, each parameter's meaning, and the result's."""

    summary: str
    parameters: Mapping[str, str]
    returns: str


@dataclass(frozen=True, slots=True)
class Signature:
    """A function as a tool: its schemas, how to read each argument, and which parameter takes the context (or "")."""

    input_schema: JsonObject
    output_schema: JsonObject | None
    parameters: Mapping[str, Shape]
    context: str


def read_docstring(function: Callable[..., Any]) -> Docstring:
    """Read a function's docstring; all parts are empty when it has none."""
    sections: dict[str, list[str]] = {"": []}
    current = sections[""]
    for line in (inspect.getdoc(function) or "").splitlines():
        if match := _SECTION.match(line):
            current = sections.setdefault(match[1], [])
        else:
            current.append(line)

    arguments = next((sections[name] for name in ("Args", "Arguments", "Parameters") if name in sections), [])
    returns = sections.get("Returns") or sections.get("Return") or []
    return Docstring(_first_paragraph(sections[""]), _entries(arguments), _first_paragraph(returns))


def read_signature(function: Callable[..., Any], context_type: type) -> Signature:
    """Read what a function takes and gives.

    Raises:
        TypeError: parameters or the result cannot be said in JSON Schema; names the function, and of every fault the
            parameter, the type and the remedy.
    """
    where = f"tool function {function.__qualname__}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{where}: the annotation {error.name!r} is not known at module level; "
            "define or import the type there (not inside a function, nor under TYPE_CHECKING)",
        ) from error

    doc = read_docstring(function)
    context = ""
    parameters: dict[str, Shape] = {}
    schema: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}
    required = []
    faults: list[_SignatureError] = []

    for parameter in inspect.signature(function).parameters.values():
        try:
            _check_kind(parameter, hints)
            hint = hints[parameter.name]
            if _takes_context(hint, context_type):
                if context:
                    told = f"{context!r} and {parameter.name!r} both take the ToolContext; keep one"
                    faults.append(_SignatureError(told))

                context = parameter.name
                continue

            shape = _shape(f"parameter {parameter.name!r}", hint)
            parameters[parameter.name] = shape
            described = doc.parameters.get(parameter.name, "")
            schema["properties"][parameter.name] = _property(parameter, shape, described)
        except _SignatureError as fault:
            faults.append(fault)

        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)

    if required:
        schema["required"] = required

    unknown = sorted(doc.parameters.keys() - inspect.signature(function).parameters.keys())
    faults += [_SignatureError(f"the docstring describes {name!r}, which is no parameter") for name in unknown]
    output_schema: JsonObject | None = None
    try:
        output_schema = _output_schema(hints, doc.returns)
    except _SignatureError as fault:
        faults.append(fault)

    if faults:
        supported = [f"supported are {SUPPORTED}"] if any(fault.of_type for fault in faults) else []
        raise TypeError(f"{where}: {'; '.join([*map(str, faults), *supported])}")

    return Signature(schema, output_schema, parameters, context)


class _SignatureError(Exception):
    """Something of a signature that has no schema; ``of_type``: it helps to hear which types have one."""

    def __init__(self, told: str, *, of_type: bool = False) -> None:
        super().__init__(told)
        self.of_type = of_type


def _check_kind(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise _SignatureError(f"{parameter} has no schema; name each parameter, or take one dict[str, T]")

    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise _SignatureError(f"parameter {parameter.name!r} is positional-only; arguments are passed by name")

    if parameter.name not in hints:
        raise _SignatureError(f"parameter {parameter.name!r} has no annotation", of_type=True)


def _takes_context(hint: Any, context_type: type) -> bool:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return context_type in typing.get_args(hint)

    return hint is context_type


def _shape(what: str, hint: Any) -> Shape:
    try:
        return shape_of(hint)
    except UnsupportedTypeError as error:
        raise _SignatureError(f"{what}: {error}", of_type=True) from None


def _property(parameter: inspect.Parameter, shape: Shape, description: str) -> JsonObject:
    schema = dict(shape.schema)
    if description:
        schema["description"] = description

    if parameter.default is inspect.Parameter.empty:
        return schema

    try:
        default = to_plain(parameter.default, "the default")
    except TypeError as error:
        raise _SignatureError(f"parameter {parameter.name!r}: {error}") from None

    if not shape.fits(default):
        remedy = "; write T | None" if default is None else ""
        what = f"parameter {parameter.name!r}: its type does not allow the default {default!r}"
        raise _SignatureError(f"{what}{remedy}")

    return schema | {"default": default}


def _output_schema(hints: Mapping[str, Any], description: str) -> JsonObject | None:
    if "return" not in hints or hints["return"] is ToolResult:
        return None

    schema = _shape("the result", hints["return"]).schema
    if not schema:
        return None

    return {"description": description, **schema} if description else schema


def _first_paragraph(lines: Iterable[str]) -> str:
    paragraph: list[str] = []
    for line in lines:
        if line.strip():
            paragraph.append(line.strip())
        elif paragraph:
            break

    return " ".join(paragraph)


def _entries(lines: Iterable[str]) -> dict[str, str]:
    entries: dict[str, str] = {}
    indent = None
    name = ""
    for line in lines:
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        if not text:
            continue

        indent = depth if indent is None else indent
        match = _ENTRY.match(text)
        if depth == indent and match:
            name = match[1]
            entries[name] = match[2]
        elif name:
            entries[name] = f"{entries[name]} {text}".strip()

    return entries
