"""What goes wrong with a model, as failures that a person understands, and that never hold a key.

``retryable`` says whether making the round again may help; the scheduler does that, with backoff.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from autoglm.model import DOMAIN, ErrorReason, Failure

if TYPE_CHECKING:
    from pydantic_ai.exceptions import ModelAPIError

TOLD_CHARS_MAX = 300
"""How much is told of what a server says of its own failure."""
RETRY_AFTER_MAX = timedelta(hours=1)

_SECRET = re.compile(
    r"(?i)\b(?:authorization\b[\"']?\s*[:=]\s*[\"']?)?(?:bearer|basic)\s+\S+|\b(?:sk|pk|rk|key|xai|gsk|hf|ghp|glpat|AIza)[-_][\w*.-]{6,}|\bAIza[\w-]{10,}"
    r"|\b(?:api[-_ ]?key|token|secret|password|authorization)\b[\"']?\s*[:=]\s*[\"']?[^\s\"',;)}]+"
    r"|\b[A-Za-z0-9*_-]{32,}(?:\.[A-Za-z0-9_-]+)*"
)
"""What looks like a key. Too much is masked rather than too little: these texts are for people."""


def failed(message: str, reason: ErrorReason = ErrorReason.PLANNER_FAILED, *, retryable: bool = False) -> Failure:
    """Make a failure of the planner."""
    return Failure(reason.name, DOMAIN, message, retryable=retryable)


def unavailable(message: str) -> Failure:
    """Make the failure of a model that cannot be asked at all; ``message`` says what to set."""
    return failed(message, ErrorReason.PLANNER_UNAVAILABLE)


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """Take every secret out of a text: those given, and what looks like one."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")

    return _SECRET.sub("…", text)


def of_api(error: ModelAPIError, model: str, key_source: str, secrets: Iterable[str]) -> Failure:
    """Turn what the model's library raised into a failure.

    Args:
        error: what was raised.
        model: the model as the settings name it.
        key_source: where the key came from, such as ``OPENAI_API_KEY``; empty if there is none.
        secrets: texts that must not be told, the key first.
    """
    from pydantic_ai import exceptions  # noqa: PLC0415 - only who has a model pays for it

    said = told(error, secrets)
    match error:
        case exceptions.ModelAuthenticationError():
            whose = f"the key in {key_source}" if key_source else "a request without a key"
            return unavailable(
                f"{model} refused {whose}{_status(error)}: check the key, and that it may use this model"
            )
        case exceptions.ModelQuotaExceededError():
            return unavailable(f"the account of {model} has no quota or credit left{_status(error)}{said}")
        case exceptions.ModelNotFoundError():
            return unavailable(
                f"{model} is not there{_status(error)}: check the model's name and planner.base_url{said}"
            )
        case exceptions.ModelContextWindowExceededError():
            message = f"the prompt is too long for {model}{_status(error)}: lower planner.max_prompt_tokens{said}"
            return failed(message)
        case exceptions.ModelRequestRejectedError():
            message = (
                f"{model} refused the request{_status(error)}{said}; "
                "if it does not know how the plan is asked for, set planner.profile to tool or text"
            )
            return failed(message)
        case exceptions.ModelRateLimitError():
            return _busy(error, f"{model} answers no more requests for now{_status(error)}{said}")
        case exceptions.ModelUnavailableError() | exceptions.ModelServerError():
            return _busy(error, f"{model} failed on its side{_status(error)}{said}")
        case exceptions.ModelTimeoutError() | exceptions.ModelRequestTimeout():
            return failed(f"{model} took too long to say anything", ErrorReason.PLANNER_TIMEOUT, retryable=True)
        case exceptions.ModelConnectionError(phase="connect" | "pool"):
            message = f"{model} cannot be reached: is the server running, and is planner.base_url right?"
            return failed(message, ErrorReason.PLANNER_UNAVAILABLE, retryable=True)
        case exceptions.ModelConnectionError():
            return failed(f"the connection to {model} was lost in the middle", retryable=True)
        case _:
            return failed(f"{model} gave something that cannot be read{said}", retryable=True)


def _busy(error: ModelAPIError, message: str) -> Failure:
    after = None if error.retry_after is None else min(timedelta(seconds=max(0.0, error.retry_after)), RETRY_AFTER_MAX)
    return Failure(
        ErrorReason.PLANNER_UNAVAILABLE.name,
        DOMAIN,
        message,
        retryable=True,
        retry_after=after,
        metadata=_numbers(error),
    )


def _numbers(error: ModelAPIError) -> Mapping[str, str]:
    status = getattr(error, "status_code", None)
    return {"http_status": str(status)} if isinstance(status, int) else {}


def _status(error: ModelAPIError) -> str:
    status = getattr(error, "status_code", None)
    return f" (HTTP {status})" if isinstance(status, int) else ""


def told(error: ModelAPIError, secrets: Iterable[str]) -> str:
    """Give what the server said of its failure, masked and short, to be put behind a sentence."""
    text = " ".join(masked(_said(error.body)[:4000], secrets).split())
    shown = text if len(text) <= TOLD_CHARS_MAX else f"{text[: TOLD_CHARS_MAX - 1]}…"
    return f"; it says: {shown}" if shown else ""


def _said(body: object) -> str:
    """Find the message in the shapes that servers give: ``{error: {message}}``, ``{message}``, ``{error}``, ``{detail}``."""
    for _ in range(4):
        if isinstance(body, str):
            return body

        if isinstance(body, list) and body:
            body = body[0]
        elif isinstance(body, Mapping):
            body = next((body[key] for key in ("error", "message", "detail", "msg") if body.get(key)), "")
        else:
            return ""

    return ""
