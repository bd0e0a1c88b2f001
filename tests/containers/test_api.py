"""The client of an engine."""

from __future__ import annotations

from evalkit.containers.api import connect, make_client
from evalkit.containers.connection import Endpoint
from tests.support.web import LOOPBACK, QuietHandler, serve_http


class _SlowAboutVersions(QuietHandler):
    """Podman's answer about its versions takes longer than a call may: here it never comes."""

    def do_GET(self) -> None:
        if self.path == "/_ping":
            self.answer(b"OK", headers={"Api-Version": "1.41"})
        else:
            self.answer(b"{}", status=500)


class _NoVersionInPing(QuietHandler):
    def do_GET(self) -> None:
        self.answer(b'{"ApiVersion": "1.40"}' if self.path.endswith("/version") else b"OK")


class _Podman(QuietHandler):
    """It lists the processes of a container by itself, unless it is given options of ps."""

    def do_GET(self) -> None:
        if self.path == "/_ping":
            self.answer(b"OK", headers={"Api-Version": "1.41", "Libpod-Api-Version": "4.3.1"})
        elif self.path.endswith("/containers/one/top?ps_args=pid%2Cppid"):
            self.answer(b'{"Titles": ["PID", "PPID"], "Processes": [["1", "0"], ["7", "1"], ["9", "0"]]}')
        else:
            self.answer(b'{"Titles": ["PID PPID"], "Processes": [["1 0"]]}')


def test_podman_is_asked_for_the_processes_of_a_container_in_its_own_words() -> None:
    with serve_http(_Podman) as port:
        client = make_client(Endpoint(f"tcp://{LOOPBACK}:{port}", (LOOPBACK, port)), 2, 1.0, None)
        listed = client.processes_in(client.api, "one")
        assert (listed.first, dict(listed.parents)) == (1, {1: 0, 7: 1, 9: 0})
        for api in (client.api, client.patient, client.closing):
            api.close()


def test_the_version_of_the_api_is_in_the_answer_to_a_ping_or_asked_for() -> None:
    for handler, version in ((_SlowAboutVersions, "1.41"), (_NoVersionInPing, "1.40")):
        with serve_http(handler) as port:
            api = connect(Endpoint(f"tcp://{LOOPBACK}:{port}", (LOOPBACK, port)))
            assert api.api_version == version
            api.close()
