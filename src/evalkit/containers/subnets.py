"""Addresses for private networks: small subnets of ranges that hardly anything else uses.

An engine that chooses by itself has about 30 subnets of 65,534 addresses each, and refuses the next network:
https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file, `default-address-pools`
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network
from pathlib import Path

# The first range is reserved for tests of networks, and reached nowhere else: https://www.rfc-editor.org/rfc/rfc2544
RANGES = (IPv4Network("198.18.0.0/15"), IPv4Network("10.176.0.0/12"))
_ROUTES = Path("/proc/net/route")
_SMALLEST_PREFIX, _LARGEST_PREFIX = 24, 29
_TAKEN_BY_THE_SUBNET = 3
"""Its own address, that for broadcasts, and the gateway's."""


def subnets_for(members: int, taken: Collection[IPv4Network], chance: random.Random) -> Iterator[IPv4Network]:
    """Subnets with room for so many containers, in a random order: other processes choose from the same ones."""
    prefix = _LARGEST_PREFIX
    while prefix > _SMALLEST_PREFIX and 2 ** (32 - prefix) - _TAKEN_BY_THE_SUBNET < members:
        prefix -= 1
    for whole in RANGES:
        if any(route.supernet_of(whole) for route in taken):
            continue
        step = 2 ** (32 - prefix)
        for number in chance.sample(range(whole.num_addresses // step), k=min(1000, whole.num_addresses // step)):
            subnet = IPv4Network((int(whole.network_address) + number * step, prefix))
            if not any(route.overlaps(subnet) for route in taken):
                yield subnet


def routes_here(table: Path = _ROUTES) -> list[IPv4Network]:
    """What this machine has routes to, apart from the one to everything else.

    https://www.kernel.org/doc/html/latest/filesystems/proc.html, /proc/net/route
    """
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    found = [(_address(row[1]), _address(row[7])) for row in rows if len(row) > 7]
    return [IPv4Network((address, mask.bit_count())) for address, mask in found if mask]


def _address(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")
