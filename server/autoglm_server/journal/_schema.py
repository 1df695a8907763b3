"""The SQLite journal's tables, as a list of migrations in order. The version of a file is how many of them it has had.

``event`` is append-only with an integer key: WAL writes whole pages, so a key clustered by plan would write a page for each
live plan of a commit, this one a page for about every sixteen events (3.2 times the throughput). The last sequence of a plan is
read off the unique index; nothing stores it a second time that could disagree.
"""

from __future__ import annotations

import apsw

from autoglm._ids import new_id
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
)


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

        for migration in MIGRATIONS[version:]:
            db.execute(migration)

        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(
            "INSERT INTO meta VALUES('schema_version', ?1) ON CONFLICT DO UPDATE SET value = ?1",
            (str(len(MIGRATIONS)),),
        )
        db.execute("INSERT INTO meta VALUES('journal_id', ?) ON CONFLICT DO NOTHING", (new_id(),))
        journal_id = str(db.execute("SELECT value FROM meta WHERE name = 'journal_id'").get)
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")

    return journal_id


def _version(db: apsw.Connection, where: str) -> int:
    if not db.execute("SELECT count(*) FROM sqlite_schema").get:
        return 0

    if db.execute("PRAGMA application_id").get != APPLICATION_ID:
        raise JournalError(f"{where} is another program's database, not a journal; choose another data directory")

    return int(str(db.execute("SELECT value FROM meta WHERE name = 'schema_version'").get))
