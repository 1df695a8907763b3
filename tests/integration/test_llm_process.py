"""The command line, the embedded server and a model behind HTTP, each a process or server of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from autoglm import local
from tests.server.planner.llm.fake_model import FakeModel, Reply, answer, call, plan, tokens_of

KEY = "sk-canary-0d6be1c44f"


@dataclass
class Done:
    status: int
    out: str
    err: str


@dataclass
class Home:
    """A data directory of its own, and a model that its server is told of."""

    folder: Path
    model: FakeModel

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AUTOGLM_", "OPENAI"))}
        return kept | {
            "AUTOGLM_DATA_DIR": str(self.folder),
            "AUTOGLM_LOG__LEVEL": "debug",
            "AUTOGLM_PLANNER__MODEL": "openai:gpt-5-mini",
            "AUTOGLM_PLANNER__BASE_URL": self.model.base_url,
            "OPENAI_API_KEY": KEY,
        }

    async def run(self, *arguments: str, stdin: str = "") -> Done:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "autoglm.cli", *arguments),
            env=self.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with FakeModel() as model:
        yield Home(tmp_path / "data", model)
        found = local.read(tmp_path / "data")
        if found is not None:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM)


async def test_a_request_is_planned_told_and_kept_without_the_key(home: Home) -> None:
    refused = Reply(status=401, body=json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}))
    steps = [call("a", "math.calculate", expression="6 * 7"), call("b", "math.calculate", expression="${a.result} + 1")]
    home.model.will(refused, Reply(tokens_of(plan(*steps, note="two sums"))), Reply(tokens_of(answer("It is 43."))))

    wrong = await home.run("run", "--model", "gpt-5-mini", "6 times 7, plus 1")
    done = await home.run("run", "--model", "gpt-5-mini", "6 times 7, plus 1")
    plan_id = done.err.split(" plan ")[1].split()[0]
    rounds = await home.run("show", plan_id, "--rounds")
    events = await home.run("watch", plan_id, "--json")

    assert wrong.status == 1
    assert "the key in OPENAI_API_KEY" in wrong.err
    assert (done.status, done.out) == (0, "It is 43.\n")
    assert "[b] succeeded" in done.err
    assert "note" in rounds.out
    assert "100 (10 cached) + 20 tokens" in rounds.out
    assert len(events.out.splitlines()) > 10

    # The control: the key went where it belongs, and nowhere else.
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in home.model.requests)
    assert len(home.model.requests) == 3
    for one in (wrong, done, rounds, events):
        assert KEY not in one.out + one.err

    kept = [path for path in home.folder.rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"server.log"}
    for path in kept:
        assert KEY.encode() not in path.read_bytes(), path


async def test_no_tools_answers_at_once(home: Home) -> None:
    home.model.will(Reply(tokens_of(answer("Bonjour."))))
    done = await home.run("run", "--model", "openai:gpt-5-mini", "--no-tools", "Say hello in French.")

    assert (done.status, done.out) == (0, "Bonjour.\n")
    assert "added" not in done.err


async def test_bench_scores_a_model(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    expected = [{"id": "x", "tool": "math.calculate", "arguments": {"expression": "6*7"}}]
    file.write_text(json.dumps({"id": "one", "request": "6 times 7", "steps": expected}))
    home.model.will(plan(call("a", "math.calculate", expression="6*7")), answer("42"))
    done = await home.run("bench", "plan", str(file), "--model", "openai:gpt-5-mini", "--json")

    first, last = map(json.loads, done.out.splitlines())
    assert (first["nodes"], first["values"], first["rounds"], first["tokens"]) == (1.0, 1.0, 2, 240)
    assert last["succeeded"] == 1


async def test_a_budget_said_on_the_command_line_ends_the_plan_with_what_it_knows(home: Home) -> None:
    steps = [call("a", "math.calculate", expression="6 * 7")]
    home.model.will(Reply(tokens_of(plan(*steps))), Reply(tokens_of(answer("never"))))
    done = await home.run("run", "--model", "gpt-5-mini", "--budget", "rounds=1", "--json", "6 times 7")
    facts = [json.loads(line) for line in done.out.splitlines()]
    failed = facts[-1]["planFailed"]

    assert done.status == 1
    assert failed["failure"]["reason"] == "BUDGET_EXCEEDED"
    assert failed["failure"]["metadata"] == {"budget": "max_rounds", "limit": "1"}
    assert "planLimitReached" in facts[-2]
    assert "42" in failed["answer"]
    assert len(home.model.requests) == 1

    wrong = await home.run(
        "run", "--plan", "-", "x", stdin='{"options": {"budget": {"maxRounds": -1, "maxDuration": "0s"}}}'
    )
    assert wrong.status == 2
    assert "options.budget.max_rounds is -1; must be at least 1" in wrong.err.replace(": ", " ")
    assert "options.budget.max_duration" in wrong.err
