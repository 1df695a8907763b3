"""The options and arguments that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

from autoglm import wire
from autoglm.cli.exits import InputError
from autoglm.cli.session import PlanClient, Session
from autoglm.cli.text import one_line
from autoglm.errors import NotFoundError
from autoglm.model import Budget, Json, JsonObject

Address: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The server to ask; else AUTOGLM_ADDRESS, else the embedded server of the data directory.",
    ),
]
DataDir: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="The embedded server's data directory; else AUTOGLM_DATA_DIR, else the platform's user data folder.",
    ),
]
Providers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME=URI",
        help="Tools for the embedded server: python:FILE.py, grpc://HOST:PORT, … (repeatable).",
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line (protobuf's JSON mapping).")
]
Ephemeral: TypeAlias = Annotated[
    bool, typer.Option("--ephemeral", help="With --json: also the events that are not stored, such as progress.")
]
PlanId: TypeAlias = Annotated[
    str, typer.Argument(metavar="PLAN", help="The plan's id, or its first or last 6 characters or more.")
]
Labels: TypeAlias = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label (repeatable).")
]
Budgets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="KEY=VALUE",
        help="What the plan may use up: tokens=N, tool_calls=N, rounds=N, duration=5m (repeatable, or with commas).",
    ),
]

ID_LENGTH = 26
PART_LENGTH_MIN = 6
PLANS_SEARCHED_MAX = 1000
VALUE_BYTES_MAX = 3 << 20
BUDGET_FIELDS = {
    "tokens": "max_tokens",
    "tool_calls": "max_tool_calls",
    "rounds": "max_rounds",
    "duration": "max_duration",
}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

T = TypeVar("T")


def session_of(
    context: typer.Context, address: str | None, data_dir: str | None, providers: Iterable[str] | None = None
) -> Session:
    """Give the session, with what the command says of the server over what was said before it."""
    session: Session = context.obj
    args = tuple(arg for provider in providers or () for arg in ("--provider", _checked_provider(provider)))
    session.target = session.target.over(address, data_dir, args)
    return session


def read_labels(texts: Iterable[str] | None) -> dict[str, str]:
    """Read ``KEY=VALUE`` texts.

    Raises:
        InputError: with every one that is not, or that is there twice.
    """
    labels: dict[str, str] = {}
    faults = []

    for text in texts or ():
        key, separator, value = text.partition("=")

        if not separator or not key:
            faults.append(f"--label {text!r}: write KEY=VALUE")
        elif key in labels:
            faults.append(f"--label {text!r}: {key!r} is there twice")

        labels[key] = value

    if faults:
        raise InputError(*faults)

    return labels


def read_budget(texts: Iterable[str], budget: Budget | None) -> Budget:
    """Read ``KEY=VALUE`` texts, and lay them over the budget that was said before.

    Raises:
        InputError: with every one that is not, or that is there twice.
    """
    said: dict[str, int | timedelta] = {}
    faults = []

    for text in (part.strip() for each in texts for part in each.split(",")):
        key, _, value = text.partition("=")
        field = BUDGET_FIELDS.get(key, "")
        bound = _duration(value) if key == "duration" else _count(value)

        if not field or bound is None:
            wanted = "a number and ms, s, m, h or d, such as 5m" if key == "duration" else "a whole number from 1"
            known = ", ".join(f"{name}=…" for name in BUDGET_FIELDS)
            faults.append(f"--budget {text!r}: " + (f"write {wanted}" if field else f"write one of {known}"))
        elif field in said:
            faults.append(f"--budget {text!r}: {key} is there twice")
        else:
            said[field] = bound

    if faults:
        raise InputError(*faults)

    return replace(budget or Budget(), **said)  # type: ignore[arg-type]


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) and int(text) else None


def _duration(text: str) -> timedelta | None:
    found = _DURATION.fullmatch(text)

    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]]) if found else None
    except OverflowError:
        return None


def read_json(flag: str, text: str, session: Session) -> Json:
    """Read the value of a flag that is JSON: as it stands, ``@FILE``, or ``-`` for stdin.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        if text == "-":
            source, data = "stdin", session.input_bytes().read(VALUE_BYTES_MAX + 1)
        elif text.startswith("@"):
            source = text[1:]

            with Path(source).open("rb") as file:
                data = file.read(VALUE_BYTES_MAX + 1)
        else:
            source, data = "", text.encode(errors="surrogatepass")
    except OSError as error:
        raise InputError(f"{flag} {text}: cannot be read: {error.strerror or error}") from None

    where = f"{flag} {source}".rstrip()

    try:
        return wire.parse_json(data, bytes_max=VALUE_BYTES_MAX)
    except ValueError as error:
        hint = "" if source else "; put the JSON in single quotes, and texts in it in double quotes"
        raise InputError(f"{where}: {error}{hint}") from None


def read_object(flag: str, text: str, session: Session) -> JsonObject:
    """Read the value of a flag that is a JSON object; raises InputError as :func:`read_json`."""
    value = read_json(flag, text, session)

    if not isinstance(value, dict):
        raise InputError(
            f"{flag}: must be a JSON object, such as '{{\"name\": 1}}'; it is {wire.canonical_json(value)[:60]}"
        )

    return value


@contextmanager
def named(client: PlanClient, text: str) -> Iterator[str]:
    """Give the id of the plan that ``text`` is the id or a part of; tell the nearest when the server does not know it.

    Raises:
        InputError: it is a part of no plan's id, or of several.
        NotFoundError: there is no such plan.
    """
    plan_id = _plan_id(client, text.strip())

    try:
        yield plan_id
    except NotFoundError as error:
        if error.reason != "PLAN_NOT_FOUND":
            raise

        if len(plan_id) < PART_LENGTH_MIN:
            told = f"give the plan's id, or at least {PART_LENGTH_MIN} characters of its beginning or end"
            raise InputError(f"PLAN {one_line(plan_id)}: {told}; `autoglm plans` lists them") from None

        known = [plan.id for plan in islice(client.list(), PLANS_SEARCHED_MAX)]
        raise NotFoundError(did_you_mean(error.message, plan_id, known), reason=error.reason) from None


def did_you_mean(message: str, wrong: str, known: Iterable[str]) -> str:
    """Add to a message the nearest of ``known``, if one is near."""
    found = get_close_matches(wrong, list(known), 1, 0.75)
    return f"{message.rstrip('.')}. Did you mean {one_line(found[0])}?" if found else message


def _plan_id(client: PlanClient, text: str) -> str:
    if len(text) >= ID_LENGTH or len(text) < PART_LENGTH_MIN:
        return text

    plans = islice(client.list(), PLANS_SEARCHED_MAX)
    found = [plan.id for plan in plans if plan.id == text or plan.id.startswith(text) or plan.id.endswith(text)]

    if len(found) == 1 or text in found:
        return text if text in found else found[0]

    if found:
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise InputError(
            f"PLAN {text}: {len(found)} plans have an id with that beginning or end: {shown}; give more of it"
        )

    return text


def _checked_provider(text: str) -> str:
    name, separator, uri = text.partition("=")

    if not (separator and name and uri):
        raise InputError(f"--provider {text!r}: write NAME=URI, such as mine=python:tools.py")

    return text
