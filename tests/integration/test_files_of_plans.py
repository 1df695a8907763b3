"""Files from end to end, with a server as a process: saved by a step, killed, started again, read and saved by the client."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest

import autoglm
from autoglm.model import StepDraft

TOOLS = '''
import os
from pathlib import Path
import time
import autoglm

@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def draw(context: autoglm.ToolContext, size: int) -> str:
    """Save files."""
    context.save("chart.png", bytes(size))
    return "drawn"

@autoglm.tool(effect=autoglm.Effect.READ_ONLY)
def draw_and_wait(context: autoglm.ToolContext, gate: str) -> str:
    """Save a file, and wait for another one."""
    context.save("chart.png", b"of an attempt")
    while not Path(gate).exists():
        time.sleep(0.01)
    return "drawn"
'''


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    path = tmp_path / "drawing.py"
    path.write_text(TOOLS)
    return path


def inside(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def contents(data_dir: Path) -> dict[str, int]:
    return {
        path.name: path.stat().st_nlink for path in (data_dir / "artifacts" / "content").rglob("*") if path.is_file()
    }


async def test_files_survive_a_kill_and_are_read_on_after_it(start: Any, tools: Path, tmp_path: Path) -> None:
    size = 9 << 20
    digest = f"sha256:{hashlib.sha256(bytes(size)).hexdigest()}"
    server = await start("--provider", f"t=python:{tools}").serving()
    async with autoglm.AsyncClient(server.address) as client:
        steps = [StepDraft(id=name, tool="t.draw", arguments={"size": size}) for name in ("one", "two")]
        plan = await (await client.run(steps=steps)).result(30)

    assert [step.result.artifacts[0].digest for step in plan.steps if step.result] == [digest, digest]
    assert contents(server.data_dir) == {digest[7:]: 2}  # the content, and the plan's link to it

    async with autoglm.AsyncClient(server.address) as client:
        reading = client.read_artifact(plan.id, digest)
        found = [await anext(reading)]
        server.signal(signal.SIGKILL)
        await server.ended()
        port = server.address.rpartition(":")[2]
        (server.data_dir / "server.json").unlink()
        again = await start("--port", port, "--provider", f"t=python:{tools}").serving()
        assert again.address == server.address
        found += [piece async for piece in reading]
        assert hashlib.sha256(b"".join(found)).hexdigest() == digest[7:]

        saved = await client.save_artifact(plan.id, digest, tmp_path / "saved.png")
        assert saved.stat().st_size == size


async def test_a_kill_while_a_call_runs_leaves_no_file_of_it_that_anybody_sees(
    start: Any, tools: Path, tmp_path: Path
) -> None:
    server = await start("--provider", f"t=python:{tools}").serving()
    async with autoglm.AsyncClient(server.address) as client:
        step = StepDraft(id="one", tool="t.draw_and_wait", arguments={"gate": str(tmp_path / "gate")})
        handle = await client.run(steps=[step])
        async for event in handle:
            if isinstance(event.fact, autoglm.StepStarted):
                break

        server.signal(signal.SIGKILL)
        await server.ended()

    (server.data_dir / "server.json").unlink()
    (tmp_path / "gate").touch()
    again = await start("--provider", f"t=python:{tools}").serving()
    async with autoglm.AsyncClient(again.address) as client:
        plan = await client.attach(handle.id).result(30)
        (artifact,) = [artifact for step in plan.steps if step.result for artifact in step.result.artifacts]
        assert b"".join([piece async for piece in client.read_artifact(plan.id, artifact.digest)]) == b"of an attempt"

    assert contents(again.data_dir) == {artifact.digest[7:]: 2}


async def test_the_limits_come_from_the_settings(start: Any, tools: Path) -> None:
    server = await start("--provider", f"t=python:{tools}", LIMITS__ARTIFACT="2KiB").serving()
    async with autoglm.AsyncClient(server.address) as client:
        for size, state in ((2048, "SUCCEEDED"), (2049, "FAILED")):
            handle = await client.run(steps=[StepDraft(id="one", tool="t.draw", arguments={"size": size})])
            try:
                plan = await handle.result(30)
            except autoglm.PlanFailedError as failed:
                plan = failed.plan

            assert plan.steps[0].state.name == state
            if failure := plan.steps[0].failure:
                assert failure.reason == "INVALID_ARTIFACT"
                assert failure.metadata == {"limit": "2048", "size": "2049"}


async def test_with_a_journal_in_memory_files_go_with_the_server(
    start: Any, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    server = await start("--provider", f"t=python:{tools}", JOURNAL__URL="memory:").serving()
    async with autoglm.AsyncClient(server.address) as client:
        plan = await (await client.run(steps=[StepDraft(id="a", tool="t.draw", arguments={"size": 3})])).result(30)
        (artifact,) = (plan.steps[0].result or autoglm.ToolResult()).artifacts
        assert [piece async for piece in client.read_artifact(plan.id, artifact.digest)] == [bytes(3)]

    assert inside(tmp_path / "tmp")
    server.signal()
    assert await server.ended() == 0
    assert not inside(tmp_path / "tmp")


async def test_a_person_cannot_name_a_file_of_another_plan_into_reach(start: Any, tools: Path) -> None:
    server = await start("--provider", f"t=python:{tools}").serving()
    async with autoglm.AsyncClient(server.address) as client:
        plan = await (await client.run(steps=[StepDraft(id="a", tool="t.draw", arguments={"size": 3})])).result(30)
        (artifact,) = (plan.steps[0].result or autoglm.ToolResult()).artifacts
        waits = StepDraft(id="a", tool="t.draw", arguments={"size": 4}, requires_approval=True)
        other = await client.run(steps=[waits])
        async for event in other:
            if isinstance(event.fact, autoglm.StepWaiting):
                break

        await client.resolve(other.id, "a", autoglm.ToolResult("mine", (artifact,)))
        await other.result(30)

        with pytest.raises(autoglm.NotFoundError) as raised:
            await client.save_artifact(other.id, artifact, server.data_dir / "stolen")

        assert raised.value.reason == "ARTIFACT_NOT_FOUND"
        assert not (server.data_dir / "stolen").exists()
