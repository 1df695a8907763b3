"""A plan within a plan on a real server: killed in the middle and started again, it is one plan, and both go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import autoglm
from autoglm.errors import ToolFailedError
from autoglm.model import Budget, PlanOptions, PlanState, StepDraft, StepProgressed, StepRef, StepStarted, StepSucceeded
from tests.integration.conftest import Start


def part(tmp_path: Path) -> StepDraft:
    """A step whose sub-plan counts once, then waits for a file, then counts again."""
    steps = [
        {"id": "first", "tool": "files.count", "arguments": {"path": str(tmp_path / "first")}},
        {
            "id": "gate",
            "tool": "files.gate",
            "arguments": {"path": str(tmp_path / "open")},
            "depends_on": ["first"],
            "timeout": "60s",
        },
        {
            "id": "last",
            "tool": "math.calculate",
            "arguments": {"expression": "1 + $${first}"},
            "depends_on": ["gate"],
        },
    ]
    return StepDraft(id="part", tool="plan.run", arguments={"steps": steps})


def command(address: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "autoglm.cli", *words, "--address", address],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_sub_plan_survives_the_kill_of_the_server_as_the_one_it_was(start: Start, tmp_path: Path) -> None:
    provider = ("--provider", f"files=python:{tmp_path / 'tools.py'}")
    process = await start(*provider).serving()
    port = process.address.rpartition(":")[2]
    async with autoglm.AsyncClient(process.address) as client:
        plan = await client.run(steps=[part(tmp_path)], options=PlanOptions(budget=Budget(max_tool_calls=20)))
        child_id = ""
        async for event in plan:
            match event.fact:
                case StepStarted(child_plan_id=found):
                    child_id = found
                case StepProgressed(data=data) if data and any(
                    row["id"] == "gate" and row["state"] == "RUNNING" for row in data["steps"]
                ):
                    break
                case _:
                    pass

        process.signal(signal.SIGKILL)
        await process.ended()
        (process.data_dir / "server.json").unlink()
        again = await start(*provider, "--port", port, data_dir=process.data_dir).serving()
        (tmp_path / "open").write_text("")
        done = await plan.result(timeout=40)
        assert done.state is PlanState.SUCCEEDED
        calls = done.steps[0].tool_calls
        assert [call.child_plan_id for call in calls] == [child_id, child_id]
        children = [each async for each in client.list(parent_plan_id=plan.id)]
        assert [(each.id, each.parent) for each in children] == [(child_id, StepRef(plan.id, "part"))]
        assert (tmp_path / "first").read_text() == "x\n"
        assert done.output["part"]["output"]["last"]["result"] == 3

        events = [event async for event in client.attach(plan.id).nested()]
        below = [index for index, event in enumerate(events) if event.plan_id == child_id]
        began = next(index for index, event in enumerate(events) if isinstance(event.fact, StepStarted))
        ended = next(
            index
            for index, event in enumerate(events)
            if event.plan_id == plan.id and isinstance(event.fact, StepSucceeded)
        )
        assert began < below[0] < below[-1] < ended

    listed = [
        json.loads(line)["id"]
        for line in command(again.address, "plans", "--parent", plan.id, "--json").split("\n")
        if line
    ]
    assert listed == [child_id]
    assert "  gate " in command(again.address, "show", plan.id)


async def test_the_tool_is_for_the_steps_of_plans(start: Start) -> None:
    process = await start().serving()
    async with autoglm.AsyncClient(process.address) as client:
        assert (await client.tools.get("plan.run")).effect is autoglm.Effect.IDEMPOTENT
        with pytest.raises(ToolFailedError, match="steps of plans alone"):
            await client.tools.call("plan.run", {"request": "1 + 1"})
