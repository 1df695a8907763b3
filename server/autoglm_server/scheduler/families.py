"""Plans and their sub-plans: who rests, what is left to them together, and what a sub-plan may do.

A sub-plan runs in the place of the plan at the top of its family, so that it never waits for a place that its parent holds. A
family gives its place up when all that is left of it waits for people.

All draw on one budget: what a sub-plan has used by now counts to every plan above it while it runs, and when it has ended its
usage is its step's. So sub-plans that run at once cannot use more together than there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from autoglm._dataclasses import dataclass
from autoglm.errors import InvalidRequestError
from autoglm.model import Budget, ErrorReason, PlanOptions, PlanState, Usage, Violation
from autoglm_server.scheduler.decide import failure_of
from autoglm_server.scheduler.state import Pool
from autoglm_server.tools.tool import ToolCallError

if TYPE_CHECKING:
    from autoglm_server.scheduler.run import PlanRun
    from autoglm_server.tools.catalog import Catalog

T = TypeVar("T", int, timedelta)

_SHORTEST = timedelta(milliseconds=1)


def root_of(run: PlanRun) -> PlanRun:
    """Give the plan at the top of the family."""
    while run.parent is not None:
        run = run.parent

    return run


def members(run: PlanRun) -> Iterator[PlanRun]:
    """Give the plan and all plans below it."""
    yield run
    for child in list(run.children.values()):
        yield from members(child)


def rests(run: PlanRun) -> bool:
    """Whether nothing can happen in the plan, nor below it, before a person decides something."""
    state = run.plan.state
    if not run.children:
        return state.terminal or state is PlanState.WAITING

    return _only_follows(run) and all(not child.plan.state.terminal and rests(child) for child in run.children.values())


def _only_follows(run: PlanRun) -> bool:
    """Whether all that a plan has under way are its sub-plans."""
    plan = run.plan
    if plan.stopping is not None or plan.planning or len(plan.running) != len(run.children):
        return False

    full = len(plan.running) >= (run.state.options.max_parallel_steps or 1)
    return not (plan.backing_off or plan.interrupted or plan.doomed or plan.unapproved or (plan.ready and not full))


def used(run: PlanRun) -> Usage:
    """Give what a plan and the sub-plans below it, of steps that have not ended, have used by now."""
    below = sum((used(child) for child in run.children.values()), run.plan.usage)
    return sum(run.left.values(), below) if run.left else below


def pool(run: PlanRun) -> Pool:
    """Give what is left for the plan, of its own budget and of those above it."""
    calls: list[int] = []
    tokens: list[int] = []
    above: PlanRun | None = run
    while above is not None:
        budget = above.state.options.budget
        if budget is not None:
            spent = used(above)
            if budget.max_tool_calls is not None:
                calls.append(budget.max_tool_calls - spent.tool_calls)

            if budget.max_tokens is not None:
                tokens.append(budget.max_tokens - spent.input_tokens - spent.output_tokens)

        above = above.parent

    return Pool(min(calls, default=None), min(tokens, default=None))


@dataclass(frozen=True, slots=True)
class Share:
    """What a plan leaves to a sub-plan that begins now."""

    options: PlanOptions
    pool: Pool
    rounds: int | None
    timeout: timedelta | None
    duration: timedelta | None


def share_of(run: PlanRun, now: float) -> Share:
    """Say what ``run`` leaves to a sub-plan that begins ``now`` (seconds of the monotonic clock)."""
    state = run.state
    budget = state.options.budget
    most = budget.max_rounds if budget is not None else None
    return Share(
        state.options,
        pool(run),
        None if most is None else most - len(run.plan.rounds),
        _left(state.deadline, now),
        _left(state.budget_deadline, now),
    )


def _left(deadline: float | None, now: float) -> timedelta | None:
    return None if deadline is None else max(_SHORTEST, timedelta(seconds=deadline - now))


def options_of_child(asked: PlanOptions, share: Share, catalog: Catalog, *, plans: bool) -> PlanOptions:
    """Give the options that a sub-plan is created with, but for the server's defaults: never more than its parent has.

    ``plans`` is whether it has a request, and so needs a planner.

    Raises:
        ToolCallError: BUDGET_EXCEEDED: nothing is left.
        InvalidRequestError: it may use no tool at all.
    """
    parent = share.options
    own_planner = bool(asked.planner) and asked.planner != parent.planner
    return replace(
        asked,
        timeout=_least(asked.timeout, share.timeout),
        waiting_timeout=asked.waiting_timeout or parent.waiting_timeout,
        max_parallel_steps=min(
            asked.max_parallel_steps or parent.max_parallel_steps or 1, parent.max_parallel_steps or 1
        ),
        planner=asked.planner or parent.planner,
        model=asked.model or ("" if own_planner else parent.model),
        allowed_tools=_tools(asked.allowed_tools, parent.allowed_tools, catalog),
        approval_tools=tuple(dict.fromkeys((*parent.approval_tools, *asked.approval_tools))),
        on_unknown_outcome=parent.on_unknown_outcome,
        budget=_budget(asked.budget or Budget(), share, plans=plans),
    )


def _tools(asked: tuple[str, ...], parent: tuple[str, ...], catalog: Catalog) -> tuple[str, ...]:
    """Give the globs of what both allow; where both say some, the names of the tools there are, since globs do not intersect."""
    if not asked or not parent:
        return asked or parent

    both = tuple(
        tool.name for tool in catalog.tools(asked) if any(fnmatchcase(tool.name, pattern) for pattern in parent)
    )
    if both:
        return both

    description = f"of {list(asked)}, the plan that calls this may use none: its allowed_tools are {list(parent)}"
    raise InvalidRequestError.of([Violation("options.allowed_tools", description, "NOT_ALLOWED")])


def _budget(asked: Budget, share: Share, *, plans: bool) -> Budget | None:
    spent = {
        "max_tokens": share.pool.tokens is not None and share.pool.tokens < 1,
        "max_tool_calls": share.pool.calls is not None and share.pool.calls < 1,
        "max_rounds": plans and share.rounds is not None and share.rounds < 1,
    }
    if gone := [name for name, is_spent in spent.items() if is_spent]:
        message = f"nothing is left of the plan's budget for a sub-plan: {', '.join(gone)}"
        raise ToolCallError(failure_of(ErrorReason.BUDGET_EXCEEDED, message, budget=gone[0]))

    budget = Budget(
        _least(asked.max_tokens, share.pool.tokens),
        _least(asked.max_tool_calls, share.pool.calls),
        _least(asked.max_rounds, share.rounds if plans else None),
        _least(asked.max_duration, share.duration),
    )
    return budget if budget != Budget() else None


def _least(asked: T | None, left: T | None) -> T | None:
    return min((each for each in (asked, left) if each is not None), default=None)
