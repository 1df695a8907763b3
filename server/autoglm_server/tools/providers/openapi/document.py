"""An OpenAPI document: read from bytes, within bounds, and its local references followed. No other document is fetched."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn
from urllib.parse import unquote

import yaml

from autoglm.model import Json, JsonObject

BYTES_MAX: Final = 32 << 20
"""The largest document."""
_NODES_MAX = 2_000_000
_DEPTH_MAX = 200
_HOPS_MAX = 32

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """A document, or a part of it, cannot be used; the message is a sentence about it."""


class Document:
    """A document of OpenAPI 3.0 or 3.1."""

    def __init__(self, root: JsonObject) -> None:
        """Take the document.

        Raises:
            DocumentError: it is not of a version that is known.
        """
        version = root.get("openapi")
        if not isinstance(version, str) or not re.fullmatch(r"3\.[01]\.\d+.*", version):
            if "swagger" in root:
                raise DocumentError("it is Swagger 2.0; convert it to OpenAPI 3 first")

            raise DocumentError(f"its key «openapi» is {version!r}; 3.0 and 3.1 are understood")

        self.root = root
        self.is_30 = version.startswith("3.0")

    def resolved(self, value: Json) -> JsonObject:
        """Give the object that ``value`` is, or refers to.

        Raises:
            DocumentError: it refers to another document, to nothing, or in a circle.
        """
        for _ in range(_HOPS_MAX):
            if not isinstance(value, dict):
                raise DocumentError(f"an object is expected where {json.dumps(value)[:60]} stands")

            reference = value.get("$ref")
            if not isinstance(reference, str):
                return value

            value = self.at(reference)

        raise DocumentError("a reference leads to itself")

    def at(self, reference: str) -> Json:
        """Give what a local reference points to.

        Raises:
            DocumentError: it is none, or points to nothing.
        """
        if not reference.startswith("#"):
            raise DocumentError(f"it refers to {reference[:100]!r}; only references inside the document are followed")

        value: Any = self.root
        for part in unquote(reference[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                raise DocumentError(f"{reference[:100]!r} points to nothing")

        found: Json = value
        return found


def parse(data: bytes) -> Document:
    """Read a document, JSON or YAML.

    Raises:
        DocumentError: it is neither, too large, or no OpenAPI document that is understood.
    """
    if len(data) > BYTES_MAX:
        raise DocumentError(f"it is larger than {BYTES_MAX} bytes")

    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_constant) if text.lstrip().startswith("{") else _from_yaml(text)
    except UnicodeDecodeError:
        raise DocumentError("it is not UTF-8") from None
    except RecursionError:
        raise DocumentError("it is nested too deep") from None
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise DocumentError(
            f"it is not YAML{where}: {getattr(error, 'problem', None) or 'it cannot be read'}"
        ) from None
    except (ValueError, KeyError, OverflowError) as error:
        raise DocumentError(f"it cannot be read: {error}") from None

    if not isinstance(value, dict):
        raise DocumentError("it is not an object")

    return Document(value)


class _Loader(_Base):  # type: ignore[misc]
    """YAML as JSON has it: no dates, and no booleans but true and false."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":bool"))]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False|TRUE|FALSE)$"), list("tTfF")
)


def _from_yaml(text: str) -> Json:
    return _Plain().of(yaml.load(text, Loader=_Loader), 0)  # noqa: S506  # it is a safe loader


class _Plain:
    """Makes JSON of what YAML gave, and counts: what aliases repeat counts every time."""

    def __init__(self) -> None:
        self._left = _NODES_MAX

    def of(self, value: Any, depth: int) -> Json:
        self._left -= 1
        if self._left < 0 or depth > _DEPTH_MAX:
            raise DocumentError("it is too large, or nested too deep, once its aliases are followed")

        if isinstance(value, dict):
            return {_key(key): self.of(inner, depth + 1) for key, inner in value.items()}

        if isinstance(value, list):
            return [self.of(inner, depth + 1) for inner in value]

        if value is None or isinstance(value, str | bool | int | float):
            return value

        raise DocumentError(f"it has a value of the kind {type(value).__name__}, which JSON has not")


def _key(key: object) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"

    return str(key)


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
