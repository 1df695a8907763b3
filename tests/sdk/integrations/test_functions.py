"""Function schemas and their calls, over a scripted client; the same over the real server is an example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from autoglm.errors import InvalidRequestError, PlanFailedError, ToolFailedError
from autoglm.integrations import functions
from autoglm.model import Failure, JsonObject, Plan, PlanOptions, PlanState, Tool, ToolResult, Violation


@dataclass
class Handle:
    plan: Plan

    def result(self, timeout: float | None = None) -> Plan:
        if self.plan.state is PlanState.FAILED:
            raise PlanFailedError(self.plan)

        return self.plan


@dataclass
class Tools:
    error: Exception | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def list(self) -> Iterable[Tool]:
        schema = '{"type":"object","properties":{"a":{"type":"integer"}}}'
        yield Tool("math.add", description="Add.", input_schema=schema, available=True)
        yield Tool("mail.send", available=True, requires_approval=True)
        yield Tool("gone", available=False)

    def call(self, name: str, arguments: JsonObject | None = None, *, timeout: float | None = None) -> ToolResult:
        self.calls.append((name, arguments))
        if self.error:
            raise self.error

        return ToolResult({"sum": 3})


@dataclass
class Client:
    plan: Plan = field(default_factory=lambda: Plan(state=PlanState.SUCCEEDED, answer="It is 3."))
    tools: Tools = field(default_factory=Tools)
    asked: list[tuple[str, PlanOptions | None]] = field(default_factory=list)

    def run(self, request: str = "", *, options: PlanOptions | None = None) -> Handle:
        self.asked.append((request, options))
        return Handle(self.plan)


def test_schemas() -> None:
    (schema,) = functions.tool_schemas(Client())
    assert schema == {
        "type": "function",
        "function": {
            "name": "math__add",
            "description": "Add.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
    assert functions.plan_schema("Do it.")["function"]["description"] == "Do it."
    assert functions.plan_schema()["function"]["parameters"]["required"] == ["request"]


def test_calls() -> None:
    client = Client()
    assert functions.call(client, "autoglm_run", '{"request":"1 + 2"}', options=PlanOptions(model="m")) == "It is 3."
    assert client.asked == [("1 + 2", PlanOptions(model="m"))]
    assert functions.call(client, "math__add", {"a": 1}) == '{"sum":3}'
    assert client.tools.calls == [("math.add", {"a": 1})]
    assert functions.call(client, "math__add", "") == '{"sum":3}'


def test_failures_are_told_to_the_model() -> None:
    assert functions.call(Client(), "x", "{").startswith("error: the arguments are not JSON")
    assert functions.call(Client(), "x", "[]") == "error: the arguments must be an object"
    failed = Plan(id="p", state=PlanState.FAILED, failure=Failure("X", "autoglm", "it did not work"))
    assert "it did not work" in functions.call(Client(failed), "autoglm_run", {"request": "x"})
    refused = InvalidRequestError.of([Violation("arguments.a", "must be an integer", "TYPE")])
    assert "arguments.a: must be an integer" in functions.call(Client(tools=Tools(refused)), "math__add", {"a": "x"})
    broken = ToolFailedError("math.add", Failure("BROKEN", "math.add", "it is broken"))
    assert "it is broken" in functions.call(Client(tools=Tools(broken)), "math__add", {"a": 1})
