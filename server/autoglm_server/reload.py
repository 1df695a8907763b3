"""Reading the configuration again while the server serves: what may change does, and every difference is a line in the log.

Plans that run are not touched: their options are their own, calls under way end with the tool they began with, and a step
whose tool changed is met when it is dispatched. What is wrong changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from autoglm.model import Budget, PlanOptions
from autoglm.planner import Planner
from autoglm_server import telemetry
from autoglm_server.configuration import ConfigurationError, mask_uri
from autoglm_server.plugins.host import Change, Plugins
from autoglm_server.plugins.one import OnePlugin
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.settings import Section, Settings
from autoglm_server.tools import loading
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import Provider, Refreshing
from autoglm_server.tools.wrappers import Wrappers

_log = logging.getLogger(__name__)

MAY_CHANGE: Final = ("log.level", "openapi", "plan", "providers", "plugins", "tools")
"""Sections and settings that are taken over; all others are read at the start alone."""


class Reloader:
    """Takes a new configuration over, one at a time."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        *,
        plugins: Plugins,
        catalog: Catalog,
        scheduler: Scheduler,
        providers: Mapping[str, Provider],
        fixed: Sequence[Provider] = (),
        open_provider: Callable[[Settings, str, str], Provider],
        on_change: Callable[[Settings], None],
    ) -> None:
        """Begin with ``settings``.

        ``read`` loads the configuration as the start did; ``providers`` are those it names, and ``open_provider`` opens another,
        given its name and URI; ``on_change`` is told last.
        """
        self.settings = settings
        self._read = read
        self._plugins = plugins
        self._catalog = catalog
        self._scheduler = scheduler
        self._providers = dict(providers)
        self._fixed = tuple(fixed)
        self._planners: dict[str, Planner] = {
            name: planner for name, planner in scheduler.planners.items() if name not in plugins.planners()
        }
        self._open_provider = open_provider
        self._on_change = on_change
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Ask for the configuration to be read again; asking twice before it begins is asking once."""
        self._asked.set()

    async def run(self) -> None:
        """Read it whenever that is asked for."""
        async with asyncio.TaskGroup() as letting_go:
            while True:
                await self._asked.wait()
                self._asked.clear()
                try:
                    gone = await self.reload()
                except Exception:  # noqa: BLE001  # the boundary: the server goes on with what it has
                    _log.exception(
                        "the configuration could not be taken over; look at what the lines above say was done"
                    )
                else:
                    letting_go.create_task(self._let_go(gone))

    async def reload(self) -> list[OnePlugin]:
        """Read it and take it over; gives the plugins to let go of when no call uses their tools any more."""
        try:
            wanted = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            for fault in error.faults:
                _log.error("the configuration was not taken over: %s", fault)  # it is told whole

            return []

        stay = refused(self.settings, wanted)
        for key in stay:
            _log.warning("reload: %s is read at the start alone; restart the server to change it", key)

        self._take_plain(wanted)
        gone = await self._take_tools(wanted, stay)
        self._on_change(self.settings)
        if stay:
            _log.warning("reload: done, except for what stays as it was: %s", ", ".join(stay))
        else:
            _log.info("reload: done")

        return gone

    def _take_plain(self, wanted: Settings) -> None:
        before = self.settings
        for key in taken(before, wanted):
            _log.info("reload: %s is now %s", key, _shown(wanted, key))

        log = before.log.model_copy(update={"level": wanted.log.level})
        self.settings = before.model_copy(update={"log": log, "plan": wanted.plan})
        telemetry.set_level(log)
        self._scheduler.defaults = plan_defaults(self.settings)
        limits = self._scheduler.limits
        self._scheduler.limits = replace(limits, step_timeout=wanted.plan.step_timeout.total_seconds())
        patience = wanted.plan.provider_wait.total_seconds()
        self._catalog.limits = replace(self._catalog.limits, provider_wait=patience)

    async def _take_tools(self, wanted: Settings, stay: list[str]) -> list[OnePlugin]:
        """Take over what gives and stands around tools; gives plugins to let go of, and adds to ``stay`` what is as before."""
        change = await self._plugins.prepare(wanted.plugins)
        kept = False
        try:
            providers, lines = self._open(wanted)
            offered = [*self._plugins.providers(change), *self._fixed, *providers.values()]
            wrappers = Wrappers(wanted.tools) if wanted.tools != self.settings.tools else None
            await self._catalog.replace(offered, wrappers=wrappers)
            kept = True
        except (ValueError, OSError) as error:
            _log.error("reload: tools, providers and plugins stay as they were: %s", error)  # told whole
            stay.append("tools, providers and plugins")
            return []
        finally:
            if not kept:
                await self._plugins.let_go(change.added)

        stay += change.stay
        return await self._take_over(wanted, change, providers, lines)

    async def _take_over(
        self, wanted: Settings, change: Change, providers: dict[str, Provider], lines: list[str]
    ) -> list[OnePlugin]:
        lines += change.lines
        if wanted.tools != self.settings.tools:
            lines.append("tools: what stands around them is now as configured")

        gone = await self._plugins.keep(change)
        self._providers = providers
        self._scheduler.planners = {**self._planners, **self._plugins.planners()}
        self.settings = self.settings.model_copy(
            update={
                "openapi": wanted.openapi,
                "plugins": wanted.plugins,
                "providers": wanted.providers,
                "tools": wanted.tools,
            }
        )
        for line in lines:
            _log.info("reload: %s", line)

        return gone

    def _open(self, wanted: Settings) -> tuple[dict[str, Provider], list[str]]:
        """Open the providers that are new or different, whose file has another text, or who are away."""
        providers: dict[str, Provider] = {}
        lines: list[str] = []
        before = self.settings.providers
        for name, uri in wanted.providers.items():
            same = name in self._providers and before.get(name) == uri
            same = same and self.settings.openapi.get(name) == wanted.openapi.get(name)
            why = _why_again(self._providers[name], uri) if same else ""
            if same and not why:
                kept = providers[name] = self._providers[name]
                if isinstance(kept, Refreshing):
                    kept.refresh()

                continue

            providers[name] = self._open_provider(wanted, name, uri)
            done = why or ("moved to" if name in before else "added at")
            lines.append(f"provider {name}: {done} {mask_uri(uri)}")

        lines += [f"provider {name}: removed" for name in before if name not in wanted.providers]
        return providers, lines

    async def _let_go(self, plugins: list[OnePlugin]) -> None:
        try:
            await self._catalog.retire()
        except Exception:  # noqa: BLE001  # the boundary: a provider that does not end cleanly is gone all the same
            _log.exception("reload: a provider that was replaced did not stop as it should")

        await self._plugins.let_go(plugins)


def plan_defaults(settings: Settings) -> PlanOptions:
    """Give what a plan gets whose options leave it out."""
    plan = settings.plan
    budget = Budget(plan.budget_tokens, plan.budget_tool_calls, plan.budget_rounds, plan.budget_duration)
    return PlanOptions(
        max_steps=plan.max_steps,
        enable_tool_call=plan.enable_tool_call,
        max_rounds=plan.max_rounds,
        timeout=plan.timeout,
        waiting_timeout=plan.waiting_timeout,
        max_parallel_steps=plan.max_parallel_steps,
        planner=settings.planner.kind,
        model=settings.planner.model,
        budget=budget if budget != Budget() else None,
    )


def refused(before: Settings, wanted: Settings) -> list[str]:
    """Name the settings that differ and cannot be taken over."""
    return [key for key in _different(before, wanted) if not _may_change(key)]


def taken(before: Settings, wanted: Settings) -> list[str]:
    """Name the plain settings that differ and are taken over; providers, plugins and tools have lines of their own."""
    return [key for key in _different(before, wanted) if _may_change(key) and "." in key]


def _different(before: Settings, wanted: Settings) -> list[str]:
    keys: list[str] = []
    for name in Settings.model_fields:
        old, new = getattr(before, name), getattr(wanted, name)
        if isinstance(old, Section):
            keys += [f"{name}.{key}" for key in type(old).model_fields if getattr(old, key) != getattr(new, key)]
        elif old != new:
            keys.append(name)

    return keys


def _may_change(key: str) -> bool:
    return key in MAY_CHANGE or key.partition(".")[0] in MAY_CHANGE


def _shown(settings: Settings, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(settings, section).model_dump(mode="json")[name]


def _why_again(provider: Provider, uri: str) -> str:
    """Say why a provider whose URI is the same is opened again; empty if it is not."""
    scheme, _, rest = uri.partition(":")
    if scheme == "python":
        is_file = rest.endswith(".py") or "/" in rest
        return "loaded anew, its file changed:" if is_file and loading.is_changed(Path(rest)) else ""

    return "" if any(tool.available for tool in provider.tools()) else "connected anew to"
