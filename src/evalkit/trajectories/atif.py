"""Trajectories in ATIF, the Agent Trajectory Interchange Format of Harbor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from evalkit.trajectories.events import Event

VERSION = "ATIF-v1.4"


def to_atif(events: Iterable[Event]) -> dict[str, Any]:
    start: Event = {}
    end: Event = {}
    steps: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "start":
                start = event
            case "end":
                end = event
            case "message":
                steps.append(_step(len(steps) + 1, event, event["role"]))
            case "reply":
                steps.append(_reply(len(steps) + 1, event))
            case "result":
                steps[-1].setdefault("observation", {"results": []})["results"].append(_result(event))
    return {
        "schema_version": VERSION,
        "session_id": f"{start.get('run', '')}/{start.get('instance_id', '')}/{start.get('attempt', 1)}",
        "agent": {
            "name": f"evalkit-{start.get('agent', 'agent')}",
            "version": start.get("evalkit", ""),
            "model_name": start.get("model"),
            "extra": {"prompt_sha256": start.get("prompt_sha256"), "tools": start.get("tools", [])},
        },
        "steps": steps,
        "final_metrics": _totals(end.get("usage") or _sum_usage(steps), len(steps)),
        "extra": {"end": {"reason": end.get("reason"), "detail": end.get("detail")}},
    }


def _step(number: int, event: Event, source: str) -> dict[str, Any]:
    return {"step_id": number, "timestamp": event["at"], "source": source, "message": event["text"]}


def _reply(number: int, event: Event) -> dict[str, Any]:
    usage = event["usage"]
    step = _step(number, event, "agent") | {
        "model_name": event["model"] or None,
        "metrics": {
            "prompt_tokens": usage.get("input_tokens", 0),
            "completion_tokens": usage.get("output_tokens", 0),
            "cached_tokens": usage.get("cached_tokens", 0),
            "cost_usd": usage.get("cost_usd"),
            "extra": {"reasoning_tokens": usage.get("reasoning_tokens", 0), "seconds": event.get("seconds")},
        },
    }
    if event["reasoning"]:
        step["reasoning_content"] = event["reasoning"]
    if event["tool_calls"]:
        step["tool_calls"] = [
            {"tool_call_id": call["id"], "function_name": call["name"], "arguments": _arguments(call["arguments"])}
            for call in event["tool_calls"]
        ]
    return step


def _result(event: Event) -> dict[str, Any]:
    return {"source_call_id": event["tool_call_id"], "content": event["text"]}


def _arguments(text: str) -> Mapping[str, Any]:
    """ATIF wants an object, also where the model wrote none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {"text": text}
    return value if isinstance(value, dict) else {"value": value}


def _sum_usage(steps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """For an attempt that has not ended."""
    metrics = [step["metrics"] for step in steps if "metrics" in step]
    costs = [each["cost_usd"] for each in metrics]
    return {
        "input_tokens": sum(each["prompt_tokens"] for each in metrics),
        "output_tokens": sum(each["completion_tokens"] for each in metrics),
        "cached_tokens": sum(each["cached_tokens"] for each in metrics),
        "cost_usd": None if None in costs else sum(costs),
    }


def _totals(usage: Mapping[str, Any], steps: int) -> dict[str, Any]:
    return {
        "total_prompt_tokens": usage["input_tokens"],
        "total_completion_tokens": usage["output_tokens"],
        "total_cached_tokens": usage["cached_tokens"],
        "total_cost_usd": usage["cost_usd"],
        "total_steps": steps,
    }
