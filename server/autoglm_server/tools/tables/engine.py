"""Runs one query over files that were opened beforehand, in a database of its own that can reach nothing else.

The files are opened by the workspace's own walk, which follows no link, and DuckDB gets them by their open descriptors. Its
access to everything else (files, network, extensions, settings) is switched off and locked before the query is looked at.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import duckdb

from autoglm._dataclasses import dataclass
from autoglm.model import Json
from autoglm.tool import ToolError
from autoglm_server.spelling import nearest
from autoglm_server.tools.builtin._workspace import Workspace
from autoglm_server.tools.tables.formats import FORMATS, is_table, named, quoted, reader, stem
from autoglm_server.tools.tables.statements import tables_of
from autoglm_server.tools.tables.values import Reader, fetched_as
from autoglm_server.tools.tables.walls import walls

COLUMNS_MAX: Final = 500
"""How many columns a result may have."""
FETCHED_MAX: Final = 32 << 20
"""About how much is fetched, in characters; what is more is left out, and marked."""
_CHUNK = 256
_MESSAGE_MAX = 700
_POSITION = re.compile(r"\n\nLINE (\d+):[^\n]*\n\s*\^*")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result: its name, once in the result, and DuckDB's name of its type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query gave: the first rows by column, and whether there are more or something was cut."""

    columns: tuple[Column, ...]
    cells: tuple[tuple[Json, ...], ...]
    truncated: bool

    def first(self, most: int, bytes_max: int) -> Rows:
        """Give so many rows of them, and no more than about ``bytes_max`` as JSON objects."""
        names = sum(len(json.dumps(column.name)) + 2 for column in self.columns)
        kept, size = 0, 0
        for row in self.cells[:most]:
            size += names + len(json.dumps(row, ensure_ascii=False).encode())
            if kept and size > bytes_max:
                break

            kept += 1

        return replace(self, cells=self.cells[:kept], truncated=self.truncated or kept < len(self.cells))


class Query:
    """One statement with its files open; :meth:`rows` and :meth:`save` each run it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, sql: str, places: Mapping[str, str], memory: int) -> None:
        """Take a connection that is locked; ``places`` gives for each file where it is open."""
        self._connection = connection
        self._sql = sql
        self._places = places
        self._memory = memory
        self._real = {path: os.path.realpath(place) for path, place in places.items()}

    def rows(self, rows_max: int) -> Rows:
        """Give the first rows, no more of them than :data:`FETCHED_MAX`."""
        with self._told(), walls(write_bytes=0, memory_bytes=self._memory):
            described = self._connection.execute(f"DESCRIBE {self._source}").fetchall()
            columns = _columns([(str(row[0]), str(row[1])) for row in described])
            names = ", ".join(named(column.name) for column in columns)
            fetched = ", ".join(fetched_as(column.name, column.type) for column in columns)
            cursor = self._connection.execute(f"SELECT {fetched} FROM {self._source} AS result({names})")  # noqa: S608
            found, more = _fetched(cursor, rows_max)

        readers = [Reader(column.type) for column in columns]
        cells = [reader.column([row[index] for row in found]) if found else [] for index, reader in enumerate(readers)]
        cut = any(reader.cut for reader in readers)
        return Rows(columns, tuple(tuple(row) for row in zip(*cells, strict=True)), more or cut)

    def save(self, place: Path, kind: str, bytes_max: int) -> int:
        """Write the whole result to a file that was allowed beforehand; give how many rows."""
        options = "FORMAT parquet" if kind == "parquet" else "FORMAT csv, HEADER"
        with self._told({place.name: str(place)}):
            try:
                with walls(write_bytes=bytes_max, memory_bytes=self._memory):
                    row = self._connection.execute(
                        f"COPY {self._source} TO {quoted(str(place))} ({options})"
                    ).fetchone()
            except duckdb.Error as error:
                if os.strerror(errno.EFBIG) not in str(error):
                    raise

                message = (
                    f"the whole result is larger than {bytes_max} bytes, and no more is saved; filter or aggregate it"
                )
                raise ToolError(message, reason="TOO_LARGE") from None

        return int(row[0]) if row else 0

    @property
    def _source(self) -> str:
        # It was read as exactly one SELECT; the line break ends a comment at its end.
        return f"({self._sql}\n)"

    @contextmanager
    def _told(self, written: Mapping[str, str] | None = None) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            if changed := [path for path, place in self._places.items() if os.path.realpath(place) != self._real[path]]:
                message = f"{changed[0]!r} was replaced while it was read"
                raise ToolError(message, reason="FILE_CHANGED", retryable=True) from None

            raise told(error, {**self._places, **(written or {})}) from None
        except MemoryError:
            raise _no_memory() from None


@contextmanager
def opened(
    sql: str, tables: Mapping[str, str], root: Path, *, memory: int, also: Sequence[Path] = ()
) -> Iterator[Query]:
    """Read a statement and open its files, by name from ``tables``, else by their own paths in the folder ``root``.

    ``also`` are files that may be written. ``memory`` is in bytes.

    Raises:
        ToolError: what the statement asks for is not there or not allowed; the message says what.
    """
    workspace = Workspace(root)
    sql = sql.strip().rstrip(";").rstrip()
    with connected(memory) as parser:
        try:
            names = tables_of(parser, sql)
        except duckdb.Error as error:
            raise told(error, {}) from None

    paths = {name: _path_of(name, tables, workspace) for name in names}
    with ExitStack() as files:
        places = {path: _place(_open(path, workspace, files)) for path in dict.fromkeys(paths.values())}
        connection = files.enter_context(connected(memory, [*places.values(), *map(str, also)]))
        try:
            for name, path in paths.items():
                connection.execute(f"CREATE VIEW {named(name)} AS SELECT * FROM {reader(path, places[path])}")  # noqa: S608

            connection.execute("SET lock_configuration=true")
        except duckdb.Error as error:
            raise told(error, places) from None

        yield Query(connection, sql, places, memory)


@contextmanager
def connected(memory: int, allowed: Sequence[str] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a database in memory that may open just the files ``allowed``; its settings are not locked yet."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": f"{memory}B",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_unsigned_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        },
    )
    try:
        connection.execute("SET TimeZone='UTC'")
        if allowed:
            connection.execute(f"SET allowed_paths=[{', '.join(map(quoted, allowed))}]")

        connection.execute("SET enable_external_access=false")
        yield connection
    finally:
        connection.close()


def _path_of(name: str, tables: Mapping[str, str], workspace: Workspace) -> str:
    """Give the path of the file that a table's name stands for."""
    folded = {given.casefold(): path for given, path in tables.items()}
    path = folded.get(name.casefold(), name)
    if is_table(path):
        return path

    if name.casefold() in folded or "/" in name or "." in name:
        raise ToolError(f"{path!r} is no table; its name must end as those of {FORMATS} do", reason="UNKNOWN_FORMAT")

    files = _beside(workspace, ".")
    known = [*tables, *files]
    meant = [file for file in files if stem(file).casefold() == name.casefold()] or nearest(name, known)
    remedy = "name a file in quotes, as in FROM 'sales.csv', or give it a name in tables"
    if meant:
        hint = f"did you mean {meant[0] if meant[0] in tables else quoted(meant[0])}? Otherwise {remedy}"
    elif known:
        hint = f"there are {', '.join(map(quoted, known[:8]))}; {remedy}"
    else:
        hint = f"the workspace has no file of one; {remedy}"

    raise ToolError(f"there is no table {name}: {hint}", reason="UNKNOWN_TABLE")


def _open(path: str, workspace: Workspace, files: ExitStack) -> int:
    try:
        return files.enter_context(workspace.opened(path))
    except ToolError as error:
        if error.reason != "NOT_THERE":
            raise

        above, slash, name = path.rpartition("/")
        near = nearest(name, _beside(workspace, above or "."))
        if not near:
            raise

        told = f"there is no {path!r}; did you mean {quoted(above + slash + near[0])}?"
        raise ToolError(told, reason=error.reason) from None


def _beside(workspace: Workspace, folder: str) -> list[str]:
    """Give the names of the tables in a folder; none if it is not there."""
    try:
        return [name for name, _ in workspace.entries(folder)[0] if is_table(name)]
    except ToolError:
        return []


def _place(file: int) -> str:
    """Give the name by which an open file can be opened again: the file itself, whatever stands at its path by then."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - not everywhere

        path: bytes = fcntl.fcntl(file, fcntl.F_GETPATH, bytes(1024))
        return os.fsdecode(path.rstrip(b"\0"))

    return f"/proc/self/fd/{file}"


def _columns(described: Sequence[tuple[str, str]]) -> tuple[Column, ...]:
    """Give the columns, each with a name of its own: of two called ``id``, the second is ``id_1``."""
    if len(described) > COLUMNS_MAX:
        raise ToolError(f"the result has {len(described)} columns; at most {COLUMNS_MAX} are given", reason="TOO_LARGE")

    taken: set[str] = set()
    columns: list[Column] = []
    for name, kind in described:
        own, count = name, 0
        while own.casefold() in taken:
            count += 1
            own = f"{name}_{count}"

        taken.add(own.casefold())
        columns.append(Column(own, kind))

    return tuple(columns)


def _fetched(cursor: duckdb.DuckDBPyConnection, rows_max: int) -> tuple[list[tuple[Any, ...]], bool]:
    """Fetch up to so many rows; give whether there are more."""
    found: list[tuple[Any, ...]] = []
    size = 0
    while chunk := cursor.fetchmany(_CHUNK):
        for row in chunk:
            size += sum(len(cell) if isinstance(cell, str) else 8 for cell in row)
            if len(found) == rows_max or (found and size > FETCHED_MAX):
                return found, True

            found.append(row)

    return found, False


def told(error: duckdb.Error, places: Mapping[str, str]) -> ToolError:
    """Turn what DuckDB says into the tool's own failure, with files by their paths in the workspace."""
    match error:
        case duckdb.OutOfMemoryException():
            return _no_memory()
        case duckdb.PermissionException():
            return ToolError(
                "the query asks for a file, an address or a setting, and may read only the tables that it names; "
                "write FROM 'sales.csv' for a file of the workspace",
                reason="NOT_ALLOWED",
            )
        case duckdb.ParserException() | duckdb.SyntaxException():
            reason = "INVALID_SQL"
        case duckdb.BinderException() | duckdb.CatalogException():
            reason = "UNKNOWN_NAME"
        case _:
            reason = "QUERY_FAILED"

    text = str(error)
    for path, place in places.items():
        text = text.replace(place, path)

    text = _POSITION.sub(r" (in line \1)", text).split("\n\nPossible", 1)[0]
    text = " ".join(text.split())
    return ToolError(text if len(text) <= _MESSAGE_MAX else f"{text[: _MESSAGE_MAX - 1]}…", reason=reason)


def _no_memory() -> ToolError:
    remedy = "filter or aggregate earlier, or raise table.memory in the server's settings"
    return ToolError(f"the query needs more memory than it may take; {remedy}", reason="OUT_OF_MEMORY")
