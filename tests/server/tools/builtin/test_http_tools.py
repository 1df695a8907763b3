"""``http.get`` and ``http.send``: what they may reach, what they give, and that nothing is there without settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from autoglm.model import Effect, Failure, Json
from autoglm_server.settings import HttpSettings
from autoglm_server.tools.builtin.https import HttpProvider
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.providers import open_http
from autoglm_server.tools.secrets import Secrets, Source
from autoglm_server.tools.tool import Invocation, ToolCallError
from tests.server.tools.http.serving import Handler, Seen, Served, always, answer, resolver, serving

NAMES = resolver(web_example=["127.0.0.1"], inside_example=["127.0.0.1"])


@asynccontextmanager
async def web(handler: Handler) -> AsyncIterator[tuple[Catalog, str, Served]]:
    async with serving(handler) as served:
        settings = HttpSettings(allow=("http://*.example:*",), private=("web.example",))
        secrets = Secrets({"token": Source("env:TOKEN")}, {"TOKEN": "c4nary-value"})
        secrets.load()
        catalog = Catalog([HttpProvider(settings, resolver=NAMES)], secrets=secrets)
        await catalog.start()
        try:
            yield catalog, f"http://web.example:{served.port}", served
        finally:
            await catalog.stop()


async def call(catalog: Catalog, tool: str, arguments: dict[str, Json]) -> Any:
    return (await catalog.call(Invocation(tool, arguments, "plan/step", 5.0))).output


async def fails(catalog: Catalog, tool: str, arguments: dict[str, Json]) -> Failure:
    with pytest.raises(ToolCallError) as raised:
        await call(catalog, tool, arguments)

    return raised.value.failure


def test_without_an_allowed_host_there_are_no_tools() -> None:
    assert open_http(HttpSettings()) == []
    assert [tool.name for tool in open_http(HttpSettings(allow=("a.example",)))[0].tools()] == ["get", "send"]


def test_settings_that_are_wrong_are_told() -> None:
    with pytest.raises(ValueError, match=r"http: .*no host"):
        open_http(HttpSettings(allow=("https://a.example/path",)))

    with pytest.raises(ValueError, match=r"http: .*exact"):
        open_http(HttpSettings(allow=("*",), private=("*.internal",)))


async def test_reading_repeats_and_sending_asks() -> None:
    async with web(always(answer(204))) as (catalog, _, _served):
        get, send = catalog.tools()

    assert (get.name, get.effect, get.requires_approval) == ("http.get", Effect.READ_ONLY, False)
    assert (send.name, send.effect, send.requires_approval) == ("http.send", Effect.NON_IDEMPOTENT, True)


async def test_an_answer_is_a_result() -> None:
    data = answer(404, "not here: c4nary-value", [("Content-Type", "text/plain"), ("Set-Cookie", "s=1"), ("ETag", "e")])
    async with web(always(data)) as (catalog, url, served):
        result = await call(
            catalog, "http.get", {"url": url + "/x", "headers": {"X-Key": "secret://token", "Accept": "a"}}
        )

    assert result == {
        "status": 404,
        "url": url + "/x",
        "headers": {"content-type": "text/plain", "etag": "e"},
        "body": "not here: ***",
        "base64": "",
    }
    assert (served.seen[0].headers["x-key"], served.seen[0].headers["accept"]) == ("c4nary-value", "a")


async def test_what_is_sent() -> None:
    async with web(always(answer(201, b"\xff\xfe", [("Content-Type", "image/png")]))) as (catalog, url, served):
        arguments: dict[str, Json] = {"url": url, "body": '{"a": 1}', "bearer_token": "secret://token", "method": "PUT"}
        result = await call(catalog, "http.send", arguments)

    seen = served.seen[0]
    assert (result["status"], result["body"], result["base64"]) == (201, "", "//4=")
    assert (seen.method, seen.body) == ("PUT", b'{"a": 1}')
    assert seen.headers["authorization"] == "Bearer c4nary-value"
    assert (seen.headers["content-type"], seen.headers["idempotency-key"]) == ("application/json", "plan/step")


@pytest.mark.parametrize("tool", ["http.get", "http.send"])
@pytest.mark.parametrize(
    "url",
    [
        "https://web.example/",
        "http://other.test/",
        "http://inside.example:{port}/",
        "http://127.0.0.1:{port}/",
        "http://2130706433:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://web.example@127.0.0.1:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
    ],
)
async def test_everything_else_is_refused(tool: str, url: str) -> None:
    async with web(always(answer(200, "inner"))) as (catalog, base, served):
        failure = await fails(catalog, tool, {"url": url.format(port=served.port)})
        assert (failure.reason, failure.retryable, failure.outcome_unknown) == ("REFUSED", False, False)
        assert served.connections == 0
        assert (await call(catalog, tool, {"url": base}))["body"] == "inner", "the control: what is allowed is reached"


@pytest.mark.parametrize(
    ("tool", "status", "headers", "retryable", "unknown"),
    [
        ("http.get", 500, [], True, False),
        ("http.get", 429, [], True, False),
        ("http.send", 500, [], False, False),
        ("http.send", 504, [], False, True),
        ("http.send", 429, [("Retry-After", "1")], True, False),
    ],
)
async def test_what_may_pass_is_a_failure(
    tool: str, status: int, headers: list[tuple[str, str]], retryable: bool, unknown: bool
) -> None:
    async with web(always(answer(status, "", headers))) as (catalog, url, _):
        failure = await fails(catalog, tool, {"url": url})

    assert (failure.retryable, failure.outcome_unknown) == (retryable, unknown)


async def test_a_broken_send_is_of_unknown_outcome() -> None:
    async def cut(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with web(cut) as (catalog, url, _):
        read, sent = await fails(catalog, "http.get", {"url": url}), await fails(catalog, "http.send", {"url": url})

    assert (read.reason, read.retryable, read.outcome_unknown) == ("CONNECTION_LOST", True, True)
    assert (sent.reason, sent.retryable, sent.outcome_unknown) == ("CONNECTION_LOST", False, True)


async def test_a_large_answer_is_not_held() -> None:
    async with web(always(answer(200, "x" * (600 << 10)))) as (catalog, url, _):
        assert (await fails(catalog, "http.get", {"url": url})).reason == "OUTPUT_TOO_LARGE"
