"""Secrets by reference: resolved for the call alone, and taken out of all that comes of it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.model import CallContext, Effect, Failure, Json, Tool, ToolProgress, ToolResult, Violation
from autoglm.wire import canonical_json
from autoglm_server import telemetry
from autoglm_server.settings import LogSettings
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.references import compile_references
from autoglm_server.tools.secrets import SecretError, Secrets, Source, takes_secret
from autoglm_server.tools.tool import Invocation, ToolCallError
from autoglm_server.tools.wrappers import Wrappers

CANARY = 'c4nary/v4lue+with "quotes" & 100%'
ENVIRONMENT = {"CANARY": CANARY, "SHORT": "abc", "NUMBER": "31415926"}
SCHEMA: Json = {
    "type": "object",
    "properties": {
        "token": {"type": "string", "format": "password", "pattern": "^[^:]*$", "maxLength": 100},
        "text": {"type": "string"},
        "list": {"type": "array", "items": {"$ref": "#/$defs/credential"}},
    },
    "$defs": {
        "credential": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/secret"}]},
        "secret": {"format": "password"},
    },
}


def secrets(**sources: str) -> Secrets:
    made = Secrets({name: Source(uri) for name, uri in (sources or {"canary": "env:CANARY"}).items()}, ENVIRONMENT)
    made.load()
    return made


def resolved_faults(catalog: Catalog, tool: str, arguments: dict[str, Json]) -> list[Violation]:
    try:
        catalog.checked(tool, arguments)
    except ToolCallError as refused:
        return list(refused.failure.violations)

    return []


class Vault:
    """A provider of one tool that takes a secret; what it does with it, a test says."""

    name = "vault"

    def __init__(self, act: Callable[[Invocation], Any] = lambda call: None, schema: Json = SCHEMA) -> None:
        self.seen: list[Json] = []
        self._act = act
        self._tools = (Tool(name="use", input_schema=json.dumps(schema), effect=Effect.READ_ONLY, available=True),)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def call(self, invocation: Invocation) -> ToolResult:
        self.seen.append(invocation.arguments)
        return ToolResult(self._act(invocation))


async def call(
    vault: Vault,
    arguments: dict[str, Json],
    known: Secrets | None = None,
    report: Callable[[ToolProgress], None] | None = None,
) -> ToolResult:
    catalog = Catalog([vault], secrets=known or secrets())
    invocation = Invocation("vault.use", arguments, "plan/step", 5.0, CallContext(), report or (lambda _: None))
    return await catalog.call(invocation)


# --- in


async def test_the_provider_gets_the_value_and_nobody_else() -> None:
    vault = Vault()
    arguments: dict[str, Json] = {"token": "secret://canary", "list": [None, "secret://canary"], "text": "x"}
    await call(vault, arguments)
    assert vault.seen == [{"token": CANARY, "list": [None, CANARY], "text": "x"}]
    assert arguments["token"] == "secret://canary"


async def test_values_are_bounded_also_where_the_arguments_were_checked_before(tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_text("x" * (64 << 10))
    schema: Json = {"type": "object", "properties": {"list": {"type": "array", "items": {"format": "password"}}}}
    vault = Vault(schema=schema)
    catalog = Catalog([vault], secrets=secrets(long=f"file:{file}"))
    arguments: dict[str, Json] = {"list": ["secret://long"] * 20}
    digest = catalog.checked("vault.use", arguments).digest
    invocation = Invocation("vault.use", arguments, "plan/step", 5.0, checked=digest)
    with pytest.raises(ToolCallError) as refused:
        await catalog.call(invocation)

    assert [fault.reason for fault in refused.value.failure.violations] == ["TOO_LARGE"]
    assert vault.seen == []


async def test_a_value_that_is_no_text_is_refused_also_where_the_arguments_were_checked_before() -> None:
    vault = Vault()
    catalog = Catalog([vault], secrets=Secrets({"raw": Source("env:RAW")}, {"RAW": "not utf-8: \udcff"}))
    digest = catalog.checked("vault.use", {"token": "secret://raw"}).digest
    with pytest.raises(ToolCallError) as refused:
        await catalog.call(Invocation("vault.use", {"token": "secret://raw"}, "plan/step", 5.0, checked=digest))

    assert refused.value.failure.reason == "INVALID_ARGUMENTS"
    assert vault.seen == []


class Changing(Vault):
    """Offers another schema when a test says so."""

    def change(self, schema: Json) -> None:
        self._tools = (Tool(name="use", input_schema=json.dumps(schema), effect=Effect.READ_ONLY, available=True),)


async def test_what_was_checked_for_another_schema_is_checked_anew() -> None:
    plain: Json = {"type": "object", "properties": {"token": {"type": "string"}}}
    vault = Changing(schema=plain)
    catalog = Catalog([vault], secrets=Secrets())
    arguments: dict[str, Json] = {"token": "secret://nobody"}
    digest = catalog.checked("vault.use", arguments).digest
    vault.change({"type": "object", "properties": {"token": {"type": "string", "format": "password"}}})
    with pytest.raises(ToolCallError) as refused:
        await catalog.call(Invocation("vault.use", arguments, "plan/step", 5.0, checked=digest))

    assert [fault.reason for fault in refused.value.failure.violations] == ["SECRET_UNKNOWN"]
    assert vault.seen == []


def test_a_reference_is_checked_as_one_before_it_is_resolved() -> None:
    catalog = Catalog([Vault()], secrets=secrets())
    for faults_of in (partial(catalog.check_written, field="arguments"), partial(resolved_faults, catalog)):
        found = faults_of("vault.use", {"token": "secret://canary"})
        assert found == [], "what the schema says of the value is checked when the value is there"

        faults = faults_of("vault.use", {"token": "x" * 101})
        assert [fault.field for fault in faults] == ["arguments.token"], "the control: a plain value is checked at once"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"token": "secret://unknown"}, "SECRET_UNKNOWN"),
        ({"text": "secret://canary"}, "SECRET_NOT_TAKEN"),
        ({"other": "secret://canary"}, "SECRET_NOT_TAKEN"),
        ({"token": "secret://elsewhere"}, "SECRET_NOT_ALLOWED"),
        ({"token": "secret://missing"}, "SECRET_MISSING"),
        ({"token": "secret://short"}, "SECRET_MISSING"),
    ],
)
async def test_a_reference_that_cannot_be_given_is_refused(arguments: dict[str, Json], reason: str) -> None:
    sources = {"canary": "env:CANARY", "missing": "env:NOT_THERE", "short": "env:SHORT"}
    known = Secrets(
        {name: Source(uri) for name, uri in sources.items()} | {"elsewhere": Source("env:CANARY", ("mail.*",))},
        ENVIRONMENT,
    )
    vault = Vault()
    with pytest.raises(ToolCallError) as raised:
        await call(vault, arguments, known)

    failure = raised.value.failure
    assert (failure.reason, failure.retryable) == ("INVALID_ARGUMENTS", False)
    assert [fault.reason for fault in failure.violations] == [reason]
    assert vault.seen == []
    assert "NOT_THERE" not in str(failure), "where secrets are is the operator's business"


async def test_text_that_only_looks_like_a_reference_stays_text() -> None:
    vault = Vault()
    await call(vault, {"text": "secret://unknown"})
    await call(vault, {"text": "see secret://canary"})
    assert vault.seen == [{"text": "secret://unknown"}, {"text": "see secret://canary"}]


async def test_the_value_itself_is_checked_and_the_fault_does_not_tell_it() -> None:
    known = Secrets({"bad": Source("env:BAD")}, {"BAD": "with:colon-in-it"})
    with pytest.raises(ToolCallError) as raised:
        await call(Vault(), {"token": "secret://bad"}, known)

    assert raised.value.failure.reason == "INVALID_ARGUMENTS"
    assert "colon" not in str(raised.value.failure)
    assert "***" in str(raised.value.failure)


@pytest.mark.parametrize("token", ["${a}", "${a.deep}", "secret://${a.name}", "${b[0]}"])
def test_an_output_cannot_name_a_secret(token: str) -> None:
    outputs: dict[str, Json] = {"a": {"deep": [{"x": "secret://canary"}], "name": "canary"}, "b": ["secret://canary"]}
    with pytest.raises(ToolCallError) as raised:
        compile_references({"in": {"token": token}}, "arguments").resolve(outputs.__getitem__)

    violation = raised.value.failure.violations[0]
    assert (violation.field, violation.reason) == ("arguments.in.token", "SECRET_REFUSED")
    written = compile_references({"token": "secret://canary", "text": "${a.name}"}, "arguments")
    assert written.resolve(outputs.__getitem__) == {"token": "secret://canary", "text": "canary"}


@pytest.mark.parametrize(
    ("path", "takes"),
    [
        (("token",), True),
        (("text",), False),
        (("list", 0), True),
        (("list",), False),
        ((), False),
        (("no", "way"), False),
    ],
)
def test_a_place_takes_a_secret_when_its_schema_says_so(path: tuple[str | int, ...], takes: bool) -> None:
    assert takes_secret(SCHEMA, path) is takes


def test_a_schema_that_goes_round_is_read_to_its_end() -> None:
    loop: Json = {"$ref": "#", "properties": {"next": {"$ref": "#"}}, "allOf": [{"$ref": "#/properties/next"}]}
    assert not takes_secret(loop, ("next", "next"))


def test_files_are_read_anew_and_old_values_stay_hidden(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-value\n")
    known = secrets(token=f"file:{file}")
    assert known.expand("Bearer secret://token") == "Bearer first-value"
    file.write_text("second-value")
    assert known.value("token") == "second-value"
    assert known.without("first-value second-value") == "*** ***"


@pytest.mark.parametrize("uri", ["CANARY", "env:", "https://x", "file:"])
def test_a_source_must_be_one(uri: str) -> None:
    with pytest.raises(ValueError, match="source"):
        Secrets({"a": Source(uri)})


@pytest.mark.parametrize("content", [None, b"\xff\xfe123456", b"x" * (65 << 10), b"abc"])
def test_a_file_without_a_usable_value_is_told(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)

    with pytest.raises(SecretError, match="has no value"):
        Secrets({"a": Source(f"file:{tmp_path}/s")}).value("a")


# --- out


def leaks(text: str, value: str = CANARY) -> bool:
    forms = [
        value,
        quote(value, safe=""),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        base64.b64encode(value.encode()).decode(),
    ]
    return any(form in text for form in forms)


SINKS: dict[str, Callable[[str], Json]] = {
    "text": lambda value: f"it is {value}.",
    "key": lambda value: {value: 1},
    "nested": lambda value: [[{"a": ["b", {"c": value}]}]],
    "url": lambda value: f"https://x/?key={quote(value, safe='')}",
    "lower": lambda value: quote(value, safe="").lower().replace(value.lower(), value),
    "json": lambda value: json.dumps({"token": value}),
    "repr": lambda value: repr({"token": value}),
    "basic": lambda value: "Basic " + base64.b64encode(f"user:{value}".encode()).decode(),
    "base64": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
}


@pytest.mark.parametrize("sink", SINKS)
async def test_no_output_shows_the_value(sink: str) -> None:
    shown = SINKS[sink]
    result = await call(Vault(lambda call: shown(call.arguments["token"])), {"token": "secret://canary"})
    text = canonical_json(result.output)
    assert not leaks(text)
    assert "***" in text
    assert "4lue" not in text


async def test_a_tool_that_was_not_given_it_shows_it_neither() -> None:
    result = await call(Vault(lambda _: {"environment": ENVIRONMENT}), {"text": "hello"})
    assert not leaks(canonical_json(result.output))


async def test_a_value_that_is_first_read_during_a_call_is_hidden_in_it() -> None:
    known = Secrets({"canary": Source("env:CANARY")}, ENVIRONMENT)

    async def make(call: Invocation) -> ToolResult:
        return ToolResult(known.expand("Bearer secret://canary"))

    assert (await known.call(Invocation("t", {}, "", 5.0), {}, make)).output == "Bearer ***"


async def test_a_number_is_hidden_as_well() -> None:
    known = secrets(number="env:NUMBER")
    result = await call(Vault(lambda _: [31415926, 27182818, "a31415926b"]), {}, known)
    assert result.output == ["***", 27182818, "a***b"]


async def test_no_failure_shows_it_not_even_where_it_is_cut() -> None:
    def fail(call: Invocation) -> None:
        token = call.arguments["token"]
        raise ToolCallError(
            Failure(
                "NOPE",
                "vault",
                "x" * 1010 + token,
                metadata={"header": f"Bearer {token}", token: "key"},
                violations=(Violation("a", f"{token} is wrong"),),
            )
        )

    with pytest.raises(ToolCallError) as raised:
        await call(Vault(fail), {"token": "secret://canary"})

    failure = raised.value.failure
    assert "c4nary" not in str(failure)
    assert failure.message.endswith("***")
    assert raised.value.__cause__ is None


async def test_the_control_without_secrets_all_of_it_is_shown() -> None:
    """Were nothing hidden, the tests above would notice."""
    unaware = Catalog([Vault(lambda call: call.arguments)])
    result = await unaware.call(Invocation("vault.use", {"text": CANARY}, "", 5.0))
    assert leaks(canonical_json(result.output))


@given(st.integers(1, 12), st.integers(0, 3))
async def test_progress_shows_it_neither_whole_nor_in_pieces(size: int, before: int) -> None:
    told: list[ToolProgress] = []
    text = "x" * before + f"<{CANARY}> and c4nary/v4"
    known = secrets()

    async def make(call: Invocation) -> ToolResult:
        for start in range(0, len(text), size):
            call.report(ToolProgress(0.5, f"at {CANARY}", {"seen": CANARY}, text[start : start + size]))

        return ToolResult()

    await known.call(Invocation("vault.use", {}, "", 5.0, report=told.append), {}, make)
    shown = "".join(progress.text for progress in told)
    assert shown.startswith("x" * before + "<***> and ")
    assert "v4lue" not in shown
    assert not any(leaks(f"{progress.message}{progress.data}") for progress in told)


@given(st.text(st.characters(codec="utf-8"), min_size=6, max_size=40), st.text(max_size=10), st.text(max_size=10))
def test_every_value_is_taken_out_of_every_text(value: str, before: str, after: str) -> None:
    if len(value.removesuffix("\n").removesuffix("\r")) < 6:
        return

    known = Secrets({"a": Source("env:A")}, {"A": value})
    known.load()
    read = known.value("a")
    assert read not in known.without(before + read + after).replace("***", "") or read in before + after
    assert known.without("nothing to hide here") == "nothing to hide here" or read in "nothing to hide here"


async def test_what_a_cache_keeps_is_without_it() -> None:
    """Wrappers stand outside: they see references and what was cleaned."""
    from autoglm_server.settings import CacheSettings, ToolSettings

    vault = Vault(lambda call: call.arguments["token"])
    rules = (ToolSettings(match="*", cache=CacheSettings()),)
    catalog = Catalog([vault], wrappers=Wrappers(rules), secrets=secrets())
    invocation = Invocation("vault.use", {"token": "secret://canary"}, "", 5.0)
    first, second = await catalog.call(invocation), await catalog.call(invocation)
    assert (first.output, second.output) == ("***", "***")
    assert len(vault.seen) == 1


async def test_cancelling_goes_through() -> None:
    begun = asyncio.Event()

    async def make(call: Invocation) -> ToolResult:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(secrets().call(Invocation("t", {}, "", 5.0), {}, make))
        await begun.wait()
        task.cancel()

    assert task.cancelled()


# --- logs


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_of_the_log_shows_it(
    form: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    telemetry.configure(LogSettings.model_validate({"format": form}))
    log = logging.getLogger("test")

    def write() -> str:
        log.warning("token %s", CANARY, extra={"header": CANARY})
        try:
            int(f"refused: {CANARY}")
        except ValueError:
            log.exception("a call broke")

        return capsys.readouterr().err

    assert leaks(write()), "the control"
    telemetry.hide(secrets().without)
    written = write()
    assert not leaks(written)
    assert "v4lue" not in written
    assert "ValueError" in written
