"""References in arguments: what is read, what is filled in, and what never is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import InvalidRequestError
from autoglm.model import Json
from autoglm_server.tools import references as module
from autoglm_server.tools.references import RESOLVED_MAX, compile_references, escape
from autoglm_server.tools.tool import ToolCallError

OUTPUTS: dict[str, Json] = {
    "a": {"x": 1, "items": [{"n": "one"}, {"n": "two"}], "null": None, "text": "${b}", "half": 2.0},
    "b": "plain",
    "step-1": [1, [2, 3]],
    "n": None,
    "0": True,
}
FIELD = "steps[3].arguments"

texts = st.text(st.sampled_from("${}$ab.[]'`\"\\ "), max_size=20) | st.text(max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(texts, kids, max_size=3),
    max_leaves=12,
)


def resolve(value: Json, outputs: dict[str, Json] = OUTPUTS) -> Json:
    return compile_references({"v": value}, FIELD).resolve(outputs.__getitem__)["v"]


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("${a.x}", 1),
        ("${b}", "plain"),
        ("${n}", None),
        ("${0}", True),
        ("${step-1}", [1, [2, 3]]),
        ("${step-1[1][0]}", 2),
        ("${step-1[-1]}", [2, 3]),
        ("${step-1[9]}", None),
        ("${a.items[1].n}", "two"),
        ("${a.items[*].n}", ["one", "two"]),
        ("${a.items[?n=='two'].n | [0]}", "two"),
        ("${a.{k: x, m: items[0].n}}", {"k": 1, "m": "one"}),
        ("${a.[x, half]}", [1, 2]),
        ("${step-1[]}", [1, 2, 3]),
        ("${a.items[?n=='}'].n}", []),
        ("${a.length(items)}", 2),
        ("${a.missing.deeper}", None),
        ("${b.x}", None),
        ("x=${a.x}, y=${b}!", "x=1, y=plain!"),
        ("${b}${b}", "plainplain"),
        ("is ${0}", "is true"),
        ("list: ${step-1}", "list: [1,[2,3]]"),
        ("$${b}", "${b}"),
        ("cost $5 and ${b}", "cost $5 and plain"),
        ("$${b} is ${b}", "${b} is plain"),
        ("{b} $b $ {b}", "{b} $b $ {b}"),
        (["${a.x}", {"k": "${b}"}], [1, {"k": "plain"}]),
        ({"${b}": "a key is no reference"}, {"${b}": "a key is no reference"}),
    ],
)
def test_resolved(written: Json, resolved: Json) -> None:
    got = resolve(written)

    assert got == resolved
    assert type(got) is type(resolved)


def test_an_output_is_never_read_as_a_reference() -> None:
    assert resolve("${a.text}") == "${b}"
    assert resolve("x ${a.text}") == "x ${b}"
    assert resolve("${a}")["text"] == "${b}"


@given(values)
def test_no_output_is_ever_expanded(output: Json) -> None:
    asked: list[str] = []

    def output_of(step_id: str) -> Json:
        asked.append(step_id)
        return output

    read = compile_references({"whole": "${s}", "in": ["<${t}>"]}, FIELD) if output is not None else None
    if read is not None:
        resolved = read.resolve(output_of)
        assert resolved["whole"] == output
        assert asked == ["s", "t"]


@given(values)
def test_what_was_escaped_stands_for_itself(value: Json) -> None:
    read = compile_references({"v": escape(value)}, FIELD)

    assert read.found == ()
    assert read.resolve(lambda _: pytest.fail("nothing is asked for"))["v"] == value


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax")  # jmespath's word on `a`, which it still takes
@given(texts)
def test_any_text_is_read_or_refused(text: str) -> None:
    fields, resolved = None, None
    try:
        resolved = compile_references({"v": text}, FIELD).resolve(lambda _: "output")
    except InvalidRequestError as error:
        fields = [violation.field for violation in error.violations]

    assert fields == [f"{FIELD}.v"] if resolved is None else "v" in resolved
    if "${" not in text:
        assert resolved == {"v": text}


def test_references_come_in_the_order_of_their_mention() -> None:
    read = compile_references({"p": ["${b} ${a.x}", "${b}", "$${c}"], "q": {"r": "${d[0]}"}}, FIELD)

    assert [reference.step_id for _, reference in read.found] == ["b", "a", "b", "d"]
    assert read.paths == (("p", 0), ("p", 1), ("q", "r"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${}", "names no step"),
        ("${ a}", "names no step"),
        ("${-a}", "names no step"),
        ("${a", "no closing brace"),
        ("${a.'x}", "no closing brace"),
        ("${a b}", "comes ' '"),
        (f"${{{'a' * 65}}}", "after the step"),
        ("${a.}", "cannot be used"),
        ("${a.x-y}", "not JMESPath"),
        ("${a.nope(@)}", "no function nope()"),
        ("${a.length()}", "takes 1 arguments, not 0"),
        ("${a[::0]}", "step of a slice"),
        (f"${{a.{'x' * 1025}}}", "characters long"),
        ("${a." + "!" * 900 + "x}", "nested more than"),
        ("${a." + "(" * 500 + "x" + ")" * 500 + "}", "nested more than"),
        ("${a." + "[@,@]|" * 40 + "@}", "times as large"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        compile_references({"list": [text], "other": "${"}, FIELD)

    first, second = caught.value.violations
    assert first.field == f"{FIELD}.list[0]"
    assert told in first.description
    assert second.field == f"{FIELD}.other"


def fault(arguments: dict[str, Any], outputs: dict[str, Json] = OUTPUTS) -> ToolCallError:
    with pytest.raises(ToolCallError) as caught:
        compile_references(arguments, FIELD).resolve(outputs.__getitem__)

    assert caught.value.failure.reason == "INVALID_ARGUMENTS"
    assert not caught.value.failure.retryable
    return caught.value


def test_null_inside_a_text_is_a_fault_and_all_are_told() -> None:
    error = fault({"p": "x ${n}", "q": ["y ${a.missing}"], "r": "${n}"})

    assert [violation.field for violation in error.failure.violations] == [f"{FIELD}.p", f"{FIELD}.q[0]"]


def test_an_expression_that_does_not_fit_its_output_is_a_fault() -> None:
    assert "does not fit" in fault({"p": "${a.length(x)}"}).failure.message


def test_a_resolved_value_shares_nothing_with_the_output() -> None:
    output: Json = {"list": [1]}
    resolved = resolve("${s}", {"s": output})
    resolved["list"].append(2)

    assert output == {"list": [1]}


@pytest.mark.parametrize(
    "text",
    ["${s}", "x${s}", "${s.[@,@]}", "${s.join(@[0], @)}", "${s.to_string(@)}"],
)
def test_what_would_become_too_large_ends_early(text: str) -> None:
    output = ["x" * 1000] * (RESOLVED_MAX // 1000 + 1)
    assert fault({"p": text}, {"s": output}).failure.violations


def test_an_evaluation_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    output = [[0] * 500] * 500
    assert "more than" in fault({"p": "${s[*][*].to_string(@) | length(@)}"}, {"s": output}).failure.message


def test_the_number_of_references_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFERENCES_MAX", 2)
    compile_references({"v": ["${a}", "${b}"]}, FIELD)
    with pytest.raises(InvalidRequestError, match="more than 2"):
        compile_references({"v": ["${a}", "${b}", "${c}"]}, FIELD)


def test_depth_is_bounded() -> None:
    deep: Json = "${a}"
    for _ in range(40):
        deep = [deep]

    with pytest.raises(InvalidRequestError, match="nested more than 32 deep"):
        compile_references({"v": deep}, FIELD)


@pytest.mark.parametrize("output_of", [lambda _: {"a-b": [{"c": 5}]}])
def test_a_quoted_key_needs_jmespath(output_of: Callable[[str], Json]) -> None:
    read = compile_references({"v": '${s."a-b"[0].c}'}, FIELD)
    assert read.resolve(output_of) == {"v": 5}
