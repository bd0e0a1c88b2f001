"""The documents of a set of runs: all of them for a report on disk, or one by its key for one that is served."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.domain.results import timestamp
from evalkit.errors import EvalkitError
from evalkit.reports.format import ComparisonPage, Index, Pair, RunEntry, TableChunk, TableRows
from evalkit.reports.instance_page import AttemptSource, Flags, InstanceSource
from evalkit.reports.instance_table import make_statements
from evalkit.reports.run_page import make_run_page
from evalkit.reports.run_reader import RunContent, RunReader, name_key
from evalkit.reports.trajectory_chunks import Reading, Track
from evalkit.runs.paired_runs import compare_tallies
from evalkit.runs.summarize import AnyRun

COMPARED = 10
"""A run is compared with so many others at most: those before it."""
STATEMENT = 300
"""The characters of a statement that the search looks in."""
MOST_ROWS = 200
"""The rows of a table that are sent one by one."""
_KEPT_READINGS = 4


class DocumentSet:
    """Everything that the pages of some runs read."""

    def __init__(
        self,
        runs: Sequence[AnyRun],
        *,
        flags: Flags | None = None,
        live: bool = False,
        damaged: Sequence[tuple[Path, str]] = (),
    ) -> None:
        """`flags` maps keys of the config to their options, and `damaged` has runs that cannot be read, and why."""
        self.flags: Flags = flags or {}
        self._live = live
        self.readers: dict[str, RunReader] = {}
        self.damaged: dict[str, RunEntry] = {}
        for run in runs:
            self.add(run)
        for path, problem in damaged:
            self.add_damaged(path, problem)
        self._reading = lru_cache(_KEPT_READINGS)(_read_through)

    def add(self, run: AnyRun) -> str:
        """Add a run, and return its key."""
        key = name_key(run.path, {**self.readers, **self.damaged})
        self.readers[key] = RunReader(key, run)
        return key

    def add_damaged(self, path: Path, problem: str) -> str:
        key = name_key(path, {**self.readers, **self.damaged})
        self.damaged[key] = RunEntry(key=key, id=path.name, path=str(path), source="evalkit", problem=problem)
        return key

    # What there is

    def index(self, written_at: str | None = None, left_out: Sequence[str] = ()) -> Index:
        entries = [*(reader.content.entry for reader in self.readers.values()), *self.damaged.values()]
        return Index(
            evalkit=__version__,
            written_at=written_at or timestamp(),
            live=self._live,
            runs=sorted(entries, key=lambda entry: entry.started or ""),
            pairs=list(self.pairs()),
            left_out=left_out,
        )

    def pairs(self) -> Iterator[Pair]:
        """Runs that share an instance with a verdict, the earlier one first."""
        ordered = self._in_order()
        for place, b in enumerate(ordered):
            for a in ordered[max(0, place - COMPARED + 1) : place]:
                if not a.sampled.rated.keys().isdisjoint(b.sampled.rated.keys()):
                    yield Pair(a=a.key, b=b.key)

    def _in_order(self) -> list[RunContent]:
        """The runs that can be read, the earliest first."""
        contents = [reader.content for reader in self.readers.values()]
        return sorted(
            (each for each in contents if each.entry.problem is None), key=lambda each: each.entry.started or ""
        )

    def overview(self) -> Iterator[tuple[str, Any]]:
        """All documents but for the index, and those of instances."""
        for content in self._in_order():
            yield f"runs/{content.key}/run", self.run_page(content)
            for number in range(content.table.chunks):
                yield f"runs/{content.key}/table-{number}", self._table(content, number)
                if content.local_instances is not None:
                    yield f"runs/{content.key}/statements-{number}", self._statements(content, number)
        for pair in self.pairs():
            yield f"comparisons/{pair.a}+{pair.b}", self.comparison(pair.a, pair.b)

    def instances(self) -> Iterator[InstanceSource]:
        may_show_gold = not self._may_agents_read()
        for content in self._in_order():
            for instance_id in content.instance_ids:
                yield InstanceSource(content, instance_id, self.flags, may_show_gold)

    # One document

    def find(self, key: str) -> Any | None:
        """The document with this key; None where there is none."""
        with suppress(LookupError, ValueError, OSError, EvalkitError):
            match key.split("/"):
                case ["index"]:
                    return self.index()
                case ["comparisons", pair]:
                    a, _, b = pair.partition("+")
                    return self.comparison(a, b)
                case ["runs", run, *rest]:
                    return self._find_in_run(self.readers[run].content, rest)
        return None

    def _find_in_run(self, content: RunContent, rest: Sequence[str]) -> Any | None:
        match rest:
            case ["run"]:
                return self.run_page(content)
            case ["i", instance]:
                return self._instance_page(self._instance(content, content.instance_of_key[instance]))
            case ["a", instance, attempt, name]:
                source = self._instance(content, content.instance_of_key[instance])
                return self._find_in_attempt(source, int(attempt), name)
            case [name]:
                kind, _, number = name.partition("-")
                if kind == "rows":
                    return self._rows(content, [_chunk_number(each) for each in number.split("-")])
                return {"table": self._table, "statements": self._statements}[kind](content, _chunk_number(number))
        return None

    def _find_in_attempt(self, source: InstanceSource, number: int, name: str) -> Any | None:
        if number not in source.numbers:
            return None
        attempt = source.attempt(number)
        kind, _, chunk = name.rpartition("-")
        if kind in attempt.described_texts:
            wanted = _chunk_number(chunk)
            return attempt.texts[kind].chunk(wanted) if wanted < attempt.described_texts[kind].chunks else None
        reading = self._read(attempt, {track.name: track for track in attempt.tracks()}[kind])
        return reading.outline.finish() if chunk == "outline" else reading.read_chunk(_chunk_number(chunk))

    def _instance_page(self, source: InstanceSource) -> Any:
        pages, question = [], None
        for number in source.numbers:
            attempt = source.attempt(number)
            readings = [self._read(attempt, track) for track in attempt.tracks()]
            question = question or attempt.question or next((each.question for each in readings if each.question), None)
            parts = [part for each in readings if (part := attempt.part_of(each)) is not None]
            pages.append(attempt.page(parts))
        return source.page(pages, question)

    def _read(self, attempt: AttemptSource, track: Track) -> Reading:
        """A trajectory that was gone through, kept for those who ask for its chunks next."""
        status = track.path.stat()
        identity = (attempt.key, track.name, status.st_size, status.st_mtime_ns)
        return self._reading(_Cached(track, identity), attempt.began)

    # Kinds of documents

    def run_page(self, content: RunContent) -> Any:
        ordered = self._in_order()
        earlier = list(islice(ordered, [each.key for each in ordered].index(content.key)))
        return make_run_page(content, earlier)

    def comparison(self, a: str, b: str) -> ComparisonPage:
        contents = [self.readers[a].content, self.readers[b].content]
        names = [str(each.run.path) for each in contents]
        document = compare_tallies(names, [each.tally for each in contents])
        return ComparisonPage(a=a, b=b, comparison=document)

    def _table(self, content: RunContent, number: int) -> Any:
        if number >= content.table.chunks:
            raise LookupError(number)
        return self._rows_of(content, content.table.places_of(number))

    def _rows(self, content: RunContent, places: Sequence[int]) -> TableRows:
        """Some rows of the table, for a page that has the others. LookupError where there is no such row."""
        if len(places) > MOST_ROWS:
            raise LookupError(len(places))
        return TableRows(places=places, rows=self._rows_of(content, places))

    @staticmethod
    def _rows_of(content: RunContent, places: Sequence[int]) -> TableChunk:
        return content.table.rows(places, content.instance_keys, content.fields, content.sampled.rated)

    def _statements(self, content: RunContent, number: int) -> Any:
        table, local = self._table(content, number), content.local_instances
        if local is None:
            raise LookupError(number)
        found = (local.find(name) for name in table.ids)
        return make_statements([None if instance is None else instance.statement for instance in found], STATEMENT)

    def fingerprint(self, reader: RunReader, instance_key: str) -> str:
        """A hash that changes when the documents of an instance do. LookupError where there is no such instance."""
        content = reader.content
        return self._instance(content, content.instance_of_key[instance_key]).fingerprint()

    def _instance(self, content: RunContent, instance_id: str) -> InstanceSource:
        return InstanceSource(content, instance_id, self.flags, not self._may_agents_read())

    def _may_agents_read(self) -> bool:
        """Whether an agent is at work that may get to see what is shown."""
        return any(reader.content.is_running for reader in self.readers.values())


class _Cached:
    """A track that is equal to another of the same state of its file."""

    __slots__ = ("_identity", "track")

    def __init__(self, track: Track, identity: tuple[Any, ...]) -> None:
        self.track = track
        self._identity = identity

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Cached) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


def _read_through(cached: _Cached, began: float | None) -> Reading:
    reading = Reading(cached.track, began)
    for _ in reading.pass_through():
        pass
    return reading


def _chunk_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise LookupError(text)
    return int(text)


def options_of(flags: Mapping[str, Any]) -> Flags:
    """The options by the keys of the config that they stand for."""
    return {flag.key: f"--{flag.name}" for flag in flags.values() if flag.metavar}
