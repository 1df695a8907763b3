"""The scanner: whatever is written, cut anywhere, gives the same; nothing half-written gets through; nothing escapes."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.model import Effect, PlanOptions, StepDraft, StepRejected, StepState, Tool
from autoglm.wire import parse_json, to_message
from autoglm_server.planner.llm.drafts import read_step
from autoglm_server.planner.llm.scanner import (
    DEPTH_MAX,
    STEP_CHARS_MAX,
    TEXT_CHARS_MAX,
    AnswerPiece,
    Ending,
    Found,
    NotePiece,
    OutputText,
    Scanner,
    StepText,
)
from autoglm_server.scheduler.drafts import Rules, check_planned
from autoglm_server.scheduler.limits import Limits
from autoglm_server.tools.catalog import Catalog
from tests.server.planner.llm.fake_model import call, plan
from tests.server.scheduler.harness import Tools

Told = tuple[list[str], str, str, list[str], Ending, str]


def scan(text: str, *sizes: int) -> Told:
    """Scan in pieces of these sizes, over and over; give steps, answer, note, outputs, ending and prose."""
    scanner = Scanner()
    found: list[Found] = []
    position = turn = 0
    while position < len(text):
        size = sizes[turn % len(sizes)] if sizes else len(text)
        found += scanner.feed(text[position : position + size])
        position, turn = position + size, turn + 1

    return (
        [one.text for one in found if isinstance(one, StepText)],
        "".join(one.text for one in found if isinstance(one, AnswerPiece)),
        "".join(one.text for one in found if isinstance(one, NotePiece)),
        [one.text for one in found if isinstance(one, OutputText)],
        scanner.end(),
        scanner.prose,
    )


A, B = '{"id":"a","tool":"x","arguments":{"q":"}]\\"{[,"}}', '{"id":"b","tool":"y","arguments":{}}'

SHAPES: list[tuple[str, Told]] = [
    (f'{{"note":"hi","steps":[{A},{B}]}}', ([A, B], "", "hi", [], Ending.COMPLETE, "")),
    (f'{{"steps":[{A}],"note":"after"}}', ([A], "", "after", [], Ending.COMPLETE, "")),
    (f'  {{ "steps" : [ {A} ,\n {B} ] , "answer" : "" }} ', ([A, B], "", "", [], Ending.COMPLETE, "  ")),
    (f'Sure!\n```json\n{{"steps":[{A}]}}\n```\nbye', ([A], "", "", [], Ending.COMPLETE, "Sure!\n```json\n")),
    ('{"answer":"caf\\u00e9 \\ud83d\\ude00 \\"q\\"\\n"}', ([], 'café 😀 "q"\n', "", [], Ending.COMPLETE, "")),
    ('{"answer":"a\nb"}', ([], "a\nb", "", [], Ending.COMPLETE, "")),
    ('{"answer":"\\ud83d!"}', ([], "\ufffd!", "", [], Ending.COMPLETE, "")),
    ('{"answer":"\\u12"}', ([], "\ufffd", "", [], Ending.COMPLETE, "")),
    ('{"answer":42}', ([], "42", "", [], Ending.COMPLETE, "")),
    ('{"answer":null,"steps":null}', ([], "", "", [], Ending.COMPLETE, "")),
    ('{"answer":{"a":[1]}}', ([], '{"a":[1]}', "", [], Ending.COMPLETE, "")),
    ('{"answer":"x","output":{"a":"}"}}', ([], "x", "", ['{"a":"}"}'], Ending.COMPLETE, "")),
    ('{"output":"text","answer":"x"}', ([], "x", "", ['"text"'], Ending.COMPLETE, "")),
    (f'{{"plan_id":7,"other":{{"steps":[{A}]}},"steps":[]}}', ([], "", "", [], Ending.COMPLETE, "")),
    (f"[{A},{B}]", ([A, B], "", "", [], Ending.COMPLETE, "")),
    (f"{A}\n{B}", ([A, B], "", "", [], Ending.COMPLETE, "\n")),
    ("See [1], {x}, and {} too.", ([], "", "", [], Ending.PROSE, "See [1], {x}, and {} too.")),
    ('An object: {"a": 1}.', ([], "", "", [], Ending.PROSE, 'An object: {"a": 1}.')),
    ("", ([], "", "", [], Ending.EMPTY, "")),
    (" \n", ([], "", "", [], Ending.EMPTY, " \n")),
    (f'{{"steps":[{A},{{"id":"b"', ([A], "", "", [], Ending.CUT, "")),
    (f'{{"steps":[{A}', ([A], "", "", [], Ending.CUT, "")),
    ('{"answer":"half', ([], "half", "", [], Ending.CUT, "")),
    (f'{{"steps":[{A},{{"id":"b"]}}', ([A], "", "", [], Ending.MALFORMED, "")),
    (f'{{"steps":[{A} x', ([A], "", "", [], Ending.MALFORMED, "")),
    (f'{{"steps":{A}}}', ([], "", "", [], Ending.MALFORMED, "")),
    ('{"answer" "x"}', ([], "", "", [], Ending.MALFORMED, "")),
    (f'{{"steps":[{A}]}} and again {{"steps":[{A}]}}', ([A], "", "", [], Ending.COMPLETE, "")),
]


@pytest.mark.parametrize(("text", "told"), SHAPES)
def test_what_is_found(text: str, told: Told) -> None:
    assert scan(text) == told
    for size in (1, 2, 3, 7):
        assert scan(text, size) == told


def test_a_step_is_found_at_its_closing_brace_and_not_before() -> None:
    scanner = Scanner()
    text = f'{{"steps":[{A},{B}]}}'
    found = {index: scanner.feed(character) for index, character in enumerate(text)}

    assert [index for index, there in found.items() if there] == [
        text.index(A) + len(A) - 1,
        text.index(B) + len(B) - 1,
    ]


def test_a_pair_that_the_decoder_left_apart_is_joined() -> None:
    scanner = Scanner()
    pieces = [*scanner.feed('{"answer":"\ud83d'), *scanner.feed('\ude00 \ude00x"}')]
    assert "".join(one.text for one in pieces) == "😀 \ufffdx"


def test_everything_has_a_limit() -> None:
    assert scan('{"steps":[{"a":"' + "x" * (STEP_CHARS_MAX + 1))[4] is Ending.TOO_LARGE
    assert scan('{"steps":[' + '{"a":' * (DEPTH_MAX + 1))[4] is Ending.TOO_LARGE
    assert scan('{"a":"' + "x" * (STEP_CHARS_MAX + 1))[4] is Ending.TOO_LARGE
    assert scan('{"' + "x" * 2000)[4] is Ending.TOO_LARGE
    assert scan(" " * (TEXT_CHARS_MAX + 1), 100_000)[4] is Ending.TOO_LARGE
    assert scan('{"answer":"' + "x" * TEXT_CHARS_MAX, 100_000)[4] is Ending.TOO_LARGE


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
steps = st.lists(
    st.fixed_dictionaries(
        {"id": st.text(max_size=4), "tool": st.text(max_size=4), "arguments": st.dictionaries(st.text(), json_values)}
    ),
    max_size=4,
)


@settings(max_examples=75, deadline=timedelta(seconds=2))
@given(steps, st.text(max_size=20), st.booleans(), st.sampled_from([None, 2]), st.lists(st.integers(1, 9), max_size=4))
def test_what_was_written_is_what_is_found(
    written: list[dict[str, Any]], note: str, ascii_only: bool, indent: int | None, sizes: list[int]
) -> None:
    text = json.dumps({"note": note, "steps": written}, ensure_ascii=ascii_only, indent=indent)
    found, _, noted, _, ending, _ = scan(text, *sizes)

    assert [json.loads(one) for one in found] == written
    assert noted == note
    assert ending is Ending.COMPLETE


@settings(max_examples=150, deadline=timedelta(seconds=2))
@given(st.text(max_size=30), st.booleans(), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_an_answer_is_what_was_meant(text: str, ascii_only: bool, sizes: list[int]) -> None:
    assert scan(json.dumps({"answer": text}, ensure_ascii=ascii_only), *sizes)[1] == text


@settings(max_examples=300, deadline=timedelta(seconds=2))
@given(
    st.text(st.sampled_from(list('{}[]":,\\ \nabsteprnwu0d\ud83d\ude00')), max_size=80),
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_the_cuts_never_matter(text: str, sizes: list[int]) -> None:
    assert scan(text, *sizes) == scan(text)


MUTATIONS = 10_000


def mutated(text: str, rng: random.Random) -> str:
    """Change a text in a few places as models and lines do: cut, lose, repeat, swap, put in what does not belong."""
    for _ in range(rng.randint(1, 4)):
        at, to = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        match rng.randrange(7):
            case 0:
                text = text[:at]
            case 1:
                text = text[:at] + text[at + rng.randint(1, 4) :]
            case 2:
                text = text[:to] + text[at:to] + text[to:]
            case 3:
                text = text[:at] + rng.choice('{}[]",:\\\0\ud800é0e') + text[at:]
            case 4:
                text = text[to:] + text[:at]
            case 5:
                text = text.replace(rng.choice(['"', ",", "}", "id", "tool", "${"]), rng.choice(["'", "", "1e999"]), 1)
            case _:
                token = rng.choice(['"id":', '"depends_on":["a"],', "null", "9" * 30, "${a", "NaN", "[" * 40])
                text = text[:at] + token + text[at:]

    return text


async def test_ten_thousand_mutated_outputs_give_no_exception_and_no_invalid_step() -> None:
    tools = Tools()
    schema = '{"type":"object","properties":{"n":{"type":"integer","minimum":1}},"required":["n"]}'
    tools.offered = [*tools.offered, Tool("strict", input_schema=schema, effect=Effect.READ_ONLY, available=True)]
    catalog = Catalog([tools])
    await catalog.start()
    rules = Rules(catalog, PlanOptions(allowed_tools=("echo", "add", "read", "strict")), Limits())
    seeds = [
        plan(call("a", "echo", x={"deep": [1, "${b}"]}), call("b", "add", ["a"], a=1, b="${a.x}"), note="because"),
        plan(call("a", "strict", n=3), call("c", "send", to="me"), call("d", "strict", n="${a}")),
        f"Here it is:\n```json\n{plan(call('a', 'read', q='ünï 😀'))}\n```",
        json.dumps([call("a", "echo"), call("b", "echo", ["a"])]),
        json.dumps({"answer": "fine \ud83d\ude00", "output": {"n": 1}}),
    ]
    rng = random.Random(20260101)
    accepted = refused = 0
    for number in range(MUTATIONS):
        text = mutated(seeds[number % len(seeds)], rng)
        known: dict[str, Any] = {}
        for written in scan(text, rng.randint(1, 60))[0]:
            draft = read_step(written)
            if isinstance(draft, StepRejected):
                refused += 1
                assert draft.violations
                to_message(draft)
                continue

            checked, violations = check_planned(draft, known, 1, rules)
            assert (checked is None) == bool(violations)
            if checked is None:
                refused += 1
                to_message(StepRejected(draft, tuple(violations)))
                continue

            accepted += 1
            assert_valid(checked.draft, written, known)
            known[checked.draft.id] = SimpleNamespace(
                added=SimpleNamespace(round=1, tool=checked.draft.tool), state=StepState.PENDING
            )

    # The control: mutations hit both ways, or this would prove nothing.
    assert accepted > MUTATIONS // 10
    assert refused > MUTATIONS // 20


def assert_valid(draft: StepDraft, written: str, known: dict[str, Any]) -> None:
    """Judge a step again, by hand."""
    assert isinstance(parse_json(written), dict), "a half-written step was appended"
    assert draft.tool in {"echo", "add", "read", "strict"}
    assert draft.id
    assert draft.id not in known
    assert set(draft.depends_on) <= set(known)
    arguments = draft.arguments or {}
    if draft.tool == "strict" and not isinstance(arguments.get("n"), str):
        assert arguments["n"] >= 1

    to_message(draft)


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ('{"id":1,"tool":"x","depends_on":[2]}', StepDraft("1", "", "x", {}, ("2",))),
        ('{"id":"a","tool":"x","arguments":"{\\"n\\":1.0}"}', StepDraft("a", "", "x", {"n": 1})),
        ('{"id":"a","tool":"x","arguments":null,"depends_on":null}', StepDraft("a", "", "x", {})),
        ('{"id":"a","tool":"x","depends_on":"b","why":"because"}', StepDraft("a", "", "x", {}, ("b",))),
    ],
)
def test_what_does_no_harm_is_taken(text: str, draft: StepDraft) -> None:
    assert read_step(text) == draft


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ('{"id":"a","id":"b"}', "", "twice"),
        ('{"id":"a","tool":"x",}', "", "not JSON"),
        ('{"id":"a","tool":["x"]}', "tool", "write a string"),
        ('{"id":true,"tool":"x"}', "id", "write a string"),
        ('{"id":"a","tool":"x","arguments":[1]}', "arguments", "write an object"),
        ('{"id":"a","tool":"x","arguments":"{"}', "arguments", "no JSON"),
        ('{"id":"a","tool":"x","depends_on":[{}]}', "depends_on", "list of ids"),
        ('{"id":"a","tool":"x","arguments":{"n":1e999}}', "", "1e999"),
        ('{"id":"a","arguments":{"n":"%s"}}' % ("é" * 310_000), "arguments", "longer than"),
    ],
)
def test_what_is_wrong_is_said(text: str, field: str, words: str) -> None:
    refused = read_step(text)
    assert isinstance(refused, StepRejected)
    assert refused.violations[0].field == field
    assert words in refused.violations[0].description
