"""Taking values out of JSON by the names of their keys, or by the place they stand at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from autoglm.model import Json

REDACTED: Final = "[redacted]"
"""What stands where a value was."""
ANY: Final = "*"
"""In a pointer: every key and every index."""

Path = tuple[str, ...]


class Redaction:
    """What is taken out: keys, wherever they stand and however they are cased, and places, as JSON pointers."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Read patterns: ``/items/*/token`` is a JSON pointer (RFC 6901, ``*`` stands for any), else the name of a key."""
        given = list(patterns)
        self._keys = frozenset(pattern.casefold() for pattern in given if not pattern.startswith("/"))
        self._paths = [_path(pattern) for pattern in given if pattern.startswith("/")]

    def of(self, value: Json) -> Json:
        """Give an output without what is taken out; ``value`` itself is left as it is."""
        return self._cleaned(value, self._paths)

    def of_part(self, value: Json) -> Json:
        """Give something beside the output, where pointers mean nothing, without what is taken out by key."""
        return self._cleaned(value, [])

    def of_metadata(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Give the metadata of a failure, without what is taken out by key."""
        return {key: REDACTED if key.casefold() in self._keys else value for key, value in metadata.items()}

    def _cleaned(self, value: Json, paths: list[Path]) -> Json:
        if isinstance(value, dict):
            return {key: self._member(key, inner, paths) for key, inner in value.items()}

        if isinstance(value, list):
            return [self._member(str(index), inner, paths, keyed=False) for index, inner in enumerate(value)]

        return value

    def _member(self, key: str, value: Json, paths: list[Path], *, keyed: bool = True) -> Json:
        below = [path[1:] for path in paths if path[0] in (key, ANY)]
        if () in below or (keyed and key.casefold() in self._keys):
            return REDACTED

        return self._cleaned(value, below)


def _path(pointer: str) -> Path:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
