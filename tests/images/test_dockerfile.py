from __future__ import annotations

import pytest

from evalkit.images import dockerfile
from evalkit.images.dockerfile import (
    PREFIX,
    Syntax,
    base_images,
    with_copied_agent,
    with_installed_agent,
    with_label_of_bases,
    with_pinned_bases,
)


def test_finds_the_images_that_a_dockerfile_starts_from() -> None:
    text = """\
# syntax=docker/dockerfile:1
# FROM not/this
ARG VERSION=3.12
ARG REGISTRY
FROM --platform=linux/amd64 python:${VERSION}-slim AS build
RUN psql -c "select 1 \\
    FROM users"
COPY <<EOF /query
FROM heredoc
EOF
FROM build AS next
FROM ${REGISTRY:-ghcr.io}/tools:1
FROM \\
    alpine
from scratch
FROM $UNKNOWN
"""
    assert base_images(text, {}) == ("python:3.12-slim", "ghcr.io/tools:1", "alpine")
    assert base_images(text, {"VERSION": "3.13", "REGISTRY": "r.example"})[:2] == (
        "python:3.13-slim",
        "r.example/tools:1",
    )


def test_images_that_are_copied_from_are_bases_too_and_each_is_pinned_where_it_is_named() -> None:
    text = """\
ARG BASE=debian:12
FROM ${BASE} AS build
COPY --from=ghcr.io/uv:1 /uv /bin/
RUN --mount=type=cache,target=/c --mount=type=bind,from=tools,source=/x,target=/x make --from=nothing
COPY --chown=me --from=build debian:12 /there
COPY --from=0 /a /b
FROM scratch
COPY --from=$BASE /c /d
"""
    assert base_images(text, {}) == ("debian:12", "ghcr.io/uv:1", "tools")
    pinned = with_pinned_bases(text, {}, {"debian:12": "debian@sha256:d", "ghcr.io/uv:1": "ghcr.io/uv@sha256:u"})
    assert pinned.splitlines() == [
        "ARG BASE=debian:12",
        "FROM debian@sha256:d AS build",
        "COPY --from=ghcr.io/uv@sha256:u /uv /bin/",
        *text.splitlines()[3:],
    ]


def test_the_bases_are_told_in_a_label_of_the_image() -> None:
    text = with_label_of_bases("FROM b\nRUN true \\", {"b": "sha256:1", "a": "sha256:2"})
    assert text.splitlines()[-1] == 'LABEL evalkit.bases="{\\"a\\":\\"sha256:2\\",\\"b\\":\\"sha256:1\\"}"'
    assert with_label_of_bases("FROM scratch\n", {}) == "FROM scratch\n"


def test_the_agent_is_added_after_all_that_the_task_says() -> None:
    text = with_copied_agent("FROM base\nUSER nobody\nRUN true \\", "evalkit:agent-1", "evalkit:t-1")
    assert text.splitlines() == [
        "FROM base",
        "USER nobody",
        "RUN true ",
        f"COPY --from=evalkit:agent-1 {PREFIX} {PREFIX}",
        f"ENV PATH={PREFIX}/bin:$PATH",
        'LABEL evalkit.image="evalkit:t-1"',
    ]


@pytest.mark.parametrize("last", ["FROM base", "from base as final", "FROM --platform=$X base"])
def test_an_install_is_a_stage_of_its_own_so_that_the_image_keeps_its_user(last: str) -> None:
    text = with_installed_agent(f"FROM other AS first\n{last}\nUSER nobody\n", "a:1", ("x.tar.gz",), "t:1", Syntax())
    lines = text.splitlines()
    stage = "final" if last.endswith("final") else "evalkit-task"
    assert lines[1].lower().endswith(f"as {stage}")
    install = lines.index("USER root")
    assert lines[install - 1] == f"FROM {stage} AS evalkit-install"
    assert f"FROM {stage}" in lines[install:], "what is shipped starts from the task again"
    assert "root" not in "".join(lines[install + 2 :])


def test_what_an_install_may_see_is_mounted_and_not_copied_where_the_builder_can() -> None:
    mounting = Syntax(mounts=True).install("", "x.tar.gz")
    assert all(f"type=secret,id={name}" in mounting for name in dockerfile.SECRETS)
    assert "COPY" not in mounting
    assert "--mount" not in Syntax(mounts=False).install("", "x.tar.gz")
