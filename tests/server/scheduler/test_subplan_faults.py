"""Sub-plans where it is awkward: a stop in the middle of their making, a crash beside their end, data that would be a plan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from autoglm.errors import InvalidRequestError
from autoglm.model import Budget, Json, PlanState, RetryPolicy, StepDraft, StepState
from autoglm.wire import canonical_json
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.tools.references import escape
from tests.server.scheduler.harness import World, step
from tests.server.scheduler.test_subplans import child_of, children_of, finish, inner, sub


class SlowJournal(MemoryJournal):
    """Takes its time where a test says so, as a disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.writes = True

    async def last_sequence(self, plan_id: str) -> int | None:
        self.asked.set()
        await self.answers.wait()
        return await super().last_sequence(plan_id)

    def _commit(self) -> None:
        if self.writes:
            super()._commit()

    def write(self) -> None:
        self.writes = True
        self._commit()


@pytest.fixture
def journal() -> SlowJournal:
    return SlowJournal()


@pytest.fixture
async def world(journal: SlowJournal) -> AsyncIterator[World]:
    async with World(journal) as made:
        yield made


async def test_a_stop_before_the_sub_plan_was_made_makes_none(
    world: World, journal: SlowJournal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.asked.clear()
    journal.answers.clear()
    plan = await world.create(sub("p", inner("s", "put")))
    await journal.asked.wait()
    await world.scheduler.cancel(plan.id, reason="", principal="me")
    await world.settle()
    journal.answers.set()
    done = await world.ended(plan)
    assert done.state is PlanState.CANCELLED
    assert done.steps[0].state is StepState.CANCELLED
    assert await children_of(world, plan) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_stop_while_the_sub_plan_is_made_waits_for_it_and_stops_it(
    world: World, journal: SlowJournal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.answers.clear()
    plan = await world.create(sub("p", inner("s", "put")))
    await world.settle()
    journal.writes = False
    journal.answers.set()
    await world.settle()
    cancelling = asyncio.ensure_future(world.scheduler.cancel(plan.id, reason="", principal="me"))
    await world.settle()
    journal.write()
    await cancelling
    done = await world.ended(plan)
    assert (done.state, done.steps[0].state) == (PlanState.CANCELLED, StepState.CANCELLED)
    [child] = await children_of(world, plan)
    assert (await world.scheduler.get(child)).state is PlanState.CANCELLED
    assert world.tools.calls == []
    await world.settle()
    assert not world.scheduler.busy
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_sub_plan_that_ends_as_it_is_made_leaves_no_place_taken(world: World, journal: SlowJournal) -> None:
    journal.answers.clear()
    plan = await world.create(sub("p", inner("s", "put")))
    await world.settle()
    journal.writes = False
    journal.answers.set()
    await world.settle()
    cancelling = asyncio.ensure_future(world.scheduler.cancel(plan.id, reason="", principal="me"))
    await world.settle()
    # The journal stays slow for longer than the plan waits for its sub-plan: the step is given up.
    await world.advance(world.limits.cancel_grace + world.limits.child_grace + 1)
    journal.write()
    await cancelling
    assert (await world.ended(plan)).state is PlanState.CANCELLED
    [child] = await children_of(world, plan)
    await world.settle()
    assert (await world.scheduler.get(child)).state is PlanState.CANCELLED
    assert world.scheduler.open_plans == 0
    assert not world.scheduler.busy


async def test_what_a_sub_plan_used_counts_also_if_it_ended_before_a_crash(world: World, journal: SlowJournal) -> None:
    plan = await world.create(
        sub("p", *(inner(f"s{n}", "put") for n in range(3)), max_parallel_steps=3),
        *(step(f"t{n}", "put") for n in range(3)),
        budget=Budget(max_tool_calls=3),
        max_parallel_steps=1,
    )
    child = await child_of(world, plan)
    (await world.tools.called("s0")).succeed()
    await world.tools.called("s1")
    # The process ends when the sub-plan has ended and its step has not been told.
    world.scheduler._runs[plan.id].gone = True
    (await world.tools.called("s1")).succeed()
    await world.ended(child)
    world.scheduler._runs[plan.id].gone = False
    await world.crash()
    done = await finish(world, plan)
    assert done.failure is not None
    assert done.failure.reason == "BUDGET_EXCEEDED"
    assert done.usage is not None
    assert done.usage.tool_calls == 3
    assert [world.tools.times(f"t{n}") for n in range(3)] == [0, 0, 0]


async def test_a_sub_plan_that_is_followed_again_is_one_of_the_steps_at_once(world: World) -> None:
    plan = await world.create(sub("p", inner("s", "put")), step("t", "put"), max_parallel_steps=1)
    await child_of(world, plan)
    await world.tools.called("s")
    await world.crash()
    await world.settle()
    assert "s" in world.tools.under_way
    assert "t" not in world.tools.under_way
    assert (await finish(world, plan)).state is PlanState.SUCCEEDED


async def test_what_a_sub_plan_used_counts_while_its_step_backs_off(world: World) -> None:
    draft = sub("p", inner("s", "put"))
    again = StepDraft(
        "p",
        tool="plan.run",
        arguments=draft.arguments,
        timeout=timedelta(seconds=0.05),
        retry_policy=RetryPolicy(2, timedelta(seconds=5), timedelta(seconds=5), 1.0),
    )
    plan = await world.create(
        again, step("gate", "put"), *(step(f"t{n}", "put", ["gate"]) for n in range(3)), budget=Budget(max_tool_calls=4)
    )
    await world.until(plan, lambda now: any(one.next_attempt_time for one in now.steps))
    (await world.tools.called("gate")).succeed()
    await world.settle()
    assert len(world.tools.under_way) == 1, "two calls of the plan and one of the sub-plan leave one of four"
    await world.advance(5)
    done = await finish(world, plan)
    assert done.usage is not None
    assert done.usage.tool_calls == 4


@pytest.mark.parametrize(
    ("texts", "joined"), [(("$", "{b}"), "${a}${t}"), (("x$", "{b.c}"), "${a}${t}"), (("$", "b}"), "${a}{${t}")]
)
async def test_pieces_of_outputs_never_make_a_reference(world: World, texts: tuple[str, str], joined: str) -> None:
    written = joined.replace("${a}", "${one.text}").replace("${t}", "${two.text}")
    plan = await world.create(
        step("one", "echo", text=texts[0]),
        step("two", "echo", text=texts[1]),
        sub("p", inner("b", "echo", c="private"), inner("got", "echo", of=written)),
    )
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED, done.failure
    assert done.steps[2].result is not None
    expected = joined.replace("${a}", texts[0]).replace("${t}", texts[1])
    assert done.steps[2].result.output["output"]["got"] == {"of": expected}


@pytest.mark.parametrize("output", ["run ${b} and $${b}", {"${b}": ["${b}", "$"]}, ["$", "{b}"]])
@pytest.mark.parametrize("around", ["", "> "])
async def test_an_output_stays_what_it_is_however_deep_it_goes(world: World, output: Json, around: str) -> None:
    inmost = inner("got", "echo", of=f"{around}${{one.text}}")
    below = {"id": "q", "tool": "plan.run", "arguments": {"steps": [inner("b", "echo", c="private"), inmost]}}
    plan = await world.create(
        StepDraft("one", tool="echo", arguments={"text": escape(output)}),
        sub("p", inner("b", "echo", c="private"), below),
    )
    done = await world.ended(plan)
    assert done.state is PlanState.SUCCEEDED, done.failure
    assert done.steps[1].result is not None
    written = output if isinstance(output, str) else canonical_json(output)
    outputs = done.steps[1].result.output["output"]["q"]["output"]
    assert outputs["got"] == {"of": f"{around}{written}" if around else output}


async def test_a_reference_of_the_sub_plan_is_not_made_plain_by_what_stands_before_it(world: World) -> None:
    plan = await world.create(
        step("one", "echo", text="$"),
        sub("p", inner("b", "echo", c="x"), inner("got", "echo", of="${one.text}$${b.c}", fine="${one.text} $${b.c}")),
    )
    failed = (await world.ended(plan)).steps[1].failure
    assert failed is not None
    assert failed.reason == "INVALID_ARGUMENTS"
    assert [fault.field for fault in failed.violations] == ["steps[1].arguments.steps[1].arguments.of"]


@pytest.mark.parametrize(
    ("steps", "field"),
    [
        ("${one.steps}", "steps[1].arguments.steps"),
        (["${one.steps[0]}"], "steps[1].arguments.steps[0]"),
        ([inner("a", "${one.tool}")], "steps[1].arguments.steps[0].tool"),
        ([{**inner("n", "plan.run"), "arguments": "${one}"}], "steps[1].arguments.steps[0].arguments"),
        ([inner("n", "plan.run", steps="${one.s}")], "steps[1].arguments.steps[0].arguments.steps"),
        ([{**inner("a", "echo"), "depends_on": ["${one.id}"]}], "steps[1].arguments.steps[0].depends_on[0]"),
    ],
)
async def test_data_never_becomes_a_step_or_names_a_tool(world: World, steps: Json, field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await world.create(
            step("one", "echo"),
            StepDraft("p", tool="plan.run", arguments={"steps": steps}),
        )

    assert (field, "NOT_HERE") in {(fault.field, fault.reason) for fault in refused.value.violations}
