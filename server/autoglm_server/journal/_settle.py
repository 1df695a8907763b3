"""Telling an append what became of it."""

from __future__ import annotations

import asyncio

from autoglm_server.journal.journal import Append, JournalError


def settle(append: Append, refusal: JournalError | None) -> None:
    """Call ``append.settled``. A boundary: a fault in one plan's callback must not leave the others of a commit waiting."""
    try:
        append.settled(refusal)
    except Exception as error:  # noqa: BLE001 - told to the loop's handler, which logs it
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"settling an append to plan {append.plan_id} failed", "exception": error}
        )
