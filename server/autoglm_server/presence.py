"""How clients find the server of a data directory: ``server.json`` beside its lock, and its Unix socket's folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from autoglm._dataclasses import dataclass

FILE: Final = "server.json"
SOCKET_PATH_MAX: Final = 100
"""Bytes of a Unix socket's path; the system's own limit is 104 or 108."""


@dataclass(frozen=True, slots=True)
class Presence:
    """What ``server.json`` tells. ``address`` is ``host:port`` or ``unix:///path``; ``started`` is RFC 3339."""

    address: str
    pid: int
    version: str
    fingerprint: str
    started: str
    embedded: bool

    def write(self, data_dir: Path) -> None:
        """Write the file whole or not at all; only its owner reads it."""
        fresh = data_dir / f"{FILE}.{self.pid}"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file, sort_keys=True)

        fresh.replace(data_dir / FILE)

    def remove(self, data_dir: Path) -> None:
        """Remove the file if it is this process's own."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads((data_dir / FILE).read_text(encoding="utf-8"))["pid"] == self.pid:
                (data_dir / FILE).unlink()


class SocketFolder:
    """A folder that only its owner enters, with one socket in it."""

    def __init__(self, data_dir: Path) -> None:
        """Use ``run`` in the data directory, or a new temporary folder where that path is too long for a socket.

        The data directory's lock must be held: a socket that is there was left by a process that has gone.
        """
        folder = data_dir / "run"
        self._temporary = len(os.fsencode(folder.absolute() / "server.sock")) > SOCKET_PATH_MAX

        if self._temporary:
            folder = Path(tempfile.mkdtemp(prefix="autoglm-"))
        else:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

        self.path = folder.absolute() / "server.sock"
        self.path.unlink(missing_ok=True)

    @property
    def address(self) -> str:
        """The address of the socket, for both sides."""
        return f"unix://{self.path}"

    def remove(self) -> None:
        """Remove the socket, and the folder if it was made for it."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

        if self._temporary:
            shutil.rmtree(self.path.parent, ignore_errors=True)
