"""What the configuration puts around tools: each wrapper alone, and all of them in their order, in the catalog."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm.model import Artifact, CallContext, Effect, Failure, Tool, ToolProgress, ToolResult
from autoglm.wire import canonical_json
from autoglm_server.settings import ToolSettings
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.redaction import REDACTED, Redaction
from autoglm_server.tools.tool import Invocation, ToolCallError
from autoglm_server.tools.wrappers import ConcurrencyLimit, RateLimit, Store, Wrappers


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """A provider whose calls a test counts and answers."""

    name = "p"

    def __init__(self, *tools: Tool) -> None:
        self.listed = tools or (Tool(name="t", effect=Effect.READ_ONLY, available=True),)
        self.calls: list[Invocation] = []
        self.answer: Callable[[Invocation], Awaitable[ToolResult]] | None = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def tools(self) -> tuple[Tool, ...]:
        return self.listed

    async def call(self, invocation: Invocation) -> ToolResult:
        self.calls.append(invocation)
        return ToolResult(len(self.calls)) if self.answer is None else await self.answer(invocation)


def rule(match: str = "*", **more: Any) -> ToolSettings:
    return ToolSettings.model_validate({"match": match, **more})


def invocation(tool: str = "p.t", principal: str = "ann", timeout: float = 5, **arguments: Any) -> Invocation:
    return Invocation(tool, arguments, "", timeout, CallContext(principal=principal))


async def turns() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def catalog_of(provider: Counting, *rules: ToolSettings, now: Any = None) -> Catalog:
    catalog = Catalog([provider], wrappers=Wrappers(rules, now=now) if now else Wrappers(rules))
    await catalog.start()
    return catalog


# --- cache


async def test_the_cache_answers_the_same_call_of_the_same_principal_until_it_is_too_old() -> None:
    provider, now = Counting(), Seconds()
    catalog = await catalog_of(provider, rule(cache={"ttl": "10s"}), now=now)

    assert (await catalog.call(invocation(a=1, b=2))).output == 1
    assert (await catalog.call(invocation(b=2, a=1))).output == 1
    assert (await catalog.call(invocation(a=1, b=3))).output == 2
    assert (await catalog.call(invocation(principal="bob", a=1, b=2))).output == 3
    now.now += 9.9
    assert (await catalog.call(invocation(a=1, b=2))).output == 1
    now.now += 0.1
    assert (await catalog.call(invocation(a=1, b=2))).output == 4


@pytest.mark.parametrize("effect", [Effect.IDEMPOTENT, Effect.NON_IDEMPOTENT, Effect.UNSPECIFIED])
async def test_the_cache_is_for_read_only_tools_alone(effect: Effect) -> None:
    provider = Counting(Tool(name="t", effect=effect, available=True))
    catalog = await catalog_of(provider, rule(cache={}))

    assert [(await catalog.call(invocation())).output for _ in range(2)] == [1, 2]


async def test_the_cache_keeps_neither_failures_nor_artifacts_nor_what_a_caller_did_to_an_output() -> None:
    provider = Counting()
    catalog = await catalog_of(provider, rule(cache={}))
    outcomes: list[Any] = [
        ToolCallError(Failure("BUSY", "p", "busy")),
        ToolResult("file", (Artifact(name="a"),)),
        ToolResult({"list": [1]}),
    ]

    async def answer(_: Invocation) -> ToolResult:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome

        assert isinstance(outcome, ToolResult)
        return outcome

    provider.answer = answer
    with pytest.raises(ToolCallError, match="busy"):
        await catalog.call(invocation())

    assert (await catalog.call(invocation())).output == "file"
    first = (await catalog.call(invocation())).output
    first["list"].append(2)
    assert (await catalog.call(invocation())).output == {"list": [1]}
    assert len(provider.calls) == 3


async def test_a_tool_that_changed_is_not_answered_from_before() -> None:
    provider = Counting()
    catalog = await catalog_of(provider, rule(cache={}))
    await catalog.call(invocation())
    provider.listed = (Tool(name="t", effect=Effect.READ_ONLY, available=True, output_schema='{"type":"integer"}'),)

    assert (await catalog.call(invocation())).output == 2


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 900)), max_size=60))
def test_a_store_keeps_within_its_bytes_and_gives_what_was_put_last(puts: list[tuple[str, int]]) -> None:
    store, last = Store(60, 3000), {}
    for key, size in puts:
        store.put(key, "é" * size)
        last[key] = "é" * size
        assert store.bytes <= 3000

    for key, text in last.items():
        assert store.get(key) in (text, None)

    if puts and len(last[puts[-1][0]].encode()) + 512 <= 3000:
        assert store.get(puts[-1][0]) == last[puts[-1][0]]  # the newest is never the one that goes


# --- rate and concurrency


async def test_a_burst_goes_at_once_then_calls_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = Seconds(), []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now.now += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    provider = Counting()
    catalog = await catalog_of(provider, rule(rate="2/s"), now=now)
    for _ in range(4):
        await catalog.call(invocation())

    assert slept == [0.5, 0.5]
    assert [round(call.timeout, 6) for call in provider.calls] == [5, 5, 4.5, 4.5]  # what was waited is taken off
    now.now += 60
    await catalog.call(invocation())
    await catalog.call(invocation())
    assert slept == [0.5, 0.5]


async def test_a_turn_that_comes_too_late_is_refused_at_once_with_when_it_would_be() -> None:
    now, provider = Seconds(), Counting()
    catalog = await catalog_of(provider, rule(rate="1/m"), now=now)
    await catalog.call(invocation())

    with pytest.raises(
        ToolCallError, match=r"p\.t is called too often: its turn would come in 60 s, it has 5 s"
    ) as told:
        await catalog.call(invocation())

    assert told.value.failure.reason == "TOOL_UNAVAILABLE"
    assert told.value.failure.retryable
    assert told.value.failure.retry_after == timedelta(seconds=60)
    now.now += 60  # the refused call took no token
    assert (await catalog.call(invocation())).output == 2


async def test_a_turn_that_is_not_waited_for_is_given_back() -> None:
    now = Seconds()
    limit = RateLimit(0.01, 1, now)

    async def proceed(_: Invocation) -> ToolResult:
        return ToolResult()

    await limit.call(invocation(), proceed)
    waiting = asyncio.get_running_loop().create_task(limit.call(invocation(timeout=500), proceed))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    now.now += 100
    await limit.call(invocation(timeout=0.001), proceed)


async def test_so_many_run_at_once_and_places_come_back_whatever_happens() -> None:
    limit = ConcurrencyLimit(2)
    gate, running = asyncio.Event(), []

    async def proceed(one: Invocation) -> ToolResult:
        running.append(one.arguments["n"])
        await gate.wait()
        raise ToolCallError(Failure("BROKEN", "p", "broken"))

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(limit.call(invocation(n=n), proceed)) for n in range(4)]
    await turns()

    with pytest.raises(ToolCallError, match=r"may run 2 times at once, and does; no place came in 0\.01 s") as told:
        await limit.call(invocation(timeout=0.01, n=9), proceed)

    assert told.value.failure.retryable
    assert running == [0, 1]
    tasks[2].cancel()
    gate.set()
    outcomes = [await asyncio.wait([task]) for task in tasks]
    assert outcomes
    assert running == [0, 1, 3]
    assert [task.cancelled() for task in tasks] == [False, False, True, False]


async def test_who_waits_for_its_turn_says_so_and_who_does_not_says_nothing() -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    async def proceed(_: Invocation) -> ToolResult:
        await gate.wait()
        return ToolResult()

    def telling(name: str) -> Invocation:
        return Invocation("p.t", {}, "", 5, report=lambda progress: seen.append(f"{name} {progress.message}"))

    places, rate = ConcurrencyLimit(1), RateLimit(50, 1)
    async with asyncio.TaskGroup() as tasks:
        for name in "ab":
            tasks.create_task(places.call(telling(name), proceed))

        await turns()
        gate.set()

    await rate.call(telling("c"), proceed)
    await rate.call(telling("d"), proceed)

    assert seen[0] == "b waits for its turn: its concurrency is 1"
    assert re.fullmatch(r"d waits 0\.0\d+ s for its turn: its rate is 50 calls a second", seen[1])
    assert len(seen) == 2


async def test_what_the_cache_answers_is_marked() -> None:
    seen: list[str] = []
    catalog = await catalog_of(Counting(), rule(cache={}))
    asked = Invocation("p.t", {}, "", 5, report=lambda progress: seen.append(progress.message))

    await catalog.call(asked)
    assert seen == []
    await catalog.call(asked)
    assert seen == ["answered from the cache"]


# --- redaction


async def test_keys_and_places_are_taken_out_of_outputs_progress_and_failures() -> None:
    provider = Counting()
    catalog = await catalog_of(provider, rule(redact=["password"]), rule(redact=["/items/*/token", "/a~1b"]))
    output = {"items": [{"token": "x", "Password": "y", "id": 1}], "a/b": {"c": 1}, "token": "stays"}
    seen: list[ToolProgress] = []

    async def answer(one: Invocation) -> ToolResult:
        one.report(ToolProgress(0.5, data={"password": "y", "n": 1}))
        if one.arguments:
            raise ToolCallError(Failure("NO", "p", "no", metadata={"password": "y", "n": "1"}))

        return ToolResult(output)

    provider.answer = answer
    result = await catalog.call(Invocation("p.t", {}, "", 5, report=seen.append))

    assert result.output == {
        "items": [{"token": REDACTED, "Password": REDACTED, "id": 1}],
        "a/b": REDACTED,
        "token": "stays",
    }
    assert output["token"] == "stays"
    assert output["items"][0]["token"] == "x"  # type: ignore[index]
    with pytest.raises(ToolCallError) as told:
        await catalog.call(invocation(fail=True))

    assert told.value.failure.metadata == {"password": REDACTED, "n": "1"}
    assert [progress.data for progress in seen] == [{"password": REDACTED, "n": 1}]


async def test_redaction_comes_after_the_schema_and_before_the_cache() -> None:
    provider = Counting(
        Tool(
            name="t",
            effect=Effect.READ_ONLY,
            available=True,
            output_schema='{"type":"object","properties":{"pin":{"type":"integer"}}}',
        )
    )

    async def answer(_: Invocation) -> ToolResult:
        return ToolResult({"pin": 1234})

    provider.answer = answer
    catalog = await catalog_of(provider, rule(redact=["pin"], cache={}))

    assert [(await catalog.call(invocation())).output for _ in range(2)] == [{"pin": REDACTED}] * 2
    assert len(provider.calls) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "secret"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON)
def test_what_is_redacted_is_gone_and_nothing_else_is(value: Any) -> None:
    def without(one: Any) -> Any:
        if isinstance(one, dict):
            return {key: REDACTED if key == "secret" else without(inner) for key, inner in one.items()}

        return [without(inner) for inner in one] if isinstance(one, list) else one

    before = canonical_json(value)
    assert Redaction(["SECRET"]).of(value) == without(value)
    assert canonical_json(value) == before


# --- together


async def test_later_entries_go_over_earlier_ones_key_by_key() -> None:
    tools = (Tool(name="t", available=True, timeout=timedelta(seconds=1)), Tool(name="u", available=True))
    catalog = await catalog_of(
        Counting(*tools),
        rule(timeout="10s", requires_approval=True),
        rule("p.u", timeout="20s"),
        rule("p.t", requires_approval=False),
    )

    shown = {tool.name: (tool.timeout, tool.requires_approval) for tool in catalog.tools()}
    assert shown == {"p.t": (timedelta(seconds=10), False), "p.u": (timedelta(seconds=20), True)}


async def test_what_waits_for_approval_has_the_same_digest_as_before() -> None:
    plain, wrapped = await catalog_of(Counting()), await catalog_of(Counting(), rule(requires_approval=True))
    first, second = plain.get("p.t"), wrapped.get("p.t")

    assert first is not None
    assert second is not None
    assert first.digest == second.digest


async def test_each_tool_has_its_own_rate_which_outlives_a_new_list_and_a_cached_call_costs_nothing() -> None:
    tools = tuple(Tool(name=name, effect=Effect.READ_ONLY, available=True) for name in "tu")
    provider, now = Counting(*tools), Seconds()
    catalog = await catalog_of(provider, rule(rate="1/h", cache={}), now=now)

    await catalog.call(invocation("p.t"))
    await catalog.call(invocation("p.u"))
    await catalog.call(invocation("p.t"))
    provider.listed = tools[::-1]
    with pytest.raises(ToolCallError, match="too often"):
        await catalog.call(invocation("p.t", other=True))


@pytest.mark.parametrize(
    "wrong",
    [{"rate": "10"}, {"rate": "0/s"}, {"rate": "1/y"}, {"redact": ["/"]}, {"concurrency": 0}, {"cache": {"ttl": 0}}],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule(**wrong)


# --- other providers in the place of these


async def test_replaced_providers_end_their_calls_before_they_are_stopped() -> None:
    log: list[str] = []
    gate = asyncio.Event()

    class Logging(Counting):
        def __init__(self, label: str) -> None:
            super().__init__()
            self.label = label

        async def start(self) -> None:
            log.append(f"start {self.label}")

        async def stop(self) -> None:
            log.append(f"stop {self.label}")

    async def slow(_: Invocation) -> ToolResult:
        await gate.wait()
        return ToolResult("old")

    old, new = Logging("old"), Logging("new")
    old.answer = slow
    catalog = Catalog([old])
    await catalog.start()
    call = asyncio.get_running_loop().create_task(catalog.call(invocation()))
    await turns()

    await catalog.replace([new])
    retiring = asyncio.get_running_loop().create_task(catalog.retire())
    assert (await catalog.call(invocation())).output == 1
    await asyncio.sleep(0)
    assert log == ["start old", "start new"]
    gate.set()
    assert (await call).output == "old"
    await retiring
    assert log == ["start old", "start new", "stop old"]
    await catalog.stop()
    assert log == ["start old", "start new", "stop old", "stop new"]


async def test_a_provider_that_does_not_start_changes_nothing() -> None:
    class Broken(Counting):
        name = "q"

        async def start(self) -> None:
            raise OSError("no route")

    old = Counting()
    catalog = Catalog([old])
    await catalog.start()
    with pytest.raises(OSError, match="no route"):
        await catalog.replace([Broken(), old])

    assert [tool.name for tool in catalog.tools()] == ["p.t"]
    await catalog.retire()
    assert (await catalog.call(invocation())).output == 1


async def test_places_do_not_bound_sub_plans_which_may_run_others() -> None:
    wrappers = Wrappers([ToolSettings(match="*", concurrency=1)])
    inner = Tool("plan.run", effect=Effect.IDEMPOTENT)

    async def leaf(invocation: Invocation) -> ToolResult:
        return ToolResult("deep")

    async def nested(invocation: Invocation) -> ToolResult:
        return await wrappers.around(inner, leaf)(invocation)

    async with asyncio.timeout(30):
        assert (await wrappers.around(inner, nested)(Invocation("plan.run", {}, "", 60.0))).output == "deep"
