"""How single arguments are written into requests, whatever they hold."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.tools.providers.openapi.encoding import Parameter, query


def written(value: str, *, is_reserved: bool) -> str:
    return "&".join(
        f"{name}={text}" for name, text in query(Parameter("q", "q", "query", is_reserved=is_reserved), value)
    )


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_a_value_is_one_value_and_no_other_parameter(value: str, is_reserved: bool) -> None:
    text = written(value, is_reserved=is_reserved)
    assert "#" not in text
    assert parse_qsl(text, keep_blank_values=True) == [("q", value)]


@pytest.mark.parametrize(
    ("is_reserved", "text"), [(True, "q=/a:b?c=%26d%23%2B"), (False, "q=%2Fa%3Ab%3Fc%3D%26d%23%2B")]
)
def test_what_is_reserved_stays_where_the_document_allows_it(is_reserved: bool, text: str) -> None:
    assert written("/a:b?c=&d#+", is_reserved=is_reserved) == text
