"""Plans that call MCP servers, in a server of their own: what a death, a hang and a secret come to, by the tool's effect."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp: pip install 'open-autoglm[mcp]'")

from autoglm.aio import AsyncClient
from autoglm.errors import PlanFailedError
from autoglm.model import PlanState, StepDraft, StepState, StepWaiting, WaitingReason

STAND_IN = Path(__file__).parent.parent / "server" / "tools" / "mcp" / "stand_in.py"


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    """A client of an embedded server with one MCP server, ``it``, that is given a secret."""
    monkeypatch.setenv("IT_TOKEN", "canary-of-the-token")
    (tmp_path / "settings.yaml").write_text("secrets: {token: env:IT_TOKEN}\n")
    uri = shlex.join([sys.executable, "-I", "-S", str(STAND_IN), str(tmp_path / "ledger")])
    flags = ["--config", str(tmp_path / "settings.yaml"), "--provider", f"it=mcp:TOKEN=secret://token {uri}"]
    async with AsyncClient(data_dir=tmp_path / "data", server_args=flags) as found:
        yield found

    server = (tmp_path / "data" / "server.json").read_text()
    os.kill(int(re.search(r'"pid": ?(\d+)', server)[1]), 15)  # type: ignore[index]


def calls(tmp_path: Path, name: str) -> list[str]:
    entries = [json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines()]
    return [entry["key"] for entry in entries if entry.get("call") == name]


async def test_a_reading_call_whose_server_dies_is_made_again_with_the_same_key(
    client: AsyncClient, tmp_path: Path
) -> None:
    steps = [StepDraft(id="dies", tool="it.die_read"), StepDraft(id="goes", tool="it.echo", arguments={"text": "on"})]

    with pytest.raises(PlanFailedError) as caught:
        await (await client.run(steps=steps)).result()

    dies, _goes = caught.value.plan.steps
    assert dies.failure
    assert (dies.failure.reason, dies.state) == ("CONNECTION_LOST", StepState.FAILED)
    assert len(calls(tmp_path, "die_read")) > 1
    assert len(set(calls(tmp_path, "die_read"))) == 1
    plan = await (await client.run(steps=[StepDraft(id="a", tool="it.echo", arguments={"text": "on"})])).result()
    assert plan.state is PlanState.SUCCEEDED


async def test_a_writing_call_whose_server_dies_asks_a_person(client: AsyncClient, tmp_path: Path) -> None:
    handle = await client.run(steps=[StepDraft(id="writes", tool="it.die")])

    async for event in handle:
        if isinstance(event.fact, StepWaiting):
            assert event.fact.reason is WaitingReason.OUTCOME_UNKNOWN
            break

    assert len(calls(tmp_path, "die")) == 1
    await handle.cancel()


async def test_a_secret_reaches_the_server_and_is_hidden_in_what_comes_back(client: AsyncClient) -> None:
    plan = await (await client.run(steps=[StepDraft(id="a", tool="it.environment")])).result()

    seen = json.loads(plan.steps[0].result.output)  # type: ignore[union-attr]
    assert seen["TOKEN"] == "***"
    assert "IT_TOKEN" not in seen
    assert not [name for name in seen if name.startswith("AUTOGLM")]


def test_the_example_runs(tmp_path: Path) -> None:
    pytest.importorskip("mcp_server_time", reason="mcp-server-time is not installed: pip install -e '.[dev]'")
    plan = Path(__file__).parent.parent.parent / "examples" / "mcp_clock.yaml"
    clock = f"clock=mcp:{sys.executable} -m mcp_server_time"
    words = [sys.executable, "-m", "autoglm.cli", "run", "--data-dir", str(tmp_path / "data"), "--provider", clock]

    done = subprocess.run([*words, "--plan", str(plan)], capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 0, done.stderr
    assert re.search(r"EUROPE/BERLIN IS -[78]\.0H FROM TOKYO", done.stdout)
