"""The images that the tasks are made of, and a web site on the engine's side of its bridge."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.conformance.cases import Ground
from tests.support.engine import Engine

_REPOSITORY = "evalkit-test/conformance"
_PROBE = """\
#!/usr/bin/env python3
import sys, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=10)
except OSError:
    sys.exit(1)
except Exception:  # a proxy that hangs up
    sys.exit(1)
"""
_MAKE_PLACES = """
useradd --create-home --uid 1000 --shell /bin/bash worker
mkdir -p /app /srv/place /srv/kept && chmod 1777 /app /srv/place
echo old > /srv/kept/old.txt
"""
_VERIFY = "#!/bin/bash\n[ -e /app/done ]; echo $((1 - $?)) > /logs/verifier/reward.txt\n"


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # the name is the library's
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"reached\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def open_ground(engine: Engine) -> Iterator[Ground]:
    image = make_image(
        engine, "base", engine.python, script=_MAKE_PLACES, files={"usr/local/bin/probe": _PROBE}, workdir="/app"
    )
    verifier = make_image(engine, "verifier", image, files={"tests/test.sh": _VERIFY}, workdir="/app")
    host = _find_gateway(engine)
    with ThreadingHTTPServer((host, 0), _Site) as site:
        thread = Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield Ground(image, engine.busybox, verifier, host, site.server_port)
        site.shutdown()
        thread.join()


def make_image(
    engine: Engine,
    kind: str,
    base: str,
    *,
    script: str = "",
    files: Mapping[str, str] | None = None,
    workdir: str = "/",
    network: str = "none",
) -> str:
    """An image with these files, in which the script has run; it stays for later runs of the tests."""
    files = files or {}
    recipe = repr((engine.api.inspect_image(base)["Id"], script, sorted(files.items()), workdir, network))
    tag = f"{kind}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if engine.api.images(f"{_REPOSITORY}:{tag}"):
        return f"{_REPOSITORY}:{tag}"
    container = _create(engine, base, script or "true", network)
    try:
        engine.api.put_archive(container, "/", _pack(files))
        _run(engine, container)
        engine.api.commit(container, repository=_REPOSITORY, tag=tag, changes=[f"WORKDIR {workdir}", 'CMD ["bash"]'])
    finally:
        engine.api.remove_container(container, force=True)
    return f"{_REPOSITORY}:{tag}"


def _find_gateway(engine: Engine) -> str:
    """The engine's own address in the network of containers."""
    container = _create(engine, engine.busybox, "ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'", "bridge")
    try:
        return _run(engine, container).strip()
    finally:
        engine.api.remove_container(container, force=True)


def _create(engine: Engine, image: str, script: str, network: str) -> str:
    host_config = engine.api.create_host_config(network_mode=network)
    made = engine.api.create_container(image, ["sh", "-ec", script], host_config=host_config)
    return str(made["Id"])


def _run(engine: Engine, container: str) -> str:
    engine.api.start(container)
    status: Any = engine.api.wait(container)["StatusCode"]
    output = engine.api.logs(container).decode("utf-8", "replace")
    assert status == 0, output
    return str(output)


def _pack(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folders = dict.fromkeys(str(each) for name in files for each in reversed(Path(name).parents) if each.name)
        for folder in folders:
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            content = text.encode()
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
