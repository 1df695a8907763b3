"""Writing plugins of the server: what they import, and all of it.

A plugin is a module, a class or an object with hooks: functions called as below, marked by :func:`hookimpl`. Each takes one
argument, ``event``, or none, and is a plain ``def``: it runs in a thread of the plugin's own, never on the server's loop,
within a time limit. What it raises is reported and never reaches the server, nor any other plugin.

::

    import autoglm
    from autoglm.plugin import LoadEvent, ToolsRequest, hookimpl

    @dataclass(frozen=True)
    class Options:                       # its settings: this dataclass, or a JSON Schema as a dict
        greeting: str = "Hello"

    @autoglm.tool(effect=autoglm.Effect.READ_ONLY)
    def greet(name: str) -> str: ...

    @hookimpl
    def register_tools(event: ToolsRequest) -> list[autoglm.FunctionTool]:
        return [greet]

====================  ============================  =======================================================================
hook                  its argument                  when
====================  ============================  =======================================================================
``on_load``           :class:`LoadEvent`            first, before anything is served
``register_tools``    :class:`ToolsRequest`         then, in mode ``full``; gives tools, which are called ``PLUGIN.tool``
``register_planners`` :class:`PlannersRequest`      then, in mode ``full``; gives planners (:mod:`autoglm.planner`)
``on_start``          :class:`StartEvent`           once the server serves
``on_step_started``   :class:`StepStartedEvent`     an attempt at a step began
``on_step_ended``     :class:`StepEndedEvent`       a step ended, in whatever way
``on_error``          :class:`ErrorEvent`           an attempt, a round or a plan failed
``on_unload``         :class:`UnloadEvent`          last; whatever came before, if ``on_load`` did not fail
====================  ============================  =======================================================================

The three in the middle tell what is durable by then, in its order and after the fact, so they can watch and not decide.
A plugin that falls far behind misses some, and the server says how many.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from autoglm._dataclasses import dataclass
from autoglm.model import Failure, Json, JsonObject, StepState

__all__ = [
    "MARK",
    "ErrorEvent",
    "LoadEvent",
    "Mode",
    "PlannersRequest",
    "StartEvent",
    "StepEndedEvent",
    "StepStartedEvent",
    "ToolsRequest",
    "UnloadEvent",
    "hookimpl",
]

MARK = "__autoglm_hook__"
"""The attribute by which the server knows a hook."""

Mode = Literal["full", "observe"]
"""What a plugin may do: ``observe`` adds no tools and no planners."""

_F = TypeVar("_F", bound=Callable[..., Any])


def hookimpl(function: _F) -> _F:
    """Mark a function as a hook; its name says which."""
    setattr(function, MARK, True)
    return function


@dataclass(frozen=True, slots=True)
class LoadEvent:
    """The plugin is about to be used. ``options`` are checked, and an instance of its ``Options`` if that is a dataclass."""

    name: str
    mode: Mode
    options: Any
    workspace: Path
    """The one folder that tools should work in."""


@dataclass(frozen=True, slots=True)
class ToolsRequest:
    """The server asks for tools: a list of what :func:`autoglm.tool` made."""

    name: str
    options: Any
    workspace: Path


@dataclass(frozen=True, slots=True)
class PlannersRequest:
    """The server asks for planners: a list of :class:`autoglm.planner.Planner`."""

    name: str
    options: Any


@dataclass(frozen=True, slots=True)
class StartEvent:
    """The server serves, at ``address``."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class StepStartedEvent:
    """An attempt at a step began. ``arguments`` are None when they are too large for the journal."""

    plan_id: str
    sequence: int
    time: datetime | None
    step_id: str
    attempt: int
    tool: str
    arguments: JsonObject | None


@dataclass(frozen=True, slots=True)
class StepEndedEvent:
    """A step ended: ``state`` is SUCCEEDED (with ``output``), FAILED (with ``failure``), SKIPPED or CANCELLED."""

    plan_id: str
    sequence: int
    time: datetime | None
    step_id: str
    attempt: int
    tool: str
    state: StepState
    output: Json
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Something failed: an attempt (``step_id``), a round (``round``), or a plan (neither).

    ``final`` is False when it will be tried again.
    """

    plan_id: str
    sequence: int
    time: datetime | None
    step_id: str
    attempt: int
    tool: str
    round: int
    failure: Failure
    final: bool


@dataclass(frozen=True, slots=True)
class UnloadEvent:
    """The plugin is let go of."""

    name: str
