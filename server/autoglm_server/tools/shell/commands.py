"""Runs one command in a thread: its output as it comes, within bounds, and its end."""

from __future__ import annotations

import codecs
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Final, cast

from autoglm._dataclasses import dataclass

GRACE: Final = 0.5
"""How long a command may take to end after SIGTERM, in seconds, before it is killed; less than a call whose time is up has."""
_STOP: Final = 4 * GRACE
"""How long the keeper may take to end the command, before it is killed itself."""
_POLL = 0.05
_REST = 0.25
_PIECE = 64 << 10
_BROKEN = "\ufffd"
_KEEPER = Path(__file__).with_name("keeper.py")


class StartError(Exception):
    """The command could not be started; it has had no effect."""

    def __init__(self, number: int) -> None:
        """Carry the errno."""
        super().__init__(os.strerror(number))
        self.errno = number


class LostError(Exception):
    """Nobody knows how the command ended: who kept it was killed."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a command may take: of each process, address space in bytes and processor time in seconds; of its output, bytes."""

    memory: int
    cpu: int
    output: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its status, or minus the number of the signal that ended it; the last of each stream."""

    status: int
    stdout: str
    stderr: str
    truncated: bool


class Tail:
    """The last of a stream, and how much there was before."""

    def __init__(self, bytes_max: int) -> None:
        """Keep so many bytes."""
        self._bytes_max = bytes_max
        self._kept = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.left_out = 0
        """How many bytes are no longer kept."""

    def add(self, data: bytes) -> str:
        """Take more of it; give what of it is whole characters."""
        self._kept += data
        if (over := len(self._kept) - self._bytes_max) > 0:
            del self._kept[:over]
            self.left_out += over

        return self._decoder.decode(data)

    def text(self) -> str:
        """Give what is kept, with a mark where the rest stood. As JSON it is no longer either: a byte may be six there."""
        over = bisect_left(range(len(self._kept)), -self._bytes_max, key=lambda at: -_json_bytes(self._kept[at:]))
        del self._kept[:over]
        self.left_out += over
        kept = _text(self._kept)
        if not self.left_out:
            return kept

        # Of a character that was cut through, up to three bytes may be left.
        return f"[{self.left_out} bytes left out] …{kept[:3].lstrip(_BROKEN)}{kept[3:]}"


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace")


def _json_bytes(data: bytearray) -> int:
    return len(json.dumps(_text(data), ensure_ascii=False).encode()) - 2


def run(
    command: Sequence[str],
    folder: int,
    environment: Mapping[str, str],
    bounds: Bounds,
    *,
    on_text: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> Ended:
    """Run a command in an open folder until it and all it started have ended. ``on_text`` gets its output as it comes.

    Raises:
        StartError: it could not be started.
        LostError: nobody knows how it ended.
    """
    with ExitStack() as open_now:
        heard, told = os.pipe()
        status = open_now.enter_context(os.fdopen(heard, "rb", 0))
        keeper = _keeper(folder, told, environment)
        open_now.callback(_end, keeper)
        spec = {"command": list(command), "folder": folder, "status": told, "grace": GRACE}
        spec |= {"memory": bounds.memory, "cpu": bounds.cpu}
        with suppress(BrokenPipeError):
            cast("IO[bytes]", keeper.stdin).write(json.dumps(spec).encode() + b"\n")

        tails = Tail(bounds.output), Tail(bounds.output)
        said = _read(keeper, status, tails, on_text, is_cancelled)

    return _ended(said, tails)


def _keeper(folder: int, status: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603  # our own file
            [sys.executable, "-I", "-S", str(_KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            pass_fds=(folder, status),
            start_new_session=True,
        )
    except OSError as error:
        raise StartError(error.errno or 0) from None
    finally:
        os.close(status)


def _read(
    keeper: subprocess.Popen[bytes],
    status: IO[bytes],
    tails: tuple[Tail, Tail],
    on_text: Callable[[str], None],
    is_cancelled: Callable[[], bool],
) -> bytes:
    """Read all streams to their ends; tell the keeper to end the command when the call is cancelled."""
    said, told = b"", False
    with selectors.DefaultSelector() as selector:
        selector.register(status, selectors.EVENT_READ)
        for stream, tail in ((keeper.stdout, tails[0]), (keeper.stderr, tails[1])):
            selector.register(cast("IO[bytes]", stream), selectors.EVENT_READ, tail)

        until = float("inf")  # what outlived the keeper, where it can, may hold the streams for ever
        while selector.get_map() and time.monotonic() < until:
            if not told and is_cancelled():
                told, until = True, time.monotonic() + _STOP
                with suppress(BrokenPipeError):
                    cast("IO[bytes]", keeper.stdin).write(b"T")

                keeper.send_signal(signal.SIGCONT)  # the command may have stopped it

            for key, _ in selector.select(_POLL):
                data = os.read(key.fd, _PIECE)
                if not data:
                    selector.unregister(key.fileobj)
                    if key.fileobj is status:
                        _kill_orphans(said)
                        until = time.monotonic() + _REST
                elif key.data is None:
                    said += data
                elif text := key.data.add(data):
                    on_text(text)

        if status.fileno() in {key.fd for key in selector.get_map().values()}:  # it did not end the command in time
            keeper.kill()
            _kill_orphans(said)

    return said


def _kill_orphans(said: bytes) -> None:
    """Kill the command's group when who kept it is gone without having told its end."""
    messages = _messages(said)
    if len(messages) == 1 and "pid" in messages[0]:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(messages[0]["pid"], signal.SIGKILL)


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """Let go of the keeper; it ends by itself, and is killed if it does not, as when this was interrupted."""
    for pipe in (keeper.stdin, keeper.stdout, keeper.stderr):
        cast("IO[bytes]", pipe).close()

    try:
        keeper.wait(_STOP)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()


def _ended(said: bytes, tails: tuple[Tail, Tail]) -> Ended:
    messages = _messages(said)
    last = messages[-1] if messages else {}
    if "error" in last:
        raise StartError(last["error"])

    if "exit" not in last and "signal" not in last:
        raise LostError

    status = last["exit"] if "exit" in last else -last["signal"]
    cut = any(tail.left_out for tail in tails)
    return Ended(status, tails[0].text(), tails[1].text(), cut)


def _messages(said: bytes) -> list[dict[str, int]]:
    return [json.loads(line) for line in said.splitlines()]
