"""Starts a real server with a trap in it: it kills itself at a named point, or is broken on purpose.

The traps are put around the ports from outside, before the server is imported to serve; the product knows nothing of them.

    python -m tests.reliability.launcher before-append:5 [flags of the server]
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from autoglm_server.__main__ import main
from autoglm_server.journal import _writer, sqlite
from autoglm_server.journal._settle import settle
from autoglm_server.journal.journal import Append
from autoglm_server.journal.sqlite import SqliteJournal
from autoglm_server.tools.catalog import Catalog

POINTS: Final = (
    "before-append",
    "after-append",
    "before-commit",
    "after-commit",
    "before-acknowledgement",
    "after-acknowledgement",
    "before-dispatch",
    "after-dispatch",
)
BROKEN: Final = "forgetful"
"""Acknowledges what it has only in memory, and writes it a moment later."""
FORGET_SECONDS: Final = 0.5
CARELESS: Final = "careless"
"""Keeps memory of every request, and answers some with what went wrong inside."""
NO_KEEPALIVE: Final = "no-keepalive"
"""Never asks whether a peer is still there."""

_passed: Counter[str] = Counter()


def set_trap(name: str, count: int) -> None:
    """Let the process kill itself when it passes the point for the ``count``-th time."""

    def around(before: str, after: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            _pass(before, name, count)
            result = call(*arguments, **named)
            _pass(after, name, count)
            return result

        return called

    SqliteJournal._submit = around("before-append", "after-append", SqliteJournal._submit)  # type: ignore[method-assign]
    modules: Any = (_writer, sqlite)
    modules[0].commit = around("before-commit", "after-commit", modules[0].commit)
    modules[1].settle = around("before-acknowledgement", "after-acknowledgement", settle)
    original = Catalog.call

    async def call(self: Catalog, *arguments: Any, **named: Any) -> Any:
        _pass("before-dispatch", name, count)
        result = await original(self, *arguments, **named)
        _pass("after-dispatch", name, count)
        return result

    Catalog.call = call  # type: ignore[method-assign]


def _pass(point: str, wanted: str, count: int) -> None:
    if point == wanted:
        _passed[point] += 1
        if _passed[point] == count:
            os.kill(os.getpid(), signal.SIGKILL)


def forget() -> None:
    """Break the journal: it says that an append is durable before it is."""
    append, hand_over = SqliteJournal.append, SqliteJournal._hand_over

    def early(self: SqliteJournal, job: Append) -> None:
        settled, job.settled = job.settled, lambda _: None
        asyncio.get_running_loop().call_soon(settled, None)
        append(self, job)

    def late(self: SqliteJournal) -> None:
        asyncio.get_running_loop().call_later(FORGET_SECONDS, hand_over, self)

    SqliteJournal.append = early  # type: ignore[method-assign,assignment]
    SqliteJournal._hand_over = late  # type: ignore[method-assign]


def care_less() -> None:
    """Break the service: it keeps memory of requests, and GetPlan raises what it must not."""
    from autoglm_server.service import plans, tools

    kept: list[bytearray] = []
    service: Any = plans.PlanService

    async def raises(self: Any, request: Any, context: Any) -> Any:
        kept.append(bytearray(b"x" * (64 << 10)))
        raise ValueError("nobody thought of this")

    listing: Any = tools.ToolService
    lists = listing.ListTools

    async def keeps(self: Any, request: Any, context: Any) -> Any:
        kept.append(bytearray(b"x" * (2 << 20)))
        return await lists(self, request, context)

    service.GetPlan = raises
    listing.ListTools = keeps


def never_ping() -> None:
    """Break the transport: it does not ask whether a peer is still there."""
    from autoglm_server.service import edge

    options = edge.options

    def without(calls_per_connection: int) -> list[tuple[str, int]]:
        return [
            option
            for option in options(calls_per_connection)
            if "ping" not in option[0] and "keepalive" not in option[0]
        ]

    edge.options = without


if __name__ == "__main__":
    trap, _, number = sys.argv[1].partition(":")
    if trap == BROKEN:
        forget()
    elif trap == NO_KEEPALIVE:
        never_ping()
    elif trap == CARELESS:
        care_less()
    elif trap in POINTS:
        set_trap(trap, int(number))
    else:
        sys.exit(f"{trap}: there is no such point; known are: {', '.join((*POINTS, BROKEN, NO_KEEPALIVE, CARELESS))}")

    sys.exit(main(sys.argv[2:]))
