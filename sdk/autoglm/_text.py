"""Dataclasses as JSON text: protobuf's JSON mapping, written and read directly, with no message in between.

Written: lowerCamelCase, 64-bit integers as strings, times in RFC 3339, durations as ``1.5s``, enums by full name, keys
sorted at every level; what is at its default is left out. Read: snake_case too, enums by number too, and every fault is
told at once.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import EnumDescriptor

from autoglm._dataclasses import dataclass
from autoglm._faults import BITS
from autoglm._json import FAULTS_MAX, join, json_faults, normal_json, quote, write_json
from autoglm._shape import Field, Kind, Label, Shape, shape_of
from autoglm._values import DURATION_SECONDS_MAX
from autoglm.model import Json, UnknownFact, Violation

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DURATION: Final = re.compile(r"(-?)(\d{1,12})(?:\.(\d{1,9}))?s", re.ASCII)
_INTEGER: Final = re.compile(r"-?\d{1,20}", re.ASCII)


def to_text(value: Any) -> str:
    """Give the JSON text of a dataclass; raises one of many errors, such as ValueError or TypeError, if it cannot be carried."""
    cls: type = type(value)
    return _text_of(cls)(value)


_Writer: TypeAlias = Callable[[Field, Any], Json]


@cache
def _text_of(cls: type) -> Callable[[Any], str]:
    """Write what makes the text of a dataclass, two lines for each field, as :mod:`autoglm._codec` does for its bytes."""
    names: dict[str, Any] = {"choose": _choose, "quote": quote, "to_text": to_text, "write_json": write_json}
    lines = ["def make(value):", "    members = []"]
    fields = sorted(shape_of(cls).fields, key=lambda each: each.json_name)
    for number, each in enumerate(fields):
        names[f"field_{number}"], names[f"write_{number}"] = each, _writer(each)
        if each.kind is Kind.ONEOF:
            lines.append(f"    members += choose(field_{number}, value.{each.name})")
            continue

        absent = " is not None" if each.label is Label.OPTIONAL else ""
        lines.append(f"    if (it := value.{each.name}){absent}:")
        lines.append(f"        members.append({json.dumps(each.json_name) + ':'!r} + {_text(each, number)})")

    if any(each.kind is Kind.ONEOF for each in fields):  # under which name it stands goes by the value
        lines.append("    members.sort()")

    exec("\n".join([*lines, '    return "{" + ",".join(members) + "}"']), names)  # noqa: S102 - of our own shapes, as dataclasses do it
    make: Callable[[Any], str] = names["make"]
    return make


def _text(each: Field, number: int) -> str:
    """Write the expression that gives the text of a field's value, which is there: ``it``."""
    if each.kind is Kind.MESSAGE:
        return '"[" + ",".join([to_text(one) for one in it]) + "]"' if each.label is Label.REPEATED else "to_text(it)"

    plain = each.kind is Kind.STRING and each.label not in (Label.REPEATED, Label.MAP)
    return "quote(it)" if plain else f"write_json(write_{number}(field_{number}, it))"


def _choose(oneof: Field, part: Any) -> tuple[str, ...]:
    """Give the member of a oneof that is set, if one is: that goes by the part."""
    member = _chosen(oneof, part)
    if member is None:
        return ()

    text = to_text(part) if member.kind is Kind.MESSAGE else write_json(_WRITERS[member.kind](member, part))
    return (f"{json.dumps(member.json_name)}:{text}",)


def _writer(each: Field) -> _Writer | None:
    write = _WRITERS.get(each.kind)
    if write is None:
        return None

    match each.label:
        case Label.MAP:
            return lambda field, part: {
                _write_string(field, key): _write_string(field, text) for key, text in part.items()
            }
        case Label.REPEATED:
            return lambda field, part: [write(field, one) for one in part]
        case _:
            return write


def _chosen(oneof: Field, part: object) -> Field | None:
    if part is None if oneof.label is Label.OPTIONAL else isinstance(part, UnknownFact):
        return None

    for member in oneof.members:
        if type(part) is (member.type or str):
            return member

    raise TypeError(f"{type(part).__name__} is no {oneof.name}")


def _write_time(_field: Field, value: datetime) -> str:
    digits = "microseconds" if value.microsecond % 1_000 else "milliseconds" if value.microsecond else "seconds"
    if value.tzinfo is None:
        raise ValueError("no time zone")

    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=digits) + "Z"


def _write_duration(_field: Field, value: timedelta) -> str:
    seconds, micros = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    if seconds > DURATION_SECONDS_MAX:
        raise ValueError("not a Duration")

    fraction = f".{micros:06d}" if micros % 1_000 else f".{micros // 1_000:03d}" if micros else ""
    return f"{'-' if value < timedelta() else ''}{seconds}{fraction}s"


def _write_enum(field: Field, value: int) -> str:
    return _names(field.enum)[value]


@cache
def _names(descriptor: EnumDescriptor) -> Mapping[int, str]:
    return {value.number: value.name for value in descriptor.values}


def _write_json(_field: Field, value: Json) -> Json:
    return normal_json(value)


def _write_string(_field: Field, value: str) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")

    return value


def _write_integer(each: Field, value: int) -> int:
    if value.bit_length() >= BITS[each.kind] and value != -(1 << BITS[each.kind] - 1):
        raise ValueError("out of range")

    return int(value)


_WRITERS: Final[Mapping[Kind, Callable[[Field, Any], Json]]] = {
    Kind.STRING: _write_string,
    Kind.BOOL: lambda _field, value: bool(value),
    Kind.INT32: _write_integer,
    Kind.INT64: lambda field, value: str(_write_integer(field, value)),
    Kind.DOUBLE: _write_json,
    Kind.ENUM: _write_enum,
    Kind.TIME: _write_time,
    Kind.DURATION: _write_duration,
    Kind.STRUCT: _write_json,
    Kind.VALUE: _write_json,
}


@dataclass(slots=True)
class Reader:
    """Reads an object of JSON into a dataclass and gathers every fault; a part at fault reads as its default."""

    faults: list[Violation] = field(default_factory=list)

    def read(self, cls: type, value: Json, path: str = "") -> Any:
        """Give the instance of ``cls`` that ``value`` describes."""
        shape = shape_of(cls)
        if not isinstance(value, Mapping):
            told = f"{_told(value)} is not an object; give {{…}} with the fields of {cls.__name__}"
            self._refuse(path, told, "INVALID_TYPE")
            return cls()

        known = _known(shape)
        parts: dict[str, Any] = {}
        given: dict[str, str] = {}
        for key, part in value.items():
            if key not in known and len(self.faults) >= FAULTS_MAX:
                continue  # nobody is told, and to look for what was meant takes long

            if key not in known:
                told = f"no such field; {_nearest(str(key), known)}"
                self._refuse(join(path, str(key)), told, "UNKNOWN_FIELD")
                continue

            owner, each = known[key]
            if part is None:
                continue

            if owner.name in given:
                told = f"only one of {given[owner.name]} and {key} can be given"
                self._refuse(join(path, each.name), told, "DUPLICATE_FIELD")
                continue

            given[owner.name] = key
            parts[owner.name] = self._field(each, part, join(path, each.name))

        return cls(**{name: part for name, part in parts.items() if part is not None})

    def _field(self, each: Field, value: Json, path: str) -> Any:
        if each.label is Label.MAP:
            return self._map(value, path)

        if each.label is not Label.REPEATED:
            return self._one(each, value, path)

        if not isinstance(value, Sequence) or isinstance(value, str):
            self._refuse(path, f"{_told(value)} is not a list; give […]", "INVALID_TYPE")
            return None

        return tuple(self._one(each, one, f"{path}[{index}]") for index, one in enumerate(value))

    def _map(self, value: Json, path: str) -> dict[str, str] | None:
        if not isinstance(value, Mapping):
            self._refuse(path, f"{_told(value)} is not an object of strings", "INVALID_TYPE")
            return None

        for key, item in value.items():
            if isinstance(item, str):
                self._add(json_faults(item, join(path, str(key))))
            else:
                self._refuse(join(path, str(key)), f"{_told(item)} is not a string; put it in quotes", "INVALID_TYPE")

        return dict(value)

    def _one(self, each: Field, value: Json, path: str) -> Any:
        if each.kind is Kind.MESSAGE:
            return self.read(each.type, value, path)

        if each.kind in (Kind.STRUCT, Kind.VALUE):
            return self._json(each, value, path)

        try:
            return _READERS[each.kind](each, value)
        except ValueError as error:
            self._refuse(path, str(error), "INVALID_TYPE" if isinstance(error, _TypeError) else "INVALID_VALUE")
            return None

    def _json(self, each: Field, value: Json, path: str) -> Json:
        if each.kind is Kind.STRUCT and not isinstance(value, Mapping):
            self._refuse(path, f"{_told(value)} is not an object; give {{…}}", "INVALID_TYPE")
            return None

        faults = json_faults(value, path)
        self._add(faults)
        return None if faults else normal_json(value)

    def _refuse(self, path: str, description: str, reason: str) -> None:
        self._add([Violation(path or "$", description, reason)])

    def _add(self, faults: Sequence[Violation]) -> None:
        self.faults += faults[: FAULTS_MAX - len(self.faults)]


class _TypeError(ValueError):
    """The value is of another JSON type than the field."""


def _read_string(_field: Field, value: Json) -> str:
    if not isinstance(value, str):
        raise _TypeError(f"{_told(value)} is not a string; put it in quotes")

    for fault in json_faults(value, ""):
        raise ValueError(fault.description)

    return value


def _read_bool(_field: Field, value: Json) -> bool:
    if not isinstance(value, bool):
        raise _TypeError(f"{_told(value)} is not true or false")

    return value


def _read_integer(each: Field, value: Json) -> int:
    bits = BITS[each.kind]
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        value = int(value)

    if not isinstance(value, int) or isinstance(value, bool):
        raise _TypeError(f"{_told(value)} is not an integer")

    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{_told(value)} does not fit in {bits} bits")

    return value


def _read_double(_field: Field, value: Json) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _TypeError(f"{_told(value)} is not a number") from None

    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _TypeError(f"{_told(value)} is not a number")

    try:
        return _finite(float(value))
    except OverflowError:
        raise ValueError(f"{_told(value)} is larger than a double can be") from None


def _finite(value: float) -> float:
    for fault in json_faults(value, ""):
        raise ValueError(fault.description)

    return value


def _read_enum(each: Field, value: Json) -> Any:
    names = {name: number for number, name in _names(each.enum).items()}
    number = names.get(value) if isinstance(value, str) else value
    if isinstance(number, int) and not isinstance(number, bool) and number in names.values():
        return each.type(number)

    if not isinstance(value, str | int) or isinstance(value, bool):
        raise _TypeError(f"{_told(value)} is not a name of {each.type.__name__}; {_nearest('', names)}")

    suffix = f"_{value}".upper()
    meant = next((name for name in names if name.endswith(suffix)), str(value))
    raise ValueError(f"{_told(value)} is no {each.type.__name__}; {_nearest(meant, names)}")


def _read_time(_field: Field, value: Json) -> datetime:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _TypeError(f'{_told(value)} is not a time; give one as "2026-01-31T12:00:00Z"')

    base, fraction, zone = match.groups()
    micros = f"{fraction or '0':0<6}"[:6]
    try:
        return datetime.fromisoformat(f"{base}.{micros}{zone.replace('Z', '+00:00')}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{_told(value)} is not a time of the years 1 to 9999") from None


def _read_duration(_field: Field, value: Json) -> timedelta:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _TypeError(f'{_told(value)} is not a duration; give one in seconds, as "1.5s"')

    sign, seconds, fraction = match.groups()
    if int(seconds) > DURATION_SECONDS_MAX:
        raise ValueError(f"{_told(value)} is more than 10,000 years")

    length = timedelta(seconds=int(seconds), microseconds=int(f"{fraction or '0':0<6}"[:6]))
    return -length if sign else length


_READERS: Final[Mapping[Kind, Callable[[Field, Json], Any]]] = {
    Kind.STRING: _read_string,
    Kind.BOOL: _read_bool,
    Kind.INT32: _read_integer,
    Kind.INT64: _read_integer,
    Kind.DOUBLE: _read_double,
    Kind.ENUM: _read_enum,
    Kind.TIME: _read_time,
    Kind.DURATION: _read_duration,
}


@cache
def _known(shape: Shape) -> Mapping[str, tuple[Field, Field]]:
    """Give, for each spelling of a field of the message, the field of the dataclass it sets and itself."""
    return {
        spelling: (owner, each)
        for owner in shape.fields
        for each in owner.members or (owner,)
        for spelling in (each.name, each.json_name)
    }


def _nearest(word: str, known: Iterable[str]) -> str:
    """Say which of ``known`` was probably meant, or what there is."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]}?"

    # Both spellings of a field are known; the contract's is enough to tell.
    camel = {name for name in known if name[:1].islower() and not name.islower()}
    return "there are " + ", ".join(name for name in known if name not in camel)


def _told(value: Json) -> str:
    """Show a value of JSON, shortened."""
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
