"""The names of hosts that a workspace may reach, as task files and flags write them."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address, ip_network

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def normalize_host(entry: str) -> str:
    """A name, `*.suffix`, address or range of addresses in its usual form. Raises ValueError for anything else."""
    host = entry.strip().lower().rstrip(".")
    if not host:
        raise ValueError("a host is empty")
    if "/" in host:
        return _normalize_range(host)
    if ":" in host:
        return _normalize_ipv6(host)
    name = host.removeprefix("*.")
    if name != host and _is_address(name):
        raise ValueError(f"{entry!r} is no host: `*.` stands before a name, not before an address")
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{entry!r} is no host: names, `*.name`, addresses and ranges like 10.0.0.0/8 are")
    return host


def _normalize_range(host: str) -> str:
    if "%" not in host:
        try:
            return ip_network(host).compressed
        except ValueError:
            pass
    raise ValueError(f"{host!r} is no range of addresses: a host has no scheme and no path")


def _normalize_ipv6(host: str) -> str:
    if "%" not in host:
        try:
            return IPv6Address(host).compressed
        except ValueError:
            pass
    raise ValueError(f"{host!r} is no address: a host has no port")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
