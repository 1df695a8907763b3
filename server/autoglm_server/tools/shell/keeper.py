"""Keeps one command: starts it within limits, ends it and everything it started, and tells how it ended.

``python -I -S keeper.py``, started by :mod:`autoglm_server.tools.shell.commands` alone, and with the standard library alone:
it is up in a few hundredths of a second, holds one thread, and may therefore fork. It is told what to do by one line of JSON
on standard input. A byte after it, or the end of it (which comes when the server died, too), means: end the command.

On Linux it is the *subreaper* of what the command starts: a process that leaves its group, and whose parent has ended, becomes a
child of the keeper and is ended like the others. Elsewhere the command's process group is ended.

It writes lines of JSON to the descriptor ``status``: ``{pid}``, then ``{exit}``, ``{signal}``, or ``{error}`` (an errno) if the
command could not be started.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_POLL = 0.05
_STEP = 0.02
_FILES = 1024
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Keep one command."""
    spec = json.loads(_line())
    own = _adopts()
    child, error = _started(spec)
    _detach()
    if error:
        _tell(spec, {"error": error})
        return

    _tell(spec, _kept(child, float(spec["grace"]), everything=own))


def _line() -> bytes:
    """Read standard input up to the first line break, and no further."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte

    return line


def _tell(spec: dict[str, Any], message: dict[str, int]) -> None:
    os.write(spec["status"], json.dumps(message).encode() + b"\n")


def _adopts() -> bool:
    """Become who takes over orphans below here; give whether that is possible."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False

    import ctypes  # noqa: PLC0415 - not needed elsewhere

    return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)


def _started(spec: dict[str, Any]) -> tuple[int, int]:
    """Start the command; give its number, and what kept it from starting as an errno."""
    heard, told = os.pipe()  # closed by a successful exec
    child = os.fork()
    if child == 0:
        try:
            _become(spec)
        except OSError as error:
            os.write(told, str(error.errno or errno.EIO).encode())
        finally:
            os._exit(127)

    os.close(told)
    said = os.read(heard, 16)
    os.close(heard)
    if said:
        os.waitpid(child, 0)

    return child, int(said or 0)


def _become(spec: dict[str, Any]) -> None:
    os.setsid()
    _tell(spec, {"pid": os.getpid()})  # before it is the command, which could kill the keeper
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should this keeper be killed
    os.fchdir(spec["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so
        signal.signal(number, signal.SIG_DFL)

    for which, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_AS, spec["memory"]),
    ):
        _limit(which, most, most)

    _limit(resource.RLIMIT_CPU, spec["cpu"], spec["cpu"] + 1)
    for descriptor in (spec["folder"], spec["status"]):
        os.set_inheritable(descriptor, False)  # noqa: FBT003  # it has no name

    command = spec["command"]
    os.execvpe(command[0], command, os.environ)  # noqa: S606  # a command, and no shell


def _limit(which: int, soft: int, hard: int) -> None:
    _, most = resource.getrlimit(which)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)

    try:
        resource.setrlimit(which, (soft, hard))
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None


def _detach() -> None:
    """Let go of the command's output, which ends when the last of its processes does."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _kept(child: int, grace: float, *, everything: bool) -> dict[str, int]:
    """Wait until the command and all it started have ended; give how it ended."""
    ended: dict[str, int] = {}
    kill_at: float | None = None
    listening = True
    while True:
        gone = _reap(child)
        ended = gone or ended
        if ended:
            if not everything or not _has_children():
                return ended

            _signal_all(signal.SIGKILL)
        elif kill_at is not None and time.monotonic() >= kill_at:
            _signal_group(child, signal.SIGKILL)
            if everything:
                _signal_all(signal.SIGKILL)

        heard, _, _ = select.select([0] if listening else [], [], [], _STEP if ended or kill_at else _POLL)
        if heard:
            listening = bool(os.read(0, 16))
            if kill_at is None:
                kill_at = time.monotonic() + grace
                _signal_group(child, signal.SIGTERM)
                if everything:
                    _signal_all(signal.SIGTERM, but=child)


def _reap(child: int) -> dict[str, int]:
    """Take leave of every process that has ended; give how the command did, if it is among them."""
    ended: dict[str, int] = {}
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return ended

        if found is None:
            return ended

        if found.si_pid == child:
            # Before its number is free for others: what it left behind in its group ends with it.
            _signal_group(child, signal.SIGKILL)
            ended = {"exit" if found.si_code == os.CLD_EXITED else "signal": found.si_status}

        os.waitpid(found.si_pid, 0)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False

    return True


def _signal_group(child: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, number)


def _signal_all(number: signal.Signals, but: int = 0) -> None:
    """Signal every process below this one."""
    waiting, seen = [os.getpid()], set()
    while waiting:
        above = waiting.pop()
        for below in _children_of(above):
            if below in seen:
                continue

            seen.add(below)
            waiting.append(below)
            if below != but:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(below, number)


def _children_of(process: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it may end meanwhile
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text("ascii").split())

    return found


if __name__ == "__main__":
    main()
