"""``backup`` and ``restore``, and ``doctor --repair``: what is done to a data directory, by the installed server's own code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autoglm import local
from autoglm.cli import PIP_LINE
from autoglm.cli.exits import Exit, InputError
from autoglm.cli.options import Address, AsJson, DataDir, session_of
from autoglm.cli.session import Session

BACKUP_EXAMPLES = """\
Examples:

\b
  autoglm backup plans.tar
  autoglm backup plans.tar --data-dir /srv/autoglm --json

The server may go on meanwhile. The backup has the plans, their events and the files of their results, and was read as a whole
before it counts; what tools wrote into the workspace is not in it. Exit status: 0 when it is there, 1 when the journal is
damaged, 2 when it cannot be made as asked.
"""
RESTORE_EXAMPLES = """\
Examples:

\b
  autoglm restore plans.tar --data-dir /srv/autoglm
  autoglm restore plans.tar --force

The server must be stopped. Everything is checked before anything is put in place. With --force the plans that
are there are put aside in it, as replaced-TIME; the workspace stays as it is. Exit status: 0 when it is restored, 1 when a
server has the directory, 2 when the backup cannot be trusted or the directory is not empty.
"""


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup to write, a tar.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE if it is there.")] = False,
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Back up plans, events and the files of their results."""
    session = session_of(context, address, data_dir)
    return maintain(session, "backup", [*(["--force"] if force else []), "--", str(file.absolute())], json=json)


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup to put in place.")],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Put aside the plans that are there, as replaced-TIME in it.")
    ] = False,
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Put a backup into a data directory."""
    session = session_of(context, address, data_dir)
    folder = checked(session, "restore")
    local.make_way(folder, progress=session.tell)
    return maintain(session, "restore", [*(["--force"] if force else []), "--", str(file.absolute())], json=json)


def repair(session: Session, *, yes: bool, json: bool) -> int:
    """Save what can be read of a damaged journal, once the user has agreed."""
    folder = checked(session, "doctor --repair")
    question = (
        f"Look for damage in {folder}, and put a new journal of what can be read in its place if there is some? [y/N] "
    )
    if not yes:
        if not session.interactive:
            raise InputError("doctor --repair changes the data directory; add --yes to agree")

        session.stderr.write(question)
        session.stderr.flush()
        if session.stdin.readline().strip().lower() not in ("y", "yes"):
            session.tell("nothing was changed")
            return Exit.INTERRUPTED

    local.make_way(folder, progress=session.tell)
    return maintain(session, "repair", [], json=json)


def checked(session: Session, what: str) -> Path:
    """Give the data directory that is meant.

    Raises:
        InputError: a server elsewhere is, or the packages are not there.
    """
    target = session.target
    named = "--address" if target.address else ""
    if not named and not target.data_dir and session.environment.get("AUTOGLM_ADDRESS"):
        named = "AUTOGLM_ADDRESS"

    if named:
        raise InputError(
            f"{what} works on a data directory, and {named} names a server; run it on that server's machine, with "
            "--data-dir"
        )

    if missing := local.missing_packages():
        raise InputError(f"{what} needs packages that are not installed ({', '.join(missing)}); run: {PIP_LINE}")

    return local.data_dir(target.data_dir)


def maintain(session: Session, command: str, arguments: list[str], *, json: bool) -> int:
    """Let the server's code do it, in the place of this process."""
    folder = checked(session, command)
    given = ["--data-dir", str(folder), *(["--json"] if json else []), *arguments]
    session.stdout.flush()
    session.stderr.flush()
    session.replace_process(
        [sys.executable, "-P", "-m", "autoglm_server.maintenance", command, *given], session.environment
    )
    return Exit.FAILED
