"""Tools with phrases of their own, and a round of the rules planner over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from autoglm.model import (
    Effect,
    Failure,
    Json,
    Phrase,
    Plan,
    PlanOptions,
    Step,
    StepDraft,
    StepState,
    Tool,
    ToolResult,
)
from autoglm_server.planner.planner import AnswerText, RoundView
from autoglm_server.planner.rules import RulesPlanner


def _schema(**properties: Any) -> str:
    named = {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in properties.items()}
    return json.dumps({"type": "object", "properties": named})


def _tool(name: str, takes: str, gives: str, *phrases: tuple[str, str, str], effect: Effect = Effect.READ_ONLY) -> Tool:
    return Tool(
        name=name,
        input_schema=takes,
        output_schema=gives,
        effect=effect,
        phrases=tuple(Phrase(*phrase) for phrase in phrases),
    )


TOOLS = (
    _tool(
        "sums.reckon",
        _schema(expression="string"),
        _schema(result="number"),
        ("{expression:expression}", "{expression} = {output}.", "en"),
        ("{expression:expression}", "{expression} = {output}。", "zh"),
        ("add {a:number} and {b:number} => expression={a} + {b}", "{a} and {b} make {output}.", "en"),
        ("total of {numbers:numbers} => expression=sum({numbers})", "The total is {output}.", "en"),
        ("divide by {b:number} => expression={it} / {b}", "{it} / {b} = {output}.", "en"),
    ),
    _tool(
        "units.change",
        _schema(value="number", from_unit="string", to_unit="string"),
        _schema(result="number", unit="string"),
        (
            "convert {value:number} [from] {from_unit:unit} (to|into) {to_unit:unit}",
            "{value} {from_unit} is {output} {to_unit}.",
            "en",
        ),
        ("convert {value:number} to {to_unit:unit} => from_unit={value.unit}", "That is {output} {to_unit}.", "en"),
        (
            "[把] {value:number} [从] {from_unit:unit} (换算成|转换成) {to_unit:unit}",
            "{value} {from_unit}等于 {output} {to_unit}。",
            "zh",
        ),
    ),
    _tool(
        "clock.now",
        _schema(zone="string"),
        _schema(time="string", zone="string"),
        ("what time is it [in {zone:name}]", "It is {output.time}[ in {zone}].", "en"),
        ("{zone:name} 现在几点", "{zone}现在是 {output.time}。", "zh"),
    ),
    _tool(
        "text.case",
        _schema(text="string", case={"enum": ["upper", "lower"]}),
        _schema(result="string"),
        ("uppercase {text:text} => case=upper", "{output}", "en"),
        ("lowercase {text} => case=lower", "{output}", "en"),
        ("make {text:quoted} {case:upper|lower} case", "{output}", "en"),
        ("把 {text:text} 转成大写 => case=upper", "{output}", "zh"),
    ),
    _tool(
        "text.count",
        _schema(text="string", limit="integer"),
        _schema(result="integer"),
        ("count the words (in|of) {text:text} [up to {limit:integer}]", "", "en"),
        ("统计 {text:text} 的字数", "共 {output} 个字。", "zh"),
    ),
    _tool(
        "notes.write",
        _schema(content="string", path="string"),
        _schema(path="string", size="integer"),
        ("write {content:text} to {path:path}", "Wrote {path}.", "en"),
        effect=Effect.IDEMPOTENT,
    ),
    _tool(
        "notes.read",
        _schema(path="string"),
        _schema(content="string", path="string"),
        ("read {path:path}", "{output}", "en"),
    ),
    _tool(
        "data.pick",
        _schema(data={}, names="array", on={"type": "string", "format": "date"}, at="string"),
        "",
        ("pick {names:texts} from {data:json}", "{output}", "en"),
        ('pair {a:quoted} with {b:number} => names=["{a}", {b}]; data=null', "{output}", "en"),
        ("remind on {on:date}", "{output}", "en"),
        ("wake me at {at:time}", "{output}", "en"),
    ),
)


@pytest.fixture(scope="session")
def tools() -> tuple[Tool, ...]:
    """Eight tools, read in English and some in Chinese."""
    return TOOLS


@pytest.fixture(scope="session")
def view() -> Callable[..., RoundView]:
    """Make a view of a plan with this request."""

    def make(
        request: str, *, steps: Sequence[Step] = (), options: PlanOptions | None = None, **fields: Any
    ) -> RoundView:
        plan = Plan(
            id="p",
            request=request,
            steps=tuple(steps),
            options=options or PlanOptions(),
            create_time=datetime(2026, 11, 22, 15, tzinfo=UTC),
        )
        known = RoundView(plan, 2 if steps else 1, 1, TOOLS, (), 10, last=False)
        return replace(known, **fields)

    return make


@pytest.fixture
def drafts(view: Callable[..., RoundView]) -> Callable[..., Any]:
    """Make a first round, and give its drafts."""

    async def make(request: str, **fields: Any) -> list[StepDraft]:
        items = [item async for item in RulesPlanner().round(view(request, **fields))]
        assert all(isinstance(item, StepDraft) for item in items)
        return [item for item in items if isinstance(item, StepDraft)]

    return make


@pytest.fixture
def answer(view: Callable[..., RoundView], drafts: Callable[..., Any]) -> Callable[..., Any]:
    """Plan a request, let its steps end with these outputs (or failures, or states), and give the pieces of the answer."""

    async def make(request: str, *outcomes: Json | Failure | StepState, **fields: Any) -> list[str]:
        made = await drafts(request, **fields)
        steps = [_ended(draft, outcome) for draft, outcome in zip(made, outcomes, strict=True)]
        items = [item async for item in RulesPlanner().round(view(request, steps=steps, **fields))]
        assert all(isinstance(item, AnswerText) for item in items)
        return [item.text for item in items if isinstance(item, AnswerText)]

    return make


def _ended(draft: StepDraft, outcome: Json | Failure | StepState) -> Step:
    step = Step(id=draft.id, title=draft.title, tool=draft.tool, arguments=draft.arguments, round=1)

    if isinstance(outcome, Failure):
        return replace(step, state=StepState.FAILED, failure=outcome)

    if isinstance(outcome, StepState):
        return replace(step, state=outcome, skipped_by="step1" if outcome is StepState.SKIPPED else "")

    return replace(step, state=StepState.SUCCEEDED, result=ToolResult(output=outcome))
