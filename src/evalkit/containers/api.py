"""Calls to the engine: short ones by the SDK in threads of our own, with typed errors."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio

from evalkit.containers.connection import Endpoint, EngineError, Exchange, Refused, Unreachable, Unsupported
from evalkit.containers.process_list import Processes, processes_in_docker, processes_in_podman
from evalkit.domain.failures import Failed, Kind
from evalkit.logs import logger
from evalkit.system import threads

_SCHEME = "http+docker://"
_ANY_URL = f"{_SCHEME}localhost"
_CALL_SECONDS = 20.0
_PATIENT_SECONDS = 120.0
_CLOSING_SECONDS = 5.0
_PROBE_SECONDS = 5.0
_NOT_FOUND, _SERVER_ERROR = 404, 500
_FULL = 64 << 20
_OLDEST_API = "1.24"

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def typed_errors(host: str) -> Iterator[None]:
    """Turn errors of the SDK and of the libraries below it into ours."""
    import docker.errors  # slow to import, and needed for containers only
    import requests.exceptions
    import urllib3.exceptions

    try:
        yield
    except docker.errors.APIError as error:
        if error.response is None:
            raise Unreachable(f"the engine at {host} does not answer") from error
        if error.response.status_code == _NOT_FOUND and "json" not in error.response.headers.get("Content-Type", ""):
            raise Unsupported(f"the engine at {host} cannot do it") from error
        raise Refused(error.response.status_code, str(error.explanation)) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, docker.errors.DockerException) as error:
        raise Unreachable(f"the engine at {host} does not answer: {_innermost(error)}") from error


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def connect(endpoint: Endpoint, connections: int = 1, seconds: float = _CALL_SECONDS) -> Any:
    """An SDK client with a pool of that many connections."""
    import docker  # slow to import, and needed for containers only
    import docker.tls
    import requests.adapters

    url = (
        f"unix://{endpoint.address}" if isinstance(endpoint.address, Path) else "tcp://{}:{}".format(*endpoint.address)
    )
    tls: Any = False
    if endpoint.certificates is not None:
        own, authority = endpoint.certificates.own, endpoint.certificates.authority
        tls = docker.tls.TLSConfig(tuple(map(str, own)), str(authority), verify=endpoint.certificates.verify)

    def create(version: str) -> Any:
        api = docker.APIClient(url, version=version, timeout=seconds, tls=tls, max_pool_size=connections)
        # No proxy, as for the streams; looking for one in the environment costs time in each call.
        api.trust_env = False
        if isinstance(endpoint.address, Path):
            _keep_one_pool(api)
        else:
            for scheme in ("http://", "https://"):
                api.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=connections))
        return api

    with typed_errors(endpoint.host):
        return create(_ask_version(create(_OLDEST_API)))


def _ask_version(api: Any) -> str:
    """The engine's API. Podman, asked for its versions, asks the package manager first, which takes seconds."""
    told = api.get(f"{api.base_url}/_ping").headers.get("Api-Version")
    return str(told or api.version(api_version=False)["ApiVersion"])


def is_podman(api: Any) -> bool:
    """Whether it is Podman that speaks Docker's API here.

    https://docs.podman.io/en/latest/_static/api.html
    """
    return "Libpod-Api-Version" in api.get(f"{api.base_url}/_ping").headers


def _keep_one_pool(api: Any) -> None:
    """Have a client use its connections for all calls, rather than a pool of its own for each of the last 25 URLs.

    https://github.com/docker/docker-py/blob/7.1.0/docker/transport/unixconn.py#L58
    """
    from docker.transport import UnixHTTPAdapter

    class OnePoolAdapter(UnixHTTPAdapter):  # type: ignore[misc]  # the SDK has no types
        def get_connection(self, url: str, proxies: Any = None) -> Any:
            return super().get_connection(_ANY_URL, proxies)

    given = api.get_adapter(api.base_url)
    api.mount(_SCHEME, OnePoolAdapter(given.socket_path, given.timeout, max_pool_size=given.max_pool_size))


def make_client(
    endpoint: Endpoint,
    calls: int,
    reconnect: float,
    root: Path | None,
    threads_of_all: anyio.CapacityLimiter | None = None,
) -> Client:
    """A client with that many calls at once; where there are several engines, within the threads of all."""
    times = (_CALL_SECONDS, _PATIENT_SECONDS, _CLOSING_SECONDS)
    api, patient, closing = (connect(endpoint, calls, seconds) for seconds in times)
    with typed_errors(endpoint.host):
        processes_in = processes_in_podman if is_podman(api) else processes_in_docker
    limiter = anyio.CapacityLimiter(calls)
    return Client(endpoint, api, patient, closing, limiter, reconnect, root, threads_of_all, processes_in)


@dataclass(frozen=True, slots=True)
class Removal:
    """A call of the SDK that removes something by its name."""

    call: str
    options: Mapping[str, bool] = field(default_factory=dict)


REMOVE_CONTAINER = Removal("remove_container", {"force": True, "v": True})
REMOVE_NETWORK = Removal("remove_network")
REMOVE_VOLUME = Removal("remove_volume", {"force": True})


@dataclass(slots=True)
class Client:
    """One engine, for all workspaces of a run."""

    endpoint: Endpoint
    api: Any
    patient: Any
    """The same for slow calls, like starting a container while many others start."""
    closing: Any
    """The same for calls at the end, with a short time limit: they must not keep a run from ending."""
    calls: anyio.CapacityLimiter
    reconnect: float
    root: Path | None = None
    """The engine's folder, if it is on this machine."""
    threads_of_all: anyio.CapacityLimiter | None = None
    """The threads that it shares with other engines."""
    processes_in: Callable[[Any, str], Processes] = processes_in_docker
    """Lists the processes of a container, given the SDK's client and a name."""
    left: dict[str, Removal] = field(default_factory=dict)
    """What could not be removed while the engine was away, by name."""
    _looking: anyio.Lock = field(default_factory=anyio.Lock)
    _lost_at: float | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **keywords: P.kwargs) -> T:
        """One short call, or one that looks for its cancellation as it goes."""

        def work() -> T:
            with typed_errors(self.endpoint.host):
                return function(*args, **keywords)

        if self.threads_of_all is None:
            result = await threads.call(work, limiter=self.calls)
        else:
            async with self.calls:  # so that an engine that hangs does not take all threads
                result = await threads.call(work, limiter=self.threads_of_all)
        self._lost_at = None
        return result

    @property
    def is_lost(self) -> bool:
        """Whether it went away, and has not answered since."""
        return self._lost_at is not None

    async def upgrade(self, path: str, body: Any = None) -> Exchange:
        """Open a stream to a process. Cancellation waits for it, since the outcome would be unknown otherwise."""
        with anyio.move_on_after(_CALL_SECONDS, shield=True):
            return await self.endpoint.request("POST", self._versioned(path), body, upgrade=True)
        raise Unreachable(f"the engine at {self.endpoint.host} takes too long")

    async def follow(self, path: str, headers: dict[str, str]) -> Exchange:
        """Start a long operation and read along; closing the stream ends it."""
        return await self.endpoint.request("POST", self._versioned(path), headers=headers)

    async def read(self, path: str) -> Exchange:
        """Ask for something whose size is not known beforehand, or that goes on as things happen."""
        return await self.endpoint.request("GET", self._versioned(path))

    def _versioned(self, path: str) -> str:
        return f"/v{self.api.api_version}{path}"

    async def is_back(self) -> bool:
        """Wait for a lost engine, for `reconnect` seconds at most. All callers share one wait."""
        async with self._looking:
            lost_at = self._lost_at = self._lost_at or anyio.current_time()
            for pause in _growing_pauses():
                if await self.answers():
                    self._lost_at = None
                    return True
                if anyio.current_time() + pause > lost_at + self.reconnect:
                    return False
                await anyio.sleep(pause)
        return False

    async def answers(self) -> bool:
        try:
            with anyio.fail_after(_PROBE_SECONDS):
                await (await self.endpoint.request("GET", "/_ping")).aclose()
        except (EngineError, TimeoutError):
            return False
        return True

    async def remove_left(self) -> None:
        """Remove what was left while the engine was away, now that it answers."""
        for name, removal in list(self.left.items()):
            try:
                await self.call(getattr(self.closing, removal.call), name, **removal.options)
            except Unreachable:
                return
            except EngineError as error:
                logger.info("%s is left: %s", name, error)  # it may be gone; else the next command sweeps it
            del self.left[name]

    def close(self) -> None:
        for api in (self.api, self.patient, self.closing):
            api.close()

    async def explain(self, error: EngineError, *, refusal: Kind = "workspace") -> Failed:
        """The failure for an error. What ran is lost; waiting for the engine here spares the next attempt the same."""
        if isinstance(error, Refused):
            return Failed(
                "disk_full" if error.status >= _SERVER_ERROR and self.disk_is_full() else refusal, error.message
            )
        back = " (it is back)" if await self.is_back() else ""
        return Failed("engine", f"{error}{back}")

    def disk_is_full(self) -> bool:
        """Whether the engine's disk is full; False where that cannot be seen from here."""
        try:
            return self.root is not None and shutil.disk_usage(self.root).free < _FULL
        except OSError:
            return False


def _growing_pauses() -> Iterator[float]:
    yield from (0.1, 0.2, 0.5)
    yield from itertools.repeat(1.0)
