"""Which instances of a data set a run is about."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from evalkit.domain.records import Instance, check_instance


class SelectionError(ValueError):
    """A selection names what is not there."""


def index_by_id(instances: Iterable[Instance]) -> dict[str, Instance]:
    found: dict[str, Instance] = {}
    for instance in instances:
        try:
            check_instance(instance)
        except (TypeError, ValueError) as error:
            raise SelectionError(f"the data set has something that is no instance: {instance!r}: {error}") from error
        if instance.id in found:
            raise SelectionError(f"the data set has two instances with the id {instance.id!r}")
        found[instance.id] = instance
    return found


def select(
    instances: Mapping[str, Instance], wanted: Sequence[str], limit: int = 0, seed: int | None = None
) -> dict[str, Instance]:
    """Those that are wanted, by id or by a regular expression for the whole id, in the order of the data set.

    The limit keeps the first ones; with a seed, ones that depend on the seed and the ids alone.
    """
    chosen = set(instances) if not wanted else set().union(*(_match(instances, name) for name in wanted))
    ordered = [name for name in instances if name in chosen]
    if limit and seed is None:
        ordered = ordered[:limit]
    elif limit:
        drawn = set(sorted(ordered, key=lambda name: _lot(name, seed))[:limit])
        ordered = [name for name in ordered if name in drawn]
    return {name: instances[name] for name in ordered}


def _lot(instance_id: str, seed: int | None) -> bytes:
    """A larger limit keeps what a smaller one drew, and so does a data set that grew, as far as the lots allow."""
    return hashlib.sha256(f"{seed}\0{instance_id}".encode("utf-8", "surrogatepass")).digest()


def take_shard(instances: Mapping[str, Instance], number: int, count: int) -> dict[str, Instance]:
    """Every count-th instance from the number-th: all shards together are all instances, once each."""
    return {name: instances[name] for name in list(instances)[number - 1 :: count]}


def _match(instances: Mapping[str, Instance], wanted: str) -> set[str]:
    if wanted in instances:
        return {wanted}
    try:
        matches = set(filter(re.compile(wanted).fullmatch, instances))
    except re.error as error:
        raise SelectionError(f"{wanted!r} is neither an id nor a regular expression: {error}") from error
    if not matches:
        nearest = difflib.get_close_matches(wanted, instances, n=1)
        raise SelectionError(
            f"no instance is called {wanted!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
        )
    return matches


def fingerprint(instances: Iterable[Instance]) -> str:
    """A hash of what is asked: changes when an instance does, not when others are added."""
    digest = hashlib.sha256()
    for instance in instances:
        digest.update(f"{instance.id}\0{instance.digest}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
