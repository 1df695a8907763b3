"""How long calls wait to be taken up: what late and timely probes make of the rate, and a probe over a real connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.admission import CREATES, Kind
from autoglm_server.service.door import CALLS, CALM_SECONDS, DRAIN, FLOOR, LESS, RATE_MIN, Door, Prober
from autoglm_server.settings import LimitSettings
from tests.server.service.harness import serving, until

WAIT = timedelta(milliseconds=40)


class Scripted:
    """Answers a probe when the test lets it."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()
        self.fault: Exception | None = None

    async def ready(self) -> None:
        pass

    async def ask(self, method: str) -> None:
        self.asked += 1
        await self.answer.wait()
        if self.fault:
            raise self.fault


def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the loop's clock, as the door sees it."""
    loop = asyncio.get_running_loop()
    now = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


async def rest() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def probed(door: Door, move: Callable[[float], None], seconds: float) -> None:
    """Let calls come until a probe goes, and answer it after so long."""
    assert isinstance(door.probes, Scripted)
    move(0.1)
    for _ in range(CALLS):
        door.passed()

    await rest()
    move(seconds)
    door.probes.answer.set()
    await rest()
    door.probes.answer.clear()


def let_in(door: Door, move: Callable[[float], None], calls: int, seconds: float) -> int:
    """How many of so many calls, evenly over the time, are let in."""
    count = 0
    for _ in range(calls):
        move(seconds / calls)
        count += door.passed()

    return count


async def slowed(monkeypatch: pytest.MonkeyPatch) -> tuple[Door, Callable[[float], None]]:
    """Give a door that let 200 a second in, and then saw one probe come back late."""
    move, door = at(monkeypatch), Door("m", 0.05)
    assert let_in(door, move, 400, 2.0) == 400
    door.probes = Scripted()
    assert let_in(door, move, 400, 2.0) == 400
    await rest()
    move(0.06)
    door.probes.answer.set()
    await rest()
    door.probes.answer.clear()
    return door, move


async def test_a_late_probe_lets_less_in_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    door, move = await slowed(monkeypatch)
    assert door.rate == pytest.approx(LESS * 200, rel=0.05)
    door.probes = Scripted()
    assert let_in(door, move, 600, 1.0) <= LESS * 200 * 1.1


async def test_a_probe_that_is_not_back_in_time_counts_before_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once: when it comes it is not counted again."""
    move, door = at(monkeypatch), Door("m", 0.05)
    door.probes = Scripted()
    let_in(door, move, 40, 0.2)
    await rest()
    assert let_in(door, move, 8, 0.04) == 8
    assert door.rate == math.inf
    let_in(door, move, 8, 0.04)
    once = door.rate
    assert once < math.inf
    move(1.0)
    door.probes.answer.set()
    await rest()
    assert door.rate == once


async def test_timely_probes_let_more_in_and_none_that_is_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    door, move = await slowed(monkeypatch)
    before = door.rate
    for took, more in ((0.03, False), (0.01, True)):
        assert isinstance(door.probes, Scripted)
        let_in(door, move, 200, 0.2)  # more than the rate, so it is the rate that holds them back
        await rest()
        move(took)
        door.probes.answer.set()
        await rest()
        door.probes.answer.clear()
        assert (before < door.rate < 3 * before) is more


async def test_a_lower_rate_is_given_time_before_it_is_lowered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    door, move = await slowed(monkeypatch)
    before = door.rate
    await probed(door, move, 0.06)
    assert door.rate == before
    await probed(door, move, 0.06)
    assert door.rate < before


async def test_what_went_well_a_while_ago_is_not_given_up_for_a_queue_that_it_does_not_make(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    move, door = at(monkeypatch), Door("m", 0.05)
    door.probes = Scripted()
    assert let_in(door, move, 400, 2.0) == 400
    await rest()
    door.probes.answer.set()
    await rest()
    door.probes.answer.clear()
    for _ in range(8):  # about three seconds
        await probed(door, move, 0.3)

    assert 0.4 * 200 < door.rate <= FLOOR * 200
    for _ in range(100):
        await probed(door, move, 0.5)

    assert door.rate == RATE_MIN


async def test_no_more_are_let_in_than_ever_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that grows while nobody asks would be none when they all come."""
    door, move = await slowed(monkeypatch)
    before = door.rate
    for _ in range(20):
        await probed(door, move, 0.005)

    assert door.rate < 3 * before


async def test_some_are_let_in_however_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    door, move = await slowed(monkeypatch)
    for _ in range(100):
        await probed(door, move, 1.0)

    assert door.rate == RATE_MIN
    assert let_in(door, move, 1000, 4.0) >= RATE_MIN * 4 / DRAIN - 1


async def test_while_calls_wait_very_long_less_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same rate, when they do not."""
    door, move = await slowed(monkeypatch)
    usual = let_in(door, move, 200, 0.15)
    await rest()
    move(0.2)  # a probe is under way for that long
    assert let_in(door, move, 200, 0.15) < usual / 2


async def test_all_are_let_in_again_when_nobody_had_to_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    door, move = await slowed(monkeypatch)
    door.probes = Scripted()
    assert let_in(door, move, 20, CALM_SECONDS * 2) == 20
    assert door.rate == math.inf


async def test_few_calls_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch)
    door = Door("m", 0.05)
    door.probes = probes = Scripted()
    for _ in range(CALLS - 1):
        door.passed()

    await rest()
    assert probes.asked == 0
    door.passed()
    await rest()
    assert probes.asked == 1
    for _ in range(10 * CALLS):  # one at a time
        door.passed()

    await rest()
    assert probes.asked == 1
    await door.close()


async def test_a_server_that_cannot_reach_itself_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door, move = await slowed(monkeypatch)
    assert isinstance(door.probes, Scripted)
    probes = door.probes
    probes.fault = ConnectionError("no way")
    await probed(door, move, 0.01)
    assert door.rate == math.inf
    assert "no way" in caplog.text

    asked = probes.asked
    assert let_in(door, move, 100, 0.5) == 100
    await rest()
    assert probes.asked == asked  # not at once again


async def test_a_door_that_is_closed_ends_its_probe_and_measures_no_more() -> None:
    door = Door("m", 0.05)
    door.probes = probes = Scripted()
    for _ in range(CALLS):
        door.passed()

    await rest()
    await door.close()
    assert door.passed()
    assert probes.asked == 1


async def test_a_probe_goes_the_way_of_the_calls_and_does_nothing() -> None:
    """Along each method that makes plans; beside the places, which are all taken."""
    async with serving(limits=LimitSettings(calls_write=1, create_wait=WAIT)) as edge:
        prober = Prober(edge.address)
        edge.boundary.admission.enter(Kind.WRITE, "unix:")
        try:
            await prober.ready()
            for method in CREATES:
                await prober.ask(method)

            with pytest.raises(ConnectionError, match="RESOURCE_EXHAUSTED"):
                await prober.ask("/autoglm.v1.PlanService/CancelPlan")
        finally:
            await prober.close()

        assert edge.boundary.calls == 1  # the last one
        assert not edge.plans.created


async def test_calls_over_a_real_connection_are_measured() -> None:
    async with serving(limits=LimitSettings(create_wait=WAIT)) as edge:
        admission = edge.boundary.admission
        probes = Scripted()
        admission.begin(probes)
        stub = await edge.stub()
        for _ in range(CALLS):
            await stub.CreatePlan(pb.CreatePlanRequest(request="x"))

        await until(lambda: probes.asked == 1)
        await admission.end()
