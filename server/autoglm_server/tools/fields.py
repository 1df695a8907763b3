"""Names of places in a value, as violations tell them: ``steps[3].arguments.values[0]``."""

from __future__ import annotations

import json
from collections.abc import Iterable


def member(field: str, key: str | int) -> str:
    """Give the name of the member ``key`` (of an object) or item ``key`` (of an array) of the value at ``field``."""
    if isinstance(key, int):
        return f"{field}[{key}]"

    if not key.isidentifier():
        return f"{field}[{json.dumps(key, ensure_ascii=False)}]"

    return f"{field}.{key}" if field else key


def place(field: str, path: Iterable[str | int]) -> str:
    """Give the name of the place that ``path`` leads to from ``field``."""
    for key in path:
        field = member(field, key)

    return field
