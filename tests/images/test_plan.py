from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.containers import reference
from evalkit.containers.reference import Pinned
from evalkit.domain.records import Instance
from evalkit.domain.services import Composition, Service, ServiceBuild
from evalkit.images.dockerfile import Syntax
from evalkit.images.plan import AgentPackage, Context, Inputs, Plan, plan

FOLDER_A, FOLDER_B = Path("/tasks/a/environment"), Path("/tasks/b/environment")
AGENT = AgentPackage(
    repository="evalkit",
    strategy="layer",
    sdist="agent-1.tar.gz",
    sdist_sha256="5d157",
    installer_sha256="1257",
    architecture="amd64",
    base=Pinned("python:3.12-slim", "sha256:py", "python@sha256:py"),
)
INPUTS = Inputs(
    repository="evalkit",
    default_image="busybox",
    contexts={FOLDER_A: Context(FOLDER_A, "FROM x\n", "aaa"), FOLDER_B: Context(FOLDER_B, "FROM y\n", "bbb")},
    bases={
        name: Pinned(name, f"sha256:{name}", f"{name}@sha256:{name}")
        for name in ("busybox", "swe/django_1776_django-11099:latest", "swe/flask:1")
    },
    dockerfile_bases={name: Pinned(name, f"sha256:{name}", f"{name}@sha256:{name}") for name in ("x", "y")},
    agent=AGENT,
)
INSTANCES = (
    Instance(id="a", statement="", build=FOLDER_A),
    Instance(id="b", statement="", build=FOLDER_B),
    Instance(id="django", statement="", image="swe/django_1776_django-11099:latest"),
    Instance(id="flask-1", statement="", image="swe/flask:1"),
    Instance(id="flask-2", statement="", image="swe/flask:1"),
    Instance(id="plain", statement=""),
)


def test_images_of_services_are_named_by_what_goes_into_them_and_have_no_agent() -> None:
    """Instances with the same service share its image; another stage or argument makes another one."""
    folder = Path("/tasks/a/environment/web")
    builds = [
        ServiceBuild(context=folder),
        ServiceBuild(context=folder, target="dev"),
        ServiceBuild(context=folder, arguments=(("A", "1"),)),
    ]
    services = Composition(services=tuple(Service(name=f"s{n}", build=build) for n, build in enumerate(builds)))
    instances = [Instance(id=name, statement="", image="swe/flask:1", services=services) for name in ("one", "two")]
    contexts = {build: Context(folder, "FROM x\n", "aaa") for build in builds}
    found = plan(instances, replace(INPUTS, service_contexts=contexts))
    assert len(set(found.service_image_of.values())) == 3
    for build in builds:
        (image,) = (each for each in found.images if each.tag == found.service_image_of[build])
        assert image.instances == ("one", "two")
        assert (image.target, image.arguments) == (build.target, build.arguments)
        assert "COPY" not in found.dockerfile(image, Syntax())
    unread = plan(instances, INPUTS)
    assert {each.base for each in unread.unplanned} == {str(folder / "Dockerfile")}


def tags(plan: Plan) -> dict[str, str]:
    return dict(plan.image_of)


def changed(before: Plan, after: Plan) -> set[str]:
    return {name for name, tag in tags(before).items() if tags(after)[name] != tag}


def test_instances_become_distinct_images_with_readable_names() -> None:
    found = plan(INSTANCES, INPUTS)
    assert len(found.images) == 5
    assert {name: re.sub(r"-[0-9a-f]{12}", "-#", tag) for name, tag in tags(found).items()} == {
        "a": "evalkit:a-#-#",
        "b": "evalkit:b-#-#",
        "django": "evalkit:django_1776_django-11099-#-#",
        "flask-1": "evalkit:flask-1-#-#",
        "flask-2": "evalkit:flask-1-#-#",
        "plain": "evalkit:busybox-#-#",
    }
    flask = next(image for image in found.images if image.tag == tags(found)["flask-1"])
    assert flask.instances == ("flask-1", "flask-2")
    assert flask.needs == ("swe/flask:1",)
    assert all(str(reference.parse(image.tag)) == image.tag for image in found.images)


@pytest.mark.parametrize(
    "change",
    [
        {"sdist_sha256": "other"},
        {"installer_sha256": "other"},
        {"constraints_sha256": "other"},
        {"extra": ("more",)},
        {"architecture": "arm64"},
        {"strategy": "install"},
        {"base": Pinned("python:3.12-slim", "sha256:newer", "python@sha256:newer")},
    ],
)
def test_a_change_of_the_agent_changes_all_tags(change: dict[str, str]) -> None:
    before = plan(INSTANCES, INPUTS)
    after = plan(INSTANCES, replace(INPUTS, agent=replace(AGENT, **change)))  # type: ignore[arg-type]  # one of many
    assert changed(before, after) == set(tags(before))
    assert before.agent is not None
    assert after.agent is not None
    assert before.agent.tag != after.agent.tag


def test_a_change_of_one_task_changes_one_tag() -> None:
    contexts = {**INPUTS.contexts, FOLDER_A: Context(FOLDER_A, "FROM x\n", "other")}
    assert changed(plan(INSTANCES, INPUTS), plan(INSTANCES, replace(INPUTS, contexts=contexts))) == {"a"}


def test_a_base_that_moved_changes_the_tags_of_what_starts_from_it() -> None:
    bases = {**INPUTS.bases, "swe/flask:1": Pinned("swe/flask:1", "sha256:newer", "swe/flask@sha256:newer")}
    after = plan(INSTANCES, replace(INPUTS, bases=bases))
    assert changed(plan(INSTANCES, INPUTS), after) == {"flask-1", "flask-2"}


def test_a_base_of_a_dockerfile_that_moved_changes_what_is_built_from_it_and_is_what_is_built_from() -> None:
    moved = {"x": Pinned("x", "sha256:new", "x@sha256:new")}
    later = plan(INSTANCES, replace(INPUTS, dockerfile_bases={**INPUTS.dockerfile_bases, **moved}))
    assert changed(plan(INSTANCES, INPUTS), later) == {"a"}
    (image,) = (each for each in later.images if each.instances == ("a",))
    assert image.start.splitlines()[0] == "FROM x@sha256:new"
    assert image.needs == ("x",)


def test_a_dockerfile_whose_base_nobody_knows_has_no_tag_and_one_that_does_not_exist_is_told_by_its_build() -> None:
    unknown = replace(INPUTS, dockerfile_bases={"y": None}, problems={"x": "nobody knows whether it exists: no route"})
    planned = plan(INSTANCES, unknown)
    assert [(each.base, each.reason, each.instances) for each in planned.unplanned] == [
        ("x", "nobody knows whether it exists: no route", ("a",))
    ]
    assert [each.start for each in planned.images if each.instances == ("b",)] == ["FROM y\n"]


def test_build_arguments_are_named_by_the_tags_of_what_they_reach() -> None:
    after = plan(INSTANCES, replace(INPUTS, build_args={"VERSION": "2"}))
    assert changed(plan(INSTANCES, INPUTS), after) == {"a", "b"}


def test_the_same_inputs_give_the_same_tags_whatever_else_is_planned() -> None:
    alone = plan([INSTANCES[3]], INPUTS)
    assert tags(alone)["flask-1"] == tags(plan(INSTANCES, INPUTS))["flask-1"]


def test_without_an_agent_only_dockerfiles_are_built() -> None:
    found = plan(INSTANCES, replace(INPUTS, agent=None))
    assert [image.instances for image in found.images] == [("a",), ("b",)]
    assert tags(found)["django"] == "swe/django_1776_django-11099:latest"
    assert tags(found)["plain"] == "busybox"


def test_what_cannot_be_named_is_said_and_hinders_nothing_else() -> None:
    bases = {"swe/flask:1": INPUTS.bases["swe/flask:1"]}
    inputs = replace(INPUTS, bases=bases, contexts={}, problems={"busybox": "gone", str(FOLDER_A): "unreadable"})
    found = plan(INSTANCES, inputs)
    assert [image.base for image in found.images] == ["swe/flask:1"]
    assert {(each.base, each.reason, each.instances) for each in found.unplanned} >= {
        ("busybox", "gone", ("plain",)),
        (str(FOLDER_A / "Dockerfile"), "unreadable", ("a",)),
    }
    assert len(found.unplanned) == 4


def test_an_image_never_starts_from_its_own_tag() -> None:
    found = plan(INSTANCES, INPUTS)
    for image in found.images:
        text = found.dockerfile(image, Syntax())
        sources = [word for line in text.splitlines() for word in line.split() if line.startswith(("FROM", "COPY"))]
        assert not any(image.tag in source for source in sources)


def test_an_agent_layer_does_not_fit_another_architecture() -> None:
    assert AGENT.obstacle("amd64") is None
    assert AGENT.obstacle(None) is None
    assert "images.strategy=install" in str(AGENT.obstacle("arm64"))
    assert replace(AGENT, strategy="install").obstacle("arm64") is None
