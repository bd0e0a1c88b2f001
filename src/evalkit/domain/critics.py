"""The critics that come with evalkit. Results with an error never reach a critic: they are not accepted."""

from __future__ import annotations

from evalkit.domain.records import Result


def accept_any(_result: Result) -> bool:
    return True


def accept_non_empty_patch(result: Result) -> bool:
    return result.patch is not None and result.patch.bytes > 0


def accept_resolved(result: Result) -> bool:
    return result.verdict == "resolved"
