"""``autoglm doctor``: one check after the other, each with a verdict, and a remedy when it is not well."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from autoglm import local
from autoglm._dataclasses import dataclass
from autoglm._version import __version__
from autoglm.cli import PIP_LINE, models
from autoglm.cli.exits import Exit, status_of_error
from autoglm.cli.session import PlanClient, Session
from autoglm.cli.text import clean, duration, one_line
from autoglm.errors import AutoglmError, UnavailableError
from autoglm.fold import PlanFold
from autoglm.model import CreatePlanRequest, JsonObject, Plan, PlanState, StepDraft

LABEL = "autoglm-doctor"
"""The label of the plans that doctor makes."""
SERVICES = ("autoglm.v1.PlanService", "autoglm.v1.ToolService", "grpc.health.v1.Health")
DEFAULT_PORT = 50051
FREE_BYTES_MIN = 100 << 20
CONNECT_TIMEOUT = 5.0
_UNREACHABLE = "start it (autoglm serve), or check --address and AUTOGLM_ADDRESS"
_EXTRAS = {
    "duckdb": "table.query (pip install 'open-autoglm[server,data]')",
    "httpcore2": "http.* and OpenAPI (pip install 'open-autoglm[server,openapi]')",
    "mcp": "MCP (pip install 'open-autoglm[server,mcp]')",
    "pydantic_ai": "models (pip install 'open-autoglm[server,llm]')",
}
_NOT_STARTED = "see the lines above, and server.log in the data directory"
_REPAIR = "stop the server, then run: autoglm doctor --repair"
_NOT_OF_EVENTS = frozenset({"expire_time"})  # what the server adds to a snapshot: how long it will be kept


class Verdict(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. ``remedy`` says what to do, unless all is well."""

    name: str
    verdict: Verdict
    detail: str = ""
    remedy: str = ""
    exit: Exit = Exit.SUCCEEDED

    def lines(self) -> Iterator[str]:
        """Give the check as text."""
        yield f"{self.verdict.value:<8} {self.name}: {one_line(self.detail)}"

        if self.remedy:
            yield f"         to fix: {clean(self.remedy)}"

    def to_object(self) -> JsonObject:
        """Give the check as JSON."""
        return {"check": self.name, "verdict": self.verdict.value, "detail": self.detail, "remedy": self.remedy}


def status(checks: list[Check]) -> Exit:
    """Give the exit status of a report: unreachable before failed."""
    return max((check.exit for check in checks if check.verdict is Verdict.FAILED), default=Exit.SUCCEEDED)


def examine(session: Session) -> Iterator[Check]:
    """Make all checks, in the order in which a remedy helps the next."""
    target = session.target
    address = target.address or ("" if target.data_dir else session.environment.get("AUTOGLM_ADDRESS", ""))

    if address:
        yield Check(
            "data directory", Verdict.SKIPPED, f"the server is {address}; its data directory is not ours to look at"
        )
    else:
        yield installation()
        yield data_directory(local.data_dir(target.data_dir))
        yield planner(session)
        yield extras()

    try:
        with session.client() as client:
            yield from _server(session, client, address)
    except AutoglmError as error:
        yield Check(
            "server",
            Verdict.FAILED,
            error.message,
            _remedy(error, _UNREACHABLE if address else _NOT_STARTED),
            status_of_error(error),
        )
        yield from (
            Check(name, Verdict.SKIPPED, "no server") for name in ("port", "health", "reflection", "round trip", "fold")
        )


def installation() -> Check:
    """Look for the packages of the embedded server."""
    missing = local.missing_packages()

    if missing:
        return _failed("installation", f"not installed: {', '.join(missing)}", PIP_LINE)

    return Check("installation", Verdict.OK, f"autoglm {__version__} with the embedded server")


def planner(session: Session) -> Check:
    """Ask which planner the embedded server would use, whether there is a key for a model, and whether anything serves it."""
    said = models.ask(session.environment)

    if said is None:
        return Check("planner", Verdict.SKIPPED, "the installed server does not say")

    well, detail, remedy = models.verdict(said)

    if well and (why := models.unreachable(said)):
        remedy = "start what serves the model, or correct the address of it (planner.base_url), see docs/models.md"
        return Check("planner", Verdict.WARNING, f"{detail}; {why}", remedy)

    return Check("planner", Verdict.OK, detail) if well else _failed("planner", detail, remedy)


def extras() -> Check:
    """Say which tools that need more are not there, and what would bring them."""
    missing = [tools for package, tools in _EXTRAS.items() if importlib.util.find_spec(package) is None]

    if missing:
        return Check("extras", Verdict.OK, f"not installed: {', '.join(missing)}")

    return Check("extras", Verdict.OK, "table.query, http.* and OpenAPI, MCP and models can be used")


def data_directory(folder: Path) -> Check:
    """Look whether the data directory can be made, written, and is nobody else's."""
    name = "data directory"
    elsewhere = "choose another with --data-dir or AUTOGLM_DATA_DIR"
    nearest = folder

    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent

    if not nearest.is_dir():
        return _failed(name, f"{nearest} is no folder", elsewhere)

    if not os.access(nearest, os.W_OK | os.X_OK):
        return _failed(name, f"{nearest} cannot be written by this user", f"chown or chmod it, or {elsewhere}")

    facts = os.statvfs(nearest)
    free = facts.f_bavail * facts.f_frsize

    if free < FREE_BYTES_MIN:
        return Check(name, Verdict.WARNING, f"{folder} has {free >> 20} MiB left", f"make room, or {elsewhere}")

    if nearest != folder:
        return Check(name, Verdict.OK, f"{folder} will be made when it is needed")

    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return Check(name, Verdict.WARNING, f"{folder} can be entered by other users", f"chmod 700 {folder}")

    holder = local.read(folder)
    held = f", in use by process {holder.pid}, version {holder.version}" if holder else ", not in use"
    return Check(name, Verdict.OK, f"{folder}{held}")


def _server(session: Session, client: PlanClient, address: str) -> Iterator[Check]:
    yield port(client.address)

    if not address:
        yield default_port(client.address)

    try:
        health = client.health()
        info = client.info()
    except AutoglmError as error:
        away = isinstance(error, UnavailableError)
        remedy = "start it (autoglm serve), or name one that runs (--address)" if away else "look at the server's log"
        yield Check("health", Verdict.FAILED, error.message, _remedy(error, remedy), status_of_error(error))
        yield from (Check(name, Verdict.SKIPPED, "no health") for name in ("reflection", "round trip", "fold"))
        return

    # First what writes to the journal: a server finds damage when it meets it, and has no health from then on.
    made = list(round_trip(session, client))
    damaged = any(check.remedy == _REPAIR for check in made)
    yield serving(health, info.version, damaged=damaged)
    yield reflection(client.address)
    yield from made


def port(address: str) -> Check:
    """Look whether something listens at the address."""
    name = "port"

    try:
        with _connection(address):
            return Check(name, Verdict.OK, f"{address} accepts connections")
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Check(
            name,
            Verdict.FAILED,
            f"{address} accepts no connection: {told}",
            "start the server (autoglm serve), open the port, or correct the address",
            Exit.UNREACHABLE,
        )


def default_port(address: str) -> Check:
    """Look whether ``autoglm serve`` would find its port free."""
    name = "default port"

    if address.endswith(f":{DEFAULT_PORT}"):
        return Check(name, Verdict.OK, f"{DEFAULT_PORT} is this server's")

    try:
        with _connection(f"127.0.0.1:{DEFAULT_PORT}"):
            pass
    except OSError:
        return Check(name, Verdict.OK, f"{DEFAULT_PORT} is free for autoglm serve")

    told = f"{DEFAULT_PORT} is taken by another program; autoglm serve cannot listen there"
    return Check(name, Verdict.WARNING, told, "autoglm serve --port PORT")


def serving(health: str, version: str, *, damaged: bool = False) -> Check:
    """Judge what the server says of its health and version."""
    if damaged:
        return _failed("health", "the server's journal is damaged; it is only read from", _REPAIR)

    if health != "SERVING":
        told = f"the server says {health}: it starts, drains, or cannot write (disk full, or a damaged journal)"
        return _failed(
            "health", told, "wait a little; then look at the server's log and at the free space of its data directory"
        )

    if version != __version__:
        told = f"SERVING, version {version}; this command is {__version__}"
        return Check("health", Verdict.WARNING, told, "use the same version on both sides")

    return Check("health", Verdict.OK, f"SERVING, version {version}")


def reflection(address: str) -> Check:
    """Ask the server for its services, as grpcurl does."""
    name = "reflection"

    if importlib.util.find_spec("grpc_reflection") is None:
        return Check(name, Verdict.SKIPPED, "needs the package grpcio-reflection", PIP_LINE)

    from autoglm.cli.reflection import services  # noqa: PLC0415 - gRPC, and a package of an extra

    missing: dict[str, list[str]] = {}

    for version in ("v1", "v1alpha"):
        found = services(address, version, timeout=CONNECT_TIMEOUT)
        missing[version] = [service for service in SERVICES if service not in found]

    if not any(missing.values()):
        return Check(name, Verdict.OK, f"{', '.join(SERVICES)}")

    told = "; ".join(f"{version} does not show {', '.join(lacking)}" for version, lacking in missing.items() if lacking)
    return Check(
        name, Verdict.WARNING, told, "turn reflection on in the server's settings; only grpcurl and the like need it"
    )


def round_trip(session: Session, client: PlanClient) -> Iterator[Check]:
    """Run a tiny plan, and compare the fold of its events with what GetPlan says."""
    step = StepDraft(id="sum", tool="math.calculate", arguments={"expression": "1 + 1"})
    begun = session.monotonic()

    try:
        created = client.create(CreatePlanRequest(steps=(step,), labels={LABEL: "true"}))
        fold = PlanFold(created.id)

        for event in client.watch(created.id, durable_only=True):
            fold.apply(event)

        took = duration(session.monotonic() - begun)
        plan = client.get(created.id)
    except AutoglmError as error:
        # What a server would refuse of this plan is that it does not have the tool.
        lacking = status_of_error(error) is Exit.USAGE
        remedy = "the server lacks the built-in tools; see autoglm tools" if lacking else "look at the server's log"
        remedy = _remedy(error, remedy)
        yield Check("round trip", Verdict.FAILED, error.message, remedy, status_of_error(error))
        yield Check("fold", Verdict.SKIPPED, "no plan")
        return

    folded = fold.snapshot()
    yield outcome(plan, took)
    yield same(folded, plan)


def outcome(plan: Plan, took: str) -> Check:
    """Judge the tiny plan."""
    output = plan.steps[0].result.output if plan.steps and plan.steps[0].result else None

    if plan.state is not PlanState.SUCCEEDED or output is None:
        why = plan.failure.message if plan.failure else f"it is {plan.state.name.lower()} with {output!r}"
        return _failed("round trip", f"plan {plan.id} did not succeed: {why}", f"autoglm show {plan.id}")

    return Check("round trip", Verdict.OK, f"a plan of one step ran in {took}")


def same(folded: Plan, plan: Plan) -> Check:
    """Compare the fold of WatchPlan(0) with GetPlan."""
    names = [field.name for field in dataclasses.fields(Plan) if field.name not in _NOT_OF_EVENTS]
    other = [name for name in names if getattr(folded, name) != getattr(plan, name)]

    if other:
        told = f"the fold of plan {plan.id}'s events is not what GetPlan says, in: {', '.join(other)}"
        return _failed(
            "fold", told, "this is a bug of the server or of this version; report it with `autoglm watch PLAN --json`"
        )

    return Check("fold", Verdict.OK, f"the fold of {plan.sequence} events is what GetPlan says")


def _connection(address: str) -> socket.socket:
    """Connect to ``host:port`` or ``unix:///path``; raises OSError or ValueError."""
    if address.startswith("unix://"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(CONNECT_TIMEOUT)

        try:
            connection.connect(address.removeprefix("unix://"))
        except OSError:
            connection.close()
            raise

        return connection

    host, _, number = address.rpartition(":")
    return socket.create_connection((host.rpartition("/")[2].strip("[]"), int(number)), timeout=CONNECT_TIMEOUT)


def _remedy(error: AutoglmError, otherwise: str) -> str:
    """Say what to do of an error: of a damaged journal, which also the log of a server that did not start tells of, repair it."""
    damaged = error.reason == "JOURNAL_DAMAGED" or "autoglm doctor --repair" in error.message
    return _REPAIR if damaged else otherwise


def _failed(name: str, detail: str, remedy: str) -> Check:
    return Check(name, Verdict.FAILED, detail, remedy, Exit.FAILED)
