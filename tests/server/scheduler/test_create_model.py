"""A state machine over CreatePlan: a request_id makes one plan, whoever asks again, whenever, and whatever breaks between.

The model is a table: who used which id, for what, and the plan that came of it. An id may be forgotten only with its plan, and
that not within a day of the plan's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from autoglm.errors import AutoglmError
from autoglm.model import CreatePlanRequest, PlanOptions
from autoglm_server.journal.journal import PlanQuery, RequestKey
from autoglm_server.scheduler import retention
from autoglm_server.scheduler import scheduler as module
from autoglm_server.scheduler.retention import Retention, Rules
from autoglm_server.scheduler.run import PlanRun
from autoglm_server.service.plans import request_digest
from tests.server.scheduler.harness import World, step
from tests.server.scheduler.held import HeldJournal, crash_in

SETTINGS = settings(
    max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
HOUR = 3600.0
DAY = timedelta(days=1)
IDS = st.sampled_from(["", "r1", "r1", "r2"])
PEOPLE = st.sampled_from(["ann", "ann", "bob"])
CONTENTS = st.sampled_from(["echo", "echo", "put", "unlabelled"])
"""What is asked for: a plan that ends at once, one that does not, and the first but for a label."""
CONFLICT, INVALID = "REQUEST_ID_CONFLICT", "INVALID_REQUEST"


@dataclass(frozen=True, slots=True)
class Asked:
    """One caller's request."""

    principal: str
    request_id: str
    content: str

    @property
    def request(self) -> CreatePlanRequest:
        tool = "put" if self.content == "put" else "echo"
        labels = {} if self.content == "unlabelled" else {"a": "b"}
        return CreatePlanRequest(
            steps=(step("s", tool),), labels=labels, request_id=self.request_id, options=PlanOptions()
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What it was answered: a plan, or a reason."""

    plan_id: str = ""
    existing: bool = False
    reason: str = ""


ASKED = st.builds(Asked, PEOPLE, IDS, CONTENTS)


class CreateMachine(RuleBasedStateMachine):
    """Drives one world over its lives."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.journal = HeldJournal()
        self.world = World(self.journal)
        self.known: dict[tuple[str, str], tuple[str, str]] = {}
        """Principal and request_id, to what was asked and the plan."""
        self.plans: set[str] = set()
        self.puts = True
        self.runner.run(self.world.__aenter__())

    def do(self, work: Any) -> Any:
        async def act() -> Any:
            result = await work
            await self.world.settle()
            return result

        return self.runner.run(act())

    # --- what happens

    @rule(asked=ASKED)
    def create(self, asked: Asked) -> None:
        self.check(asked, self.do(self.ask(asked)))

    @rule(asked=ASKED, count=st.integers(2, 4), other=st.booleans())
    def several_at_once(self, asked: Asked, count: int, *, other: bool) -> None:
        """The same request from several connections, and perhaps another one under its id."""
        crowd = [asked] * count + [replace(asked, content="put" if asked.content != "put" else "echo")] * other

        async def all_of_them() -> list[Told]:
            async with asyncio.TaskGroup() as tasks:
                made = [tasks.create_task(self.ask(one)) for one in crowd]

            return [task.result() for task in made]

        told = self.do(all_of_them())
        first = sorted(zip(crowd, told, strict=True), key=lambda one: (bool(one[1].reason), one[1].existing))
        for one, answer in first:  # who made the plan first: the others are judged by what that one got
            self.check(one, answer)

    @rule(asked=ASKED, kept=st.booleans())
    def create_and_crash(self, asked: Asked, *, kept: bool) -> None:
        """Nobody was told; the plan is there, or has never been."""
        before = self.expected(asked)
        answers = self.do(crash_in(self.world, self.journal, [self.ask(asked)], kept=kept))
        assert before is not None or not answers, "a plan was acknowledged before it was durable"
        self.unasked(asked, before, kept=kept)

    @rule(asked=ASKED)
    def caller_goes_away(self, asked: Asked) -> None:
        """What was begun goes on without it."""
        before = self.expected(asked)

        async def leave() -> None:
            self.journal.held = True
            task = asyncio.get_running_loop().create_task(self.ask(asked))
            await self.world.settle()
            task.cancel()
            await asyncio.wait([task])
            self.journal.go_on()

        self.do(leave())
        self.unasked(asked, before, kept=True)

    @rule(seconds=st.sampled_from([60.0, 23 * HOUR, 30 * HOUR]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.world.advance(seconds))

    @rule()
    def crash(self) -> None:
        self.do(self.world.crash())

    @rule()
    def a_tool_goes_or_comes_back(self) -> None:
        """What was made with it is still found by who asks again."""
        self.puts = not self.puts
        offered = self.world.tools.offered
        self.world.tools.offered = [
            replace(one, name="put" if self.puts else "gone") if _is_put(one) else one for one in offered
        ]
        self.do(self.world.crash())

    @precondition(lambda self: self.plans)
    @rule(rules=st.sampled_from([Rules(max_plans=1), Rules(DAY, 2 * DAY), Rules(timedelta(0))]))
    def sweep(self, rules: Rules) -> None:
        before = self.do(self.listed())
        self.do(Retention(self.journal, self.world.feed, self.world.clock, rules, pause_seconds=0.0).sweep())
        gone = before.keys() - self.do(self.listed()).keys()
        for plan_id in gone:
            end = before[plan_id]
            assert end is not None, "a plan went that had not ended"
            assert self.world.clock.now() - end > DAY, "an id was kept for less than a day"

        self.plans -= gone
        self.known = {key: value for key, value in self.known.items() if value[1] not in gone}

    # --- the model

    def teardown(self) -> None:
        try:
            listed = self.do(self.listed()).keys()
            assert listed >= self.plans, "a plan that was acknowledged is gone"
            assert listed <= self.plans, "there is a plan too many"
            for (principal, request_id), (content, plan_id) in self.known.items():
                again = self.do(self.ask(Asked(principal, request_id, content)))
                assert again == Told(plan_id, existing=True), f"{request_id} of {principal} is forgotten"
        finally:
            self.runner.run(self.world.__aexit__())
            self.runner.close()

    async def ask(self, asked: Asked) -> Told:
        request = asked.request
        digest = request_digest(request) if request.request_id else ""
        try:
            plan, existing = await self.world.scheduler.create(request, principal=asked.principal, digest=digest)
        except AutoglmError as error:
            return Told(reason=error.reason)

        return Told(plan.id, existing)

    def expected(self, asked: Asked) -> Told | None:
        """What the answer must be; None: a new plan."""
        known = self.known.get((asked.principal, asked.request_id)) if asked.request_id else None
        if known is not None and known[0] == asked.content:
            return Told(known[1], existing=True)

        if asked.content == "put" and not self.puts:
            return Told(reason=INVALID)

        return None if known is None else Told(reason=CONFLICT)

    def check(self, asked: Asked, told: Told) -> None:
        expected = self.expected(asked)
        if expected is not None:
            assert told == expected, f"{asked}: {told}, not {expected}"
            return

        assert not told.reason, f"{asked} was refused {told.reason}"
        assert not told.existing, f"{asked} found {told.plan_id}, which nobody made of it"
        assert told.plan_id not in self.plans
        self.made(asked, told.plan_id)

    def made(self, asked: Asked, plan_id: str) -> None:
        self.plans.add(plan_id)
        if asked.request_id:
            self.known[asked.principal, asked.request_id] = (asked.content, plan_id)

    def unasked(self, asked: Asked, expected: Told | None, *, kept: bool) -> None:
        """Take in a plan that nobody was told of: who asks again is told."""
        new = self.do(self.listed()).keys() - self.plans
        if expected is not None or not kept:
            assert not new, "a plan that was refused, lost or there already was made"
            return

        assert len(new) == 1, f"{len(new)} plans were made"
        self.made(asked, new.pop())

    async def listed(self) -> dict[str, datetime | None]:
        """Give the plans there are, and when they ended."""
        return {row.plan_id: row.end_time for row in (await self.journal.list_rows(PlanQuery(page_size=1000))).rows}


def _is_put(tool: Any) -> bool:
    return tool.name in ("put", "gone")


def test_create_model() -> None:
    run_state_machine_as_test(CreateMachine, settings=SETTINGS)


# --- controls: what the machine must find


def forgets_ids(patch: pytest.MonkeyPatch) -> None:
    """A broken journal: it does not keep what a plan was asked for as."""
    append = HeldJournal.append
    patch.setattr(HeldJournal, "append", lambda self, one: append(self, replace(one, request_key=None)))


def takes_everyone_for_one(patch: pytest.MonkeyPatch) -> None:
    """A broken scheduler: an id is the same whoever uses it."""
    patch.setattr(
        module, "RequestKey", lambda tenant, _, request_id, digest: RequestKey(tenant, "", request_id, digest)
    )


def looks_at_no_content(patch: pytest.MonkeyPatch) -> None:
    """Another: what is asked under a known id is not compared."""
    patch.setattr("tests.server.scheduler.test_create_model.request_digest", lambda _: "the same")


def forgets_soon(patch: pytest.MonkeyPatch) -> None:
    """Broken retention: too many plans are too many, however young."""
    patch.setattr(retention, "KEYS_KEPT", timedelta(0))


def answers_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    """Another: a plan is acknowledged before the disk has it."""

    def durable_soon(self: PlanRun, sequence: int) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future

    patch.setattr(PlanRun, "durable_soon", durable_soon)


BROKEN: list[Callable[[pytest.MonkeyPatch], None]] = [
    forgets_ids,
    takes_everyone_for_one,
    looks_at_no_content,
    forgets_soon,
    answers_before_it_is_durable,
]


@pytest.mark.parametrize("broken", BROKEN)
def test_control_broken_ids_are_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None]
) -> None:
    broken(monkeypatch)
    hunt = settings(SETTINGS, max_examples=300, derandomize=True, phases=[Phase.generate], print_blob=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(CreateMachine, settings=hunt)
