"""``python -m autoglm.cli.reference`` prints ``docs/cli.md``: every command's help, as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import typer

from autoglm.cli.app import app

WIDTH = 100
_HEAD = """\
# The command line

<!-- Written by `python -m autoglm.cli.reference > docs/cli.md`; change the help texts in sdk/autoglm/cli. -->

`autoglm` runs requests as durable plans and follows them. Results go to stdout, everything else to stderr, so
`autoglm run … > answer.txt` keeps the answer alone.

**What is shown.** `run` and `watch` draw a live tree on stderr: each step's state, duration, attempt, and progress where
its tool tells it. Where stderr is no terminal (or `TERM=dumb`) they write a line for each event, with the time in UTC.
`NO_COLOR` is respected; a terminal that is not UTF-8 gets ASCII. With `--json` the events go to stdout, one JSON object a
line (protobuf's JSON mapping, keys sorted): the same bytes from `run` and from a later `watch`. Ephemeral events (progress,
the answer as it is written) are left out unless `--ephemeral` asks for them. Whatever came from a server is written with
control and bidirectional characters as `\\u…` before it reaches a terminal; in a pipe or file, answers and outputs are exact.

**What waits for a person.** On a terminal, `run` and `watch` show what a step waits for, with the arguments as they would be
sent, and ask. Anywhere else they print the `autoglm resolve` commands and go on following. `autoglm plans --state waiting`
lists all of it.

**Which server.** `--address`, else `AUTOGLM_ADDRESS`, else the embedded server of the data directory (`--data-dir`, else
`AUTOGLM_DATA_DIR`, else the platform's user data folder), which is started when there is none. Both options may stand before
or after the command.

| exit status | meaning |
| --- | --- |
| 0 | the plan succeeded, or the command did what it says |
| 1 | the plan or the call failed, or the server refused |
| 2 | wrong usage or input: an option, a file, a plan's id, a tool's name |
| 3 | the plan was cancelled |
| 4 | the server cannot be reached, or does not answer in time |
| 130 | Ctrl-C; the plan was left running |
| 141 | whoever read the output stopped reading |

`watch` ends as `run` does, also of a plan that has ended; `show` ends with 0 when the plan could be shown."""


def render() -> str:
    """Give the whole page."""
    return "\n\n".join([_HEAD, *_commands()]) + "\n"


def _commands() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    context = root.make_context("autoglm", [], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    yield _section("autoglm", root.get_help(context))

    yield from _under(root, context)


def _under(group: Any, context: Any) -> Iterator[str]:
    """Give the commands of a group; of a group among them, its own."""
    for name, command in group.commands.items():
        inner = type(context)(command, info_name=name, parent=context)

        if getattr(command, "commands", None):
            yield from _under(command, inner)
        else:
            yield _section(inner.command_path, command.get_help(inner))


def _section(title: str, text: str) -> str:
    body = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## `{title}`\n\n```text\n{body}\n```"


if __name__ == "__main__":
    os.environ["TERM"] = "dumb"
    print(render(), end="")
