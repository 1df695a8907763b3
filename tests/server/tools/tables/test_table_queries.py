"""Queries over files: what they give, what a chart or a saved result is, and what is said when something is wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.tool import ToolError
from autoglm_server.planner.rules import check_phrases
from autoglm_server.tools.tables import charts, values
from autoglm_server.tools.tables.call import query
from autoglm_server.tools.tables.charts import draw
from autoglm_server.tools.tables.engine import Rows, opened
from autoglm_server.tools.tables.preview import preview
from autoglm_server.tools.tables.request import Chart

MEMORY = 256 << 20
CSV = "region,price,day\nnorth,1.50,2026-01-02\nsouth,2.25,2026-01-03\nnorth,3.50,2026-01-04\n"


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give a Parquet file of 5000 rows."""
    file = tmp_path_factory.mktemp("parquet") / "numbers.parquet"
    with duckdb.connect() as plain:
        plain.execute(f"COPY (SELECT i, i * 2 AS twice FROM range(5000) t(i)) TO '{file}'")

    return file.read_bytes()


@pytest.fixture
def folder(tmp_path: Path, numbers: bytes) -> Path:
    root = tmp_path / "workspace"
    (root / "data" / "深").mkdir(parents=True)
    (root / "sales.csv").write_text(CSV)
    (root / "data" / "深" / "it's.csv").write_text(CSV)
    (root / "sales.tsv").write_text(CSV.replace(",", "\t"))
    (root / "packed.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (root / "list.json").write_text(json.dumps([{"a": 1, "b": {"c": [1, 2]}}, {"a": 2, "b": None}]))
    (root / "lines.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (root / "notes.md").write_text("no table")
    (root / "numbers.parquet").write_bytes(numbers)
    return root


def ask(root: Path, sql: str, rows_max: int = 100, tables: Mapping[str, str] | None = None) -> Rows:
    with opened(sql, tables or {}, root, memory=MEMORY) as asked:
        return asked.rows(rows_max)


def one(root: Path, expression: str) -> Any:
    return ask(root, f"SELECT {expression}").cells[0][0]


def refusal(root: Path, sql: str, tables: Mapping[str, str] | None = None) -> ToolError:
    with pytest.raises(ToolError) as caught:
        ask(root, sql, tables=tables)

    assert str(root) not in caught.value.message
    assert "/proc/" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "file", ["sales.csv", "sales.tsv", "packed.csv.gz", "data/深/it''s.csv", "./data//深/it''s.csv"]
)
def test_a_file_is_a_table_by_its_path(folder: Path, file: str) -> None:
    rows = ask(folder, f"SELECT region, sum(price) AS total FROM '{file}' GROUP BY region ORDER BY total DESC; ")

    assert [(column.name, column.type) for column in rows.columns] == [("region", "VARCHAR"), ("total", "DOUBLE")]
    assert rows.cells == (("north", 5.0), ("south", 2.25))
    assert not rows.truncated


def test_json_and_parquet_are_read_and_names_given(folder: Path) -> None:
    assert ask(folder, "FROM 'list.json'").cells == ((1, {"c": [1, 2]}), (2, None))
    assert ask(folder, "FROM 'lines.jsonl' SELECT sum(a) -- a comment").cells == ((3,),)
    joined = 'SELECT count(*) FROM N JOIN "s" ON n.i = s.price + 0.5'
    assert ask(folder, joined, tables={"n": "numbers.parquet", "S": "sales.csv"}).cells == ((2,),)
    assert ask(folder, "WITH s AS (FROM 'sales.csv') SELECT count(*) FROM s, s AS t").cells == ((9,),)


def test_a_file_may_describe_itself(folder: Path) -> None:
    assert [row[0] for row in ask(folder, "DESCRIBE 'sales.csv'").cells] == ["region", "price", "day"]
    assert len(ask(folder, "SUMMARIZE 'sales.csv'").cells) == 3


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("9007199254740991", 2**53 - 1),
        ("9007199254740993", "9007199254740993"),
        ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
        ("1.10::DECIMAL(5, 2)", 1.1),
        ("0.12345678901234567890::DECIMAL(38, 20)", "0.12345678901234567890"),
        ("'nan'::DOUBLE", "NaN"),
        ("'-inf'::DOUBLE", "-Infinity"),
        ("DATE '2026-01-02'", "2026-01-02"),
        ("'infinity'::DATE", "infinity"),
        ("TIMESTAMP '2026-01-02 03:04:05.5'", "2026-01-02T03:04:05.5"),
        ("TIMESTAMPTZ '2026-01-02 03:04:05+02'", "2026-01-02T01:04:05+00"),
        ("INTERVAL 3 DAY", "3 days"),
        (r"'\xFF\x00'::BLOB", "/wA="),
        ("[1, NULL]", [1, None]),
        ("{'a': DATE '2026-01-01'}", {"a": "2026-01-01"}),
        ("MAP {'k': 1.5}", {"k": 1.5}),
        ("NULL", None),
        ("true", True),
        ("repeat('x', 20000)", "x" * (values.CELL_MAX - 1) + "…"),
    ],
)
def test_values_are_json_and_lose_nothing(folder: Path, expression: str, value: Any) -> None:
    assert one(folder, expression) == value


def test_numbers_of_a_column_are_all_numbers_or_all_texts(folder: Path) -> None:
    assert ask(folder, "SELECT * FROM (VALUES (1), (9007199254740993), (NULL)) t(n)").cells == (
        ("1",),
        ("9007199254740993",),
        (None,),
    )


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**17), max_value=10**17, places=6))
def test_a_decimal_is_never_rounded(number: Any) -> None:
    (value,) = values.Reader("DECIMAL(38,6)").column([str(number)])
    assert value is not None
    assert str(number) == value or f"{number:f}" == value or type(number)(repr(value)) == number


def test_columns_of_the_same_name_are_told_apart(folder: Path) -> None:
    assert [column.name for column in ask(folder, "SELECT 1 AS a, 2 AS A, 3 AS a_1, 4 AS b").columns] == [
        "a",
        "A_1",
        "a_1_1",
        "b",
    ]


def test_order_is_kept_and_what_is_left_out_is_said(folder: Path) -> None:
    rows = ask(folder, "SELECT i FROM 'numbers.parquet' ORDER BY i DESC", 3)
    assert rows.cells == ((4999,), (4998,), (4997,))
    assert rows.truncated
    assert not ask(folder, "SELECT i FROM 'numbers.parquet' LIMIT 3", 3).truncated

    few = ask(folder, "SELECT repeat('y', 1000) FROM range(100)").first(100, 10_000)
    assert 5 <= len(few.cells) < 12
    assert few.truncated
    assert len(ask(folder, "SELECT repeat('y', 1000)").first(1, 10).cells) == 1


@pytest.mark.parametrize(
    ("sql", "reason", "told"),
    [
        ("SELECT * FROM sales", "UNKNOWN_TABLE", "did you mean 'sales.csv'?"),
        ("SELECT * FROM a.sales", "UNKNOWN_TABLE", "FROM 'a.sales'"),
        ("SELECT * FROM 'sale.csv'", "NOT_THERE", "did you mean 'sales.csv'?"),
        ("SELECT * FROM 'data/深/its.csv'", "NOT_THERE", "did you mean 'data/深/it''s.csv'?"),
        ("SELECT * FROM 'nowhere/x.csv'", "NOT_THERE", "there is no 'nowhere/x.csv'"),
        ("SELECT * FROM 'notes.md'", "UNKNOWN_FORMAT", "Parquet"),
        ("SELECT prise FROM 'sales.csv'", "UNKNOWN_NAME", '"price"'),
        ("SELECT\nsum(pric)\nFROM 'sales.csv'", "UNKNOWN_NAME", "line 2"),
        ("SELECT * FORM x", "INVALID_SQL", '"x"'),
        ("SELECT 1; SELECT 2", "INVALID_SQL", "2 statements"),
        (" ; -- nothing", "INVALID_SQL", "0 statements"),
        ("SELECT region::INT FROM 'sales.csv'", "QUERY_FAILED", "north"),
        ("SELECT " + "(" * 2000 + "1" + ")" * 2000, "INVALID_SQL", "depth"),
        ("SELECT string_agg(repeat('x', 1000000), '') FROM range(2000)", "OUT_OF_MEMORY", "table.memory"),
        ("SELECT repeat('x', 4000000000)", "OUT_OF_MEMORY", "table.memory"),
        ("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(501)), "TOO_LARGE", "501 columns"),
        (" UNION ALL ".join(f"FROM 't{n}.csv'" for n in range(17)), "TOO_LARGE", "17 tables"),
    ],
)
def test_what_is_wrong_is_told(folder: Path, sql: str, reason: str, told: str) -> None:
    error = refusal(folder, sql)
    assert error.reason == reason
    assert told in error.message


def test_a_file_that_is_not_what_its_name_says_is_told_by_its_name(folder: Path) -> None:
    (folder / "bad.parquet").write_text("no parquet")
    (folder / "bad.json").write_text('{"a": ')
    (folder / "bad.csv.gz").write_text("not packed")
    for name in ("bad.parquet", "bad.json", "bad.csv.gz"):
        error = refusal(folder, f"FROM '{name}'")
        assert error.reason == "QUERY_FAILED"
        assert name in error.message


def test_a_preview_is_read_by_people(folder: Path) -> None:
    assert preview(ask(folder, "SELECT '中文' AS word, 2 AS n, NULL AS none UNION ALL SELECT 'a', 10, NULL")) == (
        "word   n  none\n----  --  ----\n中文   2\na     10"
    )
    long = preview(ask(folder, "SELECT * FROM 'numbers.parquet'", 30))
    assert long.endswith("(10 more rows, the result is cut)")


@pytest.mark.parametrize("kind", ["line", "bar", "scatter", "pie"])
def test_a_chart_is_drawn(folder: Path, kind: Any) -> None:
    rows = ask(folder, "SELECT region, sum(price) AS total FROM 'sales.csv' GROUP BY ALL ORDER BY ALL")
    image = draw(rows, Chart(kind, title="$\\frac{ 深")).png
    assert image.startswith(b"\x89PNG\r\n")

    control = draw(ask(folder, "SELECT 'north' AS region, 1.0 AS total UNION ALL SELECT 'south', 9.0"), Chart(kind)).png
    assert image != control


def test_characters_that_no_font_has_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_fonts", lambda: ["DejaVu Sans"])
    rows = ask(folder, "SELECT '深圳' AS city, 1 AS n UNION ALL SELECT '深', 2")
    for _ in range(2):  # also when matplotlib has laid it out before
        assert set(draw(rows, Chart("bar", title="人口")).missing) == set("深圳人口")

    note = draw(rows, Chart("bar")).note
    assert note.startswith("chart.png shows boxes for ")
    assert "Noto Sans CJK" in note
    assert draw(ask(folder, "FROM 'sales.csv'"), Chart("bar")).note == ""


def test_a_chart_of_moments_and_of_several_columns(folder: Path) -> None:
    rows = ask(folder, "SELECT day, price, price * 2 AS twice, region FROM 'sales.csv'")
    assert draw(rows, Chart("line")) != draw(rows, Chart("line", y=["twice"]))
    assert draw(rows, Chart("scatter", x="price", y=["twice"])).png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("chart", "told"),
    [
        (Chart("bar", x="regio"), "did you mean 'region'?"),
        (Chart("bar", y=["pricee"]), "did you mean 'price'?"),
        (Chart("line", y=["region"]), "VARCHAR"),
        (Chart("pie", y=["price", "price"]), "one column"),
        (Chart("bar", x="price", y=[]), "numbers"),
    ],
)
def test_a_chart_that_cannot_be_drawn_is_told(folder: Path, chart: Chart, told: str) -> None:
    columns = "price, region" if chart.x == "price" else "region, price"
    with pytest.raises(ToolError) as caught:
        draw(ask(folder, f"SELECT {columns} FROM 'sales.csv'"), chart)

    assert caught.value.reason == "INVALID_CHART"
    assert told in caught.value.message


def test_charts_have_bounds(folder: Path) -> None:
    for sql, kind in (
        ("SELECT * FROM 'numbers.parquet'", "bar"),
        ("SELECT 1 WHERE false", "bar"),
        ("SELECT -1", "pie"),
    ):
        with pytest.raises(ToolError) as caught:
            draw(ask(folder, f"SELECT 'x', * FROM ({sql})", 10_000), Chart(kind))  # type: ignore[arg-type]

        assert caught.value.reason == "INVALID_CHART"


@pytest.mark.parametrize(
    ("sql", "kind", "told"),
    [
        ("SELECT 'a', 0 AS b UNION ALL SELECT 'b', NULL", "pie", "0 everywhere"),
        ("SELECT 'a', 'inf'::DOUBLE AS b", "pie", "infinite"),
        ("SELECT 1e308, 1e308 UNION ALL SELECT -1e308, -1e308", "line", "too far apart"),
        ("SELECT DATE '0001-01-01', 1 UNION ALL SELECT DATE '9999-12-31', 2", "scatter", "too far apart"),
    ],
)
def test_numbers_that_no_chart_can_show_are_told(folder: Path, sql: str, kind: Any, told: str) -> None:
    with pytest.raises(ToolError, match=told) as caught:
        draw(ask(folder, sql), Chart(kind))

    assert caught.value.reason == "INVALID_CHART"


def test_a_chart_of_many_texts_shows_a_few_of_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    placed: list[tuple[list[int], list[str]]] = []
    monkeypatch.setattr(Axes, "set_xticks", lambda _axes, at, labels, **_: placed.append((list(at), list(labels))))
    assert draw(ask(folder, "SELECT 'x' || i, twice FROM 'numbers.parquet'", 10_000), Chart("line")).png
    assert draw(
        ask(folder, "FROM (VALUES ('a', 1), ('b', 2), ('a', 3))"), Chart("scatter")
    ).png  # the control: all of few
    (at, labels), few = placed
    assert len(at) == len(labels) <= 24
    assert [labels[0], at[1], labels[1]] == ["x0", 209, "x209"]
    assert few == ([0, 1], ["a", "b"])


def test_a_pivot_says_what_it_needs(folder: Path) -> None:
    failed = refusal(folder, "PIVOT 'sales.csv' ON region USING sum(price)")
    assert "PIVOT t ON region IN" in failed.message
    rows = ask(folder, "FROM (PIVOT 'sales.csv' ON region IN ('north', 'south') USING sum(price) GROUP BY day)")
    assert [column.name for column in rows.columns] == ["day", "north", "south"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_result_that_is_too_large_to_save_says_so(folder: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / f"out.{kind}"
    with opened("SELECT md5(i::VARCHAR) FROM 'numbers.parquet'", {}, folder, memory=MEMORY, also=[place]) as asked:
        with pytest.raises(ToolError, match="larger than 4096 bytes") as caught:
            asked.save(place, kind, 4096)

        assert caught.value.reason == "TOO_LARGE"
        assert asked.save(place, kind, 1 << 20) == 5000  # the control


def test_a_place_that_cannot_be_written_is_not_told(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "gone" / "out.csv"
    with (
        opened("SELECT 1", {}, folder, memory=MEMORY, also=[place]) as asked,
        pytest.raises(ToolError, match=r"out\.csv") as caught,
    ):
        asked.save(place, "csv", 1 << 20)

    assert str(tmp_path) not in caught.value.message


def test_a_whole_result_is_saved(folder: Path, tmp_path: Path) -> None:
    for kind in ("csv", "parquet"):
        place = tmp_path / f"out.{kind}"
        with opened("SELECT i FROM 'numbers.parquet' -- all", {}, folder, memory=MEMORY, also=[place]) as asked:
            assert asked.rows(1).cells == ((0,),)
            assert asked.save(place, kind, 1 << 20) == 5000

        with duckdb.connect() as plain:
            assert plain.execute(f"SELECT sum(i) FROM '{place}'").fetchall() == [(sum(range(5000)),)]


def test_a_saved_result_has_a_bound(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "out.csv"
    with opened("SELECT i FROM 'numbers.parquet'", {}, folder, memory=MEMORY, also=[place]) as asked:
        with pytest.raises(ToolError):
            asked.save(place, "csv", 1000)

        assert asked.save(place, "csv", 1 << 20) == 5000  # the control: the bound was what refused it


def test_its_phrases_can_be_read() -> None:
    assert check_phrases(query.spec) == []
    assert {phrase.language for phrase in query.spec.phrases} == {"en", "zh"}
