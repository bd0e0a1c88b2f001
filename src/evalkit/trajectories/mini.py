"""Trajectories in mini-swe-agent's format."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from evalkit.domain.json_values import parse
from evalkit.trajectories.events import Event

VERSION = "mini-swe-agent-1.1"
_STATUSES = {"finish": "Submitted", "step_limit": "LimitsExceeded", "cost_limit": "LimitsExceeded"}


def to_mini(events: Iterable[Event], submission: str = "") -> dict[str, Any]:
    """Convert a trajectory. `submission` is the patch that the attempt ended with."""
    start: Event = {}
    end: Event = {}
    messages: list[dict[str, Any]] = []
    calls, cost = 0, 0.0
    for event in events:
        match event["type"]:
            case "start":
                start = event
            case "end":
                end = event
            case "message":
                messages.append(_message(event))
            case "reply":
                messages.append(_reply(event))
                calls += 1
                cost += event["usage"]["known_cost_usd"]
            case "result":
                messages.append(_result(event))
    reason = end.get("reason", "")
    return {
        "info": {
            "model_stats": {"instance_cost": round(cost, 9), "api_calls": calls},
            "config": {"agent": {"name": start.get("agent")}, "model": {"model_name": start.get("model")}},
            "mini_version": f"evalkit-{start.get('evalkit', '')}",
            "exit_status": _STATUSES.get(reason, reason),
            "submission": submission,
        },
        "messages": messages,
        "trajectory_format": VERSION,
        "instance_id": start.get("instance_id", ""),
    }


def _message(event: Event) -> dict[str, Any]:
    return {"role": event["role"], "content": event["text"], "extra": {"timestamp": _seconds(event)}}


def _reply(event: Event) -> dict[str, Any]:
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in event["tool_calls"]
    ]
    return {
        "role": "assistant",
        "content": event["text"],
        **({"tool_calls": calls} if calls else {}),
        "extra": {
            "actions": [
                {"command": _command(call["arguments"]), "tool_call_id": call["id"]}
                for call in event["tool_calls"]
                if call["name"] == "shell"
            ],
            "cost": event["usage"]["cost_usd"],
            "response": {"model": event["model"], "usage": event["usage"], "finish_reason": event["finish_reason"]},
            "timestamp": _seconds(event),
        },
    }


def _result(event: Event) -> dict[str, Any]:
    return {
        "role": "tool",
        "tool_call_id": event["tool_call_id"],
        "content": event["text"],
        "extra": {"returncode": event.get("exit_code"), "timestamp": _seconds(event)},
    }


def _command(arguments: str) -> str:
    try:
        return str(parse(arguments)["command"])
    except (ValueError, KeyError, TypeError):
        return arguments


def _seconds(event: Event) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()
