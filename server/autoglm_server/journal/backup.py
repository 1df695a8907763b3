"""Backups: one tar with the journal, the files of its plans and a manifest, taken while a server may write, and put back.

The journal is copied through SQLite from a snapshot, the copy is read as a whole before it counts, and the manifest, which
has every digest, comes last: a backup that was cut has none. A restore proves all of it before it takes anything's place.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, Final, cast

import apsw

from autoglm._dataclasses import dataclass
from autoglm._ids import new_id
from autoglm._version import __version__
from autoglm_server.journal._file import add_checksums, check, is_damage, look
from autoglm_server.journal._lock import DirectoryLock
from autoglm_server.journal._schema import identify, migrate
from autoglm_server.journal._writer import BUSY_MS
from autoglm_server.journal.journal import JournalDamagedError, JournalError
from autoglm_server.journal.salvage import Salvaged, prepare, salvage
from autoglm_server.journal.sqlite import FILE
from autoglm_server.journal.verify import Tell, Verified, verify

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_CONTENT: Final = "artifacts/content/"
_STEP_PAGES: Final = 1024
_CHUNK: Final = 1 << 20
_MANIFEST_BYTES_MAX: Final = 1 << 30


class BackupError(Exception):
    """It cannot be done, or what there is cannot be trusted; the message is a sentence with what to do."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a backup holds."""

    file: str
    bytes: int
    journal_id: str
    plans: int
    events: int
    artifacts: int


def back_up(data_dir: Path, file: Path, *, now: datetime, force: bool, tell: Tell) -> Report:
    """Back the data directory up into ``file``; a server may go on meanwhile.

    Raises:
        BackupError: there is no journal, the file is there already, or the disk refused.
        JournalDamagedError: the journal is damaged.
    """
    source = data_dir / FILE
    if not source.exists():
        raise BackupError(f"there is no journal in {data_dir}; name the data directory with --data-dir")

    if file.exists() and not force:
        raise BackupError(f"{file} is there already; choose another name, or overwrite it with --force")

    with _stage(file.parent, file.name) as stage:
        try:
            copied = stage / FILE
            verified, journal_id = _copy(source, copied, tell)
            if verified.faults:
                raise JournalDamagedError(f"the journal is damaged: {verified.faults[0]}")

            packed = stage / "backup.tar"
            artifacts = _pack(packed, copied, data_dir / "artifacts", now, verified, journal_id, tell)
            size = packed.stat().st_size
            packed.replace(file)
            _sync(file.parent)
        except apsw.Error as error:
            raise _failed(error, f"the journal in {data_dir}") from error
        except OSError as error:
            raise BackupError(f"the backup {file} cannot be written: {error.strerror or error}") from error

    return Report(str(file), size, journal_id, verified.plans, verified.events, artifacts)


def _copy(source: Path, target: Path, tell: Tell) -> tuple[Verified, str]:
    """Copy a snapshot of the journal page by page, bring it up to date, and read all of it."""
    checked = look(source).checked
    reading = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    writing = apsw.Connection(str(target))
    try:
        if checked:  # pages that come from the WAL have no checksum yet: the target's file must know that it keeps them
            add_checksums(writing)

        reading.set_busy_timeout(BUSY_MS)
        reading.execute("BEGIN")  # one snapshot for all steps, however long they take
        reading.execute("SELECT count(*) FROM sqlite_schema").get  # noqa: B018 - it begins with the first read
        with writing.backup("main", reading, "main") as copying:
            while not copying.done:
                copying.step(_STEP_PAGES)
                tell("pages copied", copying.page_count - copying.remaining, copying.page_count)

        reading.execute("ROLLBACK")
        writing.execute("PRAGMA journal_mode = delete").fetchall()  # one file, without a WAL beside it
        journal_id = migrate(writing, str(target))
        return verify(writing, tell), journal_id
    finally:
        reading.close()
        writing.close()


def _pack(
    packed: Path, journal: Path, artifacts: Path, now: datetime, verified: Verified, journal_id: str, tell: Tell
) -> int:
    links = sorted((path.parent.name, path.name) for path in artifacts.glob("plans/*/*"))
    kept: list[tuple[str, str]] = []
    with packed.open("xb") as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        out.truncate()
        packed.chmod(0o600)
        with journal.open("rb") as file:
            digest = _add(tar, FILE, file, now)

        there: dict[str, bool] = {}
        for number, (plan_id, name) in enumerate(links, 1):
            if name not in there:
                there[name] = _add_content(tar, artifacts / "plans" / plan_id / name, now)

            if there[name]:
                kept.append((plan_id, name))

            tell("files packed", number, len(links))

        manifest = {
            "format": FORMAT,
            "version": __version__,
            "create_time": now.isoformat(),
            "journal_id": journal_id,
            "journal": digest,
            "plans": verified.plans,
            "events": verified.events,
            "artifacts": kept,
        }
        _add(tar, MANIFEST, io.BytesIO(json.dumps(manifest).encode()), now)
        tar.close()
        out.flush()
        os.fsync(out.fileno())

    return len(kept)


def _add_content(tar: tarfile.TarFile, path: Path, now: datetime) -> bool:
    """Add a file by its digest; gives False when retention has removed it meanwhile, with its plan."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False

    with file:
        if _add(tar, _CONTENT + path.name, file, now) != path.name:
            raise JournalDamagedError(f"the file {path} is damaged: its content is not that of its name")

    return True


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], now: datetime) -> str:
    """Add a member; gives its SHA-256."""
    member = tarfile.TarInfo(name)
    member.size = file.seek(0, os.SEEK_END)
    file.seek(0)
    member.mtime = int(now.timestamp())
    member.mode = 0o600
    hashing = _Hashing(file)
    tar.addfile(member, cast("IO[bytes]", hashing))
    return hashing.digest


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


# --- putting back


def restore(file: Path, data_dir: Path, *, now: datetime, force: bool, tell: Tell) -> tuple[Report, Path | None]:
    """Put a backup into a data directory; gives what it held, and where what was there is now (with ``force``).

    Raises:
        BackupError: the file cannot be trusted, or the directory is not empty.
        JournalLockedError: a server has the directory.
    """
    lock = DirectoryLock(data_dir, "autoglm restore")
    try:
        there = _occupied(data_dir)
        if there and not force:
            raise BackupError(
                f"{data_dir} holds {there[0].name} already; choose another directory with --data-dir, or put it aside with "
                "--force"
            )

        with _stage(data_dir, "restore") as stage:
            try:
                manifest = _unpack(file, stage, tell)
                journal_id, verified = _prove(stage / FILE, manifest, tell)
                _link(stage, manifest, tell)
                aside = put_in_place(stage, data_dir, now=now, name="replaced")
            except tarfile.ReadError as error:
                raise BackupError(f"{file} is no backup, or it is cut off; use another one") from error
            except (OSError, tarfile.TarError) as error:
                told = getattr(error, "strerror", None) or error
                raise BackupError(f"the backup {file} cannot be put into {data_dir}: {told}") from error
            except apsw.Error as error:
                raise _failed(error, f"the journal in {file}") from error
    finally:
        lock.release()

    report = Report(
        str(file), file.stat().st_size, journal_id, verified.plans, verified.events, len(manifest["artifacts"])
    )
    return report, aside


def _unpack(file: Path, stage: Path, tell: Tell) -> dict[str, Any]:
    digests: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    with tarfile.open(file, "r:") as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isfile() else None
            if source is None or manifest is not None:
                raise BackupError(f"{file} is no backup: {member.name[:100]!r} does not belong into one")

            if member.name == MANIFEST and member.size <= _MANIFEST_BYTES_MAX:
                manifest = _manifest(source.read(), file)
                continue

            hexadecimal = member.name.removeprefix(_CONTENT)
            is_content = member.name.startswith(_CONTENT) and len(hexadecimal) == 64 and hexadecimal.isalnum()
            if member.name != FILE and not is_content:
                raise BackupError(f"{file} is no backup: {member.name[:100]!r} does not belong into one")

            target = stage / (FILE if member.name == FILE else f"artifacts/content/{hexadecimal[:2]}/{hexadecimal}")
            digests[member.name] = _write(source, target)
            tell("files unpacked", len(digests), 0)

    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        told = (
            "it is cut off" if manifest is None else f"its format is {manifest.get('format')!r}, this version reads 1"
        )
        raise BackupError(f"{file} cannot be used: {told}")

    wrong = [name for name, digest in digests.items() if digest != _expected(name, manifest)]
    lacking = [name for _, name in manifest["artifacts"] if _CONTENT + name not in digests]
    if wrong or lacking or FILE not in digests:
        named = [*wrong, *lacking, FILE][0]
        raise BackupError(f"{file} is damaged: {named} is not what the manifest says; use another backup")

    return manifest


def _manifest(raw: bytes, file: Path) -> dict[str, Any]:
    """Read the manifest, which a bit that flipped may have made into anything."""
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise BackupError(f"{file} is damaged: its manifest cannot be read; use another backup") from error

    if not isinstance(found, dict):
        raise BackupError(f"{file} is damaged: its manifest is none; use another backup")

    links = found.get("artifacts")
    whole = isinstance(links, list) and all(
        isinstance(link, list) and len(link) == 2 and all(isinstance(part, str) for part in link) for link in links
    )
    lacking = [name for name in ("journal", "plans", "events") if name not in found] + ([] if whole else ["artifacts"])
    if found.get("format") == FORMAT and lacking:
        raise BackupError(f"{file} is damaged: its manifest does not say {lacking[0]}; use another backup")

    return found


def _expected(name: str, manifest: dict[str, Any]) -> str:
    return str(manifest["journal"]) if name == FILE else name.removeprefix(_CONTENT)


def _write(source: IO[bytes], target: Path) -> str:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)

        out.flush()
        os.fsync(out.fileno())

    return digest.hexdigest()


def _prove(journal: Path, manifest: dict[str, Any], tell: Tell) -> tuple[str, Verified]:
    """Read the whole journal, and give it an id of its own, so that cursors of before are told."""
    found = look(journal)
    db = apsw.Connection(str(journal), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        check(db, found, str(journal))
        migrate(db, str(journal))
        verified = verify(db, tell)
        counted = (verified.plans, verified.events)
        if not verified.faults and counted != (manifest["plans"], manifest["events"]):
            verified.add(f"it has {counted[0]} plans and {counted[1]} events, and the manifest says otherwise")

        if verified.faults:
            raise BackupError(f"the backup's journal is damaged: {verified.faults[0]}; use another backup")

        journal_id = new_id()
        db.execute("UPDATE meta SET value = ? WHERE name = 'journal_id'", (journal_id,))
        return journal_id, verified
    finally:
        db.close()


def _link(stage: Path, manifest: dict[str, Any], tell: Tell) -> None:
    links = manifest["artifacts"]
    for number, (plan_id, name) in enumerate(links, 1):
        folder = stage / "artifacts" / "plans" / plan_id
        if Path(plan_id).name != plan_id or not plan_id.strip("."):
            raise BackupError(f"the manifest names a plan {plan_id[:100]!r}, which is no id")

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = stage / "artifacts" / "content" / name[:2] / name
        _link_or_copy(content, folder / name)
        tell("files put back", number, len(links))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def put_in_place(stage: Path, data_dir: Path, *, now: datetime, name: str) -> Path | None:
    """Move what was made in ``stage`` to where it belongs; what is there goes aside and is not touched."""
    aside: Path | None = None
    moved = [one for one in _occupied(data_dir) if one.name != "artifacts" or (stage / "artifacts").exists()]
    if moved:
        aside = data_dir / f"{name}-{now:%Y%m%d-%H%M%S}-{new_id()[-6:].lower()}"
        aside.mkdir(mode=0o700)
        for one in moved:
            if one.name == FILE:  # it stays until the new one is there: else a start would make an empty one
                _link_or_copy(one, aside / FILE)
            else:
                one.rename(aside / one.name)

        _sync(aside)

    # The journal last: with it, it is done.
    for one in sorted(stage.iterdir(), key=lambda path: path.name == FILE):
        one.replace(data_dir / one.name)

    _sync(data_dir)
    return aside


def _occupied(data_dir: Path) -> list[Path]:
    names = (FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", "artifacts")
    return [data_dir / name for name in names if (data_dir / name).exists()]


@contextmanager
def _stage(folder: Path, name: str) -> Iterator[Path]:
    """Give a folder that is gone afterwards, on the disk where the result will be."""
    try:
        stage = Path(mkdtemp(prefix=f".{name}-", dir=folder))
    except OSError as error:
        raise BackupError(f"cannot write to {folder}: {error.strerror}") from error

    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _failed(error: apsw.Error, what: str) -> Exception:
    if is_damage(error):
        return JournalDamagedError(
            f"{what} is damaged: {type(error).__name__}: {error}; autoglm doctor --repair saves what can be read"
        )

    return JournalError(f"{what} cannot be read: {type(error).__name__}: {error}")


# --- repair


def faults_of(data_dir: Path, tell: Tell) -> list[str]:
    """Read the whole journal of a directory whose server is stopped; gives what is wrong with it."""
    path = data_dir / FILE
    try:
        found = look(path)
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except (JournalDamagedError, FileNotFoundError) as error:
        return [str(error)]

    try:
        check(db, found, str(path))
        identify(db, str(path))
        return verify(db, tell).faults
    except (apsw.Error, JournalError) as error:
        return [str(error)]
    finally:
        with suppress(apsw.Error):
            db.close()


def repair(data_dir: Path, *, now: datetime, tell: Tell) -> tuple[list[str], Salvaged | None, Path | None]:
    """Look for damage, and if there is some, put a new journal of what can be read in its place.

    Gives what was wrong, what was saved (None if nothing is wrong), and where the damaged files are now.

    Raises:
        BackupError: there is no journal.
        JournalLockedError: a server has the directory.
        JournalError: nothing can be read.
    """
    lock = DirectoryLock(data_dir, "autoglm doctor --repair")
    try:
        if not any((data_dir / name).exists() for name in (FILE, f"{FILE}-wal")):
            raise BackupError(f"there is no journal in {data_dir}; name the data directory with --data-dir")

        faults = faults_of(data_dir, tell)
        if not faults:
            return [], None, None

        with _stage(data_dir, "repair") as stage, _stage(data_dir, "repair") as room:
            try:
                doubt = prepare(data_dir / FILE, room / FILE)
                saved = salvage(room / FILE, stage / FILE, now=now, doubt=doubt, tell=tell)
                db = apsw.Connection(str(stage / FILE))
                verified = verify(db, tell)
                db.close()
                if verified.faults:
                    raise JournalError(f"what could be read makes no journal: {verified.faults[0]}; restore a backup")

                aside = put_in_place(stage, data_dir, now=now, name="damaged")
            except OSError as error:
                raise BackupError(f"the journal cannot be repaired: {error.strerror or error}") from error

        return faults, saved, aside
    finally:
        lock.release()
