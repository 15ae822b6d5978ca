"""Which network addresses the gateway may ask for a picture.

A client that names a URL must not reach through the gateway what only the gateway's machine can
reach: services on it, its private network, the metadata service of a cloud.
(OWASP, "Server Side Request Forgery Prevention"; IANA, special-purpose address registries.)
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The only ports that public addresses are asked on: so nobody can look for open ports, or talk to
#: a mail server, through the gateway.
PORTS = (80, 443)
#: The only part of IPv6 that is in public use.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: Addresses of IPv6-only networks that a router turns into the IPv4 address in the last 32 bits.
_NAT64 = IPv6Network("64:ff9b::/96")
#: Not public, though not every Python version that we support knows it.
_SPECIAL = tuple(
    ip_network(text)
    for text in (
        "100.64.0.0/10",  # carrier-grade NAT
        "168.63.129.16/32",  # the metadata and host service of Azure
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocol assignments; Teredo, which holds an IPv4 address
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
)


def read_address(text: str) -> Address:
    """An address from its text; an IPv4 address that is written as IPv6 becomes IPv4.

    Raises:
        ValueError: It is no address.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet.

    Args:
        address: As `read_address` gives it.
    """
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks."""
    return any(address in network for network in networks)
