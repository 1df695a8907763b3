"""What a planner is, under the name that the server's own modules use; it stands in the SDK, where plugins find it."""

from __future__ import annotations

from autoglm.planner import (
    AnswerOutput,
    AnswerText,
    Note,
    OptionsChecker,
    Planner,
    PlannerError,
    RoundItem,
    RoundView,
    UsageMeter,
)

__all__ = [
    "AnswerOutput",
    "AnswerText",
    "Note",
    "OptionsChecker",
    "Planner",
    "PlannerError",
    "RoundItem",
    "RoundView",
    "UsageMeter",
]
