"""Credentials for registries, from Docker's configuration and its credential helpers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.containers.reference import DOCKER_HUB
from evalkit.domain.json_values import mapping_of, parse, text_of
from evalkit.errors import ConfigError

_HUB_SERVER = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # noqa: S105  # the user name that marks a token, not a secret
_HELPER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    secret: str = field(repr=False)

    @property
    def is_token(self) -> bool:
        """An identity token, which is exchanged rather than shown."""
        return self.user == _TOKEN_USER

    @property
    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


def config_file() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def find(host: str) -> Credentials | None:
    """The credentials that Docker would use for this registry."""
    config = _read(config_file())
    server = _HUB_SERVER if host == DOCKER_HUB else host
    helper = text_of(mapping_of(config.get("credHelpers")).get(server) or config.get("credsStore"))
    found = _ask_helper(helper, server) if helper else None
    return found or _find_stored(mapping_of(config.get("auths")), server)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return mapping_of(parse(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="repair it, or set DOCKER_CONFIG") from error


def _ask_helper(name: str, server: str) -> Credentials | None:
    try:
        asked = subprocess.run(
            [f"docker-credential-{name}", "get"],
            input=server.encode(),
            capture_output=True,
            check=False,
            timeout=_HELPER_SECONDS,
        )
        answer = json.loads(asked.stdout) if asked.returncode == 0 else {}
        return Credentials(answer["Username"], answer["Secret"]) if answer else None
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{config_file()}: docker-credential-{name} does not work: {error}",
            hint="repair it, or remove it from credsStore and credHelpers",
        ) from error


def _find_stored(stored: Mapping[str, Any], server: str) -> Credentials | None:
    for name in (server, f"https://{server}", f"http://{server}", f"https://{server}/v1/", f"https://{server}/v2/"):
        entry = mapping_of(stored.get(name))
        if token := text_of(entry.get("identitytoken")):
            return Credentials(_TOKEN_USER, token)
        if auth := text_of(entry.get("auth")):
            try:
                user, _, secret = base64.b64decode(auth, validate=True).decode().partition(":")
            except ValueError as error:  # also where it is no ASCII
                raise ConfigError(f"{config_file()}: the auth of {name} is not base64") from error
            return Credentials(user, secret.rstrip("\0"))
    return None
