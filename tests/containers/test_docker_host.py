"""Where the engine is."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.containers.docker_host import find_endpoint
from evalkit.errors import ConfigError, EngineUnavailable


@pytest.mark.parametrize(
    ("host", "address", "is_local"),
    [
        ("", Path("/var/run/docker.sock"), True),
        ("unix:///run/user/1000/podman/podman.sock", Path("/run/user/1000/podman/podman.sock"), True),
        ("tcp://10.0.0.7:2375", ("10.0.0.7", 2375), False),
        ("http://[::1]:2375", ("::1", 2375), False),
    ],
)
def test_docker_host_is_understood(tmp_path: Path, host: str, address: object, is_local: bool) -> None:
    endpoint = find_endpoint({"DOCKER_HOST": host}, tmp_path)
    assert (endpoint.address, endpoint.is_local) == (address, is_local)


@pytest.mark.parametrize(
    "host", ["/var/run/docker.sock", "tcp://nowhere", "tcp://host:port", "unix://", "npipe:////./x"]
)
def test_what_is_no_address_is_a_users_mistake(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="DOCKER_HOST"):
        find_endpoint({"DOCKER_HOST": host}, tmp_path)


def test_missing_certificates_are_a_users_mistake(tmp_path: Path) -> None:
    variables = {"DOCKER_HOST": "tcp://localhost:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(ConfigError, match="DOCKER_CERT_PATH"):
        find_endpoint(variables, tmp_path)


def test_a_tunnel_that_cannot_be_is_an_environments_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable, match="ssh"):
        find_endpoint({"DOCKER_HOST": "ssh://nobody@localhost"}, tmp_path)
