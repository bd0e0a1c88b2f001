"""Writes the Dockerfiles of images with the agent in them, and reads the base images of other Dockerfiles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PREFIX = "/opt/evalkit-agent"
LABEL = "evalkit.image"
BASES_LABEL = "evalkit.bases"
INSTALLER = "install_agent.py"
CONSTRAINTS = "constraints.txt"
ENVIRONMENT, PIP_CONF, CA_BUNDLE = SECRETS = ("evalkit_env", "evalkit_pip_conf", "evalkit_ca_bundle")

_CONTEXT = "/evalkit-context"
_TASK_STAGE = "evalkit-task"
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(?P<name>\w+)(?:=[\"']?(?P<default>[^\"'\s]*)[\"']?)?", re.IGNORECASE)
_FLAGS = re.compile(r"(?:COPY|RUN)\s+((?:--\S+\s+)*)", re.IGNORECASE)
_OTHER_IMAGE = re.compile(r"(?:--from=|--mount=(?:[^\s,]*,)*from=)([^\s,]+)", re.IGNORECASE)
_HEREDOC = re.compile(r"<<-?[\"']?(\w+)[\"']?")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")


@dataclass(frozen=True, slots=True)
class Syntax:
    """The builder's dialect. BuildKit can mount files that an image must not keep; the classic builder cannot."""

    mounts: bool = True

    def install(self, source: str, *arguments: str) -> str:
        """Run the installer on the content of an image, or of the build context if `source` is empty."""
        command = json.dumps(["python3", f"{_CONTEXT}/{INSTALLER}", PREFIX, *arguments])
        if not self.mounts:
            origin = f"--from={source} / " if source else ". "
            return f"COPY {origin}{_CONTEXT}/\nRUN {command}\n"
        mounts = [f"type=bind,{f'from={source},' if source else ''}target={_CONTEXT}"]
        mounts += [f"type=secret,id={name}" for name in SECRETS]
        mounts += ["type=cache,target=/root/.cache/pip"]
        return f"RUN {' '.join(f'--mount={mount}' for mount in mounts)} {command}\n"


def relocatable_agent(base: str, arguments: tuple[str, ...], tag: str, syntax: Syntax) -> str:
    """An image of one prefix that holds everything the agent needs."""
    return (
        f"FROM {base} AS build\n"
        f"{syntax.install('', *arguments, '--relocatable')}"
        f"FROM scratch\n{_label(tag)}"
        f"COPY --from=build {PREFIX} {PREFIX}\n"
    )


def agent_source(tag: str) -> str:
    """The image that others install from, where each has an install of its own."""
    return f"FROM scratch\n{_label(tag)}COPY . /\n"


def with_label_of_bases(dockerfile: str, identities: Mapping[str, str]) -> str:
    """Tell in the image what its bases were, for when nobody else can tell any more."""
    told = json.dumps(dict(sorted(identities.items())), separators=(",", ":"))
    return f"{_ended(dockerfile)}LABEL {BASES_LABEL}={json.dumps(told)}\n" if identities else dockerfile


def with_copied_agent(start: str, agent: str, tag: str) -> str:
    return f"{_ended(start)}COPY --from={agent} {PREFIX} {PREFIX}\n{_path()}{_label(tag)}"


def with_installed_agent(start: str, agent: str, arguments: tuple[str, ...], tag: str, syntax: Syntax) -> str:
    """Install as root in a separate stage, so that the image keeps its user and gains only the prefix."""
    start, stage = _name_last_stage(start)
    return (
        f"{_ended(start)}"
        f"FROM {stage} AS evalkit-install\nUSER root\n{syntax.install(agent, *arguments)}"
        f"FROM {stage}\nCOPY --from=evalkit-install {PREFIX} {PREFIX}\n{_path()}{_label(tag)}"
    )


def without_agent(start: str, tag: str) -> str:
    return f"{_ended(start)}{_label(tag)}"


def base_images(dockerfile: str, build_args: Mapping[str, str]) -> tuple[str, ...]:
    """The images that a Dockerfile starts or copies from, as far as they can be known without building it."""
    return tuple(dict.fromkeys(image for _, _, image in _named_images(dockerfile, build_args)))


def with_pinned_bases(dockerfile: str, build_args: Mapping[str, str], references: Mapping[str, str]) -> str:
    """Name each base by the reference given for it, so that one that moves meanwhile is not taken."""
    lines = dockerfile.split("\n")
    for end, written, image in _named_images(dockerfile, build_args):
        if (pinned := references.get(image, image)) != image:
            lines[end] = re.sub(rf"(?<![^\s=]){re.escape(written)}(?![^\s,])", lambda _: pinned, lines[end], count=1)
    return "\n".join(lines)


def _named_images(dockerfile: str, build_args: Mapping[str, str]) -> Iterator[tuple[int, str, str]]:
    """Each naming of another image: the last line of its instruction, the name as it is written, and in full."""
    values: dict[str, str] = {}
    stages, number = {"scratch", ""}, 0
    for end, line in _instructions(dockerfile).items():
        if declared := _ARG.fullmatch(line):
            name = declared["name"]
            values[name] = build_args.get(name, declared["default"] or "")
        elif start := _FROM.fullmatch(line):
            image = _filled_in(start["image"], values)
            if image.lower() not in stages and "$" not in image:
                yield end, start["image"], image
            stages |= {(start["stage"] or "").lower(), str(number)}
            number += 1
        elif flags := _FLAGS.match(line):
            for image in _OTHER_IMAGE.findall(flags[1]):
                if image.lower() not in stages and "$" not in image:
                    yield end, image, image


def _filled_in(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values.get(match[1] or match[2]) or match[3] or match[0], text)


def _name_last_stage(dockerfile: str) -> tuple[str, str]:
    lines = dockerfile.split("\n")
    starts = [(end, match) for end, line in _instructions(dockerfile).items() if (match := _FROM.fullmatch(line))]
    if not starts:
        raise ValueError("the Dockerfile has no FROM")
    end, last = starts[-1]
    if last["stage"]:
        return dockerfile, last["stage"]
    lines[end] = f"{lines[end].rstrip()} AS {_TASK_STAGE}"
    return "\n".join(lines), _TASK_STAGE


def _instructions(dockerfile: str) -> dict[int, str]:
    """The instructions by the number of their last line, continuation lines joined, here-documents left out."""
    found: dict[int, str] = {}
    whole, ends = "", list[str]()
    for number, line in enumerate(dockerfile.split("\n")):
        text = line.strip()
        if ends:
            ends = ends[1:] if text == ends[0] else ends
        elif text and not text.startswith("#"):
            whole += text.removesuffix("\\")
            if not text.endswith("\\"):
                found[number] = whole.strip()
                ends = _HEREDOC.findall(whole)
                whole = ""
    return found


def _ended(text: str) -> str:
    return text.rstrip().removesuffix("\\") + "\n"


def _path() -> str:
    return f"ENV PATH={PREFIX}/bin:$PATH\n"


def _label(tag: str) -> str:
    return f"LABEL {LABEL}={json.dumps(tag)}\n"
