"""The limits every tool call keeps to, whatever its provider."""

from __future__ import annotations

from autoglm._dataclasses import dataclass
from autoglm.wire import DEPTH_MAX


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """A bound on everything about a call; sizes in bytes, times in seconds."""

    arguments_bytes: int = 256 << 10
    """The arguments, as canonical JSON or on the wire, whichever is larger."""
    output_bytes: int = 1 << 20
    """The output, likewise."""
    depth: int = DEPTH_MAX
    """How deep arguments and output may be nested."""
    progress_interval: float = 0.05
    """The least time between two reports of progress; those between are merged into one."""
    progress_bytes: int = 64 << 10
    """The data of one report, and the text of reports merged into one; what is more is left out."""
    stop_grace: float = 1.0
    """How long a call whose time is up may take to stop before it is given up."""
    provider_wait: float = 0.0
    """How long a call waits for a provider that is away."""
    schema_bytes: int = 256 << 10
    """One JSON Schema of a tool."""
