"""The one config model that every command shares."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evalkit.domain.planning import Attempts

if TYPE_CHECKING:
    from evalkit.domain.networks import NetworkPolicy
    from evalkit.domain.records import Limits

UNIT_OF_TIME = re.compile(r"(?:ms|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:ours?|rs?)?|d(?:ays?)?)")
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)\s*({UNIT_OF_TIME.pattern})?")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ROLE = re.compile(r"[a-z][a-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SHARD = re.compile(r"(?:auto|(\d{1,6}))(?:/(\d{1,6}))?")
_LEAST_MEMORY = 6 << 20
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_duration(value: Any) -> Any:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError('a duration is a number of seconds, or like "90s", "30m", "4h"')
        unit = match[2] or "s"
        return float(match[1]) * (0.001 if unit == "ms" else _SECONDS[unit[0]])
    return value


def parse_size(value: Any) -> Any:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError('a size is a number of bytes, or like "512m", "4g"')
        return int(float(match[1]) * _BYTES[match[2].lower()])
    return value


def parse_none(value: Any) -> Any:
    """Read the word `none` as null, which TOML and shells lack."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def parse_seccomp(value: Any) -> Any:
    """Read `default` as null, and refuse what turns the profile off."""
    word = value.strip().lower() if isinstance(value, str) else None
    if word in ("unconfined", "none", ""):
        raise ValueError("containers always have a seccomp profile: default for the engine's own, or a JSON file")
    return None if word == "default" else value


def require_urls(given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    """Endpoints without credentials, each named once; one alone is written as text."""
    urls = (given,) if isinstance(given, str) else given or ()
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an endpoint is an http or https URL, like http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError(
                "credentials do not belong in a URL: put the key into a variable that model.api_key_env names"
            )
    if given is not None and not urls:
        raise ValueError("a list of endpoints needs one at least")
    if len({url.rstrip("/") for url in urls}) < len(urls):
        raise ValueError("an endpoint is in the list twice")
    return urls[0] if len(urls) == 1 else given


def require_url(url: str | None) -> str | None:
    """The address of a service, without credentials."""
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a service has an http or https URL, like https://runtime.example.org")
    if parts.username or parts.password:
        raise ValueError("credentials do not belong in a URL: put the key into a variable that api_key_env names")
    return url.rstrip("/")


def require_variables(names: Any) -> Any:
    """Refuse anything but names of variables: a secret put here by mistake is rarely one."""
    for name in (names,) if isinstance(names, str) else names or ():
        if not _VARIABLE.fullmatch(name):
            raise ValueError("this takes the names of environment variables; their values do not belong here")
    return names


def require_roles(models: Mapping[str, OtherModelConfig]) -> Mapping[str, OtherModelConfig]:
    for role in models:
        if not _ROLE.fullmatch(role):
            raise ValueError(f"[model.{role}]: a model is named with small letters, digits and _, like [model.small]")
    return models


def require_word(text: str | None) -> str | None:
    if text is not None and not _WORD.fullmatch(text):
        raise ValueError('an effort is one word, like "high"')
    return text


def require_hosts(entries: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """The entries of an allow-list, in their normal form."""
    if not entries:
        return entries
    from evalkit.domain.networks import ALLOWLIST, parse_entry  # most commands allow nothing

    if info.data.get("network") != ALLOWLIST:
        raise ValueError("a list of hosts needs workspace.network = allowlist, or --network allowlist")
    return tuple(parse_entry(each) for each in entries)


def require_mirrors(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Places to pull from in place of registries."""
    if entries:
        from evalkit.domain import image_mirrors  # most runs have none

        image_mirrors.require_mirrors(entries)
    return entries


def require_engines(entries: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    """The addresses of container engines, and files of such."""
    if not entries:
        return entries
    from evalkit.domain.engine_addresses import require_addresses  # most runs have one engine

    if info.data.get("kind") not in (None, "docker"):
        raise ValueError(f"hosts are Docker engines, and workspace.kind is {info.data['kind']}")
    return require_addresses(entries)


def split_command(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def split_list(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def parse_shard(value: Any) -> Any:
    if isinstance(value, str):
        match = _SHARD.fullmatch(value.strip())
        number, count = match.groups() if match else (None, None)
        least = 1 if number is None else int(number)
        if match is None or (number and not count) or not 1 <= least <= int(count or least):
            raise ValueError("a shard is written i/n, like 2/5, with i from 1 to n; auto or auto/n in an array job")
        return "/".join(str(int(part)) if part.isdigit() else part for part in value.strip().split("/"))
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
Temperature = Annotated[float, Field(ge=0.0, le=2.0)] | None
Floor = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_list)]
Variables = Annotated[Names, AfterValidator(require_variables)]
ShardName = Annotated[str, BeforeValidator(parse_shard)]
Urls = Annotated[str | tuple[str, ...] | None, AfterValidator(require_urls)]
Argv = Annotated[tuple[str, ...], BeforeValidator(split_command)]
Location = Annotated[Path, PlainSerializer(str, return_type=str)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)


class BenchmarkConfig(Section):
    name: str = Field("tasks", description="Benchmark: what is asked, how it is graded")
    dataset: str | None = Field(
        None, description="Path, repository, registry or hub name of the data set; for tasks, the bundled ones"
    )
    pins: Literal["warn", "require"] = Field(
        "warn", description="What to do where tasks are not those that their dataset.toml pins"
    )
    git_host: str = Field("https://github.com", description="Where repositories named like org/name are")
    split: str = Field("test", description="Split of the data set")
    select: Names = Field(
        (), description="Instances to run: ids, regular expressions for the whole id, or files with one id a line"
    )
    limit: int = Field(0, ge=0, description="Run at most this many of the selected instances; 0 is all")
    seed: int | None = Field(None, description="Draw the limited instances at random with this seed, not the first")
    shard: ShardName | None = Field(
        None,
        description="Run one part of the selected instances: 2/5 is the second of five; auto the one of an array job",
    )
    reference: Location | None = Field(
        None, description="Directory of what grading needs besides the rows, such as commit0's lists of tests"
    )
    exclude: Names = Field((), description="Paths (git pathspecs) that are kept out of collected patches")


class AgentConfig(Section):
    name: str = Field("gold", description="Agent: who solves")
    command: Argv = Field((), description="Program and arguments of the `command` agent")
    files: Names = Field((), description="Files and folders of this machine that the `command` agent gets")
    preset: str | None = Field(
        None,
        description="What the `command` agent runs: a name that `evalkit agents` lists, NAME@VERSION, or a TOML file",
    )
    prompt: Location | None = Field(None, description="Template of the prompt, instead of the agent's own")
    options: Mapping[str, Any] = Field({}, description="Options of an agent from another package")
    effort: Annotated[str | None, BeforeValidator(parse_none), AfterValidator(require_word)] = Field(
        None,
        description="How much the model reasons, in the agent's words; none leaves it to the agent",
        examples=["none", "low", "medium", "high"],
    )
    max_steps: int = Field(
        100, ge=1, description="Calls of the model that one attempt may make; 100 for shell alone, unless it is set"
    )
    max_tokens: int = Field(0, ge=0, description="Tokens that one attempt may use, input and output; 0 is no limit")
    max_cost_usd: float | None = Field(None, gt=0, description="What one attempt may cost")
    command_timeout: Duration = Field(180.0, description="For one command of the shell agent")
    install: Literal["auto", "never"] = Field(
        "auto",
        description="Put the agent of a preset with a version into containers, unless images.agent has built it in;"
        " never: it is in the images",
    )
    env: Variables = Field((), description="Environment variables of yours that the agent gets, by name")


class Prices(Section):
    """USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)
    """For input that was read from a cache."""
    cache_write: float | None = Field(None, ge=0)
    """For input that was written to a cache."""


class OtherModelConfig(Section):
    """One more model that agents may ask, by its name. What is not set is as for the main model."""

    name: str | None = Field(None, min_length=1, description="Model, as its endpoint and the agent call it")
    base_url: Urls = Field(None, description="Its endpoint, or several; that of the main model")
    api_key_env: Annotated[str | None, AfterValidator(require_variables)] = Field(
        None, description="Variable with its key; that of the main model where the endpoint is the same"
    )
    max_in_flight: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(0, description="Its calls under way at once")
    tokens_per_minute: int = Field(0, ge=0, description="Its tokens used per minute")
    prices: Prices | None = Field(None, description="Its prices")

    @property
    def base_urls(self) -> tuple[str, ...]:
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url or ()


class ModelConfig(Section):
    name: str | None = Field(None, description="Model, as its endpoint calls it")
    base_url: Urls = Field(
        None,
        description="Endpoint of the model, up to and with /v1; or a list, of which the next is asked if one fails",
    )
    api_key_env: Annotated[str | None, AfterValidator(require_variables)] = Field(
        None, description="Environment variable that holds the key"
    )
    api: str = Field("chat", description="What the endpoint speaks: chat (completions), responses")
    temperature: Annotated[Temperature, BeforeValidator(parse_none)] = Field(
        0.0, description="Sampling temperature; none leaves it to the endpoint"
    )
    options: Mapping[str, Any] = Field(
        {}, description='More fields of each request, like {reasoning_effort = "high", max_completion_tokens = 8000}'
    )
    stream: bool = Field(False, description="Stream answers; LiteLLM tells the cost only where it is off")
    timeout: Duration = Field(600.0, description="For one call of the model")
    retries: int = Field(6, ge=0, description="Tries again of a call after 429, 5xx, a time-out or a cut stream")
    max_in_flight: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        0,
        description="Calls under way at once, of all workers; 0 is no limit, auto finds it by the endpoint's refusals",
    )
    tokens_per_minute: int = Field(0, ge=0, description="Tokens used per minute, of all workers; 0 is no limit")
    record: Literal["none", "calls", "tokens"] = Field(
        "calls",
        description="What calls.jsonl of each attempt keeps: none; calls; tokens, with token ids and log-probabilities",
    )
    prices: Prices | None = Field(
        None,
        description="USD per million tokens, if they are not as the endpoint or the list of the extra `prices` says:"
        " {input = 3, cached = 0.3, cache_write = 3.75, output = 15}",
    )
    virtual_keys: bool = Field(
        False, description="Make a LiteLLM key for each attempt; api_key_env then holds a key that may do so"
    )
    others: Annotated[Mapping[str, OtherModelConfig], AfterValidator(require_roles)] = Field(
        {},
        description="More models that agents ask by their names, written as [model.small]: name, base_url,"
        " api_key_env, prices, max_in_flight, tokens_per_minute",
    )

    @property
    def base_urls(self) -> tuple[str, ...]:
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url or ()

    @model_validator(mode="after")
    def _require_names_apart(self) -> ModelConfig:
        """Refuse two models of one name: the name in a request says which is meant."""
        names = [self.name, *(each.name for each in self.others.values())]
        for role, other in self.others.items():
            if other.name is not None and names.count(other.name) > 1:
                raise ValueError(f"model.{role}.name = {other.name!r} is the name of another model too")
        return self

    @model_validator(mode="after")
    def _require_one_proxy(self) -> ModelConfig:
        """Refuse virtual keys where calls go elsewhere than to the proxy that makes and charges them."""
        elsewhere = [f"model.{role}.base_url" for role, other in self.others.items() if other.base_url]
        if self.virtual_keys and (elsewhere or len(self.base_urls) > 1):
            named = elsewhere[0] if elsewhere else "a list as model.base_url"
            raise ValueError(f"model.virtual_keys are those of one proxy: leave out {named}, or virtual_keys")
        return self


class KubernetesConfig(Section):
    """Pods, where workspace.kind is kubernetes."""

    kubeconfig: Location | None = None
    """Else those of KUBECONFIG, the service account of the pod that evalkit runs in, or ~/.kube/config."""
    context: str | None = None
    """Of the kubeconfig; else its current one."""
    namespace: str | None = None
    """Else that of the context, or of the pod that evalkit runs in."""
    runtime_class: str | None = None
    """The runtimeClassName of pods, like gvisor."""
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Mapping[str, Any], ...] = ()
    image_pull_secrets: Names = ()
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    service_account: str | None = None
    """Of the pods, which get no token in any case."""
    priority_class: str | None = None
    restricted: bool = False
    """Pods as the Pod Security Standard restricted wants them: their images must have a user, by number, but root."""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    starting: int = Field(50, ge=1)
    """Pods that are started at once; more may run."""
    probe_image: str | None = None
    """The image of the pods that prove the network to be closed, with Python or Perl; else workspace.image."""
    probe_targets: Names = ()
    """More addresses, as HOST:PORT, that an open pod reaches and a closed one must not."""


class RemoteConfig(Section):
    """Runtimes that a service starts, where workspace.kind is remote."""

    api: Annotated[str | None, AfterValidator(require_url)] = None
    """The address of the service."""
    api_key_env: Annotated[str | None, AfterValidator(require_variables)] = "RUNTIME_API_KEY"
    """The variable with its key."""
    server: Literal["openhands", "swerex"] = "openhands"
    """What runs commands in the runtimes: the agent server of OpenHands, or that of SWE-ReX."""
    command: str | None = None
    """What starts that server in an image; else its usual command."""
    runtime_class: str | None = None
    """Like sysbox-runc."""
    run_as_user: int | None = None
    fs_group: int | None = None
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    starting: int = Field(20, ge=1)
    """Runtimes that are started at once; more may run."""


class WorkspaceConfig(Section):
    kind: str | None = Field(
        None,
        description="Where instances run: docker, kubernetes, remote, rootfs, apptainer; local for the bundled tasks",
    )
    image: str = Field("python:3.12-slim", description="Image for instances that name none and have no Dockerfile")
    network: str = Field(
        "none",
        description="Network of the agent: none, model (its endpoint only), allowlist, bridge, or a network's name",
        examples=["none", "model", "allowlist", "bridge"],
    )
    allow_hosts: Annotated[Names, AfterValidator(require_hosts)] = Field(
        (),
        description="Where the network is allowlist: names, *.suffix, addresses or CIDR ranges that can be reached",
    )
    memory: Size = Field(4 << 30, description="Memory that one instance is sure to have: so much of it is admitted")
    memory_limit: Annotated[Size | None, BeforeValidator(parse_none)] = Field(
        None,
        description="Memory beyond which processes of an instance are killed; none is three times workspace.memory",
        examples=["none"],
    )
    cpus: float = Field(1.0, gt=0, description="CPUs of one instance: its share where they are scarce")
    cpu_limit: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(parse_none)] = Field(
        None, description="The most CPUs that one instance gets; none is workspace.cpus", examples=["none"]
    )
    disk: Annotated[Size | None, BeforeValidator(parse_none)] = Field(
        None, description="What one instance may write to disk, like 10g; none ends only who leaves the disk no room"
    )
    runtime: Annotated[str | None, BeforeValidator(parse_none)] = Field(
        None,
        description="OCI runtime of containers, as the engine calls it, like runsc; none is the engine's own",
        examples=["none", "runsc"],
    )
    seccomp: Annotated[Location | None, BeforeValidator(parse_seccomp)] = Field(
        None, description="Seccomp profile of containers, a JSON file; default is the engine's", examples=["default"]
    )
    hosts: Annotated[Names, AfterValidator(require_engines)] = Field(
        (),
        description="Docker engines that share the run, like ssh://a,tcp://b:2376, or a file with one a line",
    )
    kubernetes: KubernetesConfig = Field(
        default_factory=KubernetesConfig,
        description='Pods: {namespace = "evals", context = "…"}; docs/kubernetes.md has all of its keys',
    )
    remote: RemoteConfig = Field(
        default_factory=RemoteConfig,
        description='Runtimes of a service: {api = "https://…"}; docs/remote.md has all of its keys',
    )
    grace: Duration = Field(30.0, description="A container whose evalkit is gone ends within this time, at the latest")
    reconnect: Duration = Field(30.0, description="How long to wait for an engine that went away during a run")
    expose: Names = Field((), description="Files and folders that commands in the local sandbox can read besides")
    unsandboxed: bool = Field(False, description="Let local agents run without a sandbox, with all your rights")

    @field_validator("memory")
    @classmethod
    def _require_memory(cls, memory: int) -> int:
        """Docker refuses less: https://docs.docker.com/engine/containers/resource_constraints/"""
        if memory < _LEAST_MEMORY:
            raise ValueError('an instance needs "6m" at least')
        return memory

    @field_validator("memory_limit", "cpu_limit")
    @classmethod
    def _require_room(cls, limit: float | None, info: ValidationInfo) -> float | None:
        """Refuse a limit below what an instance is sure to have."""
        name = "memory" if info.field_name == "memory_limit" else "cpus"
        if limit is not None and name in info.data and limit < info.data[name]:
            raise ValueError(f"this is less than workspace.{name}, {info.data[name]}: lower that, or raise this")
        return limit

    @property
    def policy(self) -> NetworkPolicy:
        from evalkit.domain.networks import NetworkPolicy  # most commands read the config and run nothing

        return NetworkPolicy(self.network, self.allow_hosts)


class ImagesConfig(Section):
    agent: str | None = Field(
        None, description="The agent: a preset with its version, like claude-code@2.1.197, from npm's registry or PyPI"
    )
    agent_source: Location | None = Field(None, description="The agent: a directory with pyproject.toml, or an sdist")
    strategy: Literal["layer", "install"] = Field("layer", description="Copy one installed agent, or install in each")
    agent_base: str = Field("python:3.12-slim", description="Image whose Python the agent layer is made with")
    agent_extra: Names = Field((), description="More packages, as pip names them, that are installed with the agent")
    constraints: Location | None = Field(None, description="pip constraints for what the agent is installed with")
    install_env: Variables = Field((), description="Environment variables of yours that the install gets, by name")
    pip_conf: Location | None = Field(None, description="pip configuration for the install; not kept in images")
    ca_bundle: Location | None = Field(None, description="Certificates for the install; not kept in images")
    repository: str = Field("evalkit", description="Repository of the images that are built")
    push: bool = Field(False, description="Push each image when it is complete")
    drop_after_push: bool = Field(False, description="Remove each image from this machine once it is pushed")
    workers: int = Field(12, ge=1, description="Images built at once")
    pulls: int = Field(4, ge=1, description="Images pulled at once by one engine")
    pulls_per_registry: int = Field(16, ge=1, description="Images pulled at once from one registry, by all engines")
    pull_ahead: Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(parse_none)] = Field(
        None,
        description="Pull the images of so many next instances while others run; none: as many as run.workers",
        examples=["none", "0"],
    )
    mirror: Annotated[Names, AfterValidator(require_mirrors)] = Field(
        (),
        description="Pull Docker Hub's images from here first, like mirror:5000; ghcr.io=mirror:5000/ghcr for others",
    )
    retries: int = Field(2, ge=0, description="Tries again after a failed build, pull, push or question")
    stall: Duration = Field(900.0, description="Give up a try of a build that prints nothing for this long")
    disk_floor: Annotated[Floor | None, BeforeValidator(parse_none)] = Field(
        None,
        description="Start no build or pull that leaves less free disk; none: 10g for builds, 1g for pulls",
        examples=["none", "10g", "0"],
    )
    build_args: dict[str, str] = Field(default_factory=dict, description="Values for ARG in Dockerfiles")
    network: str = Field(
        "default", description="Network of builds: default, host or none", examples=["default", "host", "none"]
    )
    platform: str | None = Field(None, description="Platform of the images, like linux/amd64; the engine's own")
    build_dir: Location = Field(Path("builds"), description="Directory of build manifests and logs")

    @property
    def has_agent(self) -> bool:
        """Whether images get an agent."""
        return self.agent is not None or self.agent_source is not None

    @property
    def build_floor(self) -> int:
        """What builds leave free. BuildKit's cache grows by more than the image that comes of it."""
        return 10 << 30 if self.disk_floor is None else self.disk_floor

    @property
    def pull_floor(self) -> int:
        """What pulls leave free. How much a pull takes is known before it begins."""
        return 1 << 30 if self.disk_floor is None else self.disk_floor


class RunConfig(Section):
    workers: int = Field(30, ge=1, description="Instances run at once")
    attempts: int = Field(1, ge=1, le=1000, description="Attempts at each instance, at most; see run.stop_on")
    stop_on: Literal["critic", "never"] = Field(
        "critic", description="Stop at an attempt that the critic accepts, or make all (never)"
    )
    critic: str = Field("pass", description="Who accepts an attempt: pass, non_empty_patch, graded")
    retries: int = Field(2, ge=0, description="Tries again after a failure of the infrastructure")
    breaker: Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(parse_none)] = Field(
        None,
        description="Stop once so many instances in a row failed alike; 0 never; none: twice the workers, at least 5",
        examples=["none", "0"],
    )
    max_cost_usd: float | None = Field(None, gt=0, description="Call no model and admit no instance once this is spent")
    max_instance_cost_usd: float | None = Field(None, gt=0, description="What all attempts at one instance may cost")
    executor: Annotated[Annotated[str, Field(min_length=1)] | None, BeforeValidator(parse_none)] = Field(
        None,
        description="Plugin that makes attempts on other machines; none: this process",
        examples=["ray", "none"],
    )
    memory_share: float = Field(
        0.8, gt=0, le=1, description="Admit no new instance while evalkit's processes use more of the memory"
    )


class TimeoutsConfig(Section):
    pull: Duration = Field(3600.0, description="To pull one image, before its instance starts")
    open: Duration = Field(300.0, description="To open a workspace; the pulls of a cluster included")
    solve: Duration = Field(3600.0, description="For the agent to solve one instance: seconds, or like 90s, 30m, 4h")
    solve_factor: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="Multiplies the time that tasks themselves ask for to be solved in"
    )
    collect: Duration = Field(300.0, description="To collect the answer")
    grade: Duration = Field(1800.0, description="To grade one answer")
    build: Duration = Field(3600.0, description="To build one image")


class OutputConfig(Section):
    dir: Location = Field(Path("runs"), description="Directory that runs are kept in")


class Config(Section):
    """The effective config: frozen, and shared by reference."""

    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)
    agent: AgentConfig = Field(default_factory=AgentConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    workspace: WorkspaceConfig = Field(default_factory=WorkspaceConfig)
    images: ImagesConfig = Field(default_factory=ImagesConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    timeouts: TimeoutsConfig = Field(default_factory=TimeoutsConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)

    @property
    def runs_bundled_tasks(self) -> bool:
        return self.benchmark.name == "tasks" and self.benchmark.dataset is None

    @property
    def workspace_kind(self) -> str:
        return self.workspace.kind or ("local" if self.runs_bundled_tasks and not self.workspace.hosts else "docker")

    @property
    def has_model(self) -> bool:
        """Whether agents in workspaces reach a model by a port of evalkit's."""
        return self.workspace.network == "model" or bool(self.model.name and self.model.base_url)

    @property
    def limits_usd(self) -> Mapping[str, float]:
        """The limits in USD that are set, by their keys."""
        limits = {
            "agent.max_cost_usd": self.agent.max_cost_usd,
            "run.max_instance_cost_usd": self.run.max_instance_cost_usd,
            "run.max_cost_usd": self.run.max_cost_usd,
        }
        return {key: limit for key, limit in limits.items() if limit is not None}

    @property
    def variables_of_agent(self) -> tuple[str, ...]:
        """The variables that agents get, by name, without the key of a model that they reach without it."""
        keys = {self.model.api_key_env, *(other.api_key_env for other in self.model.others.values())}
        return tuple(name for name in self.agent.env if not (self.has_model and name in keys))

    @property
    def attempts(self) -> Attempts:
        return Attempts(self.run.attempts, self.run.stop_on)

    @property
    def limits(self) -> Limits:
        from evalkit.domain.records import Limits  # most commands read the config and run nothing

        times = self.timeouts
        return Limits(
            open=times.open,
            solve=times.solve,
            collect=times.collect,
            grade=times.grade,
            memory=self.workspace.memory,
            cpus=self.workspace.cpus,
            disk=self.workspace.disk,
            memory_limit=self.workspace.memory_limit,
            cpu_limit=self.workspace.cpu_limit,
            solve_factor=times.solve_factor,
        )


def sections() -> dict[str, type[Section]]:
    found = {name: field.annotation for name, field in Config.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, Section)}


def keys() -> list[str]:
    """All keys of the config, as `section.key`."""
    return [f"{name}.{key}" for name, section in sections().items() for key in section.model_fields]


def choices(key: str) -> tuple[str, ...]:
    """The possible or common values of a key, if they are few."""
    section, _, name = key.partition(".")
    field = sections()[section].model_fields[name]
    if field.annotation is bool:
        return ("true", "false")
    if get_origin(field.annotation) is Literal:
        return get_args(field.annotation)
    return tuple(field.examples or ())


def variable_of(key: str) -> str:
    return "EVALKIT_" + key.replace(".", "_").upper()
