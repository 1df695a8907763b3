"""How requests become steps: clauses, references, order, arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoglm.model import Json, StepDraft

Drafts = Callable[..., Any]


async def test_the_request_of_the_readme(drafts: Drafts) -> None:
    made = await drafts("15% of 2480, then convert it from kilometers to miles and what time is it in Tokyo")

    assert made == [
        StepDraft("step1", "15% of 2480", "sums.reckon", {"expression": "15% of 2480"}),
        StepDraft(
            "step2",
            "convert it from kilometers to miles",
            "units.change",
            {"value": "${step1.result}", "from_unit": "kilometers", "to_unit": "miles"},
        ),
        StepDraft("step3", "what time is it in Tokyo", "clock.now", {"zone": "Tokyo"}),
    ]


async def test_the_same_in_chinese(drafts: Drafts) -> None:
    made = await drafts("请问2480的15%是多少，然后把它从公里换算成英里，并且东京现在几点？")

    assert [draft.arguments for draft in made] == [
        {"expression": "15% of 2480"},
        {"value": "${step1.result}", "from_unit": "公里", "to_unit": "英里"},
        {"zone": "东京"},
    ]


@pytest.mark.parametrize(
    ("request_text", "tool", "arguments"),
    [
        ("What is 2 + 3?", "sums.reckon", {"expression": "2 + 3"}),
        ("add 5 and 6", "sums.reckon", {"expression": "5 + 6"}),
        ("total of 1, 2 and 3", "sums.reckon", {"expression": "sum(1, 2, 3)"}),
        (
            "CONVERT 1,234.5 km INTO square meters please",
            "units.change",
            {"value": 1234.5, "from_unit": "km", "to_unit": "square meters"},
        ),
        ("convert 5km to miles", "units.change", {"value": 5, "from_unit": "km", "to_unit": "miles"}),
        ("convert 10 in to cm", "units.change", {"value": 10, "from_unit": "in", "to_unit": "cm"}),
        ("what time is it", "clock.now", {}),
        ("what time is it right now?", "clock.now", {}),
        ("what time is it in New York", "clock.now", {"zone": "New York"}),
        ("uppercase hello world", "text.case", {"text": "hello world", "case": "upper"}),
        ("uppercase this and that thing", "text.case", {"text": "this and that thing", "case": "upper"}),
        ("uppercase 'it''s'", "text.case", {"text": "'it''s'", "case": "upper"}),
        ('uppercase "then, and 然后 ${x}"', "text.case", {"text": "then, and 然后 $${x}", "case": "upper"}),
        ("make “Hi” lower case", "text.case", {"text": "Hi", "case": "lower"}),
        ("count the words in the big house up to 7", "text.count", {"text": "the big house", "limit": 7}),
        ("write a, b to a.txt", "notes.write", {"content": "a, b", "path": "a.txt"}),
        ("read the docs/a.md", "notes.read", {"path": "docs/a.md"}),
        (
            'pick "a" and "b" from {"a": "x, then y", "b": "${q}"}',
            "data.pick",
            {"names": ["a", "b"], "data": {"a": "x, then y", "b": "$${q}"}},
        ),
        ("""pair 'x", "y' with 3""", "data.pick", {"names": ['x", "y', 3], "data": None}),
        ("remind on tomorrow", "data.pick", {"on": "2026-11-23"}),
        ("wake me at 3:30 pm", "data.pick", {"at": "15:30"}),
        ("1. what is 2 + 3", "sums.reckon", {"expression": "2 + 3"}),
    ],
)
async def test_one_clause(drafts: Drafts, request_text: str, tool: str, arguments: Json) -> None:
    made = await drafts(request_text)

    assert [(draft.tool, draft.arguments) for draft in made] == [(tool, arguments)]


@pytest.mark.parametrize(
    "between",
    [
        ", then ",
        " then ",
        " and ",
        "; ",
        ". ",
        "? ",
        "\n",
        ", and then ",
        " after that ",
        "，然后",
        "；",
        "。",
        " 并且 ",
        " 接着",
        ", ",
    ],
)
async def test_every_divider_divides(drafts: Drafts, between: str) -> None:
    made = await drafts(f"what is 2 + 3{between}convert 1 km to miles")

    assert [draft.tool for draft in made] == ["sums.reckon", "units.change"]


async def test_what_has_no_tie_is_independent(drafts: Drafts) -> None:
    made = await drafts("2+2, then 3+3; what time is it and then uppercase hello")

    assert len(made) == 4
    assert all(not draft.depends_on and "${" not in str(draft.arguments) for draft in made)


@pytest.mark.parametrize(
    ("request_text", "arguments"),
    [
        ("2+2, then uppercase it", {"text": "${step1.to_string(result)}", "case": "upper"}),
        ("uppercase two, add it and 3", {"expression": "${step1.to_number(result)} + 3"}),
        (
            "uppercase two, convert it from km to miles",
            {"value": "${step1.to_number(result)}", "from_unit": "km", "to_unit": "miles"},
        ),
        ("what time is it, uppercase that", {"text": "${step1.to_string(@)}", "case": "upper"}),
        ("read a.txt and count the words in it", {"text": "${step1.content}"}),
        ('pick "a" and "b" from {} then uppercase it', {"text": "${step1}", "case": "upper"}),
        ("2+2, it / 12 * 3", {"expression": "(${step1.result}) / 12 * 3"}),
        ("2+2, then divide by 3", {"expression": "${step1.result} / 3"}),
        (
            "convert 1 km to miles, convert it to feet",
            {"value": "${step1.result}", "from_unit": "${step1.unit}", "to_unit": "feet"},
        ),
        ("2+2, 3+3, uppercase the first result", {"text": "${step1.to_string(result)}", "case": "upper"}),
        ("2+2, 3+3, the result of step 1 + the second result", {"expression": "(${step1.result}) + (${step2.result})"}),
    ],
)
async def test_references(drafts: Drafts, request_text: str, arguments: Json) -> None:
    assert (await drafts(request_text))[-1].arguments == arguments


async def test_a_quoted_pronoun_is_text(drafts: Drafts) -> None:
    assert (await drafts('2+2, then uppercase "it"'))[-1].arguments == {"text": "it", "case": "upper"}


@pytest.mark.parametrize(
    ("request_text", "ties"),
    [
        ("write x to a.txt, then read a.txt", [(), ("step1",)]),
        ("write x to a.txt and read ./a.txt", [(), ("step1",)]),
        ("write x to a.txt and read b.txt", [(), ()]),
        ("read a.txt and then read a.txt", [(), ()]),
        ("what time is it and 2+2, then write x to a.txt", [(), (), ("step1", "step2")]),
        (
            "write x to a.txt and write y to b.txt, then what time is it and 2+2",
            [(), (), ("step1", "step2"), ("step1", "step2")],
        ),
    ],
)
async def test_order_is_kept_where_something_changes(
    drafts: Drafts, request_text: str, ties: list[tuple[str, ...]]
) -> None:
    assert [draft.depends_on for draft in await drafts(request_text)] == ties


async def test_text_takes_no_more_clauses_than_it_must(drafts: Drafts) -> None:
    made = await drafts("uppercase hello and what time is it")

    assert [draft.arguments for draft in made] == [{"text": "hello", "case": "upper"}, {}]


async def test_long_texts_between_quotes_are_one_word(drafts: Drafts) -> None:
    text = "a, b and then c. " * 3000

    assert (await drafts(f'uppercase "{text}"'))[0].arguments == {"text": text, "case": "upper"}
