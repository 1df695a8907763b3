"""``serve``, ``doctor``, ``version`` and ``completion``: the server, the installation, the shell."""

from __future__ import annotations

import enum
import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

from autoglm import local, wire
from autoglm._version import __version__
from autoglm.cli import PIP_LINE, doctor
from autoglm.cli.commands import data
from autoglm.cli.exits import Exit, InputError
from autoglm.cli.options import Address, AsJson, DataDir, Providers, session_of

SERVE_EXAMPLES = """\
Examples:

\b
  autoglm serve
  autoglm serve --config autoglm.yaml --host 0.0.0.0 --port 50051
  autoglm serve --provider mine=python:tools.py

The server runs in this process until SIGTERM or Ctrl-C, and then drains. Other flags are passed on to it; all settings are in
docs/configuration.md. Commands without an address use it when they share its data directory.
"""
DOCTOR_EXAMPLES = """\
Examples:

\b
  autoglm doctor
  autoglm doctor --address localhost:50051 --json
  autoglm doctor --repair --data-dir /srv/autoglm

Exit status: 0 when nothing is wrong, 1 when something is, 4 when the server cannot be reached. With --repair: 0 when nothing
is damaged or all could be saved, 1 when something is lost, 2 when there is no journal.
"""
VERSION_EXAMPLES = """\
Examples:

\b
  autoglm version --json
"""
COMPLETION_EXAMPLES = """\
Examples:

\b
  eval "$(autoglm completion bash)"                                        # in ~/.bashrc
  eval "$(autoglm completion zsh)"                                         # in ~/.zshrc, after compinit
  autoglm completion fish > ~/.config/fish/completions/autoglm.fish
"""
_TOLD = ("grpcio", "protobuf", "typer", "rich")


class Shell(enum.StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def serve(
    context: typer.Context,
    *,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The YAML file of settings.")] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="The address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", min=0, max=65535, help="The port; 0 takes a free one.")
    ] = None,
    provider: Providers = None,
    data_dir: DataDir = None,
) -> int:
    """Run a server in the foreground."""
    session = session_of(context, None, data_dir, provider)

    if missing := local.missing_packages():
        raise InputError(f"the server needs packages that are not installed ({', '.join(missing)}); run: {PIP_LINE}")

    flags = {"--config": config, "--host": host, "--port": port, "--data-dir": session.target.data_dir}
    given = [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]
    # -P: a module in the current directory must not take the place of one of the server's.
    command = [sys.executable, "-P", "-m", "autoglm_server", *given, *session.target.server_args, *context.args]
    local.make_way(session.target.data_dir, progress=session.tell)
    session.stdout.flush()
    session.stderr.flush()
    # gRPC reads it at its first import, and a server starts processes; the new image has it from its first moment.
    session.replace_process(command, {**session.environment, "GRPC_ENABLE_FORK_SUPPORT": "0"})
    return Exit.FAILED


def examine(
    context: typer.Context,
    *,
    json: AsJson = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Save what can be read of a damaged journal; its server must be stopped.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --repair: do not ask.")] = False,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Check the installation and the server.

    Each line is a check with its verdict, and the remedy when it is not well.
    """
    session = session_of(context, address, data_dir, provider)

    if repair:
        return data.repair(session, yes=yes, json=json)

    if yes:
        raise InputError("--yes belongs to --repair; add it, or leave --yes out")

    checks = []

    for check in doctor.examine(session):
        checks.append(check)

        if json:
            session.record(wire.canonical_json(check.to_object()))
        else:
            session.result("\n".join(check.lines()))

    return doctor.status(checks)


def version(context: typer.Context, *, json: AsJson = False) -> int:
    """Print the versions of this installation."""
    session = session_of(context, None, None)
    found = {"autoglm": __version__, "python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in _TOLD}

    if json:
        session.record(wire.canonical_json(found))
    else:
        session.result(
            f"autoglm {__version__}\n" + "\n".join(f"  {name} {each}" for name, each in list(found.items())[1:])
        )

    return Exit.SUCCEEDED


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")],
) -> int:
    """Print the completion script of a shell."""
    session = session_of(context, None, None)
    session.result(get_completion_script(prog_name="autoglm", complete_var="_AUTOGLM_COMPLETE", shell=shell.value))
    return Exit.SUCCEEDED
