"""The SQLite journal's reads: each one statement that gives one value, so that a busy loop cannot starve it row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import apsw

from autoglm.model import PlanState
from autoglm_server.journal._checksum import check
from autoglm_server.journal._commit import EPOCH, LAST_POSITION, REMOVED_POSITION, mark, microseconds
from autoglm_server.journal._paging import PAGE_BYTES_MAX, make_token, page_size, read_token
from autoglm_server.journal.journal import EventsRemovedError, PlanPage, PlanQuery, PlanRow, Record

# The sizes are summed before a body is touched (length() reads the row's header alone); the first one always fits.
_READ = """
    WITH page AS MATERIALIZED (
        SELECT id, sequence, length(body) AS size FROM event
        WHERE plan = (SELECT key FROM plan WHERE id = ?1 AND kept = 2) AND sequence > ?2 ORDER BY sequence LIMIT ?3
    ), summed AS (SELECT id, sequence, size, sum(size) OVER (ORDER BY sequence) AS total FROM page)
    SELECT (SELECT compacted FROM plan WHERE id = ?1),
        group_concat(event.id || ' ' || event.crc || ' ' || hex(event.body), ' ' ORDER BY summed.sequence)
    FROM summed CROSS JOIN event ON event.id = summed.id WHERE total <= ?4 OR total = size
"""
_STARTS = """
    FROM carray(?1) AS wanted CROSS JOIN plan ON plan.id = wanted.value AND plan.kept = 2
    CROSS JOIN event ON event.plan = plan.key AND event.sequence <= ?2
"""
_STARTS_SIZE = f"SELECT coalesce(sum(length(event.body)), 0) {_STARTS}"
_READ_STARTS = f"""
    SELECT group_concat(
        plan.id || ' ' || event.id || ' ' || event.crc || ' ' || hex(event.body), ' ' ORDER BY plan.key, event.sequence)
    {_STARTS}
"""
_READ_ALL = """
    WITH page AS MATERIALIZED (
        SELECT event.id AS id, length(event.body) AS size FROM event CROSS JOIN plan ON plan.key = event.plan
        WHERE event.id > ?1 AND plan.kept = 2 ORDER BY event.id LIMIT ?2
    ), summed AS (SELECT id, size, sum(size) OVER (ORDER BY id) AS total FROM page)
    SELECT json_group_array(json_array(event.id, plan.id, event.sequence, event.crc, hex(event.body)) ORDER BY event.id)
    FROM summed CROSS JOIN event ON event.id = summed.id CROSS JOIN plan ON plan.key = event.plan
    WHERE total <= ?3 OR total = size
"""
SEARCHED_MAX = 10_000
"""Plans that a page is looked for in; it ends there, so that nobody else's read waits for all plans to be looked at."""

_ROW = """json_array(plan.key, plan.id, plan.tenant, plan.principal, plan.state, plan.labels, plan.context_id, plan.parent,
    plan.create_time, hex(plan.body), plan.end_time)"""


def read(db: apsw.Connection, plan_id: str, after_sequence: int, limit: int, bytes_max: int) -> list[bytes]:
    compacted, found = db.execute(_READ, (plan_id, after_sequence, limit, bytes_max)).get
    if compacted is not None and after_sequence < compacted:
        raise EventsRemovedError(plan_id, compacted)

    if not found:
        return []

    parts = str(found).split(" ")
    events = zip(parts[0::3], parts[1::3], parts[2::3], strict=True)
    return [
        check(plan_id, sequence, int(position), bytes.fromhex(body), int(crc))
        for sequence, (position, crc, body) in enumerate(events, after_sequence + 1)
    ]


def read_starts(db: apsw.Connection, plan_ids: Sequence[str], limit: int, bytes_max: int) -> list[list[bytes]]:
    """Read the first events of plans by one statement, which is how it costs little; of those that have much, one by one."""
    if not plan_ids:
        return []  # an array of nothing cannot be bound

    wanted = (apsw.carray(tuple(plan_ids)), limit)
    starts: dict[str, list[bytes]] = {plan_id: [] for plan_id in plan_ids}
    if int(db.execute(_STARTS_SIZE, wanted).get) <= bytes_max:
        parts = str(db.execute(_READ_STARTS, wanted).get or "").split(" ")
        for plan_id, position, crc, body in zip(parts[0::4], parts[1::4], parts[2::4], parts[3::4], strict=False):
            start = starts[plan_id]
            start.append(check(plan_id, len(start) + 1, int(position), bytes.fromhex(body), int(crc)))

    # One that has none here has more than fits, or is not there, or is no longer.
    return [starts[plan_id] or read(db, plan_id, 0, limit, bytes_max) for plan_id in plan_ids]


def read_all(db: apsw.Connection, after_position: int, limit: int, bytes_max: int) -> list[Record]:
    found = json.loads(str(db.execute(_READ_ALL, (after_position, limit, bytes_max)).get))
    return [
        Record(position, plan_id, sequence, check(plan_id, sequence, position, bytes.fromhex(body), crc))
        for position, plan_id, sequence, crc, body in found
    ]


def last_sequence(db: apsw.Connection, plan_id: str) -> int | None:
    found = db.execute(
        "SELECT max(compacted, coalesce((SELECT max(sequence) FROM event WHERE plan = key), 0)) FROM plan WHERE id = ?",
        (plan_id,),
    ).get
    return None if found is None else int(found)


def last_position(db: apsw.Connection) -> int:
    return max(int(db.execute("SELECT coalesce(max(id), 0) FROM event").get), mark(db, LAST_POSITION))


def removed_position(db: apsw.Connection) -> int:
    return mark(db, REMOVED_POSITION)


def open_plans(db: apsw.Connection) -> list[str]:
    found = db.execute("SELECT json_group_array(id ORDER BY key) FROM plan WHERE state < 6").get
    return [str(plan_id) for plan_id in json.loads(str(found))]


def open_children(db: apsw.Connection) -> dict[str, str]:
    found = db.execute("SELECT json_group_object(id, parent) FROM plan WHERE state < 6 AND parent <> ''").get
    parents: dict[str, str] = json.loads(str(found))
    return parents


def get_row(db: apsw.Connection, plan_id: str) -> PlanRow | None:
    found = db.execute(f"SELECT {_ROW} FROM plan WHERE id = ?", (plan_id,)).get  # noqa: S608 - a constant
    return None if found is None else _row(json.loads(str(found)))


def find_request(db: apsw.Connection, tenant: str, principal: str, request_id: str) -> tuple[str, str] | None:
    found = db.execute(
        """SELECT json_array(plan.id, request.digest) FROM request JOIN plan ON plan.key = request.plan
        WHERE request.tenant = ? AND request.principal = ? AND request.request_id = ?""",
        (tenant, principal, request_id),
    ).get
    if found is None:
        return None

    plan_id, digest = json.loads(str(found))
    return plan_id, digest


def list_rows(db: apsw.Connection, query: PlanQuery) -> PlanPage:
    source, key, conditions, values = _filters(query)
    rest = "NULL"
    if _is_search(query):
        end = f"(coalesce(:last_key - 1, (SELECT max(key) FROM plan)) - {SEARCHED_MAX})"  # noqa: S608
        conditions.append(f"plan.key > {end}")
        rest = f"(SELECT max(key) FROM plan WHERE key <= {end})"  # noqa: S608

    where = " AND ".join(conditions) or "true"
    size = page_size(query)
    found = db.execute(
        # Only constants are put together here; what comes from the query is bound.
        f"""
        WITH page AS MATERIALIZED (
            SELECT {key} AS key, length(plan.body) AS size FROM {source} WHERE {where} ORDER BY {key} DESC LIMIT {size + 1}
        ), summed AS (SELECT key, size, sum(size) OVER (ORDER BY key DESC) AS total FROM page)
        SELECT json_array((SELECT count(*) FROM page), json_group_array({_ROW} ORDER BY plan.key DESC), {rest})
        FROM (SELECT * FROM summed ORDER BY key DESC LIMIT {size}) AS fit CROSS JOIN plan ON plan.key = fit.key
        WHERE total <= {PAGE_BYTES_MAX} OR total = size
        """,  # noqa: S608
        values,
    ).get
    matching, rows, next_key = json.loads(str(found))
    last_key = rows[-1][0] if len(rows) < matching else None if next_key is None else next_key + 1
    token = "" if last_key is None else make_token(query, last_key)
    return PlanPage([_row(row) for row in rows], token)


def _is_search(query: PlanQuery) -> bool:
    """Whether plans must be looked at one after the other, as no index leads to those that fit."""
    indexed = query.labels or query.context_id or query.parent_plan_id
    ended = any(state.terminal for state in query.states)
    timed = query.created_after is not None or query.created_before is not None
    return not indexed and (ended or (timed and not query.states))


def _filters(query: PlanQuery) -> tuple[str, str, list[str], dict[str, Any]]:
    """Give where to look, the column with the plan's key there, the conditions, and the values they are bound to."""
    source, key = "plan", "plan.key"
    conditions: list[str] = []
    values: dict[str, Any] = {}

    def add(condition: str, **bound: Any) -> None:
        conditions.append(condition)
        values.update(bound)

    for number, (name, value) in enumerate(sorted(query.labels.items())):
        condition = f"name = :name{number} AND value = :value{number}"
        bound = {f"name{number}": name, f"value{number}": value}
        if number == 0:  # the index of the first label gives the plans newest first; the others are looked up
            source, key = "label CROSS JOIN plan ON plan.key = label.plan", "label.plan"
            add(f"label.{condition.replace('AND value', 'AND label.value')}", **bound)
        else:
            add(f"EXISTS (SELECT 1 FROM label AS other WHERE other.plan = plan.key AND {condition})", **bound)  # noqa: S608

    last_key = values["last_key"] = read_token(query)
    if last_key is not None:
        add(f"{key} < :last_key")

    if query.tenant:
        add("plan.tenant = :tenant", tenant=query.tenant)

    if query.states:
        add(f"plan.state IN ({', '.join(str(int(state)) for state in sorted(query.states))})")
        if not any(state.terminal for state in query.states):
            add("plan.state < 6")  # says to the planner that the index of open plans will do

    if query.context_id:
        add("plan.context_id = :context_id AND plan.context_id <> ''", context_id=query.context_id)

    if query.parent_plan_id:
        add("plan.parent = :parent AND plan.parent <> ''", parent=query.parent_plan_id)

    if query.created_after is not None:
        add("plan.create_time >= :after", after=microseconds(query.created_after))

    if query.created_before is not None:
        add("plan.create_time < :before", before=microseconds(query.created_before))

    return source, key, conditions, values


def _row(found: list[Any]) -> PlanRow:
    _, plan_id, tenant, principal, state, labels, context_id, parent, create_time, body, end_time = found
    return PlanRow(
        plan_id=plan_id,
        tenant=tenant,
        principal=principal,
        state=PlanState(state),
        labels=json.loads(labels),
        context_id=context_id,
        parent_plan_id=parent,
        create_time=EPOCH + timedelta(microseconds=create_time),
        body=bytes.fromhex(body),
        end_time=None if end_time is None else EPOCH + timedelta(microseconds=end_time),
    )
