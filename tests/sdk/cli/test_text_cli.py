"""What came from elsewhere cannot steer a terminal; values have one form."""

import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoglm.cli.text import clean, clock, count, duration, moment, one_line, plain_json, value_text


@given(st.text())
@example("\x1b]0;title\x07")
@example("\u202egnp.exe")
@example("\ud800")
def test_cleaned_text_has_nothing_that_steers(text: str) -> None:
    cleaned = clean(text)

    assert all(
        unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} or char in "\n\t\u200c\u200d"
        for char in cleaned
    )
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("text", ["plain", "äöü 東京 👩\u200d🚀", "two\nlines\tand a tab", "[red]not markup[/red]"])
def test_clean_leaves_harmless_text(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\u001b[2J"),
        ("a\u202eb", "a\\u202eb"),
        ("\r", "\\u000d"),
        ("\x9b1m", "\\u009b1m"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_clean_shows_what_was_there(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(max_size=500), st.integers(2, 60))
def test_one_line_is_one_line_and_fits(text: str, most: int) -> None:
    line = one_line(text, most)

    assert len(line) <= most
    assert len(line.splitlines()) <= 1


def test_one_line_says_that_it_was_cut() -> None:
    assert one_line("word " * 100_000, 10).endswith("…")
    assert one_line("short", 10) == "short"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 m"),
        (250, "4 m 10 s"),
        (7500, "2 h 5 m"),
        (270_000, "3 d 3 h"),
        (-1, "0 ms"),
    ],
)
def test_duration(seconds: float, told: str) -> None:
    assert duration(seconds) == told
    assert duration(timedelta(seconds=seconds)) == told


def test_times_are_utc() -> None:
    value = datetime(2026, 3, 1, 9, 30, 5, 125_000, timezone(timedelta(hours=8)))

    assert moment(value) == "2026-03-01 01:30:05Z"
    assert clock(value) == "01:30:05.125"
    assert clock(value.astimezone(UTC)) == "01:30:05.125"
    assert moment(None) == ""


def test_values() -> None:
    assert plain_json({"b": "\u202e", "a": 1}) == '{"a": 1, "b": "\\u202e"}'
    assert value_text("\x1b[1m") == "\\u001b[1m"
    assert value_text([1, "é"]) == '[1, "é"]'
    assert (count(1, "step"), count(1200, "step")) == ("1 step", "1,200 steps")
