"""What a tool and a provider are to the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from autoglm.model import CallContext, Failure, JsonObject, Tool, ToolProgress, ToolResult

if TYPE_CHECKING:
    from collections.abc import Sequence


class ToolCallError(Exception):
    """A call failed, as data. The one way a tool's failure travels inside the server."""

    def __init__(self, failure: Failure) -> None:
        """Carry the failure."""
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call to be made: resolved arguments, the key to de-duplicate by, and on whose behalf.

    ``timeout`` is in seconds, of this attempt. ``report`` takes progress and never blocks or raises.
    """

    tool: str
    arguments: JsonObject
    idempotency_key: str
    timeout: float
    context: CallContext = field(default_factory=CallContext)
    report: Callable[[ToolProgress], None] = field(default=lambda _progress: None)


class Provider(Protocol):
    """A source of tools: Python functions, a gRPC service, an MCP server, an OpenAPI document."""

    @property
    def name(self) -> str:
        """What the configuration calls it; empty for the server's own tools."""
        ...

    async def start(self) -> None:
        """Get ready; called once, before the first list."""
        ...

    async def stop(self) -> None:
        """Let go of everything; calls under way have been cancelled before."""
        ...

    def tools(self) -> Sequence[Tool]:
        """Give the tools it has now."""
        ...

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call whose arguments were checked.

        Cancelling the awaiting task asks the call to stop; it returns or raises CancelledError once it has stopped.
        A call that cannot be stopped (a thread) raises :class:`AbandonedError` from its cancellation instead.

        Raises:
            ToolCallError: the call failed, as data.
        """
        ...


class AbandonedError(Exception):
    """The call was told to stop and could not be; it may still be running."""
