"""The pages on 127.0.0.1: what they answer, to whom, and that nobody can hold them up."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from evalkit.domain.results import Patch
from evalkit.errors import EvalkitError
from evalkit.reports.access import PageAccess
from evalkit.reports.documents import DocumentSet
from evalkit.reports.listening import ConnectionLimits, PageServer
from evalkit.store.run_directory import RunDirectory
from tests.support.runs import make_manifest, make_result
from tests.support.waiting import eventually

IDS = ["a", "b", "c"]


def make_run(path: Path, ids: list[str] = IDS, results: list[Any] | None = None) -> RunDirectory:
    run = RunDirectory.create(path, make_manifest(ids, run_id=path.name))
    with run.writing():
        run.append([make_result("a", verdict="resolved")] if results is None else results)
    return run


@contextmanager
def serving(*runs: RunDirectory, output: Path | None = None, **options: Any) -> Iterator[httpx.Client]:
    """A real server in a thread of its own, and a client of it."""
    server = PageServer(DocumentSet(runs, live=True), output, **options)
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        with anyio.CancelScope() as scope:
            stop.append(partial(asyncio.get_running_loop().call_soon_threadsafe, scope.cancel))
            await server.serve()

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    assert eventually(lambda: bool(stop))
    try:
        with visiting(server.url) as client:
            yield client
    finally:
        stop[0]()
        thread.join(20)
        assert not thread.is_alive(), "the server has not ended"


@contextmanager
def visiting(url: str) -> Iterator[httpx.Client]:
    """A client that has visited this address, as a browser would."""
    with httpx.Client(base_url=httpx.URL(url).join("/"), timeout=20, trust_env=False) as client:
        assert client.get(url, follow_redirects=True).status_code == 200
        yield client


def cookie_of(client: httpx.Client) -> str:
    """The header with what a client remembers."""
    return f"Cookie: {'; '.join(f'{name}={value}' for name, value in client.cookies.items())}"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "runs" / "one")


def payload(response: httpx.Response) -> Any:
    """What a script hands to the page."""
    assert response.status_code == 200, response
    assert response.headers["content-type"].startswith("text/javascript")
    text = response.text.removeprefix("evalkit.receive(").removesuffix(");\n")
    found = json.loads(f"[{text}]")[1]
    return json.loads(gzip.decompress(base64.b64decode(found["gzip"]))) if list(found) == ["gzip"] else found


def test_it_serves_the_pages_and_their_documents(run: RunDirectory) -> None:
    with serving(run) as client:
        page = client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert client.get("/index.html").content == page.content
        assert client.get("/app.js").status_code == client.get("/app.css").status_code == 200
        index = payload(client.get("/data/index.js"))
        assert index["live"] is True
        assert [entry["key"] for entry in index["runs"]] == ["one"]
        assert payload(client.get("/data/runs/one/run.js?v=3"))["entry"]["done"] == 1
        assert payload(client.get("/data/runs/one/i/a.js"))["id"] == "a"
        head = client.head("/data/index.js")
        assert head.content == b""
        assert int(head.headers["content-length"]) > 100


def test_each_answer_tells_browsers_to_be_strict(run: RunDirectory) -> None:
    with serving(run) as client:
        pages = [client.get("/"), client.get("/data/index.js"), client.get("/nowhere"), client.post("/")]
        inner = client.get("/").text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    for answer in pages:
        assert answer.headers["content-security-policy"] == f"{inner}; frame-ancestors 'none'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers


OURS = {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
STRANGE: dict[str, dict[str, str]] = {
    "a name pointed here": {"Host": "evil.example"},
    "a name pointed here, with the port": {"Host": "evil.example:{port}"},
    "another port": {"Host": "127.0.0.1:1"},
    "no port": {"Host": "127.0.0.1"},
    "another address": {"Host": "0.0.0.0:{port}"},
    "a page of another site": {"Origin": "https://evil.example"},
    "a page without an origin": {"Origin": "null"},
    "another server here": {"Origin": "http://127.0.0.1:1"},
    "the other name": {"Origin": "http://localhost:{port}"},
    "a script tag on another site": {"Sec-Fetch-Site": "cross-site"},
    "a page of another server here": {"Sec-Fetch-Site": "same-site"},
}


def with_port(headers: dict[str, str], client: httpx.Client) -> dict[str, str]:
    return {name: value.format(port=client.base_url.port) for name, value in headers.items()}


def test_only_the_browser_of_this_machine_is_answered(run: RunDirectory) -> None:
    with serving(run) as client:
        assert client.get("/data/index.js", headers=with_port(OURS, client)).status_code == 200
        assert client.get("/", headers={"Host": f"LOCALHOST:{client.base_url.port}"}).status_code == 200
        for who, headers in STRANGE.items():
            for path in ("/", "/data/index.js", "/events", "/nowhere"):
                answer = client.get(path, headers=with_port(headers, client))
                assert (answer.status_code, answer.content) == (403, b""), (who, path)
        assert ask(client, "/", "Host: evil.example").startswith(b"HTTP/1.1 40")  # beside the right one


def test_nothing_is_shown_without_the_token_and_a_visit_moves_it_to_a_cookie(run: RunDirectory) -> None:
    server = PageServer(DocumentSet([run], live=True))
    server.close()
    assert len(httpx.URL(server.url).params["token"]) >= 32
    assert httpx.URL(server.url).params["token"] not in server.url_for_one_visit()
    with serving(run) as client:
        (value,) = client.cookies.values()
        stranger = httpx.Client(base_url=client.base_url, trust_env=False)
        for given in ("", "?token=", "?token=wrong", f"?token={value[:-1]}", f"?other={value}"):
            for path in (
                "/",
                "/index.html",
                "/app.js",
                "/data/index.js",
                "/data/runs/one/i/a.js",
                "/events",
                "/nowhere",
            ):
                answer = stranger.get(path + given)
                assert answer.status_code == 403, path
                assert "set-cookie" not in answer.headers
                assert (
                    answer.text == "These pages are shown at the whole address that evalkit printed, with its token.\n"
                )
        assert stranger.get("/data/index.js", headers={"Cookie": f"evalkit-1={value}"}).status_code == 403
        assert stranger.get("/data/index.js", params={"token": value}).status_code == 200
        visit = stranger.get("/", params={"token": value})
        assert (visit.status_code, visit.headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(visit.headers["set-cookie"].split("; "))
        assert stranger.get("/data/index.js").status_code == 200
        stranger.close()


def test_a_ticket_admits_one_visit() -> None:
    access = PageAccess(1)
    scope = {"query_string": access.make_ticket().encode(), "headers": []}
    assert [access.takes_ticket(scope), access.takes_ticket(scope), access.is_known(scope)] == [True, False, False]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_can_be_done_but_read(run: RunDirectory, method: str) -> None:
    with serving(run) as client:
        answer = client.request(method, "/data/index.js")
        assert (answer.status_code, answer.content) == (403, b"")


def ask(client: httpx.Client, target: str, *more: str) -> bytes:
    """The answer to a request for exactly this target, with more headers."""
    port = client.base_url.port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        known = [f"Host: 127.0.0.1:{port}", "Connection: close", cookie_of(client)]
        lines = [f"GET {target} HTTP/1.1", *known, *more, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(partial(connection.recv, 1 << 16), b""))


PATHS = (
    "/../../etc/passwd",
    "/data/../../../etc/passwd.js",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/data/%2e%2e%2f%2e%2e%2fsecret.js",
    "/data/..%2f..%2fsecret.js",
    "/data//etc/passwd.js",
    "/data/runs/one/../../../secret.js",
    "/data/runs/one/i/../../secret.js",
    "/data/runs/..%2fone/run.js",
    "/data/runs/one/a/a/1/..%2f..%2frun.json-0.js",
    "/data/runs/one/a/a/1/patch.diff%00-0.js",
    "/data/index%00.js",
    "/app.js%00",
    "/./app.js",
    "//app.js",
    "/data/runs/one/table-99999999999999999999.js",
    "/data/runs/one/table-%D9%A1.js",
    "/data/.js",
    "/report.json",
    "/run.json",
    "http://evil.example/etc/passwd",
)


def test_no_address_leads_to_a_path(run: RunDirectory) -> None:
    (run.path.parent / "secret.js").write_text("secret")
    with serving(run) as client:
        for path in PATHS:
            answer = ask(client, path)
            assert answer.startswith(b"HTTP/1.1 40"), path
            assert answer.endswith(b"\r\n\r\n") or answer.startswith(b"HTTP/1.1 400"), path
        assert client.get("/data/index.js").status_code == 200


def test_links_and_rows_that_lead_out_of_the_run_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("test_output.txt", "agent.log", "patch.diff"):
        (secret / name).write_text("the secret\n")
    message = {"type": "message", "role": "user", "text": "the secret"}
    (secret / "trajectory.jsonl").write_text(json.dumps(message) + "\n")
    out = Patch(sha256="", bytes=9, path="../../secret/patch.diff")
    run = make_run(tmp_path / "runs" / "one", results=[make_result("a"), make_result("b", patch=out), make_result("c")])
    for name in ("a", "b", "c"):
        run.attempt_folder(name, 1).parent.mkdir(parents=True)
    run.attempt_folder("a", 1).symlink_to(secret)
    run.attempt_folder("b", 1).mkdir()
    run.attempt_folder("c", 1).mkdir()
    for path in secret.iterdir():
        (run.attempt_folder("c", 1) / path.name).symlink_to(path)
    with serving(run) as client:
        for name in ("a", "b", "c"):
            page = client.get(f"/data/runs/one/i/{name}.js")
            assert page.status_code == 200
            assert "the secret" not in page.text, name
            for text in ("patch", "test_output", "agent_log", "trajectory-0"):
                answer = client.get(f"/data/runs/one/a/{name}/1/{text}-0.js")
                assert (answer.status_code, answer.content) == (404, b""), (name, text)


class Events:
    """A page that listens."""

    def __init__(self, client: httpx.Client) -> None:
        port = client.base_url.port
        assert port is not None
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        request = ("GET /events HTTP/1.1", f"Host: 127.0.0.1:{port}", cookie_of(client), "", "")
        self.connection.sendall("\r\n".join(request).encode())
        self._file = self.connection.makefile("rb")

    def next(self) -> list[str]:
        """The keys that the next event names."""
        for line in self._file:
            if line.startswith(b"data: "):
                keys: list[str] = json.loads(line.removeprefix(b"data: "))
                return keys
        raise AssertionError("the stream has ended")

    def until(self, *wanted: str) -> set[str]:
        """All keys that were named until each of these was."""
        found: set[str] = set()
        while not found >= set(wanted):
            found.update(self.next())
        return found

    def close(self) -> None:
        self._file.close()
        self.connection.close()


def test_rows_of_a_run_that_goes_on_are_told_and_served(run: RunDirectory) -> None:
    with serving(run) as client, closing(Events(client)) as events:
        assert events.next() == ["index"]
        with run.writing():
            found = events.until("index")
            run.append([make_result("b", verdict="resolved")])
            found |= events.until("runs/one/run", "runs/one/row-1", "runs/one/i/b")
            assert not found & {"runs/one/table-0", "runs/one/row-0", "runs/one/i/a"}
            changed = payload(client.get("/data/runs/one/rows-1.js"))
            assert (changed["places"], changed["rows"]["ids"], changed["rows"]["rates"]) == ([1], ["b"], [1.0])
            entry = payload(client.get("/data/runs/one/run.js"))["entry"]
            assert (entry["state"], entry["done"]) == ("running", 2)
        events.until("runs/one/run", "runs/one/i/a", "runs/one/i/c")  # of the end, which lets answers be shown
        assert payload(client.get("/data/index.js"))["runs"][0]["state"] == "unfinished"


def test_runs_that_appear_and_go_are_listed_anew(tmp_path: Path) -> None:
    output = tmp_path / "runs"
    with serving(output=output) as client, closing(Events(client)) as events:
        assert payload(client.get("/data/index.js"))["runs"] == []
        events.until("index")
        new = make_run(output / "new")
        listed: list[str] = []
        while listed != ["new"]:
            events.until("index")
            listed = [entry["key"] for entry in payload(client.get("/data/index.js"))["runs"]]
        with new.writing():
            new.append([make_result("b")])
        events.until("runs/new/i/b")
        (output / "new" / "run.json").unlink()
        (output / "new" / "results.jsonl").unlink()
        while listed:
            events.until("index")
            listed = [entry["key"] for entry in payload(client.get("/data/index.js"))["runs"]]
        assert client.get("/data/runs/new/run.js").status_code == 404


def test_a_run_given_under_two_names_is_no_endless_change(run: RunDirectory) -> None:
    (run.path.parent / "latest").symlink_to(run.path)
    with serving(output=run.path.parent) as client, closing(Events(client)) as events:
        events.until("index")
        assert len(payload(client.get("/data/index.js"))["runs"]) == 2
        with run.writing():
            run.append([make_result("c")])
        events.until("runs/one/i/c", "runs/latest/i/c")


def test_where_no_changes_are_told_runs_are_looked_at(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from evalkit.reports import changed_runs

    def refuse() -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(changed_runs, "FolderWatch", refuse)
    with serving(run, look_seconds=0.05) as client, closing(Events(client)) as events:
        events.until("index")
        with run.writing():
            run.append([make_result("b")])
        events.until("runs/one/i/b")
    assert "looked at every 0.05 s" in capfd.readouterr().err


def test_slow_and_vanished_readers_hold_nothing_up(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "one")
    folder = run.attempt_folder("a", 1)
    folder.mkdir(parents=True)
    (folder / "test_output.txt").write_bytes(os.urandom(3 << 20))
    with serving(run) as client:
        port = client.base_url.port
        assert port is not None
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for number, connection in enumerate(slow):
            path = "/events" if number % 2 else "/data/runs/one/a/a/1/test_output-0.js"
            request = (f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", cookie_of(client), "", "")
            connection.sendall("\r\n".join(request).encode())
        for connection in slow[::4]:
            connection.close()
        with closing(Events(client)) as events, run.writing():
            events.until("index")
            for name in ("b", "c"):
                run.append([make_result(name)])
                events.until(f"runs/one/i/{name}")
        assert client.get("/data/index.js").status_code == 200
    for connection in slow:
        connection.close()


@pytest.mark.slow
def test_connections_are_bounded_and_those_that_ask_for_nothing_closed(
    run: RunDirectory,
) -> None:
    with serving(run, limits=ConnectionLimits(count=20, request_seconds=1.0)) as client:
        port = client.base_url.port
        assert port is not None
        for _ in range(20):
            for connection in [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(50)]:
                connection.close()
        silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(50)]
        silent[0].sendall(b"GET / HTTP/1.1\r\nHost: ")
        for connection in silent:
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""  # closed by the server
            connection.close()
        assert client.get("/data/index.js").status_code == 200


def test_two_readers_of_a_document_wait_for_one_reading(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    find = DocumentSet.find

    def note(self: DocumentSet, key: str) -> Any:
        asked.append(key)
        return find(self, key)

    monkeypatch.setattr(DocumentSet, "find", note)
    with serving(run) as client:
        for _ in range(3):
            client.get("/data/runs/one/i/a.js")
            client.get("/data/runs/one/run.js")
        assert asked == ["runs/one/i/a", "runs/one/run"]
        folder = run.attempt_folder("a", 1)
        folder.mkdir(parents=True)
        (folder / "agent.log").write_text("more\n")
        assert payload(client.get("/data/runs/one/i/a.js"))["attempts"][0]["agent_log"]["bytes"] == 5


def test_a_port_that_is_taken_is_named(run: RunDirectory) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EvalkitError, match=f"port {port} of 127.0.0.1 cannot be used"):
            PageServer(DocumentSet([run]), port=port)
