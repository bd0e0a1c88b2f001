"""The documents that the pages of a report read. The static and the served form share them.

A document has a key, such as `runs/KEY/run`, and is asked for by it. docs/report.md describes how it gets to the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

SCHEMA = 1

State = Literal["done", "running", "unfinished"]
ItemKind = Literal["message", "reply", "result", "end"]


class Document(msgspec.Struct, frozen=True):
    """A part of what the pages read."""


class Estimate(Document, frozen=True, kw_only=True):
    """A value with its interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int | None = None


class RunEntry(Document, frozen=True, kw_only=True):
    """One run in the list of runs."""

    key: str
    """Unique in a report, and safe in paths and addresses."""
    id: str
    path: str
    source: str
    """The tool whose run this is: evalkit, harbor, inspect, …"""
    benchmark: str | None = None
    agent: str | None = None
    model: str | None = None
    started: str | None = None
    """In UTC, as ISO 8601."""
    state: State = "done"
    total: int = 0
    done: int = 0
    errors: int = 0
    buckets: Mapping[str, int] = {}
    rate: Estimate | None = None
    selected: Estimate | None = None
    """The bounds of the rate over all selected instances."""
    cost_usd: float | None = None
    tokens: int | None = None
    seconds: float | None = None
    problem: str | None = None
    """Why the run cannot be read."""


class Pair(Document, frozen=True, kw_only=True):
    """Two runs with a comparison, whose key is `comparisons/A+B`."""

    a: str
    b: str


class Index(Document, frozen=True, kw_only=True):
    """Key `index`: everything that the first page shows."""

    schema: int = SCHEMA
    evalkit: str
    written_at: str
    live: bool = False
    """True where the pages are served, and `events` tells of changes."""
    runs: Sequence[RunEntry]
    pairs: Sequence[Pair] = ()
    left_out: Sequence[str] = ()
    """What this form of the report does not have, such as trajectories in a single file."""


class Setting(Document, frozen=True, kw_only=True):
    """One key of a run's config."""

    key: str
    value: Any
    origin: str | None = None
    is_default: bool = False


class Histogram(Document, frozen=True, kw_only=True):
    """How a number is distributed over instances; `edges` has one more entry than `counts`."""

    edges: Sequence[float]
    counts: Sequence[int]
    unknown: int = 0


class RunProgress(Document, frozen=True, kw_only=True):
    """How a run went on, in at most some hundred points: columns of equal length."""

    seconds: Sequence[float]
    done: Sequence[int]
    resolved: Sequence[int]
    cost_usd: Sequence[float]


class InstanceGroup(Document, frozen=True, kw_only=True):
    """The instances with one value of a field."""

    value: str
    total: int
    buckets: Mapping[str, int]
    rate: Estimate | None = None


class Flips(Document, frozen=True, kw_only=True):
    """What has changed since an earlier run that measures the same instances."""

    against: str
    """The key of the earlier run."""
    gained: Sequence[str]
    lost: Sequence[str]


class RunPage(Document, frozen=True, kw_only=True):
    """Key `runs/KEY/run`."""

    schema: int = SCHEMA
    entry: RunEntry
    summary: Mapping[str, Any]
    """The document of `evalkit aggregate`, without its lists of ids."""
    settings: Sequence[Setting] = ()
    versions: Mapping[str, str] = {}
    distributions: Mapping[str, Histogram] = {}
    """Of `cost_usd`, `tokens` and `seconds`."""
    progress: RunProgress | None = None
    stages: Mapping[str, float] = {}
    """Seconds in each stage, over all attempts."""
    groups: Mapping[str, Sequence[InstanceGroup]] = {}
    """By field, at most some hundred values each."""
    flips: Flips | None = None
    instances: int = 0
    table_chunks: int = 0
    """The table of instances is in `runs/KEY/table-0`, `table-1`, … of this number."""
    has_statements: bool = False


class TableChunk(Document, frozen=True, kw_only=True):
    """Key `runs/KEY/table-N`: instances in columns of equal length."""

    ids: Sequence[str]
    keys: Sequence[str]
    """The key of each instance's document is `runs/KEY/i/` and this."""
    buckets: Sequence[str]
    rates: Sequence[float | None]
    """The share of its attempts that have resolved it, of those that count; null where none does."""
    counted: Sequence[int]
    """So many of its attempts count: none that the machine broke, and the first where a critic asked for more."""
    attempts: Sequence[int]
    scores: Sequence[float | None]
    """The mean over attempts."""
    costs_usd: Sequence[float | None]
    tokens: Sequence[int | None]
    steps: Sequence[int | None]
    """Calls of the model."""
    seconds: Sequence[float | None]
    finished: Sequence[float | None]
    """Seconds after the start of the run."""
    failures: Sequence[str | None]
    """The kind of failure of the last attempt; `timeout` where its answer was graded although time was up."""
    messages: Sequence[str | None]
    """Its first line."""
    stages: Mapping[str, Sequence[float | None]] = {}
    fields: Mapping[str, Sequence[str]] = {}


class TableRows(Document, frozen=True, kw_only=True):
    """Key `runs/KEY/rows-N-M-…`, where pages are served: the rows at these places of the whole table, in this order."""

    places: Sequence[int]
    rows: TableChunk


class Statements(Document, frozen=True, kw_only=True):
    """Key `runs/KEY/statements-N`: the beginning of each statement of `table-N`, for the search."""

    texts: Sequence[str]


class Text(Document, frozen=True, kw_only=True):
    """A text in chunks. Chunk N is the document `KEY-N`, a string."""

    key: str
    bytes: int
    chunks: int
    cut: bool = False
    """True where the report leaves out what is beyond its limit."""


class TrajectoryOutline(Document, frozen=True, kw_only=True):
    """Columns of equal length about the items of a trajectory, for the list, the time line and jumps."""

    kinds: Sequence[ItemKind]
    titles: Sequence[str]
    """The role, the names of the tools called, or the reason of the end."""
    starts: Sequence[float | None]
    """Seconds after the start of the attempt."""
    seconds: Sequence[float | None]
    tokens: Sequence[int | None]
    errors: Sequence[bool]
    bytes: Sequence[int]


class TrajectoryChunk(Document, frozen=True, kw_only=True):
    """Where a chunk begins. Its document is a list of items: events as docs/trajectory.md has them."""

    first: int
    count: int


class TrajectoryPart(Document, frozen=True, kw_only=True):
    """Key `…-outline` has the `TrajectoryOutline`, and `…-N` the items of chunk N."""

    key: str
    origin: str
    agent: str = ""
    """The name of a sub-agent; empty for the agent itself."""
    items: int
    steps: int
    bytes: int
    chunks: Sequence[TrajectoryChunk]


class AttemptPage(Document, frozen=True, kw_only=True):
    """One attempt."""

    number: int
    facts: Mapping[str, Any]
    """The document of `evalkit show`."""
    patch: Text | None = None
    test_output: Text | None = None
    agent_log: Text | None = None
    trajectories: Sequence[TrajectoryPart] = ()
    problem: str | None = None
    """Why its trajectory cannot be shown."""


class InstancePage(Document, frozen=True, kw_only=True):
    """Key `runs/KEY/i/INSTANCE`."""

    schema: int = SCHEMA
    run: str
    id: str
    statement: str | None = None
    gold_patch: str | None = None
    """Null while the run goes on, since an agent might read it."""
    fields: Mapping[str, str] = {}
    attempts: Sequence[AttemptPage] = ()


class ComparisonPage(Document, frozen=True, kw_only=True):
    """Key `comparisons/A+B`: the document of `evalkit compare`."""

    schema: int = SCHEMA
    a: str
    b: str
    comparison: Mapping[str, Any]
