"""Reading a unit as people write it into pint units. Pint sees single names alone: it never evaluates an expression."""

# ruff: noqa: RUF001 - the signs that people type
from __future__ import annotations

import itertools
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from autoglm._dataclasses import dataclass
from autoglm.tool import ToolError
from autoglm_server.spelling import nearest
from autoglm_server.tools.builtin._unit_names import ALIASES, CASED, MONEY

LENGTH_MAX: Final = 100
"""Characters of a unit."""

_EXPONENT_MAX: Final = 12
_FACTORS_MAX: Final = 8
_WORDS_MAX: Final = 4
_READINGS_MAX: Final = 16

_ALLOWED: Final = re.compile(r"""[\w\s*^/.°"'′″%$€£¥()+-]*""")
_PER: Final = re.compile(r"\s*/\s*|\s+per\s+|(?<=.)每(?=.)", re.IGNORECASE)
_TIMES: Final = re.compile(r"[\s*-]+")
_NUMBERED: Final = re.compile(r"([0-9]{0,6})(.*?)(?:\^?([+-]?[0-9]{1,4}))?", re.DOTALL)
_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")
_BEFORE: Final = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "cu": 3, "cu.": 3}
_AFTER: Final = {"squared": 2, "cubed": 3}

_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Unit:
    """One reading of a unit: ``factor`` times the product of pint's units to their exponents."""

    factor: Fraction
    parts: tuple[tuple[str, int], ...]

    @property
    def pint(self) -> Any:
        """Pint's unit, without the factor. Temperatures are differences unless the unit is one alone."""
        alone = len(self.parts) == 1 and self.parts[0][1] == 1 and self.factor == 1
        unit = registry().dimensionless
        for name, exponent in self.parts:
            unit *= registry().Unit(name if alone or not name.startswith("degree_") else f"delta_{name}") ** exponent

        return unit


@lru_cache(maxsize=1)
def _made() -> Any:
    import pint  # noqa: PLC0415  # half a second, and only for who converts units

    return pint.UnitRegistry(non_int_type=Fraction, cache_folder=None)


def registry() -> Any:
    """Give the one registry, made when first asked for. It calculates in fractions, so that conversions are exact."""
    with _lock:
        return _made()


def read(text: str, field: str) -> list[Unit]:
    """Read a unit; gives what it may mean, the likeliest first.

    Raises:
        ToolError: INVALID_UNIT, UNKNOWN_UNIT or CURRENCY; names ``field``, the value and the remedy.
    """
    plain = (
        unicodedata.normalize("NFKC", text)
        .replace("**", "^")
        .replace("·", "*")
        .replace("⋅", "*")
        .replace("×", "*")
        .strip()
    )
    if not plain or len(plain) > LENGTH_MAX:
        raise _invalid(field, text, f"it has {len(plain):,} characters, and 1 to {LENGTH_MAX} are allowed")

    if not _ALLOWED.fullmatch(plain):
        raise _invalid(field, text, "it holds a character that belongs to no unit")

    if plain.lower() in MONEY:
        raise ToolError(
            f"{field} is {text!r}, a currency: exchange rates change all the time and this tool knows none; "
            "use a tool that looks them up, then math.calculate",
            reason="CURRENCY",
        )

    return _readings(plain, field, aliases=True)


def _invalid(field: str, text: str, what: str) -> ToolError:
    remedy = "write names of units with * / ^, such as km/h or m^2"
    return ToolError(f"{field} is {text[:LENGTH_MAX]!r}: {what}; {remedy}", reason="INVALID_UNIT")


def _readings(text: str, field: str, *, aliases: bool) -> list[Unit]:
    """Read factors joined by products and "per"."""
    factors: list[list[Unit]] = []
    whole = _named(text.replace(" ", "_"), aliases=aliases)
    if whole:
        return whole

    for position, segment in enumerate(_PER.split(text)):
        bare = segment[1:-1] if segment.startswith("(") and segment.endswith(")") else segment
        words = [word for word in _TIMES.split(bare) if word]
        if "(" in bare or ")" in bare or not words:
            raise _invalid(field, text, "a name is missing, or a parenthesis stands inside a part")

        exponent = -1 if position else 1
        found = _factors(words, text, field, aliases=aliases)
        factors.extend([_power(unit, exponent) for unit in readings] for readings in found)

    if len(factors) > _FACTORS_MAX:
        raise _invalid(field, text, f"it has {len(factors)} factors, and {_FACTORS_MAX} are allowed")

    return [_product(choice) for choice in itertools.islice(itertools.product(*factors), _READINGS_MAX)]


def _factors(words: Sequence[str], text: str, field: str, *, aliases: bool) -> Iterator[list[Unit]]:
    """Read words as factors, each of as many words as make a name."""
    at = 0
    while at < len(words):
        exponent = 1
        if words[at].lower() in _BEFORE and at + 1 < len(words):
            exponent = _BEFORE[words[at].lower()]
            at += 1

        for count in range(min(_WORDS_MAX, len(words) - at), 0, -1):
            readings = _numbered("_".join(words[at : at + count]), text, field, aliases=aliases)
            if readings:
                at += count
                break
        else:
            raise _unknown(field, text, words[at])

        if at < len(words) and words[at].lower() in _AFTER:
            exponent *= _AFTER[words[at].lower()]
            at += 1

        yield [_power(unit, exponent) for unit in readings]


def _numbered(word: str, text: str, field: str, *, aliases: bool) -> list[Unit]:
    """Read a name with a number before it, as in 100km, or an exponent after it, as in m2 and s^-1."""
    if readings := _named(word, aliases=aliases):
        return readings

    match = _NUMBERED.fullmatch(word)
    if match is None:
        return []

    number, name, exponent = match[1], match[2], int(match[3] or 1)
    if abs(exponent) > _EXPONENT_MAX or exponent == 0:
        raise _invalid(field, text, f"the exponent is {exponent}, and 1 to {_EXPONENT_MAX} are allowed")

    if number and int(number) == 0:
        raise _invalid(field, text, "0 stands before a name")

    factor = Fraction(int(number or 1))
    if not name and not match[3]:
        return [Unit(factor, ())] if number else []

    return [_product((Unit(factor, ()), _power(unit, exponent))) for unit in _named(name, aliases=aliases)]


def _named(name: str, *, aliases: bool) -> list[Unit]:
    """Give what a name may mean: other people's names first, then pint's, then pint's in other letters' case."""
    texts: tuple[str, ...] = ()
    if aliases:
        texts = (CASED[name],) if name in CASED else ALIASES.get(name.lower(), ())
        chinese = next((prefix for prefix in ("平方", "立方") if name.startswith(prefix) and name != prefix), "")
        if chinese and not texts:
            return [_power(unit, 2 if chinese == "平方" else 3) for unit in _named(name[2:], aliases=True)]

    found = [unit for text in texts for unit in _readings(text, "unit", aliases=False)]
    own = _of_pint(name)
    return [*found, *(unit for unit in own if unit not in found)]


def _of_pint(name: str) -> list[Unit]:
    if not _IDENTIFIER.fullmatch(name):
        return []

    with _lock:
        readings = [registry().parse_unit_name(spelling) for spelling in dict.fromkeys((name, name.lower()))]

    return [Unit(Fraction(1), (("".join(reading[0][:2]), 1),)) for reading in readings if reading]


def _power(unit: Unit, exponent: int) -> Unit:
    return Unit(unit.factor**exponent, tuple((name, power * exponent) for name, power in unit.parts))


def _product(units: Sequence[Unit]) -> Unit:
    factor = Fraction(1)
    parts: dict[str, int] = {}
    for unit in units:
        factor *= unit.factor
        for name, exponent in unit.parts:
            parts[name] = parts.get(name, 0) + exponent

    return Unit(factor, tuple((name, exponent) for name, exponent in parts.items() if exponent))


def _unknown(field: str, text: str, word: str) -> ToolError:
    known = [*ALIASES, *(name for name in registry()._units if "_" not in name)]  # noqa: SLF001  # no public list
    near = nearest(
        word.lower(), [*known, *(f"{name}s" for name in known if len(name) > 2 and name.isascii())]
    )  # abbreviations have no plural
    hint = f"did you mean {', '.join(near)}?" if near else "write its English name, such as kilometer"
    return ToolError(
        f"{field} is {text!r}: {word!r} is no unit that is known; {hint}",
        reason="UNKNOWN_UNIT",
        metadata={"nearest": ", ".join(near)} if near else None,
    )
