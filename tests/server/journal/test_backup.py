"""Backup, restore and repair: what comes back is what was there, and what cannot is named."""

from __future__ import annotations

import asyncio
import io
import json
import random
import tarfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from autoglm import wire
from autoglm.fold import PlanFold
from autoglm.model import (
    Event,
    Plan,
    PlanCreated,
    PlanningStarted,
    PlanState,
    PlanSucceeded,
)
from autoglm_server import maintenance
from autoglm_server.journal import _file
from autoglm_server.journal.artifacts import FolderArtifacts
from autoglm_server.journal.journal import (
    Append,
    Compaction,
    JournalError,
    PlanQuery,
    PlanRow,
    RequestKey,
)
from autoglm_server.journal.sqlite import SqliteJournal

START = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS = 7


class Plans:
    """Writes plans whose events fold."""

    def __init__(self, journal: SqliteJournal) -> None:
        self.journal = journal
        self.bodies: dict[str, list[bytes]] = {}

    async def write(self, plan_id: str, *, ends: bool = True, text: str = "hello") -> None:
        created = PlanCreated(
            request=text * 30, labels={"n": plan_id}, request_id=f"r-{plan_id}", request_digest="sha256:1"
        )
        facts: list[Any] = [created, *[PlanningStarted(planner="p", attempt=n) for n in range(1, EVENTS - 1)]]
        if ends:
            facts.append(PlanSucceeded(answer=text * 60))

        fold = PlanFold(plan_id)
        for sequence, fact in enumerate(facts, 1):
            event = Event(plan_id, sequence, START + timedelta(seconds=sequence), principal="ann", fact=fact)
            fold.apply(event)
            body = wire.encode(event)
            self.bodies.setdefault(plan_id, []).append(body)
            key = RequestKey("", "ann", created.request_id, "sha256:1") if sequence == 1 else None
            settled: asyncio.Future[JournalError | None] = asyncio.get_running_loop().create_future()
            self.journal.append(Append(plan_id, 1, sequence, [body], settled.set_result, row_of(fold), key))
            assert await settled is None

    async def compact(self, plan_id: str) -> Plan:
        fold = PlanFold(plan_id)
        for body in self.bodies[plan_id]:
            fold.apply(wire.decode(Event, body))

        plan = fold.snapshot()
        await self.journal.compact([Compaction(plan_id, plan.sequence, wire.encode(plan))])
        while await self.journal.purge(100):
            pass

        return plan


def row_of(fold: PlanFold) -> PlanRow:
    body = wire.encode(fold.basic())
    return PlanRow(
        fold.id, "", "ann", fold.state, fold.created.labels, "", "", START + timedelta(seconds=1), body, fold.end_time
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def live(data: Path) -> AsyncIterator[Plans]:
    """A journal that a server has open: plans that ended, one that goes on, one whose events went, and a file."""
    journal = SqliteJournal(data, idle_seconds=3600.0)
    await journal.open()
    plans = Plans(journal)
    for number in range(12):
        await plans.write(f"plan-{number:02}")

    await plans.write("open", ends=False)
    await plans.write("old")
    await plans.compact("old")
    files = FolderArtifacts(data / "artifacts")
    await files.open()
    await files.put("plan-00", "a.txt", "text/plain", b"the same")
    await files.put("plan-01", "b.txt", "text/plain", b"the same")
    await files.put("plan-01", "c.txt", "text/plain", b"another" * 1000)
    await files.close()
    yield plans
    await journal.close()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    status = maintenance.main([*map(str, arguments), "--json"])
    said = capsys.readouterr()
    return status, json.loads(said.out) if said.out else {}, said.err


async def all_of(journal: SqliteJournal) -> dict[str, Any]:
    plans = (await journal.list_rows(PlanQuery(page_size=500))).rows
    found: dict[str, Any] = {row.plan_id: row for row in plans}
    for row in plans:
        snapshot = await journal.get_snapshot(row.plan_id)
        found[f"{row.plan_id} events"] = snapshot or await journal.read(row.plan_id, 0)
        found[f"{row.plan_id} key"] = await journal.find_request("", "ann", f"r-{row.plan_id}")

    return found


async def reopened(data: Path) -> tuple[dict[str, Any], str]:
    journal = SqliteJournal(data)
    await journal.open()
    try:
        return await all_of(journal), journal.journal_id
    finally:
        await journal.close()


async def test_a_backup_of_a_live_journal_comes_back_whole(
    live: Plans, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken in a thread while plans are written; what was acknowledged before it began is in it, and it verifies."""
    before = await all_of(live.journal)
    writing = asyncio.create_task(go_on_writing(live))
    status, said, _ = await asyncio.to_thread(run, capsys, "backup", "--data-dir", data, tmp_path / "b.tar")
    writing.cancel()
    assert (status, said["artifacts"], said["journal_id"]) == (0, 3, live.journal.journal_id)
    assert said["plans"] >= 14
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in data.parent.glob("*")) == ["b.tar", "data"]

    status, said, _ = run(capsys, "restore", "--data-dir", tmp_path / "new", tmp_path / "b.tar")
    assert (status, said["aside"]) == (0, "")
    restored, journal_id = await reopened(tmp_path / "new")
    assert restored.items() >= before.items()
    assert journal_id == said["journal_id"] != live.journal.journal_id
    files = FolderArtifacts(tmp_path / "new" / "artifacts")
    await files.open()
    names = sorted(path.name for path in (tmp_path / "new" / "artifacts").glob("plans/*/*"))
    assert names == sorted(path.name for path in (data / "artifacts").glob("plans/*/*"))
    same = (tmp_path / "new" / "artifacts" / "plans" / "plan-00").iterdir()
    assert next(same).stat().st_nlink == 3
    await files.close()


async def test_a_backup_of_more_than_the_cache_holds_keeps_its_checksums(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    """Pages leave the cache before the first one, and those that come from the WAL have no checksum of their own."""
    journal = SqliteJournal(data, idle_seconds=3600.0)
    await journal.open()
    plans = Plans(journal)
    for number in range(30):
        await plans.write(f"p{number:02}", text="some text to fill pages with" * 100)

    assert run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar")[0] == 0
    before = await all_of(journal)
    await journal.close()
    assert run(capsys, "restore", "--data-dir", tmp_path / "new", tmp_path / "b.tar")[0] == 0
    assert (await reopened(tmp_path / "new"))[0] == before


async def go_on_writing(live: Plans) -> None:
    for number in range(10_000):
        await live.write(f"meanwhile-{number}")


async def test_a_second_restore_puts_what_is_there_aside(
    live: Plans, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar")
    await live.write("later")
    later = await all_of(live.journal)
    status, _, told = run(capsys, "restore", "--data-dir", data, tmp_path / "b.tar", "--force")
    assert status == 1
    assert "in use by" in told
    await live.journal.close()
    status, _, told = run(capsys, "restore", "--data-dir", data, tmp_path / "b.tar")
    assert status == 2
    assert "--force" in told
    status, said, _ = run(capsys, "restore", "--data-dir", data, tmp_path / "b.tar", "--force")
    assert status == 0
    assert "later" not in (await reopened(data))[0]
    assert (await reopened(Path(said["aside"])))[0] == later


async def test_a_backup_is_not_written_over(live: Plans, data: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "b.tar").write_text("mine")
    assert run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar")[0] == 2
    assert (tmp_path / "b.tar").read_text() == "mine"
    assert run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar", "--force")[0] == 0
    assert run(capsys, "backup", "--data-dir", tmp_path / "nothing", tmp_path / "c.tar")[0] == 2


def test_a_backup_that_is_not_there_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, told = run(capsys, "restore", "--data-dir", tmp_path / "new", tmp_path / "nope.tar")

    assert status == 2
    assert "nope.tar cannot be put into" in told
    assert "No such file" in told
    assert "Errno" not in told


@pytest.mark.parametrize("content", [b"", b"a list of what to buy", b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_backup_is_called_so(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.tar").write_bytes(content)
    status, _, told = run(capsys, "restore", "--data-dir", tmp_path / "new", tmp_path / "list.tar")

    assert status == 2
    assert "list.tar is no backup, or it is cut off" in told


async def test_a_damaged_backup_changes_nothing(live: Plans, data: Path, tmp_path: Path, capsys: Any) -> None:
    run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar")
    raw = (tmp_path / "b.tar").read_bytes()
    places = random.Random(5).sample(range(len(raw) - 10240), 40)
    noticed = 0
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 4
        (tmp_path / "bad.tar").write_bytes(flipped)
        status, _, _ = run(capsys, "restore", "--data-dir", tmp_path / f"new{place}", tmp_path / "bad.tar")
        noticed += status != 0
        if status:
            assert [path.name for path in (tmp_path / f"new{place}").iterdir()] == ["lock"]
        else:  # in the padding or the times of the tar, which carry nothing
            assert (await reopened(tmp_path / f"new{place}"))[0] == await all_of(live.journal)

    assert noticed > 30
    for size in (0, 100, 5000, len(raw) // 2, len(raw) - 11000):
        (tmp_path / "bad.tar").write_bytes(raw[:size])
        assert run(capsys, "restore", "--data-dir", tmp_path / f"cut{size}", tmp_path / "bad.tar")[0] == 2


async def test_a_damaged_manifest_is_told_in_words(live: Plans, data: Path, tmp_path: Path, capsys: Any) -> None:
    """Also where it is no JSON any more, or other JSON."""
    run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar")
    raw = (tmp_path / "b.tar").read_bytes()
    begin = raw.rfind(b"manifest.json") + 512  # behind the head of the tar
    noticed = 0
    for place in range(begin, begin + 12):
        flipped = bytearray(raw)
        flipped[place] ^= 4
        (tmp_path / "bad.tar").write_bytes(flipped)
        status, _, told = run(capsys, "restore", "--data-dir", tmp_path / f"new{place}", tmp_path / "bad.tar")
        noticed += status == 2 and "damaged" in told

    assert noticed > 2  # the others are in the name of a value that carries nothing


async def test_a_tar_that_reaches_outside_is_refused(tmp_path: Path, capsys: Any) -> None:
    for name in ("../evil", "/tmp/evil", "journal.db/../../evil", "artifacts/content/../../../evil"):
        with tarfile.open(tmp_path / "evil.tar", "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))

        status, _, told = run(capsys, "restore", "--data-dir", tmp_path / "new", tmp_path / "evil.tar")
        assert status == 2
        assert "is no backup" in told


async def test_a_damaged_journal_is_not_backed_up(live: Plans, data: Path, tmp_path: Path, capsys: Any) -> None:
    await live.journal.close()
    damage(data)
    status, _, told = run(capsys, "backup", "--data-dir", data, tmp_path / "b.tar")
    assert status == 1
    assert "doctor --repair" in told
    assert not (tmp_path / "b.tar").exists()


# --- repair


def damage(data: Path, place: int | None = None) -> None:
    """Flip a bit of the table of events."""
    path = data / "journal.db"
    if place is None:
        db = apsw.Connection(str(path))
        root = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'event'").get
        db.close()
        place = (int(root) - 1) * 4096 + 2000

    raw = bytearray(path.read_bytes())
    raw[place] ^= 16
    path.write_bytes(raw)


async def test_nothing_is_repaired_that_is_not_damaged(live: Plans, data: Path, capsys: Any) -> None:
    assert run(capsys, "repair", "--data-dir", data)[0] == 1  # a server has it
    await live.journal.close()
    raw = (data / "journal.db").read_bytes()
    status, said, _ = run(capsys, "repair", "--data-dir", data)
    assert (status, said["damaged"]) == (0, False)
    assert (data / "journal.db").read_bytes() == raw


async def test_what_can_be_read_is_saved_and_what_cannot_is_named(live: Plans, data: Path, capsys: Any) -> None:
    """A bit in each page in turn: every plan is whole, or named as cut or lost; no event is wrong, and none is new but an end."""
    before = await all_of(live.journal)
    await live.journal.close()
    raw = (data / "journal.db").read_bytes()
    repaired = complete = 0
    for place in range(1500, len(raw), 4096):
        copy = data.parent / f"page{place}"
        copy.mkdir()
        (copy / "journal.db").write_bytes(raw)
        damage(copy, place)
        status, said, told = run(capsys, "repair", "--data-dir", copy)
        if not said:
            assert "restore a backup" in told
            continue

        if not said["damaged"]:
            continue  # a byte that nothing uses, of a page whose checksum was written anew

        repaired += 1
        complete += said["complete"]
        assert (Path(said["aside"]) / "journal.db").stat().st_size == len(raw)
        after, _ = await reopened(copy)
        named = {*said["cut"], *said["lost"]}
        assert status == (0 if said["complete"] else 1)
        for plan_id in [*live.bodies]:
            if plan_id not in named:
                assert after[f"{plan_id} events"] == before[f"{plan_id} events"], (place, plan_id)
                assert after[plan_id] == before[plan_id]
            elif plan_id in said["cut"]:
                kept = list(after[f"{plan_id} events"])
                assert wire.decode(Plan, after[plan_id].body).state is PlanState.FAILED
                assert kept[:-1] == live.bodies[plan_id][: len(kept) - 1]

    assert repaired >= 5
    assert complete > 0


async def test_a_header_a_cut_end_and_a_wal_are_repaired(live: Plans, data: Path, capsys: Any) -> None:
    before = await all_of(live.journal)
    left = {name: (data / name).read_bytes() for name in ("journal.db", "journal.db-wal")}
    await live.journal.close()
    whole = (data / "journal.db").read_bytes()

    async def saved(name: str, **files: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        folder = data.parent / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file.replace("_", ".", 1).replace("_", "-")).write_bytes(content)

        said = run(capsys, "repair", "--data-dir", folder)[1]
        assert said["damaged"] is True
        return said, (await reopened(folder))[0]

    said, after = await saved("header", journal_db=bytes(24) + whole[24:])
    assert said["complete"] is True
    assert after == before

    pages = len(whole) // 4096
    for left_over in (pages - 1, pages - 3, pages // 2, pages // 3):
        said, after = await saved(f"cut{left_over}", journal_db=whole[: left_over * 4096 + 100])
        named = {*said["cut"], *said["lost"]}
        same = {name for name in live.bodies if after.get(f"{name} events") == before[f"{name} events"]}
        assert same >= set(live.bodies) - named or said["hidden"], left_over

    flipped = bytearray(left["journal.db-wal"])
    flipped[32 + 24 + 4120 * 5 + 100] ^= 1
    said, after = await saved("wal", journal_db=left["journal.db"], journal_db_wal=bytes(flipped))
    assert said["whole"] >= 12, said
    lost = {*said["cut"], *said["lost"]}
    assert all(after[f"{name} events"] == before[f"{name} events"] for name in live.bodies if name not in lost)


async def test_a_plan_that_may_have_gone_on_does_not_run_again(
    live: Plans, data: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last event is lost: to go on before it would call its tools a second time."""
    monkeypatch.setattr(_file, "HAS_CHECKSUMS", True)
    await live.journal.close()
    db = apsw.Connection(str(data / "journal.db"))
    db.execute(
        "UPDATE event SET body = zeroblob(length(body)) WHERE sequence = 6 AND plan = (SELECT key FROM plan WHERE id = 'open')"
    )
    db.close()
    status, said, _ = run(capsys, "repair", "--data-dir", data)
    assert (status, said["cut"], said["events_lost"]) == (1, ["open"], 1)
    journal = SqliteJournal(data)
    await journal.open()
    assert await journal.open_plans() == []
    last = wire.decode(Event, (await journal.read("open", 5))[0])
    assert last.fact.failure.reason == "JOURNAL_DAMAGED"  # type: ignore[union-attr]
    await journal.close()
