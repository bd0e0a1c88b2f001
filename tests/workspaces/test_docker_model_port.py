"""The model port of a container, on a real engine: what it lets through, and that there is no other way out."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from evalkit import masking
from evalkit.config import Config
from evalkit.domain.failures import Failed, unwrap
from evalkit.domain.protocols import Workspace, WorkspaceSpec
from evalkit.domain.records import Meter
from evalkit.models.endpoint import create_chat
from evalkit.testing.model_server import ModelServer, Reply, Tokens, in_turn
from tests.support.engine import Engine, own_containers
from tests.support.workspaces import Place, open_place

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("engine")]

KEY = "sk-planted-0123456789"
_ASK = """
import json, os, sys, urllib.request
url = os.environ["EVALKIT_MODEL_URL"] + "/chat/completions"
message = {"role": "user", "content": "x" * int(sys.argv[2])}
body = {"model": "x", "stream": sys.argv[1] == "stream", "messages": [message]}
print(len(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=60).read()))
"""
_ASK_WITH_PERL = r"""
use IO::Socket::INET;
my ($host, $path) = $ENV{EVALKIT_MODEL_URL} =~ m{http://([^/]+)(.*)};
my $body = '{"model": "x", "messages": [{"role": "user", "content": "' . ("x" x $ARGV[1]) . '"}]}';
my $length = length $body;
my $socket = IO::Socket::INET->new($host) or die "cannot connect: $!";
print $socket "POST $path/chat/completions HTTP/1.1\r\nHost: x\r\n";
print $socket "Content-Length: $length\r\nConnection: close\r\n\r\n$body";
my $size = 0;
$size += length while <$socket>;
print "$size\n";
"""
ASK = ("python3", "-c", _ASK)
PRESENT = ("planted-on-purpose"[::-1], "EVALKIT_MODEL_URL"[::-1])


@dataclass
class Way:
    """A container with a model port, and the model behind it."""

    workspace: Workspace
    meter: Meter

    async def say(self, *argv: object) -> str:
        end = await self.workspace.exec(tuple(map(str, argv)), asks_model=True)
        return f"{end.tail.strip()}" + (f" [{end.code}]" if end.code else "")


@pytest.fixture(params=["docker", pytest.param("runsc", marks=pytest.mark.slow)])
def python(
    request: pytest.FixtureRequest, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """Containers with a Python, under each runtime."""
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    with open_place(request.param, tmp_path, Engine(engine.host, engine.python)) as place:
        yield place
    masking._known.clear()


@asynccontextmanager
async def opened(place: Place, server: ModelServer, **model: Any) -> AsyncIterator[Way]:
    given = {"name": "the-model", "base_url": server.base_url, "api_key_env": "UPSTREAM_KEY", **model}
    endpoint = create_chat(Config.model_validate({"model": given}))
    meter = Meter()
    spec: WorkspaceSpec = place.spec(network="model")
    async with (
        endpoint.lasting(),
        endpoint.access(spec.job, meter) as access,
        place.workspaces.open(replace(spec, model=access)) as workspace,
    ):
        yield Way(workspace, meter)


def run(place: Place, server: ModelServer, work: Any, loop: str = "asyncio") -> Any:
    async def all_of_it() -> Any:
        async with opened(place, server) as way:
            return await work(way)

    with server:
        try:
            return anyio.run(all_of_it, backend=loop)
        except BaseExceptionGroup as group:
            raise unwrap(group) from group


def serving(text: str = "hello", **reply: Any) -> ModelServer:
    return ModelServer(in_turn(Reply(text, tokens=Tokens(100, 40, 20, 5), **reply)), keys=[KEY])


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_model_answers_and_is_counted(python: Place, loop: str) -> None:
    async def work(way: Way) -> list[str]:
        return [await way.say(*ASK, how, size) for how, size in (("whole", 10), ("stream", 10), ("whole", 2_000_000))]

    server = serving("a" * 50_000)
    whole, streamed, large = run(python, server, work, loop)
    assert min(map(int, (whole, streamed, large))) > 50_000
    assert [len(call.request.statement) for call in server.calls] == [10, 10, 2_000_000]
    assert {call.request.key for call in server.calls} == {KEY}


def test_many_connections_at_once(python: Place) -> None:
    async def work(way: Way) -> str:
        asking = (
            "import concurrent.futures, subprocess, sys\n"
            "pool = concurrent.futures.ThreadPoolExecutor(8)\n"
            "ask = lambda n: subprocess.run([sys.executable, '-c', sys.argv[1], 'stream', str(n)], check=True)\n"
            "list(pool.map(ask, range(1000, 1020)))\n"
        )
        said = await way.say("python3", "-c", asking, _ASK)
        assert way.meter.usage.llm_calls == 20
        assert way.meter.usage.input_tokens == 2000
        return said

    server = serving("b" * 3000)
    assert len(run(python, server, work).splitlines()) == 20
    assert sorted(len(call.request.statement) for call in server.calls) == list(range(1000, 1020))


def test_perl_opens_it_where_there_is_no_python(python: Place) -> None:
    async def work(way: Way) -> str:
        await way.say("sh", "-c", "rm /usr/bin/python3*")
        return await way.say("perl", "-e", _ASK_WITH_PERL, "whole", 200_000)

    server = serving("c" * 1_000_000)
    assert int(run(python, server, work)) > 1_000_000
    assert [len(call.request.statement) for call in server.calls] == [200_000]


def test_an_image_that_cannot_open_it(docker: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    with pytest.raises(Failed, match=r"neither Python .* nor Perl") as raised:
        run(docker, serving(), lambda way: way.say("true"))
    assert raised.value.kind == "setup"
    masking._known.clear()


@pytest.mark.attack("model-only", "docker", "docker + runsc")
def test_there_is_no_other_way_out(python: Place, engine: Engine) -> None:
    """Not to other ports of this machine, by any address of it, nor to the world, nor to other containers."""
    with socket.create_server(("0.0.0.0", 0)) as other:
        port = other.getsockname()[1]
        script = f"""
import os, socket, sys
def reach(family, address):
    with socket.socket(family) as probe:
        probe.settimeout(5)
        try:
            probe.connect(address)
            return "REACHED"
        except OSError as error:
            return type(error).__name__
print(os.listdir("/sys/class/net"))
for host in sys.argv[1:]:
    print(host, reach(socket.AF_INET, (host, {port})))
print(reach(socket.AF_INET6, ("::1", {port})))
try:
    print(socket.getaddrinfo("pypi.org", 443), "REACHED")
except OSError as error:
    print(type(error).__name__)
url = os.environ["EVALKIT_MODEL_URL"]
import urllib.request, urllib.error
for path in ("/key/info", "/v1/files", "/"):
    try:
        urllib.request.urlopen(url.removesuffix("/v1") + path)
        print(path, "REACHED")
    except urllib.error.HTTPError as error:
        print(path, error.code)
"""

        async def work(way: Way) -> str:
            addresses = [str(each) for each in _addresses_of_this_machine()]
            return await way.say("python3", "-c", script, "127.0.0.1", "1.1.1.1", *addresses)

        said = run(python, serving(), work)
    assert "['lo']" in said
    assert "REACHED" not in said, said
    assert said.count(" 404") == 3, said


def _addresses_of_this_machine() -> set[str]:
    """Those of all networks, the engine's bridge included."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    found = {before.split()[-1] for before, line in pairwise(lines) if "/32 host LOCAL" in line}
    return {address for address in found if not address.startswith("127.")}


@pytest.mark.attack("model-key", "docker", "docker + runsc")
def test_the_key_is_nowhere_in_the_container(python: Place, engine: Engine) -> None:
    """Neither in a process nor in a file, while the port is open; what is sought comes backwards, so as not to stay."""
    look = """
import glob, os, sys
wanted = [each[::-1].encode() for each in sys.argv[1:]]
places = glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline")
for top in ("/etc", "/home", "/root", "/run", "/tmp", "/var", "/work", "/logs", "/tests", "/solution", "/dev/shm"):
    places += [os.path.join(folder, name) for folder, _, names in os.walk(top) for name in names]
for place in places:
    try:
        content = open(place, "rb").read()
    except OSError:
        continue
    for number, each in enumerate(wanted):
        if each in content:
            print(number, place)
"""

    async def work(way: Way) -> tuple[str, Any]:
        await way.say("sh", "-c", f"echo planted-on-purpose >/var/tmp/it; python3 -c '{_ASK}' whole 10")
        said = await way.say(
            "python3", "-c", look, KEY[3:][::-1], "planted-on-purpose"[::-1], "EVALKIT_MODEL_URL"[::-1]
        )
        (container,) = own_containers(engine)
        facts = engine.api.inspect_container(container["Id"])
        return said, json.dumps([facts, *(engine.api.exec_inspect(each) for each in facts["ExecIDs"] or ())])

    server = serving()
    said, inspected = run(python, server, work)
    assert len(server.calls) == 1
    found = said.splitlines()
    assert "1 /var/tmp/it" in found
    assert any(line.startswith("2 /proc/") for line in found)
    assert not any(line.startswith("0 ") for line in found), said
    assert KEY not in inspected
    assert json.loads(inspected)[0]["HostConfig"]["NetworkMode"] == "none"


def test_somebody_inside_who_ends_it_gets_it_back(python: Place) -> None:
    async def work(way: Way) -> str:
        script = """
            for process in /proc/[0-9]*; do
              if grep -q DefaultSel[e]ctor $process/cmdline; then port=${process#/proc/}; fi
            done
            python3 -c "$1" whole 10 && kill -9 $port || exit
            until python3 -c "$1" whole 10 2>/dev/null; do sleep 0.1; done
        """
        return await way.say("bash", "-c", script, "bash", _ASK)

    server = serving()
    said = run(python, server, work)
    assert len(server.calls) == 2, said


def test_it_is_closed_with_the_command(python: Place) -> None:
    """A time-out in the middle of a call: what runs inside ends, and so does the call."""

    async def work(way: Way) -> str:
        with anyio.move_on_after(3):
            await way.say(*ASK, "whole", 10)
        return await way.say("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")

    server = ModelServer(in_turn(Reply("late", delay=600)), keys=[KEY])
    said = run(python, server, work)
    assert said.count("PortServer(int(sys.argv[1])).serve()") == 1, said  # of the command that looks
    assert "urllib" not in said
    assert len(server.calls) == 1


def test_a_container_for_a_run_that_asks_no_model_has_no_door(python: Place) -> None:
    look = "import os; print(os.environ.get('EVALKIT_MODEL_URL'), os.listdir('/sys/class/net'))"

    async def work(workspace: Workspace) -> str:
        return (await workspace.exec(("python3", "-c", look), asks_model=True)).tail

    assert python.run(work, network="model") == "None ['lo']\n"


def test_a_command_that_is_not_the_agents_has_no_door(python: Place) -> None:
    async def work(way: Way) -> str:
        return (await way.workspace.exec(("sh", "-c", 'echo "<$EVALKIT_MODEL_URL>"'))).tail

    assert run(python, serving(), work) == "<>\n"


def test_a_request_that_is_too_large_is_told_so(python: Place) -> None:
    """Also where its sender reads only when all is sent."""
    script = """
import os, socket, urllib.parse
address = urllib.parse.urlsplit(os.environ["EVALKIT_MODEL_URL"])
connection = socket.create_connection((address.hostname, address.port), timeout=60)
connection.sendall(b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 70000000\\r\\n\\r\\n")
connection.sendall(b"x" * 70000000)
print(connection.recv(100).split(b"\\r\\n")[0])
"""

    async def work(way: Way) -> list[str]:
        return [await way.say("python3", "-c", script), await way.say(*ASK, "whole", 10)]

    refused, served = run(python, serving("d" * 100), work)
    assert "413" in refused
    assert int(served) > 100
