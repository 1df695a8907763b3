"""Streams built as real servers build them, byte for byte through HTTP: as they are, and with a plan in their envelope.

Where each is from, and what of it is a copy, says `shapes/README.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import PlanState, Usage
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.llm.backend import Ask, make_backend
from autoglm_server.planner.llm.backend import Reply as Answered
from autoglm_server.planner.llm.models import Access, Profile, parse_model
from tests.server.planner.llm.fake_model import FakeModel, Reply, answer, call, plan, tokens_of
from tests.server.planner.llm.test_llm_faults import make_round, view
from tests.server.planner.llm.test_llm_rounds import KEY, Stage
from tests.server.scheduler.harness import World

SHAPES = Path(__file__).with_name("shapes")
KEYS = {"OPENAI_API_KEY": KEY, "ZAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}


@dataclass(frozen=True)
class Shape:
    """A recorded shape, and what is to be read from it as it stands."""

    file: str
    model: str
    profile: Profile
    text: str
    usage: Usage
    finish: str

    @property
    def body(self) -> bytes:
        return (SHAPES / f"{self.file}.sse").read_bytes()


ALL = [
    Shape("openai_text", "openai:gpt-4o-mini", Profile.TEXT, "Lisbon — 😀.", Usage(70, 8, 4, 1), "stop"),
    Shape("openai_tool", "openai:gpt-4o-mini", Profile.TOOL, '{"answer":"Lisbon"}', Usage(61, 17, 4, 1), "tool_call"),
    Shape("glm_text", "glm:glm-4.7", Profile.TEXT, "Lisbon 葡萄牙.", Usage(15, 21, 2, 1), "stop"),
    Shape("glm_tool", "glm:glm-4.7", Profile.TOOL, '{"answer": "Lisbon"}', Usage(180, 20, 43, 1), "tool_call"),
    Shape("ollama_text", "ollama:gpt-oss:20b", Profile.JSON_SCHEMA, "Lisbon! 👋", Usage(44, 19, 0, 1), "stop"),
    Shape("ollama_tool", "ollama:llama3.2", Profile.TOOL, '{"answer":"Lisbon"}', Usage(169, 15, 0, 1), "tool_call"),
    Shape("vllm_text", "vllm:Qwen/Qwen3-8B", Profile.JSON_SCHEMA, "Lisbon 😀.", Usage(32, 5, 0, 1), "stop"),
    Shape("vllm_tool", "vllm:zai-org/GLM-4.6", Profile.TOOL, '{"answer": "Lisbon"}', Usage(201, 22, 0, 1), "tool_call"),
    Shape("vllm_usage_in_each", "vllm:Qwen/Qwen3-8B", Profile.TEXT, "Lisbon.", Usage(16, 4, 0, 1), "stop"),
    Shape(
        "anthropic_tool",
        "anthropic:claude-haiku-4-5",
        Profile.TOOL,
        "I'll check the current weather in Paris for you." + '{"location": "Paris"}',
        Usage(377, 65, 0, 1),
        "tool_call",
    ),
]
shapes = pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.file)


def sent(body: bytes, size: int | None) -> Reply:
    """Give a reply of these very bytes, in pieces of ``size``."""
    pieces = [body] if size is None else [body[start : start + size] for start in range(0, len(body), size)]
    return Reply(pieces, finish=None, usage=None, done=False)


def base_url(model: FakeModel, shape: Shape) -> str:
    return model.base_url.removesuffix("/v1") if shape.model.startswith("anthropic:") else model.base_url


@shapes
@pytest.mark.parametrize("size", [None, 7])
async def test_what_is_read_from_a_stream_as_it_stands(shape: Shape, size: int | None) -> None:
    name = parse_model(shape.model)
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    async with FakeModel() as model:
        model.will(sent(shape.body, size))
        backend = make_backend(name, Access(base_url(model, shape), KEY, "THE_KEY"))
        reply = Answered()
        ask = Ask("system", "user", schema, shape.profile, 1000, None, 5.0)
        text = "".join([delta.text async for delta in backend.ask(ask, reply)])
        await backend.close()

    options = model.requests[0].body.get("stream_options")
    asked = {"include_usage": True} | ({"continuous_usage_stats": True} if shape.model.startswith("vllm:") else {})
    assert options == (None if shape.model.startswith("anthropic:") else asked)
    assert text == shape.text
    assert reply.told == reply.usage == shape.usage
    assert not reply.estimated
    assert reply.finish_reason == shape.finish
    assert not reply.refusal


# --- the same envelopes, with a plan in them


def frames(body: bytes) -> list[str]:
    return [frame for frame in body.decode().split("\n\n") if frame]


def carrier(data: Any) -> tuple[Any, str] | None:
    """Find where a chunk carries text: the object, and its key; None if it carries none."""
    delta = data.get("delta", {}) if "type" in data else (data.get("choices") or [{}])[0].get("delta", {})
    places = [(delta, "partial_json"), (delta, "content")]
    places += [(one["function"], "arguments") for one in delta.get("tool_calls", [])]
    return next(((place, key) for place, key in places if place.get(key)), None)


def with_text(body: bytes, text: str) -> bytes:
    """Put another text into the chunks that carry one: one piece in each, the middle ones as often as it takes."""
    whole = frames(body)
    parsed = [_parsed(frame) for frame in whole]
    carriers = [index for index, data in enumerate(parsed) if data is not None and carrier(data)]
    first, last = carriers[0], carriers[-1]
    pieces = [text] if len(carriers) == 1 else tokens_of(text, 5)
    middle = carriers[1:-1] or [first]
    written = [first, *(middle[number % len(middle)] for number in range(len(pieces) - 2)), last][-len(pieces) :]
    changed = [_with_piece(whole[index], piece) for index, piece in zip(written, pieces, strict=True)]
    return "".join(f"{frame}\n\n" for frame in [*whole[:first], *changed, *whole[last + 1 :]]).encode()


def _parsed(frame: str) -> Any:
    data = frame.partition("data: ")[2]
    return None if data == "[DONE]" else json.loads(data)


def _with_piece(frame: str, piece: str) -> str:
    head, mark, _ = frame.partition("data: ")
    data = _parsed(frame)
    found = carrier(data)
    assert found is not None
    place, key = found
    place[key] = piece
    return head + mark + json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def scripts() -> Iterator[str]:
    yield plan(call("a", "add", a=1, b=1), call("b", "add", a="${a}", b=1), note="“twice” 😀")
    yield answer("3 — drei 😀")


@shapes
async def test_a_plan_in_the_envelope_runs(shape: Shape) -> None:
    async with FakeModel() as model, World() as world:
        stage = Stage(model, world)
        options = LlmOptions(model=shape.model, base_url=base_url(model, shape), profile=shape.profile)
        stage.planner = world.planners["llm"] = LlmPlanner(options, KEYS)
        fence = "```json\n{}\n```" if shape.profile is Profile.TEXT else "{}"
        model.will(*(sent(with_text(shape.body, fence.replace("{}", text)), 11) for text in scripts()))
        ended = await stage.run()
        await stage.planner.close()

    assert ended.state is PlanState.SUCCEEDED, ended.failure
    assert ended.answer == "3 — drei 😀"
    assert [one.result and one.result.output for one in ended.steps] == [2, 3]
    assert ended.usage is not None
    used = shape.usage + shape.usage
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (used.input_tokens, used.output_tokens)


@shapes
async def test_a_shape_cut_short_is_never_a_whole_plan(shape: Shape) -> None:
    """The control: without its last half the same stream must not be taken for a plan that is complete."""
    text = plan(call("a", "read"), call("b", "read", ["a"]))
    fence = "```json\n{}\n```" if shape.profile is Profile.TEXT else "{}"
    body = with_text(shape.body, fence.replace("{}", text))
    async with FakeModel() as model:
        options = LlmOptions(model=shape.model, base_url=base_url(model, shape), profile=shape.profile)
        planner = LlmPlanner(options, KEYS)
        model.will(Reply([body[: len(body) // 3]], finish=None, usage=None, done=False))
        _, failure = await make_round(planner, view())
        await planner.close()

    assert failure is not None
    assert failure.retryable
    assert failure.metadata["usage"] == "estimated"


async def test_glm_that_is_busy() -> None:
    async with FakeModel() as model:
        planner = LlmPlanner(LlmOptions(model="glm:glm-4.7", base_url=model.base_url), KEYS)
        model.will(Reply(status=429, body=(SHAPES / "glm_busy.json").read_text()))
        _, failure = await make_round(planner, view())
        await planner.close()

    assert failure is not None
    assert (failure.reason, failure.retryable, failure.retry_after) == ("PLANNER_UNAVAILABLE", True, None)
    assert "overloaded for now" in failure.message


def test_every_shape_is_read_and_told_of() -> None:
    told = (SHAPES / "README.md").read_text()
    files = {file.stem for file in SHAPES.glob("*.sse")}
    assert files == {shape.file for shape in ALL}
    assert all(f"`{file}.sse`" in told for file in files)
