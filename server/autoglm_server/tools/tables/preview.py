"""A result as text for people: columns side by side."""

from __future__ import annotations

import json
import unicodedata
from typing import Final

from autoglm.model import Json
from autoglm_server.tools.tables.engine import Rows

ROWS_MAX: Final = 20
CELL_MAX: Final = 32
_COLUMNS_MAX = 12


def preview(rows: Rows) -> str:
    """Draw the first rows and columns; what is left out is said."""
    columns = rows.columns[:_COLUMNS_MAX]
    right = [_is_right([row[index] for row in rows.cells]) for index in range(len(columns))]
    table = [[_shown(column.name) for column in columns]]
    table += [[_shown(cell) for cell in row[:_COLUMNS_MAX]] for row in rows.cells[:ROWS_MAX]]
    widths = [max(_width(line[index]) for line in table) for index in range(len(columns))]
    lines = [_line(line, widths, right) for line in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_left_out(rows)])


def _left_out(rows: Rows) -> list[str]:
    said = []
    if len(rows.columns) > _COLUMNS_MAX:
        said.append(f"{len(rows.columns) - _COLUMNS_MAX} more columns")

    if len(rows.cells) > ROWS_MAX:
        said.append(f"{len(rows.cells) - ROWS_MAX} more rows")

    if rows.truncated:
        said.append("the result is cut")

    return [f"({', '.join(said)})"] if said else []


def _line(cells: list[str], widths: list[int], right: list[bool]) -> str:
    padded = []
    for cell, width, is_right in zip(cells, widths, right, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if is_right else cell + space)

    return "  ".join(padded).rstrip()


def _is_right(cells: list[Json]) -> bool:
    numbers = [isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells if cell is not None]
    return bool(numbers) and all(numbers)


def _shown(cell: Json) -> str:
    text = "" if cell is None else cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= CELL_MAX else f"{text[: CELL_MAX - 1]}…"


def _width(text: str) -> int:
    """Give how many places a text takes on a terminal: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
