from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoglm.model import Failure, Json, StepState
from autoglm_server.planner.rules.answers import show

Answer = Callable[..., Any]


async def test_a_sentence_for_each_clause(answer: Answer) -> None:
    told = await answer(
        "15% of 2480, then convert it from kilometers to miles and what time is it in Tokyo",
        {"result": 372},
        {"result": 231.15008351228823, "unit": "mile"},
        {"time": "23:15", "zone": "Asia/Tokyo"},
    )

    assert told == ["15% of 2480 = 372.", " 372 kilometers is 231.150084 miles.", " It is 23:15 in Tokyo."]


async def test_in_chinese(answer: Answer) -> None:
    told = await answer(
        "2480的15%，然后把它从公里换算成英里，并且东京现在几点",
        {"result": 372},
        {"result": 231.15, "unit": "英里"},
        {"time": "23:15"},
    )

    assert "".join(told) == "15% of 2480 = 372。372 公里等于 231.15 英里。东京现在是 23:15。"


async def test_what_is_not_there_is_left_out_with_its_brackets(answer: Answer) -> None:
    assert await answer("what time is it", {"time": "10:00"}) == ["It is 10:00."]


async def test_without_a_template_the_clause_and_its_output_are_told(answer: Answer) -> None:
    assert await answer("count the words in a b c", {"result": 3}) == ["count the words in a b c: 3."]


async def test_an_output_that_lacks_its_primary_field_is_told_whole(answer: Answer) -> None:
    assert await answer("2+2", {"other": 4}) == ["2 + 2 = (other: 4)."]


async def test_failures_are_told_where_their_clause_stands(answer: Answer) -> None:
    failure = Failure("TOOL_ERROR", "autoglm", "there is no unit foo.")
    told = await answer(
        "convert 3 foo to miles, then uppercase it, 2+2, what time is it",
        failure,
        StepState.SKIPPED,
        {"result": 4},
        StepState.CANCELLED,
    )

    assert told == [
        '"convert 3 foo to miles" failed: there is no unit foo.',
        ' "uppercase it" was not done, because "convert 3 foo to miles" gave no result.',
        " 2 + 2 = 4.",
        ' "what time is it" was cancelled.',
    ]


async def test_failures_in_chinese(answer: Answer) -> None:
    told = await answer("东京现在几点，2+2", Failure(message="没有时钟"), StepState.SKIPPED)

    assert told == ["“东京现在几点”失败了：没有时钟。", "“2+2”没有执行，因为“东京现在几点”没有结果。"]


async def test_a_tools_words_in_another_language_are_told_as_its_own(answer: Answer) -> None:
    assert await answer("东京现在几点", Failure(message="zone is '东京'; did you mean Tokyo?")) == [
        "“东京现在几点”没有成功。工具的说明是：“zone is '东京'; did you mean Tokyo?”。"
    ]
    assert await answer("what time is it", Failure(message="did you mean Tokyo?")) == [
        '"what time is it" failed: did you mean Tokyo?'
    ]


async def test_long_values_are_cut_with_a_mark(answer: Answer) -> None:
    told = await answer("read a.txt", {"content": "x" * 2000, "path": "a.txt"})

    assert told == ["x" * 500 + "… (1500 more characters)"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (372, "372"),
        (372.0, "372"),
        (231.14999999999998, "231.15"),
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1.23456789e-7, "1.23457e-07"),
        (1e20, "1e+20"),
        (True, "yes"),
        (None, "nothing"),
        ([], "nothing"),
        (["a", 1.50, None], "a, 1.5, nothing"),
        (list(range(25)), ", ".join(map(str, range(20))) + " and 5 more"),
        ({"a": 1, "b": [2]}, "(a: 1, b: 2)"),
        ({"b": [2], "a": 1}, "(a: 1, b: 2)"),  # read from the journal, the names of an object come in any order
        ("as it is", "as it is"),
    ],
)
def test_values_are_told_humanely(value: Json, told: str) -> None:
    assert show(value) == told
