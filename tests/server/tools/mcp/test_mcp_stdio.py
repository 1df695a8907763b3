from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from autoglm._files import FileLimits
from autoglm.model import Artifact, Effect, ToolProgress
from autoglm.tool import tool_digest
from autoglm_server.journal.artifacts import FolderArtifacts
from autoglm_server.tools.artifacts import StoreSink
from autoglm_server.tools.providers.mcp.provider import Timing
from autoglm_server.tools.tool import Invocation, ToolCallError

from .conftest import QUICK, STAND_IN, Make, Rig, until


def alive(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_tools_are_listed_with_what_the_server_says_of_them(make: Make) -> None:
    rig = await make()

    echo, add, write, die = (rig.catalog.get(f"it.{name}") for name in ("echo", "add", "write", "die"))

    assert echo
    assert add
    assert write
    assert die
    assert (echo.effect, echo.title, echo.provider, echo.available) == (Effect.READ_ONLY, "ECHO", "it", True)
    assert (add.effect, add.destructive, add.open_world) == (Effect.IDEMPOTENT, True, False)
    assert (write.effect, write.destructive) == (Effect.NON_IDEMPOTENT, False)
    assert (die.effect, die.description) == (Effect.NON_IDEMPOTENT, "Does die.")
    assert json.loads(echo.input_schema)["properties"] == {"text": {"type": "string"}}
    assert rig.catalog.get("it.odd_name")
    assert not rig.catalog.refused


async def test_a_call_gives_its_text_and_carries_its_key(make: Make) -> None:
    rig = await make()

    assert (await rig.call("echo", text="日本 \u2028 end")).output == "日本 \u2028 end"
    assert (await rig.call("odd_name")).output == "odd"
    assert (await rig.call("number")).output == "17"
    assert {"call": "echo", "key": "plan/step"} in rig.entries()


async def test_a_result_is_its_structure_and_must_fit_its_schema(make: Make) -> None:
    rig = await make()

    assert (await rig.call("structured")).output == {"n": 1}
    assert (await rig.failure("missing_structure")).reason == "INVALID_OUTPUT"


async def test_what_is_no_text_is_described_and_noted(make: Make) -> None:
    rig = await make()

    result = await rig.call("many_kinds")

    digest = "sha256:ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc"
    assert result.artifacts == (
        Artifact("image-1", "image/png", 3, digest),
        Artifact("audio-2", "audio/wav", 3, digest),
        Artifact("file:///b", "", 3, digest),
        Artifact("https://example.org/c", "text/plain", 0),
    )
    assert result.output.splitlines() == [
        '{"a": 1}',
        "of a file",
        "[image-1: image/png, 3 bytes]",
        "[audio-2: audio/wav, 3 bytes]",
        "[file:///b: of no known type, 3 bytes]",
        "[https://example.org/c: text/plain, a link, which is not followed]",
    ]


async def test_the_content_of_what_is_no_text_is_kept(make: Make, tmp_path: Path) -> None:
    rig = await make()
    store = FolderArtifacts(tmp_path / "artifacts", durable=False)
    await store.open()
    sink = StoreSink(store, "plan", FileLimits(call_files=3))

    result = await rig.catalog.call(Invocation("it.many_kinds", {}, "plan/step", 10, artifacts=sink))

    assert list(sink.saved.values()) == list(result.artifacts[:3])
    digest = result.artifacts[0].digest
    assert hashlib.sha256(b"".join([piece async for piece in store.read("plan", digest)])).hexdigest() == digest[7:]

    few = StoreSink(store, "other", FileLimits(call_files=2))
    with pytest.raises(ToolCallError, match="more than 2 files"):
        await rig.catalog.call(Invocation("it.many_kinds", {}, "plan/step", 10, artifacts=few))

    await store.close()


async def test_progress_is_passed_on(make: Make) -> None:
    rig = await make()
    seen: list[ToolProgress] = []

    await rig.call("progress", report=seen.append)

    assert seen[-1].fraction == 0.5
    assert seen[-1].message == "part 2"


@pytest.mark.parametrize(
    ("tool", "arguments", "reason", "domain", "message"),
    [
        ("fail", {}, "FAILED", "it.fail", "there is no such order"),
        ("refuse", {"text": "-32602"}, "INVALID_ARGUMENTS", "autoglm", "it.refuse refused its arguments: refused"),
        ("refuse", {"text": "-32603"}, "TOOL_ERROR", "autoglm", "MCP error -32603: refused"),
        ("refuse", {"text": "-32000"}, "TOOL_ERROR", "autoglm", "MCP error -32000: refused"),
        ("echo", {"txt": ""}, "INVALID_ARGUMENTS", "autoglm", ""),
        ("no_result", {}, "INVALID_OUTPUT", "autoglm", "it.no_result ended, but its output cannot be used"),
    ],
)
async def test_a_failure_is_the_tools_own_or_ours(
    make: Make, tool: str, arguments: dict[str, Any], reason: str, domain: str, message: str
) -> None:
    rig = await make()

    failure = await rig.failure(tool, **arguments)

    assert (failure.reason, failure.domain, failure.outcome_unknown) == (reason, domain, False)
    assert message in failure.message
    assert (await rig.call("echo", text="still there")).output == "still there"


@pytest.mark.parametrize(("tool", "retryable"), [("die_write", False), ("die_read", True)])
async def test_a_server_that_dies_in_a_call_is_started_again(make: Make, tool: str, *, retryable: bool) -> None:
    rig = await make()

    failure = await rig.failure(tool)
    await until(lambda: len(rig.links) == 2 and rig.available())

    assert (failure.reason, failure.outcome_unknown, failure.retryable) == ("CONNECTION_LOST", True, retryable)
    assert (await rig.call("echo", text="again")).output == "again"
    assert len([entry for entry in rig.entries() if "start" in entry]) == 2
    assert "status 3" in rig.links[0].end()
    assert "my last words" in rig.links[0].end()


async def test_tools_of_a_server_that_is_away_stay_listed_and_fail_retryably(make: Make) -> None:
    rig = await make("once", timing=Timing(start=15, backoff=60, pause=0.01))

    await rig.failure("die")
    await until(lambda: not rig.available())
    failure = await rig.failure("echo", text="")

    assert (failure.reason, failure.retryable, failure.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)
    assert len([entry for entry in rig.entries() if "start" in entry]) == 1


async def test_a_call_waits_for_a_server_that_is_being_started_again(make: Make) -> None:
    rig = await make()

    await rig.failure("die")
    assert (await rig.call("echo", text="at once")).output == "at once"

    await rig.failure("die")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(rig.call("echo", text=""))
        await asyncio.sleep(0)
        waiting.cancel()

    assert waiting.cancelled()


async def test_a_call_that_hangs_is_cut_and_the_server_is_told(make: Make) -> None:
    rig = await make()

    failure = await rig.failure("hang", seconds=0.2)
    await until(lambda: any("cancelled" in entry for entry in rig.entries()))

    assert (failure.reason, failure.outcome_unknown, failure.retryable) == ("STEP_TIMEOUT", True, False)
    assert (await rig.call("echo", text="on")).output == "on"
    assert len([entry for entry in rig.entries() if "start" in entry]) == 1


async def test_a_cancelled_call_stops_at_once_and_the_server_is_told(make: Make) -> None:
    rig = await make()

    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(rig.call("hang"))
        await until(lambda: {"call": "hang", "key": "plan/step"} in rig.entries())
        call.cancel()

    assert call.cancelled()
    await until(lambda: any("cancelled" in entry for entry in rig.entries()))


async def test_a_server_that_does_not_answer_any_more_is_replaced(make: Make) -> None:
    rig = await make("mute")

    await rig.failure("hang", seconds=0.1)
    await until(lambda: len(rig.links) == 2 and rig.available())


async def test_a_server_is_not_replaced_while_it_works_on_another_call(make: Make) -> None:
    rig = await make("mute")

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(rig.call("hang"))
        await until(lambda: {"call": "hang", "key": "plan/step"} in rig.entries())
        await rig.failure("hang", seconds=0.1)
        await asyncio.sleep(3 * QUICK.reply)
        assert len([entry for entry in rig.entries() if "start" in entry]) == 1
        working.cancel()


async def test_garbage_instead_of_an_answer_is_passed_over(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = await make()

    failure = await rig.failure("garbage", seconds=0.2)

    assert failure.reason == "STEP_TIMEOUT"
    assert "wrote a line that is no message: this is no message" in caplog.text
    assert (await rig.call("echo", text="on")).output == "on"


async def test_a_server_of_garbage_alone_is_given_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "ledger", "noise")
    try:
        await rig.catalog.start()
        await until(lambda: len(rig.links) > 1)

        assert "lines that are no messages" in rig.links[0].end()
        assert rig.catalog.tools() == []
    finally:
        await rig.catalog.stop()


@pytest.mark.parametrize("tool", ["huge", "huge_first", "huge_write"])
async def test_an_answer_of_100_mb_is_refused_without_being_held(make: Make, tool: str) -> None:
    rig = await make()
    await rig.call("echo", text="warm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    failure = await rig.failure(tool)

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (failure.reason, failure.outcome_unknown) == ("OUTPUT_TOO_LARGE", False)
    assert grown < 32 << 10, f"{grown} KiB more were held"
    assert (await rig.call("echo", text="on")).output == "on"


async def test_a_changed_schema_is_noticed(make: Make) -> None:
    rig = await make()
    before = rig.catalog.get("it.echo")
    digest = rig.catalog.digest

    await rig.call("change")
    await until(lambda: rig.catalog.digest != digest)

    after = rig.catalog.get("it.echo")
    assert before
    assert after
    assert json.loads(after.input_schema)["required"] == ["text"]
    assert after.digest == tool_digest(after) != before.digest
    assert (await rig.failure("echo")).reason == "INVALID_ARGUMENTS"


async def test_the_same_tools_are_the_same_list(make: Make) -> None:
    rig = await make()
    before = rig.provider.tools()

    rig.provider._news.set()
    await until(lambda: not rig.provider._news.is_set())
    await rig.call("echo", text="")

    assert rig.provider.tools() is before


async def test_a_process_gets_only_the_variables_it_is_meant_to(tmp_path: Path) -> None:
    own: dict[str, Any] = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home/somebody",
        "AUTOGLM_DATA_DIR": "/secret",
        "OPENAI_API_KEY": "sk-canary",
        "ORDERS_KEY": "canary",
    }
    rig = Rig(tmp_path / "ledger", **own)
    words = shlex.join([sys.executable, "-I", "-S", str(STAND_IN), str(tmp_path / "ledger")])
    from autoglm_server.tools.providers.mcp.address import read_command

    rig.command = read_command("it", f"TOKEN=$ORDERS_KEY LEVEL='a b' {words}", own)
    await rig.catalog.start()
    try:
        seen = json.loads((await rig.call("environment")).output)
    finally:
        await rig.catalog.stop()

    assert {key: seen.get(key) for key in ("HOME", "TOKEN", "LEVEL")} == {
        "HOME": "/home/somebody",
        "TOKEN": "canary",
        "LEVEL": "a b",
    }
    assert not {"AUTOGLM_DATA_DIR", "OPENAI_API_KEY", "ORDERS_KEY"} & seen.keys()


async def test_a_process_that_does_not_want_to_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "ledger", "stubborn")
    await rig.catalog.start()
    pid = rig.links[0].pid
    child = int((await rig.call("child")).output)
    assert alive(pid)
    assert alive(child)
    assert os.getpgid(pid) == pid != os.getpgid(0)

    await rig.catalog.stop()

    await until(lambda: not alive(pid) and not alive(child))
    assert "SIGKILL" in rig.links[0].end()


async def test_what_a_dead_server_started_is_ended_too(make: Make) -> None:
    rig = await make()
    child = int((await rig.call("child")).output)

    await rig.failure("die")

    await until(lambda: not alive(child))


async def test_a_server_that_says_nothing_is_waited_for_in_the_background(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "ledger", "silent", timing=Timing(start=0.05, connect=0.3, backoff=0.01, backoff_max=0.02))
    await rig.catalog.start()
    try:
        assert rig.catalog.tools() == []
        await until(lambda: len(rig.links) > 1)
    finally:
        await rig.catalog.stop()

    assert all(not alive(link.pid) for link in rig.links if link.pid)


async def test_no_process_is_started_by_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("started by the event loop")

    monkeypatch.setattr(asyncio.get_running_loop(), "subprocess_exec", forbidden, raising=False)
    rig = Rig(tmp_path / "ledger")
    await rig.catalog.start()
    try:
        assert (await rig.call("echo", text="by a thread")).output == "by a thread"
    finally:
        await rig.catalog.stop()

    # The control: the library's own transport would.
    from mcp import StdioServerParameters, stdio_client

    with pytest.raises(AssertionError, match="started by the event loop"):
        async with stdio_client(StdioServerParameters(command=sys.executable)):
            pass


def test_it_works_on_uvloop_as_well(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def life() -> None:
        rig = Rig(tmp_path / "ledger")
        await rig.catalog.start()
        try:
            assert (await rig.call("echo", text="x" * 250_000)).output == "x" * 250_000
            assert (await rig.failure("die")).reason == "CONNECTION_LOST"
            await until(lambda: len(rig.links) == 2 and rig.available())
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await rig.call("hang")

            assert (await rig.call("echo", text="on")).output == "on"
        finally:
            await rig.catalog.stop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
