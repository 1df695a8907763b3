"""Plans that are asked for alike: what they have in common is checked and written once.

Programs ask for the same few plans over and over. The events that such plans begin with, and their rows, differ only in ids,
times, who asks, and by which request_id. So the first two of a kind are made in full, and those behind them are filled in.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from autoglm._dataclasses import dataclass
from autoglm.model import Event, Plan, PlanCreated, Step, StepAdded
from autoglm.wire import FieldHeads, Form, time_bytes
from autoglm_server.tools.secrets import SCHEME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from autoglm.model import CreatePlanRequest, PlanOptions
    from autoglm_server.scheduler.drafts import Checked
    from autoglm_server.scheduler.limits import Limits
    from autoglm_server.scheduler.run import PlanRun
    from autoglm_server.tools.references import References

KINDS_MAX: Final = 256
"""How many kinds of plans are known."""
BYTES_MAX: Final = 4096
"""A plan whose first events are more is not kept: there are few alike, and they cost more elsewhere."""
_SECRET: Final = SCHEME.encode()


class _Heads:
    """What stands before each field that is filled in."""

    __slots__ = (
        "added",
        "created",
        "digest",
        "event_plan_id",
        "event_principal",
        "event_time",
        "plan_id",
        "plan_principal",
        "plan_request_id",
        "plan_step",
        "plan_time",
        "request_id",
        "step",
        "step_time",
    )

    def __init__(self) -> None:
        self.event_plan_id, self.event_time = FieldHeads(Event, "plan_id"), FieldHeads(Event, "event_time")
        self.event_principal = FieldHeads(Event, "principal")
        self.created, self.added = FieldHeads(Event, "plan_created"), FieldHeads(Event, "step_added")
        self.request_id = FieldHeads(PlanCreated, "request_id")
        self.digest = FieldHeads(PlanCreated, "request_digest")
        self.step, self.step_time = FieldHeads(StepAdded, "step"), FieldHeads(Step, "create_time")
        self.plan_id, self.plan_principal = FieldHeads(Plan, "id"), FieldHeads(Plan, "principal")
        self.plan_request_id, self.plan_time = FieldHeads(Plan, "request_id"), FieldHeads(Plan, "create_time")
        self.plan_step = FieldHeads(Plan, "steps")


_heads = cache(_Heads)
"""Made when the first mould is: at a start there are none, and shapes take a while to be read."""


@dataclass(slots=True)
class Kind:
    """Plans that are asked for alike, and by which rules one was checked and completed."""

    request: CreatePlanRequest
    tools: object
    defaults: PlanOptions
    limits: Limits
    options: PlanOptions
    checked: list[Checked]
    mould: Mould | None = None
    """What they are made with; None until there was a second one."""


class Kinds:
    """The kinds of plans that were asked for lately. One is found by the very objects that its requests share."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kinds: dict[int, Kind] = {}

    def __len__(self) -> int:
        """How many are known."""
        return len(self._kinds)

    def find(self, request: CreatePlanRequest, tools: object, defaults: PlanOptions, limits: Limits) -> Kind | None:
        """Give the kind that a request is of, if it is known and the rules are still the same."""
        kind = self._kinds.get(id(request.labels))
        if kind is None or kind.tools is not tools or kind.defaults is not defaults or kind.limits is not limits:
            return None

        known = kind.request
        alike = (
            request.labels is known.labels
            and request.steps is known.steps
            and request.options is known.options
            and request.request == known.request
            and request.context_id == known.context_id
            and not request.context
        )
        return kind if alike else None

    def keep(self, kind: Kind, begins: Sequence[bytes]) -> None:
        """Keep a kind by its first plan, which begins with these events, if it is small and always checked in one way."""
        large = sum(map(len, begins)) > BYTES_MAX or kind.limits.event_bytes < 2 * BYTES_MAX
        if large or kind.request.context or any(_SECRET in body for body in begins):
            return

        if len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()

        self._kinds[id(kind.request.labels)] = kind


class Mould:
    """What plans of a kind are made with: their first events, their row and their steps, with blanks."""

    __slots__ = ("_created", "_first", "_heads", "_row", "_steps")

    def __init__(self, run: PlanRun, checked: Sequence[Checked]) -> None:
        """Take the mould of a plan of the kind, which is new, and whose drafts these were."""
        plan = run.plan
        self._heads = _heads()
        self._created = Form(plan.created, ("request_id", "request_digest"))
        self._first = Form(Event(sequence=1), ("plan_id", "event_time", "principal", "plan_created"))
        self._row = Form(plan.basic(), ("id", "principal", "request_id", "create_time"))
        self._steps = [
            _Step(step.added, sequence, one.references)
            for sequence, (step, one) in enumerate(zip(plan.steps.values(), checked, strict=True), 2)
        ]

    def make(
        self, run: PlanRun, request: CreatePlanRequest, options: PlanOptions, principal: str, digest: str
    ) -> tuple[bytes, bytes]:
        """Give a new plan its first events; gives it in view BASIC, and what view FULL has besides."""
        now, plan_id, request_id, heads = run.host.clock.now(), run.plan.id, request.request_id, self._heads
        time, name = time_bytes(now), plan_id.encode()
        length = len(time)
        whose, at = heads.event_plan_id[len(name)] + name, heads.event_time[length] + time
        who = heads.event_principal.text(principal) if principal else b""
        body = self._created.fill(heads.request_id.text(request_id), heads.digest.text(digest))
        created = PlanCreated(request.request, options, request.labels, request_id, digest, None, request.context_id)
        event = Event(plan_id, 1, now, "", 0, False, 0, principal, created)  # noqa: FBT003
        run.take(event, self._first.fill(whose, at, who, heads.created[len(body)] + body))
        rest: list[bytes] = []
        since = heads.step_time[length] + time
        for sequence, step in enumerate(self._steps, 2):
            written = step.form.fill(since)
            size = len(written)
            body = heads.step[size] + written
            body = step.event.fill(whose, at, heads.added[len(body)] + body)
            event = Event(plan_id, sequence, now, step.id, fact=StepAdded(step.of(now)))
            run.take(event, body)
            run.references[step.id] = step.references
            rest += (heads.plan_step[size], written)

        basic = self._row.fill(
            heads.plan_id[len(name)] + name,
            heads.plan_principal.text(principal) if principal else b"",
            heads.plan_request_id.text(request_id),
            heads.plan_time[length] + time,
        )
        return basic, b"".join(rest)


class _Step:
    """A step that the plans of a kind have."""

    __slots__ = ("_step", "event", "form", "id", "references")

    def __init__(self, step: Step, sequence: int, references: References) -> None:
        self._step = step
        self.id = step.id
        self.form = Form(step, ("create_time",))
        self.event = Form(Event(sequence=sequence, step_id=step.id), ("plan_id", "event_time", "step_added"))
        self.references = references

    def of(self, now: datetime) -> Step:
        """Give it as a plan has it that is made now."""
        step = self._step
        return Step(
            step.id,
            step.title,
            step.tool,
            step.arguments,
            step.depends_on,
            step.retry_policy,
            step.timeout,
            step.requires_approval,
            step.effect,
            step.tool_digest,
            step.state,
            create_time=now,
            provider=step.provider,
        )
