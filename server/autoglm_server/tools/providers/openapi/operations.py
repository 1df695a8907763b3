"""The operations of a document, each as a tool and as what makes requests of its arguments."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urljoin

from autoglm._dataclasses import dataclass
from autoglm.model import Effect, Json, JsonObject, Tool
from autoglm_server.tools.http.errors import RefusedError
from autoglm_server.tools.http.urls import parse_url
from autoglm_server.tools.providers.openapi.document import Document, DocumentError
from autoglm_server.tools.providers.openapi.encoding import STYLES, Body, Parameter, Place
from autoglm_server.tools.providers.openapi.files import described, is_media_type, with_files
from autoglm_server.tools.providers.openapi.schemas import SchemaReader, without_words
from autoglm_server.tools.providers.openapi.security import chosen, read_schemes

EFFECTS: Final = {
    "GET": Effect.READ_ONLY,
    "HEAD": Effect.READ_ONLY,
    "OPTIONS": Effect.READ_ONLY,
    "PUT": Effect.IDEMPOTENT,
    "DELETE": Effect.IDEMPOTENT,
    "POST": Effect.NON_IDEMPOTENT,
    "PATCH": Effect.NON_IDEMPOTENT,
}
"""What a method does to the world, unless the settings say otherwise."""
OPERATIONS_MAX: Final = 5000
"""How many operations of one document become tools."""
_NAME_MAX = 90
_DESCRIPTION_MAX = 1000
_SCHEMA_BYTES_MAX = 200 << 10
_OUTPUT_BYTES_MAX = 64 << 10

# The request's own headers, which OpenAPI says are no parameters.
_NO_PARAMETERS = frozenset({"accept", "authorization", "content-type"})


@dataclass(frozen=True, slots=True)
class Choices:
    """What the settings say of a document."""

    server: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    effects: Mapping[str, Effect] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    check_outputs: bool = False
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: the tool, and how a request is made of a call's arguments."""

    tool: Tool
    method: str
    base: str
    path: str
    parameters: tuple[Parameter, ...]
    body: Body | None
    schemes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Operations:
    """All operations of a document, and those that cannot be offered, with why."""

    by_name: Mapping[str, Operation]
    refused: Mapping[str, str]


def read_operations(document: Document, location: str, choices: Choices) -> Operations:
    """Read a document that came from ``location``: a URL, which relative servers count from, or empty."""
    reader = _Reader(document, location, choices)
    found: dict[str, Operation] = {}
    refused: dict[str, str] = {}
    paths = document.root.get("paths")
    for path, value in (paths if isinstance(paths, dict) else {}).items():
        try:
            listed = list(_methods(document.resolved(value)))
        except DocumentError as error:
            refused[path] = str(error)
            continue

        for method, item, operation in listed:
            name = _unique(_name(operation, method, path), found, refused)
            if not _wanted(name, f"{method} {path}", choices):
                continue

            if len(found) >= OPERATIONS_MAX:
                refused[name] = f"there are more than {OPERATIONS_MAX} operations; choose with include"
                continue

            try:
                found[name] = reader.read(name, path, method, item, operation)
            except DocumentError as error:
                refused[name] = str(error)

    return Operations(found, refused)


class _Reader:
    def __init__(self, document: Document, location: str, choices: Choices) -> None:
        self._document = document
        self._location = location
        self._choices = choices
        self._sent = SchemaReader(document, is_input=True)
        self._answered = SchemaReader(document, is_input=False)
        self._schemes = read_schemes(document)

    def read(self, name: str, path: str, method: str, item: JsonObject, operation: JsonObject) -> Operation:
        base = self._base(operation, item)
        parameters, properties, required = self._parameters(item, operation)
        missing = [part for part in re.findall(r"\{([^{}]*)\}", path) if not _has_path(parameters, part)]
        if missing:
            raise DocumentError(f"its path has {{{missing[0]}}}, and it has no such parameter")

        body, body_schema, is_required = self._body(operation)
        if body is not None:
            properties["body"] = body_schema
            required += ["body"] if is_required else []

        security = operation.get("security", self._document.root.get("security"))
        tool = Tool(
            name=name,
            title=_line(operation.get("summary"), 120),
            description=_described(operation, f"{method} {path}"),
            input_schema=self._input(properties, required),
            output_schema=self._output(operation),
            effect=_effect(name, method, path, self._choices),
            destructive=method == "DELETE",
            open_world=True,
            timeout=self._choices.timeout,
            tags=tuple(_line(tag, 60) for tag in _list(operation.get("tags")) if isinstance(tag, str))[:8],
            available=True,
        )
        schemes = chosen(security, self._choices.credentials, self._schemes)
        return Operation(tool, method, base, path, tuple(parameters), body, schemes)

    # --- where

    def _base(self, operation: JsonObject, item: JsonObject) -> str:
        if self._choices.server:
            return self._choices.server.rstrip("/")

        servers = operation.get("servers") or item.get("servers") or self._document.root.get("servers")
        server = servers[0] if isinstance(servers, list) and servers else {"url": "/"}
        url = server.get("url") if isinstance(server, dict) else None
        if not isinstance(url, str):
            raise DocumentError("its first server has no url")

        variables = server.get("variables")
        for name, value in (variables if isinstance(variables, dict) else {}).items():
            given = self._choices.variables.get(name, value.get("default") if isinstance(value, dict) else None)
            url = url.replace(f"{{{name}}}", str(given))

        if "{" in url:
            raise DocumentError(f"the server {url!r} has a variable without a value; set `variables`")

        url = urljoin(self._location, url) if self._location else url
        try:
            parsed = parse_url(url)
        except RefusedError as error:
            raise DocumentError(f"the server {url[:100]!r} cannot be used: {error}; set `server`") from None

        if parsed.scheme == "http" and not (self._location and parse_url(self._location).host == parsed.host):
            raise DocumentError(f"the server {parsed.origin} has no TLS; set `server` to it if that is meant")

        return url.partition("?")[0].partition("#")[0].rstrip("/")

    # --- parameters

    def _parameters(self, item: JsonObject, operation: JsonObject) -> tuple[list[Parameter], JsonObject, list[str]]:
        listed: dict[tuple[str, str], JsonObject] = {}
        for value in [*_list(item.get("parameters")), *_list(operation.get("parameters"))]:
            given = self._document.resolved(value)
            listed[str(given.get("in")), str(given.get("name"))] = given

        parameters: list[Parameter] = []
        properties: JsonObject = {}
        required: list[str] = []
        for (place, name), given in listed.items():
            if place == "header" and name.lower() in _NO_PARAMETERS:
                continue

            if place not in STYLES:
                raise DocumentError(f"its parameter {name!r} is in {place!r}")

            key = name if name not in properties and name != "body" else f"{name}_{place}"
            parameter, schema = self._parameter(key, name, place, given)
            parameters.append(parameter)
            properties[key] = schema
            if given.get("required") is True or place == "path":
                required.append(key)

        return parameters, properties, required

    def _parameter(self, key: str, name: str, place: Any, given: JsonObject) -> tuple[Parameter, Json]:
        style = given.get("style", STYLES[place][0])
        if style not in STYLES[place]:
            raise DocumentError(f"its parameter {name!r} has the style {style!r}; known are {', '.join(STYLES[place])}")

        content = given.get("content")
        is_json = isinstance(content, dict) and bool(content)
        schema = given.get("schema", {})
        if isinstance(content, dict) and content:
            inner = next(iter(content.values()))
            schema = inner.get("schema", {}) if isinstance(inner, dict) else {}

        explode = given.get("explode", style == "form")
        where: Place = place
        read = self._sent.read(schema)
        parameter = Parameter(
            key,
            name,
            where,
            str(style),
            explode=explode is True,
            is_json=is_json,
            is_reserved=given.get("allowReserved") is True,
        )
        return parameter, _with_description(read, given.get("description"))

    # --- bodies

    def _body(self, operation: JsonObject) -> tuple[Body | None, Json, bool]:
        if "requestBody" not in operation:
            return None, {}, False

        given = self._document.resolved(operation["requestBody"])
        content = given.get("content")
        if not isinstance(content, dict) or not content:
            return None, {}, False

        required = given.get("required") is True
        for media_type, value in sorted(content.items(), key=lambda pair: _preference(pair[0])):
            media = value if isinstance(value, dict) else {}
            body, schema = self._body_of(media_type, media)
            if body is not None:
                read = self._sent.read(schema)
                return body, _with_description(read, given.get("description")), required

        if not required:
            return None, {}, False

        raise DocumentError(f"its body is {' or '.join(content)}, which is no media type")

    def _body_of(self, media_type: str, media: JsonObject) -> tuple[Body | None, Json]:
        """Give how a body is written, and the schema of what it is written from."""
        kind = media_type.partition(";")[0].strip().lower()
        schema = media.get("schema", {})
        if kind == "multipart/form-data":
            return self._parts(kind, media)

        body = _body_of(kind, media)
        if body is not None or "/" not in kind or kind.startswith("multipart/"):
            return body, schema

        return Body(kind, "bytes"), described(schema.get("description") if isinstance(schema, dict) else None)

    def _parts(self, kind: str, media: JsonObject) -> tuple[Body, Json]:
        schema = self._document.resolved(media.get("schema", {}))
        listed = schema.get("properties")
        properties: JsonObject = {}
        files: set[str] = set()
        for name, part in (listed if isinstance(listed, dict) else {}).items():
            properties[name], is_file = with_files(part, self._at)
            files |= {name} if is_file else set()

        encoding = media.get("encoding")
        media_types = {
            name: value["contentType"]
            for name, value in (encoding if isinstance(encoding, dict) else {}).items()
            if isinstance(value, dict) and is_media_type(value.get("contentType"))
        }
        made = {**schema, "properties": properties} if properties else {"type": "object", **schema}
        return Body(kind, "parts", files=frozenset(files), media_types=media_types), made

    def _at(self, reference: str) -> JsonObject | None:
        try:
            return self._document.resolved({"$ref": reference})
        except DocumentError:
            return None

    # --- schemas

    def _input(self, properties: JsonObject, required: list[str]) -> str:
        schema: JsonObject = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required

        text = _fitting(self._sent, schema, _SCHEMA_BYTES_MAX)
        if not text and "body" in properties:
            # The service checks it all the same; a tool whose body is not described is better than none.
            loose: Json = {"description": "Its schema is too large to be shown."}
            without = {**schema, "properties": {**properties, "body": loose}}
            text = _fitting(self._sent, without, _SCHEMA_BYTES_MAX)

        if not text:
            raise DocumentError(f"the schema of its parameters is larger than {_SCHEMA_BYTES_MAX} bytes")

        return text

    def _output(self, operation: JsonObject) -> str:
        """Give the schema of the answer, if the settings trust it and it fits."""
        if not self._choices.check_outputs:
            return ""

        responses = operation.get("responses")
        good = sorted(code for code in (responses if isinstance(responses, dict) else {}) if str(code).startswith("2"))
        if not isinstance(responses, dict) or len(good) != 1:
            return ""

        content = self._document.resolved(responses[good[0]]).get("content")
        if not isinstance(content, dict) or not content or not all(is_json(media_type) for media_type in content):
            return ""

        media = next(iter(content.values()))
        if not isinstance(media, dict) or "schema" not in media:
            return ""

        schema = self._answered.read(media["schema"])
        return _fitting(self._answered, schema if isinstance(schema, dict) else {}, _OUTPUT_BYTES_MAX)


# --- the pieces


def is_json(media_type: str) -> bool:
    """Whether a media type is JSON, by any name."""
    kind = media_type.partition(";")[0].strip().lower()
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def _methods(item: JsonObject) -> Iterator[tuple[str, JsonObject, JsonObject]]:
    for method in EFFECTS:
        operation = item.get(method.lower())
        if isinstance(operation, dict):
            yield method, item, operation


def _name(operation: JsonObject, method: str, path: str) -> str:
    given = operation.get("operationId")
    text = given if isinstance(given, str) and given.strip() else f"{method}_{path}"
    name = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_.-]+", "_", text)).strip("_.-")
    return name[:_NAME_MAX] or method


def _unique(name: str, found: Mapping[str, object], refused: Mapping[str, object]) -> str:
    unique, number = name, 1
    while unique in found or unique in refused:
        number += 1
        unique = f"{name}_{number}"

    return unique


def _wanted(name: str, line: str, choices: Choices) -> bool:
    def fits(patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(line, pattern) for pattern in patterns)

    return fits(choices.include) and not fits(choices.exclude)


def _effect(name: str, method: str, path: str, choices: Choices) -> Effect:
    for pattern, effect in choices.effects.items():
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(f"{method} {path}", pattern):
            return effect

    return EFFECTS[method]


def _has_path(parameters: Sequence[Parameter], name: str) -> bool:
    return any(parameter.place == "path" and parameter.name == name for parameter in parameters)


def _preference(media_type: str) -> int:
    kind = media_type.partition(";")[0].strip().lower()
    known = ("application/json", "application/x-www-form-urlencoded", "multipart/form-data")
    return known.index(kind) * 2 if kind in known else 1 if is_json(kind) else 5 if kind.startswith("text/") else 6


def _body_of(kind: str, media: JsonObject) -> Body | None:
    if is_json(kind):
        return Body(kind, "json")

    if kind == "application/x-www-form-urlencoded":
        encoding = media.get("encoding")
        styles = {
            name: (str(given.get("style", "form")), given.get("explode", True) is True)
            for name, given in (encoding if isinstance(encoding, dict) else {}).items()
            if isinstance(given, dict) and given.get("style", "form") in STYLES["query"]
        }
        return Body(kind, "form", styles)

    return Body(f"{kind}; charset=utf-8", "text") if kind.startswith("text/") else None


def _with_description(schema: Json, description: Json) -> Json:
    if not isinstance(schema, dict) or "description" in schema or not isinstance(description, str) or not description:
        return schema

    return {**schema, "description": _line(description, 300)}


def _described(operation: JsonObject, line: str) -> str:
    summary, text = operation.get("summary"), operation.get("description")
    parts = [part.strip() for part in (summary, text) if isinstance(part, str) and part.strip()]
    if len(parts) == 2 and parts[1].startswith(parts[0]):
        parts = parts[1:]

    if operation.get("deprecated") is True:
        parts.insert(0, "Deprecated.")

    return _line("\n".join(parts) or line, _DESCRIPTION_MAX)


def _line(text: Json, length_max: int) -> str:
    if not isinstance(text, str):
        return ""

    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _fitting(reader: SchemaReader, schema: JsonObject, bytes_max: int) -> str:
    """Give a schema with its definitions as text; without descriptions if it is too long, and empty if it still is."""
    definitions = reader.definitions(schema)
    whole = {**schema, "$defs": definitions} if definitions else schema
    for made in (whole, without_words(whole)):
        # In the order of the document: it is what people read first. Digests are of the canonical form.
        text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) <= bytes_max:
            return text

    return ""
