"""Logs: one line for each change of state, on stderr, as JSON or for people.

Everything goes through the standard library's logging, so what libraries say comes out alike. :func:`configure` is
called once, before anything serves: reconfiguring logging under a serving gRPC server can deadlock. Modules log by
``logging.getLogger(__name__)`` and pass what a program may look for, ``plan_id`` and ``step_id`` first, as ``extra``.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from structlog.typing import Processor

    from autoglm_server.settings import LogSettings

NOISY = ("grpc", "asyncio", "hpack", "httpcore2", "httpx2")
"""Libraries that log what their callers are told anyway; only their warnings and errors are wanted."""


def configure(settings: LogSettings) -> None:
    """Send all logs of this process to stderr, from the level that is set."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    known: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(foreign_pre_chain=known, processors=list(_ends(as_json=as_json))))
    logging.getLogger().handlers[:] = [handler]
    set_level(settings)


def set_level(settings: LogSettings) -> None:
    """Write from the level that is set; this alone may change while a server serves."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.getLogger().setLevel(level)

    for name in NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Writes a line, and last of all takes out of it what must not be seen."""

    hide: Callable[[str], str] | None = None

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if self.hide is None else self.hide(line)


def hide(cleaned: Callable[[str], str]) -> None:
    """From now on pass every line through ``cleaned``, traceback and all, before it is written."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.hide = cleaned


def _ends(*, as_json: bool) -> Iterable[Processor]:
    """Give the last processors: they turn an entry into a line."""
    yield structlog.stdlib.ProcessorFormatter.remove_processors_meta

    if as_json:
        yield structlog.processors.format_exc_info
        yield structlog.processors.EventRenamer("message")
        yield structlog.processors.JSONRenderer(sort_keys=True, default=str)
    else:
        # Plain tracebacks: the richer ones show local variables, and these hold arguments and secrets.
        yield structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
