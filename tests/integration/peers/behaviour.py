"""What the four peers of ``test_every_provider`` do when they are called, good and bad. Of the standard library alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

FOLDER = Path(os.environ.get("PEER_FOLDER", "."))
HUGE = 100 << 20


def note(peer: str, key: str) -> int:
    """Write down that a call with ``key`` began here; gives how many there were with it."""
    line = json.dumps({"peer": peer, "key": key, "pid": os.getpid()}) + "\n"
    with (FOLDER / "calls").open("a+") as file:
        file.write(line)
        file.flush()
        file.seek(0)
        return sum(json.loads(each)["key"] == key for each in file.read().splitlines())


def work(peer: str, do: str, text: str, key: str) -> str:
    """Do one call: ``hold`` holds the first with a key for ever, ``gate`` waits for the file ``text``."""
    if note(peer, key) == 1 and do == "hold":
        time.sleep(3600)

    while do == "gate" and not (FOLDER / text).exists():
        time.sleep(0.01)

    return "x" * HUGE if do == "huge" else f"{text}+{peer}"
