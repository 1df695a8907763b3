"""LangChain's tools in and out, with the real package, and what is said without it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from autoglm.integrations import langchain
from autoglm.model import CallContext, Effect, Plan, PlanState
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tool import Invocation, ToolCallError
from tests.sdk.integrations.test_functions import Client


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; import autoglm.integrations.langchain, autoglm.integrations.functions;"
        "assert not {'langchain_core', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_langchain_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(ImportError, match="pip install langchain-core"):
        langchain.plan_tool(Client())


@pytest.fixture
def tools() -> Any:
    return import_module("langchain_core.tools")


def invocation(name: str, **arguments: Any) -> Invocation:
    return Invocation(
        tool=name,
        arguments=arguments,
        idempotency_key="k",
        timeout=5.0,
        context=CallContext("p", "s", 1),
        report=lambda _: None,
    )


async def catalog_of(*found: Any) -> Catalog:
    catalog = Catalog([FunctionProvider("lc", list(found))])
    await catalog.start()
    return catalog


async def test_a_tool_in(tools: Any) -> None:
    @tools.tool  # type: ignore[untyped-decorator]
    def add(a: int, b: int = 2) -> dict[str, Any]:
        """Add two numbers."""
        return {"sum": a + b}

    @tools.tool  # type: ignore[untyped-decorator]
    async def search(query: str) -> str:
        """Search."""
        if query == "odd":
            raise tools.ToolException("nothing found")

        return f"about {query}"

    made = langchain.from_langchain(add, effect=Effect.READ_ONLY)
    assert (made.spec.name, made.spec.description, made.spec.effect) == ("add", "Add two numbers.", Effect.READ_ONLY)
    catalog = await catalog_of(made, langchain.from_langchain(search, name="web.search"))
    try:
        assert (await catalog.call(invocation("lc.add", a=1))).output == {"sum": 3}
        assert (await catalog.call(invocation("lc.web.search", query="tea"))).output == "about tea"
        with pytest.raises(ToolCallError) as wrong:
            await catalog.call(invocation("lc.add", a="x"))

        assert wrong.value.failure.reason == "INVALID_ARGUMENTS"
        with pytest.raises(ToolCallError) as failed:
            await catalog.call(invocation("lc.web.search", query="odd"))

        assert (failed.value.failure.reason, failed.value.failure.message) == ("TOOL_EXCEPTION", "nothing found")
    finally:
        await catalog.stop()


def test_what_is_no_tool(tools: Any) -> None:
    with pytest.raises(TypeError, match="no LangChain tool"):
        langchain.from_langchain(object())


async def test_tools_out(tools: Any) -> None:
    client = Client()
    plan = langchain.plan_tool(client)
    (add,) = langchain.client_tools(client)

    assert isinstance(plan, tools.BaseTool)
    assert plan.invoke({"request": "1 + 2"}) == "It is 3."
    assert await plan.ainvoke({"request": "1 + 2"}) == "It is 3."
    assert client.asked[0][0] == "1 + 2"
    assert add.name == "math__add"
    assert add.invoke({"a": 1}) == '{"sum":3}'
    assert client.tools.calls == [("math.add", {"a": 1})]
    failed = Client(Plan(id="p", state=PlanState.FAILED))
    assert langchain.plan_tool(failed).invoke({"request": "x"}).startswith("error: ")
