"""Reading ``--plan FILE``: a CreatePlanRequest as JSON or YAML, every fault at once, with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from autoglm import wire
from autoglm.cli import PIP_LINE
from autoglm.cli.exits import InputError, violation_lines
from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, Json

BYTES_MAX = 3 << 20
"""The most a CreatePlan may have; a file that is larger is not read further."""
_YAML_SUFFIXES = frozenset({".yaml", ".yml"})


def read_plan(name: str, stdin: IO[bytes]) -> CreatePlanRequest:
    """Read a plan from the file ``name``, or from ``stdin`` if that is ``-``.

    Raises:
        InputError: the file cannot be read, is too large, is neither JSON nor YAML, or is no CreatePlanRequest.
    """
    source = "stdin" if name == "-" else name
    text = _read(name, source, stdin)

    try:
        value = _value(text, source, name)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None

    if not isinstance(value, dict):
        raise InputError(f"{source}: must be an object with `request` or `steps`, as of CreatePlanRequest")

    try:
        return wire.from_json(CreatePlanRequest, value)
    except InvalidRequestError as error:
        raise InputError(*violation_lines(error.violations, source=source)) from None


def _read(name: str, source: str, stdin: IO[bytes]) -> str:
    try:
        if name == "-":
            data = stdin.read(BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror or error}") from None

    if len(data) > BYTES_MAX:
        raise InputError(f"{source}: is larger than {BYTES_MAX >> 20} MiB, the most a plan may have")

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: is not UTF-8: byte {error.start} cannot be read") from None


def _value(text: str, source: str, name: str) -> Json:
    suffix = Path(name).suffix.lower()

    if suffix == ".json" or (suffix not in _YAML_SUFFIXES and text.lstrip()[:1] in {"{", "["}):
        return wire.parse_json(text)

    try:
        from autoglm.cli.yaml_file import parse_yaml  # noqa: PLC0415 - PyYAML is an extra
    except ModuleNotFoundError:
        raise InputError(f"{source}: reading YAML needs PyYAML; write the plan as JSON, or run: {PIP_LINE}") from None

    return parse_yaml(text)
