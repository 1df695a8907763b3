"""Files in arguments, and bodies that are made of them: of bytes alone, or of parts (``multipart/form-data``).

A file is a text, or ``{"base64"}`` or ``{"text"}`` with a name and a media type if they matter. What a call answered with
bytes can be given on as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeGuard

from autoglm._dataclasses import dataclass
from autoglm.model import Json, JsonObject

_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?:; ?[A-Za-z0-9-]+=[A-Za-z0-9_.-]+)*")
_DEPTH_MAX: Final = 8
_NAME_MAX: Final = 200

FILE: Final[JsonObject] = {
    "description": 'A file: its text, or {"base64": …} with its bytes.',
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {
                "base64": {"type": "string"},
                "text": {"type": "string"},
                "name": {"type": "string", "maxLength": _NAME_MAX},
                "media_type": {"type": "string", "maxLength": _NAME_MAX},
            },
            "oneOf": [{"required": ["base64"]}, {"required": ["text"]}],
        },
    ],
}
"""The JSON Schema of a file in arguments."""


def described(about: Json) -> JsonObject:
    """Give the schema of a file of which a document says ``about``."""
    told = str(FILE["description"])
    return {**FILE, "description": f"{about.strip()} {told}" if isinstance(about, str) and about.strip() else told}


class FileError(ValueError):
    """A value is no file; the message is the end of a sentence that begins with its name."""


@dataclass(frozen=True, slots=True)
class FileValue:
    """A file as it is sent."""

    data: bytes
    name: str
    media_type: str


def file_of(value: Json, name: str, media_type: str = "") -> FileValue:
    """Give the file that an argument is; ``name`` and ``media_type`` are for one that says none.

    Raises:
        FileError: it is none.
    """
    if isinstance(value, str):
        return FileValue(value.encode(), name, media_type or _TEXT)

    if not isinstance(value, dict):
        raise FileError("must be a text, or an object with base64 or text")

    given = str(value.get("media_type") or media_type)
    if given and not is_media_type(given):
        raise FileError(f"has the media type {given[:60]!r}, which is none")

    called = str(value.get("name") or name)[:_NAME_MAX]
    if isinstance(text := value.get("text"), str):
        return FileValue(text.encode(), called, given or _TEXT)

    try:
        data = base64.b64decode(str(value.get("base64", "")), validate=True)
    except (binascii.Error, ValueError):
        raise FileError("is not Base64") from None

    return FileValue(data, called, given or _BYTES)


def is_media_type(value: object) -> TypeGuard[str]:
    """Whether a value is one media type, without wildcards."""
    return isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) is not None


def with_files(schema: Json, at: Callable[[str], JsonObject | None], depth: int = 0) -> tuple[Json, bool]:
    """Give a part's schema with ``FILE`` where it says that bytes stand, and whether it says so anywhere.

    ``at`` gives the schema that a reference leads to, if it leads anywhere.
    """
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return schema, False

    reference = schema.get("$ref")
    meant = (at(reference) or schema) if isinstance(reference, str) else schema
    if _is_bytes(meant):
        return described(meant.get("description")), True

    made, found = dict(meant), False
    for key in ("anyOf", "oneOf"):
        if isinstance(members := meant.get(key), list):
            read = [with_files(member, at, depth + 1) for member in members]
            # A text is one of several of them, and a file may be a text.
            made.pop(key)
            made["anyOf"] = [member for member, _ in read]
            found = found or any(is_file for _, is_file in read)

    if "items" in meant:
        made["items"], is_file = with_files(meant["items"], at, depth + 1)
        found = found or is_file

    return (made, True) if found else (schema, False)


def multipart(value: Json, files: frozenset[str], media_types: Mapping[str, str]) -> tuple[str, bytes]:
    """Give the media type and the bytes of a form of parts; ``media_types`` are what the document says of parts, by name.

    The boundary is made of what stands between: the same call has the same bytes each time.

    Raises:
        FileError: a part is no file, and must be one.
    """
    parts = list(_parts(value, files, media_types))
    hashed = hashlib.sha256()
    for head, data in parts:
        hashed.update(head + data)

    boundary = f"part-{hashed.hexdigest()[:32]}"
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts)
    return f"multipart/form-data; boundary={boundary}", body + line + b"--\r\n"


def _parts(value: Json, files: frozenset[str], media_types: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    for name, inner in (value if isinstance(value, dict) else {}).items():
        several: Iterable[Json] = inner if isinstance(inner, list) else [inner]
        for each in several:
            yield _part(name, each, media_types.get(name, ""), is_file=name in files)


def _part(name: str, value: Json, media_type: str, *, is_file: bool) -> tuple[bytes, bytes]:
    if is_file:
        try:
            file = file_of(value, name, media_type)
        except FileError as error:
            raise FileError(f"has the part {name[:60]!r}, which {error}") from None

        head = f'Content-Disposition: form-data; name="{_quoted(name)}"; filename="{_quoted(file.name)}"'
        return f"{head}\r\nContent-Type: {file.media_type}".encode(), file.data

    head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
    if isinstance(value, dict | list):
        return f"{head}\r\nContent-Type: {media_type or 'application/json'}".encode(), _json(value).encode()

    text = value if isinstance(value, str) else "" if value is None else _json(value)
    return (f"{head}\r\nContent-Type: {media_type}" if media_type else head).encode(), text.encode()


def _is_bytes(schema: JsonObject) -> bool:
    """Whether a schema means bytes: ``format: binary`` of 3.0, or a content without an encoding of 3.1."""
    if schema.get("format") == "binary":
        return True

    media_type = schema.get("contentMediaType")
    return isinstance(media_type, str) and "contentEncoding" not in schema and not media_type.endswith("json")


def _quoted(text: str) -> str:
    """Write a name as browsers do: what would end it, or the line, is escaped."""
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
