"""Damage: flipped bits and lost ends are found, told, and never written over; what is given out is what was written."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from autoglm.model import PlanState
from autoglm_server.journal import _file, _read, sqlite
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import (
    Compaction,
    JournalDamagedError,
    JournalError,
    PlanQuery,
)
from autoglm_server.journal.sqlite import SqliteJournal

PLANS = ("a", "b", "c")
BIG = 9000
"""Bytes of an event that does not fit a page, so that pages without a structure of their own are there too."""


async def write(directory: Path, hand_of: Any, *, close: bool = True) -> SqliteJournal:
    journal = SqliteJournal(directory, idle_seconds=3600.0)
    await journal.open()
    hand = hand_of(journal)
    for sequence in range(1, 9):
        for plan in PLANS:
            await hand.write(plan, sequence, size=BIG if sequence == 5 else 300)

    ended = hand.row("z", PlanState.SUCCEEDED, end_time=hand.start, labels={"k": "v"})
    await hand.write("z", 1, 3, row=ended)
    await journal.compact([Compaction("z", 3, b"the snapshot" * 500)])
    if close:
        await journal.close()

    return journal


Content = dict[str, Any]


async def content(directory: Path) -> Content:
    """Give all that can be read, each piece by itself; of what cannot be, the error."""
    journal = SqliteJournal(directory, idle_seconds=3600.0)
    found: Content = {}

    async def ask(name: str, call: Any) -> None:
        try:
            found[name] = await call
        except JournalDamagedError as error:
            found[name] = error

    try:
        await journal.open()
    except JournalError as error:
        return {"open": error}

    for plan in (*PLANS, "z"):
        await ask(f"events {plan}", journal.read(plan, 3 if plan == "z" else 0, bytes_max=1 << 24))
        await ask(f"row {plan}", journal.get_row(plan))
        await ask(f"last {plan}", journal.last_sequence(plan))

    await ask("snapshot", journal.get_snapshot("z"))
    await ask("all", journal.read_all(0, bytes_max=1 << 24))
    await ask("list", journal.list_rows(PlanQuery()))
    await ask("labels", journal.list_rows(PlanQuery(labels={"k": "v"})))
    await ask("open plans", journal.open_plans())
    damaged = any(isinstance(value, JournalDamagedError) for value in found.values())
    assert bool(journal.damaged) >= damaged
    if journal.damaged:
        await refuses(journal)

    found["damaged"] = bool(journal.damaged)
    await journal.close()
    return found


async def refuses(journal: SqliteJournal) -> None:
    with pytest.raises(JournalDamagedError, match="doctor --repair"):
        await journal.claim(["a"], "me")

    with pytest.raises(JournalDamagedError):
        await journal.purge(1)


def wrong(found: Content, whole: Content) -> list[str]:
    """Name what was given out and is not what was written."""
    if "open" in found or found["damaged"]:
        return [
            name
            for name, value in found.items()
            if not isinstance(value, JournalError) and name != "damaged" and value != whole[name] and name in WHOLE
        ]

    return [name for name, value in found.items() if value != whole[name]]


WHOLE = frozenset({"all", *(f"events {plan}" for plan in PLANS), *(f"row {plan}" for plan in PLANS), "snapshot"})
"""What, once damage is known, must be right or refused; of a list a page may be short."""


@pytest.fixture
async def whole(tmp_path: Path, hand_of: Any) -> Content:
    await write(tmp_path / "whole", hand_of)
    return await content(tmp_path / "whole")


def flips(size: int, step: int) -> Iterator[int]:
    return iter([*range(0, 100, 3), 20, *range(100, size, step)])


async def damaged_copies(tmp_path: Path, step: int) -> Any:
    raw = (tmp_path / "whole" / "journal.db").read_bytes()
    copy = tmp_path / "copy"
    for place in flips(len(raw), step):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        flipped = bytearray(raw)
        flipped[place] ^= 1 << (place % 8)
        (copy / "journal.db").write_bytes(flipped)
        yield place, copy


async def test_a_flipped_bit_is_never_given_out(tmp_path: Path, whole: Content) -> None:
    """Every bit in turn would take minutes; of the header one in three bytes, then one in each 1499."""
    assert whole["damaged"] is False
    assert len(whole["all"]) == 24
    noticed = flipped = 0
    async for place, copy in damaged_copies(tmp_path, 1499):
        found = await content(copy)
        assert wrong(found, whole) == [], place
        flipped += 1
        noticed += "open" in found or found["damaged"]

    assert flipped > 80
    assert noticed > flipped // 2  # the others are on pages that nothing here reads


async def test_without_checksums_a_flipped_bit_is_given_out(
    tmp_path: Path, hand_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: pages and events unchecked, SQLite finds nothing wrong with most of it."""
    monkeypatch.setattr(_file, "HAS_CHECKSUMS", False)
    monkeypatch.setattr(_read, "check", lambda plan_id, sequence, position, body, crc: body)
    await write(tmp_path / "whole", hand_of)
    whole = await content(tmp_path / "whole")
    silent = 0
    async for place, copy in damaged_copies(tmp_path, 2999):
        with suppress(Exception):
            silent += bool(wrong(await content(copy), whole)) and place >= 100

    assert silent > 5


async def test_events_have_checksums_of_their_own(
    tmp_path: Path, hand_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where pages have none: an event is right or refused."""
    monkeypatch.setattr(_file, "HAS_CHECKSUMS", False)
    await write(tmp_path / "whole", hand_of)
    db = apsw.Connection(str(tmp_path / "whole" / "journal.db"))
    assert db.execute("PRAGMA checksum_verification").get != "1"
    db.execute("UPDATE event SET body = zeroblob(length(body)) WHERE plan = 2 AND sequence = 5")
    db.execute("UPDATE event SET sequence = -sequence WHERE plan = 3 AND sequence IN (2, 3)")
    db.execute("UPDATE event SET sequence = 5 + sequence WHERE plan = 3 AND sequence < 0")
    db.close()
    found = await content(tmp_path / "whole")
    assert isinstance(found["events b"], JournalDamagedError)
    assert isinstance(found["events c"], JournalDamagedError)
    assert isinstance(found["all"], JournalDamagedError)
    assert len(found["events a"]) == 8


async def test_a_cut_file_is_noticed(tmp_path: Path, whole: Content) -> None:
    raw = (tmp_path / "whole" / "journal.db").read_bytes()
    for size in [0, 1, 99, 100, *range(4096, len(raw), 4096), len(raw) - 1]:
        copy = tmp_path / f"cut{size}"
        copy.mkdir()
        (copy / "journal.db").write_bytes(raw[:size])
        found = await content(copy)
        assert "open" in found or found["damaged"], size
        assert wrong(found, whole) == [], size


async def test_a_zeroed_page_is_noticed_or_not_needed(tmp_path: Path, whole: Content) -> None:
    """The checksum of nothing but zeros is zero: what then finds it is the structure, and the event's own."""
    raw = (tmp_path / "whole" / "journal.db").read_bytes()
    for page in range(len(raw) // 4096):
        copy = tmp_path / f"zero{page}"
        copy.mkdir()
        (copy / "journal.db").write_bytes(raw[: page * 4096] + bytes(4096) + raw[(page + 1) * 4096 :])
        assert wrong(await content(copy), whole) == [], page


# --- the WAL, as a crash leaves it


async def crashed(tmp_path: Path, hand_of: Any) -> tuple[Path, bytes, Content]:
    """Give the files of a journal that was not closed: its WAL has all that was written."""
    journal = await write(tmp_path / "live", hand_of, close=False)
    left = tmp_path / "left"
    left.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(tmp_path / "live" / name, left / name)

    await journal.close()
    whole = await content(shutil.copytree(left, tmp_path / "whole"))
    assert len(whole["all"]) == 24
    return left, (left / "journal.db-wal").read_bytes(), whole


async def test_a_damaged_wal_is_noticed(tmp_path: Path, hand_of: Any) -> None:
    """SQLite alone drops the end of it, with what was acknowledged, and says nothing."""
    left, wal, whole = await crashed(tmp_path, hand_of)
    frame = 4096 + 24
    ends = [at for at in range(32, len(wal), frame) if struct.unpack_from(">I", wal, at + 4)[0]]
    for number, place in enumerate([5, 17, *range(40, ends[-2], frame // 2 * 3)]):
        copy = shutil.copytree(left, tmp_path / f"wal{number}")
        flipped = bytearray(wal)
        flipped[place] ^= 1
        (copy / "journal.db-wal").write_bytes(flipped)
        found = await content(copy)
        assert "open" in found or found["damaged"], place
        assert len((copy / "journal.db-wal").read_bytes()) == len(wal), "what is left of it must stay"

    # What it cannot be told from: the last commit of all torn by a power cut, which nobody was told of.
    copy = shutil.copytree(left, tmp_path / "torn")
    (copy / "journal.db-wal").write_bytes(wal[: ends[-1] + 100])
    assert (await content(copy))["damaged"] is False
    assert whole["damaged"] is False


@pytest.mark.parametrize("moved", [True, False])
async def test_a_wal_whose_beginning_is_torn_is_damaged_unless_the_database_has_it(
    tmp_path: Path, hand_of: Any, *, moved: bool
) -> None:
    """It begins anew when it has been moved into the database; a power cut then tears what is first written to it."""
    left, wal, _ = await crashed(tmp_path, hand_of)
    if moved:
        db = apsw.Connection(str(left / "journal.db"), vfs="cksmvfs")
        assert db.execute("SELECT count(*) FROM event").get  # a read takes the WAL in
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
        shutil.copy(left / "journal.db", tmp_path / "moved")
        db.close()
        shutil.copy(tmp_path / "moved", left / "journal.db")

    torn = struct.pack(">4I", *struct.unpack(">3I", wal[:12]), 7) + wal[16:]
    (left / "journal.db-wal").write_bytes(torn)
    found = await content(left)
    assert found["damaged"] is not moved
    assert not moved or len(found["all"]) == 24


async def test_who_waits_for_what_will_not_come_is_told(tmp_path: Path, hand_of: Any) -> None:
    left, wal, _ = await crashed(tmp_path, hand_of)
    flipped = bytearray(wal)
    flipped[len(wal) // 2] ^= 1
    (left / "journal.db-wal").write_bytes(flipped)
    for directory, damaged in ((left, True), (tmp_path / "whole", False)):
        journal = SqliteJournal(directory, idle_seconds=3600.0)
        await journal.open()
        feed = Feed(journal)
        given = 0
        for cursor in (feed.follow("a", 0), feed.follow_all("")):
            with pytest.raises(JournalDamagedError) if damaged else nullcontext():
                while batch := (await cursor.next(0.0)).bodies:
                    given += len(batch)

        assert bool(journal.damaged) is damaged
        assert given == (8 + 24 if not damaged else given) > 0
        await journal.close()


async def test_the_control_sqlite_alone_says_nothing_of_a_damaged_wal(
    tmp_path: Path, hand_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, wal, _ = await crashed(tmp_path, hand_of)
    monkeypatch.setattr(sqlite, "check", lambda *_: None)
    flipped = bytearray(wal)
    flipped[len(wal) // 2] ^= 1
    (left / "journal.db-wal").write_bytes(flipped)
    found = await content(left)
    assert found["damaged"] is False
    assert len(found["all"]) < 24


async def test_a_wal_without_its_database_is_noticed(tmp_path: Path, hand_of: Any) -> None:
    left, _, _ = await crashed(tmp_path, hand_of)
    (left / "journal.db").unlink()
    assert isinstance((await content(left))["open"], JournalDamagedError)
    assert (left / "journal.db-wal").exists()


async def test_where_the_last_number_cannot_be_read_the_rest_can(tmp_path: Path, whole: Content) -> None:
    """Who opens a journal asks for the last number of an event: here the last page of events is damaged."""
    path = tmp_path / "whole" / "journal.db"
    db = apsw.Connection(str(path))
    last = "SELECT pageno FROM dbstat WHERE name = 'event' AND pagetype = 'leaf' ORDER BY path DESC LIMIT 1"
    page = db.execute(last).get
    db.close()
    flipped = bytearray(path.read_bytes())
    flipped[page * 4096 - 100] ^= 8
    path.write_bytes(flipped)
    found = await content(path.parent)
    assert found["damaged"]
    assert wrong(found, whole) == []
    assert found["row a"] == whole["row a"]
    assert path.read_bytes() == bytes(flipped)


# --- while it serves


async def test_what_the_writer_meets_stops_it_for_good(tmp_path: Path, hand_of: Any) -> None:
    """Who opens a journal does not look for a plan by its id; who writes does."""
    await write(tmp_path, hand_of)
    path = tmp_path / "journal.db"
    db = apsw.Connection(str(path))
    roots = [
        root for (root,) in db.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'plan' AND type = 'index'")
    ]
    db.close()
    raw = bytearray(path.read_bytes())
    for root in roots:
        raw[root * 4096 - 100] ^= 8

    path.write_bytes(raw)
    journal = SqliteJournal(tmp_path, idle_seconds=3600.0)
    told = asyncio.Event()
    journal.on_health = told.set
    await journal.open()
    assert not journal.damaged
    hand = hand_of(journal)
    assert isinstance(await hand.send("a", 9), JournalDamagedError)
    await told.wait()
    assert "doctor --repair" in journal.damaged
    assert journal.failure is None
    assert isinstance(await hand.send("b", 9), JournalDamagedError)
    await journal.close()
    assert path.read_bytes() == bytes(raw)


async def test_a_journal_of_version_1_gets_checksums(tmp_path: Path) -> None:
    from tests.server.journal.test_upgrade import write_version_1

    write_version_1(tmp_path / "journal.db")
    journal = SqliteJournal(tmp_path)
    await journal.open()
    await journal.close()
    head = (tmp_path / "journal.db").read_bytes()[:100]
    assert (head[20], head[63]) == (8, 1)
    raw = bytearray((tmp_path / "journal.db").read_bytes())
    raw[4096 * 2 + 50] ^= 1
    (tmp_path / "journal.db").write_bytes(raw)
    db = apsw.Connection(str(tmp_path / "journal.db"))
    with pytest.raises(apsw.IOError):
        db.execute("PRAGMA integrity_check").fetchall()

    db.close()
