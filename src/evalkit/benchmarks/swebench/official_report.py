"""The report of a whole run, as the official harness writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.benchmarks.swebench import graders
from evalkit.benchmarks.swebench.instances import NOT_APPLIED, TIMED_OUT

State = Literal["incomplete", "empty_patch", "resolved", "unresolved", "error"]
_SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """One instance in a report."""

    state: State
    reason: str | None = None
    tier: str | None = None


def classify(*logs: Any) -> tuple[str | None, str | None]:
    """The likely reason why an instance is not resolved, by the official signatures, and its tier."""
    found = graders.load().classify_logs(*logs)
    return found if found else (None, None)


def was_cut_short(log: Path) -> bool:
    """Whether no test ran to its end: the official harness writes no report then, and counts an error."""
    try:
        content = log.read_bytes()
    except FileNotFoundError:
        return False
    return content.startswith(NOT_APPLIED.encode()) or content.rstrip().endswith(f"\n{TIMED_OUT}".encode())


def make_report(instances: Mapping[str, Judged]) -> dict[str, Any]:
    def having(*states: State) -> list[str]:
        return sorted(name for name, judged in instances.items() if judged.state in states)

    def of_tier(tier: str) -> list[str]:
        return sorted(name for name, judged in instances.items() if judged.tier == tier)

    ids = {
        "completed": having("resolved", "unresolved"),
        "incomplete": having("incomplete"),
        "empty_patch": having("empty_patch"),
        "submitted": having("resolved", "unresolved", "empty_patch", "error"),
        "resolved": having("resolved"),
        "unresolved": having("unresolved"),
        "infra_failure": of_tier("environment"),
        "ambiguous_failure": of_tier("ambiguous"),
    }
    counted = ("submitted", "completed", "resolved", "unresolved", "infra_failure", "ambiguous_failure", "empty_patch")
    errors = having("error")
    return {
        "total_instances": len(instances),
        **{f"{name}_instances": len(ids[name]) for name in counted},
        "error_instances": len(errors),
        **{f"{name}_ids": ids[name] for name in ids},
        "failure_reasons": {name: judged.reason for name, judged in sorted(instances.items()) if judged.reason},
        "error_ids": errors,
        "schema_version": _SCHEMA,
    }
