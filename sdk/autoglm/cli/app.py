"""The command line as a whole: its commands, its help, and the one boundary where an error becomes lines and a status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TextIO

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.core import TyperGroup

from autoglm._version import __version__
from autoglm.cli.commands import artifacts, bench, data, plans, server, tools
from autoglm.cli.commands import mcp as mcp_command
from autoglm.cli.commands import run as running
from autoglm.cli.exits import Exit, InputError, error_lines, status_of_error
from autoglm.cli.options import Address, DataDir
from autoglm.cli.session import Session, connect
from autoglm.cli.text import clean
from autoglm.errors import AutoglmError

HELP = """\
Run requests in natural language as durable plans, and follow every step.

Results go to stdout, everything else to stderr. Without an address, the embedded server of the data directory is used, and
started if there is none.
"""
EPILOG = """\
Examples:

\b
  autoglm run "15% of 2480, then convert it from kilometers to miles"
  autoglm plans --state waiting
  autoglm doctor

Exit status: 0 succeeded, 1 failed, 2 wrong usage or input, 3 cancelled, 4 the server cannot be reached, 130 interrupted.
"""


WORDS_LEFT = {
    "call": """a tool's arguments are one JSON object after --args, as in \
autoglm call math.calculate --args '{"expression": "1 + 1"}'""",
    "run": "put a request of several words in quotes",
}
"""How words that a command has no place for are written, by the command."""
OPTIONS_MEANT = {"--file": "--plan", "-f": "--plan"}
"""What an option is called that other programs call otherwise, where the nearest name is another one."""


class _Commands(TyperGroup):
    """The commands in the order in which they were added: what one needs first comes first."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's own signature
        return list(self.commands)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _let_go(sys.stdout)  # who read the output stopped
            return Exit.CLOSED


app = typer.Typer(
    name="autoglm",
    cls=_Commands,
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"autoglm {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: typer.Context,
    *,
    address: Address = None,
    data_dir: DataDir = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that may stand before the command."""
    del version
    session: Session = context.obj
    session.target = session.target.over(address, data_dir)


def _add(name: str, function: Callable[..., int], epilog: str, **settings: Any) -> None:
    app.command(name, epilog=epilog, context_settings={"help_option_names": ["--help", "-h"], **settings})(function)


_add("run", running.run, running.RUN_EXAMPLES)
_add("watch", running.watch, running.WATCH_EXAMPLES)
_add("plans", plans.plans, plans.PLANS_EXAMPLES)
_add("show", plans.show, plans.SHOW_EXAMPLES)
_add("artifacts", artifacts.artifacts, artifacts.ARTIFACTS_EXAMPLES)
_add("cancel", plans.cancel, plans.CANCEL_EXAMPLES)
_add("resolve", plans.resolve, plans.RESOLVE_EXAMPLES)
_add("tools", tools.tools, tools.TOOLS_EXAMPLES)
_add("tool", tools.tool, tools.TOOL_EXAMPLES)
_add("call", tools.call, tools.CALL_EXAMPLES)
app.add_typer(bench.bench)
_add("plugins", tools.plugins, tools.PLUGINS_EXAMPLES)
_add("serve", server.serve, server.SERVE_EXAMPLES, allow_extra_args=True, ignore_unknown_options=True)
_add("mcp", mcp_command.mcp, mcp_command.MCP_EXAMPLES)
_add("backup", data.backup, data.BACKUP_EXAMPLES)
_add("restore", data.restore, data.RESTORE_EXAMPLES)
_add("doctor", server.examine, server.DOCTOR_EXAMPLES)
_add("version", server.version, server.VERSION_EXAMPLES)
_add("completion", server.completion, server.COMPLETION_EXAMPLES)


@cache
def whole() -> Any:
    """Give the command line with all its commands, made of the functions' annotations: that takes longer than most commands."""
    completion_init()
    return typer.main.get_command(app)


def run(arguments: list[str], session: Session | None = None) -> int:
    """Run a command line in ``session`` (the process's own by default) and give its exit status."""
    session = session or Session(connect)

    try:
        status = whole().main(arguments, prog_name="autoglm", standalone_mode=False, obj=session)
    except InputError as error:
        return _fail(session, error.faults, Exit.USAGE)
    except AutoglmError as error:
        return _fail(session, tuple(error_lines(error)), status_of_error(error))
    except typer.TyperException as error:
        return _fail_usage(session, error)
    except (typer.Abort, KeyboardInterrupt):
        session.tell()
        return Exit.INTERRUPTED
    except OSError as error:  # what commands read they tell themselves: this is the output, on a full disk
        _let_go(sys.stdout)
        return _fail(session, (f"the output cannot be written: {error.strerror or error}",), Exit.FAILED)

    return int(status or 0)


def _let_go(stream: TextIO) -> None:
    """Give what is still buffered to nobody: it must not raise again when the interpreter ends."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), stream.fileno())


def _fail(session: Session, lines: tuple[str, ...], status: Exit) -> int:
    for line in lines:
        session.tell(f"autoglm: {clean(line)}")

    return status


def _fail_usage(session: Session, error: typer.TyperException) -> int:
    """Tell wrong usage in a line, and where the help is; the bare command's help as it is."""
    context = getattr(error, "ctx", None)

    if type(error).__name__ == "NoArgsIsHelpError":
        session.tell(error.format_message())
        return Exit.USAGE

    path = context.command_path if context else "autoglm"
    meant = OPTIONS_MEANT.get(getattr(error, "option_name", ""), "")

    if context and any(meant in parameter.opts for parameter in context.command.params):
        error.possibilities = [meant]  # type: ignore[attr-defined]  # who has an option_name has these

    fault = _usage_fault(error)

    if fault.startswith("Got unexpected extra argument") and (told := WORDS_LEFT.get(path.rpartition(" ")[2])):
        fault += f"; {told}"

    session.tell(f"{path}: {fault}\nSee: {path} --help")
    return Exit.USAGE


def _usage_fault(error: typer.TyperException) -> str:
    """Tell what is wrong, with the value: typer hands on what pydantic says of it, which leaves the value out."""
    told: str = error.format_message()
    faults = getattr(error.__cause__, "errors", None)

    if faults is None:
        return told

    fault = faults(include_url=False)[0]
    message = str(fault["msg"])
    value = repr(fault["input"])
    said = message.removeprefix("Value error, ")
    return told.replace(message, said if value in said else f"{value}: {said}")
