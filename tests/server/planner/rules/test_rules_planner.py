"""The rounds: what is refused before anything runs, and how a round that was cut is gone on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.model import Failure, PlanOptions, Step, StepDraft, StepRejected, StepState, Tool, ToolResult, Violation
from autoglm_server.planner.planner import AnswerText, PlannerError, RoundView
from autoglm_server.planner.rules import RulesPlanner

Drafts = Callable[..., Any]
View = Callable[..., RoundView]


async def _round(view: RoundView) -> list[Any]:
    return [item async for item in RulesPlanner().round(view)]


async def _failure(view: RoundView) -> Failure:
    with pytest.raises(PlannerError) as caught:
        await _round(view)

    return caught.value.failure


def _done(draft: StepDraft, state: StepState = StepState.SUCCEEDED) -> Step:
    result = ToolResult(output={"result": 4}) if state is StepState.SUCCEEDED else None
    return Step(id=draft.id, title=draft.title, tool=draft.tool, round=1, state=state, result=result)


def test_it_says_what_it_is() -> None:
    assert (RulesPlanner().name, RulesPlanner().revises) == ("rules", False)


async def test_what_cannot_be_read_is_said_plainly(view: View) -> None:
    failure = await _failure(view("frobnicate the widget, then convret 3 km into miles and 2+2"))

    assert failure.reason == "REQUEST_NOT_UNDERSTOOD"
    assert failure.domain == "autoglm"
    assert not failure.retryable
    assert [violation.field for violation in failure.violations] == ["request", "request"]
    assert failure.violations[0].description == "«frobnicate the widget»: no phrase is like it."
    assert "«convret 3 km into miles»: did you mean «convert 3 km into miles»?" in failure.violations[1].description
    assert failure.message.startswith("Could not read 2 of 3 clauses: «frobnicate the widget»")
    assert failure.message.endswith("use a model: --planner llm --model MODEL.")
    assert "`autoglm tools`" in failure.message
    assert "2+2" not in failure.message


async def test_the_same_in_chinese(view: View) -> None:
    failure = await _failure(view("给我唱首歌，然后统计“a b”的字母"))

    assert failure.message.startswith("这个请求有 2 个部分，其中 2 个没有读懂。")
    assert "统计 <text> 的字数" in failure.violations[1].description


@pytest.mark.parametrize("request_text", ["", "   ", "?!", "please", "then, and;"])
async def test_a_request_for_nothing(view: View, request_text: str) -> None:
    failure = await _failure(view(request_text))

    assert (failure.reason, failure.message[:36]) == ("REQUEST_NOT_UNDERSTOOD", "The request says nothing to do. Try:")


@pytest.mark.parametrize(
    ("request_text", "told"),
    [
        ("uppercase it", "«it» refers to nothing: no clause comes before it"),
        ("2+2, uppercase the third result", "«the third result» refers to clause 3, which does not come before it"),
        ("2+2, uppercase the second result", "refers to clause 2, which does not come before it"),
        ("2+2, convert it to feet", "«it» has no unit of its own; say which unit"),
    ],
)
async def test_references_to_nothing(view: View, request_text: str, told: str) -> None:
    failure = await _failure(view(request_text))

    assert failure.reason == "REQUEST_NOT_UNDERSTOOD"
    assert told in failure.violations[0].description


async def test_a_value_the_tool_does_not_take_is_not_read(view: View, drafts: Drafts) -> None:
    assert (await drafts("count the words in x up to 3"))[0].arguments == {"text": "x", "limit": 3}
    assert (await drafts("count the words in x up to 3.5"))[0].arguments == {"text": "x up to 3.5"}


async def test_too_many_clauses_for_the_steps_left(view: View) -> None:
    failure = await _failure(view("1+1, 2+2, 3+3", steps_left=2))

    assert failure.reason == "MAX_STEPS"
    assert "has 3 clauses" in failure.message
    assert "max_steps allows 2" in failure.message
    assert "--max-steps 3" in failure.message
    assert len(await _round(view("1+1, 2+2, 3+3", steps_left=3))) == 3


async def test_without_tools_it_can_do_nothing(view: View) -> None:
    failure = await _failure(view("1+1", options=PlanOptions(enable_tool_call=False), steps_left=0, tools=()))

    assert failure.reason == "REQUEST_NOT_UNDERSTOOD"
    assert "enable_tool_call=false" in failure.message


async def test_a_round_that_is_the_last_cannot_add_steps(view: View) -> None:
    assert (await _failure(view("1+1", last=True))).reason == "MAX_ROUNDS"


async def test_refused_drafts_are_not_made_again(view: View) -> None:
    draft = StepDraft("step1", "convert 3 foo to miles", "units.change")
    rejected = [StepRejected(draft, (Violation("arguments.from_unit", "is no unit", "X"),))]
    failure = await _failure(view("convert 3 foo to miles", attempt=2, rejected=rejected))

    assert failure.reason == "INVALID_PLAN"
    assert failure.message == "Read, but refused as steps: «convert 3 foo to miles»: is no unit."
    assert failure.violations == rejected[0].violations


async def test_a_round_that_was_cut_is_gone_on_with(view: View, drafts: Drafts) -> None:
    request = "2+2, 3+3, add it and 1"
    whole = await drafts(request)

    assert await _round(view(request, steps=[_done(whole[0])])) == whole[1:]
    assert await _round(view(request, steps=[_done(draft) for draft in whole[:2]])) == whole[2:]


async def test_what_needs_a_step_that_failed_before_the_cut_is_told_not_made(view: View, drafts: Drafts) -> None:
    request = "2+2, add it and 1, add it and 2"
    first = replace(_done((await drafts(request))[0], StepState.FAILED), failure=Failure(message="no"))

    assert await _round(view(request, steps=[first])) == [
        AnswerText('"2+2" failed: no.'),
        AnswerText(' "add it and 1" was not done.'),
        AnswerText(' "add it and 2" was not done.'),
    ]


async def test_in_the_last_round_what_is_there_is_told(view: View, drafts: Drafts) -> None:
    request = "2+2, 3+3"
    told = await _round(view(request, steps=[_done((await drafts(request))[0])], last=True))

    assert told == [AnswerText("2 + 2 = 4."), AnswerText(' "3+3" was not done.')]


async def test_steps_made_with_other_tools_are_told_as_they_are(view: View) -> None:
    steps = [
        Step(
            id="step1", title="dance", tool="gone", round=1, state=StepState.SUCCEEDED, result=ToolResult(output=[1, 2])
        ),
        Step(
            id="step2", title="sing", tool="gone", round=1, state=StepState.FAILED, failure=Failure(reason="TOOL_ERROR")
        ),
    ]
    told = await _round(view("dance and sing", steps=steps))

    assert told == [AnswerText("dance: 1, 2."), AnswerText(' "sing" failed: TOOL_ERROR.')]


async def test_given_steps_come_before_the_request(view: View) -> None:
    given_steps = [
        Step(
            id="step1", tool="sums.reckon", round=0, state=StepState.SUCCEEDED, result=ToolResult(output={"result": 2})
        ),
        Step(id="step9", tool="sums.reckon", round=0, state=StepState.FAILED),
    ]
    made = await _round(view("add it and 1, 2+2", steps=given_steps))

    assert [(draft.id, draft.arguments) for draft in made] == [
        ("part2_step1", {"expression": "${step1.result} + 1"}),
        ("part2_step2", {"expression": "2 + 2"}),
    ]


async def test_today_is_the_day_the_plan_was_made(view: View) -> None:
    made = await _round(view("remind on tomorrow"))

    assert made[0].arguments == {"on": "2026-11-23"}


PIECES = (
    *(
        "convert",
        "it",
        "the",
        "result",
        "of",
        "then",
        "and",
        ",",
        ";",
        ".",
        "?",
        "\n",
        " ",
        " ",
        " ",
        "15%",
        "2480",
        "km",
        "miles",
    ),
    *(
        "uppercase",
        "write",
        "to",
        "a.txt",
        "count the words in",
        '"',
        "'",
        "“",
        "”",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "${step1}",
        "$",
    ),
    *(
        "what time is it in",
        "Tokyo",
        "然后",
        "把",
        "它",
        "公里",
        "换算成",
        "和",
        "第一步的结果",
        "的",
        "一",
        "百",
        "+",
        "-",
        "\\",
        "\x00",
        "é",
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=60))
async def test_nothing_said_crashes_it(view: View, request_text: str) -> None:
    made: list[Any] = []
    failure: Failure | None = None

    try:
        made = await _round(view(request_text, steps_left=1000))
    except PlannerError as error:
        failure = error.failure

    ids = [draft.id for draft in made]
    assert bool(made) != (failure is not None)
    assert failure is None or (failure.reason == "REQUEST_NOT_UNDERSTOOD" and failure.message)
    assert len(set(ids)) == len(ids)
    assert all(set(draft.depends_on) <= set(ids[:index]) for index, draft in enumerate(made))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80).filter(lambda text: '"' not in text))
async def test_quoted_text_survives_exactly(view: View, text: str) -> None:
    made = await _round(view(f'what is 2 + 2, then uppercase "{text}" and what time is it'))

    assert made[1].arguments["text"].replace("$${", "${") == text
    assert len(made) == 3


@pytest.mark.parametrize(
    "piece",
    [
        "a,",
        "a",
        "一",
        '"',
        "'a ",
        "[",
        '{"a":',
        "(",
        "1+",
        "1 ",
        "then ",
        "it ",
        "a\n",
        "1,",
        "的",
        "3的",
        "“a",
        "sqrt(",
        "√(",
        "根号",
        "one hundred and ",
        "a hundred",
        "- ",
        "convert 5 km to ",
    ],
)
async def test_the_longest_requests_are_read_in_time(view: View, piece: str) -> None:
    """The suite's time limit is the bound: work that grows with the square of 64 KiB would take minutes."""
    failure = await _failure(view((piece * 65536)[:65536]))

    assert len(failure.message) < 4000
    assert len(failure.violations) <= 50


async def test_as_many_clauses_as_may_be(view: View) -> None:
    request = "convert it from km to miles and uppercase hello there, " * 149
    made = await _round(view("2+2, " + request, steps_left=1000))

    assert len(made) == 299
    failure = await _failure(view("2+2, " * 301, steps_left=1000))
    assert "has 301 places where it may be divided" in failure.message


async def test_a_tool_with_faulty_phrases_does_no_harm(view: View, tools: tuple[Tool, ...]) -> None:
    broken = replace(
        tools[0], name="broken", phrases=(replace(tools[0].phrases[0], pattern="{expression"),), input_schema="not json"
    )

    assert [draft.tool for draft in await _round(view("2+2", tools=(broken, *tools)))] == ["sums.reckon"]
