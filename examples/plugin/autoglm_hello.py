"""A plugin: one tool, options with a schema, and two hooks. Copy it and change what it does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

import autoglm
from autoglm.plugin import ErrorEvent, LoadEvent, ToolsRequest, UnloadEvent, hookimpl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the configuration may say under ``options``."""

    greeting: Annotated[str, autoglm.Constraint(min_length=1)] = "Hello"


class Hello:
    """The plugin. One instance is made when it is loaded; delete the hooks you do not need."""

    Options = Options

    @hookimpl
    def on_load(self, event: LoadEvent) -> None:
        """Get ready: open files, check what is needed. An exception here keeps the plugin from being used."""
        log.info("%s greets with %r", event.name, event.options.greeting)

    @hookimpl
    def register_tools(self, event: ToolsRequest) -> list[autoglm.FunctionTool]:
        """Give the tools; they are called PLUGIN.tool, so this one is hello.greet."""
        greeting = event.options.greeting

        @autoglm.tool(
            effect=autoglm.Effect.READ_ONLY,
            phrases=[autoglm.Phrase("greet {name:name}", "{output}", "en")],
        )
        def greet(name: str) -> str:
            """Greet somebody.

            Args:
                name: Whom to greet.
            """
            return f"{greeting}, {name}!"

        return [greet]

    @hookimpl
    def on_error(self, event: ErrorEvent) -> None:
        """Look at what failed, anywhere in the server; it has happened, and cannot be changed here."""
        what = f"step {event.step_id}" if event.step_id else f"round {event.round}" if event.round else "all of it"
        log.info("plan %s: %s failed: %s", event.plan_id, what, event.failure.reason)

    @hookimpl
    def on_unload(self, event: UnloadEvent) -> None:
        """Let go of what on_load took."""
        log.info("%s says goodbye", event.name)
