"""A state machine over the scheduler: people, tools, time and crashes in any order, and the log must stand every check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from autoglm.model import (
    Approve,
    Budget,
    Decision,
    Effect,
    JsonObject,
    PlanState,
    Reject,
    Retry,
    StepDraft,
    ToolResult,
    WaitingReason,
)
from autoglm_server.journal.journal import PlanQuery
from autoglm_server.scheduler import decide as decide_module
from autoglm_server.scheduler import run as run_module
from autoglm_server.scheduler.decide import AskPerson, Command, Decided, FailStep, StartStep, decide
from autoglm_server.scheduler.state import State
from tests.server.scheduler.checks import check_everything, check_nothing_is_due
from tests.server.scheduler.harness import Call, World, failure

SETTINGS = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


TOOLS = ["read", "put", "send", "guarded"]
BUDGETS = [None, None, Budget(max_tool_calls=4), Budget(max_duration=timedelta(seconds=42)), Budget(max_rounds=1)]


@st.composite
def drafts(draw: st.DrawFn) -> list[StepDraft]:
    """A random DAG: each step may depend on some before it, by name or by reference."""
    count = draw(st.integers(1, 6))
    made: list[StepDraft] = []
    for index in range(count):
        before = [one.id for one in made]
        depends_on = draw(st.lists(st.sampled_from(before), max_size=2, unique=True)) if before else []
        referred = draw(st.lists(st.sampled_from(before), max_size=1)) if before else []
        tool = draw(st.sampled_from([*TOOLS, "plan.run"]))
        arguments: JsonObject = {"of": f"${{{referred[0]}}}"} if referred else {}
        if tool == "plan.run":
            below = draw(st.lists(st.sampled_from(TOOLS), min_size=1, max_size=2))
            arguments = {
                "steps": [{"id": f"c{n}", "tool": each, "arguments": arguments} for n, each in enumerate(below)]
            }

        made.append(StepDraft(f"s{index}", tool=tool, arguments=arguments, depends_on=tuple(depends_on)))

    return made


class SchedulerMachine(RuleBasedStateMachine):
    """Drives one world; every rule ends when everything has happened that can without more input."""

    budgets = st.sampled_from(BUDGETS)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World()
        self.plans: list[str] = []
        self.made = 0
        self.runner.run(self.world.__aenter__())

    def do(self, work: Callable[[], object]) -> None:
        async def act() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result

            await self.world.settle()

        self.runner.run(act())

    def under_way(self) -> list[Call]:
        return [call for call in self.world.tools.pending if not call.done.done()]

    @rule(data=st.data(), steps=drafts(), parallel=st.integers(1, 3))
    def create(self, data: st.DataObject, steps: list[StepDraft], parallel: int) -> None:
        budget = data.draw(self.budgets)

        async def make() -> None:
            plan = await self.world.create(*steps, max_parallel_steps=parallel, budget=budget)
            self.plans.append(plan.id)

        self.do(make)

    @precondition(lambda self: self.under_way())
    @rule(data=st.data(), kind=st.sampled_from(["succeed", "fail", "retryable", "unknown"]))
    def end_a_call(self, data: st.DataObject, kind: str) -> None:
        call = data.draw(st.sampled_from(self.under_way()))
        if kind == "succeed":
            self.do(lambda: call.succeed(call.invocation.context.step_id))
        else:
            self.do(lambda: call.fail(failure(retryable=kind == "retryable", unknown=kind == "unknown")))

    @rule(seconds=st.sampled_from([0.1, 0.5, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(lambda: self.world.advance(seconds))

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        plan_id = data.draw(st.sampled_from(self.plans))
        self.do(lambda: self.world.scheduler.cancel(plan_id, reason="", principal="me"))

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), kind=st.integers(0, 2))
    def decide_for_a_waiting_step(self, data: st.DataObject, kind: int) -> None:
        plan_id = data.draw(st.sampled_from(self.plans))
        self.do(lambda: self._resolve(plan_id, kind))

    async def family(self, plan_id: str) -> list[str]:
        """Give the plan, and its sub-plans."""
        page = await self.world.journal.list_rows(PlanQuery(parent_plan_id=plan_id))
        return [plan_id, *(row.plan_id for row in page.rows)]

    async def check(self) -> None:
        for plan_id in self.plans:
            children: list[str] = []
            for member in await self.family(plan_id):
                plan = await self.world.scheduler.get(member)
                events = await self.world.events(plan)
                check_everything(events, self.world.tools.calls)
                children += [plan.parent.step_id] if plan.parent is not None else []

            assert len(children) == len(set(children)), "a step has two sub-plans"

        check_nothing_is_due(self.world.scheduler)

    async def _resolve(self, plan_id: str, kind: int) -> None:
        for member in await self.family(plan_id):
            await self._resolve_one(member, kind)

    async def _resolve_one(self, plan_id: str, kind: int) -> None:
        for index in range(len((await self.world.scheduler.get(plan_id)).steps)):
            one = (await self.world.scheduler.get(plan_id)).steps[index]  # one decision may have ended the plan
            if one.waiting is None:
                continue

            yes = Retry() if one.waiting.reason is WaitingReason.OUTCOME_UNKNOWN else Approve()
            decision = Decision([yes, Reject("no"), ToolResult("by hand")][kind])
            await self.world.scheduler.resolve(
                plan_id,
                one.id,
                wait_sequence=one.waiting.sequence,
                decision=decision,
                comment="",
                principal="me",
            )

    @rule(first=st.sampled_from([128, 0]))
    def crash(self, first: int) -> None:
        self.world.limits = replace(self.world.limits, taken_up_first=first)
        self.do(self.world.crash)

    @invariant()
    def every_log_is_sound(self) -> None:
        self.runner.run(self.check())

    def teardown(self) -> None:
        try:
            self.runner.run(self._finish())
        finally:
            self.runner.run(self.world.__aexit__())
            self.runner.close()

    async def _finish(self) -> None:
        """Faults stop: every plan comes to its end."""
        for _ in range(400):
            for call in self.under_way():
                call.succeed("end")

            await self.world.advance(1.0)
            open_plans = [one for one in self.plans if not (await self.world.scheduler.get(one)).state.terminal]
            if not open_plans:
                break

            for plan_id in open_plans:
                await self._resolve(plan_id, 0)

        for plan_id in self.plans:
            plan = await self.world.scheduler.get(plan_id)
            assert plan.state.terminal, f"{plan_id} never ended: {plan.state.name}"
            assert plan.state is not PlanState.SUCCEEDED or all(one.state.name == "SUCCEEDED" for one in plan.steps)
            states = [(await self.world.scheduler.get(member)).state for member in await self.family(plan_id)]
            assert all(state.terminal for state in states), f"a sub-plan of {plan_id} never ended"

        await self.check()
        assert self.world.scheduler.open_plans == 0
        assert self.world.scheduler.places() == self.world.limits.running_calls
        assert not self.world.scheduler.busy


def test_scheduler_model() -> None:
    run_state_machine_as_test(SchedulerMachine, settings=SETTINGS)


def _repeats_what_was_cut(state: State, now: float, places: int, *, hold: bool = False) -> Decided:
    """A broken rule: a NON_IDEMPOTENT call that was cut is made again."""
    decided = decide(state, now, places, hold=hold)
    cut = state.plan.interrupted
    commands: list[Command] = [
        StartStep(one.step_id) if isinstance(one, (AskPerson, FailStep)) and one.step_id in cut else one
        for one in decided.commands
    ]
    return Decided(commands, decided.wake, decided.starved)


def _ignores_dependencies(state: State, now: float, places: int, *, hold: bool = False) -> Decided:
    """Another: whatever is pending is started."""
    decided = decide(state, now, places, hold=hold)
    pending: list[Command] = [StartStep(one) for one in state.plan.pending if not state.plan.stopping and not hold]
    return Decided(pending[:1] or decided.commands, decided.wake)


def _ignores_budgets(state: State, now: float, places: int, *, hold: bool = False) -> Decided:
    """Another: a budget ends nothing."""
    kept = state.options, state.pool, state.budget_deadline
    state.options, state.pool, state.budget_deadline = replace(state.options, budget=None), None, None
    try:
        return decide(state, now, places, hold=hold)
    finally:
        state.options, state.pool, state.budget_deadline = kept


def repeats_what_was_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run_module, "decide", _repeats_what_was_cut)


def ignores_dependencies(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run_module, "decide", _ignores_dependencies)


def ignores_budgets(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(run_module, "decide", _ignores_budgets)
    patch.setattr(SchedulerMachine, "budgets", st.just(Budget(max_tool_calls=1)))  # nearly every plan needs more


BROKEN = [repeats_what_was_cut, ignores_dependencies, ignores_budgets]


@pytest.mark.parametrize("broken", BROKEN)
def test_control_a_broken_rule_is_caught(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    assert decide_module.decide is decide
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(
            SchedulerMachine,
            settings=settings(
                SETTINGS,
                max_examples=300,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                print_blob=False,
                report_multiple_bugs=False,
            ),
        )

    # A check noticed it; a harness that breaks would prove nothing.
    assert Path(caught.traceback[-1].path).name == "checks.py"


def test_effects_are_what_the_machine_thinks() -> None:
    assert {
        tool.name: tool.effect for tool in World().tools.offered if tool.name in ("read", "put", "send", "guarded")
    } == {
        "read": Effect.READ_ONLY,
        "put": Effect.IDEMPOTENT,
        "send": Effect.NON_IDEMPOTENT,
        "guarded": Effect.NON_IDEMPOTENT,
    }
