"""JSON as this product means it: what a Struct or Value can carry and give back unchanged.

A number that is integral and within ±(2^53-1) is an integer; an integer beyond that is a string of decimal digits; NaN
and the infinities do not exist. A value is at most :data:`DEPTH_MAX` deep, where ``1``, ``""``, ``[]`` and ``{}`` are 1
deep and ``[1]`` is 2 deep: the most that protobuf, which reads 100 nested messages, can read back wherever a value may
stand in an event.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

from autoglm.model import Json, Violation

INTEGER_MAX: Final = (1 << 53) - 1
"""The largest integer a double holds with all its neighbours."""
DEPTH_MAX: Final = 32
"""How deep a JSON value may be."""
TEXT_BYTES_MAX: Final = 16 << 20
"""How long a JSON text may be, in bytes."""
FAULTS_MAX: Final = 50
"""How many faults of one value are told; who has more than these has one bug, not fifty."""

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


class WireError(ValueError):
    """A value cannot be carried, or was carried but has no meaning; ``violations`` names every place."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        """Tell of all ``violations``."""
        super().__init__("; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations))
        self.violations = violations


def normal_json(value: Json, *, depth_max: int = DEPTH_MAX) -> Json:
    """Give ``value`` as it comes back from the wire, made of nothing but dict, list, str, int, float, bool and None.

    Raises:
        WireError: it is not JSON, too deep, or has a number that is not finite.
    """
    try:
        return _normal(value, depth_max)
    except (ValueError, TypeError) as error:
        raise wire_error(json_faults(value, "", depth_max=depth_max), error) from error


def canonical_json(value: Json) -> str:
    """Give the one text of ``value``: keys sorted, no spaces, numbers in their normal form.

    Raises:
        WireError: as :func:`normal_json`.
    """
    normal = normal_json(value)
    try:
        return encodable(write_json(normal))
    except UnicodeEncodeError as error:
        raise wire_error(json_faults(value, ""), error) from error


quote: Final[Callable[[str], str]] = json.encoder.encode_basestring
"""Gives the text of a string: with its quotes, and as few escapes as there may be."""


def _writer() -> Callable[[Json], str]:
    """Give the encoder's function; the one in C is made once, where ``encode`` makes it anew for every value."""
    make = json.encoder.c_make_encoder  # type: ignore[attr-defined]  # None where the interpreter has no such module
    if make is None:
        return _ENCODER.encode

    sort_keys, skip_keys, allow_nan = True, False, False
    chunks = make(None, _ENCODER.default, quote, None, ":", ",", sort_keys, skip_keys, allow_nan)
    return lambda value: "".join(chunks(value, 0))


write_json: Final = _writer()
"""Gives the text of a value that is already normal: keys sorted, no spaces."""


def text_bytes(text: str) -> int:
    """Give how many bytes a text has in UTF-8.

    Raises:
        UnicodeEncodeError: it has half of a surrogate pair.
    """
    return len(text) if text.isascii() else len(text.encode())


def encodable(text: str) -> str:
    """Give a text back if UTF-8 can carry it.

    Raises:
        UnicodeEncodeError: it has half of a surrogate pair.
    """
    if not text.isascii():
        text.encode()

    return text


def digest(value: Json) -> str:
    """Give ``sha256:`` and the hexadecimal SHA-256 of the canonical JSON; the same before and after the wire."""
    return digest_text(canonical_json(value))


def digest_text(text: str) -> str:
    """Give ``sha256:`` and the hexadecimal SHA-256 of a text in UTF-8."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def parse_json(text: str | bytes, *, depth_max: int = DEPTH_MAX, bytes_max: int = TEXT_BYTES_MAX) -> Json:
    """Read JSON strictly; a number that is integral becomes an int, also when it is written as 3.0.

    An integer beyond ±(2^53-1) stays the int it is: a JSON Schema may have one. :func:`normal_json` makes it a string.

    Raises:
        ValueError: not UTF-8, not JSON, a key twice in one object, a number no double can hold, half of a surrogate
            pair, too deep or too long. The message is a sentence that says where or what.
    """
    if len(text) > bytes_max:
        raise ValueError(f"the JSON text is longer than {bytes_max} bytes")

    unfit: list[_Unfit] = []

    def keep(literal: str) -> float:
        """Keep a number that is none until the whole is read, so that its place can be told."""
        unfit.append(_Unfit(literal))
        return unfit[-1]

    def read(literal: str) -> float:
        value = float(literal)
        return keep(literal) if math.isinf(value) else normal_number(value)

    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_object, parse_float=read, parse_constant=keep)
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8: byte {error.start} cannot be read") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError(f"the JSON value is more than {depth_max} deep") from error

    # No value is deeper than its text has brackets, and only an escape makes half of a surrogate pair.
    if unfit or text.count("{") + text.count("[") >= depth_max or "\\u" in text:
        faults = tuple(json_faults(value, "", depth_max=depth_max))
        if faults:
            raise WireError(faults)

    return value


def json_faults(value: Json, field: str, *, depth_max: int = DEPTH_MAX) -> tuple[Violation, ...]:
    """Give what keeps ``value`` from being carried, and where; the first :data:`FAULTS_MAX` faults."""
    return tuple(islice(_faults(value, field, depth_max), FAULTS_MAX))


def wire_error(violations: tuple[Violation, ...], error: Exception) -> WireError:
    """Make the error that tells ``violations``; when none was found, what ``error`` said."""
    return WireError(violations or (Violation("", str(error) or type(error).__name__, "INVALID"),))


def join(path: str, key: str) -> str:
    """Give the path of the member ``key`` of the object at ``path``."""
    if not key.isidentifier():
        return f"{path}[{json.dumps(key)}]"

    return f"{path}.{key}" if path else key


def plain(value: object) -> Json:
    """Give a value of a subclass (an IntEnum, an OrderedDict, a tuple, …) as the JSON type it stands for.

    Raises:
        TypeError: it stands for none.
    """
    if isinstance(value, str):
        return str.__str__(value)

    if isinstance(value, int):
        return int(value)

    if isinstance(value, float):
        return float(value)

    if isinstance(value, Mapping):
        return dict(value)

    if isinstance(value, list | tuple):
        return list(value)

    raise TypeError(f"{type(value).__name__} is not a JSON type; give None, bool, int, float, str, list or dict")


def decimal(value: int) -> str:
    """Give an integer beyond ±(2^53-1) as it travels.

    Raises:
        ValueError: it has more digits than Python writes (4,300).
    """
    return str(value)


_AS_IT_IS: Final = frozenset({str, bool, type(None)})
"""Types of values that are in their normal form."""


def _normal(value: Json, room: int) -> Json:
    kind = type(value)
    if kind in _AS_IT_IS:
        return value

    if kind is int:
        return value if -INTEGER_MAX <= value <= INTEGER_MAX else decimal(value)

    if kind is float:
        return normal_number(value)

    if room <= 1 and value and kind in (dict, list):
        raise ValueError("too deep")

    if kind is dict:
        normal = {}
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError("a key is not a string")

            normal[key] = item if type(item) in _AS_IT_IS else _normal(item, room - 1)

        return normal

    if kind is list:
        return [item if type(item) in _AS_IT_IS else _normal(item, room - 1) for item in value]

    return _normal(plain(value), room)


def normal_number(value: float) -> int | float:
    """Give a number as it comes back from the wire.

    Raises:
        ValueError: it is not finite.
    """
    if value.is_integer():
        return int(value) if -INTEGER_MAX <= value <= INTEGER_MAX else value

    if math.isfinite(value):
        return value

    raise ValueError(f"{value} is no JSON number")


def _faults(value: Json, path: str, room: int) -> Iterator[Violation]:
    if isinstance(value, _Unfit):
        yield Violation(path, str(value), "NOT_FINITE")
        return

    try:
        value = None if value is None else plain(value)
    except TypeError as error:
        yield Violation(path, str(error), "INVALID_TYPE")
        return

    match value:
        case None:
            return

        case str():
            if not _encodable(value):
                yield Violation(path, "the text has half of a surrogate pair, which UTF-8 cannot carry", "INVALID_TEXT")

        case float():
            if not math.isfinite(value):
                yield Violation(path, f"{value} is no JSON number; give a finite one, or null", "NOT_FINITE")

        case int():
            try:
                decimal(value)
            except ValueError:
                yield Violation(path, "the integer has more than 4300 digits", "TOO_LARGE")

        case dict() | list() if value and room <= 1:
            yield Violation(path, "the value is too deep; give it less nesting", "TOO_DEEP")

        case dict():
            for key, item in value.items():
                if not isinstance(key, str) or not _encodable(key):
                    yield Violation(path, f"the key {key!r:.100} is not a string that UTF-8 can carry", "INVALID_KEY")
                else:
                    yield from _faults(item, join(path, key), room - 1)

        case _:  # a list: plain gives nothing else
            for index, item in enumerate(value):
                yield from _faults(item, f"{path}[{index}]", room - 1)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False

    return True


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {json.dumps(twice)} stands twice in one object")

    return members


class _Unfit(float):
    """A number as a JSON text has it that no double can hold: ``NaN``, ``-Infinity``, ``1e400``."""

    def __init__(self, literal: str) -> None:
        self.literal = literal

    def __str__(self) -> str:
        if self.literal[-1].isalpha():
            return f"{self.literal} is no JSON; give a finite number, or null"

        return f"the number {self.literal:.40} is larger than a double can be; give a smaller one, or a text"
