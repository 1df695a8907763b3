"""What can go wrong with a request, by what it means for the request's effect.

::

    HttpError
    ├── RefusedError       nothing was sent: the URL, its host or an address of it is not allowed
    ├── UnreachableError   nothing was sent: the host has no address, or cannot be connected to
    ├── LostError          it was sent, wholly or in part, and no answer came
    ├── TooLargeError      it was answered, with more than allowed
    └── GarbledError       it was answered, with what cannot be decoded
"""

from __future__ import annotations


class HttpError(Exception):
    """A request came to nothing; the message is a sentence without the URL's query, the headers or the body."""


class RefusedError(HttpError):
    """The request may not be made; nothing was sent, and another attempt meets the same."""


class UnreachableError(HttpError):
    """Nobody could be connected to; nothing was sent."""


class LostError(HttpError):
    """The connection broke after the request had begun to leave."""


class TooLargeError(HttpError):
    """The answer is larger than allowed; the rest of it was not read."""


class GarbledError(HttpError):
    """The answer cannot be decoded."""
