"""The SQLite journal's statements of retention: each call is a part of one short transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from zlib import crc32

import apsw

from autoglm_server.journal._commit import LAST_PLAN, LAST_POSITION, REMOVED_POSITION, microseconds
from autoglm_server.journal.journal import Compaction, Ended, JournalDamagedError

_ENDED = """
    WITH found AS MATERIALIZED (
        SELECT key, id, end_time, compacted FROM plan
        WHERE end_time IS NOT NULL AND kept = :kept AND end_time < :before AND (:kept <> 0 OR parent = '' OR NOT EXISTS (
            SELECT 1 FROM plan AS above WHERE above.id = plan.parent AND above.end_time IS NULL
        ))
        ORDER BY end_time, key LIMIT :limit
    )
    SELECT json_group_array(json_array(
        id,
        coalesce((SELECT max(sequence) FROM event WHERE plan = key), compacted),
        coalesce((SELECT event.id FROM event WHERE plan = key ORDER BY sequence LIMIT 1), 0),
        coalesce((SELECT event.id FROM event WHERE plan = key ORDER BY sequence DESC LIMIT 1), 0)
    ) ORDER BY end_time, key) FROM found
"""
_STAY = """
    SELECT count(*) FROM plan AS above CROSS JOIN plan AS below ON below.parent = above.id
    WHERE above.state < 6 AND below.parent <> '' AND +below.end_time IS NOT NULL AND +below.kept = 0
"""
"""Sub-plans without events of plans that have not ended. There are few of the latter, and CROSS and + let it begin with them."""
_COMPACT = """
    UPDATE plan SET kept = 1, compacted = :sequence
    WHERE id = :id AND kept = 2 AND end_time IS NOT NULL
        AND (SELECT max(sequence) FROM event WHERE plan = plan.key) = :sequence
    RETURNING key
"""
_NOTE = """
    INSERT INTO meta VALUES(?1, ?2)
    ON CONFLICT DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))
"""
_END_OF_TIME = (1 << 63) - 1


def ended_plans(db: apsw.Connection, before: datetime | None, limit: int, *, compacted: bool) -> list[Ended]:
    values = {
        "kept": 0 if compacted else 2,
        "before": _END_OF_TIME if before is None else microseconds(before),
        "limit": limit,
    }
    return [Ended(*found) for found in json.loads(str(db.execute(_ENDED, values).get))]


def count_ended(db: apsw.Connection, *, compacted: bool) -> int:
    kept = 0 if compacted else 2
    count = int(db.execute("SELECT count(*) FROM plan WHERE end_time IS NOT NULL AND kept = ?", (kept,)).get)
    return count - int(db.execute(_STAY).get) if compacted else count


def get_snapshot(db: apsw.Connection, plan_id: str) -> bytes | None:
    found = db.execute(
        "SELECT snapshot.body, snapshot.crc FROM snapshot JOIN plan ON plan.key = snapshot.plan WHERE plan.id = ?",
        (plan_id,),
    ).get
    if found is None:
        return None

    body, crc = found
    if snapshot_checksum(plan_id, body) != crc:
        raise JournalDamagedError(f"the snapshot of plan {plan_id} is not what was written: its checksum differs")

    return bytes(body)


def snapshot_checksum(plan_id: str, body: bytes) -> int:
    """Give the CRC-32 of a snapshot and its plan."""
    return crc32(body, crc32(plan_id.encode()))


def compact(db: apsw.Connection, compactions: Sequence[Compaction]) -> None:
    for compaction in compactions:
        key = db.execute(_COMPACT, {"id": compaction.plan_id, "sequence": compaction.sequence}).get
        if key is None:
            continue

        crc = snapshot_checksum(compaction.plan_id, compaction.snapshot)
        db.execute("INSERT INTO snapshot VALUES(?, ?, ?)", (key, compaction.snapshot, crc))
        last = db.execute("SELECT id FROM event WHERE plan = ? AND sequence = ?", (key, compaction.sequence)).get
        _note(db, REMOVED_POSITION, int(last))

    _note(db, LAST_POSITION, int(db.execute("SELECT coalesce(max(id), 0) FROM event").get))


def purge(db: apsw.Connection, limit: int) -> int:
    left = limit
    while left > 0:
        key = db.execute(
            "SELECT key FROM plan WHERE end_time IS NOT NULL AND kept = 1 ORDER BY end_time, key LIMIT 1"
        ).get
        if key is None:
            break

        db.execute(
            "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE plan = ? ORDER BY sequence LIMIT ?)", (key, left)
        )
        freed = db.changes()
        if freed < left or not db.execute("SELECT EXISTS (SELECT 1 FROM event WHERE plan = ?)", (key,)).get:
            db.execute("UPDATE plan SET kept = 0 WHERE key = ?", (key,))

        left -= freed

    return limit - left


def remove(db: apsw.Connection, plan_ids: Sequence[str]) -> list[str]:
    gone = []
    for plan_id in dict.fromkeys(plan_ids):
        key = db.execute("SELECT key FROM plan WHERE id = ? AND end_time IS NOT NULL AND kept = 0", (plan_id,)).get
        if key is None:
            continue

        _note(db, LAST_PLAN, int(key))
        for statement in (
            "DELETE FROM label WHERE plan = ?",
            "DELETE FROM request WHERE plan = ?",
            "DELETE FROM snapshot WHERE plan = ?",
            "DELETE FROM plan WHERE key = ?",
        ):
            db.execute(statement, (key,))

        gone.append(plan_id)

    return gone


def _note(db: apsw.Connection, name: str, value: int) -> None:
    """Note a number in ``meta``; it never goes back."""
    db.execute(_NOTE, (name, str(value)))
