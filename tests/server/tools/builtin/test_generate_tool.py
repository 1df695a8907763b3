"""``llm.generate`` against a real HTTP server that writes as it is told to: texts, JSON, failures, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from autoglm.model import Effect, Failure, RetryPolicy, ToolProgress, ToolResult, Usage
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.llm.writing import Writer
from autoglm_server.planners import make_writer
from autoglm_server.settings import PlannerSettings
from autoglm_server.tools.builtin._fitting import Fitting
from autoglm_server.tools.builtin.generate import GenerateProvider
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.tool import Invocation, ToolCallError
from autoglm_server.tools.validation import SchemaError
from tests.server.planner.llm.fake_model import FakeModel, Fault, Reply, tokens_of
from tests.server.scheduler.harness import World, step

KEY = "sk-canary-4f1c9a7be2d8"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Bench:
    """The tool in a catalog, and the model behind it."""

    def __init__(self, model: FakeModel, **more: Any) -> None:
        self.model = model
        options = LlmOptions(
            model="openai-compatible:test-model", base_url=model.base_url, key_variable="THE_KEY", **more
        )
        self.provider = GenerateProvider(Writer(options, LlmPlanner(options, {"THE_KEY": KEY})), timedelta(seconds=20))
        self.catalog = Catalog([self.provider])
        self.seen: list[ToolProgress] = []

    async def call(self, prompt: str = "write", **arguments: Any) -> ToolResult:
        given = {"prompt": prompt, **arguments}
        return await self.catalog.call(Invocation("llm.generate", given, "p/s", 30.0, report=self.seen.append))

    async def failure(self, prompt: str = "write", **arguments: Any) -> Failure:
        with pytest.raises(ToolCallError) as raised:
            await self.call(prompt, **arguments)

        assert KEY not in str(raised.value.failure)
        return raised.value.failure


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with FakeModel() as model:
        bench = Bench(model)
        await bench.catalog.start()
        yield bench
        await bench.catalog.stop()


async def test_it_writes_and_shows_what_it_writes(bench: Bench) -> None:
    bench.model.will("Bonjour à tous 😀")
    result = await bench.call("hello ${all}", system="You translate.", max_tokens=64)

    told = {"text": "Bonjour à tous 😀", "value": None, "model": "openai-compatible:test-model", "complete": True}
    assert result.output == told
    assert result.usage == Usage(100, 20, 10, model_calls=1)
    assert "".join(progress.text for progress in bench.seen) == "Bonjour à tous 😀"
    (request,) = bench.model.requests
    assert [message["content"] for message in request.body["messages"]] == ["You translate.", "hello ${all}"]
    assert request.body["max_tokens"] == 64
    assert "tools" not in request.body
    assert "response_format" not in request.body


async def test_a_tool_of_a_model_is_read_only_and_of_the_open_world(bench: Bench) -> None:
    (tool,) = bench.catalog.tools()
    assert (tool.name, tool.effect, tool.open_world) == ("llm.generate", Effect.READ_ONLY, True)
    assert tool.timeout == timedelta(seconds=20)


@pytest.mark.parametrize("text", ['{"n": 3}', ' ```json\n{"n": 3}\n``` '])
async def test_json_is_asked_for_and_checked(bench: Bench, text: str) -> None:
    bench.model.will(text)
    result = await bench.call(json_schema=SCHEMA)
    assert result.output["value"] == {"n": 3}
    (request,) = bench.model.requests
    assert request.body["response_format"]["json_schema"]["schema"]["required"] == ["n"]
    assert '"required":["n"]' in request.prompt


@pytest.mark.parametrize(
    ("text", "told"), [('{"n": "x"}', "value.n"), ("I cannot", "no JSON"), ('{"n": 1} {"n": 2}', "no JSON")]
)
async def test_json_that_does_not_fit_is_a_failure(bench: Bench, text: str, told: str) -> None:
    bench.model.will(text)
    failed = await bench.failure(json_schema=SCHEMA)
    assert (failed.reason, failed.domain, failed.retryable) == ("UNFIT_OUTPUT", "llm.generate", True)
    assert told in failed.message


async def test_a_text_that_is_cut_says_so(bench: Bench) -> None:
    bench.model.will(Reply(tokens_of("Once upon"), finish="length"), Reply(tokens_of('{"n'), finish="length"))
    assert (await bench.call()).output["complete"] is False
    failed = await bench.failure(json_schema=SCHEMA)
    assert (failed.reason, failed.retryable) == ("UNFIT_OUTPUT", False)


@pytest.mark.parametrize(
    ("reply", "reason", "retryable"),
    [
        (Reply(status=429, body='{"error":{"message":"slow down"}}'), "MODEL_UNAVAILABLE", True),
        (Reply(status=401, body='{"error":{"message":"bad key sk-canary-4f1c9a7be2d8"}}'), "MODEL_UNAVAILABLE", False),
        (Reply(["half", Fault.CUT]), "MODEL_FAILED", True),
        (Reply(tokens_of("half"), finish=None, usage=None), "MODEL_FAILED", True),
        (Reply([]), "EMPTY", True),
        (Reply([], finish="content_filter"), "MODEL_FAILED", False),
    ],
)
async def test_what_goes_wrong_is_told(bench: Bench, reply: Reply, reason: str, retryable: bool) -> None:
    bench.model.will(reply)
    failed = await bench.failure()
    assert (failed.reason, failed.domain, failed.retryable) == (reason, "llm.generate", retryable)


async def test_arguments_that_are_wrong_ask_nobody(bench: Bench) -> None:
    assert (await bench.failure(json_schema={"type": "nothing"})).reason == "INVALID_SCHEMA"
    refused = await bench.failure(json_schema={"$ref": f"{bench.model.base_url}/schema"})
    assert refused.reason == "INVALID_SCHEMA"
    assert (await bench.failure(model="anthropic:x")).reason == "MODEL_UNAVAILABLE"
    assert (await bench.failure(model=f"openai-compatible:x@{bench.model.base_url}")).reason == "MODEL_UNAVAILABLE"
    assert (await bench.failure("x " * 99_000)).reason == "MODEL_FAILED"
    assert bench.model.requests == []


async def test_what_it_costs_counts_for_the_plan() -> None:
    async with FakeModel() as model:
        bench = Bench(model)
        model.will("one", "two")
        async with World(providers=[bench.provider]) as world:
            write = {"prompt": "a poem"}
            plan = await world.create(
                step("a", "llm.generate", **write), step("b", "llm.generate", prompt="${a.text}", system="short")
            )
            done = await world.ended(plan)

        await bench.provider.stop()
        assert done.usage == Usage(200, 40, 20, model_calls=2, tool_calls=2)
        assert model.requests[1].body["messages"][-1]["content"] == "one"


@pytest.mark.parametrize(
    ("replies", "usage"),
    [
        (["no JSON", "nor this"], Usage(200, 40, 20, model_calls=2, tool_calls=2)),
        ([Reply(["half", Fault.CUT]), '{"n": 3}'], Usage(103, 21, 10, model_calls=2, tool_calls=2)),
        ([Reply(status=429, body="{}"), "no JSON"], Usage(100, 20, 10, model_calls=2, tool_calls=2)),
    ],
)
async def test_what_failed_calls_cost_counts_too(replies: list[Any], usage: Usage) -> None:
    async with FakeModel() as model:
        bench = Bench(model)
        model.will(*replies)
        async with World(providers=[bench.provider]) as world:
            twice = RetryPolicy(max_attempts=2, initial_backoff=timedelta(0))
            write = replace(step("a", "llm.generate", prompt="p", json_schema=SCHEMA), retry_policy=twice)
            done = await world.ended(await world.create(write))

        await bench.provider.stop()
        assert done.usage is not None
        spent = [done.usage.input_tokens, done.usage.output_tokens]
        assert (done.usage.model_calls, done.usage.tool_calls) == (usage.model_calls, usage.tool_calls)
        assert spent[0] >= usage.input_tokens
        assert spent[1] >= usage.output_tokens


async def test_a_schema_without_end_ends_and_holds_up_nobody() -> None:
    levels = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(60)}
    doubling = {"$ref": "#/$defs/a0", "$defs": {**levels, "a60": {"type": "integer"}}}
    fitting = Fitting(seconds=6.0)
    try:
        # The control: what ends is checked, and the same schema with few levels ends.
        assert await fitting.faults({"$ref": "#/$defs/a55", "$defs": doubling["$defs"]}, "1") == []
        assert await fitting.faults({"type": "string"}, "1") == ['value: 1 is not of type "string"']
        check = asyncio.create_task(fitting.faults(doubling, "1"))
        turns = 0
        while not check.done():
            turns += 1
            await asyncio.sleep(0.01)

        with pytest.raises(SchemaError, match="takes longer than 6 s"):
            await check

        assert turns > 10
        assert await fitting.faults(SCHEMA, '{"n": 1}') == []
    finally:
        await fitting.stop()


def test_without_a_model_there_is_none() -> None:
    assert make_writer(PlannerSettings(), {}) is None
    assert make_writer(PlannerSettings(model="openai:gpt-5-mini"), {}) is None  # no key
    assert make_writer(PlannerSettings(model="openai:gpt-5-mini"), {"OPENAI_API_KEY": KEY}) is not None
