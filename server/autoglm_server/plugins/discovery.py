"""Where plugins are: entry points of the group ``autoglm.plugins``, modules, files, and the server's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

from autoglm._dataclasses import dataclass
from autoglm._version import __version__
from autoglm_server.plugins.builtin import NAME as BUILTIN
from autoglm_server.plugins.builtin import Builtin
from autoglm_server.settings import PluginSettings
from autoglm_server.tools import loading
from autoglm_server.tools.loading import LoadError, load_file, load_module

GROUP: Final = "autoglm.plugins"
_SOURCE = re.compile(r"python:(?P<where>.+?)(?::(?P<name>[A-Za-z_]\w*))?")


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin that is there. ``load`` gives its module, class or object; it may run foreign code, take long, and raise."""

    name: str
    version: str
    source: str
    load: Callable[[], Any]


def installed() -> dict[str, Found]:
    """Give the plugins that are installed, by name, and the server's own. Nothing of them is loaded."""
    found = {BUILTIN: Found(BUILTIN, __version__, BUILTIN, Builtin)}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        found.setdefault(point.name, _of_entry_point(point))

    return found


def find(settings: PluginSettings) -> Found:
    """Give the plugin that the configuration means.

    Raises:
        LoadError: there is none; the message says what is there.
    """
    if settings.source:
        return _of_source(settings.name, settings.source)

    there = installed()
    if settings.name not in there:
        raise LoadError(
            f"no plugin of this name is installed; there are: {', '.join(sorted(there))}. Else set its source"
        )

    return there[settings.name]


def is_changed(source: str) -> bool:
    """Whether a source is a file whose text is another one than when it was loaded."""
    match = _SOURCE.fullmatch(source)
    return match is not None and _is_file(match["where"]) and loading.is_changed(Path(match["where"]))


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where


def _of_entry_point(point: EntryPoint) -> Found:
    return Found(point.name, point.dist.version if point.dist is not None else "", point.value, point.load)


def _of_source(name: str, source: str) -> Found:
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise LoadError(
            f"its source {source!r} is none; write python:FILE.py or python:package.module, and :OBJECT behind it"
        )

    where, wanted = match["where"], match["name"]

    def load() -> Any:
        module = load_file(Path(where).expanduser(), fresh=True) if _is_file(where) else load_module(where)
        if wanted and not hasattr(module, wanted):
            raise LoadError(f"{where} has no {wanted}")

        return getattr(module, wanted) if wanted else getattr(module, "plugin", module)

    return Found(name, "", source, load)
