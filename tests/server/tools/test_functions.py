"""Functions as tools: on the loop, in real threads, in real processes; how they end, fail and are stopped."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoglm.model import CallContext, Failure, ToolProgress
from autoglm.tool import FunctionTool, tool
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.loading import LoadError
from autoglm_server.tools.providers import FunctionProvider, open_provider, processes
from autoglm_server.tools.providers.threads import ThreadPool
from autoglm_server.tools.tool import AbandonedError, Invocation, ToolCallError

FILE = Path(__file__).with_name("function_tools.py")
LIMITS = ToolLimits(stop_grace=0.05)


@pytest.fixture
async def provider() -> FunctionProvider:
    opened = open_provider("t", f"python:{FILE}")
    assert isinstance(opened, FunctionProvider)
    return opened


@pytest.fixture
def functions(provider: FunctionProvider) -> Any:
    module = sys.modules[provider._functions["add"][0].function.__module__]
    for event in (module.started, module.release, module.ended):
        event.clear()

    return module


@pytest.fixture
async def catalog(provider: FunctionProvider, functions: Any) -> AsyncIterator[Catalog]:
    made = Catalog([provider], limits=LIMITS)
    await made.start()
    yield made
    functions.release.set()
    await made.stop()


@pytest.fixture
async def lenient(provider: FunctionProvider, functions: Any) -> AsyncIterator[Catalog]:
    """One that gives calls as long to stop as a busy machine may need."""
    made = Catalog([provider], limits=ToolLimits(stop_grace=15))
    await made.start()
    yield made
    functions.release.set()
    await made.stop()


async def call(
    catalog: Catalog,
    name: str,
    *,
    timeout: float = 15,  # noqa: ASYNC109  # the call's own limit, which is tested
    report: Any = None,
    **arguments: Any,
) -> Any:
    context = CallContext(plan_id="p", step_id="s", attempt=2)
    made = Invocation(f"t.{name}", arguments, "p/s", timeout, context, report or (lambda _progress: None))
    return (await catalog.call(made)).output


async def failure(catalog: Catalog, name: str, **arguments: Any) -> Failure:
    with pytest.raises(ToolCallError) as caught:
        await call(catalog, name, **arguments)

    return caught.value.failure


async def wait_for(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the system tells of no such end
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("name", ["add", "add_async", "add_process"])
async def test_calls_everywhere(catalog: Catalog, name: str) -> None:
    assert await call(catalog, name, a=2) == 3
    assert await call(catalog, name, a=2, b=40) == 42
    assert await call(catalog, name, a=str(1 << 60), b=0) == str(1 << 60)


@pytest.mark.parametrize("name", ["fail", "fail_async", "fail_process"])
async def test_failures_everywhere(catalog: Catalog, name: str, caplog: pytest.LogCaptureFixture) -> None:
    own = await failure(catalog, name, kind="tool")
    assert own == Failure("NO_SPACE", f"t.{name}", "Full.", retryable=True, metadata={"disk": "a"})

    value = await failure(catalog, name, kind="value")
    assert (value.reason, value.domain) == ("TOOL_ERROR", "autoglm")
    assert value.message.startswith("ValueError: bad  [31mvalue xxx")
    assert len(value.message) == 1024
    assert not value.retryable
    assert not value.outcome_unknown
    assert "Traceback" in caplog.text
    assert {(record.plan_id, record.step_id) for record in caplog.records} == {("p", "s")}  # type: ignore[attr-defined]

    connection = await failure(catalog, name, kind="connection")
    assert (connection.message, connection.retryable) == ("ConnectionError: gone", True)

    for kind, message in [
        ("exit", "SystemExit: 3"),
        ("cancelled", "CancelledError"),
        ("timeout", "TimeoutError: its own"),
    ]:
        assert (await failure(catalog, name, kind=kind)).message == message

    halves = await failure(catalog, name, kind="surrogate")
    assert (halves.message, halves.metadata) == ("half ?", {"?": "?"})
    assert await call(catalog, "add", a=1) == 2


async def test_arguments_that_a_dataclass_refuses(catalog: Catalog) -> None:
    assert await call(catalog, "halve", even={"number": 4}) == 2
    refused = await failure(catalog, "halve", even={"number": 3})

    assert (refused.reason, refused.retryable) == ("INVALID_ARGUMENTS", False)
    assert "3 is odd" in refused.message


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("unwritable", {}, "INVALID_OUTPUT"),
        ("unwritable_process", {}, "INVALID_OUTPUT"),
        ("lies", {}, "INVALID_OUTPUT"),
        ("large", {"size": 1 << 20}, "OUTPUT_TOO_LARGE"),
        ("large_process", {"size": 1 << 20}, "OUTPUT_TOO_LARGE"),
        ("large_process", {"size": 9 << 20}, "OUTPUT_TOO_LARGE"),
    ],
)
async def test_outputs_are_checked(catalog: Catalog, name: str, arguments: Any, reason: str) -> None:
    failed = await failure(catalog, name, **arguments)

    assert failed.reason == reason
    assert not failed.retryable
    assert not failed.outcome_unknown
    assert len(failed.message) < 2000


async def test_the_largest_output_is_let_through(catalog: Catalog) -> None:
    size = LIMITS.output_bytes - 100
    assert len(await call(catalog, "large", size=size)) == size


async def test_a_thread_that_looks_is_stopped(catalog: Catalog, functions: Any, provider: FunctionProvider) -> None:
    task = asyncio.ensure_future(call(catalog, "attentive"))
    await wait_for(functions.started)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert provider.abandoned == []


async def test_a_thread_that_just_begins_is_stopped(
    catalog: Catalog, functions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[threading.Event] = []

    class Slow(threading.Event):
        """Takes so long to make that both, the loop and the thread, could find that there is none."""

        def __init__(self) -> None:
            super().__init__()
            made.append(self)
            functions.release.wait(0.05)

    monkeypatch.setattr("autoglm_server.tools.providers.functions.threading", SimpleNamespace(Event=Slow))
    task = asyncio.ensure_future(call(catalog, "attentive"))
    await wait_for(functions.started)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(made) == 1


async def test_a_thread_that_ends_by_itself_when_told_counts(catalog: Catalog, functions: Any) -> None:
    task = asyncio.ensure_future(call(catalog, "attentive", last="was nearly done"))
    await wait_for(functions.started)
    task.cancel()

    assert await task == "was nearly done"


async def test_a_thread_that_does_not_look_is_abandoned(
    catalog: Catalog,
    functions: Any,
    provider: FunctionProvider,
) -> None:
    task = asyncio.ensure_future(call(catalog, "stubborn"))
    await wait_for(functions.started)
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()  # told to stop, waited for

    task.cancel()
    with pytest.raises(AbandonedError, match=r"t\.stubborn"):
        await task

    assert provider.abandoned == ["t.stubborn"]
    functions.release.set()
    await wait_for(functions.ended)
    await until(lambda: not provider.abandoned)


@pytest.mark.parametrize("name", ["patient", "attentive"])
async def test_a_time_limit_stops_what_listens(lenient: Catalog, name: str, provider: FunctionProvider) -> None:
    failed = await failure(lenient, name, timeout=0.1)

    assert failed.reason == "STEP_TIMEOUT"
    assert failed.outcome_unknown
    assert not failed.retryable
    assert failed.message == f"t.{name} took longer than its limit of 0.1 s"
    assert provider.abandoned == []


async def test_a_time_limit_gives_up_what_does_not_listen(catalog: Catalog, provider: FunctionProvider) -> None:
    failed = await failure(catalog, "stubborn", timeout=0.1)

    assert failed.reason == "STEP_TIMEOUT"
    assert failed.outcome_unknown
    assert "may still be running" in failed.message
    assert provider.abandoned == ["t.stubborn"]


async def test_abandoned_threads_do_not_use_up_the_pool(functions: Any) -> None:
    small = FunctionProvider("t", [functions.stubborn, functions.add], threads=1)
    catalog = Catalog([small], limits=LIMITS)
    await catalog.start()

    await failure(catalog, "stubborn", timeout=0.1)
    assert await call(catalog, "add", a=1) == 2

    functions.release.set()
    await catalog.stop()


async def test_a_call_that_waits_for_a_thread_is_cancelled_at_once(functions: Any) -> None:
    small = FunctionProvider("t", [functions.stubborn, functions.add, functions.halve], threads=1)
    catalog = Catalog([small], limits=LIMITS)
    await catalog.start()
    first = asyncio.ensure_future(call(catalog, "stubborn"))
    await wait_for(functions.started)
    second = asyncio.ensure_future(call(catalog, "add", a=1))
    await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second

    never_begun = await failure(catalog, "halve", even={"number": 2}, timeout=0.01)
    assert (never_begun.reason, never_begun.outcome_unknown, never_begun.retryable) == ("STEP_TIMEOUT", False, True)
    assert "waited for its turn" in never_begun.message

    functions.release.set()
    assert await first == "late"
    await catalog.stop()


async def test_a_process_and_what_it_started_is_killed(catalog: Catalog, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hangs = asyncio.Event()
    task = asyncio.ensure_future(
        call(catalog, "hang_process", pid_file=str(pids), report=lambda _progress: hangs.set()),
    )
    await hangs.wait()
    worker, child = map(int, pids.read_text().split())
    assert is_running(worker)
    assert is_running(child)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not is_running(worker)
    await until(lambda: not is_running(child))  # killed with its group; it ends when the system gets to it

    assert await call(catalog, "add_process", a=1) == 2


async def test_a_time_limit_kills_a_process(lenient: Catalog, tmp_path: Path) -> None:
    failed = await failure(lenient, "hang_process", pid_file=str(tmp_path / "pids"), timeout=0.5)

    assert failed.reason == "STEP_TIMEOUT"
    assert "may still be running" not in failed.message


async def test_a_process_that_dies_leaves_the_outcome_unknown(catalog: Catalog) -> None:
    failed = await failure(catalog, "die_process", signal_number=11)

    assert failed.reason == "CONNECTION_LOST"
    assert failed.outcome_unknown
    assert failed.retryable  # it is READ_ONLY
    assert "SIGSEGV" in failed.message
    assert await call(catalog, "add_process", a=1) == 2


async def test_a_worker_that_died_while_idle_is_replaced(catalog: Catalog) -> None:
    pid = await call(catalog, "leave_process")
    await until(lambda: not is_running(pid))

    assert await call(catalog, "add_process", a=1) == 2


WORKER = '''
import autoglm

@autoglm.tool(effect=autoglm.Effect.READ_ONLY, run="process")
def which() -> str:
    """Say which text this is."""
    return "{}"
'''


async def test_a_process_never_calls_another_text_than_the_server_has_read(tmp_path: Path) -> None:
    file = tmp_path / "edited.py"
    file.write_text(WORKER.format("old"))
    old = Catalog([open_provider("t", f"python:{file}")])
    await old.start()
    file.write_text(WORKER.format("new"))  # no worker has loaded it yet
    failed = await failure(old, "which")
    assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)
    assert "SIGHUP" in failed.message

    new = Catalog([open_provider("t", f"python:{file}")])  # as SIGHUP does
    await new.start()
    assert await call(new, "which") == "new"
    file.write_text(WORKER.format("newer"))
    assert await call(new, "which") == "new"  # by the worker that has loaded what the server has
    await old.stop()
    await new.stop()


async def test_a_worker_that_cannot_start_has_had_no_effect(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    failed = await failure(catalog, "add_process", a=1)

    assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)
    assert "status 3" in failed.message

    monkeypatch.setattr(processes, "_COMMAND", ("/no/such/program",))
    failed = await failure(catalog, "add_process", a=1)
    assert failed.message == "t.add_process could not be called: no process could be started: No such file or directory"


async def test_a_worker_is_used_again_and_knows_its_call(catalog: Catalog) -> None:
    first = await call(catalog, "chatty_process", count=1)
    second = await call(catalog, "chatty_process", count=1)

    assert first == second
    assert first["pid"] == first["group"] != os.getpid()
    assert {key: first[key] for key in ("key", "step", "attempt", "fork", "input")} == {
        "key": "p/s",
        "step": "s",
        "attempt": 2,
        "fork": "0",
        "input": "",
    }


async def test_workers_end_with_the_provider(catalog: Catalog) -> None:
    pid = (await call(catalog, "chatty_process", count=0))["pid"]
    assert is_running(pid)
    await catalog.stop()
    assert not is_running(pid)


@pytest.mark.parametrize("name", ["chatty", "chatty_process"])
async def test_progress_is_merged_and_its_last_always_told(catalog: Catalog, name: str) -> None:
    told: list[ToolProgress] = []
    await call(catalog, name, count=2000, report=told.append)

    assert told[-1].message == "step 1999"
    assert told[-1].fraction == 1999 / 2000
    assert sum(len(progress.text) for progress in told) == 2000
    assert len(told) < 200


async def test_calls_run_in_the_place_they_say(catalog: Catalog, functions: Any) -> None:
    loop_thread = threading.current_thread()
    seen: list[threading.Thread] = []

    def look() -> None:
        seen.append(threading.current_thread())

    async def look_async() -> None:
        seen.append(threading.current_thread())

    tools: list[FunctionTool] = [tool(look), tool(look_async)]
    provider = FunctionProvider("t", tools)
    local = Catalog([provider])
    await local.start()
    await call(local, "look")
    await call(local, "look_async")
    await local.stop()

    assert seen[0] is not loop_thread
    assert seen[0].daemon
    assert seen[1] is loop_thread


def _twice() -> None: ...


@tool(name="same", run="process")
def _processed() -> None: ...


_renamed = tool(name="other", run="process")(_twice)


def test_bad_sets_of_functions_are_refused() -> None:
    with pytest.raises(ValueError, match="two functions are the tool '_twice'"):
        FunctionProvider("", [tool(_twice), tool(_twice)])

    with pytest.raises(LoadError, match=r"use @autoglm\.tool as a decorator"):
        FunctionProvider("", [_renamed])

    FunctionProvider("", [_processed])


@pytest.mark.parametrize(
    ("name", "uri", "told"),
    [
        ("t", "nope:x", r"'nope:x' is not the URI of a provider; known are python:FILE\.py"),
        ("t", "python:", "known are"),
        ("t", "no colon", "known are"),
        ("a b", "python:json", "provider name 'a b'"),
        ("t", "python:json", "has no tools"),
        ("t", "python:no.such.module", "there is no module"),
        ("t", "python:/no/such/file.py", "there is no file"),
    ],
)
def test_bad_uris_are_refused(name: str, uri: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        open_provider(name, uri)


def test_a_file_that_raises_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1/0")
    with pytest.raises(LoadError, match="ZeroDivisionError"):
        open_provider("t", f"python:{tmp_path / 'bad.py'}")


def test_a_module_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_tools.py").write_text("import autoglm\n@autoglm.tool\ndef hi() -> str: return 'hi'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [made.name for made in open_provider("t", "python:my_own_tools").tools()] == ["hi"]


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False

    return state != "Z"


@pytest.mark.parametrize("name", ["add", "add_process"])
async def test_where_the_system_gives_no_thread_a_call_may_be_made_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ThreadPool, "_added", lambda _pool: False)
    refused = await failure(catalog, name, a=1)
    assert (refused.reason, refused.retryable, refused.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)
    assert f"t.{name} could not be called: the system gives the pool" in refused.message
