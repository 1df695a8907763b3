"""Text for a person: what came from elsewhere is made harmless first, values get one form everywhere. Pure."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta

from autoglm.model import Json

_JOINERS = frozenset("\u200c\u200d")
"""Invisible, but what many scripts and emoji are written with; they neither move the cursor nor turn text around."""
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def clean(text: str, *, keep: str = "\n\t") -> str:
    r"""Give ``text`` with every character that could steer a terminal, or hide or turn text around, written as ``\u…``.

    These are the control and format characters (escape sequences, bidirectional marks, tags), surrogates, private use
    and the line separators of Unicode. ``keep`` names control characters that stay.
    """
    if text.isascii() and text.isprintable():
        return text

    return "".join(
        char if char in keep or char in _JOINERS or unicodedata.category(char) not in _INVISIBLE else _escaped(char)
        for char in text
    )


def one_line(text: str, most: int = 0) -> str:
    """Give ``text`` cleaned and on one line, cut to ``most`` characters with an ellipsis (0 = whole)."""
    if most and len(text) > 4 * most:
        text = text[: 4 * most] + " …"  # no need to look at a megabyte for one line

    line = " ".join(clean(text, keep="\n\t\r").split())
    return line if not most or len(line) <= most else line[: most - 1].rstrip() + "…"


def plain_json(value: Json, *, indent: int | None = None) -> str:
    """Give a JSON value as a person reads it, cleaned: keys sorted, characters beyond ASCII as themselves."""
    return clean(json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent, default=str))


def value_text(value: Json, *, indent: int | None = None) -> str:
    """Give a value as a person reads it: a text as itself, cleaned; all else as JSON."""
    return clean(value) if isinstance(value, str) else plain_json(value, indent=indent)


def duration(value: timedelta | float | None) -> str:
    """Give a duration in at most two units, ``""`` for none: ``12 ms``, ``3.2 s``, ``4 m 10 s``, ``2 h 5 m``, ``3 d 4 h``."""
    if value is None:
        return ""

    seconds = max(0.0, value.total_seconds() if isinstance(value, timedelta) else value)

    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"

    if seconds < 59.95:
        return f"{seconds:.1f} s"

    whole = round(seconds)

    for size, name, part, part_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name}" + (f" {rest} {part_name}" if rest else "")

    raise AssertionError(whole)


def moment(value: datetime | None) -> str:
    """Give a time in UTC to the second, ``""`` for none: ``2026-03-01 09:30:05Z``."""
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clock(value: datetime | None) -> str:
    """Give a time of day in UTC to the millisecond: ``09:30:05.125``."""
    return "--:--:--.---" if value is None else value.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def size(number: int) -> str:
    """Give a number of bytes: ``1000 B``, ``12.3 KiB``, ``64 MiB``."""
    if number < 1024:
        return f"{number} B"

    value = float(number)

    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024

        if value < 999.5:
            return f"{value:.3g} {unit}"

    return f"{value / 1024:,.1f} TiB"


def count(number: int, noun: str) -> str:
    """Give a number with its noun: ``1 step``, ``2 steps``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
