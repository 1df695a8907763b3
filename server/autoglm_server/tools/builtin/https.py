"""``http.get`` and ``http.send``: requests to the hosts that the settings allow."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Annotated, Literal, TypedDict

from autoglm.model import Effect
from autoglm.tool import Constraint, FunctionTool, ToolContext, tool
from autoglm_server.settings import HttpSettings
from autoglm_server.tools.http.client import Answer, HttpClient, HttpLimits, Request
from autoglm_server.tools.http.errors import HttpError
from autoglm_server.tools.http.failures import failure_of, refused_status, retry_after
from autoglm_server.tools.http.hosts import HostRule, HostRules
from autoglm_server.tools.http.network import Resolver, resolve
from autoglm_server.tools.http.urls import URL_MAX, parse_url
from autoglm_server.tools.providers.functions import FunctionProvider
from autoglm_server.tools.tool import ToolCallError

NAME = "http"

Url = Annotated[str, Constraint(min_length=1, max_length=URL_MAX)]
Credential = Annotated[str, Constraint(format="password", max_length=8192)]
Headers = Annotated[dict[str, Credential], Constraint(max_properties=50)]

_SHOWN = frozenset(
    {"content-type", "content-language", "date", "etag", "last-modified", "link", "location", "retry-after"}
)
_TEXT = ("text/", "application/json", "application/xml", "application/yaml", "application/javascript")


class Fetched(TypedDict):
    """What was answered; ``base64`` stands for a ``body`` that is no text."""

    status: int
    url: str
    headers: dict[str, str]
    body: str
    base64: str


class HttpProvider(FunctionProvider):
    """Serves the two tools, and closes their connections."""

    def __init__(self, settings: HttpSettings, *, resolver: Resolver = resolve) -> None:
        """Allow what ``settings`` do.

        Raises:
            ValueError: a host in them is none.
        """
        rules = HostRules([HostRule.parse(rule) for rule in settings.allow], settings.private)
        self._client = HttpClient(rules, limits=HttpLimits(body_bytes=settings.body), resolver=resolver)
        super().__init__(NAME, _tools(self._client, settings.timeout))

    async def stop(self) -> None:
        """Close what is open."""
        await super().stop()
        await self._client.close()


def _tools(client: HttpClient, timeout: timedelta) -> list[FunctionTool]:
    @tool(
        name="get",
        title="Fetch a URL",
        effect=Effect.READ_ONLY,
        open_world=True,
        timeout=timeout,
        tags=["http"],
    )
    async def get(
        url: Url,
        headers: Headers | None = None,
        bearer_token: Credential = "",
        method: Literal["GET", "HEAD"] = "GET",
    ) -> Fetched:
        """Fetch a URL of an allowed host, following redirects among allowed hosts.

        Args:
            url: An absolute URL, https unless the server's settings allow http.
            headers: Headers to send, their values also as secret://NAME; to another host only harmless ones go along.
            bearer_token: A token to send as Authorization, such as secret://NAME.
            method: GET, or HEAD for the headers alone.
        """
        return await _fetched(
            client, method, url, _with_token(headers, bearer_token), b"", "http.get", Effect.READ_ONLY
        )

    @tool(
        name="send",
        title="Send to a URL",
        effect=Effect.NON_IDEMPOTENT,
        destructive=True,
        open_world=True,
        requires_approval=True,
        timeout=timeout,
        tags=["http"],
    )
    async def send(
        url: Url,
        context: ToolContext,
        method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST",
        body: Annotated[str, Constraint(max_length=256 << 10)] = "",
        content_type: Annotated[str, Constraint(min_length=1, max_length=200)] = "application/json",
        headers: Headers | None = None,
        bearer_token: Credential = "",
    ) -> Fetched:
        """Send a request that may change something to a URL of an allowed host. A person approves each call.

        Redirects are not followed: what was sent is sent to nobody else.

        Args:
            url: An absolute URL, https unless the server's settings allow http.
            method: The request's method.
            body: What to send.
            content_type: The media type of the body.
            headers: Headers to send, their values also as secret://NAME.
            bearer_token: A token to send as Authorization, such as secret://NAME.
        """
        given = _with_token(headers, bearer_token)
        names = {name.lower() for name, _ in given}
        if body and "content-type" not in names:
            given.append(("Content-Type", content_type))

        if context.idempotency_key and "idempotency-key" not in names:
            given.append(("Idempotency-Key", context.idempotency_key))

        return await _fetched(client, method, url, given, body.encode(), "http.send", Effect.NON_IDEMPOTENT)

    return [get, send]


def _with_token(headers: dict[str, str] | None, token: str) -> list[tuple[str, str]]:
    given = list((headers or {}).items())
    return [*given, ("Authorization", f"Bearer {token}")] if token else given


async def _fetched(
    client: HttpClient,
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    body: bytes,
    name: str,
    effect: Effect,
) -> Fetched:
    """Make the request. An answer is a result, whatever it says, but for what another attempt may mend or nobody knows."""
    try:
        answer = await client.send(Request(method, parse_url(url), tuple(headers), body))
    except HttpError as error:
        raise ToolCallError(failure_of(error, name, effect)) from None

    if answer.status == 429 or answer.status >= 500:
        after = retry_after(answer.header("retry-after"), answer.header("date"))
        raise ToolCallError(refused_status(answer.status, after, _text(answer) or "", name, effect))

    return _result(answer)


def _result(answer: Answer) -> Fetched:
    text, encoded = _text(answer), ""
    if text is None:
        text, encoded = "", base64.b64encode(answer.body).decode()

    headers: dict[str, str] = {}
    for name, value in answer.headers:
        if name in _SHOWN:
            headers.setdefault(name, value)

    return Fetched(status=answer.status, url=str(answer.url), headers=headers, body=text, base64=encoded)


def _text(answer: Answer) -> str | None:
    """Give the body as text, if it is some: by its type, or because it can be read as UTF-8."""
    kind, _, parameters = answer.header("content-type").partition(";")
    charset = "utf-8"
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()

    is_text = not kind or kind.strip().lower().startswith(_TEXT) or kind.strip().lower().endswith(("+json", "+xml"))
    if not is_text:
        return None

    try:
        return answer.body.decode("latin-1" if charset in ("iso-8859-1", "latin1", "latin-1", "us-ascii") else "utf-8")
    except UnicodeDecodeError:
        return None
