"""Page tokens: where a listing goes on, opaque to callers, and refused under other filters."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Final

from autoglm.errors import InvalidRequestError
from autoglm.model import Violation

if TYPE_CHECKING:
    from google.protobuf.message import Message

SIZE_DEFAULT: Final = 50
SIZE_MAX: Final = 500


def page_size(asked: int) -> int:
    """Give the size of a page: 0 is the default, and more than the maximum is the maximum."""
    return min(asked or SIZE_DEFAULT, SIZE_MAX)


def filters_of(request: Message) -> str:
    """Give what a token is bound to: the request without its page."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("page_size")
    bare.ClearField("page_token")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()[:16]


def token(place: str, filters: str) -> str:
    """Give the token of a place in a listing."""
    return base64.urlsafe_b64encode(f"{filters}.{place}".encode()).decode().rstrip("=")


def place_of(text: str, filters: str) -> str:
    """Give the place that a token names; empty for none.

    Raises:
        InvalidRequestError: it is not one of ours, or belongs to other filters.
    """
    if not text:
        return ""

    try:
        known, _, place = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(".")
    except ValueError:
        known, place = "", ""

    if known != filters or not place:
        raise malformed()

    return place


def malformed() -> InvalidRequestError:
    """Refuse a token."""
    description = "is not a next_page_token of this listing with the same filters; begin with an empty one"
    return InvalidRequestError.of([Violation("page_token", description, "MALFORMED")])
