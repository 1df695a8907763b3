"""How a plan begins: its first events, its row and its steps, of which each part is written once.

What the codec would write of the values is put together from its parts, field by field: ids and times stand in several places,
and all that a step gets from its tool is what the steps of that tool got before. What is rare is written by the codec.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from autoglm._dataclasses import maker
from autoglm.errors import InvalidRequestError
from autoglm.model import Event, Plan, PlanState, Step, StepAdded, StepCounts, Usage, Violation
from autoglm.wire import FieldHeads, encode, form_of, struct_bytes, time_bytes
from autoglm_server.scheduler.drafts import NO_ARGUMENTS, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from autoglm.model import PlanCreated
    from autoglm_server.scheduler.drafts import Checked, Rules
    from autoglm_server.scheduler.run import PlanRun

STEPS_MAX: Final = 256
"""Of how many kinds of steps the form is known."""


class _Heads:
    """What stands before each field, and what all new plans have."""

    def __init__(self) -> None:
        self.event_plan_id, self.event_time = FieldHeads(Event, "plan_id"), FieldHeads(Event, "event_time")
        self.event_principal, self.event_step_id = FieldHeads(Event, "principal"), FieldHeads(Event, "step_id")
        self.created, self.added = FieldHeads(Event, "plan_created"), FieldHeads(Event, "step_added")
        self.id, self.request, self.options = (FieldHeads(Plan, name) for name in ("id", "request", "options"))
        self.state, self.usage = encode(Plan(state=PlanState.QUEUED)), encode(Plan(usage=Usage()))
        self.principal, self.request_id = FieldHeads(Plan, "principal"), FieldHeads(Plan, "request_id")
        self.context_id, self.time = FieldHeads(Plan, "context_id"), FieldHeads(Plan, "create_time")
        self.plan_step, self.step = FieldHeads(Plan, "steps"), FieldHeads(StepAdded, "step")
        self.step_id, self.step_title = FieldHeads(Step, "id"), FieldHeads(Step, "title")
        self.step_arguments, self.step_depends_on = FieldHeads(Step, "arguments"), FieldHeads(Step, "depends_on")
        self.step_time = FieldHeads(Step, "create_time")
        self.first = encode(Event(sequence=1))
        self.make_step = maker(Step)


_heads = cache(_Heads)
"""Made when the first plan is: at a start there is none, and shapes take a while to be read."""


class Beginnings:
    """Begins plans. The forms of the steps that were met lately are kept."""

    def __init__(self) -> None:
        """Begin with none."""
        self._steps: dict[tuple[object, ...], _StepForm] = {}

    def begin(
        self, run: PlanRun, created: PlanCreated, checked: Sequence[Checked], principal: str, rules: Rules
    ) -> tuple[bytes, bytes]:
        """Give a new plan its first events; gives it in view BASIC, and what view FULL has besides.

        Raises:
            InvalidRequestError: what came before the request makes an event that is too large.
        """
        heads, now, plan_id = _heads(), run.now(), run.plan.id
        time, name, asked, options = time_bytes(now), plan_id.encode(), encode(created), encode(created.options)
        whose, at = heads.event_plan_id[len(name)] + name, heads.event_time[len(time)] + time
        since = heads.step_time[len(time)] + time
        who = heads.event_principal.text(principal) if principal else b""
        bodies = [b"".join((whose, heads.first, at, who, heads.created[len(asked)], asked))]
        if (size := len(bodies[0])) > (most := rules.limits.event_bytes):
            told = f"event 1 of plan {plan_id} has {size} bytes, at most {most}"
            told = f"{told}; leave out or shorten what came before the request"
            raise InvalidRequestError.of([Violation("context", told, "TOO_LARGE")])

        steps: list[Step] = []
        rest: list[bytes] = []
        for sequence, one in enumerate(checked, 2):
            step, written = self._form_of(one, rules).fill(one, now, since)
            size, raw = len(written), step.id.encode()
            head, about = heads.step[size], heads.event_step_id[len(raw)]
            added = heads.added[len(head) + size]
            bodies.append(b"".join((whose, _sequence(Event, sequence), at, about, raw, added, head, written)))
            run.references[step.id] = one.references
            steps.append(step)
            rest += (heads.plan_step[size], written)

        run.create(created, steps, principal, now, bodies)
        if created.context:
            rest.append(encode(Plan(context=created.context)))

        basic = (
            heads.id[len(name)],
            name,
            heads.request.text(created.request) if created.request else b"",
            heads.state,
            heads.options[len(options)],
            options,
            encode(Plan(labels=created.labels)) if created.labels else b"",
            heads.usage,
            _counts(len(checked)),
            heads.principal.text(principal) if principal else b"",
            heads.request_id.text(created.request_id),
            encode(Plan(parent=created.parent)) if created.parent is not None else b"",
            heads.context_id.text(created.context_id) if created.context_id else b"",
            heads.time[len(time)],
            time,
            _sequence(Plan, len(checked) + 1),
        )
        return b"".join(basic), b"".join(rest)

    def _form_of(self, one: Checked, rules: Rules) -> _StepForm:
        """Give the form of a step; it holds for steps of the same tool that leave the same to it, by the same rules."""
        draft, tool, limits = one.draft, one.tool, rules.limits
        kind = id(tool), draft.retry_policy, draft.timeout, draft.requires_approval, rules.options.approval_tools
        form = self._steps.get(kind)
        if form is None or form.tool is not tool or form.limits is not limits:
            if len(self._steps) >= STEPS_MAX:
                self._steps.clear()

            form = self._steps[kind] = _StepForm(one, rules)

        return form


class _StepForm:
    """What the steps of a tool have that leave the same to it."""

    __slots__ = ("_between", "_heads", "_like", "limits", "tool")

    def __init__(self, one: Checked, rules: Rules) -> None:
        self.tool, self.limits = one.tool, rules.limits
        self._heads = _heads()
        self._like = resolve(one, rules, 0, None)
        self._between = form_of(self._like, ("id", "title", "arguments", "depends_on", "create_time"))

    def fill(self, one: Checked, now: datetime, since: bytes) -> tuple[Step, bytes]:
        """Give the step of a draft that is added now, and its bytes."""
        heads, draft, like = self._heads, one.draft, self._like
        before, after_id, after_title, after_arguments, after_depends_on, last = self._between
        arguments, depends_on = draft.arguments or NO_ARGUMENTS, one.depends_on
        name, raw = draft.id.encode(), struct_bytes(arguments)
        written = (
            before,
            heads.step_id[len(name)],
            name,
            after_id,
            heads.step_title.text(draft.title) if draft.title else b"",
            after_title,
            heads.step_arguments[len(raw)],
            raw,
            after_arguments,
            b"".join([heads.step_depends_on.text(each) for each in depends_on]) if depends_on else b"",
            after_depends_on,
            since,
            last,
        )
        step = heads.make_step(
            draft.id,
            draft.title,
            like.tool,
            arguments,
            depends_on,
            like.retry_policy,
            like.timeout,
            like.requires_approval,
            like.effect,
            like.tool_digest,
            like.state,
            create_time=now,
            provider=like.provider,
        )
        return step, b"".join(written)


@lru_cache(maxsize=1024)
def _sequence(kind: type[Event | Plan], number: int) -> bytes:
    return encode(kind(sequence=number))


@lru_cache(maxsize=1024)
def _counts(steps: int) -> bytes:
    return encode(Plan(step_counts=StepCounts(steps)))
