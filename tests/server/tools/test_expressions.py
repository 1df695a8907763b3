"""JMESPath with bounds: the same answers as the library's, and an end to whatever would not end."""

from __future__ import annotations

from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.tools import expressions
from autoglm_server.tools.expressions import ExpressionError, compile_expression

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b"]),
    lambda kids: st.lists(kids, max_size=4) | st.dictionaries(st.sampled_from("abc"), kids, max_size=3),
    max_leaves=15,
)
plain_paths = st.lists(st.sampled_from([".a", ".b", ".c", "[0]", "[-1]", "[3]"]), min_size=1, max_size=5).map(
    lambda parts: "".join(parts).removeprefix("."),
)


@given(documents, plain_paths)
def test_the_direct_walk_agrees_with_jmespath(document: Any, path: str) -> None:
    assert compile_expression(path)(document) == jmespath.search(path, document)


@pytest.mark.parametrize(
    "path",
    ["a[*].b", "a[?b > `1`].b | [0]", "{x: a, y: length(@)}", "sort_by(a, &b)[].b", "join('-', keys(@))", "map(&b, a)"],
)
def test_expressions_agree_with_jmespath(path: str) -> None:
    document = {"a": [{"b": 3}, {"b": 1}, {"b": 2}]}
    assert compile_expression(path)(document) == jmespath.search(path, document)


@pytest.mark.parametrize(
    "path",
    [
        "[@,@]|" * 7 + "@",
        "[[[[[[[@,@],[@,@]],@],@],[@,@]],[@,@]],@] | [@,@,@,@,@,@,@]",
        "to_string(to_string(to_string(@)))",
        "map(&[@,@,@,@,@,@,@,@,@], [@,@,@,@,@,@,@,@])",
        "[*].[@,@,@,@,@,@,@,@,@][].[@,@,@,@,@,@,@,@]",
    ],
)
def test_growth_is_bounded_before_it_runs(path: str) -> None:
    with pytest.raises(ExpressionError, match="times as large"):
        compile_expression(path)


def test_control_the_library_alone_grows_without_bound() -> None:
    assert len(jmespath.search("[@,@][]|" * 15 + "@", [0])) == 1 << 15


def test_join_is_bounded() -> None:
    joined = compile_expression("join(@[0], @)")
    assert joined(["-", "a"]) == "--a"
    with pytest.raises(ExpressionError, match="would write more"):
        joined(["x" * 2000] * 2000)


def test_the_number_of_visits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    every = compile_expression("[*].a")
    every([{}] * 1000)
    monkeypatch.setattr(expressions, "VISITS_MAX", 1000)
    with pytest.raises(ExpressionError, match="narrow it down"):
        every([{}] * 1000)


@pytest.mark.parametrize(
    "path", ["sum(@)", "sort(@)", "max_by(@, &a)", "abs(@)", "to_number(@) | ceil(@)", "sort_by(@, &@)"]
)
def test_values_that_do_not_fit_are_told(path: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(path)([{"a": 1}, {"a": "x"}, "y", None])


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax")  # jmespath's word on `a`, which it still takes
@given(st.text(st.sampled_from("ab.[]{}()|&!@'`\"\\*?=<>-0, "), max_size=30), documents)
def test_any_text_is_an_expression_or_is_refused(text: str, document: Any) -> None:
    try:
        compile_expression(text)(document)
    except ExpressionError as error:
        told = str(error)
    else:
        told = "evaluated"

    assert told
    assert "\n" not in told
