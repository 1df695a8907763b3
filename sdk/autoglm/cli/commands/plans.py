"""``plans``, ``show``, ``cancel`` and ``resolve``: look at plans, and steer them."""

from __future__ import annotations

import enum
import json as json_text
from contextlib import nullcontext, suppress
from itertools import islice
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from autoglm import wire
from autoglm.cli import nested, tables, tree, waits
from autoglm.cli.exits import Exit, InputError
from autoglm.cli.options import (
    Address,
    AsJson,
    DataDir,
    Labels,
    PlanId,
    did_you_mean,
    named,
    read_json,
    read_labels,
    session_of,
)
from autoglm.cli.rounds import render, stories
from autoglm.cli.session import PlanClient, Session
from autoglm.cli.text import moment, one_line
from autoglm.errors import InvalidRequestError, NotFoundError
from autoglm.model import Decision, Plan, PlanState, PlanView, Step, ToolResult, WaitingReason

STEPS_TOLD = 3
"""How many of its steps say what a plan without a request is for."""

PLANS_EXAMPLES = """\
Examples:

\b
  autoglm plans
  autoglm plans --state waiting              what waits for me, and how to decide it
  autoglm plans --state failed --label team=data --json
  autoglm plans --parent 8k0m2n              the sub-plans that its steps run

A plan is `waiting` when all that is left of it waits for a person. One that has other work is `running`; `autoglm show`
names the steps of it that wait.
"""
SHOW_EXAMPLES = """\
Examples:

\b
  autoglm show 01jq8w3v5d7e9f2g4h6j8k0m2n
  autoglm show 8k0m2n --json
  autoglm show 8k0m2n --rounds               what the planner was asked and answered, tokens, time

Exit status: 0 when it could be shown, however the plan ended.
"""
CANCEL_EXAMPLES = """\
Examples:

\b
  autoglm cancel 8k0m2n --reason "asked for the wrong thing"

The plan has stopped when it is `cancelled`; `autoglm watch` waits for that.
"""
RESOLVE_EXAMPLES = """\
Examples:

\b
  autoglm resolve 8k0m2n pay --wait 12 --approve
  autoglm resolve 8k0m2n pay --reject --comment "not this account"
  autoglm resolve 8k0m2n pay --output '{"receipt": 4711}'

What a step waits for, and the exact commands, are in `autoglm plans --state waiting`. A call that may have taken effect takes
--retry instead of --approve. --wait names the wait that was looked at, so that a decision never meets a later one.
"""


class State(enum.StrEnum):
    """A plan's state, as it is written on a command line."""

    QUEUED = "queued"
    PLANNING = "planning"
    RUNNING = "running"
    WAITING = "waiting"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


def plans(
    context: typer.Context,
    *,
    state: Annotated[
        list[State] | None, typer.Option("--state", help="Only plans in this state (repeatable).", case_sensitive=False)
    ] = None,
    label: Labels = None,
    parent: Annotated[
        str, typer.Option("--parent", metavar="PLAN", help="Only sub-plans of this plan.", show_default=False)
    ] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The most plans to list.")] = 50,
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """List plans, newest first."""
    session = session_of(context, address, data_dir)
    labels = read_labels(label)
    states = [PlanState[each.name] for each in state or ()]

    with session.client() as client:
        with named(client, parent) if parent else nullcontext("") as above:
            found = list(islice(client.list(states=states, labels=labels, parent_plan_id=above), limit + 1))

        for plan in found[:limit] if json else ():
            session.record(wire.to_json(plan))

        if not json and states == [PlanState.WAITING]:
            _show_waiting(session, client, found[:limit])
        elif not json and found:
            session.show(tables.plans(found[:limit], _given(client, found[:limit])))

    if not found and not json:
        session.tell(
            "There is no such plan."
            if states or labels or parent
            else "There is no plan yet. Make one: autoglm run REQUEST"
        )

    if len(found) > limit:
        session.tell(f"There are more than {limit}; list more with --limit.")

    return Exit.SUCCEEDED


def _given(client: PlanClient, found: list[Plan]) -> dict[str, list[Step]]:
    """Give the first steps of the plans without a request, which say what such a plan is for."""
    first: dict[str, list[Step]] = {}

    for plan in found:
        with suppress(NotFoundError):  # gone since it was listed
            first[plan.id] = [] if plan.request else list(islice(client.list_steps(plan.id), STEPS_TOLD))

    return first


def show(
    context: typer.Context,
    plan: PlanId,
    *,
    rounds: Annotated[
        bool, typer.Option("--rounds", help="Show the planner's rounds instead: asked, planned, refused, tokens, time.")
    ] = False,
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Show a plan as it is now: its steps, what waits, its answer."""
    session = session_of(context, address, data_dir)

    with session.client() as client, named(client, plan) as plan_id:
        if rounds:
            return _show_rounds(session, client, plan_id, as_json=json)

        found = client.get(plan_id)
        below = {} if json else nested.fetch(found, client.get)

    session.give(found, tables.plan(found, session.target, below), as_json=json)
    return Exit.SUCCEEDED


def _show_rounds(session: Session, client: PlanClient, plan_id: str, *, as_json: bool) -> int:
    last = client.get(plan_id, view=PlanView.BASIC).sequence
    events = []

    for event in client.watch(plan_id, durable_only=True):
        events.append(event)

        if event.sequence >= last:
            break

    found = stories(events)

    for story in found if as_json else ():
        session.record(json_text.dumps(story.to_object(), ensure_ascii=False, sort_keys=True))

    if not as_json and found:
        session.show(render(found))
    elif not found:
        session.tell("The plan has no round: its steps were given.")

    return Exit.SUCCEEDED


def cancel(
    context: typer.Context,
    plan: PlanId,
    *,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the plan's events.", show_default=False)
    ] = "",
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Ask a plan to stop."""
    session = session_of(context, address, data_dir)

    with session.client() as client, named(client, plan) as plan_id:
        found = client.cancel(plan_id, reason)

    ended = found.state in (PlanState.SUCCEEDED, PlanState.FAILED)
    told = f"had ended already: {found.state.name.lower()}" if ended else found.state.name.lower()
    session.give(found, Text(f"{one_line(found.id)} {told}"), as_json=json)
    return Exit.SUCCEEDED


_DONE = {"approve": "approved", "reject": "rejected", "retry": "to be tried again", "output": "given its result"}


def resolve(
    context: typer.Context,
    plan: PlanId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step that waits.")],
    *,
    approve: Annotated[bool, typer.Option("--approve", help="Make the call.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Do not make the call; the step fails.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Make the call again; it may then take effect twice.")] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="JSON", help="The step's output, given by you; @FILE and - read it."),
    ] = None,
    wait: Annotated[
        int,
        typer.Option("--wait", metavar="N", min=0, help="The wait that is meant, by its sequence.", show_default=False),
    ] = 0,
    comment: Annotated[
        str, typer.Option("--comment", metavar="TEXT", help="Kept in the plan's events.", show_default=False)
    ] = "",
    json: AsJson = False,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Decide what a step waits for."""
    session = session_of(context, address, data_dir)
    words = [word for word, given in (("approve", approve), ("reject", reject), ("retry", retry)) if given]

    if len(words) + (output is not None) != 1:
        raise InputError("give exactly one of --approve, --reject, --retry and --output JSON")

    decision = (
        waits.decision(words[0], comment)
        if words
        else Decision(ToolResult(read_json("--output", output or "", session)))
    )

    with session.client() as client, named(client, plan) as plan_id:
        try:
            found = client.resolve(plan_id, step, decision, wait_sequence=wait, comment=comment)
        except NotFoundError as error:
            if error.reason != "STEP_NOT_FOUND":
                raise

            known = [each.id for each in client.get(plan_id).steps]
            raise NotFoundError(did_you_mean(error.message, step, known), reason=error.reason) from None
        except InvalidRequestError as error:
            if error.reason != "DECISION_NOT_ALLOWED":
                raise

            reason = WaitingReason[error.metadata.get("waits_for", "UNSPECIFIED")]
            flags = ", ".join(f"--{word}" for word in waits.decisions(reason))
            told = f"step {one_line(step)} {tree.WAITING_WORDS.get(reason, 'waits')}: decide with one of {flags}, --output JSON"
            raise InputError(told) from None

    done = _DONE[words[0] if words else "output"]
    session.give(
        found, Text(f"{one_line(step)} {done}; plan {one_line(found.id)} is {found.state.name.lower()}"), as_json=json
    )
    return Exit.SUCCEEDED


def _show_waiting(session: Session, client: PlanClient, found: list[Plan]) -> None:
    """Show what each plan waits for, and the command that decides it."""
    for index, plan in enumerate(found):
        head = "  ".join(part for part in (plan.id, moment(plan.create_time), one_line(plan.request, 200)) if part)
        session.show(Text(("\n" if index else "") + head))

        for wait in waits.waits_of(plan.id, client.get(plan.id).steps):
            for line in (*waits.question(wait), *waits.commands(wait, session.target)):
                session.show(Padding(Text(line), (0, 0, 0, 2)))
