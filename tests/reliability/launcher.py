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
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import apsw

from autoglm_server.__main__ import main
from autoglm_server.journal import _read, _writer, sqlite
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
BRISK: Final = "brisk"
"""Keeps what has ended for seconds instead of days, and little in memory, so that a soak of minutes meets all bounds."""
PAGES_KIB: Final = 512
"""Of the journal in memory: with its 16 MiB the file itself is the bound, which grows with each burst for half an hour."""
EVENTS_SECONDS: Final = 2.0
PLANS_SECONDS: Final = 6.0
LEAKY: Final = "leaky"
"""Keeps a little memory of every plan, for good, and everything on the disk."""
LEAK_BYTES: Final = 128 << 10
CLOCK: Final = "clock"
"""``clock:FILE``: the wall clock is off by the seconds that the file says; it may be set while the server runs."""
SWAYED: Final = "swayed"
"""``swayed:FILE``: likewise, and what measures time (timeouts, backoff, waits) is misled by it."""
BLIND: Final = "blind"
"""Believes its journal: no checksum of a page or an event is looked at, and no end of a file."""
UNDAUNTED: Final = "undaunted"
"""Refuses what it cannot read, and goes on to write."""
HEADSTRONG: Final = "headstrong"
"""Asks of no file which version, or which program, wrote it."""

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


def be_brisk() -> None:
    """Let all that has bounds reach them within seconds, so that a soak of minutes meets what grows beyond them."""
    hurry_retention()
    bound_caches()


def hurry_retention() -> None:
    """Keep events and plans for seconds, and look every second."""
    from datetime import timedelta

    from autoglm_server.scheduler import retention

    made: Any = retention.Retention.__init__

    def made_brisk(self: Any, journal: Any, feed: Any, clock: Any, rules: Any, **named: Any) -> None:
        brisk = retention.Rules(timedelta(seconds=EVENTS_SECONDS), timedelta(seconds=PLANS_SECONDS), rules.max_plans)
        made(self, journal, feed, clock, brisk, **(named | {"interval_seconds": 1.0}))

    retention.Retention.__init__ = made_brisk  # type: ignore[method-assign]


def bound_caches() -> None:
    """Let what is kept in memory for watchers, and of the journal's pages, be little, so that its bounds are reached."""
    from autoglm_server.journal import follow, sqlite

    sqlite.PRAGMAS["cache_size"] = -PAGES_KIB
    made: Any = follow.Feed.__init__
    follow.LABELS_MAX = 100

    def made_small(self: Any, journal: Any, **named: Any) -> None:
        made(self, journal, **(named | {"total_bytes_max": 640 << 10, "ring_bytes_max": 160 << 10}))

    follow.Feed.__init__ = made_small  # type: ignore[method-assign]


def leak() -> None:
    """Break the service: it keeps memory of every plan that is made."""
    from autoglm_server.service import plans

    kept: list[bytearray] = []
    service: Any = plans.PlanService
    creates = service.CreatePlan

    async def keeps(self: Any, request: Any, context: Any) -> Any:
        kept.append(bytearray(b"x" * LEAK_BYTES))
        return await creates(self, request, context)

    service.CreatePlan = keeps


def shift_clock(path: str, *, swayed: bool) -> None:
    """Let the wall clock be off by what ``path`` says, in seconds."""
    import time
    from datetime import timedelta

    from autoglm_server.clock import SystemClock

    file = Path(path)

    def offset() -> float:
        return float(file.read_text() or 0)

    now, seconds, nanoseconds, monotonic = SystemClock.now, time.time, time.time_ns, time.monotonic
    SystemClock.now = lambda self: now(self) + timedelta(seconds=offset())  # type: ignore[method-assign]
    time.time = lambda: seconds() + offset()
    time.time_ns = lambda: nanoseconds() + int(offset() * 1e9)
    if swayed:
        SystemClock.monotonic = lambda self: monotonic() + offset()  # type: ignore[method-assign]


def believe() -> None:
    """Break the journal: whatever its files hold is given out."""
    connect = SqliteJournal._connect

    def unchecked(self: SqliteJournal, path: Path, flags: int) -> apsw.Connection:
        db = connect(self, path, flags)
        db.execute("PRAGMA checksum_verification = OFF")
        return db

    SqliteJournal._connect = unchecked  # type: ignore[method-assign]
    modules: Any = (sqlite, _read)
    modules[0].check = lambda *_: None
    modules[1].check = lambda plan_id, sequence, position, body, crc: body


def go_on() -> None:
    """Break the journal: damage that is met is not remembered."""

    def forgotten(self: SqliteJournal, error: Exception) -> None:
        pass

    SqliteJournal._harmed = forgotten  # type: ignore[method-assign]


def ask_no_version() -> None:
    """Break the journal: every file is of this version."""
    from autoglm_server.journal import _schema

    modules: Any = (_schema,)
    modules[0]._version = lambda db, where: len(_schema.MIGRATIONS)


TRAPS: Final[dict[str, Callable[[], None]]] = {
    BROKEN: forget,
    NO_KEEPALIVE: never_ping,
    CARELESS: care_less,
    BRISK: be_brisk,
    LEAKY: leak,
    BLIND: believe,
    UNDAUNTED: go_on,
    HEADSTRONG: ask_no_version,
}


if __name__ == "__main__":
    trap, _, number = sys.argv[1].partition(":")
    if trap in TRAPS:
        TRAPS[trap]()
    elif trap in (CLOCK, SWAYED):
        shift_clock(number, swayed=trap == SWAYED)
    elif trap in POINTS:
        set_trap(trap, int(number))
    else:
        known = ", ".join((*POINTS, *TRAPS, f"{CLOCK}:FILE", f"{SWAYED}:FILE"))
        sys.exit(f"{trap}: there is no such trap; known are: {known}")

    sys.exit(main(sys.argv[2:]))
