"""What a statement asks for, read from its syntax tree before anything of it is run.

The first of the walls around a query: one SELECT, whose tables are names that we bind to files, whose table functions are
none that reach outside. DuckDB's own settings (:mod:`engine`) are the second, and hold without this one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from autoglm.tool import ToolError

if TYPE_CHECKING:
    import duckdb

NAMES_MAX: Final = 16
"""How many tables one query may name."""

_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLE_FUNCTIONS: Final = frozenset(
    {"generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"}
)
_FUNCTIONS_REFUSED: Final = frozenset(
    {"current_setting", "getenv", "getvariable", "nextval", "read_blob", "read_text", "user_agent", "write_log"}
)
_REMEDY: Final = "write one SELECT over files of the workspace, such as SELECT * FROM 'sales.csv'"


def tables_of(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Give the names of the tables that a statement reads, in the order of their appearance.

    Raises:
        ToolError: INVALID_SQL, NOT_READ_ONLY, or NOT_ALLOWED; the message says what.
    """
    names: dict[str, None] = {}
    inner: set[str] = set()
    for node in _nodes(_tree(connection, sql)):
        inner |= {_key(entry["key"]) for entry in _entries(node.get("cte_map"))}
        _check(node)
        if node.get("type") == "BASE_TABLE":
            names[_plain_name(node)] = None

    _check_inner(connection, inner)
    found = [name for name in names if _key(name) not in inner]
    if len(found) > NAMES_MAX:
        raise ToolError(f"the query names {len(found)} tables; at most {NAMES_MAX} are read", reason="TOO_LARGE")

    return found


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    import duckdb  # noqa: PLC0415 - the extra

    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ToolError(f"there are {len(statements)} statements in sql; {_REMEDY}", reason="INVALID_SQL")

    if statements[0].type != duckdb.StatementType.SELECT:
        kind = statements[0].type.name.replace("_", " ")
        if kind == "MULTI":  # several steps inside, the first of which makes a type of the values it finds
            remedy = (
                "write the values it is to make columns of, as in PIVOT t ON region IN ('north', 'south') USING sum(n)"
            )
            raise ToolError(f"sql has PIVOT without IN, which cannot be run here; {remedy}", reason="NOT_READ_ONLY")

        raise ToolError(f"sql is {kind}, and only SELECT is run: queries change nothing", reason="NOT_READ_ONLY")

    row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    try:
        tree = json.loads(row[0]) if row else {}
    except RecursionError:
        raise ToolError("sql is nested too deeply; write it in simpler parts", reason="TOO_LARGE") from None

    if tree.get("error", True):
        raise ToolError(f"sql cannot be read: {tree.get('error_message', '')}; {_REMEDY}", reason="INVALID_SQL")

    return tree["statements"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Give every object of the tree, in the order of the text as far as the tree keeps it."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(reversed(value.values()))
        elif isinstance(value, list):
            waiting.extend(reversed(value))


def _entries(cte_map: Any) -> list[Any]:
    entries = cte_map.get("map") if isinstance(cte_map, dict) else None
    return entries if isinstance(entries, list) else []


def _check(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _NODES:
        what = kind.removesuffix("_NODE").removesuffix("_QUERY").replace("_", " ")
        raise ToolError(
            f"sql has {what} inside, and only SELECT is run: queries change nothing", reason="NOT_READ_ONLY"
        )

    if kind == "SHOW_REF" and node.get("query") is None:
        raise ToolError(f"SHOW {node.get('table_name', '')} has nothing to show here; {_REMEDY}", reason="NOT_ALLOWED")

    if kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS:
            remedy = "name a file of the workspace as the table instead: FROM 'sales.csv'"
            raise ToolError(f"the table function {name} is not allowed here; {remedy}", reason="NOT_ALLOWED")
    elif node.get("class") == "FUNCTION" and str(node.get("function_name", "")).lower() in _FUNCTIONS_REFUSED:
        raise ToolError(f"the function {node['function_name']} is not allowed here", reason="NOT_ALLOWED")


def _plain_name(node: dict[str, Any]) -> str:
    name = str(node.get("table_name", ""))
    if above := [node[key] for key in ("catalog_name", "schema_name") if node.get(key)]:
        whole = ".".join([*above, name])
        raise ToolError(
            f"there is no table {whole}; put a file's name in quotes, as in FROM '{whole}'", reason="UNKNOWN_TABLE"
        )

    return name


def _check_inner(connection: duckdb.DuckDBPyConnection, inner: set[str]) -> None:
    """Refuse names in WITH that DuckDB's own views have: outside of its scope such a name would mean the view."""
    if not inner:
        return

    views = {_key(name) for (name,) in connection.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    if taken := sorted(inner & views):
        raise ToolError(f"{taken[0]!r} in WITH is a name that DuckDB has taken; choose another", reason="INVALID_SQL")


def _key(name: str) -> str:
    return str(name).casefold()
