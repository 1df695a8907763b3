"""``shell.run``: what a command gets and gives, and that it ends, with all it started, when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize, ValidationError

from autoglm.model import Effect, Failure, ToolProgress
from autoglm_server.settings import LimitSettings, Settings, ShellSettings, ToolSettings
from autoglm_server.tools.builtin.shell import ShellProvider
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_shell
from autoglm_server.tools.secrets import Secrets, Source
from autoglm_server.tools.tool import Invocation, ToolCallError

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such processes")

ENVIRONMENT = {"PATH": f"relative:{os.environ['PATH']}", "OPENAI_API_KEY": "sk-c4nary", "GIVEN": "yes", "HOME": "/root"}


@asynccontextmanager
async def shell(root: Path, **settings: Any) -> AsyncIterator[Catalog]:
    secrets = Secrets({"token": Source("env:TOKEN")}, {"TOKEN": "c4nary-value"})
    secrets.load()
    catalog = Catalog([ShellProvider(ShellSettings(enabled=True, **settings), root, ENVIRONMENT)], secrets=secrets)
    await catalog.start()
    try:
        yield catalog
    finally:
        await catalog.stop()


async def call(
    catalog: Catalog,
    *command: str,
    seconds: float = 15.0,
    report: Callable[[ToolProgress], None] = lambda _progress: None,
    **arguments: Any,
) -> Any:
    made = Invocation("shell.run", {"command": [*command], **arguments}, "plan/step", seconds, report=report)
    return (await catalog.call(made)).output


async def failure(catalog: Catalog, *command: str, **arguments: Any) -> Failure:
    with pytest.raises(ToolCallError) as raised:
        await call(catalog, *command, **arguments)

    return raised.value.failure


def is_there(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pids: list[int]) -> bool:
    for _ in range(500):
        if not any(map(is_there, pids)):
            return True

        await asyncio.sleep(0.01)

    return False


class Started:
    """Waits for the numbers that a script prints."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._text = ""
        self.pids: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    def report(self, progress: ToolProgress) -> None:
        self._text += progress.text
        if self._text.count("\n") >= self._count and not self.pids.done():
            self.pids.set_result([int(line) for line in self._text.split()])


# A command, a child in its group, and a grandchild that left the group and whose parent has ended.
FAMILY = "echo $$; sleep 1000 & echo $!; (setsid sh -c 'echo $$; exec sleep 1000' &); wait"
STUBBORN = "trap '' TERM; echo $$; while true; do sleep 0.05; done"

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")


def test_it_is_there_only_when_enabled(tmp_path: Path) -> None:
    assert open_shell(ShellSettings(), tmp_path) == []
    (provider,) = open_shell(ShellSettings(enabled=True, timeout=timedelta(seconds=5)), tmp_path)
    (tool,) = provider.tools()
    assert (tool.effect, tool.destructive, tool.open_world) == (Effect.NON_IDEMPOTENT, True, True)
    assert tool.requires_approval
    assert tool.timeout == timedelta(seconds=5)


@pytest.mark.parametrize("match", ["shell.run", "shell.*", "*"])
def test_no_setting_takes_the_approval_away(match: str) -> None:
    rules = (ToolSettings(match=match, requires_approval=False),)
    with pytest.raises(ValidationError, match=r"shell\.run"):
        Settings(shell=ShellSettings(enabled=True), tools=rules)

    Settings(tools=rules)
    Settings(shell=ShellSettings(enabled=True), tools=(ToolSettings(match="files.*", requires_approval=False),))


async def test_a_command_runs_in_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    async with shell(tmp_path) as catalog:
        script = "pwd -P; cat; echo error >&2"
        output = await call(catalog, "sh", "-c", script, folder="sub")
        words = await call(catalog, "printf", "%s|", "a b", "$HOME", "*")

    told = {"exit_code": 0, "stdout": f"{tmp_path / 'sub'}\n", "stderr": "error\n", "truncated": False}
    assert output == told
    assert words["stdout"] == "a b|$HOME|*|"


async def test_a_folder_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    async with shell(tmp_path) as catalog:
        assert (await failure(catalog, "pwd", folder="..")).reason == "OUTSIDE_WORKSPACE"
        assert (await failure(catalog, "pwd", folder="link")).reason == "LINK_REFUSED"
        assert (await failure(catalog, "pwd", folder="/etc")).reason == "OUTSIDE_WORKSPACE"


async def test_a_command_sees_little_of_the_environment(tmp_path: Path) -> None:
    async with shell(tmp_path, env=("GIVEN", "MISSING")) as catalog:
        output = await call(catalog, "env")

    found = dict(line.split("=", 1) for line in output["stdout"].splitlines())
    assert found["GIVEN"] == "yes"
    assert found["HOME"] == str(tmp_path)
    assert Settings(workspace=Path("here")).workspace_dir == Path.cwd() / "here"  # which HOME is
    assert "relative" not in found["PATH"]
    assert found.keys() <= {"GIVEN", "HOME", "PATH", "LANG", "LC_CTYPE"}


async def test_secrets_are_taken_out_of_what_it_writes(tmp_path: Path) -> None:
    seen: list[str] = []
    (tmp_path / "file").write_text("c4nary-value")
    async with shell(tmp_path) as catalog:
        output = await call(catalog, "cat", "file", report=lambda progress: seen.append(progress.text))

    assert "c4nary" not in str([output, seen])
    assert output["stdout"]


async def test_a_status_is_a_failure_unless_told_otherwise(tmp_path: Path) -> None:
    async with shell(tmp_path) as catalog:
        script = ("sh", "-c", "echo out; echo why >&2; exit 3")
        failed = await failure(catalog, *script)
        output = await call(catalog, *script, check=False)
        killed = await failure(catalog, "sh", "-c", "kill -9 $$")

    assert (failed.reason, failed.domain, failed.retryable) == ("EXIT_STATUS", "shell.run", False)
    assert failed.message == "'sh' ended with status 3: why"
    assert failed.metadata == {"exit_code": "3", "stdout": "out", "stderr": "why"}
    assert output == {"exit_code": 3, "stdout": "out\n", "stderr": "why\n", "truncated": False}
    assert "SIGKILL" in killed.message
    assert killed.metadata["exit_code"] == "-9"


async def test_what_cannot_be_started_is_told(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    async with shell(tmp_path, commands=("printf *", "no-such*", "./plain")) as catalog:
        assert (await failure(catalog, "no-such-program")).reason == "COMMAND_NOT_FOUND"
        assert (await failure(catalog, "./plain")).reason == "NO_PERMISSION"
        assert (await failure(catalog, "sh", "-c", "printf x")).reason == "COMMAND_NOT_ALLOWED"
        assert (await failure(catalog, "printf", "\0")).reason == "INVALID_COMMAND"
        assert (await failure(catalog, "")).reason == "INVALID_COMMAND"
        assert (await failure(catalog)).reason == "INVALID_ARGUMENTS"
        assert (await call(catalog, "printf", "fine"))["stdout"] == "fine"


async def test_much_output_is_shown_and_its_end_kept(tmp_path: Path) -> None:
    seen: list[str] = []
    async with shell(tmp_path, output=1024) as catalog:
        script = "i=0; while [ $i -lt 2000 ]; do echo line $i ä; i=$((i+1)); done"
        output = await call(catalog, "sh", "-c", script, report=lambda progress: seen.append(progress.text))

    assert output["truncated"]
    assert output["stdout"].startswith("[")
    assert output["stdout"].endswith("line 1999 ä\n")
    assert len(output["stdout"].encode()) < 1200
    assert "line 0 ä" in "".join(seen)


@pytest.mark.parametrize("byte", [r"\377", r"\001"])
async def test_what_is_longer_as_json_still_fits(tmp_path: Path, byte: str) -> None:
    script = f"printf '{byte}%.0s' $(seq 3000); printf 'end'"
    async with shell(tmp_path, output=1024) as catalog:
        output = await call(catalog, "sh", "-c", f"{script}; ({script}) >&2")

    for text in (output["stdout"], output["stderr"]):
        assert output["truncated"]
        assert text.endswith("end")
        assert 900 < len(json.dumps(text, ensure_ascii=False).encode()) < 1100


def test_what_is_kept_of_commands_fits_into_an_output() -> None:
    shell_settings = ShellSettings(enabled=True, output=ByteSize(64 << 10))
    with pytest.raises(ValidationError, match=r"shell\.output"):
        Settings(shell=shell_settings, limits=LimitSettings(output=ByteSize(128 << 10)))

    Settings(shell=shell_settings, limits=LimitSettings(output=ByteSize(256 << 10)))
    Settings(limits=LimitSettings(output=ByteSize(1 << 10)))


async def test_bytes_that_are_no_text_are_marked(tmp_path: Path) -> None:
    async with shell(tmp_path) as catalog:
        assert (await call(catalog, "printf", r"a\377b"))["stdout"] == "a\ufffdb"


@linux
@pytest.mark.parametrize("script", [FAMILY, STUBBORN])
async def test_all_of_it_ends_when_the_call_is_cancelled(tmp_path: Path, script: str) -> None:
    started = Started(script.count("echo"))
    async with shell(tmp_path) as catalog:
        task = asyncio.ensure_future(call(catalog, "sh", "-c", script, report=started.report))
        pids = await started.pids
        assert all(map(is_there, pids))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not any(map(is_there, pids))


@linux
def test_the_control_leaves_the_grandchild_alone() -> None:
    with subprocess.Popen(["sh", "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True) as plain:
        assert plain.stdout is not None
        pids = [int(plain.stdout.readline()) for _ in range(3)]
        os.killpg(plain.pid, signal.SIGKILL)
        left = pids
        for _ in range(500):
            left = [pid for pid in pids if is_there(pid)]
            if len(left) == 1:
                break

            time.sleep(0.01)

        for pid in left:
            os.kill(pid, signal.SIGKILL)

    assert len(left) == 1


@linux
async def test_all_of_it_ends_when_its_time_is_up(tmp_path: Path) -> None:
    started = Started(1)
    async with shell(tmp_path) as catalog:
        failed = await failure(catalog, "sh", "-c", STUBBORN, seconds=1.5, report=started.report)

    assert (failed.reason, failed.outcome_unknown, failed.retryable) == ("STEP_TIMEOUT", True, False)
    assert "may still be running" not in failed.message
    assert await gone(await started.pids)


@linux
async def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    async with shell(tmp_path) as catalog:
        script = "sleep 1000 & echo $!; (setsid sh -c 'echo $$; exec sleep 1000' & ) ; sleep 0.2"
        output = await call(catalog, "sh", "-c", script)

    pids = [int(line) for line in output["stdout"].split()]
    assert len(pids) == 2
    assert not any(map(is_there, pids))


@linux
async def test_a_keeper_that_is_killed_takes_the_command_along(tmp_path: Path) -> None:
    async with shell(tmp_path) as catalog:
        started = Started(2)
        script = "echo $$; sleep 1000 & echo $!; kill -9 $PPID; wait"
        failed = await failure(catalog, "sh", "-c", script, report=started.report)

    assert await gone(await started.pids)
    assert (failed.reason, failed.outcome_unknown, failed.retryable) == ("LOST", True, False)


@linux
async def test_a_keeper_that_the_command_stops_still_ends_it(tmp_path: Path) -> None:
    async with shell(tmp_path) as catalog:
        started = Started(2)
        script = "kill -STOP $PPID; echo $$; sleep 1000 & echo $!; wait"
        task = asyncio.ensure_future(call(catalog, "sh", "-c", script, report=started.report))
        pids = await started.pids
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await gone(pids)


@linux
async def test_a_keeper_that_is_kept_from_ending_the_command_is_given_up(tmp_path: Path) -> None:
    async with shell(tmp_path) as catalog:
        started = Started(1)
        script = "echo $$; while true; do kill -STOP $PPID; done"
        task = asyncio.ensure_future(call(catalog, "sh", "-c", script, report=started.report))
        pids = await started.pids
        task.cancel()
        with pytest.raises((asyncio.CancelledError, ToolCallError)):
            await task

        assert await gone(pids)


@linux
async def test_a_server_that_is_killed_leaves_no_command(tmp_path: Path) -> None:
    script = f"""
import os, sys
from autoglm_server.tools.shell.commands import Bounds, run
folder = os.open({str(tmp_path)!r}, os.O_RDONLY)
command = ["sh", "-c", {FAMILY!r}]
run(command, folder, {{"PATH": os.environ["PATH"]}}, Bounds(1 << 30, 60, 4096),
    on_text=lambda text: (sys.stdout.write(text), sys.stdout.flush()), is_cancelled=lambda: False)
"""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    pids = [int(await server.stdout.readline()) for _ in range(3)]
    assert all(map(is_there, pids))
    server.kill()
    await server.wait()
    assert await gone(pids)


async def test_memory_and_processor_time_have_bounds(tmp_path: Path) -> None:
    python = sys.executable
    async with shell(tmp_path, memory=256 << 20, cpu=timedelta(seconds=1)) as catalog:
        large = await failure(catalog, python, "-S", "-c", "bytearray(512 << 20)")
        busy = await failure(catalog, python, "-S", "-c", "while True: pass")
        fine = await call(catalog, python, "-S", "-c", "print(len(bytearray(64 << 20)))")

    assert "MemoryError" in large.message
    assert "processor time" in busy.message
    assert fine["stdout"].strip() == str(64 << 20)


@contextlib.contextmanager
def same_children() -> Iterator[None]:
    """Hold to it that this process has the same children afterwards, zombies counted."""

    def now() -> set[str]:
        return {child for path in Path("/proc/self/task").glob("*/children") for child in path.read_text().split()}

    before = now()
    yield
    for _ in range(300):
        if now() <= before:
            return

        time.sleep(0.01)

    raise AssertionError(now() - before)


@linux
async def test_no_zombie_stays(tmp_path: Path) -> None:
    with same_children():
        async with shell(tmp_path) as catalog:
            await call(catalog, "true")
            await failure(catalog, "no-such-program")
            await failure(catalog, "false")
