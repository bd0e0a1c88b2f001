"""Draws one attempt for people."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from evalkit.console.formatting import amount, money, precise_duration, printable, size
from evalkit.console.page import NARROWEST, Page, table_of_facts
from evalkit.console.render import STYLES

_WIDEST = 120
_MOST_NAMED = 12
_MOST_FILES = 20
_LONGEST_LINE = 500
Document = Mapping[str, Any]
_STATES = {"running": "running", "not_finished": "not finished", "not_run": "not run yet"}


def render_attempt(document: Document, *, columns: int, styled: bool) -> str:
    page = Page(columns=columns, widest=_WIDEST, styled=styled)
    page.add(*_sections(document))
    if document["again"]:
        # The command stays on one line at any width, so that it can be copied.
        command = Text(f"{'again':{NARROWEST}}  ", "bold").append(printable(document["again"]), "not bold")
        page.add(command, soft_wrap=True)
    return page.text


def _sections(document: Document) -> Iterator[RenderableType]:
    yield _title(document)
    yield table_of_facts(_judgement(document))
    for group, names in document["failing"].items():
        yield Text(f"failed, {printable(group)}: {len(names)}", "bold")
        yield from map(_indent, names[:_MOST_NAMED])
        if len(names) > _MOST_NAMED:
            yield Text(f"  and {len(names) - _MOST_NAMED} more", "dim")
    if output := document["output"]:
        yield Text(f"the end of {printable(output['path'].rpartition('/')[2])}", "bold")
        yield from (_indent(line[:_LONGEST_LINE], "dim") for line in output["lines"])
    yield table_of_facts(_work(document))


def _indent(text: str, style: str = "") -> Padding:
    return Padding(Text(printable(text), style, overflow="fold"), (0, 0, 0, 2))


def _title(document: Document) -> Text:
    word = document["verdict"] if document["verdict"] not in (None, "ungraded") else document["outcome"]
    shown = word or _STATES[document["state"]]
    if document["verdict"] == "ungraded" and word == "submitted":
        shown = word = "ungraded"
    score = "" if document["score"] is None else f", score {document['score']:g}"
    count = max([document["attempt"], *(each["attempt"] for each in document["attempts"])])
    title = Text(printable(document["instance_id"]), "bold")
    title.append(f"  attempt {document['attempt']} of {count}  ", "not bold")
    return title.append(shown + score, f"bold {STYLES.get(str(word), '')}".strip())


def _judgement(document: Document) -> Iterator[tuple[str, str]]:
    if document["outcome"] == "timeout" and document["verdict"] != "ungraded":
        yield "outcome", "timeout: the work done by then was graded"
    if failure := document["failure"]:
        where = f" in {failure['stage']}" if failure["stage"] else ""
        yield "failure", f"{failure['kind']}{where}: {failure['message']}"
        if failure["hint"]:
            yield "", failure["hint"]
    if document["refused"]:
        yield "refused", document["refused"]
    for reason in document["suspicious"]:
        yield "suspicious", reason
    if document["note"]:
        yield "note", document["note"]
    others = [f"{each['attempt']}: {_word(each)}" for each in document["attempts"]]
    if len(others) > 1:
        yield "attempts", "  ".join(others)
    if document["metrics"]:
        yield "metrics", "  ".join(f"{name} {value:.3g}" for name, value in document["metrics"].items())


def _word(attempt: Document) -> str:
    return str(attempt["outcome"] if attempt["verdict"] == "ungraded" else attempt["verdict"])


def _work(document: Document) -> Iterator[tuple[str, str]]:
    if patch := document["patch"]:
        yield "patch", _patch(patch)
    if (usage := document["usage"]) and (usage["llm_calls"] or usage["cost_usd"] or usage["input_tokens"]):
        cost = "cost unknown" if usage["cost_usd"] is None else money(usage["cost_usd"])
        calls = f"{amount(usage['llm_calls'])} calls, " if usage["llm_calls"] else ""
        yield (
            "usage",
            f"{cost}, {calls}{amount(usage['input_tokens'])} tokens in, {amount(usage['output_tokens'])} out",
        )
    if document["seconds"] is not None:
        stages = "  ".join(f"{name} {precise_duration(value)}" for name, value in document["stages"].items())
        yield "time", precise_duration(document["seconds"]) + (f": {stages}" if stages else "")
    if resources := document["resources"]:
        yield "resources", ", ".join(_taken(resources))
    if document["started_at"]:
        tries = f", {document['retries']} tries before" if document["retries"] else ""
        more = f", {document['resource_factor']} × the memory" if document["resource_factor"] > 1 else ""
        where = f", on {document['host']}" if document["host"] else ""
        yield "started", f"{document['started_at']}{where}{tries}{more}"
    if trajectory := document["trajectory"]:
        run, name = shlex.quote(document["run"]), shlex.quote(document["instance_id"])
        count = trajectory["steps"]
        steps = "not readable" if count is None else f"{count} step{'' if count == 1 else 's'}"
        yield "trajectory", f"{steps}; evalkit trajectory {run} {name} --attempt {document['attempt']}"
    if document["folder"]:
        yield "folder", document["folder"]
    if files := document["files"]:
        named = [f"{each['name']} {size(each['bytes'])}" for each in files[:_MOST_FILES]]
        more = f"  and {len(files) - _MOST_FILES} more" if len(files) > _MOST_FILES else ""
        yield "files", "  ".join(named) + more


def _taken(resources: Document) -> Iterator[str]:
    if (peak := resources["memory_peak"]) is not None:
        limit = resources["memory_limit"]
        yield f"{size(peak)} memory at most" + (f" of {size(limit)}" if limit else "")
    if (seconds := resources["cpu_seconds"]) is not None:
        yield f"{precise_duration(seconds)} of CPU"
    if resources["throttled"]:
        yield f"stopped for its CPU limit {resources['throttled']:.0%} of the time"
    if (written := resources["disk_written"]) is not None:
        yield f"{size(written)} written"
    if resources["oom_kills"]:
        yield f"{resources['oom_kills']} processes killed for lack of memory"


def _patch(patch: Document) -> str:
    if not patch["bytes"]:
        return "empty"
    if patch["files"] is None:
        return f"{size(patch['bytes'])}, missing or too large to count"
    files = patch["files"]
    more = f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    what = "1 file" if len(files) == 1 else f"{len(files)} files"
    names = f": {', '.join(files[:_MOST_NAMED])}{more}" if files else ""
    return f"{what}, +{patch['added']} -{patch['removed']}{names}"
