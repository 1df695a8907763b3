"""The SQLite journal's tables, as a list of migrations in order. The version of a file is how many of them it has had.

``event`` is append-only with an integer key: WAL writes whole pages, so a key clustered by plan would write a page for each
live plan of a commit, this one a page for about every sixteen events (3.2 times the throughput). The last sequence of a plan is
read off the unique index; nothing stores it a second time that could disagree.
"""

from __future__ import annotations

from typing import Any

import apsw

from autoglm._ids import new_id
from autoglm.model import Plan
from autoglm.wire import decode
from autoglm_server.journal._checksum import checksum
from autoglm_server.journal._commit import microseconds
from autoglm_server.journal.journal import JournalError, JournalVersionError

APPLICATION_ID = 0x61_67_6C_6D
""""aglm", in the header of the file: says that it is a journal of ours."""

MIGRATIONS = (
    """
    CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE plan(
        key INTEGER PRIMARY KEY,      -- grows with every plan: newest first is the key, descending
        id TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        owner TEXT NOT NULL,          -- who claimed the epoch; empty in the first
        tenant TEXT NOT NULL,
        principal TEXT NOT NULL,
        state INTEGER NOT NULL,
        labels TEXT NOT NULL,         -- JSON, to give back; `label` is what filters look in
        context_id TEXT NOT NULL,
        parent TEXT NOT NULL,
        create_time INTEGER NOT NULL, -- microseconds since 1970, UTC
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX plan_open ON plan(state, key) WHERE state < 6; -- PlanState.SUCCEEDED: only what can still change
    CREATE INDEX plan_context ON plan(context_id, key) WHERE context_id <> '';
    CREATE INDEX plan_parent ON plan(parent, key) WHERE parent <> '';

    CREATE TABLE event(
        id INTEGER PRIMARY KEY,       -- the position in the order of all plans
        plan INTEGER NOT NULL,        -- plan.key; to declare the reference would cost a fifth of the rate
        sequence INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX event_sequence ON event(plan, sequence);

    CREATE TABLE label(
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        plan INTEGER NOT NULL REFERENCES plan(key),
        PRIMARY KEY(name, value, plan)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE request(
        tenant TEXT NOT NULL,
        principal TEXT NOT NULL,
        request_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        plan INTEGER NOT NULL REFERENCES plan(key),
        PRIMARY KEY(tenant, principal, request_id)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE plan ADD COLUMN end_time INTEGER;                   -- microseconds since 1970; null until it has ended
    ALTER TABLE plan ADD COLUMN kept INTEGER NOT NULL DEFAULT 2;    -- 2 events, 1 snapshot (events to be purged), 0 snapshot
    ALTER TABLE plan ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0; -- the last sequence, once the events have gone
    UPDATE plan SET end_time = ended_at(body, create_time) WHERE state >= 6;
    CREATE INDEX plan_ended ON plan(kept, end_time, key) WHERE end_time IS NOT NULL;

    CREATE TABLE snapshot(
        plan INTEGER PRIMARY KEY REFERENCES plan(key),
        body BLOB NOT NULL,
        crc INTEGER NOT NULL
    ) STRICT;

    ALTER TABLE event ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;    -- see `_checksum`
    UPDATE event SET crc = checksum((SELECT id FROM plan WHERE key = event.plan), sequence, id, body);

    CREATE INDEX label_plan ON label(plan);
    CREATE INDEX request_plan ON request(plan);
    """,
)
"""Changes nothing once released: a file that an older server wrote has had the ones before."""


def migrate(db: apsw.Connection, where: str) -> str:
    """Bring the file up to date in one transaction, and give its journal_id.

    Raises:
        JournalVersionError: a newer version of the server wrote it.
        JournalError: it is another program's database.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db, where)
        if version > len(MIGRATIONS):
            raise JournalVersionError(
                f"{where} has schema version {version} and this server supports up to {len(MIGRATIONS)}: "
                "start the newer version of the server that wrote it, or choose another data directory"
            )

        db.create_scalar_function("ended_at", _ended_at, 2, deterministic=True)
        db.create_scalar_function("checksum", _event_checksum, 4, deterministic=True)
        for migration in MIGRATIONS[version:]:
            db.execute(migration)

        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(
            "INSERT INTO meta VALUES('schema_version', ?1) ON CONFLICT DO UPDATE SET value = ?1",
            (str(len(MIGRATIONS)),),
        )
        db.execute("INSERT INTO meta VALUES('journal_id', ?) ON CONFLICT DO NOTHING", (new_id(),))
        journal_id = _journal_id(db)
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")

    return journal_id


def refuse_others(db: apsw.Connection, where: str) -> None:
    """Look whose the file is, before anything is written to it.

    Raises:
        JournalVersionError, JournalError: as :func:`migrate`.
    """
    _version(db, where)


def identify(db: apsw.Connection, where: str) -> str:
    """Give the journal_id of a file that is only read from.

    Raises:
        JournalVersionError, JournalError: as :func:`migrate`, and for an older version.
    """
    version = _version(db, where)
    if version != len(MIGRATIONS):
        raise JournalVersionError(
            f"{where} is damaged and has schema version {version}, this server reads {len(MIGRATIONS)}: start the server "
            "that wrote it"
        )

    return _journal_id(db)


def _journal_id(db: apsw.Connection) -> str:
    return str(db.execute("SELECT value FROM meta WHERE name = 'journal_id'").get)


def _ended_at(*values: Any) -> int:
    """Give when a plan ended, of the row that a server wrote which did not note it."""
    body, create_time = values
    end_time = decode(Plan, body).end_time
    return int(create_time) if end_time is None else microseconds(end_time)


def _event_checksum(*values: Any) -> int:
    return checksum(*values)


def _version(db: apsw.Connection, where: str) -> int:
    if not db.execute("SELECT count(*) FROM sqlite_schema").get:
        return 0

    if db.execute("PRAGMA application_id").get != APPLICATION_ID:
        raise JournalError(f"{where} is another program's database, not a journal; choose another data directory")

    version = int(str(db.execute("SELECT value FROM meta WHERE name = 'schema_version'").get))
    if version > len(MIGRATIONS):
        raise JournalVersionError(
            f"{where} has schema version {version} and this server supports up to {len(MIGRATIONS)}: "
            "start the newer version of the server that wrote it, or choose another data directory"
        )

    return version
