"""What the provider asks of a way to reach a server, and the errors that a way adds to those of the protocol."""

from __future__ import annotations

import enum
import secrets
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from mcp.client import Transport

MESSAGE_BYTES_MAX: Final = 4 << 20
"""How long one message of a server may be: room for an output of 1 MiB as text and as structure, and no more."""

_MARK: Final = secrets.token_hex(8)
"""Tells our own errors from what a server sends: it cannot know this."""

CODE: Final = -32003
"""The code of our own errors; which they are stands in their data."""


class Trouble(enum.StrEnum):
    """What a way to a server adds to the protocol's errors."""

    UNREACHABLE = "UNREACHABLE"
    """The message was not sent: nothing happened."""
    LOST = "LOST"
    """It was sent, and the connection ended before the answer."""
    TOO_LARGE = "TOO_LARGE"
    """The answer came, and was longer than any that is taken."""


def error_of(trouble: Trouble, message: str) -> dict[str, Any]:
    """Give the JSON-RPC error that tells of ``trouble``."""
    return {"code": CODE, "message": message, "data": {"mark": _MARK, "trouble": trouble.value}}


def trouble_of(code: int, data: object) -> Trouble | None:
    """Give the trouble that an error tells of; ``None`` when it is the server's own."""
    if code == CODE and isinstance(data, dict) and data.get("mark") == _MARK:
        return Trouble(str(data["trouble"]))

    return None


class Link(Protocol):
    """One connection, from its start to its end; used once."""

    @property
    def lost(self) -> bool:
        """Whether it has ended by itself."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether the server is there exactly as long as the connection is. If not, it must be looked after."""
        ...

    def open(self, news: Any) -> AbstractAsyncContextManager[Any]:
        """Connect; ``news()`` is called in the loop when the connection ended or may have.

        Raises:
            OSError, ValueError: it cannot be made.
        """
        ...

    def end(self) -> str:
        """Tell what is known of its end, in a few words, for the log."""
        ...


__all__ = ["CODE", "MESSAGE_BYTES_MAX", "Link", "Transport", "Trouble", "error_of", "trouble_of"]
