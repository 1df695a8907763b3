"""What a provider's URI says: a command with the variables it gets, or an endpoint with its token.

A value that is ``$NAME`` alone stands for that variable of the server's own environment, and ``secret://NAME`` for that secret
of the settings; both are read at each start. So a URI names a secret and never holds it.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from autoglm._dataclasses import dataclass

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""The variables that every command gets. All others, keys and tokens above all, only when the URI names them."""

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_SECRET = re.compile(r"secret://[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

Expand = Callable[[str], str]
"""Puts the values of secrets in the place of their references; raises ValueError when one has none."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its words, and the variables it gets besides the inherited ones."""

    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def environment(self, own: Mapping[str, str], expand: Expand = str) -> dict[str, str]:
        """Give the whole environment of the command; ``own`` is the server's.

        Raises:
            ValueError: a variable or a secret it names is not there.
        """
        inherited = {name: own[name] for name in INHERITED if name in own}
        return inherited | {name: resolve(value, own, expand) for name, value in self.variables}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL of streamable HTTP, and what stands for the bearer token to send; empty for none."""

    url: str
    bearer: str = ""

    def token(self, own: Mapping[str, str], expand: Expand = str) -> str:
        """Give the token; ``own`` is the server's environment.

        Raises:
            ValueError: the variable or the secret it names is not there.
        """
        return resolve(self.bearer, own, expand)


def read_command(name: str, text: str, environment: Mapping[str, str], expand: Expand = str) -> Command:
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
        path = command.environment(environment, expand).get("PATH")
    except ValueError as error:
        raise ValueError(f"provider {name}: {error}") from None

    if shutil.which(words[0], path=path) is None:
        raise ValueError(f"provider {name}: there is no command {words[0]!r}; install it, or write its whole path")

    return command


def read_endpoint(name: str, text: str, environment: Mapping[str, str], expand: Expand = str) -> Endpoint:
    """Read ``http(s)://HOST[:PORT]/PATH[#bearer=REFERENCE]``; what follows ``#`` is for this server and never sent.

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
        raise ValueError(f"provider {name}: no user or password in the URL; write #bearer=secret://NAME behind it")

    options = dict(parse_qsl(parts.fragment, keep_blank_values=True))
    bearer = options.pop("bearer", "")
    if options:
        raise ValueError(f"provider {name}: {min(options)!r} behind '#' is not known; known is bearer=secret://NAME")

    if bearer:
        if not (_REFERENCE.fullmatch(bearer) or _SECRET.fullmatch(bearer)):
            raise ValueError(
                f"provider {name}: write #bearer=secret://NAME or #bearer=$VARIABLE, not the token itself",
            )

        if parts.scheme == "http" and not _is_loopback(host):
            raise ValueError(f"provider {name}: a token is not sent over plain http to {host}; use mcp+https")

        try:
            resolve(bearer, environment, expand)
        except ValueError as error:
            raise ValueError(f"provider {name}: {error}") from None

    return Endpoint(urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, "")), bearer)


def resolve(value: str, environment: Mapping[str, str], expand: Expand = str) -> str:
    """Give ``value``, or what the variable holds that it stands for, or the value with the secrets it names.

    Raises:
        ValueError: there is no such variable or secret.
    """
    found = _REFERENCE.fullmatch(value)
    if not found:
        return expand(value)

    if found[1] not in environment:
        raise ValueError(f"the environment has no variable {found[1]}; set it, or leave {value} out of the URI")

    return environment[found[1]]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
