"""Plugins: what each may do, and that nothing one does reaches the server or another plugin."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest

import autoglm
from autoglm.model import Failure, PluginState, StepState
from autoglm.plugin import ErrorEvent, StepEndedEvent, StepStartedEvent, hookimpl
from autoglm_server.plugins import discovery
from autoglm_server.plugins.discovery import Found
from autoglm_server.plugins.host import Plugins
from autoglm_server.plugins.one import OnePlugin, PluginLimits
from autoglm_server.settings import PluginSettings

QUICK = PluginLimits(load=0.2, hook=0.2)

STARTED = StepStartedEvent("p", 3, None, "a", 1, "t", {})
ENDED = StepEndedEvent("p", 4, None, "a", 1, "t", StepState.SUCCEEDED, 1, None)
ERROR = ErrorEvent("p", 5, None, "a", 1, "t", 0, Failure("NO"), final=True)


@autoglm.tool(name="one")
def tool_one() -> int:
    """Give one."""
    return 1


class Recording:
    """A plugin that notes every hook."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails_at: Callable[[Any], Any] = lambda _event: None

    def _note(self, event: Any) -> None:
        self.told.append(event)
        self.fails_at(event)

    @hookimpl
    def on_load(self, event: Any) -> None:
        self._note(event)

    @hookimpl
    def register_tools(self, event: Any) -> list[Any]:
        self._note(event)
        return [tool_one]

    @hookimpl
    def on_start(self, event: Any) -> None:
        self._note(event)

    @hookimpl
    def on_step_started(self, event: Any) -> None:
        self._note(event)

    @hookimpl
    def on_step_ended(self, event: Any) -> None:
        self._note(event)

    @hookimpl
    def on_error(self, event: Any) -> None:
        self._note(event)

    @hookimpl
    def on_unload(self, event: Any) -> None:
        self._note(event)

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.told]


def one(plugin: object = None, limits: PluginLimits = QUICK, **settings: Any) -> OnePlugin:
    return OnePlugin(PluginSettings(**{"name": "mine", **settings}), workspace=Path("/ws"), limits=limits)


async def loaded(plugin: object, limits: PluginLimits = QUICK, **settings: Any) -> OnePlugin:
    made = one(limits=limits, **settings)
    await made.load(Found("mine", "1.2", "test", lambda: plugin))
    return made


@asynccontextmanager
async def telling(plugin: OnePlugin) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(plugin.tell())
    yield
    assert not task.done()
    task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a thread of the plugin makes it so
        await asyncio.sleep(0.005)


# --- the life of one


async def test_a_plugin_lives_from_load_to_unload() -> None:
    recording = Recording()
    plugin = await loaded(recording)
    await plugin.start("here:1")
    async with telling(plugin):
        for event in (STARTED, ENDED, ERROR):
            plugin.offer(event, 100)

        await plugin.unload()

    assert recording.names == [
        "LoadEvent",
        "ToolsRequest",
        "StartEvent",
        "StepStartedEvent",
        "StepEndedEvent",
        "ErrorEvent",
        "UnloadEvent",
    ]
    assert recording.told[0].workspace == Path("/ws")
    assert recording.told[2].address == "here:1"
    assert recording.told[3:6] == [STARTED, ENDED, ERROR]
    told = plugin.told()
    assert (told.name, told.version, told.source, told.tools) == ("mine", "1.2", "test", ("mine.one",))
    assert (told.state, told.reason, told.errors, told.dropped) == (PluginState.ACTIVE, "", 0, 0)


async def test_hooks_run_in_a_thread_of_the_plugins_own() -> None:
    threads: list[str] = []

    class Plugin:
        @hookimpl
        def on_load(self) -> None:  # the argument may be left out
            threads.append(threading.current_thread().name)

    plugin = await loaded(Plugin)
    assert plugin.state is PluginState.ACTIVE
    assert threads == ["plugin-mine-1"]
    await plugin.unload()


@pytest.mark.parametrize("hook", ["LoadEvent", "ToolsRequest"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ValueError("no such\nhost"), "ValueError: no such host"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
async def test_what_fails_to_load_is_not_used_and_says_why(hook: str, fault: BaseException, reason: str) -> None:
    recording = Recording()

    def fail(event: Any) -> None:
        if type(event).__name__ == hook:
            raise fault

    recording.fails_at = fail
    plugin = await loaded(recording)

    assert plugin.state is PluginState.FAILED
    assert reason in plugin.reason
    assert plugin.provider is None
    assert ("UnloadEvent" in recording.names) == (hook == "ToolsRequest")  # what was taken is let go of


async def test_what_takes_too_long_to_load_is_given_up() -> None:
    gate = threading.Event()
    recording = Recording()
    recording.fails_at = lambda _: gate.wait(10)
    plugin = await loaded(recording)

    assert plugin.state is PluginState.FAILED
    assert plugin.reason == "on_load took longer than 0.2 s"
    gate.set()


@pytest.mark.parametrize("fails", [True, False])
async def test_a_failure_at_the_start_leaves_its_tools_but_tells_it_of_no_steps(*, fails: bool) -> None:
    recording = Recording()

    def fail(event: Any) -> None:
        if type(event).__name__ == "StartEvent" and fails:
            raise OSError("no socket")

    recording.fails_at = fail
    plugin = await loaded(recording)
    await plugin.start("here:1")

    assert plugin.state is (PluginState.DEGRADED if fails else PluginState.ACTIVE)
    assert plugin.usable
    assert plugin.listens != fails
    assert plugin.provider is not None
    await plugin.unload()


class _Async:
    @hookimpl
    async def on_load(self) -> None: ...


class _Unknown:
    @hookimpl
    def on_lod(self) -> None: ...


class _OtherName:
    @hookimpl
    def on_load(self, request: object) -> None: ...


class _Unmarked:
    def on_load(self, event: object) -> None: ...


class _Tools:
    @hookimpl
    def register_tools(self) -> list[Any]:
        return [lambda: 1]


class _Twice:
    @hookimpl
    def register_tools(self) -> list[Any]:
        return [tool_one, tool_one]


class _Planners:
    @hookimpl
    def register_planners(self) -> list[Any]:
        return [object()]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (_Async, "its hook on_load is async; write `def`"),
        (_Unknown, "unknown hook 'on_lod'"),
        (_OtherName, r"request"),
        (_Unmarked, "it has no hooks; mark its functions with autoglm.plugin.hookimpl"),
        (_Tools, "register_tools gave [<function"),
        (_Twice, "two functions are the tool 'one'"),
        (_Planners, "has no name, no revises or no round()"),
    ],
)
async def test_a_plugin_that_means_nothing_says_what_to_write(wrong: type, reason: str) -> None:
    plugin = await loaded(wrong)

    assert plugin.state is PluginState.FAILED
    assert reason in plugin.reason


async def test_observing_adds_no_tools_and_is_told_of_steps() -> None:
    recording = Recording()
    plugin = await loaded(recording, mode="observe")

    assert plugin.provider is None
    assert plugin.listens
    assert recording.names == ["LoadEvent"]
    await plugin.unload()


# --- options


@dataclass(frozen=True)
class Options:
    url: str
    tries: Annotated[int, autoglm.Constraint(minimum=1)] = 3


class WithOptions(Recording):
    Options: Any = Options


class WithSchema(Recording):
    Options: ClassVar[Any] = {
        "type": "object",
        "properties": {"url": {"type": "string"}, "tries": {"type": "integer", "minimum": 1}},
        "required": ["url"],
        "additionalProperties": False,
    }


async def test_options_are_the_plugins_own_dataclass() -> None:
    recording = WithOptions()
    plugin = await loaded(recording, options={"url": "x"})

    assert recording.told[0].options == Options("x", 3)
    await plugin.unload()


@pytest.mark.parametrize("kind", [WithOptions, WithSchema])
async def test_every_fault_of_the_options_is_told(kind: type) -> None:
    plugin = await loaded(kind, options={"tries": 0, "ur": 1})

    assert plugin.state is PluginState.FAILED
    for told in ("options.url: is required", "options.tries:", "options.ur: is not known"):
        assert told in plugin.reason


async def test_options_that_nobody_asked_for_are_refused() -> None:
    plugin = await loaded(Recording, options={"url": "x"})

    assert plugin.reason == "it takes no options, but the configuration gives 'url'"


# --- steps


async def test_a_hook_that_fails_now_and_then_is_counted_and_goes_on() -> None:
    recording = Recording()
    recording.fails_at = lambda event: 1 / (event.sequence % 2) if event is ENDED else None
    plugin = await loaded(recording)
    async with telling(plugin):
        for _ in range(12):
            plugin.offer(STARTED, 1)
            plugin.offer(ENDED, 1)

        await until(lambda: plugin.errors == 12)

    assert plugin.state is PluginState.ACTIVE
    assert "on_step_ended: ZeroDivisionError" in plugin.reason
    await plugin.unload()


async def test_a_hook_that_always_fails_is_not_called_for_ever() -> None:
    recording = Recording()

    def fail(event: Any) -> None:
        if event is STARTED:
            raise RuntimeError("broken")

    recording.fails_at = fail
    plugin = await loaded(recording)
    async with telling(plugin):
        for _ in range(100):
            plugin.offer(STARTED, 1)

        await until(lambda: plugin.state is PluginState.DEGRADED)

    assert plugin.reason.startswith("10 times in a row: on_step_started: RuntimeError: broken")
    assert plugin.provider is not None
    before = len(recording.told)
    plugin.offer(STARTED, 1)
    assert len(recording.told) == before
    await plugin.unload()
    assert recording.names[-1] == "UnloadEvent"


async def test_a_hook_that_hangs_is_given_up_and_holds_up_nobody() -> None:
    gate = threading.Event()
    stuck, free = Recording(), Recording()
    stuck.fails_at = lambda event: gate.wait(10) if event is STARTED else None
    plugins = [await loaded(stuck), await loaded(free)]
    async with telling(plugins[0]), telling(plugins[1]):
        for plugin in plugins:
            plugin.offer(STARTED, 1)
            plugin.offer(ENDED, 1)

        await until(lambda: ENDED in free.told)
        assert plugins[0].state is PluginState.ACTIVE  # not yet given up
        await until(lambda: plugins[0].state is PluginState.DEGRADED)

    assert plugins[0].reason == "a hook of steps took longer than 0.2 s"
    assert plugins[1].state is PluginState.ACTIVE
    gate.set()
    for plugin in plugins:
        await plugin.unload()


@pytest.mark.parametrize("bound", [{"events": 5}, {"event_bytes": 50}])
async def test_what_does_not_fit_is_dropped_and_counted(bound: dict[str, int]) -> None:
    gate = threading.Event()
    recording = Recording()
    recording.fails_at = lambda event: gate.wait(10) if event is STARTED else None
    plugin = await loaded(recording, PluginLimits(load=5, hook=5, **bound))
    async with telling(plugin):
        for _ in range(20):
            plugin.offer(STARTED, 10)

        assert plugin.dropped == 15
        gate.set()
        await plugin.unload()

    assert recording.told.count(STARTED) == 5
    assert plugin.told().dropped == 15


# --- all of them


FILE = """
from autoglm.plugin import hookimpl
import autoglm

LOG = {log!r}

def note(text):
    with open(LOG, "a") as file:
        file.write(text + chr(10))

@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def tell() -> str:
    '''Tell.'''
    return {says!r}

class Plugin:
    @hookimpl
    def on_load(self, event):
        self.name = event.name
        note(f"load {{self.name}}")
        {more}

    @hookimpl
    def register_tools(self, event):
        return [tell]

    @hookimpl
    def on_start(self, event):
        note(f"start {{self.name}}")

    @hookimpl
    def on_unload(self, event):
        note(f"unload {{self.name}}")

plugin = Plugin
"""


class Folder:
    """Where a test writes plugins, and what they noted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log"

    def write(self, name: str, says: str = "1", more: str = "pass") -> PluginSettings:
        file = self.path / f"{name}.py"
        file.write_text(FILE.format(log=str(self.log), says=says, more=more))
        return PluginSettings(name=name, source=f"python:{file}")

    @property
    def notes(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def take(plugins: Plugins, *settings: PluginSettings) -> list[str]:
    change = await plugins.prepare(settings)
    await plugins.let_go(await plugins.keep(change))
    return change.lines


def states(plugins: Plugins) -> dict[str, str]:
    return {plugin.name: plugin.state.name for plugin in plugins.told({})}


async def test_order_is_that_of_the_configuration_and_unloading_is_the_reverse(folder: Folder) -> None:
    b, a = folder.write("b"), folder.write("a")
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, b, a)
        await plugins.start("here")
        assert [provider.name for provider in plugins.providers()] == ["", "b", "a"]
        assert [plugin.name for plugin in plugins.told({})][:3] == ["builtin", "b", "a"]

    assert folder.notes == ["load b", "load a", "start b", "start a", "unload a", "unload b"]


async def test_the_built_in_tools_come_through_the_same_door(folder: Folder) -> None:
    async with Plugins(folder.path / "ws", limits=QUICK) as plugins:
        await take(plugins)
        [provider] = plugins.providers()
        assert "math.calculate" in [tool.name for tool in provider.tools()]
        assert "math.calculate" in plugins.told({})[0].tools
        await take(plugins, PluginSettings(name="builtin", enable=False))
        assert plugins.providers() == []
        assert plugins.told({})[0].reason == "the configuration says enable: false"


async def test_one_that_fails_leaves_the_others(folder: Folder) -> None:
    wrong = [
        folder.write("raises", more="raise OSError('no disk')"),
        folder.write("hangs", more="import time; time.sleep(0.5)"),
        PluginSettings(name="gone", source="python:/nowhere/x.py"),
        PluginSettings(name="odd", source="npm:x"),
        PluginSettings(name="missing"),
    ]
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, *wrong, folder.write("fine"))
        found = {plugin.name: plugin for plugin in plugins.told({})}

    assert [found[one.name].state for one in wrong] == [PluginState.FAILED] * 5
    assert found["fine"].state is PluginState.ACTIVE
    assert found["raises"].reason == "on_load: OSError: no disk"
    assert found["hangs"].reason == "on_load took longer than 0.2 s"
    assert "there is no file /nowhere/x.py" in found["gone"].reason
    assert "write python:FILE.py" in found["odd"].reason
    assert "no plugin of this name is installed; there are: builtin" in found["missing"].reason


async def test_what_is_installed_and_not_configured_is_listed_and_not_loaded(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> object:
        raise AssertionError("loaded")

    there = {"other": Found("other", "2.0", "package:Other", never)}
    monkeypatch.setattr(discovery, "installed", lambda: there)
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, PluginSettings(name="builtin", enable=False))
        other = plugins.told({})[-1]

    assert (other.name, other.version, other.source) == ("other", "2.0", "package:Other")
    assert (other.state, other.enabled) == (PluginState.DISABLED, False)
    assert "does not name it" in other.reason


async def test_a_tool_that_the_catalog_does_not_offer_is_told_with_its_plugin(folder: Folder) -> None:
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, folder.write("mine"))
        mine = plugins.told({"mine.tell": "another tool of 'x' has this name"})[1]

    assert mine.tools == ()
    assert mine.reason == "mine.tell is not offered: another tool of 'x' has this name"


# --- a new configuration


async def test_only_what_is_different_is_loaded_anew(folder: Folder) -> None:
    same, changed, edited = folder.write("same"), folder.write("changed"), folder.write("edited")
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, same, changed, edited)
        await plugins.start("here")
        folder.log.write_text("")
        folder.write("edited", says="other")
        lines = await take(plugins, same, changed.model_copy(update={"mode": "observe"}), edited, folder.write("new"))
        assert lines == [
            "plugin changed: loaded anew, active",
            "plugin edited: loaded anew, active",
            "plugin new: added, active",
        ]
        # What replaces something is loaded and started before that is let go of.
        assert folder.notes == [
            *(f"load {name}" for name in ("changed", "edited", "new")),
            *(f"start {name}" for name in ("changed", "edited", "new")),
            *(f"unload {name}" for name in ("edited", "changed")),
        ]
        assert await take(plugins, same) == [f"plugin {name}: removed" for name in ("changed", "edited", "new")]


async def test_what_worked_stays_when_the_new_one_fails(folder: Folder) -> None:
    mine = folder.write("mine")
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, mine)
        assert (await plugins.prepare([mine])).stay == []
        (folder.path / "mine.py").write_text("this is no Python")
        assert (await plugins.prepare([mine])).stay == ["plugin mine"]
        lines = await take(plugins, mine)

        assert len(lines) == 1
        assert lines[0].startswith("plugin mine: stays as it was, because the new one failed: loading it: LoadError:")
        assert states(plugins)["mine"] == "ACTIVE"
        assert folder.notes == ["load mine"]
        folder.write("mine", says="2")
        assert await take(plugins, mine) == ["plugin mine: loaded anew, active"]


async def test_a_change_that_is_not_kept_leaves_no_trace(folder: Folder) -> None:
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, folder.write("a"))
        change = await plugins.prepare([folder.write("b")])
        await plugins.let_go(change.added)
        assert states(plugins) == {"builtin": "ACTIVE", "a": "ACTIVE"}
        assert folder.notes == ["load a", "load b", "unload b"]


async def test_a_failed_plugin_is_tried_again(folder: Folder) -> None:
    marker = folder.path / "ready"
    mine = folder.write("mine", more=f"open({str(marker)!r}).close()")
    async with Plugins(folder.path, limits=QUICK) as plugins:
        await take(plugins, mine)
        assert states(plugins)["mine"] == "FAILED"
        marker.write_text("")
        assert await take(plugins, mine) == ["plugin mine: loaded anew, active"]


PLANNERS = """
from autoglm.plugin import hookimpl

class Planner:
    def __init__(self, name):
        self.name, self.revises = name, False

    async def round(self, view):
        yield None

class Plugin:
    @hookimpl
    def register_planners(self, event):
        return [Planner({name!r})]

plugin = Plugin
"""


async def test_planners_come_from_plugins_and_have_names_of_their_own(tmp_path: Path) -> None:
    def write(file: str, name: str) -> PluginSettings:
        path = tmp_path / f"{file}.py"
        path.write_text(PLANNERS.format(name=name))
        return PluginSettings(name=file, source=f"python:{path}")

    async with Plugins(tmp_path, limits=QUICK) as plugins:
        await take(plugins, write("first", "mine"), write("second", "mine"), write("third", "rules"))
        assert list(plugins.planners()) == ["mine"]
        assert states(plugins) == {"builtin": "ACTIVE", "first": "ACTIVE", "second": "FAILED", "third": "FAILED"}
        assert plugins.told({})[1].planners == ("mine",)


def test_pluggy_is_not_needed_to_write_a_plugin() -> None:
    script = "import sys, autoglm.plugin; sys.exit('pluggy' in sys.modules or 'autoglm_server' in sys.modules)"
    import subprocess

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


async def test_ten_thousand_events_are_told_in_order() -> None:
    recording = Recording()
    plugin = await loaded(recording, PluginLimits(load=5, hook=5))
    async with telling(plugin):
        for number in range(10_000):
            plugin.offer(StepStartedEvent("p", number, None, "a", 1, "t", None), 10)

        await plugin.unload()

    assert plugin.dropped == 0
    told = [event.sequence for event in recording.told if isinstance(event, StepStartedEvent)]
    assert told == list(range(10_000))
