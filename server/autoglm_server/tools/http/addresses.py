"""Which addresses may be connected to.

The rule is what is allowed, not what is forbidden: the library's ``is_global`` says yes to addresses that lead back inside,
such as an IPv4 address of this machine wrapped in 6to4 or NAT64.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_GLOBAL_6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")

# Global by the library's tables of some version, and yet special: tunnels, anycast, documentation.
_SPECIAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)

# Where clouds give machines their credentials. Never, not even by name in the configuration.
_METADATA: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fe80::/10",
    )
)

# What a configuration may open for a host that it names: networks of one's own, and this machine.
_PRIVATE: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)


def refusal(text: str, *, private: bool) -> str:
    """Say why the address ``text`` may not be connected to; empty if it may.

    With ``private``, addresses of private networks and of this machine are allowed as well; those that are nobody's, of
    everybody, or where a cloud keeps credentials never are.
    """
    try:
        address = effective(text)
    except ValueError:
        return "is not an address"

    if _within(address, _METADATA):
        return "is where machines get their credentials"

    if private and _within(address, _PRIVATE):
        return ""

    return "" if _is_public(address) else "is not a public address"


def effective(text: str) -> Address:
    """Give the address that is reached: an IPv4 address inside an IPv6 one (mapped, or NAT64) counts itself.

    Raises:
        ValueError: it is not an address, or has a zone.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address

    if address.scope_id is not None:
        raise ValueError(f"{text} has a zone")

    if address.ipv4_mapped is not None:
        return address.ipv4_mapped

    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)

    return address


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved or _within(address, _SPECIAL):
        return False

    return isinstance(address, IPv4Address) or address in _GLOBAL_6


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
