"""Files that belong to results: their names and bounds, what a tool's function saved, and where callers put them.

Nothing here knows of messages or of servers: what a name may be and what a file is called on disk is the same for all.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
import shutil
import stat
import tempfile
import unicodedata
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from autoglm._dataclasses import dataclass
from autoglm._ids import new_id
from autoglm.errors import InternalError
from autoglm.model import Artifact, ErrorReason

CHUNK_BYTES: Final = 256 << 10
"""The most of a file that one message carries."""
NAME_MAX: Final = 256
"""How long a file's name may be, in characters."""
MEDIA_TYPE_MAX: Final = 128
_MEMORY_BYTES: Final = 256 << 10
"""A smaller file waits in memory until it is taken; others on disk."""
_DISK_NAME_BYTES: Final = 200
_COPY_BYTES: Final = 1 << 20

# Texts, which `re` compiles when one is first used.
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
_NOT_ON_DISK = r'[/\\:*?"<>|]+'
_RESERVED = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?"
_KINDS = mimetypes.MimeTypes()  # without the files of the system: the same on every machine


@dataclass(frozen=True, slots=True)
class FileLimits:
    """A bound on the files of one call; sizes in bytes."""

    file_bytes: int = 64 << 20
    """One file."""
    call_files: int = 64
    """How many."""
    call_bytes: int = 256 << 20
    """All of them together."""


_LIMITS: Final = FileLimits()


class FileTooLargeError(ValueError):
    """The files of a call are too many or too large; ``limit`` and ``size`` in bytes, or files."""

    def __init__(self, message: str, *, limit: int, size: int) -> None:
        """Carry the limit that was met."""
        super().__init__(message)
        self.limit = limit
        self.size = size


def check_label(name: str, media_type: str) -> str:
    """Say what is wrong with a file's name or media type; nothing if they can be used.

    A name is a label: it may have slashes, and is never a path.
    """
    if not 1 <= len(name) <= NAME_MAX:
        return f"a file's name has 1 to {NAME_MAX} characters, not {len(name)}"

    if re.search(_CONTROL, name):
        return f"the file's name {name!r} has characters that cannot be shown"

    if len(media_type) > MEDIA_TYPE_MAX or re.search(_CONTROL, media_type):
        return f"the media type of the file {name!r} is none; write one such as image/png"

    return ""


def disk_name(name: str) -> str:
    """Give the name under which a file can be saved in a folder: no path, nothing hidden, nothing a system reserves."""
    plain = unicodedata.normalize("NFC", re.sub(_CONTROL, "", name))
    plain = re.sub(_NOT_ON_DISK, "_", plain).lstrip(". ").rstrip(". ")
    if re.fullmatch(_RESERVED, plain):
        plain = f"_{plain}"

    stem, dot, ending = plain.rpartition(".")
    if not dot or len(ending) > 16:
        stem, dot, ending = plain, "", ""

    room = _DISK_NAME_BYTES - len((dot + ending).encode())
    return f"{stem.encode()[:room].decode(errors='ignore')}{dot}{ending}" or "file"


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file that a function saved: what it is, and its content or where that waits."""

    artifact: Artifact
    content: bytes | Path

    def pieces(self) -> Iterator[bytes]:
        """Give the content, in pieces that a message carries. An empty file has none."""
        if isinstance(self.content, bytes):
            for start in range(0, len(self.content), CHUNK_BYTES):
                yield self.content[start : start + CHUNK_BYTES]
        else:
            with self.content.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    yield piece


class Files:
    """What the function of one call saved, until whoever runs it has taken it.

    A content is copied at once: a function may save a file of a folder that goes when it returns.
    """

    def __init__(self, limits: FileLimits | None = None, folder: Path | None = None) -> None:
        """Begin empty. With a ``folder`` all waits there, for another process; else in a folder that goes with this."""
        self._limits = limits or _LIMITS
        self._folder = folder
        self._memory = _MEMORY_BYTES if folder is None else -1
        self._saved: dict[str, SavedFile] = {}
        self._size = 0
        self._release: weakref.finalize[[str], Files] | None = None

    def __iter__(self) -> Iterator[SavedFile]:
        return iter(tuple(self._saved.values()))

    def __len__(self) -> int:
        return len(self._saved)

    @property
    def folder(self) -> Path | None:
        """Where large files wait, for what belongs to the call alone: it goes with the call, however that ends."""
        return self._folder

    def add(self, name: str, content: bytes | str | Path, media_type: str = "") -> Artifact:
        """Take a file.

        Raises:
            FileTooLargeError: there are too many, or it is too large.
            ValueError: its name or media type cannot be used, or the name is taken.
            OSError: it cannot be read, or not be copied.
        """
        media_type = media_type or _KINDS.guess_type(name)[0] or ("text/plain" if isinstance(content, str) else "")
        if fault := check_label(name, media_type):
            raise ValueError(fault)

        if name in self._saved:
            raise ValueError(f"the call has saved a file {name!r} already; give each its own name")

        if len(self._saved) >= self._limits.call_files:
            most = self._limits.call_files
            raise FileTooLargeError(f"a call may save {most} files, and no more", limit=most, size=most + 1)

        kept: bytes | Path
        if isinstance(content, Path):
            kept, size, digest = self._copied(name, content)
        else:
            data = content.encode() if isinstance(content, str) else bytes(content)
            size, digest = len(data), hashlib.sha256(data).hexdigest()
            self._check(name, size)
            kept = data if size <= self._memory else self._written(data)

        artifact = Artifact(name, media_type, size, f"sha256:{digest}")
        self._saved[name] = SavedFile(artifact, kept)
        self._size += size
        return artifact

    def joined(self, artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
        """Give the files of a result: those it names itself, and then those that were saved."""
        return (*artifacts, *(file.artifact for file in self if file.artifact not in artifacts))

    def close(self) -> None:
        """Let go of the contents."""
        if self._release is not None:
            self._release()

    def _check(self, name: str, size: int) -> None:
        limits = self._limits
        if size > limits.file_bytes:
            message = f"the file {name!r} is larger than {limits.file_bytes} bytes"
            raise FileTooLargeError(message, limit=limits.file_bytes, size=size)

        if self._size + size > limits.call_bytes:
            message = f"with the file {name!r} the call's files are larger than {limits.call_bytes} bytes together"
            raise FileTooLargeError(message, limit=limits.call_bytes, size=self._size + size)

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="autoglm-"))
            self._release = weakref.finalize(self, shutil.rmtree, str(self._folder), ignore_errors=True)

        return self._folder / new_id()

    def _written(self, data: bytes) -> Path:
        place = self._place()
        place.write_bytes(data)
        return place

    def _copied(self, name: str, source: Path) -> tuple[Path, int, str]:
        fd = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):  # a pipe would block for ever, a device never end
                raise ValueError(f"{source} is no regular file, so it cannot be saved as {name!r}")

            self._check(name, found.st_size)
            place, hashed, size = self._place(), hashlib.sha256(), 0
            with place.open("xb") as copy:
                while piece := os.read(fd, _COPY_BYTES):
                    size += len(piece)
                    self._check(name, size)  # it may grow meanwhile
                    hashed.update(piece)
                    copy.write(piece)
        finally:
            os.close(fd)

        return place, size, hashed.hexdigest()


def placed(path: Path, name: str) -> Path:
    """Give where a file goes: ``path``, or what it is called there if that is a folder."""
    return path / name if path.is_dir() else path


class Target:
    """A file that a caller saves: written beside its place, checked, and put there whole."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        """Begin to write ``path``.

        Raises:
            FileExistsError: it is there, and is not to be overwritten.
        """
        if path.is_dir() or (not overwrite and os.path.lexists(path)):
            raise FileExistsError(f"{path} exists; choose another place, or say that it may be overwritten")

        self.path = path
        self.size = 0
        self._overwrite = overwrite
        self._hash = hashlib.sha256()
        self._part = path.with_name(f".{new_id()}.part")
        self._file = self._part.open("xb")

    def write(self, data: bytes) -> None:
        """Add the next piece."""
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def keep(self) -> None:
        """Put it in its place.

        Raises:
            FileExistsError: something came there meanwhile, and is not to be overwritten.
        """
        self._file.close()
        if self._overwrite:
            self._part.replace(self.path)
            return

        try:
            os.link(self._part, self.path)  # unlike a rename it never goes over what is there
        except FileExistsError:
            raise FileExistsError(
                f"{self.path} exists; choose another place, or say that it may be overwritten"
            ) from None
        except OSError:  # a file system without hard links
            self._part.rename(self.path)
        finally:
            self._part.unlink(missing_ok=True)

    def discard(self) -> None:
        """Let go of it, if it was not kept."""
        self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


class Received:
    """The files of a direct call, as they come: into a folder, or dropped."""

    def __init__(self, folder: Path | None) -> None:
        """Put them into ``folder``, which is made if need be.

        Raises:
            OSError: it cannot be made.
        """
        self._folder = folder
        self._targets: dict[str, tuple[Artifact, Target]] = {}
        self._last: Target | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, artifact: Artifact | None, data: bytes) -> None:
        """Take a part of a file; ``artifact`` says which in its first part, and only there."""
        if self._folder is None:
            return

        if artifact is not None:
            if artifact.name in self._targets:
                raise InternalError(f"Two files {artifact.name!r} came.", reason=ErrorReason.INTERNAL)

            taken = {target.path.name for _, target in self._targets.values()}
            self._last = Target(_free(self._folder, disk_name(artifact.name), taken), overwrite=False)
            self._targets[artifact.name] = artifact, self._last

        if self._last is None:
            raise InternalError("A part of a file came without saying of which.", reason=ErrorReason.INTERNAL)

        self._last.write(data)

    def keep(self, named: Sequence[Artifact], told: Callable[[Artifact, Path], None] | None) -> None:
        """Put those that the result names in their places, and tell of each.

        Raises:
            InternalError: what came is not what was announced.
        """
        for artifact in named:
            announced, target = self._targets.get(artifact.name, (artifact, None))
            if target is None or announced.digest != artifact.digest:
                continue

            if target.digest != artifact.digest:
                raise InternalError(f"The file {artifact.name!r} came damaged.", reason=ErrorReason.INTERNAL)

            target.keep()
            if told is not None:
                told(artifact, target.path)

    def discard(self) -> None:
        """Let go of what was not kept."""
        for _, target in self._targets.values():
            target.discard()


def _free(folder: Path, name: str, taken: set[str]) -> Path:
    """Give a path in ``folder`` that nothing has: ``name``, or the like with a number."""
    stem, dot, ending = name.rpartition(".")
    stem, dot, ending = (stem, dot, ending) if stem else (name, "", "")
    candidates = (name, *(f"{stem} ({number}){dot}{ending}" for number in range(2, 10_000)))
    for candidate in candidates:
        if candidate not in taken and not os.path.lexists(folder / candidate):
            return folder / candidate

    raise FileExistsError(f"{folder} has too many files called {name}")
