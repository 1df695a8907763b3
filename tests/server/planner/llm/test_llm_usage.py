"""What rounds cost, also those that are cut: told by the server, else estimated, marked so, and counted to the budget."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from autoglm.model import Budget, Event, Failure, Plan, PlanningFailed, PlanningFinished, PlanState, Usage
from autoglm_server.app import warm_planner
from autoglm_server.planner.llm import LlmOptions, LlmPlanner
from autoglm_server.planner.llm.tokens import TokenCount, tokens_in
from autoglm_server.planner.planner import AnswerText, PlannerError, RoundItem, RoundView, UsageMeter
from autoglm_server.scheduler.limits import Limits
from autoglm_server.settings import PlannerSettings, Settings
from tests.server.planner.llm.fake_model import FakeModel, Fault, Reply, answer, call, plan, tokens_of
from tests.server.planner.llm.test_llm_faults import make_round, view
from tests.server.planner.llm.test_llm_rounds import KEY, Stage
from tests.server.scheduler.harness import World


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with FakeModel() as model, World() as world:
        stage = Stage(model, world)
        yield stage
        await stage.planner.close()


def failures(events: list[Event]) -> list[PlanningFailed]:
    return [event.fact for event in events if isinstance(event.fact, PlanningFailed)]


def is_estimate(fact: PlanningFailed) -> bool:
    return fact.failure is not None and fact.failure.metadata.get("usage") == "estimated"


def prompt_tokens(stage: Stage) -> int:
    """Give about how many tokens the last request had, as the server got it."""
    body = stage.model.requests[-1].body
    schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return tokens_in(stage.prompt()) + tokens_in(json.dumps(schema))


def close_to(found: int, wanted: int) -> bool:
    return wanted * 0.9 <= found <= wanted * 1.1


# --- cuts


async def test_a_connection_that_breaks_counts_the_prompt_and_what_came(stage: Stage) -> None:
    text = answer("x" * 400)[:-2]
    stage.model.will(Reply([*tokens_of(text), Fault.CUT]), answer("done"))
    made = await stage.create()
    await stage.world.until(made, lambda now: bool(now.rounds and now.rounds[0].failure))
    (failed,) = failures(await stage.world.events(made))

    assert is_estimate(failed)
    assert failed.usage is not None
    assert close_to(failed.usage.input_tokens, prompt_tokens(stage))
    assert failed.usage.output_tokens == tokens_in(text)
    assert failed.usage.model_calls == 1

    await stage.world.advance(1.0)
    ended = await stage.world.ended(made)
    assert ended.usage == failed.usage + Usage(100, 20, 10, model_calls=1)


async def test_what_a_model_thinks_is_paid_for_like_what_it_writes(stage: Stage) -> None:
    stage.planner = LlmPlanner(LlmOptions(model="ollama:qwen3", base_url=stage.model.base_url), {})
    stage.model.will(Reply(['{"answer": "', Fault.CUT], thinks="hm " * 100, dialect="ollama"))
    items, _ = await make_round(stage.planner, view())

    (used,) = (one for one in items if isinstance(one, Usage))
    assert used.output_tokens == tokens_in("hm " * 100 + '{"answer": "')


async def test_what_the_server_told_before_the_cut_counts_if_it_is_more(stage: Stage) -> None:
    told = b'data: {"choices":[],"usage":{"prompt_tokens":5000,"completion_tokens":700,"total_tokens":5700}}\n\n'
    stage.model.will(Reply(['{"answer": "a', told, Fault.CUT]))
    items, failure = await make_round(stage.planner, view())

    assert items[-1] == Usage(5000, 700, model_calls=1)
    assert failure is not None
    assert "usage" not in failure.metadata


async def test_a_time_out_counts(stage: Stage) -> None:
    stage.set(stall_timeout=timedelta(seconds=0.2))
    stage.model.will(Reply(['{"answer": "a', Fault.STALL]), answer("now"))
    made = await stage.create()
    await stage.world.until(made, lambda now: bool(now.rounds and now.rounds[0].failure))
    (failed,) = failures(await stage.world.events(made))
    assert is_estimate(failed)
    assert failed.usage is not None
    assert close_to(failed.usage.input_tokens, prompt_tokens(stage))
    assert failed.usage.output_tokens == tokens_in('{"answer": "a')


async def test_a_round_that_takes_too_long_counts() -> None:
    async with FakeModel() as model, World(limits=Limits(round_timeout=0.5)) as world:
        stage = Stage(model, world)
        await stage.planner.warm()
        model.will(Reply(['{"answer": "a', Fault.STALL]), answer("now"))
        made = await stage.create()
        await world.until(made, lambda now: bool(now.rounds and now.rounds[0].failure))
        (failed,) = failures(await world.events(made))
        await stage.planner.close()

    assert failed.failure is not None
    assert failed.failure.reason == "PLANNER_TIMEOUT"
    assert is_estimate(failed)
    assert failed.usage is not None
    assert failed.usage.output_tokens == tokens_in('{"answer": "a')


async def stalled(stage: Stage, **more: Any) -> Plan:
    """Give a plan whose model has written a little, and says nothing any more."""
    stage.model.will(Reply([plan(call("a", "read"))[:-2], ", ", Fault.STALL]))
    made = await stage.create(**more)
    await stage.world.until(made, lambda now: bool(now.steps))
    return made


async def test_a_cancel_counts_and_closes_the_stream_at_once(stage: Stage) -> None:
    made = await stalled(stage)
    await stage.world.scheduler.cancel(made.id, reason="", principal="")
    ended = await stage.world.ended(made)
    (failed,) = failures(await stage.world.events(made))

    assert is_estimate(failed)
    assert failed.usage is not None
    assert close_to(failed.usage.input_tokens, prompt_tokens(stage))
    assert failed.usage.output_tokens >= tokens_in(plan(call("a", "read"))[:-2])
    assert ended.usage is not None
    assert ended.usage.input_tokens == failed.usage.input_tokens
    async with asyncio.timeout(30):
        await stage.model.left.wait()


async def test_the_budget_of_time_closes_the_stream_too(stage: Stage) -> None:
    made = await stalled(stage, budget=Budget(max_duration=timedelta(seconds=30)))
    await stage.world.advance(30.0)
    ended = await stage.world.ended(made)
    assert ended.failure is not None
    assert ended.failure.metadata["budget"] == "max_duration"
    async with asyncio.timeout(30):
        await stage.model.left.wait()


def has_asked(times: int, now: Plan) -> bool:
    return now.usage is not None and now.usage.model_calls == times


async def test_cuts_do_not_escape_the_budget(stage: Stage) -> None:
    stage.model.will(Reply(tokens_of(answer("word " * 1000)[:-2])), Reply(tokens_of(answer("word " * 1000)[:-2])))
    for reply in stage.model.script:
        reply.tokens = [*reply.tokens, Fault.CUT]

    stage.model.will(answer("never"))
    made = await stage.create(budget=Budget(max_tokens=3000))
    for cuts in (1, 2):
        await stage.world.until(made, partial(has_asked, cuts))
        await stage.world.advance(2.0)

    ended = await stage.world.ended(made)
    assert ended.state is PlanState.FAILED
    assert ended.failure is not None
    assert ended.failure.reason == "BUDGET_EXCEEDED"
    assert len(stage.model.requests) == 2


async def test_a_server_that_never_says_what_it_used_is_estimated(stage: Stage) -> None:
    stage.model.will(Reply(tokens_of(answer("yes")), usage=None))
    ended = await stage.run()
    notes = [event.fact.note for event in await stage.world.events(ended) if isinstance(event.fact, PlanningFinished)]

    assert ended.state is PlanState.SUCCEEDED
    assert ended.usage is not None
    assert close_to(ended.usage.input_tokens, prompt_tokens(stage))
    assert ended.usage.output_tokens == tokens_in(answer("yes"))
    assert "is estimated" in notes[0]


@pytest.mark.parametrize(
    "reply", [Reply(status=500, body="{}"), Reply(status=401, body="{}"), Reply(status=429, body="{}")]
)
async def test_what_was_refused_cost_nothing(stage: Stage, reply: Reply) -> None:
    stage.model.will(reply)
    items, failure = await make_round(stage.planner, view())
    assert items == [Usage(model_calls=1)]
    assert failure is not None
    assert "usage" not in failure.metadata


async def test_control_what_was_told_in_full_is_no_estimate(stage: Stage) -> None:
    stage.model.will(answer("yes"))
    ended = await stage.run()
    assert ended.usage == Usage(100, 20, 10, model_calls=1)
    notes = [event.fact.note for event in await stage.world.events(ended) if isinstance(event.fact, PlanningFinished)]
    assert notes == [""]


def test_tokens_of_pieces_are_those_of_the_whole() -> None:
    text = "What is 15 % of 2480? 你好世界 — 😀 " * 7
    count = TokenCount()
    for piece in tokens_of(text, 3):
        count.add(piece)

    assert count.tokens == tokens_in(text)
    assert tokens_in("") == 0
    assert tokens_in("a") == 1
    assert tokens_in("你好") == 2


# --- the scheduler's part

_FAILURE = Failure("PLANNER_FAILED", "autoglm", "it broke")


class Metered:
    """A planner that holds something open, and is read a meter."""

    name = "metered"
    revises = True

    def __init__(self, *, broken: bool = False) -> None:
        self.closed = asyncio.Event()
        self.broken = broken

    def read(self) -> Usage:
        if self.broken:
            raise RuntimeError("no")

        return Usage(7, 3, model_calls=1)

    async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
        try:
            yield UsageMeter(self.read)
            yield AnswerText("x" * 200)
            raise AssertionError("it was asked for more")
        finally:
            self.closed.set()


@pytest.mark.parametrize("broken", [False, True])
async def test_a_round_that_is_not_followed_any_more_is_closed_at_once(*, broken: bool) -> None:
    async with World(limits=Limits(answer_bytes=100)) as world:
        planner = world.planners["metered"] = Metered(broken=broken)
        gc.disable()  # a generator that nobody closes is closed by the collector, some time
        try:
            made = await world.create(request="do it", planner="metered")
            ended = await world.ended(made)
            assert planner.closed.is_set()
        finally:
            gc.enable()

        (failed,) = failures(await world.events(made))
        assert ended.failure is not None
        assert ended.failure.reason == "ANSWER_TOO_LARGE"
        assert failed.usage == (None if broken else Usage(7, 3, model_calls=1))


async def test_a_usage_counts_instead_of_the_meter(stage: Stage) -> None:
    class Telling(Metered):
        async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
            yield UsageMeter(self.read)
            yield Usage(1, 2, model_calls=1)
            raise PlannerError(_FAILURE)

    stage.world.planners["telling"] = Telling()
    ended = await stage.world.ended(await stage.world.create(request="do it", planner="telling"))
    (failed,) = failures(await stage.world.events(ended))
    assert failed.usage == Usage(1, 2, model_calls=1)
    assert not is_estimate(failed)


# --- ready before the first round


async def test_the_model_is_made_before_the_first_plan(stage: Stage) -> None:
    settings = Settings(planner=PlannerSettings(kind="llm", model="openai-compatible:m"))
    (work,) = warm_planner(settings, stage.world.scheduler)
    await work
    (backend,) = stage.planner._backends.values()
    stage.model.will(answer("yes"))
    await stage.run()

    assert [*stage.planner._backends.values()] == [backend]


async def test_making_ready_leaves_the_loop_free_and_tells_what_fails(caplog: pytest.LogCaptureFixture) -> None:
    planner = LlmPlanner(LlmOptions(model="openai:gpt-5-mini"), {})
    await planner.warm()
    assert "OPENAI_API_KEY" in caplog.text
    assert KEY not in caplog.text


async def test_a_server_imports_no_model_library_for_rules_and_one_in_a_thread_for_a_model(tmp_path: Any) -> None:
    """In a process of its own, where nothing is imported yet."""
    script = """
import asyncio, sys, threading, importlib.abc
from autoglm_server.app import Application
from autoglm_server.settings import Settings, ServerSettings, PlannerSettings, JournalSettings

threads = set()
class Spy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith(("pydantic_ai.", "openai.")):
            threads.add(threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Spy())

async def main(planner):
    app = Application(Settings(data_dir=sys.argv[1], server=ServerSettings(port=0), journal=JournalSettings(url="memory:"),
                               planner=planner))
    running = asyncio.ensure_future(app.run())
    await app.ready.wait()
    assert planner.kind == "llm" or "pydantic_ai" not in sys.modules
    for _ in range(2000):
        if "pydantic_ai.direct" in sys.modules or planner.kind != "llm":
            break

        await asyncio.sleep(0.01)

    app.stop()
    await running

asyncio.run(main(PlannerSettings()))
assert not any(name.startswith("pydantic_ai.") for name in sys.modules), "rules imported it"
asyncio.run(main(PlannerSettings(kind="llm", model="openai:gpt-5-mini")))
assert "pydantic_ai.direct" in sys.modules
assert threads == {False}, threads
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(tmp_path),
        env={"OPENAI_API_KEY": KEY, "PATH": "", "PYTHONPATH": ":".join(path for path in sys.path if path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
