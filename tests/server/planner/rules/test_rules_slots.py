from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.planner.rules.backrefs import BackReference, read_back_reference
from autoglm_server.planner.rules.expressions import read_expression
from autoglm_server.planner.rules.moments import read_date, read_time
from autoglm_server.planner.rules.numerals import parse_number
from autoglm_server.planner.rules.slots import Data, SlotReader, Written
from autoglm_server.planner.rules.source import Kind, Source

TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("−2.5", -2.5),
        ("1,234.5", 1234.5),
        ("1,234,567", 1234567),
        ("2.5e3", 2500),
        ("15%", 0.15),
        ("15 percent", 0.15),
        ("100%", 1),
        ("3.0", 3),
        ("１２", 12),
        ("9007199254740993", 9007199254740993),
        ("三百二十", 320),
        ("一百零五", 105),
        ("两万三千", 23000),
        ("三亿五千万", 350_000_000),
        ("十二", 12),
        ("二〇二六", 2026),
        ("三点一四", 3.14),
        ("百分之十五", 0.15),
        ("负七", -7),
    ],
)
def test_numbers(text: str, value: float) -> None:
    number = parse_number(text)

    assert number is not None
    assert number.value == value
    assert type(number.value) is type(value)


@pytest.mark.parametrize("text", ["", "x", "1e999", "3 km", "1,23,4", "9" * 61, "--3", "亿" * 50])
def test_no_numbers(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("15% of 2480", "15% of 2480"),
        ("2480的15%", "15% of 2480"),
        ("2480的百分之十五", "15% of 2480"),
        ("1+2480的15%", "1 + 15% of 2480"),
        ("(1+2)的15%", "15% of (1 + 2)"),
        ("2 + 3 * 4", "2 + 3 * 4"),
        ("-2^2", "-2 ^ 2"),
        ("2**3", "2 ^ 3"),
        ("3 plus 4 times 5", "3 + 4 * 5"),
        ("10 divided by 4", "10 / 4"),
        ("3 squared", "3 ^ 2"),
        ("2 to the power of 10", "2 ^ 10"),
        ("2的10次方", "2 ^ 10"),
        ("5的平方", "5 ^ 2"),
        ("三加五乘以二", "3 + 5 * 2"),
        ("10 % 3", "10 % 3"),
        ("10 mod 3", "10 mod 3"),
        ("sqrt(16) + log10(100)", "sqrt(16) + log10(100)"),
        ("max(1, 2 + 3)", "max(1, 2 + 3)"),
        ("2 * pi", "2 * pi"),
        ("1,000 × 2", "1000 * 2"),
        ("50%", "50%"),
    ],
)
def test_arithmetic_is_written_in_signs(text: str, written: str) -> None:
    source = Source(text)
    end, parts = read_expression(source, 0)[0]

    assert "".join(str(part) for part in parts) == written
    assert end == len(source)


def test_arithmetic_ends_where_it_stops_making_sense() -> None:
    source = Source("2 + 3 kilometers")

    assert [source.raw(0, end) for end, _ in read_expression(source, 0)] == ["2 + 3", "2"]


def test_arithmetic_holds_back_references() -> None:
    assert read_expression(Source("it / 12"), 0)[0][1] == (BackReference(0, "it"), " / ", "12")


@pytest.mark.parametrize("text", ["2026-11-22", "hello", "(", "plus", ""])
def test_no_arithmetic(text: str) -> None:
    source = Source(text + " ")

    assert not len(source) or read_expression(source, 0) == []


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-11-22", "2026-11-22"),
        ("2026/1/2", "2026-01-02"),
        ("2026-11-22 10:30", "2026-11-22T10:30:00"),
        ("2026-11-22T10:30:05", "2026-11-22T10:30:05"),
        ("22 November 2026", "2026-11-22"),
        ("Nov 22, 2026", "2026-11-22"),
        ("September 1st, 2026", "2026-09-01"),
        ("2026年11月22日", "2026-11-22"),
        ("today", "2026-11-22"),
        ("tomorrow", "2026-11-23"),
        ("昨天", "2026-11-21"),
        ("后天", "2026-11-24"),
    ],
)
def test_dates(text: str, iso: str) -> None:
    assert read_date(Source(text), 0, TODAY) == [(len(Source(text)), iso)]


@pytest.mark.parametrize("text", ["2026-13-01", "2026-02-30", "soon", "11", "todayish"])
def test_no_dates(text: str) -> None:
    assert read_date(Source(text), 0, TODAY) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10:30", "10:30"),
        ("3pm", "15:00"),
        ("3:30 p.m.", "15:30"),
        ("12am", "00:00"),
        ("noon", "12:00"),
        ("10:30:05", "10:30:05"),
        ("下午3点半", "15:30"),
        ("晚上八点", "20:00"),
        ("8点20分", "08:20"),
        ("三点一刻", "03:15"),
        ("中午十二点", "12:00"),
    ],
)
def test_times(text: str, moment: str) -> None:
    assert read_time(Source(text), 0) == [(len(Source(text)), moment)]


@pytest.mark.parametrize("text", ["25:00", "13pm", "10:75", "3"])
def test_no_times(text: str) -> None:
    assert read_time(Source(text), 0) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it", 0),
        ("that", 0),
        ("the result", 0),
        ("the previous answer", 0),
        ("that number", 0),
        ("它", 0),
        ("这个结果", 0),
        ("上一步的结果", 0),
        ("the first result", 1),
        ("the 3rd answer", 3),
        ("the result of step 2", 2),
        ("the result of the second step", 2),
        ("step 4", 4),
        ("第一步的结果", 1),
        ("第12个结果", 12),
    ],
)
def test_back_references(text: str, number: int) -> None:
    end, reference = read_back_reference(Source(text), 0)[0]

    assert reference.number == number
    assert end == len(Source(text))


@pytest.mark.parametrize("text", ["item", "thats", "resulting", "kilometers", "italic"])
def test_no_back_references(text: str) -> None:
    assert read_back_reference(Source(text), 0) == []


@pytest.mark.parametrize(
    ("kind", "text", "taken"),
    [
        ("path", "./docs/a.md", ["./docs/a.md"]),
        ("path", "notes.txt.", ["notes.txt"]),
        ("path", "C:\\x\\y.txt", ["C:\\x\\y.txt"]),
        ("path", "notes.txt的内容", ["notes.txt", "notes.txt的内容"]),
        ("word", "a-b.c d", ["a-b.c", "a-b.", "a-b", "a-", "a"]),
        ("unit", "km/h", ["km", "km/", "km/h"]),
        ("unit", "m3", ["m", "m3"]),
        ("name", "New York", ["New", "New York"]),
        ("name", "a. b c d e f g", ["a", "a.", "a. b", "a. b c", "a. b c d", "a. b c d e"]),
        ("quoted", "“x” y", ["x"]),
    ],
)
def test_words(kind: str, text: str, taken: list[str]) -> None:
    read = SlotReader(Source(text), TODAY, frozenset()).read(kind, (), 0)

    assert [value.text for _, value in read if isinstance(value, Written)] == taken


def test_a_name_stops_where_clauses_may_divide() -> None:
    read = SlotReader(Source("Tokyo and London"), TODAY, frozenset({1})).read("name", (), 0)

    assert [end for end, _ in read] == [1]


def test_lists_of_texts_and_numbers_take_as_much_as_there_is() -> None:
    reader = SlotReader(Source('"a", "b" and "c" x'), TODAY, frozenset())

    assert reader.read("texts", (), 0)[0] == (5, Data(["a", "b", "c"], "a, b, c"))
    assert [end for end, _ in SlotReader(Source("1, 2 和3"), TODAY, frozenset()).read("numbers", (), 0)] == [5, 3]
    assert SlotReader(Source("2+2"), TODAY, frozenset()).read("numbers", (), 0) == []


def test_json_is_one_atom() -> None:
    source = Source('x {"a": ["then, and"]} y')

    assert [atom.kind for atom in source.atoms] == [Kind.WORD, Kind.JSON, Kind.WORD]


@pytest.mark.parametrize(
    "text", ["it's what's", "5' tall", "don't 'do it' now", '"open', "“a”b”", "{[}]", '{"a": NaN}', "[1e999]"]
)
def test_atoms_cover_the_text(text: str) -> None:
    _covered(text)


@given(st.text(alphabet="ab1'\"“”‘’「」{}[]:,. \n然后和a`", max_size=60))
def test_atoms_cover_any_text(text: str) -> None:
    _covered(text)


def _covered(text: str) -> None:
    source = Source(text)
    position = 0

    for atom in source.atoms:
        assert not text[position : atom.start].strip()
        assert atom.start < atom.end
        position = atom.end

        if atom.kind is Kind.QUOTED:
            assert atom.content == text[atom.start + 1 : atom.end - 1]

    assert not text[position:].strip()
