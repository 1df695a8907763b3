"""Which files are tables, and how each kind is read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_CSV = "read_csv({place}, compression={compression})"
_TSV = r"read_csv({place}, delim='\t', compression={compression})"
_JSON = "read_json({place}, compression={compression})"
_LINES = "read_json({place}, format='newline_delimited', compression={compression})"
_PARQUET = "read_parquet({place})"

_READERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".csv": _CSV,
        ".tsv": _TSV,
        ".json": _JSON,
        ".jsonl": _LINES,
        ".ndjson": _LINES,
        ".parquet": _PARQUET,
    }
)
_PACKED: Final = ".gz"
FORMATS: Final = "CSV, TSV, JSON, JSON lines (each also gzipped) and Parquet"
"""What is read, for people."""


def reader(path: str, place: str) -> str:
    """Give the SQL that reads the file called ``path``, open at ``place``; empty if its ending is not one of a table."""
    ending, packed = _ending(path)
    form = _READERS.get(ending, "")
    return "" if packed and form == _PARQUET else form.format(place=quoted(place), compression=_compression(packed))


def stem(path: str) -> str:
    """Give what a file is called without folders and ending: the name by which a person means it."""
    name = path.rsplit("/", 1)[-1]
    ending, packed = _ending(name)
    return name[: len(name) - len(ending) - (len(_PACKED) if packed else 0)]


def is_table(path: str) -> bool:
    """Whether the ending is one of a table."""
    return bool(reader(path, ""))


def quoted(text: str) -> str:
    """Write a text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """Write a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _ending(path: str) -> tuple[str, bool]:
    """Give the ending, and whether it is gzipped."""
    name = path.rsplit("/", 1)[-1].lower()
    packed = name.endswith(_PACKED)
    name = name.removesuffix(_PACKED)
    return name[name.rfind(".") :] if "." in name else "", packed


def _compression(packed: bool) -> str:  # noqa: FBT001  # one of two words
    return "'gzip'" if packed else "'none'"
