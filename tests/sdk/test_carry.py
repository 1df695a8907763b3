"""The one walk over an output gives what the walks one after the other do."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import wire
from autoglm._carry import carry
from autoglm._values import write_value
from autoglm.model import Effect, ToolResult
from tests import strategies

KEYS = st.text("ab\x01é\ud800", max_size=2) | st.just(3)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text("a\x01\ud800", max_size=3) | st.just({1})
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
NESTED: list[Any] = [[[[[]]]]]


def exact(value: Any) -> str:
    """A form in which 1, 1.0 and True differ, and keys keep their order."""
    return json.dumps(value)


@given(strategies.json_values())
def test_values_are_carried_as_they_are(value: Any) -> None:
    normal, written = carry(value, wire.DEPTH_MAX)
    assert exact(normal) == exact(value)
    assert written == write_value(value)


@given(ANYTHING, st.integers(1, 5), st.integers(0, 60))
def test_what_is_carried_and_what_is_not_is_the_same(value: Any, depth: int, most: int) -> None:
    expected = wire.carried(value, "output", depth_max=depth, bytes_max=most)
    found, faults = wire.carried_output(value, "output", depth_max=depth, bytes_max=most)
    assert (exact(found), faults) == (exact(expected.value), expected.faults)
    if not faults:
        assert wire.encode(ToolResult(found)) == wire.encode(ToolResult(json.loads(exact(found))))


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        (3.0, 3),
        (-0.0, 0),
        ({"n": -0.0, "of": [1e300, 2.0]}, {"n": 0, "of": [1e300, 2]}),
        ([2**53], ["9007199254740992"]),
        ((1, OrderedDict(a=Effect.READ_ONLY)), [1, {"a": 1}]),
    ],
)
def test_normal_form(value: Any, normal: Any) -> None:
    carried, written = carry(value, wire.DEPTH_MAX)
    assert exact(carried) == exact(normal)
    assert written == write_value(normal)


@pytest.mark.parametrize("value", [[math.nan], {"a": {1}}, {3: 1}, "\ud800", {"\ud800": 1}, NESTED])
def test_what_cannot_be_carried_is_named(value: Any) -> None:
    _, faults = wire.carried_output(value, "output", depth_max=4, bytes_max=1000)
    assert faults == wire.carried(value, "output", depth_max=4, bytes_max=1000).faults != []


def test_an_output_that_changes_afterwards_is_written_as_it_was() -> None:
    given_out: dict[str, Any] = {"rows": [{"n": 1}]}
    carried, _ = wire.carried_output(given_out, "output", bytes_max=1000)
    given_out["rows"][0]["n"] = 2
    assert wire.encode(ToolResult(carried)) == wire.encode(ToolResult({"rows": [{"n": 1}]}))


def test_another_value_that_is_equal_is_written_by_itself() -> None:
    wire.carried_output({"n": 1}, "output", bytes_max=1000)
    assert wire.encode(ToolResult({"n": True})) != wire.encode(ToolResult({"n": 1}))
