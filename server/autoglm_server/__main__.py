"""``python -m autoglm_server``: read the flags, load the settings, serve."""

from __future__ import annotations

import os
import sys

# Read when grpc is first imported. With fork support, processes that tools start crash, or break our connections.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import argparse
import gc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoglm_server.configuration import ConfigurationError, load, render_effective
from autoglm_server.settings import Settings

FLAGS = {
    "host": "server.host",
    "port": "server.port",
    "data_dir": "data_dir",
    "workspace": "workspace",
    "journal": "journal.url",
    "planner": "planner.kind",
    "model": "planner.model",
    "log_level": "log.level",
    "log_format": "log.format",
}
"""Which setting a flag sets."""

EXIT_USAGE = 2


def parser() -> argparse.ArgumentParser:
    """Give the parser of the flags."""
    flags = argparse.ArgumentParser(prog="autoglm serve", description="Serve AutoGLM.", allow_abbrev=False)
    flags.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings (AUTOGLM_CONFIG)")
    flags.add_argument("--host", help="address to listen on (127.0.0.1)")
    flags.add_argument("--port", help="port to listen on (50051); 0 lets the system choose")
    flags.add_argument("--data-dir", metavar="DIR", help="where the journal is (AUTOGLM_DATA_DIR)")
    flags.add_argument("--workspace", metavar="DIR", help="the folder the built-in file tools see")
    flags.add_argument("--journal", metavar="URL", help="where events are kept: sqlite:///FOLDER or memory:")
    flags.add_argument(
        "--provider",
        action="append",
        type=_provider,
        default=[],
        metavar="NAME=URI",
        help="a source of tools; repeatable",
    )
    flags.add_argument("--planner", metavar="KIND", help="the planner of plans that name none (rules)")
    flags.add_argument("--model", help="the model that plans, as provider:name; implies --planner llm")
    flags.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error (info)")
    flags.add_argument("--log-format", metavar="FORMAT", help="auto, json or console (auto)")
    flags.add_argument(
        "--show-config", action="store_true", help="print the settings that hold, secrets masked, and end"
    )
    flags.add_argument("--embedded", action="store_true", help=argparse.SUPPRESS)
    flags.add_argument("--fingerprint", default="", help=argparse.SUPPRESS)
    return flags


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run; gives the exit status."""
    environment = os.environ if environment is None else environment
    given = parser().parse_args(arguments)
    file = given.config or (Path(environment["AUTOGLM_CONFIG"]) if environment.get("AUTOGLM_CONFIG") else None)

    def read() -> Settings:
        return load(file=file, environment=environment, flags=_flags(given))

    try:
        settings = read()
    except ConfigurationError as error:
        return _refuse(*error.faults)

    if given.show_config:
        print(render_effective(settings), end="")  # noqa: T201 - what was asked for
        return 0

    gc.disable()  # what is imported stays: looking through it again and again for garbage takes a tenth of the time
    from autoglm_server.app import Embedded, StartError, serve  # noqa: PLC0415 - grpc, after the environment is set

    gc.freeze()
    gc.enable()

    if given.embedded:
        with suppress(PermissionError):  # it leads its session already
            os.setsid()

    try:
        return serve(settings, embedded=Embedded(given.fingerprint) if given.embedded else None, read=read)
    except StartError as error:
        _refuse(str(error))
        return error.status


def _flags(given: argparse.Namespace) -> dict[str, tuple[str, Any]]:
    """Give the settings that flags name, each with the flag's name."""
    flags = {
        key: (f"--{name.replace('_', '-')}", value)
        for name, key in FLAGS.items()
        if (value := getattr(given, name)) is not None
    }

    if given.model and given.planner is None:
        flags["planner.kind"] = ("--model", "llm")

    for provider in given.provider:
        name, _, uri = provider.partition("=")
        flags[f"providers.{name}"] = ("--provider", uri)

    return flags


def _provider(text: str) -> str:
    name, _, uri = text.partition("=")

    if not (name and uri):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=URI, such as mine=python:tools.py")

    return text


def _refuse(*faults: str) -> int:
    for fault in faults:
        print(f"autoglm: {fault}", file=sys.stderr)  # noqa: T201 - logging is not set up yet

    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
