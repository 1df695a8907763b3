"""A round of the rules planner: reads a request by the phrases that tools declare, and tells the results in sentences."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from autoglm.model import Plan, Step, StepDraft, StepState
from autoglm_server.clock import Clock
from autoglm_server.planner.planner import AnswerText, PlannerError, RoundItem, RoundView
from autoglm_server.planner.rules import faults
from autoglm_server.planner.rules.answers import plain, sentences, unsuccessful
from autoglm_server.planner.rules.binding import Binder, Bound
from autoglm_server.planner.rules.examples import file_requests, some_requests
from autoglm_server.planner.rules.phrasebook import know
from autoglm_server.planner.rules.quoting import with_quotes
from autoglm_server.planner.rules.reading import TooManyClausesError, read
from autoglm_server.planner.rules.source import Source
from autoglm_server.planner.rules.source import chinese as has_chinese
from autoglm_server.planner.rules.typos import corrected

_THREAD_ABOVE = 1000
"""From how many characters on a request is read beside the loop: the longest take most of a second."""


async def make_round(view: RoundView, clock: Clock) -> AsyncIterator[RoundItem]:
    """Read the request anew, and give the steps of it that are not there yet; when all are, the answer.

    Nothing is kept between rounds, so a round that was cut by a crash is gone on with by the next.

    Raises:
        PlannerError: REQUEST_NOT_UNDERSTOOD with a violation for each clause; MAX_STEPS or MAX_ROUNDS, before any step;
            INVALID_PLAN when drafts were refused.
    """
    if view.rejected:
        raise PlannerError(faults.refused(view.rejected, chinese=has_chinese(view.plan.request)))

    made = {step.id: step for step in view.plan.steps if step.round > 0}
    large = len(view.plan.request) > _THREAD_ABOVE
    bound, chinese = (
        await asyncio.to_thread(_understand, view, made, clock) if large else _understand(view, made, clock)
    )
    drafts = [] if made and view.last else list(_missing(bound, made))

    if drafts:
        _check_room(view, len(bound), len(drafts), chinese=chinese)

    for draft in drafts:
        yield draft

    if not drafts:
        for text in _answer(bound, view.plan, chinese=chinese):
            yield AnswerText(text)


def _understand(view: RoundView, made: Mapping[str, Step], clock: Clock) -> tuple[list[Bound], bool]:
    """Read and bind the request, and tell whether it is in Chinese.

    If the steps there are were made by another reading (the tools changed since), give none: they are told as they are.
    """
    source = Source(view.plan.request)
    chinese = source.chinese
    known = [know(tool) for tool in view.tools]
    today = (view.plan.create_time or clock.now()).date()

    try:
        clauses = read(source, known, today)
    except TooManyClausesError as error:
        raise PlannerError(faults.too_many_clauses(str(error), chinese=chinese)) from None

    given = [step for step in view.plan.steps if step.round == 0]
    bound, problems = Binder({tool.name: tool for tool in known}, given, chinese=chinese).bind(clauses)

    if made:
        same = {(one.draft.id, one.draft.tool) for one in bound} >= {(step.id, step.tool) for step in made.values()}
        return (bound if same else []), chinese

    if len(bound) < len(clauses) or not clauses:
        disabled = view.plan.options is not None and view.plan.options.enable_tool_call is False
        unread = faults.not_understood(
            clauses,
            problems,
            known,
            meant=lambda clause: corrected(clause, known, today),
            quoted=lambda clause: with_quotes(clause, known, today),
            examples=lambda: some_requests(view.tools, chinese=chinese),
            with_files=lambda: file_requests(view.tools, chinese=chinese),
            chinese=chinese,
        )
        raise PlannerError(faults.tools_disabled(chinese=chinese) if disabled else unread)

    return bound, chinese


def _missing(bound: Sequence[Bound], made: Mapping[str, Step]) -> Iterator[StepDraft]:
    """Give the drafts that are not steps yet, but not those that need what an earlier round failed to give."""
    lost = {step.id for step in made.values() if step.state is not StepState.SUCCEEDED}

    for one in bound:
        if one.draft.id in made:
            continue

        if lost.isdisjoint(one.needs):
            yield one.draft
        else:
            lost.add(one.draft.id)


def _check_room(view: RoundView, clauses: int, drafts: int, *, chinese: bool) -> None:
    """Refuse before the first draft what could not be done as a whole."""
    options = view.plan.options

    if options is not None and options.enable_tool_call is False:
        raise PlannerError(faults.tools_disabled(chinese=chinese))

    if drafts > view.steps_left:
        raise PlannerError(faults.too_many_steps(clauses, view.steps_left, chinese=chinese))

    if view.last:
        raise PlannerError(faults.no_round_left(chinese=chinese))


def _answer(bound: Sequence[Bound], plan: Plan, *, chinese: bool) -> Iterator[str]:
    steps = {step.id: step for step in plan.steps}
    told = sentences(bound, steps, chinese=chinese) if bound else _as_they_are(plan, chinese=chinese)
    between = "" if chinese else " "

    for index, sentence in enumerate(told):
        yield f"{between if index else ''}{sentence}"


def _as_they_are(plan: Plan, *, chinese: bool) -> Iterator[str]:
    titles = {step.id: step.title or step.id for step in plan.steps}

    for step in plan.steps:
        if step.round == 0:
            continue

        if step.state is StepState.SUCCEEDED:
            yield plain(titles[step.id], step.result.output if step.result else None, chinese=chinese)
        else:
            yield unsuccessful(titles[step.id], step, titles, chinese=chinese)
