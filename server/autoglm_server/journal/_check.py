"""What every driver refuses of an append before it looks at the store: faults of the caller, not of the plan's state."""

from __future__ import annotations

from autoglm_server.journal.journal import Append, JournalError


def fault_of(append: Append) -> JournalError | None:
    """Give what is wrong with the shape of an append, or None."""
    reason = _reason(append)
    if not reason:
        return None

    return JournalError(f"append to plan {append.plan_id!r} at sequence {append.first_sequence}: {reason}")


def _reason(append: Append) -> str:
    first = append.first_sequence == 1
    if append.first_sequence < 1 or append.epoch < 1:
        return f"sequences and epochs begin at 1, this epoch is {append.epoch}"

    if not append.bodies or not all(append.bodies):
        return "needs at least one event, and none may be empty"

    if first and append.row is None:
        return "the first append needs the plan's row"

    if append.row is not None and append.row.plan_id != append.plan_id:
        return f"the row is of plan {append.row.plan_id!r}"

    if append.request_key is not None and not first:
        return "a request key belongs to the first append alone"

    if first and "\0" in "".join(_texts(append)):
        return "a NUL character cannot be stored in text"

    return ""


def _texts(append: Append) -> list[str]:
    texts = [append.plan_id]
    if append.row is not None:
        row = append.row
        texts += [row.tenant, row.principal, row.context_id, row.parent_plan_id, *row.labels, *row.labels.values()]

    if append.request_key is not None:
        key = append.request_key
        texts += [key.tenant, key.principal, key.request_id, key.digest]

    return texts
