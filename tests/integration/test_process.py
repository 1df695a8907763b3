"""``kill -9``: a plan goes on to its end, nothing that finished runs twice, and who watches sees every event once."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

import autoglm
from autoglm.model import (
    Effect,
    Event,
    PlanCreated,
    PlanResumed,
    PlanState,
    PlanSucceeded,
    Retry,
    Step,
    StepAdded,
    StepDraft,
    StepStarted,
    StepState,
    StepSucceeded,
    ToolResult,
    WaitingReason,
)
from autoglm_server.journal.sqlite import SqliteJournal
from tests.integration.exactly_once import Line, check, read_ledger

TOOLS = Path(__file__).parent / "ledger_tools.py"


class Watcher:
    """Somebody who follows a plan from its first event to its last, and knows nothing of the server's fate."""

    def __init__(self, client: autoglm.AsyncClient, plan_id: str) -> None:
        self.events: list[Event] = []
        self._client = client
        self._plan_id = plan_id
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        async for event in self._client.watch(self._plan_id, durable_only=True):
            async with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(holds)

    def succeeded(self) -> set[str]:
        return {event.step_id for event in self.events if isinstance(event.fact, StepSucceeded)}

    def started(self) -> set[str]:
        return {event.step_id for event in self.events if isinstance(event.fact, StepStarted)}


class Life:
    """A server on one data directory and one port, that is killed and started again."""

    def __init__(self, start: Any) -> None:
        self._start = start
        self._port = "0"
        self.server: Any = None

    async def begin(self) -> str:
        self.server = self._start("--provider", f"ledger=python:{TOOLS}", "--port", self._port)
        await self.server.serving()
        self._port = self.server.address.rpartition(":")[2]
        return str(self.server.address)

    async def kill(self) -> None:
        self.server.signal(signal.SIGKILL)
        assert await self.server.ended() == -signal.SIGKILL
        (self.server.data_dir / "server.json").unlink()  # `serving` waits for the new one

    async def again(self) -> None:
        await self.kill()
        await self.begin()


@pytest.fixture
def life(start: Any) -> Life:
    return Life(start)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def draft(step_id: str, tool: str, folder: Path, after: str = "", gate: str = "") -> StepDraft:
    arguments = {"folder": str(folder), "gate": gate}
    return StepDraft(id=step_id, tool=f"ledger.{tool}", arguments=arguments, depends_on=tuple(after.split()))


def twenty(folder: Path, gate: str) -> list[StepDraft]:
    """Ten steps that finish at once, four that wait at the gate, of each effect, and six after these."""
    return [
        draft("s01", "put", folder),
        *(draft(f"s{number:02}", tool, folder, "s01") for number, tool in enumerate(["put", "send", "look"], 2)),
        draft("s05", "put", folder, "s02"),
        draft("s06", "send", folder, "s03"),
        draft("s07", "put", folder, "s04 s05"),
        draft("s08", "put", folder, "s07"),
        draft("s09", "look", folder, "s08"),
        draft("s10", "send", folder, "s09"),
        draft("s11", "look", folder, "s02", gate),
        draft("s12", "put", folder, "s02", gate),
        draft("s13", "send", folder, "s03", gate),
        draft("s14", "send", folder, "s03", gate),
        draft("s15", "put", folder, "s11 s12"),
        draft("s16", "put", folder, "s13"),
        draft("s17", "put", folder, "s14"),
        draft("s18", "look", folder, "s15 s16 s17"),
        draft("s19", "put", folder, "s18"),
        draft("s20", "send", folder, "s19 s10"),
    ]


DONE = {f"s{number:02}" for number in range(1, 11)}
HELD = {"s11", "s12", "s13", "s14"}


def calls(ledger: Path) -> int:
    return sum(line.what == "begin" for line in read_ledger(ledger))


def begun(ledger: Sequence[Line], step_id: str) -> int:
    return sum(line.what == "begin" and line.key.endswith(f"/{step_id}") for line in ledger)


async def test_a_plan_survives_kill_9(life: Life, folder: Path) -> None:
    ledger = folder / "ledger"
    async with autoglm.AsyncClient(await life.begin()) as client, asyncio.TaskGroup() as tasks:
        plan = await client.create(steps=twenty(folder, "gate"))
        watcher = Watcher(client, plan.id)
        following = tasks.create_task(watcher.run())
        await watcher.until(lambda: watcher.succeeded() == DONE and watcher.started() == DONE | HELD)
        await eventually(lambda: all(begun(read_ledger(ledger), step_id) for step_id in HELD))
        before = watcher.events.copy()

        await life.kill()
        (folder / "gate").touch()
        await life.begin()

        # The calls that may be repeated were, and what needs them went on; the two others wait for a person.
        await watcher.until(lambda: "s15" in watcher.succeeded())
        assert (await client.get(plan.id)).state is PlanState.WAITING
        found = await waiting(client, plan.id)
        assert found == {"s13": WaitingReason.OUTCOME_UNKNOWN, "s14": WaitingReason.OUTCOME_UNKNOWN}
        assert [begun(read_ledger(ledger), step_id) for step_id in sorted(HELD)] == [2, 2, 1, 1]
        check(watcher.events, read_ledger(ledger))

        # For the one a person saw that it had happened, for the other that it had not.
        await client.resolve(plan.id, "s13", ToolResult({"seen": True}))
        await client.resolve(plan.id, "s14", Retry())
        await following

        ended = await client.get(plan.id)
        assert ended.state is PlanState.SUCCEEDED, ended.failure
        assert all(step.state is StepState.SUCCEEDED for step in ended.steps)
        assert [begun(read_ledger(ledger), step_id) for step_id in sorted(HELD)] == [2, 2, 1, 2]
        assert all(begun(read_ledger(ledger), step.id) == 1 for step in ended.steps if step.id not in HELD)
        check(watcher.events, read_ledger(ledger))
        assert isinstance(watcher.events[-1].fact, PlanSucceeded)
        assert watcher.events[-1].sequence == ended.sequence
        assert watcher.events[: len(before)] == before

        # Who comes late is told the very same.
        late = Watcher(client, plan.id)
        await late.run()
        assert late.events == watcher.events


async def test_a_plan_survives_being_killed_again_and_again(life: Life, folder: Path) -> None:
    """Killed in the middle of whatever is under way when so many calls have begun; a person retries what is unclear."""
    (folder / "gate").touch()
    ledger = folder / "ledger"
    async with autoglm.AsyncClient(await life.begin()) as client, asyncio.TaskGroup() as tasks:
        plan = await client.create(steps=twenty(folder, "gate"))
        watcher = Watcher(client, plan.id)
        following = tasks.create_task(watcher.run())

        for more in (8, 3):
            enough = calls(ledger) + more
            await eventually(lambda enough=enough: calls(ledger) >= enough)  # type: ignore[misc]
            await life.again()

        while not following.done():
            for step_id in await waiting(client, plan.id):
                with suppress(autoglm.PreconditionError):
                    await client.resolve(plan.id, step_id, Retry())

            await asyncio.wait([following], timeout=0.05)

        ended = await client.get(plan.id)
        assert ended.state is PlanState.SUCCEEDED, ended.failure
        assert sum(isinstance(event.fact, PlanResumed) for event in watcher.events) == 2
        assert watcher.events[-1].sequence == ended.sequence
        check(watcher.events, read_ledger(ledger))


async def waiting(client: autoglm.AsyncClient, plan_id: str) -> dict[str, WaitingReason]:
    plan = await client.get(plan_id)
    return {step.id: step.waiting.reason for step in plan.steps if step.waiting is not None}


async def eventually(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - another process does it
        await asyncio.sleep(0.01)


# --- the checks themselves


def history() -> tuple[list[Event], list[Line]]:
    """A plan of two steps; the first was interrupted and called again, the second succeeded at once."""
    facts: list[tuple[str, int, Any]] = [
        ("", 0, PlanCreated()),
        ("put", 0, StepAdded(Step("put", effect=Effect.IDEMPOTENT))),
        ("send", 0, StepAdded(Step("send", effect=Effect.NON_IDEMPOTENT))),
        ("put", 1, StepStarted()),
        ("", 0, PlanResumed()),
        ("put", 2, StepStarted()),
        ("put", 2, StepSucceeded(ToolResult("put"))),
        ("send", 1, StepStarted()),
        ("send", 1, StepSucceeded(ToolResult("send"))),
        ("", 0, PlanSucceeded()),
    ]
    events = [
        Event("plan", sequence, step_id=step_id, attempt=attempt, fact=fact)
        for sequence, (step_id, attempt, fact) in enumerate(facts, 1)
    ]
    ledger = [
        Line("begin", "put", "plan/put", 1, 7),
        Line("begin", "put", "plan/put", 2, 8),
        Line("end", "put", "plan/put", 2, 8),
        Line("begin", "send", "plan/send", 1, 8),
        Line("end", "send", "plan/send", 1, 8),
    ]
    return events, ledger


def test_the_check_accepts_what_is_right() -> None:
    check(*history())


@pytest.mark.parametrize("fault", ["missing", "twice", "swapped", "restarted", "succeeded again"])
def test_control_a_wrong_history_is_noticed(fault: str) -> None:
    events, ledger = history()
    match fault:
        case "missing":
            del events[4]
        case "twice":
            events.insert(4, events[4])
        case "swapped":
            events[4], events[5] = events[5], events[4]
        case "restarted":
            events[7] = dataclasses.replace(events[7], attempt=2)
        case _:
            events.append(dataclasses.replace(events[8], sequence=11))

    with pytest.raises(AssertionError):
        check(events, ledger)


@pytest.mark.parametrize(
    "fault",
    ["ran twice", "ran again", "finished and ran again", "never ran", "began before it was journaled", "other key"],
)
def test_control_a_wrong_ledger_is_noticed(fault: str) -> None:
    events, ledger = history()
    begin, end = ledger[3], ledger[4]
    match fault:
        case "ran twice":
            ledger += [begin, end]
        case "ran again":  # as another attempt, of which the history knows nothing
            ledger += [dataclasses.replace(begin, attempt=2), dataclasses.replace(end, attempt=2)]
        case "finished and ran again":
            ledger += [dataclasses.replace(line, pid=9) for line in ledger[1:3]]
        case "never ran":
            del ledger[3:]
        case "began before it was journaled":
            del events[7]
            events[7:] = [dataclasses.replace(event, sequence=event.sequence - 1) for event in events[7:]]
        case _:
            ledger[3:] = [dataclasses.replace(line, key="plan/send/1") for line in ledger[3:]]

    with pytest.raises(AssertionError):
        check(events, ledger)


# --- what the data directory may be like


async def test_a_journal_of_a_newer_version_is_left_alone(start: Any, tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "data")
    await journal.open()
    await journal.close()
    file = tmp_path / "data" / "journal.db"

    with closing(apsw.Connection(str(file))) as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")

    before = file.read_bytes()
    server = start(data_dir=tmp_path / "data")

    assert await server.ended() == 2
    (told,) = complaints(server)
    assert "schema version 99" in told
    assert "start the newer version" in told
    assert "Traceback" not in server.log.read_text()
    assert file.read_bytes() == before


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount small file systems; that needs privileges (root in most containers), and is skipped without."""
    mounted: list[Path] = []

    def begin(options: str) -> Path:
        path = tmp_path / f"mount-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]

        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        except FileNotFoundError:
            pytest.skip("there is no mount here")

        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")

        mounted.append(path)
        return path

    yield begin

    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)


async def test_a_read_only_data_directory_is_named(start: Any, mount: Callable[[str], Path]) -> None:
    """On a file system that is read-only also for root, who may write whatever a folder's mode says."""
    folder = mount("ro,size=64k")
    server = start(data_dir=folder)

    assert await server.ended() == 2
    (told,) = complaints(server)
    assert f"cannot write to the data directory {folder}" in told
    assert "--data-dir" in told
    assert "Traceback" not in server.log.read_text()


async def test_a_full_disk_is_waited_out(start: Any, mount: Callable[[str], Path], folder: Path) -> None:
    """A call under way ends while the disk is full; its outcome is recorded once there is room, and nothing runs twice.

    The disk has no room for the size that a server gives its WAL, or the journal would go on in it.
    """
    disk = mount("size=3m")
    server = start("--provider", f"ledger=python:{TOOLS}", data_dir=disk / "data")
    await server.serving()
    assert shutil.disk_usage(disk).free > 1 << 20

    async with autoglm.AsyncClient(server.address) as client, asyncio.TaskGroup() as tasks:
        steps = [draft("a", "put", folder, gate="gate"), draft("b", "send", folder, "a")]
        plan = await client.create(steps=steps)
        watcher = Watcher(client, plan.id)
        following = tasks.create_task(watcher.run())
        await watcher.until(lambda: watcher.started() == {"a"})
        fill(disk)
        (folder / "gate").touch()
        await eventually(lambda: "cannot be written to" in server.log.read_text())

        assert await client.health() == "NOT_SERVING"
        with pytest.raises(autoglm.AutoglmError) as refused:
            await client.create(steps=steps)

        assert refused.value.reason == "JOURNAL_FULL"
        assert (await client.get(plan.id)).state is PlanState.RUNNING
        assert watcher.succeeded() == set()
        assert begun(read_ledger(folder / "ledger"), "b") == 0
        (disk / "filler").unlink()
        await following

        assert isinstance(watcher.events[-1].fact, PlanSucceeded)
        assert await client.health() == "SERVING"
        check(watcher.events, read_ledger(folder / "ledger"))


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def complaints(server: Any) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if line.startswith("autoglm: ")]
