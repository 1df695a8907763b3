"""Whether a value fits a JSON Schema that came with a call, found out in a process of its own.

Such a schema can be written to take for ever: references that double at each level, patterns that try everything. A process
can be killed, and may take so much memory and no more; in the server's own every other plan would wait.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypedDict

from autoglm.model import DOMAIN, Effect, ErrorReason, Failure, JsonObject
from autoglm.tool import tool
from autoglm.wire import canonical_json, parse_json
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tables.walls import walls
from autoglm_server.tools.tool import Invocation, NotBegunError, ToolCallError
from autoglm_server.tools.validation import Schema, SchemaError

SCHEMA_BYTES: Final = 64 << 10
"""How long a schema may be, as JSON."""
SECONDS: Final = 15.0
"""How long reading a schema and checking a value by it may take, the start of a process included."""
_MEMORY: Final = 64 << 20
_FAULTS: Final = 3


class Findings(TypedDict):
    """Why a schema cannot be used, or else what is wrong with the value."""

    unusable: str
    faults: list[str]


@tool(name="fitting", effect=Effect.READ_ONLY, run="process")
def fitting(schema: str, text: str) -> Findings:
    """Check the value that ``text`` is as JSON; of an empty one the schema alone.

    Args:
        schema: The schema, as JSON.
        text: The value.
    """
    with walls(write_bytes=0, memory_bytes=_MEMORY):
        try:
            checks = Schema(schema, bytes_max=SCHEMA_BYTES)
        except SchemaError as error:
            return Findings(unusable=str(error), faults=[])

        found = checks.check(parse_json(text), "value") if text else []
        return Findings(unusable="", faults=[f"{fault.field}: {fault.description}" for fault in found[:_FAULTS]])


class Fitting:
    """Checks values by schemas that callers gave."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Start nothing yet; a check may take ``seconds``."""
        self._seconds = seconds
        self._provider = FunctionProvider("schema", [fitting])

    async def faults(self, schema: JsonObject, text: str = "") -> list[str]:
        """Give the first faults of a value, given as JSON; of an empty text the schema alone is looked at.

        Raises:
            SchemaError: the schema cannot be used; the message is a sentence about it.
            ToolCallError: no process could be had, as data.
        """
        arguments = {"schema": canonical_json(schema), "text": text}
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                result = await self._provider.call(Invocation("fitting", arguments, "", self._seconds))
        except TimeoutError:
            raise SchemaError(f"checking by it takes longer than {self._seconds:g} s") from None
        except NotBegunError:
            if not limit.expired():
                raise asyncio.CancelledError from None

            told = "no process was free to check a JSON Schema"
            raise ToolCallError(Failure(ErrorReason.TOOL_UNAVAILABLE.name, DOMAIN, told, retryable=True)) from None
        except ToolCallError as error:
            if error.failure.reason == ErrorReason.TOOL_UNAVAILABLE.name:
                raise

            raise SchemaError("checking by it takes more memory than it may") from None

        found: Findings = result.output
        if found["unusable"]:
            raise SchemaError(found["unusable"])

        return found["faults"]

    async def stop(self) -> None:
        """Let go of the processes."""
        await self._provider.stop()
