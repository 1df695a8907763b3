"""Whom the configuration allows to talk to."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

from autoglm._dataclasses import dataclass
from autoglm_server.tools.http.errors import RefusedError
from autoglm_server.tools.http.urls import PORTS, Url, checked_host

_RULE = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.*-]+)(?::([0-9]{1,5}|\*))?/?")

# They answer with a machine's own credentials, or lead to this machine.
_NAMES: Final = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.azure.internal",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.tencentyun.com",
        "metadata.platformequinix.com",
    },
)


@dataclass(frozen=True, slots=True)
class HostRule:
    """Allows one scheme to hosts that fit a glob, on one port or, for 0, on any."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostRule:
        """Read ``api.example.com``, ``*.example.com:8443``, ``http://intranet.example:*``.

        Without a scheme it is https, without a port the scheme's own. ``*`` in a host stands for any characters.

        Raises:
            ValueError: it is none.
        """
        found = _RULE.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is no host; write HOST, *.DOMAIN, HOST:PORT or http://HOST")

        scheme, host, port = found[1] or "https", found[2].lower().strip("[]"), found[3]
        if "*" not in host:
            try:
                host = checked_host(host)
            except RefusedError as error:
                raise ValueError(f"{text!r}: {error}") from None

        if port is not None and port != "*" and not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r}: a port is 1 to 65535, or * for any")

        return cls(scheme, host, 0 if port == "*" else int(port or PORTS[scheme]))

    def fits(self, url: Url) -> bool:
        """Whether it allows the URL."""
        return (
            self.scheme == url.scheme
            and (not self.port or self.port == url.port)
            and fnmatch.fnmatchcase(url.host, self.host)
        )


class HostRules:
    """The allow-list: nothing is allowed that no rule allows."""

    def __init__(self, rules: Iterable[HostRule], private: Iterable[str] = ()) -> None:
        """Allow what ``rules`` do. Only the hosts ``private``, by their exact names, may be at private addresses.

        Raises:
            ValueError: one of ``private`` is not a host's exact name.
        """
        self._rules = tuple(rules)
        self._private = frozenset(map(_exact, private))

    def check(self, url: Url) -> None:
        """Accept a URL.

        Raises:
            RefusedError: no rule allows it.
        """
        if url.host in _NAMES:
            raise RefusedError(f"the host {url.host} is where machines get their credentials; no setting allows it")

        if not any(rule.fits(url) for rule in self._rules):
            raise RefusedError(f"{url.origin} is not allowed by the server's settings")

    def is_private(self, host: str) -> bool:
        """Whether the host may be at a private address."""
        return host in self._private


def _exact(host: str) -> str:
    try:
        return checked_host(host.strip("[]"))
    except RefusedError as error:
        raise ValueError(f"{host!r} must be a host's exact name or address: {error}") from None
