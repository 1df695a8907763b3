"""Sections of settings: what each type reads, what it refuses and in which words, and that all faults come at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_server.section import Before, ByteSize, Section, SettingsError, field, plain
from autoglm_server.settings import Settings


def _even(value: int) -> None:
    if value % 2:
        raise ValueError("write an even number")


class Inner(Section):
    """One of many."""

    name: str
    tags: tuple[str, ...] = ()


class Every(Section):
    """A field of each type."""

    text: str = field(default="a", min_length=1, max_length=3, pattern="^[a-z]*$")
    whole: int = field(default=2, ge=0, le=10, check=_even)
    number: float = field(default=0.5, gt=0)
    switch: bool = False
    size: ByteSize = field(default=ByteSize(1 << 10), ge=1 << 10)
    time: timedelta = field(default=timedelta(seconds=1), gt=timedelta(0), le=timedelta(hours=1))
    maybe: int | None = field(default=None, ge=1)
    short: Annotated[tuple[str, ...], Before(lambda value: value.split() if isinstance(value, str) else value)] = ()
    one: Literal["x", "y", "z"] = "x"
    file: Path | None = None
    any: dict[str, Any] = field(default_factory=dict)
    inner: Inner = Inner(name="i")
    many: dict[str, Inner] = field(default_factory=dict)

    def faults(self) -> list[str]:
        return ["y and z"] if self.one == "z" else []


def each(name: str, told: str, *written: object) -> list[tuple[str, object, str]]:
    return [(name, one, told) for one in written]


READ: list[tuple[str, object, object]] = [
    *[("whole", written, 4) for written in (4, "4", " 4 ", 4.0, "+4", "0_4")],
    *[("number", written, 2.5) for written in (2.5, "2.5", " 2.5 ")],
    *[("switch", written, True) for written in (True, 1, "true", "Yes", "on", "1")],
    *[("switch", written, False) for written in (False, 0, "false", "No", "off", "0")],
    *[("size", written, 2048) for written in (2048, "2048", "2KiB", "2 kib", "2.048 kB", "2048B", 2048.0)],
    *[("time", written, timedelta(seconds=90)) for written in (90, "90", "90s", "1.5m", timedelta(seconds=90))],
    *[("maybe", written, value) for written, value in ((None, None), ("1", 1))],
    *[("short", written, ("a", "b")) for written in ("a b", ["a", "b"], ("a", "b"))],
    *[("file", written, Path("a/b")) for written in ("a/b", Path("a/b"))],
    ("any", {"a": [None]}, {"a": [None]}),
    ("many", {"a": {"name": "n"}}, {"a": Inner(name="n")}),
    ("inner", {"name": "n", "tags": ["t"]}, Inner(name="n", tags=("t",))),
]
REFUSED: list[tuple[str, object, str]] = [
    *[("text", written, "a valid string") for written in (1, None, ["a"], True)],
    *[
        ("text", written, told)
        for written, told in (("", "at least 1 character"), ("abcd", "at most 3 characters, not 4"), ("A", "match"))
    ],
    *[("whole", written, "a valid integer") for written in ("x", "", "1.5", None, True, [1], "9" * 999, "٣")],
    *[("whole", written, "fractional") for written in (1.5, float("nan"), float("inf"))],
    *[
        ("whole", written, told)
        for written, told in ((-1, "or equal to 0"), (12, "or equal to 10"), (3, "an even number"))
    ],
    *[("number", written, "a valid number") for written in ("x", None, True)],
    *[("number", written, "finite") for written in ("nan", "inf", float("inf"))],
    *[("number", written, "greater than 0") for written in (0, -1)],
    *each("switch", "true or false", "maybe", 2, None, "", []),
    *[("size", written, "a number and a unit") for written in ("x", "1 parsec", "", None, True, float("nan"), "-1")],
    ("size", "1023", "or equal to 1024"),
    *[("time", written, "a number and a unit") for written in ("x", "", None, True, "1e999", float("nan"))],
    *[("time", written, told) for written, told in ((0, "greater than 0s"), ("2h", "or equal to 1h"))],
    ("maybe", 0, "or equal to 1"),
    *[("short", written, "write a list") for written in (1, None, {"a": 1})],
    *[("one", written, "'x', 'y' or 'z'") for written in ("w", None, 1, ["x"])],
    ("file", 1, "path"),
    *[("any", written, "write a mapping") for written in ([1], "a", None)],
    ("any", {1: 2}, "the key must be text"),
    *each("inner", "write a mapping", "a", None, []),
]


@pytest.mark.parametrize(
    ("name", "written", "value"),
    READ,
)
def test_what_is_read(name: str, written: object, value: object) -> None:
    assert getattr(Every.read({name: written}), name) == value


@pytest.mark.parametrize(
    ("name", "written", "told"),
    REFUSED,
)
def test_what_is_refused(name: str, written: object, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Every.read({name: written})

    (fault,) = refused.value.faults
    assert fault.path[0] == name
    assert told in fault.message


def test_all_faults_come_at_once_each_with_its_path() -> None:
    with pytest.raises(SettingsError) as refused:
        Every.read({"whole": "x", "many": {"a": {"tags": ["t", 1], "nmae": "n"}, "b": 1}, "other": 1, "one": "z"})

    assert [(fault.path, fault.kind) for fault in refused.value.faults] == [
        (("whole",), "value"),
        (("many", "a", "name"), "missing"),
        (("many", "a", "tags", 1), "value"),
        (("many", "a", "nmae"), "unknown"),
        (("many", "b"), "value"),
        (("other",), "unknown"),
    ]


def test_what_does_not_fit_together_is_told_of_right_values() -> None:
    with pytest.raises(SettingsError, match="y and z"):
        Every(one="z")


def test_a_section_is_frozen_and_compares_by_its_values() -> None:
    one = Every()

    assert (one, one.but(whole=4)) == (Every(), Every(whole=4))
    assert one != Every(whole=4)
    assert (hash(Inner(name="a")), repr(Inner(name="a"))) == (hash(Inner(name="a")), "Inner(name='a', tags=())")
    with pytest.raises(AttributeError):
        one.whole = 6  # type: ignore[misc]

    with pytest.raises(AttributeError):
        del one.whole


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(sorted(Every.fields())),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_whatever_is_written_is_read_or_refused(written: dict[str, object]) -> None:
    try:
        found = Every.read(written)
    except SettingsError:
        return

    assert Every.read(plain(found)) == found


def test_every_default_is_right() -> None:
    assert Settings.read(plain(Settings())) == Settings()
