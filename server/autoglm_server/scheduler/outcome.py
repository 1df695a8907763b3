"""What the end of an attempt means: a pure function from what came back to the fact that is journaled."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from autoglm.model import (
    DOMAIN,
    Effect,
    ErrorReason,
    Failure,
    RetryPolicy,
    StepCancelled,
    StepFailed,
    StepRetryScheduled,
    StepSucceeded,
    ToolResult,
)
from autoglm_server.scheduler.decide import (
    AskPerson,
    changed_tool,
    changes_matter,
    may_have_taken_effect,
    unknown_outcome,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from autoglm.fold import StepFold
    from autoglm_server.scheduler.state import State


class Stopped(enum.Enum):
    """How a call ended that was told to stop."""

    BEFORE_IT_BEGAN = enum.auto()
    STOPPED = enum.auto()
    ABANDONED = enum.auto()


Outcome: TypeAlias = ToolResult | Failure | Stopped
"""What an attempt came to."""

Judgement: TypeAlias = StepSucceeded | StepFailed | StepRetryScheduled | StepCancelled | AskPerson
"""The facts that end an attempt, or that a person must say how it ended."""


def judge(state: State, step_id: str, outcome: Outcome, now: datetime, jitter: Callable[[], float]) -> Judgement:
    """Turn an outcome into a fact. Stop goes before unknown outcome, which goes before retry.

    Args:
        state: the plan's state.
        step_id: the step whose attempt ended.
        outcome: what came back.
        now: the event's wall-clock time; a retry's due time counts from it.
        jitter: gives a number from 0 to 1.
    """
    step = state.plan.steps[step_id]
    match outcome:
        case ToolResult():
            return StepSucceeded(outcome)
        case Stopped():
            unknown = outcome is not Stopped.BEFORE_IT_BEGAN and may_have_taken_effect(step)
            return StepCancelled(outcome_unknown=unknown, abandoned=outcome is Stopped.ABANDONED)
        case Failure():
            return _failed(state, step_id, step, outcome, now, jitter)


def _failed(
    state: State, step_id: str, step: StepFold, failure: Failure, now: datetime, jitter: Callable[[], float]
) -> Judgement:
    if state.plan.stopping is not None:
        return StepFailed(failure)

    repeatable = step.added.effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)
    if failure.outcome_unknown and not repeatable:
        command = unknown_outcome(state, step_id, failure.message)
        return command if isinstance(command, AskPerson) else StepFailed(command.failure)

    if _is_another_tool(failure) and changes_matter(step):
        return changed_tool(step)

    policy = step.added.retry_policy or RetryPolicy(max_attempts=1)
    used = state.failures.get(step_id, 0) + 1
    if used >= policy.max_attempts or not may_be_retried(failure, repeatable=repeatable):
        return StepFailed(failure)

    delay = backoff(policy, used, failure.retry_after, jitter)
    return StepRetryScheduled(failure, delay, now + delay)


def _is_another_tool(failure: Failure) -> bool:
    """Whether a call was not made, because its provider found that the tool is not the one that was meant."""
    changed = failure.domain == DOMAIN and failure.reason == ErrorReason.TOOL_CHANGED.name
    return changed and not failure.outcome_unknown


def may_be_retried(failure: Failure, *, repeatable: bool) -> bool:
    """Whether another attempt is safe and may help.

    What the tool calls retryable is. A repeatable call is also made again when nobody knows what became of it.
    """
    return failure.retryable or (repeatable and failure.outcome_unknown)


def backoff(
    policy: RetryPolicy, failures: int, retry_after: timedelta | None, jitter: Callable[[], float]
) -> timedelta:
    """Give the delay after the n-th failure: exponential with full jitter, never less than ``retry_after``."""
    initial = policy.initial_backoff or timedelta(0)
    most = policy.max_backoff or initial
    try:
        grown = initial.total_seconds() * max(1.0, policy.backoff_multiplier) ** (failures - 1)
    except OverflowError:
        grown = most.total_seconds()

    delay = timedelta(seconds=min(most.total_seconds(), grown) * jitter())
    return max(delay, retry_after) if retry_after is not None else delay
