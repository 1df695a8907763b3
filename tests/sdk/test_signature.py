"""What is wrong with a function as a tool: all of it at once."""

from __future__ import annotations

import pytest

import autoglm
from autoglm._schema import SUPPORTED


def _bad(unknown, kept: set[int], *rest: str, fine: int = 1, wrong: int = "one") -> set[str]:  # type: ignore[no-untyped-def,assignment]  # noqa: ANN001
    """Do.

    Args:
        fine: Fine.
        gone: Not there.
    """
    raise AssertionError


def test_every_fault_is_told_at_once_and_what_is_supported_once() -> None:
    with pytest.raises(TypeError) as caught:
        autoglm.tool(_bad)

    where, _, told = str(caught.value).partition(": ")
    assert where == "tool function _bad"
    parts = told.split("; ")
    assert parts[0] == "parameter 'unknown' has no annotation"
    assert parts[1] == "parameter 'kept': set[int] has no JSON form"
    assert parts[2].startswith("*rest: ")
    assert parts[4] == "parameter 'wrong': its type does not allow the default 'one'"
    assert parts[5] == "the docstring describes 'gone', which is no parameter"
    assert parts[6] == "the result: set[str] has no JSON form"
    assert parts[7:] == [f"supported are {SUPPORTED}"]
    assert "fine" not in told
