"""Process faults: ``kill -9`` at any moment and at every named point, SIGSTOP, and a second server on one data directory."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, Final

import autoglm
from autoglm.errors import AutoglmError
from autoglm.model import (
    Approve,
    Decision,
    Effect,
    Event,
    Plan,
    PlanOptions,
    Reject,
    Retry,
    StepDraft,
    ToolResult,
    WaitingReason,
)
from autoglm.wire import decode, to_json
from autoglm_server.journal.sqlite import SqliteJournal
from tests.reliability.checker import check
from tests.reliability.history import Asked, Call, History, Logged, Seen
from tests.reliability.launcher import BROKEN, POINTS
from tests.reliability.rows import Result
from tests.reliability.servers import Life

CALLERS: Final = 6
HEAL_SECONDS: Final = 90.0
EFFECTS: Final = {
    "ledger.look": Effect.READ_ONLY,
    "ledger.put": Effect.IDEMPOTENT,
    "ledger.send": Effect.NON_IDEMPOTENT,
}


class Session:
    """Clients that ask, watch and decide all the time, while the server comes and goes; all they see is recorded."""

    def __init__(self, life: Life, random: Random, heal_seconds: float = HEAL_SECONDS) -> None:
        """``heal_seconds`` is how long plans may take to end when nothing is done to the server any more."""
        self.life = life
        self._heal_seconds = heal_seconds
        self.history = History(effects=dict(EFFECTS))
        self.acknowledged = 0
        self._random = random
        self._ending = False
        self._numbers = iter(range(1 << 30))
        self._open: dict[str, None] = {}

    @asynccontextmanager
    async def clients(self) -> AsyncIterator[None]:
        """Run the clients meanwhile; at the end, wait until every plan has ended."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(autoglm.AsyncClient(self.life.address))
            async with asyncio.TaskGroup() as tasks:
                callers = [tasks.create_task(self._caller(client)) for _ in range(CALLERS)]
                deciding = tasks.create_task(self._decide(client))
                yield
                self._ending = True
                _, late = await asyncio.wait(callers, timeout=self._heal_seconds)
                for task in (*late, deciding):
                    task.cancel()

        self.history.healed = True

    async def _answered(self, note: Asked, asking: Coroutine[Any, Any, Plan]) -> Plan | None:
        """Ask once; what a lost connection made of it is not known."""
        self.history.asked.append(note)
        try:
            async with asyncio.timeout(20.0):  # wait_for would swallow a cancellation that comes with the answer (3.11)
                plan = await asking
        except TimeoutError:
            return None
        except AutoglmError as refused:
            if refused.reason not in ("UNAVAILABLE", "SERVER_DRAINING", "UNSPECIFIED", ""):
                note.answered_at, note.refused = time.monotonic_ns(), refused.reason

            await asyncio.sleep(0.05)
            return None

        note.answered_at, note.plan = time.monotonic_ns(), plan
        return plan

    async def _caller(self, client: autoglm.AsyncClient) -> None:
        while not self._ending:
            request_id = f"request-{next(self._numbers)}"
            steps = self._drafts()
            options = PlanOptions(max_parallel_steps=self._random.choice([1, 32]))
            plan = None
            while plan is None:
                note = Asked(time.monotonic_ns(), "create", request_id=request_id)
                plan = await self._answered(note, client.create(steps=steps, options=options, request_id=request_id))
                note.plan_id = plan.id if plan is not None else ""
                if plan is None and note.refused:
                    return

            self.acknowledged += 1
            self._open[plan.id] = None
            self.history.written[plan.id] = {draft.id: [draft] for draft in steps}
            cancelling = self._random.random() < 0.15
            async with asyncio.TaskGroup() as beside:
                if cancelling:
                    beside.create_task(self._cancel(client, plan.id))

                await self._follow(client, plan.id, f"watcher-{request_id}")

    async def _follow(self, client: autoglm.AsyncClient, plan_id: str, name: str) -> None:
        """Watch until the plan has ended; a watch that gave up, as the server was away too long, is begun anew."""
        for number in range(1000):
            await self._watch(client, plan_id, f"{name}, time {number}")
            plan = await self._answered(Asked(time.monotonic_ns(), "show", plan_id), client.get(plan_id))
            if plan is not None and plan.state.terminal:
                self._open.pop(plan_id, None)
                return

    async def _watch(self, client: autoglm.AsyncClient, plan_id: str, name: str) -> None:
        with suppress(AutoglmError):  # what it was not given is seen in the journal
            async for event in client.watch(plan_id, durable_only=True):
                body = to_json(event).encode()
                self.history.seen.append(Seen(time.monotonic_ns(), name, 1, 0, plan_id, event.sequence, body))

    async def _cancel(self, client: autoglm.AsyncClient, plan_id: str) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 0.2))
        for _ in range(20):
            note = Asked(time.monotonic_ns(), "cancel", plan_id)
            if await self._answered(note, client.cancel(plan_id)) is not None or note.refused:
                return

    async def _decide(self, client: autoglm.AsyncClient) -> None:
        """Decide for what waits: look, and say that it is to be made again, that it failed, or what it gave."""
        while True:
            await asyncio.sleep(0.1)
            for plan_id in list(self._open):
                plan = await self._answered(Asked(time.monotonic_ns(), "show", plan_id), client.get(plan_id))
                for step in plan.steps if plan is not None else ():
                    if step.waiting is None:
                        continue

                    yes = Retry() if step.waiting.reason is WaitingReason.OUTCOME_UNKNOWN else Approve()
                    kind = self._random.choice([yes, Reject("no"), ToolResult("by hand")])
                    note = Asked(
                        time.monotonic_ns(),
                        "resolve",
                        plan_id,
                        step_id=step.id,
                        wait_sequence=step.waiting.sequence,
                        decision=Decision(kind),
                    )
                    await self._answered(
                        note,
                        client.resolve(
                            note.plan_id,
                            note.step_id,
                            kind,
                            wait_sequence=note.wait_sequence,
                        ),
                    )

    def _drafts(self) -> list[StepDraft]:
        random = self._random
        made: list[StepDraft] = []
        for number in range(random.randint(1, 6)):
            before = [draft.id for draft in made]
            arguments: dict[str, Any] = {"folder": str(self.life.folder)}
            if before and random.random() < 0.5:
                arguments["of"] = f"${{{random.choice(before)}}}"

            after = tuple(random.sample(before, min(len(before), random.choice([0, 1]))))
            made.append(
                StepDraft(id=f"s{number}", tool=random.choice(list(EFFECTS)), arguments=arguments, depends_on=after)
            )

        return made

    async def collect(self) -> History:
        """Read the journal and the ledger, when no server is there any more."""
        history = self.history
        history.logs = await logs_of(self.life.data_dir)
        ledger = self.life.folder / "ledger"
        text = ledger.read_text() if ledger.exists() else ""
        whole = (line for line in text.splitlines() if line.startswith("{") and line.endswith("}"))
        history.calls = [Call(**json.loads(line)) for line in whole]
        history.held = set(history.logs)
        return history


async def logs_of(data_dir: Path) -> dict[str, list[Logged]]:
    """Read every plan's events of a journal that no server has open."""
    logs: dict[str, list[Logged]] = {}
    journal = SqliteJournal(data_dir)
    await journal.open()
    try:
        position = 0
        while records := await journal.read_all(position):
            for record in records:
                event = decode(Event, record.body)
                logs.setdefault(record.plan_id, []).append(Logged(event, to_json(event).encode()))

            position = records[-1].position
    finally:
        await journal.close()

    return logs


async def busy(life: Life, lines: int) -> None:
    """Wait until tools have noted so much more, or for a while: clients take a moment to find the server again."""
    ledger = life.folder / "ledger"
    before = _lines(ledger)
    for _ in range(150):
        if _lines(ledger) >= before + lines:
            break

        await asyncio.sleep(0.02)


def _lines(ledger: Path) -> int:
    return ledger.read_bytes().count(b"}\n") if ledger.exists() else 0


def kills(seed: int, size: int) -> Result:
    """Kill the server ``size`` times, at any moment after its start."""

    async def strike(life: Life, random: Random, history: History) -> None:
        for _ in range(size):
            await life.begin()
            await busy(life, random.randint(0, 12))
            await asyncio.sleep(random.uniform(0.0, 0.05))
            await life.kill()
            history.fault("kill -9")

    return _run("kills", seed, size, strike)


def failpoints(seed: int, size: int) -> Result:
    """Kill the server at every named point; stop it and let it go on; start a second one beside it."""
    outcomes: list[str] = []

    async def strike(life: Life, random: Random, history: History) -> None:
        for point in POINTS * size:
            await life.begin(f"{point}:{random.randint(1, 12)}")
            try:
                await asyncio.wait_for(life.died(), 20.0)
            except TimeoutError:
                outcomes.append(f"the point {point} was never passed")
                await life.kill()

            history.fault(f"kill -9 at {point}")

        await life.begin()
        life.signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        life.signal(signal.SIGCONT)
        history.fault("SIGSTOP")
        second = life.start()
        status = await asyncio.to_thread(second.wait, 60)
        history.fault("a second server")
        if status in (0, -signal.SIGKILL) or not life.alive:
            outcomes.append(f"a second server on the data directory ended with {status}")

        await life.kill()
        history.fault("kill -9")

    result = _run("failpoints", seed, size, strike)
    result.found(
        "one-owner", tries=len(POINTS) * size + 1, faults=0, violations=outcomes, where=f"failpoints seed {seed}"
    )
    return result


def forgetful(seed: int, size: int) -> Result:
    """The control: a server that acknowledges what it has only in memory must be found out."""

    async def strike(life: Life, random: Random, history: History) -> None:
        for _ in range(size):
            await life.begin(BROKEN)
            await busy(life, 4)
            await asyncio.sleep(random.uniform(0.0, 0.3))
            await life.kill()
            history.fault("kill -9")

    found = _run("forgetful", seed, size, strike, heal_seconds=10.0)  # plans that it forgot never end
    result = Result()
    for promise in ("seen-is-durable", "acknowledged-is-kept"):
        caught = found.violations.get(promise, 0) > 0
        result.control(promise, "a server that writes a moment after it acknowledged, killed", caught=caught)

    return result


Strike = Callable[[Life, Random, History], Coroutine[Any, Any, None]]


def _run(part: str, seed: int, size: int, strike: Strike, heal_seconds: float = HEAL_SECONDS) -> Result:
    async def run() -> Result:
        result = Result()
        random = Random(seed)
        with tempfile.TemporaryDirectory(prefix="autoglm-kill-") as folder:
            life = Life(Path(folder))
            session = Session(life, random, heal_seconds)
            try:
                await life.begin()
                async with session.clients():
                    await life.kill()
                    await strike(life, random, session.history)
                    await life.begin()

                await life.stop()
                history = await session.collect()
            finally:
                await life.kill()

        result.take(check(history), history, f"--only {part} --seed {seed} --size {size}")
        result.count("kills", sum(history.faults.values()))
        result.count("plans of killed servers", len(history.logs))
        return result

    return asyncio.run(run())
