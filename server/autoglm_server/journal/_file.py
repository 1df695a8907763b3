"""The SQLite journal's file: made whole, opened with page checksums, and looked at before it is written to.

SQLite finds a damaged page only if its structure breaks; what is wrong inside a value it gives out, and of a damaged WAL it
drops the end as if it had never been. So each page has a checksum (the extension ``cksumvfs`` of apsw's wheels keeps it in the
last 8 bytes), and the ends of both files are compared with what they must be.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import apsw
import apsw.sqlite_extra

from autoglm._dataclasses import dataclass
from autoglm_server.journal.journal import JournalDamagedError, JournalError

PAGE_BYTES: Final = 4096
_CHECKSUM_BYTES: Final = 8
_HEADER: Final = struct.Struct(">16sHBBBBBBII")
_WAL_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_USER_VERSION: Final = 60
REMEDY: Final = (
    "nothing is written to it any more; stop the server, then `autoglm doctor --repair` saves what can be read, or "
    "`autoglm restore` puts a backup in its place"
)

_CHECKED: Final = 1
"""In the file's user_version: its pages have checksums, whatever else a damaged header says."""

_DAMAGED: Final[Mapping[int, str]] = {
    apsw.SQLITE_IOERR_DATA: "a page of its file is not what was written: its checksum differs",
    apsw.SQLITE_IOERR_CORRUPTFS: "the file system says that its file is damaged",
    apsw.SQLITE_IOERR_SHORT_READ: "its file ends within a page",
}


def load_checksums() -> bool:
    """Put the checksums over the process's file system for SQLite; gives whether this build of apsw can."""
    if "cksmvfs" in apsw.vfs_names():
        return True

    if not apsw.sqlite_extra.has("cksumvfs"):
        return False

    db = apsw.Connection(":memory:")
    try:
        apsw.sqlite_extra.load(db, "cksumvfs")
    finally:
        db.close()

    return "cksmvfs" in apsw.vfs_names()


HAS_CHECKSUMS: Final = load_checksums()
"""Loaded when this module is, so that whoever registers a VFS afterwards builds on it."""


def reserve_wal(path: Path, size: int) -> None:
    """Let the WAL of the journal at ``path``, which SQLite has made, have ``size`` bytes already, behind what is in it.

    A sync is quicker where the file does not grow with it. Zeros are no frames, to SQLite and to :func:`look`. Where there is no
    room for all of them the WAL grows as it is written: others need what room there is.
    """
    with suppress(OSError), path.with_name(path.name + "-wal").open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end < size and file.write(bytes(size - end)) < size - end:
            file.truncate(end)

        os.fsync(file.fileno())


def is_damage(error: BaseException) -> bool:
    """Tell whether an error says that a file is not what was written."""
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError, JournalDamagedError)):
        return True

    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _DAMAGED


def damage_of(error: BaseException) -> JournalDamagedError:
    """Say in a sentence what is damaged, and what to do."""
    if isinstance(error, JournalDamagedError):
        what = str(error)
    else:
        what = _DAMAGED.get(getattr(error, "extendedresult", 0), f"{type(error).__name__}: {error}")

    told = JournalDamagedError(what if REMEDY in what else f"the journal is damaged: {what}; {REMEDY}")
    told.__cause__ = error
    return told


def add_checksums(db: apsw.Connection) -> None:
    """Give each page a checksum from now on: of a new file at once, of another by writing it anew."""
    if not HAS_CHECKSUMS or db.execute("PRAGMA user_version").get == _CHECKED:
        return

    if not _verifies(db):
        db.reserve_bytes(reserve=_CHECKSUM_BYTES)
        db.execute("VACUUM")

    db.execute(f"PRAGMA user_version = {_CHECKED}")  # last: whoever is cut before it begins again


def _verifies(db: apsw.Connection) -> bool:
    return str(db.execute("PRAGMA checksum_verification").get) == "1"


class Frame(NamedTuple):
    """A page in the WAL."""

    page: int
    ours: bool
    """It is of the newest generation, and not left over from before the WAL began anew; valid or not."""
    ends: bool
    """A transaction of that generation ends with it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there was on the disk before the file was opened."""

    checked: bool
    """Its pages have checksums."""
    missing: range
    """Pages that the header counts and the file does not reach to; the WAL must have them."""
    wal: tuple[Frame, ...]


def look(path: Path) -> Found:
    """Look at the files, which nobody has open.

    Raises:
        JournalDamagedError: the file is none of SQLite's any more.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(100)

    if len(head) < 100:
        raise JournalDamagedError(f"{path} has {size} bytes: its content is gone")

    magic, page_bytes, _, _, reserved, *_, pages = _HEADER.unpack(head[: _HEADER.size])
    user_version = int.from_bytes(head[_USER_VERSION : _USER_VERSION + 4], "big")
    if magic != b"SQLite format 3\0":
        raise JournalDamagedError(f"{path} does not begin as a database of SQLite does")

    checked = user_version == _CHECKED
    if page_bytes != PAGE_BYTES or (checked and reserved != _CHECKSUM_BYTES):
        raise JournalDamagedError(f"{path} has a header that no journal has")

    frames = _frames(path.with_name(path.name + "-wal"))
    return Found(checked, range(size // PAGE_BYTES + 1, pages + 1), tuple(frames))


def check(db: apsw.Connection, found: Found, where: str) -> None:
    """Compare what SQLite takes of the files with what there is.

    Raises:
        JournalDamagedError: an end is missing.
        JournalError: the file has checksums, and nothing would keep them.
    """
    if found.checked and not _verifies(db):
        raise JournalError(
            f"{where} has checksums that this build of apsw cannot keep; install apsw's own wheel (pip install apsw)"
        )

    db.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - the first read takes the WAL in
    valid = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)[0]
    ends = sum(frame.ends for frame in found.wal[max(valid, 0) :])
    # Each commit is synced before the next begins, so a power cut can tear the last one alone; or the beginning of a WAL that
    # begins anew, which it does when the database has all that was in it.
    if ends > 1 and not _has_taken_in(Path(where), found.wal, max(valid, 0)):
        raise JournalDamagedError(
            f"the WAL of {where} is damaged: {ends} commits in it cannot be read, the newest ones"
        )

    held = {frame.page for frame in found.wal[:valid]}
    if lost := [page for page in found.missing if page not in held]:
        raise JournalDamagedError(f"{where} is cut off: it lacks {len(lost)} pages of {PAGE_BYTES} bytes")


def _has_taken_in(path: Path, frames: Sequence[Frame], first: int) -> bool:
    """Whether the database has each page as the frames from ``first`` on left it with their last commit."""
    end = max(number for number, frame in enumerate(frames) if frame.ends)
    last = {frames[number].page: number for number in range(first, end + 1) if frames[number].ours}
    with path.open("rb") as pages, path.with_name(path.name + "-wal").open("rb") as wal:
        for page, number in last.items():
            wal.seek(_WAL_HEADER.size + number * (_FRAME.size + PAGE_BYTES) + _FRAME.size)
            pages.seek((page - 1) * PAGE_BYTES)
            size = PAGE_BYTES - _CHECKSUM_BYTES  # a page has its checksum in the database alone
            if wal.read(size) != pages.read(size):
                return False

    return True


def _frames(path: Path) -> list[Frame]:
    """Give the frames of a WAL."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_WAL_HEADER.size)
            if len(head) < _WAL_HEADER.size:
                return []

            whole = _is_wal_header(head)
            salts = _WAL_HEADER.unpack(head)[4:6]
            frames: list[Frame] = []
            for page, ends, *salt in _frame_heads(file.fileno(), size):
                if not whole and not frames:
                    salts = tuple(salt[:2])

                ours = tuple(salt[:2]) == salts
                frames.append(Frame(page, ours, ours and ends > 0))
    except FileNotFoundError:
        return []

    return frames


def _frame_heads(file: int, size: int) -> Iterator[tuple[int, ...]]:
    step = _FRAME.size + PAGE_BYTES
    for offset in range(_WAL_HEADER.size, size - step + 1, step):
        yield _FRAME.unpack(os.pread(file, _FRAME.size, offset))


def _is_wal_header(head: bytes) -> bool:
    magic, version, page_bytes, *_, first, second = _WAL_HEADER.unpack(head)
    if magic not in (0x377F0682, 0x377F0683) or version != 3_007_000 or page_bytes != PAGE_BYTES:
        return False

    return wal_checksum(head[:24], (0, 0), big=bool(magic & 1)) == (first, second)


def wal_checksum(data: bytes, seed: tuple[int, int], *, big: bool) -> tuple[int, int]:
    """Give the checksum that the WAL has over ``data``, which goes on from the one before."""
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    one, two = seed
    for left, right in zip(words[0::2], words[1::2], strict=True):
        one = (one + left + two) & 0xFFFFFFFF
        two = (two + right + one) & 0xFFFFFFFF

    return one, two
