"""Policies of networks, and lists of allowed hosts."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.domain.networks import (
    OFFLINE,
    AllowedHosts,
    NetworkPolicy,
    Target,
    agent_policy,
    grader_policy,
    is_public,
    parse_entry,
    parse_target,
    task_entries,
)

BRIDGE, MODEL = NetworkPolicy("bridge"), NetworkPolicy("model")
SOME, OTHERS = NetworkPolicy("allowlist", ("pypi.org",)), NetworkPolicy("allowlist", ("npmjs.org",))


@pytest.mark.parametrize(
    ("entry", "normal"),
    [
        ("pypi.org", "pypi.org"),
        (" PyPI.Org. ", "pypi.org"),
        ("*.Example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:db8:0:0::/32", "2001:db8::/32"),
    ],
)
def test_an_entry_has_one_form(entry: str, normal: str) -> None:
    assert parse_entry(entry) == normal == parse_entry(normal)


@pytest.mark.parametrize(
    "entry",
    [
        *("", ".", "*", "*.", "*.*.org", "a.*.org", "*pypi.org", "pypi.org:443", "https://pypi.org", "pypi.org/simple"),
        *(
            "user@pypi.org",
            "a b.org",
            "a..b",
            "-a.org",
            "a-.org",
            "under_score.org",
            "bücher.example",
            "a" * 64 + ".org",
        ),
        *(
            "[::1]",
            "fe80::1%eth0",
            "::1%lo",
            "1.2.3.4:80",
            "[::1]:80",
            "*.1.2.3.4",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
        ),
        *("0177.0.0.1", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "a.org\0", ".".join(["a" * 60] * 5)),
    ],
)
def test_what_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="an allowed host is"):
        parse_entry(entry)


@given(st.text(max_size=40))
def test_any_text_is_refused_or_has_a_form_that_stays(text: str) -> None:
    try:
        entry = parse_entry(text)
    except ValueError:
        return
    assert parse_entry(entry) == entry
    assert not set(entry) & set("@[]%?# \n\0ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@given(st.text(max_size=40))
def test_any_authority_is_refused_or_is_a_target(text: str) -> None:
    try:
        target = parse_target(text)
    except ValueError:
        return
    assert 0 < target.port <= 65535
    assert parse_target(str(target)) == target


@given(st.ip_addresses(), st.integers(1, 65535))
def test_addresses_are_read_as_they_are_written(address: IPv4Address | IPv6Address, port: int) -> None:
    assert parse_target(str(Target(address, port))) == Target(address, port)


@pytest.mark.parametrize(
    ("authority", "target"),
    [
        ("PyPI.org.:443", Target("pypi.org", 443)),
        ("under_score.example:80", Target("under_score.example", 80)),
        ("[2001:DB8::1]:8080", Target(ip_address("2001:db8::1"), 8080)),
        ("1.2.3.4:1", Target(ip_address("1.2.3.4"), 1)),
    ],
)
def test_a_target_is_where_a_connection_leads(authority: str, target: Target) -> None:
    assert parse_target(authority) == target
    assert parse_target(authority.rpartition(":")[0], target.port) == target


@pytest.mark.parametrize(
    "authority",
    [
        *(
            "",
            ":443",
            "pypi.org",
            "pypi.org:",
            "pypi.org:0",
            "pypi.org:65536",
            "pypi.org:+1",
            "pypi.org:٣",
            "a.org:1:2",
        ),
        *("user@pypi.org:443", "pypi.org@evil.org:443", "pypi.org/:443", "pypi.org..:443", "127.1:80", "0x7f000001:80"),
        *(
            "2130706433:80",
            "0177.0.0.1:80",
            "::1:80",
            "[::1:80",
            "[::1]80",
            "[fe80::1%lo]:80",
            "[1.2.3.4]:80",
            "%31:80",
        ),
    ],
)
def test_what_is_written_in_another_way_is_no_target(authority: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_target(authority)


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("pypi.org", True),
        ("files.pypi.org", False),
        ("pypi.org.evil.example", False),
        ("evilpypi.org", False),
        ("a.hosted.example", True),
        ("a.b.hosted.example", True),
        ("hosted.example", False),
        ("evilhosted.example", False),
        ("1.2.3.4", True),
        ("1.2.3.5", False),
        ("8.8.8.8", True),
        ("10.1.2.3", True),
        ("10.2.0.0", False),
        ("2606:4700::1111", True),
    ],
)
def test_a_list_admits_what_it_names(host: str, admitted: bool) -> None:
    hosts = AllowedHosts.of(["pypi.org", "*.hosted.example", "1.2.3.4", "8.8.0.0/16", "10.1.0.0/16", "2606:4700::/32"])
    target = parse_target(f"[{host}]:1" if ":" in host else f"{host}:1")
    assert hosts.admits(target.host) is admitted


PRIVATE = (
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:a00:1::1", "fec0::1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_has_to_be_listed_itself(address: str) -> None:
    parsed = ip_address(address)
    assert not is_public(parsed)
    assert not AllowedHosts.of(["some.example", "0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1"]).admits_address(parsed)
    assert not AllowedHosts.of(["0.0.0.0/0", "::/0"]).admits(parsed)
    assert AllowedHosts.of([address]).admits_address(parsed)


def test_a_private_range_that_is_listed_opens_its_addresses() -> None:
    hosts = AllowedHosts.of(["10.0.0.0/8", "192.168.1.0/24"])
    assert hosts.admits_address(ip_address("10.9.8.7"))
    assert not hosts.admits_address(ip_address("192.168.2.1"))


@given(st.ip_addresses())
def test_an_empty_list_admits_no_address_that_is_asked_for(address: IPv4Address | IPv6Address) -> None:
    assert not AllowedHosts.of([]).admits(address)


def test_a_tasks_list_opens_nothing_of_this_machine() -> None:
    entries = [
        "Mirror.example",
        "127.0.0.1",
        "127.0.0.0/8",
        "::1",
        "169.254.169.254",
        "fe80::/10",
        "10.0.0.5",
        "0.0.0.0",
    ]
    assert task_entries(entries) == ("mirror.example", "10.0.0.5")


@pytest.mark.parametrize(
    ("asked", "given", "pinned", "expected"),
    [
        (None, OFFLINE, False, OFFLINE),
        (None, BRIDGE, False, BRIDGE),
        (None, MODEL, True, MODEL),
        (BRIDGE, OFFLINE, False, BRIDGE),
        (BRIDGE, OFFLINE, True, OFFLINE),
        (BRIDGE, MODEL, True, MODEL),
        (SOME, OFFLINE, False, SOME),
        (SOME, BRIDGE, False, SOME),
        (SOME, BRIDGE, True, BRIDGE),
        (SOME, OTHERS, True, OTHERS),
        (OFFLINE, BRIDGE, True, OFFLINE),
        (OFFLINE, SOME, True, OFFLINE),
        (OFFLINE, MODEL, False, MODEL),
    ],
)
def test_a_pinned_network_wins_but_over_one_that_is_closed(
    asked: NetworkPolicy | None, given: NetworkPolicy, pinned: bool, expected: NetworkPolicy
) -> None:
    assert agent_policy(asked, given, pinned=pinned) == expected


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        (None, MODEL, OFFLINE),
        (None, SOME, SOME),
        (None, BRIDGE, BRIDGE),
        (OFFLINE, BRIDGE, OFFLINE),
        (BRIDGE, OFFLINE, BRIDGE),
    ],
)
def test_a_grader_has_what_its_task_asks(
    asked: NetworkPolicy | None, given: NetworkPolicy, expected: NetworkPolicy
) -> None:
    assert grader_policy(asked, given) == expected
