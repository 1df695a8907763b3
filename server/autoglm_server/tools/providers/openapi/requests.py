"""From a call's arguments to the request, and from the answer to the output."""

from __future__ import annotations

import base64
import mimetypes
import re
from typing import Final

from autoglm._files import check_label
from autoglm.model import DOMAIN, ErrorReason, Failure, Json, JsonObject, ToolResult, Violation
from autoglm.wire import parse_json
from autoglm_server.tools.fields import member
from autoglm_server.tools.http.client import Answer, Request
from autoglm_server.tools.http.failures import refused_status, retry_after
from autoglm_server.tools.http.urls import parse_url
from autoglm_server.tools.providers.openapi import encoding
from autoglm_server.tools.providers.openapi.encoding import UnwritableError
from autoglm_server.tools.providers.openapi.operations import Operation, is_json
from autoglm_server.tools.providers.openapi.security import Headers, Shown
from autoglm_server.tools.references import invalid_arguments
from autoglm_server.tools.tool import ArtifactSink, ToolCallError

IDEMPOTENCY_KEY = "Idempotency-Key"
"""The header by which services know a repeated request."""
INLINE_BYTES_MAX: Final = 64 << 10
"""A file that is no larger stands in the output as well: a later step may want it for an argument."""

_FILE: Final[JsonObject] = {}
"""Stands for an answer that is no output, but a file."""
_FILE_NAME = re.compile(r'filename=(?:"([^"\\]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_KINDS = mimetypes.MimeTypes()  # without the files of the system: the same on every machine


def make_request(operation: Operation, arguments: JsonObject, shown: Shown, headers: Headers, key: str) -> Request:
    """Make the request of a call. ``shown`` are its credentials, ``headers`` of the settings, ``key`` to de-duplicate by.

    Raises:
        ToolCallError: INVALID_ARGUMENTS, an argument cannot be written.
        RefusedError: the URL it makes is none.
    """
    body = b""
    media_type = ""
    try:
        path = encoding.path(operation.path, operation.parameters, arguments)
        query, own, cookies = _written(operation, arguments)
        if operation.body is not None and "body" in arguments:
            media_type, body = operation.body.write(arguments["body"])
    except UnwritableError as error:
        fault = Violation(member("arguments", error.key), str(error), "REFUSED")
        raise ToolCallError(invalid_arguments([fault])) from None

    pairs = [*query, *shown.query]
    target = path + ("?" + "&".join(f"{name}={value}" for name, value in pairs) if pairs else "")
    all_headers = [*headers, *own, *shown.headers]
    if cookies or shown.cookies:
        all_headers.append(("Cookie", "; ".join([*cookies, *shown.cookies])))

    if media_type:
        all_headers.append(("Content-Type", media_type))

    names = {name.lower() for name, _ in all_headers}
    if "accept" not in names:
        all_headers.append(("Accept", "application/json, text/*;q=0.5, */*;q=0.1"))

    if key and operation.method not in ("GET", "HEAD", "OPTIONS") and IDEMPOTENCY_KEY.lower() not in names:
        all_headers.append((IDEMPOTENCY_KEY, key))

    return Request(operation.method, parse_url(operation.base + target), tuple(all_headers), body)


async def read_answer(
    answer: Answer, operation: Operation, tool: str, depth_max: int, artifacts: ArtifactSink
) -> ToolResult:
    """Give the result of a call: JSON as it is, text as text, nothing as null, all else as a file, which is described.

    Raises:
        ToolCallError: the service said no, what it says is JSON is none, or a file cannot be kept.
    """
    output = _output(answer, operation, tool, depth_max)
    if output is not _FILE:
        return ToolResult(output)

    media_type = answer.header("content-type").partition(";")[0].strip().lower()[:100]
    saved = await artifacts.save(_name(answer, operation, media_type), answer.body, media_type)
    about: JsonObject = {"media_type": media_type, "artifact": saved.name, "size_bytes": saved.size_bytes}
    if saved.size_bytes <= INLINE_BYTES_MAX:
        about["base64"] = base64.b64encode(answer.body).decode()

    return ToolResult(about, (saved,))


def _name(answer: Answer, operation: Operation, media_type: str) -> str:
    """Give a file's name: as the service says, if that is one, else of the operation and what it is."""
    found = _FILE_NAME.search(answer.header("content-disposition"))
    given = (found[1] or found[2]).rpartition("/")[2].strip() if found else ""
    if given and not check_label(given, media_type):
        return given

    return operation.tool.name + (_KINDS.guess_extension(media_type) or ".bin")


def _output(answer: Answer, operation: Operation, tool: str, depth_max: int) -> Json:
    media_type = answer.header("content-type")
    if not 200 <= answer.status < 300:
        after = retry_after(answer.header("retry-after"), answer.header("date"))
        told = answer.body[:4000].decode("utf-8", "replace") if _is_text(media_type) else ""
        raise ToolCallError(refused_status(answer.status, after, told, tool, operation.tool.effect))

    if not answer.body:
        return None

    if is_json(media_type):
        try:
            return parse_json(answer.body, depth_max=depth_max, bytes_max=len(answer.body))
        except ValueError as error:
            told = f"{tool} ended, but its answer is not the JSON it says it is: {error}"
            raise ToolCallError(Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, told)) from None

    try:
        if _is_text(media_type):
            return answer.body.decode()
    except UnicodeDecodeError:
        pass

    return _FILE


def _written(operation: Operation, arguments: JsonObject) -> tuple[encoding.Pairs, Headers, list[str]]:
    query: encoding.Pairs = []
    headers: Headers = []
    cookies: list[str] = []
    for parameter in operation.parameters:
        if parameter.key not in arguments:
            continue

        value = arguments[parameter.key]
        match parameter.place:
            case "query":
                query += encoding.query(parameter, value)
            case "header":
                headers.append((parameter.name, encoding.header(parameter, value)))
            case "cookie":
                cookies.append(encoding.cookie(parameter, value))
            case "path":
                pass

    return query, headers, cookies


def _is_text(media_type: str) -> bool:
    kind = media_type.partition(";")[0].strip().lower()
    return (
        not kind or kind.startswith("text/") or is_json(kind) or kind.endswith(("/xml", "+xml", "/javascript", "/yaml"))
    )
