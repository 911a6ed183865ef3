"""IP addresses and networks as users write them.  A ValueError says what is expected."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """Return the network of a CIDR; an address alone is a network of one."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f'a network such as "10.0.0.0/24" ({error})') from error


def parse_address(text: str) -> Address:
    """Return the IP address."""
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ValueError(f"an IP address, not {text!r}") from error


def parse_peer_address(text: str) -> Address:
    """Return the IP address at which other machines are to reach one."""
    address = parse_address(text)
    local = address.is_link_local and address.version == 6  # noqa: PLR2004 - IPv6 needs an interface with it
    if address.is_unspecified or address.is_multicast or local:
        raise ValueError(f"an address that other machines can use, not {text}")
    return address


def is_address(text: str) -> bool:
    """True for an IP address without an interface."""
    try:
        return "%" not in str(parse_address(text))
    except ValueError:
        return False
