"""YAML reads as the data that JSON could say, and nothing else gets in."""

import json
import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm.cli.yaml_file import parse_yaml
from tests.strategies import json_objects


def plain_objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON without characters that take two escapes, which YAML does not know."""
    pair = re.compile(r"\\ud[89ab]..\\ud[c-f]..")
    return json_objects().map(lambda value: json.loads(pair.sub("x", json.dumps(value))))


def written(value: Any, indent: int = 0) -> str:
    """The value in block style; texts in quotes and with escapes, for U+0085 and its like break lines in YAML."""
    begin = "\n" + "  " * indent

    if isinstance(value, dict) and value:
        return "".join(f"{begin}{written(key)}: {written(item, indent + 1)}" for key, item in value.items())

    if isinstance(value, list) and value:
        return "".join(f"{begin}- {written(item, indent + 1)}" for item in value)

    return json.dumps(value)


@settings(max_examples=30)
@given(plain_objects())
def test_blocks_are_read_as_what_was_written(value: dict[str, Any]) -> None:
    assert parse_yaml(written(value)) == value


@settings(max_examples=30)
@given(plain_objects())
def test_json_is_read_as_itself(value: dict[str, Any]) -> None:
    assert parse_yaml(json.dumps(value)) == value


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: no", {"a": "no"}),
        ("a: 2026-03-01", {"a": "2026-03-01"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: 0o17", {"a": 15}),
        ("a: 017", {"a": 17}),
        ("a: 0x1F", {"a": 31}),
        ("a: -1.5e3", {"a": -1500.0}),
        ("a: '1'", {"a": "1"}),
        ("a: ~", {"a": None}),
        ("a:", {"a": None}),
        ("a: True", {"a": True}),
        ("<<: 1", {"<<": 1}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("- 1\n- [x, {y: z}]", [1, ["x", {"y": "z"}]]),
    ],
)
def test_core_schema(text: str, value: Any) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &x 1\nb: *x", "the anchor &x is not allowed"),
        ("a: *x", "alias"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "the tag tag:yaml.org,2002:python/object/apply:os.system is not allowed",
        ),
        ("a: !secret 1", "the tag !secret is not allowed"),
        ("a: 1\na: 2", "the key 'a' stands twice in one mapping (line 2, column 1)"),
        ("a: .nan", ".nan is no number"),
        ("a: -.inf", "-.inf is no number"),
        ("a: 1e999", "larger than a double"),
        ("1: a", "the key 1 is no text"),
        ("[a]: b", "is no text"),
        ("a: 1\n---\nb: 2", "a second document begins"),
        ("", "the file is empty"),
        ("a: [", "not YAML"),
        ("\ta: 1", "not YAML"),
        ("[" * 70 + "]" * 70, "more than 64 deep"),
    ],
)
def test_what_is_not_data_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_yaml(text)


def test_a_bomb_does_not_go_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]

    with pytest.raises(ValueError, match="is not allowed"):
        parse_yaml("\n".join(lines))
