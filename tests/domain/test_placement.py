"""Placement on ten simulated hosts, for any instances: never over budget, nobody forgotten, images first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.domain.placement import Demand, HostState, choose_host, place_ahead, place_next

GIGABYTE = 1 << 30
NAMES = [f"host-{number}" for number in range(10)]
WINDOW = 8


@dataclass
class Simulation:
    """Instances run on hosts for a while, and are placed as in a run."""

    hosts: dict[str, HostState]
    queue: list[tuple[int, Demand, int]]
    """Number, demand and duration in rounds."""
    running: list[tuple[int, Demand, str, int]]
    started: list[int]

    def place_all(self) -> None:
        while (found := place_next([each[1] for each in self.queue[:WINDOW]], list(self.hosts.values()))) is not None:
            place, name = found
            number, demand, rounds = self.queue.pop(place)
            self.require_right(demand, name)
            self.add(name, demand, 1)
            self.running.append((number, demand, name, rounds))
            self.started.append(number)

    def require_right(self, demand: Demand, name: str) -> None:
        host = self.hosts[name]
        assert host.problem is None
        assert demand.lacking(name) is not None
        could = [each for each in demand.candidates(list(self.hosts.values())) if each.could_hold(demand)]
        if could:
            assert host.has_room(demand)
        else:
            assert host.running == 0, "what is larger than any host has one to itself"
        if demand.lacking(name):
            holders = [each for each in could if demand.lacking(each.name) == 0 and each.name not in demand.avoided]
            kept = 1  # one may be kept for the first of the queue
            assert sum(each.problem is None and each.has_room(demand) for each in holders) <= kept

    def add(self, name: str, demand: Demand, sign: int) -> None:
        host = self.hosts[name]
        self.hosts[name] = replace(
            host,
            taken_memory=host.taken_memory + sign * demand.memory,
            taken_cpus=host.taken_cpus + sign * demand.cpus,
            running=host.running + sign,
        )

    def pass_round(self) -> None:
        rest = []
        for number, demand, name, rounds in self.running:
            if rounds > 1:
                rest.append((number, demand, name, rounds - 1))
            else:
                self.add(name, demand, -1)
        self.running = rest


@st.composite
def situations(draw: st.DrawFn) -> Simulation:
    hosts = {
        name: HostState(
            name,
            memory=draw(st.integers(1, 64)) * GIGABYTE,
            cpus=float(draw(st.integers(1, 32))),
            problem=draw(st.sampled_from([None, None, None, "set aside"])) if name != NAMES[0] else None,
        )
        for name in NAMES
    }
    holders = st.frozensets(st.sampled_from(NAMES))
    queue = []
    for number in range(draw(st.integers(1, 15))):
        with_image, impossible = draw(holders), draw(holders) - {NAMES[0]}

        def lacking(name: str, has: frozenset[str] = with_image, never: frozenset[str] = impossible) -> int | None:
            return None if name in never else int(name not in has)

        demand = Demand(
            draw(st.integers(0, 100)) * GIGABYTE,
            float(draw(st.integers(0, 8))),
            lacking,
            draw(st.frozensets(st.sampled_from(NAMES), max_size=2)),
        )
        queue.append((number, demand, draw(st.integers(1, 5))))
    return Simulation(hosts, queue, [], [])


@settings(max_examples=40, deadline=None)
@given(situations())
def test_everything_starts_and_no_host_ever_holds_more_than_it_has(simulation: Simulation) -> None:
    count = len(simulation.queue)
    down = {name for name, host in simulation.hosts.items() if host.problem}
    for number in range(count * 10):
        if number == count * 2:  # what only they can take waits for them
            simulation.hosts = {name: replace(host, problem=None) for name, host in simulation.hosts.items()}
        simulation.place_all()
        for host in simulation.hosts.values():
            assert host.memory is not None
            assert host.cpus is not None
            crowded = host.taken_memory > host.memory or host.taken_cpus > host.cpus
            assert not crowded or host.running == 1
            assert not (number < count * 2 and host.name in down and host.running)
        simulation.pass_round()
    assert sorted(simulation.started) == list(range(count))


@settings(max_examples=40, deadline=None)
@given(situations())
def test_the_first_waits_no_longer_than_what_already_runs(simulation: Simulation) -> None:
    """However many small ones come after it: they do not take the room that it waits for."""
    simulation.hosts = {name: replace(host, problem=None) for name, host in simulation.hosts.items()}
    simulation.place_all()
    if not simulation.queue:
        return
    first = simulation.queue[0][0]
    for _ in range(6):  # the longest of those that run
        simulation.pass_round()
        simulation.queue += [(1000 + number, Demand(GIGABYTE, 1.0), 5) for number in range(20)]
        simulation.place_all()
        if first in simulation.started:
            return
    raise AssertionError("it still waits")


def choose_plainly(demand: Demand, hosts: Sequence[HostState], closed: Collection[str]) -> str | None:
    """The rule as it is written in the docs, without regard to how long it takes."""
    able = [each for each in hosts if not each.is_given_up and demand.lacking(each.name) is not None]
    candidates = [each for each in able if each.name not in demand.avoided] or able
    if any(each.could_hold(demand) for each in candidates):
        free = [each for each in candidates if each.has_room(demand)]
    else:
        largest = max((each.memory or 0 for each in candidates if each.problem is None), default=0)
        free = [each for each in candidates if not each.running and each.memory == largest]
    free = [each for each in free if each.problem is None and each.name not in closed]
    free.sort(key=lambda each: (demand.lacking(each.name), each.load_with(demand), each.running, each.name))
    return free[0].name if free else None


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(situations(), st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=10, max_size=10), st.data())
def test_what_is_left_out_of_the_search_never_changes_the_choice(
    simulation: Simulation, taken: list[tuple[int, bool]], data: st.DataObject
) -> None:
    states = [
        replace(each, taken_memory=size * GIGABYTE, running=int(size > 0), is_given_up=given_up)
        for each, (size, given_up) in zip(simulation.hosts.values(), taken, strict=True)
    ]
    closed = data.draw(st.frozensets(st.sampled_from(NAMES), max_size=1))
    for _, demand, _ in simulation.queue:
        assert choose_host(demand, states, closed) == choose_plainly(demand, states, closed)


def hosts(*memory: int, **changes: object) -> Sequence[HostState]:
    return [replace(HostState(name, size), **changes) for name, size in zip("abcdef", memory, strict=False)]  # type: ignore[arg-type]  # changes are checked by the class


def test_a_host_with_the_image_comes_before_one_with_more_room() -> None:
    demand = Demand(1, lacking=lambda name: int(name != "a"))
    assert choose_host(demand, hosts(2, 100)) == "a"
    assert choose_host(demand, [replace(hosts(2)[0], taken_memory=2), *hosts(0, 100)[1:]]) == "b"


def test_memory_is_not_a_sum() -> None:
    full = [replace(each, taken_memory=3, running=1) for each in hosts(4, 4, 4)]
    assert choose_host(Demand(2), full) is None
    assert choose_host(Demand(1), full) == "a"


def test_cpus_are_counted_too() -> None:
    busy = [replace(each, cpus=2.0, taken_cpus=1.5, running=1) for each in hosts(100)]
    assert choose_host(Demand(1, 1.0), busy) is None


def test_what_failed_somewhere_goes_elsewhere_even_if_it_waits() -> None:
    full = [hosts(4)[0], replace(hosts(4, 4)[1], taken_memory=4, running=1)]
    assert choose_host(Demand(2, avoided=("a",)), full) is None
    assert choose_host(Demand(2, avoided=("a", "b")), full) == "a"


def test_large_ones_wait_for_one_host_and_small_ones_go_past_them() -> None:
    half = [replace(each, taken_memory=2, running=1) for each in hosts(4, 4)]
    assert place_next([Demand(4), Demand(2), Demand(2)], half) == (1, "b")


def test_many_full_hosts_are_not_asked_for_their_images() -> None:
    asked: list[str] = []

    def lacking(name: str) -> int:
        asked.append(name)
        return 1

    hosts = [HostState(f"host-{number}", memory=GIGABYTE, taken_memory=GIGABYTE, running=1) for number in range(500)]
    demands = [Demand(memory=GIGABYTE, lacking=partial(lacking)) for _ in range(64)]
    assert place_next(demands, hosts) is None
    assert len(asked) <= 2 * len(hosts), "only for the first of the queue, which a host is kept for"
    asked.clear()
    assert place_next(demands, [*hosts, HostState("free", memory=GIGABYTE)]) == (0, "free")
    assert set(asked) == {"free"}


def test_no_host_is_kept_free_for_what_waits_for_images_that_only_a_lost_one_has() -> None:
    there = [replace(each, problem="lost" if each.name == "a" else None) for each in hosts(8, 8)]
    waits = Demand(1, is_ready=lambda host: host == "a")
    ready = Demand(1, is_ready=lambda host: host == "b")
    assert place_next([waits, ready], there) == (1, "b")


def test_a_host_with_room_pulls_what_would_wait_where_its_image_is() -> None:
    full, empty = hosts(8, 8)
    demand = Demand(4, lacking=lambda host: int(host == "b"))
    assert place_ahead([demand], [replace(full, taken_memory=8, running=2), empty]) == ["b"]
    assert place_ahead([demand], [full, empty]) == ["a"]
    both = [replace(each, taken_memory=8, running=2) for each in (full, empty)]
    assert place_ahead([demand], both) == ["a"]
