"""Files that operations take and give: forms of parts, bodies of bytes, answers that are no text."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("httpcore2", reason="needs the extra openapi: pip install 'open-autoglm[openapi]'")

from autoglm.model import CallContext, Failure, Json, ToolResult
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.openapi.files import FILE, multipart
from autoglm_server.tools.providers.openapi.operations import Choices
from autoglm_server.tools.providers.openapi.provider import OpenApiProvider, Source
from autoglm_server.tools.tool import Described, Invocation, ToolCallError
from tests.server.tools.http.serving import Handler, Seen, Served, always, answer, resolver, serving

PNG = b"\x89PNG\r\n\x1a\n\xff\x00"
BASE64 = base64.b64encode(PNG).decode()


def operation(name: str, content: Json, **more: Json) -> Json:
    body = {"required": True, "content": content}
    return {"post": {"operationId": name, "requestBody": body, "responses": {"200": {"description": "Done."}}, **more}}


PARTS = {
    "type": "object",
    "required": ["picture"],
    "properties": {
        "picture": {"$ref": "#/components/schemas/Bytes"},
        "more": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "either": {
            "oneOf": [
                {"type": "string", "contentMediaType": "application/pdf"},
                {"type": "array", "items": {"type": "string", "contentMediaType": "application/pdf"}},
            ]
        },
        "title": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "size": {"type": "object", "properties": {"w": {"type": "integer"}}},
        "profile": {"type": "string"},
    },
}
DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "Files", "version": "1"},
    "components": {"schemas": {"Bytes": {"type": "string", "format": "binary", "description": "A picture."}}},
    "paths": {
        "/parts": operation(
            "parts",
            {
                "multipart/form-data": {
                    "schema": PARTS,
                    "encoding": {"picture": {"contentType": "image/png"}, "profile": {"contentType": "text/x-profile"}},
                }
            },
        ),
        "/free": operation("free", {"multipart/form-data": {"schema": {"type": "object"}}}),
        "/bytes": operation("bytes", {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}),
        "/any": operation("any", {"*/*": {}}),
        "/both": operation("both", {"multipart/form-data": {"schema": PARTS}, "application/json": {"schema": {}}}),
        "/get": {"get": {"operationId": "get", "responses": {"200": {"description": "Bytes."}}}},
    },
}


@asynccontextmanager
async def files(folder: Path, handler: Handler) -> AsyncIterator[tuple[Catalog, Served]]:
    (folder / "files.json").write_text(json.dumps(DOCUMENT))
    async with serving(handler) as served:
        choices = Choices(server=f"http://files.example:{served.port}")
        names = resolver(files_example=["127.0.0.1"])
        catalog = Catalog([OpenApiProvider("files", Source(str(folder / "files.json"), choices), resolver=names)])
        await catalog.start()
        try:
            yield catalog, served
        finally:
            await catalog.stop()


async def call(catalog: Catalog, tool: str, body: Json = None, sink: Any = None) -> ToolResult:
    arguments = {} if tool == "get" else {"body": body}
    invocation = Invocation(f"files.{tool}", arguments, "plan/step", 5.0, CallContext(), artifacts=sink or Described())
    return await catalog.call(invocation)


def parts_of(seen: Seen) -> list[tuple[str, str | None, str | None, bytes]]:
    """Read a form of parts with the standard library: name, file name, media type and content of each."""
    return parsed(seen.headers["content-type"], seen.body)


def parsed(media_type: str, body: bytes) -> list[tuple[str, str | None, str | None, bytes]]:
    message = BytesParser().parsebytes(f"Content-Type: {media_type}\r\n\r\n".encode() + body)
    found = []
    for part in message.get_payload():
        assert isinstance(part, Message)
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        found.append((str(name), part.get_filename(), part["content-type"], data))

    return found


async def test_parts_are_written_as_the_document_says(tmp_path: Path) -> None:
    body = {
        "picture": {"base64": BASE64, "name": "me.png"},
        "more": ["a text", {"text": "b", "media_type": "text/csv"}],
        "either": {"base64": BASE64},
        "title": "Ä",
        "tags": ["x", "y"],
        "size": {"w": 3},
        "profile": "p",
    }
    async with files(tmp_path, always(answer(204))) as (catalog, served):
        await call(catalog, "parts", body)
        await call(catalog, "parts", body)

    assert parts_of(served.seen[0]) == [
        ("picture", "me.png", "image/png", PNG),
        ("more", "more", "text/plain; charset=utf-8", b"a text"),
        ("more", "more", "text/csv", b"b"),
        ("either", "either", "application/octet-stream", PNG),
        ("title", None, None, "Ä".encode()),
        ("tags", None, None, b"x"),
        ("tags", None, None, b"y"),
        ("size", None, "application/json", b'{"w":3}'),
        ("profile", None, "text/x-profile", b"p"),
    ]
    # A call that is made again is the same to the byte, boundary and all, as its key promises.
    assert served.seen[0].body == served.seen[1].body
    assert served.seen[0].headers["content-type"] == served.seen[1].headers["content-type"]


@pytest.mark.parametrize(
    ("tool", "body", "media_type", "data"),
    [
        ("bytes", {"base64": BASE64}, "application/octet-stream", PNG),
        ("bytes", "a text", "application/octet-stream", b"a text"),
        ("any", {"base64": BASE64, "media_type": "image/png"}, "image/png", PNG),
        ("any", "a text", "text/plain; charset=utf-8", b"a text"),
        ("both", {"json": "is preferred"}, "application/json", b'{"json":"is preferred"}'),
    ],
)
async def test_bodies_of_bytes(tmp_path: Path, tool: str, body: Json, media_type: str, data: bytes) -> None:
    async with files(tmp_path, always(answer(204))) as (catalog, served):
        await call(catalog, tool, body)

    assert (served.seen[0].headers["content-type"], served.seen[0].body) == (media_type, data)


@pytest.mark.parametrize(
    ("tool", "body", "told"),
    [
        ("bytes", {"base64": "%%%"}, "is not Base64"),
        ("bytes", {"name": "neither"}, "fits none of what is allowed"),
        ("bytes", 3, "fits none of what is allowed"),
        ("parts", {"picture": {"base64": "A"}}, "has the part 'picture', which is not Base64"),
        ("parts", {"picture": {"text": "a", "media_type": "text/a\r\nX: y"}}, "which is none"),
        ("parts", {"title": "no picture"}, "is required"),
    ],
)
async def test_what_is_no_file_is_refused_before_anything_is_sent(
    tmp_path: Path, tool: str, body: Json, told: str
) -> None:
    async with files(tmp_path, always(answer(204))) as (catalog, served):
        with pytest.raises(ToolCallError) as caught:
            await call(catalog, tool, body)

    failure: Failure = caught.value.failure
    assert failure.reason == "INVALID_ARGUMENTS"
    assert any(told in violation.description for violation in failure.violations), failure.violations
    assert served.seen == []


_CLEAN = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_CLEAN, st.binary(max_size=60)), max_size=4, unique_by=lambda pair: pair[0]))
def test_no_name_and_no_content_ends_a_part(pairs: list[tuple[str, bytes]]) -> None:
    value = {name: {"base64": base64.b64encode(data).decode(), "name": name} for name, data in pairs}
    media_type, body = multipart(value, frozenset(value), {})
    boundary = media_type.partition("boundary=")[2].encode()

    # As many boundaries as parts, each with two lines of head: nothing in a name or a content added one.
    assert body.count(b"--" + boundary) == len(pairs) + 1
    pieces = body.split(b"--" + boundary)[1:-1]
    assert [piece.partition(b"\r\n\r\n")[2][:-2] for piece in pieces] == [data for _, data in pairs]
    assert all(piece.partition(b"\r\n\r\n")[0].count(b"\r\n") == 2 for piece in pieces)


async def test_an_answer_of_bytes_is_a_file(tmp_path: Path) -> None:
    kept: list[tuple[str, Any, str]] = []

    class Sink(Described):
        async def save(self, name: str, content: Any, media_type: str = "") -> Any:
            kept.append((name, content, media_type))
            return await super().save(name, content, media_type)

    headers = [("Content-Type", "image/png")]
    named = [*headers, ("Content-Disposition", 'attachment; filename="../../of me.png"')]
    answers = [answer(200, PNG, headers), answer(200, PNG * 10_000, named)]

    async def handle(_seen: Seen, writer: Any) -> None:
        writer.write(answers.pop(0))

    async with files(tmp_path, handle) as (catalog, _):
        small = await call(catalog, "get", sink=Sink())
        large = await call(catalog, "get", sink=Sink())

    assert small.output == {"media_type": "image/png", "artifact": "get.png", "size_bytes": len(PNG), "base64": BASE64}
    assert large.output == {"media_type": "image/png", "artifact": "of me.png", "size_bytes": 100_000}
    assert [artifact.name for artifact in (*small.artifacts, *large.artifacts)] == ["get.png", "of me.png"]
    assert kept == [("get.png", PNG, "image/png"), ("of me.png", PNG * 10_000, "image/png")]


async def test_what_was_answered_with_can_be_given_on(tmp_path: Path) -> None:
    """A small file's output is a file in arguments: one step's answer is another's body."""

    async def handle(seen: Seen, writer: Any) -> None:
        writer.write(answer(204) if seen.method == "POST" else answer(200, PNG, [("Content-Type", "image/png")]))

    async with files(tmp_path, handle) as (catalog, served):
        given_on = (await call(catalog, "get")).output
        await call(catalog, "any", given_on)

    assert (served.seen[1].headers["content-type"], served.seen[1].body) == ("image/png", PNG)
    assert FILE["anyOf"]
