"""What a query gives, as JSON that loses nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from autoglm.model import Json
from autoglm_server.tools.tables.formats import named

CELL_MAX: Final = 16 << 10
"""How long a text in one cell may be, in characters; what is longer is cut, and marked."""
DEPTH_MAX: Final = 16
"""How deep a cell's lists and objects may be nested; what is deeper is given as text."""
_SAFE: Final = 2**53 - 1
_WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"})
_AS_THEY_ARE = frozenset({*_WHOLE, "BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR"})
_LARGE = frozenset({"HUGEINT", "UHUGEINT", "BIGNUM"})
_NESTED = ("STRUCT", "MAP", "UNION", "LIST", "ARRAY", "JSON", "VARIANT")


def fetched_as(name: str, kind: str) -> str:
    """Give the SQL expression by which a column of this type is fetched: as a plain value, or as text for :func:`read`."""
    column = named(name)
    if kind in _AS_THEY_ARE:
        return column

    if kind.endswith("]") or kind.startswith(_NESTED):
        return f"CAST(to_json({column}) AS VARCHAR)"

    if kind == "BLOB":
        return f"to_base64({column})"

    if kind.startswith("TIMESTAMP"):
        return f"replace(CAST({column} AS VARCHAR), ' ', 'T')"

    return f"CAST({column} AS VARCHAR)"


def is_number(kind: str) -> bool:
    """Whether a type is one of numbers."""
    return kind in _WHOLE or kind in _LARGE or kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL")


def is_moment(kind: str) -> bool:
    """Whether a type is one of dates or of dates with times."""
    return kind == "DATE" or kind.startswith("TIMESTAMP")


class Reader:
    """Reads the cells of one column. All its numbers are numbers or, where one would lose digits, all are texts."""

    def __init__(self, kind: str) -> None:
        """Read cells of a DuckDB type."""
        self._kind = kind
        self.cut = False
        """Whether a cell was cut."""

    def column(self, cells: Sequence[Any]) -> list[Json]:
        """Give the column as JSON."""
        if self._kind in _LARGE or self._kind in _WHOLE:
            whole = [None if cell is None else int(cell) for cell in cells]
            fits = all(cell is None or abs(cell) <= _SAFE for cell in whole)
            return [cell if fits or cell is None else str(cell) for cell in whole]

        if self._kind.startswith("DECIMAL"):
            fits = all(cell is None or Decimal(repr(float(cell))) == Decimal(cell) for cell in cells)
            return [_number(cell) if fits and cell is not None else cell for cell in cells]

        if self._kind.endswith("]") or self._kind.startswith(_NESTED):
            return [None if cell is None else self._nested(cell) for cell in cells]

        return [self._plain(cell) for cell in cells]

    def _plain(self, cell: Any) -> Json:
        if isinstance(cell, float):
            return cell if math.isfinite(cell) else _not_finite(cell)

        return self._text(cell) if isinstance(cell, str) else cell

    def _text(self, text: str) -> str:
        if len(text) <= CELL_MAX:
            return text

        self.cut = True
        return f"{text[: CELL_MAX - 1]}…"

    def _nested(self, text: str) -> Json:
        if len(text) > CELL_MAX:
            return self._text(text)

        try:
            value = json.loads(text, parse_constant=str)
        except (ValueError, RecursionError):
            return self._text(text)

        return value if _depth(value) <= DEPTH_MAX else text


def _number(text: str) -> int | float:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() and abs(number) <= _SAFE else float(number)


def _not_finite(cell: float) -> str:
    return "NaN" if math.isnan(cell) else "Infinity" if cell > 0 else "-Infinity"


def _depth(value: Json) -> int:
    deepest, level = 0, [value]
    while level and deepest <= DEPTH_MAX:
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        deepest += bool(level)

    return deepest
