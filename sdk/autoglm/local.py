"""The embedded server: find the one of a data directory, or start it; ``docs/adr/0031`` has the whole protocol.

All here blocks: the asynchronous client calls it in a thread. Nothing of the server is imported: it is a process of its
own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from autoglm._dataclasses import dataclass
from autoglm._version import __version__
from autoglm.errors import AutoglmError, InvalidRequestError, PreconditionError, UnavailableError
from autoglm.model import PlanState

START_TIMEOUT = 30.0
"""Seconds a server has to be SERVING."""

USAGE_STATUS = 2
"""The exit status of a server that cannot start as it was told to: a setting, a provider, a file."""

HELD_STATUS = 75
"""The exit status of a server that found its data directory held by another (EX_TEMPFAIL)."""

LOG_BYTES_MAX = 1 << 20
"""The size of ``server.log`` above which the next start sets it aside as ``server.log.1``."""

# -P: a module in the current directory must not take the place of one of the server's.
COMMAND = (sys.executable, "-P", "-m", "autoglm_server")
"""What starts a server."""

INSTALL = "pip install 'open-autoglm[server]'"

_BUSY = (PlanState.QUEUED, PlanState.PLANNING, PlanState.RUNNING, PlanState.CANCELLING)
_NEEDED = ("autoglm_server", "apsw", "jmespath", "jsonschema_rs", "pydantic", "yaml")
_NO_SETTINGS = frozenset({"AUTOGLM_ADDRESS", "AUTOGLM_DATA_DIR"})
_POLL = 0.05
_HEALTH_TIMEOUT = 2.0
_ENDING_ASKED = 1.0  # one that ends takes its file away; a call that it cuts off makes gRPC write a line to stderr
_HELD_PAUSE = 0.5  # the server that holds the folder is about to serve, or to end
_NOT_SERVING_PATIENCE = 5.0  # then the calls themselves say what is wrong, such as a full disk: reads still work
_FILE_BYTES_MAX = 64 << 10
_CONFIG_BYTES_MAX = 1 << 20
_TOOL_FILES_MAX = 64
_TOOL_FILE = re.compile(r"=(?:python|openapi):(?!https?:)(.+)")
_TOOL_FILE_IN_TEXT = re.compile(r"""\b(?:python|openapi):(?!https?:)([^\s'",:}\]]+)""")
_TAIL_BYTES = 4096
_TAIL_LINES = 20

_logger = logging.getLogger("autoglm")


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What ``server.json`` says of the server that holds a data directory."""

    address: str
    pid: int
    version: str = ""
    embedded: bool = False
    fingerprint: str = ""


def data_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Give the data directory: ``given``, else ``AUTOGLM_DATA_DIR``, else the platform's folder for user data.

    >>> data_dir("/srv/autoglm")
    PosixPath('/srv/autoglm')
    """
    if given is not None:
        return Path(given).expanduser().absolute()

    if named := os.environ.get("AUTOGLM_DATA_DIR"):
        return Path(named).expanduser().absolute()

    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "autoglm"

    base = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".local" / "share") / "autoglm"


def read(folder: Path) -> ServerFile | None:
    """Read ``server.json``; None if there is none, or it is not one."""
    try:
        with (folder / "server.json").open("rb") as file:
            value = json.loads(file.read(_FILE_BYTES_MAX))

        return ServerFile(
            address=_target(value["address"]),
            pid=int(value["pid"]),
            version=str(value.get("version", "")),
            embedded=bool(value.get("embedded", False)),
            fingerprint=str(value.get("fingerprint", "")),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, AutoglmError):
        return None


def fingerprint(server_args: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> str:
    """Tell the settings that a client names for the server: the same settings, the same text; empty if none.

    The files they name belong to them, those of tools as well: who has edited one means the new text.
    """
    environment = os.environ if environment is None else environment
    named = {key: value for key, value in environment.items() if key.startswith("AUTOGLM_") and key not in _NO_SETTINGS}

    if not server_args and not named:
        return ""

    said = {
        "args": list(server_args),
        "environment": named,
        "files": [_digest(file) for file in _files(server_args, named)],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def missing_packages() -> list[str]:
    """Give the packages of the embedded server that are not installed."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def ensure(
    folder: str | os.PathLike[str] | None = None,
    *,
    server_args: Sequence[str] = (),
    timeout: float = START_TIMEOUT,
    progress: Callable[[str], None] | None = None,
) -> str:
    """Give the address of the server of ``folder`` (see :func:`data_dir`), and start it if there is none.

    ``server_args`` are flags as of ``autoglm serve``; a server with other settings is replaced if it is idle.
    ``progress`` is told in a sentence what is waited for.

    Raises:
        UnavailableError: it did not become ready within ``timeout`` seconds, or it ended; the message has its log's
        tail. InvalidRequestError: it cannot start with these settings. PreconditionError: the server there has other
        settings, or is another version, and cannot be replaced now.
    """
    return _Search(data_dir(folder), server_args, timeout, progress or _logger.info).run()


def make_way(folder: str | os.PathLike[str] | None = None, *, progress: Callable[[str], None] | None = None) -> None:
    """End the embedded server of ``folder`` if there is one and it is idle, so that another server can take the folder.

    Raises:
        UnavailableError: it did not end.
    """
    search = _Search(data_dir(folder), (), START_TIMEOUT, progress or _logger.info)
    search.make_way()


class _Search:
    """One look for the server, until there is one or the time is up."""

    def __init__(
        self, folder: Path, server_args: Sequence[str], timeout: float, progress: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._args = tuple(server_args)
        self._fingerprint = fingerprint(server_args)
        self._timeout = timeout
        self._due = time.monotonic() + timeout
        self._progress = progress
        self._child: _Child | None = None
        self._silent_since: float | None = None
        self._not_before = 0.0  # when the next start may be

    def run(self) -> str:
        try:
            while True:
                if address := self._look():
                    return address

                if time.monotonic() >= self._due:
                    raise UnavailableError(
                        f"The embedded server of {self._folder} was not ready in {self._timeout:g} s.{self._tail()}",
                        reason="UNAVAILABLE",
                    )

                time.sleep(_POLL)
        finally:
            if self._child is not None:
                self._child.leave()

    def _look(self) -> str:
        """Go one step on; give the address once there is a server to be used."""
        found = read(self._folder)
        health = _serving(found.address) if found else ""

        if found and health:
            if health == "SERVING" or self._has_patience_ended():
                return self._use(found)

            return ""

        self._silent_since = None

        if self._child is None and time.monotonic() < self._not_before:
            return ""

        if self._child is None:
            self._progress(f"starting the embedded server of {self._folder}")
            self._child = _Child(self._folder, self._args, self._fingerprint)
        elif (status := self._child.ended()) is not None:
            tail = self._tail()
            self._child = None
            self._not_before = time.monotonic() + _HELD_PAUSE

            if status != HELD_STATUS:
                if status == USAGE_STATUS:
                    raise InvalidRequestError(f"The embedded server cannot start as it was told to.{tail}")

                raise UnavailableError(
                    f"The embedded server ended while it started ({_told(status)}).{tail}", reason="UNAVAILABLE"
                )

        return ""

    def _has_patience_ended(self) -> bool:
        """Wait for a server that answers but does not serve: it starts, or drains and will be gone."""
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        return now - self._silent_since >= _NOT_SERVING_PATIENCE

    def _use(self, found: ServerFile) -> str:
        """Take the server that is there, or replace it."""
        other = self._difference(found)

        if not other:
            return found.address

        remedy = (
            f"Wait until its plans have ended, stop it (kill {found.pid}: its plans go on when it is started again), or use "
            f"another data directory (--data-dir, AUTOGLM_DATA_DIR)."
        )

        if not found.embedded:
            raise PreconditionError(f"The server of {self._folder}, started by autoglm serve, {other}. {remedy}")

        if _busy(found.address):
            raise PreconditionError(f"The embedded server of {self._folder} {other}, and runs plans. {remedy}")

        self._progress(f"replacing the embedded server of {self._folder}, which {other}")
        self._stop(found)
        return ""

    def make_way(self) -> None:
        """End an idle embedded server."""
        found = read(self._folder)

        if found and found.embedded and _serving(found.address) == "SERVING":
            if _busy(found.address):
                return

            self._progress(f"ending the idle embedded server of {self._folder}")
            self._stop(found)

    def _difference(self, found: ServerFile) -> str:
        if self._fingerprint and found.fingerprint != self._fingerprint:
            return "has other settings than the ones named now"

        if found.embedded and found.version != __version__:
            return f"is version {found.version or 'unknown'}, and this is {__version__}"

        return ""

    def _stop(self, found: ServerFile) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGTERM)

        asked = time.monotonic()

        while read(self._folder) == found:
            now = time.monotonic()

            if now - asked >= _ENDING_ASKED:
                if not _serving(found.address):
                    return

                asked = now

            if now >= self._due:
                raise UnavailableError(
                    f"The embedded server of {self._folder} (process {found.pid}) did not end in {self._timeout:g} s.",
                    reason="UNAVAILABLE",
                )

            time.sleep(_POLL)

    def _tail(self) -> str:
        log = self._folder / "server.log"
        text = self._child.tail() if self._child else ""
        missing = f"\nThe server's packages are not installed; run: {INSTALL}" if "ModuleNotFoundError" in text else ""
        return f" The end of {log}:\n{text}{missing}" if text else f" See {log}."


class _Child:
    """A server that this process started."""

    def __init__(self, folder: Path, args: Sequence[str], settings: str) -> None:
        if missing := missing_packages():
            raise UnavailableError(
                f"The embedded server needs packages that are not installed ({', '.join(missing)}). Run: {INSTALL}. Or "
                f"name a server that runs elsewhere (--address, AUTOGLM_ADDRESS).",
                reason="UNAVAILABLE",
            )

        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

            with _open_log(folder / "server.log") as log:
                self._log = folder / "server.log"
                self._begin = log.tell()
                self._process = _spawn(folder, args, settings, log)
        except OSError as error:
            raise UnavailableError(
                f"The embedded server cannot be started in {folder}: {error.strerror}. Choose another data directory "
                f"(--data-dir, AUTOGLM_DATA_DIR).",
                reason="UNAVAILABLE",
            ) from error

    def ended(self) -> int | None:
        """Give the exit status, or None while it runs."""
        return self._process.poll()

    def tail(self) -> str:
        """Give the last lines it wrote."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._begin if self._begin <= size else 0, size - _TAIL_BYTES))
            return "\n".join(log.read(_TAIL_BYTES).decode(errors="replace").splitlines()[-_TAIL_LINES:])

        return ""

    def leave(self) -> None:
        """Let it live on; a thread takes its exit status when it ends, so that no zombie stays."""
        if self._process.returncode is None:
            threading.Thread(target=self._process.wait, name="autoglm-server-end", daemon=True).start()


def _spawn(folder: Path, args: Sequence[str], settings: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server as a session of its own, so that neither Ctrl-C nor the end of a terminal reaches it."""
    environment = {key: value for key, value in os.environ.items() if key not in _NO_SETTINGS}
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module; the arguments are no shell's
        [*COMMAND, "--embedded", "--data-dir", str(folder), "--fingerprint", settings, *args],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=environment | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
    )


def _open_log(path: Path) -> IO[bytes]:
    """Open the log to append to it; a large one is set aside first."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(path.name + ".1"))

    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
    log.seek(0, os.SEEK_END)
    return log


# gRPC is imported where there is a server to ask: most starts find none.


def _target(address: str) -> str:
    from autoglm import _grpc  # noqa: PLC0415 - see above

    return _grpc.target(address)


def _serving(address: str) -> str:
    from autoglm import _grpc  # noqa: PLC0415 - see above

    return _grpc.serving(address, timeout=_HEALTH_TIMEOUT)


def _busy(address: str) -> bool:
    """Tell whether the server has a plan that can make progress; one that only waits for a person keeps."""
    from autoglm.client import Client  # noqa: PLC0415 - the client imports this module when it needs it

    with Client(address) as client:
        return next(iter(client.list(states=_BUSY)), None) is not None


def _files(server_args: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Name the configuration files among the settings, and the files of tools that they or the settings name."""
    named = [environment["AUTOGLM_CONFIG"]] if environment.get("AUTOGLM_CONFIG") else []
    pairs: list[Any] = list(itertools.pairwise(server_args))
    named += [value for flag, value in pairs if flag == "--config"]
    named += [arg.removeprefix("--config=") for arg in server_args if arg.startswith("--config=")]

    # What is written on a command line is one word each; elsewhere a name ends where YAML or JSON may end it.
    tools = [found[1] for arg in server_args if (found := _TOOL_FILE.search(arg))]
    texts = [*environment.values(), *map(_text, named)]
    tools += [found[1] for text in texts for found in _TOOL_FILE_IN_TEXT.finditer(text)]
    return named + [str(Path(file).expanduser()) for file in tools[:_TOOL_FILES_MAX]]


def _text(file: str) -> str:
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_CONFIG_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        return ""


def _digest(file: str) -> str:
    """Tell the content of a file; one that cannot be read is for the server to complain about."""
    try:
        with Path(file).open("rb") as opened:
            return hashlib.sha256(opened.read(_CONFIG_BYTES_MAX)).hexdigest()
    except OSError:
        return ""


def _told(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
