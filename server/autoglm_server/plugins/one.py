"""One plugin: its life, with a time limit on each hook and every error contained.

Its hooks run one after the other in a thread of its own, so that one which hangs or is slow holds up nobody else. pluggy
checks the hooks against their specifications; each plugin has a manager of its own, because one manager's call would end at
the first plugin that raises.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import pluggy

from autoglm._dataclasses import dataclass
from autoglm._schema import UnsupportedTypeError, shape_of
from autoglm.model import JsonObject, Plugin, PluginState
from autoglm.planner import Planner
from autoglm.plugin import (
    MARK,
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
from autoglm.wire import canonical_json
from autoglm_server.plugins import hookspecs
from autoglm_server.plugins.builtin import NAME as BUILTIN
from autoglm_server.plugins.discovery import Found
from autoglm_server.plugins.planners import PluginPlanner
from autoglm_server.settings import PluginSettings
from autoglm_server.tools.failures import one_line, text_of
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.providers.threads import RaisedError, ThreadPool
from autoglm_server.tools.tool import Provider
from autoglm_server.tools.validation import Schema

_log = logging.getLogger(__name__)

T = TypeVar("T")

TOOLS_MAX: Final = 1000
"""Tools of one plugin."""
REASON_MAX: Final = 500
"""How long a reason is told, in characters."""
STEP_HOOKS: Final = ("on_step_started", "on_step_ended", "on_error")

StepHookEvent: TypeAlias = StepStartedEvent | StepEndedEvent | ErrorEvent
_HOOK_OF: Final = {
    StepStartedEvent: "on_step_started",
    StepEndedEvent: "on_step_ended",
    ErrorEvent: "on_error",
}


class PluginError(Exception):
    """Something of a plugin cannot be used; the message says what and why."""


@dataclass(frozen=True, slots=True)
class PluginLimits:
    """The bounds of each plugin; times in seconds."""

    load: float = 30.0
    """Importing it, and ``on_load`` with what it registers."""
    hook: float = 10.0
    """Any other hook, and the time a plugin has for what it was not told of yet when it is let go of."""
    events: int = 10_000
    """Events that wait to be told."""
    event_bytes: int = 16 << 20
    """The same, in bytes as they are in the journal."""
    failures: int = 10
    """How often in a row a hook of steps may fail."""
    batch: int = 64
    """How many events are told in one go."""
    batch_seconds: float = 0.05
    """How long one go takes at most, if no hook takes longer."""


class _Manager(pluggy.PluginManager):
    """Knows hooks by the mark that the SDK sets, so that plugins need not import pluggy."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        found = getattr(plugin, name, None)
        if not inspect.isroutine(found) or not getattr(found, MARK, False):
            return None

        return {
            "wrapper": False,
            "hookwrapper": False,
            "optionalhook": False,
            "tryfirst": False,
            "trylast": False,
            "specname": None,
        }


class OnePlugin:
    """A plugin that the configuration names. All its methods are called on the loop."""

    def __init__(self, settings: PluginSettings, *, workspace: Path, limits: PluginLimits | None = None) -> None:
        """Nothing is loaded before :meth:`load`."""
        self.settings = settings
        self.provider: Provider | None = None
        """Its tools, if it has any."""
        self.planners: tuple[Planner, ...] = ()
        self.state = PluginState.UNSPECIFIED if settings.enable else PluginState.DISABLED
        self.reason = "" if settings.enable else "the configuration says enable: false"
        self.errors = 0
        self.dropped = 0
        self._limits = limits or PluginLimits()
        self._workspace = workspace
        self._found: Found | None = None
        self._version = ""
        self._manager = _Manager(hookspecs.PROJECT)
        self._thread = ThreadPool(f"plugin-{settings.name}", 1)
        self._loaded = False
        self._waiting: deque[tuple[StepHookEvent, int]] = deque()
        self._bytes = 0
        self._in_a_row = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self.settings.name

    @property
    def prefix(self) -> str:
        """What its tools' names begin with; the server's own have none."""
        return "" if self._found is not None and self._found.source == BUILTIN else self.name

    @property
    def listens(self) -> bool:
        """Whether it is to be told of steps."""
        return self._loaded and self.state is PluginState.ACTIVE and any(self._has(hook) for hook in STEP_HOOKS)

    @property
    def usable(self) -> bool:
        """Whether its tools and planners are used."""
        return self.state in (PluginState.ACTIVE, PluginState.DEGRADED)

    def told(self) -> Plugin:
        """Give what the server says of it."""
        prefix = f"{self.prefix}." if self.prefix else ""
        tools = self.provider.tools() if self.provider is not None else ()
        return Plugin(
            name=self.name,
            version=self._version,
            source=self._found.source if self._found is not None else self.settings.source,
            enabled=self.settings.enable,
            mode=self.settings.mode,
            state=self.state,
            reason=self.reason,
            tools=tuple(sorted(f"{prefix}{tool.name}" for tool in tools)),
            planners=tuple(planner.name for planner in self.planners),
            errors=self.errors,
            dropped=self.dropped,
        )

    # --- life

    async def load(self, found: Found, taken_planners: Sequence[str] = ()) -> None:
        """Load it, call ``on_load``, and take its tools and planners. When it fails, that is its state; nothing is raised."""
        self._found, self._version = found, found.version
        try:
            options = await self._call(self._prepare, self._limits.load, "loading it")
            await self._hook("on_load", self._load_event(options), self._limits.load)
            self._loaded = True
            if self.settings.mode == "full":
                self.provider = await self._tools(options)
                self.planners = await self._planners(options, taken_planners)
        except PluginError as error:
            await self.fail(str(error))
        else:
            self.state = PluginState.ACTIVE

    async def fail(self, reason: str) -> None:
        """Use nothing of it, and let go of what it holds."""
        self.state, self.reason = PluginState.FAILED, one_line(reason, REASON_MAX)
        self.errors += 1
        self.provider, self.planners = None, ()
        _log.error("the plugin %s is not used: %s", self.name, self.reason)
        await self.unload()

    async def start(self, address: str) -> None:
        """Call ``on_start``."""
        if self.state is PluginState.ACTIVE:
            try:
                await self._hook("on_start", StartEvent(self.name, address), self._limits.hook)
            except PluginError as error:
                self._degrade(str(error))

    async def unload(self) -> None:
        """Tell what waits to be told, as far as there is time, and call ``on_unload``, if it was loaded."""
        if not self._loaded:
            self._thread.stop()
            return

        self._loaded = False
        try:
            async with asyncio.timeout(self._limits.hook):
                await self._idle.wait()
        except TimeoutError:
            self._drop_all()

        try:
            await self._hook("on_unload", UnloadEvent(self.name), self._limits.hook)
        except PluginError as error:
            self.errors += 1
            _log.warning("the plugin %s was let go of, but: %s", self.name, error)

        self._thread.stop()

    # --- steps

    def offer(self, event: StepHookEvent, size: int) -> None:
        """Let it be told of ``event``, ``size`` bytes in the journal, when its turn comes; dropped if too many wait."""
        if not self.listens or not self._has(_HOOK_OF[type(event)]):
            return

        if len(self._waiting) >= self._limits.events or self._bytes + size > self._limits.event_bytes:
            self.dropped += 1
            if self.dropped == 1:
                _log.warning("the plugin %s falls behind; events of steps are dropped for it", self.name)

            return

        self._waiting.append((event, size))
        self._bytes += size
        self._idle.clear()
        self._wake.set()

    async def tell(self) -> None:
        """Tell it of steps, for as long as this runs."""
        while True:
            await self._wake.wait()
            events = [event for event, _ in islice(self._waiting, self._limits.batch)]
            if not events:
                self._wake.clear()
                self._idle.set()
                continue

            try:
                done, faults = await self._call(
                    functools.partial(self._tell, events), self._limits.hook, "a hook of steps"
                )
            except PluginError as error:
                self._degrade(str(error))
                continue

            for _ in range(min(done, len(self._waiting))):
                self._bytes -= self._waiting.popleft()[1]

            self._count(faults)

    def _tell(self, events: Sequence[StepHookEvent]) -> tuple[int, list[str]]:
        """Call hooks, in the thread: give how many events are done, and for each what failed, or an empty text."""
        end = time.monotonic() + self._limits.batch_seconds
        faults: list[str] = []
        for event in events:
            hook = _HOOK_OF[type(event)]
            try:
                getattr(self._manager.hook, hook)(event=event)
            except Exception as error:  # noqa: BLE001  # the boundary: whatever a plugin raises is counted and reported
                _log.warning("the plugin %s failed in %s", self.name, hook, exc_info=error)
                faults.append(f"{hook}: {_text(error)}")
            else:
                faults.append("")

            if time.monotonic() >= end:
                break

        return len(faults), faults

    def _count(self, faults: Sequence[str]) -> None:
        for fault in faults:
            self._in_a_row = self._in_a_row + 1 if fault else 0
            if fault:
                self.errors += 1
                self.reason = one_line(fault, REASON_MAX)

            if self._in_a_row >= self._limits.failures:
                self._degrade(f"{self._in_a_row} times in a row: {fault}")
                return

    def _degrade(self, reason: str) -> None:
        """Tell it of steps no more; its tools and planners stay, because plans may be using them."""
        self.errors += 1
        self._drop_all()
        if self.state is PluginState.ACTIVE:
            self.state, self.reason = PluginState.DEGRADED, one_line(reason, REASON_MAX)
            _log.error("the plugin %s is told of steps no more: %s", self.name, self.reason)

    def _drop_all(self) -> None:
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self._idle.set()

    # --- in the thread, within time

    def _prepare(self) -> Any:
        """Load the plugin, check its hooks and its options; give the options."""
        assert self._found is not None
        plugin = self._found.load()
        plugin = plugin() if inspect.isclass(plugin) else plugin
        self._version = self._version or str(getattr(plugin, "__version__", ""))
        self._manager.add_hookspecs(hookspecs)
        self._manager.register(plugin, self.name)
        self._manager.check_pending()
        callers = self._manager.get_hookcallers(plugin) or []
        if not callers:
            raise PluginError("it has no hooks; mark its functions with autoglm.plugin.hookimpl")

        for caller in callers:
            if any(inspect.iscoroutinefunction(one.function) for one in caller.get_hookimpls()):
                raise PluginError(
                    f"its hook {caller.name} is async; write `def`: hooks run in a thread of the plugin's own"
                )

        return read_options(getattr(plugin, "Options", None), self.settings.options)

    def _load_event(self, options: Any) -> LoadEvent:
        return LoadEvent(self.name, self.settings.mode, options, self._workspace)

    async def _tools(self, options: Any) -> Provider | None:
        event = ToolsRequest(self.name, options, self._workspace)
        given = await self._hook("register_tools", event, self._limits.load)
        tools = _list_of(given, "register_tools", "functions made tools by @autoglm.tool", FunctionTool)
        if len(tools) > TOOLS_MAX:
            raise PluginError(f"register_tools gave {len(tools)} tools; the limit is {TOOLS_MAX}")

        try:
            return FunctionProvider(self.prefix, tools) if tools else None
        except ValueError as error:
            raise PluginError(f"its tools cannot be used: {error}") from None

    async def _planners(self, options: Any, taken: Sequence[str]) -> tuple[Planner, ...]:
        given = await self._hook("register_planners", PlannersRequest(self.name, options), self._limits.load)
        planners: list[Planner] = _list_of(given, "register_planners", "planners", object)
        names = [*taken]
        for planner in planners:
            name = getattr(planner, "name", None)
            whole = hasattr(planner, "revises") and callable(getattr(planner, "round", None))
            if not isinstance(name, str) or not name or not whole:
                told = one_line(repr(planner), 80)
                raise PluginError(f"register_planners gave {told}, which has no name, no revises or no round()")

            if name in names:
                raise PluginError(f"register_planners gave {name!r}, and there is a planner of this name already")

            names.append(name)

        return tuple(map(PluginPlanner, planners))

    def _has(self, hook: str) -> bool:
        caller = getattr(self._manager.hook, hook, None)
        return caller is not None and bool(caller.get_hookimpls())

    async def _hook(self, hook: str, event: Any, seconds: float) -> Any:
        """Call a hook; gives what it returned, or None.

        Raises:
            PluginError: it raised, or took too long.
        """
        if not self._has(hook):
            return None

        work: Callable[[], list[Any]] = functools.partial(getattr(self._manager.hook, hook), event=event)
        returned = await self._call(work, seconds, hook)
        return returned[0] if returned else None

    async def _call(self, work: Callable[[], T], seconds: float, what: str) -> T:
        """Do ``work`` in the plugin's thread; one that takes too long is given up, and another takes its place.

        Raises:
            PluginError: it raised, or took too long.
        """
        job = self._thread.submit(work, f"{what} of the plugin {self.name}")
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wait({job.future})
        except TimeoutError:
            self._thread.withdraw(job)
            self._thread.abandon(job)
            raise PluginError(f"{what} took longer than {seconds:g} s") from None

        error = job.future.exception()
        if isinstance(error, PluginError):
            raise error

        if error is not None:
            _log.warning("the plugin %s failed in %s", self.name, what, exc_info=error)
            raise PluginError(f"{what}: {_text(error)}")

        return job.future.result()


def read_options(schema: Any, given: JsonObject) -> Any:
    """Give ``given`` as the plugin's own ``Options`` say: a dataclass, a JSON Schema, or none at all.

    Raises:
        PluginError: with every fault.
    """
    if schema is None:
        if given:
            raise PluginError(f"it takes no options, but the configuration gives {', '.join(map(repr, given))}")

        return given

    shape = None
    try:
        if dataclasses.is_dataclass(schema):
            shape = shape_of(schema)
            schema = shape.schema

        checks = Schema(canonical_json(schema), bytes_max=256 << 10)
        faults = checks.check(given, "options")
    except (UnsupportedTypeError, ValueError, TypeError) as error:
        raise PluginError(f"its Options are neither a dataclass nor a JSON Schema that can be used: {error}") from None

    if faults:
        raise PluginError("; ".join(f"{fault.field}: {fault.description}" for fault in faults))

    try:
        return shape.read(given) if shape is not None else given
    except (ValueError, TypeError) as error:
        raise PluginError(f"options: {error}") from None


def _list_of(given: Any, hook: str, what: str, kind: type) -> list[Any]:
    if given is None:
        return []

    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, kind) for one in given):
        raise PluginError(f"{hook} gave {one_line(repr(given), 80)}; give a list of {what}")

    return list(given)


def _text(error: BaseException) -> str:
    error = error.error if isinstance(error, RaisedError) else error
    text = text_of(error)
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__, REASON_MAX)
