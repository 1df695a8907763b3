"""What a planner is: given a request and all that is known so far, it adds steps, or answers.

For authors of plugins that bring a planner (:mod:`autoglm.plugin`), and for the server itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from autoglm._dataclasses import dataclass
from autoglm.errors import AutoglmError
from autoglm.model import (
    ContextMessage,
    Failure,
    Json,
    Plan,
    PlanOptions,
    StepDraft,
    StepRejected,
    Tool,
    Usage,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

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


@dataclass(frozen=True, slots=True)
class RoundView:
    """What a planner sees: the plan as it stands, the tools it may use, and what is left to it.

    ``plan.steps`` carry results and failures. ``round`` counts from 1, ``attempt`` of this round from 1; ``rejected`` are
    the drafts refused so far that the planner has not been told of. ``steps_left`` is how many steps may still be added
    (0 when tools are disabled); in the ``last`` round a planner must answer. ``context`` is what came before the request,
    oldest first: earlier plans as they are now, without those that are gone, and messages.
    """

    plan: Plan
    round: int
    attempt: int
    tools: Sequence[Tool]
    rejected: Sequence[StepRejected]
    steps_left: int
    last: bool
    context: Sequence[Plan | ContextMessage] = ()


@dataclass(frozen=True, slots=True)
class AnswerText:
    """A piece of the answer; pieces are joined as they come. Beside steps it is a note, never an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerOutput:
    """The structured answer, if there is one."""

    output: Json


@dataclass(frozen=True, slots=True)
class Note:
    """Something kept in the journal for people, never shown as the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class UsageMeter:
    """A way to learn what the round has used so far, for planners that know in full only at its end.

    It is read when the round is cut or fails before a Usage was given, and counts then, marked as an estimate; a Usage
    that comes after it counts instead. So a budget cannot be escaped by cutting rounds.
    """

    read: Callable[[], Usage]


RoundItem: TypeAlias = "StepDraft | StepRejected | AnswerText | AnswerOutput | Note | Usage | UsageMeter"
"""What a round gives, one at a time, as soon as it is complete. A StepRejected is a draft whose very form was wrong."""


class PlannerError(AutoglmError):
    """A round failed. ``failure.retryable`` says that making the round again may help."""

    def __init__(self, failure: Failure) -> None:
        """Carry the failure as data."""
        super().__init__(failure.message, reason=failure.reason, violations=failure.violations, domain=failure.domain)
        self.failure = failure


class Planner(Protocol):
    """Makes the rounds of plans. One instance serves all plans at once and keeps nothing of any of them."""

    @property
    def name(self) -> str:
        """What ``PlanOptions.planner`` calls it."""
        ...

    @property
    def revises(self) -> bool:
        """Whether it can find another way when a step failed. If not, such a plan ends FAILED with its answer."""
        ...

    def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        """Make one round.

        Called by the scheduler in a task of the plan, which it may cancel at any time. A draft that is yielded may start
        at once, while the round goes on. Drafts refer only to steps before them.

        Raises:
            PlannerError: the round failed, as data.
        """
        ...


@runtime_checkable
class OptionsChecker(Protocol):
    """A planner that can tell, before a plan is created, that it could not plan with its options."""

    def check(self, options: PlanOptions) -> list[Violation]:
        """Give every fault of the options; nothing may be called or waited for."""
        ...
