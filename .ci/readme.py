"""Print a command line of README.md: the fenced block under `<!-- ci: NAME -->`.

    python .ci/readme.py NAME

So what is checked is what a reader pastes. It fails if there is no such block, or more than one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.exit(__doc__)

    name = arguments[0]
    found = blocks(README.read_text(encoding="utf-8"), name)

    if len(found) != 1:
        sys.exit(
            f"README.md has {len(found)} command blocks marked `<!-- ci: {name} -->`; there must be one. "
            "To fix: put that comment on the line above the fenced block that a reader pastes."
        )

    print(found[0])
    return 0


def blocks(text: str, name: str) -> list[str]:
    """Find the contents of the marked blocks."""
    marked = rf"^<!-- ci: {re.escape(name)} -->\n+```\w*\n(.+?)\n```$"
    return re.findall(marked, text, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
