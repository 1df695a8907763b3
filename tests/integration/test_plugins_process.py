"""Plugins and SIGHUP in a real server: the template as a person installs it, and a new configuration under a running plan."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import autoglm
from autoglm.model import PluginState, StepState
from tests.integration.conftest import Process, Start

NOT_INSTALLED = "no plugin of this name is installed; there are: builtin. Else set its source"
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")


async def until_logged(process: Process, text: str, times: int = 1) -> list[str]:
    while process.log.read_text().count(text) < times:
        assert process.popen.poll() is None, process.log.read_text()
        await asyncio.sleep(0.02)

    return [line["message"] for line in process.lines()]


def install(target: Path, source: Path) -> None:
    """Install a copied template as its comment says, without a package index."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_template_is_copied_installed_and_called_in_a_plan(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "examples" / "plugin", tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    install(tmp_path / "installed", tmp_path / "mine")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    server = await start(PLUGINS="[{name: hello, options: {greeting: Hi}}]").serving()

    async with autoglm.AsyncClient(server.address) as client:
        [hello] = [plugin for plugin in (await client.info()).plugins if plugin.name == "hello"]
        assert (hello.version, hello.source, hello.state) == ("1.0.0", "autoglm_hello:Hello", PluginState.ACTIVE)
        assert hello.tools == ("hello.greet",)
        plan = await (await client.run("greet Bo")).result()
        assert plan.answer == "Hi, Bo!"
        assert plan.steps[0].tool == "hello.greet"
        with pytest.raises(autoglm.PlanFailedError):
            await (
                await client.run(steps=[autoglm.StepDraft(id="step1", tool="files.read", arguments={"path": "no"})])
            ).result()

    server.signal()
    assert await server.ended() == 0
    messages = [line["message"] for line in server.lines()]
    assert "hello greets with 'Hi'" in messages
    assert any(message.endswith(": step step1 failed: NOT_THERE") for message in messages)
    assert messages.index("hello says goodbye") < messages.index("ended")


CHANGED = '''
import time
from pathlib import Path
import autoglm
from autoglm import Effect

@autoglm.tool(name="gate", effect=Effect.READ_ONLY)
def gate(path: str) -> str:
    """Wait for a file."""
    return "new"

@autoglm.tool(name="count", effect=Effect.NON_IDEMPOTENT)
def count(path: str, by: int = 1) -> int:
    """Add a line to a file."""
    Path(path).write_text("new")
    return by
'''


def write(file: Path, **sections: Any) -> None:
    file.write_text(yaml.safe_dump(sections))


async def test_a_new_configuration_is_taken_over_under_a_running_plan(tmp_path: Path, start: Start) -> None:
    config, tools = tmp_path / "c.yaml", tmp_path / "tools.py"
    provider = {"p": f"python:{tools}"}
    write(config, providers=provider, plan={"max_steps": 5})
    server = await start("--config", str(config)).serving()
    gate, counted = tmp_path / "gate", tmp_path / "counted"

    async with autoglm.AsyncClient(server.address) as client:
        steps = [
            autoglm.StepDraft(id="g", tool="p.gate", arguments={"path": str(gate)}),
            autoglm.StepDraft(id="c", tool="p.count", arguments={"path": str(counted)}, depends_on=("g",)),
        ]
        handle = await client.run(steps=steps)
        async for event in handle:
            if isinstance(event.fact, autoglm.StepStarted):
                break

        tools.write_text(CHANGED)
        more = tmp_path / "more.py"
        more.write_text(CHANGED)
        write(
            config,
            providers={**provider, "q": f"python:{more}"},
            plan={"max_steps": 7},
            server={"drain": "5s"},
            data_dir=str(tmp_path / "elsewhere"),
            plugins=[{"name": "builtin", "enable": False}, {"name": "missing"}],
            tools=[{"match": "q.*", "requires_approval": True}],
        )
        server.signal(signal.SIGHUP)
        lines = [line for line in await until_logged(server, "reload: done") if line.startswith("reload: ")]
        # data_dir is given as a flag, which goes over the file: it is the same as before.
        assert lines == [
            "reload: server.drain is read at the start alone; restart the server to change it",
            "reload: plan.max_steps is now 7",
            f"reload: provider p: loaded anew, its file changed: python:{tools}",
            f"reload: provider q: added at python:{more}",
            "reload: plugin builtin: disabled",
            f"reload: plugin missing: added, failed: {NOT_INSTALLED}",
            "reload: tools: what stands around them is now as configured",
            "reload: done, except for what stays as it was: server.drain",
        ]
        listed = [tool async for tool in client.tools.list()]
        assert "math.calculate" not in {tool.name for tool in listed}
        found = {tool.name: tool.requires_approval for tool in listed if tool.provider in ("p", "q")}
        assert found == {"p.gate": False, "p.count": False, "q.gate": True, "q.count": True}
        assert (await client.tools.call("p.gate", {"path": "x"})).output == "new"

        gate.write_text("")  # the call under way ends as it began, with the function of before
        async for event in client.watch(handle.id):
            if isinstance(event.fact, autoglm.StepWaiting):
                assert event.fact.reason is autoglm.WaitingReason.TOOL_CHANGED
                break

        plan = await client.get(handle.id)
        assert [step.state for step in plan.steps] == [StepState.SUCCEEDED, StepState.WAITING]
        assert plan.steps[0].result is not None
        assert plan.steps[0].result.output == "open"
        await client.resolve(handle.id, "c", autoglm.Decision(autoglm.Approve()))
        await handle.result()
        assert counted.read_text() == "new"


async def test_what_is_wrong_changes_nothing_and_is_told(tmp_path: Path, start: Start) -> None:
    config, tools = tmp_path / "c.yaml", tmp_path / "tools.py"
    write(config, providers={"p": f"python:{tools}"})
    server = await start("--config", str(config)).serving()

    write(config, providers={"p": f"python:{tools}"}, plan={"max_step": 3, "max_rounds": 0})
    server.signal(signal.SIGHUP)
    lines = await until_logged(server, "the configuration was not taken over", times=2)
    assert any("plan.max_step is not a setting; did you mean plan.max_steps" in line for line in lines)
    assert any("plan.max_rounds = 0: Input should be greater than or equal to 1" in line for line in lines)

    write(config, providers={"p": f"python:{tools}", "q": "python:/nowhere.py"}, plan={"max_steps": 3})
    server.signal(signal.SIGHUP)
    lines = await until_logged(server, "reload: done")
    assert any("tools, providers and plugins stay as they were: there is no file /nowhere.py" in line for line in lines)
    assert "reload: done, except for what stays as it was: tools, providers and plugins" in lines
    assert "reload: plan.max_steps is now 3" in lines

    async with autoglm.AsyncClient(server.address) as client:
        assert [tool.name async for tool in client.tools.list() if tool.provider in ("p", "q")] == ["p.count", "p.gate"]

    server.signal()
    assert await server.ended() == 0


PLANNER = """
import autoglm
from autoglm.planner import AnswerText
from autoglm.plugin import hookimpl

class Echo:
    name, revises = "echo", False

    async def round(self, view):
        if view.round == 1:
            yield autoglm.StepDraft(id="c", tool="text.count", arguments={"text": view.plan.request})
        else:
            yield AnswerText(f"counted: {view.plan.steps[0].result.output['result']}")

class Plugin:
    @hookimpl
    def register_planners(self, event):
        return [Echo()]

plugin = Plugin
"""


async def test_a_plan_is_made_by_a_plugins_planner_and_a_wrapper_asks_for_approval(
    tmp_path: Path, start: Start
) -> None:
    (tmp_path / "echo.py").write_text(PLANNER)
    config = tmp_path / "c.yaml"
    plugin = {"name": "echo", "source": f"python:{tmp_path / 'echo.py'}"}
    write(config, plugins=[plugin], planner={"kind": "echo"}, tools=[{"match": "text.*", "requires_approval": True}])
    server = await start("--config", str(config)).serving()

    async with autoglm.AsyncClient(server.address) as client:
        info = await client.info()
        assert (info.planner, "planner.echo" in info.capabilities) == ("echo", True)
        handle = await client.run("four")
        async for event in handle:
            if isinstance(event.fact, autoglm.StepWaiting):
                assert event.fact.reason is autoglm.WaitingReason.APPROVAL
                await client.resolve(handle.id, "c", autoglm.Decision(autoglm.Approve()))

        assert (await handle.result()).answer == "counted: 1"
        with pytest.raises(autoglm.PreconditionError, match="needs a person's approval"):
            await client.tools.call("text.count", {"text": "x"})
