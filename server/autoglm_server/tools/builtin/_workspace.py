"""A folder that file tools may touch, and nothing outside it.

Every path is walked from the folder down, one component at a time, by file descriptors, and no link is ever followed: a check
of the path's text could be passed by a link, or by one that is put there after the check.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from autoglm.tool import ToolError

READ_MAX: Final = 512 << 10
"""How large a file may be that is read, in bytes."""
FILE_MAX: Final = 64 << 20
"""How large a file may become, in bytes."""
ENTRIES_MAX: Final = 1000
"""How many entries of a folder are listed."""
PATH_MAX: Final = 1024
"""How long a path may be, in characters."""
_PARTS_MAX = 32
_PART_BYTES_MAX = 255

_TEMPORARY = ".autoglm-"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO that took a file's place would wait for a writer for ever.
_FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
}


class Workspace:
    """The folder; it is made when it is first used."""

    def __init__(self, root: Path) -> None:
        """Take the folder ``root``, which may itself be reached over links: whoever configured it chose it."""
        self._root = root

    def entries(self, path: str) -> tuple[list[tuple[str, os.stat_result]], bool]:
        """Give the first :data:`ENTRIES_MAX` entries of a folder, by name, and whether there are more."""
        with self._folder(_parts(path), path) as folder:
            listed = os.listdir(folder)  # noqa: PTH208  # by descriptor, which Path cannot
            names = sorted(name for name in listed if not name.startswith(_TEMPORARY))
            found = [(name, seen) for name in names[:ENTRIES_MAX] if (seen := _seen(name, folder)) is not None]
            return found, len(names) > ENTRIES_MAX

    def read(self, path: str) -> bytes:
        """Give a file's bytes."""
        *above, name = _file_parts(path)
        with self._folder(above, path) as folder, _opened(name, folder, os.O_RDONLY, path) as file:
            size = os.fstat(file).st_size
            if size > READ_MAX:
                raise _too_large(path, size, READ_MAX)

            # One byte more than allowed: it may grow while it is read.
            data = _read(file, READ_MAX + 1)
            if len(data) > READ_MAX:
                raise _too_large(path, len(data), READ_MAX)

            return data

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """Open a file for reading, of any size; give its descriptor, which is closed in the end."""
        *above, name = _file_parts(path)
        with self._folder(above, path) as folder, _opened(name, folder, os.O_RDONLY, path) as file:
            yield file

    @contextmanager
    def folder(self, path: str) -> Iterator[int]:
        """Open a folder; give its descriptor, which is closed in the end."""
        with self._folder(_parts(path), path) as folder:
            yield folder

    def write(self, path: str, data: bytes) -> bool:
        """Make ``data`` the content of a file, all or nothing; give whether the file is new."""
        *above, name = _file_parts(path)
        with self._folder(above, path, make=True) as folder:
            before = _seen(name, folder)
            if before is not None:
                _check_file(before, path)

            _replace(name, folder, data, 0o666 if before is None else stat.S_IMODE(before.st_mode))
            return before is None

    def append(self, path: str, data: bytes) -> int:
        """Add ``data`` to the end of a file, which is made if it is not there; give its size."""
        *above, name = _file_parts(path)
        with self._folder(above, path, make=True) as folder:
            with _opened(name, folder, os.O_WRONLY | os.O_APPEND | os.O_CREAT, path) as file:
                before = os.fstat(file)
                if before.st_nlink > 1:
                    raise ToolError(f"{path!r} has other names, perhaps outside the workspace", reason="LINK_REFUSED")

                if before.st_size + len(data) > FILE_MAX:
                    raise _too_large(path, before.st_size + len(data), FILE_MAX)

                _write(file, data)
                os.fsync(file)

            os.fsync(folder)
            return before.st_size + len(data)

    @contextmanager
    def _folder(self, parts: list[str], path: str, *, make: bool = False) -> Iterator[int]:
        """Open the folder ``parts`` lead to; with ``make``, folders that are not there are made."""
        with _told(path):
            self._root.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)

        try:
            for part in parts:
                below = _enter(part, folder, path, make=make)
                os.close(folder)
                folder = below

            with _told(path):
                yield folder
        finally:
            os.close(folder)


def kind_of(seen: os.stat_result) -> str:
    """Give what an entry is: file, folder, link or other."""
    return _KINDS.get(stat.S_IFMT(seen.st_mode), "other")


def _parts(path: str) -> list[str]:
    if not path or len(path) > PATH_MAX or not path.isprintable() or "\\" in path:
        told = f"{path[:80]!r} is not a path here; write 1 to {PATH_MAX} printable characters, with '/' between folders"
        raise ToolError(told, reason="INVALID_PATH")

    if path.startswith("/"):
        raise ToolError(f"{path!r} is absolute; write it from the workspace on", reason="OUTSIDE_WORKSPACE")

    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ToolError(f"{path!r} has '..', which could lead out of the workspace", reason="OUTSIDE_WORKSPACE")

    if len(parts) > _PARTS_MAX or any(len(part.encode()) > _PART_BYTES_MAX for part in parts):
        told = f"a path is at most {_PARTS_MAX} folders deep, and each name at most {_PART_BYTES_MAX} bytes"
        raise ToolError(told, reason="INVALID_PATH")

    return parts


def _file_parts(path: str) -> list[str]:
    parts = _parts(path)
    if not parts or path.endswith("/"):
        raise ToolError(f"{path!r} is a folder; write the path of a file", reason="NOT_A_FILE")

    if parts[-1].startswith(_TEMPORARY):
        raise ToolError(f"names that begin with {_TEMPORARY!r} are taken", reason="INVALID_PATH")

    return parts


def _enter(part: str, folder: int, path: str, *, make: bool) -> int:
    while True:
        try:
            return os.open(part, _FOLDER_FLAGS, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise ToolError(f"there is no {path!r}", reason="NOT_THERE") from None

            # Another call may make it in between.
            with _told(path), contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
        except OSError as error:
            seen = _seen(part, folder)
            if seen is not None and not stat.S_ISDIR(seen.st_mode):
                _refuse(seen, path, f"{part!r} is not a folder", "NOT_A_FOLDER")

            _tell(error, path)


@contextmanager
def _opened(name: str, folder: int, flags: int, path: str) -> Iterator[int]:
    # Looked at before it is opened, because opening a device can do something; and after, because it may be another by then.
    before = _seen(name, folder)
    if before is not None:
        _check_file(before, path)

    file = os.open(name, flags | _FILE_FLAGS, 0o666, dir_fd=folder)
    try:
        _check_file(os.fstat(file), path)
        yield file
    finally:
        os.close(file)


def _check_file(seen: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(seen.st_mode):
        kind = kind_of(seen)
        _refuse(
            seen, path, f"it is a {kind}" if kind == "folder" else "it is neither a file nor a folder", "NOT_A_FILE"
        )


def _refuse(seen: os.stat_result, path: str, told: str, reason: str) -> NoReturn:
    if stat.S_ISLNK(seen.st_mode):
        raise ToolError(f"{path!r} is or goes over a link; links are not followed here", reason="LINK_REFUSED")

    raise ToolError(f"{path!r} cannot be used: {told}", reason=reason)


def _seen(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _replace(name: str, folder: int, data: bytes, mode: int) -> None:
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, mode, dir_fd=folder)
    try:
        try:
            _write(file, data)
            os.fsync(file)
        finally:
            os.close(file)

        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise

    os.fsync(folder)


def _read(file: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.read(file, size)):
        pieces.append(piece)
        size -= len(piece)

    return b"".join(pieces)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _too_large(path: str, size: int, size_max: int) -> ToolError:
    return ToolError(f"{path!r} has {size} bytes; at most {size_max} are allowed", reason="TOO_LARGE")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the system says into the tool's own failure, without the workspace's place on this machine."""
    try:
        yield
    except OSError as error:
        _tell(error, path)


def _tell(error: OSError, path: str) -> NoReturn:
    match error.errno:
        case errno.ENOENT:
            raise ToolError(f"there is no {path!r}", reason="NOT_THERE") from None

        case errno.ELOOP | errno.EMLINK:
            raise ToolError(f"{path!r} is or goes over a link; links are not followed here", reason="LINK_REFUSED")

        case errno.EACCES | errno.EPERM | errno.EROFS:
            raise ToolError(f"{path!r}: the server may not do this there", reason="NO_PERMISSION") from None

        case errno.ENOSPC | errno.EDQUOT:
            raise ToolError(f"{path!r}: the disk is full", reason="NO_SPACE", retryable=True) from None

        case errno.EISDIR | errno.ENOTDIR | errno.ENXIO:
            raise ToolError(f"{path!r} is not what it should be: {error.strerror}", reason="NOT_A_FILE") from None

        case _:
            raise ToolError(f"{path!r}: {error.strerror}", reason="IO_ERROR", retryable=True) from None
