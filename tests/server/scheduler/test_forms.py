"""Plans that are asked for alike are what they would be if each were made by itself, byte for byte."""

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
    Plan,
    PlanCreated,
    PlanOptions,
    RetryPolicy,
    StepAdded,
    StepDraft,
)
from autoglm.wire import FieldHeads, Form, decode, encode, time_bytes
from autoglm_server.clock import FakeClock
from autoglm_server.scheduler.forms import BYTES_MAX, KINDS_MAX, Kind, Kinds
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.scheduler import Submitted
from tests.server.scheduler.harness import DEFAULTS, World, step

RICH = StepDraft("a", "First", "add", {"a": 1, "b": 2}, retry_policy=RetryPolicy(2), timeout=timedelta(seconds=9))
ASKED = [
    CreatePlanRequest(steps=(step("a"),)),
    CreatePlanRequest(steps=(RICH, step("b", "put", ["a"], x="${a}"), step("guarded", "guarded")), labels={"k": "v"}),
    CreatePlanRequest(request="do it", context_id="c", options=PlanOptions(max_steps=3)),
    CreatePlanRequest(request="then tell", steps=(step("z", "send", ["y"]), step("y")), labels={"a": "1", "b": "2"}),
]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


async def submitted(world: World, asked: CreatePlanRequest, number: int) -> Submitted:
    return await world.scheduler.submit(
        replace(asked, request_id=f"r{number}"), principal=f"p{number}", digest=f"d{number}"
    )


def kinds(world: World) -> int:
    return len(world.scheduler._kinds)


@pytest.mark.parametrize("asked", ASKED, ids=range(len(ASKED)))
async def test_plans_that_are_filled_in_are_as_those_made_in_full(asked: CreatePlanRequest) -> None:
    async with World(limits=Limits(running_plans=0)) as world:
        for number in range(5):
            world.clock.advance(0.123)
            made = await submitted(world, asked, number)
            kind = world.scheduler._kinds.find(
                asked, world.scheduler.catalog.offer, world.scheduler.defaults, world.limits
            )
            assert kind is not None
            assert (kind.mould is not None) is (number > 0)

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
            assert fold.create_time == world.clock.now() == row.create_time
            assert made.basic == encode(replace(fold.basic(), labels=live.created.labels))
            assert decode(Plan, made.basic + made.rest) == fold.snapshot()


async def test_they_are_known_again_and_refused_again() -> None:
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


async def test_what_is_large_or_has_a_context_is_made_in_full_each_time(world: World) -> None:
    said = (ContextItem(ContextMessage("user", "hello")),)
    for asked in (
        CreatePlanRequest(steps=(step("a", x="x" * BYTES_MAX),)),
        CreatePlanRequest(request="x", context=said),
    ):
        for number in range(3):
            await world.scheduler.submit(replace(asked, request_id=f"{number}"), principal="", digest="")
            assert kinds(world) == 0


async def test_so_many_kinds_are_known(world: World) -> None:
    for _ in range(KINDS_MAX + 1):
        await world.scheduler.submit(CreatePlanRequest(steps=(step("a"),)), principal="", digest="")

    assert kinds(world) == 1


def test_a_form_filled_in_is_the_value_written() -> None:
    now = FakeClock().now()
    event = Event("plan", 2, now, "s", 1, False, 3, "who", PlanCreated("x", request_id="r"))
    blanks = ("plan_id", "event_time", "principal", "plan_created")
    form = Form(event, blanks)
    plan_id, event_time, principal, created = (FieldHeads(Event, name) for name in blanks)
    for one in (event, replace(event, plan_id="other", event_time=now + timedelta(days=1), principal="")):
        assert one.event_time is not None
        time, fact = time_bytes(one.event_time), encode(one.fact)
        fields = plan_id.text(one.plan_id), event_time[len(time)] + time, principal.text(one.principal)
        assert form.fill(*fields, created[len(fact)] + fact) == encode(one)

    with pytest.raises(ValueError, match="assign"):
        form.fill(b"")

    with pytest.raises(KeyError):
        FieldHeads(Event, "request")


def test_what_names_a_secret_is_checked_each_time() -> None:
    known = Kinds()
    kind = Kind(ASKED[0], None, DEFAULTS, Limits(), DEFAULTS, [])
    known.keep(kind, [b"... secret://key ..."])
    assert len(known) == 0
    known.keep(kind, [b"..."])
    assert len(known) == 1
