"""Every hook there is, on one page. What each event says stands in :mod:`autoglm.plugin`; docs/plugins.md is for authors."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from autoglm.planner import Planner
from autoglm.plugin import (
    ErrorEvent,
    LoadEvent,
    PlannersRequest,
    StartEvent,
    StepEndedEvent,
    StepStartedEvent,
    ToolsRequest,
    UnloadEvent,
)
from autoglm.tool import FunctionTool

PROJECT = "autoglm"

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def on_load(event: LoadEvent) -> None:
    """Get ready. When this fails, nothing of the plugin is used."""


@hookspec
def register_tools(event: ToolsRequest) -> Sequence[FunctionTool]:  # type: ignore[empty-body]
    """Give tools. When this fails, nothing of the plugin is used."""


@hookspec
def register_planners(event: PlannersRequest) -> Sequence[Planner]:  # type: ignore[empty-body]
    """Give planners. When this fails, nothing of the plugin is used."""


@hookspec
def on_start(event: StartEvent) -> None:
    """The server serves. When this fails, the plugin's tools and planners stay; it is told of no steps."""


@hookspec
def on_step_started(event: StepStartedEvent) -> None:
    """An attempt at a step began."""


@hookspec
def on_step_ended(event: StepEndedEvent) -> None:
    """A step ended."""


@hookspec
def on_error(event: ErrorEvent) -> None:
    """An attempt, a round or a plan failed."""


@hookspec
def on_unload(event: UnloadEvent) -> None:
    """Let go of everything."""
