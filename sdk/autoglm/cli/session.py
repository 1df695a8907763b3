"""What a command works with: its three streams, the time, and a client made when it is first needed.

Commands get a :class:`Session` from the context and nothing from the process itself, so that a test can hand them another.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol, TextIO

from rich.console import Console, RenderableType

from autoglm import wire
from autoglm._dataclasses import dataclass
from autoglm.cli.exits import InputError
from autoglm.cli.text import clean
from autoglm.model import (
    Artifact,
    CreatePlanRequest,
    Decision,
    Event,
    JsonObject,
    Plan,
    PlanState,
    PlanView,
    ServerInfo,
    Step,
    StepState,
    Tool,
    ToolProgress,
    ToolResult,
)


class ToolClient(Protocol):
    """What commands ask of ``client.tools``."""

    def list(self) -> Iterable[Tool]: ...

    def get(self, name: str) -> Tool: ...

    def call(
        self,
        name: str,
        arguments: JsonObject,
        *,
        timeout: float | None = None,
        progress: Callable[[ToolProgress], None] | None = None,
        save_to: Path | None = None,
        on_file: Callable[[Artifact, Path], None] | None = None,
    ) -> ToolResult: ...


class PlanClient(Protocol):
    """What commands ask of a server: the part of :class:`autoglm.Client` that they use."""

    @property
    def tools(self) -> ToolClient: ...

    @property
    def address(self) -> str: ...

    def create(self, request: CreatePlanRequest) -> Plan: ...

    def validate(self, request: CreatePlanRequest) -> Plan: ...

    def get(self, plan_id: str, *, view: PlanView = PlanView.FULL) -> Plan: ...

    def list_steps(self, plan_id: str, *, states: Sequence[StepState] = ()) -> Iterator[Step]: ...

    def list(
        self, *, states: Sequence[PlanState] = (), labels: Mapping[str, str] | None = None, parent_plan_id: str = ""
    ) -> Iterable[Plan]: ...

    def watch(self, plan_id: str, *, after_sequence: int = 0, durable_only: bool = False) -> Iterable[Event]: ...

    def cancel(self, plan_id: str, reason: str = "") -> Plan: ...

    def resolve(
        self, plan_id: str, step_id: str, decision: Decision, *, wait_sequence: int = 0, comment: str = ""
    ) -> Plan: ...

    def save_artifact(
        self,
        plan_id: str,
        artifact: Artifact,
        path: Path,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Path: ...

    def info(self) -> ServerInfo: ...

    def health(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Which server is meant. Without an address: the embedded server of the data directory."""

    address: str | None = None
    data_dir: str | None = None
    server_args: tuple[str, ...] = ()

    def over(self, address: str | None, data_dir: str | None, server_args: tuple[str, ...] = ()) -> Target:
        """Give this target with what a command says more precisely."""
        return replace(
            self,
            address=address or self.address,
            data_dir=data_dir or self.data_dir,
            server_args=self.server_args + server_args,
        )


Connect = Callable[[Target, Callable[[str], None]], AbstractContextManager[PlanClient]]
"""Opens a client to a target; tells in a sentence what takes long."""


def _nowhere() -> TextIO:
    """Stand for a stream that this process was started without."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


@dataclass(slots=True)
class Session:
    """The world of one command."""

    connect: Connect
    target: Target = field(default_factory=Target)
    stdin: TextIO = field(default_factory=lambda: sys.stdin or io.StringIO())
    stdout: TextIO = field(default_factory=lambda: sys.stdout or _nowhere())
    stderr: TextIO = field(default_factory=lambda: sys.stderr or _nowhere())
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    monotonic: Callable[[], float] = time.monotonic
    replace_process: Callable[[list[str], Mapping[str, str]], None] = lambda command, environment: os.execve(  # noqa: S606
        command[0],
        command,
        environment,  # our own interpreter and module; there is no shell
    )
    now: Callable[[], datetime] = lambda: datetime.now(UTC)  # noqa: TID251 - ages on a screen; no port for it in the SDK

    def client(self) -> AbstractContextManager[PlanClient]:
        """Open the client.

        Raises:
            InputError: a server elsewhere is meant, and settings are given that only the embedded one can take.
        """
        from_environment = self.environment.get("AUTOGLM_ADDRESS") and not self.target.data_dir
        named = "--address" if self.target.address else "AUTOGLM_ADDRESS" if from_environment else ""

        if named and self.target.server_args:
            flag = self.target.server_args[0]
            raise InputError(f"{flag} is for the embedded server, but {named} names another; leave one of them out")

        return self.connect(self.target, self.tell)

    # --- what the streams are

    @property
    def interactive(self) -> bool:
        """Whether there is a person to ask: both the questions' and the answers' stream are terminals."""
        return self.stdin.isatty() and self.stderr.isatty()

    @property
    def live(self) -> bool:
        """Whether progress can be drawn over and over: stderr is a terminal that can move its cursor."""
        return self.stderr.isatty() and self.environment.get("TERM", "") not in {"dumb", "unknown"}

    def console(self, stream: TextIO) -> Console:
        """Give a console for ``stream`` that never reads markup, emoji codes or highlights out of data.

        Lines are as wide as a terminal is; where there is none, they are as long as they are.
        """
        terminal = stream.isatty()
        return Console(
            file=stream,
            force_terminal=terminal,
            width=None if terminal else 10_000,
            markup=False,
            emoji=False,
            highlight=False,
            soft_wrap=not terminal,
            _environ=self.environment,
        )

    # --- writing

    def tell(self, text: str = "") -> None:
        """Write a line to stderr, cleaned."""
        _write(self.stderr, clean(text) + "\n")

    def result(self, text: str) -> None:
        """Write a result to stdout: cleaned if that is a terminal, else exactly as it is."""
        _write(self.stdout, (clean(text) if self.stdout.isatty() else text) + "\n")

    def show(self, renderable: RenderableType) -> None:
        """Write a table or the like to stdout; every part of it is cleaned already."""
        console = self.console(self.stdout)

        with console.capture() as capture:
            console.print(renderable)

        _write(self.stdout, "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))

    def give(self, value: object, renderable: RenderableType, *, as_json: bool) -> None:
        """Write a value of the vocabulary to stdout: as a line of JSON, or as ``renderable``."""
        if as_json:
            self.record(wire.to_json(value))
        else:
            self.show(renderable)

    def record(self, line: str) -> None:
        """Write a line of JSON to stdout, at once, in UTF-8 whatever the locale says."""
        buffer: IO[bytes] | None = getattr(self.stdout, "buffer", None)

        if buffer is None:
            self.stdout.write(line + "\n")
        else:
            self.stdout.flush()
            buffer.write(line.encode() + b"\n")

        self.stdout.flush()

    def input_bytes(self) -> IO[bytes]:
        """Give stdin as bytes."""
        buffer: IO[bytes] | None = getattr(self.stdin, "buffer", None)
        return buffer if buffer is not None else io.BytesIO(self.stdin.read().encode())

    def ask(self, question: str) -> str:
        """Ask on stderr, and give the line that stdin answers, ``""`` at its end."""
        _write(self.stderr, clean(question))
        return self.stdin.readline().strip()


def can_unicode(stream: TextIO) -> bool:
    """Tell whether ``stream`` can show the glyphs of the tree."""
    try:
        "✓⠋…━".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False

    return True


def _write(stream: TextIO, text: str) -> None:
    encoding = stream.encoding or "utf-8"

    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.encode(encoding, "backslashreplace").decode(encoding)

    stream.write(text)
    stream.flush()


def connect(target: Target, progress: Callable[[str], None]) -> AbstractContextManager[PlanClient]:
    """Open the client of a target; the embedded server is started if that is what is meant and there is none."""
    from autoglm.client import Client  # noqa: PLC0415 - help and completion need no gRPC

    return Client(target.address, data_dir=target.data_dir, server_args=target.server_args, progress=progress)
