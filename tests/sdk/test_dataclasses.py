"""The quick dataclasses do what those of the standard library do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
import typing
from dataclasses import field
from typing import Any

import pytest

from autoglm import _dataclasses, model
from autoglm._dataclasses import dataclass, maker

CLASSES = [cls for cls in vars(model).values() if isinstance(cls, type) and dataclasses.is_dataclass(cls)]


class SlowFrozen:
    """As dataclasses writes it."""

    name: str
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    size: int = 3
    secret: str = field(default="", repr=False, compare=False)
    fixed: int = field(default=7, init=False)
    named: bool = field(default=False, kw_only=True)

    def doubled(self) -> int:
        return self.size * 2


class SlowOpen:
    """As dataclasses writes it."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    size: int = 3


class Single:
    """One field."""

    name: str = ""


class Empty:
    """None."""


class Own:
    """With methods of its own."""

    name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name.upper())

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 5


def both(cls: type, **options: bool) -> tuple[Any, Any]:
    """Make the class twice: by the standard library, and quickly."""
    body = {name: value for name, value in vars(cls).items() if name not in {"__dict__", "__weakref__"}}
    slow, quick = (type(cls.__name__, (), {**body, "__qualname__": cls.__qualname__}) for _ in range(2))
    return dataclasses.dataclass(slots=True, **options)(slow), dataclass(slots=True, **options)(quick)


PAIRS = {
    "frozen": both(SlowFrozen, frozen=True),
    "open": both(SlowOpen),
    "open, no eq": both(SlowOpen, eq=False),
    "named": both(SlowOpen, frozen=True, kw_only=True),
    "single": both(Single, frozen=True),
    "empty": both(Empty, frozen=True),
    "own": both(Own, frozen=True),
}
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("x",), {}),
    ((), {"name": "x"}),
    (("x", {"a": "b"}, 4), {}),
    (("x",), {"size": 5}),
    (("x", {}), {"size": 0}),
    (("x", {}, 1, "y", 2), {}),
    (("x",), {"nope": 1}),
    (("x",), {"name": "y"}),
    (("x",), {"secret": "s", "named": True}),
]


def outcome(make: Any, *arguments: Any, **named: Any) -> tuple[str, Any]:
    try:
        return "gave", make(*arguments, **named)
    except (AttributeError, TypeError) as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize(("arguments", "named"), CALLS)
def test_makes_compares_shows_and_refuses_the_same(
    pair: tuple[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]
) -> None:
    told = []

    for cls in pair:
        how, made = outcome(cls, *arguments, **named)
        if how != "gave":
            told.append([how, made])
            continue

        again = cls(*arguments, **named)
        told.append(
            [
                *[
                    repr(made),
                    made == again,
                    made == "x",
                    made != again,
                    dataclasses.asdict(made),
                    outcome(hash, made)[0],
                ],
                *[outcome(setattr, made, name, "n") for name in cls.__slots__],
                *[outcome(delattr, made, name) for name in cls.__slots__],
                *[repr(outcome(dataclasses.replace, made, **change)) for change in ({}, {"name": "z"}, {"no": 1})],
                *[repr(copy.copy(again)), repr(copy.deepcopy(again)), hasattr(made, "__dict__"), cls.__match_args__],
            ]
        )

    assert told[0] == told[1]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_says_the_same_of_itself(pair: tuple[Any, Any]) -> None:
    slow, quick = pair

    assert str(inspect.signature(quick)) == str(inspect.signature(slow))
    assert typing.get_type_hints(quick.__init__) == typing.get_type_hints(slow.__init__)
    assert repr(quick.__dataclass_params__) == repr(slow.__dataclass_params__)
    assert [(each.name, each.type, each.default) for each in dataclasses.fields(quick)] == [
        (each.name, each.type, each.default) for each in dataclasses.fields(slow)
    ]
    assert (quick.__doc__, quick.__slots__, quick.__hash__ is None) == (
        slow.__doc__,
        slow.__slots__,
        slow.__hash__ is None,
    )


@dataclass(frozen=True, slots=True)
class Base:
    """Pickled by its name, and a base."""

    name: str
    held: list[object] = field(default_factory=list)

    def shown(self) -> str:
        return f"{self.name}!"


@dataclass(frozen=True, slots=True)
class Derived(Base):
    """One that has a base."""

    size: int = 0


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_maker_makes_what_the_class_makes(pair: tuple[Any, Any]) -> None:
    slow, quick = pair
    make = maker(quick)
    told = [[outcome(one, *arguments, **named) for arguments, named in CALLS] for one in (slow, quick, make)]

    assert [how for how, _ in told[2]] == [how for how, _ in told[0]]
    assert {type(one) for how, one in told[2] if how == "gave"} == {quick}
    assert repr([one for how, one in told[2] if how == "gave"]) == repr([one for how, one in told[0] if how == "gave"])
    assert (make is quick) == (pair in (PAIRS["open"], PAIRS["open, no eq"], PAIRS["own"]))


def test_what_a_maker_makes_is_frozen_and_its_own() -> None:
    make = maker(Base)
    one = make("x")

    assert one == Base("x")
    assert one.held is not make("x").held
    assert maker(Derived) is Derived, "or it would not be made as its class says"
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "y"  # type: ignore[misc]


def test_a_field_that_a_method_uses_pickles_and_may_hold_itself() -> None:
    one = Base("x")
    one.held.append(one)

    assert one.shown() == "x!"
    assert repr(one) == "Base(name='x', held=[...])"
    assert pickle.loads(pickle.dumps(Base("x", [1]))) == Base("x", [1])


def test_a_default_is_made_anew_each_time() -> None:
    assert Base("x").held is not Base("x").held


def test_a_class_with_a_base_is_the_standard_librarys() -> None:
    one = Derived("x", [], 3)

    assert (one, type(one)) == (Derived("x", [], 3), Derived)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize("body", [{}, {"__slots__": ()}, {"__slots__": ("more",)}], ids=["dict", "same", "slot"])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_subclass_that_adds_no_fields_is_made_the_same(pair: tuple[Any, Any], body: dict[str, Any]) -> None:
    told = []

    for cls in pair:
        plain = type("Plain", (cls,), {"__module__": __name__, **body})
        kept = [outcome(plain, *arguments, **named) for arguments, named in CALLS]
        made = [one for how, one in kept if how == "gave"]
        assert {type(one) for one in made} <= {plain}
        told.append(
            [
                *[repr(one) for _, one in kept],
                *[one == copy.copy(one) for one in made],
                *[outcome(setattr, one, name, 1) for one in made for name in cls.__slots__],
            ]
        )

    assert told[0] == told[1]


def test_what_checks_itself_is_the_standard_librarys() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        """Which must not go unchecked."""

        size: int

        def __post_init__(self) -> None:
            assert self.size > 0

    with pytest.raises(AssertionError):
        Checked(0)


def test_the_first_calls_may_be_of_many_threads() -> None:
    for _ in range(20):
        cls = both(SlowFrozen, frozen=True)[1]
        made: list[Any] = []
        begin = threading.Barrier(4)

        def make(cls: Any = cls, made: list[Any] = made, begin: threading.Barrier = begin) -> None:
            begin.wait()
            made.append(cls("x"))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()

        for thread in threads:
            thread.join()

        assert made == [cls("x")] * 4


def test_an_init_is_written_when_the_class_is_first_called() -> None:
    cls = both(SlowFrozen, frozen=True)[1]
    assert isinstance(vars(cls)["__init__"], _dataclasses._Init)
    cls("x")
    assert vars(cls)["__init__"].__code__.co_filename == "<autoglm dataclasses>"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_vocabulary_is_quick(cls: type) -> None:
    assert cls.__init__.__code__.co_filename == "<autoglm dataclasses>"  # type: ignore[misc]
