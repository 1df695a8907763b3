"""What people ask, from words to answer: the rules planner reads it, the tools do it, the planner tells it."""

from __future__ import annotations

import dataclasses
import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from autoglm import wire
from autoglm.model import Effect, Plan, PlanState, Step, StepDraft, StepState, ToolResult
from autoglm.tool import FunctionTool, ToolContext
from autoglm_server.clock import FakeClock
from autoglm_server.planner.planner import AnswerText, PlannerError, RoundView
from autoglm_server.planner.rules import RulesPlanner
from autoglm_server.planner.rules.phrasebook import check_phrases
from autoglm_server.tools.builtin import builtin_tools
from autoglm_server.tools.references import compile_references

PHRASES_MAX = 100
NOW = datetime(2026, 11, 22, 16, 5, tzinfo=UTC)
CLOCK = FakeClock(NOW)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FunctionTool]:
    workspace: Path = tmp_path_factory.mktemp("workspace")
    return {tool.spec.name: tool for tool in builtin_tools(workspace, CLOCK)}


async def ask(request: str, tools: dict[str, FunctionTool]) -> str:
    """Plan, run and answer a request."""
    planner = RulesPlanner(CLOCK)
    specs = [tool.spec for tool in tools.values()]
    plan = Plan(id="p", request=request, state=PlanState.RUNNING, create_time=NOW)
    view = RoundView(plan=plan, round=1, attempt=1, tools=specs, rejected=(), steps_left=10, last=False)
    drafts = [item async for item in planner.round(view) if isinstance(item, StepDraft)]
    outputs: dict[str, Any] = {}
    steps = []
    for draft in drafts:
        tool = tools[draft.tool]
        arguments = compile_references(draft.arguments or {}, "arguments").resolve(outputs.__getitem__)
        jsonschema_rs.validate(wire.parse_json(tool.spec.input_schema), arguments)
        returned = tool.function(**tool.keywords(arguments, ToolContext()))
        output = tool.result(await returned if inspect.isawaitable(returned) else returned).output
        jsonschema_rs.validate(wire.parse_json(tool.spec.output_schema), output)
        outputs[draft.id] = output
        steps.append(
            Step(
                id=draft.id,
                title=draft.title,
                tool=draft.tool,
                arguments=draft.arguments,
                depends_on=draft.depends_on,
                state=StepState.SUCCEEDED,
                round=1,
                result=ToolResult(output=output),
            ),
        )

    done = dataclasses.replace(view, plan=dataclasses.replace(plan, steps=tuple(steps)), round=2)
    return "".join([item.text async for item in planner.round(done) if isinstance(item, AnswerText)])


ANSWERS = {
    "把“hello”变成大写，再倒过来": "结果是“HELLO”。结果是“OLLEH”。",  # noqa: RUF001
    '2+2 and 3+3, then join them with "-"': '2 + 2 = 4. 3 + 3 = 6. The result is "4-6".',
    'extract the numbers from "a 13 b 1 c 2", then sort': 'Found 3: 13, 1, 2. The result is "1, 2, 13".',
    "北京和伦敦时差几个小时": "与北京相比，伦敦现在晚 8 小时。",  # noqa: RUF001
    "what is the time difference between Beijing and London": "London is 8 hours behind Beijing now.",
    "现在离 2027 年 1 月 1 日还有几天": "距离 2027-01-01 还有 40 天。",
    # The first is the front page's.
    "15% of 2480, then convert it from kilometers to miles": "15% of 2480 = 372. 372 kilometers is 231.150084 miles.",
    "What is 15% of 2480?": "15% of 2480 = 372.",
    "calculate 2480 + 15%": "2480 + 15% = 2852.",
    "what's 3 plus 4 times 2": "3 + 4 * 2 = 11.",
    "subtract 5 from 12": "12 minus 5 is 7.",
    "multiply 6 by 7 then divide it by 2": "6 times 7 is 42. 42 divided by 2 is 21.",
    "increase 80 by 15%": "80 increased by 15% is 92.",
    "take 20% off 150": "150 at 20% off is 120.",
    "30 is what percent of 200?": "30 is 15% of 200.",
    "the average of 3, 4 and 8": "The average of 3, 4, 8 is 5.",
    "square root of 144": "The square root of 144 is 12.",
    "round 3.14159 to 2 decimal places": "3.14159 rounded to 2 decimal places is 3.14.",
    "2480的15%是多少": "15% of 2480 = 372。",
    "三加五等于几": "3 + 5 = 8。",
    "16的平方根是多少": "16 的平方根是 4。",
    "30是200的百分之几": "30 是 200 的 15%。",
    "2的10次方": "2 的 10 次方是 1024。",
    "convert 10 km to miles": "10 km is 6.213712 miles.",
    "how many feet are in a mile": "1 mile is 5280 feet.",
    "100 fahrenheit in celsius": "100 fahrenheit is 37.777778 celsius.",
    "convert 5 kilometers to miles, then convert it to feet": (
        "5 kilometers is 3.106856 miles. That is 16404.199475 feet."
    ),
    "10公里是多少英里": "10 公里等于 6.213712 英里。",
    "把100华氏度转换成摄氏度": "100 华氏度等于 37.777778 摄氏度。",
    "what time is it in Tokyo": "It is 01:05 on Monday, 2026-11-23 (Asia/Tokyo).",
    "what time is it": "It is 16:05 on Sunday, 2026-11-22 (UTC).",
    "东京现在几点": "现在是 2026-11-23 星期一 01:05（Asia/Tokyo）。",  # noqa: RUF001
    "what is today's date?": "It is Sunday, 2026-11-22 (UTC).",
    "convert 3pm from New York to London": "15:00 in New York is 20:00 on Sunday, 2026-11-22, in London.",
    "北京时间下午3点是纽约几点": "北京 15:00 是 纽约 2026-11-23 02:00（星期一）。",  # noqa: RUF001
    "add 45 days to 2026-11-22": "45 days after 2026-11-22 is Wednesday, 2027-01-06.",
    "what date was 2 months ago?": "That was Tuesday, 2026-09-22.",
    "3天后是几号": "那天是 2026-11-25，星期三。",  # noqa: RUF001
    "how many days until Christmas": "There are 33 days until Christmas.",
    "how many days between 2026-11-22 and 2026-12-25": "There are 33 days from 2026-11-22 to 2026-12-25.",
    "距离2026-12-25还有多少天": "距离 2026-12-25 还有 33 天。",
    "what day of the week is 2026-12-25": "2026-12-25 is a Friday.",
    "2026-12-25是星期几": "2026-12-25 是 星期五。",
    'how many words are in "to be or not to be"': "The text has 6 words.",
    "how many r are in strawberry": '"r" occurs 3 times in "strawberry".',
    "“我爱北京”有多少个字": "共有 4 个字。",
    'uppercase "hello world"': 'The result is "HELLO WORLD".',
    '把"hello"转换成大写': "结果是“HELLO”。",
    'extract emails from "write to ann@example.com"': "Found 1: ann@example.com.",
    '从"联系 ann@example.com"中提取邮箱': "找到 1 个：ann@example.com。",  # noqa: RUF001
    'replace "cat" with "dog" in "a cat sat"': 'The result is "a dog sat".',
    '把"a cat"里的"cat"替换成"dog"': "结果是“a dog”。",
    'reverse "hello", then uppercase it': 'The result is "olleh". The result is "OLLEH".',
    '把"hello"反转': "结果是“olleh”。",
    'sort "pear, apple, fig"': 'The result is "apple, fig, pear".',
    '把"3, 1, 2"从大到小排序': "结果是“3, 2, 1”。",
    'join ["a","b"] with "-"': 'The result is "a-b".',
    'get "a.b" from {"a": {"b": 3}}': "The result is 3.",
    '从{"a": {"b": 3}}中提取"a.b"': "结果是 3。",
}


@pytest.mark.parametrize(("request_text", "answer"), ANSWERS.items())
async def test_what_people_ask_is_answered(request_text: str, answer: str, tools: dict[str, FunctionTool]) -> None:
    assert await ask(request_text, tools) == answer


async def test_what_no_phrase_fits_is_refused(tools: dict[str, FunctionTool]) -> None:
    with pytest.raises(PlannerError):
        await ask("sing me a song", tools)


def test_every_phrase_is_in_the_grammar(tools: dict[str, FunctionTool]) -> None:
    faults = [(tool.spec.name, fault) for tool in tools.values() for fault in check_phrases(tool.spec)]
    assert faults == []
    assert max(len(tool.spec.phrases) for tool in tools.values()) <= PHRASES_MAX


def test_every_tool_is_asked_for_in_both_languages(tools: dict[str, FunctionTool]) -> None:
    assert [
        name for name, tool in tools.items() if {phrase.language for phrase in tool.spec.phrases} != {"en", "zh"}
    ] == []


def test_every_tool_is_read_only_with_a_time_limit_and_schemas(tools: dict[str, FunctionTool]) -> None:
    for name, tool in tools.items():
        if name.startswith("files."):
            continue

        schema = wire.parse_json(tool.spec.output_schema)
        assert tool.spec.effect is Effect.READ_ONLY
        assert tool.spec.timeout is not None
        assert tool.spec.title
        assert tool.spec.tags
        assert "result" in schema["properties"]
        inputs = wire.parse_json(tool.spec.input_schema)["properties"]
        assert all(one.get("description") for one in inputs.values()), name


async def test_every_example_is_asked_for_by_its_title_and_true(tools: dict[str, FunctionTool]) -> None:
    """What `autoglm tool NAME` shows to be pasted: the request makes the call, and the call gives the output."""
    order = ["files.write", "files.append", *(name for name in tools if name not in ("files.write", "files.append"))]
    for name in order:
        tool = tools[name]
        assert tool.spec.examples, name
        for example in tool.spec.examples:
            arguments = example.arguments or {}
            assert await planned(example.title, tools) == [(name, arguments)]
            jsonschema_rs.validate(wire.parse_json(tool.spec.input_schema), arguments)
            returned = tool.function(**tool.keywords(arguments, ToolContext()))
            output = tool.result(await returned if inspect.isawaitable(returned) else returned).output
            jsonschema_rs.validate(wire.parse_json(tool.spec.output_schema), output)
            if example.output is not None:
                told = {key: value for key, value in output.items() if key in example.output}
                assert told == example.output


async def planned(request: str, tools: dict[str, FunctionTool]) -> list[tuple[str, Any]]:
    """Give the calls that the rules planner makes of a request."""
    plan = Plan(id="p", request=request, state=PlanState.RUNNING, create_time=NOW)
    specs = [tool.spec for tool in tools.values()]
    view = RoundView(plan=plan, round=1, attempt=1, tools=specs, rejected=(), steps_left=10, last=False)
    drafts = [item async for item in RulesPlanner(CLOCK).round(view) if isinstance(item, StepDraft)]
    return [(draft.tool, draft.arguments or {}) for draft in drafts]
