"""How long calls wait to be taken up: what late and timely probes make of the room, and a probe over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from autoglm.v1 import plan_service_pb2 as pb
from autoglm_server.service.admission import CREATES, Kind
from autoglm_server.service.door import CALLS, ROOM_MIN, Door, Prober
from autoglm_server.settings import LimitSettings
from tests.server.service.harness import serving, until

MOST = 64


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
    move(1.0)
    for _ in range(CALLS):
        door.passed(1)

    await rest()
    move(seconds)
    door.probes.answer.set()
    await rest()
    door.probes.answer.clear()


async def test_a_late_probe_narrows_and_timely_ones_widen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    move, door = at(monkeypatch), Door("m", 0.05, MOST)
    door.probes = Scripted()
    await probed(door, move, 0.06)
    assert door.room == MOST // 2
    await probed(door, move, 0.06)
    assert door.room == MOST // 4

    for _ in range(20):
        await probed(door, move, 0.01)

    assert door.room == MOST


async def test_a_probe_that_is_not_back_in_time_narrows_before_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, by what is really under way: 40 of 64 places are taken."""
    move, door = at(monkeypatch), Door("m", 0.05, MOST)
    door.probes = Scripted()
    assert all(door.passed(40) for _ in range(CALLS))
    await rest()
    move(0.04)
    assert door.passed(40)
    move(0.02)
    assert not door.passed(40)
    assert door.room == 20
    move(5.0)
    assert door.passed(19)
    assert not door.passed(20)
    door.probes.answer.set()
    await rest()
    assert door.room == 20


async def test_some_are_let_in_however_late_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    move, door = at(monkeypatch), Door("m", 0.05, MOST)
    door.probes = Scripted()
    for _ in range(20):
        await probed(door, move, 1.0)

    assert door.room == ROOM_MIN
    assert door.passed(ROOM_MIN - 1)
    assert not door.passed(ROOM_MIN)


async def test_few_calls_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch)
    door = Door("m", 0.05, MOST)
    door.probes = probes = Scripted()
    for _ in range(CALLS - 1):
        door.passed(0)

    await rest()
    assert probes.asked == 0
    door.passed(0)
    await rest()
    assert probes.asked == 1
    for _ in range(10 * CALLS):  # one at a time
        door.passed(0)

    await rest()
    assert probes.asked == 1
    await door.close()


async def test_a_server_that_cannot_reach_itself_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    move, door = at(monkeypatch), Door("m", 0.05, MOST)
    door.probes = probes = Scripted()
    await probed(door, move, 0.06)
    probes.fault = ConnectionError("no way")
    await probed(door, move, 0.06)
    assert door.room == MOST
    assert "no way" in caplog.text

    asked = probes.asked
    move(0.5)
    for _ in range(10):
        assert door.passed(MOST - 1)

    await rest()
    assert probes.asked == asked  # not at once again


async def test_a_door_that_is_closed_ends_its_probe_and_measures_no_more() -> None:
    door = Door("m", 0.05, MOST)
    door.probes = probes = Scripted()
    for _ in range(CALLS):
        door.passed(0)

    await rest()
    await door.close()
    assert door.passed(MOST)
    assert probes.asked == 1


async def test_a_probe_goes_the_way_of_the_calls_and_does_nothing() -> None:
    """Along each method that makes plans; beside the places, which are all taken."""
    async with serving(limits=LimitSettings(calls_write=1)) as edge:
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
    async with serving() as edge:
        admission = edge.boundary.admission
        probes = Scripted()
        admission.begin(probes)
        stub = await edge.stub()
        for _ in range(CALLS):
            await stub.CreatePlan(pb.CreatePlanRequest(request="x"))

        await until(lambda: probes.asked == 1)
        await admission.end()
