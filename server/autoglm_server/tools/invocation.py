"""One call of a tool, from checked arguments to a checked output: what holds for every provider."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass

from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, ToolResult, Violation
from autoglm.wire import carried, check_json
from autoglm_server.tools.artifacts import fault_of, refused
from autoglm_server.tools.failures import clean
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.progress import ProgressGate
from autoglm_server.tools.references import invalid_arguments
from autoglm_server.tools.tool import AbandonedError, Invocation, NotBegunError, Provider, ToolCallError
from autoglm_server.tools.validation import Schema


@dataclass(frozen=True, slots=True)
class Checked:
    """What a tool's calls are checked against; no ``output`` schema means any output."""

    input: Schema
    output: Schema | None
    effect: Effect
    digest: str
    """The tool's."""

    @property
    def repeatable(self) -> bool:
        """Whether a call may be made again when nobody knows what became of it."""
        return self.effect in (Effect.READ_ONLY, Effect.IDEMPOTENT)


async def invoke(
    provider: Provider,
    own_name: str,
    checked: Checked,
    invocation: Invocation,
    limits: ToolLimits,
) -> ToolResult:
    """Make a call; ``own_name`` is what the provider calls the tool. Raises as :meth:`Catalog.call`."""
    given = invocation.arguments
    faults: list[Violation] = []
    if invocation.checked != checked.digest:
        faults = check_json(given, "arguments", depth_max=limits.depth, bytes_max=limits.arguments_bytes)

    arguments, unfit = (given, []) if faults else checked.input.fit(given, "arguments")
    if faults or unfit:
        raise ToolCallError(invalid_arguments(faults or unfit))

    gate = ProgressGate(invocation.report, limits)
    call = invocation.of(own_name, arguments, gate.report)
    try:
        result = await _within_time(provider, call, invocation.tool, checked, limits)
    finally:
        gate.close()

    try:
        return _checked_result(result, invocation.tool, checked, limits)
    except ToolCallError:
        if result.usage is not None:
            invocation.spent(result.usage)

        raise


class _Deadline:
    """Cancels the task of a call when its time is over, and once more when it has not stopped ``grace`` after that.

    What two nested ``asyncio.timeout`` would do, for the price of one timer.
    """

    __slots__ = ("_grace", "_task", "_timer", "before", "fired")

    def __init__(self, seconds: float, grace: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._grace = grace
        self.before = task.cancelling()
        self.fired = 0
        """How often it has cancelled."""
        self._timer = task.get_loop().call_later(seconds, self._fire)

    def _fire(self) -> None:
        self.fired += 1
        self._task.cancel()
        if self.fired == 1:
            self._timer = self._task.get_loop().call_later(self._grace, self._fire)

    def close(self) -> bool:
        """Take back its own cancels; gives whether no one else's are left."""
        self._timer.cancel()
        for _ in range(self.fired):
            self._task.uncancel()

        return self._task.cancelling() <= self.before


async def _within_time(
    provider: Provider,
    call: Invocation,
    name: str,
    checked: Checked,
    limits: ToolLimits,
) -> ToolResult:
    """Call within ``call.timeout``, then ``limits.stop_grace`` to stop; after that it is cancelled again."""
    deadline = _Deadline(call.timeout, limits.stop_grace)
    ours = True
    try:
        try:
            return await provider.call(call)
        finally:
            ours = deadline.close()
    except asyncio.CancelledError:
        if not deadline.fired or not ours:
            raise

        raise ToolCallError(_timed_out(_late(name, call), checked)) from None
    except NotBegunError:
        if not deadline.fired:
            raise asyncio.CancelledError from None

        failure = _timed_out(f"{_late(name, call)}, while it waited for its turn", checked)
        raise ToolCallError(dataclasses.replace(failure, retryable=True, outcome_unknown=False)) from None
    except ToolCallError as error:
        raise ToolCallError(clean(error.failure)) from None
    except AbandonedError:
        if not deadline.fired:
            raise

        told = f"{_late(name, call)}, could not be stopped and may still be running"
        raise ToolCallError(_timed_out(told, checked)) from None


def _late(name: str, call: Invocation) -> str:
    return f"{name} took longer than its limit of {call.timeout:g} s"


def _timed_out(message: str, checked: Checked) -> Failure:
    return Failure(
        ErrorReason.STEP_TIMEOUT.name,
        DOMAIN,
        message,
        retryable=checked.repeatable,
        outcome_unknown=True,
    )


def _checked_result(result: ToolResult, name: str, checked: Checked, limits: ToolLimits) -> ToolResult:
    """Check an output. The call has ended and its effect has happened, so none of these failures is retryable."""
    output, _, faults = carried(result.output, "output", depth_max=limits.depth, bytes_max=limits.output_bytes)
    if faults:
        reason = ErrorReason.OUTPUT_TOO_LARGE if faults[0].reason == "TOO_LARGE" else ErrorReason.INVALID_OUTPUT
        raise ToolCallError(_bad_output(reason, name, faults))

    if checked.output is not None:
        _, faults = checked.output.fit(output, "output")
        if faults:
            raise ToolCallError(_bad_output(ErrorReason.INVALID_OUTPUT, name, faults))

    if fault := fault_of(result.artifacts):
        raise refused(f"{name} ended, but its files cannot be used: {fault}")

    return ToolResult(output, result.artifacts, result.usage)


def _bad_output(reason: ErrorReason, name: str, faults: list[Violation]) -> Failure:
    told = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:3])
    return Failure(
        reason.name, DOMAIN, f"{name} ended, but its output cannot be used: {told}", violations=tuple(faults)
    )
