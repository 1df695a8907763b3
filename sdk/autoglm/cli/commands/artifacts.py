"""``artifacts``: the files that a plan's results carry, listed or saved."""

from __future__ import annotations

import fnmatch
import hashlib
import json as json_text
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from autoglm import wire
from autoglm._dataclasses import dataclass
from autoglm._files import disk_name
from autoglm.cli import tables
from autoglm.cli.exits import Exit, InputError, error_lines
from autoglm.cli.options import Address, AsJson, DataDir, PlanId, did_you_mean, named, session_of
from autoglm.cli.session import PlanClient, Session
from autoglm.cli.text import one_line, size
from autoglm.errors import NotFoundError
from autoglm.model import Artifact, Step

ARTIFACTS_EXAMPLES = """\
Examples:

\b
  autoglm artifacts 8k0m2n
  autoglm artifacts 8k0m2n --save charts --name "*.png"
  autoglm artifacts 8k0m2n --step draw --save . --force

Files are saved under their own names as far as these can be ones, never outside the folder, and checked by their digests. Of
files with one name, each gets its step's in front. The paths go to stdout. What is there already and is the same is left
alone; what is another is only overwritten with --force.

Exit status: 1 when a file could not be saved.
"""
_TOLD_SECONDS = 1.0
_HASHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StepFile:
    """A file, and the step whose result carries it."""

    step_id: str
    artifact: Artifact


def artifacts(
    context: typer.Context,
    plan: PlanId,
    *,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Save them into this folder, made if need be.")
    ] = None,
    step: Annotated[
        list[str] | None, typer.Option("--step", metavar="STEP", help="Only of this step (repeatable).")
    ] = None,
    name: Annotated[
        str,
        typer.Option("--name", metavar="GLOB", help="Only those whose name fits, such as *.png.", show_default=False),
    ] = "*",
    force: Annotated[bool, typer.Option("--force", help="With --save: overwrite files that are there.")] = False,
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """List the files that a plan's results carry, or save them."""
    session = session_of(context, address, data_dir)

    if force and save is None:
        raise InputError("--force is for --save DIR, which is not there")

    with session.client() as client, named(client, plan) as plan_id:
        files = _files(list(client.list_steps(plan_id)), step or [], name)

        if save is not None:
            return _save(session, client, plan_id, files, save, force=force, as_json=json)

    for file in files if json else ():
        session.record(_record(file))

    if not json and files:
        session.show(tables.files([(file.step_id, file.artifact) for file in files]))
    elif not files:
        session.tell("No result of the plan has such a file." if step or name != "*" else "The plan has no files.")

    return Exit.SUCCEEDED


def _files(steps: Sequence[Step], wanted: Sequence[str], glob: str) -> list[StepFile]:
    known = [step.id for step in steps]

    for step_id in wanted:
        if step_id not in known:
            raise NotFoundError(
                did_you_mean(f"The plan has no step {step_id}.", step_id, known), reason="STEP_NOT_FOUND"
            )

    return [
        StepFile(step.id, artifact)
        for step in steps
        if step.result is not None and (not wanted or step.id in wanted)
        for artifact in step.result.artifacts
        if fnmatch.fnmatchcase(artifact.name, glob)
    ]


def _save(
    session: Session,
    client: PlanClient,
    plan_id: str,
    files: list[StepFile],
    folder: Path,
    *,
    force: bool,
    as_json: bool,
) -> int:
    """Save what has content; nothing, if a file is in the way of one."""
    kept = [file for file in files if file.artifact.digest]
    places = list(_places(kept, folder))
    done = {place for file, place in zip(kept, places, strict=True) if _is(place, file.artifact)}
    in_the_way = [place for place in places if place not in done and (place.exists() or place.is_symlink())]

    if folders := [place for place in in_the_way if place.is_dir()]:  # a file would go into it, or where its link leads
        raise InputError(*(f"{place} is a folder; move it away, or save into another one" for place in folders))

    if in_the_way and not force:
        raise InputError(*(f"{place} exists and is another file; --force overwrites it" for place in in_the_way))

    for file in files:
        if not file.artifact.digest:
            session.tell(f"{one_line(file.artifact.name)}: only described, its content was never given")

    if not kept:
        session.tell("There is nothing to save.")
        return Exit.FAILED

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--save {folder}: {error.strerror or error}") from None

    status = Exit.SUCCEEDED

    for file, place in zip(kept, places, strict=True):
        if place not in done and not _saved(session, client, plan_id, file.artifact, place, force=force):
            status = Exit.FAILED
        elif as_json:
            session.record(_record(file, str(place)))
        else:
            session.result(str(place))

    return status


def _saved(session: Session, client: PlanClient, plan_id: str, artifact: Artifact, place: Path, *, force: bool) -> bool:
    """Save one file; tell how far it is each second, and why it could not be done."""
    told = session.monotonic()

    def progress(so_far: int) -> None:
        nonlocal told

        if session.monotonic() - told >= _TOLD_SECONDS:
            told = session.monotonic()
            session.tell(f"{one_line(artifact.name)}: {size(so_far)} of {size(artifact.size_bytes)}")

    try:
        client.save_artifact(plan_id, artifact, place, overwrite=force, progress=progress)
    except OSError as error:
        session.tell(f"autoglm: {place}: {error.strerror or error}")
        return False
    except NotFoundError as error:
        if error.reason == "PLAN_NOT_FOUND":
            raise

        for line in error_lines(error):
            session.tell(f"autoglm: {one_line(artifact.name)}: {line}")

        return False

    return True


def _places(files: Sequence[StepFile], folder: Path) -> Iterator[Path]:
    """Say where each goes: its name, with its step's in front where several have that name."""
    names = [disk_name(file.artifact.name) for file in files]
    counts = Counter(name.casefold() for name in names)
    taken: set[str] = set()

    for file, plain in zip(files, names, strict=True):
        name = plain if counts[plain.casefold()] == 1 else f"{file.step_id}-{plain}"
        number = 2

        while name.casefold() in taken:
            name, number = f"{file.step_id}-{number}-{plain}", number + 1

        taken.add(name.casefold())
        yield folder / name


def _is(place: Path, artifact: Artifact) -> bool:
    """Whether the file is there already."""
    if place.is_symlink() or not place.is_file() or place.stat().st_size != artifact.size_bytes:
        return False

    hashed = hashlib.sha256()

    with place.open("rb") as file:
        while piece := file.read(_HASHED_BYTES):
            hashed.update(piece)

    return artifact.digest == f"sha256:{hashed.hexdigest()}"


def _record(file: StepFile, path: str = "") -> str:
    found = json_text.loads(wire.to_json(file.artifact)) | {"stepId": file.step_id} | ({"path": path} if path else {})
    return json_text.dumps(found, ensure_ascii=False, sort_keys=True)
