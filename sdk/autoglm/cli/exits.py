"""What the command line's exit status says, and how an error is told."""

from __future__ import annotations

import enum
from collections.abc import Iterator

from autoglm.cli.text import clean, duration, one_line
from autoglm.errors import (
    AutoglmError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    PlanCancelledError,
    PreconditionError,
    ToolFailedError,
    UnavailableError,
)
from autoglm.model import Failure, PlanState, Violation


class Exit(enum.IntEnum):
    """The exit status."""

    SUCCEEDED = 0
    """The plan succeeded, or the command did what it says."""
    FAILED = 1
    """The plan or the call failed, or the server refused."""
    USAGE = 2
    """Wrong usage or input: an option, a file, the id of a plan, the name of a tool."""
    CANCELLED = 3
    """The plan was cancelled."""
    UNREACHABLE = 4
    """The server cannot be reached, or does not answer in time."""
    INTERRUPTED = 130
    """Ctrl-C; the plan was left running."""
    CLOSED = 141
    """Who read the output stopped reading."""


class InputError(Exception):
    """What the user gave is wrong: each fault is a sentence with the fix."""

    def __init__(self, *faults: str) -> None:
        """Carry all faults."""
        super().__init__("; ".join(faults))
        self.faults = faults


def status_of_plan(state: PlanState) -> Exit:
    """Give the exit status of a finished plan."""
    return {PlanState.SUCCEEDED: Exit.SUCCEEDED, PlanState.CANCELLED: Exit.CANCELLED}.get(state, Exit.FAILED)


def status_of_error(error: AutoglmError) -> Exit:
    """Give the exit status of an error."""
    match error:
        case PlanCancelledError():
            return Exit.CANCELLED

        case InvalidRequestError() | NotFoundError() | ToolFailedError(domain="autoglm", reason="INVALID_ARGUMENTS"):
            return Exit.USAGE

        case PreconditionError(domain="autoglm", reason="SEQUENCE_AHEAD"):  # of --after
            return Exit.USAGE

        case UnavailableError() | DeadlineError():
            return Exit.UNREACHABLE

        case _:
            return Exit.FAILED


def error_lines(error: AutoglmError, *, source: str = "") -> Iterator[str]:
    """Tell an error: one line for each violation with its field, else the message. ``source`` names a file they are in."""
    if error.violations:
        yield from violation_lines(error.violations, source=source)
    elif isinstance(error, NotFoundError) and error.reason == "PLAN_NOT_FOUND":
        yield clean(error.message)
        yield "`autoglm plans` lists the plans there are"
    else:
        yield clean(error.message)

    if error.retry_after:
        yield f"try again in {duration(error.retry_after)}"


def violation_lines(violations: tuple[Violation, ...], *, source: str = "") -> Iterator[str]:
    """Tell violations, one a line."""
    prefix = f"{source}: " if source else ""

    for violation in violations:
        field = f"{one_line(violation.field)}: " if violation.field else ""
        yield f"{prefix}{field}{one_line(violation.description)}"


def failure_lines(failure: Failure | None) -> Iterator[str]:
    """Tell a failure in full: its line, and the violations that its message does not tell already."""
    yield failure_line(failure)

    if failure is not None:
        untold = tuple(one for one in failure.violations if one.description not in failure.message)
        yield from (f"  {line}" for line in violation_lines(untold))


def failure_line(failure: Failure | None) -> str:
    """Tell a failure in one line: its reason and its message."""
    if failure is None:
        return "failed"

    told = ": ".join(one_line(part) for part in (failure.reason, failure.message) if part)
    return (told or "failed") + (" (it may have taken effect)" if failure.outcome_unknown else "")
