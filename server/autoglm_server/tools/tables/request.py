"""What is asked for and what is given, as ``table.query`` says it in its schema."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from autoglm._dataclasses import dataclass
from autoglm.tool import Constraint
from autoglm_server.tools.builtin._workspace import PATH_MAX

SQL_MAX = 32 << 10
ROWS_MAX = 10_000

Sql = Annotated[str, Constraint(min_length=1, max_length=SQL_MAX)]
FilePath = Annotated[str, Constraint(min_length=1, max_length=PATH_MAX)]
Name = Annotated[str, Constraint(max_length=200)]
Tables = Annotated[dict[str, FilePath], Constraint(max_properties=16)]
Kind = Literal["line", "bar", "scatter", "pie"]
SaveAs = Literal["", "csv", "parquet"]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the result. ``x`` is the first column unless it is named, ``y`` every other column of numbers."""

    kind: Kind
    x: Name = ""
    y: Annotated[list[Name], Constraint(max_items=12)] = field(default_factory=list)
    title: Name = ""


class ColumnOut(TypedDict):
    """A column: its name, and the type that its values have in SQL."""

    name: str
    type: str


class Answer(TypedDict):
    """A result: its first rows by column name, and as text; a note where a chart could not be drawn as it should be."""

    result: Any
    columns: list[ColumnOut]
    rows: list[dict[str, Any]]
    row_count: int
    truncated: bool
    preview: str
    note: NotRequired[str]
