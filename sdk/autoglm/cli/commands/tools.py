"""``tools``, ``tool`` and ``call``: look at tools, and call one without a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoglm import wire
from autoglm.cli import tables
from autoglm.cli.exits import Exit, InputError
from autoglm.cli.options import Address, AsJson, DataDir, Providers, read_object, session_of
from autoglm.cli.text import one_line, size
from autoglm.model import Artifact, PluginState, ToolProgress

TOOLS_EXAMPLES = """\
Examples:

\b
  autoglm tools
  autoglm tools --provider mine=python:tools.py --json
"""
TOOL_EXAMPLES = """\
Examples:

\b
  autoglm tool math.calculate
"""
CALL_EXAMPLES = """\
Examples:

\b
  autoglm call math.calculate --args '{"expression": "2480 * 0.15"}'
  autoglm call files.write --args @arguments.json
  autoglm call mine.chart --args @data.json --save charts
  echo '{"expression": "1 + 1"}' | autoglm call math.calculate --args - --json

The call is made once, with the same checks as in a plan, but nothing of it is kept. Exit status: 1 when the tool failed, 2 when
there is no such tool or the arguments do not fit it.
"""
PLUGINS_EXAMPLES = """\
Examples:

\b
  autoglm plugins
  autoglm plugins --json

A plugin is used when the server's configuration names it under `plugins`; without a file, in a shell:

\b
  export AUTOGLM_PLUGINS='[{name: hello}]'

Exit status: 1 when a plugin failed.
"""
ToolName = Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name, as `autoglm tools` lists it.")]


def tools(
    context: typer.Context,
    *,
    json: AsJson = False,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """List the tools that steps may call."""
    session = session_of(context, address, data_dir, provider)

    with session.client() as client:
        found = list(client.tools.list())

    for tool in found if json else ():
        session.record(wire.to_json(tool))

    if not json and found:
        session.show(tables.tools(found))
    elif not found:
        session.tell("The server has no tools.")

    return Exit.SUCCEEDED


def tool(
    context: typer.Context,
    name: ToolName,
    *,
    json: AsJson = False,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Show a tool: what it does, what it takes, what it gives."""
    session = session_of(context, address, data_dir, provider)

    with session.client() as client:
        found = client.tools.get(name)

    session.give(found, tables.tool(found, session.target), as_json=json)
    return Exit.SUCCEEDED


def plugins(
    context: typer.Context,
    *,
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """List the server's plugins, what has become of them, and why."""
    session = session_of(context, address, data_dir, None)

    with session.client() as client:
        found = client.info().plugins

    for plugin in found if json else ():
        session.record(wire.to_json(plugin))

    if not json:
        session.show(tables.plugins(found))

    failed = any(plugin.state is PluginState.FAILED for plugin in found)
    return Exit.FAILED if failed else Exit.SUCCEEDED


def call(
    context: typer.Context,
    name: ToolName,
    *,
    args: Annotated[
        str,
        typer.Option(
            "--args", metavar="JSON", help="The arguments as a JSON object; @FILE and - read it.", show_default=False
        ),
    ] = "{}",
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.001, help="How long the call may take (30).", show_default=False
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Save the files of the result into this folder.")
    ] = None,
    json: AsJson = False,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Call a tool directly and print its output.

    Its arguments are one JSON object, given with --args.
    """
    session = session_of(context, address, data_dir, provider)
    arguments = read_object("--args", args, session)

    def told(progress: ToolProgress) -> None:
        done = f"{min(1.0, progress.fraction):.0%}" if progress.fraction > 0 else ""

        if line := " ".join(part for part in (done, one_line(progress.message, 200)) if part):
            session.tell(line)

    def saved(artifact: Artifact, path: Path) -> None:
        session.tell(f"saved {path} ({size(artifact.size_bytes)})")

    with session.client() as client:
        try:
            found = client.tools.call(
                name, arguments, timeout=timeout, progress=told, save_to=save, on_file=saved if save else None
            )
        except OSError as error:
            raise InputError(f"--save {save}: {error.strerror or error}") from None

    for artifact in found.artifacts if save is None else ():
        session.tell(f"file {one_line(artifact.name)} ({size(artifact.size_bytes)}): dropped; --save DIR keeps it")

    if json:
        session.record(wire.to_json(found))
    else:
        session.result(tables.result(found))

    return Exit.SUCCEEDED
