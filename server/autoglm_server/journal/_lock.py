"""The lock on a data directory: one process at a time, and the next one is told who has it."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from autoglm_server.journal.journal import JournalError, JournalLockedError


class DirectoryLock:
    """An exclusive ``flock`` on ``<directory>/lock``, which names the holder. The kernel lets go of it with the process."""

    def __init__(self, directory: Path, what: str) -> None:
        """Create the directory (0700) if need be, and take the lock; ``what`` tells others what holds it.

        Raises:
            JournalLockedError: another process has it.
            JournalError: the directory cannot be made or written to.
        """
        path = directory / "lock"
        try:
            _make(directory)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            raise JournalError(
                f"the data directory {directory} is a file, or is in one; choose another with --data-dir"
            ) from error
        except OSError as error:
            raise JournalError(
                f"cannot write to the data directory {directory}: {error.strerror}; "
                "make it writable for this user, or choose another with --data-dir"
            ) from error

        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _holder(self._fd)
            os.close(self._fd)
            raise JournalLockedError(
                f"{directory} is in use by {holder}; stop that process, or choose another directory with --data-dir"
            ) from None

        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "what": what}).encode(), 0)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of the same name."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _make(directory: Path) -> None:
    """Make the directory, and have it outlast a power cut: what is in it would go with it, however well that is synced."""
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in made:
        with suppress(PermissionError):  # who may make a folder there may not always read what is there
            above = os.open(each.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(above)
            finally:
                os.close(above)


def _holder(fd: int) -> str:
    try:
        held = json.loads(os.pread(fd, 4096, 0))
        return f"{held['what']} (process {held['pid']})"
    except (ValueError, KeyError, TypeError):  # the holder is just writing it
        return "another process"
