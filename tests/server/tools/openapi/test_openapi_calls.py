"""Calls of a document's operations: what is sent, what comes of the answer, what a service can do wrong."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autoglm.model import CallContext, Effect, Failure, Json
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.providers.openapi.operations import Choices
from autoglm_server.tools.providers.openapi.provider import OpenApiProvider, Source
from autoglm_server.tools.secrets import Secrets
from autoglm_server.tools.secrets import Source as SecretSource
from autoglm_server.tools.tool import Invocation, ToolCallError
from tests.server.tools.http.serving import Handler, Seen, Served, always, answer, resolver, serving

HERE = Path(__file__).parent
CREDENTIALS = {name: f"secret://{name}" for name in ("key", "token", "query", "cookie")} | {
    "basic": "ann:secret://basic"
}
VALUES = {name.upper(): f"value-of-{name}" for name in CREDENTIALS}
NAMES = resolver(pets_example=["127.0.0.1"], inside_example=["127.0.0.1"])


def known(values: dict[str, str] | None = None) -> Secrets:
    secrets = Secrets(
        {name: SecretSource(f"env:{name.upper()}") for name in CREDENTIALS}, VALUES if values is None else values
    )
    secrets.load()
    return secrets


@asynccontextmanager
async def pets(
    handler: Handler, *, secrets: Secrets | None = None, **choices: Any
) -> AsyncIterator[tuple[Catalog, Served]]:
    async with serving(handler) as served:
        secrets = secrets or known()
        choices = {"server": f"http://pets.example:{served.port}/v1", "credentials": CREDENTIALS, **choices}
        source = Source(str(HERE / "petstore.yaml"), Choices(**choices), {"X-Client": "tests"})
        catalog = Catalog(
            [OpenApiProvider("pets", source, secrets, resolver=NAMES)], secrets=secrets, limits=ToolLimits()
        )
        await catalog.start()
        try:
            yield catalog, served
        finally:
            await catalog.stop()


async def call(
    catalog: Catalog, tool: str, arguments: dict[str, Json], seconds: float = 5.0, key: str = "plan/step"
) -> Json:
    return (await catalog.call(Invocation(f"pets.{tool}", arguments, key, seconds, CallContext()))).output


async def fails(catalog: Catalog, tool: str, arguments: dict[str, Json], seconds: float = 5.0) -> Failure:
    with pytest.raises(ToolCallError) as raised:
        await call(catalog, tool, arguments, seconds)

    return raised.value.failure


def ok(value: Json) -> bytes:
    return answer(body=json.dumps(value), headers=[("Content-Type", "application/json; charset=utf-8")])


# --- what is sent


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        ({}, "/v1/pets"),
        ({"limit": 3}, "/v1/pets?limit=3"),
        ({"tag": ["a b", "c&d"]}, "/v1/pets?tag=a%20b&tag=c%26d"),
        ({"ids": [1, 2]}, "/v1/pets?ids=1,2"),
        ({"filter": {"a": "x", "b": {"c": True}}}, "/v1/pets?filter[a]=x&filter[b][c]=true"),
        ({"near": {"lat": 1.5}}, "/v1/pets?near=%7B%22lat%22%3A1.5%7D"),
        ({"kind": "no"}, "/v1/pets?kind=no"),
    ],
)
async def test_the_query_is_written_as_the_document_says(arguments: dict[str, Json], target: str) -> None:
    async with pets(always(ok([]))) as (catalog, served):
        await call(catalog, "listPets", arguments)

    assert served.seen[0].target == target


async def test_headers_cookies_and_credentials_are_sent() -> None:
    async with pets(always(ok([]))) as (catalog, served):
        await call(catalog, "listPets", {"X-Trace": "t1", "session": "s 1"})
        await call(catalog, "deletePet", {"petId": "7"})
        await call(catalog, "pets_create", {"body": {"name": "Tom"}})

    listed, deleted, made = served.seen
    assert (listed.headers["x-trace"], listed.headers["cookie"]) == ("t1", "session=s%201")
    assert (listed.headers["x-api-key"], listed.headers["x-client"]) == ("value-of-key", "tests")
    assert "idempotency-key" not in listed.headers
    assert deleted.target == "/v1/pets/7?api_key=value-of-query"
    assert deleted.headers["cookie"] == "sid=value-of-cookie"
    assert deleted.headers["idempotency-key"] == "plan/step"
    assert made.headers["authorization"] == "Basic " + base64.b64encode(b"ann:value-of-basic").decode()
    assert (made.headers["content-type"], json.loads(made.body)) == ("application/json", {"name": "Tom"})


async def test_the_first_credentials_that_are_there_are_shown() -> None:
    some = {"token": "secret://token"}
    async with pets(always(ok([])), credentials=some) as (catalog, served):
        await call(catalog, "pets_create", {"body": {"name": "Tom"}})
        await call(catalog, "listPets", {})

    assert served.seen[0].headers["authorization"] == "Bearer value-of-token"
    assert not {"authorization", "x-api-key"} & served.seen[1].headers.keys()


async def test_a_form_is_written_as_the_document_says() -> None:
    async with pets(always(answer(204))) as (catalog, served):
        body: dict[str, Json] = {"name": "a&b", "meta": {"x": [1, {"y": "ü"}]}, "tags": ["p", "q"]}
        result = await call(catalog, "putPet", {"petId": "a/b", "petId_query": "q", "body": body})

    seen = served.seen[0]
    assert result is None
    assert (seen.method, seen.target) == ("PUT", "/v1/pets/a%2Fb?petId=q")
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert seen.body == b"name=a%26b&meta[x][0]=1&meta[x][1][y]=%C3%BC&tags=p&tags=q"


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_a_value_cannot_make_another_path_of_it(value: str) -> None:
    async with pets(always(answer(204))) as (catalog, served):
        failure = await fails(catalog, "deletePet", {"petId": value})

    assert (failure.reason, failure.violations[0].field) == ("INVALID_ARGUMENTS", "arguments.petId")
    assert served.seen == []


async def test_a_value_cannot_leave_its_header() -> None:
    async with pets(always(ok([]))) as (catalog, served):
        failure = await fails(catalog, "listPets", {"X-Trace": "a\r\nX-Evil: 1"})

    assert failure.reason == "INVALID_ARGUMENTS"
    assert served.seen == []


async def test_a_credential_that_is_missing_fails_before_anything_is_sent() -> None:
    async with pets(always(ok([])), secrets=known({})) as (catalog, served):
        failure = await fails(catalog, "listPets", {})

    assert (failure.reason, failure.retryable) == ("TOOL_UNAVAILABLE", False)
    assert "KEY" not in failure.message
    assert served.seen == []


# --- what comes of the answer


@pytest.mark.parametrize(
    ("data", "output"),
    [
        (ok({"a": [1, 2.5, None]}), {"a": [1, 2.5, None]}),
        (ok(9007199254740993), "9007199254740993"),
        (answer(200, "hello", [("Content-Type", "text/plain")]), "hello"),
        (answer(200, "hello"), "hello"),
        (answer(204), None),
        (
            answer(200, b"\x89PNG\xff", [("Content-Type", "image/png")]),
            {"media_type": "image/png", "artifact": "listPets.png", "size_bytes": 5, "base64": "iVBOR/8="},
        ),
    ],
)
async def test_answers_are_outputs(data: bytes, output: Json) -> None:
    async with pets(always(data)) as (catalog, _):
        assert await call(catalog, "listPets", {}) == output


@pytest.mark.parametrize(
    ("tool", "status", "headers", "expected"),
    [
        ("listPets", 404, [], ("NOT_FOUND", False, False, None)),
        ("listPets", 401, [], ("UNAUTHENTICATED", False, False, None)),
        ("listPets", 500, [], ("HTTP_500", True, False, None)),
        ("listPets", 429, [("Retry-After", "7")], ("RATE_LIMITED", True, False, 7)),
        ("listPets", 429, [], ("RATE_LIMITED", True, False, None)),
        ("create", 429, [], ("RATE_LIMITED", False, False, None)),
        ("create", 429, [("Retry-After", "7")], ("RATE_LIMITED", True, False, 7)),
        (
            "create",
            503,
            [("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT"), ("Date", "Sun, 06 Nov 1994 08:49:07 GMT")],
            ("HTTP_503", True, False, 30),
        ),
        ("create", 503, [("Retry-After", "soon")], ("HTTP_503", False, False, None)),
        ("create", 500, [], ("HTTP_500", False, False, None)),
        ("create", 502, [], ("HTTP_502", False, True, None)),
        ("create", 302, [("Location", "/elsewhere")], ("HTTP_302", False, False, None)),
        ("put", 500, [], ("HTTP_500", True, False, None)),
        ("put", 503, [("Retry-After", "99999999")], ("HTTP_503", True, False, 3600)),
    ],
)
async def test_a_no_is_a_failure_by_the_tools_effect(
    tool: str, status: int, headers: list[tuple[str, str]], expected: tuple[str, bool, bool, int | None]
) -> None:
    calls: dict[str, tuple[str, dict[str, Json]]] = {
        "listPets": ("listPets", {}),
        "create": ("pets_create", {"body": {"name": "Tom"}}),
        "put": ("putPet", {"petId": "1"}),
    }
    data = answer(status, '{"error": "no value-of-key"}', [("Content-Type", "application/json"), *headers])
    async with pets(always(data)) as (catalog, _):
        failure = await fails(catalog, *calls[tool])

    reason, retryable, unknown, after = expected
    assert (failure.reason, failure.retryable, failure.outcome_unknown) == (reason, retryable, unknown)
    assert failure.retry_after == (None if after is None else timedelta(seconds=after))
    assert str(status) in failure.message
    assert "value-of-key" not in failure.message


async def cut(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def hang(_seen: Seen, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def flood(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n")
    for _ in range(1600):
        writer.write(b" " * 65536)
        await writer.drain()


FAULTS: list[tuple[Handler, str, bool]] = [
    (cut, "CONNECTION_LOST", True),
    (hang, "STEP_TIMEOUT", True),
    (flood, "OUTPUT_TOO_LARGE", False),
    (always(ok("x" * (2 << 20))), "OUTPUT_TOO_LARGE", False),
    (always(b"garbage\r\n\r\n"), "CONNECTION_LOST", True),
    (always(answer(200, "{garbage", [("Content-Type", "application/json")])), "INVALID_OUTPUT", False),
    (always(answer(200, "[" * 99 + "]" * 99, [("Content-Type", "application/json")])), "INVALID_OUTPUT", False),
    (always(answer(200, "x", [("Content-Encoding", "gzip")])), "INVALID_OUTPUT", False),
]


@pytest.mark.parametrize(("tool", "effect"), [("listPets", Effect.READ_ONLY), ("pets_create", Effect.NON_IDEMPOTENT)])
@pytest.mark.parametrize("fault", range(len(FAULTS)))
async def test_every_fault_is_a_clear_failure_and_the_next_call_works(tool: str, effect: Effect, fault: int) -> None:
    handler, reason, unknown = FAULTS[fault]
    arguments: dict[str, Json] = {} if tool == "listPets" else {"body": {"name": "Tom"}}
    broken = True

    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if broken:
            await handler(seen, writer)
        else:
            writer.write(ok("fine"))

    async with pets(handle) as (catalog, _):
        failure = await fails(catalog, tool, arguments, 0.3 if handler is hang else 5.0)
        assert (failure.reason, failure.outcome_unknown) == (reason, unknown)
        assert failure.retryable is (effect is Effect.READ_ONLY and unknown)
        broken = False
        assert await call(catalog, tool, arguments) == "fine"


async def test_a_service_that_is_away_was_not_called() -> None:
    async with pets(always(ok([])), server="http://pets.example:1") as (catalog, _):
        failure = await fails(catalog, "pets_create", {"body": {"name": "Tom"}})

    assert (failure.reason, failure.retryable, failure.outcome_unknown) == ("TOOL_UNAVAILABLE", True, False)


# --- where the document is


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the provider tells nobody but by its list
            await asyncio.sleep(0.01)


async def test_a_document_is_fetched_again_until_it_is_there_and_when_it_changed() -> None:
    documents = [answer(503), answer(200, "garbage: ["), answer(200, (HERE / "notes.json").read_bytes())]
    changed = json.loads((HERE / "notes.json").read_text())
    changed["paths"]["/more"] = {"get": {"operationId": "more", "responses": {"200": {"description": "More."}}}}

    async def handle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.target == "/docs/openapi.json":
            writer.write(documents[0] if len(documents) == 1 else documents.pop(0))
        else:
            writer.write(ok(seen.target))

    async with serving(handle) as served:
        url = f"http://pets.example:{served.port}/docs/openapi.json"
        provider = OpenApiProvider("notes", Source(url, refresh=0.02), resolver=NAMES, jitter=lambda: 0.01)
        catalog = Catalog([provider])
        await catalog.start()
        await until(lambda: catalog.get("notes.get_note") is not None)
        before, listed = catalog.digest, provider.tools()
        invocation = Invocation("notes.get_note", {"id": 3}, "", 5.0)
        assert (await catalog.call(invocation)).output == "/api/notes/3", "a relative server counts from the document"

        documents[:] = [answer(200, json.dumps(changed))]
        await until(lambda: catalog.get("notes.more") is not None)
        assert catalog.digest != before
        assert provider.tools() is not listed

        documents[:] = [answer(500)]
        await asyncio.sleep(0.1)
        assert catalog.get("notes.more") is not None, "what is known stays while the document cannot be had"
        await catalog.stop()


async def test_only_hosts_that_the_settings_name_may_be_inside() -> None:
    """A document decides neither that its service is inside, nor that it has no TLS."""
    document = json.loads((HERE / "notes.json").read_text())
    document["servers"] = [{"url": "https://inside.example"}]
    async with serving(always(answer(200, json.dumps(document)))) as served:
        provider = OpenApiProvider("notes", Source(f"http://pets.example:{served.port}/d.json"), resolver=NAMES)
        catalog = Catalog([provider])
        await catalog.start()
        with pytest.raises(ToolCallError) as raised:
            await catalog.call(Invocation("notes.get_note", {"id": 3}, "", 5.0))

        await catalog.stop()

    assert raised.value.failure.reason == "REFUSED"
    assert "not a public address" in raised.value.failure.message


async def test_a_redirect_leads_to_no_other_host() -> None:
    async with serving(always(ok("inner"))) as inner:
        away = answer(302, headers=[("Location", f"http://inside.example:{inner.port}/")])
        async with pets(always(away)) as (catalog, _):
            failure = await fails(catalog, "listPets", {})

        assert (failure.reason, inner.seen) == ("REFUSED", [])


@pytest.mark.parametrize(
    ("location", "choices", "told"),
    [
        ("nowhere.yaml", {}, "No such file"),
        ("https://user@x.example/", {}, "user name"),
        (str(HERE / "petstore.yaml"), {"server": "ftp://x"}, "scheme"),
        (str(HERE / "notes.json"), {}, "set `server`"),
        (
            str(HERE / "notes.json"),
            {"server": "https://x.example", "include": ("nothing",)},
            "none that the settings include",
        ),
    ],
)
async def test_settings_that_cannot_work_stop_the_start(location: str, choices: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        await Catalog([OpenApiProvider("a", Source(location, Choices(**choices)))]).start()


async def test_stopping_ends_calls_and_the_task() -> None:
    begun = asyncio.Event()

    async def silent(_seen: Seen, _writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with pets(silent) as (catalog, _), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(call(catalog, "listPets", {}))
        await begun.wait()
        task.cancel()

    assert task.cancelled()
