"""The files that results carry, beside the journal: each content once, by its digest, and a link to it for each plan.

::

    incoming/NAME         being written
    content/ab/HEX        a content, by the SHA-256 of it
    plans/PLAN/HEX        a hard link to it for each plan that has it

A content is written to ``incoming``, hashed on the way, synced, then linked. A crash leaves at most a file in ``incoming``, a
content that no plan has, or one that no result of its plan names: the first two go when the folder is next opened, the
last with its plan. The links are the count of who has a content, so nothing can say otherwise than the files do.

What is named by a plan or a digest has its path in a ``str``: pathlib interns each part of a path, and Python's table of interned
strings keeps the room of what has gone until it is full (Python 3.12 even keeps the strings, for good).
"""

# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH110, PTH116, PTH120, PTH208

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from autoglm._files import CHUNK_BYTES, FileLimits, check_label
from autoglm._ids import new_id
from autoglm.model import Artifact

T = TypeVar("T")

Content: TypeAlias = bytes | Path | AsyncIterator[bytes]
"""What a file holds: its bytes, the file they are in, or pieces of them as they come."""

FILE_BYTES: Final = FileLimits().file_bytes
"""The most of one file, unless it is said otherwise."""
PLAN_BYTES: Final = 1 << 30
"""The most of all files of a plan, likewise; the same content counts once."""
_THREADS: Final = 4
_COPY_BYTES: Final = 1 << 20
_PLANS_KNOWN: Final = 4096
"""Of how many plans the size of what they have is held in memory; of others it is counted again."""

_PLAN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NO_LINKS: Final = frozenset({errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOSYS})


class ArtifactError(ValueError):
    """A file cannot be kept; the message is a sentence that says why."""


class ArtifactTooLargeError(ArtifactError):
    """It is larger than a limit: ``limit`` in bytes, ``size`` as far as it is known."""

    def __init__(self, message: str, *, limit: int, size: int) -> None:
        """Carry the limit that was met."""
        super().__init__(message)
        self.limit = limit
        self.size = size


class ArtifactStoreError(Exception):
    """The disk did not take a file, or did not give it; ``full`` if it has no room. The store lives on."""

    def __init__(self, message: str, *, full: bool = False) -> None:
        """Say what happened."""
        super().__init__(message)
        self.full = full


class ArtifactNotFoundError(LookupError):
    """The plan has no such file."""


class ArtifactStore(Protocol):
    """Where the content of files is kept: by plan and digest. Nothing here blocks the event loop."""

    async def open(self) -> None:
        """Get ready, and clean up after a crash."""
        ...

    async def close(self) -> None:
        """Let go of it; what is under way ends first."""
        ...

    async def put(self, plan_id: str, name: str, media_type: str, content: Content) -> Artifact:
        """Keep a file for a plan; it is durable when this returns. What the plan has already costs nothing.

        Raises:
            ArtifactTooLargeError: it is larger than a file, or the plan's files together, may be.
            ArtifactError: its name or its media type cannot be used, or its file cannot be read.
            ArtifactStoreError: the disk did not take it.
        """
        ...

    async def size(self, plan_id: str, digest: str) -> int:
        """Give the size of a file, in bytes.

        Raises:
            ArtifactNotFoundError: the plan does not have it.
        """
        ...

    def read(self, plan_id: str, digest: str, offset: int = 0) -> AsyncGenerator[bytes]:
        """Give a file's content from an offset, in pieces of at most 256 KiB.

        Raises:
            ArtifactNotFoundError: the plan does not have it.
            ArtifactStoreError: the disk did not give it.
        """
        ...

    async def remove(self, plan_id: str) -> None:
        """Let go of all that a plan has; of a plan that has nothing it does nothing.

        Raises:
            ArtifactStoreError: the disk refused; a part may be gone, and the rest is still to be removed.
        """
        ...

    async def sweep(self, known: Callable[[str], Awaitable[bool]]) -> None:
        """After a crash, remove what plans have that are no longer ``known``, of those there were at :meth:`open`."""
        ...


class FolderArtifacts:
    """An :class:`ArtifactStore` in a folder, which one process uses at a time. It is made when it is first needed."""

    def __init__(
        self, folder: Path, *, file_bytes: int = FILE_BYTES, plan_bytes: int = PLAN_BYTES, durable: bool = True
    ) -> None:
        """Keep files in ``folder``, each at most ``file_bytes``, those of one plan together at most ``plan_bytes``.

        Not ``durable``: nothing is synced, for a folder that goes with the process.
        """
        self._file_bytes = file_bytes
        self._plan_bytes = plan_bytes
        self._durable = durable
        self._incoming = folder / "incoming"
        self._content = folder / "content"
        self._plans = folder / "plans"
        self._marker = folder / "in-use"
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        """Held while links are made or taken away, so that a content does not go while a plan gets it."""
        self._used: OrderedDict[str, int] = OrderedDict()
        self._unsynced: dict[str, object] = {}
        """Folders in which others were made, until they are synced, each with what stands for its newest."""
        self._made = False
        self._cut = False
        """Something was left half done, by a cancelled task or a disk that refused; the next :meth:`open` looks."""
        self._suspects: list[str] = []

    async def open(self) -> None:
        """Get ready; when the process before ended without :meth:`close`, what it left half done goes."""
        self._threads = ThreadPoolExecutor(_THREADS, "artifacts")
        self._made = self._cut = False
        self._suspects = await self._run(self._clean)

    async def close(self) -> None:
        """Wait for what is under way, and let go of the threads."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
            if not self._cut and not self._suspects:
                with suppress(OSError):
                    self._marker.unlink(missing_ok=True)

    async def put(self, plan_id: str, name: str, media_type: str, content: Content) -> Artifact:
        """Keep a file for a plan; see :class:`ArtifactStore`."""
        if fault := check_label(name, media_type):
            raise ArtifactError(fault)

        plan = self._folder_of(plan_id)
        writing = await self._written(name, self._begin, name)
        try:
            if isinstance(content, Path):
                await self._written(name, writing.copy, content)
            elif isinstance(content, bytes | bytearray | memoryview):
                await self._written(name, writing.write, content)
            else:
                async for piece in content:
                    await self._written(name, writing.write, piece)

            digest = await self._written(name, self._keep, writing, plan)
        finally:
            self._later(writing.discard)

        return Artifact(name, media_type, writing.size, digest)

    async def size(self, plan_id: str, digest: str) -> int:
        """Give the size of a file; see :class:`ArtifactStore`."""
        path = self._path_of(plan_id, digest)
        try:
            found = await self._run(os.stat, path)
        except OSError:
            raise _missing(plan_id, digest) from None

        return found.st_size

    async def read(self, plan_id: str, digest: str, offset: int = 0) -> AsyncGenerator[bytes]:
        """Give a file's content; see :class:`ArtifactStore`. It may be removed meanwhile: what is open stays readable."""
        path = self._path_of(plan_id, digest)
        try:
            # Opening and closing do not wait for a disk, and a descriptor must not be lost with a cancelled task.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise _missing(plan_id, digest) from None

        file = _Open(fd)
        try:
            while piece := await self._run(file.read, offset):
                offset += len(piece)
                yield piece
        except OSError as error:
            raise ArtifactStoreError(f"the file {digest} cannot be read: {error.strerror}") from error
        finally:
            self._later(file.close)

    async def remove(self, plan_id: str) -> None:
        """Let go of all that a plan has; see :class:`ArtifactStore`."""
        folder = self._folder_of(plan_id)
        try:
            os.lstat(folder)  # here: most plans have no files, and on a busy server a thread would be waited for
            await self._run(self._remove, folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._cut = True
            raise ArtifactStoreError(f"the files of {plan_id} cannot be removed: {error.strerror}") from error

    async def sweep(self, known: Callable[[str], Awaitable[bool]]) -> None:
        """Remove what plans have that are no longer known; see :class:`ArtifactStore`."""
        while self._suspects:
            if not await known(self._suspects[-1]):
                await self.remove(self._suspects[-1])

            self._suspects.pop()

    # --- in a thread

    def _begin(self, name: str) -> _Writing:
        if not self._made:
            for folder in (self._incoming, self._content, self._plans):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

            self._marker.touch(mode=0o600)
            with self._lock:
                self._note_made(str(self._plans), str(self._marker.parent))
                self._made = True

        return _Writing(f"{self._incoming}/{new_id()}", name, self._file_bytes)

    def _keep(self, writing: _Writing, plan: str) -> str:
        """Link what was written, and give its digest."""
        digest = writing.finish(durable=self._durable)
        pool = f"{self._content}/{digest[:2]}"
        with self._lock:
            self._note_made(*(folder for folder in (pool, plan) if _make(folder)))
            link = f"{plan}/{digest}"
            if not os.path.exists(link):
                self._admit(plan, writing)
                _link(writing.path, f"{pool}/{digest}", link)
                self._used[plan] += writing.size

            _unlink(writing.path)  # here: it would count as a link to who removes the plan
            unsynced = dict(self._unsynced)  # also by others, who have not come to it yet

        if self._durable:
            _sync({pool, plan, *unsynced})
            with self._lock:
                for folder, _ in unsynced.items() & self._unsynced.items():
                    del self._unsynced[folder]

        return f"sha256:{digest}"

    def _note_made(self, *folders: str) -> None:
        for folder in folders:
            self._unsynced[os.path.dirname(folder)] = object()

    def _admit(self, plan: str, writing: _Writing) -> None:
        used = self._used.get(plan)
        if used is None:
            used = sum(entry.stat().st_size for entry in os.scandir(plan))

        self._used[plan] = used
        self._used.move_to_end(plan)
        if len(self._used) > _PLANS_KNOWN:
            self._used.popitem(last=False)

        most = self._plan_bytes
        if used + writing.size > most:
            message = (
                f"the file {writing.name!r} of {writing.size} bytes makes the plan's files {used + writing.size} bytes; "
                f"at most {most} (limits.plan_artifacts_bytes)"
            )
            raise ArtifactTooLargeError(message, limit=most, size=used + writing.size)

    def _remove(self, plan: str) -> None:
        for digest in _inside(plan):
            with self._lock:
                _unlink(f"{plan}/{digest}")
                self._used.pop(plan, None)
                _drop_unused(f"{self._content}/{digest[:2]}/{digest}")

        with suppress(FileNotFoundError):
            os.rmdir(plan)

    def _clean(self) -> list[str]:
        """Take away what a crash left, and give the plans that have files."""
        if not self._marker.exists():
            return []

        for name in _inside(self._incoming):
            _unlink(f"{self._incoming}/{name}")

        for pool in _inside(self._content):
            for digest in _inside(f"{self._content}/{pool}"):
                _drop_unused(f"{self._content}/{pool}/{digest}")

        return _inside(self._plans)

    # --- paths and threads

    def _folder_of(self, plan_id: str) -> str:
        if not _PLAN_ID.fullmatch(plan_id):
            raise ArtifactError(f"{plan_id[:200]!r} is no id of a plan")

        return f"{self._plans}/{plan_id}"

    def _path_of(self, plan_id: str, digest: str) -> str:
        found = _DIGEST.fullmatch(digest)
        if found is None or not _PLAN_ID.fullmatch(plan_id):
            raise _missing(plan_id, digest)

        return f"{self._plans}/{plan_id}/{found[1]}"

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        assert self._threads is not None, "open it first"
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _written(self, name: str, work: Callable[..., T], *arguments: Any) -> T:
        """Do what writes in a thread; what the disk says against it is about the file ``name``."""
        try:
            return await self._run(work, *arguments)
        except asyncio.CancelledError:
            self._cut = True
            raise
        except OSError as error:
            self._cut = True
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise ArtifactStoreError(f"the file {name!r} cannot be kept: {error.strerror}", full=full) from error

    def _later(self, work: Callable[[], None]) -> None:
        """Do it in a thread, and wait for it no longer: also in a task that was cancelled."""
        if self._threads is None:
            work()
        else:
            self._threads.submit(work)


class _Writing:
    """A file on its way in. A cancelled task leaves its last write to a thread, so each step takes the lock."""

    def __init__(self, path: str, name: str, bytes_max: int) -> None:
        self.path = path
        self.name = name
        self.size = 0
        self._bytes_max = bytes_max
        self._hash = hashlib.sha256()
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        with self._lock:
            if self._fd < 0:
                return

            self.size += len(data)
            if self.size > self._bytes_max:
                message = f"the file {self.name!r} is larger than {self._bytes_max} bytes (limits.artifact)"
                raise ArtifactTooLargeError(message, limit=self._bytes_max, size=self.size)

            self._hash.update(data)
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]

    def copy(self, source: Path) -> None:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ArtifactError(f"the file {self.name!r} cannot be read from its path: {error.strerror}") from None

        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):  # a pipe would block for ever, a device never end
                raise ArtifactError(f"the file {self.name!r} cannot be read from its path: it is no regular file")

            while piece := os.read(fd, _COPY_BYTES):
                self.write(piece)
        finally:
            os.close(fd)

    def finish(self, *, durable: bool) -> str:
        with self._lock:
            if durable:
                os.fsync(self._fd)

            os.close(self._fd)
            self._fd = -1
            return self._hash.hexdigest()

    def discard(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

            _unlink(self.path)


class _Open:
    """A file that is read. A cancelled task leaves its last read to a thread, so each step takes the lock."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def read(self, offset: int) -> bytes:
        with self._lock:
            return os.pread(self._fd, CHUNK_BYTES, offset) if self._fd >= 0 else b""

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


def _missing(plan_id: str, digest: str) -> ArtifactNotFoundError:
    return ArtifactNotFoundError(f"the plan {plan_id[:128]} has no file {digest[:128]}")


def _link(written: str, content: str, link: str) -> None:
    """Put what was written into the pool, unless it is there, and give the plan a link to it."""
    try:
        with suppress(FileExistsError):
            os.link(written, content)

        os.link(content, link)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise

        # No hard links here, or no more of this content: the plan gets a file of its own.
        os.replace(written, link)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _drop_unused(content: str) -> None:
    with suppress(FileNotFoundError):
        if os.stat(content).st_nlink == 1:
            os.unlink(content)


def _make(folder: str) -> bool:
    try:
        os.mkdir(folder, mode=0o700)
    except FileExistsError:
        return False

    return True


def _inside(folder: Path | str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _sync(folders: Iterable[str]) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
