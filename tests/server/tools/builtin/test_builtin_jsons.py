"""json.query: results, faults with their place, and queries that would multiply the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.tool import ToolError
from autoglm_server.tools.builtin.jsons import query

DATA = {"people": [{"name": "Ann", "age": 40}, {"name": "Bo", "age": 9}], "n": 3}


def reason_of(function: Callable[[], object]) -> str:
    """Give the reason of the ToolError that a call ends with, or nothing."""
    try:
        function()
    except ToolError as error:
        return error.reason

    return ""


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("n", 3),
        ("people[0].name", "Ann"),
        ("people[?age > `18`].name", ["Ann"]),
        ("length(people)", 2),
        ("sort_by(people, &age)[0].name", "Bo"),
        ("people[*].{who: name}", [{"who": "Ann"}, {"who": "Bo"}]),
        ("sum(people[].age)", 49),
        ("nothing", None),
    ],
)
def test_finds(expression: str, result: Any) -> None:
    assert query(DATA, expression) == {"result": result}
    assert query(json.dumps(DATA), expression) == {"result": result}


@pytest.mark.parametrize(
    ("data", "expression", "reason", "named"),
    [
        (DATA, "people[", "INVALID_QUERY", "character 8"),
        (DATA, "a b", "INVALID_QUERY", "'b' is not expected at character 3"),
        (DATA, "a.%", "INVALID_QUERY", "'%' is no token at character 3"),
        (DATA, " ", "INVALID_QUERY", "write"),
        (DATA, "foo(@)", "QUERY_FAILED", "foo()"),
        (DATA, "sum(people)", "QUERY_FAILED", "array-number"),
        (DATA, "people[::0]", "QUERY_FAILED", "slice step"),
        (DATA, 'to_number(`"1e999"`)', "TOO_LARGE", "inf"),
        ('{"a":', "a", "INVALID_JSON", "line 1"),
        ('{"a": NaN}', "a", "INVALID_JSON", "write JSON"),
        (DATA, "|".join(["[@,@]"] * 30), "TOO_LARGE", "may repeat its data"),
        (DATA, "|".join(["[@,@]|[]"] * 15), "TOO_LARGE", "may repeat its data"),
        (DATA, "!" * 900 + "a", "TOO_LARGE", "nested deeper"),
        (DATA, "(" * 499 + "a" + ")" * 499, "TOO_LARGE", "nested deeper"),
    ],
)
def test_refuses_clearly(data: Any, expression: str, reason: str, named: str) -> None:
    with pytest.raises(ToolError) as caught:
        query(data, expression)

    assert caught.value.reason == reason
    assert named in caught.value.message


def test_a_message_does_not_hold_all_of_the_data() -> None:
    with pytest.raises(ToolError) as caught:
        query({"a": ["x" * 100_000]}, "sum(a)")

    assert len(caught.value.message) < 500


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax:PendingDeprecationWarning")
@given(st.text("ab.[]*@|&?!`'\"(){}:,0 ", max_size=25))
def test_never_fails_in_any_other_way(expression: str) -> None:
    data = {"a": {"b": [1, {"a": "b"}]}}
    reason = reason_of(lambda: json.dumps(query(data, expression), allow_nan=False))
    assert reason in {"", "INVALID_QUERY", "QUERY_FAILED", "TOO_LARGE"}
