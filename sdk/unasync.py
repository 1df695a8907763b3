"""Make the synchronous client of the asynchronous one, or check that the one committed is current.

    python sdk/unasync.py            write sdk/autoglm/client.py and _link.py
    python sdk/unasync.py --check    compare whole texts; exit 1 and show what differs

Each rule replaces text. A rule that finds nothing is an error, so the list stays as short as it can be.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

PACKAGE = Path(__file__).resolve().parent / "autoglm"
FIX = "python sdk/unasync.py"

HEADER = """\
# Generated from {source} by sdk/unasync.py: never edit it here.
# fmt: off
# ruff: noqa: I001
"""

TWINS = {"_aio_link.py": "_link.py", "aio.py": "client.py"}

Rules: TypeAlias = Sequence[tuple[str, str]]

RULES: Rules = (
    (
        r"``(client|_link)\.py`` is generated from this file\. After a change here run ``python sdk/unasync.py``\.",
        "It is generated.",
    ),
    (r"\bThe asynchronous client\b", "The synchronous client"),
    (r"\bthe asynchronous client\b", "the synchronous client"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait asyncio\.to_thread\(([\w.]+)\)", r"\1()"),
    (r"\bawait asyncio\.to_thread\(([\w.]+), ", r"\1("),
    (r"\bawait asyncio\.sleep\b", "time.sleep"),
    (r"\(await ([^()]+(?:\([^()]*\))?)\)\.", r"\1."),
    (r"\bawait ", ""),
    (r"^import asyncio\n", ""),
    (r"\b_aio_link\b", "_link"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\b(Plan|Tool)ServiceAsyncStub\b", r"\1ServiceStub"),
    (r"\b(AsyncIterator)\b", "Iterator"),
    (r"\bAsync(Client|Connection|Lane|Link|PlanHandle|Reader|Tools|Turn|Watch)\b", r"\1"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b__a(enter|exit|iter)__\b", r"__\1__"),
    (r"\b__anext__\b", "__next__"),
    (r"\bone task at a time\b", "one thread at a time"),
    (r"\bmany tasks\b", "many threads"),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; exit 1 if anything differs")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the folder of aio.py and client.py")
    options = parser.parse_args(arguments)

    sources = {name: (options.package / name).read_text(encoding="utf-8") for name in TWINS}
    fresh = {TWINS[name]: text for name, text in unasync(sources).items()}

    if not options.check:
        for name, text in fresh.items():
            (options.package / name).write_text(text, encoding="utf-8")

        return 0

    report = [line for name, text in fresh.items() for line in compare(options.package / name, text)]

    if report:
        sys.stdout.write("\n".join([*report[:40], f"The synchronous client is not current. To fix: {FIX}", ""]))

    return 1 if report else 0


def unasync(sources: Mapping[str, str], rules: Rules = RULES) -> dict[str, str]:
    """Give the twins of ``sources``, by the sources' names.

    Raises:
        ValueError: a rule is used in none of them.
    """
    twins = dict(sources)
    unused = []

    for pattern, replacement in rules:
        uses = 0

        for name, text in twins.items():
            twins[name], count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            uses += count

        if not uses:
            unused.append(pattern)

    if unused:
        raise ValueError(f"rules that find nothing: {', '.join(unused)}; take them out of sdk/unasync.py")

    return {name: HEADER.format(source=name) + text for name, text in twins.items()}


def compare(path: Path, fresh: str) -> list[str]:
    """Tell how a file differs from what it should be; nothing if it does not."""
    present = path.read_text(encoding="utf-8") if path.exists() else ""

    if present == fresh:
        return []

    names = (f"{path.name} (present)", f"{path.name} (fresh)")
    found = list(difflib.unified_diff(present.splitlines(), fresh.splitlines(), *names, lineterm="", n=1))
    return found or [f"{path.name} differs in its line ends"]


if __name__ == "__main__":
    sys.exit(main())
