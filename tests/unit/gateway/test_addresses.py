"""Which addresses the gateway may ask for a picture."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pictures.addresses import is_in, is_public, read_address

#: IANA's special-purpose registry of IPv4, multicast, and the hosts' services of two clouds.
SPECIAL_IPV4 = [
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
    )
]


def in_network(network: IPv4Network) -> st.SearchStrategy[int]:
    return st.integers(int(network[0]), int(network[-1]))


special = st.sampled_from(SPECIAL_IPV4).flatmap(in_network)


def written_as_ipv6(address: int) -> dict[str, IPv6Address]:
    """The forms of IPv6 that hold this IPv4 address."""
    return {
        "mapped": IPv6Address((0xFFFF << 32) | address),
        "compatible": IPv6Address(address),
        "translated": IPv6Address((0xFFFF << 48) | address),
        "NAT64": IPv6Address((0x64FF9B << 96) | address),
        "local NAT64": IPv6Address((0x64FF9B0001 << 80) | address),
        "6to4": IPv6Address((0x2002 << 112) | (address << 80) | 1),
        "Teredo server": IPv6Address((0x20010000 << 96) | (address << 64)),
        "Teredo client": IPv6Address((0x20010000 << 96) | (address ^ 0xFFFFFFFF)),
    }


@given(special)
def test_a_special_ipv4_address_is_not_public_however_it_is_written(address: int):
    assert not is_public(IPv4Address(address))
    for name, form in written_as_ipv6(address).items():
        assert not is_public(read_address(str(form))), name


@given(st.integers(0, 2**32 - 1))
def test_every_other_ipv4_address_is_public(number: int):
    address = IPv4Address(number)
    expected = not is_in(address, SPECIAL_IPV4)
    assert is_public(address) == expected
    forms = written_as_ipv6(number)
    assert read_address(str(forms["mapped"])) == address
    assert is_public(read_address(str(forms["NAT64"]))) == expected


@pytest.mark.parametrize(
    "network",
    [
        "::/3",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "4000::/2",
        "8000::/1",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ],
)
@given(st.data())
def test_ipv6_addresses_outside_of_public_use_are_refused(network: str, data: st.DataObject):
    found = ip_network(network)
    address = IPv6Address(data.draw(st.integers(int(found[0]), int(found[-1]))))
    if address not in ip_network("64:ff9b::/96") and address.ipv4_mapped is None:
        assert not is_public(address)


@pytest.mark.parametrize(
    "text",
    ["::", "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe"],
)
def test_addresses_that_attackers_try_are_refused(text: str):
    assert not is_public(read_address(text))


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "2606:4700::6810:84e5", "2a00:1450:4001::1", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_public(text: str):
    assert is_public(read_address(text))


def test_a_network_holds_addresses_of_its_own_version_only():
    networks = [ip_network("127.0.0.0/30"), ip_network("fd00::/8")]
    assert is_in(read_address("127.0.0.3"), networks)
    assert is_in(read_address("::ffff:127.0.0.3"), networks)
    assert is_in(read_address("fd00::1"), networks)
    assert not is_in(read_address("127.0.0.4"), networks)
    assert not is_in(read_address("::1"), networks)
