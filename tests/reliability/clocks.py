"""Clocks that jump by an hour and by a day, and processes that stand still for longer than anything waits, under a real server.

Plans run, wait for a person, back off and have timeouts meanwhile. What is measured is measured in seconds that the machine's
own clock counts, from outside: a jump must neither end a wait early nor hold one up. The control is a server whose waits
follow the wall clock.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Final

import autoglm
from autoglm.model import Approve, Plan, PlanOptions, PlanState, RetryPolicy, StepDraft, StepWaiting
from tests.reliability.checker import check
from tests.reliability.history import History
from tests.reliability.launcher import CLOCK, SWAYED
from tests.reliability.processes import Session, busy
from tests.reliability.rows import Result
from tests.reliability.servers import Life

TIME: Final = "waits-are-of-their-length"
HOUR: Final = 3600.0
JUMPS: Final = (HOUR, -HOUR, 24 * HOUR, -24 * HOUR)
FROZEN_SECONDS: Final = 9.0
"""Longer than anything in a server waits to be answered: a keepalive (5 s), a probe, a claim."""
SLACK_SECONDS: Final = 5.0
"""How late a wait may end on a machine that is busy; a jump is an hour at least."""
EARLY_SECONDS: Final = 0.05
LINGER: Final = 1.2
BACKOFF: Final = 1.5
TIMEOUT: Final = 1.5
WAIT: Final = 60.0


async def _timed(client: autoglm.AsyncClient, wrong: list[str], made: list[str]) -> None:
    """Plans whose lengths are known: a call, a backoff, a step's and a plan's timeout."""
    short, long = timedelta(seconds=TIMEOUT), {"seconds": 30.0}
    policy = RetryPolicy(2, timedelta(seconds=BACKOFF), timedelta(seconds=BACKOFF), 1.0)
    stays = StepDraft(id="a", tool="ledger.linger", arguments={"seconds": LINGER})
    backs = StepDraft(id="a", tool="ledger.stumble", arguments={"until": 2}, retry_policy=policy)
    stepped = StepDraft(id="a", tool="ledger.linger", arguments=long, timeout=short, retry_policy=RetryPolicy(1))
    late = StepDraft(id="a", tool="ledger.linger", arguments=long)
    one = timedelta(minutes=1)
    cases = (
        ("a call", stays, PlanOptions(timeout=one), LINGER, PlanState.SUCCEEDED),
        ("a backoff", backs, PlanOptions(timeout=one), 0.0, PlanState.SUCCEEDED),  # of any length up to BACKOFF
        ("a step's timeout", stepped, PlanOptions(timeout=one), TIMEOUT, PlanState.FAILED),
        ("a plan's timeout", late, PlanOptions(timeout=short), TIMEOUT, PlanState.FAILED),
    )

    async def run(name: str, step: StepDraft, options: PlanOptions, length: float, state: PlanState) -> None:
        began = time.monotonic()
        plan = await client.create(steps=[step], options=options)
        made.append(plan.id)
        ended = await _end(client, plan.id, length + SLACK_SECONDS)
        took = time.monotonic() - began
        if ended is None or ended.state is not state:
            told = f"{ended.state.name} ({ended.failure})" if ended is not None else "not at its end"
            wrong.append(f"{name} of {length} s: after {took:.1f} s it is {told}")
        elif took < length - EARLY_SECONDS:
            wrong.append(f"{name} of {length} s ended after {took:.2f} s")

    async with asyncio.TaskGroup() as tasks:
        for case in cases:
            tasks.create_task(run(*case))


async def _end(client: autoglm.AsyncClient, plan_id: str, seconds: float) -> Plan | None:
    try:
        async with asyncio.timeout(seconds):
            async for _ in client.watch(plan_id, durable_only=True):
                pass

            return await client.get(plan_id)
    except TimeoutError:
        return None


async def _waiting(client: autoglm.AsyncClient, made: list[str]) -> tuple[str, str, int]:
    """Make a plan that waits for a person for a minute; gives its plan, step and wait."""
    step = StepDraft(id="asked", tool="time.now", requires_approval=True)
    options = PlanOptions(timeout=timedelta(hours=2), waiting_timeout=timedelta(seconds=WAIT))
    plan = await client.create(steps=[step], options=options)
    made.append(plan.id)
    async for event in client.watch(plan.id):
        if isinstance(event.fact, StepWaiting):
            return plan.id, "asked", event.sequence

    raise RuntimeError(f"{plan.id} ended without a wait")


async def _decide(client: autoglm.AsyncClient, wait: tuple[str, str, int], wrong: list[str]) -> None:
    """The wait outlived the jump, so a decision meets it, and its call is made."""
    plan_id, step_id, sequence = wait
    try:
        await client.resolve(plan_id, step_id, Approve(), wait_sequence=sequence)
    except autoglm.AutoglmError as error:
        wrong.append(f"a wait of {WAIT:.0f} s was over within seconds: {error}")
        return

    ended = await _end(client, plan_id, SLACK_SECONDS)
    if ended is None or ended.state is not PlanState.SUCCEEDED:
        wrong.append(f"{plan_id} was approved, and is {ended.state.name if ended is not None else 'not at its end'}")


def _set(file: Path, jump: float) -> None:
    new = file.with_suffix(".new")  # as one, since the server reads it at any moment
    new.write_text(str(float(file.read_text()) + jump))
    new.replace(file)


async def _strike(life: Life, file: Path, jumps: Iterator[float], history: History) -> list[str]:
    """Let the clock jump while plans have waits; gives what was wrong."""
    wrong: list[str] = []
    made: list[str] = []
    async with autoglm.AsyncClient(life.address, timeout=30.0) as client:
        for jump in jumps:
            wait = await _waiting(client, made)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_timed(client, wrong, made))
                await asyncio.sleep(0.5)
                _set(file, jump)
                history.fault("the clock jumped")

            await _decide(client, wait, wrong)

    return wrong


async def _clocks(seed: int, size: int) -> Result:
    result, random, where = Result(), Random(seed), f"--only clocks --seed {seed} --size {size}"
    with tempfile.TemporaryDirectory(prefix="autoglm-clocks-") as name:
        folder = Path(name)
        file, life = folder / "offset", Life(folder)
        file.write_text("0")
        session = Session(life, random)
        session.history.steady = False
        wrong: list[str] = []
        try:
            await life.begin(f"{CLOCK}:{file}")
            async with session.clients():
                for _ in range(size):
                    wrong += await _strike(life, file, iter(JUMPS), session.history)

                await _freeze(life, session.history)
                file.write_text(str(HOUR))  # and a start at another time than the last end
                await life.kill()
                session.history.fault("kill -9")
                await life.begin(f"{CLOCK}:{file}")
                await busy(life, 10)

            await life.stop()
            history = await session.collect()
        finally:
            await life.kill()

        _of_sessions(history)
        result.take(check(history), history, where)
        jumps = history.faults["the clock jumped"]
        result.found(TIME, tries=5 * jumps, faults=jumps, violations=wrong, where=where)
        result.count("clock jumps", jumps)
        result.control(TIME, "a server whose waits follow the wall clock", caught=await _swayed(folder / "swayed"))

    return result


def _of_sessions(history: History) -> None:
    """Leave out the plans that :func:`_timed` made: they have no ledger, and nobody wrote down what they are."""
    ours = {asked.plan_id for asked in history.asked if asked.kind == "create"}
    history.logs = {plan_id: log for plan_id, log in history.logs.items() if plan_id in ours}


async def _freeze(life: Life, history: History) -> None:
    life.signal(signal.SIGSTOP)
    await asyncio.sleep(FROZEN_SECONDS)
    life.signal(signal.SIGCONT)
    history.fault("SIGSTOP")
    await busy(life, 10)


async def _swayed(folder: Path) -> bool:
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs yet
    file, life = folder / "offset", Life(folder)
    file.write_text("0")
    try:
        await life.begin(f"{SWAYED}:{file}")
        return bool(await _strike(life, file, iter(JUMPS[:1]), History()))
    finally:
        await life.kill()


def clocks(seed: int, size: int) -> Result:
    """Let the clock jump there and back ``size`` times, and freeze the server."""
    return asyncio.run(_clocks(seed, size))
