"""AutoGLM for programs that talk to a model themselves: function schemas as OpenAI's protocol has them, and their calls.

::

    tools = [functions.plan_schema(), *functions.tool_schemas(client)]
    ...                                                   # give them to a model as `tools`; it asks for calls
    text = functions.call(client, call.function.name, call.function.arguments)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from autoglm import wire
from autoglm.errors import AutoglmError, InvalidRequestError, PlanEndedError, ToolFailedError
from autoglm.model import Json, JsonObject, Plan, PlanOptions, Tool, ToolResult

PLAN_FUNCTION: Final = "autoglm_run"
"""What the function is called that runs a whole request as a plan."""

_SEPARATOR = "__"
"""Stands for the dot in a tool's name, which functions' names may not have."""


class _Tools(Protocol):
    def list(self) -> Iterable[Tool]: ...

    def call(self, name: str, arguments: JsonObject | None = None, *, timeout: float | None = None) -> ToolResult: ...


class _Handle(Protocol):
    def result(self, timeout: float | None = None) -> Plan: ...


class Caller(Protocol):
    """What is needed of a client; :class:`autoglm.Client` is one."""

    @property
    def tools(self) -> _Tools: ...

    def run(self, request: str = "", *, options: PlanOptions | None = None) -> _Handle: ...


def plan_schema(description: str = "") -> JsonObject:
    """Give the schema of a function that runs a request in natural language as a durable plan, and gives its answer."""
    told = description or (
        "Carry out a request in natural language that takes several steps: plans it, calls tools in parallel, and answers."
    )
    parameters = {
        "type": "object",
        "properties": {"request": {"type": "string", "description": "What is wanted, with everything that is needed."}},
        "required": ["request"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": PLAN_FUNCTION, "description": told, "parameters": parameters}}


def tool_schema(tool: Tool) -> JsonObject:
    """Give a tool's schema as a function."""
    return {
        "type": "function",
        "function": {
            "name": tool.name.replace(".", _SEPARATOR),
            "description": tool.description or tool.title,
            "parameters": wire.parse_json(tool.input_schema or '{"type":"object"}'),
        },
    }


def tool_schemas(client: Caller) -> list[JsonObject]:
    """Give the schemas of every tool that can be called without a person's approval."""
    return [tool_schema(tool) for tool in client.tools.list() if tool.available and not tool.requires_approval]


def call(
    client: Caller,
    name: str,
    arguments: str | JsonObject,
    *,
    options: PlanOptions | None = None,
    timeout: float | None = None,
) -> str:
    """Make a call that a model asked for, and give what the model is to be told of it.

    Args:
        client: where plans and tools are.
        name: the function's name.
        arguments: its arguments; text is read as JSON.
        options: how a plan runs.
        timeout: how long to wait, in seconds; None waits as long as a plan or the client's own limit says.

    A failure is told as text, since the model may find another way; that no server can be reached is raised.

    Raises:
        AutoglmError: the server could not be asked.
    """
    try:
        given = wire.parse_json(arguments or "{}") if isinstance(arguments, str) else arguments
    except ValueError as error:
        return f"error: the arguments are {error}"

    if not isinstance(given, dict):
        return "error: the arguments must be an object"

    try:
        if name == PLAN_FUNCTION:
            return _answer(client.run(str(given.get("request", "")), options=options).result(timeout))

        return _text(client.tools.call(name.replace(_SEPARATOR, "."), given, timeout=timeout).output)
    except PlanEndedError as error:
        return f"error: {error.message}"
    except (InvalidRequestError, ToolFailedError) as error:
        return f"error: {told(error)}"


def told(error: AutoglmError) -> str:
    """Give an error with its violations, in a line."""
    faults = "; ".join(f"{fault.field}: {fault.description}" for fault in error.violations)
    return f"{error.message} ({faults})" if faults and faults not in error.message else error.message


def _answer(plan: Plan) -> str:
    return plan.answer or _text(plan.output)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else wire.canonical_json(value)
