"""What a provider's URI says: a command with the variables it gets, or an endpoint with its token.

A value that is ``$NAME`` alone stands for that variable of the server's own environment, read at each start. So the
configuration names a secret and never holds it.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""The variables that every command gets. All others, keys and tokens above all, only when the URI names them."""

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, and the variables it gets besides the inherited ones."""

    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        """Give the whole environment of the command; ``own`` is the server's.

        Raises:
            ValueError: a variable it names is not there.
        """
        inherited = {name: own[name] for name in INHERITED if name in own}
        return inherited | {name: resolve(value, own) for name, value in self.variables}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL of streamable HTTP, and the bearer token to send: ``$NAME``, or empty for none."""

    url: str
    bearer: str = ""


def read_command(name: str, text: str, environment: Mapping[str, str]) -> Command:
    """Read ``[VARIABLE=VALUE …] COMMAND [ARGUMENT …]``.

    Raises:
        ValueError: quotes do not match, there is no command, it cannot be found, or a variable is not there.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"provider {name}: the command cannot be split into words: {error}".lower()) from None

    variables: list[tuple[str, str]] = []
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        variables.append((found[1], found[2]))
        words = words[1:]

    if not words or not words[0]:
        raise ValueError(f"provider {name}: there is no command; write mcp:COMMAND ARGUMENT …")

    if any("\0" in word for word in words):
        raise ValueError(f"provider {name}: the command has a NUL character")

    command = Command(tuple(words), tuple(variables))
    try:
        path = command.environment(environment).get("PATH")
    except ValueError as error:
        raise ValueError(f"provider {name}: {error}") from None

    if shutil.which(words[0], path=path) is None:
        raise ValueError(f"provider {name}: there is no command {words[0]!r}; install it, or write its whole path")

    return command


def read_endpoint(name: str, text: str, environment: Mapping[str, str]) -> Endpoint:
    """Read ``http(s)://HOST[:PORT]/PATH[#bearer=$NAME]``; what follows ``#`` is for this server and never sent.

    Raises:
        ValueError: it is not such a URL, or a token would travel in the clear.
    """
    try:
        parts = urlsplit(text)
        host, user = parts.hostname, parts.username
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"provider {name}: its URL cannot be read: {error}") from None

    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"provider {name}: write mcp+http://HOST:PORT/PATH or mcp+https://HOST/PATH")

    if user is not None or parts.password is not None:
        raise ValueError(f"provider {name}: no user or password in the URL; write #bearer=$VARIABLE behind it")

    options = dict(parse_qsl(parts.fragment, keep_blank_values=True))
    bearer = options.pop("bearer", "")
    if options:
        raise ValueError(f"provider {name}: {min(options)!r} behind '#' is not known; known is bearer=$VARIABLE")

    if bearer:
        if not _REFERENCE.fullmatch(bearer):
            raise ValueError(f"provider {name}: bearer names a variable: write #bearer=$VARIABLE, not the token itself")

        if parts.scheme == "http" and not _is_loopback(host):
            raise ValueError(f"provider {name}: a token is not sent over plain http to {host}; use mcp+https")

        try:
            resolve(bearer, environment)
        except ValueError as error:
            raise ValueError(f"provider {name}: {error}") from None

    return Endpoint(urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, "")), bearer)


def resolve(value: str, environment: Mapping[str, str]) -> str:
    """Give ``value``, or what the variable holds that it stands for.

    Raises:
        ValueError: there is no such variable.
    """
    found = _REFERENCE.fullmatch(value)
    if not found:
        return value

    if found[1] not in environment:
        raise ValueError(f"the environment has no variable {found[1]}; set it, or leave {value} out of the URI")

    return environment[found[1]]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
