"""Random values of the vocabulary: a strategy for each dataclass, built from its type hints, and for JSON.

What they give is what the wire can give back: JSON in its normal form, times in UTC, integers that fit. Each is small,
so that a hundred of them are quick.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

from autoglm import model, wire

T = TypeVar("T")

TEN_THOUSAND_YEARS = timedelta(seconds=315_576_000_000)


def texts() -> st.SearchStrategy[str]:
    """Short texts of any characters that UTF-8 can carry."""
    return st.text(max_size=12)


def json_numbers() -> st.SearchStrategy[int | float]:
    """Numbers in their normal form."""
    floats = st.floats(allow_nan=False, allow_infinity=False)
    return st.integers(-wire.INTEGER_MAX, wire.INTEGER_MAX) | floats.map(wire.normal_json)


def json_values(*, leaves: int = 8) -> st.SearchStrategy[Any]:
    """JSON values in their normal form, with about ``leaves`` scalars at most."""
    scalars = st.none() | st.booleans() | json_numbers() | texts()
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4),
        max_leaves=leaves,
    )


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects in their normal form."""
    return st.dictionaries(texts(), json_values(), max_size=4)


def times() -> st.SearchStrategy[datetime]:
    """Times in UTC, from the year 1 to 9999, exact to the microsecond."""
    return st.datetimes(timezones=st.just(UTC))


def durations() -> st.SearchStrategy[timedelta]:
    """Durations that protobuf can carry, negative ones too."""
    return st.timedeltas(-TEN_THOUSAND_YEARS, TEN_THOUSAND_YEARS)


@cache
def of(cls: type[T]) -> st.SearchStrategy[T]:
    """Values of a dataclass of the vocabulary, every field random."""
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{name: _field(cls, name, hint) for name, hint in hints.items()})


def events() -> st.SearchStrategy[model.Event]:
    """Events with any fact."""
    return of(model.Event)


def plans() -> st.SearchStrategy[model.Plan]:
    """Plans, with steps and rounds that need not make sense together."""
    return of(model.Plan)


def _field(cls: type, name: str, hint: Any) -> st.SearchStrategy[Any]:
    if hint is int or hint == int | None:
        wide = wire.MESSAGES[cls].DESCRIPTOR.fields_by_name[name].type == FieldDescriptor.TYPE_INT64
        bits = 63 if wide else 31
        number = st.integers(-(1 << bits), (1 << bits) - 1)
        return number if hint is int else st.none() | number

    return _hint(hint)


def _hint(hint: Any) -> st.SearchStrategy[Any]:
    known: dict[Any, st.SearchStrategy[Any]] = {
        str: texts(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        datetime: times(),
        timedelta: durations(),
        dict[str, Any]: json_objects(),
        Mapping[str, str]: st.dictionaries(texts(), texts(), max_size=3),
        Any: json_values(),
        type(None): st.none(),
        model.UnknownFact: st.just(model.UnknownFact()),
    }
    if hint in known:
        return known[hint]

    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)

    if is_dataclass(hint) and isinstance(hint, type):
        return st.deferred(lambda: of(hint))

    if typing.get_origin(hint) is tuple:
        return st.lists(_hint(typing.get_args(hint)[0]), max_size=2).map(tuple)

    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of([_hint(one) for one in typing.get_args(hint)])

    raise TypeError(f"no strategy for {hint}")
