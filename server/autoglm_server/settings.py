"""The server's settings: one documented class for each section, frozen once loaded.

Defaults < YAML file < environment (``AUTOGLM_SECTION__KEY``) < flags. Loading, and naming the source of a fault, is in
:mod:`autoglm_server.configuration`; this module says what there is.
"""

from __future__ import annotations

import fnmatch
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import platformdirs
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


def parse_duration(value: object) -> object:
    """Read ``90``, ``30s``, ``1.5h`` or ``500ms``; what is neither a number nor text is left to the type's check."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value

    found = _DURATION.fullmatch(value) if isinstance(value, str) else None

    try:
        return timedelta(seconds=float(found[1]) * _UNITS[found[2]] if found else float(value))
    except (ValueError, OverflowError):
        raise ValueError("write a number and a unit: 500ms, 30s, 10m, 2h or 7d") from None


def format_duration(value: timedelta) -> str:
    """Write a duration as :func:`parse_duration` reads it, in the largest unit that keeps it whole."""
    milliseconds = round(value.total_seconds() * 1000)

    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"

    return f"{milliseconds}ms" if milliseconds else "0s"


def format_bytes(value: int) -> str:
    """Write a size as ``1MiB``, in the largest unit that keeps it whole."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"

    return f"{value}B"


Duration: TypeAlias = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
"""A length of time: ``30s``, ``10m``, or seconds as a number."""

Bytes: TypeAlias = Annotated[ByteSize, PlainSerializer(format_bytes)]
"""A size: ``1MiB``, ``64KiB``, or bytes as a number."""

_ZERO = timedelta(0)


def _or_none(value: object) -> object:
    """Read ``none``, as the text of what is switched off."""
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


def _words(value: object) -> object:
    """Read a list that an environment variable gives as text."""
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


class Section(BaseModel):
    """The base of every section: frozen, and strict about what it does not know.

    A field's docstring is its documentation; :mod:`autoglm_server.configuration` reads it from the source when it writes the
    reference, not pydantic at every start. A section is compiled once, as a part of all settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)


class ServerSettings(Section):
    """Where and how the server listens."""

    host: str = "127.0.0.1"
    """The address to listen on. `0.0.0.0` or `[::]` is every address of the machine: nothing is encrypted or
    authenticated yet, so put it only where every peer may do everything."""
    port: int = Field(default=50051, ge=0, le=65535)
    """The TCP port to listen on. 0 lets the system choose one; the line that says "listening on" names it."""
    workers: int = Field(default=1, ge=1, le=1)
    """Processes that serve. More than 1 needs a journal that can be shared, and this one cannot."""
    timeout: Duration = Field(default=timedelta(seconds=30), gt=_ZERO)
    """The deadline of a unary call whose client set none."""
    drain: Duration = Field(default=timedelta(seconds=20), ge=_ZERO)
    """How long calls of tools that are under way may go on after SIGTERM. Keep it below the supervisor's own limit."""
    idle: Duration = Field(default=timedelta(seconds=5), gt=_ZERO)
    """How long an embedded server stays when no client is attached and no plan can make progress."""


class JournalSettings(Section):
    """Where events are kept."""

    url: str = ""
    """`sqlite:///PATH`, or `memory:` for a journal that is gone when the process ends. Empty: SQLite in the data
    directory."""


class RetentionSettings(Section):
    """How long finished plans are kept (`docs/operations.md`). A plan that has not ended is kept whatever stands here."""

    events: Annotated[Duration | None, BeforeValidator(_or_none)] = Field(default=timedelta(days=7), gt=_ZERO)
    """How long after its end a plan's events can be watched. Then its last snapshot stays. `none`: as long as the plan."""
    plans: Annotated[Duration | None, BeforeValidator(_or_none)] = Field(
        default=timedelta(days=30), ge=timedelta(hours=24)
    )
    """How long after its end a plan is there at all, with its files and its request_id; at least a day, since a request_id
    promises that. `none`: for good."""
    max_plans: Annotated[int | None, BeforeValidator(_or_none)] = Field(default=100_000, ge=1)
    """The most finished plans that are kept; of more, the oldest go, but not in the first day: until then only their events
    do. `none`: no bound."""


class LogSettings(Section):
    """What the server says on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is written. `debug` adds a line for every call."""
    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object a line, or text for people. `auto`: text if stderr is a terminal, else JSON."""


class PlanSettings(Section):
    """What a plan gets whose options leave it out. Never changes a plan that exists."""

    max_steps: int = Field(default=10, ge=0, le=1000)
    """The most steps a planner may add over all rounds."""
    enable_tool_call: bool = True
    """Whether the planner may make steps at all."""
    max_rounds: int = Field(default=5, ge=1, le=100)
    """The most rounds of the planner."""
    timeout: Duration = Field(default=timedelta(minutes=10), gt=_ZERO, le=timedelta(days=30))
    """The longest a plan may run, not counting the time it waits for a person."""
    waiting_timeout: Duration | None = Field(default=None, gt=_ZERO, le=timedelta(days=366))
    """The longest a plan may wait for a person in one go. Empty: without end."""
    max_parallel_steps: int = Field(default=32, ge=1, le=1000)
    """The most calls of one plan under way at once."""
    budget_tokens: int | None = Field(default=None, ge=1, le=(1 << 63) - 1)
    """`budget.max_tokens` of a plan that sets none: the most tokens, input and output. Empty: without end."""
    budget_tool_calls: int | None = Field(default=None, ge=1, le=(1 << 63) - 1)
    """`budget.max_tool_calls` likewise: the most calls of tools, every attempt counted."""
    budget_rounds: int | None = Field(default=None, ge=1, le=(1 << 31) - 1)
    """`budget.max_rounds` likewise: the most rounds. Unlike `max_rounds` the planner is not told, and the plan fails."""
    budget_duration: Duration | None = Field(default=None, gt=_ZERO, le=timedelta(days=366))
    """`budget.max_duration` likewise: the longest a plan may take from its start, waiting for people included."""
    step_timeout: Duration = Field(default=timedelta(seconds=60), gt=_ZERO, le=timedelta(hours=24))
    """The longest one attempt at a step may take, if neither the step nor its tool says."""
    provider_wait: Duration = Field(default=timedelta(seconds=10), ge=_ZERO, le=timedelta(hours=1))
    """How long a call that could not be made waits for a provider that is away, within its own limit of time."""


class SchedulerSettings(Section):
    """How much runs at once in this process."""

    max_running_plans: int = Field(default=1000, ge=1, le=100_000)
    """The most plans that make progress at once; the others are QUEUED, fair per principal."""
    max_running_calls: int = Field(default=256, ge=1, le=10_000)
    """The most calls of tools under way at once, of all plans together."""
    cancel_grace: Duration = Field(default=timedelta(seconds=10), ge=_ZERO, le=timedelta(minutes=10))
    """How long a call that is told to stop has, before it is named as abandoned."""


class PlannerSettings(Section):
    """Which planner a plan gets that names none."""

    kind: str = Field(default="rules", min_length=1, max_length=64)
    """The planner's name: `rules` needs no model and no key; `llm` plans with `model`."""
    model: str = Field(default="", max_length=256)
    """The model of the planner `llm`, unless the plan names another: `provider:name`, such as `openai:gpt-5-mini`,
    `anthropic:claude-haiku-4-5`, `google:gemini-3-flash`, `glm:glm-4.7`, `deepseek:deepseek-flash`, `qwen:qwen3-max`,
    `ollama:qwen3`, `vllm:NAME`, `llamacpp:NAME`, `lmstudio:NAME` or `openai-compatible:NAME@BASE_URL`. The key is read
    from the provider's own variable, such as `OPENAI_API_KEY`."""
    models: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """Which models plans may name, as globs such as `openai:gpt-*`. Empty: every model of every provider that has its key
    here. In the environment, separated by commas."""
    base_url: str = Field(default="", max_length=2048)
    """Where the provider of `model` is served, if not where it usually is. Without user, password or query."""
    api_key_env: str = Field(default="", max_length=128)
    """The variable that holds the key for the provider of `model`, if not its usual one."""
    api_key_file: Path | None = None
    """A file that holds the key for the provider of `model`; read anew for every round."""
    profile: Literal["auto", "json_schema", "tool", "text"] = "auto"
    """How a plan is asked for: structured output by JSON Schema, a call of one function, or text with a fenced block.
    `auto`: as suits the provider."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """The model's temperature. Empty: the provider's own; some models take none."""
    max_output_tokens: int = Field(default=8192, ge=256, le=1_000_000)
    """The most tokens a model may write in a round, what it thinks included."""
    max_prompt_tokens: int = Field(default=24_000, ge=2000, le=2_000_000)
    """About how large a prompt may be. Above it, long outputs are shortened further and the least relevant tools are left
    out, and both is said. It must fit the model's context together with `max_output_tokens`."""
    output_chars: int = Field(default=4000, ge=200, le=1_000_000)
    """How many characters of one step's output a model is shown; it can read the rest by `text.slice`."""
    stall_timeout: Duration = Field(default=timedelta(seconds=60), gt=_ZERO, le=timedelta(hours=1))
    """How long a model may say nothing at all, before the round is given up and made again."""
    debug_file: Path | None = None
    """A file to which every prompt and every reply is added, one JSON object a line, for debugging. It holds what plans
    hold: requests, arguments and outputs. Never a key. Empty: nothing is written."""
    timeout: Duration = Field(default=timedelta(minutes=2), gt=_ZERO, le=timedelta(hours=1))
    """The longest one round may take."""


_RATE = re.compile(r"\s*(\d{1,9})\s*/\s*(s|m|h|d)\s*")


class PluginSettings(Section):
    """One plugin (`docs/plugins.md`)."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,31}$")
    """Its name: of an installed plugin, of `builtin`, or a new one for `source`. Its tools are called NAME.tool."""
    source: str = Field(default="", max_length=4096)
    """Where it is: `python:FILE.py` or `python:package.module`, each also with `:OBJECT`. Empty: the installed plugin called
    `name`, by the entry points `autoglm.plugins`."""
    enable: bool = True
    """Whether it is used."""
    mode: Literal["full", "observe"] = "full"
    """What it may do. `observe`: its hooks are called, but it adds no tools and no planners."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its own settings, checked by the plugin's own schema."""


class CacheSettings(Section):
    """How long, and how much of, what READ_ONLY tools gave is kept."""

    ttl: Duration = Field(default=timedelta(minutes=1), gt=_ZERO, le=timedelta(days=1))
    """How long a result is given again."""
    bytes: Bytes = Field(default=ByteSize(16 << 20), ge=1 << 10, le=1 << 30)
    """The most that is kept, of all tools of this entry together; the least recently used goes first."""


class ToolSettings(Section):
    """What holds for the tools whose names fit. All entries that fit hold; a later one goes over an earlier one, key by key."""

    match: str = Field(min_length=1, max_length=256)
    """The tools' names, as a glob: `files.*`, `*`."""
    timeout: Duration | None = Field(default=None, gt=_ZERO, le=timedelta(hours=24))
    """The longest one attempt may take, unless the step says. Empty: as the tool says."""
    requires_approval: bool | None = None
    """Whether a person must approve each step that calls it. Empty: as the tool says."""
    rate: str = Field(default="", max_length=32)
    """The most calls of one tool in a time: `10/s`, `100/m`. So many may come at once; then each waits for its turn, within
    the time limit of its call."""
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    """The most calls of one tool at once; more wait, within the time limit of their calls. Not of `plan.run`, whose calls
    only wait for others."""
    cache: CacheSettings | None = None
    """Give the same result again for the same call by the same principal, if the tool is READ_ONLY: `{ttl: 1m, bytes: 16MiB}`.
    Failures are never kept."""
    redact: tuple[str, ...] = Field(default=(), max_length=100)
    """What is taken out of outputs before anybody sees them: keys (`password`, at any depth) and JSON pointers
    (`/items/*/token`). What entries name adds up."""

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        found = _RATE.fullmatch(value) if value else None
        if value and (found is None or int(found[1]) == 0):
            raise ValueError("write a number, / and a unit: 10/s, 100/m, 1000/h")

        return value

    @field_validator("redact")
    @classmethod
    def _redact(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not pattern.strip("/") or len(pattern) > 256 for pattern in value):
            raise ValueError("write keys, or JSON pointers that begin with /, of 1 to 256 characters")

        return value

    @property
    def calls_per_second(self) -> tuple[float, int] | None:
        """`rate` as calls per second, and how many may come at once."""
        found = _RATE.fullmatch(self.rate)
        return (int(found[1]) / _UNITS[found[2]], int(found[1])) if found else None


class SecretSettings(Section):
    """What `secret://NAME` stands for (`docs/secrets.md`). `NAME: env:VARIABLE` is short for a `source` alone."""

    source: str = Field(pattern=r"^(env|file):.+", max_length=4096)
    """Where its value is, read anew for each use: `env:VARIABLE` or `file:PATH`."""
    tools: tuple[str, ...] = ("*",)
    """The tools whose arguments may name it, as globs, if their schema takes a secret there. Settings may always."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


class OpenApiSettings(Section):
    """How the document of a provider `NAME=openapi:…` is used (`docs/providers.md`)."""

    server: str = Field(default="", max_length=2048)
    """The service's base URL. Empty: the first server that the document names. A host named here may be at a private
    address; one that only the document names may not."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Values of the variables in the document's server."""
    include: tuple[str, ...] = ("*",)
    """The operations that become tools, as globs of their names or of `METHOD /path`."""
    exclude: tuple[str, ...] = ()
    """The operations that do not, likewise."""
    effects: dict[str, Literal["READ_ONLY", "IDEMPOTENT", "NON_IDEMPOTENT"]] = Field(default_factory=dict)
    """The effect of operations, by the same globs; the first that fits counts. Else it is by the method."""
    auth: dict[str, str] = Field(default_factory=dict)
    """Credentials by the name of the document's security scheme: `secret://NAME`; for `basic`, `USER:secret://NAME`."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of every request. A value may hold `secret://NAME`."""
    check_outputs: bool = False
    """Whether answers are checked against the document's schemas. Many services answer otherwise than they say."""
    timeout: Duration = Field(default=timedelta(seconds=30), gt=_ZERO, le=timedelta(hours=1))
    """The longest one call may take, unless the step says."""
    refresh: Duration = Field(default=timedelta(minutes=5), ge=timedelta(seconds=1), le=timedelta(days=30))
    """How often the document is read again."""

    @field_validator("headers")
    @classmethod
    def _no_credentials(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if "secret://" not in text and re.search("auth|cookie|key|token|secret|password", name, re.IGNORECASE):
                raise ValueError(
                    f"{name}: a credential is given by reference; write secret://NAME, and NAME below `secrets`"
                )

        return value

    @field_validator("auth")
    @classmethod
    def _by_reference(cls, value: dict[str, str]) -> dict[str, str]:
        if plain := [name for name, text in value.items() if "secret://" not in text]:
            raise ValueError(
                f"{plain[0]}: a credential is given by reference; write secret://NAME, and NAME below `secrets`"
            )

        return value


class HttpSettings(Section):
    """The tools `http.get` and `http.send`, which are there when `allow` names a host (`docs/providers.md`)."""

    allow: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(default=(), max_length=1000)
    """Who may be asked: `api.example.com`, `*.example.com`, `HOST:PORT`, `http://HOST`; a comma separates them. https
    alone if no scheme is written, and the scheme's own port if none is."""
    private: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(default=(), max_length=1000)
    """Those of the hosts, by their exact names, that may be at private addresses or on this machine."""
    timeout: Duration = Field(default=timedelta(seconds=30), gt=_ZERO, le=timedelta(hours=1))
    """The longest one call may take, unless the step says."""
    body: Bytes = Field(default=ByteSize(512 << 10), ge=1, le=1 << 20)
    """The largest body of an answer."""


class TableSettings(Section):
    """The tool `table.query`, which is there when the extra `data` is installed (`docs/tools.md`)."""

    memory: Bytes = Field(default=ByteSize(512 << 20), ge=64 << 20, le=64 << 30)
    """How much memory one query may take."""
    timeout: Duration = Field(default=timedelta(minutes=1), gt=_ZERO, le=timedelta(hours=1))
    """The longest one query may take, unless the step says."""


class ShellSettings(Section):
    """The tool `shell.run`, which runs commands in the workspace as the server's own user (`docs/tools.md`).

    A person approves each call, and no setting changes that. It is no sandbox: put the server in a container of its own first.
    """

    enabled: bool = False
    """Whether it is there."""
    commands: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(default=(), max_length=1000)
    """Which commands may be asked for, as globs of the whole command as a shell would write it: `git log*`, `wc -l *`. Empty:
    all. What is not among them is refused even if a person approves."""
    timeout: Duration = Field(default=timedelta(minutes=1), gt=_ZERO, le=timedelta(hours=24))
    """The longest one command may take, unless the step says."""
    output: Bytes = Field(default=ByteSize(64 << 10), ge=1 << 10, le=256 << 10)
    """How much of each of its output streams is kept: the last of it, as JSON. All of it is shown as it comes. Both must fit
    into `limits.output`."""
    memory: Bytes = Field(default=ByteSize(1 << 30), ge=64 << 20, le=1 << 40)
    """How much memory (address space) each of its processes may take."""
    cpu: Duration = Field(default=timedelta(minutes=1), ge=timedelta(seconds=1), le=timedelta(hours=24))
    """How much processor time each of its processes may take."""
    env: Annotated[tuple[str, ...], BeforeValidator(_words)] = Field(default=(), max_length=100)
    """The server's environment variables that commands see beside PATH, HOME (the workspace) and LANG."""


class LimitSettings(Section):
    """The limits that stand on everything; an error names the one it met."""

    request_text: Bytes = Field(default=ByteSize(64 << 10), ge=1, le=1 << 20)
    """The longest request, in UTF-8."""
    request_bytes: Bytes = Field(default=ByteSize(3 << 20), ge=1 << 10, le=3 << 20)
    """The largest request message of any call."""
    response_bytes: Bytes = Field(default=ByteSize(3 << 20), ge=1 << 10, le=3 << 20)
    """The largest answer of a unary call; clients refuse messages above 4 MiB."""
    steps: int = Field(default=10_000, ge=1, le=10_000)
    """The most steps a caller may give."""
    arguments: Bytes = Field(default=ByteSize(256 << 10), ge=2, le=1 << 20)
    """The largest arguments of one step, as JSON."""
    output: Bytes = Field(default=ByteSize(1 << 20), ge=1 << 10, le=1 << 20)
    """The largest output of one call, as JSON."""
    answer: Bytes = Field(default=ByteSize(1 << 20), ge=1 << 10, le=1 << 20)
    """The longest answer of a plan, in UTF-8."""
    json_depth: int = Field(default=32, ge=1, le=32)
    """How deep objects and arrays may be nested."""
    labels: int = Field(default=64, ge=0, le=64)
    """The most labels of one plan."""
    events: int = Field(default=100_000, ge=1000, le=1_000_000)
    """The most events of one plan; its end still fits."""
    open_plans: int = Field(default=10_000, ge=1, le=1_000_000)
    """The most plans that have not ended; above it creates are refused."""
    plan_depth: int = Field(default=3, ge=0, le=10)
    """How many plans deep sub-plans (`plan.run`) may be nested; 0: there is no `plan.run`."""
    watches: int = Field(default=5000, ge=1, le=100_000)
    """The most streams of events open at once. One that is idle costs about 22 KB."""
    watches_per_connection: int = Field(default=500, ge=1, le=100_000)
    """The most streams of events of one connection. Peers on a Unix socket cannot be told apart and count together
    as `watches`."""
    direct_calls: int = Field(default=256, ge=1, le=10_000)
    """The most CallTool under way at once; more wait for a place, within their deadline."""
    artifact: Bytes = Field(default=ByteSize(64 << 20), ge=1 << 10, le=64 << 30)
    """The largest file that a call may save."""
    call_artifacts: int = Field(default=64, ge=0, le=256)
    """The most files of one call."""
    call_artifacts_bytes: Bytes = Field(default=ByteSize(256 << 20), ge=1 << 10, le=1 << 40)
    """All files of one call together."""
    plan_artifacts_bytes: Bytes = Field(default=ByteSize(1 << 30), ge=1 << 10, le=1 << 40)
    """All files of one plan together; the same content counts once."""
    artifact_reads: int = Field(default=64, ge=1, le=10_000)
    """The most ReadArtifact under way at once."""
    calls_per_connection: int = Field(default=1000, ge=1, le=100_000)
    """The most calls of one connection under way at once; more wait in the transport."""
    calls_read: int = Field(default=512, ge=1, le=100_000)
    """The most reads (Get…, List…) under way at once; above it they are refused with when to come back."""
    calls_write: int = Field(default=512, ge=1, le=100_000)
    """Likewise of what changes plans: CreatePlan, CancelPlan, ResolveStep, and RunPlan until its plan is made."""
    calls_tool: int = Field(default=1024, ge=1, le=100_000)
    """Likewise of CallTool, those that wait for a place of `direct_calls` included."""
    calls_share: float = Field(default=0.5, gt=0, le=1)
    """Which part of each of these one connection may take, so that others find room. Peers on a Unix socket cannot be told
    apart and have all of it."""
    create_wait: Annotated[Duration | None, BeforeValidator(_or_none)] = Field(
        default=timedelta(milliseconds=100), gt=_ZERO, le=timedelta(minutes=1)
    )
    """How long a new plan may stand in line for the process. One that would wait longer, as far as can be told, is refused:
    there is more to do than can be done; never while fewer than 16 plans make progress. `none`: they wait."""
    journal_wait: Annotated[Duration | None, BeforeValidator(_or_none)] = Field(
        default=timedelta(seconds=1), gt=_ZERO, le=timedelta(minutes=10)
    )
    """How long the oldest event may wait for the disk before new plans are refused until it has caught up. `none`: without
    end."""


class Settings(Section):
    """Everything the server can be told."""

    data_dir: Path = Field(default_factory=lambda: platformdirs.user_data_path("autoglm"))
    """Where the journal, the lock and `server.json` are."""
    workspace: Path | None = None
    """The one folder the built-in file tools see. Empty: `workspace` in the data directory."""
    server: ServerSettings = ServerSettings()
    journal: JournalSettings = JournalSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    plan: PlanSettings = PlanSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    planner: PlannerSettings = PlannerSettings()
    plugins: tuple[PluginSettings, ...] = ()
    """Plugins, in the order in which they are asked."""
    tools: tuple[ToolSettings, ...] = ()
    """What stands around tools: time limits, approval, rates, caches, redaction."""
    providers: dict[str, str] = Field(default_factory=dict)
    """Sources of tools: a name and a URI for each, such as `python:tools.py`. Its tools are called NAME.tool."""
    secrets: dict[str, SecretSettings] = Field(default_factory=dict)
    """Secrets by name: `NAME: env:VARIABLE` or `NAME: file:PATH`."""
    openapi: dict[str, OpenApiSettings] = Field(default_factory=dict)
    """How providers `NAME=openapi:…` are used, by NAME."""
    http: HttpSettings = HttpSettings()
    table: TableSettings = TableSettings()
    shell: ShellSettings = ShellSettings()
    limits: LimitSettings = LimitSettings()

    @model_validator(mode="after")
    def _provider_names(self) -> Settings:
        for name in self.providers:
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", name):
                raise ValueError(f"providers: {name!r} is no name; write 1 to 64 of A-Z, a-z, 0-9, _ and -")

        return self

    @model_validator(mode="after")
    def _openapi_names(self) -> Settings:
        for name in self.openapi:
            if not self.providers.get(name, "").startswith("openapi:"):
                known = [other for other, uri in self.providers.items() if uri.startswith("openapi:")]
                told = f"there are {', '.join(known)}" if known else "there is none"
                raise ValueError(f"openapi: {name!r} is no provider with an openapi: URI; {told}")

        return self

    @model_validator(mode="after")
    def _shell_asks(self) -> Settings:
        name = "shell.run"
        for rule in self.tools if self.shell.enabled else ():
            if rule.requires_approval is False and fnmatch.fnmatchcase(name, rule.match):
                told = f"match {rule.match!r} with requires_approval: false fits {name}, which a person always approves"
                raise ValueError(f"tools: {told}; write globs that leave it out, or disable shell.enabled")

        return self

    @model_validator(mode="after")
    def _shell_fits(self) -> Settings:
        needed = 2 * self.shell.output + 4096
        if self.shell.enabled and needed > self.limits.output:
            told = f"limits.output is {format_bytes(self.limits.output)}, and shell.output twice makes {format_bytes(needed)}"
            raise ValueError(f"{told} with what goes along; lower shell.output, or raise limits.output")

        return self

    @model_validator(mode="after")
    def _plugin_names(self) -> Settings:
        names = [plugin.name for plugin in self.plugins]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"plugins: {min(twice)!r} is there twice; give each its own name")

        if both := {*names} & {*self.providers}:
            raise ValueError(f"plugins and providers: both have {min(both)!r}, and their tools would share names")

        return self

    @property
    def workspace_dir(self) -> Path:
        """The folder of the file tools, from the root on."""
        return (self.workspace or self.data_dir / "workspace").absolute()
