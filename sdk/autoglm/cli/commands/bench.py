"""``bench plan``: runs requests whose plans are known, and says how near a planner comes."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autoglm import wire
from autoglm._dataclasses import dataclass
from autoglm.cli.exits import Exit, InputError, violation_lines
from autoglm.cli.options import Address, DataDir, Providers, session_of
from autoglm.cli.scoring import Score, mean, score
from autoglm.cli.session import PlanClient, Session
from autoglm.cli.text import one_line
from autoglm.errors import InvalidRequestError
from autoglm.model import CreatePlanRequest, JsonObject, Plan, PlanOptions, PlanState, Step

PLAN_EXAMPLES = """\
Examples:

\b
  autoglm bench plan benchmarks/requests.jsonl
  autoglm bench plan benchmarks/requests.jsonl --model ollama:qwen3:8b --json > scores.jsonl
  autoglm bench plan benchmarks/requests.jsonl --dry-run       the first round only, no tool is called

Each line of FILE is an object: `request`, the expected `steps` as in a plan file, an `id` if wanted. Scores are F1 from 0 to 1,
as TaskBench has them: the tools (nodes), which waits for which (edges), the arguments' names and values.
"""
LABEL = "autoglm-bench"
FILE_BYTES_MAX = 64 << 20
CASES_MAX = 100_000
WAITING_TIMEOUT = timedelta(seconds=1)
"""How long a plan may wait for a person: there is none."""

bench = typer.Typer(
    name="bench",
    help="Measure how well requests are planned.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@dataclass(frozen=True, slots=True)
class Case:
    """A request with the plan it should lead to."""

    id: str
    wanted: CreatePlanRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request led to. ``seconds`` is from its creation to its end."""

    id: str
    state: str
    score: Score
    steps: int = 0
    rounds: int = 0
    tokens: int = 0
    seconds: float = 0.0
    failure: str = ""

    def to_object(self) -> JsonObject:
        """Give it as JSON."""
        said: JsonObject = asdict(self)
        scores: JsonObject = said.pop("score")
        return scores | said


@bench.command("plan", epilog=PLAN_EXAMPLES)
def plan(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Requests with expected plans, as JSON lines.")],
    *,
    planner: Annotated[str | None, typer.Option("--planner", metavar="NAME", help="Who plans: rules, llm.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="The model that plans, as provider:name; implies llm.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Score the first round alone; no tool is called, no tokens are told.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The most requests to run.")] = CASES_MAX,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line; the last is the mean.")] = False,
    provider: Providers = None,
    address: Address = None,
    data_dir: DataDir = None,
) -> int:
    """Score a planner on requests whose plans are known."""
    session = session_of(context, address, data_dir, provider)
    cases = read_cases(file)[:limit]
    asked = PlanOptions(planner=planner or ("llm" if model else ""), model=model or "", waiting_timeout=WAITING_TIMEOUT)
    outcomes: list[Outcome] = []

    with session.client() as client:
        for number, case in enumerate(cases, 1):
            outcome = _dry(client, case, asked) if dry_run else _run(session, client, case, asked)
            outcomes.append(outcome)
            session.tell(f"{number}/{len(cases)} {one_line(case.id)}: {outcome.state}")

            if json:
                session.record(json_text.dumps(outcome.to_object(), ensure_ascii=False, sort_keys=True))

    if json:
        session.record(json_text.dumps(summary(outcomes), ensure_ascii=False, sort_keys=True))
    else:
        session.show(table(outcomes))

    return Exit.SUCCEEDED


def read_cases(file: Path) -> list[Case]:
    """Read the requests.

    Raises:
        InputError: the file cannot be read, or with every line that is not as it should be.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)

        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8: byte {error.start} cannot be read") from None

    if len(data) > FILE_BYTES_MAX:
        raise InputError(f"{file}: is larger than {FILE_BYTES_MAX >> 20} MiB")

    cases: list[Case] = []
    faults: list[str] = []

    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                cases.append(_case(line, number))
            except InvalidRequestError as error:
                faults += violation_lines(error.violations, source=f"{file}:{number}")
            except ValueError as error:
                faults.append(f"{file}:{number}: {error}")

    if faults:
        raise InputError(*faults[:50])

    if not cases:
        raise InputError(f"{file}: has no request; write one JSON object a line, with `request` and `steps`")

    return cases


def _case(line: str, number: int) -> Case:
    value = wire.parse_json(line)

    if not isinstance(value, dict):
        raise ValueError("must be an object with `request` and `steps`")  # noqa: TRY004 - it is the file that is wrong

    said = str(value.pop("id", number))
    wanted = wire.from_json(CreatePlanRequest, value)

    if not wanted.request:
        raise ValueError("`request` is missing")

    return Case(said, wanted)


def _dry(client: PlanClient, case: Case, asked: PlanOptions) -> Outcome:
    wanted = replace(case.wanted, steps=(), options=_options(case, asked), validate_only=True)

    try:
        found = client.validate(wanted)
    except InvalidRequestError as error:
        return Outcome(case.id, "refused", score(case.wanted.steps, ()), failure=one_line(error.message, 200))

    return Outcome(case.id, "planned", score(case.wanted.steps, found.steps), len(found.steps))


def _run(session: Session, client: PlanClient, case: Case, asked: PlanOptions) -> Outcome:
    wanted = replace(
        case.wanted, steps=(), options=_options(case, asked), labels={**case.wanted.labels, LABEL: case.id[:63]}
    )
    began = session.monotonic()
    created = client.create(wanted)

    for _ in client.watch(created.id, durable_only=True):
        pass

    seconds = session.monotonic() - began
    ended = client.get(created.id)
    steps = list(ended.steps or client.list_steps(created.id))
    return outcome_of(case, ended, steps, seconds)


def _options(case: Case, asked: PlanOptions) -> PlanOptions:
    """Lay what the command says over what the file says of this request."""
    said = case.wanted.options or PlanOptions()
    return replace(
        said,
        planner=asked.planner or said.planner,
        model=asked.model or said.model,
        waiting_timeout=said.waiting_timeout or asked.waiting_timeout,
    )


def outcome_of(case: Case, ended: Plan, steps: Sequence[Step], seconds: float) -> Outcome:
    """Score a plan that has ended."""
    used = ended.usage
    return Outcome(
        case.id,
        PlanState(ended.state).name.lower(),
        score(case.wanted.steps, steps),
        len(steps),
        len(ended.rounds),
        used.input_tokens + used.output_tokens if used else 0,
        round(seconds, 3),
        one_line(ended.failure.message, 200) if ended.failure else "",
    )


def summary(outcomes: Sequence[Outcome]) -> JsonObject:
    """Give the mean over all requests, and how many there were."""
    means = {
        name: mean(getattr(outcome.score, name) for outcome in outcomes)
        for name in ("nodes", "edges", "names", "values")
    }
    return {
        "id": "mean",
        "requests": len(outcomes),
        "succeeded": sum(outcome.state in {"succeeded", "planned"} for outcome in outcomes),
        **{name: None if value is None else round(value, 4) for name, value in means.items()},
        "steps": mean(float(outcome.steps) for outcome in outcomes),
        "rounds": mean(float(outcome.rounds) for outcome in outcomes),
        "tokens": mean(float(outcome.tokens) for outcome in outcomes),
        "seconds": mean(outcome.seconds for outcome in outcomes),
    }


def table(outcomes: Sequence[Outcome]) -> RenderableType:
    """Show the scores, one request a line, the mean last."""
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    found.add_column("request", header_style="dim", no_wrap=True)
    found.add_column("state", header_style="dim", no_wrap=True)

    for name in ("nodes", "edges", "names", "values", "steps", "rounds", "tokens", "seconds"):
        found.add_column(name, header_style="dim", justify="right", no_wrap=True)

    for outcome in outcomes:
        found.add_row(Text(one_line(outcome.id, 40)), Text(outcome.state), *map(Text, _cells(outcome.to_object())))

    told = summary(outcomes)
    state = f"{told['succeeded']} of {told['requests']}"
    found.add_row(Text("mean", "bold"), Text(state), *map(Text, _cells(told)))
    return found


def _cells(said: JsonObject) -> Iterator[str]:
    for name in ("nodes", "edges", "names", "values"):
        yield "" if said[name] is None else f"{said[name]:.3f}"

    for name in ("steps", "rounds", "tokens"):
        yield f"{said[name] or 0:.4g}"

    yield f"{said['seconds'] or 0:.2f}"
