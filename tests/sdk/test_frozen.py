"""The quick ``__init__`` of the vocabulary does what the one of dataclasses does."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from autoglm import model
from autoglm._frozen import quicken

CLASSES = [cls for cls in vars(model).values() if isinstance(cls, type) and dataclasses.is_dataclass(cls)]


@dataclasses.dataclass(frozen=True, slots=True)
class Slow:
    """As dataclasses writes it."""

    name: str
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    size: int = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Quick:
    """The same, quickened."""

    name: str
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    size: int = 3


quicken([Quick])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("x",), {}), ((), {"name": "x"}), (("x", {"a": "b"}, 4), {}), (("x",), {"size": 5}), (("x", {}), {"size": 0})],
)
def test_takes_the_same_arguments(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    assert dataclasses.asdict(Quick(*arguments, **named)) == dataclasses.asdict(Slow(*arguments, **named))
    assert inspect.signature(Quick) == inspect.signature(Slow)


def test_refuses_the_same() -> None:
    for arguments, named in (((), {}), (("x", {}, 1, 2), {}), (("x",), {"nope": 1}), (("x",), {"name": "y"})):
        told = []
        for cls in (Quick, Slow):
            with pytest.raises(TypeError) as refused:
                cls(*arguments, **named)

            told.append(str(refused.value).replace("Quick", "Slow"))

        assert told[0] == told[1]


def test_makes_a_default_anew_each_time_and_stays_frozen() -> None:
    one, other = Quick("x"), Quick("x")
    assert one == other
    assert one.labels is not other.labels

    with pytest.raises(dataclasses.FrozenInstanceError):
        one.size = 4  # type: ignore[misc]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_vocabulary_is_quick(cls: type) -> None:
    assert cls.__init__.__code__.co_filename == "<autoglm dataclasses>"  # type: ignore[misc]
