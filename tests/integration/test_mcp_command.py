"""``autoglm mcp``: the server's tools and plans, as an MCP client of the library's own meets them, over pipes and HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp: pip install 'open-autoglm[mcp]'")

import mcp_types as types
from mcp import Client, MCPError, StdioServerParameters

from autoglm.aio import AsyncClient
from autoglm.model import PlanState
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_provider
from autoglm_server.tools.tool import Invocation, ToolCallError

TOOLS = '''
import asyncio
import autoglm

@autoglm.tool(effect=autoglm.Effect.READ_ONLY, phrases=[autoglm.Phrase("count to {number:number}", "{output}", "en")])
async def count(number: int, context: autoglm.ToolContext) -> int:
    """Count."""
    for done in range(number):
        context.progress(done / number, f"at {done}")
        await asyncio.sleep(0.06)
    return number

@autoglm.tool
def fail() -> str:
    """Fail."""
    raise autoglm.ToolError("there is no order 17", reason="NO_SUCH_ORDER")

@autoglm.tool(requires_approval=True)
def guarded() -> str:
    """Ask."""
    return "done"

@autoglm.tool
def keyed(context: autoglm.ToolContext) -> str:
    """Give the key."""
    return context.idempotency_key
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder whose embedded server all share; it is ended at the end."""
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "mine.py").write_text(TOOLS)
    yield folder
    done = folder / "data" / "server.json"
    if done.exists():
        pid = int(re.search(r'"pid": ?(\d+)', done.read_text())[1])  # type: ignore[index]
        os.kill(pid, 15)


def command(folder: Path, *flags: str) -> StdioServerParameters:
    words = [
        "-m",
        "autoglm.cli",
        "mcp",
        "--data-dir",
        str(folder / "data"),
        "--provider",
        f"mine=python:{folder}/mine.py",
    ]
    return StdioServerParameters(command=sys.executable, args=[*words, *flags], env=environment())


def environment() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}


@asynccontextmanager
async def connected(folder: Path, *flags: str) -> AsyncIterator[Client]:
    async with Client(command(folder, *flags)) as client:
        yield client


def text(result: types.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


async def test_the_catalog_and_plans_are_offered(folder: Path) -> None:
    async with connected(folder) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}

        count = listed["mine.count"]
        assert count.annotations
        assert count.annotations.read_only_hint
        assert count.input_schema["required"] == ["number"]
        assert {"run_plan", "math.calculate", "mine.fail"} <= listed.keys()
        assert "plan.run" not in listed, "only the steps of plans can call it"

        result = await client.call_tool("math.calculate", {"expression": "2480 * 0.15"})
        assert "372" in text(result)

        failed = await client.call_tool("mine.fail", {})
        assert failed.is_error
        assert text(failed) == "NO_SUCH_ORDER: there is no order 17"

        refused = await client.call_tool("mine.guarded", {})
        assert refused.is_error
        assert "use run_plan" in text(refused)

        wrong = await client.call_tool("mine.count", {"nummer": 1})
        assert wrong.is_error
        assert "arguments.number" in text(wrong)

        keyed = await client.call_tool(
            "mine.keyed", {}, meta=cast("types.RequestParamsMeta", {"autoglm/idempotencyKey": "k-1"})
        )
        assert text(keyed) == "k-1"

        with pytest.raises(MCPError, match="there is no tool"):
            await client.call_tool("no.such", {})


async def test_a_plan_is_run_with_progress_and_its_answer_is_the_result(folder: Path) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with connected(folder) as client:
        request = {"request": "15% of 2480, then convert it from kilometers to miles"}
        result = await client.call_tool("run_plan", request, progress_callback=report)

        assert not result.is_error
        assert result.structured_content["state"] == "SUCCEEDED"
        assert result.structured_content["answer"] == text(result)
        assert "231" in text(result)
        assert any("plan " in (message or "") for _, _, message in seen)
        assert [progress for progress, _, _ in seen] == sorted(progress for progress, _, _ in seen)

        for wrong in ({}, {"request": " "}, {"request": "x", "max_steps": -1}, {"request": "x", "steps": 1}):
            assert (await client.call_tool("run_plan", wrong)).is_error

        failed = await client.call_tool("run_plan", {"request": "sing a song about the sea"})
        assert failed.is_error
        assert failed.structured_content["state"] == "FAILED"


@pytest.mark.parametrize("how", ["cancelled", "gone"])
async def test_a_plan_is_cancelled_when_its_call_is_or_its_client_goes(folder: Path, how: str) -> None:
    begun = asyncio.Event()
    long = f"count to {1000 + len(how)}"

    async def report(progress: float, total: float | None, message: str | None) -> None:
        if "at " in (message or ""):
            begun.set()

    async with AsyncClient(
        data_dir=folder / "data", server_args=["--provider", f"mine=python:{folder}/mine.py"]
    ) as server:
        async with connected(folder) as client:
            request = client.call_tool("run_plan", {"request": long}, progress_callback=report)
            call = asyncio.get_running_loop().create_task(request)
            await begun.wait()
            if how == "cancelled":
                call.cancel()
                await asyncio.wait({call})
                await _ended(server, long)

        await asyncio.wait({call})
        assert call.cancelled() or isinstance(call.exception(), MCPError)
        plan = await _ended(server, long)

    assert plan.state is PlanState.CANCELLED
    assert plan.labels == {"source": "mcp"}


async def _ended(server: AsyncClient, request: str) -> Any:
    (plan,) = [plan async for plan in server.list() if plan.request == request]
    while not plan.state.terminal:
        await asyncio.sleep(0.02)
        plan = await server.get(plan.id)

    return plan


async def test_only_what_is_allowed_is_offered_also_to_plans(folder: Path) -> None:
    async with connected(folder, "--tool", "math.*") as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "run_plan" in names
        assert names - {"run_plan"} == {name for name in names if name.startswith("math.")}

        with pytest.raises(MCPError, match="there is no tool"):
            await client.call_tool("mine.fail", {})

        outside = await client.call_tool("run_plan", {"request": "count to 2", "allowed_tools": ["mine.*"]})
        assert outside.is_error
        assert (await client.call_tool("run_plan", {"request": "count to 2"})).is_error
        assert not (await client.call_tool("run_plan", {"request": "15% of 2480"})).is_error

    async with connected(folder, "--no-plans") as client:
        assert "run_plan" not in {tool.name for tool in (await client.list_tools()).tools}


async def test_one_server_mounts_another_over_mcp(folder: Path) -> None:
    words = command(folder)
    variables = " ".join(f"{name}='{value}'" for name, value in environment().items())
    catalog = Catalog([open_provider("far", f"mcp:{variables} {words.command} {' '.join(words.args)}")])
    await catalog.start()
    try:
        result = await catalog.call(Invocation("far.math.calculate", {"expression": "6 * 7"}, "k", 20))
        assert "42" in str(result.output)
        plan = await catalog.call(Invocation("far.run_plan", {"request": "15% of 2480"}, "the-key", 20))
        again = await catalog.call(Invocation("far.run_plan", {"request": "15% of 2480"}, "the-key", 20))
        assert plan.output["state"] == "SUCCEEDED"
        assert again.output["plan_id"] == plan.output["plan_id"]
        with pytest.raises(ToolCallError) as caught:
            await catalog.call(Invocation("far.mine.fail", {}, "k", 20))

        assert caught.value.failure.domain == "far.mine.fail"
    finally:
        await catalog.stop()


async def test_it_is_served_over_http_to_this_machine_alone(folder: Path) -> None:
    words = command(folder, "--http", "0")
    process = await asyncio.to_thread(
        subprocess.Popen, [words.command, *words.args], env=environment(), stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr
        try:
            while not (
                found := re.search(r"(http://127\.0\.0\.1:(\d+)/mcp)", await asyncio.to_thread(process.stderr.readline))
            ):
                assert process.poll() is None

            async with Client(found[1]) as client:
                assert "372" in text(await client.call_tool("math.calculate", {"expression": "2480 * 0.15"}))

            import httpx2

            async with httpx2.AsyncClient() as raw:
                answer = await raw.post(found[1], json={}, headers={"host": "evil.example"})
                assert answer.status_code in {403, 421}
        finally:
            process.terminate()


def test_the_extra_is_named_when_it_is_missing(tmp_path: Path) -> None:
    script = "import sys; sys.modules['mcp_types'] = None; from autoglm.cli import main; sys.exit(main(['mcp']))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=False
    )

    assert done.returncode == 2
    assert "pip install 'open-autoglm[mcp]'" in done.stderr
