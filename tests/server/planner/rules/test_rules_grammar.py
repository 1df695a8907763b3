from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.model import Phrase, Tool
from autoglm_server.planner.rules.grammar import (
    Choice,
    PhraseError,
    Slot,
    Words,
    parse_answer,
    parse_pattern,
)
from autoglm_server.planner.rules.phrasebook import check_phrases, know, readable

INPUT = '{"type": "object", "properties": {"value": {"type": "number"}, "text": {"type": "string"}, "data": {"type": "object"}}}'


def test_reads_words_slots_options_and_choices() -> None:
    pattern = parse_pattern("convert {value:number} [from] (to|into {unit})")

    assert pattern.sequence == (
        Words("convert "),
        Slot("value", "number"),
        Words(" "),
        Choice(((Words("from"),),), optional=True),
        Words(" "),
        Choice(((Words("to"),), (Words("into "), Slot("unit"))), optional=False),
    )
    assert pattern.fixed == ()


def test_reads_fixed_arguments() -> None:
    pattern = parse_pattern(r"add {a} => expression={a} + ({b.unit}); n=3; text=x\;y=z; empty=")

    assert pattern.fixed == (
        ("expression", (Slot("a"), Words(" + ("), Slot("b", path=("unit",)), Words(")"))),
        ("n", (Words("3"),)),
        ("text", (Words("x;y=z"),)),
        ("empty", ()),
    )


def test_json_after_the_arrow_is_text_with_slots() -> None:
    assert parse_pattern('x {a} => data={"k": "{a}"}').fixed == (("data", (Words('{"k": "'), Slot("a"), Words('"}'))),)


def test_choices_of_words_are_a_slot() -> None:
    assert parse_pattern("{order:asc|very high}").sequence == (Slot("order", "choice", ("asc", "very high")),)


def test_an_escaped_sign_is_text() -> None:
    assert parse_pattern(r"a \{b\} \[c\] \(d\) \| \=> \\").sequence == (Words("a {b} [c] (d) | => \\"),)


def test_parentheses_are_text_in_an_answer() -> None:
    assert parse_answer("{output} (or so)[ in {zone}]") == (
        Slot("output"),
        Words(" (or so)"),
        Choice(((Words(" in "), Slot("zone")),), optional=True),
    )


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("convert {value", "not closed by }"),
        ("convert value}", "} without {"),
        ("[convert", "not closed by ]"),
        ("(a|b", "not closed by )"),
        ("a) b", "that nothing opened"),
        ("a | b", "that nothing opened"),
        ("{value:nmuber}", "the types are number"),
        ("{a b}", "a slot named «a b»"),
        ("a => b", "name=value"),
        ("a => 1b=c", "name=value"),
        ("", "is empty"),
        ("x" * 501, "501 characters"),
        ("{a} " * 21, "21 slots"),
        ("[" * 9 + "a" + "]" * 9, "nests deeper than 8"),
        ("a\\", "escapes nothing"),
    ],
)
def test_what_breaks_the_grammar_is_told(pattern: str, told: str) -> None:
    with pytest.raises(PhraseError) as caught:
        parse_pattern(pattern)

    assert told in str(caught.value)


@given(st.text(alphabet='ab {}[]()|\\=>:;."', max_size=40))
def test_any_pattern_parses_or_is_refused(pattern: str) -> None:
    for parse in (parse_pattern, parse_answer):
        with contextlib.suppress(PhraseError):
            parse(pattern)


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        ("(convert|change) {value:number} [from] {text:unit}", "convert <value> <text>"),
        ("[calculate|compute] {text:expression}", "calculate <text>"),
        ("sort {data:up|down|in|out}", "sort <up|down|in|…>"),
    ],
)
def test_a_pattern_is_shown_as_a_person_writes_it(pattern: str, shown: str) -> None:
    assert readable(parse_pattern(pattern).sequence) == shown


def test_a_slot_without_a_type_takes_that_of_its_argument() -> None:
    tool = Tool(name="t", input_schema=INPUT, phrases=(Phrase("x {value} {text} {data}", "", "en"),))
    program = know(tool).phrases[0].program

    assert "kind='number'" in repr(program)
    assert "Begin(slot=Slot(name='text', kind='text'" in repr(program)
    assert "name='data', kind='json'" in repr(program)


def test_faulty_phrases_are_reported_and_left_out() -> None:
    good = Phrase("square {value}", "{output}", "en")
    phrases = (
        good,
        Phrase("x {nothing}"),
        Phrase("y {value", ""),
        Phrase("z => text={q}"),
        Phrase("w {value}", "{output"),
    )
    tool = Tool(name="t", input_schema=INPUT, phrases=phrases)

    assert [violation.field for violation in check_phrases(tool)] == [
        "phrases[1]",
        "phrases[2]",
        "phrases[3]",
        "phrases[4]",
    ]
    assert "no argument of t; it has value, text, data" in check_phrases(tool)[0].description
    assert [compiled.phrase for compiled in know(tool).phrases] == [good]
