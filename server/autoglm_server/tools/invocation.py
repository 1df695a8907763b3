"""One call of a tool, from checked arguments to a checked output: what holds for every provider."""

from __future__ import annotations

import asyncio
import dataclasses

from autoglm._dataclasses import dataclass
from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, ToolResult, Violation
from autoglm.wire import carried_output, check_json
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
    arguments = invocation.arguments
    if invocation.checked != checked.digest:
        faults = check_json(arguments, "arguments", depth_max=limits.depth, bytes_max=limits.arguments_bytes)
        if not faults:
            arguments, faults = checked.input.fit(arguments, "arguments")

        if faults:
            raise ToolCallError(invalid_arguments(faults))

    gate = ProgressGate(invocation.report, limits)
    call = invocation.of(own_name, arguments, gate.report)
    deadline = _Deadline(call.timeout, limits.stop_grace)
    alone = True
    try:
        try:
            result = await provider.call(call)
        finally:
            alone = deadline.close()
            gate.close()
    except (asyncio.CancelledError, NotBegunError, ToolCallError, AbandonedError) as error:
        raise _meant(error, deadline, invocation, checked, alone=alone) from None

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


def _meant(
    error: BaseException, deadline: _Deadline, call: Invocation, checked: Checked, *, alone: bool
) -> BaseException:
    """Give what is to be raised for what a provider raised; ``alone`` says that only the deadline has cancelled it."""
    late = f"{call.tool} took longer than its limit of {call.timeout:g} s"
    match error:
        case ToolCallError():
            return ToolCallError(clean(error.failure))

        case asyncio.CancelledError() if deadline.fired and alone:
            return ToolCallError(_timed_out(late, checked))

        case NotBegunError() if deadline.fired:
            failure = _timed_out(f"{late}, while it waited for its turn", checked)
            return ToolCallError(dataclasses.replace(failure, retryable=True, outcome_unknown=False))

        case NotBegunError():
            return asyncio.CancelledError()

        case AbandonedError() if deadline.fired:
            return ToolCallError(_timed_out(f"{late}, could not be stopped and may still be running", checked))

        case _:
            return error


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
    output, faults = carried_output(result.output, "output", depth_max=limits.depth, bytes_max=limits.output_bytes)
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
