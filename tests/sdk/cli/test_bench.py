"""Scoring plans: TaskBench's metrics, the command over a scripted client, and the converter of its files."""

from __future__ import annotations

import importlib.util
import json
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from autoglm.cli.commands.bench import read_cases
from autoglm.cli.exits import InputError
from autoglm.cli.scoring import Score, f1, mean, score
from autoglm.model import (
    PlanningFinished,
    PlanningStarted,
    PlanSucceeded,
    StepDraft,
    StepStarted,
    StepSucceeded,
    ToolResult,
    Usage,
)
from tests.sdk.cli.scripted import PLAN, ScriptedClient, added, cli, created, log, said

ROOT = Path(__file__).resolve().parents[3]


def step(step_id: str, tool: str, *after: str, **arguments: Any) -> StepDraft:
    return StepDraft(step_id, "", tool, arguments, after)


CHAIN = (step("a", "search", q="price of tea"), step("b", "sum", x="${a.price}", y=2))


def test_the_same_plan_by_other_names_is_the_same() -> None:
    renamed = (step("one", "search", q=" Price  of tea"), step("two", "sum", "one", x="${one.price}", y=2))
    assert score(CHAIN, renamed) == Score(1.0, 1.0, 1.0, 1.0)


def test_what_is_wrong_counts_by_itself() -> None:
    assert score(CHAIN, ()) == Score(0.0, 0.0, 0.0, 0.0)
    assert score((), ()) == Score(None, None, None, None)
    assert score(CHAIN, (CHAIN[0], step("b", "sum", x=1, y=2))) == Score(1.0, 0.0, 1.0, 2 / 3)
    assert score(CHAIN, (*CHAIN, step("c", "mail"))) == Score(0.8, 1.0, 1.0, 1.0)
    assert score(CHAIN, (step("a", "search", query="tea"), CHAIN[1])).names == pytest.approx(2 / 3)
    swapped = (step("b", "sum", x="y", y=2), step("a", "search", "b", q="price of tea"))
    assert score(CHAIN, swapped).edges == 0.0
    assert score((step("a", "x", t="$${b}"),), (step("a", "x", t="$${b}"),)).edges is None


def test_things_that_occur_several_times() -> None:
    assert f1(["a", "a"], ["a"]) == pytest.approx(2 / 3)
    assert f1([], []) is None
    assert mean([1.0, None, 0.0]) == 0.5
    assert mean([None]) is None


def test_a_file_with_faults_tells_every_one(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text('{"request":"x","stepz":[]}\n[]\n{"steps":[]}\n{"request":\n')
    with pytest.raises(InputError) as caught:
        read_cases(file)

    told = "\n".join(caught.value.faults)
    for words in (":1", "stepz", ":2: must be an object", ":3: `request` is missing", ":4: not JSON"):
        assert words in told

    for content, words in ((b"", "has no request"), (b"\xff", "is not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            read_cases(file)

    with pytest.raises(InputError, match="cannot be read"):
        read_cases(tmp_path / "nowhere")


EVENTS = log(
    created("tea"),
    said(PlanningStarted("llm", "m", 1), round=1),
    added("a", "search"),
    said(PlanningFinished(Usage(100, 20, model_calls=1)), round=1),
    said(StepStarted(), step="a", attempt=1, at=1),
    said(StepSucceeded(ToolResult(1)), step="a", attempt=1, at=1.25),
    said(PlanSucceeded("done", usage=Usage(100, 20, model_calls=1)), at=2),
)
CASE = {"id": "tea", "request": "what is tea", "steps": [{"id": "x", "tool": "search", "arguments": {}}]}


def test_the_command(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(CASE) + "\n\n")
    client = ScriptedClient({PLAN: list(EVENTS)})
    done = cli("bench", "plan", str(file), "--model", "ollama:x", client=client)

    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0][:27] == "request  state      nodes  "
    assert lines[1].split()[:3] == ["tea", "succeeded", "1.000"]
    assert lines[1].split()[-4:-1] == ["1", "1", "120"]
    assert lines[-1].split()[:4] == ["mean", "1", "of", "1"]
    kind, request = client.asked[0][:2]
    assert kind == "create"
    assert (request.request, request.steps) == ("what is tea", ())
    assert (request.options.planner, request.options.model) == ("llm", "ollama:x")
    assert request.labels == {"autoglm-bench": "tea"}


def test_the_command_as_json(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(CASE))
    done = cli("bench", "plan", str(file), "--json", client=ScriptedClient({PLAN: list(EVENTS)}))

    first, last = map(json.loads, done.out.splitlines())
    assert (first["id"], first["nodes"], first["edges"], first["rounds"], first["tokens"]) == ("tea", 1.0, None, 1, 120)
    assert "score" not in first
    assert (last["id"], last["requests"], last["succeeded"], last["nodes"]) == ("mean", 1, 1, 1.0)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_shipped_requests_are_read() -> None:
    cases = read_cases(ROOT / "benchmarks/requests.jsonl")
    assert len({case.id for case in cases}) == len(cases) >= 12


def test_taskbench_is_read(tmp_path: Path) -> None:
    taskbench = load(ROOT / "benchmarks/taskbench.py")
    description = {
        "nodes": [
            {"id": "Image-to-Text", "desc": "Say what 'is' seen.\n", "input-type": ["image"]},
            {"id": "send_mail", "desc": "Send.", "parameters": [{"name": "to"}, {"name": "body text"}]},
        ]
    }
    nodes = [
        {"task": "Image-to-Text", "arguments": ["a.png"]},
        {
            "task": "send_mail",
            "arguments": [{"name": "to", "value": "ann"}, {"name": "body text", "value": "<node-0>"}],
        },
    ]
    links = [{"source": "Image-to-Text", "target": "send_mail"}]
    lines = [
        json.dumps({"id": "1", "user_request": "mail it", "task_nodes": json.dumps(nodes), "task_links": links}),
        json.dumps({"id": "2", "instruction": "odd", "task_nodes": [{"task": "unknown"}]}),
    ]
    data, tools_file = tmp_path / "data.json", tmp_path / "tool_desc.json"
    data.write_text("\n".join(lines))
    tools_file.write_text(json.dumps(description))
    out, tools = tmp_path / "out.jsonl", tmp_path / "tools.py"

    assert taskbench.main([str(data), str(tools_file), str(out), str(tools)]) == 0
    (case,) = read_cases(out)
    first, second = case.wanted.steps
    assert (first.tool, first.arguments) == ("t.image_to_text", {"input0": "a.png"})
    assert (second.tool, second.arguments) == ("t.send_mail", {"to": "ann", "body_text": "${s0}"})
    assert second.depends_on == ("s0",)
    made = runpy.run_path(str(tools))
    assert made["tool_image_to_text"].spec.name == "image_to_text"
    assert made["tool_send_mail"](to="x") == "made by send_mail"
