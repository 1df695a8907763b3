"""``shell.run``: commands in the workspace. There when the settings say so; a person approves each call."""

from __future__ import annotations

import errno
import fnmatch
import os
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, NoReturn, TypedDict

from autoglm.model import Effect
from autoglm.tool import Constraint, FunctionTool, ToolContext, ToolError, tool
from autoglm_server.settings import ShellSettings
from autoglm_server.tools.builtin._workspace import PATH_MAX, Workspace
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.shell.commands import Bounds, Ended, LostError, StartError, run

NAME: Final = "shell"
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_TOLD_MAX: Final = 1000

Word = Annotated[str, Constraint(max_length=64 << 10)]
Folder = Annotated[str, Constraint(min_length=1, max_length=PATH_MAX)]


class Output(TypedDict):
    """How a command ended; a status below 0 is the signal that ended it. Of a long stream the last is kept."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool


class ShellProvider(FunctionProvider):
    """Serves the tool."""

    def __init__(self, settings: ShellSettings, workspace: Path, environment: Mapping[str, str] | None = None) -> None:
        """Run commands in ``workspace``; ``environment`` is the server's own, of which little is passed on."""
        given = os.environ if environment is None else environment
        super().__init__(NAME, [_tool(settings, workspace, _passed_on(settings, workspace, given))])


def _tool(settings: ShellSettings, workspace: Path, environment: Mapping[str, str]) -> FunctionTool:
    folders = Workspace(workspace)
    bounds = Bounds(settings.memory, max(1, round(settings.cpu.total_seconds())), settings.output)

    @tool(
        name="run",
        title="Run a command",
        effect=Effect.NON_IDEMPOTENT,
        destructive=True,
        open_world=True,
        requires_approval=True,
        timeout=settings.timeout,
        tags=("shell",),
    )
    def run_command(
        context: ToolContext,
        command: Annotated[list[Word], Constraint(min_items=1, max_items=1000)],
        folder: Folder = ".",
        check: bool = True,  # noqa: FBT001, FBT002  # arguments have names
    ) -> Output:
        """Run a command in the workspace, without a shell and without input. A person approves each call.

        Args:
            context: The call's context.
            command: The program and its arguments, each as one item: ["wc", "-l", "notes.txt"]. For a pipe, ask a shell: ["sh",
                "-c", "sort names.txt | uniq -c"].
            folder: Where it runs, relative to the workspace.
            check: Whether an exit code other than 0 is a failure.
        """
        _check(command, settings.commands)
        context.raise_if_cancelled()
        with folders.folder(folder) as opened:
            try:
                ended = run(
                    command,
                    opened,
                    environment,
                    bounds,
                    on_text=lambda text: context.progress(0.0, text=text),
                    is_cancelled=lambda: context.cancelled,
                )
            except StartError as error:
                _not_started(error, command[0])
            except LostError:
                message = f"nobody knows how {command[0]!r} ended: the process that kept it was killed"
                raise ToolError(message, reason="LOST", outcome_unknown=True) from None

        context.raise_if_cancelled()
        if check and ended.status != 0:
            raise _failed(ended, command[0], bounds)

        return Output(exit_code=ended.status, stdout=ended.stdout, stderr=ended.stderr, truncated=ended.truncated)

    return run_command


def _passed_on(settings: ShellSettings, workspace: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Give what a command finds in its environment: no more of the server's own than the settings name."""
    folders = [folder for folder in environment.get("PATH", _PATH).split(os.pathsep) if Path(folder).is_absolute()]
    passed = {name: environment[name] for name in settings.env if name in environment}
    return {
        "PATH": os.pathsep.join(folders) or _PATH,
        "HOME": str(workspace),  # not the operator's own: what lies there was not meant for plans
        "LANG": environment.get("LANG", "C.UTF-8"),
        **passed,
    }


def _check(command: list[str], allowed: tuple[str, ...]) -> None:
    if not command[0] or any("\0" in word for word in command):
        raise ToolError("command must name a program, and hold no zero byte", reason="INVALID_COMMAND")

    written = shlex.join(command)
    if allowed and not any(fnmatch.fnmatchcase(written, pattern) for pattern in allowed):
        told = f"{written[:200]!r} is not among the commands that shell.commands allows: {', '.join(allowed[:10])}"
        raise ToolError(told, reason="COMMAND_NOT_ALLOWED")


def _not_started(error: StartError, program: str) -> NoReturn:
    match error.errno:
        case errno.ENOENT:
            raise ToolError(f"there is no program {program[:200]!r}", reason="COMMAND_NOT_FOUND") from None
        case errno.EACCES:
            raise ToolError(f"{program[:200]!r} may not be run", reason="NO_PERMISSION") from None
        case _:
            told = f"{program[:200]!r} could not be started: {error}"
            raise ToolError(told, reason="NOT_STARTED", retryable=error.errno in (errno.EAGAIN, errno.ENOMEM)) from None


def _failed(ended: Ended, program: str, bounds: Bounds) -> ToolError:
    how = f"ended with status {ended.status}" if ended.status > 0 else f"was ended by {_signal(-ended.status)}"
    if ended.status == -signal.SIGXCPU:
        how = f"used up its {bounds.cpu} s of processor time (shell.cpu)"

    lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
    told = f": {lines[-1][:300]}" if lines else ""
    return ToolError(
        f"{program[:200]!r} {how}{told}",
        reason="EXIT_STATUS",
        metadata={
            "exit_code": str(ended.status),
            "stdout": ended.stdout[-_TOLD_MAX:],
            "stderr": ended.stderr[-_TOLD_MAX:],
        },
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
