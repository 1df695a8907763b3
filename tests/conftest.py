"""After the whole suite: no sink holds a key; and while it is collected, no garbage is looked for.

Every test that gives a model's key gives one that begins with :data:`MARK`. Whatever the tests leave on disk (journals, logs,
answers, debug files) is looked through when the last one has ended, and every log record as it is made. Files that hold a
key because it was put there are named in :data:`HOLDERS`.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

MARK: Final = b"sk-canary-"
HOLDERS: Final = frozenset({"key", "key.txt", "model.key", "keys.env", "autoglm.toml"})
"""Names of files that tests put keys into: key files and settings."""
_RECORDS: Final = "log-records-with-keys.txt"
_CHUNK: Final = 1 << 20

# How long an example takes says what else the machine does.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# Hundreds of processes are started, and each would compile all of it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell without a terminal lets what it starts in the background ignore Ctrl-C, and so would all processes started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def leaks(folder: Path) -> Iterator[Path]:
    """Give the files below ``folder`` that hold a key and should not."""
    for path in sorted(folder.rglob("*")):
        if path.name not in HOLDERS and path.is_file() and not path.is_symlink() and _holds(path):
            yield path


def _holds(path: Path) -> bool:
    before = b""
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                if MARK in before + piece:
                    return True

                before = piece[-len(MARK) :]
    except OSError:
        return False  # a socket, or gone by now

    return False


class Watcher(logging.Handler):
    """Notes, in a file, which logger told a key."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        told = f"{record.getMessage()} {record.__dict__.get('exc_text') or ''} {record.exc_info or ''}"
        if MARK.decode() in told:
            with self._path.open("a") as file:
                file.write(f"{record.name}: {told}\n")


@pytest.fixture(scope="session", autouse=True)
def watched_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    watcher = Watcher(tmp_path_factory.getbasetemp() / _RECORDS)
    logging.getLogger().addHandler(watcher)
    yield
    logging.getLogger().removeHandler(watcher)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep what is imported and collected: looking through it for garbage again and again takes a third of the time."""
    gc.disable()

    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # what libraries hold is let go at the end, or duckdb's says it was lost


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    factory: pytest.TempPathFactory | None = getattr(session.config, "_tmp_path_factory", None)
    if factory is None or hasattr(session.config, "workerinput"):
        return  # the process that started the workers looks through the files of all

    if found := [str(path) for path in leaks(factory.getbasetemp())]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        for path in found if reporter is not None else ():
            reporter.write_line(f"KEY LEAKED into {path}", red=True)
