"""Damaged bytes: clients watch through a proxy that flips, drops and doubles some, and must be given nothing wrong."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from string import ascii_letters
from typing import Final
from unittest.mock import patch

import autoglm
from autoglm._seal import Seal
from autoglm.model import PlanOptions, StepDraft
from autoglm.wire import to_json
from tests.reliability.proxy import SPOILS, Damage, Proxy, flip
from tests.reliability.rows import Result
from tests.reliability.servers import Life
from tests.reliability.verdict import Verdict

UNDAMAGED: Final = "watch-undamaged"
PLANS: Final = 4
CLIENTS: Final = 24
WATCHES_A_CLIENT: Final = 2
STEPS: Final = 12
TEXT: Final = 3000
"""Characters in each step's arguments: most of what is sent is content, so most of what is damaged is."""
BYTES_MAX: Final = 200_000
CONTROL_ROUNDS: Final = 10
PAUSE_SECONDS: Final = 0.2
SECONDS: Final = 300.0
"""A round that takes longer hangs."""


@dataclass
class Given:
    """What the watchers were given, in its order, each with the log it should be; and what they were told instead."""

    logs: dict[str, list[str]] = field(default_factory=dict)
    watchers: list[tuple[str, list[str]]] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)
    raised: list[str] = field(default_factory=list)


def undamaged(given: Given) -> Verdict:
    """What a watcher was given is the log, byte for byte: nothing wrong, doubled, out of order or left out."""
    verdict = Verdict()
    for number, (plan_id, events) in enumerate(given.watchers):
        log = given.logs[plan_id]
        for place, event in enumerate(events):
            wanted = log[place] if place < len(log) else "nothing"
            where = f"watcher {number} of {plan_id} was given {event[:300]!r} as number {place + 1}, the log has {wanted[:300]!r}"
            verdict.expect(holds=event == wanted, otherwise=where)

        verdict.expect(
            holds=len(events) >= len(log), otherwise=f"watcher {number} of {plan_id}: {len(events)} of {len(log)}"
        )

    return verdict


def corruption(seed: int, size: int) -> Result:
    """Damage ``size`` connections, of a client that checks what it is given and of one that believes it."""
    return asyncio.run(_corruption(seed, size))


async def _corruption(seed: int, size: int) -> Result:
    result, random = Result(), Random(seed)
    where = f"--only corruption --seed {seed} --size {size}"
    with tempfile.TemporaryDirectory(prefix="autoglm-corruption-") as folder:
        life = Life(Path(folder))
        try:
            await life.begin()
            damage = Damage(random, size, bytes_max=BYTES_MAX)
            given = await _watched(life, random, damage)
            verdict = undamaged(given)
            result.found(
                UNDAMAGED,
                tries=verdict.tries,
                faults=len(damage.done),
                violations=[*verdict.violations, *given.raised],
                where=where,
            )
            for spoil in SPOILS:
                result.count(f"times damaged: {spoil.__name__}", damage.done.count(spoil.__name__))

            for text, count in given.told.items():
                result.count(f"watches begun anew after {text}", count)

            result.control(UNDAMAGED, "a client that believes what it reads", caught=await _believed(life, random))
        finally:
            await life.kill()

    return result


async def _believed(life: Life, random: Random) -> bool:
    """Whether it is noticed when the client checks nothing; a flipped bit may hit what makes no difference, so some rounds."""
    with patch.object(Seal, "check", lambda self, sealed: None):
        for _ in range(CONTROL_ROUNDS):
            damage = Damage(random, CLIENTS, spoils=(flip,), bytes_max=BYTES_MAX)
            if undamaged(await _watched(life, random, damage, believing=True)).violations:
                return True

    return False


async def _watched(life: Life, random: Random, damage: Damage, *, believing: bool = False) -> Given:
    given = Given()
    proxy = Proxy(life.address, random, damage=damage)
    await proxy.start()
    async with AsyncExitStack() as stack, asyncio.timeout(SECONDS):
        stack.push_async_callback(proxy.stop)
        direct = await stack.enter_async_context(autoglm.AsyncClient(life.address))
        while damage.left > 0:
            plans = [await direct.create(steps=_steps(life.folder, random), options=_OPTIONS) for _ in range(PLANS)]
            async with asyncio.TaskGroup() as tasks:
                for number in range(CLIENTS):
                    tasks.create_task(_client(proxy.address, plans[number % PLANS].id, given))

            for plan in plans:
                given.logs[plan.id] = [to_json(event) async for event in direct.watch(plan.id, durable_only=True)]

            if believing:
                break

    return given


_OPTIONS: Final = PlanOptions(max_parallel_steps=2)


async def _client(address: str, plan_id: str, given: Given) -> None:
    async with autoglm.AsyncClient(address) as client, asyncio.TaskGroup() as tasks:
        for _ in range(WATCHES_A_CLIENT):
            tasks.create_task(_watcher(client, plan_id, given))


async def _watcher(client: autoglm.AsyncClient, plan_id: str, given: Given) -> None:
    """Watch a plan to its end. A watch that says it cannot go on has said so: it is begun anew where it was."""
    events: list[str] = []
    given.watchers.append((plan_id, events))
    last = 0
    while True:
        try:
            async for event in client.watch(plan_id, after_sequence=last, durable_only=True):
                last = event.sequence
                events.append(to_json(event))
        except autoglm.AutoglmError as error:
            text = f"{type(error).__name__} {error.reason}"
            given.told[text] = given.told.get(text, 0) + 1
            await asyncio.sleep(PAUSE_SECONDS)  # a damaged connection may go on answering nonsense until it is cut
        except Exception as error:  # noqa: BLE001 - what a client must not raise, whatever it reads, is told of
            given.raised.append(f"a watcher of {plan_id} raised {type(error).__name__}: {error}"[:500])
            return
        else:
            return


def _steps(folder: Path, random: Random) -> list[StepDraft]:
    def text() -> str:
        return "".join(random.choices(ascii_letters, k=TEXT))

    return [
        StepDraft(id=f"s{number}", tool="ledger.look", arguments={"folder": str(folder), "of": text()})
        for number in range(STEPS)
    ]
