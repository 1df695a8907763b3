"""LangChain: its tools as AutoGLM tools, and AutoGLM as LangChain tools. Needs the package ``langchain-core``.

In, in a file that a server is given as ``--provider NAME=python:FILE.py``::

    search = from_langchain(DuckDuckGoSearchRun(), effect=autoglm.Effect.READ_ONLY)

Out::

    agent = create_agent(model, tools=[plan_tool(client), *client_tools(client)])
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any, TypeAlias

from autoglm import wire
from autoglm.integrations import functions
from autoglm.integrations.functions import Caller
from autoglm.model import Effect, Json, JsonObject, PlanOptions, Tool, ToolResult
from autoglm.tool import FunctionTool, ToolContext, ToolError

BaseTool: TypeAlias = Any
"""A ``langchain_core.tools.BaseTool``; named here so that this module can be imported, and checked, without the package."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_PIP_LINE = "pip install langchain-core"


def from_langchain(
    tool: BaseTool,
    *,
    name: str = "",
    effect: Effect = Effect.NON_IDEMPOTENT,
    requires_approval: bool = False,
    timeout: timedelta | None = None,
    tags: Iterable[str] = (),
) -> FunctionTool:
    """Make an AutoGLM tool of a LangChain tool.

    LangChain does not say what a tool does to the world, so ``effect`` must; the default is the careful one, whose calls are
    never repeated by themselves. What the tool gives becomes JSON: as it is, if it is, else as text.

    Raises:
        ImportError: LangChain is not installed.
        TypeError: it is no LangChain tool, or its input has no JSON Schema.
    """
    if not isinstance(tool, _langchain().BaseTool):
        raise TypeError(f"{type(tool).__name__} is no LangChain tool; give an instance of BaseTool")

    return _LangChainTool(
        tool,
        Tool(
            name=name or _NOT_IN_NAMES.sub("_", tool.name),
            description=tool.description,
            input_schema=wire.canonical_json(_schema(tool)),
            effect=effect,
            requires_approval=requires_approval,
            timeout=timeout,
            tags=tuple(tags),
        ),
    )


def plan_tool(
    client: Caller, *, options: PlanOptions | None = None, description: str = "", timeout: float | None = None
) -> BaseTool:
    """Make a LangChain tool that runs a request in natural language as a plan, and gives its answer."""
    schema = functions.plan_schema(description)["function"]
    return _structured(schema, partial(functions.call, client, schema["name"], options=options, timeout=timeout))


def client_tools(client: Caller, *, timeout: float | None = None) -> list[BaseTool]:
    """Make a LangChain tool of each tool of a server that can be called without a person's approval."""
    return [
        _structured(
            schema["function"],
            partial(functions.call, client, schema["function"]["name"], timeout=timeout),
        )
        for schema in functions.tool_schemas(client)
    ]


class _LangChainTool(FunctionTool):
    """A tool whose function is a LangChain tool; its schema is not of a signature."""

    def __init__(self, tool: BaseTool, spec: Tool) -> None:  # the function's signature says nothing here
        async def invoke(arguments: JsonObject) -> Any:
            return await _invoke(tool, arguments)

        self.function = invoke
        self.run = "async"
        self._context = ""
        self.spec = spec
        self.__name__ = self.__qualname__ = spec.name
        self.__module__ = __name__
        self.__doc__ = spec.description

    def __repr__(self) -> str:
        return f"<tool {self.spec.name}: LangChain>"

    def keywords(self, arguments: JsonObject, context: ToolContext | None) -> dict[str, Any]:
        """Give the arguments as one: LangChain reads them itself."""
        del context
        return {"arguments": arguments}

    def result(self, returned: Any) -> ToolResult:
        """Give what LangChain's tool returned as a result: JSON as it is, all else as text."""
        return returned if isinstance(returned, ToolResult) else ToolResult(output=_plain(returned))


async def _invoke(tool: BaseTool, arguments: JsonObject) -> Any:
    failed = _langchain().ToolException

    try:
        return await tool.ainvoke(dict(arguments))
    except failed as error:
        raise ToolError(str(error) or "the tool failed", reason="TOOL_EXCEPTION") from None


def _plain(value: Any) -> Json:
    content = getattr(value, "content", None)

    if content is not None and hasattr(value, "tool_call_id"):
        value = content  # a ToolMessage

    try:
        return wire.parse_json(wire.canonical_json(value))
    except (TypeError, ValueError):
        return str(value)


def _schema(tool: BaseTool) -> JsonObject:
    said = tool.tool_call_schema
    schema: Any = said if isinstance(said, Mapping) else said.model_json_schema()
    return {key: value for key, value in schema.items() if key not in {"title", "description"}}


def _structured(schema: JsonObject, made: Callable[[JsonObject], str]) -> BaseTool:
    structured = _langchain().StructuredTool

    def run(**arguments: Any) -> str:
        return made(arguments)

    async def run_beside(**arguments: Any) -> str:
        return await asyncio.to_thread(made, arguments)

    found: BaseTool = structured.from_function(
        func=run,
        coroutine=run_beside,
        name=schema["name"],
        description=inspect.cleandoc(schema["description"]),
        args_schema=schema["parameters"],
    )
    return found


def _langchain() -> Any:
    try:
        return import_module("langchain_core.tools")
    except ImportError as error:
        raise ImportError(f"LangChain is not installed: {_PIP_LINE}", name="langchain_core") from error
