"""``table.query`` as the catalog offers it: a process of its own, with files, that ends when its time is up."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import Effect, Failure, ToolResult
from autoglm_server.settings import TableSettings
from autoglm_server.tools.builtin import tables
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_tables
from autoglm_server.tools.tool import Described, Invocation, ToolCallError

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT (i + 1) % 1000 FROM n) SELECT count(*) FROM n"


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    (tmp_path / "sales.csv").write_text("region,price\nnorth,1\nsouth,2\n")
    made = Catalog(open_tables(TableSettings(timeout=timedelta(seconds=9)), tmp_path))
    await made.start()
    yield made
    await made.stop()


async def call(catalog: Catalog, seconds: float = 15.0, **arguments: Any) -> ToolResult:
    return await catalog.call(Invocation("table.query", arguments, "plan/step", seconds, artifacts=Described()))


async def failure(catalog: Catalog, seconds: float = 15.0, **arguments: Any) -> Failure:
    with pytest.raises(ToolCallError) as raised:
        await call(catalog, seconds, **arguments)

    return raised.value.failure


async def test_it_is_offered_without_what_the_worker_is_told(catalog: Catalog) -> None:
    (tool,) = catalog.tools()
    assert (tool.name, tool.effect, tool.timeout) == ("table.query", Effect.READ_ONLY, timedelta(seconds=9))
    assert '"root"' not in tool.input_schema
    refused = await failure(catalog, sql="SELECT 1", root="/", memory=1)
    assert [fault.field for fault in refused.violations] == ["arguments.root", "arguments.memory"]


async def test_it_gives_rows_a_chart_and_the_whole_result(catalog: Catalog) -> None:
    result = await call(
        catalog, sql="FROM 'sales.csv' ORDER BY price", max_rows=1, chart={"kind": "bar"}, save_as="csv"
    )
    assert result.output == {
        "result": None,
        "columns": [{"name": "region", "type": "VARCHAR"}, {"name": "price", "type": "BIGINT"}],
        "rows": [{"region": "north", "price": 1}],
        "row_count": 1,
        "truncated": True,
        "preview": "region  price\n------  -----\nnorth       1\n(the result is cut)",
    }
    named = [(artifact.name, artifact.media_type) for artifact in result.artifacts]
    assert named == [("chart.png", "image/png"), ("result.csv", "text/csv")]
    assert result.artifacts[1].size_bytes == len("region,price\nnorth,1\nsouth,2\n")


async def test_a_chart_with_boxes_says_so_in_the_output(catalog: Catalog) -> None:
    sql = "SELECT '\U0001f9ff' AS word, 1 AS n"  # no font for text has it
    result = await call(catalog, sql=sql, chart={"kind": "bar"})
    assert result.output["note"].startswith("chart.png shows boxes for \U0001f9ff: ")
    assert result.output["preview"].endswith(f"({result.output['note']})")


async def test_one_value_is_the_result(catalog: Catalog) -> None:
    result = await call(catalog, sql="SELECT sum(price) FROM sales", tables={"sales": "sales.csv"})
    assert result.output["result"] == 3


async def test_its_failures_are_its_own(catalog: Catalog) -> None:
    found = await failure(catalog, sql="SELECT prise FROM 'sales.csv'")
    assert (found.domain, found.reason, found.retryable) == ("table.query", "UNKNOWN_NAME", False)
    assert '"price"' in found.message


async def test_a_query_without_end_is_killed_when_its_time_is_up_and_leaves_nothing(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_here = tmp_path / "temporary"
    kept_here.mkdir()
    monkeypatch.setenv("TMPDIR", str(kept_here))  # of the worker
    monkeypatch.setattr(tempfile, "tempdir", str(kept_here))  # of this process
    found = await failure(catalog, 2.0, sql=ENDLESS, save_as="csv")
    assert found.reason == "STEP_TIMEOUT"
    assert not [*kept_here.iterdir()]
    assert "may still be running" not in found.message
    assert found.retryable
    assert (await call(catalog, sql="SELECT 1")).output["result"] == 1


def test_without_the_extra_there_is_no_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(open_tables(TableSettings(), tmp_path)) == 1
    monkeypatch.setattr(tables, "find_spec", lambda _name: None)
    assert open_tables(TableSettings(), tmp_path) == []
