"""The limits and times the scheduler keeps to; the settings fill them in."""

from __future__ import annotations

from autoglm._dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """A bound on everything; sizes in bytes, times in seconds."""

    steps: int = 10_000
    """Given steps in one plan."""
    open_plans: int = 100_000
    """Plans that have not ended."""
    running_plans: int = 1_000
    """Plans that make progress at once; above it plans are QUEUED, fair per principal."""
    running_calls: int = 256
    """Tool calls under way at once, over all plans."""
    taken_up_first: int = 128
    """Plans that are taken up before the server serves; families always are."""
    events: int = 100_000
    """Events of one plan; its end still fits."""
    event_bytes: int = 2 << 20
    """One serialised event."""
    arguments_bytes: int = 256 << 10
    """The arguments of one step, as canonical JSON."""
    journaled_arguments_bytes: int = 64 << 10
    """Resolved arguments above this are journaled as their digest alone."""
    answer_bytes: int = 1 << 20
    """The answer of a plan."""
    step_timeout: float = 60.0
    """The time limit of one attempt where neither the draft nor the tool says one."""
    round_timeout: float = 120.0
    """The time limit of one round."""
    cancel_grace: float = 10.0
    """How long a call that was told to stop may take."""
    interruptions: int = 3
    """How often in a row a call may be interrupted before it is not made again."""
    round_attempts: int = 3
    """How often a round that failed retryably is made in all."""
    plan_depth: int = 3
    """How many plans deep sub-plans may be nested; 0 is no sub-plan at all."""
    child_grace: float = 5.0
    """How much longer than a call a sub-plan may take to stop: its own calls have ``cancel_grace``."""
    run_ahead: int = 256
    """How many events of a plan may not be durable yet when a READ_ONLY call still starts."""
