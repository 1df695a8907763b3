"""A client that follows a script, streams that remember, and plans told as events."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from autoglm.cli.app import run
from autoglm.cli.session import Session, Target
from autoglm.errors import AutoglmError, NotFoundError
from autoglm.fold import PlanFold
from autoglm.model import (
    Artifact,
    CreatePlanRequest,
    Decision,
    Event,
    Fact,
    JsonObject,
    Plan,
    PlanCreated,
    PlanOptions,
    PlanState,
    PlanView,
    RetryPolicy,
    ServerInfo,
    Step,
    StepAdded,
    StepState,
    Tool,
    ToolProgress,
    ToolResult,
)

PLAN = "01jq8w3v5d7e9f2g4h6j8k0m2n"
START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def said(
    fact: Fact,
    *,
    step: str = "",
    attempt: int = 0,
    round: int = 0,
    at: float = 0.0,
    ephemeral: bool = False,
    by: str = "",
) -> Event:
    """An event without its sequence; ``at`` is in seconds after the start."""
    moment = START + timedelta(seconds=at)
    return Event(PLAN, 0, moment, step, attempt, ephemeral, round, by, fact)


def log(*events: Event, plan_id: str = PLAN) -> list[Event]:
    """Number events as the server does."""
    numbered, sequence = [], 0

    for event in events:
        sequence += not event.ephemeral
        numbered.append(replace(event, plan_id=plan_id, sequence=sequence))

    return numbered


def created(request: str = "15% of 2480", **fields: Any) -> Event:
    return said(PlanCreated(request=request, options=PlanOptions(), **fields))


def added(
    id: str,
    tool: str = "math.calculate",
    *,
    after: tuple[str, ...] = (),
    attempts: int = 1,
    at: float = 0.0,
    **fields: Any,
) -> Event:
    step = Step(
        id=id,
        tool=tool,
        arguments=fields.pop("arguments", {"expression": "1"}),
        depends_on=after,
        retry_policy=RetryPolicy(max_attempts=attempts),
        round=1,
        create_time=START,
        **fields,
    )
    return said(StepAdded(step), round=1, at=at)


def fold(events: Iterable[Event], plan_id: str = PLAN) -> PlanFold:
    folded = PlanFold(plan_id)

    for event in events:
        folded.apply(event)

    return folded


class Stream(io.TextIOWrapper):
    """Text over bytes that says whether it is a terminal."""

    def __init__(
        self, text: str = "", *, terminal: bool = False, encoding: str = "utf-8", errors: str = "strict"
    ) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding=encoding, errors=errors, write_through=True, newline="")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


@dataclass
class ScriptedTools:
    """Tools as they are in a list."""

    tools: list[Tool] = field(default_factory=list)
    answer: Callable[[str, JsonObject], ToolResult] = lambda name, arguments: ToolResult(
        {"of": name, "with": arguments}
    )
    progress: tuple[ToolProgress, ...] = ()
    timeout: float | None = None

    def list(self) -> Iterable[Tool]:
        return iter(self.tools)

    def get(self, name: str) -> Tool:
        for tool in self.tools:
            if tool.name == name:
                return tool

        raise NotFoundError(f"There is no tool {name}.", reason="TOOL_NOT_FOUND")

    def call(
        self,
        name: str,
        arguments: JsonObject,
        *,
        timeout: float | None = None,
        progress: Callable[[ToolProgress], None] | None = None,
        save_to: Path | None = None,
        on_file: Callable[[Artifact, Path], None] | None = None,
    ) -> ToolResult:
        for each in self.progress:
            assert progress is not None
            progress(each)

        self.timeout = timeout
        result = self.answer(name, arguments)

        for artifact in result.artifacts if save_to else ():
            assert on_file is not None
            assert save_to is not None
            on_file(artifact, save_to / artifact.name)

        return result


Step_ = Event | AutoglmError | KeyboardInterrupt | Callable[[], None]


@dataclass
class ScriptedClient:
    """Watches give the events of ``logs``; what stands there beside events is raised, or called, when it is reached.

    GetPlan and ListPlans are the fold of the events, as they are on a server.
    """

    logs: dict[str, list[Step_]] = field(default_factory=dict)
    tools: ScriptedTools = field(default_factory=ScriptedTools)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    refuse: dict[str, AutoglmError] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    address: str = "localhost:50051"
    on_cancel: Callable[[], None] = lambda: None
    on_resolve: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def create(self, request: CreatePlanRequest) -> Plan:
        self._ask("create", request)
        return self.get(PLAN)

    def validate(self, request: CreatePlanRequest) -> Plan:
        self._ask("validate", request)
        return replace(self.get(PLAN), id="")

    def get(self, plan_id: str, *, view: PlanView = PlanView.FULL) -> Plan:
        self._refuse("get")

        if plan_id not in self.logs:
            raise NotFoundError(f"There is no plan {plan_id}.", reason="PLAN_NOT_FOUND")

        found = self._fold(plan_id)
        return found.basic() if view is PlanView.BASIC else found.snapshot()

    def save_artifact(
        self,
        plan_id: str,
        artifact: Artifact,
        path: Path,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        self._ask("save_artifact", plan_id, artifact.name, path, overwrite)
        assert progress is not None
        progress(1)

        with path.open("wb" if overwrite else "xb") as file:
            file.write(self.contents[artifact.digest])

        return path

    def list_steps(self, plan_id: str, *, states: Sequence[StepState] = ()) -> Iterator[Step]:
        return (step for step in self._fold(plan_id).snapshot().steps if not states or step.state in states)

    def list(
        self, *, states: Sequence[PlanState] = (), labels: Mapping[str, str] | None = None, parent_plan_id: str = ""
    ) -> Iterable[Plan]:
        for plan_id in self.logs:
            plan = self._fold(plan_id).basic()

            above = plan.parent.plan_id if plan.parent is not None else ""

            if (
                (not states or plan.state in states)
                and (labels or {}).items() <= plan.labels.items()
                and parent_plan_id in ("", above)
            ):
                yield plan

    def watch(self, plan_id: str, *, after_sequence: int = 0, durable_only: bool = False) -> Iterator[Event]:
        self._ask("watch", plan_id, after_sequence, durable_only)

        if plan_id not in self.logs:
            raise NotFoundError(f"There is no plan {plan_id}.", reason="PLAN_NOT_FOUND")

        script = self.logs[plan_id]

        for item in list(script):
            if isinstance(item, Event):
                if (not item.ephemeral and item.sequence > after_sequence) or (item.ephemeral and not durable_only):
                    yield item
            elif isinstance(item, BaseException):
                script.remove(item)
                raise item
            else:
                item()

    def cancel(self, plan_id: str, reason: str = "") -> Plan:
        self._ask("cancel", plan_id, reason)
        self.on_cancel()
        return self.get(plan_id)

    def resolve(
        self, plan_id: str, step_id: str, decision: Decision, *, wait_sequence: int = 0, comment: str = ""
    ) -> Plan:
        self._ask("resolve", plan_id, step_id, decision, wait_sequence, comment)
        self.on_resolve()
        return self.get(plan_id)

    def info(self) -> ServerInfo:
        return ServerInfo("0.1.0", "journal", (), "rules")

    def health(self) -> str:
        self._refuse("health")
        return "SERVING"

    def _fold(self, plan_id: str) -> PlanFold:
        return fold((item for item in self.logs[plan_id] if isinstance(item, Event)), plan_id)

    def _ask(self, *asked: Any) -> None:
        self.asked.append(asked)
        self._refuse(asked[0])

    def _refuse(self, method: str) -> None:
        if method in self.refuse:
            raise self.refuse[method]


@dataclass
class Ran:
    """What a command line did."""

    status: int
    out: str
    err: str
    target: Target
    replaced: list[tuple[list[str], Mapping[str, str]]]


def cli(
    *arguments: str,
    client: ScriptedClient | None = None,
    stdin: str = "",
    terminal: str = "",
    environment: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> Ran:
    """Run a command line against a scripted client; ``terminal`` names the streams that are terminals: ``in out err``."""
    replaced: list[tuple[list[str], Mapping[str, str]]] = []
    terminals = terminal.split()
    reading = Stream(stdin, terminal="in" in terminals)
    out = Stream(terminal="out" in terminals, encoding=encoding)
    err = Stream(terminal="err" in terminals, encoding=encoding, errors="backslashreplace")
    session = Session(
        connect=lambda target, progress: client or ScriptedClient(),
        stdin=reading,
        stdout=out,
        stderr=err,
        environment={"TERM": "xterm", "COLUMNS": "100", "LINES": "40", **(environment or {})},
        now=lambda: START + timedelta(seconds=10),
        replace_process=lambda command, given: replaced.append((command, given)),
    )
    status = run(list(arguments), session)
    return Ran(status, out.text, err.text, session.target, replaced)
