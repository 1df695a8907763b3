"""Tools over gRPC: what is passed through, what each way to fail comes to, and how an offer is kept up to date."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

import autoglm
from autoglm import wire
from autoglm.model import CallContext, Effect, Failure, RetryPolicy, Tool, ToolProgress
from autoglm.v1 import tool_service_pb2, tool_service_pb2_grpc
from autoglm_server.clock import SystemClock
from autoglm_server.journal.artifacts import FolderArtifacts
from autoglm_server.service.admission import Admission
from autoglm_server.service.artifacts import Artifacts
from autoglm_server.service.interceptors import Boundary
from autoglm_server.service.tools import ToolService
from autoglm_server.settings import LimitSettings
from autoglm_server.tools.builtin import builtin_tools
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import grpc as grpc_provider
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.providers.endpoints import Endpoint
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.providers.grpc import GrpcProvider
from autoglm_server.tools.tool import Invocation, Provider, ToolCallError
from tests.server.tools.grpc_peers import OPTIONS, PORT, Peer, answer, catalog_of, failure, hang, served, tool, until

Response: Any = tool_service_pb2.CallToolResponse  # its stubs take messages alone, and a mapping is easier to read


ROOT = Path(__file__).resolve().parents[3]


def provider(address: str, name: str = "far") -> GrpcProvider:
    return GrpcProvider(name, Endpoint.parse(f"//{address}"), poll_seconds=0.05)


def invocation(**fields: Any) -> Invocation:
    given: dict[str, Any] = {"tool": "far.echo", "arguments": {}, "idempotency_key": "p/s", "timeout": 5.0}
    return Invocation(**given | fields)


# --- what is passed through


async def test_a_call_carries_all_that_it_is() -> None:
    peer = Peer(tool(digest="sha256:own", requires_approval=True))
    context = CallContext("plan", "step", 2, "ann", route=("here",))

    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        result = await catalog.call(invocation(arguments={"n": [1, 2**60]}, context=context))

    assert result.output == "done"
    (request,) = peer.requests
    assert (request.name, request.idempotency_key, request.tool_digest) == ("echo", "p/s", "sha256:own")
    sent = wire.from_message(request.context)
    assert (sent.plan_id, sent.step_id, sent.attempt, sent.principal, sent.route) == (
        "plan",
        "step",
        2,
        "ann",
        ("here",),
    )
    assert sent.approval.arguments_digest == wire.digest(wire.from_message(request.arguments))
    assert 4 < peer.remaining[0] < 5.5  # gRPC rounds it up


async def test_what_needs_no_approval_carries_none() -> None:
    peer = Peer(tool())
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        await catalog.call(invocation())

    assert not peer.requests[0].HasField("context")


async def test_progress_comes_while_it_runs() -> None:
    peer = Peer(tool())
    seen = asyncio.Event()
    told: list[ToolProgress] = []

    async def behave(context: Any) -> None:
        await context.write(Response(progress={"fraction": 0.5, "message": "half"}))
        await seen.wait()
        await answer("done")(context)

    def report(progress: ToolProgress) -> None:
        told.append(progress)
        seen.set()

    peer.behave = behave
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        assert (await catalog.call(invocation(report=report))).output == "done"

    assert [(one.fraction, one.message) for one in told] == [(0.5, "half")]


async def test_cancelling_reaches_the_other_side() -> None:
    peer = Peer(tool())
    peer.behave = hang

    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        call = asyncio.get_running_loop().create_task(catalog.call(invocation(timeout=60.0)))
        await until(lambda: peer.requests)
        assert not peer.cancelled.is_set()
        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call

        await peer.cancelled.wait()


LARGE = """
import asyncio
from autoglm.v1 import tool_service_pb2
from tests.server.tools.grpc_peers import Peer, served, tool

async def main():
    peer = Peer(tool())

    async def behave(context):
        answer = tool_service_pb2.CallToolResponse()
        answer.result.output.string_value = "x" * 100_000_000
        await context.write(answer)

    peer.behave = behave
    async with served(peer) as address:
        print(address, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def _peak_reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory this process has had since :func:`_peak_reset`, in MB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


@pytest.mark.parametrize("last", [Response(result={}), Response(failure={"reason": "NO"})], ids=["result", "failure"])
async def test_a_call_is_not_cancelled_while_it_ends(last: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_server.tools.providers.grpc._STATUS_SECONDS", 10.0)
    peer = Peer(tool())

    async def behave(context: Any) -> None:
        await context.write(last)
        await asyncio.sleep(0.05)

    peer.behave = behave
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        with suppress(ToolCallError):
            await catalog.call(invocation())

    assert not peer.cancelled.is_set()


async def answer_and_hang(context: Any) -> None:
    await answer("done")(context)
    await hang(context)


async def test_a_result_that_has_come_counts_also_when_the_call_is_cancelled_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autoglm_server.tools.providers.grpc._STATUS_SECONDS", 10.0)
    ending, end = asyncio.Event(), grpc_provider._end

    async def told(call: Any) -> None:
        ending.set()
        await end(call)

    monkeypatch.setattr(grpc_provider, "_end", told)
    peer = Peer(tool())
    peer.behave = answer_and_hang
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        call = asyncio.ensure_future(catalog.call(invocation()))
        await ending.wait()
        call.cancel()
        assert (await call).output == "done"
        await peer.cancelled.wait()


async def test_a_call_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_server.tools.providers.grpc._STATUS_SECONDS", 0.01)
    peer = Peer(tool())
    peer.behave = answer_and_hang
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        assert (await catalog.call(invocation())).output == "done"
        await peer.cancelled.wait()


@pytest.fixture
def large() -> Iterator[str]:
    """A provider in a process of its own that answers 100 MB."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak of a process's memory")

    popen = subprocess.Popen([sys.executable, "-c", LARGE], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert popen.stdout is not None
    yield popen.stdout.readline().strip()
    popen.kill()
    popen.wait()
    popen.stdout.close()


async def test_100_mb_are_not_held(large: str) -> None:
    async with catalog_of(provider(large)) as catalog:
        _peak_reset()
        before = _peak()
        assert (await failure(catalog.call(invocation(timeout=15.0)))).reason == "OUTPUT_TOO_LARGE"
        assert _peak() - before < 30
        held = b"x" * 100_000_000  # the control: what is held is seen
        assert _peak() - before > 90
        del held


async def test_stopping_the_provider_is_no_cancelling_of_its_calls() -> None:
    peer = Peer(tool())
    peer.behave = hang
    async with served(peer) as address:
        catalog = Catalog([provider(address)])
        await catalog.start()
        call = asyncio.get_running_loop().create_task(failure(catalog.call(invocation(timeout=60.0))))
        await until(lambda: peer.requests)
        await catalog.stop()
        failed = await call

    assert (failed.reason, failed.outcome_unknown) == ("CONNECTION_LOST", True)


# --- ways to fail


@pytest.mark.parametrize(
    ("effect", "retryable"), [(Effect.READ_ONLY, True), (Effect.IDEMPOTENT, True), (Effect.NON_IDEMPOTENT, False)]
)
async def test_a_call_that_hangs(effect: Effect, retryable: bool) -> None:
    peer = Peer(tool(effect=effect))
    peer.behave = hang

    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation(timeout=0.2)))
        await peer.cancelled.wait()

    assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("STEP_TIMEOUT", retryable, True)


async def test_a_failure_of_the_tools_own() -> None:
    peer = Peer(tool())
    given = Failure("NOT_THERE", "shop", "no such\x1b[2J thing", retryable=True, retry_after=timedelta(seconds=3))

    async def behave(context: Any) -> None:
        await context.write(Response(failure=wire.to_message(given)))

    peer.behave = behave
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation()))

    assert (failed.reason, failed.domain, failed.retryable, failed.retry_after) == (
        "NOT_THERE",
        "shop",
        True,
        timedelta(seconds=3),
    )
    assert "\x1b" not in failed.message


async def test_a_failure_that_says_nothing() -> None:
    peer = Peer(tool())

    async def behave(context: Any) -> None:
        await context.write(Response(failure=wire.to_message(Failure())))

    peer.behave = behave
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation()))

    assert failed.reason == "TOOL_ERROR"
    assert failed.message.endswith("failed, and did not say why")


@pytest.mark.parametrize(
    ("code", "reason", "retryable", "unknown"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", False, False),
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", False, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", True, False),
        (grpc.StatusCode.UNAVAILABLE, "CONNECTION_LOST", True, True),
        (grpc.StatusCode.UNKNOWN, "TOOL_ERROR", True, True),
    ],
)
async def test_a_status(code: grpc.StatusCode, reason: str, retryable: bool, unknown: bool) -> None:
    peer = Peer(tool())

    async def behave(context: Any) -> None:
        await context.abort(code, "told")

    peer.behave = behave
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation()))

    assert (failed.reason, failed.retryable, failed.outcome_unknown) == (reason, retryable, unknown)
    assert "told" in failed.message


async def test_100_mb_are_refused() -> None:
    peer = Peer(tool())

    async def behave(context: Any) -> None:
        await context.write(Response(result={"output": {"string_value": "x" * 100_000_000}}))

    peer.behave = behave
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        failed = await failure(catalog.call(invocation(timeout=15.0)))
        assert (failed.reason, failed.retryable) == ("OUTPUT_TOO_LARGE", False)

        peer.behave = answer("x" * 1_000_000)
        assert len((await catalog.call(invocation())).output) == 1_000_000


NAN = Response(result={"output": {"number_value": float("nan")}})


class Garbage(Peer):
    """Answers calls with bytes that are no message, or with none."""

    garbage: tuple[bytes, ...] = ()

    async def CallTool(self, request: Any, context: Any) -> None:  # type: ignore[override]
        for one in self.garbage:
            await context.write(one)


@pytest.mark.parametrize(
    ("garbage", "unknown"),
    [((), True), ((b"\xff" * 99,), False), ((NAN.SerializeToString(),), False)],
    ids=["nothing", "bytes", "NaN"],
)
async def test_garbage(garbage: tuple[bytes, ...], unknown: bool) -> None:
    peer = Garbage(tool())
    peer.garbage = garbage
    server = grpc.aio.server(options=OPTIONS)
    handlers = {
        "ListTools": grpc.unary_unary_rpc_method_handler(
            peer.ListTools,
            request_deserializer=tool_service_pb2.ListToolsRequest.FromString,
            response_serializer=tool_service_pb2.ListToolsResponse.SerializeToString,
        ),
        "CallTool": grpc.unary_stream_rpc_method_handler(peer.CallTool),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("autoglm.v1.ToolService", handlers),))
    port = server.add_insecure_port(PORT)
    await server.start()

    async with catalog_of(provider(f"127.0.0.1:{port}")) as catalog:
        failed = await failure(catalog.call(invocation()))

    await server.stop(None)
    assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("INVALID_OUTPUT", False, unknown)


async def test_who_is_no_grpc_server_is_away() -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello" * 100)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server, catalog_of(provider(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")) as catalog:
        assert catalog.tools() == []
        assert (await failure(catalog.call(invocation()))).reason == "TOOL_UNAVAILABLE"


# --- processes that die


SERVER = """
import sys, time
import autoglm

@autoglm.tool(effect=autoglm.Effect[sys.argv[2]])
def echo(context: autoglm.ToolContext, hold: bool = False) -> str:
    context.progress(0.1, "began")
    while hold and not context.wait_cancelled(0.01):
        pass
    return "done"

autoglm.serve_tools([echo], sys.argv[1], on_ready=lambda address: print(address, flush=True))
"""


class Process:
    """A provider as a process."""

    def __init__(self, folder: Path) -> None:
        self._script = folder / "server.py"
        self._script.write_text(SERVER)
        self._popen: subprocess.Popen[str] | None = None
        self.address = PORT

    def start(self, effect: Effect = Effect.READ_ONLY) -> str:
        command = [sys.executable, str(self._script), self.address, effect.name]
        self._popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._popen.stdout is not None
        self.address = self._popen.stdout.readline().strip()
        return self.address

    def end(self, by: signal.Signals = signal.SIGKILL) -> int:
        assert self._popen is not None
        popen, self._popen = self._popen, None
        popen.send_signal(by)
        assert popen.stdout is not None
        popen.stdout.close()
        return popen.wait(10)

    def send(self, number: signal.Signals) -> None:
        assert self._popen is not None
        self._popen.send_signal(number)

    def close(self) -> None:
        if self._popen is not None:
            self.end()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    found = Process(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize(("effect", "retryable"), [(Effect.READ_ONLY, True), (Effect.NON_IDEMPOTENT, False)])
async def test_killed_in_the_middle_of_a_call(process: Process, effect: Effect, retryable: bool) -> None:
    address = process.start(effect)
    began = asyncio.Event()
    held = invocation(arguments={"hold": True}, timeout=30.0, report=lambda _: began.set())

    async with catalog_of(provider(address)) as catalog:
        call = asyncio.get_running_loop().create_task(failure(catalog.call(held)))
        await began.wait()
        process.end()
        failed = await call

        assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("CONNECTION_LOST", retryable, True)

        # It is still listed, and says so when it is called; nothing was sent, so the outcome is known.
        await until(lambda: not catalog.tools()[0].available)
        failed = await failure(catalog.call(invocation()))
        assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)

        process.start(effect)
        await until(lambda: catalog.tools()[0].available)
        assert (await catalog.call(invocation())).output == "done"


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()

        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    one = provider(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    before = asyncio.all_tasks()
    start = asyncio.get_running_loop().create_task(one.start())
    await asyncio.sleep(0.05)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start

    assert not [task for task in asyncio.all_tasks() - before if "Link" in repr(task)]
    await gone.wait()
    server.close()


async def test_a_provider_that_is_away_at_the_start_comes_later(process: Process) -> None:
    address = process.start()
    process.end()

    async with catalog_of(provider(address)) as catalog:
        assert catalog.tools() == []
        process.start()
        await until(catalog.tools)
        assert (await catalog.call(invocation())).output == "done"


async def test_a_provider_that_freezes_and_thaws(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_server.tools.providers.grpc.LIST_SECONDS", 0.3)
    address = process.start()

    async with catalog_of(provider(address)) as catalog:
        process.send(signal.SIGSTOP)
        await until(lambda: not catalog.tools()[0].available)
        assert (await failure(catalog.call(invocation()))).reason == "TOOL_UNAVAILABLE"
        monkeypatch.setattr("autoglm_server.tools.providers.grpc.LIST_SECONDS", 15.0)  # what thaws takes its time
        process.send(signal.SIGCONT)
        await until(lambda: catalog.tools()[0].available)
        await catalog.call(invocation())


async def test_a_provider_that_is_told_to_end_lets_a_call_end(process: Process) -> None:
    address = process.start()

    async with catalog_of(provider(address)) as catalog:
        await catalog.call(invocation())
        assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
        await until(lambda: not catalog.tools()[0].available)


async def test_calls_go_round_replicas_and_on_when_one_dies() -> None:
    first, second = Peer(tool()), Peer(tool())

    async with AsyncExitStack() as stack:
        lives = await stack.enter_async_context(served(first))
        dying = AsyncExitStack()
        dies = await dying.enter_async_context(served(second))
        far = provider(f"{lives},{dies}")
        catalog = await stack.enter_async_context(catalog_of(far))
        async with asyncio.timeout(30):
            while not (first.requests and second.requests):
                await catalog.call(invocation())

        before = len(first.requests), len(second.requests)
        for _ in range(10):
            await catalog.call(invocation())

        assert (len(first.requests), len(second.requests)) == (before[0] + 5, before[1] + 5)
        await dying.aclose()
        await until(lambda: far._link._channels[1].get_state() is not grpc.ChannelConnectivity.READY)
        before = len(first.requests), len(second.requests)
        for _ in range(4):
            await catalog.call(invocation())

        assert (len(first.requests), len(second.requests)) == (before[0] + 4, before[1])


async def test_who_says_not_serving_is_left_alone() -> None:
    peer = Peer(tool())
    state = health.aio.HealthServicer()
    server = grpc.aio.server(options=OPTIONS)
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(peer, server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    port = server.add_insecure_port(PORT)
    await server.start()

    async with catalog_of(provider(f"127.0.0.1:{port}")) as catalog:
        assert catalog.tools()[0].available
        await state.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        await until(lambda: not catalog.tools()[0].available)
        assert (await failure(catalog.call(invocation()))).reason == "TOOL_UNAVAILABLE"
        assert not peer.requests
        await state.set("", health_pb2.HealthCheckResponse.SERVING)
        await until(lambda: catalog.tools()[0].available)
        await catalog.call(invocation())

    await server.stop(None)


# --- what is offered


async def test_all_pages_are_read_and_nothing_again_while_nothing_changes() -> None:
    peer = Peer(*(tool(name) for name in "abcdefgh"))
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        assert [one.name for one in catalog.tools()] == [f"far.{name}" for name in "abcdefgh"]
        assert {one.provider for one in catalog.tools()} == {"far"}
        before, lists = catalog.digest, peer.lists
        await until(lambda: peer.lists > lists + 12)
        assert catalog.digest == before


async def test_a_change_is_noticed() -> None:
    peer = Peer(tool())
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        before = catalog.tools()[0].digest
        peer.offered = [tool(), tool("more")]
        await until(lambda: len(catalog.tools()) == 2)
        assert catalog.tools()[0].digest == before
        peer.offered = [Tool(name="echo", effect=Effect.IDEMPOTENT, input_schema='{"type":"object","required":["x"]}')]
        await until(lambda: len(catalog.tools()) == 1 and catalog.tools()[0].digest != before)
        assert (await failure(catalog.call(invocation()))).reason == "INVALID_ARGUMENTS"


async def test_a_tool_that_is_another_by_now() -> None:
    @autoglm.tool(name="echo", effect=Effect.READ_ONLY)
    def older(word: str = "") -> str:
        """Echo."""
        return word

    @autoglm.tool(name="echo", effect=Effect.READ_ONLY)
    def newer(number: int = 0) -> int:
        """Echo."""
        return number

    async with autoglm.ToolServer([older], PORT) as server:
        one = GrpcProvider("far", Endpoint.parse(f"//{server.address}"), poll_seconds=3600)
        async with catalog_of(one) as catalog:
            await catalog.call(invocation(arguments={"word": "a"}))
            # The same address, without a reconnection that would be noticed by itself.
            server._tools._functions["echo"] = newer
            server._tools._listed["echo"] = Tool(**{**_fields(newer.spec), "digest": "sha256:newer", "available": True})
            server._tools._digest = "sha256:all-new"
            failed = await failure(catalog.call(invocation(arguments={"word": "a"})))
            assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("TOOL_CHANGED", True, False)
            await until(lambda: "number" in catalog.tools()[0].input_schema)


def _fields(spec: Tool) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in Tool.__slots__}


async def test_offers_beyond_bounds_are_cut_or_left_out() -> None:
    odd = tool(
        "odd",
        title="t\x00" * 999,
        description="d" * 99_999,
        timeout=timedelta(days=999),
        retry_policy=RetryPolicy(10**9),
        tags=tuple(map(str, range(999))),
    )
    names = ["bad name", "-x", "n" * 125, "", "../x", "far.far.far.echo"]
    peer = Peer(odd, *(tool(name) for name in names))
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        (only,) = catalog.tools()

    assert (only.name, only.timeout, only.retry_policy, len(only.tags)) == ("far.odd", None, None, 64)
    assert len(only.title) <= 256
    assert len(only.description) == 16 << 10


async def test_a_list_without_end_is_refused() -> None:
    class Endless(Peer):
        async def ListTools(self, request: Any, context: Any) -> Any:
            self.lists += 1
            page: Any = tool_service_pb2.ListToolsResponse(next_page_token="more")
            page.tools.append(wire.to_message(tool()))
            return page

    peer = Endless()
    async with served(peer) as address, catalog_of(provider(address)) as catalog:
        await until(lambda: peer.lists > 2)
        assert catalog.tools() == []


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("grpc://", "no address"),
        ("grpc://host", "port"),
        ("grpc://host:1/path", "path"),
        ("grpc://host:1?ca=x", "'ca'"),
        ("grpc://host:1,:2", "no address"),
        ("dns:///host", "port"),
    ],
)
def test_an_address_that_is_none(uri: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        open_provider("far", uri)


@pytest.mark.parametrize("uri", ["grpc://a:1", "grpc://a:1,b:2,[::1]:3", "dns:///a:1", "grpc:unix:///run/tools.sock"])
def test_an_address(uri: str) -> None:
    assert open_provider("far", uri).name == "far"


# --- TLS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signed itself, twice: `good` and `other`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here: TLS is not tried")

    folder = tmp_path_factory.mktemp("keys")
    for name in ("good", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "1", "-subj", "/CN=tools"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:tools.example"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    return folder


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        ("ca={0}/good.pem&cert={0}/good.pem&key={0}/good.key", True),
        ("ca={0}/good.pem&cert={0}/good.pem&key={0}/good.key&name=tools.example", True),
        ("ca={0}/good.pem&cert={0}/good.pem&key={0}/good.key&name=other.example", False),
        ("ca={0}/other.pem&cert={0}/good.pem&key={0}/good.key", False),
        ("ca={0}/good.pem&cert={0}/other.pem&key={0}/other.key", False),
        ("ca={0}/good.pem", False),
    ],
    ids=["both", "name", "other-name", "other-ca", "other-cert", "no-cert"],
)
async def test_tls_both_ways(keys: Path, options: str, reached: bool) -> None:
    read = {name: (keys / f"good.{name}").read_bytes() for name in ("pem", "key")}
    credentials = grpc.ssl_server_credentials([(read["key"], read["pem"])], read["pem"], require_client_auth=True)
    server = grpc.aio.server(options=OPTIONS)
    tool_service_pb2_grpc.add_ToolServiceServicer_to_server(Peer(tool()), server)
    port = server.add_secure_port(PORT, credentials)
    await server.start()

    async with catalog_of(open_provider("far", f"grpcs://127.0.0.1:{port}?{options.format(keys)}")) as catalog:
        if reached:
            assert (await catalog.call(invocation())).output == "done"
        else:
            assert catalog.tools() == []

    await server.stop(None)


def test_a_certificate_goes_with_its_key() -> None:
    with pytest.raises(ValueError, match="come together"):
        open_provider("far", "grpcs://host:1?cert=a.pem")


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    one = open_provider("far", f"grpcs://127.0.0.1:1?ca={tmp_path}/none.pem")
    with pytest.raises(OSError, match=r"none\.pem"):
        await one.start()


# --- one server as the provider of another


@pytest.fixture
async def ring(tmp_path: Path) -> Any:
    """Two servers that mount each other; gives both catalogs."""
    async with AsyncExitStack() as stack:
        addresses: list[str] = []
        servers = []
        for name in ("one", "two"):
            server = grpc.aio.server(options=OPTIONS, interceptors=[_boundary()])
            addresses.append(f"127.0.0.1:{server.add_insecure_port(PORT)}")
            servers.append((name, server))

        catalogs = []
        for (name, server), other in zip(servers, reversed(addresses), strict=True):
            (tmp_path / name).mkdir()
            providers: list[Provider] = [FunctionProvider("", builtin_tools(tmp_path / name)), provider(other, "peer")]
            catalog = Catalog(providers)
            store = FolderArtifacts(tmp_path / name / "artifacts", durable=False)
            await store.open()
            stack.push_async_callback(store.close)
            service = ToolService(
                catalog=catalog,
                artifacts=Artifacts(store, LimitSettings()),
                server_id=f"server-{name}",
                limits=LimitSettings(),
                timeout=timedelta(seconds=10),
            )
            tool_service_pb2_grpc.add_ToolServiceServicer_to_server(service, server)
            await server.start()
            stack.push_async_callback(server.stop, None)
            catalogs.append(catalog)

        for catalog in catalogs:
            await catalog.start()
            stack.push_async_callback(catalog.stop)

        yield addresses, catalogs


def _boundary() -> Boundary:
    admission = Admission(LimitSettings())
    return Boundary(clock=SystemClock(), timeout=timedelta(seconds=10), response_bytes=3 << 20, admission=admission)


async def call(address: str, name: str) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        request = tool_service_pb2.CallToolRequest(name=name, arguments=wire.to_struct({"expression": "6 * 7"}))
        stub: Any = tool_service_pb2_grpc.ToolServiceStub(channel)
        return [message async for message in stub.CallTool(request, timeout=10)][-1]


async def test_a_server_mounts_another(ring: Any) -> None:
    addresses, (one, _) = ring
    await until(lambda: one.get("peer.math.calculate"))

    message = await call(addresses[0], "peer.math.calculate")

    assert message.result.output.struct_value["result"] == 42


async def test_a_mounted_tool_that_needs_approval_is_called_with_the_one_that_was_given(ring: Any) -> None:
    addresses, (one, _) = ring
    await until(lambda: one.get("peer.files.append"))
    assert one.get("peer.files.append").requires_approval

    # As a plan's server calls it, after it asked a person.
    arguments = {"path": "note.txt", "content": "hello"}
    assert (await one.call(invocation(tool="peer.files.append", arguments=arguments))).output

    # The control: without one it is refused.
    async with grpc.aio.insecure_channel(addresses[1]) as channel:
        request = tool_service_pb2.CallToolRequest(name="files.append", arguments=wire.to_struct(arguments))
        stub: Any = tool_service_pb2_grpc.ToolServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="approval"):
            await stub.CallTool(request, timeout=10).read()


async def test_a_ring_of_servers_is_refused_when_called_and_bounded_when_listed(ring: Any) -> None:
    addresses, (one, two) = ring
    await until(lambda: one.get("peer.peer.math.calculate"))

    message = await call(addresses[0], "peer.peer.math.calculate")

    assert (message.failure.reason, message.failure.domain) == ("ROUTE_LOOP", "autoglm")
    assert "server-one,server-two" in message.failure.message or "server-one,server-two" in str(message.failure)
    for _ in range(3):
        lists = one.tools()
        await until(lambda: len(one.tools()) == len(two.tools()))
        assert not [tool.name for tool in lists if tool.name.startswith("peer.peer.peer.")]
