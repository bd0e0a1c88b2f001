"""Which addresses private networks get."""

from __future__ import annotations

import random
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

import pytest

from evalkit.containers.subnets import RANGES, routes_here, subnets_for


@pytest.mark.parametrize(("members", "prefix"), [(1, 29), (5, 29), (6, 28), (13, 28), (14, 27), (200, 24)])
def test_a_subnet_has_room_for_all_and_little_more(members: int, prefix: int) -> None:
    subnet = next(subnets_for(members, [], random.Random(1)))
    assert subnet.prefixlen == prefix
    assert subnet.num_addresses - 3 >= members


def test_processes_choose_in_different_orders() -> None:
    first, second = (list(islice(subnets_for(2, [], random.Random(seed)), 50)) for seed in (1, 2))
    assert len({*first, *second}) > 90


def test_what_has_a_route_is_left_out() -> None:
    """Where a route takes a whole range, the next one is used."""
    half = IPv4Network("198.18.0.0/16")
    assert not any(half.overlaps(subnet) for subnet in islice(subnets_for(2, [half], random.Random(1)), 400))
    whole = [RANGES[0]]
    assert all(RANGES[1].supernet_of(subnet) for subnet in islice(subnets_for(2, whole, random.Random(1)), 50))
    assert list(subnets_for(2, RANGES, random.Random(1))) == []


def test_routes_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "tun0\t000012C6\t00000000\t0001\t0\t0\t0\t0000FEFF\t0\t0\t0\n"
    )
    assert routes_here(table) == [IPv4Network("198.18.0.0/15")]
    assert routes_here(tmp_path / "none") == []
