"""The other wires: Anthropic's and Google's streams as recorded, and the library's own function model."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from autoglm.model import StepDraft, Usage
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.llm.backend import Ask, Backend, Delta, Reply
from autoglm_server.planner.llm.models import Access, ModelName, Profile
from autoglm_server.planner.planner import AnswerText
from tests.server.planner.llm import fake_model as fake
from tests.server.planner.llm.fake_model import FakeModel, answer, call, plan, tokens_of
from tests.server.planner.llm.test_llm_faults import make_round, view
from tests.server.planner.llm.test_llm_rounds import KEY

TEXT = plan(call("a", "read", q="é 😀"), call("b", "read", ["a"]))


def event(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | data)}\n\n".encode()


def anthropic(text: str, gate: asyncio.Event | None = None) -> fake.Reply:
    """Stream a tool call as Anthropic does, with thinking before it."""
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [],
    }
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 90, "output_tokens": 1}}
    block = {"type": "tool_use", "id": "toolu_1", "name": "plan", "input": {}}
    pieces = tokens_of(text, 7)
    half = len(pieces) // 2 + 4
    deltas = [
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": piece})
        for piece in pieces
    ]
    return fake.Reply(
        [
            event("message_start", message=message),
            event("content_block_start", index=0, content_block=block),
            event("ping"),
            *deltas[:half],
            *([gate] if gate else []),
            *deltas[half:],
            event("content_block_stop", index=0),
            event(
                "message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 21}
            ),
            event("message_stop"),
        ],
        finish=None,
        usage=None,
        done=False,
    )


def google(text: str) -> fake.Reply:
    def chunk(piece: str, **more: Any) -> bytes:
        candidate = {"content": {"parts": [{"text": piece}], "role": "model"}, "index": 0} | more
        used = {"promptTokenCount": 80, "candidatesTokenCount": 12, "totalTokenCount": 92}
        data = {"candidates": [candidate], "usageMetadata": used, "modelVersion": "gemini-3-flash", "responseId": "r"}
        return f"data: {json.dumps(data)}\r\n\r\n".encode()

    pieces = tokens_of(f"```json\n{text}\n```", 9)
    chunks = [*(chunk(piece) for piece in pieces[:-1]), chunk(pieces[-1], finishReason="STOP")]
    return fake.Reply(chunks, finish=None, usage=None, done=False)


def steps(items: list[Any]) -> list[str]:
    return [item.id for item in items if isinstance(item, StepDraft)]


async def test_anthropic() -> None:
    async with FakeModel() as model:
        base_url = model.base_url.removesuffix("/v1")
        options = LlmOptions(model="anthropic:claude-haiku-4-5", base_url=base_url)
        planner = LlmPlanner(options, {"ANTHROPIC_API_KEY": KEY})
        gate = asyncio.Event()
        model.will(anthropic(TEXT, gate))
        found: list[Any] = []
        async for item in planner.round(view()):
            if steps([item]) == ["a"]:
                assert not model.finished.is_set()  # the model still writes
                gate.set()

            found.append(item)

        await planner.close()

    request = model.requests[0]
    assert steps(found) == ["a", "b"]
    assert found[-1] == Usage(90, 21, model_calls=1)
    assert request.path.startswith("/v1/messages")
    assert any(KEY in value for value in request.headers.values())
    assert request.body["tools"][0]["name"] == "plan"
    assert request.body["tools"][0]["eager_input_streaming"] is True
    assert request.body["max_tokens"] == 8192


async def test_anthropic_refuses() -> None:
    async with FakeModel() as model:
        options = LlmOptions(model="anthropic:claude-haiku-4-5", base_url=model.base_url.removesuffix("/v1"))
        planner = LlmPlanner(options, {"ANTHROPIC_API_KEY": KEY})
        body = {"type": "error", "error": {"type": "authentication_error", "message": f"invalid x-api-key {KEY}"}}
        busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        model.will(fake.Reply(status=401, body=json.dumps(body)), fake.Reply(status=529, body=json.dumps(busy)))
        _, wrong = await make_round(planner, view())
        _, later = await make_round(planner, view())
        await planner.close()

    assert wrong is not None
    assert "the key in ANTHROPIC_API_KEY" in wrong.message
    assert KEY not in repr(wrong)
    assert later is not None
    assert later.retryable


async def test_google() -> None:
    async with FakeModel() as model:
        base_url = model.base_url.removesuffix("/v1")
        planner = LlmPlanner(LlmOptions(model="google:gemini-3-flash", base_url=base_url), {"GEMINI_API_KEY": KEY})
        model.will(google(TEXT), google(answer("ja 😀")), fake.Reply(status=403, body='{"error":{"message":"no"}}'))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the library's own
            planned, failure = await make_round(planner, view())
            answered, _ = await make_round(planner, view())
            _, refused = await make_round(planner, view())

        await planner.close()

    assert failure is None
    assert steps(planned) == ["a", "b"]
    assert Usage(80, 12, model_calls=1) in planned
    assert "".join(item.text for item in answered if isinstance(item, AnswerText)) == "ja 😀"
    request = model.requests[0]
    assert "streamGenerateContent" in request.path
    assert KEY not in request.path
    assert request.headers["x-goog-api-key"] == KEY
    assert refused is not None
    assert "GEMINI_API_KEY" in refused.message


# --- the library's function model, without any HTTP


def backend(stream: Any) -> Backend:
    return Backend(ModelName("openai", "f"), Access("http://x/v1", KEY, "K"), FunctionModel(stream_function=stream))


def ask(profile: Profile) -> Ask:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    return Ask("system text", "user text", schema, profile, 1000, None, 5.0)


async def test_text_comes_as_it_is_written() -> None:
    seen: list[str] = []

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        seen.append(str(messages))
        for piece in ("one ", "two"):
            yield piece

    reply = Reply()
    made = backend(stream)
    deltas = [delta async for delta in made.ask(ask(Profile.TEXT), reply)]
    await made.close()

    assert "".join(delta.text for delta in deltas) == "one two"
    assert "system text" in seen[0]
    assert "user text" in seen[0]
    assert reply.usage.model_calls == 1


async def test_arguments_of_a_call_come_as_they_are_written() -> None:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[dict[int, DeltaToolCall]]:
        assert [tool.name for tool in info.output_tools] == ["plan"]
        yield {0: DeltaToolCall("plan", '{"ans')}
        yield {0: DeltaToolCall(json_args='wer": "x"}')}

    made = backend(stream)
    deltas = [delta async for delta in made.ask(ask(Profile.TOOL), Reply())]
    await made.close()
    assert [delta.text for delta in deltas] == ['{"ans', 'wer": "x"}']
    assert {delta.part for delta in deltas} == {deltas[0].part}
    assert isinstance(deltas[0], Delta)


@pytest.mark.parametrize("profile", list(Profile))
async def test_a_model_that_says_nothing(profile: Profile) -> None:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        yield ""

    options = LlmOptions(model="openai:f", profile=profile)
    planner = LlmPlanner(options, {"OPENAI_API_KEY": KEY})
    made = backend(stream)
    if profile is Profile.JSON_SCHEMA:
        made._model.profile["supports_json_schema_output"] = True

    planner._backends["openai:f", "https://api.openai.com/v1", KEY] = made
    _, failure = await make_round(planner, view())
    await planner.close()
    assert failure is not None
    assert failure.retryable
