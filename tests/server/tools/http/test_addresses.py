"""Which addresses may be connected to."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_server.tools.http.addresses import refusal

PUBLIC = ["8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:4700::1111", "2a00:1450:4001::8a", "64:ff9b::808:808"]
INSIDE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "2001:0:7f00:1::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "::1%lo",
    "fec0::1",
    "ff02::1",
    "localhost",
    "",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_connected_to(address: str) -> None:
    assert refusal(address, private=False) == ""


@pytest.mark.parametrize("address", INSIDE)
def test_all_others_may_not(address: str) -> None:
    assert refusal(address, private=False) != ""


def test_the_library_alone_would_let_some_of_them_pass() -> None:
    """The control: were ``is_global`` enough, this module would not be needed."""
    known = [address for address in INSIDE if address not in ("localhost", "")]
    passed = [address for address in known if ip_address(address).is_global]
    assert {"64:ff9b::7f00:1", "::127.0.0.1", "168.63.129.16"} <= set(
        passed
    )  # which others pass depends on the version


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "127.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_private_addresses_may_be_opened(address: str) -> None:
    assert refusal(address, private=True) == ""


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
        "fe80::1",
        "100.100.100.200",
        "0.0.0.0",
    ],
)
def test_credentials_of_machines_may_never_be_had(address: str) -> None:
    assert refusal(address, private=True) != ""


@given(st.ip_addresses(v=4, network="127.0.0.0/8") | st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_no_wrapping_of_an_inner_address_helps(inner: IPv4Address) -> None:
    number = int(inner)
    wrapped = [
        ip_network("::ffff:0:0/96"),
        ip_network("64:ff9b::/96"),
        ip_network("::/96"),
        ip_network("2002::/16"),
    ]
    for network in wrapped:
        shift = 80 if network.prefixlen == 16 else 0
        address = ip_address(int(network.network_address) | (number << shift))
        assert refusal(str(address), private=False) != "", address
