"""Writing arguments as OpenAPI says: parameters by their style, bodies by their media type."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from typing import Final, Literal
from urllib.parse import quote

from autoglm._dataclasses import dataclass
from autoglm.model import Json, JsonObject
from autoglm_server.tools.providers.openapi.files import FileError, file_of, multipart

Place = Literal["path", "query", "header", "cookie"]
STYLES: Final[dict[str, tuple[str, ...]]] = {
    "path": ("simple",),
    "query": ("form", "deepObject", "spaceDelimited", "pipeDelimited"),
    "header": ("simple",),
    "cookie": ("form",),
}
"""The styles that are written, by place; the first is the default."""
# Not all that is reserved: & and # would end the value, and what comes then is another parameter or nothing; + is a blank.
_RESERVED = "!$'()*,/:;=?@"
_DELIMITERS = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}

Pairs = list[tuple[str, str]]


class UnwritableError(ValueError):
    """An argument cannot be written; ``key`` is its name, the message a sentence."""

    def __init__(self, key: str, message: str) -> None:
        """Carry the name."""
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: ``key`` is what the argument is called, ``name`` what it is called in the request."""

    key: str
    name: str
    place: Place
    style: str = "form"
    explode: bool = True
    is_json: bool = False
    is_reserved: bool = False
    """Characters that mean something in a URL stay as they are, but for those that would end the value."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body: the argument ``body``, written as ``kind`` and sent as ``media_type``."""

    media_type: str
    kind: Literal["json", "form", "text", "parts", "bytes"]
    styles: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Of a form: the style and explode of a property that is not ``form``."""
    files: frozenset[str] = frozenset()
    """Of parts: which are files."""
    media_types: Mapping[str, str] = field(default_factory=dict)
    """Of parts: what they are said to be."""

    def write(self, value: Json) -> tuple[str, bytes]:
        """Give the media type and the bytes of a body.

        Raises:
            UnwritableError: it is, or has, no file where one must be.
        """
        try:
            match self.kind:
                case "json":
                    return self.media_type, _json(value).encode()
                case "form":
                    pairs = self._form(value)
                    return self.media_type, "&".join(f"{name}={text}" for name, text in pairs).encode()
                case "text":
                    return self.media_type, (value if isinstance(value, str) else _json(value)).encode()
                case "parts":
                    return multipart(value, self.files, self.media_types)
                case "bytes":
                    file = file_of(value, "body")
                    # A document that takes any kind lets the file say which it is.
                    return (file.media_type if "*" in self.media_type else self.media_type), file.data
        except FileError as error:
            raise UnwritableError("body", str(error)) from None

    def _form(self, value: Json) -> Pairs:
        pairs: Pairs = []
        for name, inner in (value if isinstance(value, dict) else {}).items():
            style, explode = self.styles.get(name, ("form", True))
            if style == "deepObject":
                pairs += _deep(_escaped(name), inner)
            elif isinstance(inner, dict) or (
                isinstance(inner, list) and any(isinstance(x, dict | list) for x in inner)
            ):
                pairs.append((_escaped(name), _escaped(_json(inner))))
            else:
                pairs += query(Parameter(name, name, "query", style, explode), inner)

        return pairs


def path(template: str, parameters: Iterable[Parameter], arguments: JsonObject) -> str:
    """Fill a path's template.

    Raises:
        UnwritableError: a value would make another path of it: it is empty, or made of dots.
    """
    for parameter in parameters:
        if parameter.place != "path":
            continue

        if parameter.key not in arguments:
            raise UnwritableError(parameter.key, "is required")

        text = _simple(parameter, arguments[parameter.key], "")
        if text.replace("%2E", ".").replace("%2e", ".") in ("", ".", ".."):
            raise UnwritableError(parameter.key, "must not be empty, '.' or '..': it is a part of the path")

        template = template.replace(f"{{{parameter.name}}}", text)

    return template


def query(parameter: Parameter, value: Json) -> Pairs:
    """Give a parameter of the query as names and values, escaped."""
    safe = _RESERVED if parameter.is_reserved else ""
    name = _escaped(parameter.name)
    if parameter.is_json:
        return [(name, _escaped(_json(value)))]

    if parameter.style == "deepObject":
        return _deep(name, value)

    delimiter = _DELIMITERS[parameter.style]
    match value:
        case list() if parameter.explode:
            return [(name, _escaped(_text(item), safe)) for item in value]
        case list():
            return [(name, delimiter.join(_escaped(_text(item), safe) for item in value))]
        case dict() if parameter.explode:
            return [(_escaped(key), _escaped(_text(inner), safe)) for key, inner in value.items()]
        case dict():
            return [(name, delimiter.join(_escaped(_text(part), safe) for pair in value.items() for part in pair))]
        case _:
            return [(name, _escaped(_text(value), safe))]


def header(parameter: Parameter, value: Json) -> str:
    """Give the value of a header.

    Raises:
        UnwritableError: a header cannot hold it.
    """
    text = _simple(parameter, value, None)
    if not text.isascii() or not text.isprintable():
        raise UnwritableError(parameter.key, "must be printable ASCII: it is a header")

    return text


def cookie(parameter: Parameter, value: Json) -> str:
    """Give a cookie as ``name=value``."""
    return "; ".join(f"{name}={text}" for name, text in query(parameter, value))


def _simple(parameter: Parameter, value: Json, safe: str | None) -> str:
    """Write in the style ``simple``; escaped for a path, as it is (``safe`` None) for a header."""

    def write(text: str) -> str:
        return text if safe is None else _escaped(text, safe)

    if parameter.is_json:
        return write(_json(value))

    match value:
        case list():
            return ",".join(write(_text(item)) for item in value)
        case dict() if parameter.explode:
            return ",".join(f"{write(key)}={write(_text(inner))}" for key, inner in value.items())
        case dict():
            return ",".join(write(_text(part)) for pair in value.items() for part in pair)
        case _:
            return write(_text(value))


def _deep(name: str, value: Json) -> Pairs:
    """Write ``name[key][key]=value``, and ``name[0]=value`` for lists, however deep."""
    return list(_deeper(name, value))


def _deeper(name: str, value: Json) -> Iterator[tuple[str, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _deeper(f"{name}[{_escaped(key)}]", inner)
        case list():
            for index, inner in enumerate(value):
                yield from _deeper(f"{name}[{index}]", inner)
        case _:
            yield name, _escaped(_text(value))


def _text(value: Json) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case _:
            return _json(value)


def _escaped(text: str, safe: str = "") -> str:
    return quote(text, safe=safe)


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
