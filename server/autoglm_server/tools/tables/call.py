"""``table.query``, as a worker process makes its calls. The server loads this module too, and nothing of a database."""

# ruff: noqa: RUF001 - Chinese has its own punctuation, and it is meant
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from autoglm.model import Effect, Phrase, ToolExample
from autoglm.tool import Constraint, ToolContext, tool
from autoglm_server.tools.tables.request import ROWS_MAX, Answer, Chart, ColumnOut, SaveAs, Sql, Tables

if TYPE_CHECKING:
    from autoglm_server.tools.tables.engine import Rows

SAVED_MAX: Final = 64 << 20
"""How large a saved result may be, in bytes."""
ROWS_BYTES_MAX: Final = 512 << 10
"""About how large the rows of one output may be, in bytes; what is more is left out, and marked."""

_PHRASES = (
    Phrase("(run|execute) [the|this] (sql|query|sql query) {sql:quoted}", "{output.preview}", "en"),
    Phrase("(运行|执行)[这个|这条|下面的](sql|查询|语句|sql查询|sql语句)[:|：]{sql:quoted}", "{output.preview}", "zh"),
)
_EXAMPLE = "SELECT region, sum(amount) AS amount FROM 'sales.csv' GROUP BY region"


@tool(
    name="query",
    title="Query tables",
    effect=Effect.READ_ONLY,
    tags=("table", "data", "sql"),
    phrases=_PHRASES,
    examples=(ToolExample(arguments={"sql": _EXAMPLE}),),
    run="process",
)
def query(
    context: ToolContext,
    root: str,
    memory: int,
    sql: Sql,
    tables: Tables | None = None,
    max_rows: Annotated[int, Constraint(minimum=1, maximum=ROWS_MAX)] = 100,
    chart: Chart | None = None,
    save_as: SaveAs = "",
) -> Answer:
    """Run a SELECT (DuckDB's SQL) over CSV, TSV, JSON and Parquet files of the workspace; nothing else can be read.

    Args:
        context: The call's context.
        root: The workspace; the server says.
        memory: How much memory it may take, in bytes; the server says.
        sql: One SELECT. A file is a table by its path in quotes, as in SELECT * FROM 'sales.csv'; DESCRIBE 'sales.csv' and
            SUMMARIZE 'sales.csv' tell what is in it.
        tables: Names for files, such as {"sales": "2026/sales.csv"}, to be used in sql.
        max_rows: How many rows are given; truncated says whether there are more.
        chart: Draw the result as the artifact chart.png.
        save_as: Save the whole result as the artifact result.csv or result.parquet.
    """
    from autoglm_server.tools.tables.charts import POINTS_MAX, draw  # noqa: PLC0415 - in the worker alone
    from autoglm_server.tools.tables.engine import opened  # noqa: PLC0415 - likewise

    # In the call's own folder: that goes also when this process is killed.
    with tempfile.TemporaryDirectory(prefix="autoglm-table-", dir=context.files.folder) as folder:
        saved = Path(folder).resolve() / f"result.{save_as}"
        with opened(sql, tables or {}, Path(root), memory=memory, also=[saved] if save_as else []) as asked:
            found = asked.rows(max(max_rows, POINTS_MAX) if chart else max_rows)
            if save_as:
                asked.save(saved, save_as, SAVED_MAX)

        note = ""
        if chart is not None:
            drawn = draw(found, chart)
            note = drawn.note
            context.save("chart.png", drawn.png, "image/png")

        if save_as:
            media_type = "text/csv" if save_as == "csv" else "application/vnd.apache.parquet"
            context.save(saved.name, saved, media_type)

        return _answer(found.first(max_rows, ROWS_BYTES_MAX), note)


def _answer(rows: Rows, note: str) -> Answer:
    from autoglm_server.tools.tables.preview import preview  # noqa: PLC0415 - as above

    names = [column.name for column in rows.columns]
    answer = Answer(
        result=rows.cells[0][0] if len(rows.cells) == 1 and len(names) == 1 else None,
        columns=[ColumnOut(name=column.name, type=column.type) for column in rows.columns],
        rows=[dict(zip(names, row, strict=True)) for row in rows.cells],
        row_count=len(rows.cells),
        truncated=rows.truncated,
        preview=f"{preview(rows)}\n({note})" if note else preview(rows),
    )
    if note:
        answer["note"] = note

    return answer
