"""Damaged, foreign, older and newer journals under real servers, and backups that are taken while a server is loaded.

The ground is what a server wrote while clients asked: its directory after it ended, and after it was killed. Each try
damages a copy, lets a server read all of it out, and then the repair save what it can. What was read and what was saved is
compared with the ground.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest import mock

import apsw

import autoglm
from autoglm.errors import AutoglmError
from autoglm.fold import PlanFold
from autoglm.model import DOMAIN, ErrorReason, Event, PlanFailed, PlanState, StepDraft
from autoglm.wire import decode, to_json
from autoglm_server import maintenance
from autoglm_server.journal import salvage
from autoglm_server.journal._file import PAGE_BYTES
from autoglm_server.journal._schema import APPLICATION_ID, MIGRATIONS
from autoglm_server.journal.journal import JournalError
from tests.reliability.checker import PROMISES, seen_is_durable
from tests.reliability.history import Asked, History, Logged, Seen
from tests.reliability.launcher import BLIND, HEADSTRONG, UNDAUNTED
from tests.reliability.processes import Session, busy, logs_of
from tests.reliability.rows import Result
from tests.reliability.servers import ROOT, Life

FOUND: Final = "damage-is-found"
KEPT: Final = "damage-is-not-written-over"
SAVED: Final = "repair-saves-what-is-true"
BACKUP: Final = "backup-is-whole"
VERSIONS: Final = "versions-are-told"

FILE: Final = "journal.db"
WAL: Final = "journal.db-wal"
FRAME_BYTES: Final = 24 + PAGE_BYTES
WATCH_SECONDS: Final = 10.0
"""A watch that gives nothing for so long says nothing, neither what was written nor that it is damaged."""
CONTROLS: Final = 3
REPAIRS: Final = 2
"""For each damage that a server meets, so many more that only the repair does."""
BAD_TARS: Final = 8

Logs = dict[str, list[Logged]]


@dataclass(frozen=True, slots=True)
class Ground:
    """A data directory as a server left it, and what it holds."""

    data_dir: Path
    logs: Logs
    ended: bool
    """It ended by itself: no plan goes on when a server finds it."""


@dataclass(slots=True)
class Read:
    """What a server gave of a directory."""

    told: list[str] = field(default_factory=list)
    """How it said that the journal is damaged; empty if it did not."""
    seen: list[Seen] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """What was left out without a word about it, as far as no damage is told of."""
    short: list[str] = field(default_factory=list)
    """What was given as all there is, and is not."""
    written: list[str] = field(default_factory=list)


# --- the ground


async def lay(folder: Path, random: Random) -> tuple[Ground, Ground, list[Tar]]:
    """Let clients work on a server; give what it left when it was killed, when it ended, and its backups."""
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs yet
    life = Life(folder)
    session = Session(life, random)
    tars: list[Tar] = []
    killed, ended = folder / "killed", folder / "ended"
    try:
        await life.begin()
        async with session.clients():
            await busy(life, 30)
            for number in range(2):
                tars.append(await _back_up(life, folder / f"{number}.tar"))
                await busy(life, 10)

            await life.kill()
            shutil.copytree(life.data_dir, killed)
            shutil.copytree(life.data_dir, folder / "read")
            await life.begin()
            async with autoglm.AsyncClient(life.address) as client:
                await _with_file(client)
                tars.append(await _back_up(life, folder / "last.tar"))

        await life.stop()
    finally:
        await life.kill()

    shutil.copytree(life.data_dir, ended)
    for tar in tars:
        tar.history = replace(session.history, calls=[], written={})

    grounds = Ground(killed, await logs_of(folder / "read"), ended=False), Ground(ended, {}, ended=True)
    return grounds[0], replace(grounds[1], logs=await logs_of(life.data_dir)), tars


async def _with_file(client: autoglm.AsyncClient) -> None:
    step = StepDraft(id="file", tool="ledger.report", arguments={"name": "kept", "size": 3000})
    await (await client.run(steps=[step])).result(timeout=30.0)


# --- damage


Damage = Callable[[Path, Ground, Random], str]
"""Damages the files of a directory; gives what it did."""


def _flip(path: Path, places: list[int], random: Random) -> str:
    raw = bytearray(path.read_bytes())
    for place in places:
        raw[place] ^= 1 << random.randrange(8)

    path.write_bytes(raw)
    return f"flipped a bit at {places} of {path.name}, {len(raw)} bytes"


def flip_one(data_dir: Path, ground: Ground, random: Random) -> str:
    path = data_dir / FILE
    return _flip(path, [random.randrange(path.stat().st_size)], random)


def flip_many(data_dir: Path, ground: Ground, random: Random) -> str:
    path = data_dir / FILE
    return _flip(path, sorted(random.sample(range(path.stat().st_size), 6)), random)


def flip_event(data_dir: Path, ground: Ground, random: Random) -> str:
    """Change a letter in the text of an event: to SQLite, and to who decodes it, it is as good as before."""
    path = data_dir / FILE
    raw = path.read_bytes()
    places = [at for at in _all_of(raw, b"ledger.") if raw[at + 7 : at + 11] in (b"look", b"send")]
    return _flip_letter(path, random.choice(places) + 8) if places else flip_many(data_dir, ground, random)


def _flip_letter(path: Path, place: int) -> str:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    return f"changed a letter at {place} of {path.name}"


def _all_of(raw: bytes, text: bytes) -> list[int]:
    found, at = [], raw.find(text)
    while at >= 0:
        found.append(at)
        at = raw.find(text, at + 1)

    return found


def cut(data_dir: Path, ground: Ground, random: Random) -> str:
    path = data_dir / FILE
    size = path.stat().st_size
    place = random.randrange(size)
    with path.open("r+b") as file:
        file.truncate(place)

    return f"cut {path.name} of {size} bytes at {place}"


def overwrite(data_dir: Path, ground: Ground, random: Random) -> str:
    path = data_dir / FILE
    page = random.randrange(path.stat().st_size // PAGE_BYTES)
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(random.randbytes(PAGE_BYTES))

    return f"overwrote page {page + 1} of {path.name}"


def flip_wal(data_dir: Path, ground: Ground, random: Random) -> str:
    """Flip a bit of the WAL, but not in its last commit, of which nobody can say whether it was whole."""
    path = data_dir / WAL
    raw = path.read_bytes()
    salts = raw[16:24]
    frames = [at for at in range(32, len(raw) - FRAME_BYTES + 1, FRAME_BYTES) if raw[at + 8 : at + 16] == salts]
    ends = [at + FRAME_BYTES for at in frames if struct.unpack_from(">I", raw, at + 4)[0]]
    return _flip(path, [random.randrange(32, ends[-2])], random)


OF_ENDED: Final[tuple[Damage, ...]] = (flip_event, cut, flip_many, overwrite, flip_one)
OF_KILLED: Final[tuple[Damage, ...]] = (flip_wal,)


# --- what a server makes of it


async def read_out(folder: Path, ground: Ground, *trap: str) -> Read:
    """Let a server read everything of ``folder/data`` out, and try to write."""
    found, life = Read(), Life(folder)
    before = digests(life.data_dir)
    try:
        try:
            await life.begin(*trap)
        except RuntimeError as error:
            found.told.append(str(error))

        if life.alive:
            async with autoglm.AsyncClient(life.address, timeout=WATCH_SECONDS) as client:
                health = await client.health()
                if health != "SERVING":
                    found.told.append(f"damaged: its health is {health}")

                await _read_all(client, ground, found)
                if health == "SERVING":
                    before = digests(life.data_dir)  # it may have written until it met the damage

                await _write(client, found)

            await life.stop()
        elif not found.told:
            found.told.append((folder / "log").read_text()[-2000:])
    finally:
        await life.kill()

    if found.told:
        after = digests(life.data_dir)
        found.written += [f"{name} was changed" for name, digest in before.items() if after.get(name) != digest]
        _is_clear(found)

    return found


def _is_clear(found: Read) -> None:
    """Whoever is told must be told what it is: that it is the journal, that it is damaged, and what to do."""
    if not any("damaged" in text or "JOURNAL_DAMAGED" in text for text in found.told):
        found.short.append(f"it was not said that the journal is damaged, but: {found.told[0][-300:]}")


async def _read_all(client: autoglm.AsyncClient, ground: Ground, found: Read) -> None:
    places = asyncio.Semaphore(8)

    async def one(plan_id: str, log: list[Logged]) -> None:
        async with places:
            await _read_plan(client, plan_id, log, found)

    async with asyncio.TaskGroup() as tasks:
        for plan_id, log in ground.logs.items():
            tasks.create_task(one(plan_id, log))

    try:
        listed = {plan.id async for plan in client.list()}
    except AutoglmError as error:
        _refused(error, "the list of plans", found)
    else:
        found.missing += [f"{plan_id} is not in the list" for plan_id in ground.logs if plan_id not in listed]


async def _read_plan(client: autoglm.AsyncClient, plan_id: str, log: list[Logged], found: Read) -> None:
    given = 0
    try:
        async with asyncio.timeout(WATCH_SECONDS):
            async for event in client.watch(plan_id, durable_only=True):
                given += 1
                body = to_json(event).encode()
                found.seen.append(Seen(time.monotonic_ns(), "who reads", 1, 0, plan_id, event.sequence, body))
                if given >= len(log):
                    break

        if given < len(log):
            found.short.append(f"the watch of {plan_id} ended after {given} of {len(log)} events, as if these were all")
    except TimeoutError:
        found.short.append(f"the watch of {plan_id} gave {given} of {len(log)} events, and then nothing")
    except AutoglmError as error:
        _refused(error, f"the watch of {plan_id}", found)

    note = Asked(time.monotonic_ns(), "get", plan_id)
    try:
        note.plan = replace(await client.get(plan_id), expire_time=None)  # of the settings, not of the events
        note.answered_at = time.monotonic_ns()
        found.asked.append(note)
    except AutoglmError as error:
        _refused(error, f"the snapshot of {plan_id}", found)


def _refused(error: AutoglmError, what: str, found: Read) -> None:
    if error.reason == ErrorReason.JOURNAL_DAMAGED.name:
        found.told.append(f"{what}: {error.reason}: {error}")
    else:
        found.missing.append(f"{what}: {type(error).__name__} {error.reason}: {error}")


async def _write(client: autoglm.AsyncClient, found: Read) -> None:
    """A new plan is refused if damage is known; if that is so only now, that too is told."""
    known = bool(found.told)
    try:
        plan = await client.create(steps=[StepDraft(id="a", tool="time.now")])
        if known:
            found.written.append(f"the plan {plan.id} was taken, though damage had been told")
    except AutoglmError as error:
        _refused(error, "a new plan", found)


def digests(data_dir: Path) -> dict[str, str]:
    """Give what the journal's files hold, as digests."""
    paths = [data_dir / name for name in (FILE, WAL)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.exists()}


def judge_read(found: Read, ground: Ground) -> tuple[list[str], list[str], int]:
    """Give what was wrong with what was given out and with what was written, and how much was looked at."""
    logs = ground.logs
    if not ground.ended:  # what a server that found no damage did since is its own
        found.seen = [one for one in found.seen if one.sequence <= len(logs[one.plan_id])]
        found.asked = [one for one in found.asked if one.plan and one.plan.sequence <= len(logs[one.plan_id])]

    verdict = seen_is_durable(History(logs=logs, seen=found.seen, asked=found.asked))
    wrong = [*verdict.violations, *found.short, *([] if found.told else found.missing)]
    return wrong, found.written, verdict.tries + len(logs)


# --- what the repair makes of it


def repair(data_dir: Path) -> tuple[int, dict[str, Any], str]:
    """Repair as ``autoglm doctor --repair`` does; gives its status, what it says, and why it did not."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = maintenance.main(["repair", "--data-dir", str(data_dir), "--json"])

    return status, json.loads(out.getvalue() or "{}"), err.getvalue()


async def judge_repair(data_dir: Path, ground: Ground) -> tuple[list[str], int]:
    """Repair, and compare what was saved with the ground; gives what is not true, and how much was looked at."""
    before = digests(data_dir)
    status, said, why = await asyncio.to_thread(repair, data_dir)
    if not said:
        unchanged = digests(data_dir) == before
        wrong = (
            [] if unchanged and "journal" in why else [f"the repair gave up ({status}: {why}), and changed the files"]
        )
        return wrong, 1

    aside = digests(Path(said["aside"])) if said["damaged"] else before
    if any(aside.get(name) != digest for name, digest in before.items()):
        return ["the damaged files that were put aside are not what they were"], 1

    try:
        saved = await logs_of(data_dir)
    except JournalError as error:
        return [f"what was saved cannot be read: {error}"], 1

    wrong = [f"{plan_id} was saved, and never was" for plan_id in saved if plan_id not in ground.logs]
    for plan_id, log in ground.logs.items():
        wrong += _compare(plan_id, log, saved.get(plan_id, []), said)

    if said["damaged"] and said["complete"] != (status == 0):
        wrong.append(f"the status is {status}, and all was saved: {said['complete']}")

    return wrong, sum(map(len, saved.values())) + len(ground.logs)


def _compare(plan_id: str, log: list[Logged], saved: list[Logged], said: dict[str, Any]) -> list[str]:
    """Compare what was saved of a plan, and what was said of it, with what there was."""
    end = saved[-1].event.fact if saved else None
    closed = isinstance(end, PlanFailed) and end.failure is not None and end.failure.domain == DOMAIN
    closed = closed and end.failure.reason == ErrorReason.JOURNAL_DAMAGED.name  # type: ignore[union-attr]
    kept = [one.body for one in (saved[:-1] if closed else saved)]
    if kept != [one.body for one in log[: len(kept)]]:
        return [f"{plan_id}: what was saved is not what was written"]

    cut, lost, hidden = (said.get(name) or [] for name in ("cut", "lost", "hidden"))
    if not saved and plan_id not in lost and not hidden:
        return [f"{plan_id} is gone, and nobody said so"]

    if saved and len(kept) < len(log) and plan_id not in cut:
        return [f"{plan_id}: {len(kept)} of {len(log)} events were saved, and it counts as whole"]

    if plan_id in cut and saved and not (closed or _state_of(log[: len(kept)]).terminal):
        return [f"{plan_id} was cut, and could go on as if nothing were missing"]

    return []


def _state_of(log: list[Logged]) -> PlanState:
    fold = PlanFold(log[0].event.plan_id if log else "")
    for logged in log:
        fold.apply(logged.event)

    return fold.state


# --- other versions, and other programs


def of_newer(data_dir: Path) -> None:
    """Let the file be of a version that does not exist yet."""
    with _changed(data_dir) as db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", (str(len(MIGRATIONS) + 1),))


def of_another(data_dir: Path) -> None:
    """Let the file be another program's."""
    with _changed(data_dir) as db:
        db.execute(f"PRAGMA application_id = {APPLICATION_ID + 1}")


class _changed:  # noqa: N801 - used as a function
    def __init__(self, data_dir: Path) -> None:
        self._db = apsw.Connection(str(data_dir / FILE))

    def __enter__(self) -> apsw.Connection:
        return self._db

    def __exit__(self, *_: object) -> None:
        self._db.execute("PRAGMA journal_mode = delete").fetchall()
        self._db.close()


def of_older(data_dir: Path) -> None:
    """Write the file as the server of version 0.1.0 would have, with the same plans and events."""
    path = data_dir / FILE
    new = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    old = apsw.Connection(str(data_dir / "older.db"))
    old.execute("PRAGMA journal_mode = wal").fetchall()
    old.execute(MIGRATIONS[0])
    old.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    old.execute("BEGIN")
    old.execute("INSERT INTO meta VALUES('schema_version', '1'), ('journal_id', 'OLDER')")
    columns = "key, id, epoch, owner, tenant, principal, state, labels, context_id, parent, create_time, body"
    for table, names in (
        ("plan", columns),
        ("event", "id, plan, sequence, body"),
        ("label", "name, value, plan"),
        ("request", "tenant, principal, request_id, digest, plan"),
    ):
        marks = ", ".join("?" * len(names.split(",")))
        rows = new.execute(f"SELECT {names} FROM {table}").fetchall()
        old.executemany(f"INSERT INTO {table}({names}) VALUES({marks})", rows)

    old.execute("COMMIT")
    new.close()
    old.close()
    (data_dir / "older.db").replace(path)


async def _versions(folder: Path, ground: Ground, *trap: str) -> list[str]:
    """Start servers on files of other versions; gives what was wrong."""
    wrong = []
    for name, change in (("newer", of_newer), ("another", of_another)):
        life = _copy(ground, folder / f"{name}{''.join(trap)}")
        change(life.data_dir)
        before = digests(life.data_dir)
        (life.data_dir / "server.json").unlink(missing_ok=True)
        status = await _refusal(life, life.start(*trap))

        log = (life.folder / "log").read_text()
        clear = "schema version" in log if change is of_newer else "another program" in log
        if status in (0, None) or not clear or "Traceback" in log:
            wrong.append(f"a server on a file of {name} version ended with {status}, and said {log[-300:]!r}")

        if digests(life.data_dir) != before:
            wrong.append(f"a server that is refused the file of {name} version changed it")

    return wrong


async def _refusal(life: Life, process: subprocess.Popen[bytes]) -> int | None:
    """Give the status with which a server ends that should not serve; None if it does."""
    for _ in range(1000):
        if process.poll() is not None or (life.data_dir / "server.json").exists():
            break

        await asyncio.sleep(0.02)

    status = process.poll()
    process.kill()
    process.wait()
    return status


async def _older(folder: Path, ground: Ground) -> list[str]:
    life = _copy(ground, folder / "older")
    of_older(life.data_dir)
    found = await read_out(life.folder, ground)
    wrong, _, _ = judge_read(found, ground)
    return [*wrong, *found.told]


def _copy(ground: Ground, folder: Path) -> Life:
    folder.mkdir(parents=True)
    life = Life(folder)
    shutil.copytree(ground.data_dir, life.data_dir)
    (life.data_dir / "server.json").unlink(missing_ok=True)
    return life


# --- backups


@dataclass(slots=True)
class Tar:
    """A backup of a server under load, and what was known when it began."""

    path: Path
    began: int
    status: int
    said: str
    history: History = field(default_factory=History)

    def known(self, logs: Logs) -> History:
        """Give what was acknowledged before it began, over what it holds."""
        asked = [replace(one) for one in self.history.asked if one.answered_at and one.answered_at < self.began]
        seen = [one for one in self.history.seen if one.at < self.began]
        return History(logs=logs, asked=asked, seen=seen)


async def _back_up(life: Life, path: Path) -> Tar:
    command = [
        sys.executable,
        "-m",
        "autoglm_server.maintenance",
        "backup",
        "--data-dir",
        str(life.data_dir),
        str(path),
    ]
    began = time.monotonic_ns()
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return Tar(path, began, done.returncode, done.stdout + done.stderr)


def restore(tar: Path, data_dir: Path, *flags: str) -> tuple[int, str]:
    """Restore as ``autoglm restore`` does; gives its status and what it says."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        status = maintenance.main(["restore", "--data-dir", str(data_dir), *flags, str(tar)])

    return status, out.getvalue()


async def judge_backup(tar: Tar, data_dir: Path, ground: Ground) -> tuple[list[str], int]:
    """Restore, and compare with what was acknowledged before, and with what came of it."""
    if tar.status:
        return [f"the backup ended with {tar.status}: {tar.said}"], 1

    status, said = await asyncio.to_thread(restore, tar.path, data_dir)
    if status:
        return [f"the restore ended with {status}: {said}"], 1

    return await judge_logs(tar, await logs_of(data_dir), ground)


async def judge_logs(tar: Tar, logs: Logs, ground: Ground) -> tuple[list[str], int]:
    """Compare what came back with what was acknowledged before it was taken, and with what came of it."""
    known = tar.known(logs)
    verdicts = [PROMISES[name](known) for name in ("acknowledged-is-kept", "seen-is-durable")]
    wrong = [text for verdict in verdicts for text in verdict.violations]
    for plan_id, log in logs.items():
        later = ground.logs.get(plan_id, [])
        if [one.body for one in log] != [one.body for one in later[: len(log)]]:
            wrong.append(f"{plan_id}: the backup holds other events than were written")

    return wrong, sum(verdict.tries for verdict in verdicts) + len(logs)


async def _serves(data_dir: Path) -> list[str]:
    """A server on what was restored gives the file, whole, and takes new plans."""
    life = Life(data_dir.parent)
    try:
        await life.begin()
        async with autoglm.AsyncClient(life.address) as client:
            plan = await (await client.run(steps=[StepDraft(id="a", tool="time.now")])).result(timeout=30.0)
            wrong = [] if plan.state is PlanState.SUCCEEDED else [f"a new plan is {plan.state.name}"]
            async for one in client.list(states=[PlanState.SUCCEEDED]):
                for step in (await client.get(one.id)).steps:
                    for artifact in step.result.artifacts if step.result is not None else ():
                        read = b"".join([piece async for piece in client.read_artifact(one.id, artifact.digest)])
                        if f"sha256:{hashlib.sha256(read).hexdigest()}" == artifact.digest:
                            return wrong

            return [*wrong, "the file is not in the backup"]
    finally:
        await life.kill()


async def _bad_tars(tar: Tar, folder: Path, random: Random, ground: Ground) -> list[str]:
    """Damage the backup: it is refused, and what is in the directory stays; or what is put there is as it was."""
    wrong = []
    raw = tar.path.read_bytes()
    manifest = raw.rfind(b"manifest.json\0")
    for number in range(BAD_TARS):
        bad, data_dir = folder / f"bad{number}.tar", folder / f"bad{number}"
        places = [random.randrange(len(raw)), random.randrange(manifest, min(len(raw), manifest + 1024))]
        changed = bytearray(raw)
        place = places[number % 2]
        changed[place] ^= 1 << random.randrange(8)
        bad.write_bytes(changed if number < BAD_TARS - 2 else raw[:place])
        shutil.copytree(ground.data_dir, data_dir)
        before = digests(data_dir)
        try:
            status, said = await asyncio.to_thread(restore, bad, data_dir, "--force")
        except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of it is what is looked for
            wrong.append(f"a backup damaged at {place} (of {len(raw)}) raised {type(error).__name__}: {error}")
            continue

        if status and digests(data_dir) != before:
            wrong.append(f"a restore that was refused changed the directory ({said})")

        if not status:
            wrong += (await judge_logs(tar, await logs_of(data_dir), ground))[0]

    return wrong


# --- the part


@asynccontextmanager
async def _room(ground: Ground, random: Random, damaging: Damage) -> AsyncIterator[tuple[Path, str]]:
    with tempfile.TemporaryDirectory(prefix="autoglm-damaged-") as name:
        life = _copy(ground, Path(name) / "server")
        yield life.folder, damaging(life.data_dir, ground, random)


def damage(seed: int, size: int) -> Result:
    """Damage journals under ``size`` servers, and more under the repair; then versions, backups and controls."""
    return asyncio.run(_damage(seed, size))


async def _damage(seed: int, size: int) -> Result:
    result, random, where = Result(), Random(seed), f"--only damage --seed {seed} --size {size}"
    with tempfile.TemporaryDirectory(prefix="autoglm-ground-") as name:
        folder = Path(name)
        killed, ended, tars = await lay(folder / "ground", random)
        tries = [(ended, damaging) for damaging in OF_ENDED] + [(killed, damaging) for damaging in OF_KILLED]
        for number in range(size):
            ground, damaging = tries[number % len(tries)]
            await _try(ground, damaging, random, result, where, served=True)
            for _ in range(REPAIRS):
                await _try(ground, damaging, random, result, where, served=False)

        wrong = [*await _versions(folder / "versions", ended), *await _older(folder / "versions", ended)]
        result.found(VERSIONS, tries=3, faults=3, violations=wrong, where=where)
        await _backups(folder, tars, random, ended, result, where)
        await _controls(folder, ended, killed, tars, random, result)

    return result


async def _try(ground: Ground, damaging: Damage, random: Random, result: Result, where: str, *, served: bool) -> None:
    async with _room(ground, random, damaging) as (folder, what):
        if served:
            found = await read_out(folder, ground)
            wrong, written, tries = judge_read(found, ground)
            result.found(FOUND, tries=tries, faults=1, violations=[f"{what}: {one}" for one in wrong], where=where)
            result.found(KEPT, tries=1, faults=1, violations=[f"{what}: {one}" for one in written], where=where)
            result.count("damaged journals under servers")
            result.count("of them told", bool(found.told))
            if not found.told:  # it went on to serve, and what it wrote since is its own
                return

        wrong, tries = await judge_repair(folder / "data", ground)
        result.found(SAVED, tries=tries, faults=1, violations=[f"{what}: {one}" for one in wrong], where=where)
        result.count("repairs")


async def _backups(folder: Path, tars: list[Tar], random: Random, ground: Ground, result: Result, where: str) -> None:
    for number, tar in enumerate(tars):
        room = folder / f"restored{number}"
        room.mkdir()
        wrong, tries = await judge_backup(tar, room / "data", ground)
        if number == len(tars) - 1:
            wrong += await _serves(room / "data")

        result.found(BACKUP, tries=tries, faults=0, violations=wrong, where=where)

    wrong = await _bad_tars(tars[0], folder, random, ground)
    result.found(BACKUP, tries=BAD_TARS, faults=BAD_TARS, violations=wrong, where=where)


async def _controls(
    folder: Path, ended: Ground, killed: Ground, tars: list[Tar], random: Random, result: Result
) -> None:
    """Break the product on purpose: each time, the promise must notice."""
    caught = dict.fromkeys((FOUND, KEPT, SAVED), False)
    for _ in range(CONTROLS):
        for promise, trap in ((FOUND, BLIND), (KEPT, UNDAUNTED)):
            if not caught[promise]:
                async with _room(ended, random, flip_event) as (room, _):
                    found = await read_out(room, ended, trap)
                    wrong = judge_read(found, ended)[0] if promise is FOUND else found.written
                    caught[promise] = bool(wrong)

        with mock.patch.object(salvage, "_plan_of", _believed):
            async with _room(ended, random, flip_event) as (room, _):
                caught[SAVED] = caught[SAVED] or bool((await judge_repair(room / "data", ended))[0])

    result.control(FOUND, "a server that looks at no checksum", caught=caught[FOUND])
    result.control(KEPT, "a server that goes on after it met damage", caught=caught[KEPT])
    result.control(SAVED, "a repair that looks at no checksum of an event", caught=caught[SAVED])

    copied = folder / "copied"
    copied.mkdir()
    shutil.copy(killed.data_dir / FILE, copied / FILE)
    lacking = (await judge_logs(replace(tars[-1], began=time.monotonic_ns()), await logs_of(copied), ended))[0]
    result.control(BACKUP, "a copy of the file alone, made while a server writes", caught=bool(lacking))
    wrong = await _versions(folder / "headstrong", ended, HEADSTRONG)
    result.control(VERSIONS, "a server that asks for no version", caught=bool(wrong))


def _believed(position: Any, sequence: Any, body: Any, crc: Any) -> str:
    with suppress(ValueError, AutoglmError, TypeError):
        return decode(Event, body).plan_id

    return ""
