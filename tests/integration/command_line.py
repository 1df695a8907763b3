"""The command line, run in the process of the tests: what its exit status and its streams are, without another process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from autoglm.cli import main


def tell(environment: Mapping[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command line as a process with ``environment`` would, half a second sooner."""
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for name in ("stdin", "stdout", "stderr")}
    streams["stdin"].write(stdin)
    streams["stdin"].seek(0)

    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - environment.keys():
            patch.delenv(name)

        for name, value in environment.items():
            patch.setenv(name, value)

        for name, stream in streams.items():
            patch.setattr(sys, name, stream)

        status = main(arguments)

    for name in ("stdout", "stderr"):
        streams[name].seek(0)

    return subprocess.CompletedProcess(arguments, status, streams["stdout"].read(), streams["stderr"].read())
