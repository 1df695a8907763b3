"""What MCP says in our words: its tools as tools, its results as results, its errors as failures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

import mcp_types as types

from autoglm._files import MEDIA_TYPE_MAX
from autoglm.model import DOMAIN, Artifact, Effect, ErrorReason, Failure, Tool, ToolProgress, ToolResult, Violation
from autoglm_server.tools.failures import one_line, raised
from autoglm_server.tools.providers.mcp.link import Trouble, trouble_of
from autoglm_server.tools.tool import ToolCallError

TOOLS_MAX: Final = 10_000
ARTIFACTS_MAX: Final = 256
_DESCRIPTION_MAX: Final = 8192
_TITLE_MAX: Final = 200
_NAME_MAX: Final = 128

_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9_.-]")
_BAD_BEGINNING = re.compile(r"^[.-]")


def tools_of(listed: Iterable[types.Tool]) -> dict[str, tuple[Tool, str]]:
    """Give each tool by the name it has here, with the name it has there. Of two with one name, the first."""
    found: dict[str, tuple[Tool, str]] = {}
    for tool in listed:
        if len(found) < TOOLS_MAX:
            mapped = _tool(tool)
            found.setdefault(mapped.name, (mapped, tool.name))

    return found


def _tool(tool: types.Tool) -> Tool:
    hints = tool.annotations or types.ToolAnnotations()
    read_only = hints.read_only_hint is True
    effect = Effect.IDEMPOTENT if hints.idempotent_hint is True else Effect.NON_IDEMPOTENT
    return Tool(
        name=_name(tool.name),
        title=one_line(tool.title or hints.title or "", _TITLE_MAX),
        description=(tool.description or "").strip()[:_DESCRIPTION_MAX],
        input_schema=_text(tool.input_schema),
        output_schema="" if tool.output_schema is None else _text(tool.output_schema),
        effect=Effect.READ_ONLY if read_only else effect,
        destructive=hints.destructive_hint is True and not read_only,
        open_world=hints.open_world_hint is True,
        available=True,
    )


def _name(name: str) -> str:
    return _BAD_BEGINNING.sub("_", _OTHER_CHARACTERS.sub("_", name))[:_NAME_MAX] or "_"


def _text(schema: Mapping[str, object]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def progress_of(progress: float, total: float | None, message: str | None) -> ToolProgress:
    """Give a report of progress; without a total it is no fraction of anything, and travels as it is."""
    if total is not None and total > 0:
        return ToolProgress(min(max(progress / total, 0.0), 1.0), message or "")

    return ToolProgress(0.0, message or "", {"progress": progress})


# --- results


def result_of(name: str, result: types.CallToolResult) -> tuple[ToolResult, Mapping[str, bytes]]:
    """Give a result: the structured content, else the texts; what else there is, described, and its content by name.

    Raises:
        ToolCallError: the tool says that it failed.
    """
    texts, artifacts, notes, contents = _contents(result.content)
    if result.is_error:
        message = "\n".join(texts) or "the tool failed and did not say why"
        raise ToolCallError(Failure("FAILED", name, message))

    if result.structured_content is not None or "structured_content" in result.model_fields_set:
        return ToolResult(result.structured_content, tuple(artifacts)), contents

    return ToolResult("\n".join([*texts, *notes]), tuple(artifacts)), contents


def _contents(
    blocks: Iterable[types.ContentBlock],
) -> tuple[list[str], list[Artifact], list[str], dict[str, bytes]]:
    """Sort contents into texts, descriptions of what is no text, a note on each of these, and what they hold."""
    texts: list[str] = []
    contents: dict[str, bytes] = {}
    artifacts: list[Artifact] = []
    notes: list[str] = []
    for block in blocks:
        text = _text_in(block)
        if text is not None:
            texts.append(text)
            continue

        found, content = _artifact(block, artifacts)
        kind = found.media_type or "of no known type"
        what = "a link, which is not followed" if content is None else f"{found.size_bytes} bytes"
        notes.append(f"[{found.name}: {kind}, {what}]")
        if len(artifacts) < ARTIFACTS_MAX:
            artifacts.append(found)
            if content is not None:
                contents[found.name] = content

    return texts, artifacts, notes, contents


def _text_in(block: types.ContentBlock) -> str | None:
    match block:
        case types.TextContent(text=text) | types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text

        case _:
            return None


def _artifact(block: types.ContentBlock, others: list[Artifact]) -> tuple[Artifact, bytes | None]:
    """Describe what is no text, and give its content, if it is there."""
    match block:
        case types.ImageContent(data=data, mime_type=kind):
            return _described(others, f"image-{len(others) + 1}", kind, data)

        case types.AudioContent(data=data, mime_type=kind):
            return _described(others, f"audio-{len(others) + 1}", kind, data)

        case types.ResourceLink(uri=uri, mime_type=kind_told, size=size):
            return Artifact(_unique(others, uri), one_line(kind_told or "", MEDIA_TYPE_MAX), max(size or 0, 0)), None

        case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
            return _described(others, resource.uri, resource.mime_type or "", resource.blob)

        case _:
            raise AssertionError("texts were taken before")


def _described(others: list[Artifact], name: str, kind: str, data: str) -> tuple[Artifact, bytes]:
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        content = data.encode("utf-8", "replace")

    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Artifact(_unique(others, name), one_line(kind, MEDIA_TYPE_MAX), len(content), digest), content


def _unique(others: list[Artifact], name: str) -> str:
    name = one_line(name, _TITLE_MAX) or "file"
    names = {other.name for other in others}
    return name if name not in names else f"{name} ({len(others) + 1})"


# --- failures


def failure_of(name: str, effect: Effect, error: types.ErrorData, *, lost: bool) -> Failure:
    """Give the failure that an error of the protocol is; ``lost`` says that the connection has ended."""
    message = error.message
    repeatable = effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
    match trouble_of(error.code, error.data):
        case Trouble.UNREACHABLE:
            told = f"the server of {name} was not called: {message}"
            return Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True)

        case Trouble.TOO_LARGE:
            told = f"{name} ended, but its output cannot be used: {message}"
            return Failure(ErrorReason.OUTPUT_TOO_LARGE.name, DOMAIN, told)

        case Trouble.LOST:
            return _lost(name, message, repeatable=repeatable)

        case None:
            pass

    if lost and "exceeded the" in message:
        told = f"{name} ended, but its output cannot be used: {message}"
        return Failure(ErrorReason.OUTPUT_TOO_LARGE.name, DOMAIN, told)

    if lost:
        return _lost(name, message, repeatable=repeatable)

    match error.code:
        case types.INVALID_PARAMS:
            fault = Violation("arguments", one_line(message, 300), "REFUSED")
            told = f"{name} refused its arguments: {message}"
            return Failure(ErrorReason.INVALID_ARGUMENTS.name, DOMAIN, told, violations=(fault,))

        case types.METHOD_NOT_FOUND:
            return Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, f"{name}: {message}", retryable=True)

        case types.PARSE_ERROR:
            told = f"{name} ended, but its output cannot be used: {message}"
            return Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, told)

        case code:
            return raised(f"MCP error {code}", message, effect, deterministic=False)


def _lost(name: str, message: str, *, repeatable: bool) -> Failure:
    told = f"the connection to the server of {name} ended in the middle of the call: {message}"
    return Failure(ErrorReason.CONNECTION_LOST.name, DOMAIN, told, retryable=repeatable, outcome_unknown=True)
