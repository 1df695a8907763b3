"""Calls whose provider is away: how long they wait, what they say, and what is never made again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from autoglm.model import DOMAIN, Effect, Failure, Tool, ToolProgress, ToolResult
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.tool import Invocation, ToolCallError

PATIENT = ToolLimits(provider_wait=5.0)


class Scripted:
    """A provider that is away, or refuses so many calls, and then does them."""

    def __init__(self, name: str = "p", *, available: bool = True, refusals: int = 0, unknown: bool = False) -> None:
        self.name = name
        self.offered: Sequence[Tool] = (Tool("do", effect=Effect.NON_IDEMPOTENT, available=available),)
        self.seen: list[Invocation] = []
        self._refusals = refusals
        self._unknown = unknown

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def tools(self) -> Sequence[Tool]:
        return self.offered

    def come_back(self, **changes: str) -> None:
        self.offered = (replace(Tool("do", effect=Effect.NON_IDEMPOTENT, available=True), **changes),)  # type: ignore[arg-type]

    async def call(self, invocation: Invocation) -> ToolResult:
        self.seen.append(invocation)
        if len(self.seen) <= self._refusals:
            failure = Failure("TOOL_UNAVAILABLE", DOMAIN, "away", retryable=True, outcome_unknown=self._unknown)
            raise ToolCallError(failure)

        return ToolResult("done")


@asynccontextmanager
async def offering(provider: Scripted, limits: ToolLimits = PATIENT) -> AsyncIterator[Catalog]:
    catalog = Catalog([provider], limits=limits)
    await catalog.start()
    yield catalog
    await catalog.stop()


def invocation(name: str = "p.do", report: Callable[[ToolProgress], None] = lambda _progress: None) -> Invocation:
    return Invocation(name, {}, "key", 20.0, report=report)


async def test_a_call_waits_for_a_provider_that_is_away_and_says_so() -> None:
    away = Scripted(available=False)
    async with offering(away) as catalog:
        reports: asyncio.Queue[ToolProgress] = asyncio.Queue()
        call = asyncio.create_task(catalog.call(invocation(report=reports.put_nowait)))
        assert (await reports.get()).message == "waits for its provider, which is away"
        assert not away.seen
        away.come_back()
        assert (await call).output == "done"

    [made] = away.seen
    assert made.timeout < 20.0
    assert reports.empty()


async def test_a_tool_that_was_not_listed_yet_is_waited_for_if_there_is_such_a_provider() -> None:
    away = Scripted()
    away.offered = ()
    async with offering(away) as catalog:
        reports: asyncio.Queue[ToolProgress] = asyncio.Queue()
        call = asyncio.create_task(catalog.call(invocation(report=reports.put_nowait)))
        await reports.get()
        away.come_back()
        assert (await call).output == "done"

        with pytest.raises(ToolCallError, match=r"there is no tool 'q\.do'"):
            await catalog.call(invocation("q.do", report=reports.put_nowait))  # the control: nobody is called q

        assert reports.empty()


async def test_it_waits_no_longer_than_it_may() -> None:
    async with offering(Scripted(available=False), ToolLimits(provider_wait=0.06)) as catalog:
        with pytest.raises(ToolCallError) as caught:
            await catalog.call(invocation())

    assert (caught.value.failure.reason, caught.value.failure.retryable) == ("TOOL_UNAVAILABLE", True)


async def test_a_call_that_was_not_made_is_made_when_it_can_be() -> None:
    refuses = Scripted(refusals=2)
    async with offering(refuses) as catalog:
        assert (await catalog.call(invocation())).output == "done"

    assert len(refuses.seen) == 3


@pytest.mark.parametrize(
    ("provider", "limits"),
    [
        pytest.param(Scripted(refusals=1, unknown=True), PATIENT, id="nobody knows what became of it"),
        pytest.param(Scripted(refusals=1), ToolLimits(), id="no patience"),
        pytest.param(Scripted("", refusals=1), PATIENT, id="the server's own"),
    ],
)
async def test_controls_that_are_called_once(provider: Scripted, limits: ToolLimits) -> None:
    async with offering(provider, limits) as catalog:
        with pytest.raises(ToolCallError):
            await catalog.call(invocation(f"{provider.name}.do".lstrip(".")))

    assert len(provider.seen) == 1


async def test_a_tool_that_comes_back_as_another_is_not_called() -> None:
    away = Scripted(available=False)
    async with offering(away) as catalog:
        found = catalog.get("p.do")
        assert found is not None
        outcomes: list[object] = []
        for changes in ({}, {"input_schema": '{"type": "object", "title": "new"}'}):
            away.offered = [replace(tool, available=False) for tool in away.offered]
            call = asyncio.create_task(catalog.call(invocation(), tool_digest=found.digest))
            await asyncio.sleep(0)
            away.come_back(**changes)
            outcomes += await asyncio.gather(call, return_exceptions=True)

    same, other = outcomes
    assert isinstance(same, ToolResult)
    assert isinstance(other, ToolCallError)
    assert other.failure.reason == "TOOL_CHANGED"
    assert len(away.seen) == 1


async def test_it_can_be_cancelled_while_it_waits() -> None:
    away = Scripted(available=False)
    async with offering(away) as catalog:
        call = asyncio.create_task(catalog.call(invocation()))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    assert not away.seen
