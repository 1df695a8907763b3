"""How plans begin: what is put together from parts is what the codec writes, byte for byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from autoglm.errors import InvalidRequestError
from autoglm.fold import PlanFold
from autoglm.model import (
    ContextItem,
    ContextMessage,
    CreatePlanRequest,
    Event,
    JsonObject,
    Plan,
    PlanCreated,
    PlanOptions,
    RetryPolicy,
    StepAdded,
    StepDraft,
    StepRef,
)
from autoglm.wire import FieldHeads, decode, encode, form_of, time_bytes
from autoglm_server.clock import FakeClock
from autoglm_server.scheduler.drafts import CHECKS_MAX
from autoglm_server.scheduler.forms import STEPS_MAX
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.scheduler import Submitted
from tests.server.scheduler.harness import World, step

RICH = StepDraft("a", "First", "add", {"a": 1, "b": 2}, retry_policy=RetryPolicy(2), timeout=timedelta(seconds=9))
ASKED = [
    CreatePlanRequest(steps=(step("a"),)),
    CreatePlanRequest(steps=(RICH, step("b", "put", ["a"], x="${a}"), step("guarded", "guarded")), labels={"k": "v"}),
    CreatePlanRequest(request="do it", context_id="c", options=PlanOptions(max_steps=3)),
    CreatePlanRequest(request="go on", context=(ContextItem(ContextMessage("user", "hello")),)),
    CreatePlanRequest(
        steps=(
            StepDraft("b", "\u00e9" * 200, "put", {"n": [1, {"k": None}], "t": "x" * 5000}, depends_on=("a",)),
            step("a"),
        ),
        options=PlanOptions(approval_tools=("pu*",)),
    ),
    CreatePlanRequest(request="then tell", steps=(step("z", "send", ["y"]), step("y")), labels={"a": "1", "b": "2"}),
]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


async def submitted(world: World, asked: CreatePlanRequest, number: int) -> Submitted:
    return await world.scheduler.submit(
        replace(asked, request_id=f"r{number}"), principal=f"p{number}", digest=f"d{number}", again=True
    )


@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
async def test_what_is_put_together_is_what_the_codec_writes(asked: CreatePlanRequest) -> None:
    async with World(limits=Limits(running_plans=0)) as world:
        for number in range(3):
            world.clock.advance(0.123)
            made = await submitted(world, asked, number)
            live, fold = world.scheduler._runs[made.plan_id].plan, PlanFold(made.plan_id)
            facts = [live.created, *(StepAdded(one.added) for one in live.steps.values())]
            bodies = await world.journal.read(made.plan_id, 0, limit=len(facts))
            for fact, body in zip(facts, bodies, strict=True):
                event = decode(Event, body)
                assert event.fact == fact
                assert encode(replace(event, fact=fact)) == body
                fold.apply(event)

            row = await world.journal.get_row(made.plan_id)
            assert row is not None
            assert (fold.principal, fold.created.request_id, fold.created.request_digest) == (
                f"p{number}",
                f"r{number}",
                f"d{number}",
            )
            assert (live.snapshot(), live.last_event_time) == (fold.snapshot(), fold.last_event_time)
            assert [*live.ready, *live.unapproved, *live.pending] == [*fold.ready, *fold.unapproved, *fold.pending]
            assert fold.create_time == world.clock.now() == row.create_time
            assert made.basic == row.body == encode(replace(fold.basic(), labels=live.created.labels))
            assert decode(Plan, made.basic + made.rest) == fold.snapshot()


async def test_a_sub_plan_begins_as_the_codec_writes_it(world: World) -> None:
    inner: JsonObject = {"steps": [{"id": "x", "tool": "put", "arguments": {"a": 1}}]}
    made = await world.create(StepDraft("s", tool="plan.run", arguments=inner))
    await world.tools.called("x")
    child = next(run.plan for run in world.scheduler.runs.values() if run.plan.id != made.id)
    created, added = (await world.journal.read(child.id, 0, limit=2))[:2]
    assert child.created.parent == StepRef(made.id, "s")
    for body in (created, added):
        assert encode(decode(Event, body)) == body


async def test_requests_are_known_again() -> None:
    async with World() as world:
        for number in (1, 2, 3):
            made = await submitted(world, ASKED[1], number)
            again = await submitted(world, ASKED[1], number)
            assert (again.plan_id, again.existing) == (made.plan_id, True)

        shown = await world.scheduler.submit(replace(ASKED[1], validate_only=True), principal="", digest="")
        assert shown.plan_id == ""
        assert len(await world.journal.open_plans()) == 3


async def test_they_run(world: World) -> None:
    for number in range(4):
        made = await submitted(world, CreatePlanRequest(steps=ASKED[1].steps[:2], labels=ASKED[1].labels), number)
        call = await world.tools.called("b")
        assert call.invocation.arguments == {"x": 3}
        call.succeed(number)
        ended = await world.ended(decode(Plan, made.basic))
        assert ended.output == {"b": number}


@pytest.mark.parametrize("rule", ["tools", "defaults", "limits"])
async def test_when_a_rule_changes_they_are_checked_by_it(world: World, rule: str) -> None:
    asked = CreatePlanRequest(steps=(step("a"),))
    for number in range(3):
        await submitted(world, asked, number)

    assert len(world.scheduler._checks._known) == 1
    match rule:
        case "tools":
            world.tools.offered = [tool for tool in world.tools.offered if tool.name != "read"]
            with pytest.raises(InvalidRequestError, match="there is no tool 'read'"):
                await submitted(world, asked, 4)

        case "defaults":
            world.scheduler.defaults = replace(world.scheduler.defaults, max_rounds=7)
            options = decode(Plan, (await submitted(world, asked, 4)).basic).options
            assert options is not None
            assert options.max_rounds == 7

        case _:
            world.scheduler.limits = replace(world.limits, step_timeout=5.0)
            made = await submitted(world, asked, 4)
            assert decode(Plan, made.basic + made.rest).steps[0].timeout == timedelta(seconds=5)


async def test_what_is_filled_in_is_checked_each_time(world: World) -> None:
    for drafts in ((step("a"), step("b", "put", x="${a}")), (step("a", x="$${"),)):
        for _ in range(2):
            await world.scheduler.submit(CreatePlanRequest(steps=drafts), principal="", digest="", again=True)
            assert len(world.scheduler._checks._known) == 0


async def test_so_many_checks_are_known(world: World) -> None:
    for number in range(CHECKS_MAX + 1):
        await submitted(world, CreatePlanRequest(steps=(step("a"),)), number)

    assert len(world.scheduler._checks._known) == 1


async def test_what_steps_get_besides_is_known_of_so_many_kinds_of_them(world: World) -> None:
    forms = world.scheduler._beginnings._steps
    for number in range(STEPS_MAX + 1):
        drafts = (StepDraft("a", tool="echo", timeout=timedelta(seconds=1 + number)),)
        made = await world.scheduler.submit(CreatePlanRequest(steps=drafts), principal="", digest="")
        assert decode(Plan, made.rest).steps[0].timeout == timedelta(seconds=1 + number)

    assert len(forms) == 1


def test_a_form_filled_in_is_the_value_written() -> None:
    now = FakeClock().now()
    event = Event("plan", 2, now, "s", 1, False, 3, "who", PlanCreated("x", request_id="r"))
    blanks = ("plan_id", "event_time", "principal", "plan_created")
    form = form_of(event, blanks)
    plan_id, event_time, principal, created = (FieldHeads(Event, name) for name in blanks)
    for one in (event, replace(event, plan_id="other", event_time=now + timedelta(days=1), principal="")):
        assert one.event_time is not None
        time, fact = time_bytes(one.event_time), encode(one.fact)
        fields = plan_id.text(one.plan_id), event_time[len(time)] + time, principal.text(one.principal)
        blank = (*fields, created[len(fact)] + fact, b"")
        assert b"".join(part for pair in zip(form, blank, strict=True) for part in pair) == encode(one)

    with pytest.raises(KeyError):
        FieldHeads(Event, "request")
