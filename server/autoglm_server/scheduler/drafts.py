"""From drafts to steps: every fault of a draft at once, and everything resolved that a step freezes for its life."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from autoglm._dataclasses import dataclass, maker
from autoglm.errors import InvalidRequestError
from autoglm.model import Effect, JsonObject, PlanOptions, RetryPolicy, Step, StepDraft, StepState, Tool, Violation
from autoglm.wire import WireError, carried, normal_json
from autoglm_server.scheduler.dependencies import Before, Given, Known, may_hint, unmet
from autoglm_server.scheduler.subplans import times_read
from autoglm_server.tools.fields import place
from autoglm_server.tools.references import Reference, References, compile_references
from autoglm_server.tools.tool import PLAN_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from autoglm.fold import StepFold
    from autoglm_server.scheduler.limits import Limits
    from autoglm_server.tools.catalog import Catalog

RETRY_POLICY = RetryPolicy(3, timedelta(seconds=0.5), timedelta(seconds=30), 2.0)
"""How READ_ONLY and IDEMPOTENT calls are retried where nobody says otherwise."""

NO_RETRY = replace(RETRY_POLICY, max_attempts=1)
"""NON_IDEMPOTENT calls are made once."""

CHECKS_MAX = 256
"""Of how many lists of steps it is known what was found."""

NO_ARGUMENTS: JsonObject = {}
"""Of all steps that have none: nobody changes a step's arguments, a call is made with a copy."""

VIOLATIONS_MAX = 1_000
"""How many faults of a request are looked for: a caller is told the first twenty or so."""

# In a module's own names a member of an enum is found at a tenth of what its class takes.
_NON_IDEMPOTENT, _PENDING = Effect.NON_IDEMPOTENT, StepState.PENDING

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Checked:
    """A draft without faults: its references compiled, its dependencies complete."""

    draft: StepDraft
    tool: Tool
    references: References
    depends_on: tuple[str, ...]


_make_checked = maker(Checked)


@dataclass(frozen=True, slots=True)
class Rules:
    """What drafts are checked against. ``depth`` is how many plans are above theirs."""

    catalog: Catalog
    options: PlanOptions
    limits: Limits
    depth: int = 0

    @property
    def tools(self) -> list[Tool]:
        """The tools that the plan may use."""
        tools = self.catalog.tools(self.options.allowed_tools) if self.options.enable_tool_call else []
        return tools if self.may_nest else [tool for tool in tools if tool.name != PLAN_RUN]

    @property
    def may_nest(self) -> bool:
        """Whether the plan may have sub-plans."""
        return self.depth < self.limits.plan_depth


def allowed(name: str, options: PlanOptions) -> bool:
    """Whether the plan may use the tool."""
    return not options.allowed_tools or any(fnmatchcase(name, glob) for glob in options.allowed_tools)


def check_given(drafts: Sequence[StepDraft], rules: Rules) -> tuple[list[Checked], list[Violation]]:
    """Check the caller's own steps, which may stand in any order; give them so that each follows what it depends on."""
    violations: list[Violation] = []
    if len(drafts) > rules.limits.steps:
        description = f"{len(drafts)} steps are more than the limit of {rules.limits.steps}; split the plan"
        return [], [Violation("steps", description, "TOO_MANY")]

    given = Given({draft.id: draft.tool for draft in drafts})
    if len(given.tools) < len(drafts):
        violations += islice(_repeated(drafts), VIOLATIONS_MAX)

    checked: list[Checked] = []
    edges: dict[str, tuple[str, ...]] = {}
    for index, draft in enumerate(drafts):
        one, faults, depends_on = _check(draft, f"steps[{index}].", rules, given)
        if depends_on:
            edges[draft.id] = depends_on

        if one is not None:
            checked.append(one)
            continue

        violations += faults
        if len(violations) >= VIOLATIONS_MAX:
            return [], violations[:VIOLATIONS_MAX]

    if not edges:
        return ([], violations) if violations else (checked, [])

    ids = [draft.id for draft in drafts]
    order, around = _sorted(ids, _told_apart(ids, edges) if violations else edges)
    if around:  # first, as a caller is told some faults only
        told = " → ".join(around if len(around) <= 12 else [*around[:11], "…"])
        description = f"the steps depend on each other in a circle: {told}; leave one of these dependencies out"
        violations.insert(0, Violation(f"steps[{ids.index(around[0])}].depends_on", description, "CYCLE"))

    if violations:
        return [], violations[:VIOLATIONS_MAX]

    by_id = {one.draft.id: one for one in checked}
    return [by_id[step_id] for step_id in order], []


def _told_apart(ids: Sequence[str], edges: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leave out what is told of each step by itself: on which step it cannot depend, and whose id says nothing."""
    sound = {step_id for step_id, times in Counter(ids).items() if times == 1 and _ID.match(step_id)}
    return {
        step_id: tuple(other for other in depends_on if other != step_id)
        for step_id, depends_on in edges.items()
        if step_id in sound
    }


class Checks:
    """What was found of given steps that are asked for again and again, by which object they are and by what rules.

    It is the same each time while each step is as it was written, with nothing in it that is filled in, such as a secret.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[int, tuple[Sequence[StepDraft], object, Rules, list[Checked]]] = {}

    def check(self, drafts: Sequence[StepDraft], rules: Rules) -> tuple[list[Checked], list[Violation]]:
        """Do as :func:`check_given`, but not twice by the same tools, options and limits."""
        known, offer = self._known.get(id(drafts)), rules.catalog.offer
        if known is not None and known[0] is drafts and known[1] is offer and known[2] is rules:
            return known[3], []

        checked, violations = check_given(drafts, rules)
        if not violations and all(one.references.as_written for one in checked):
            if len(self._known) >= CHECKS_MAX:
                self._known.clear()

            self._known[id(drafts)] = drafts, offer, rules, checked

        return checked, violations


def _repeated(drafts: Sequence[StepDraft]) -> Iterator[Violation]:
    first: dict[str, int] = {}
    for index, draft in enumerate(drafts):
        known = first.setdefault(draft.id, index)
        if known != index:
            description = f"id {draft.id!r} is steps[{known}]'s already; ids are unique in the plan"
            yield Violation(f"steps[{index}].id", description, "DUPLICATE")


def check_planned(
    draft: StepDraft, steps: Mapping[str, StepFold], round_number: int, rules: Rules
) -> tuple[Checked | None, list[Violation]]:
    """Check a planner's draft: it refers only to steps before it, and to none of an earlier round without an output.

    Its arguments become what they will be when they are read back from the journal.
    """
    violations: list[Violation] = []
    if draft.id in steps:
        description = f"id {draft.id!r} is another step's already; ids are unique in the plan, over all rounds"
        violations.append(Violation("id", description, "DUPLICATE"))

    try:
        draft = replace(draft, arguments=normal_json(draft.arguments or {}))
    except WireError as error:
        return None, [*violations, *error.violations]

    one, faults, _ = _check(draft, "", rules, Before(steps))
    violations += faults
    for dependency in one.depends_on if one is not None else ():
        step = steps[dependency]
        if step.added.round < round_number and step.state.terminal and step.state is not StepState.SUCCEEDED:
            description = f"step {dependency!r} of an earlier round ended {step.state.name} and has no output"
            violations.append(Violation("depends_on", description, "NO_OUTPUT"))

    return (None, violations) if violations else (one, [])


def _check(
    draft: StepDraft, at: str, rules: Rules, known: Known
) -> tuple[Checked | None, list[Violation], tuple[str, ...]]:
    """Check a draft; ``at`` is what stands before its fields in violations. Gives what it depends on, too, at fault or not."""
    violations: list[Violation] = []
    if not _ID.match(draft.id):
        description = f"id {draft.id[:80]!r} must be 1 to 64 letters, digits, '_' or '-', not beginning with '-'"
        violations.append(Violation(f"{at}id", description, "MALFORMED" if draft.id else "REQUIRED"))

    arguments, text, oversize = draft.arguments or NO_ARGUMENTS, "{}", False
    if arguments:
        _, text, faults = carried(arguments, f"{at}arguments", bytes_max=rules.limits.arguments_bytes)
        violations, oversize = violations + faults, len(faults) > 0

    references: References | None = None
    if not oversize:
        try:
            references = compile_references(arguments, f"{at}arguments", text=text)
        except InvalidRequestError as error:
            violations += error.violations

    found = references.found if references is not None else ()
    depends_on: tuple[str, ...] = ()
    if found or draft.depends_on:
        depends_on, faults = _depended_on(draft, at, found, rules.catalog, known)
        violations += faults

    tool = rules.catalog.get(draft.tool)
    if tool is None:
        near = rules.catalog.nearest(draft.tool[:128]) if may_hint(known) else []
        meant = f"; did you mean {' or '.join(near)}?" if near else "; `autoglm tools` lists them"
        violations.append(Violation(f"{at}tool", f"there is no tool {draft.tool[:128]!r}{meant}", "UNKNOWN_TOOL"))
    elif rules.options.allowed_tools and not allowed(draft.tool, rules.options):
        description = f"tool {draft.tool!r} is not among options.allowed_tools {list(rules.options.allowed_tools)}"
        violations.append(Violation(f"{at}tool", description, "NOT_ALLOWED"))
    elif draft.tool == PLAN_RUN and not rules.may_nest:
        description = f"this plan is {rules.depth} deep in others, and limits.plan_depth is {rules.limits.plan_depth}"
        violations.append(Violation(f"{at}tool", f"{description}; do it with steps of its own", "TOO_DEEP"))
    elif references is not None and rules.catalog.fit_as_written(draft.tool, arguments, text):
        references.as_written = len(text) <= rules.limits.journaled_arguments_bytes
    elif not oversize:
        violations += rules.catalog.check_written(draft.tool, arguments, field=f"{at}arguments")
        if draft.tool == PLAN_RUN and references is not None:
            violations += _made_of_data(arguments, references, f"{at}arguments")

    if violations or tool is None or references is None:
        return None, violations, depends_on

    return _make_checked(draft, tool, references, depends_on), violations, depends_on


def _depended_on(
    draft: StepDraft, at: str, found: Iterable[tuple[str, Reference]], catalog: Catalog, known: Known
) -> tuple[tuple[str, ...], list[Violation]]:
    """Give what a step depends on, by what it says and by its references; and what of it cannot be."""
    wanted = [(f"{at}depends_on", dependency, "") for dependency in draft.depends_on]
    wanted += [(place, reference.step_id, reference.member) for place, reference in found]
    unmets = (fault for one in wanted if (fault := unmet(draft.id, *one, catalog, known)) is not None)
    return tuple(dict.fromkeys(step_id for _, step_id, _ in wanted)), list(islice(unmets, VIOLATIONS_MAX))


def _made_of_data(arguments: JsonObject, references: References, field: str) -> list[Violation]:
    """Refuse references where a sub-plan's steps are written: an output may fill their arguments, and never be a step."""
    description = "an output cannot make steps, nor choose their tools; refer to it in the arguments of a step"
    places = [path for path in references.paths if times_read(arguments, path) is None]
    return [Violation(place(field, path), description, "NOT_HERE") for path in places]


def _sorted(ids: Iterable[str], edges: Mapping[str, tuple[str, ...]]) -> tuple[Iterable[str], list[str]]:
    """Sort so that each step follows what it depends on, keeping the given order where it already does; or give a circle."""
    done: dict[str, None] = {}
    for start in ids:
        path: dict[str, int] = {}
        stack = [start]
        while stack:
            step_id = stack[-1]
            if step_id in done:
                stack.pop()
                continue

            dependencies = edges.get(step_id, ())
            position = path.setdefault(step_id, 0)
            while position < len(dependencies) and dependencies[position] in done:
                position += 1

            path[step_id] = position
            if position == len(dependencies):
                done[step_id] = None
                del path[step_id]
                stack.pop()
            elif dependencies[position] in path:
                return (), [*stack[stack.index(dependencies[position]) :], dependencies[position]]
            else:
                stack.append(dependencies[position])

    return done, []


def resolve(checked: Checked, rules: Rules, round_number: int, now: datetime | None) -> Step:
    """Make the step: what the draft leaves open comes from the tool, then from the defaults, and is frozen."""
    draft, tool = checked.draft, checked.tool
    effect = tool.effect or _NON_IDEMPOTENT
    policy = NO_RETRY if effect is _NON_IDEMPOTENT else RETRY_POLICY
    for wanted in (tool.retry_policy, draft.retry_policy):
        policy = policy if wanted is None else _completed(wanted, policy)

    globs = rules.options.approval_tools
    return Step(
        draft.id,
        draft.title,
        draft.tool,
        draft.arguments or NO_ARGUMENTS,
        checked.depends_on,
        policy,
        draft.timeout or tool.timeout or _seconds(rules.limits.step_timeout),
        draft.requires_approval
        or tool.requires_approval
        or (len(globs) > 0 and any(fnmatchcase(draft.tool, glob) for glob in globs)),
        effect,
        tool.digest,
        _PENDING,
        round_number,
        create_time=now,
        provider=tool.provider,
    )


@cache
def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def _completed(wanted: RetryPolicy, default: RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        wanted.max_attempts or default.max_attempts,
        default.initial_backoff if wanted.initial_backoff is None else wanted.initial_backoff,
        default.max_backoff if wanted.max_backoff is None else wanted.max_backoff,
        wanted.backoff_multiplier or default.backoff_multiplier,
    )
