"""The catalog: names, digests, checks of arguments, and what holds for the calls of every provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.model import Effect, Failure, JsonObject, Tool, ToolProgress, ToolResult, Violation
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.progress import ProgressGate
from autoglm_server.tools.tool import AbandonedError, Invocation, ToolCallError
from autoglm_server.tools.validation import Schema, SchemaError

FIELD = "steps[3].arguments"
LIMITS = ToolLimits(stop_grace=0.02, progress_interval=0.01)


class StubProvider:
    """A provider whose tools and answers a test sets."""

    def __init__(self, name: str = "", *tools: Tool) -> None:
        self.name = name
        self.listed: Sequence[Tool] = tools
        self.calls: list[Invocation] = []
        self.answer: Callable[[Invocation], Any] = lambda _invocation: ToolResult(output=None)
        self.log: list[str] = []
        self.fails = False

    async def start(self) -> None:
        if self.fails:
            raise ConnectionError(self.name)

        self.log.append(f"start {self.name}")

    async def stop(self) -> None:
        self.log.append(f"stop {self.name}")

    def tools(self) -> Sequence[Tool]:
        return self.listed

    async def call(self, invocation: Invocation) -> ToolResult:
        self.calls.append(invocation)
        result = self.answer(invocation)
        if asyncio.iscoroutine(result):
            result = await result

        assert isinstance(result, ToolResult)
        return result


def make(name: str = "t", schema: Any = None, output: Any = None, **more: Any) -> Tool:
    text = json.dumps(schema) if schema is not None else ""
    return Tool(
        name=name,
        input_schema=text,
        output_schema=json.dumps(output) if output is not None else "",
        effect=more.pop("effect", Effect.READ_ONLY),
        available=more.pop("available", True),
        **more,
    )


@pytest.fixture
async def provider() -> StubProvider:
    return StubProvider()


@pytest.fixture
async def catalog(provider: StubProvider) -> AsyncIterator[Catalog]:
    made = Catalog([provider], limits=LIMITS)
    await made.start()
    yield made
    await made.stop()


def check(schema: Any, arguments: JsonObject, *, references: bool = True) -> list[Violation]:
    catalog = Catalog([StubProvider("", make("t", schema))])
    return (
        catalog.check_written("t", arguments, field=FIELD) if references else resolved_faults(catalog, "t", arguments)
    )


def resolved_faults(catalog: Catalog, tool: str, arguments: JsonObject) -> list[Violation]:
    try:
        catalog.checked(tool, arguments)
    except ToolCallError as refused:
        return list(refused.failure.violations)

    return []


def places(schema: Any, arguments: JsonObject, *, references: bool = True) -> list[tuple[str, str]]:
    found = check(schema, arguments, references=references)
    return sorted((v.field.removeprefix(FIELD).removeprefix("arguments"), v.reason) for v in found)


async def test_names_come_from_the_providers() -> None:
    own, mounted = StubProvider("", make("math.add")), StubProvider("calc", make("add"), make("sub"))
    catalog = Catalog([own, mounted])
    await catalog.start()

    assert [tool.name for tool in catalog.tools()] == ["calc.add", "calc.sub", "math.add"]
    assert [tool.name for tool in catalog.tools(["calc.*", "nothing"])] == ["calc.add", "calc.sub"]
    added = catalog.get("calc.add")
    assert added is not None
    assert added.provider == "calc"
    assert added.digest.startswith("sha256:")
    assert catalog.get("add") is None
    assert catalog.nearest("calc.ad")[0] == "calc.add"
    assert catalog.nearest("weather") == []

    await catalog.call(Invocation("calc.add", {}, "k", 5))
    assert [invocation.tool for invocation in mounted.calls] == ["add"]
    await catalog.stop()


async def test_a_provider_that_changes_its_tools_is_followed() -> None:
    provider = StubProvider("", make("a"))
    catalog = Catalog([provider])
    before = catalog.digest
    assert catalog.digest == before

    provider.listed = (make("a"), make("b"))
    assert catalog.get("b") is not None
    assert catalog.digest != before


async def test_what_cannot_be_offered_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    provider = StubProvider(
        "",
        make("good"),
        make("remote", {"$ref": "http://127.0.0.1:9/x.json"}),
        Tool(name="nojson", input_schema="{"),
        make("bad", {"type": "bogus"}),
        make("output", {}, {"pattern": "("}),
        make("good", {"type": "object", "maxProperties": 1}),
    )
    catalog = Catalog([provider])

    assert [tool.name for tool in catalog.tools()] == ["good"]
    assert "only references inside the schema" in catalog.refused["remote"]
    assert "output schema" in catalog.refused["output"]
    assert set(catalog.refused) == {"remote", "nojson", "bad", "output", "good"}
    assert "the tool remote is not offered" in caplog.text


def test_two_providers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two providers are called 'a'"):
        Catalog([StubProvider("a"), StubProvider("a")])


async def test_when_a_provider_fails_to_start_those_before_are_stopped() -> None:
    first, second = StubProvider("a"), StubProvider("b")
    second.fails = True
    with pytest.raises(ConnectionError):
        await Catalog([first, second]).start()

    assert first.log == ["start a", "stop a"]


STRICT = {
    "type": "object",
    "properties": {"values": {"type": "array", "items": {"type": "number"}}, "unit": {"type": "string"}},
    "required": ["values"],
    "additionalProperties": False,
}


def test_the_nearest_argument_is_named() -> None:
    inner = {"type": "object", "properties": {"amount": {}}, "additionalProperties": False}
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": inner}},
        "additionalProperties": False,
    }
    catalog = Catalog([StubProvider("", make("tool", schema))])
    arguments: JsonObject = {"itms": [], "colour": 1, "items": [{"amout": 1}]}
    found = resolved_faults(catalog, "tool", arguments)

    assert {violation.field: violation.description for violation in found} == {
        "arguments.itms": "is not known; did you mean items?",
        "arguments.colour": "is not known; leave it out",
        "arguments.items[0].amout": "is not known; did you mean amount?",
    }


def test_all_that_an_enumeration_allows_is_told() -> None:
    kinds = {"enum": ["line", "bar", "scatter", "pie"]}
    schema = {
        "type": "object",
        "properties": {"kind": kinds, "chart": {"anyOf": [{"properties": {"kind": kinds}}, {"type": "null"}]}},
    }
    catalog = Catalog([StubProvider("", make("tool", schema))])
    arguments: JsonObject = {"kind": "h" * 1000, "chart": {"kind": "heat"}}
    told = {violation.field: violation.description for violation in resolved_faults(catalog, "tool", arguments)}

    assert told["arguments.kind"] == f'"{"h" * 58}… is not one of "line", "bar", "scatter", "pie"'
    assert '"heat" is not one of "line", "bar", "scatter", "pie"; or ' in told["arguments.chart"]


def test_every_fault_has_its_place() -> None:
    assert places(STRICT, {"values": ["x", 1, "y"], "unit": 3, "odd key": 1}) == [
        (".unit", "TYPE"),
        (".values[0]", "TYPE"),
        (".values[2]", "TYPE"),
        ('["odd key"]', "UNKNOWN_FIELD"),
    ]
    assert places(STRICT, {}) == [(".values", "REQUIRED")]
    assert check(STRICT, {"values": [1, 2.5]}) == []


def test_an_unknown_tool_is_a_fault_that_tells_the_nearest() -> None:
    catalog = Catalog([StubProvider("", make("math.add"))])
    [violation] = catalog.check_written("math.ad", {}, field=FIELD)

    assert violation == Violation(FIELD, "there is no tool 'math.ad'; did you mean 'math.add'?", "TOOL_NOT_FOUND")


def test_errors_at_references_are_left_to_dispatch_and_all_others_count() -> None:
    arguments = {"values": ["${a}", "x", "b ${c}"], "unit": "${u}", "extra": "${e}"}

    assert places(STRICT, arguments) == [(".extra", "UNKNOWN_FIELD"), (".values[1]", "TYPE")]
    assert places(STRICT, arguments, references=False) == [
        (".extra", "UNKNOWN_FIELD"),
        (".values[0]", "TYPE"),
        (".values[1]", "TYPE"),
        (".values[2]", "TYPE"),
    ]
    assert places(STRICT, {"values": "${all}"}) == []


def test_an_escaped_reference_is_checked_as_the_text_it_stands_for() -> None:
    schema = {"properties": {"v": {"const": "${x}"}}}

    assert places(schema, {"v": "$${x}"}) == []
    assert places(schema, {"v": "$${y}"}) == [(".v", "CONST")]


@pytest.mark.parametrize(
    "keyword",
    [
        {"anyOf": [{"properties": {"v": {"type": "integer"}}}]},
        {"oneOf": [{"properties": {"v": {"type": "integer"}}}]},
        {"not": {"properties": {"v": {"type": "string"}}}},
        {"if": {"properties": {"v": {"type": "string"}}}, "then": {"required": ["w"]}},
        {"if": {"properties": {"v": {"type": "integer"}}}, "else": {"required": ["w"]}},
        {"const": {"v": 1}},
        {"enum": [{"v": 1}]},
    ],
)
def test_what_depends_on_a_reference_below_is_left_to_dispatch(keyword: JsonObject) -> None:
    schema = {"properties": {"deep": keyword, "n": {"type": "integer"}}}

    assert places(schema, {"deep": {"v": "${a}"}, "n": "x"}) == [(".n", "TYPE")]
    assert len(places(schema, {"deep": {"v": "text"}, "n": "x"})) == 2  # no reference: it counts


def test_a_reference_elsewhere_does_not_hide_an_any_of() -> None:
    schema = {"properties": {"deep": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}
    [violation] = check(schema, {"deep": "x", "other": "${a}"})

    assert (violation.field, violation.reason) == (f"{FIELD}.deep", "ANY_OF")
    assert '"x" is not of type "integer"; or' in violation.description


@given(st.integers())
def test_an_integer_of_any_size_is_one(number: int) -> None:
    big = abs(number) + (1 << 53)
    schema = {"properties": {"v": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "w": {"type": "integer"}}}

    assert check(schema, {"v": str(big), "w": str(-big)}) == []
    assert places(schema, {"v": "12", "w": "x"}) == [(".v", "ANY_OF"), (".w", "TYPE")]


def test_bounds_hold_for_integers_that_travel_as_strings() -> None:
    schema = {"properties": {"v": {"type": "integer", "maximum": 1 << 60}}}

    assert check(schema, {"v": str(1 << 60)}) == []
    assert places(schema, {"v": str((1 << 60) + 1)}) == [(".v", "MAXIMUM")]


def test_arguments_are_json_of_bounded_size_and_depth() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]

    assert places({}, {"v": deep}, references=False)[0][1] == "TOO_DEEP"
    assert places({}, {"v": float("inf")}, references=False) == [(".v", "NOT_FINITE")]
    assert places({}, {"v": "x" * (256 << 10)}, references=False) == [("", "TOO_LARGE")]


class Listener:
    """Counts who connects to a port of this machine."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}/schema.json"
        self.connections = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
            self.connections += 1
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}")
            connection.close()
        except TimeoutError:
            pass

    def close(self) -> None:
        self._thread.join()
        self._socket.close()


def test_a_remote_schema_is_never_fetched() -> None:
    listener = Listener()
    with pytest.raises(SchemaError, match="only references inside the schema itself"):
        Schema(json.dumps({"$ref": listener.address}), bytes_max=1000)

    listener.close()
    assert listener.connections == 0


def test_control_the_library_alone_would_have_fetched_it() -> None:
    listener = Listener()
    with contextlib.suppress(ValueError):  # whether it likes the answer does not matter here
        jsonschema_rs.validator_for({"$ref": listener.address})

    listener.close()
    assert listener.connections == 1


def test_references_inside_a_schema_are_followed() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "properties": {"v": {"$ref": "#/$defs/n"}}}
    assert places(schema, {"v": "x"}) == [(".v", "TYPE")]


def test_a_pattern_cannot_run_away() -> None:
    schema = {"properties": {"v": {"pattern": r"^(a|a)*\1$"}}}
    assert places(schema, {"v": "a" * 5000 + "b"})


async def failure(catalog: Catalog, name: str = "t", *, timeout: float = 5, **arguments: Any) -> Failure:  # noqa: ASYNC109  # the call's own
    with pytest.raises(ToolCallError) as caught:
        await catalog.call(Invocation(name, arguments, "k", timeout))

    return caught.value.failure


async def test_arguments_are_checked_in_full_before_a_call(catalog: Catalog, provider: StubProvider) -> None:
    provider.listed = (make("t", STRICT),)
    failed = await failure(catalog, values=["${a}"], other=1)

    assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("INVALID_ARGUMENTS", False, False)
    assert [v.field for v in failed.violations] == ["arguments.values[0]", "arguments.other"]
    assert provider.calls == []


async def test_a_tool_that_is_not_there_may_come_back(catalog: Catalog, provider: StubProvider) -> None:
    assert (await failure(catalog)).reason == "TOOL_UNAVAILABLE"
    provider.listed = (make("t", available=False),)
    failed = await failure(catalog)

    assert (failed.reason, failed.retryable, failed.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)


async def test_a_changed_tool_is_not_called(catalog: Catalog, provider: StubProvider) -> None:
    provider.listed = (make("t"),)
    tool = catalog.get("t")
    assert tool is not None
    await catalog.call(Invocation("t", {}, "k", 5), tool_digest=tool.digest)

    provider.listed = (make("t", STRICT),)
    with pytest.raises(ToolCallError) as caught:
        await catalog.call(Invocation("t", {"values": []}, "k", 5), tool_digest=tool.digest)

    assert caught.value.failure.reason == "TOOL_CHANGED"
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("effect", "retryable"),
    [(Effect.READ_ONLY, True), (Effect.IDEMPOTENT, True), (Effect.NON_IDEMPOTENT, False), (Effect.UNSPECIFIED, False)],
)
async def test_a_time_limit_leaves_the_outcome_unknown(
    catalog: Catalog,
    provider: StubProvider,
    effect: Effect,
    retryable: bool,
) -> None:
    provider.listed = (make("t", effect=effect),)
    provider.answer = lambda _invocation: asyncio.Event().wait()
    failed = await failure(catalog, timeout=0.01)

    assert (failed.reason, failed.outcome_unknown, failed.retryable) == ("STEP_TIMEOUT", True, retryable)
    assert "0.01 s" in failed.message


async def test_a_result_that_comes_while_the_call_is_told_to_stop_counts(
    catalog: Catalog,
    provider: StubProvider,
) -> None:
    async def finish() -> ToolResult:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

        return ToolResult(output="just in time")

    provider.listed = (make("t"),)
    provider.answer = lambda _invocation: finish()
    assert (await catalog.call(Invocation("t", {}, "k", 0.01))).output == "just in time"


async def test_a_second_cancellation_follows_the_time_limit(catalog: Catalog, provider: StubProvider) -> None:
    async def deaf() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise AbandonedError("t") from None

    provider.listed = (make("t"),)
    provider.answer = lambda _invocation: deaf()
    failed = await failure(catalog, timeout=0.01)

    assert failed.reason == "STEP_TIMEOUT"
    assert "may still be running" in failed.message


async def test_cancellation_passes_through(catalog: Catalog, provider: StubProvider) -> None:
    called = asyncio.Event()

    async def wait() -> ToolResult:
        called.set()
        await asyncio.Event().wait()
        raise AssertionError

    provider.listed = (make("t"),)
    provider.answer = lambda _invocation: wait()
    task = asyncio.ensure_future(catalog.call(Invocation("t", {}, "k", 5)))
    await called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_out_of_the_providers_own_is_not_ours(catalog: Catalog, provider: StubProvider) -> None:
    def fail(_invocation: Invocation) -> ToolResult:
        raise TimeoutError("its own")

    provider.listed = (make("t"),)
    provider.answer = fail
    with pytest.raises(TimeoutError, match="its own"):
        await catalog.call(Invocation("t", {}, "k", 5))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("x" * (1 << 20), "OUTPUT_TOO_LARGE"),
        (float("nan"), "INVALID_OUTPUT"),
        ({"n": "x"}, "INVALID_OUTPUT"),
        ({1}, "INVALID_OUTPUT"),
    ],
)
async def test_outputs_are_checked(catalog: Catalog, provider: StubProvider, output: Any, reason: str) -> None:
    provider.listed = (make("t", {}, {"properties": {"n": {"type": "integer"}}}),)
    provider.answer = lambda _invocation: ToolResult(output=output)
    failed = await failure(catalog)

    assert (failed.reason, failed.retryable, failed.outcome_unknown) == (reason, False, False)
    assert failed.violations


async def test_outputs_are_normal(catalog: Catalog, provider: StubProvider) -> None:
    provider.listed = (make("t", {}, {"properties": {"n": {"type": "integer"}}}),)
    provider.answer = lambda _invocation: ToolResult(output={"n": 1 << 60, "f": 2.0})
    output = (await catalog.call(Invocation("t", {}, "k", 5))).output

    assert output == {"n": str(1 << 60), "f": 2}
    assert type(output["f"]) is int


async def test_progress_is_told_at_a_bounded_rate_and_not_after_the_end(
    catalog: Catalog,
    provider: StubProvider,
) -> None:
    told: list[ToolProgress] = []
    kept: list[Callable[[ToolProgress], None]] = []

    def answer(invocation: Invocation) -> ToolResult:
        kept.append(invocation.report)
        for number in range(100):
            invocation.report(ToolProgress(number / 100, f"{number}", {"n": number}, "x"))

        return ToolResult()

    provider.listed = (make("t"),)
    provider.answer = answer
    await catalog.call(Invocation("t", {}, "k", 5, report=told.append))

    assert told == [ToolProgress(0.99, "99", {"n": 99}, "x" * 100)]
    kept[0](ToolProgress(1.0))
    await asyncio.sleep(0.02)
    assert len(told) == 1


async def test_progress_that_cannot_travel_is_made_to() -> None:
    told: list[ToolProgress] = []
    gate = ProgressGate(told.append, LIMITS)
    gate.report(ToolProgress(0.5, "a\nb\ud800" + "x" * 5000, float("nan"), "\ud800"))
    gate.close()

    [progress] = told
    assert progress.message.startswith("a b?xxx")
    assert len(progress.message) == 1024
    assert (progress.data, progress.text) == (None, "?")


async def test_progress_waits_for_its_turn() -> None:
    told: list[tuple[float, ToolProgress]] = []
    loop = asyncio.get_running_loop()
    twice = asyncio.Event()

    def deliver(progress: ToolProgress) -> None:
        told.append((loop.time(), progress))
        if len(told) == 2:
            twice.set()

    gate = ProgressGate(deliver, LIMITS)
    await asyncio.to_thread(gate.report, ToolProgress(0.1))
    await asyncio.sleep(0)
    gate.report(ToolProgress(0.2))
    gate.report(ToolProgress(0.3))
    await twice.wait()
    gate.close()

    (first_time, first), (second_time, second) = told
    assert (first.fraction, second.fraction) == (0.1, 0.3)
    assert second_time - first_time >= LIMITS.progress_interval * 0.9
