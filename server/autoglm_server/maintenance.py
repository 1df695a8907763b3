"""``python -m autoglm_server.maintenance``: backup, restore and repair of a data directory, without a server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from autoglm_server.clock import Clock, SystemClock
from autoglm_server.journal.backup import BackupError, Report, back_up, repair, restore
from autoglm_server.journal.journal import JournalError

EXIT_FAILED: Final = 1
"""Something is damaged, was lost, or could not be done."""
EXIT_USAGE: Final = 2
"""It cannot be done as it was asked for."""

_NAMES_MAX: Final = 20
_PROGRESS_SECONDS: Final = 0.2


class _Progress:
    """One line on a terminal, drawn anew a few times a second; nothing elsewhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = 0.0
        self._shown = False

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock.monotonic()
        if now < self._next or not sys.stderr.isatty():
            return

        self._next = now + _PROGRESS_SECONDS
        self._shown = True
        print(f"\r\x1b[K{what}: {done}" + (f" of {total}" if total else ""), end="", file=sys.stderr, flush=True)  # noqa: T201

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201


def parser() -> argparse.ArgumentParser:
    """Give the parser of the flags."""
    flags = argparse.ArgumentParser(prog="autoglm", allow_abbrev=False)
    commands = flags.add_subparsers(dest="command", required=True)
    for name in ("backup", "restore", "repair"):
        command = commands.add_parser(name)
        command.add_argument("--data-dir", type=Path, required=True)
        command.add_argument("--json", action="store_true")
        if name != "repair":
            command.add_argument("--force", action="store_true")
            command.add_argument("file", type=Path)

    return flags


def main(arguments: Sequence[str] | None = None, clock: Clock | None = None) -> int:
    """Run; gives the exit status."""
    given = parser().parse_args(arguments)
    clock = clock or SystemClock()
    progress = _Progress(clock)
    try:
        match given.command:
            case "backup":
                return _back_up(given, clock, progress)
            case "restore":
                return _restore(given, clock, progress)
            case _:
                return _repair(given, clock, progress)
    except BackupError as error:
        return _refuse(progress, error, EXIT_USAGE)
    except JournalError as error:
        return _refuse(progress, error, EXIT_FAILED)
    except KeyboardInterrupt:
        return _refuse(progress, "stopped; nothing was changed", 130)


def _back_up(given: argparse.Namespace, clock: Clock, progress: _Progress) -> int:
    report = back_up(given.data_dir, given.file, now=clock.now(), force=given.force, tell=progress)
    progress.end()
    _give(
        given,
        asdict(report),
        f"{report.file}: {_holds(report)}, {report.bytes} bytes, verified",
    )
    return 0


def _restore(given: argparse.Namespace, clock: Clock, progress: _Progress) -> int:
    report, aside = restore(given.file, given.data_dir, now=clock.now(), force=given.force, tell=progress)
    progress.end()
    lines = [f"{given.data_dir}: {_holds(report)}, verified"]
    if aside is not None:
        lines.append(f"what was there is in {aside}")

    _give(given, asdict(report) | {"aside": str(aside or "")}, "\n".join(lines))
    return 0


def _repair(given: argparse.Namespace, clock: Clock, progress: _Progress) -> int:
    faults, saved, aside = repair(given.data_dir, now=clock.now(), tell=progress)
    progress.end()
    if saved is None:
        _give(given, {"damaged": False, "complete": True}, f"{given.data_dir}: nothing is damaged, nothing was changed")
        return 0

    value = {"damaged": True, "complete": saved.complete, "faults": faults, "aside": str(aside or ""), **asdict(saved)}
    lines = [
        f"damaged: {faults[0]}" + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""),
        f"saved: {saved.events} events; {saved.whole} plans are whole",
        *_named("cut, and ended with JOURNAL_DAMAGED", saved.cut),
        *_named("lost", saved.lost),
        *(["pages of plans could not be read: some may be lost without a name"] if saved.hidden else []),
        f"events lost: {saved.events_lost}",
        f"the damaged files are in {aside}",
    ]
    _give(given, value, "\n".join(lines))
    return 0 if saved.complete else EXIT_FAILED


def _holds(report: Report) -> str:
    found = ((report.plans, "plan"), (report.events, "event"), (report.artifacts, "file"))
    plans, events, files = (f"{count} {word}{'' if count == 1 else 's'}" for count, word in found)
    return f"{plans} with {events} and {files}"


def _named(what: str, names: Sequence[str]) -> list[str]:
    more = f", and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return [f"{what}: {', '.join(names[:_NAMES_MAX])}{more}"] if names else []


def _give(given: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    print(json.dumps(value, sort_keys=True) if given.json else text)  # noqa: T201 - what was asked for


def _refuse(progress: _Progress, why: object, status: int) -> int:
    progress.end()
    print(f"autoglm: {why}", file=sys.stderr)  # noqa: T201 - there is no log here
    return status


if __name__ == "__main__":
    sys.exit(main())
