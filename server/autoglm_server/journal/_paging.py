"""Pages of ListPlans: how large, and the token of the next one. A token belongs to the query it was made for."""

from __future__ import annotations

import base64
import hashlib
import json

from autoglm_server.journal.journal import PlanQuery

PAGE_SIZE = 50
PAGE_SIZE_MAX = 500
PAGE_BYTES_MAX = 2 << 20
"""A page ends early when its bodies reach this, so that an answer stays below gRPC's limit; it has at least one row."""


def page_size(query: PlanQuery) -> int:
    """Give how many rows a page may have: 0 asks for the default, and more than the most is taken as the most."""
    return min(query.page_size, PAGE_SIZE_MAX) if query.page_size > 0 else PAGE_SIZE


def make_token(query: PlanQuery, last_key: int) -> str:
    """Make the token of the page after the row ``last_key``."""
    return base64.urlsafe_b64encode(f"{_digest(query)}.{last_key}".encode()).decode().rstrip("=")


def read_token(query: PlanQuery) -> int | None:
    """Give the key of the last row of the page before, or None for the first page.

    Raises:
        ValueError: the token is not one of ours, or belongs to another query.
    """
    token = query.page_token
    if not token:
        return None

    try:
        digest, _, key = (
            base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode().partition(".")
        )
        last_key = int(key)
    except ValueError:
        raise ValueError(
            f"page_token {token[:100]!r} is not one this server gave; ask without it for the first page"
        ) from None

    if digest != _digest(query):
        raise ValueError(
            "page_token belongs to other filters; repeat the filters of the page before, or ask without it"
        )

    return last_key


def _digest(query: PlanQuery) -> str:
    filters = [
        query.tenant,
        sorted(query.states),
        sorted(query.labels.items()),
        query.context_id,
        query.parent_plan_id,
        query.created_after and query.created_after.timestamp(),
        query.created_before and query.created_before.timestamp(),
    ]
    return hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]
