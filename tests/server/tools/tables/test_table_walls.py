"""What a query must not reach: files beside the workspace, the network, extensions, settings, other statements.

There are two walls: the reading of the statement, and DuckDB's own settings. Each holds by itself against everything here
that concerns it, and the control has neither, and reads the secret.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from autoglm.tool import ToolError
from autoglm_server.tools.tables import engine
from autoglm_server.tools.tables.formats import named
from autoglm_server.tools.tables.statements import tables_of

MEMORY = 256 << 20
SECRET = "c4nary"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    outside, root = tmp_path / "outside", tmp_path / "workspace"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    for name in ("secret.csv", "secret.json", "secret.txt"):
        (outside / name).write_text(f'["{SECRET}"]\n')

    (root / "fine.csv").write_text("a\n1\n")
    (root / "link.csv").symlink_to(outside / "secret.csv")
    (root / "loop.csv").symlink_to("loop.csv")
    (root / "away").symlink_to(outside)
    (root / "device.csv").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe.csv")
    (root / "folder.csv").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        where = Path.cwd()
        os.chdir(root)  # the path of a socket is short
        try:
            listener.bind("socket.csv")
        finally:
            os.chdir(where)

    return root


def corpus(root: Path) -> list[str]:
    """Give SQL that reaches for something outside."""
    outside = root.parent / "outside"
    ways = [
        f"{outside}/secret.csv",
        f"file://{outside}/secret.csv",
        f"{root}/../outside/secret.csv",
        f"{root}/link.csv",
    ]
    ways += [
        f"{root}/away/secret.csv",
        f"{outside}/*.csv",
        "/proc/self/environ",
        "/proc/self/cwd/../outside/secret.csv",
    ]
    ways += [
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/fd/0",
        "/dev/stdin",
        "http://127.0.0.1:9/x.csv",
        "s3://bucket/x.csv",
    ]
    readers = (
        "read_csv",
        "read_csv_auto",
        "read_text",
        "read_blob",
        "sniff_csv",
        "glob",
        "read_json",
        "read_json_objects",
    )
    calls = [f"{name}('{way}')" for way in ways for name in readers]
    calls += [f"read_parquet('{ways[0]}')", f"parquet_metadata('{ways[0]}')", f"parquet_schema('{ways[0]}')"]
    calls += [f"read_csv(['fine.csv', '{ways[0]}'])", f"query('FROM read_csv(''{ways[0]}'')')"]
    calls += [f"query_table('{ways[0]}')", f"read_duckdb('{outside}/x.db')", "main.read_text('/etc/passwd')"]
    return [
        *(f"SELECT * FROM {call}" for call in calls),
        *(f"SELECT (SELECT count(*) FROM {call})" for call in calls[:8]),
        *(f"WITH x AS (SELECT * FROM {call}) FROM x" for call in calls[:8]),
        *(f"SELECT * FROM 'fine.csv' WHERE a IN (SELECT 1 FROM {call})" for call in calls[:8]),
        *(f"DESCRIBE SELECT * FROM {call}" for call in calls[:8]),
    ]


STATEMENTS = (
    "ATTACH 'x.db' AS x",
    "ATTACH ':memory:' AS x",
    "COPY (SELECT 1) TO 'out.csv'",
    "COPY x FROM 'fine.csv'",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access=true",
    "SET GLOBAL memory_limit='10GB'",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CREATE TABLE x AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "CREATE SECRET s (TYPE s3)",
    "INSERT INTO x VALUES (1)",
    "DELETE FROM x",
    "DROP TABLE x",
    "CHECKPOINT",
    "VACUUM",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN ANALYZE SELECT 1",
    "BEGIN",
    "USE memory",
    "SELECT 1; DROP TABLE x",
    "WITH x AS (INSERT INTO y VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM y RETURNING *) SELECT * FROM x",
    "SHOW DATABASES",
    "SHOW ALL TABLES",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_views",
    "SELECT * FROM (SELECT * FROM duckdb_columns), (WITH duckdb_columns AS (SELECT 1) SELECT 1)",
    "SELECT current_setting('allowed_paths')",
    "SELECT getenv('HOME')",
    "SELECT * FROM rows",
)


def tries(root: Path, sql: str) -> Any:
    with engine.opened(sql, {}, root, memory=MEMORY) as asked:
        return asked.rows(10).cells


def refused(root: Path, sql: str) -> None:
    with pytest.raises(ToolError) as caught:
        tries(root, sql)

    assert SECRET not in caught.value.message
    assert caught.value.reason in ("INVALID_SQL", "NOT_READ_ONLY", "NOT_ALLOWED", "UNKNOWN_TABLE", "UNKNOWN_FORMAT")


def test_nothing_outside_is_reached(folder: Path) -> None:
    for sql in corpus(folder)[::10]:
        refused(folder, sql)


def test_the_reading_of_the_statement_refuses_it_all(folder: Path) -> None:
    with engine.connected(MEMORY) as connection:
        for sql in corpus(folder):
            with pytest.raises(ToolError) as caught:
                tables_of(connection, sql)

            assert caught.value.reason == "NOT_ALLOWED", sql

        assert tables_of(connection, "SELECT * FROM 'a.csv', range(3), (FROM b)") == ["a.csv", "b"]  # the control


def test_the_settings_of_the_database_refuse_it_all(folder: Path) -> None:
    fine = str(folder / "fine.csv")
    with engine.connected(MEMORY, [fine]) as connection:
        connection.execute("SET lock_configuration=true")
        for sql in corpus(folder):
            if sql.startswith("DESCRIBE"):
                continue  # some table functions have the same columns whatever they are given

            with pytest.raises(duckdb.Error) as caught:
                connection.execute(sql).fetchall()

            assert SECRET not in str(caught.value)

        for sql in (
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access=true",
            "SET allowed_paths=['/etc/passwd']",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)

        assert connection.execute(f"FROM '{fine}'").fetchall() == [(1,)]  # the control: one file was allowed


@pytest.mark.parametrize("sql", STATEMENTS)
def test_nothing_but_a_select_is_run(folder: Path, sql: str) -> None:
    rows = [1]  # a variable of ours, which DuckDB would take for a table
    refused(folder, sql)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["outside", "workspace"]
    assert rows == [1]


def test_no_scalar_function_is_new_that_sounds_as_if_it_reached_outside() -> None:
    """Scalar functions are refused by name, so an upgrade that brings such ones is to be looked at here."""
    sounds = (
        "env",
        "file",
        "read",
        "write",
        "url",
        "http",
        "exec",
        "load",
        "secret",
        "glob",
        "query",
        "setting",
        "path",
    )
    known = {
        *("current_query", "current_query_id", "in_search_path", "json_extract_path", "json_extract_path_text"),
        *(
            "parse_dirpath",
            "parse_filename",
            "parse_path",
            "path_join",
            "pg_conf_load_time",
            "url_decode",
            "url_encode",
        ),
        *("current_setting", "write_log"),  # refused
    }
    asked = "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('scalar', 'macro')"
    with duckdb.connect() as plain:
        found = {name for (name,) in plain.execute(asked).fetchall() if any(part in name for part in sounds)}

    assert {"current_setting", "url_encode"} <= found  # the control
    assert found <= known


def test_the_control_reads_the_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "tables_of", lambda _connection, _sql: [])

    @contextmanager
    def open_to_all(_memory: int, _allowed: Sequence[str] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(":memory:") as connection:
            yield connection

    monkeypatch.setattr(engine, "connected", open_to_all)
    secret = folder.parent / "outside" / "secret.txt"
    assert SECRET in str(tries(folder, f"SELECT content FROM read_text('{secret}')"))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside/secret.csv", "OUTSIDE_WORKSPACE"),
        ("sub/../../outside/secret.csv", "OUTSIDE_WORKSPACE"),
        ("/etc/secret.csv", "OUTSIDE_WORKSPACE"),
        ("link.csv", "LINK_REFUSED"),
        ("loop.csv", "LINK_REFUSED"),
        ("away/secret.csv", "LINK_REFUSED"),
        ("device.csv", "LINK_REFUSED"),
        ("pipe.csv", "NOT_A_FILE"),
        ("socket.csv", "NOT_A_FILE"),
        ("folder.csv", "NOT_A_FILE"),
        ("*.csv", "NOT_THERE"),
        ("fine.csv/", "NOT_A_FILE"),
        ("a\\..\\fine.csv", "INVALID_PATH"),
        ("fine\n.csv", "INVALID_PATH"),
        ("x" * 2000 + ".csv", "INVALID_PATH"),
    ],
)
def test_a_table_is_a_file_of_the_workspace(folder: Path, path: str, reason: str) -> None:
    for sql, tables in ((f"FROM {named(path)}", {}), ("FROM t", {"t": path})):
        with pytest.raises(ToolError) as caught, engine.opened(sql, tables, folder, memory=MEMORY):
            pass

        assert caught.value.reason == reason or (path.endswith("/") and caught.value.reason == "UNKNOWN_FORMAT")
        assert str(folder.parent) not in caught.value.message


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file is opened again by its path")
def test_a_file_that_is_exchanged_after_the_check_is_not_followed(folder: Path) -> None:
    with engine.opened("SELECT * FROM 'fine.csv'", {}, folder, memory=MEMORY) as asked:
        (folder / "fine.csv").unlink()
        (folder / "fine.csv").symlink_to(folder.parent / "outside" / "secret.csv")
        with pytest.raises(ToolError) as caught:
            asked.rows(10)

        assert caught.value.reason == "FILE_CHANGED"
        assert caught.value.retryable

    # The control: by its path the other file is read.
    with duckdb.connect() as plain:
        read = plain.execute(f"SELECT content FROM read_text('{folder / 'fine.csv'}')").fetchall()
        assert SECRET in str(read)


def test_a_query_writes_nothing(folder: Path) -> None:
    assert tries(folder, "SELECT a FROM 'fine.csv'") == ((1,),)
    assert (folder / "fine.csv").read_text() == "a\n1\n"
    assert not list(folder.glob(".*"))
