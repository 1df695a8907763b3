"""What a tool and a provider are to the server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from autoglm._dataclasses import dataclass, maker
from autoglm._files import FileLimits
from autoglm.model import Artifact, CallContext, Failure, JsonObject, Tool, ToolProgress, ToolResult, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence


PLAN_RUN: Final = "plan.run"
"""The tool whose call is a plan of its own: it only waits for that plan's calls."""


class ToolCallError(Exception):
    """A call failed, as data. The one way a tool's failure travels inside the server."""

    def __init__(self, failure: Failure) -> None:
        """Carry the failure."""
        super().__init__(failure.message)
        self.failure = failure


class ArtifactSink(Protocol):
    """Where the files of one call go."""

    @property
    def limits(self) -> FileLimits:
        """What it takes at most."""
        ...

    async def save(self, name: str, content: bytes | Path | AsyncIterator[bytes], media_type: str = "") -> Artifact:
        """Keep a file, and give what the result is to name in its ``artifacts``. Its name is unique in the call.

        Raises:
            ToolCallError: it cannot be kept: INVALID_ARTIFACT, or JOURNAL_FULL. The call's effect has happened.
        """
        ...


class Described:
    """An :class:`ArtifactSink` that keeps nothing: files are described, and dropped."""

    limits = FileLimits()

    async def save(self, name: str, content: bytes | Path | AsyncIterator[bytes], media_type: str = "") -> Artifact:
        """Describe a file."""
        size, hashed = 0, hashlib.sha256()
        async for piece in _pieces(content):
            size += len(piece)
            hashed.update(piece)

        return Artifact(name, media_type, size, f"sha256:{hashed.hexdigest()}")


async def _pieces(content: bytes | Path | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, Path):
        yield await asyncio.to_thread(content.read_bytes)
    elif isinstance(content, bytes):
        yield content
    else:
        async for piece in content:
            yield piece


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call to be made: resolved arguments, the key to de-duplicate by, and on whose behalf.

    ``timeout`` is in seconds, of this attempt. ``report`` takes progress and never blocks or raises; the one that a
    caller gives to the catalog is called in the event loop, the one that a provider is given may be called from any
    thread. ``spent`` is told, in the event loop, what a call has used that then gives no result. ``artifacts`` takes
    files, in the event loop; what it gives goes into the result's ``artifacts``.
    """

    tool: str
    arguments: JsonObject
    idempotency_key: str
    timeout: float
    context: CallContext = field(default_factory=CallContext)
    report: Callable[[ToolProgress], None] = field(default=lambda _progress: None)
    spent: Callable[[Usage], None] = field(default=lambda _usage: None)
    artifacts: ArtifactSink = field(default_factory=Described)
    checked: str = ""
    """The digest of the tool that the arguments were found exactly right for; empty: the call checks them."""
    child_plan_id: str = ""
    """The plan that this call is to run as its own; set by the scheduler alone."""

    def of(self, tool: str, arguments: JsonObject, report: Callable[[ToolProgress], None]) -> Invocation:
        """Give the same call as it goes to a provider, under the provider's own name for the tool."""
        return make_invocation(
            tool,
            arguments,
            self.idempotency_key,
            self.timeout,
            self.context,
            report,
            self.spent,
            self.artifacts,
            self.checked,
            self.child_plan_id,
        )


make_invocation = maker(Invocation)
"""What the class does, quicker."""


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
        """Give the tools it has now; the same list while they are the same.

        They are asked for at every use of a tool, but of a provider that has an attribute ``unchanging``, which is true.
        """
        ...

    async def call(self, invocation: Invocation) -> ToolResult:
        """Make a call whose arguments were checked; ``invocation.tool`` is the provider's own name for the tool.

        Cancelling the awaiting task asks the call to stop, and the call is waited for: it raises CancelledError once it
        has stopped, or ends as it would have, with a result or a failure, which then counts. Cancelling a *second* time
        gives up: a call that cannot be stopped (a function in a thread) raises :class:`AbandonedError` and may still be
        running. How long lies between the two is the caller's to choose: the catalog takes ``ToolLimits.stop_grace``
        when the time limit is over, the scheduler its own grace when the plan is stopped.

        It need not watch the time limit, the rate of reports, nor the output: the catalog does, for every provider.

        Raises:
            ToolCallError: the call failed, as data.
            NotBegunError: cancelled before it began; instead of CancelledError.
            AbandonedError: cancelled twice, and it could not be stopped.
        """
        ...


@runtime_checkable
class Refreshing(Protocol):
    """A provider that asks, every now and then, what it has to offer."""

    def refresh(self) -> None:
        """Ask now; what is different is seen in ``tools()`` when it has answered. Never blocks or raises."""
        ...


class NotBegunError(Exception):
    """The call was told to stop while it waited for its turn; it has had no effect."""


class AbandonedError(Exception):
    """The call was told to stop and could not be; it may still be running."""
