"""A state machine over decisions: people who agree or not, know what they decide on or not, in any order with time and crashes.

The model knows each wait that was seen and what was decided of it. From that alone it says what every answer must be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from autoglm.errors import AutoglmError
from autoglm.model import (
    Approve,
    Decision,
    Plan,
    PlanState,
    Reject,
    Retry,
    Step,
    StepResolved,
    StepState,
    ToolResult,
    Waiting,
    WaitingReason,
)
from autoglm_server.scheduler import scheduler as module
from autoglm_server.scheduler.scheduler import Scheduler
from tests.server.scheduler.harness import Call, World, failure, step
from tests.server.scheduler.held import HeldJournal, crash_in

SETTINGS = settings(
    max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
WAITING_SECONDS = 60.0
KINDS: dict[str, Decision] = {
    "approve": Decision(Approve()),
    "reject": Decision(Reject("no")),
    "reject otherwise": Decision(Reject("never")),
    "retry": Decision(Retry()),
    "result": Decision(ToolResult("by hand")),
}
ALLOWED = {
    WaitingReason.APPROVAL: (Approve, Reject, ToolResult),
    WaitingReason.OUTCOME_UNKNOWN: (Retry, Reject, ToolResult),
    WaitingReason.TOOL_CHANGED: (Approve, Reject, ToolResult),
}
STALE = ("right", "right", "any", "earlier", "later")


@dataclass(slots=True)
class Decided:
    """A decision that was accepted."""

    sequence: int
    decision: Decision
    comment: str
    principal: str


@dataclass(slots=True)
class Known:
    """What is known of a step: the wait that is open, those that were, and what was decided."""

    plan_id: str
    step_id: str
    tool: str
    open: Waiting | None = None
    opened_at: float = 0.0
    seen: list[int] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)

    def expected(self, sequence: int, decision: Decision) -> str:
        """What ResolveStep must say: a reason; empty for an acceptance, "same" for one that changes nothing."""
        if self.open is not None:
            if sequence not in (0, self.open.sequence):
                return "WAIT_CHANGED"

            return "" if isinstance(decision.kind, ALLOWED[self.open.reason]) else "DECISION_NOT_ALLOWED"

        if not self.decided:
            return "STEP_NOT_WAITING"

        last = self.decided[-1]
        if sequence not in (0, last.sequence):
            return "WAIT_CHANGED"

        return "same" if decision == last.decision else "STEP_ALREADY_RESOLVED"


class ApprovalMachine(RuleBasedStateMachine):
    """Drives one world; the model is brought up to date after every rule, and every difference must have a cause."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.journal = HeldJournal()
        self.world = World(self.journal)
        self.steps: list[Known] = []
        self.plans: list[str] = []
        self.comments = 0
        self.runner.run(self.world.__aenter__())

    def do(self, work: Any) -> Any:
        async def act() -> Any:
            result = await work
            await self.world.settle()
            await self.look()
            return result

        return self.runner.run(act())

    # --- what happens

    @precondition(lambda self: len(self.plans) < 4)
    @rule(tools=st.lists(st.sampled_from(["guarded", "guarded", "send"]), min_size=1, max_size=2))
    def create(self, tools: list[str]) -> None:
        async def make() -> None:
            drafts = [step(f"p{len(self.plans)}s{number}", tool) for number, tool in enumerate(tools)]
            plan = await self.world.create(*drafts, waiting_timeout=timedelta(seconds=WAITING_SECONDS))
            self.plans.append(plan.id)
            self.steps += [Known(plan.id, one.id, one.tool) for one in drafts]

        self.do(make())

    @precondition(lambda self: self.steps)
    @rule(data=st.data(), kind=st.sampled_from(list(KINDS)), stale=st.sampled_from(STALE), who=st.sampled_from("ab"))
    def decide(self, data: st.DataObject, kind: str, stale: str, who: str) -> None:
        known = data.draw(st.sampled_from(self.steps))
        sequence = self.sequence(known, stale)
        expected = known.expected(sequence, KINDS[kind])
        told, call = self.asked(known, sequence, KINDS[kind], who)
        before = self.world.tools.times(known.step_id)
        if not expected:
            self.accepted(known, told)

        reason = self.do(_reason(call))
        assert reason == expected.replace("same", ""), f"{kind} with {sequence}: {reason!r}, not {expected!r}"
        if expected:
            assert self.world.tools.times(known.step_id) == before, "a refused or repeated decision made a call"
        else:
            self.runner.run(self.carried_out(known, told, before))

    @precondition(lambda self: any(one.open for one in self.steps))
    @rule(data=st.data(), kinds=st.lists(st.sampled_from(list(KINDS)), min_size=2, max_size=4))
    def several_at_once(self, data: st.DataObject, kinds: list[str]) -> None:
        """They know the same wait. The first that is allowed wins, and all the others are told so."""
        known = data.draw(st.sampled_from([one for one in self.steps if one.open]))
        sequence = known.open.sequence if known.open is not None else 0
        asked = [self.asked(known, sequence, KINDS[kind], f"person {number}") for number, kind in enumerate(kinds)]
        expected: list[str] = []
        for told, _ in asked:
            expected.append(known.expected(sequence, told.decision))
            if not expected[-1]:
                self.accepted(known, told)

        async def all_of_them() -> list[str]:
            async with asyncio.TaskGroup() as tasks:
                made = [tasks.create_task(_reason(call)) for _, call in asked]

            return [task.result() for task in made]

        reasons = self.do(all_of_them())
        assert reasons == [reason.replace("same", "") for reason in expected]

    @precondition(lambda self: any(one.open for one in self.steps))
    @rule(data=st.data(), kind=st.sampled_from(list(KINDS)), kept=st.booleans())
    def decide_and_crash(self, data: st.DataObject, kind: str, *, kept: bool) -> None:
        """The process ends before the answer; the decision is durable, or has never been."""
        known = data.draw(st.sampled_from([one for one in self.steps if one.open]))
        sequence = known.open.sequence if known.open is not None else 0
        told, call = self.asked(known, sequence, KINDS[kind], "a")
        expected = known.expected(sequence, KINDS[kind])
        if kept and not expected:
            self.accepted(known, told)

        answers = self.do(crash_in(self.world, self.journal, [_reason(call)], kept=kept))
        assert expected or not answers, "a decision was acknowledged before it was durable"

    @precondition(lambda self: self.under_way())
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "unknown"]))
    def a_call_ends(self, data: st.DataObject, how: str) -> None:
        call = data.draw(st.sampled_from(self.under_way()))

        async def end() -> None:
            if how == "succeed":
                call.succeed("done")
            else:
                call.fail(failure(unknown=how == "unknown"))

        self.do(end())

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.do(self.world.scheduler.cancel(data.draw(st.sampled_from(self.plans)), reason="", principal="a"))

    @rule(seconds=st.sampled_from([1.0, 20.0, WAITING_SECONDS + 1.0]))
    def time_passes(self, seconds: float) -> None:
        waiting = [one for one in self.plans if self.plan(one).state is PlanState.WAITING]
        self.do(self.world.advance(seconds))
        if seconds > WAITING_SECONDS:
            for plan_id in waiting:
                plan = self.plan(plan_id)
                assert plan.failure is not None, f"{plan_id} waits for ever"
                assert plan.failure.reason == "WAITING_TIMEOUT"

    @rule()
    def crash(self) -> None:
        self.do(self.world.crash())

    # --- what must hold

    def teardown(self) -> None:
        try:
            self.the_log_has_what_was_accepted()
        finally:
            self.runner.run(self.world.__aexit__())
            self.runner.close()

    def the_log_has_what_was_accepted(self) -> None:
        for known in self.steps:
            plan = self.plan(known.plan_id)
            events = self.runner.run(self.world.events(plan))
            logged = [
                Decided(one.fact.wait_sequence, one.fact.decision or Decision(), one.fact.comment, one.principal)
                for one in events
                if isinstance(one.fact, StepResolved) and one.step_id == known.step_id
            ]
            assert logged == known.decided
            granted = sum(isinstance(one.decision.kind, Approve | Retry) for one in known.decided)
            allowed = granted + (known.tool == "send")
            assert self.world.tools.times(known.step_id) <= allowed, f"{known.step_id} was called without a permission"

    # --- the model

    def plan(self, plan_id: str) -> Plan:
        plan: Plan = self.runner.run(self.world.scheduler.get(plan_id))
        return plan

    def under_way(self) -> list[Call]:
        return [call for call in self.world.tools.pending if not call.done.done()]

    def sequence(self, known: Known, stale: str) -> int:
        newest = known.seen[-1] if known.seen else 7
        return {"right": newest, "any": 0, "earlier": known.seen[0] if known.seen else 1, "later": newest + 50}[stale]

    def asked(self, known: Known, sequence: int, decision: Decision, who: str) -> tuple[Decided, Any]:
        self.comments += 1
        told = Decided(0, decision, f"comment {self.comments}", who)
        return told, self.world.scheduler.resolve(
            known.plan_id,
            known.step_id,
            wait_sequence=sequence,
            decision=decision,
            comment=told.comment,
            principal=who,
        )

    def accepted(self, known: Known, told: Decided) -> None:
        assert known.open is not None
        known.decided.append(replace(told, sequence=known.open.sequence))
        known.open = None

    async def look(self) -> None:
        """See what waits now. A wait that the model has open goes only with its plan."""
        now = self.world.clock.monotonic()
        for known in self.steps:
            plan = await self.world.scheduler.get(known.plan_id)
            waiting = _step(plan, known).waiting
            if known.open is not None and waiting != known.open:
                assert plan.state.terminal or plan.state is PlanState.CANCELLING, "a wait is over that nobody decided"
                if plan.failure is not None and plan.failure.reason == "WAITING_TIMEOUT":
                    assert now - known.opened_at >= WAITING_SECONDS, "it did not wait as long as it said"

            if waiting is not None and waiting != known.open:
                assert waiting.sequence > max(known.seen, default=0), "a wait that was decided is open again"
                known.seen.append(waiting.sequence)
                known.opened_at = now

            known.open = waiting

    async def carried_out(self, known: Known, told: Decided, before: int) -> None:
        """What an accepted decision asks for has happened when nothing more can."""
        one = _step(await self.world.scheduler.get(known.plan_id), known)
        match told.decision.kind:
            case Approve() | Retry():
                assert one.state is StepState.RUNNING or known.open is not None, f"approved, it is {one.state.name}"
                if one.state is StepState.RUNNING:
                    assert self.world.tools.times(known.step_id) == before + 1
            case Reject(reason):
                assert one.state is StepState.FAILED
                assert one.failure is not None
                assert (one.failure.reason, one.failure.message) == ("REJECTED", reason)
            case ToolResult() as result:
                assert (one.state, one.result) == (StepState.SUCCEEDED, result)
            case None:
                raise AssertionError


def _step(plan: Plan, known: Known) -> Step:
    return next(one for one in plan.steps if one.id == known.step_id)


async def _reason(call: Any) -> str:
    try:
        await call
    except AutoglmError as error:
        return error.reason

    return ""


def test_approval_model() -> None:
    run_state_machine_as_test(ApprovalMachine, settings=SETTINGS)


# --- controls: what the machine must find


def takes_any_wait(patch: pytest.MonkeyPatch) -> None:
    """A broken door: a decision about an earlier wait is taken for this one."""
    original = module._must_wait

    def must_wait(plan: Any, step_id: str, wait_sequence: int, decision: Decision) -> bool:
        return original(plan, step_id, 0, decision)

    patch.setattr(module, "_must_wait", must_wait)


def tells_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """Another: a decision is acknowledged before the disk has it."""

    async def acknowledged(self: Scheduler, run: Any) -> Plan:
        plan: Plan = run.plan.snapshot()
        return plan

    patch.setattr(Scheduler, "_acknowledged", acknowledged)


def leaves_no_trace(patch: pytest.MonkeyPatch) -> None:
    """Another: a decision is carried out, and its event left out."""

    def decided(run: Any, step_id: str, sequence: int, decision: Decision, comment: str, principal: str) -> None:
        one = run.plan.steps[step_id]
        run.turn(lambda: run._carry_out(step_id, one.waiting, one.attempt, decision))

    patch.setattr("autoglm_server.scheduler.run.PlanRun.decided", decided)


def lets_the_last_decision_win(patch: pytest.MonkeyPatch) -> None:
    """Another: who comes late is told that it was done as he said."""
    original = module._must_wait

    def must_wait(plan: Any, step_id: str, wait_sequence: int, decision: Decision) -> bool:
        try:
            return original(plan, step_id, wait_sequence, decision)
        except AutoglmError as refused:
            if refused.reason != "STEP_ALREADY_RESOLVED":
                raise

            return False

    patch.setattr(module, "_must_wait", must_wait)


BROKEN: list[Callable[[pytest.MonkeyPatch], None]] = [
    takes_any_wait,
    tells_before_it_is_durable,
    leaves_no_trace,
    lets_the_last_decision_win,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_control_broken_decisions_are_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    hunt = settings(SETTINGS, max_examples=300, derandomize=True, phases=[Phase.generate], print_blob=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ApprovalMachine, settings=hunt)
