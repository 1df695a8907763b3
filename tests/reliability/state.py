"""What is done of a run, in a file, so that a night that was interrupted goes on; and of which code it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.reliability.parts import Unit
from tests.reliability.rows import Result

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ("sdk", "server", "tests")


class StateError(Exception):
    """The file cannot be gone on from; says why, and what to do."""


def code() -> str:
    """Name the code that runs: its commit, if it is known, and a digest of the sources, committed or not."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode())
            digest.update(path.read_bytes())

    try:
        told = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        commit = ""
    else:
        commit = told.stdout.strip()

    return f"{commit or 'no commit'}, sources {digest.hexdigest()[:12]}"


def _sources(name: str) -> str:
    """Take the commit off: one that changed no source is the same code."""
    return name.rpartition(" ")[2]


class State:
    """The units that are done; ``path`` None keeps them in memory alone."""

    def __init__(self, path: Path | None, run: str, *, mixed: bool = False) -> None:
        """Go on from what is in the file, if there is one: of the same ``run``, and (unless ``mixed``) of the same code.

        Raises:
            StateError: it is of another run or of other code, or cannot be read.
        """
        self._path = path
        self._run = run
        self.done: dict[str, Result] = {}
        self._code: dict[str, str] = {}
        """Of each unit, which code it ran."""
        if path is None:
            return

        if path.exists():
            self._read(path)
            self._must_be_of(path, code(), mixed=mixed)
        else:
            self._write(path)  # whether it can be written is better known now than after the first hour

    def _read(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text())
            run, done = found["run"], found["done"]
            results = {name: Result.from_json(one["result"]) for name, one in done.items()}
            ran = {name: str(one["code"]) for name, one in done.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"{path} is no state of this programme ({error!r}); take another file") from error

        if run != self._run:
            raise StateError(
                f"{path} is of level/seed {run}, and this is {self._run}; take another file, or that level and seed"
            )

        self.done, self._code = results, ran

    def _must_be_of(self, path: Path, current: str, *, mixed: bool) -> None:
        others = [one for one in self._code.values() if _sources(one) != _sources(current)]
        if others and not mixed:
            raise StateError(
                f"{path} holds {len(others)} units of other code ({', '.join(sorted({*others}))}), which prove nothing of "
                f"this ({current}); take another file, go on in a clone of that commit, or take them as they are with --mixed"
            )

    def add(self, unit: Unit, result: Result) -> None:
        """Keep what a unit found."""
        self.done[unit.name] = result
        if self._path is not None:
            self._code[unit.name] = code()
            self._write(self._path)

    def _write(self, path: Path) -> None:
        done: dict[str, Any] = {
            name: {"code": self._code[name], "result": one.to_json()} for name, one in self.done.items()
        }
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_text(json.dumps({"run": self._run, "done": done}))
            new.replace(path)
        except OSError as error:
            raise StateError(f"the state cannot be kept: {error}") from error

    def told(self) -> list[str]:
        """Say of which code the results are."""
        return [f"{count} units ran {name}" for name, count in sorted(Counter(self._code.values()).items())]
