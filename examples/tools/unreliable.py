"""Tools that do not always work, to see what a plan does then.

autoglm run --provider demo=python:examples/tools/unreliable.py --plan examples/plans/flaky.yaml
"""

from __future__ import annotations

from typing import Annotated, TypedDict

import autoglm


class Reading(TypedDict):
    """What a sensor measured: ``celsius``, and at which attempt it was read."""

    celsius: float
    attempt: int


@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def flaky(
    context: autoglm.ToolContext,
    failures: Annotated[int, autoglm.Constraint(minimum=0, maximum=100)] = 2,
) -> Reading:
    """Read a sensor that answers only after some failures.

    It remembers nothing: it goes by the number of the attempt, so it does the same in every process.

    Args:
        failures: How many attempts fail before one succeeds.
    """
    if context.attempt <= failures:
        raise autoglm.ToolError(
            f"the sensor did not answer, attempt {context.attempt}", reason="NO_ANSWER", retryable=True
        )

    return Reading(celsius=21.5, attempt=context.attempt)


@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def broken() -> Reading:
    """Read a sensor that is broken: it fails for good, so nobody tries again."""
    raise autoglm.ToolError("the sensor is broken", reason="BROKEN")
