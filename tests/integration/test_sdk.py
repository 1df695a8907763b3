"""Both clients against the real server: the same script, a server restarted under a watch, and the embedded one's life."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import autoglm
from autoglm import local
from autoglm.model import Approve, PlanState, StepDraft, StepState
from tests.sdk.both import Both

ASK = StepDraft(id="ask", tool="math.calculate", arguments={"expression": "6 * 7"}, requires_approval=True)
AFTER = StepDraft(id="after", tool="math.calculate", arguments={"expression": "1 + 1"}, depends_on=("ask",))


class Server:
    """``autoglm serve`` on a data directory, on one port over its restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = self.address.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", "autoglm_server", "--port", port, "--data-dir", str(self.folder)]
        (self.folder / "server.json").unlink(missing_ok=True)

        with (self.folder / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

        eventually(lambda: local.read(self.folder) is not None or self._process is None or self._process.poll())
        found = local.read(self.folder)
        assert found, (self.folder / "serve.log").read_text()
        self.address = found.address

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(by)
            self._process.wait()
            self._process = None


def eventually(holds: Callable[[], Any]) -> None:
    due = time.monotonic() + 40

    while not holds():
        assert time.monotonic() < due
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AUTOGLM_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


both_kinds = pytest.mark.parametrize("asynchronous", [False, True], ids=["synchronous", "asynchronous"])


@both_kinds
async def test_the_same_script(shared: Server, *, asynchronous: bool) -> None:
    both = Both(asynchronous, shared.address)
    client = both.client
    label = {"kind": "asynchronous" if asynchronous else "synchronous"}

    assert await both.do(client.health()) == "SERVING"
    assert (await both.do(client.info())).version == autoglm.__version__

    dry = await both.do(client.validate(steps=[AFTER, ASK]))
    assert (dry.id, len(dry.steps)) == ("", 2)

    with pytest.raises(autoglm.InvalidRequestError, match="nosuch") as caught:
        await both.do(client.create(steps=[StepDraft(id="a", tool="nosuch.tool")]))

    assert caught.value.violations

    handle = await both.do(client.run(steps=[ASK, AFTER], labels=label, request_id=f"same-{asynchronous}"))
    again = await both.do(client.run(steps=[ASK, AFTER], labels=label, request_id=f"same-{asynchronous}"))
    assert again.id == handle.id

    with pytest.raises(autoglm.ConflictError):
        await both.do(client.run(steps=[ASK], request_id=f"same-{asynchronous}"))

    with pytest.raises(autoglm.ResultTimeoutError):
        await both.do(handle.result(timeout=0.5))

    assert handle.state is PlanState.WAITING
    waiting = next(step for step in handle.plan.steps if step.id == "ask").waiting
    assert [one.id for one in await both.collect(client.list(states=[PlanState.WAITING], labels=label))] == [handle.id]

    with pytest.raises(autoglm.AbortedError):
        await both.do(client.resolve(handle.id, "ask", Approve(), wait_sequence=waiting.sequence - 1))

    await both.do(client.resolve(handle.id, "ask", Approve(), wait_sequence=waiting.sequence, comment="fine"))
    plan = await both.do(handle.result(timeout=40))
    events = await both.collect(handle)

    assert plan.state is PlanState.SUCCEEDED
    assert [one.sequence for one in events] == list(range(1, plan.sequence + 1))
    got = await both.do(client.get(handle.id))
    assert got.expire_time is not None  # which no event has: it goes by the configuration
    assert replace(got, expire_time=None) == plan
    assert [step.state for step in await both.collect(client.list_steps(handle.id))] == [StepState.SUCCEEDED] * 2
    assert await both.collect(client.watch(handle.id, after_sequence=plan.sequence - 1)) == events[-1:]
    assert await both.collect(client.watch(handle.id, after_sequence=plan.sequence)) == []

    with pytest.raises(autoglm.PreconditionError) as ahead:
        await both.collect(client.watch(handle.id, after_sequence=plan.sequence + 1))

    assert ahead.value.reason == "SEQUENCE_AHEAD"

    with pytest.raises(autoglm.NotFoundError):
        await both.do(client.get("nosuchplan"))

    other = await both.do(client.run(steps=[ASK], labels=label))
    await both.do(other.cancel("enough"))

    with pytest.raises(autoglm.PlanCancelledError):
        await both.do(other.result(timeout=40))

    names = [tool.name for tool in await both.collect(client.tools.list())]
    assert names == sorted(names)
    assert (await both.do(client.tools.get("math.calculate"))).effect is autoglm.Effect.READ_ONLY
    called = await both.do(client.tools.call("math.calculate", {"expression": "6 * 7"}))
    assert "42" in str(called.output)

    everything = client.watch_all(labels=label)
    seen = [await both.do(everything.next(timeout=40)) for _ in range(plan.sequence + other.plan.sequence)]
    assert [one for one in seen if one.plan_id == handle.id] == events
    assert [one for one in seen if one.plan_id == other.id] == await both.collect(other)
    await both.do(everything.close())

    third = await both.do(client.run(steps=[ASK], labels=label))
    rest = client.watch_all(cursor=everything.cursor, labels=label)
    assert (await both.do(rest.next(timeout=40))).plan_id == third.id
    await both.do(rest.close())
    await both.do(third.cancel())
    await both.do(client.close())


@both_kinds
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_restarted_under_a_watch_goes_unnoticed(
    own: Server, by: signal.Signals, *, asynchronous: bool
) -> None:
    both = Both(asynchronous, own.address)
    handle = await both.do(both.client.run(steps=[ASK, AFTER]))
    following = asyncio.ensure_future(_follow(both, handle))

    await asyncio.to_thread(eventually, lambda: handle.state is PlanState.WAITING)
    await asyncio.to_thread(own.stop, by)
    await asyncio.to_thread(own.start)

    async with autoglm.AsyncClient(own.address) as other:
        await other.resolve(handle.id, "ask", Approve())

    events = await following
    await both.do(both.client.close())

    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    assert isinstance(events[-1].fact, autoglm.PlanSucceeded)
    assert any(isinstance(one.fact, autoglm.PlanResumed) for one in events)


async def _follow(both: Both, handle: Any) -> list[Any]:
    return [one async for one in handle] if both.asynchronous else await asyncio.to_thread(list, handle)


@both_kinds
async def test_the_embedded_server_stays_while_a_client_is_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, asynchronous: bool
) -> None:
    monkeypatch.setenv("AUTOGLM_SERVER__IDLE", "300ms")
    both = Both(asynchronous, None, data_dir=tmp_path)
    alone = StepDraft(id="a", tool="math.calculate", arguments={"expression": "1 + 1"})
    handle = await both.do(both.client.run(steps=[alone]))
    await both.do(handle.result(timeout=40))
    found = local.read(tmp_path)
    assert found
    assert found.embedded

    await asyncio.sleep(1.0)
    assert local.read(tmp_path) == found  # attached: it stays

    await both.do(both.client.close())
    await asyncio.to_thread(eventually, lambda: local.read(tmp_path) is None)

    await asyncio.to_thread(eventually, lambda: not _lives(found.pid))


@both_kinds
async def test_a_plan_goes_on_although_the_embedded_server_was_killed(tmp_path: Path, *, asynchronous: bool) -> None:
    both = Both(asynchronous, None, data_dir=tmp_path)

    try:
        handle = await both.do(both.client.run(steps=[ASK, AFTER]))

        with pytest.raises(autoglm.ResultTimeoutError):
            await both.do(handle.result(timeout=0.5))

        first = local.read(tmp_path)
        assert first
        os.kill(first.pid, signal.SIGKILL)
        await both.do(both.client.resolve(handle.id, "ask", Approve(), wait_sequence=_wait(handle)))
        assert (await both.do(handle.result(timeout=40))).state is PlanState.SUCCEEDED

        second = local.read(tmp_path)
        assert second
        assert second.pid != first.pid
    finally:
        await both.do(both.client.close())
        found = local.read(tmp_path)

        if found:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False

    return True


def _wait(handle: Any) -> int:
    sequence: int = next(step.waiting.sequence for step in handle.plan.steps if step.waiting)
    return sequence
