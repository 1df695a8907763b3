"""All plugins of a server: which there are, in which order, and what becomes of them when the configuration changes.

The order is that of the configuration, the built-in tools first unless it names them elsewhere; what is installed and not
configured is listed after it, by name. Plugins are loaded and started in this order, and let go of in the reverse.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from autoglm._dataclasses import dataclass
from autoglm.model import Plugin, PluginState
from autoglm.planner import Planner
from autoglm_server.plugins import discovery
from autoglm_server.plugins.builtin import NAME as BUILTIN
from autoglm_server.plugins.builtin import Builtin
from autoglm_server.plugins.one import REASON_MAX, OnePlugin, PluginLimits
from autoglm_server.plugins.steps import StepFeed
from autoglm_server.settings import PluginSettings
from autoglm_server.tools.failures import one_line
from autoglm_server.tools.tool import Provider

_log = logging.getLogger(__name__)

LISTED_MAX: Final = 256
"""How many plugins are told of."""
TAKEN_PLANNERS: Final = ("llm", "rules")
"""The server's own planners."""


@dataclass(slots=True)
class Change:
    """What a new configuration makes of the plugins, until it is kept or dropped."""

    plugins: list[OnePlugin] = field(default_factory=list)
    added: list[OnePlugin] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """What is different, for the log."""
    stay: list[str] = field(default_factory=list)
    """The plugins that stay as they were, because the new ones failed."""


class Plugins:
    """The plugins. A context: leaving it lets go of all of them."""

    def __init__(
        self, workspace: Path, *, builtin: Callable[[], object] = Builtin, limits: PluginLimits | None = None
    ) -> None:
        """Without any; :meth:`prepare` loads them, :meth:`keep` makes them those that are used.

        ``builtin`` makes the plugin of the server's own tools.
        """
        self._builtin = builtin
        self._workspace = workspace
        self._limits = limits
        self._plugins: list[OnePlugin] = []
        self._gone: list[OnePlugin] = []
        self._installed: dict[str, discovery.Found] = {}
        self._listening: dict[OnePlugin, asyncio.Task[None]] = {}
        self._tasks = asyncio.TaskGroup()
        self._feed: StepFeed | None = None
        self._following: asyncio.Task[None] | None = None
        self._address = ""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._feed is not None and self._following is not None:
            self._feed.end()
            await asyncio.wait({self._following}, timeout=2 * PluginLimits().hook)
            self._following.cancel()

        await self.let_go([*self._plugins, *self._gone])
        await self._tasks.__aexit__(None, None, None)

    # --- what they give

    def providers(self, change: Change | None = None) -> list[Provider]:
        """Give the sources of their tools, in order: of those that are used, or would be with ``change``."""
        plugins = self._plugins if change is None else change.plugins
        return [plugin.provider for plugin in plugins if plugin.usable and plugin.provider is not None]

    def planners(self, change: Change | None = None) -> dict[str, Planner]:
        """Give their planners, likewise."""
        plugins = self._plugins if change is None else change.plugins
        return {planner.name: planner for plugin in plugins if plugin.usable for planner in plugin.planners}

    def told(self, refused: Mapping[str, str]) -> tuple[Plugin, ...]:
        """Give what the server says of each; ``refused`` are the tools that the catalog does not offer, and why."""
        listed = [_without(plugin.told(), refused) for plugin in self._plugins]
        names = {plugin.name for plugin in listed}
        reason = "installed, but the configuration does not name it under plugins"
        idle = [found for name, found in sorted(self._installed.items()) if name not in names]
        listed += [
            Plugin(found.name, found.version, found.source, state=PluginState.DISABLED, reason=reason) for found in idle
        ]
        return tuple(listed[:LISTED_MAX])

    # --- their life

    async def prepare(self, settings: Sequence[PluginSettings]) -> Change:
        """Load what is new or different; what is used stays as it is until :meth:`keep`.

        A plugin that cannot be loaded is FAILED, or stays what it was if it was used before.
        """
        change = Change()
        self._installed = await asyncio.to_thread(discovery.installed)
        before = {plugin.name: plugin for plugin in self._plugins}
        for one in _complete(settings):
            old = before.pop(one.name, None)
            if old is not None and old.settings == one and not _needs_loading(old):
                change.plugins.append(old)
                continue

            new = await self._load(one, [name for plugin in change.plugins for name in _planner_names(plugin)])
            if old is not None and old.usable and new.state is PluginState.FAILED:
                change.plugins.append(old)
                change.stay.append(f"plugin {one.name}")
                change.lines.append(f"plugin {one.name}: stays as it was, because the new one failed: {new.reason}")
                continue

            change.plugins.append(new)
            change.added.append(new)
            change.lines.append(_line(new, "added" if old is None else "loaded anew"))

        change.lines += [f"plugin {name}: removed" for name in before]
        return change

    async def keep(self, change: Change) -> list[OnePlugin]:
        """Use the plugins of ``change`` from now on; gives those to :meth:`let_go` when no call uses their tools."""
        gone = [plugin for plugin in self._plugins if plugin not in change.plugins]
        self._plugins = change.plugins
        self._gone += gone
        for plugin in change.added if self._address else ():
            await plugin.start(self._address)

        self._listen()
        return gone

    async def let_go(self, plugins: Sequence[OnePlugin]) -> None:
        """Unload plugins that are not used any more, or were loaded for a change that is not made; the last first."""
        for plugin in reversed(plugins):
            await plugin.unload()
            if plugin in self._gone:
                self._gone.remove(plugin)

            if (task := self._listening.pop(plugin, None)) is not None:
                task.cancel()

    async def start(self, address: str) -> None:
        """Tell all that the server serves."""
        self._address = address
        for plugin in self._plugins:
            await plugin.start(address)

        self._listen()

    def follow(self, feed: StepFeed) -> None:
        """Tell them of steps by ``feed``."""
        self._feed = feed
        self._following = self._tasks.create_task(feed.run())
        self._listen()

    def listeners(self) -> list[OnePlugin]:
        """Give those that are told of steps now."""
        return [plugin for plugin in self._plugins if plugin.listens]

    def _listen(self) -> None:
        for plugin in self.listeners():
            if plugin not in self._listening:
                self._listening[plugin] = self._tasks.create_task(_tell(plugin))

        if self._feed is not None:
            self._feed.changed()

    async def _load(self, settings: PluginSettings, planners: Sequence[str]) -> OnePlugin:
        plugin = OnePlugin(settings, workspace=self._workspace, limits=self._limits)
        if not settings.enable:
            return plugin

        try:
            found = await asyncio.to_thread(discovery.find, settings)
            found = dataclasses.replace(found, load=self._builtin) if found.source == BUILTIN else found
        except ValueError as error:
            await plugin.fail(str(error))
        else:
            await plugin.load(found, (*TAKEN_PLANNERS, *planners))

        return plugin


async def _tell(plugin: OnePlugin) -> None:
    try:
        await plugin.tell()
    except Exception:  # noqa: BLE001  # the boundary: nothing about one plugin ends the others, or the server
        _log.exception("the plugin %s is told of steps no more", plugin.name)


def _complete(settings: Sequence[PluginSettings]) -> list[PluginSettings]:
    """Add the built-in tools, first, where the configuration does not name them."""
    named = any(one.name == BUILTIN for one in settings)
    return [*settings] if named else [PluginSettings(name=BUILTIN), *settings]


def _line(plugin: OnePlugin, done: str) -> str:
    if plugin.state is PluginState.DISABLED:
        return f"plugin {plugin.name}: disabled"

    reason = f": {plugin.reason}" if plugin.reason else ""
    return f"plugin {plugin.name}: {done}, {plugin.state.name.lower()}{reason}"


def _needs_loading(plugin: OnePlugin) -> bool:
    """Whether a plugin whose configuration is the same has another text, or should be tried again."""
    broken = plugin.state in (PluginState.FAILED, PluginState.DEGRADED)
    return plugin.settings.enable and (broken or discovery.is_changed(plugin.settings.source))


def _planner_names(plugin: OnePlugin) -> list[str]:
    return [planner.name for planner in plugin.planners]


def _without(plugin: Plugin, refused: Mapping[str, str]) -> Plugin:
    missing = [name for name in plugin.tools if name in refused]
    if not missing:
        return plugin

    reasons = [plugin.reason, *(f"{name} is not offered: {refused[name]}" for name in missing)]
    told = "; ".join(reason for reason in reasons if reason)
    tools = tuple(name for name in plugin.tools if name not in missing)
    return dataclasses.replace(plugin, tools=tools, reason=one_line(told, REASON_MAX))
