"""Logs: one line for each change of state, on stderr, as JSON or for people.

Everything goes through the standard library's logging, so what libraries say comes out alike. :func:`configure` is
called once, before anything serves: reconfiguring logging under a serving gRPC server can deadlock. Modules log by
``logging.getLogger(__name__)`` and pass what a program may look for, ``plan_id`` and ``step_id`` first, as ``extra``.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoglm_server.settings import LogSettings

NOISY = ("grpc", "asyncio", "hpack", "httpcore2", "httpx2")
"""Libraries that log what their callers are told anyway; only their warnings and errors are wanted."""

_COLORS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
_write: Final = json.JSONEncoder(sort_keys=True, default=str).encode
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest of it is what was passed as ``extra``."""


def configure(settings: LogSettings) -> None:
    """Send all logs of this process to stderr, from the level that is set."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else _Console(color=sys.stderr.isatty()))
    logging.getLogger().handlers[:] = [handler]
    # No line tells who logged by these, and to find them out takes a part of each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    set_level(settings)


def set_level(settings: LogSettings) -> None:
    """Write from the level that is set; this alone may change while a server serves."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.getLogger().setLevel(level)

    for name in NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def hide(cleaned: Callable[[str], str]) -> None:
    """From now on pass every line through ``cleaned``, traceback and all, before it is written."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Lines):
            handler.formatter.hide = cleaned


class _Lines(logging.Formatter):
    """Makes one entry of a record, and last of all takes out of it what must not be seen."""

    hide: Callable[[str], str] | None = None

    def format(self, record: logging.LogRecord) -> str:
        entry = {name: value for name, value in vars(record).items() if name not in _PLAIN}
        entry |= {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }

        if record.exc_info:
            # Plain tracebacks: the richer ones show local variables, and these hold arguments and secrets.
            entry["exception"] = self.formatException(record.exc_info)

        line = self.render(entry)
        return line if self.hide is None else self.hide(line)

    def render(self, entry: dict[str, Any]) -> str:
        raise NotImplementedError


class _JsonLines(_Lines):
    """For machines: an object on a line of its own."""

    def render(self, entry: dict[str, Any]) -> str:
        return _write(entry)


class _Console(_Lines):
    """For people: time, level, message, logger, then what was passed beside it."""

    def __init__(self, *, color: bool) -> None:
        super().__init__()
        self._color = color

    def render(self, entry: dict[str, Any]) -> str:
        time, level, logger, message = (str(entry.pop(name)) for name in ("time", "level", "logger", "message"))
        traceback = entry.pop("exception", "")
        shown = [
            self._paint("2", time),
            f"[{self._paint(_COLORS.get(level, ''), level.ljust(9))}]",
            _printable(message).ljust(30),
        ]
        shown.append(f"[{logger}]")
        shown += [f"{self._paint('36', name)}={_shown(value)}" for name, value in sorted(entry.items())]
        return " ".join(shown) + (f"\n{traceback}" if traceback else "")

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code else text


def _shown(value: object) -> str:
    """Give a value as one word: text is quoted where it would read as more."""
    if not isinstance(value, str):
        return _printable(repr(value))

    return value if value.isprintable() and not any(mark in value for mark in " \"'=") else repr(value)


def _printable(text: str) -> str:
    """Keep an entry on its line, and a terminal from being told what to do by what was logged."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
