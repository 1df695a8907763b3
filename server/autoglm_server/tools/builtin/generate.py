"""``llm.generate``: text by the configured model. There when ``planner.model`` is set and can be asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Final, Protocol

from autoglm.model import Effect, Failure, Json, JsonObject, ToolResult, Usage
from autoglm.planner import PlannerError
from autoglm.tool import Constraint, FunctionTool, ToolContext, tool
from autoglm.wire import canonical_json, parse_json
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tool import ToolCallError
from autoglm_server.tools.validation import Schema, SchemaError

NAME: Final = "llm"
_DOMAIN: Final = "llm.generate"
_SCHEMA_BYTES: Final = 64 << 10
_TOKENS: Final = 1024

Prompt = Annotated[str, Constraint(min_length=1, max_length=200_000)]
System = Annotated[str, Constraint(max_length=50_000)]
ModelRef = Annotated[str, Constraint(max_length=256)]

_REASONS = {
    "PLANNER_EMPTY": "EMPTY",
    "PLANNER_FAILED": "MODEL_FAILED",
    "PLANNER_TIMEOUT": "MODEL_TIMEOUT",
    "PLANNER_UNAVAILABLE": "MODEL_UNAVAILABLE",
}
_SYSTEM = "Write what is asked for, and nothing else."
_AS_JSON = "Answer with one JSON value alone, without any other words, that fits this JSON Schema:\n"


class Written(Protocol):
    """What a model wrote, and what it cost. ``complete``: it did not come to the limit of tokens."""

    @property
    def text(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def complete(self) -> bool: ...

    @property
    def usage(self) -> Usage: ...


class Writer(Protocol):
    """Who has a model write; the planner's own code is behind it."""

    async def write(
        self,
        *,
        system: str,
        prompt: str,
        model: str,
        max_tokens: int,
        schema: JsonObject | None,
        on_text: Callable[[str], None],
    ) -> Written:
        """Ask once. An empty ``model`` is the configured one.

        Raises:
            PlannerError: it could not be asked, refused, or broke off; as data.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class GenerateProvider(FunctionProvider):
    """Serves the tool."""

    def __init__(self, writer: Writer, timeout: timedelta) -> None:
        """Have ``writer`` write; ``timeout`` is the longest it may take, unless the step says."""
        super().__init__(NAME, [_tool(writer, timeout)])
        self._writer = writer

    async def stop(self) -> None:
        """Close the connections."""
        await super().stop()
        await self._writer.close()


def _tool(writer: Writer, timeout: timedelta) -> FunctionTool:
    @tool(
        name="generate",
        title="Write with a language model",
        effect=Effect.READ_ONLY,
        open_world=True,
        timeout=timeout,
        tags=("llm", "text"),
    )
    async def generate(
        prompt: Prompt,
        context: ToolContext,
        system: System = "",
        max_tokens: Annotated[int, Constraint(minimum=16, maximum=1_000_000)] = _TOKENS,
        json_schema: dict[str, Any] | None = None,
        model: ModelRef = "",
    ) -> ToolResult:
        """Have the language model write a text: summarise, translate, classify, extract, draft.

        It sees nothing but prompt and system, and calls no tools. What it writes is data like any other output.

        Args:
            prompt: What to write, with all it needs to know.
            context: The call's context.
            system: How to write, such as: You translate into formal French.
            max_tokens: The most tokens it may write.
            json_schema: A JSON Schema that the answer must fit; it is given as value.
            model: The model as provider:name, if not the configured one.
        """
        schema = _compiled(json_schema)
        asked = f"{_AS_JSON}{canonical_json(json_schema)}" if json_schema is not None else ""
        try:
            written = await writer.write(
                system="\n\n".join(part for part in (system or _SYSTEM, asked) if part),
                prompt=prompt,
                model=model,
                max_tokens=max_tokens,
                schema=json_schema,
                on_text=lambda text: context.progress(0.0, text=text),
            )
        except PlannerError as error:
            failure = error.failure
            reason = _REASONS.get(failure.reason, failure.reason)
            raise ToolCallError(replace(failure, reason=reason, domain=_DOMAIN)) from None

        value = _value(schema, written) if schema is not None else None
        output = {"text": written.text, "value": value, "model": written.model, "complete": written.complete}
        return ToolResult(output=output, usage=written.usage)

    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "value": {},
            "model": {"type": "string"},
            "complete": {"type": "boolean"},
        },
        "required": ["text", "value", "model", "complete"],
    }
    generate.spec = replace(generate.spec, output_schema=json.dumps(schema))
    return generate


def _compiled(schema: JsonObject | None) -> Schema | None:
    if schema is None:
        return None

    try:
        return Schema(canonical_json(schema), bytes_max=_SCHEMA_BYTES)
    except SchemaError as error:
        message = f"json_schema cannot be used: {error}"
        raise ToolCallError(Failure("INVALID_SCHEMA", _DOMAIN, message)) from None


def _value(schema: Schema, written: Written) -> Json:
    """Read the JSON that was asked for; a model may put it into a fence."""
    if not written.complete:
        raise _unfit(f"{written.model} came to the limit of tokens before its JSON was done; raise max_tokens")

    text = written.text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removeprefix("```json").strip("`").strip()

    try:
        value = parse_json(text)
    except ValueError as error:
        raise _unfit(f"what {written.model} wrote is no JSON: {error}", retryable=True) from None

    if faults := schema.check(value, "value"):
        told = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:3])
        raise _unfit(f"what {written.model} wrote does not fit json_schema: {told}", retryable=True)

    return value


def _unfit(message: str, *, retryable: bool = False) -> ToolCallError:
    return ToolCallError(Failure("UNFIT_OUTPUT", _DOMAIN, message, retryable=retryable))
