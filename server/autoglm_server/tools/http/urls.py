"""Reading URLs strictly: what this module reads, every other part and every server reads alike."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from autoglm._dataclasses import dataclass
from autoglm_server.tools.http.errors import RefusedError

URL_MAX: Final = 8192
"""How long a URL may be, in characters."""
PORTS: Final = {"http": 80, "https": 443}
"""The schemes there are, and the port each has by itself."""

_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029]")
_SAFE = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True, slots=True)
class Url:
    """A URL, taken apart: ``host`` in lower case and without brackets, ``target`` the path and query as sent."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's own: the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority: what may be told of a URL, since a query can hold secrets."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


def parse_url(text: str) -> Url:
    """Read an absolute ``http`` or ``https`` URL.

    Refused is what different programs read differently: user names before the host, backslashes, blanks, hosts that are
    numbers in another form than four decimal ones, hosts that are not ASCII.

    Raises:
        RefusedError: it is none; the message says why, and what to write.
    """
    if len(text) > URL_MAX:
        raise RefusedError(f"the URL has {len(text)} characters; at most {URL_MAX} are allowed")

    if _FORBIDDEN.search(text):
        raise RefusedError("the URL has a blank, a backslash or a control character; write them as %20, %5C and so on")

    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise RefusedError(f"the URL cannot be read: {error}") from None

    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        raise RefusedError(f"the URL's scheme is {scheme[:32]!r}; write https://HOST/PATH")

    if "@" in parts.netloc:
        raise RefusedError("the URL has a user name or an '@' before its host; leave it out")

    if port == 0:
        raise RefusedError("the URL's port is 0; write 1 to 65535")

    host = checked_host(parts.hostname or "")
    path = quote(parts.path or "/", safe=_SAFE)
    query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    return Url(
        scheme, host, PORTS[scheme] if port is None else port, (path if path.startswith("/") else f"/{path}") + query
    )


def checked_host(text: str) -> str:
    """Give a host's name or address in its one normal form.

    Raises:
        RefusedError: it is none.
    """
    host = text.lower().removesuffix(".")
    if ":" in host:
        return _address6(host)

    if not host.isascii():
        raise RefusedError(f"the host {text[:64]!r} is not ASCII; write it in its xn-- form")

    if len(host) > 253 or not _LABELS.fullmatch(host):
        raise RefusedError(f"the host {text[:64]!r} is no name")

    # What ends in a number is an address to some programs, in decimal, octal or hexadecimal, in one part or four.
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(ip_address(host))
        except ValueError:
            raise RefusedError(f"the host {host!r} is a number; write an address as four decimal numbers") from None

    return host


def _address6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except ValueError:
        raise RefusedError(f"the host {host[:64]!r} is no address") from None

    if address.scope_id is not None:
        raise RefusedError(f"the address {host[:64]!r} has a zone; leave it out")

    # One that wraps an IPv4 address is that address, so that a rule about the one holds for the other.
    return str(address.ipv4_mapped or address)


def joined(base: Url, location: str) -> Url:
    """Give the URL that ``location`` means when ``base`` answers with it.

    Raises:
        RefusedError: it is none.
    """
    if len(location) > URL_MAX or _FORBIDDEN.search(location):
        raise RefusedError("the redirect's location cannot be read")

    try:
        return parse_url(urljoin(str(base), location))
    except ValueError as error:
        raise RefusedError(f"the redirect's location cannot be read: {error}") from None
