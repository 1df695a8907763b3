"""What plugins are told of steps: what became durable, once, in order, with the step's tool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoglm.errors import error
from autoglm.model import (
    ErrorReason,
    Event,
    Failure,
    Plan,
    PlanFailed,
    PlanningFailed,
    PlanSucceeded,
    Step,
    StepAdded,
    StepCancelled,
    StepFailed,
    StepRetryScheduled,
    StepSkipped,
    StepStarted,
    StepState,
    StepSucceeded,
    ToolResult,
)
from autoglm.plugin import ErrorEvent, StepEndedEvent, StepStartedEvent, hookimpl
from autoglm.wire import encode
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Record
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.plugins.discovery import Found
from autoglm_server.plugins.one import OnePlugin
from autoglm_server.plugins.steps import StepFeed, hook_events
from autoglm_server.settings import PluginSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Listener:
    """A plugin that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.heard = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @hookimpl
    def on_step_started(self, event: StepStartedEvent) -> None:
        self._note(event)

    @hookimpl
    def on_step_ended(self, event: StepEndedEvent) -> None:
        self._note(event)

    @hookimpl
    def on_error(self, event: ErrorEvent) -> None:
        self._note(event)

    def _note(self, event: Any) -> None:
        self.told.append(event)
        self._loop.call_soon_threadsafe(self.heard.set)

    async def until(self, number: int) -> list[Any]:
        while len(self.told) < number:
            await self.heard.wait()
            self.heard.clear()

        return self.told


class World:
    """A feed that a test fills, and plans that it knows."""

    def __init__(self) -> None:
        self.feed = Feed(MemoryJournal())
        self.plans: dict[str, Plan] = {}
        self.asked: list[str] = []
        self.position = 0
        self.sequences: dict[str, int] = {}

    async def plan_of(self, plan_id: str) -> Plan:
        self.asked.append(plan_id)
        if plan_id not in self.plans:
            raise error(ErrorReason.PLAN_NOT_FOUND, "none")

        return self.plans[plan_id]

    def commit(self, plan: str, *facts: tuple[str, Any]) -> None:
        records = []
        for step, fact in facts:
            self.position += 1
            sequence = self.sequences[plan] = self.sequences.get(plan, 0) + 1
            event = Event(plan, sequence, NOW, step, attempt=1 if step else 0, fact=fact)
            records.append(Record(self.position, plan, sequence, encode(event)))

        self.feed.committed(records)


@asynccontextmanager
async def following(world: World, *listeners: Listener) -> AsyncIterator[StepFeed]:
    plugins = []
    for number, listener in enumerate(listeners):
        plugin = OnePlugin(PluginSettings(name=f"p{number}"), workspace=Path("/ws"))
        await plugin.load(Found("p", "", "test", lambda listener=listener: listener))  # type: ignore[misc]
        plugins.append(plugin)

    steps = StepFeed(world.feed, world.plan_of, lambda: [plugin for plugin in plugins if plugin.listens])
    async with asyncio.TaskGroup() as tasks:
        telling = [tasks.create_task(plugin.tell()) for plugin in plugins]
        run = tasks.create_task(steps.run())
        steps.changed()
        await asyncio.sleep(0.01)  # it follows from now on, and "now" is its first look
        yield steps
        world.feed.drain()
        steps.end()
        await run
        for plugin in plugins:
            await plugin.unload()

        for task in telling:
            task.cancel()


def added(step: str, tool: str) -> tuple[str, Any]:
    return step, StepAdded(Step(id=step, tool=tool))


async def test_plugins_are_told_of_what_became_durable_with_its_tool() -> None:
    world, first, second = World(), Listener(), Listener()
    async with following(world, first, second):
        world.commit("x", added("a", "tool.a"), ("a", StepStarted("k", {"n": 1})))
        world.commit("x", ("a", StepSucceeded(ToolResult(7))), ("", PlanSucceeded("done")))
        await first.until(2)
        await second.until(2)

    started = StepStartedEvent("x", 2, NOW, "a", 1, "tool.a", {"n": 1})
    ended = StepEndedEvent("x", 3, NOW, "a", 1, "tool.a", StepState.SUCCEEDED, 7, None)
    assert first.told == second.told == [started, ended]
    assert world.asked == []


async def test_the_tools_of_a_plan_that_began_before_are_read_once() -> None:
    world, listener = World(), Listener()
    world.plans["x"] = Plan(id="x", steps=(Step(id="a", tool="tool.a"), Step(id="b", tool="tool.b")))
    async with following(world, listener):
        world.commit("x", ("a", StepStarted()), ("b", StepStarted()), ("a", StepSkipped()))
        world.commit("gone", ("z", StepStarted()))
        told = await listener.until(4)

    assert [event.tool for event in told] == ["tool.a", "tool.b", "tool.a", ""]
    assert world.asked == ["x", "gone"]


async def test_what_waits_when_the_server_ends_is_told() -> None:
    world, listener = World(), Listener()
    async with following(world, listener):
        world.feed.drain()
        world.commit("x", added("a", "t"), *(("a", StepStarted()) for _ in range(500)))

    assert len(listener.told) == 500


async def test_a_fault_of_the_feed_does_not_end_it(monkeypatch: Any, caplog: Any) -> None:
    world, listener = World(), Listener()
    plan_of = world.plan_of
    faults = [OSError("disk")]

    async def broken(plan_id: str) -> Plan:
        if faults:
            raise faults.pop()

        return await plan_of(plan_id)

    monkeypatch.setattr(world, "plan_of", broken)
    monkeypatch.setattr("autoglm_server.plugins.steps._HEARTBEAT", 0.01)
    async with following(world, listener):
        world.commit("x", ("a", StepStarted()))
        while not listener.told:  # until it follows again
            world.commit("y", added("a", "t"), ("a", StepStarted()))
            await asyncio.sleep(0.01)

    assert {event.plan_id for event in listener.told} == {"y"}
    assert "plugins are not told of steps for a moment" in caplog.text


def test_every_end_and_every_failure_is_told() -> None:
    failure = Failure("NO", "d", "no")

    def told(fact: Any, step: str = "a") -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for event in hook_events(Event("x", 1, NOW, step, 2, round=3, fact=fact), "t"):
            match event:
                case StepEndedEvent():
                    found.append(("ended", event.state, event.failure))
                case ErrorEvent():
                    found.append(("error", event.tool, event.failure, event.final))
                case StepStartedEvent():
                    found.append(("started",))

        return found

    assert told(StepFailed(failure)) == [("ended", StepState.FAILED, failure), ("error", "t", failure, True)]
    assert told(StepRetryScheduled(failure)) == [("error", "t", failure, False)]
    assert told(StepSkipped()) == [("ended", StepState.SKIPPED, None)]
    assert told(StepCancelled()) == [("ended", StepState.CANCELLED, None)]
    assert told(PlanningFailed(failure)) == [("error", "", failure, True)]
    assert told(PlanningFailed(failure, next_attempt_time=NOW)) == [("error", "", failure, False)]
    assert told(PlanFailed(failure), "") == [("error", "", failure, True)]
    assert told(PlanSucceeded(), "") == []
