"""The client: whom it talks to, and what it makes of answers. Every attack has a control that gets through naively."""

# ruff: noqa: ASYNC109  # the stand-ins have the parameters of the interface

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import pytest

from autoglm_server.tools.http.addresses import refusal
from autoglm_server.tools.http.client import HttpClient, HttpLimits, Request
from autoglm_server.tools.http.errors import GarbledError, LostError, RefusedError, TooLargeError, UnreachableError
from autoglm_server.tools.http.hosts import HostRule, HostRules
from autoglm_server.tools.http.network import resolve
from autoglm_server.tools.http.urls import parse_url
from tests.server.tools.http.serving import Seen, Served, always, answer, anything, resolver, routes, serving

PUBLIC = "93.184.216.34"


@pytest.fixture
async def inner() -> AsyncIterator[Served]:
    """Something inside that nobody outside may reach."""
    async with serving(always(answer(body="inner secret"))) as served:
        yield served


def get(url: str, headers: Sequence[tuple[str, str]] = ()) -> Request:
    return Request("GET", parse_url(url), tuple(headers))


class Redirected(httpcore2.AsyncNetworkBackend):
    """A network where every address is a server on this machine: what is connected to is written down."""

    def __init__(self, port: int) -> None:
        self.connected: list[str] = []
        self.tls_names: list[str | None] = []
        self._port = port
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        return Plain(await self._real.connect_tcp("127.0.0.1", self._port), self)


class Plain(httpcore2.AsyncNetworkStream):
    """A stream on which TLS is only written down."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, network: Redirected) -> None:
        self._stream = stream
        self._network = network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        self._network.tls_names.append(server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        return None if info == "ssl_object" else self._stream.get_extra_info(info)


# --- who may be reached

NUMBERS = [
    "http://127.0.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://localhost:{port}/",
    "http://user@127.0.0.1:{port}/",
]
OTHERS = [
    "http://[::1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://10.0.0.1/",
    "http://192.168.0.1/",
    "http://inside.example:{port}/",
    "http://half.example:{port}/",
    "http://mapped.example:{port}/",
    "http://127.0.0.1\\@outside.example:{port}/",
]


async def naive(url: str) -> bytes:
    """What a client without checks does: read the URL, resolve, connect."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    writer.write(f"GET / HTTP/1.1\r\nHost: {parts.hostname}\r\nConnection: close\r\n\r\n".encode())
    try:
        return await asyncio.wait_for(reader.read(1000), 5)
    finally:
        writer.close()


@pytest.mark.parametrize("url", NUMBERS + OTHERS)
async def test_nothing_inside_is_reached(inner: Served, url: str) -> None:
    async def names(host: str, port: int) -> Sequence[str]:
        known = {
            "inside.example": ["127.0.0.1"],
            "half.example": [PUBLIC, "127.0.0.1"],
            "mapped.example": ["::ffff:127.0.0.1"],
        }
        return known.get(host) or await resolve(host, port)

    network = Redirected(inner.port)
    client = HttpClient(anything(), resolver=names, network=network)
    with pytest.raises(RefusedError):
        await client.send(get(url.format(port=inner.port)))

    assert network.connected == []
    assert inner.seen == []


@pytest.mark.parametrize("url", NUMBERS)
async def test_a_naive_client_reaches_what_is_inside(inner: Served, url: str) -> None:
    """The control of the test before."""
    assert b"inner secret" in await naive(url.format(port=inner.port))


class Rebinding:
    """A name server that gives a public address first, and one of this machine from then on."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return [PUBLIC] if self.asked == 1 else ["127.0.0.1"]


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(inner: Served) -> None:
    class Silent(Redirected):
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Any = None,
        ) -> httpcore2.AsyncNetworkStream:
            if host != PUBLIC:
                assert timeout is not None
                await asyncio.sleep(timeout)
                raise httpcore2.ConnectTimeout(host)

            return await super().connect_tcp(host, port)

    names = resolver(slow_example=["2606:4700::1111", PUBLIC])
    client = HttpClient(anything(), resolver=names, network=Silent(inner.port), limits=HttpLimits(connect_timeout=0.2))
    assert (await client.send(get("http://slow.example/"))).body == b"inner secret"
    await client.close()


async def test_an_address_in_brackets_is_reached_where_it_is_allowed() -> None:
    client = HttpClient(anything("::1"))
    with pytest.raises(UnreachableError):
        await client.send(get("http://[::1]:1/"))

    with pytest.raises(RefusedError):
        await HttpClient(anything()).send(get("http://[::1]:1/"))


async def test_what_was_checked_is_what_is_connected_to(inner: Served) -> None:
    names, network = Rebinding(), Redirected(inner.port)
    client = HttpClient(anything(), resolver=names, network=network)
    await client.send(get("http://rebind.example/"))
    assert (names.asked, network.connected) == (1, [PUBLIC])
    await client.close()

    with pytest.raises(RefusedError, match=r"127\.0\.0\.1"):
        await client.send(get("http://rebind.example/"))

    assert network.connected == [PUBLIC]


async def test_a_client_that_checks_and_then_resolves_again_is_rebound(inner: Served) -> None:
    """The control: the check passes, and the connection goes inside."""
    names = Rebinding()
    assert not [address for address in await names("rebind.example", 80) if refusal(address, private=False)]
    address = (await names("rebind.example", 80))[0]
    assert b"inner secret" in await naive(f"http://{address}:{inner.port}/")


async def test_tls_and_host_keep_the_name(inner: Served) -> None:
    network = Redirected(inner.port)
    client = HttpClient(anything(), resolver=resolver(api_example=[PUBLIC]), network=network)
    reply = await client.send(get("https://api.example:8443/x"))
    await client.close()
    assert reply.body == b"inner secret"
    assert (network.connected, network.tls_names) == ([PUBLIC], ["api.example"])
    assert inner.seen[0].headers["host"] == "api.example:8443"


async def test_a_certificate_nobody_knows_is_refused(inner: Served) -> None:
    client = HttpClient(anything("api.example"), resolver=resolver(api_example=["127.0.0.1"]))
    with pytest.raises(UnreachableError):
        await client.send(get(f"https://api.example:{inner.port}/"))


async def test_no_proxy_of_the_environment_is_used(inner: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{inner.port}")

    client = HttpClient(anything("other.example"), resolver=resolver(other_example=["127.0.0.1"]))
    async with serving(always(answer(body="direct"))) as served:
        reply = await client.send(get(f"http://other.example:{served.port}/"))

    await client.close()
    assert reply.body == b"direct"
    assert inner.connections == 0


# --- redirects


async def test_every_hop_is_checked_and_credentials_stay_behind() -> None:
    def to(location: str, status: int = 302) -> bytes:
        return answer(status, headers=[("Location", location)])

    names = resolver(a_example=["127.0.0.1"], b_example=["127.0.0.1"], evil_example=["127.0.0.1"])
    async with serving(always(answer(body="there"))) as other:
        table = {
            "/same": to("/end"),
            "/end": answer(body="end"),
            "/other": to(f"http://b.example:{other.port}/there", 307),
            "/inside": to(f"http://127.0.0.1:{other.port}/"),
            "/numbers": to(f"http://2130706433:{other.port}/"),
            "/name": to(f"http://evil.example:{other.port}/"),
            "/file": to("file:///etc/passwd"),
            "/loop": to("/loop"),
        }
        async with serving(routes(table)) as served:
            client = HttpClient(anything("a.example", "b.example"), resolver=names)
            base = f"http://a.example:{served.port}"
            secret = [("Authorization", "Bearer s3cret"), ("X-Api-Key", "s3cret"), ("Accept", "text/plain")]

            assert (await client.send(get(f"{base}/same", secret))).body == b"end"
            assert served.seen[-1].headers["authorization"] == "Bearer s3cret"

            reply = await client.send(get(f"{base}/other", secret))
            assert (reply.body, str(reply.url)) == (b"there", f"http://b.example:{other.port}/there")
            assert other.seen[-1].headers["accept"] == "text/plain"
            assert "s3cret" not in str(other.seen[-1])

            before = len(other.seen)
            for path in ("/inside", "/numbers", "/name", "/file", "/loop"):
                with pytest.raises(RefusedError):
                    await client.send(get(base + path))

            assert len(other.seen) == before
            assert sum(seen.target == "/loop" for seen in served.seen) == HttpLimits().redirects + 1

            posted = await client.send(Request("POST", parse_url(f"{base}/same"), (), b"x"))
            assert posted.status == 302, "what was sent is sent to nobody else"
            await client.close()


# --- what goes wrong


def local(limits: HttpLimits | None = None) -> HttpClient:
    return HttpClient(anything("a.example"), resolver=resolver(a_example=["127.0.0.1"]), limits=limits)


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(UnreachableError):
            await local().send(get(f"http://a.example:{taken.getsockname()[1]}/"))

    with pytest.raises(UnreachableError, match="no address"):
        await local().send(get("http://unknown.example/"))


async def cut(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def half(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.close()


async def garbage(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\0\1\2 no http at all\r\n\r\n")
    await writer.drain()
    writer.close()


async def headers_without_end(_seen: Seen, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(500)))
    await writer.drain()


@pytest.mark.parametrize("handler", [cut, half, garbage, headers_without_end])
async def test_a_broken_answer_is_lost(handler: Any) -> None:
    async with serving(handler) as served:
        client = local()
        with pytest.raises(LostError):
            await client.send(get(f"http://a.example:{served.port}/"))

        await client.close()


async def test_silence_is_lost() -> None:
    async def silent(_seen: Seen, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(silent) as served:
        client = local(HttpLimits(silence=0.05))
        with pytest.raises(LostError):
            await client.send(get(f"http://a.example:{served.port}/"))

        await client.close()


async def test_a_flood_is_cut_off() -> None:
    sent = 0

    async def flood(_seen: Seen, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n")
        for _ in range(1600):
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with serving(flood) as served:
        client = local()
        with pytest.raises(TooLargeError):
            await client.send(get(f"http://a.example:{served.port}/"))

        await client.close()

    assert sent < 50 << 20, "it was read to its end"


async def test_an_unknown_encoding_is_garbled() -> None:
    async with serving(always(answer(body="x", headers=[("Content-Encoding", "br")]))) as served:
        client = local()
        with pytest.raises(GarbledError):
            await client.send(get(f"http://a.example:{served.port}/"))

        await client.close()


@pytest.mark.parametrize(
    "header",
    [
        ("Host", "evil.example"),
        ("Content-Length", "5"),
        ("X", "a\r\nEvil: 1"),
        ("X", "ü"),
        ("a b", "c"),
        ("Transfer-Encoding", "chunked"),
    ],
)
async def test_headers_cannot_break_out(inner: Served, header: tuple[str, str]) -> None:
    client = local()
    with pytest.raises(RefusedError):
        await client.send(get(f"http://a.example:{inner.port}/", [header]))

    await client.close()
    assert inner.seen == []


async def test_only_what_changes_nothing_uses_a_kept_connection(inner: Served) -> None:
    client = local()
    url = f"http://a.example:{inner.port}/"
    for _ in range(3):
        await client.send(get(url))

    assert inner.connections == 1
    for _ in range(3):
        await client.send(Request("POST", parse_url(url), (), b"x"))

    await client.close()
    assert inner.connections == 4


async def test_it_can_be_stopped() -> None:
    begun = asyncio.Event()

    async def silent(_seen: Seen, _writer: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with serving(silent) as served, asyncio.timeout(30):
        client = local()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(client.send(get(f"http://a.example:{served.port}/")))
            await begun.wait()
            task.cancel()

        assert task.cancelled()
        await client.close()


def test_the_rules_are_of_the_configuration() -> None:
    with pytest.raises(RefusedError):
        HostRules([HostRule.parse("a.example")]).check(parse_url("https://b.example/"))
