"""``llm.generate``: text by the configured model. There when ``planner.model`` is set and can be asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, Final, Protocol

from autoglm._dataclasses import dataclass
from autoglm.model import Effect, Failure, Json, JsonObject, ToolResult, Usage
from autoglm.planner import PlannerError
from autoglm.tool import Constraint, FunctionTool, ToolContext, tool
from autoglm.wire import canonical_json, parse_json
from autoglm_server.tools.builtin._fitting import Fitting
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tool import Invocation, ToolCallError
from autoglm_server.tools.validation import SchemaError

NAME: Final = "llm"
_DOMAIN: Final = "llm.generate"
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
_SPENT: Final[ContextVar[Callable[[Usage], None]]] = ContextVar("spent")
"""Who counts what the call of this task used in vain."""
_AS_JSON = "Answer with one JSON value alone, without any other words, that fits this JSON Schema:\n"


class Written(Protocol):
    """What a model wrote. ``complete``: it did not come to the limit of tokens."""

    @property
    def text(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def complete(self) -> bool: ...


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
        on_usage: Callable[[Usage], None],
    ) -> Written:
        """Ask once. An empty ``model`` is the configured one. ``on_usage`` is told what it cost, however it ended.

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
        self._fitting = Fitting()
        super().__init__(NAME, [_tool(writer, timeout, self._fitting)])
        self._writer = writer

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call; see :class:`~autoglm_server.tools.tool.Provider`."""
        _SPENT.set(invocation.spent)
        return await super().call(invocation)

    async def stop(self) -> None:
        """Close the connections."""
        await super().stop()
        await self._fitting.stop()
        await self._writer.close()


@dataclass(slots=True)
class _Cost:
    """What a call used."""

    usage: Usage | None = None

    def add(self, usage: Usage) -> None:
        self.usage = usage


@contextmanager
def _counted() -> Iterator[_Cost]:
    """Have what a call used counted, too, when it then gives no result: it fails, or is stopped."""
    cost = _Cost()
    try:
        yield cost
    except BaseException:
        if cost.usage is not None:
            _SPENT.get()(cost.usage)

        raise


def _tool(writer: Writer, timeout: timedelta, fitting: Fitting) -> FunctionTool:
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
        asked = ""
        if json_schema is not None:
            asked = f"{_AS_JSON}{canonical_json(json_schema)}"
            await _faults(fitting, json_schema)

        with _counted() as cost:
            try:
                written = await writer.write(
                    system="\n\n".join(part for part in (system or _SYSTEM, asked) if part),
                    prompt=prompt,
                    model=model,
                    max_tokens=max_tokens,
                    schema=json_schema,
                    on_text=lambda text: context.progress(0.0, text=text),
                    on_usage=cost.add,
                )
            except PlannerError as error:
                failure = error.failure
                reason = _REASONS.get(failure.reason, failure.reason)
                raise ToolCallError(replace(failure, reason=reason, domain=_DOMAIN)) from None

            value = await _value(fitting, json_schema, written) if json_schema is not None else None

        output = {"text": written.text, "value": value, "model": written.model, "complete": written.complete}
        return ToolResult(output=output, usage=cost.usage)

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


async def _faults(fitting: Fitting, schema: JsonObject, text: str = "") -> list[str]:
    try:
        return await fitting.faults(schema, text)
    except SchemaError as error:
        message = f"json_schema cannot be used: {error}"
        raise ToolCallError(Failure("INVALID_SCHEMA", _DOMAIN, message)) from None


async def _value(fitting: Fitting, schema: JsonObject, written: Written) -> Json:
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

    if faults := await _faults(fitting, schema, text):
        raise _unfit(f"what {written.model} wrote does not fit json_schema: {'; '.join(faults)}", retryable=True)

    return value


def _unfit(message: str, *, retryable: bool = False) -> ToolCallError:
    return ToolCallError(Failure("UNFIT_OUTPUT", _DOMAIN, message, retryable=retryable))
