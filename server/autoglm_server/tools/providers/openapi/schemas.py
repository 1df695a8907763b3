"""Schemas of OpenAPI as JSON Schema 2020-12, each with just the definitions it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import jsonschema_rs

from autoglm.model import Json, JsonObject
from autoglm.wire import canonical_json
from autoglm_server.tools.providers.openapi.document import Document, DocumentError

DESCRIPTION_MAX: Final = 300
"""How much is kept of the description of a part of a schema, in characters."""
_DEPTH_MAX = 100
_DEFINITIONS_MAX = 5000

# Grouped by what stands behind the keyword: a value that is kept as it is, a schema, a list of them, a mapping to them.
_KEPT = (
    *(
        "type",
        "enum",
        "const",
        "default",
        "title",
        "format",
        "required",
        "dependentRequired",
        "deprecated",
        "writeOnly",
    ),
    *("multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
    *("maxLength", "minLength", "pattern", "contentEncoding", "contentMediaType"),
    *("maxItems", "minItems", "uniqueItems", "minContains", "maxContains", "maxProperties", "minProperties"),
)
_ONE = (
    *("items", "contains", "unevaluatedItems", "additionalProperties", "propertyNames", "unevaluatedProperties"),
    *("not", "if", "then", "else"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_WORDY = frozenset({"description", "title", "default", "deprecated"})


class SchemaReader:
    """Converts schemas of one document; what is referred to is converted once."""

    def __init__(self, document: Document, *, is_input: bool) -> None:
        """Read schemas of ``document``: of what is sent, without what only an answer may have (``readOnly``), or of answers."""
        self._document = document
        self._is_input = is_input
        self._names: dict[str, str] = {}
        self._pointers: dict[str, str] = {}
        self._definitions: dict[str, Json] = {}
        self._needs: dict[str, tuple[str, ...]] = {}
        self._pattern_ok: dict[str, bool] = {}

    def read(self, schema: Json) -> Json:
        """Give a schema, converted; what it refers to is written ``#/$defs/NAME`` and is given by :meth:`definitions`.

        Raises:
            DocumentError: it cannot be converted.
        """
        return self._read(schema, 0)

    def definitions(self, schema: Json) -> JsonObject:
        """Give all definitions that a converted schema needs, by name, each with what it needs in turn.

        Raises:
            DocumentError: there are too many, or one cannot be converted.
        """
        found: JsonObject = {}
        waiting = list(_references(schema))
        while waiting:
            name = waiting.pop()
            if name in found:
                continue

            if len(found) >= _DEFINITIONS_MAX:
                raise DocumentError(f"it needs more than {_DEFINITIONS_MAX} definitions")

            if name not in self._definitions:
                read = self._read(self._document.at(self._pointers[name]), 0)
                self._definitions[name] = read
                self._needs[name] = tuple(_references(read))

            found[name] = self._definitions[name]
            waiting += self._needs[name]

        return dict(sorted(found.items()))

    def _read(self, schema: Json, depth: int) -> Json:
        if isinstance(schema, bool):
            return schema

        if not isinstance(schema, dict) or depth > _DEPTH_MAX:
            raise DocumentError("a schema is no object, or nested too deep")

        if isinstance(schema.get("$ref"), str):
            return self._referring(schema, depth)

        made: JsonObject = {key: schema[key] for key in _KEPT if key in schema}
        if isinstance(text := schema.get("description"), str):
            made["description"] = text if len(text) <= DESCRIPTION_MAX else f"{text[: DESCRIPTION_MAX - 1]}…"

        for key in _ONE:
            if isinstance(schema.get(key), dict | bool):
                made[key] = self._read(schema[key], depth + 1)

        for key in _LISTS:
            if isinstance(schema.get(key), list) and schema[key]:
                made[key] = [self._read(inner, depth + 1) for inner in schema[key]]

        for key in _MAPS:
            if isinstance(schema.get(key), dict):
                made[key] = {
                    name: self._read(inner, depth + 1)
                    for name, inner in schema[key].items()
                    if not (self._is_input and _is_read_only(inner))
                }

        self._mend(made, schema)
        return _nullable(made) if self._document.is_30 and schema.get("nullable") is True else made

    def _referring(self, schema: JsonObject, depth: int) -> Json:
        pointer = schema["$ref"]
        self._document.at(pointer)  # told now, not when the tool is called
        made: JsonObject = {"$ref": f"#/$defs/{self._name(pointer)}"}
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        if self._document.is_30 or not rest:
            return made

        beside = self._read(rest, depth + 1)
        return {**beside, **made} if isinstance(beside, dict) else made

    def _name(self, pointer: str) -> str:
        if pointer not in self._names:
            base = re.sub(r"[^A-Za-z0-9_.-]+", "_", pointer.rpartition("/")[2]) or "root"
            name, number = base, 1
            while name in self._pointers:
                number += 1
                name = f"{base}_{number}"

            self._names[pointer] = name
            self._pointers[name] = pointer

        return self._names[pointer]

    def _mend(self, made: JsonObject, schema: JsonObject) -> None:
        """Make JSON Schema of keywords that mean something else in 3.0, and leave out what is none."""
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and bound in made:
                made[exclusive] = made.pop(bound)

        required = made.get("required")
        if isinstance(required, list):
            properties = schema.get("properties")
            known = properties if isinstance(properties, dict) else {}
            gone = {name for name, inner in known.items() if self._is_input and _is_read_only(inner)}
            made["required"] = [name for name in dict.fromkeys(required) if isinstance(name, str) and name not in gone]

        if not isinstance(made.get("required"), list) or not made["required"]:
            made.pop("required", None)

        if isinstance(made.get("enum"), list):
            made["enum"] = _distinct(made["enum"])
            if not made["enum"]:
                del made["enum"]

        if "pattern" in made and not self._is_pattern(made["pattern"]):
            del made["pattern"]

        if isinstance(made.get("patternProperties"), dict):
            kept = {pattern: inner for pattern, inner in made["patternProperties"].items() if self._is_pattern(pattern)}
            made["patternProperties"] = kept

        if made.get("type") == "any":
            del made["type"]

    def _is_pattern(self, pattern: Json) -> bool:
        """Whether it can be matched here: documents hold expressions of every language there is."""
        if not isinstance(pattern, str):
            return False

        if pattern not in self._pattern_ok:
            try:
                jsonschema_rs.validator_for({"pattern": pattern})
                self._pattern_ok[pattern] = True
            except ValueError:
                self._pattern_ok[pattern] = False

        return self._pattern_ok[pattern]


def without_words(schema: Json) -> Json:
    """Give a schema without what is only for people: what is left fits where the whole does not."""
    if isinstance(schema, list):
        return [without_words(inner) for inner in schema]

    if not isinstance(schema, dict):
        return schema

    made: JsonObject = {}
    for key, inner in schema.items():
        if key in ("properties", "patternProperties", "dependentSchemas", "$defs") and isinstance(inner, dict):
            made[key] = {name: without_words(value) for name, value in inner.items()}
        elif key in ("enum", "const"):
            made[key] = inner
        elif key not in _WORDY:
            made[key] = without_words(inner)

    return made


def _nullable(made: JsonObject) -> JsonObject:
    kind = made.get("type")
    if isinstance(kind, str):
        made["type"] = [kind, "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]

        return made

    if any(key in made for key in ("$ref", "allOf", "anyOf", "oneOf", "enum")):
        return {"anyOf": [made, {"type": "null"}]}

    return made


def _is_read_only(schema: Json) -> bool:
    return isinstance(schema, dict) and schema.get("readOnly") is True


def _distinct(values: list[Json]) -> list[Json]:
    return list({canonical_json(value): value for value in values}.values())


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            yield reference.removeprefix("#/$defs/")

        for inner in schema.values():
            yield from _references(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _references(inner)
