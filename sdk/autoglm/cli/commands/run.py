"""``run`` and ``watch``: make a plan, follow it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.text import Text

from autoglm.cli import follow, tables
from autoglm.cli.exits import Exit, InputError, violation_lines
from autoglm.cli.options import (
    Address,
    AsJson,
    Budgets,
    DataDir,
    Ephemeral,
    Labels,
    PlanId,
    Providers,
    named,
    read_budget,
    read_labels,
    session_of,
)
from autoglm.cli.plan_file import read_plan
from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, Plan, PlanOptions, PlanView

RUN_EXAMPLES = """\
Examples:

\b
  autoglm run "15% of 2480, then convert it from kilometers to miles"
  autoglm run --plan plan.yaml --label team=data > answer.txt
  autoglm run "what time is it in Tokyo" --json
  autoglm run --plan - --dry-run < plan.json

A plan outlives this command. Ctrl-C asks whether to cancel it; with --json, or without a terminal, it is left running
(exit status 130). Exit status: 0 it succeeded, 1 it failed, 2 wrong usage or input, 3 it was cancelled, 4 the server
cannot be reached.
"""
WATCH_EXAMPLES = """\
Examples:

\b
  autoglm watch 01jq8w3v5d7e9f2g4h6j8k0m2n
  autoglm watch 8k0m2n --after 12 --json

The events are those that `run` showed, also of a plan that has ended. Exit status: as of `run`.
"""


def run(
    context: typer.Context,
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST", show_default=False, help="What is wanted, in natural language.")
    ] = None,
    *,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", metavar="FILE", help="A CreatePlanRequest as JSON or YAML; - reads stdin. With REQUEST: both."
        ),
    ] = None,
    json: AsJson = False,
    ephemeral: Ephemeral = False,
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", metavar="N", help="The most steps the planner may add.", show_default=False),
    ] = None,
    budget: Budgets = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="Answer without calling tools.")] = False,
    planner: Annotated[str | None, typer.Option("--planner", metavar="NAME", help="Who plans: rules, llm.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model that plans, as provider:name; implies llm.")
    ] = None,
    label: Labels = None,
    approve_tools: Annotated[
        list[str] | None,
        typer.Option("--approve-tools", metavar="GLOB", help="Ask before calls of these tools too (repeatable)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it and show the plan that would run; make nothing.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the plan's id and leave it running.")] = False,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Run a request or a plan, live; the answer comes last.

    The answer is all that goes to stdout, unless --json asks for the events.
    """
    session = session_of(context, address, data_dir, provider)

    if request is None and plan is None:
        raise InputError("REQUEST is missing: say what is wanted, or give steps with --plan FILE")

    if dry_run and detach:
        raise InputError("--dry-run makes no plan that --detach could leave running; give one of them")

    if ephemeral and not json:
        raise InputError("--ephemeral is for --json; the tree and the lines show progress anyway")

    wanted = read_plan(plan, session.input_bytes()) if plan is not None else CreatePlanRequest()
    wanted = _with_request(wanted, request)
    wanted = replace(
        wanted,
        labels={**wanted.labels, **read_labels(label)},
        options=_options(
            wanted.options,
            max_steps,
            budget=budget or [],
            no_tools=no_tools,
            planner=planner,
            model=model,
            approve_tools=approve_tools or [],
        ),
    )
    source = "stdin" if plan == "-" else plan or ""

    with session.client() as client:
        try:
            if dry_run or wanted.validate_only:
                found = client.validate(replace(wanted, validate_only=True))
                session.give(found, tables.plan(found, session.target), as_json=json)
                return Exit.SUCCEEDED

            created = client.create(wanted)
        except InvalidRequestError as error:
            if not source or not error.violations:
                raise

            raise InputError(*violation_lines(error.violations, source=source)) from None

        if detach:
            session.give(created, Text(created.id), as_json=json)
            return Exit.SUCCEEDED

        if json:
            return follow.record(session, client, created.id, ephemeral=ephemeral)

        return follow.Follower(session, client, created.id).run()


def watch(
    context: typer.Context,
    plan: PlanId,
    *,
    after: Annotated[
        int,
        typer.Option("--after", metavar="N", min=0, help="Only the events after this sequence.", show_default=False),
    ] = 0,
    json: AsJson = False,
    ephemeral: Ephemeral = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Follow a plan from its start, or from a sequence, to its end."""
    session = session_of(context, address, data_dir)

    if ephemeral and not json:
        raise InputError("--ephemeral is for --json; the tree and the lines show progress anyway")

    with session.client() as client, named(client, plan) as plan_id:
        if json:
            return follow.record(session, client, plan_id, after=after, ephemeral=ephemeral)

        if after:
            _check_cursor(client.get(plan_id, view=PlanView.BASIC), after)

        return follow.Follower(session, client, plan_id, after).run()


def _check_cursor(plan: Plan, after: int) -> None:
    """Refuse a place that the plan has not come to: what is drawn is watched from the start, so no server would."""
    if after > plan.sequence:
        raise InputError(
            f"--after {after}: plan {plan.id} has come to sequence {plan.sequence}; give a sequence up to that"
        )


def _with_request(wanted: CreatePlanRequest, request: str | None) -> CreatePlanRequest:
    if request is None:
        return wanted

    if wanted.request:
        raise InputError("REQUEST is given, and the file of --plan has a `request` too; give it in one place")

    return replace(wanted, request=request)


def _options(
    options: PlanOptions | None,
    max_steps: int | None,
    *,
    budget: list[str],
    no_tools: bool,
    planner: str | None,
    model: str | None,
    approve_tools: list[str],
) -> PlanOptions | None:
    """Lay what the flags say over what the file says; nothing said stays nothing, so that the server's defaults hold."""
    said = options or PlanOptions()

    if max_steps is not None:
        said = replace(said, max_steps=max_steps)

    if budget:
        said = replace(said, budget=read_budget(budget, said.budget))

    if no_tools:
        said = replace(said, enable_tool_call=False)

    if planner:
        said = replace(said, planner=planner)

    if model:
        said = replace(said, model=model, planner=said.planner or "llm")

    if approve_tools:
        said = replace(said, approval_tools=(*said.approval_tools, *approve_tools))

    return said if options is not None or said != PlanOptions() else None
