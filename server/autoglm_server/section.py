"""Sections of settings: classes whose fields have types, bounds and defaults, and that read what people write.

Values come as YAML, environment variables and flags give them: a number may be text, a duration is ``30s``, a size ``1MiB``. All
faults are found at once. Nothing is made of a class before a value for it is read: a server that is told little starts at once.
"""

from __future__ import annotations

import functools
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Self, TypeAlias, dataclass_transform

_Path: TypeAlias = tuple[str | int, ...]
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
_TRUE: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE: Final = frozenset({"0", "off", "f", "false", "n", "no"})
_DIGITS_MAX: Final = 300
_NONE_YET: Final = object()
"""Stands for a default that there is not, and for a value that could not be read."""


class Fault(NamedTuple):
    """What is wrong with one value: where it stands, what it is, and what to write."""

    path: _Path
    value: object
    message: str
    kind: str = "value"
    """``value``; ``missing``: there is none; ``unknown``: there is no such key."""


class SettingsError(ValueError):
    """Settings are wrong; ``faults`` says every one."""

    def __init__(self, faults: list[Fault]) -> None:
        """Carry all faults."""
        super().__init__("\n".join(f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in faults))
        self.faults = faults


class ByteSize(int):
    """A number of bytes."""

    __slots__ = ()


class Before(NamedTuple):
    """What makes of a written value the one that its type reads; in ``Annotated``."""

    read: Callable[[object], object]


class Field:
    """What is known of one setting. ``check`` raises ValueError for a value that its type and its bounds let through."""

    __slots__ = (
        "annotation",
        "check",
        "default",
        "default_factory",
        "ge",
        "gt",
        "le",
        "max_length",
        "min_length",
        "pattern",
    )

    def __init__(
        self,
        *,
        default: Any = _NONE_YET,
        default_factory: Callable[[], Any] | None = None,
        ge: Any = None,
        gt: Any = None,
        le: Any = None,
        min_length: int | None = None,
        max_length: int | None = None,
        pattern: str | None = None,
        check: Callable[[Any], None] | None = None,
    ) -> None:
        """Describe a setting; without a default it must be given."""
        self.annotation: Any = None
        self.default = default
        self.default_factory = default_factory
        self.ge, self.gt, self.le = ge, gt, le
        self.min_length, self.max_length, self.pattern = min_length, max_length, pattern
        self.check = check

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is _NONE_YET and self.default_factory is None

    def made(self) -> Any:
        """Give the default."""
        return self.default_factory() if self.default_factory is not None else self.default

    def fault_of(self, value: Any) -> str:
        """Say what is wrong with a value of the right type, "" if nothing is."""
        if self.gt is not None and not value > self.gt:
            return f"Input should be greater than {told(self.gt)}"

        if self.ge is not None and not value >= self.ge:
            return f"Input should be greater than or equal to {told(self.ge)}"

        if self.le is not None and not value <= self.le:
            return f"Input should be less than or equal to {told(self.le)}"

        if self.min_length is not None and len(value) < self.min_length:
            return f"Input should have at least {self.min_length} {_parts(value, self.min_length)}"

        if self.max_length is not None and len(value) > self.max_length:
            return f"Input should have at most {self.max_length} {_parts(value, self.max_length)}, not {len(value)}"

        if self.pattern is not None and not re.search(self.pattern, value):
            return f"Input should match pattern {self.pattern!r}"

        try:
            if self.check is not None:
                self.check(value)
        except ValueError as error:
            return str(error)

        return ""


def field(**known: Any) -> Any:
    """Give the :class:`Field` of a setting, as the class's own text has it."""
    return Field(**known)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Section:
    """The base of every section: frozen, and strict about what it does not know.

    A field's docstring is its documentation; :mod:`autoglm_server.configuration` reads it from the source when it writes the
    reference.
    """

    _fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls) -> None:
        """Take the fields out of the class's text."""
        own = {name: cls.__dict__.get(name, _NONE_YET) for name in cls.__annotations__ if not name.startswith("_")}
        cls._fields = {
            **cls._fields,
            **{name: said if isinstance(said, Field) else Field(default=said) for name, said in own.items()},
        }
        for name in own.keys() & cls.__dict__.keys():
            delattr(cls, name)

    def __init__(self, **values: Any) -> None:
        """Read ``values``; raises SettingsError with every fault."""
        faults: list[Fault] = []
        self._fill(values, (), faults)

        if faults:
            raise SettingsError(faults)

    @classmethod
    def read(cls, value: object) -> Self:
        """Read a section from what a person wrote; raises SettingsError with every fault."""
        faults: list[Fault] = []
        found = cls._read(value, (), faults)

        if found is None or faults:
            raise SettingsError(faults)

        return found

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """Give every setting by its name, with its type."""
        _readers(cls)
        return cls._fields

    def but(self, **changes: Any) -> Self:
        """Give the section with other values, which are not checked."""
        copy = object.__new__(type(self))
        vars(copy).update(vars(self) | changes)
        return copy

    @classmethod
    def before(cls, value: object) -> object:
        """Give the mapping that a value is short for."""
        return value

    def faults(self) -> list[str]:
        """Say what does not fit together, of values that are right by themselves."""
        return []

    @classmethod
    def _read(cls, value: object, path: _Path, faults: list[Fault]) -> Self | None:
        if isinstance(value, cls):
            return value

        value = cls.before(value)
        if not isinstance(value, Mapping):
            faults.append(Fault(path, value, "write a mapping, as in {key: value}"))
            return None

        section = object.__new__(cls)
        section._fill(value, path, faults)
        return section

    def _fill(self, values: Mapping[str, object], path: _Path, faults: list[Fault]) -> None:
        before, mine = len(faults), vars(self)
        readers = _readers(type(self)) if values else {}

        for name, known in self._fields.items():
            if name in values:
                mine[name] = readers[name](values[name], (*path, name), faults)
            elif known.is_required:
                faults.append(Fault((*path, name), None, "is missing", "missing"))
            else:
                mine[name] = known.made()

        faults += [Fault((*path, key), values[key], "unknown", "unknown") for key in values if key not in self._fields]
        if len(faults) == before:
            faults += [Fault(path, None, message) for message in self.faults()]

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: what holds is read by many."""
        raise AttributeError(f"cannot assign to {name!r}: settings are frozen")

    def __delattr__(self, name: str) -> None:
        """Refuse, likewise."""
        raise AttributeError(f"cannot delete {name!r}: settings are frozen")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


# --- reading


_Reader: TypeAlias = Callable[[object, _Path, list[Fault]], Any]
"""Gives what a value is read as; adds a fault where it cannot be."""


_known: dict[type, dict[str, _Reader]] = {}


def _readers(cls: type[Section]) -> dict[str, _Reader]:
    """Give what reads each field of a section, made when the first value of one is read."""
    if (found := _known.get(cls)) is not None:
        return found

    hints = typing.get_type_hints(cls, include_extras=True)

    for name, known in cls._fields.items():
        known.annotation = hints[name]

    found = {name: functools.partial(_bounded, _reader(hints[name]), known) for name, known in cls._fields.items()}
    return _known.setdefault(cls, found)


def _bounded(read: _Reader, known: Field, value: object, path: _Path, faults: list[Fault]) -> Any:
    before = len(faults)
    found = read(value, path, faults)

    if found is not None and len(faults) == before and (message := known.fault_of(found)):
        faults.append(Fault(path, value, message))

    return found


def _reader(annotation: Any) -> _Reader:
    """Give what reads values of a type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)

    if origin is Annotated:
        steps = [step.read for step in inner[1:] if isinstance(step, Before)]
        return functools.partial(_prepared, steps, _reader(inner[0]))

    if origin in {typing.Union, types.UnionType}:
        (one,) = (each for each in inner if each is not type(None))
        return functools.partial(_optional, _reader(one))

    if origin is typing.Literal:
        return functools.partial(_scalar, functools.partial(_choice, inner))

    if origin is tuple:
        return functools.partial(_tuple, _reader(inner[0]))

    if origin is dict:
        return functools.partial(_mapping, _reader(inner[1]))

    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation._read  # noqa: SLF001 - of this module

    return functools.partial(_scalar, _SCALARS[annotation])


def _prepared(
    steps: list[Callable[[object], object]], read: _Reader, value: object, path: _Path, faults: list[Fault]
) -> Any:
    made = value

    try:
        for step in steps:
            made = step(made)
    except ValueError as error:
        faults.append(Fault(path, value, str(error)))
        return None

    return read(made, path, faults)


def _optional(read: _Reader, value: object, path: _Path, faults: list[Fault]) -> Any:
    return None if value is None else read(value, path, faults)


def _tuple(read: _Reader, value: object, path: _Path, faults: list[Fault]) -> Any:
    if not isinstance(value, list | tuple):
        faults.append(Fault(path, value, "write a list, as in [a, b]"))
        return None

    return tuple([read(each, (*path, number), faults) for number, each in enumerate(value)])


def _mapping(read: _Reader, value: object, path: _Path, faults: list[Fault]) -> Any:
    if not isinstance(value, Mapping):
        faults.append(Fault(path, value, "write a mapping, as in {key: value}"))
        return None

    faults += [
        Fault((*path, str(key)), key, "the key must be text; put it in quotes")
        for key in value
        if not isinstance(key, str)
    ]
    return {key: read(each, (*path, str(key)), faults) for key, each in value.items()}


def _scalar(read: Callable[[Any], object], value: object, path: _Path, faults: list[Fault]) -> Any:
    try:
        return read(value)
    except ValueError as error:
        faults.append(Fault(path, value, str(error)))
        return None


def _choice(choices: tuple[object, ...], value: object) -> object:
    if isinstance(value, str) and value in choices:
        return value

    *most, last = map(repr, choices)
    raise ValueError(f"Input should be {', '.join(most)} or {last}")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value

    raise ValueError("Input should be a valid string; put it in quotes")


def _whole(value: object) -> int:
    if isinstance(value, str):
        if len(value) > _DIGITS_MAX or not re.fullmatch(r"\s*[-+]?[0-9]+(_[0-9]+)*\s*", value):
            raise ValueError("Input should be a valid integer, unable to parse string as an integer")

        return int(value)

    if isinstance(value, float) and not value.is_integer():  # neither is what is infinite, or no number
        raise ValueError("Input should be a valid integer, got a number with a fractional part")

    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("Input should be a valid integer")  # noqa: TRY004 - a fault of a value, as every other

    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("Input should be a valid number")  # noqa: TRY004 - a fault of a value, as every other

    try:
        found = float(value)
    except (ValueError, OverflowError):
        raise ValueError("Input should be a valid number, unable to parse string as a number") from None

    if not math.isfinite(found):
        raise ValueError("Input should be a finite number")

    return found


def _switch(value: object) -> bool:
    text = str(int(value)) if isinstance(value, bool) or value in (0, 1) else value
    word = text.strip().lower() if isinstance(text, str) else ""

    if word in _TRUE or word in _FALSE:
        return word in _TRUE

    raise ValueError("Input should be a valid boolean: write true or false")


def _file(value: object) -> Path:
    if isinstance(value, str | Path):
        return Path(value)

    raise ValueError("Input is not a valid path")


def _size(value: object) -> ByteSize:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", value)

        if found is None or found[2].lower() not in _SIZES:
            raise ValueError("write a number and a unit: 64KiB, 1MiB or 2GiB")

        factor = _SIZES[found[2].lower()]
        return ByteSize(int(found[1]) * factor if found[1].isdigit() else int(float(found[1]) * factor))

    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("write a number and a unit: 64KiB, 1MiB or 2GiB")

    return ByteSize(int(value))


_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


def parse_duration(value: object) -> object:
    """Read ``90``, ``30s``, ``1.5h`` or ``500ms``; what is neither a number nor text is left as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value

    found = _DURATION.fullmatch(value) if isinstance(value, str) else None

    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]] if found else float(value))
    except (ValueError, OverflowError):
        raise ValueError("write a number and a unit: 500ms, 30s, 10m, 2h or 7d") from None


def seconds_of(unit: str) -> float:
    """Give how long one of a duration's units is."""
    return _UNITS[unit]


def _duration(value: object) -> timedelta:
    found = parse_duration(value)

    if isinstance(found, timedelta):
        return found

    raise ValueError("write a number and a unit: 500ms, 30s, 10m, 2h or 7d")


_SCALARS: Final[Mapping[Any, Callable[[Any], object]]] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: _switch,
    Path: _file,
    ByteSize: _size,
    timedelta: _duration,
    Any: lambda value: value,
}


# --- telling


def _parts(value: object, number: int) -> str:
    what = "character" if isinstance(value, str) else "item"
    return what if number == 1 else f"{what}s"


def told(value: object) -> object:
    """Give a bound as people write it."""
    return format_duration(value) if isinstance(value, timedelta) else value


def format_duration(value: timedelta) -> str:
    """Write a duration as :func:`parse_duration` reads it, in the largest unit that keeps it whole."""
    milliseconds = round(value.total_seconds() * 1000)

    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"

    return f"{milliseconds}ms" if milliseconds else "0s"


def format_bytes(value: int) -> str:
    """Write a size as ``1MiB``, in the largest unit that keeps it whole."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"

    return f"{value}B"


def plain(value: Any) -> Any:
    """Give a value as YAML and JSON have it, which can be read again."""
    match value:
        case Section():
            return {name: plain(inner) for name, inner in vars(value).items()}
        case Mapping():
            return {key: plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case ByteSize():
            return format_bytes(value)
        case timedelta():
            return format_duration(value)
        case Path():
            return str(value)
        case _:
            return value
