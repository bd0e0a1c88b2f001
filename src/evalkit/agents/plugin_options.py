"""Checks and shows the options that agents of other packages declare."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from evalkit import plugins
from evalkit.errors import ConfigError, EvalkitError
from evalkit.settings import OPEN_TABLE


def options_of(factory: Any) -> type[BaseModel] | None:
    """The model of an agent's options, if it has any."""
    model = getattr(factory, "options", None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def check_options(agent: str, factory: Any, given: Mapping[str, Any]) -> None:
    """Refuse unknown and invalid options before anything starts."""
    model = options_of(factory)
    if model is None:
        if given:
            raise ConfigError(f"{OPEN_TABLE}: agent {agent!r} has no options", hint=f"remove [{OPEN_TABLE}]")
        return
    try:
        model.model_validate(dict(given))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            match = difflib.get_close_matches(name, model.model_fields, n=1)
            nearest = f"; did you mean {match[0]}?" if match else ""
            raise ConfigError(f"{OPEN_TABLE}: agent {agent!r} has no option {name}{nearest}") from error
        hint = f"see `evalkit config --agent {agent}` for its options"
        raise ConfigError(f"{OPEN_TABLE}.{name} of agent {agent!r}: {problem['msg']}", hint=hint) from error


def describe_agents() -> Iterator[str]:
    """One line of help for each agent of another package, with its options."""
    for name, package in plugins.names_of_others("agents").items():
        try:
            model = options_of(plugins.load("agents", name))
        except EvalkitError as error:
            yield error.message
            continue
        fields = model.model_fields if model else {}
        options = ", ".join(f"{key} ({field.description or 'no description'})" for key, field in fields.items())
        yield f"Agent {name}, of {package}: {f'{OPEN_TABLE}: {options}' if options else 'no options'}"
