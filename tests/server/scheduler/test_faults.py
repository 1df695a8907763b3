"""What tools, planners, people and bugs may do to a plan: each is that one's failure, and never the end of the plan's hold."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from autoglm.errors import InvalidRequestError, UnavailableError
from autoglm.model import (
    Approve,
    Budget,
    ContextItem,
    ContextMessage,
    CreatePlanRequest,
    Decision,
    Failure,
    Plan,
    PlanState,
    RetryPolicy,
    StepDraft,
    StepRejected,
    StepState,
    ToolResult,
    Violation,
    WaitingReason,
)
from autoglm.wire import decode, encode
from autoglm_server.planner.planner import AnswerOutput, AnswerText, Note, RoundItem, RoundView
from autoglm_server.scheduler import dependencies
from autoglm_server.scheduler import run as run_module
from autoglm_server.scheduler import scheduler as scheduler_module
from autoglm_server.scheduler.drafts import VIOLATIONS_MAX, Checked, Rules, check_given
from autoglm_server.scheduler.limits import Limits
from autoglm_server.tools.catalog import Catalog
from tests.server.scheduler.harness import Planner, World, failure, step

MIB = 1 << 20
HALF_A_PAIR = "a\ud800b"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


# --- too large for an event


async def test_outputs_that_do_not_fit_the_last_event_stay_with_their_steps(world: World) -> None:
    """A small number takes 2 bytes in JSON and 11 in an event, so three outputs within every limit are too large at the end."""
    numbers = [0] * 95_000
    for name in "abc":
        world.tools.scripts[name] = deque([numbers])

    done = await world.ended(await world.create(step("a"), step("b"), step("c")))
    assert done.state is PlanState.SUCCEEDED
    assert done.output is None
    assert done.answer.startswith("a: [0,0,0")
    assert [one.result is not None and one.result.output == numbers for one in done.steps] == [True] * 3


async def test_an_output_that_no_event_holds_fails_its_step_alone() -> None:
    async with World(limits=Limits(event_bytes=20_000)) as world:
        world.tools.scripts["a"] = deque(["x" * 30_000])
        done = await world.ended(await world.create(step("a"), step("b", "echo")))
        assert [one.state for one in done.steps] == [StepState.FAILED, StepState.SUCCEEDED]
        assert done.steps[0].failure is not None
        assert done.steps[0].failure.reason == "INVALID_OUTPUT"


async def test_a_decision_that_no_event_holds_is_refused_and_changes_nothing(world: World) -> None:
    plan = await world.create(step("a", "guarded"))
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    with pytest.raises(InvalidRequestError) as refused:
        await world.scheduler.resolve(
            plan.id, "a", wait_sequence=0, decision=Decision(ToolResult([0] * 250_000)), comment="", principal=""
        )

    assert refused.value.violations[0].reason == "TOO_LARGE"
    await world.scheduler.resolve(plan.id, "a", wait_sequence=0, decision=Decision(Approve()), comment="", principal="")
    (await world.tools.called("a")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([AnswerText("x" * MIB), AnswerText("y")], "ANSWER_TOO_LARGE"),
        ([AnswerText("é" * (MIB // 2 + 1))], "ANSWER_TOO_LARGE"),
        ([AnswerText("x" * MIB), AnswerOutput("y" * MIB)], "ANSWER_TOO_LARGE"),
        ([AnswerText("x"), AnswerOutput(float("nan"))], "PLANNER_FAILED"),
    ],
)
async def test_an_answer_that_cannot_be_written_fails_its_round(
    world: World, items: list[RoundItem], reason: str
) -> None:
    world.planner.script.append(items)
    done = await world.ended(await world.create(request="say it"))
    assert done.state is PlanState.FAILED
    assert done.failure is not None
    assert done.failure.reason == reason


async def test_the_longest_answer_and_notes_of_any_length_are_taken(world: World) -> None:
    world.planner.script.append([Note("n" * (3 * MIB)), AnswerText("x" * MIB)])
    done = await world.ended(await world.create(request="say it"))
    assert done.state is PlanState.SUCCEEDED
    assert len(done.answer) == MIB


# --- what cannot be written at all


@pytest.mark.parametrize(
    "draft",
    [
        StepDraft("s", "echo", HALF_A_PAIR, {}),
        StepDraft("s", HALF_A_PAIR, "", {}),
        StepDraft(HALF_A_PAIR, "echo", "", {}),
        StepDraft("s", "echo", "", {"x": HALF_A_PAIR}),
        StepDraft("s", "echo", "", {HALF_A_PAIR: 1}),
        StepDraft("s", "echo", "", {"x": float("nan")}),
        StepDraft("s", "echo", "", {"x": "y" * (3 * MIB)}),
        StepDraft("s", "echo", "t" * (3 * MIB), {}),
    ],
)
@pytest.mark.parametrize("by_planner", [False, True])
async def test_a_draft_that_cannot_be_written_is_refused_and_the_plan_goes_on(
    world: World, draft: StepDraft, *, by_planner: bool
) -> None:
    refused = StepRejected(draft, (Violation("arguments", HALF_A_PAIR, "BAD"),))
    world.planner.script += [[refused if by_planner else draft], [AnswerText("without it")]]
    plan = await world.create(request="try")
    done = await world.ended(plan)
    assert (done.state, done.answer) == (PlanState.SUCCEEDED, "without it")
    assert [fact for fact in await world.facts(plan) if fact.startswith("StepRejected")]


async def test_text_that_is_half_a_character_is_mended(world: World) -> None:
    world.planner.script.append([Note(HALF_A_PAIR), AnswerText(HALF_A_PAIR)])
    assert (await world.ended(await world.create(request="say it"))).answer == "a?b"


async def test_refused_drafts_are_bounded_like_all_events() -> None:
    async with World(limits=Limits(events=200)) as world:
        refused = StepRejected(StepDraft("s", "echo", "", {}), (Violation("id", "no", "BAD"),))
        world.planner.script.append([refused] * 1000)
        done = await world.ended(await world.create(request="try"))
        assert done.failure is not None
        assert done.failure.reason == "TOO_MANY_EVENTS"
        assert done.sequence <= 200


# --- numbers


async def test_a_tool_that_asks_for_an_endless_wait_gets_a_long_one(world: World) -> None:
    asked = Failure("LATER", "read", "later", retryable=True, retry_after=timedelta.max)
    world.tools.scripts["a"] = deque([asked, 1])
    plan = await world.create(step("a"), timeout=timedelta(days=40))
    await world.until(plan, lambda now: any(one.next_attempt_time is not None for one in now.steps))
    await world.advance(30 * 86_400 + 1)
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_a_backoff_that_no_number_holds_is_the_longest_one(world: World) -> None:
    second = timedelta(seconds=1)
    world.tools.scripts["a"] = deque([failure(retryable=True)] * 60)
    policy = RetryPolicy(60, second, second, 1e6)
    plan = await world.create(replace(step("a"), retry_policy=policy))
    for _ in range(60):
        await world.settle()
        await world.advance(1)

    assert (await world.ended(plan)).steps[0].state is StepState.FAILED
    assert world.tools.times("a") == 60


async def test_a_budget_of_calls_is_never_exceeded_and_what_it_allows_is_done(world: World) -> None:
    plan = await world.create(*[step(f"s{number}") for number in range(5)], budget=Budget(max_tool_calls=3))
    for number in range(3):
        await world.tools.called(f"s{number}")

    await world.settle()
    assert len(world.tools.calls) == 3
    for call in list(world.tools.under_way.values()):
        call.succeed()

    done = await world.ended(plan)
    assert done.failure is not None
    assert done.failure.reason == "BUDGET_EXCEEDED"
    assert [one.state for one in done.steps].count(StepState.SUCCEEDED) == 3


async def test_a_spent_budget_does_not_keep_the_loop_busy_with_a_retry_that_is_due(world: World) -> None:
    world.tools.scripts["a"] = deque([failure(retryable=True)])
    plan = await world.create(step("a"), step("b"), budget=Budget(max_tool_calls=2))
    call = await world.tools.called("b")
    await world.advance(5)  # would not return
    call.succeed()
    assert (await world.ended(plan)).failure is not None
    assert len(world.tools.calls) == 2


# --- what is away, and what breaks


async def test_a_tool_whose_provider_is_away_is_tried_again(world: World) -> None:
    plan = await world.create(step("a"), step("b", "put", ["a"]))
    call = await world.tools.called("a")
    offered = world.tools.offered
    world.tools.offered = [tool for tool in offered if tool.name != "put"]
    call.succeed()
    waiting = await world.until(plan, lambda now: any(one.next_attempt_time is not None for one in now.steps))
    assert waiting.steps[1].failure is not None
    assert waiting.steps[1].failure.reason == "TOOL_UNAVAILABLE"
    world.tools.offered = offered
    await world.advance(1)
    (await world.tools.called("b")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_a_planner_that_cancels_itself_fails_its_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancelled(view: RoundView) -> AsyncIterator[RoundItem]:
        if view.round:
            raise asyncio.CancelledError

        yield Note("")

    monkeypatch.setattr(world.planner, "round", cancelled)
    done = await world.ended(await world.create(request="do it"))
    assert done.failure is not None
    assert done.failure.reason == "PLANNER_FAILED"


async def test_who_waits_for_a_plan_that_is_let_go_of_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = await world.create(step("a"))
    await world.tools.called("a")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "decide", broken)
        with pytest.raises(UnavailableError):
            await world.scheduler.cancel(plan.id, reason="", principal="")

    await world.crash()
    await world.scheduler.cancel(plan.id, reason="", principal="")
    assert (await world.ended(plan)).state is PlanState.CANCELLED


async def test_a_fault_in_recording_an_outcome_ends_the_hold_and_not_silently(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = await world.create(step("a"))
    call = await world.tools.called("a")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(run_module, "judge", broken)
        call.succeed()
        await world.settle()

    assert plan.id not in world.scheduler._runs
    assert "a turn failed" in caplog.text
    await world.crash()
    (await world.tools.called("a")).succeed()
    assert (await world.ended(plan)).state is PlanState.SUCCEEDED


async def test_a_plan_that_cannot_be_folded_does_not_keep_the_others_down(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = await world.create(step("a")), await world.create(step("b"))
    await world.tools.called("a")
    await world.tools.called("b")
    event = (await world.events(bad))[-1]
    log = world.journal._plans[bad.id].bodies  # type: ignore[attr-defined]
    log.append(encode(replace(event, sequence=len(log) + 1, step_id="nobody")))
    with caplog.at_level(logging.ERROR):
        await world.crash()

    assert "cannot take the plan up" in caplog.text
    (await world.tools.called("a")).succeed()
    assert (await world.ended(good)).state is PlanState.SUCCEEDED


# --- unknown outcomes


async def test_a_wait_for_an_unknown_outcome_shows_all_that_a_person_needs(world: World) -> None:
    world.tools.scripts["a"] = deque([failure(unknown=True)])
    large = "x" * 70_000  # above what step_started carries
    plan = await world.create(step("a", "send", text=large), waiting_timeout=timedelta(hours=1))
    waiting = (await world.until(plan, lambda now: now.state is PlanState.WAITING)).steps[0].waiting
    assert waiting is not None
    assert waiting.arguments == {"text": large}
    assert waiting.start_time is not None
    assert waiting.expire_time == waiting.start_time + timedelta(hours=1)


@pytest.mark.parametrize(("tool", "unknown"), [("put", True), ("read", False)])
async def test_cancel_while_backing_off_says_if_the_last_call_may_have_taken_effect(
    world: World, tool: str, *, unknown: bool
) -> None:
    world.tools.scripts["a"] = deque([failure(unknown=True)])
    plan = await world.create(step("a", tool))
    await world.until(plan, lambda now: any(one.next_attempt_time is not None for one in now.steps))
    await world.scheduler.cancel(plan.id, reason="", principal="")
    found = (await world.ended(plan)).steps[0].failure
    assert (found is not None and found.outcome_unknown) is unknown


# --- what is listed


async def test_what_is_listed_is_what_is_got_in_view_basic(world: World) -> None:
    asked = CreatePlanRequest(
        request="go on",
        labels={"team": "data"},
        context=(ContextItem(ContextMessage("user", "said before " * 1000)),),
    )
    world.planner.script += [[step("a", "guarded")], [AnswerText("done")]]
    plan, _ = await world.scheduler.create(asked, principal="", digest="")
    await world.until(plan, lambda now: now.state is PlanState.WAITING)
    for _ in range(2):
        got = await world.get(plan)
        row = await world.journal.get_row(plan.id)
        assert row is not None
        assert got.context == asked.context
        assert (row.state, dict(row.labels)) == (got.state, dict(got.labels))
        assert decode(Plan, row.body) == replace(got, steps=(), rounds=(), context=())
        approved = Decision(Approve())
        await world.scheduler.resolve(plan.id, "a", wait_sequence=0, decision=approved, comment="", principal="")
        if got.state is PlanState.WAITING:
            (await world.tools.called("a")).succeed()
            await world.ended(plan)


async def test_a_context_that_no_event_holds_is_refused(world: World) -> None:
    said = tuple(ContextItem(ContextMessage("user", "x" * 60_000)) for _ in range(49))
    with pytest.raises(InvalidRequestError) as refused:
        await world.scheduler.create(CreatePlanRequest(request="go on", context=said), principal="", digest="")

    assert refused.value.violations[0].field == "context"
    assert world.scheduler.open_plans == 0


async def test_a_call_that_was_cut_is_asked_about_though_its_tool_has_changed(world: World) -> None:
    plan = await world.create(step("a", "send", x=1), step("b", "send", x=1))
    await world.tools.called("a")
    await world.tools.called("b")
    strict = '{"type":"object","required":["y"]}'
    world.tools.offered = [replace(tool, input_schema=strict) for tool in world.tools.offered if tool.name == "send"]
    await world.crash()
    found = await world.until(plan, lambda now: now.state is PlanState.WAITING)
    assert [one.waiting is not None and one.waiting.reason for one in found.steps] == [
        WaitingReason.OUTCOME_UNKNOWN
    ] * 2
    assert found.steps[0].waiting is not None
    assert found.steps[0].waiting.arguments == {"x": 1}


async def test_many_given_steps_are_made_into_a_plan_beside_the_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def noted(drafts: Sequence[StepDraft], rules: Rules) -> tuple[list[Checked], list[Violation]]:
        threads.add(threading.get_ident())
        return check_given(drafts, rules)

    monkeypatch.setattr(scheduler_module, "check_given", noted)
    done = await world.ended(await world.create(*[step(f"s{number}", "echo", x=number) for number in range(300)]))
    assert done.state is PlanState.SUCCEEDED
    assert threads
    assert threading.get_ident() not in threads


async def test_a_place_that_comes_free_as_a_round_ends_hides_nothing_that_is_due() -> None:
    async with World(limits=Limits(running_calls=1)) as world:
        world.scheduler.call_began()  # another plan's

        class Rejected(Planner):
            async def round(self, view: RoundView) -> AsyncIterator[RoundItem]:
                self.views.append(view)
                if view.attempt == 1:
                    yield step("a", "put")
                    yield step("b", "unknown")
                    world.scheduler.call_ended()

        planner = world.planners["scripted"] = Rejected()
        await world.create(request="two steps")
        await world.tools.called("a")
        await world.settle()
        assert [view.attempt for view in planner.views] == [1, 2], (
            "the refused draft is told of while the other step runs"
        )


async def test_a_request_full_of_faults_costs_little_more_than_a_sound_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def noted(word: str, known: Sequence[str], *_: object) -> list[str]:
        looked.append(word)
        return [*known][:1]

    monkeypatch.setattr(dependencies, "get_close_matches", noted)
    monkeypatch.setattr(Catalog, "nearest", lambda _, name: noted(name, ["echo"]))
    many = tuple(StepDraft(f"s{number}", tool="unknown", depends_on=("absent",) * 3) for number in range(600))
    found = world.scheduler.check(CreatePlanRequest(steps=many))
    assert len(looked) == dependencies.HINTS_MAX
    assert len(found) == VIOLATIONS_MAX
    assert found[0].description == "there is no step 'absent' to depend on; did you mean 's0'?"
    assert found[3].description == "there is no tool 'unknown'; did you mean echo?"
    assert found[-2].description == "there is no step 'absent' to depend on"

    one = StepDraft("a", tool="echo", depends_on=("absent",) * 3000)
    assert len(world.scheduler.check(CreatePlanRequest(steps=(one,)))) == VIOLATIONS_MAX
