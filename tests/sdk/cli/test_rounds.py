"""``show --rounds``: each making of a round by what was asked and what came of it, and no value of any step."""

from __future__ import annotations

import json

from autoglm.model import (
    Failure,
    PlanningFailed,
    PlanningFinished,
    PlanningStarted,
    PlanSucceeded,
    StepDraft,
    StepRejected,
    StepStarted,
    StepSucceeded,
    ToolResult,
    Usage,
    Violation,
)
from tests.sdk.cli.scripted import PLAN, ScriptedClient, added, cli, created, log, said

SECRET = "hunter2"
EVENTS = log(
    created("find tea"),
    said(PlanningStarted("llm", "ollama:x", 1), round=1),
    said(PlanningFailed(Failure("PLANNER_UNAVAILABLE", "autoglm", "busy", retryable=True), attempt=1), round=1, at=0.5),
    said(PlanningStarted("llm", "ollama:x", 2), round=1, at=1),
    added("a", "search", arguments={"q": SECRET}, at=1.5),
    said(
        StepRejected(
            StepDraft("b", "", "serch", {"q": SECRET}), (Violation("tool", "there is no tool 'serch'", "UNKNOWN_TOOL"),)
        ),
        step="b",
        round=1,
        at=1.6,
    ),
    said(PlanningFinished(Usage(1000, 50, 300, 1), "look\x1b[31m first"), round=1, at=2),
    said(StepStarted(arguments={"q": SECRET}), step="a", attempt=1, at=2),
    said(StepSucceeded(ToolResult({"password": SECRET})), step="a", attempt=1, at=2.25),
    said(PlanningStarted("llm", "ollama:x", 1), round=2, at=3),
    said(PlanningFinished(Usage(1200, 10), "", "Tea is fine."), round=2, at=3.2),
    said(PlanSucceeded("Tea is fine."), at=3.2),
)


def test_rounds_are_told() -> None:
    done = cli("show", PLAN, "--rounds", client=ScriptedClient({PLAN: list(EVENTS)}))

    assert done.status == 0, done.err
    assert SECRET not in done.out
    assert "\x1b" not in done.out
    for line in (
        "round 1  failed  llm, ollama:x  500 ms",
        "round 1, attempt 2  planned  llm, ollama:x  1.0 s  1,000 (300 cached) + 50 tokens",
        "  steps    a: search",
        "  refused  b: serch (there is no tool 'serch')",
        "round 2  answered  llm, ollama:x  200 ms  1,200 + 10 tokens",
        "  asked   the request, how 1 step ended, why 1 draft was refused",
        "  answer  Tea is fine.",
    ):
        assert line in done.out, (line, done.out)


def test_rounds_as_json() -> None:
    done = cli("show", PLAN, "--rounds", "--json", client=ScriptedClient({PLAN: list(EVENTS)}))

    stories = [json.loads(line) for line in done.out.splitlines()]
    assert [(one["round"], one["attempt"], one["state"]) for one in stories] == [
        (1, 1, "failed"),
        (1, 2, "planned"),
        (2, 1, "answered"),
    ]
    assert stories[1]["usage"]["input_tokens"] == 1000
    assert stories[1]["steps"] == ["a: search"]
    assert SECRET not in done.out


def test_a_plan_of_given_steps_has_none() -> None:
    done = cli("show", PLAN, "--rounds", client=ScriptedClient({PLAN: list(log(created(""), added("a")))}))
    assert (done.status, done.out) == (0, "")
    assert "no round" in done.err


def test_a_round_under_way_is_told_as_such() -> None:
    done = cli("show", PLAN, "--rounds", client=ScriptedClient({PLAN: list(EVENTS[:2])}))
    assert "round 1  under way" in done.out
