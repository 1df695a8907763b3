"""Failures of calls, and how text that comes from tools is made fit to travel."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from autoglm.model import DOMAIN, Effect, ErrorReason, Failure
from autoglm_server.tools.tool import ToolCallError

MESSAGE_MAX: Final = 1024
"""How long a failure's message may be, in characters."""
_METADATA_MAX: Final = 32
_REASON_MAX: Final = 64
_RETRY_AFTER_MAX: Final = timedelta(days=30)
"""As long as the longest plan; a longer one could not even be added to a date."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")

# These say that the function, or what it was given, is wrong: the same call would fail in the same way.
_DETERMINISTIC = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)


def tool_error(error: BaseException, effect: Effect) -> Failure:
    """Give the failure of a function that raised ``error``: its class and message, never its traceback.

    The function has ended, so the outcome is known. Another attempt is promised to be safe where the effect allows one,
    and to help unless the error is one that a second call would meet as well.
    """
    return raised(type(error).__name__, text_of(error), effect, deterministic=is_deterministic(error))


def raised(kind: str, text: str, effect: Effect, *, deterministic: bool) -> Failure:
    """Give the failure TOOL_ERROR of a function that raised an exception of the class ``kind``."""
    message = one_line(f"{kind}: {text}" if text else kind, MESSAGE_MAX)
    repeatable = effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
    return Failure(ErrorReason.TOOL_ERROR.name, DOMAIN, message, retryable=repeatable and not deterministic)


def invalid_output(tool: str, error: str) -> ToolCallError:
    """Give the failure of a call that ended with something that is not JSON. Its effect has happened."""
    message = one_line(f"{tool} ended, but its output cannot be used: {error}", MESSAGE_MAX)
    return ToolCallError(Failure(ErrorReason.INVALID_OUTPUT.name, DOMAIN, message))


def is_deterministic(error: BaseException) -> bool:
    """Whether a second call would meet the error as well."""
    return isinstance(error, _DETERMINISTIC)


def clean(failure: Failure) -> Failure:
    """Give a failure from a provider, bounded, without characters that disturb a terminal, a log or the wire."""
    return dataclasses.replace(
        failure,
        reason=one_line(failure.reason, _REASON_MAX),
        message=one_line(failure.message, MESSAGE_MAX),
        metadata=_bounded(failure.metadata),
        retry_after=None if failure.retry_after is None else min(failure.retry_after, _RETRY_AFTER_MAX),
    )


def one_line(text: str, length_max: int) -> str:
    """Give ``text`` as one line of at most ``length_max`` characters, without control characters."""
    line = _CONTROL.sub(" ", encodable(text[: length_max * 2])).strip()
    return line if len(line) <= length_max else f"{line[: length_max - 1]}…"


def encodable(text: str) -> str:
    """Give ``text`` with every half of a surrogate pair replaced, which UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode()


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        one_line(str(key), _REASON_MAX): one_line(str(value), MESSAGE_MAX)
        for key, value in list(metadata.items())[:_METADATA_MAX]
    }


def text_of(error: BaseException) -> str:
    """Give an exception's message."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # an exception's own __str__ is foreign code as well
        return ""
