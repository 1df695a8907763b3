"""What goes wrong with a model: the real client against a real server that refuses, breaks off and babbles."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import (
    DOMAIN,
    Effect,
    Failure,
    Plan,
    PlanningFailed,
    PlanOptions,
    PlanState,
    StepAdded,
    StepDraft,
    StepStarted,
    Tool,
    Usage,
)
from autoglm.wire import encode
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.llm.models import Profile
from autoglm_server.planner.planner import AnswerText, Note, PlannerError, RoundItem, RoundView, UsageMeter
from tests.server.planner.llm.fake_model import Dialect, FakeModel, Fault, Reply, answer, call, plan, tokens_of
from tests.server.planner.llm.test_llm_rounds import KEY, Stage
from tests.server.scheduler.harness import ANY, World

MODELS: dict[str, str] = {"openai": "openai:gpt-5-mini", "glm": "glm:glm-4.7", "ollama": "ollama:qwen3:8b"}
MODELS |= {"vllm": "vllm:Qwen/Qwen3-8B"}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with FakeModel() as model, World() as world:
        stage = Stage(model, world)
        yield stage
        await stage.planner.close()


async def make_round(planner: LlmPlanner, view: RoundView) -> tuple[list[RoundItem], Failure | None]:
    items: list[RoundItem] = []
    try:
        async for item in planner.round(view):
            if not isinstance(item, UsageMeter):
                items.append(item)  # noqa: PERF401 - what came before a failure counts too
    except PlannerError as error:
        return items, error.failure

    return items, None


def view(**options: Any) -> RoundView:
    tool = Tool("read", "", "Read a page.", ANY, effect=Effect.READ_ONLY, available=True)
    made = Plan(id="p", request="do it", options=PlanOptions(max_rounds=5, **options))
    return RoundView(made, 1, 1, [tool], (), 5, last=False)


REFUSALS: list[tuple[int, dict[str, str], Any, str, bool, float | None, str]] = [
    (
        401,
        {},
        {"error": {"message": f"Incorrect API key provided: {KEY}"}},
        "PLANNER_UNAVAILABLE",
        False,
        None,
        "THE_KEY",
    ),
    (403, {}, {"error": {"message": "no"}}, "PLANNER_UNAVAILABLE", False, None, "check the key"),
    (404, {}, {"error": {"message": "model not found"}}, "PLANNER_UNAVAILABLE", False, None, "check the model's name"),
    (402, {}, {"error": {"message": "pay"}}, "PLANNER_UNAVAILABLE", False, None, "no quota or credit"),
    (
        429,
        {},
        {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}},
        "PLANNER_UNAVAILABLE",
        False,
        None,
        "no quota or credit",
    ),
    (429, {"Retry-After": "7"}, {"error": {"message": "slow down"}}, "PLANNER_UNAVAILABLE", True, 7.0, "slow down"),
    (429, {"Retry-After": "9999999"}, {"error": {}}, "PLANNER_UNAVAILABLE", True, 3600.0, "no more requests"),
    (429, {"Retry-After": "soon"}, {}, "PLANNER_UNAVAILABLE", True, None, "HTTP 429"),
    (500, {}, {"error": {"message": f"key {KEY} broke"}}, "PLANNER_UNAVAILABLE", True, None, "HTTP 500"),
    (503, {}, "not json", "PLANNER_UNAVAILABLE", True, None, "HTTP 503"),
    (529, {}, {"error": "overloaded"}, "PLANNER_UNAVAILABLE", True, None, "overloaded"),
    (
        400,
        {},
        {"error": {"message": "response_format is not supported"}},
        "PLANNER_FAILED",
        False,
        None,
        "planner.profile",
    ),
    (
        400,
        {},
        {"error": {"message": "maximum context length is 4096", "code": "context_length_exceeded"}},
        "PLANNER_FAILED",
        False,
        None,
        "planner.max_prompt_tokens",
    ),
    (422, {}, [{"msg": "bad"}], "PLANNER_FAILED", False, None, "HTTP 422"),
]


@pytest.mark.parametrize(("status", "headers", "body", "reason", "retryable", "after", "words"), REFUSALS)
async def test_refusals_are_told_so_that_a_person_understands(
    stage: Stage,
    status: int,
    headers: dict[str, str],
    body: Any,
    reason: str,
    retryable: bool,
    after: float | None,
    words: str,
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    stage.model.will(Reply(status=status, headers=headers, body=text))
    items, failure = await make_round(stage.planner, view())

    assert failure is not None
    assert items == [Usage(model_calls=1)]
    assert (failure.domain, failure.reason, failure.retryable) == (DOMAIN, reason, retryable)
    assert (failure.retry_after and failure.retry_after.total_seconds()) == after
    assert words in failure.message
    assert KEY not in repr(failure)
    assert len(stage.model.requests) == 1, "the client retried by itself"


async def test_a_busy_model_is_asked_again_when_it_said(stage: Stage) -> None:
    stage.model.will(Reply(status=429, headers={"Retry-After": "30"}, body="{}"), answer("now"))
    made = await stage.create()
    await stage.world.until(made, lambda now: bool(now.rounds and now.rounds[0].failure))
    await stage.world.advance(29.0)
    assert len(stage.model.requests) == 1
    await stage.world.advance(2.0)

    assert (await stage.world.ended(made)).answer == "now"


async def test_a_wrong_key_ends_the_plan_at_once(stage: Stage) -> None:
    stage.model.will(Reply(status=401, body=json.dumps({"error": {"message": f"bad key {KEY}"}})))
    ended = await stage.run()

    assert ended.state is PlanState.FAILED
    assert ended.failure is not None
    assert ended.failure.reason == "PLANNER_UNAVAILABLE"
    assert "THE_KEY" in ended.failure.message


async def test_a_server_that_is_not_there() -> None:
    planner = LlmPlanner(LlmOptions(model="openai-compatible:m", base_url="http://127.0.0.1:9/v1"), {})
    _, failure = await make_round(planner, view())
    await planner.close()

    assert failure is not None
    assert failure.retryable
    assert "is the server running" in failure.message


# --- what it writes


@pytest.mark.parametrize(
    ("tokens", "options", "reason", "retryable", "words"),
    [
        ([Fault.CUT], {}, "PLANNER_FAILED", True, "lost in the middle"),
        (['{"steps": [', Fault.CUT], {}, "PLANNER_FAILED", True, "lost in the middle"),
        (['{"steps": ['], {"finish": None}, "PLANNER_FAILED", True, "broke off"),
        (["Well, I"], {"finish": None}, "PLANNER_FAILED", True, "broke off"),
        (['{"steps": [{"id"'], {"finish": "length"}, "PLANNER_FAILED", False, "planner.max_output_tokens"),
        ([], {}, "PLANNER_EMPTY", True, "wrote nothing"),
        (['{"steps": ]'], {}, "PLANNER_FAILED", True, "not well-formed"),
        (['{steps: [{id: "a"}]}'], {}, "PLANNER_FAILED", True, "not well-formed"),
        (["I cannot"], {"finish": "content_filter"}, "PLANNER_FAILED", False, "refused"),
        ([b"data: {not json}\n\n"], {}, "PLANNER_FAILED", True, "cannot be read"),
        (
            [b'data: {"error":{"message":"upstream died","code":500}}\n\n'],
            {},
            "PLANNER_UNAVAILABLE",
            True,
            "upstream died",
        ),
        (['{"steps": [{"a": "', *["x" * 100_000] * 4], {}, "PLANNER_FAILED", False, "more than can be read"),
    ],
)
async def test_malformed_cut_endless_and_refused(
    stage: Stage, tokens: list[Any], options: dict[str, Any], reason: str, retryable: bool, words: str
) -> None:
    stage.model.will(Reply(tokens, **options))
    items, failure = await make_round(stage.planner, view())

    assert failure is not None
    assert not any(isinstance(item, StepDraft) for item in items)
    assert (failure.reason, failure.retryable) == (reason, retryable), failure
    assert words in failure.message


async def test_a_refusal_of_the_model_is_told(stage: Stage) -> None:
    refusal = b'data: {"choices":[{"index":0,"delta":{"refusal":"I will not do that."}}]}\n\n'
    stage.model.will(Reply([refusal]))
    _, failure = await make_round(stage.planner, view())

    assert failure is not None
    assert not failure.retryable
    assert "refused to answer this request: I will not do that." in failure.message


async def test_an_endless_model_is_not_listened_to_for_ever(stage: Stage) -> None:
    stage.model.will(Reply([plan(call("a", "read")), *["blah " * 1000] * 1000]))
    items, failure = await make_round(stage.planner, view())

    assert failure is None
    assert [item.id for item in items if isinstance(item, StepDraft)] == ["a"]
    assert not stage.model.finished.is_set()


async def test_a_complete_plan_counts_however_the_connection_ends(stage: Stage) -> None:
    stage.model.will(Reply([plan(call("a", "read")), Fault.CUT]))
    items, failure = await make_round(stage.planner, view())

    assert failure is None
    assert [item.id for item in items if isinstance(item, StepDraft)] == ["a"]


async def test_plain_words_are_the_answer(stage: Stage) -> None:
    stage.model.will(Reply(tokens_of("Paris, [1] of course: {sic}.")))
    items, failure = await make_round(stage.planner, view())

    assert failure is None
    assert [item for item in items if not isinstance(item, Usage)] == [AnswerText("Paris, [1] of course: {sic}.")]


async def test_words_beside_a_plan_are_a_note(stage: Stage) -> None:
    stage.model.will(Reply(tokens_of(f"I will read.\n```json\n{plan(call('a', 'read'))}\n```")))
    items, _ = await make_round(stage.planner, view())
    assert Note("I will read.") in items


# --- cut anywhere

CUT_PLAN = plan(call("a", "read", q="é😀"), call("b", "read", ["a"], q='${a.x} "}'))


def cut_reply(**more: Any) -> Reply:
    """Give a small reply: what it weighs is cut at each byte."""
    pieces = [
        b"data: "
        + json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False, separators=(",", ":")).encode()
        + b"\n\n"
        for text in (*tokens_of(CUT_PLAN[:-2], 100), CUT_PLAN[-2:])
    ]
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    return Reply([*pieces, end], finish=None, usage=None, **more)


async def body_length(model: FakeModel) -> int:
    return sum([len(piece) async for piece in model._body(cut_reply())])


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_stream_cut_at_every_byte(stage: Stage, chunked: bool) -> None:
    length = await body_length(stage.model)
    ends: set[tuple[int, bool]] = set()
    whole, _ = await make_whole(stage)
    # Both framings together visit each byte; each alone visits every other one.
    for cut in range(0 if chunked else 1, length + 1, 2):
        stage.model.will(cut_reply(cut_at=cut, chunked=chunked))
        items, failure = await make_round(stage.planner, view())
        steps = [item for item in items if not isinstance(item, Usage | Note)]

        assert steps == whole[: len(steps)], cut
        assert sum(isinstance(item, Usage) for item in items) == 1
        assert failure is None or (failure.retryable and failure.domain == DOMAIN), (cut, failure)
        assert failure is not None or len(steps) == 2, cut
        ends.add((len(steps), failure is None))

    assert ends == {(0, False), (1, False), (2, False), (2, True)}


async def make_whole(stage: Stage) -> tuple[list[RoundItem], Failure | None]:
    stage.model.will(cut_reply())
    items, failure = await make_round(stage.planner, view())
    assert failure is None
    steps: list[RoundItem] = [item for item in items if isinstance(item, StepDraft)]
    assert len(steps) == 2
    return steps, failure


async def test_plans_whose_stream_is_cut_end_cleanly(stage: Stage) -> None:
    length = await body_length(stage.model)
    stage.world.tools.scripts = {}
    for cut in range(0, length, 97):
        stage.model.script.clear()
        stage.model.will(cut_reply(cut_at=cut), answer("done"), answer("done"))
        for one in "ab":
            stage.world.tools.scripts[one] = deque([{"x": 1}])

        made = await stage.create()
        while not (now := await stage.world.get(made)).state.terminal:
            await stage.world.advance(1.0)
            await asyncio.sleep(0.001)

        assert now.state is PlanState.SUCCEEDED, cut
        assert now.answer == "done"
        facts = [event.fact for event in await stage.world.events(made)]
        added = [fact.step.id for fact in facts if isinstance(fact, StepAdded) and fact.step is not None]
        assert added == ["a", "b"][: len(added)]
        assert len([fact for fact in facts if isinstance(fact, StepStarted)]) == len(added)
        assert sum(isinstance(fact, PlanningFailed) for fact in facts) <= 1


# --- dialects and profiles


@pytest.mark.parametrize("dialect", ["openai", "glm", "ollama", "vllm"])
@pytest.mark.parametrize("profile", [None, Profile.JSON_SCHEMA, Profile.TOOL, Profile.TEXT])
async def test_dialects_and_profiles(dialect: Dialect, profile: Profile | None) -> None:
    async with FakeModel() as model, World() as world:
        stage = Stage(model, world)
        environment = {"OPENAI_API_KEY": KEY, "ZAI_API_KEY": KEY}
        options = LlmOptions(model=MODELS[dialect], base_url=model.base_url, profile=profile)
        stage.planner = world.planners["llm"] = LlmPlanner(options, environment)
        effective = profile or {"glm": Profile.TOOL}.get(dialect, Profile.JSON_SCHEMA)
        shape: dict[str, Any] = {"dialect": dialect, "thinks": 'Let me see: {"steps": []}'}
        shape |= {"as_tool": True, "finish": "tool_calls"} if effective is Profile.TOOL else {}
        fence = "```json\n{}\n```" if effective is Profile.TEXT else "{}"
        texts = [plan(call("a", "add", a=1, b=1), call("b", "add", a="${a}", b=1)), answer("3 — drei 😀")]
        model.will(*(Reply(tokens_of(fence.replace("{}", text), 3), **shape) for text in texts))
        ended = await stage.run()
        await stage.planner.close()

    if (dialect, profile) == ("glm", Profile.JSON_SCHEMA):
        assert ended.failure is not None
        assert "planner.profile" in ended.failure.message  # what it does not have is said
        return

    assert ended.state is PlanState.SUCCEEDED, ended.failure
    assert ended.answer == "3 — drei 😀"
    assert [one.result and one.result.output for one in ended.steps] == [2, 3]
    assert ended.usage is not None
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (200, 40)
    body = model.requests[0].body
    assert model.requests[0].path.endswith("/chat/completions")
    assert body["stream"] is True
    assert (
        body["max_completion_tokens" if dialect in ("openai", "glm") else "max_tokens"] == 8192 or "max_tokens" in body
    )
    assert ("response_format" in body) == (effective is Profile.JSON_SCHEMA)
    assert ("tools" in body) == (effective is Profile.TOOL)
    assert ("```json" in model.requests[0].prompt) == (effective is Profile.TEXT)
    if effective is Profile.TOOL and dialect == "glm":
        assert body["tool_stream"] is True


# --- no sink holds a key


async def test_no_sink_holds_the_key(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    sink = io.StringIO()
    handler = logging.StreamHandler(sink)
    logging.getLogger().addHandler(handler)
    debug = tmp_path / "debug.jsonl"
    stage.set(debug_file=debug)
    echo = {"error": {"message": f"Authorization: Bearer {KEY} is wrong, {KEY[:14]}***", "param": KEY}}
    written: list[Any] = []
    try:
        for status in (400, 401, 403, 404, 418, 422, 429, 500, 503):
            stage.model.script.clear()
            stage.model.will(*(Reply(status=status, body=json.dumps(echo)) for _ in range(3)))
            made = await stage.create(f"with {status}")
            while not (now := await stage.world.get(made)).state.terminal:
                await stage.world.advance(10.0)
                await asyncio.sleep(0.001)

            written += [now, *(encode(event) for event in await stage.world.events(made))]

        stage.model.will(plan(call("a", "add", a=1, b=1)), answer("2"))
        written += [await stage.run()]
    finally:
        logging.getLogger().removeHandler(handler)

    # The control: it was really sent, and the server really said it back.
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in stage.model.requests)
    assert len(written) > 30
    output = capfd.readouterr()
    sinks = [repr(written), sink.getvalue(), caplog.text, debug.read_text(), output.out, output.err]
    sinks += [
        repr(stage.planner),
        repr(stage.planner._options),
        *(repr(one) for one in stage.planner._backends.values()),
    ]
    for text in sinks:
        assert KEY not in text
        assert KEY[:14] not in text
