"""One call of a tool, from checked arguments to a checked output: what holds for every provider."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass

from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, ToolResult, Violation
from autoglm.wire import check_json, normal_json
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
    arguments = checked.input.widened(invocation.arguments)
    faults = check_json(
        arguments,
        "arguments",
        depth_max=limits.depth,
        bytes_max=limits.arguments_bytes,
    ) or checked.input.check(arguments, "arguments")
    if faults:
        raise ToolCallError(invalid_arguments(faults))

    gate = ProgressGate(invocation.report, limits)
    call = dataclasses.replace(invocation, tool=own_name, arguments=arguments, report=gate.report)
    try:
        result = await _within_time(provider, call, invocation.tool, checked, limits)
    finally:
        gate.close()

    return _checked_result(result, invocation.tool, checked, limits)


async def _within_time(
    provider: Provider,
    call: Invocation,
    name: str,
    checked: Checked,
    limits: ToolLimits,
) -> ToolResult:
    """Call within ``call.timeout``, then ``limits.stop_grace`` to stop; after that the outer limit cancels again."""
    message = f"{name} took longer than its limit of {call.timeout:g} s"
    limit = asyncio.timeout(call.timeout)
    try:
        async with asyncio.timeout(call.timeout + limits.stop_grace), limit:
            return await provider.call(call)
    except TimeoutError:
        if not limit.expired():
            raise

        raise ToolCallError(_timed_out(message, checked)) from None
    except NotBegunError:
        if not limit.expired():
            raise asyncio.CancelledError from None

        failure = _timed_out(f"{message}, while it waited for its turn", checked)
        raise ToolCallError(dataclasses.replace(failure, retryable=True, outcome_unknown=False)) from None
    except ToolCallError as error:
        raise ToolCallError(clean(error.failure)) from None
    except AbandonedError:
        if not limit.expired():
            raise

        raise ToolCallError(_timed_out(f"{message}, could not be stopped and may still be running", checked)) from None


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
    if faults := check_json(result.output, "output", depth_max=limits.depth, bytes_max=limits.output_bytes):
        reason = ErrorReason.OUTPUT_TOO_LARGE if faults[0].reason == "TOO_LARGE" else ErrorReason.INVALID_OUTPUT
        raise ToolCallError(_bad_output(reason, name, faults))

    output = normal_json(result.output, depth_max=limits.depth)
    if checked.output is not None and (faults := checked.output.check(checked.output.widened(output), "output")):
        raise ToolCallError(_bad_output(ErrorReason.INVALID_OUTPUT, name, faults))

    if fault := fault_of(result.artifacts):
        raise refused(f"{name} ended, but its files cannot be used: {fault}")

    return dataclasses.replace(result, output=output)


def _bad_output(reason: ErrorReason, name: str, faults: list[Violation]) -> Failure:
    told = "; ".join(f"{fault.field}: {fault.description}" for fault in faults[:3])
    return Failure(
        reason.name, DOMAIN, f"{name} ended, but its output cannot be used: {told}", violations=tuple(faults)
    )
