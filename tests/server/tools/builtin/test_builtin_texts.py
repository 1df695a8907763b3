"""text.*: tables, what always holds, and bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import wire
from autoglm.tool import FunctionTool, ToolContext, ToolError
from autoglm_server.tools.builtin import texts

TEXT = "Don't stop. 3.14 is pi! 你好世界。\nLine two? yes"
MAIL = "Mail ann@x.com, see https://a.b/c?d=1. (www.foo.org) on 2026-11-22 or 22 Nov 2026, 1,234.5 -3 15% #tag @bob, ann@x.com"


def reason_of(function: Callable[[], object]) -> str:
    """Give the reason of the ToolError that a call ends with, or nothing."""
    try:
        function()
    except ToolError as error:
        return error.reason

    return ""


@pytest.mark.parametrize(
    ("what", "result"), [("words", 12), ("characters", 43), ("letters", 26), ("lines", 2), ("sentences", 5)]
)
def test_counts(what: texts.What, result: int) -> None:
    assert texts.count(TEXT, what) == {"result": result, "what": what}


def test_counts_characters_as_people_see_them() -> None:
    assert texts.count("é👨‍👩‍👧🇨🇳", "characters")["result"] == 3


def test_counts_occurrences() -> None:
    assert texts.count("banana", "occurrences", "an")["result"] == 2
    assert texts.count("Anna", "occurrences", "A")["result"] == 1
    assert texts.count("Anna", "occurrences", "A", ignore_case=True)["result"] == 2


@pytest.mark.parametrize(
    ("case", "result"),
    [
        ("upper", "USERACCOUNT ID DON'T HTTPSERVER"),
        ("lower", "useraccount id don't httpserver"),
        ("title", "Useraccount Id Don't Httpserver"),
        ("capitalize", "Useraccount id don't httpserver"),
        ("snake", "user_account_id_don_t_http_server"),
        ("kebab", "user-account-id-don-t-http-server"),
        ("camel", "userAccountIdDonTHttpServer"),
        ("pascal", "UserAccountIdDonTHttpServer"),
        ("swap", "USERaCCOUNT id DON'T httpsERVER"),
    ],
)
def test_changes_case(case: texts.Case, result: str) -> None:
    assert texts.case("userAccount ID don't HTTPServer", case)["result"] == result


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("emails", ["ann@x.com"]),
        ("urls", ["https://a.b/c?d=1", "www.foo.org"]),
        ("dates", ["2026-11-22", "22 Nov 2026"]),
        ("hashtags", ["#tag"]),
        ("mentions", ["@bob"]),
    ],
)
def test_extracts(what: texts.Kind, result: list[str]) -> None:
    assert texts.extract(MAIL, what) == {"result": result, "count": len(result)}


def test_extracts_numbers_and_words() -> None:
    assert texts.extract("costs 1,234.5 or -3, up 15% (1e3)", "numbers")["result"] == ["1,234.5", "-3", "15%", "1e3"]
    assert texts.extract("你好 big-world big-world", "words")["result"] == ["你", "好", "big-world"]


def test_replaces_literally() -> None:
    assert texts.replace("a.c abc", "a.c", r"\1") == {"result": r"\1 abc", "count": 1}
    assert texts.replace("axbx", "x", "") == {"result": "ab", "count": 2}


def test_reverses() -> None:
    assert texts.reverse("héllo 👨‍👩‍👧🇨🇳")["result"] == "🇨🇳👨‍👩‍👧 olléh"
    assert texts.reverse("a b c", "words")["result"] == "c b a"
    assert texts.reverse("a\nb", "lines")["result"] == "b\na"


@pytest.mark.parametrize(
    ("text", "options", "result"),
    [
        ("pear, apple, fig", {}, "apple, fig, pear"),
        ("10, 9, 100", {}, "9, 10, 100"),
        ("10 9 100", {"descending": True}, "100 10 9"),
        ("b\na\nC", {}, "a\nb\nC"),
        ("b,a,b", {"unique": True}, "a, b"),
        ("3、1、2", {}, "1、2、3"),
        ("", {}, ""),
    ],
)
def test_sorts(text: str, options: dict[str, bool], result: str) -> None:
    assert texts.sort(text, **options)["result"] == result


def test_joins() -> None:
    assert texts.join(["a", "b"], ", ")["result"] == "a, b"


TAKE_NUMBERS: list[tuple[FunctionTool, dict[str, Any], Any]] = [
    (texts.join, {"parts": ["is ", 10, 2.5, True, 1e300, -0.5]}, "is 102.5true1e+300-0.5"),
    (texts.count, {"text": 1020, "what": "occurrences", "of": 0}, 2),
    (texts.case, {"text": True, "case": "upper"}, "TRUE"),
    (texts.extract, {"text": 12.5, "what": "numbers"}, ["12.5"]),
    (texts.replace, {"text": "N of 3", "old": "N", "new": 2}, "2 of 3"),
    (texts.reverse, {"text": 123}, "321"),
    (texts.sort, {"text": False}, "false"),
]


@pytest.mark.parametrize(("tool", "arguments", "result"), TAKE_NUMBERS)
def test_numbers_and_booleans_are_written_as_json_writes_them(
    tool: FunctionTool, arguments: dict[str, Any], result: object
) -> None:
    jsonschema_rs.validate(wire.parse_json(tool.spec.input_schema), arguments)
    output = tool.result(tool.function(**tool.keywords(arguments, ToolContext()))).output

    assert isinstance(output, dict)
    assert output["result"] == result


@pytest.mark.parametrize("part", [None, [1], {"a": 1}])
def test_nothing_else_is_joined(part: object) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(wire.parse_json(texts.join.spec.input_schema), {"parts": ["a", part]})


@pytest.mark.parametrize(
    ("tool", "arguments", "reason", "named"),
    [
        (texts.count, {"text": "x", "what": "occurrences"}, "INVALID_VALUE", "of is empty; write"),
        (texts.replace, {"text": "x", "old": "", "new": "y"}, "INVALID_VALUE", "old is empty; write"),
        (
            texts.replace,
            {"text": "a" * 200_000, "old": "a", "new": "bb" * 5000},
            "TOO_LARGE",
            "1,000,000 bytes; work on",
        ),
        (texts.replace, {"text": "a" * 200_000, "old": "a", "new": "你你"}, "TOO_LARGE", "1,000,000 bytes"),
        (texts.join, {"parts": ["x" * 600_000, "y" * 600_000]}, "TOO_LARGE", "1,000,000 bytes"),
        (texts.extract, {"text": " ".join(map(str, range(10_001))), "what": "numbers"}, "TOO_LARGE", "10,000 numbers"),
    ],
)
def test_refuses_clearly(tool: FunctionTool, arguments: dict[str, Any], reason: str, named: str) -> None:
    with pytest.raises(ToolError) as caught:
        tool(**arguments)

    assert caught.value.reason == reason
    assert named in caught.value.message


@given(st.text(max_size=200), st.text(min_size=1, max_size=3), st.text(max_size=5))
def test_replacing_agrees_with_counting(text: str, old: str, new: str) -> None:
    output = texts.replace(text, old, new)
    assert output["count"] == texts.count(text, "occurrences", old)["result"]
    assert len(output["result"]) == len(text) + output["count"] * (len(new) - len(old))


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=100))
def test_reversing_twice_changes_nothing(text: str) -> None:
    assert texts.reverse(texts.reverse(text)["result"])["result"] == text


@given(st.lists(st.text("abcXYZ", min_size=1, max_size=5), max_size=20))
def test_sorting_keeps_every_item(items: list[str]) -> None:
    result = texts.sort("\n".join(items))["result"]
    assert sorted(result.split("\n") if result else []) == sorted(items)


@given(st.text(max_size=300), st.sampled_from(get_args(texts.Kind)))
def test_what_is_extracted_stands_in_the_text(text: str, what: texts.Kind) -> None:
    assert all(part in text for part in texts.extract(text, what)["result"])


@pytest.mark.timeout(15)
@pytest.mark.parametrize("unit", ["a", "1", "1,", "a.", "a@a.", ".", " ", "#", "http://", "Jan ", "-1.", "!a", ""])
def test_long_texts_take_no_more_than_their_length(unit: str) -> None:
    """A pattern that is quadratic takes minutes here; the time limit catches it."""
    text = (unit * texts.LENGTH_MAX)[: texts.LENGTH_MAX]
    for what in get_args(texts.Kind):
        assert reason_of(lambda: texts.extract(text, what)) in {"", "TOO_LARGE"}  # noqa: B023  # called at once

    texts.count(text, "sentences")
    texts.count(text, "words")
    texts.case(text, "snake")
    texts.sort(text)
